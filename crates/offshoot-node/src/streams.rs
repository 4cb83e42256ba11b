//! The streams of a process that runs in a context, for whoever reads and writes them on a thread of its own.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
#[cfg(doc)]
use offshoot_wire::FailureKind;
use offshoot_wire::{EndReason, channel};

use crate::Error;
use crate::pending::Exchange;
use crate::process::nothing_happened;
use crate::shared::Elapsed;

/// The input of a remote process. Writing blocks while the process does not read.
pub struct Input {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) open: bool,
}

impl Input {
    /// Writes bytes without copying them.
    ///
    /// # Errors
    /// `BrokenPipe` when the process no longer reads or has ended; how the context was lost.
    pub fn write_bytes(&mut self, mut data: Bytes) -> io::Result<()> {
        while !data.is_empty() {
            let n = self.write_some(&data)?;
            data = data.slice(n..);
        }
        Ok(())
    }

    fn write_some(&mut self, data: &Bytes) -> io::Result<usize> {
        let sent = self.exchange.wait(None, |state, id, now| {
            let asked = state.asked(id)?;
            match &asked.result {
                Some(Err(failure)) => return Some(Err(Some(failure.clone()))),
                Some(Ok(_)) => return Some(Err(None)),
                None if asked.is_stopped(channel::STDIN) => return Some(Err(None)),
                None => {}
            }
            match state.core.send(id, channel::STDIN, data.clone(), now) {
                0 => None,
                n => Some(Ok(n)),
            }
        });
        match sent {
            Ok(Ok(n)) => Ok(n),
            Ok(Err(Some(failure))) => Err(self.exchange.error(failure).into()),
            Ok(Err(None)) | Err(Elapsed) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Lets the process see the end of its input: on a terminal by typing its end-of-file character, Ctrl-D unless the
    /// process has set another, twice when the last line has no newline. Who reads a raw terminal reads that character.
    pub fn finish(mut self) {
        self.close();
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.open) {
            self.exchange.with(|state, id, now| state.core.finish(id, channel::STDIN, EndReason::Done, now));
        }
    }
}

impl Write for Input {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // One copy, into what travels on; bounded by what one turn of a link takes.
        const MOST: usize = 128 * 1024;
        if data.is_empty() {
            return Ok(0);
        }
        self.write_some(&Bytes::copy_from_slice(&data[..data.len().min(MOST)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

/// An output of a remote process. Dropping it before its end lets the process see a closed pipe, or hangs up its terminal.
pub struct Output {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) channel: u8,
    pub(crate) rest: Bytes,
}

impl Output {
    /// The next bytes, as they came; `None` at the end.
    ///
    /// # Errors
    /// When the process could not be started, its context was lost, or the output could not be read to its end there.
    pub fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.next_chunk(None)
    }

    /// As [`chunk`](Self::chunk), waiting at most for `timeout`: then [`FailureKind::Timeout`], and nothing is lost.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk), and the timeout.
    pub fn chunk_timeout(&mut self, timeout: Duration) -> Result<Option<Bytes>, Error> {
        // What is too far away to be a time is no limit.
        self.next_chunk(Instant::now().checked_add(timeout))
    }

    fn next_chunk(&mut self, deadline: Option<Instant>) -> Result<Option<Bytes>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let number = self.channel;
        let next = self.exchange.wait(deadline, |state, id, now| {
            let asked = state.asked(id)?;
            if let Some((_, data)) = asked.take(|from| from == number) {
                state.core.consumed(id, number, data.len(), now);
                return Some(Ok(Some(data)));
            }
            if let Some(end) = asked.end(number) {
                return Some(end.map(|()| None));
            }
            asked.result.clone().map(|result| result.map(|_| None))
        });
        match next {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(failure)) => Err(self.exchange.error(failure)),
            Err(Elapsed) => Err(self.exchange.error(nothing_happened())),
        }
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(mut data) = self.chunk()? else { return Ok(0) };
        let n = data.len().min(buffer.len());
        buffer[..n].copy_from_slice(&data.split_to(n));
        self.rest = data;
        Ok(n)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let number = self.channel;
        self.exchange.with(|state, id, now| {
            let Some(asked) = state.asked(id) else { return };
            asked.discard(number);
            let over = asked.result.is_some() || asked.end(number).is_some();
            if !over {
                state.core.stop(id, number, now);
            }
        });
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("channel", &self.channel).finish_non_exhaustive()
    }
}
