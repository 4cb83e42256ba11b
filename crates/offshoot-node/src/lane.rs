//! One channel or stream, in the process that made it: what waits in it, and who writes and reads it.
//!
//! Ends that were handed over are served by [`services::lanes`](crate::services); here they are numbers. Its lock is the
//! innermost: whoever holds it takes no other, and the node's lock may be held when it is taken.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use bytes::Bytes;
use offshoot_route::ExchangeId;
use offshoot_wire::{Failure, FailureKind, LostReason, Ran};

use crate::shared::Shared;

/// How many losses of writers wait to be heard of; more are as good as these.
const LOSSES: usize = 128;

/// What waits to be read.
pub(crate) enum Entry {
    /// A message, or some bytes; and what is to be told of it once it was taken: so many bytes of an exchange are used.
    Message(Bytes, Option<(ExchangeId, usize)>),
    /// One who wrote is lost.
    Lost(Failure),
}

/// What a reader finds.
pub(crate) enum Next {
    Entry(Entry),
    /// All is read, and nobody writes any more.
    End,
    Nothing,
}

/// Where it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Here,
    /// The reading end was handed over, and is not asked for yet.
    Given,
    There(ExchangeId),
}

struct Inside {
    queue: VecDeque<Entry>,
    /// How many of these were written here.
    local: usize,
    /// How many of them are losses.
    losses: usize,
    /// Who may still write: those here count as one, and each that was handed over.
    writers: usize,
    /// A writing end was handed over.
    given: bool,
    /// Nobody reads any more, for this reason.
    closed: Option<Failure>,
    reading: Reading,
    /// The node that serves what was handed over.
    home: Option<Weak<Shared>>,
}

/// A channel or stream.
pub(crate) struct Lane {
    inside: Mutex<Inside>,
    came: Condvar,
    room: Condvar,
    /// How many entries of this process wait before its writers do.
    capacity: usize,
    /// What is written are messages, and not bytes that may be cut anywhere.
    pub(crate) framed: bool,
}

/// The bytes of two writers of a pipe would be mixed.
pub(crate) fn one_writer() -> Failure {
    Failure::new(FailureKind::Unsupported, "the writing end of a pipe is for one context alone")
}

/// The failure of writing what nobody reads.
pub(crate) fn nobody() -> Failure {
    Failure::new(FailureKind::Cancelled, "nobody reads it any more")
}

/// The failure of what the deadline ended.
pub(crate) fn elapsed(what: &str) -> Failure {
    Failure::new(FailureKind::Timeout, what)
}

impl Lane {
    /// A lane with both ends here.
    pub(crate) fn ends(capacity: usize, framed: bool) -> (Arc<WriterEnd>, Arc<ReaderEnd>) {
        let inside = Inside {
            queue: VecDeque::new(),
            local: 0,
            losses: 0,
            writers: 1,
            given: false,
            closed: None,
            reading: Reading::Here,
            home: None,
        };
        let (came, room) = (Condvar::new(), Condvar::new());
        let lane = Arc::new(Lane { inside: Mutex::new(inside), came, room, capacity: capacity.max(1), framed });
        (Arc::new(WriterEnd(Arc::clone(&lane))), Arc::new(ReaderEnd(lane)))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes from here; waits while as much as may wait does.
    pub(crate) fn push(self: &Arc<Self>, bytes: Bytes, deadline: Option<Instant>) -> Result<(), Failure> {
        let mut inside = self.lock();
        loop {
            if let Some(why) = &inside.closed {
                return Err(why.clone());
            }
            if inside.local < self.capacity {
                break;
            }
            inside = wait(&self.room, inside, deadline)
                .ok_or_else(|| elapsed("there was no room for the message in time"))?;
        }
        inside.queue.push_back(Entry::Message(bytes, None));
        inside.local += 1;
        let there = inside.home_of_reader();
        drop(inside);
        self.came.notify_one();
        if let Some(shared) = there {
            shared.with(|state, now| state.pump(self, now));
        }
        Ok(())
    }

    /// Reads here; `None` when all is read and nobody writes any more.
    pub(crate) fn pop(&self, deadline: Option<Instant>) -> Result<Option<Bytes>, Failure> {
        let mut inside = self.lock();
        let (entry, home) = loop {
            if inside.reading != Reading::Here {
                return Err(Failure::new(FailureKind::Unsupported, "the end that is read was handed over"));
            }
            match inside.next() {
                Next::Entry(entry) => break (entry, inside.home.clone()),
                Next::End => return Ok(None),
                Next::Nothing => {}
            }
            inside = wait(&self.came, inside, deadline).ok_or_else(|| elapsed("nothing came in time"))?;
        };
        drop(inside);
        match entry {
            Entry::Message(bytes, None) => {
                self.room.notify_one();
                Ok(Some(bytes))
            }
            Entry::Message(bytes, Some((from, used))) => {
                if let Some(shared) = home.and_then(|home| home.upgrade()) {
                    shared.with(|state, now| state.used(from, used, now));
                }
                Ok(Some(bytes))
            }
            Entry::Lost(failure) => Err(failure),
        }
    }

    // ---- for the service ----

    /// What is next for a reader elsewhere.
    pub(crate) fn next(&self) -> Next {
        let next = self.lock().next();
        if let Next::Entry(Entry::Message(_, None)) = next {
            self.room.notify_one();
        }
        next
    }

    /// Something came from a writer elsewhere. Of losses that nobody has heard of only some are kept: who has one end can open and
    /// lose it as often as it likes.
    pub(crate) fn deliver(&self, entry: Entry) {
        let mut inside = self.lock();
        let lost = matches!(entry, Entry::Lost(_));
        if inside.closed.is_none() && !(lost && inside.losses >= LOSSES) {
            inside.losses += usize::from(lost);
            inside.queue.push_back(entry);
        }
        drop(inside);
        self.came.notify_one();
    }

    /// One more, or one fewer, may write.
    pub(crate) fn add_writer(&self, home: &Arc<Shared>) -> Result<(), Failure> {
        let mut inside = self.lock();
        inside.at(home)?;
        if std::mem::replace(&mut inside.given, true) && !self.framed {
            return Err(one_writer());
        }
        inside.writers += 1;
        Ok(())
    }

    pub(crate) fn remove_writer(&self) {
        let mut inside = self.lock();
        inside.writers = inside.writers.saturating_sub(1);
        drop(inside);
        self.came.notify_all();
    }

    /// The reading end is handed over.
    pub(crate) fn give_reader(&self, home: &Arc<Shared>) -> Result<(), Failure> {
        let mut inside = self.lock();
        inside.at(home)?;
        if inside.reading != Reading::Here {
            return Err(Failure::new(FailureKind::Unsupported, "the end that is read was handed over already"));
        }
        inside.reading = Reading::Given;
        drop(inside);
        self.came.notify_all();
        Ok(())
    }

    /// It is read by this exchange from now on.
    pub(crate) fn read_by(&self, id: ExchangeId) {
        self.lock().reading = Reading::There(id);
    }

    /// The exchange by which it is read.
    pub(crate) fn reader(&self) -> Option<ExchangeId> {
        match self.lock().reading {
            Reading::There(id) => Some(id),
            Reading::Here | Reading::Given => None,
        }
    }

    /// Why nobody reads it any more, when that is so.
    pub(crate) fn closed(&self) -> Option<Failure> {
        self.lock().closed.clone()
    }

    /// Nobody reads it any more: what waits is dropped, and those who write here are told why.
    pub(crate) fn close(&self, why: Failure) {
        let mut inside = self.lock();
        let waited = std::mem::take(&mut inside.queue);
        (inside.local, inside.losses) = (0, 0);
        inside.closed.get_or_insert(why);
        drop(inside);
        drop(waited);
        self.room.notify_all();
        self.came.notify_all();
    }
}

fn wait<'a>(
    condition: &Condvar,
    inside: MutexGuard<'a, Inside>,
    deadline: Option<Instant>,
) -> Option<MutexGuard<'a, Inside>> {
    let Some(deadline) = deadline else {
        return Some(condition.wait(inside).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    Some(condition.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0)
}

impl Inside {
    fn next(&mut self) -> Next {
        match self.queue.pop_front() {
            Some(entry) => {
                match entry {
                    Entry::Message(_, None) => self.local -= 1,
                    Entry::Message(_, Some(_)) => {}
                    Entry::Lost(_) => self.losses -= 1,
                }
                Next::Entry(entry)
            }
            None if self.writers == 0 => Next::End,
            None => Next::Nothing,
        }
    }

    /// Its ends are served by one node.
    fn at(&mut self, home: &Arc<Shared>) -> Result<(), Failure> {
        let known = self.home.get_or_insert_with(|| Arc::downgrade(home));
        if std::ptr::eq(known.as_ptr(), Arc::as_ptr(home)) {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Unsupported, "an end of it was handed over in another tree"))
    }

    /// The node to be told of something new, when it is read elsewhere.
    fn home_of_reader(&self) -> Option<Arc<Shared>> {
        match self.reading {
            Reading::There(_) => self.home.as_ref()?.upgrade(),
            Reading::Here | Reading::Given => None,
        }
    }
}

/// The writing end of those who write here.
pub(crate) struct WriterEnd(pub(crate) Arc<Lane>);

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.0.remove_writer();
        let there = self.0.lock().home_of_reader();
        if let Some(shared) = there {
            shared.with(|state, now| state.pump(&self.0, now));
        }
    }
}

/// The reading end, while it is here.
pub(crate) struct ReaderEnd(pub(crate) Arc<Lane>);

impl Drop for ReaderEnd {
    fn drop(&mut self) {
        let inside = self.0.lock();
        let here = inside.reading == Reading::Here;
        let home = inside.home.as_ref().and_then(Weak::upgrade);
        drop(inside);
        if here {
            self.0.close(nobody());
            if let Some(shared) = home {
                shared.with(|state, now| state.unread(&self.0, now));
            }
        }
    }
}

/// The failure of a writer or reader that is lost.
pub(crate) fn lost(message: &str) -> Failure {
    let kind = FailureKind::PeerLost(LostReason::LinkEnd);
    Failure::new(kind, message).ran(Ran::MaybeExecuted)
}
