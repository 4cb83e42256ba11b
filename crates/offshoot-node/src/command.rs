//! Programs that run in a context, in the manner of `std::process`.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_wire::{
    CommandSpec, EndReason, EnvChange, ExecControl, ExecReply, Failure, FailureKind, ProcessExit, Ran, StderrMode,
    Verb, channel, encode,
};

use crate::pending::{Exchange, decoded};
use crate::shared::Elapsed;
use crate::{Context, Error};

/// Where a standard stream of a remote process comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// A stream of the [`Process`].
    Piped,
    /// `/dev/null` there.
    Null,
    /// For stderr: the same stream as stdout, in the order written.
    Stdout,
}

/// A program to run in a context: like `std::process::Command`, elsewhere.
///
/// It starts in the login's home folder with the login's own environment and umask, as the leader of a session of its
/// own, with exactly the descriptors 0, 1 and 2.
///
/// # Examples
///
/// ```no_run
/// # fn demo(web: &offshoot_node::Context) -> Result<(), offshoot_node::Error> {
/// let output = web.command("uname").arg("-a").output()?;
/// assert!(output.status.success());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing runs until `spawn`, `output` or `status` is called"]
pub struct Command {
    context: Context,
    spec: CommandSpec,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Command {
    pub(crate) fn new(context: Context, program: &OsStr) -> Command {
        let spec = CommandSpec {
            program: program.as_bytes().to_vec(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: false,
            stdout: false,
            stderr: StderrMode::Null,
            timeout_ms: 0,
            grace_ms: 5000,
            nice: 0,
        };
        Command { context, spec, stdin: None, stdout: None, stderr: None }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.spec.args.push(arg.as_ref().as_bytes().to_vec());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.spec.args.extend(args.into_iter().map(|arg| arg.as_ref().as_bytes().to_vec()));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        let change = EnvChange::Set(name.as_ref().as_bytes().to_vec(), value.as_ref().as_bytes().to_vec());
        self.spec.env.push(change);
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Command {
        self.spec.env.push(EnvChange::Remove(name.as_ref().as_bytes().to_vec()));
        self
    }

    /// Removes all variables that are set so far from its environment.
    pub fn env_clear(mut self) -> Command {
        self.spec.env.push(EnvChange::Clear);
        self
    }

    /// The folder it starts in.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Command {
        self.spec.cwd = Some(folder.as_ref().as_os_str().as_bytes().to_vec());
        self
    }

    /// Where its input comes from. By default nowhere.
    pub fn stdin(mut self, stdin: Stdio) -> Command {
        self.stdin = Some(stdin);
        self
    }

    /// Where its output goes. By default to the [`Process`].
    pub fn stdout(mut self, stdout: Stdio) -> Command {
        self.stdout = Some(stdout);
        self
    }

    /// Where its error output goes. By default to the [`Process`].
    pub fn stderr(mut self, stderr: Stdio) -> Command {
        self.stderr = Some(stderr);
        self
    }

    /// When it is ended, with everything that it started: TERM, and KILL after the grace. Counted on the target.
    pub fn timeout(mut self, timeout: Duration) -> Command {
        self.spec.timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }

    /// How long it has between TERM and KILL; 5 s by default.
    pub fn grace(mut self, grace: Duration) -> Command {
        self.spec.grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// Added to its priority number: 10 is a polite background job.
    pub fn nice(mut self, nice: i32) -> Command {
        self.spec.nice = nice;
        self
    }

    /// Starts it. The answer that it could not be started comes with the first read or wait.
    ///
    /// # Errors
    /// When the request cannot be sent: the context is gone, or arguments and environment exceed what a frame holds
    /// ([`FailureKind::TooLarge`]; send such things through stdin).
    pub fn spawn(mut self) -> Result<Process, Error> {
        self.spec.stdin = self.stdin == Some(Stdio::Piped);
        self.spec.stdout = self.stdout != Some(Stdio::Null);
        self.spec.stderr = match self.stderr {
            None | Some(Stdio::Piped) => StderrMode::Apart,
            Some(Stdio::Stdout) => StderrMode::WithStdout,
            Some(Stdio::Null) => StderrMode::Null,
        };
        let exchange = Arc::new(self.context.ask(Verb::Exec, encode(&self.spec).into())?);
        let output = |number| Output { exchange: Arc::clone(&exchange), channel: number, rest: Bytes::new() };
        Ok(Process {
            stdin: self.spec.stdin.then(|| Input { exchange: Arc::clone(&exchange), open: true }),
            stdout: self.spec.stdout.then(|| output(channel::STDOUT)),
            stderr: (self.spec.stderr == StderrMode::Apart).then(|| output(channel::STDERR)),
            exchange,
        })
    }

    /// Runs it to its end and collects what it wrote.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn output(self) -> Result<Finished, Error> {
        self.spawn()?.output()
    }

    /// Runs it to its end; its output goes to `/dev/null` there unless set otherwise.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn status(mut self) -> Result<ExitStatus, Error> {
        self.stdout.get_or_insert(Stdio::Null);
        self.stderr.get_or_insert(Stdio::Null);
        self.output().map(|finished| finished.status)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(ExecReply);

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
pub struct Process {
    /// Its input, when that is piped. Drop or [`Input::finish`] it to let the process see the end.
    pub stdin: Option<Input>,
    /// Its output, when that is piped.
    pub stdout: Option<Output>,
    /// Its error output, when that is piped on its own.
    pub stderr: Option<Output>,
    exchange: Arc<Exchange>,
}

impl Process {
    /// The next thing that happens, in the order it happened there. Once it has ended the answer is [`Event::Exit`] each
    /// time. A stream that was taken out of this ([`Option::take`]) yields no events here.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
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
            asked.result.clone().map(|result| result.map(Next::Result))
        });
        match next {
            Ok(Ok(Next::Data(channel::STDERR, data))) => Ok(Event::Stderr(data)),
            Ok(Ok(Next::Data(_, data))) => Ok(Event::Stdout(data)),
            Ok(Ok(Next::Result(body))) => Ok(Event::Exit(self.status_of(&body)?)),
            Ok(Err(failure)) => Err(self.exchange.error(failure)),
            Err(Elapsed) => {
                let failure = Failure::new(FailureKind::Timeout, "nothing happened before the deadline");
                Err(self.exchange.error(failure.ran(Ran::MaybeExecuted)))
            }
        }
    }

    /// Waits for its end. What it writes to streams that were not taken out of this is discarded, so that it cannot
    /// block.
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn wait(mut self) -> Result<ExitStatus, Error> {
        self.stdin = None;
        loop {
            if let Event::Exit(status) = self.event()? {
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

    /// Sends a signal to the process and its process group. Nothing happens when it has ended.
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

    fn control(&self, message: ExecControl) -> Result<(), Error> {
        send_all(&self.exchange, channel::CONTROL, Bytes::from(encode(&message)))
            .map_err(|failure| self.exchange.error(failure))
    }

    fn status_of(&self, body: &[u8]) -> Result<ExitStatus, Error> {
        decoded(body).map(ExitStatus).map_err(|failure| self.exchange.error(failure))
    }
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

/// The input of a remote process. Writing blocks while the process does not read.
pub struct Input {
    exchange: Arc<Exchange>,
    open: bool,
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

    /// Lets the process see the end of its input.
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

/// An output of a remote process. Dropping it before its end lets the process see a closed pipe.
pub struct Output {
    exchange: Arc<Exchange>,
    channel: u8,
    rest: Bytes,
}

impl Output {
    /// The next bytes, as they came; `None` at the end.
    ///
    /// # Errors
    /// When the process could not be started, or its context was lost.
    pub fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let number = self.channel;
        let next = self.exchange.wait(None, |state, id, now| {
            let asked = state.asked(id)?;
            if let Some((_, data)) = asked.take(|from| from == number) {
                state.core.consumed(id, number, data.len(), now);
                return Some(Ok(Some(data)));
            }
            if asked.end_of(number).is_some() {
                return Some(Ok(None));
            }
            asked.result.clone().map(|result| result.map(|_| None))
        });
        match next {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(failure)) => Err(self.exchange.error(failure)),
            Err(Elapsed) => Ok(None),
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
            let over = asked.result.is_some() || asked.end_of(number).is_some();
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
