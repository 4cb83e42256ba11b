//! What is asked of a context itself, beside connecting and running: whether it is there, what it is, that it end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_wire::{ContentStats, FailureKind, NodeInfo, ShutdownNotice, Verb, encode};

use crate::pending::{Exchange, Pending, Sending, decoded};
use crate::{Context, Error};

impl Context {
    /// Sends bytes there and back: the cheapest call, answered by the agent itself.
    ///
    /// # Errors
    /// How the context was lost; [`FailureKind::TooLarge`] for more than a frame holds.
    pub fn echo(&self, bytes: &[u8]) -> Result<Bytes, Error> {
        self.call(Verb::Echo, Bytes::copy_from_slice(bytes))
    }

    /// As [`echo`](Self::echo), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`echo`](Self::echo), or [`FailureKind::Timeout`].
    pub fn echo_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<Bytes, Error> {
        self.start_echo(bytes)?.wait_timeout(timeout)
    }

    /// As [`echo`](Self::echo), without waiting. Many such calls travel together.
    ///
    /// # Errors
    /// When it cannot even be sent.
    pub fn start_echo(&self, bytes: &[u8]) -> Result<Pending<Bytes>, Error> {
        let exchange = Exchange::ask(self.peer(), Verb::Echo, Bytes::copy_from_slice(bytes), Sending::Soon)?;
        Ok(Pending::new(exchange, Ok))
    }

    /// How long a message takes there and back.
    ///
    /// # Errors
    /// How the context was lost.
    pub fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        self.echo(b"")?;
        Ok(start.elapsed())
    }

    /// As [`ping`](Self::ping), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`ping`](Self::ping), or [`FailureKind::Timeout`].
    pub fn ping_timeout(&self, timeout: Duration) -> Result<Duration, Error> {
        let start = Instant::now();
        self.echo_timeout(b"", timeout)?;
        Ok(start.elapsed())
    }

    /// What the context has to say of itself and of its children.
    ///
    /// # Errors
    /// How the context was lost.
    pub fn info(&self) -> Result<NodeInfo, Error> {
        decoded(&self.call(Verb::Info, Bytes::new())?).map_err(|failure| self.error(failure))
    }

    /// As [`info`](Self::info), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`info`](Self::info), or [`FailureKind::Timeout`].
    pub fn info_timeout(&self, timeout: Duration) -> Result<NodeInfo, Error> {
        self.start_info()?.wait_timeout(timeout)
    }

    /// As [`info`](Self::info), without waiting.
    ///
    /// # Errors
    /// When it cannot even be asked.
    pub fn start_info(&self) -> Result<Pending<NodeInfo>, Error> {
        Ok(Pending::new(self.ask(Verb::Info, Bytes::new())?, |body| decoded(&body)))
    }

    /// What the context forwarded so far: agents and images of programs, from above it to those below. Of the context of
    /// this process itself without asking anybody.
    ///
    /// Contents come down only, so what a link carried of them is `bytes_in` of the context at its lower end; `bytes_out`
    /// is the sum over all links to those below. Nothing of it outlasts the context: a target keeps nothing between runs.
    ///
    /// # Errors
    /// As [`info`](Self::info).
    pub fn content_stats(&self) -> Result<ContentStats, Error> {
        if self.is_own() {
            return Ok(self.shared().lock().content_stats());
        }
        self.info().map(|info| info.contents)
    }

    /// As [`content_stats`](Self::content_stats), waiting at most for `timeout`.
    ///
    /// # Errors
    /// As [`info_timeout`](Self::info_timeout).
    pub fn content_stats_timeout(&self, timeout: Duration) -> Result<ContentStats, Error> {
        if self.is_own() {
            return self.content_stats();
        }
        self.info_timeout(timeout).map(|info| info.contents)
    }

    /// Ends the context and everything below it: processes get TERM, after 5 s KILL. Returns when it is gone, after 7 s
    /// and some round trips at the latest unless the way to it is cut: then when that is noticed.
    ///
    /// # Errors
    /// [`FailureKind::NoRoute`] when it was gone already.
    pub fn shutdown(&self) -> Result<(), Error> {
        gone(self.call(Verb::Shutdown, notice()))
    }

    /// As [`shutdown`](Self::shutdown), waiting at most for `timeout`. Its end is not taken back by that.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown), or [`FailureKind::Timeout`].
    pub fn shutdown_timeout(&self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(timeout);
        let asked = self.ask(Verb::Shutdown, notice())?.unwanted(drop);
        gone(asked.answer(deadline))
    }
}

fn notice() -> Bytes {
    encode(&ShutdownNotice { grace_ms: 5000, kill_ms: 2000 }).into()
}

/// The answer of a context that was asked to end.
fn gone(answer: Result<Bytes, Error>) -> Result<(), Error> {
    answer.map(drop).or_else(|error| match error.kind() {
        // Its end is the answer. From here on there is no route to it.
        FailureKind::PeerLost(_) => Ok(()),
        _ => Err(error),
    })
}
