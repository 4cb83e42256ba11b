//! A call of one of the user's functions, from the side that waits for its value.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use offshoot_mux::lead::Slot;
use offshoot_route::ExchangeId;
use offshoot_wire::{
    CallReply, CallSpec, ChainLink, EndReason, Failure, FailureKind, Limits, Ran, Verb, channel, encode,
};

use crate::error::os_failure;
use crate::handover::{Handed, IN_PARTS};
use crate::pending::{Exchange, Sending, decoded};
use crate::shared::Elapsed;
use crate::state::State;
use crate::{Context, Error};

/// A call under way. Dropping it cancels it: the wait ends at once, and the function can see that nobody waits.
#[must_use = "dropping it cancels the call"]
pub struct Calling {
    exchange: Arc<Exchange>,
    /// What came of a large value.
    came: Mutex<Vec<u8>>,
}

impl Context {
    /// Says that a place in a chain of calls in this worker will not be taken; not waited for, nor for room on the way.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn skip_call(&self, place: ChainLink) {
        let spec = CallSpec { function: String::new(), args: Vec::new(), follow: 0, chain: Some(place) };
        let body = Bytes::from(encode(&spec));
        match self.ask_until(Verb::Call, body.clone(), Sending::Now, Some(Instant::now())) {
            Ok(asked) => drop(asked.unwanted(drop)),
            Err(error) if *error.kind() == FailureKind::Timeout => {
                let worker = self.clone();
                let later = move || worker.ask(Verb::Call, body).map(|asked| drop(asked.unwanted(drop)));
                // Without a thread the calls behind it wait for their own time.
                let _ = std::thread::Builder::new().name("offshoot-skip".into()).spawn(later);
            }
            // The worker is gone, and the chain with it.
            Err(_) => {}
        }
    }

    /// Calls a function in this worker, with encoded arguments, without waiting for its value; in its turn, when it has a
    /// place in a chain. While as many requests are under way as may, it waits for room, until `deadline` at most.
    ///
    /// # Errors
    /// [`FailureKind::Timeout`] when there was no room in time; [`FailureKind::TooLarge`] for arguments of more than [`Limits::CALL`] bytes; or why it cannot be sent.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn start_call(
        &self,
        function: &str,
        args: impl Into<Handed>,
        chain: Option<ChainLink>,
        deadline: Option<Instant>,
    ) -> Result<Calling, Error> {
        let args = args.into();
        let length = args.len();
        if length as u64 > Limits::CALL {
            let most = Limits::CALL >> 20;
            let message = format!("the arguments are {length} bytes with what they carry, expected at most {most} MiB");
            return Err(self.error(Failure::new(FailureKind::TooLarge, message).hint(IN_PARTS)));
        }
        let (args, follow) =
            if length > Limits::CALL_INLINE { (Vec::new(), Some(args.parts())) } else { (args.into_vec(), None) };
        let follows = if follow.is_some() { length as u64 } else { 0 };
        let spec = CallSpec { function: function.to_owned(), args, follow: follows, chain };
        let exchange = Arc::new(self.ask_until(Verb::Call, encode(&spec).into(), Sending::Soon, deadline)?);
        let calling = Calling { exchange, came: Mutex::default() };
        if let Some(parts) = follow {
            let exchange = Arc::clone(&calling.exchange);
            let thread = std::thread::Builder::new().name("offshoot-args".into());
            thread
                .spawn(move || send(&exchange, parts))
                .map_err(|error| self.error(os_failure("no thread for the arguments", &error)))?;
        }
        Ok(calling)
    }
}

/// Sends large arguments, as there is credit for them.
fn send(exchange: &Exchange, parts: [Bytes; 2]) {
    if parts.into_iter().all(|part| send_part(exchange, part)) {
        exchange.with(|state, id, now| state.core.finish(id, channel::STDIN, EndReason::Done, now));
    }
}

/// Sends a part of them; `false` when no more is wanted.
fn send_part(exchange: &Exchange, mut args: Bytes) -> bool {
    while !args.is_empty() {
        let sent = exchange.wait(None, |state, id, now| {
            let over = state.asked(id).is_none_or(|asked| asked.done || asked.is_stopped(channel::STDIN));
            if over {
                return Some(None);
            }
            match state.core.send(id, channel::STDIN, args.clone(), now) {
                0 => None,
                n => Some(Some(n)),
            }
        });
        match sent {
            Ok(Some(n)) => args = args.slice(n..),
            Ok(None) | Err(Elapsed) => return false,
        }
    }
    true
}

enum Next {
    Data(Bytes),
    Result(Result<Bytes, Failure>),
}

impl Calling {
    pub(crate) fn with<R>(&self, command: impl FnOnce(&mut State, ExchangeId) -> R) -> R {
        self.exchange.with(|state, id, _| command(state, id))
    }

    /// Waits for the value, encoded; until `deadline` at most.
    ///
    /// # Errors
    /// What the function ended with instead, how its worker was lost, or [`FailureKind::Timeout`]: then the call is still
    /// under way, and can be waited for again.
    pub fn wait(&self, deadline: Option<Instant>) -> Result<Vec<u8>, Error> {
        loop {
            let next = self.exchange.wait(deadline, |state, id, now| {
                let Some(asked) = state.asked(id) else { return Some(Next::Result(Err(taken()))) };
                if let Some((number, data)) = asked.take(|_| true) {
                    state.core.consumed(id, number, data.len(), now);
                    return Some(Next::Data(data));
                }
                asked.result.take().map(Next::Result)
            });
            match next {
                Ok(Next::Data(data)) => self.store(&data)?,
                Ok(Next::Result(Ok(reply))) => return self.value(&reply),
                Ok(Next::Result(Err(failure))) => return Err(self.exchange.error(failure)),
                Err(Elapsed) => {
                    let failure = Failure::new(FailureKind::Timeout, "the function did not return in time");
                    return Err(self.exchange.error(failure.ran(Ran::MaybeExecuted)));
                }
            }
        }
    }

    /// Whether a [`wait`](Self::wait) would return at once; else `ticket` is completed at the next thing that happens.
    pub fn is_done(&self, ticket: Option<&Arc<Slot<()>>>) -> bool {
        let (came, done) = self.exchange.with(|state, id, now| {
            let mut came = Vec::new();
            while let Some((number, data)) = state.asked(id).and_then(|asked| asked.take(|_| true)) {
                state.core.consumed(id, number, data.len(), now);
                came.push(data);
            }
            let done = state.asked(id).is_none_or(|asked| asked.done);
            if let (false, Some(ticket)) = (done, ticket) {
                state.await_exchange(id, ticket);
            }
            (came, done)
        });
        // Too much is told by the wait.
        came.iter().for_each(|data| drop(self.store(data)));
        done
    }

    fn store(&self, data: &[u8]) -> Result<(), Error> {
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        // One byte more than allowed is kept: then the length tells.
        if came.len() as u64 > Limits::CALL {
            return Err(self.exchange.error(too_large()));
        }
        came.extend_from_slice(data);
        Ok(())
    }

    fn value(&self, reply: &Bytes) -> Result<Vec<u8>, Error> {
        let reply: CallReply = decoded(reply).map_err(|failure| self.exchange.error(failure))?;
        if reply.came == 0 {
            return Ok(reply.value);
        }
        let came = std::mem::take(&mut *self.came.lock().unwrap_or_else(PoisonError::into_inner));
        if came.len() as u64 != reply.came {
            let failure = Failure::new(FailureKind::Malformed, "the value did not come whole");
            return Err(self.exchange.error(failure.ran(Ran::Executed)));
        }
        Ok(came)
    }
}

fn too_large() -> Failure {
    Failure::new(FailureKind::TooLarge, "the value of the function is too large").ran(Ran::Executed)
}

fn taken() -> Failure {
    Failure::new(FailureKind::Cancelled, "the call was given up")
}

impl Drop for Calling {
    fn drop(&mut self) {
        // The thread that sends the arguments may hold the exchange for longer.
        self.exchange.give_up();
    }
}

impl std::fmt::Debug for Calling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calling").finish_non_exhaustive()
    }
}
