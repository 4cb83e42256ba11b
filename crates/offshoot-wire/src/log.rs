//! The body of [`FrameKind::Log`](crate::FrameKind::Log): a log record on its way to the root.

use serde::Serialize;

use crate::reader::{Reader, read_fields};

/// A log record. Who made it is told by the frame, never by the record (S8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogRecord {
    /// Which record of its context this is, counted from 1, those included that were dropped: a gap tells how many.
    pub seq: u64,
    /// How serious it is: 1 error, 2 warning, 3 information, 4 debug, 5 trace. 0 is no record, and tells only how many
    /// there were before it.
    pub level: u8,
    /// When it was made, by its machine's clock: microseconds since 1970.
    pub unix_us: u64,
    /// What it is about, by default the module that made it.
    pub module: String,
    /// The name of the thread that made it; empty when it has none.
    pub thread: String,
    /// What it says.
    pub text: String,
}

read_fields!(LogRecord { seq, level, unix_us, module = Reader::name, thread = Reader::name, text });
