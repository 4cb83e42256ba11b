//! One exchange that this process asked, as its threads hold it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_mux::lead::Slot;
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{Address, Failure, FailureKind, Grant, Ran, Verb};

use crate::Error;
use crate::shared::{Elapsed, Shared, Ticket};
use crate::state::State;

/// How often a request that found no room on its link is tried again without being told.
const ROOM: Duration = Duration::from_millis(100);

/// How often one is tried again while as many are under way as may: any answer makes a place, and nothing tells of it.
const PLACE: Duration = Duration::from_millis(5);

/// When a request leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// From this thread, which is about to wait for the answer.
    Now,
    /// Together with others, when many are under way.
    Soon,
}

/// An exchange under way. Dropping it cancels what was asked.
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    id: ExchangeId,
    target: Address,
    path: Arc<str>,
    unwanted: Option<Unwanted>,
}

/// What is done with a good answer that nobody waits for any more. Runs under the node's lock.
pub(crate) type Unwanted = Box<dyn FnOnce(Bytes) + Send + Sync>;

/// Who is asked, and by what right.
#[derive(Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) address: &'a Address,
    pub(crate) path: &'a Arc<str>,
    /// None where it lies below this process.
    pub(crate) grant: Option<&'a Grant>,
}

impl Exchange {
    /// Asks `peer` for `verb`. Blocks while as many requests are under way as the core allows.
    pub(crate) fn ask(peer: Peer<'_>, verb: Verb, body: Bytes, sending: Sending) -> Result<Exchange, Error> {
        Exchange::ask_until(peer, verb, body, sending, None)
    }

    /// As [`ask`](Self::ask), blocking until `deadline` at most.
    pub(crate) fn ask_until(
        peer: Peer<'_>,
        verb: Verb,
        body: Bytes,
        sending: Sending,
        deadline: Option<Instant>,
    ) -> Result<Exchange, Error> {
        let Peer { shared, address: dst, path, grant } = peer;
        // This thread's place among those who wait for room: one, however often it tries.
        let mut place: Option<Ticket> = None;
        loop {
            let request = |state: &mut State, now| {
                let asked = match state.ended() {
                    None => state.core.request(dst, verb, body.clone(), grant.cloned(), now),
                    // Nobody would write it, nor read the answer.
                    Some(reason) => {
                        let message = format!("this context has ended: {reason}");
                        Err(Failure::new(FailureKind::NoRoute, message).ran(Ran::NotSent))
                    }
                };
                if asked.as_ref().is_err_and(|failure| failure.kind == FailureKind::Busy) {
                    place.take_if(|ticket| ticket.is_done());
                    let full = state.towards(dst).is_some_and(|link| state.core.awaits_room(link));
                    if !full {
                        return Err(PLACE);
                    }
                    if place.is_none() {
                        let ticket: Ticket = Arc::new(Slot::new());
                        state.await_room(dst, &ticket);
                        place = Some(ticket);
                    }
                    return Err(ROOM);
                }
                if let Some(ticket) = place.take() {
                    state.leave_room(&ticket);
                }
                if let Ok(id) = asked {
                    state.track(id, dst);
                }
                Ok(asked)
            };
            let asked = match sending {
                Sending::Now => shared.with(request),
                // Nobody waits for it yet; many under way are written in one go.
                Sending::Soon => shared.with_lazily(State::is_pipelining, request),
            };
            match asked {
                Ok(Ok(id)) => {
                    let (shared, path) = (Arc::clone(shared), Arc::clone(path));
                    return Ok(Exchange { shared, id, target: dst.clone(), path, unwanted: None });
                }
                Ok(Err(failure)) => return Err(Error::of(failure, path, dst)),
                // As many requests wait as may: so does this thread.
                Err(again) => {
                    let now = Instant::now();
                    if deadline.is_some_and(|deadline| now >= deadline) {
                        if let Some(ticket) = place {
                            shared.with(|state, _| state.leave_room(&ticket));
                        }
                        let text = "there was no room for the request in time: too much is under way already";
                        return Err(Error::of(Failure::new(FailureKind::Timeout, text).ran(Ran::NotSent), path, dst));
                    }
                    let again = deadline.map_or(now + again, |deadline| deadline.min(now + again));
                    match &place {
                        Some(ticket) => drop(ticket.wait(Some(again))),
                        None => std::thread::sleep(again - now),
                    }
                }
            }
        }
    }

    /// Asks `dst` for `verb` and waits for the answer, however long it takes.
    pub(crate) fn call(peer: Peer<'_>, verb: Verb, body: Bytes) -> Result<Bytes, Error> {
        let Peer { shared, address: dst, path, grant } = peer;
        let asked = Cell::new(None);
        let send = |ticket: &Ticket| {
            let sent = shared.with(|state, now| {
                let sent = state.core.request(dst, verb, body.clone(), grant.cloned(), now);
                if let Ok(id) = sent {
                    state.track(id, dst);
                    state.await_exchange(id, ticket);
                }
                sent.ok()
            });
            asked.set(sent);
            sent.is_some()
        };
        let answer = shared.send_leading(dst, send, |state, _| state.asked(asked.get()?)?.result.take());
        let exchange = match asked.get() {
            Some(id) => {
                Exchange { shared: Arc::clone(shared), id, target: dst.clone(), path: Arc::clone(path), unwanted: None }
            }
            // Somebody else reads the link, or there is no room: both are waited for without holding it.
            None => Exchange::ask(peer, verb, body, Sending::Now)?,
        };
        match answer {
            Some(answer) => answer.map_err(|failure| exchange.error(failure)),
            None => exchange.answer(None),
        }
    }

    /// Has `then` deal with a good answer that comes when this was dropped. What was asked is not cancelled then: a cancel
    /// can cross with the answer, and is lost with it.
    pub(crate) fn unwanted(mut self, then: impl FnOnce(Bytes) + Send + Sync + 'static) -> Exchange {
        self.unwanted = Some(Box::new(then));
        self
    }

    /// What a thread needs that goes on with this exchange and does not keep it.
    pub(crate) fn parts(&self) -> (Arc<Shared>, ExchangeId) {
        (Arc::clone(&self.shared), self.id)
    }

    /// Runs `command` on the state with this exchange.
    pub(crate) fn with<R>(&self, command: impl FnOnce(&mut State, ExchangeId, Time) -> R) -> R {
        self.shared.with(|state, now| command(state, self.id, now))
    }

    /// Waits until `ready` finds what it looks for; it is asked under the lock.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut State, ExchangeId, Time) -> Option<T>,
    ) -> Result<T, Elapsed> {
        self.shared.wait(self.id, deadline, |state, now| ready(state, self.id, now))
    }

    /// Waits for the answer.
    pub(crate) fn answer(&self, deadline: Option<Instant>) -> Result<Bytes, Error> {
        let answer = self.wait(deadline, |state, id, _| state.asked(id)?.result.take());
        match answer {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(failure)) => Err(self.error(failure)),
            Err(Elapsed) => Err(self.error(elapsed())),
        }
    }

    /// An error of this exchange.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        Error::of(failure, &self.path, &self.target)
    }
}

/// The failure of a wait that ended without an answer.
fn elapsed() -> Failure {
    Failure::new(FailureKind::Timeout, "the wait was ended by its deadline").ran(Ran::MaybeExecuted)
}

impl Exchange {
    /// Cancels what was asked, whoever else holds the exchange.
    pub(crate) fn give_up(&self) {
        let mut state = self.shared.lock();
        let now = self.shared.now();
        if !state.forget(self.id, now) {
            // What came and was not read is thrown away, and counts no longer.
            state.core.cancel(self.id, now);
        }
        self.shared.settle(state, now);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        match self.unwanted.take() {
            Some(then) => self.with(|state, id, now| state.abandon(id, then, now)),
            None => self.give_up(),
        }
    }
}

/// An answer that is on its way. Dropping it cancels what was asked.
///
/// `Send`: it can be waited for on another thread than the one that asked.
#[must_use = "dropping it cancels what was asked"]
pub struct Pending<T> {
    exchange: Exchange,
    decode: fn(Bytes) -> Result<T, Failure>,
}

impl<T> Pending<T> {
    pub(crate) fn new(exchange: Exchange, decode: fn(Bytes) -> Result<T, Failure>) -> Pending<T> {
        Pending { exchange, decode }
    }

    /// Waits for the answer, however long it takes. It does end: the context answers or is lost.
    ///
    /// # Errors
    /// What the context answers, or how it was lost.
    pub fn wait(self) -> Result<T, Error> {
        self.finish(None)
    }

    /// As [`wait`](Self::wait), at most for `timeout`; then what was asked is cancelled.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), or [`FailureKind::Timeout`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, Error> {
        self.finish(Instant::now().checked_add(timeout))
    }

    /// Whether the answer is there.
    pub fn is_done(&self) -> bool {
        self.exchange.with(|state, id, _| state.asked(id).is_none_or(|asked| asked.result.is_some()))
    }

    fn finish(self, deadline: Option<Instant>) -> Result<T, Error> {
        let body = self.exchange.answer(deadline)?;
        (self.decode)(body).map_err(|failure| self.exchange.error(failure))
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("path", &self.exchange.path).finish_non_exhaustive()
    }
}

/// Decodes the answer of a built-in verb. A context of another build may say something else: an error, not a panic.
pub(crate) fn decoded<T: offshoot_wire::Decode>(body: &[u8]) -> Result<T, Failure> {
    offshoot_wire::decode(body).map_err(|error| {
        Failure::new(FailureKind::Malformed, format!("the answer cannot be decoded: {error}")).ran(Ran::Executed)
    })
}
