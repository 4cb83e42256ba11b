//! A process that runs in a context, and how it ended.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_wire::{ExecControl, ExecReply, Failure, FailureKind, ProcessExit, Ran, TerminalSize, channel, encode};

use crate::Error;
use crate::pending::{Exchange, decoded};
use crate::shared::Elapsed;
use crate::streams::{Input, Output};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub(crate) ExecReply);

impl ExitStatus {
    /// Whether it exited with 0, in time.
    pub fn success(&self) -> bool {
        self.0.exit == ProcessExit::Exited(0) && !self.0.timed_out
    }

    /// Its exit status; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        match self.0.exit {
            ProcessExit::Exited(code) => Some(code),
            ProcessExit::Signalled(_) => None,
        }
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        match self.0.exit {
            ProcessExit::Exited(_) => None,
            ProcessExit::Signalled(signal) => Some(signal),
        }
    }

    /// Whether it was ended because its timeout had passed.
    pub fn timed_out(&self) -> bool {
        self.0.timed_out
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.exit {
            _ if self.0.timed_out => f.write_str("timed out"),
            ProcessExit::Exited(code) => write!(f, "exit status {code}"),
            ProcessExit::Signalled(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A process that ended, with what it wrote.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// Something that a process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to stdout.
    Stdout(Bytes),
    /// It wrote to stderr.
    Stderr(Bytes),
    /// It ended; nothing follows.
    Exit(ExitStatus),
}

/// A process that runs in a context.
///
/// What it writes waits, within its window, until it is read: a process whose output nobody reads blocks, as on a pipe.
/// When the last of this and its streams is dropped, the process and everything it started is ended.
///
/// On a [terminal](crate::Command::terminal) all its output comes by `stdout`, as the terminal shows it: with echo, and
/// with a carriage return before each newline. When the process has ended and others still hold its terminal, what they
/// wrote in the 250 ms after is waited for; then they are hung up.
#[must_use = "dropping it and its streams ends the process"]
pub struct Process {
    /// Its input, when that is piped. Drop or [`Input::finish`] it to let the process see the end.
    pub stdin: Option<Input>,
    /// Its output, when that is piped.
    pub stdout: Option<Output>,
    /// Its error output, when that is piped on its own.
    pub stderr: Option<Output>,
    /// Where the failure of a reader that gives its input is found.
    pub(crate) fed: Option<Arc<OnceLock<Failure>>>,
    pub(crate) exchange: Arc<Exchange>,
}

impl Process {
    /// The next thing that happens, in the order it happened there; for who is behind by more than some thousand pieces, in the order of
    /// each stream. Once it has ended the answer is [`Event::Exit`] each
    /// time. A stream that was taken out of this ([`Option::take`]) yields no events here.
    ///
    /// # Errors
    /// When it could not be started, its context was lost, or an output could not be read to its end there.
    pub fn event(&mut self) -> Result<Event, Error> {
        self.next_event(None)
    }

    /// As [`event`](Self::event), at most until `deadline`: then [`FailureKind::Timeout`], and the process runs on.
    ///
    /// # Errors
    /// As [`event`](Self::event), and the timeout.
    pub fn event_before(&mut self, deadline: Instant) -> Result<Event, Error> {
        self.next_event(Some(deadline))
    }

    fn next_event(&mut self, deadline: Option<Instant>) -> Result<Event, Error> {
        // A stream that was taken out of this belongs to whoever took it.
        let ours = [(channel::STDOUT, self.stdout.is_some()), (channel::STDERR, self.stderr.is_some())];
        let next = self.exchange.wait(deadline, |state, id, now| {
            let asked = state.asked(id)?;
            if let Some((number, data)) = asked.take(|from| ours.contains(&(from, true))) {
                state.core.consumed(id, number, data.len(), now);
                return Some(Ok(Next::Data(number, data)));
            }
            // A failure comes first: it says more than that something ended.
            let result = asked.result.clone()?;
            let cut = |(number, wanted): &(u8, bool)| wanted.then(|| asked.end(*number)?.err()).flatten();
            Some(result.and_then(|body| ours.iter().find_map(cut).map_or(Ok(Next::Result(body)), Err)))
        });
        match next {
            Ok(Ok(Next::Data(channel::STDERR, data))) => Ok(Event::Stderr(data)),
            Ok(Ok(Next::Data(_, data))) => Ok(Event::Stdout(data)),
            Ok(Ok(Next::Result(body))) => match self.fed.as_ref().and_then(|fed| fed.get()) {
                // It was ended for that.
                Some(failure) => Err(self.exchange.error(failure.clone())),
                None => Ok(Event::Exit(self.status_of(&body)?)),
            },
            Ok(Err(failure)) => Err(self.exchange.error(failure)),
            Err(Elapsed) => Err(self.exchange.error(nothing_happened())),
        }
    }

    /// Waits for its end. What it writes to streams that were not taken out of this is discarded, so that it cannot
    /// block.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn wait(mut self) -> Result<ExitStatus, Error> {
        self.await_exit(None)
    }

    /// As [`wait`](Self::wait), at most for `timeout`: then [`FailureKind::Timeout`], and the process runs on. Its input is
    /// closed in any case.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and the timeout.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<ExitStatus, Error> {
        // What is too far away to be a time is no limit.
        self.await_exit(Instant::now().checked_add(timeout))
    }

    fn await_exit(&mut self, deadline: Option<Instant>) -> Result<ExitStatus, Error> {
        self.stdin = None;
        loop {
            if let Event::Exit(status) = self.next_event(deadline)? {
                return Ok(status);
            }
        }
    }

    /// Closes its input, reads its output to the end and waits for it.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn output(mut self) -> Result<Finished, Error> {
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.event()? {
                Event::Stdout(data) => stdout.extend_from_slice(&data),
                Event::Stderr(data) => stderr.extend_from_slice(&data),
                Event::Exit(status) => return Ok(Finished { status, stdout, stderr }),
            }
        }
    }

    /// Sends a signal to the process and its process group; with a terminal to the group in its foreground, as a key
    /// would. Nothing happens when it has ended.
    ///
    /// # Errors
    /// When its context was lost.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.control(ExecControl::Signal(signal))
    }

    /// Ends the process and everything it started: TERM, and KILL after the command's grace.
    ///
    /// # Errors
    /// When its context was lost.
    pub fn kill(&self) -> Result<(), Error> {
        self.control(ExecControl::Kill)
    }

    /// Gives its terminal another size; what runs in the foreground there gets `SIGWINCH`. Nothing happens without one.
    ///
    /// # Errors
    /// When its context was lost.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.control(ExecControl::Resize(size))
    }

    /// What reaches the process beside this: for another thread than the one that follows its output.
    pub fn controller(&self) -> Controller {
        Controller(Arc::clone(&self.exchange))
    }

    fn control(&self, message: ExecControl) -> Result<(), Error> {
        control(&self.exchange, message)
    }

    fn status_of(&self, body: &[u8]) -> Result<ExitStatus, Error> {
        decoded(body).map(ExitStatus).map_err(|failure| self.exchange.error(failure))
    }
}

/// Reaches a [`Process`] from another thread. As long as one is held the process is not ended by dropping the rest.
#[derive(Clone)]
pub struct Controller(Arc<Exchange>);

impl Controller {
    /// As [`Process::signal`].
    ///
    /// # Errors
    /// When its context was lost.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        control(&self.0, ExecControl::Signal(signal))
    }

    /// As [`Process::kill`].
    ///
    /// # Errors
    /// When its context was lost.
    pub fn kill(&self) -> Result<(), Error> {
        control(&self.0, ExecControl::Kill)
    }

    /// As [`Process::resize`].
    ///
    /// # Errors
    /// When its context was lost.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        control(&self.0, ExecControl::Resize(size))
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}

fn control(exchange: &Exchange, message: ExecControl) -> Result<(), Error> {
    send_all(exchange, channel::CONTROL, Bytes::from(encode(&message))).map_err(|failure| exchange.error(failure))
}

/// The failure of waiting for what a process does next.
pub(crate) fn nothing_happened() -> Failure {
    Failure::new(FailureKind::Timeout, "nothing happened before the deadline").ran(Ran::MaybeExecuted)
}

enum Next {
    Data(u8, Bytes),
    Result(Bytes),
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

/// Sends all of `data` on a channel, waiting for credit. An exchange that has ended swallows what comes late.
fn send_all(exchange: &Exchange, number: u8, mut data: Bytes) -> Result<(), Failure> {
    while !data.is_empty() {
        let sent = exchange.wait(None, |state, id, now| {
            let asked = state.asked(id)?;
            match &asked.result {
                Some(Ok(_)) => return Some(Ok(data.len())),
                Some(Err(failure)) => return Some(Err(failure.clone())),
                None if asked.is_stopped(number) => return Some(Ok(data.len())),
                None => {}
            }
            match state.core.send(id, number, data.clone(), now) {
                0 => None,
                n => Some(Ok(n)),
            }
        });
        match sent {
            Ok(Ok(n)) => data = data.slice(n..),
            Ok(Err(failure)) => return Err(failure),
            Err(Elapsed) => return Ok(()),
        }
    }
    Ok(())
}
