//! Exec: processes that run for requests.
//!
//! Runs under the node's lock on the broker thread; nothing here blocks. Output is read only as far as the requester's
//! credit goes, input is acknowledged only when the process has taken it: so both ends stall each other, and nobody
//! else. The reply is the last thing of the exchange.

mod end;
mod start;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offshoot_mux::{Child, Interest, TimerId, Token, io as fd, tty};
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{CommandSpec, EndReason, ExecControl, TerminalSize, channel, decode};

use crate::pool::BUFFER;
use crate::shared::Shared;
use crate::state::State;

/// How long the output of a process that ended is read on while something that it started holds it open. Long enough
/// for a pipeline's last words, short enough not to wait for a daemon that forgot to close its output.
const LINGER: Duration = Duration::from_millis(250);

/// How much of a cancelled process' output is thrown away in one turn: it may write faster than that is done.
const DISCARDED: usize = 4 * BUFFER;

/// A variable that marks what a request started, so that all of it is found when it is to end.
pub(crate) const JOB: &str = "OFFSHOOT_JOB";

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
    /// On a terminal: whether what was typed last has not been ended by a newline.
    in_line: bool,
}

/// A process that runs for a request.
pub(crate) struct Job {
    child: Child,
    exit_token: Token,
    tag: String,
    /// Whether it runs on a terminal: the first output's descriptor is its master, the input's a second one.
    terminal: bool,
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

    // ---- output ----

    pub(crate) fn process_readable(&mut self, shared: &Arc<Shared>, id: ExchangeId, index: usize, now: Time) {
        let mut discarded = 0;
        loop {
            let Some(job) = self.services.jobs.get_mut(&id) else { return };
            let Some(output) = &job.outputs[index] else { return };
            if discarded >= DISCARDED {
                // The descriptor is watched until it is closed: it is reported again, behind what else there is to do.
                let _ = shared.registry.set(output.fd.as_fd(), output.token, Interest::Read);
                return;
            }
            // Discarded when nobody wants it: a cancelled process is not to block on its last words.
            let room = if job.cancelled { BUFFER } else { self.core.writable(id, output.channel).min(BUFFER) };
            if room == 0 {
                // Read on when there is room; the descriptor stays ready.
                return self.core.await_room(id, output.channel);
            }
            let terminal = job.terminal;
            let read = self.services.pool.fill(room, |buffer| match terminal {
                true => read_terminal(&output.fd, buffer),
                false => fd::read(&output.fd, buffer),
            });
            match read {
                Ok(chunk) if !chunk.is_empty() => {
                    let (number, n) = (output.channel, chunk.len());
                    if job.cancelled {
                        discarded += n;
                    } else {
                        let taken = self.core.send(id, number, chunk, now);
                        debug_assert_eq!(taken, n, "the core took less than it announced");
                        job.taken += n as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A terminal that nobody has open any more says so by an error.
                Err(error) if !terminal => {
                    return self.end_output(shared, id, index, EndReason::Failed(error.to_string()), now);
                }
                Ok(_) | Err(_) => return self.close_output(shared, id, index, now),
            }
        }
    }

    fn close_output(&mut self, shared: &Arc<Shared>, id: ExchangeId, index: usize, now: Time) {
        self.end_output(shared, id, index, EndReason::Done, now);
    }

    fn end_output(&mut self, shared: &Arc<Shared>, id: ExchangeId, index: usize, reason: EndReason, now: Time) {
        let Some(job) = self.services.jobs.get_mut(&id) else { return };
        let Some(output) = job.outputs[index].take() else { return };
        let _ = shared.registry.remove(output.fd.as_fd());
        self.sources.remove(output.token);
        if !job.cancelled {
            self.core.finish(id, output.channel, reason, now);
        }
        let hung_up = job.terminal && job.exited.is_none();
        if hung_up {
            // The master's other descriptor: only without both is the terminal hung up.
            self.close_input(shared, id);
        }
        let Some(job) = self.services.jobs.get(&id) else { return };
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
                    Ok(ExecControl::Resize(size)) => self.resize_job(id, size),
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

    fn resize_job(&mut self, id: ExchangeId, TerminalSize { rows, columns }: TerminalSize) {
        if let Some(Job { terminal: true, outputs: [Some(output), _], .. }) = self.services.jobs.get(&id) {
            // It was a terminal at the start and cannot cease to be one.
            let _ = tty::set_size(&output.fd, tty::Size { rows, columns });
        }
    }

    pub(crate) fn process_writable(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        loop {
            let Some(Job { input: Some(input), terminal, .. }) = self.services.jobs.get_mut(&id) else { return };
            let Some(front) = input.waiting.front_mut() else {
                if input.ended && (!*terminal || input.type_end()) {
                    self.close_input(shared, id);
                }
                return;
            };
            match fd::write(input.fd.as_fd(), front) {
                Ok(n) => {
                    let written = front.split_to(n);
                    input.in_line = !written.ends_with(b"\n") && !written.ends_with(b"\r");
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
}

impl Input {
    /// Types what ends a terminal's input. Whether that is done, or cannot be done at all.
    fn type_end(&mut self) -> bool {
        let Ok(Some(end)) = tty::end_of_input(&self.fd) else { return true };
        loop {
            match fd::write(&self.fd, &[end]) {
                // Within a line it ends that line only.
                Ok(_) if std::mem::take(&mut self.in_line) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(_) | Err(_) => return true,
            }
        }
    }
}

/// Reads what a terminal has, as much as there is room for: it gives only some of it at a time, and would be sent on in
/// crumbs.
fn read_terminal(master: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match fd::read(master, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            // Told again by the next read.
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
