//! The start of a process: from what was asked to a job whose descriptors are watched.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::time::Duration;

use offshoot_mux::{Interest, Spawn, Token, io as fd, process, tty};
use offshoot_route::ExchangeId;
use offshoot_wire::{CommandSpec, EnvChange, Failure, FailureKind, StderrMode, Terminal, channel};

use super::{Input, JOB, Job, Output};
use crate::error::os_failure;
use crate::shared::Shared;
use crate::sources::Source;
use crate::state::{State, Timer};

/// Our ends of a process's streams.
#[derive(Default)]
struct Ours {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

impl State {
    pub(super) fn start_job(
        &mut self,
        shared: &Arc<Shared>,
        id: ExchangeId,
        spec: &CommandSpec,
    ) -> Result<Job, Failure> {
        let tag = self.services.connects.next_job_tag(self.core.address());
        let (spawn, ours) = match &spec.terminal {
            Some(terminal) => on_terminal(self.spawn(spec, &tag), spec, terminal)?,
            None => on_pipes(self.spawn(spec, &tag), spec).map_err(|error| prepare(&error))?,
        };
        let child = spawn.start().map_err(|error| {
            let program = match spec.program.is_empty() {
                true => "the login shell".into(),
                false => format!("`{}`", String::from_utf8_lossy(&spec.program)),
            };
            let mut failure = os_failure("", error.io());
            failure.message = format!("cannot run {program}: {error}");
            failure
        })?;
        // From here on an early return drops, and so ends, the child; and what is watched so far is forgotten.
        let mut tokens = Vec::new();
        let job = self.watch_job(shared, id, spec, (child, tag, ours), &mut tokens);
        job.map_err(|error| {
            tokens.into_iter().for_each(|token| self.sources.remove(token));
            prepare(&error)
        })
    }

    /// The program with everything but its streams.
    fn spawn(&self, spec: &CommandSpec, tag: &str) -> Spawn<'static> {
        let program = OsStr::from_bytes(&spec.program);
        let mut spawn = if program.is_empty() { login_shell() } else { Spawn::new(program) };
        spawn = spawn.session().cwd(match &spec.cwd {
            Some(folder) => OsStr::from_bytes(folder).to_owned(),
            None => crate::identity::home(),
        });
        spawn = spawn.args(spec.args.iter().map(|arg| OsStr::from_bytes(arg)));
        // Before the user's changes, which may set another.
        if let Some(terminal) = &spec.terminal
            && !terminal.term.is_empty()
        {
            spawn = spawn.env("TERM", OsStr::from_bytes(&terminal.term));
        }
        // What was set before a `Clear` is cleared too.
        let cleared = spec.env.iter().rposition(|change| *change == EnvChange::Clear).unwrap_or(0);
        for change in &spec.env[cleared..] {
            spawn = match change {
                EnvChange::Set(name, value) => spawn.env(OsStr::from_bytes(name), OsStr::from_bytes(value)),
                EnvChange::Remove(name) => spawn.env_remove(OsStr::from_bytes(name)),
                EnvChange::Clear => spawn.env_clear(),
            };
        }
        // After the user's changes: `Clear` must not hide the process from its own clean-up.
        spawn = spawn.env(JOB, tag);
        if let Some((key, value)) = self.services.connects.tree_tag() {
            spawn = spawn.env(key, value);
        }
        if spec.nice != 0 { spawn.nice(spec.nice) } else { spawn }
    }

    /// Has the poller watch a new process. The tokens that were given out are told in any case.
    fn watch_job(
        &mut self,
        shared: &Shared,
        id: ExchangeId,
        spec: &CommandSpec,
        (child, tag, ours): (offshoot_mux::Child, String, Ours),
        tokens: &mut Vec<Token>,
    ) -> io::Result<Job> {
        let mut watch = |fd: BorrowedFd<'_>, source, interest| {
            let token = self.sources.insert(source);
            tokens.push(token);
            shared.registry.add(fd, token, interest).map(|()| token)
        };
        let exit_token = watch(child.exit_fd()?, Source::ProcessExit(id), Interest::Read)?;
        let mut outputs = [None, None];
        for (index, ours) in ours.outputs.into_iter().enumerate() {
            let Some(ours) = ours else { continue };
            fd::set_nonblocking(&ours, true)?;
            let token = watch(ours.as_fd(), Source::ProcessOut(id, index), Interest::Read)?;
            let channel = [channel::STDOUT, channel::STDERR][index];
            outputs[index] = Some(Output { fd: ours, token, channel });
        }
        let input = match ours.input {
            Some(ours) => {
                fd::set_nonblocking(&ours, true)?;
                let token = watch(ours.as_fd(), Source::ProcessIn(id), Interest::Write)?;
                Some(Input { fd: ours, token, waiting: VecDeque::new(), ended: false, in_line: false })
            }
            None => None,
        };
        let timeout = (spec.timeout_ms > 0)
            .then(|| self.after(Duration::from_millis(spec.timeout_ms), Timer::ProcessTimeout(id)));
        Ok(Job {
            child,
            exit_token,
            tag,
            terminal: spec.terminal.is_some(),
            input,
            outputs,
            exited: None,
            timed_out: false,
            ending: false,
            cancelled: false,
            taken: 0,
            stalled_at: None,
            grace: Duration::from_millis(u64::from(spec.grace_ms)),
            timers: [timeout, None],
        })
    }
}

fn prepare(error: &io::Error) -> Failure {
    os_failure("cannot prepare the process", error)
}

/// The account's shell, by a name that tells it that this is a login.
fn login_shell() -> Spawn<'static> {
    let account = process::account(process::effective_uid());
    let known = account.map(|account| account.shell.into_os_string());
    let shell = known.or_else(|| std::env::var_os("SHELL").filter(|shell| !shell.is_empty()));
    let shell = shell.unwrap_or_else(|| "/bin/sh".into());
    let mut name = b"-".to_vec();
    name.extend_from_slice(shell.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default());
    Spawn::new(shell).argv0(OsString::from_vec(name))
}

fn on_pipes<'a>(spawn: Spawn<'a>, spec: &CommandSpec) -> io::Result<(Spawn<'a>, Ours)> {
    let mut ours = Ours::default();
    let null = fd::null()?;
    let stdin = if spec.stdin {
        let (theirs, write) = fd::pipe()?;
        ours.input = Some(write);
        theirs
    } else {
        fd::dup_cloexec(&null)?
    };
    let mut output = |index: usize| {
        let (read, theirs) = fd::pipe()?;
        ours.outputs[index] = Some(read);
        io::Result::Ok(theirs)
    };
    let stdout = if spec.stdout { output(0)? } else { fd::dup_cloexec(&null)? };
    let stderr = match spec.stderr {
        StderrMode::Apart => output(1)?,
        StderrMode::WithStdout => fd::dup_cloexec(&stdout)?,
        StderrMode::Null => null,
    };
    Ok((spawn.stdin(stdin).stdout(stdout).stderr(stderr), ours))
}

/// A terminal of its own: whatever is done to it, by whom, reaches no other (S16).
fn on_terminal<'a>(spawn: Spawn<'a>, spec: &CommandSpec, terminal: &Terminal) -> Result<(Spawn<'a>, Ours), Failure> {
    let opened = || {
        let pty = tty::Pty::open()?;
        tty::set_size(&pty, tty::Size { rows: terminal.size.rows, columns: terminal.size.columns })?;
        let slave = pty.open_slave()?;
        let spawn = spawn.stdin(fd::dup_cloexec(&slave)?).stdout(fd::dup_cloexec(&slave)?);
        let spawn = spawn.stderr(fd::dup_cloexec(&slave)?).controlling_terminal(slave);
        // Two descriptors of the master: each direction is watched by itself.
        let input = spec.stdin.then(|| fd::dup_cloexec(&pty)).transpose()?;
        Ok((spawn, Ours { input, outputs: [Some(pty.into()), None] }))
    };
    opened().map_err(|error: io::Error| {
        const ENOSPC: i32 = 28;
        let mut failure = os_failure("cannot open a pseudo-terminal", &error);
        // Not what these errors mean elsewhere: no program is missing, and no disk is full.
        if error.raw_os_error() == Some(ENOSPC) {
            failure.kind = FailureKind::Busy;
            failure = failure.hint("all pseudo-terminals are in use: see /proc/sys/kernel/pty/max");
        } else if let FailureKind::Os(_) = failure.kind {
            failure.kind = FailureKind::Unsupported;
            failure = failure.hint("is /dev/pts mounted there?");
        }
        failure
    })
}
