//! Workers of their own: processes that run functions for one holder.

use std::time::Duration;

use offshoot_node::{Context, Error, Output, WorkerLimits};

use crate::identity::identity;

/// A worker of its own in a context: a process that runs functions for whoever holds it, beside the one that the context
/// has for everybody. Calls on the context that [`start`](Worker::start) yields run in it, and it ends when the last
/// handle to that is dropped.
///
/// For functions that need statics, limits or an end of their own: [`Call::kill_on_cancel`](crate::Call::kill_on_cancel).
///
/// # Examples
///
/// ```no_run
/// # fn demo(web: &offshoot_node::Context) -> Result<(), offshoot_node::Error> {
/// let worker = offshoot_program::Worker::on(web).memory(512 << 20).start()?;
/// // usage::on(&worker, "/var".into())
/// # drop(worker); Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `start` is called"]
pub struct Worker {
    context: Context,
    limits: WorkerLimits,
    within: Option<Duration>,
}

impl Worker {
    /// One in this context.
    pub fn on(context: &Context) -> Worker {
        Worker { context: context.clone(), limits: WorkerLimits::default(), within: None }
    }

    /// How much memory it and each process that it starts may have, in bytes of address space; what is allocated beyond
    /// that fails, which ends a Rust program. A process starts with some hundred MiB of address space on machines with
    /// many processors, most of it never used.
    pub fn memory(mut self, bytes: u64) -> Worker {
        self.limits.memory = Some(bytes);
        self
    }

    /// How many calls run in it side by side; more wait their turn. 64 by default, at least 1.
    pub fn calls(mut self, limit: u32) -> Worker {
        self.limits.calls = limit;
        self
    }

    /// How long the start may take in all; 30 s by default, 15 minutes where the image of the program has to come first.
    pub fn start_timeout(mut self, timeout: Duration) -> Worker {
        self.within = Some(timeout);
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// As [`Context::connect`]; when the context has no image of this program.
    pub fn start(self) -> Result<Context, Error> {
        self.context.own_worker(self.identity()?, self.limits, self.within)
    }

    /// Starts it with its stdout and stderr as streams, which then are not in the log. What is not read makes it wait; it
    /// ends when both streams are dropped.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_streamed(self) -> Result<(Context, Output, Output), Error> {
        self.context.own_worker_streamed(self.identity()?, self.limits, self.within)
    }

    fn identity(&self) -> Result<[u8; 32], Error> {
        identity().map_err(|failure| Error::new(failure, self.context.path()))
    }
}
