//! Taking a connect back from another thread.
//!
//! Owns the flag and the list of those to be woken. Opens no descriptor: a connect that waits in a queue costs none. Any
//! thread.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes a connect back. Clones are the same.
///
/// The one who runs the connect [subscribes](Self::subscribe) whatever ends its wait; another thread calls
/// [`cancel`](Self::cancel), at any time, before, during or after.
///
/// # Examples
///
/// ```
/// let cancel = offshoot_connect::Cancel::new();
/// cancel.clone().cancel();
/// assert!(cancel.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct Cancel {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    wake: Vec<(u64, Box<dyn Fn() + Send>)>,
}

/// Keeps a subscription to a [`Cancel`]; its drop ends it, and after the drop the function is not called any more.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    cancel: Cancel,
    id: u64,
}

impl Cancel {
    /// Not cancelled.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Cancels, and wakes all subscribers; from the second time on it does nothing.
    pub fn cancel(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.cancelled, true) {
            for (_, wake) in &state.wake {
                wake();
            }
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Calls `wake` when it is cancelled; at once, on this thread, when it is already. `wake` must be short, must not
    /// panic, and must not use this `Cancel`: it runs under its lock.
    pub fn subscribe(&self, wake: impl Fn() + Send + 'static) -> Subscription {
        let mut state = self.lock();
        if state.cancelled {
            wake();
        }
        let id = state.next;
        state.next += 1;
        state.wake.push((id, Box::new(wake)));
        Subscription { cancel: self.clone(), id }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.cancel.lock().wake.retain(|(id, _)| *id != self.id);
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn counter() -> (Arc<AtomicUsize>, impl Fn() + Send + 'static) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        (count, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[test]
    fn each_subscriber_is_woken_once_however_often_it_is_cancelled() {
        let cancel = Cancel::new();
        let (count, wake) = counter();
        let subscription = cancel.subscribe(wake);
        assert_eq!(count.load(Ordering::SeqCst), 0);
        cancel.cancel();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(subscription);
    }

    #[test]
    fn who_comes_late_is_woken_at_once_and_who_left_is_not() {
        let cancel = Cancel::new();
        let (left, wake) = counter();
        drop(cancel.subscribe(wake));
        cancel.cancel();
        assert_eq!(left.load(Ordering::SeqCst), 0);
        let (late, wake) = counter();
        let _subscription = cancel.subscribe(wake);
        assert_eq!(late.load(Ordering::SeqCst), 1);
    }
}
