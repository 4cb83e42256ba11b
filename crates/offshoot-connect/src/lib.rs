#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod answers;
pub mod bootstrap;
pub mod bundle;
mod cancel;
mod cut;
mod deadlines;
mod engine;
pub mod methods;
mod names;
pub mod prompt;
mod target;

pub use answers::{Answers, Asking, Responder};
pub use cancel::{Cancel, Subscription};
pub use engine::{
    AGENT_ARGUMENT, APART, APART_ARGUMENT, Asker, Connected, Connecting, Executable, Image, LinkIo, LocalImage,
    Payloads, Reply, Terminal, WORKER_ARGUMENT, connect,
};
pub use names::NameError;
pub use target::{Target, TargetError, TargetProblem};
