//! Low numbers for what a child begins with, in a process that has many descriptors.
//!
//! A child begins with a copy of the table of descriptors, and closes nearly all of it: with some thousands that takes
//! longer than the rest of its start. One that shares the table and cuts a copy off behind the descriptors that it needs
//! has a short one, and does so as fast in a large process as in a small one. For that, these must have low numbers:
//! which are kept from when the process first passes a high one, until it has no child.
//!
//! The compact agent does without (`no_seats`): 0.8 KiB as sent, for the few that have hundreds of contexts to start.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{close, fd};

/// A process that passes no descriptor numbered as high as this has few.
const HIGH: RawFd = 256;
/// Enough for three standard streams, three more, the image and the report. What passes more starts as in a small process.
const SEATS: usize = 8;
/// None of them is a number that the child will use.
const LOWEST: RawFd = 2 * SEATS as RawFd;

static SEATS_KEPT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<OwnedFd>> {
    SEATS_KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps none any longer, unless a child is being started from them: they go with that one.
pub(crate) fn give_back() {
    if let Ok(mut seats) = SEATS_KEPT.try_lock() {
        seats.clear();
    }
}

/// The numbers while a child starts. Nobody else's child does meanwhile from such ones.
pub(crate) struct Seated(MutexGuard<'static, Vec<OwnedFd>>);

impl Seated {
    pub(crate) fn end(&self) -> End {
        End(self.0.iter().map(|seat| seat.as_raw_fd() + 1).max().unwrap_or(LOWEST))
    }
}

/// The number behind the last.
#[derive(Clone, Copy)]
pub(crate) struct End(RawFd);

impl End {
    /// Leaves this process a table of its own, with the descriptors before this one only.
    pub(crate) fn cut(self) -> bool {
        close::cut(self.0)
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        // What a seat stood for is not kept open. The first one is always empty.
        if let Some((empty, seats)) = self.0.split_first() {
            for seat in seats {
                // Two descriptors that are open: there is nothing to fail.
                let _ = fd::replace(empty.as_raw_fd(), seat);
            }
        }
    }
}

/// Gives descriptors other, low numbers, in a process that has many and on a kernel where that helps; `None` elsewhere.
pub(crate) fn take<'a>(numbers: impl Iterator<Item = &'a mut RawFd>) -> io::Result<Option<Seated>> {
    let mut numbers: Vec<_> = numbers.collect();
    if numbers.len() > SEATS || numbers.iter().all(|number| **number < HIGH) || !close::cuts() {
        return Ok(None);
    }
    let mut seats = kept();
    if seats.is_empty() {
        // A process that has no more descriptors still has those for the child.
        let made =
            crate::io::null().and_then(|empty| (0..=SEATS).map(|_| fd::dup_from(empty.as_fd(), LOWEST)).collect());
        let Ok(made) = made else { return Ok(None) };
        *seats = made;
    }
    let seated = Seated(seats);
    for (number, seat) in numbers.iter_mut().zip(&seated.0[1..]) {
        fd::replace(**number, seat)?;
        **number = seat.as_raw_fd();
    }
    Ok(Some(seated))
}
