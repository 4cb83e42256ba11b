//! What a node is told at its start.

use std::sync::Arc;
use std::time::Duration;

use offshoot_connect::{LocalImage, Payloads};
use offshoot_route::Config;
use offshoot_wire::AttendSpec;

use crate::images::Images;

/// What a node is told at its start.
///
/// # Examples
///
/// ```
/// use offshoot_node::{Options, OwnImage};
/// let mut options = Options::new(std::sync::Arc::new(OwnImage::new()));
/// options.connects = 8;
/// options.process_name = "my-tree".into();
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The routing core's limits.
    pub route: Config,
    /// How many connects run at once; more wait their turn. 32 by default: each holds a thread, a tool and some
    /// descriptors for as long as a login takes.
    pub connects: usize,
    /// What this node starts on its own machine for a local context.
    pub image: Arc<dyn LocalImage>,
    /// Where the agents for other machines come from; `None` asks the parent.
    pub payloads: Option<Arc<dyn Payloads>>,
    /// Where the images of the user's program come from, for workers in contexts that are no copies of it; `None` asks the
    /// parent.
    pub images: Option<Arc<dyn Images>>,
    /// What the processes of new contexts are called in `ps`.
    pub process_name: String,
    /// The limits of the workers that this process starts for its calls.
    pub workers: WorkerLimits,
}

impl Options {
    /// The defaults: what a local context is started from is the one thing that has none.
    pub fn new(image: Arc<dyn LocalImage>) -> Options {
        Options {
            route: Config::default(),
            connects: CONNECTS,
            image,
            payloads: None,
            images: None,
            process_name: crate::process_name(),
            workers: WorkerLimits::default(),
        }
    }
}

/// The limits of a worker.
///
/// # Examples
///
/// ```
/// use offshoot_node::WorkerLimits;
/// let limits = WorkerLimits::default().calls(4).memory(Some(1 << 30)).idle(None);
/// assert_eq!((limits.calls, limits.memory), (4, Some(1 << 30)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLimits {
    /// How many calls run side by side in it, each on a thread of its own; more wait their turn. 64 by default, at most
    /// 4096.
    pub calls: u32,
    /// How much memory it may have, in bytes of address space; what is allocated beyond that ends it. No limit by default.
    pub memory: Option<u64>,
    /// After how long without a call, a child or a connect it ends; the next call starts another, with fresh statics.
    /// Five minutes by default; `None` is never.
    pub idle: Option<Duration>,
    /// How many workers of this process there may be in one context at once, those of their own included; 64 by default. It is
    /// the process's limit: of one worker it means nothing.
    pub count: u32,
}

impl Default for WorkerLimits {
    fn default() -> WorkerLimits {
        WorkerLimits { calls: 64, memory: None, idle: Some(Duration::from_secs(300)), count: 64 }
    }
}

impl WorkerLimits {
    /// The same, with [so many calls](Self::calls) side by side.
    #[must_use]
    pub fn calls(mut self, calls: u32) -> WorkerLimits {
        self.calls = calls;
        self
    }

    /// The same, with [so much memory](Self::memory).
    #[must_use]
    pub fn memory(mut self, memory: Option<u64>) -> WorkerLimits {
        self.memory = memory;
        self
    }

    /// The same, ending after [so long without work](Self::idle).
    #[must_use]
    pub fn idle(mut self, idle: Option<Duration>) -> WorkerLimits {
        self.idle = idle;
        self
    }

    /// The same, with [so many workers](Self::count) in a context.
    #[must_use]
    pub fn count(mut self, count: u32) -> WorkerLimits {
        self.count = count;
        self
    }

    pub(crate) fn spec(&self) -> AttendSpec {
        let idle = self.idle.map_or(0, |idle| u32::try_from(idle.as_millis().max(1)).unwrap_or(u32::MAX));
        AttendSpec { calls: self.calls.max(1), memory: self.memory.unwrap_or(0), idle_ms: idle }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("connects", &self.connects).finish_non_exhaustive()
    }
}

/// The default of [`Options::connects`].
pub const CONNECTS: usize = 32;
