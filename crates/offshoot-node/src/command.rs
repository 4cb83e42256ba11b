//! Programs that run in a context, in the manner of `std::process`.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offshoot_wire::{CommandSpec, EnvChange, Failure, FailureKind, StderrMode, Terminal, Verb, channel, encode};

use crate::error::os_failure;
use crate::feeding::Source;
use crate::process::{ExitStatus, Finished, Process};
use crate::streams::{Input, Output};
use crate::{Context, Error};

/// Where a standard stream of a remote process comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Not the login shell, which is what no name means on the wire.
    named: bool,
    stdin: Option<Stdio>,
    source: Option<Source>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl Command {
    /// `None` is the login shell.
    pub(crate) fn new(context: Context, program: Option<&OsStr>) -> Command {
        let spec = CommandSpec {
            program: program.unwrap_or_default().as_bytes().to_vec(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: false,
            stdout: false,
            stderr: StderrMode::Null,
            timeout_ms: 0,
            grace_ms: 5000,
            nice: 0,
            terminal: None,
        };
        Command { context, spec, named: program.is_some(), stdin: None, source: None, stdout: None, stderr: None }
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
        self.source = None;
        self
    }

    /// Gives it all of this as its input: bytes, a file, whatever can be read. A thread of its own reads as fast as the
    /// process takes it, so output can be collected meanwhile; [`Process::stdin`] is `None`.
    ///
    /// A process that ends without reading all is no error. When the reader fails the process is ended, since half an input is
    /// worse than none, and whoever waits for it gets an error that says so. A reader that blocks for ever keeps its thread, and
    /// nothing else. Copies of the command share the reader: give each run its own.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn demo(web: &offshoot_node::Context) -> Result<(), Box<dyn std::error::Error>> {
    /// let count = web.command("wc").arg("-c").stdin_from(&b"some bytes"[..]).output()?;
    /// let file = std::fs::File::open("site.tar")?;
    /// let status = web.command("tar").args(["x", "-C", "/srv"]).stdin_from(file).status()?;
    /// # Ok(()) }
    /// ```
    pub fn stdin_from(mut self, source: impl Read + Send + 'static) -> Command {
        self.source = Some(Source::new(source));
        self.stdin = None;
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

    /// Gives it a terminal of its own, which controls its session and is its input, output and error output. All that it
    /// shows comes by stdout, raw. It is an interactive program's whole world: what it does to its terminal reaches no
    /// other.
    ///
    /// Input is what is typed, so a newline to the program may be a carriage return here, and what is typed is echoed
    /// unless the program says otherwise. [`Stdio`] for stdout and stderr mean nothing.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use offshoot_node::{Stdio, Terminal, TerminalSize};
    /// # fn demo(web: &offshoot_node::Context) -> Result<(), Box<dyn std::error::Error>> {
    /// let size = TerminalSize { rows: 24, columns: 80 };
    /// let mut top = web.command("top").terminal(Terminal::new(size, "xterm")).stdin(Stdio::Piped).spawn()?;
    /// std::io::Write::write_all(top.stdin.as_mut().ok_or("no stdin")?, b"q")?;
    /// println!("{} bytes of screen", top.output()?.stdout.len());
    /// # Ok(()) }
    /// ```
    pub fn terminal(mut self, terminal: Terminal) -> Command {
        self.spec.terminal = Some(terminal);
        self
    }

    /// Starts it. The answer that it could not be started comes with the first read or wait.
    ///
    /// # Errors
    /// When the request cannot be sent: the context is gone, or arguments and environment exceed what a frame holds
    /// ([`FailureKind::TooLarge`]; send such things through stdin).
    pub fn spawn(mut self) -> Result<Process, Error> {
        if self.named && self.spec.program.is_empty() {
            // What the system says to such a name.
            const ENOENT: i32 = 2;
            return Err(self.context.error(Failure::new(FailureKind::Os(ENOENT), "cannot run ``: it has no name")));
        }
        let piped = self.stdin == Some(Stdio::Piped);
        self.spec.stdin = piped || self.source.is_some();
        self.spec.stdout = self.stdout != Some(Stdio::Null);
        if self.spec.terminal.is_some() {
            self.spec.stdout = true;
            self.stderr = Some(Stdio::Stdout);
        }
        self.spec.stderr = match self.stderr {
            None | Some(Stdio::Piped) => StderrMode::Apart,
            Some(Stdio::Stdout) => StderrMode::WithStdout,
            Some(Stdio::Null) => StderrMode::Null,
        };
        let exchange = Arc::new(self.context.ask(Verb::Exec, encode(&self.spec).into())?);
        let fed = self.source.map(|source| source.feed(&exchange)).transpose();
        let fed = fed.map_err(|error| self.context.error(os_failure("no thread for the input", &error)))?;
        let output = |number| Output { exchange: Arc::clone(&exchange), channel: number, rest: Bytes::new() };
        Ok(Process {
            stdin: piped.then(|| Input { exchange: Arc::clone(&exchange), open: true }),
            stdout: self.spec.stdout.then(|| output(channel::STDOUT)),
            stderr: (self.spec.stderr == StderrMode::Apart).then(|| output(channel::STDERR)),
            fed,
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

    /// What it writes goes to `/dev/null` there, unless set otherwise.
    pub fn quiet(mut self) -> Command {
        self.stdout.get_or_insert(Stdio::Null);
        self.stderr.get_or_insert(Stdio::Null);
        self
    }

    /// Runs it to its end, [`quiet`](Self::quiet).
    ///
    /// # Errors
    /// When it could not be started, or its context was lost.
    pub fn status(self) -> Result<ExitStatus, Error> {
        self.quiet().output().map(|finished| finished.status)
    }
}
