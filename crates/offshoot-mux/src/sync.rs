//! The synchronisation types of the parts that loom checks: std's, or loom's under `--cfg loom`.

use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};

/// Locks, whether or not a thread panicked while it held the lock: no critical section of this crate runs foreign code
/// or leaves its data half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
