#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod child;
pub mod crew;
mod end;
#[doc(hidden)]
pub mod fallback;
pub mod image;
pub mod io;
pub mod lead;
mod out;
mod poller;
pub mod process;
mod signals;
mod spawn;
mod sync;
mod sys;
pub mod thread;
mod timers;
pub mod tree;
pub mod tty;
mod wake;

pub use child::{Child, Reaped, Reaper};
pub use end::{EndPlan, EndReport, ask_processes, end_processes, end_tree};
pub use out::{Full, OutQueue, Progress};
pub use poller::{Event, Events, Interest, Poller, Registry, Token, Waker};
pub use signals::{Signals, ignore_sigpipe, reset_all_signals};
pub use spawn::{Limit, Spawn, SpawnError, Stdio};
#[cfg(offshoot_main)]
#[doc(hidden)]
pub use sys::thread::begin;
pub use timers::{TimerId, Timers};
pub use wake::{Ready, WakeFd, WakeFlag, wait_readable};

#[cfg(loom)]
pub use wake::Bell;
