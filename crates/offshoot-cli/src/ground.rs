//! What the commands need of a tree of contexts, and nothing more.
//!
//! [`crate::tree`] is the real one; tests have another. So what the commands do with failures, slow targets and
//! interruptions is tested without machines.

#[cfg(test)]
pub(crate) mod fake;

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::fault::Fault;
use crate::output::{End, Stream};

/// A context: the root, or something connected below it. A cheap handle.
pub(crate) trait Ground: Clone + Send + Sync {
    /// One hop of a target's path.
    type Hop: Clone + Eq + std::hash::Hash + Send + Sync;
    /// A command that runs.
    type Process: Running;

    /// Connects a context below this one. Blocks, bounded by the connect's deadline.
    fn connect(&self, hop: &Self::Hop) -> Result<Self, Box<Fault>>;
    /// The names from the root, joined with ` -> `.
    fn path(&self) -> String;
    /// Starts a command, with a stdin that is fed, or an empty one.
    fn start(&self, job: &Job, fed: bool) -> Result<Self::Process, Box<Fault>>;
    /// What the context says of itself, and how far away it is.
    fn facts(&self) -> Result<Facts, Box<Fault>>;
    /// Ends the context and all below it.
    fn close(&self);
}

/// A command that runs. Dropping it ends it.
pub(crate) trait Running {
    /// What takes its stdin; `None` when that is empty, or was taken before.
    fn stdin(&mut self) -> Option<Box<dyn Stdin>>;
    /// The next thing that it does. Blocks.
    fn event(&mut self) -> Result<Event, Box<Fault>>;
}

/// The stdin of a command that runs. Dropping it ends the input.
pub(crate) trait Stdin: Send {
    /// Sends all of `bytes`. Blocks while the command does not read.
    ///
    /// # Errors
    /// When the command reads no more.
    fn write(&mut self, bytes: Bytes) -> io::Result<()>;
}

/// Something that a command did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It wrote.
    Output(Stream, Bytes),
    /// It ended; `true` because its time was up.
    End(End, bool),
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    pub(crate) program: OsString,
    pub(crate) args: Vec<OsString>,
    /// After which time it is ended.
    pub(crate) timeout: Option<Duration>,
}

/// What a context says of itself, and how far away it is. The texts are foreign.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) triple: String,
    pub(crate) latency: Duration,
    /// Bytes that it received from its parent.
    pub(crate) received: u64,
    /// Bytes that it sent to its parent.
    pub(crate) sent: u64,
}
