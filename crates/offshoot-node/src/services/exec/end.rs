//! The end of a process: by itself, by a signal, because nobody wants it any more, or with its context.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offshoot_mux::{tree, tty};
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{EndReason, ExecReply, Failure, FailureKind, LostReason, ProcessExit, Ran};

use super::{Job, LINGER, LINGERING, TIMEOUT};
use crate::shared::Shared;
use crate::state::{Phase, State, Timer};

const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;

impl State {
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

    /// The process ended, and its output has had its time. Room for it that came in this very turn has not been used yet:
    /// what there is to read is read first, or it would be taken for an output that has nothing.
    pub(crate) fn process_linger(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        for index in 0..2 {
            self.process_readable(shared, id, index, now);
        }
        self.process_finish(shared, id, now);
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

    pub(super) fn signal_job(&mut self, id: ExchangeId, signal: i32) {
        if let Some(job) = self.services.jobs.get(&id) {
            job.signal(signal);
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
        let terminal = job.terminal;
        self.close_input(shared, id);
        if over {
            return self.process_finish(shared, id, shared.now());
        }
        self.end_job(id);
        if terminal {
            // Hung up: whoever still reads or writes there notices at once.
            return self.close_output(shared, id, 0, shared.now());
        }
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
        for job in self.services.jobs.values() {
            job.ask_to_end();
        }
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
    pub(super) fn end_job(&mut self, id: ExchangeId) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        if std::mem::replace(&mut job.ending, true) {
            return;
        }
        if job.terminal {
            job.hang_up();
        }
        let process = tree::Proc::of(job.child.pid()).filter(|_| job.exited.is_none());
        let spawned = self.services.endings.end(process, job.tag.clone(), job.grace);
        if spawned.is_err() {
            // No thread to be had: the group at least, at once.
            let _ = job.child.signal_group(SIGKILL);
        }
    }
}

impl Job {
    /// Sends a signal to the process group; on a terminal to that in the foreground, as its keys do.
    fn signal(&self, signal: i32) {
        if let (true, Some(output)) = (self.terminal, &self.outputs[0])
            && tty::signal_foreground(&output.fd, signal).is_ok()
        {
            return;
        }
        // An error means that it has ended: then there is nothing to signal.
        let _ = self.child.signal_group(signal);
    }

    /// Tells a process that its terminal is gone. Interactive shells ignore TERM, and pass this on to their jobs.
    fn hang_up(&self) {
        for signal in [SIGHUP, SIGCONT] {
            self.signal(signal);
            let _ = self.child.signal_group(signal);
        }
    }

    fn ask_to_end(&self) {
        if self.terminal {
            self.hang_up();
        }
        let _ = self.child.signal_group(SIGTERM);
    }
}
