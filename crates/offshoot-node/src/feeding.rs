//! The input of a remote process that a reader of the user's gives, on a thread of its own: the reader may block.
//!
//! The thread holds no part of the process: who drops that ends it, whatever the reader does. Must not know what is read.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use offshoot_route::ExchangeId;
use offshoot_wire::{EndReason, ExecControl, Failure, FailureKind, Ran, channel, encode};

use crate::connecting::held;
use crate::error::os_failure;
use crate::pending::Exchange;
use crate::shared::Shared;

/// What is read at a time, in bytes: about a frame.
const PIECE: usize = 60 * 1024;

/// A reader, shared by the copies of a command.
#[derive(Clone)]
pub(crate) struct Source(Arc<Mutex<dyn Read + Send>>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Source {
    pub(crate) fn new(reader: impl Read + Send + 'static) -> Source {
        Source(Arc::new(Mutex::new(reader)))
    }

    /// Starts the thread that feeds a process. Yields where the failure of the reader will be found, from before the
    /// process is ended for it.
    pub(crate) fn feed(self, exchange: &Exchange) -> io::Result<Arc<OnceLock<Failure>>> {
        let failed = Arc::new(OnceLock::new());
        let theirs = Arc::clone(&failed);
        let (shared, id) = exchange.parts();
        std::thread::Builder::new().name("offshoot-input".into()).spawn(move || {
            let passed = held(FailureKind::Cancelled, || {
                let why = |error| os_failure("the input of the process cannot be read", &error);
                self.pass(&shared, id).map_err(why)
            });
            if let Err(failure) = passed {
                let failure = failure.ran(Ran::MaybeExecuted);
                let _ = theirs.set(failure);
                send(&shared, id, channel::CONTROL, encode(&ExecControl::Kill).into());
            }
        })?;
        Ok(failed)
    }

    /// Passes on all that the reader gives, until the process wants no more.
    fn pass(&self, shared: &Arc<Shared>, id: ExchangeId) -> io::Result<()> {
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut piece = vec![0; PIECE];
        loop {
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => {
                    if !send(shared, id, channel::STDIN, Bytes::copy_from_slice(&piece[..length])) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        shared.with(|state, now| state.core.finish(id, channel::STDIN, EndReason::Done, now));
        Ok(())
    }
}

/// Sends all of `data` as there is room for it. `false` when the process has ended, was dropped, or reads no more.
fn send(shared: &Arc<Shared>, id: ExchangeId, number: u8, mut data: Bytes) -> bool {
    while !data.is_empty() {
        let sent = shared.wait(id, None, |state, now| {
            if state.asked(id).is_none_or(|asked| asked.done || asked.is_stopped(number)) {
                return Some(None);
            }
            match state.core.send(id, number, data.clone(), now) {
                0 => None,
                n => Some(Some(n)),
            }
        });
        match sent {
            Ok(Some(n)) => data = data.slice(n..),
            _ => return false,
        }
    }
    true
}
