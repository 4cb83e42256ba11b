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
//! This crate is a thin facade. Each layer is a crate of its own and works alone: `offshoot-wire` (the protocol),
//! `offshoot-route` (a node without IO), `offshoot-mux` (poll loop and processes), `offshoot-connect` (methods and
//! bootstrap), `offshoot-node` (one running node), `offshoot-program` (the master and its agents).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub use offshoot_connect::{Answers, Asking, Responder, Target, TargetError, methods};
pub use offshoot_macros::{main, remote};
pub use offshoot_node::{
    Command, Context, Controller, Error, Event, ExitStatus, Finished, Input, Output, Pending, Process, Stdio, TRIPLE,
    Terminal, TerminalSize, VERSION, Via,
};
#[doc(hidden)]
pub use offshoot_program::expansion as __expansion;
pub use offshoot_program::{
    Agents, Builder, Call, Completed, FoundAgent, Here, Master, Origin, PendingCall, RemoteError, RemoteErrorKind,
    Select, init,
};
pub use offshoot_wire as wire;
pub use offshoot_wire::Secret;

/// What most programs need: `use offshoot::prelude::*`.
pub mod prelude {
    pub use crate::methods::{Local, Method, Ssh, Sudo};
    pub use crate::{
        Command, Context, Event, ExitStatus, Finished, Here, Master, PendingCall, Process, RemoteError, Select, Stdio,
    };
}
