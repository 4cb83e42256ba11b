#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[doc(hidden)]
pub mod fallback;
pub mod io;
pub mod lead;
mod out;
mod poller;
mod sync;
mod sys;
mod timers;
mod wake;

pub use out::{Full, OutQueue, Progress};
pub use poller::{Event, Events, Interest, Poller, Registry, Token, Waker};
pub use timers::{TimerId, Timers};
pub use wake::{Ready, WakeFd, WakeFlag};

#[cfg(not(loom))]
pub use wake::wait_readable;
