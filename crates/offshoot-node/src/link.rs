//! One link's descriptors and buffers: how bytes get from a descriptor to the core and back.
//!
//! Must not know frames: the core takes and gives bytes. Touched under the node's lock, but for [`LinkIo`], which a
//! thread that reads the link keeps while it sleeps outside the lock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use offshoot_mux::lead::Baton;
use offshoot_mux::{Interest, OutQueue, Registry, Token, io as fd};
use offshoot_route::{LinkId, Transmit};
use offshoot_wire::Limits;

use crate::width::Width;

/// The most that one turn reads from a link, and the most that it writes: 128 KiB, so that replies are read in time
/// however much there is to write.
pub(crate) const TURN: usize = 128 * 1024;

/// The size of an input buffer: a turn's worth behind a frame of which only a part has come.
const INPUT: usize = TURN + Limits::FRAME as usize + 16;

/// The most that waits in the output buffer of a link; the core holds back the rest. Half a turn is asked for when less
/// than that waits, and the core gives one frame more than it is asked for: 192 KiB.
const OUT_LIMIT: usize = TURN + Limits::FRAME as usize + 16;

pub(crate) use offshoot_connect::LinkIo as LinkFds;

/// What a thread that reads the link needs.
#[derive(Debug)]
pub(crate) struct LinkIo {
    fds: LinkFds,
    pub(crate) baton: Baton,
    read_token: Token,
    write_token: Token,
}

impl LinkIo {
    pub(crate) fn read_fd(&self) -> BorrowedFd<'_> {
        self.fds.read.as_fd()
    }

    fn write_fd(&self) -> BorrowedFd<'_> {
        self.fds.write.as_fd()
    }

    pub(crate) fn read_token(&self) -> Token {
        self.read_token
    }
}

/// A link that a thread may read instead of the broker.
pub(crate) struct Readable {
    pub(crate) id: LinkId,
    pub(crate) io: Arc<LinkIo>,
}

/// How a turn of reading or writing ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing more for now: an event follows.
    Rest,
    /// There is more: come back without waiting for an event.
    More,
    /// The other end closed, or the descriptor failed.
    Ended,
}

/// A link's buffers.
pub(crate) struct Link {
    pub(crate) io: Arc<LinkIo>,
    input: BytesMut,
    output: OutQueue,
    /// Whether the poller tells when the descriptor can be written.
    awaits_room: bool,
    read_width: Width,
    write_width: Width,
    /// Whether a write failed: told once, and nothing is written any more.
    unwritable: bool,
    /// Whether the other end sends no more: no event will tell of the end behind what is still to be read.
    hung_up: bool,
    reads: u32,
}

/// Input buffers that were full of stream data, kept until that has been consumed and they can be filled again: with an
/// allocator that gives large blocks back to the system at once (musl's), a fresh one costs a page fault per 4 KiB, as much
/// as copying it.
#[derive(Default)]
pub(crate) struct Spares(Vec<BytesMut>);

/// How many are kept, for all links together: 1.5 MiB.
const SPARES: usize = 8;

impl Spares {
    /// Gives a buffer room for a turn: its own, else a spare one's, else new room.
    fn make_room(&mut self, input: &mut BytesMut) {
        if input.capacity() - input.len() >= TURN || input.try_reclaim(TURN) {
            return;
        }
        let free = self.0.iter_mut().position(|spare| spare.try_reclaim(INPUT));
        let mut fresh = match free {
            Some(free) => self.0.swap_remove(free),
            None => BytesMut::with_capacity(INPUT),
        };
        fresh.extend_from_slice(input);
        let mut used = std::mem::replace(input, fresh);
        used.clear();
        if self.0.len() < SPARES {
            self.0.push(used);
        }
    }
}

/// Lets the core write into the output buffer.
struct Out<'a>(&'a mut OutQueue);

impl Transmit for Out<'_> {
    fn small(&mut self, bytes: &[u8]) {
        let taken = self.0.push_small(bytes);
        debug_assert!(taken.is_ok(), "the core wrote more than it was asked for");
    }

    fn large(&mut self, bytes: Bytes) {
        let taken = self.0.push_large(bytes);
        debug_assert!(taken.is_ok(), "the core wrote more than it was asked for");
    }
}

impl Link {
    /// Registers the descriptors, non-blocking from here on. `relayed` says that a program passes on what goes by them.
    ///
    /// # Errors
    /// What the poller reports: out of memory or of watches.
    pub(crate) fn new(
        fds: LinkFds,
        read_token: Token,
        write_token: Token,
        registry: &Registry,
        received: &[u8],
        relayed: bool,
    ) -> io::Result<Link> {
        let io = LinkIo { fds, baton: Baton::new(), read_token, write_token };
        fd::set_nonblocking(io.read_fd(), true)?;
        fd::set_nonblocking(io.write_fd(), true)?;
        registry.add(io.read_fd(), read_token, Interest::Read)?;
        let mut input = BytesMut::with_capacity(INPUT);
        input.extend_from_slice(received);
        Ok(Link {
            io: Arc::new(io),
            input,
            output: OutQueue::new(OUT_LIMIT),
            awaits_room: false,
            read_width: Width::new(relayed),
            write_width: Width::new(relayed),
            unwritable: false,
            hung_up: false,
            reads: 0,
        })
    }

    /// How often it was read, to see whether something came in between.
    pub(crate) fn reads(&self) -> u32 {
        self.reads
    }

    /// What was read and not yet taken by the core.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Whether a write failed: then nothing that is sent arrives.
    pub(crate) fn is_unwritable(&self) -> bool {
        self.unwritable
    }

    /// The poller said that the other end sends no more. It says so once.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// Reads once, at most a turn's worth.
    pub(crate) fn read(&mut self, spares: &mut Spares) -> Turn {
        spares.make_room(&mut self.input);
        self.reads = self.reads.wrapping_add(1);
        let read = fd::read_into(self.io.read_fd(), &mut self.input, TURN);
        self.read_width.passed(self.io.read_fd(), *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Turn::Ended,
            Ok(n) if n == TURN || self.hung_up => Turn::More,
            Ok(_) => Turn::Rest,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::Rest,
            Err(_) => Turn::Ended,
        }
    }

    /// Writes at most a turn's worth of what `fill` yields. `fill` is asked for so many bytes and answers whether it has
    /// more.
    pub(crate) fn write(
        &mut self,
        registry: &Registry,
        mut fill: impl FnMut(usize, &mut dyn Transmit) -> bool,
    ) -> Turn {
        if self.unwritable {
            return Turn::Rest;
        }
        let mut budget = TURN;
        loop {
            // Only what the descriptor is about to take is asked for, so that a call overtakes bulk in the core, where
            // lanes are, and not behind it here, where there is one queue.
            let wanted = TURN / 2;
            let more = if self.output.len() < wanted { fill(wanted, &mut Out(&mut self.output)) } else { true };
            if self.output.is_empty() {
                return self.wait_for_room(registry, false);
            }
            let Ok(progress) = self.output.write_to(self.io.write_fd(), budget) else {
                self.unwritable = true;
                return Turn::Ended;
            };
            budget = budget.saturating_sub(progress.written);
            self.write_width.passed(self.io.write_fd(), progress.written);
            if progress.blocked {
                if self.write_width.full(self.io.write_fd()) {
                    continue;
                }
                return self.wait_for_room(registry, true);
            }
            if progress.empty && !more {
                return self.wait_for_room(registry, false);
            }
            if budget == 0 {
                return Turn::More;
            }
        }
    }

    /// Whether the poller watches for room.
    #[cfg(test)]
    pub(crate) fn awaits_room(&self) -> bool {
        self.awaits_room
    }

    /// Whether the descriptor has taken all that was handed out for it.
    pub(crate) fn is_written(&self) -> bool {
        self.output.is_empty()
    }

    /// Asks the poller to tell, or no longer tell, when the descriptor can be written.
    fn wait_for_room(&mut self, registry: &Registry, wanted: bool) -> Turn {
        if std::mem::replace(&mut self.awaits_room, wanted) == wanted {
            return Turn::Rest;
        }
        let fd = self.io.write_fd();
        let done = if wanted { registry.add(fd, self.io.write_token, Interest::Write) } else { registry.remove(fd) };
        if done.is_ok() { Turn::Rest } else { Turn::Ended }
    }

    /// Stops all reading and writing; the descriptors close when the last thread that reads lets go.
    pub(crate) fn close(&mut self, registry: &Registry) {
        self.io.baton.close();
        // An error means that it is not registered: that is what is wanted.
        let _ = registry.remove(self.io.read_fd());
        if self.awaits_room {
            let _ = registry.remove(self.io.write_fd());
        }
        self.output.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use offshoot_mux::{Events, Poller};

    use super::*;

    #[test]
    fn an_end_that_is_told_together_with_data_is_found_without_another_event() {
        let mut poller = Poller::new().unwrap();
        let (read, theirs) = fd::pipe().unwrap();
        let (_theirs_in, write) = fd::pipe().unwrap();
        let registry = poller.registry();
        let mut link = Link::new(LinkFds { read, write }, Token(1), Token(2), &registry, b"", false).unwrap();
        fd::write(&theirs, b"last words").unwrap();
        drop(theirs);
        let mut events = Events::with_capacity(8);
        poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
        let event = events.iter().next().unwrap();
        assert!(event.readable && event.read_closed, "{event:?}");
        poller.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
        assert_eq!(events.iter().count(), 0, "told once");

        link.hang_up();
        let mut spares = Spares::default();
        assert_eq!(link.read(&mut spares), Turn::More);
        assert_eq!(&link.input()[..], b"last words");
        assert_eq!(link.read(&mut spares), Turn::Ended);
    }

    #[test]
    fn a_buffer_is_used_again_once_what_was_read_is_consumed() {
        let mut spares = Spares::default();
        let mut input = BytesMut::with_capacity(INPUT);
        let first = input.as_ptr();
        let mut chunks = Vec::new();
        for _ in 0..2 {
            input.extend_from_slice(&[7; TURN]);
            chunks.push(input.split_to(TURN - 3).freeze());
            spares.make_room(&mut input);
            assert!(input[..] == [7; 3] && input.capacity() >= TURN + 3);
            input.clear();
        }
        assert!(input.as_ptr() != first && spares.0.len() == 2);
        chunks.clear();
        input.extend_from_slice(&[7; TURN]);
        let chunk = input.split().freeze();
        spares.make_room(&mut input);
        assert!(input.as_ptr() == first && spares.0.len() == 2, "no third one is made");
        drop(chunk);
    }
}
