//! What a worker and what it starts write to stdout and stderr, on its way to whoever attends the worker.
//!
//! Standard output and error output of a worker are pipes of ours. They are read here as far as there is credit, under
//! the node's lock on the broker thread; before the worker is attended, and when nobody reads, writers wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use offshoot_mux::io as fd;
use offshoot_route::{ExchangeId, Node, Time};
use offshoot_wire::{EndReason, channel};

use crate::pool::{BUFFER, Pool};

/// The channel of each pipe.
const CHANNELS: [u8; 2] = [channel::STDOUT, channel::STDERR];

/// How much of the error output is copied at once: less than the pipe for the copy holds, and than one read takes.
const PIECE: usize = 16 * 1024;

/// The reading ends of a worker's standard output and error output.
pub(crate) struct Outlet {
    pipes: [OwnedFd; 2],
    /// Those that the user's code has closed, and all that it started. Kept open: the guard holds them too, so the poller
    /// would not forget them by their end here.
    ended: [bool; 2],
    /// Those that nobody reads: what comes is thrown away, so that nobody waits for it.
    discarded: [bool; 2],
    to: Option<ExchangeId>,
    pool: Pool,
    /// A pipe to copy the error output by; without one it is read.
    copy: Option<(OwnedFd, OwnedFd)>,
}

/// What came of sending.
pub(crate) enum Sent {
    /// Something was, and there may be more; so many bytes are still to be [taken out](Outlet::take_out).
    Some(usize),
    /// Nothing waits, or nobody wants it.
    Empty,
    /// There is no credit.
    Blocked,
}

impl Outlet {
    pub(crate) fn new(pipes: [OwnedFd; 2]) -> Outlet {
        Outlet {
            pipes,
            ended: [false; 2],
            discarded: [false; 2],
            to: None,
            pool: Pool::default(),
            copy: fd::pipe().ok(),
        }
    }

    pub(crate) fn fd(&self, index: usize) -> BorrowedFd<'_> {
        self.pipes[index].as_fd()
    }

    /// Whether somebody attends already.
    pub(crate) fn is_attended(&self) -> bool {
        self.to.is_some()
    }

    pub(crate) fn attend(&mut self, id: ExchangeId) {
        self.to = Some(id);
    }

    /// Whether the attendance is this exchange, which is over now.
    pub(crate) fn left(&mut self, id: ExchangeId) -> bool {
        self.to.take_if(|to| *to == id).is_some()
    }

    /// Which of the two a channel of an exchange is for.
    pub(crate) fn wanted(&self, id: ExchangeId, number: u8) -> Option<usize> {
        CHANNELS.iter().position(|channel| *channel == number && self.to == Some(id))
    }

    /// Sends some of what waits in one of them.
    pub(crate) fn send(&mut self, core: &mut Node, index: usize, now: Time) -> Sent {
        let Some(id) = self.to else { return Sent::Empty };
        if self.ended[index] {
            return Sent::Empty;
        }
        if self.discarded[index] {
            let read = self.pool.fill(BUFFER, |buffer| fd::read(&self.pipes[index], buffer));
            return if read.is_ok_and(|read| !read.is_empty()) { Sent::Some(0) } else { Sent::Empty };
        }
        let number = CHANNELS[index];
        let room = core.writable(id, number).min(BUFFER);
        if room == 0 {
            core.await_room(id, number);
            return Sent::Blocked;
        }
        // What is on its way may be the last words before a crash. So the error output is copied, and taken out of its
        // pipe when the link has it: what is left in the pipe is said by the guard.
        let copied = match &self.copy {
            Some((read, write)) if index == 1 => fd::tee(&self.pipes[1], write, room.min(PIECE)).map(|n| (read, n)),
            _ => Ok((&self.pipes[index], room)),
        };
        let chunk = copied.and_then(|(from, most)| self.pool.fill(most, |buffer| fd::read(from, buffer)));
        match chunk {
            Ok(chunk) if !chunk.is_empty() => {
                let length = chunk.len();
                let _: usize = core.send(id, number, chunk, now);
                Sent::Some(if index == 1 && self.copy.is_some() { length } else { 0 })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Empty,
            Ok(_) | Err(_) => {
                self.ended[index] = true;
                core.finish(id, number, EndReason::Done, now);
                Sent::Empty
            }
        }
    }

    /// Nobody reads one of them any more.
    pub(crate) fn discard(&mut self, index: usize) {
        self.discarded[index] = true;
    }

    /// Takes what was copied out of its pipe.
    pub(crate) fn take_out(&mut self, index: usize, length: usize) {
        if length > 0 {
            // It is there: nobody else reads.
            let _ = self.pool.fill(length, |buffer| fd::read(&self.pipes[index], buffer));
        }
    }

    /// Tells whoever attends that this worker is about to end by itself.
    pub(crate) fn retire(&self, core: &mut Node, now: Time) {
        if let Some(id) = self.to {
            let _: usize = core.send(id, channel::QUESTION, Bytes::from_static(b"\0"), now);
        }
    }
}
