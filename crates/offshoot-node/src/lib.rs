//! One running node of an offshoot tree: the broker thread, the core behind its lock, the services, and the blocking
//! handles that programs hold.
//!
//! Owns [`Root`] (a tree in a process of the user's), [`Context`] and [`Command`] (what programs do with it), and
//! [`agent`] (what a bootstrapped process does). Must not know remote functions or the command line. The handles block
//! and may be used from any thread; the broker blocks on nothing but an agent's start of a command.
//!
//! Most programs use this crate through the facade `offshoot`, which adds the search for agents.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod agent;
mod asked;
mod asking;
mod broker;
mod calling;
mod channel;
mod command;
mod connecting;
mod context;
mod error;
mod far;
mod feeding;
mod fetching;
#[doc(hidden)] // what `offshoot-program` builds its calls of
pub mod handover;
mod home;
mod identity;
mod ids;
mod image;
mod images;
mod lane;
mod link;
mod links;
mod options;
mod pending;
mod pieces;
mod pipe;
mod pool;
mod process;
mod records;
mod root;
mod services;
mod shared;
mod sources;
mod state;
mod streams;
mod supervise;
mod verbs;
mod via;
mod width;
mod workers;

pub use calling::Calling;
pub use channel::{Receiver, Sender, channel};
pub use command::{Command, Stdio};
pub use context::Context;
pub use error::Error;
pub use identity::{TRIPLE, VERSION, process_name};
pub use image::{Identity, OwnImage};
pub use images::{Image, Images};
pub use offshoot_wire::{Terminal, TerminalSize};
pub use options::{CONNECTS, Options, WorkerLimits};
pub use pending::Pending;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use process::{Controller, Event, ExitStatus, Finished, Process};
pub use root::Root;
pub use services::{Calls, Invocation};
pub use streams::{Input, Output};
pub use via::Via;
