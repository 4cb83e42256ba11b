//! How much room a link's pipe has: more for a while when much passes by a program that passes it on, as ssh does.
//!
//! Such a program reads and writes as much at once as there is, and each time costs it a look at all that it watches: with
//! 64 KiB between it and us an sshd makes four times the system calls for the same bytes. Contexts on one machine hand on
//! whole turns anyway, and are slower by wide pipes.
//!
//! What all pipes of a user may hold together is limited (64 MiB, by `fs.pipe-user-pages-soft`), and a new pipe of one who
//! has reached that has 8 KiB, whoever's program it is for. So few are wide at once, and each is narrow again some turns after
//! its bulk has ended: where nothing else goes by a link those are heartbeats, and take a minute or two by the usual ones.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use offshoot_mux::io as fd;

use crate::link::TURN;

/// The room that a link's pipe gets when it was full for the first time: a turn's worth. A frame of the largest size does not
/// fit into a usual pipe, which would cost two more switches; and most links never carry one.
const USUAL: i32 = TURN as i32;

/// The room of a wide one, the most that Linux lets a user ask for.
const WIDE: i32 = 1 << 20;

/// How many of this process may be wide at once.
const WIDEST: usize = 8;

/// How many turns are looked at together.
const TURNS: u8 = 16;

/// The bytes a turn, on average, from which on a pipe becomes wide, and below which it no longer is.
const BULK: usize = 8 * 1024;
const NO_BULK: usize = 2 * 1024;

static HOW_MANY: AtomicUsize = AtomicUsize::new(0);

/// One of the wide pipes that there may be.
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let more = |wide| (wide < WIDEST).then_some(wide + 1);
        // Made only then: one that is made is counted off when it is dropped.
        HOW_MANY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then(|| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        HOW_MANY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The room of one of a link's two pipes.
pub(crate) struct Width {
    /// Whether a program passes on what goes by it.
    relayed: bool,
    was_full: bool,
    turns: u8,
    bytes: usize,
    wide: Option<Place>,
}

impl Width {
    pub(crate) fn new(relayed: bool) -> Width {
        Width { relayed, was_full: false, turns: 0, bytes: 0, wide: None }
    }

    /// It had no room for what was to be written. Whether it has more now.
    pub(crate) fn full(&mut self, pipe: BorrowedFd<'_>) -> bool {
        // An error means that it is no pipe, or that the user has as much in pipes as may be.
        !std::mem::replace(&mut self.was_full, true) && self.wide.is_none() && fd::set_pipe_size(pipe, USUAL).is_ok()
    }

    /// A turn of reading or writing passed so many bytes by it.
    pub(crate) fn passed(&mut self, pipe: BorrowedFd<'_>, bytes: usize) {
        if !self.relayed {
            return;
        }
        self.turns += 1;
        self.bytes += bytes;
        if self.turns < TURNS {
            return;
        }
        let average = std::mem::take(&mut self.bytes) / usize::from(std::mem::take(&mut self.turns));
        if self.wide.is_none() && average >= BULK {
            self.wide = Place::take().filter(|_| fd::set_pipe_size(pipe, WIDE).is_ok());
        } else if self.wide.is_some() && average < NO_BULK && fd::set_pipe_size(pipe, USUAL).is_ok() {
            // Refused while more waits in it than that.
            self.wide = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    /// How many bytes fit into it.
    fn room(write: &OwnedFd) -> usize {
        fd::set_nonblocking(write, true).unwrap();
        let mut room = 0;
        while let Ok(n) = fd::write(write, &[0; 4096]) {
            room += n;
        }
        room
    }

    fn empty(read: &OwnedFd, mut bytes: usize) {
        let mut buffer = [0; 4096];
        while bytes > 0 {
            bytes -= fd::read(read, &mut buffer).unwrap();
        }
    }

    /// One test, since what is counted is the process's.
    #[test]
    fn a_pipe_is_wide_while_bulk_passes_and_few_are_at_once() {
        let (read, write) = fd::pipe().unwrap();
        let mut local = Width::new(false);
        assert!(local.full(write.as_fd()), "the first time");
        assert!(!local.full(write.as_fd()), "not again");
        for _ in 0..100 {
            local.passed(write.as_fd(), TURN);
        }
        let usual = room(&write);
        assert_eq!(usual, USUAL as usize, "contexts on one machine are slower by wide ones");
        empty(&read, usual);

        let mut relayed = Width::new(true);
        for _ in 0..TURNS - 1 {
            relayed.passed(write.as_fd(), TURN);
        }
        assert!(relayed.wide.is_none(), "a large value is no bulk yet");
        relayed.passed(write.as_fd(), TURN);
        if relayed.wide.is_none() {
            // Whoever runs this has as much in pipes as may be.
            assert!(fd::set_pipe_size(&write, WIDE).is_err());
            return println!("not run: this user's pipes hold all that they may");
        }
        let wide = room(&write);
        assert_eq!(wide, WIDE as usize);
        for _ in 0..TURNS {
            relayed.passed(write.as_fd(), 30);
        }
        assert!(relayed.wide.is_some(), "it holds more than it could then");
        empty(&read, wide);
        for _ in 0..TURNS {
            relayed.passed(write.as_fd(), NO_BULK);
        }
        assert!(relayed.wide.is_some(), "between the bounds it stays as it is");
        for _ in 0..TURNS {
            relayed.passed(write.as_fd(), 30);
        }
        assert!(relayed.wide.is_none());
        assert_eq!(room(&write), USUAL as usize);

        let mut many: Vec<Width> = (0..=WIDEST).map(|_| Width::new(true)).collect();
        let others: Vec<_> = many.iter().map(|_| fd::pipe().unwrap()).collect();
        for (width, (_, write)) in many.iter_mut().zip(&others) {
            for _ in 0..TURNS {
                width.passed(write.as_fd(), TURN);
            }
        }
        assert!(many[WIDEST].wide.is_none(), "one too many");
        let had = many.iter().filter(|width| width.wide.is_some()).count();
        assert_eq!(HOW_MANY.load(Ordering::Relaxed), had);
        drop(many);
        assert_eq!(HOW_MANY.load(Ordering::Relaxed), 0);
    }
}
