//! Exec: processes that run for requests.
//!
//! Runs under the node's lock on the broker thread; nothing here blocks. Output is read only as far as the requester's
//! credit goes, input is acknowledged only when the process has taken it: so both ends stall each other, and nobody
//! else. The reply is the last thing of the exchange.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offshoot_mux::{Child, EndPlan, Interest, Spawn, TimerId, Token, end_processes, io as fd, tree};
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{
    CommandSpec, EndReason, EnvChange, ExecControl, ExecReply, Failure, FailureKind, LostReason, ProcessExit, Ran,
    StderrMode, channel, decode,
};

use crate::error::os_failure;
use crate::pool::BUFFER;
use crate::shared::Shared;
use crate::sources::Source;
use crate::state::{Phase, State, Timer};

/// How long the output of a process that ended is read on while something that it started holds it open. Long enough
/// for a pipeline's last words, short enough not to wait for a daemon that forgot to close its output.
const LINGER: Duration = Duration::from_millis(250);

/// A variable that marks what a request started, so that all of it is found when it is to end.
const JOB: &str = "OFFSHOOT_JOB";

/// An output of the process.
struct Output {
    fd: OwnedFd,
    token: Token,
    channel: u8,
}

/// The input of the process, with what it has not taken yet: bounded by the credit given for it.
struct Input {
    fd: OwnedFd,
    token: Token,
    waiting: VecDeque<Bytes>,
    ended: bool,
}

/// A process that runs for a request.
pub(crate) struct Job {
    child: Child,
    exit_token: Token,
    tag: String,
    input: Option<Input>,
    outputs: [Option<Output>; 2],
    exited: Option<ExitStatus>,
    timed_out: bool,
    ending: bool,
    /// Nobody waits for the answer any more.
    cancelled: bool,
    /// How many bytes of its output the core has taken, and how many when it was last found to wait for credit.
    taken: u64,
    stalled_at: Option<u64>,
    grace: Duration,
    timers: [Option<TimerId>; 2],
}

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

const TIMEOUT: usize = 0;
const LINGERING: usize = 1;

impl State {
    pub(crate) fn exec(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: CommandSpec, now: Time) {
        match self.start_job(shared, id, &spec) {
            Ok(job) => {
                self.services.jobs.insert(id, job);
            }
            Err(failure) => self.core.fail(id, failure, now),
        }
    }

    fn start_job(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: &CommandSpec) -> Result<Job, Failure> {
        let os = |error: io::Error| os_failure("cannot prepare the process", &error);
        let tag = self.services.connects.next_job_tag(self.core.address());
        let mut spawn = Spawn::new(OsStr::from_bytes(&spec.program)).session().cwd(match &spec.cwd {
            Some(folder) => OsStr::from_bytes(folder).to_owned(),
            None => crate::identity::home(),
        });
        spawn = spawn.args(spec.args.iter().map(|arg| OsStr::from_bytes(arg)));
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
        spawn = spawn.env(JOB, &tag);
        if let Some((key, value)) = self.services.connects.tree_tag() {
            spawn = spawn.env(key, value);
        }
        if spec.nice != 0 {
            spawn = spawn.nice(spec.nice);
        }
        let null = fd::null().map_err(os)?;
        let (input, spawn) = if spec.stdin {
            let (theirs, ours) = fd::pipe().map_err(os)?;
            (Some(ours), spawn.stdin(theirs))
        } else {
            (None, spawn.stdin(fd::dup_cloexec(&null).map_err(os)?))
        };
        let mut ours: [Option<OwnedFd>; 2] = [None, None];
        let stdout = if spec.stdout {
            let (read, write) = fd::pipe().map_err(os)?;
            ours[0] = Some(read);
            write
        } else {
            fd::dup_cloexec(&null).map_err(os)?
        };
        let stderr = match spec.stderr {
            StderrMode::Apart => {
                let (read, write) = fd::pipe().map_err(os)?;
                ours[1] = Some(read);
                write
            }
            StderrMode::WithStdout => fd::dup_cloexec(&stdout).map_err(os)?,
            StderrMode::Null => null,
        };
        let child = spawn.stdout(stdout).stderr(stderr).start().map_err(|error| {
            let program = String::from_utf8_lossy(&spec.program);
            let mut failure = os_failure(&format!("cannot run `{program}`"), error.io());
            failure.message = format!("cannot run `{program}`: {error}");
            failure
        })?;
        // From here on an early return drops, and so ends, the child.
        let exit_token = self.sources.insert(Source::ProcessExit(id));
        shared.registry.add(child.exit_fd().map_err(os)?, exit_token, Interest::Read).map_err(os)?;
        let mut outputs = [None, None];
        for (index, ours) in ours.into_iter().enumerate() {
            let Some(ours) = ours else { continue };
            fd::set_nonblocking(&ours, true).map_err(os)?;
            let token = self.sources.insert(Source::ProcessOut(id, index));
            shared.registry.add(ours.as_fd(), token, Interest::Read).map_err(os)?;
            let channel = [channel::STDOUT, channel::STDERR][index];
            outputs[index] = Some(Output { fd: ours, token, channel });
        }
        let input = match input {
            Some(ours) => {
                fd::set_nonblocking(&ours, true).map_err(os)?;
                let token = self.sources.insert(Source::ProcessIn(id));
                shared.registry.add(ours.as_fd(), token, Interest::Write).map_err(os)?;
                Some(Input { fd: ours, token, waiting: VecDeque::new(), ended: false })
            }
            None => None,
        };
        let timeout = (spec.timeout_ms > 0)
            .then(|| self.after(Duration::from_millis(spec.timeout_ms), Timer::ProcessTimeout(id)));
        Ok(Job {
            child,
            exit_token,
            tag,
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

    // ---- output ----

    pub(crate) fn process_readable(&mut self, shared: &Arc<Shared>, id: ExchangeId, index: usize, now: Time) {
        loop {
            let Some(job) = self.services.jobs.get_mut(&id) else { return };
            let Some(output) = &job.outputs[index] else { return };
            // Discarded when nobody wants it: a cancelled process is not to block on its last words.
            let room = if job.cancelled { BUFFER } else { self.core.writable(id, output.channel).min(BUFFER) };
            if room == 0 {
                // Read on when there is room; the descriptor stays ready.
                return self.core.await_room(id, output.channel);
            }
            match self.services.pool.fill(room, |buffer| fd::read(output.fd.as_fd(), buffer)) {
                Ok(chunk) if !chunk.is_empty() => {
                    let (number, n) = (output.channel, chunk.len());
                    if !job.cancelled {
                        let taken = self.core.send(id, number, chunk, now);
                        debug_assert_eq!(taken, n, "the core took less than it announced");
                        job.taken += n as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => break,
            }
        }
        self.close_output(shared, id, index, now);
    }

    fn close_output(&mut self, shared: &Arc<Shared>, id: ExchangeId, index: usize, now: Time) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        let Some(output) = job.outputs[index].take() else { return };
        let _ = shared.registry.remove(output.fd.as_fd());
        self.sources.remove(output.token);
        if !job.cancelled {
            self.core.finish(id, output.channel, EndReason::Done, now);
        }
        if job.exited.is_some() && job.outputs.iter().all(Option::is_none) {
            self.process_finish(shared, id, now);
        }
    }

    /// There is credit again.
    pub(crate) fn job_output_wanted(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        if let Some(index) = [channel::STDOUT, channel::STDERR].iter().position(|number| *number == channel) {
            self.process_readable(shared, id, index, now);
        }
    }

    /// The requester wants no more of an output: the process sees a closed pipe.
    pub(crate) fn job_output_unwanted(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        if let Some(index) = [channel::STDOUT, channel::STDERR].iter().position(|number| *number == channel) {
            self.close_output(shared, id, index, now);
        }
    }

    // ---- input ----

    pub(crate) fn job_data(&mut self, shared: &Arc<Shared>, id: ExchangeId, number: u8, data: Bytes, now: Time) {
        match number {
            channel::STDIN => {
                let Some(job) = self.services.jobs.get_mut(&id) else { return };
                match &mut job.input {
                    Some(input) => {
                        input.waiting.push_back(data);
                        self.process_writable(shared, id, now);
                    }
                    None => self.core.consumed(id, number, data.len(), now),
                }
            }
            channel::CONTROL => {
                self.core.consumed(id, number, data.len(), now);
                match decode::<ExecControl>(&data) {
                    Ok(ExecControl::Signal(signal)) => self.signal_job(id, signal),
                    Ok(ExecControl::Kill) => self.end_job(id),
                    Err(_) => {}
                }
            }
            _ => {}
        }
    }

    pub(crate) fn job_input_ended(&mut self, shared: &Arc<Shared>, id: ExchangeId, number: u8, now: Time) {
        if number == channel::STDIN
            && let Some(Job { input: Some(input), .. }) = self.services.jobs.get_mut(&id)
        {
            input.ended = true;
            self.process_writable(shared, id, now);
        }
    }

    pub(crate) fn process_writable(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        loop {
            let Some(Job { input: Some(input), .. }) = self.services.jobs.get_mut(&id) else { return };
            let Some(front) = input.waiting.front_mut() else {
                if input.ended {
                    self.close_input(shared, id);
                }
                return;
            };
            match fd::write(input.fd.as_fd(), front) {
                Ok(n) => {
                    let _ = front.split_to(n);
                    if front.is_empty() {
                        input.waiting.pop_front();
                    }
                    self.core.consumed(id, channel::STDIN, n, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.core.stop(id, channel::STDIN, now);
                    return self.close_input(shared, id);
                }
            }
        }
    }

    fn close_input(&mut self, shared: &Arc<Shared>, id: ExchangeId) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        if let Some(input) = job.input.take() {
            let _ = shared.registry.remove(input.fd.as_fd());
            self.sources.remove(input.token);
        }
    }

    // ---- the end ----

    pub(crate) fn process_exited(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        let status = match job.child.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) => return,
            // Reaped by somebody else: how it ended is lost, that it ended is certain.
            Err(_) => ExitStatus::from_raw(0xff00),
        };
        job.exited = Some(status);
        if let Ok(exit) = job.child.exit_fd() {
            let _ = shared.registry.remove(exit);
        }
        self.sources.remove(job.exit_token);
        if let Some(timer) = job.timers[TIMEOUT].take() {
            self.timers.cancel(timer);
        }
        self.close_input(shared, id);
        // What it wrote is in the pipes: read as far as credit goes, then wait for the rest or the end.
        for index in 0..2 {
            self.process_readable(shared, id, index, now);
        }
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        if job.outputs.iter().all(Option::is_none) {
            return self.process_finish(shared, id, now);
        }
        job.timers[LINGERING] = Some(self.timers.insert(std::time::Instant::now() + LINGER, Timer::ProcessLinger(id)));
    }

    /// The process ended, and its output too or nobody waits for that: the reply.
    pub(crate) fn process_finish(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        job.timers[LINGERING] = None;
        // Output that the requester has not yet taken is its own, however long it takes: only an output that has
        // nothing to read is given up.
        let stalled = job.outputs.iter().flatten().any(|output| self.core.writable(id, output.channel) == 0);
        // But not when the context ends: it waits for a reader that reads, and for no other.
        let waits = self.phase == Phase::Running || job.stalled_at.replace(job.taken) != Some(job.taken);
        if stalled && waits && !job.cancelled {
            let timer = self.timers.insert(std::time::Instant::now() + LINGER, Timer::ProcessLinger(id));
            job.timers[LINGERING] = Some(timer);
            return;
        }
        let Some(mut job) = self.services.jobs.remove(&id) else { return };
        for timer in job.timers.into_iter().flatten() {
            self.timers.cancel(timer);
        }
        for output in job.outputs.iter_mut().filter_map(Option::take) {
            let _ = shared.registry.remove(output.fd.as_fd());
            self.sources.remove(output.token);
            if !job.cancelled {
                self.core.finish(id, output.channel, EndReason::Done, now);
            }
        }
        if !job.cancelled {
            let exit = match job.exited {
                Some(status) => match status.signal() {
                    Some(signal) => ProcessExit::Signalled(signal),
                    None => ProcessExit::Exited(status.code().unwrap_or(255)),
                },
                None => ProcessExit::Exited(255),
            };
            if stalled {
                let message = "the context ended while output of the process waited to be read";
                let failure = Failure::new(FailureKind::PeerLost(LostReason::Shutdown), message);
                self.core.fail(id, failure.ran(Ran::Executed), now);
            } else {
                let reply = ExecReply { exit, timed_out: job.timed_out };
                self.core.reply(id, Bytes::from(offshoot_wire::encode(&reply)), now);
            }
        }
        self.check_ended();
    }

    fn signal_job(&mut self, id: ExchangeId, signal: i32) {
        if let Some(job) = self.services.jobs.get(&id) {
            // An error means that it has ended: then there is nothing to signal.
            let _ = job.child.signal_group(signal);
        }
    }

    pub(crate) fn process_timeout(&mut self, id: ExchangeId) {
        if let Some(job) = self.services.jobs.get_mut(&id) {
            job.timers[TIMEOUT] = None;
            job.timed_out = true;
            self.end_job(id);
        }
    }

    /// The requester no longer waits: the process and what it started end.
    pub(crate) fn cancel_job(&mut self, shared: &Arc<Shared>, id: ExchangeId) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        job.cancelled = true;
        let over = job.exited.is_some();
        self.close_input(shared, id);
        if over {
            return self.process_finish(shared, id, shared.now());
        }
        self.end_job(id);
        for index in 0..2 {
            self.process_readable(shared, id, index, shared.now());
        }
    }

    /// Ends all processes, since the context ends: TERM now, KILL after the grace. What they started and left behind is
    /// found when the process itself ends: it and its guard sweep everything that descends from them.
    pub(crate) fn end_jobs(&mut self, grace: Duration) {
        if self.services.jobs.is_empty() {
            return;
        }
        self.signal_jobs(SIGTERM);
        self.after(grace, Timer::KillJobs);
    }

    /// Sends a signal to the process groups of all jobs.
    pub(crate) fn signal_jobs(&mut self, signal: i32) {
        for job in self.services.jobs.values() {
            // An error means that it has ended: then there is nothing to signal.
            let _ = job.child.signal_group(signal);
        }
    }

    /// Ends a process and everything it started: TERM, then KILL after the grace.
    fn end_job(&mut self, id: ExchangeId) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        if std::mem::replace(&mut job.ending, true) {
            return;
        }
        let (pid, tag, grace) = (job.child.pid(), job.tag.clone(), job.grace);
        let process = tree::Proc::of(pid).filter(|_| job.exited.is_none());
        // Its processes are looked for again and again until none is left: not under the lock.
        let spawned = std::thread::Builder::new().name("offshoot-end".into()).spawn(move || {
            // Whoever cleared its environment is found by its parent, and remembered for when that is gone.
            let mut known: Vec<tree::Proc> = process.into_iter().collect();
            let select = || {
                known.extend(tree::with_env_tag(JOB, &tag));
                known.retain(tree::Proc::lives);
                let tops: Vec<u32> = known
                    .iter()
                    .filter(|found| !known.iter().any(|above| above.pid == found.ppid))
                    .map(|found| found.pid)
                    .collect();
                known.extend(tops.into_iter().flat_map(tree::descendants));
                known.sort_unstable_by_key(|found| (found.pid, found.start_time));
                known.dedup_by_key(|found| (found.pid, found.start_time));
                known.clone()
            };
            end_processes(select, EndPlan { grace, ..EndPlan::default() });
        });
        if spawned.is_err() {
            // No thread to be had: the group at least, at once.
            let _ = job.child.signal_group(SIGKILL);
        }
    }
}
