//! Whichever of several calls ends next.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_mux::WakeFd;
use offshoot_mux::lead::Slot;
use offshoot_node::{Context, Error};

use crate::PendingCall;

/// How often is looked when the process has no descriptor left to be woken by.
const LOOK: Duration = Duration::from_millis(5);

/// Calls that are under way, given out as they end: an iterator. Calls that are left when it is dropped are cancelled.
///
/// # Examples
///
/// ```no_run
/// # use offshoot_program::{PendingCall, Select};
/// # fn demo(calls: Vec<PendingCall<u64>>) {
/// for done in Select::new(calls) {
///     println!("{:20} {:?}", done.context(), done.result());
/// }
/// # }
/// ```
#[must_use = "dropping it cancels the calls that are left"]
pub struct Select<T> {
    calls: Vec<Watched<T>>,
    wake: Option<Arc<WakeFd>>,
    added: usize,
}

struct Watched<T> {
    index: usize,
    call: PendingCall<T>,
    /// Completed when something has happened to the call since it was last looked at.
    ticket: Option<Arc<Slot<()>>>,
}

impl<T> Select<T> {
    /// A selection of these calls. Those that have ended already are given out first.
    pub fn new(calls: impl IntoIterator<Item = PendingCall<T>>) -> Select<T> {
        let mut select = Select { calls: Vec::new(), wake: WakeFd::new().ok().map(Arc::new), added: 0 };
        for call in calls {
            select.add(call);
        }
        select
    }

    /// Adds a call, also while others are being waited for, and yields its number: the calls are counted from 0.
    pub fn add(&mut self, call: PendingCall<T>) -> usize {
        let index = self.added;
        self.added += 1;
        self.calls.push(Watched { index, call, ticket: None });
        index
    }

    /// How many calls are left.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call is left.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The next call that ends; `None` when none is left, or none has ended within `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Completed<T>> {
        self.next_before(Instant::now().checked_add(timeout))
    }

    fn next_before(&mut self, deadline: Option<Instant>) -> Option<Completed<T>> {
        loop {
            if let Some(wake) = &self.wake {
                wake.acknowledge();
            }
            let now = Instant::now();
            let ended = self.calls.iter_mut().position(|watched| watched.has_ended(self.wake.as_ref(), now));
            if let Some(at) = ended {
                let Watched { index, call, .. } = self.calls.swap_remove(at);
                let (context, function) = (call.context().clone(), call.function());
                return Some(Completed { index, context, function, result: call.wait() });
            }
            if self.calls.is_empty() || deadline.is_some_and(|deadline| deadline <= now) {
                return None;
            }
            let until = self.calls.iter().filter_map(|watched| watched.call.deadline()).chain(deadline).min();
            let left = until.map(|until| until.saturating_duration_since(now));
            match &self.wake {
                // An error is like a wake-up without a reason: all is looked at again, after a moment.
                Some(wake) if wake.wait(&[], left).is_ok() => {}
                _ => std::thread::sleep(left.unwrap_or(LOOK).min(LOOK)),
            }
        }
    }
}

impl<T> Watched<T> {
    fn has_ended(&mut self, wake: Option<&Arc<WakeFd>>, now: Instant) -> bool {
        if self.call.deadline().is_some_and(|deadline| deadline <= now) {
            return true;
        }
        if self.ticket.as_ref().is_some_and(|ticket| !ticket.is_done()) {
            return false;
        }
        let ticket = Arc::new(Slot::new());
        if let Some(wake) = wake {
            ticket.attach(wake);
        }
        let ended = self.call.has_ended(&ticket);
        // Nobody wakes without a descriptor: then it is asked each time.
        self.ticket = wake.map(|_| ticket);
        ended
    }
}

impl<T> Iterator for Select<T> {
    type Item = Completed<T>;

    fn next(&mut self) -> Option<Completed<T>> {
        self.next_before(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.calls.len(), Some(self.calls.len()))
    }
}

impl<T> fmt::Debug for Select<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select").field("left", &self.calls.len()).finish_non_exhaustive()
    }
}

/// A call that has ended.
#[derive(Debug)]
pub struct Completed<T> {
    index: usize,
    context: Context,
    function: &'static str,
    result: Result<T, Error>,
}

impl<T> Completed<T> {
    /// Its number, in the order in which calls were added.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The context that it was started on.
    pub fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// What it ended with.
    pub fn result(&self) -> &Result<T, Error> {
        &self.result
    }

    /// What it ended with.
    ///
    /// # Errors
    /// As [`Call::on`](crate::Call::on).
    pub fn into_result(self) -> Result<T, Error> {
        self.result
    }
}
