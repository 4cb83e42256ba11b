#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod bootstrap;
pub mod bundle;
mod cancel;
mod cut;
mod deadlines;
mod engine;
pub mod methods;
mod names;
mod target;

pub use cancel::{Cancel, Subscription};
pub use engine::{
    AGENT_ARGUMENT, Connected, Connecting, Image, LinkIo, LocalImage, Payloads, SOCKET_ARGUMENT, WORKER_ARGUMENT,
    connect,
};
pub use names::NameError;
pub use target::{Target, TargetError, TargetProblem};
