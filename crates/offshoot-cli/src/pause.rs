//! The pause while the user has stopped us: nothing is shown, and nothing is read.
//!
//! Whoever is about to write to the terminal or to read from it waits here. So nobody reads from the targets, their
//! output waits in its windows, and the producers stall; the broker knows nothing of it.

use std::sync::{Condvar, Mutex, PoisonError};

static PAUSED: Mutex<bool> = Mutex::new(false);
static OVER: Condvar = Condvar::new();

/// The pause begins. What is being written now still gets out.
pub(crate) fn begin() {
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = true;
}

/// The pause is over.
pub(crate) fn end() {
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner) = false;
    OVER.notify_all();
}

/// Whether there is one.
pub(crate) fn is_on() -> bool {
    *PAUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for its end.
pub(crate) fn wait() {
    let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
    while *paused {
        paused = OVER.wait(paused).unwrap_or_else(PoisonError::into_inner);
    }
}
