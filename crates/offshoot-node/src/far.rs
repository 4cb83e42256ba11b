//! The ends of channels and streams that another process handed to this one.
//!
//! Each is an exchange with the process that has the lane, from the moment it came. Whoever uses it blocks; any thread may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use offshoot_wire::{Address, EndReason, Failure, FailureKind, Grant, Limits, StreamSpec, Verb, channel, encode};

use crate::Error;
use crate::lane::{elapsed, nobody, one_writer};
use crate::pending::{Exchange, Peer, Sending};
use crate::services::message;
use crate::shared::{Elapsed, Shared};

/// What is told of an end that is handed over.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) home: Address,
    pub(crate) handle: u64,
    pub(crate) grant: Option<Grant>,
}

impl Place {
    fn ask(&self, shared: &Arc<Shared>, reads: bool) -> Result<Exchange, Error> {
        let path: Arc<str> = Arc::from(format!("a channel of {}", self.home));
        let peer = Peer { shared, address: &self.home, path: &path, grant: self.grant.as_ref() };
        let spec = StreamSpec { handle: self.handle, reads };
        Exchange::ask(peer, Verb::Stream, encode(&spec).into(), Sending::Now)
    }
}

/// Whose turn it is to write: messages are not mixed.
#[derive(Default)]
struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

impl Turn {
    fn take(&self, deadline: Option<Instant>) -> Option<Taken<'_>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = match deadline {
                None => self.free.wait(taken).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.free.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *taken = true;
        Some(Taken(self))
    }
}

struct Taken<'a>(&'a Turn);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

/// A writing end. Dropping the last handle ends it; what was written still goes out.
pub(crate) struct FarWriter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) place: Place,
    /// `None` once it was dropped.
    exchange: Result<Option<Exchange>, Error>,
    turn: Turn,
    /// It is a pipe's, of which there is one.
    pipe: AtomicBool,
    /// It was handed on.
    given: AtomicBool,
}

impl FarWriter {
    pub(crate) fn open(shared: &Arc<Shared>, place: Place) -> FarWriter {
        // An answer that nobody waits for says that all was read.
        let exchange = place.ask(shared, false).map(|exchange| Some(exchange.unwanted(drop)));
        let (shared, turn) = (Arc::clone(shared), Turn::default());
        FarWriter { shared, place, exchange, turn, pipe: AtomicBool::new(false), given: AtomicBool::new(false) }
    }

    pub(crate) fn set_pipe(&self) {
        self.pipe.store(true, Ordering::Relaxed);
    }

    /// It is handed on.
    ///
    /// # Errors
    /// When it is a pipe's and somebody has it already.
    pub(crate) fn give(&self) -> Result<(), Failure> {
        if self.pipe.load(Ordering::Relaxed) && self.given.swap(true, Ordering::Relaxed) {
            return Err(one_writer());
        }
        Ok(())
    }

    fn exchange(&self) -> Result<&Exchange, Error> {
        match &self.exchange {
            Ok(Some(exchange)) => Ok(exchange),
            Ok(None) => Err(Error::new(nobody(), "")),
            Err(error) => Err(error.clone()),
        }
    }

    /// Writes all of it. The deadline is for its first byte: what has begun is finished.
    pub(crate) fn write(&self, mut data: Bytes, deadline: Option<Instant>) -> Result<(), Error> {
        let exchange = self.exchange()?;
        let late = || exchange.error(elapsed("there was no room for the message in time"));
        let _turn = self.turn.take(deadline).ok_or_else(late)?;
        let mut until = deadline;
        while !data.is_empty() {
            let sent = exchange.wait(until, |state, id, now| {
                let Some(asked) = state.asked(id) else { return Some(Err(nobody())) };
                match &asked.result {
                    Some(Err(failure)) => return Some(Err(failure.clone())),
                    Some(Ok(_)) => return Some(Err(nobody())),
                    None if asked.is_stopped(channel::STDIN) => return Some(Err(nobody())),
                    None => {}
                }
                // What has begun cannot be taken back: it begins when all of it can go, or as much as there is room for at
                // some time for sure.
                let least = data.len().min(Limits::WINDOW_FLOOR as usize);
                if until.is_some() && state.core.writable(id, channel::STDIN) < least {
                    state.core.await_room(id, channel::STDIN);
                    return None;
                }
                match state.core.send(id, channel::STDIN, data.clone(), now) {
                    0 => None,
                    n => Some(Ok(n)),
                }
            });
            match sent {
                Ok(Ok(n)) => data = data.slice(n..),
                Ok(Err(failure)) => return Err(exchange.error(failure)),
                Err(Elapsed) => return Err(late()),
            }
            until = None;
        }
        Ok(())
    }

    /// Ends it with a reason.
    pub(crate) fn fail(&self, why: String) {
        if let Ok(Some(exchange)) = &self.exchange {
            exchange.with(|state, id, now| state.core.finish(id, channel::STDIN, EndReason::Failed(why), now));
        }
    }
}

impl Drop for FarWriter {
    fn drop(&mut self) {
        if let Ok(Some(exchange)) = self.exchange.as_mut().map(Option::take) {
            // Nothing when it was ended with a reason.
            exchange.with(|state, id, now| state.core.finish(id, channel::STDIN, EndReason::Done, now));
        }
    }
}

/// A reading end. Dropping it tells the writers that nobody reads.
pub(crate) struct FarReader {
    exchange: Result<Exchange, Error>,
    /// The beginning of a message.
    partial: Mutex<BytesMut>,
    /// Nothing can follow.
    over: AtomicBool,
}

impl FarReader {
    pub(crate) fn open(shared: &Arc<Shared>, place: &Place) -> FarReader {
        let exchange = place.ask(shared, true);
        FarReader { over: AtomicBool::new(exchange.is_err()), exchange, partial: Mutex::default() }
    }

    /// Whether nothing can follow what was read, be it the end or an error.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The next message, or bytes as they came; `None` at the end.
    pub(crate) fn read(&self, framed: bool, deadline: Option<Instant>) -> Result<Option<Bytes>, Error> {
        let exchange = self.exchange.as_ref().map_err(Clone::clone)?;
        let next = exchange.wait(deadline, |state, id, now| {
            // Under the node's lock, which is taken first everywhere.
            let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if framed && let Some(message) = message(&mut partial) {
                    if message.as_ref().is_err_and(|failure| failure.kind == FailureKind::Malformed) {
                        self.over.store(true, Ordering::Relaxed);
                    }
                    return Some(message.map(Some));
                }
                let asked = state.asked(id)?;
                let Some((number, data)) = asked.take(|_| true) else { break };
                state.core.consumed(id, number, data.len(), now);
                if !framed {
                    return Some(Ok(Some(data)));
                }
                partial.extend_from_slice(&data);
            }
            let asked = state.asked(id)?;
            let end = match asked.end(channel::STDOUT) {
                Some(end) => Some(end.map(|()| None)),
                None => asked.result.clone().map(|result| result.map(|_| None)),
            };
            self.over.fetch_or(end.is_some(), Ordering::Relaxed);
            end
        });
        match next {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(failure)) => Err(exchange.error(failure)),
            Err(Elapsed) => Err(exchange.error(elapsed("nothing came in time"))),
        }
    }
}
