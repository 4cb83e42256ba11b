//! What a program of the user's needs around a tree: the [`Master`], the search for the agents that it sends out, and the
//! functions that it runs in other contexts.
//!
//! Owns the start of a tree, the search orders of agents and images, the registry of remote functions with their calls, the
//! program's identity, and [`init`], by which a program can become an agent or a worker itself.
//! Must not know how links are made. Everything here may be used from any thread.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod agents;
mod chain;
mod detached;
#[doc(hidden)]
pub mod expansion;
mod file;
mod group;
mod here;
mod identity;
mod images;
mod local;
mod master;
mod own;
mod registry;
mod remote;
mod select;
mod thrown;
mod trust;
mod worker;

pub use agents::{Agents, FoundAgent, Origin};
pub use chain::Chain;
pub use file::RemoteFile;
pub use group::{Each, Group, Results};
pub use here::Here;
pub use images::{ImageMissing, Images};
pub use master::{Builder, Master, init};
pub use remote::{Call, PendingCall};
pub use select::{Completed, Select};
pub use thrown::{RemoteError, RemoteErrorKind};
pub use worker::Worker;
