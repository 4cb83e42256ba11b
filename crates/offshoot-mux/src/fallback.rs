//! Switches that pretend an old kernel, so that tests run the ways around it on a new one. Not part of the API.

use std::sync::atomic::{AtomicU32, Ordering};

/// No eventfd: wake-ups by pipe.
pub const NO_EVENTFD: u32 = 1 << 0;
/// No pidfd: a watching thread for each child, signals by pid.
pub const NO_PIDFD: u32 = 1 << 1;
/// No `clone` with shared memory: children start by `fork`.
pub const FORK: u32 = 1 << 2;
/// No `close_range`.
pub const NO_CLOSE_RANGE: u32 = 1 << 3;
/// No `/proc` at all.
pub const NO_PROC: u32 = 1 << 4;
/// No `execveat`.
pub const NO_EXECVEAT: u32 = 1 << 5;
/// No signalfd: a handler and a pipe.
pub const NO_SIGNALFD: u32 = 1 << 6;
/// No `/proc/PID/task/TID/children`: scan all of `/proc`.
pub const NO_PROC_CHILDREN: u32 = 1 << 7;
/// A kernel that does not know `MFD_EXEC`.
pub const NO_MFD_EXEC: u32 = 1 << 8;
/// No `openat2`.
pub const NO_OPENAT2: u32 = 1 << 9;

static FORCED: AtomicU32 = AtomicU32::new(0);

/// Pretends for the whole process from now on.
pub fn force(switches: u32) {
    FORCED.store(switches, Ordering::Relaxed);
}

pub(crate) fn forced(switch: u32) -> bool {
    FORCED.load(Ordering::Relaxed) & switch != 0
}
