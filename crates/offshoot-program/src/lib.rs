//! What a program of the user's needs around a tree: the [`Master`], and the search for the agents that it sends out.
//!
//! Owns the start of a tree, the search order of agents, and [`init`], by which a program can become an agent itself.
//! Must not know how links are made. Everything here may be used from any thread.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod agents;
mod local;
mod master;

pub use agents::{Agents, FoundAgent, Origin};
pub use master::{Builder, Master, init};
