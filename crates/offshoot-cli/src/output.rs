//! Output: what the targets said, in the form that was asked for.
//!
//! This module owns the forms (live lines, gathered groups, JSON Lines, raw bytes) and the console that they share. It
//! must not know how a target is reached or what runs there. A [`Printer`] is shared by all threads; each target's
//! [`TargetPrinter`] stays on the thread that runs the target.
//!
//! What bounds the memory: a target holds at most one line of [`lines::LINE_MAX`] bytes per stream. When our own output
//! blocks, the thread that writes blocks with the console's lock, the others queue for the lock, nobody reads from the
//! targets, and so the targets stall.

mod color;
mod console;
mod group;
mod json;
mod lines;
mod live;
mod raw;
mod report;

use std::io;
use std::time::Duration;

pub(crate) use color::Palette;
#[cfg(test)]
pub(crate) use console::testing;
pub(crate) use console::{Console, Stream};
pub(crate) use group::Grouped;
pub(crate) use json::{Json, append_record};
pub(crate) use live::Live;
pub(crate) use raw::Raw;
pub(crate) use report::{fault_block, summary};

use crate::fault::Fault;

/// How the work on one target ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The command ran and ended.
    Ended {
        /// How.
        end: End,
        /// Whether it was ended because its time was up.
        timed_out: bool,
        /// How long it ran, the connect not counted.
        took: Duration,
    },
    /// It could not be run, or not be followed to its end.
    Failed(Box<Fault>),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// A form of output.
pub(crate) trait Printer: Sync {
    /// The printer of one target, whose context is known by `path`.
    ///
    /// # Errors
    /// What writing to our own output met.
    fn begin<'a>(&'a self, target: usize, path: &str) -> io::Result<Box<dyn TargetPrinter + 'a>>;

    /// `targets` never began, all for the same reason.
    ///
    /// # Errors
    /// What writing to our own output met.
    fn failed(&self, targets: &[usize], fault: &Fault) -> io::Result<()>;

    /// All targets ended with these outcomes' exit codes; `None` for those that were never reached because of an
    /// interruption.
    ///
    /// # Errors
    /// What writing to our own output met.
    fn finish(&self, verdict: &Verdict) -> io::Result<()>;
}

/// The output of one target.
pub(crate) trait TargetPrinter {
    /// Bytes came.
    ///
    /// # Errors
    /// What writing to our own output met.
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()>;

    /// Why nothing more of it can be taken, if that is so: then what runs there is ended, and this is its outcome.
    fn full(&self) -> Option<Box<Fault>> {
        None
    }

    /// Nothing more comes. A failure that was not caused by our own interruption is reported.
    ///
    /// # Errors
    /// What writing to our own output met.
    fn end(self: Box<Self>, outcome: &Outcome) -> io::Result<()>;
}

/// How a whole run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How many targets there were.
    pub(crate) targets: usize,
    /// The targets that did not end with status 0, and a few words why, in the order they were given.
    pub(crate) failed: Vec<(usize, String)>,
    /// What the command exits with.
    pub(crate) code: u8,
    /// Whether it was cut short.
    pub(crate) interrupted: bool,
}
