//! Write distributed, self-replicating programs.
//!
//! From nothing but a login a program grows agents of itself on other machines and accounts, hop behind hop, in RAM,
//! with nothing installed and nothing left behind; then it runs commands there, side by side, with live output and exact
//! exit codes.
//!
//! ```no_run
//! use offshoot::prelude::*;
//!
//! fn main() -> Result<(), offshoot::Error> {
//!     offshoot::init();
//!     let master = Master::new()?;
//!     let jump = master.ssh("jump.example.org").connect()?;
//!     for host in jump.connect_all([Ssh::to("web1"), Ssh::to("web2")]) {
//!         let host = host?;
//!         let output = host.command("uptime").output()?;
//!         print!("{}: {}", host.path(), String::from_utf8_lossy(&output.stdout));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Functions of the program itself run in other contexts, too, each context's in a process of their own. They are ordinary
//! functions, marked with [`macro@remote`]:
//!
//! ```no_run
//! use offshoot::prelude::*;
//!
//! #[offshoot::remote]
//! fn size(path: std::path::PathBuf) -> std::io::Result<u64> {
//!     Ok(std::fs::metadata(path)?.len())
//! }
//!
//! #[offshoot::main]
//! fn main(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
//!     let contexts = [master.local().connect()?, master.local().connect()?];
//!     println!("{}", size::on(&contexts[0], "/etc/passwd".into())??); // ours, then the function's own
//!     for done in Select::new(contexts.iter().map(|context| size::start(context, "/etc/hosts".into()))) {
//!         println!("{:20} {:?}", done.context(), done.result());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A [`Context`], the ends of a [`channel`], those of a [`pipe`] and a [`RemoteFile`] travel in arguments and values, too, with
//! the right to use them: a function calls functions in the contexts that it is given, and what it sends is received here while it runs. Errors
//! on either side reach the other; nobody waits for who is gone.
//!
//! ```no_run
//! use offshoot::prelude::*;
//!
//! #[offshoot::remote]
//! fn names(of: Vec<Context>, found: Sender<String>) -> Result<(), offshoot::Error> {
//!     of.iter().try_for_each(|context| found.send(&hostname::on(context)?))
//! }
//!
//! #[offshoot::remote]
//! fn hostname() -> String {
//!     std::fs::read_to_string("/etc/hostname").unwrap_or_default()
//! }
//!
//! #[offshoot::main]
//! fn main(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
//!     let contexts = [master.local().connect()?, master.local().connect()?];
//!     let (sender, receiver) = offshoot::channel(8);
//!     let call = names::start(&contexts[0], contexts.to_vec(), sender);
//!     for name in receiver.iter() {
//!         println!("{}", name?);
//!     }
//!     Ok(call.wait()??)
//! }
//! ```
//!
//! What cannot travel does not compile:
//!
//! ```compile_fail,E0277
//! #[offshoot::remote]
//! fn pass(handle: std::fs::File) {}
//! # fn main() {}
//! ```
//!
//! Beyond that:
//!
//! - [`Group`]: several contexts that take every verb that one takes, with a result for each.
//! - [`Call`]: a call with a [timeout](Call::timeout), one that [nobody waits for](Call::detached), or one that runs
//!   [behind others](Call::serial) in a [`Chain`], which stops at the first error.
//! - [`Worker`]: a process of its own for some calls, with limits of its own.
//! - [`log::init`]: shows what functions print and log, wherever they run.
//! - Passwords: [`Via::password`](Via#method.password) gives one, and a [`Responder`] is asked for what is not known beforehand,
//!   codes and host keys too. Without either a login that asks fails, with an error that says what was asked.
//!
//! This crate is a thin facade. Each layer is a crate of its own and works alone: `offshoot-wire` (the protocol),
//! `offshoot-route` (a node without IO), `offshoot-forward` (images and files by hash, without IO), `offshoot-mux` (poll loop
//! and processes), `offshoot-connect` (methods and bootstrap), `offshoot-image` (what an executable says of itself),
//! `offshoot-node` (one running node), `offshoot-program` (the master and its agents), `offshoot-macros` (the attributes).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod log;

pub use bytes::Bytes;
pub use offshoot_connect::{Answers, Asking, Responder, Target, TargetError, TargetProblem, methods};
pub use offshoot_macros::{main, remote};
pub use offshoot_node::{
    Command, Context, Controller, Error, Event, ExitStatus, Finished, Image, Input, Output, Pending, PipeReader,
    PipeWriter, Process, Receiver, Sender, Stdio, TRIPLE, Terminal, TerminalSize, VERSION, Via, WorkerLimits, channel,
    pipe,
};
#[doc(hidden)]
pub use offshoot_program::expansion as __expansion;
pub use offshoot_program::{
    Agents, Builder, Call, Chain, Completed, Each, FoundAgent, Group, Here, ImageMissing, Images, Master, Origin,
    PendingCall, RemoteError, RemoteErrorKind, RemoteFile, Results, Select, Worker, init,
};
pub use offshoot_wire::{
    Address, Asks, AuthFailure, ChildHello, ConnectStage, ContentRef, ContentStats, Failure, FailureKind,
    HostKeyFailure, Limits, LostReason, NodeInfo, Packing, Question, Ran, RemoteFailure, Report, Resource, Secret,
    escape,
};

/// What a connection method of one's own is made of: a [`Method`](methods::Method) yields a [`Recipe`](recipe::Recipe), plain
/// data that the context which logs in carries out, so no agent has to know the method.
pub mod recipe {
    pub use offshoot_connect::methods::{OptionProblem, RecipeError};
    pub use offshoot_wire::{Hint, Meaning, Prompt, Prompts, Recipe, Start};
}

/// What most programs need: `use offshoot::prelude::*`.
pub mod prelude {
    pub use crate::methods::{Doas, Local, Method, Ssh, Su, Sudo};
    pub use crate::{
        Command, Context, Event, ExitStatus, Finished, Group, Here, Master, PendingCall, PipeReader, PipeWriter,
        Process, Receiver, RemoteError, RemoteFile, Select, Sender, Stdio,
    };
}
