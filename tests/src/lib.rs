//! Fixtures of real peers, and what the end-to-end tests share.
//!
//! Owns: starting sshds, hosts made of namespaces, servers that misbehave and slow links; running the `offshoot` command with a deadline; finding its
//! processes; and the check after each test that nothing is left. Must not know how the product works inside: it sees a command line, processes and
//! bytes. Everything here blocks, runs on the test's own thread, and ends: each wait has a deadline.

#![forbid(unsafe_code)]
// Fixtures are no API: a panic of theirs is a test that fails, and nobody prints them.
#![allow(missing_debug_implementations, clippy::missing_panics_doc)]
#![deny(missing_docs)]

pub mod accounts;
pub mod bed;
pub mod bounded;
pub mod cgroup;
pub mod expect;
pub mod fleet;
pub mod host;
pub mod meter;
pub mod not_run;
pub mod process;
pub mod product;
pub mod relay;
pub mod sampler;
pub mod servers;
pub mod sshd;
pub mod tag;
pub mod terminal;
pub mod tmux;
pub mod tree;
mod twist;
pub mod watched;

pub use accounts::Accounts;
pub use bounded::Finished;
pub use cgroup::{Memory, Pids};
pub use fleet::{Fleet, Peer};
pub use host::{Host, Network, Profile};
pub use not_run::Unavailable;
pub use process::Process;
pub use product::{Offshoot, Running};
pub use relay::Relay;
pub use servers::Server;
pub use sshd::Sshd;
pub use tag::Tag;
pub use terminal::Terminal;
pub use tmux::Tmux;
pub use tree::Tree;
pub use watched::Watched;
