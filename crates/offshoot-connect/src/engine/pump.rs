//! The wait of one connect: which descriptors, for how long, and who can end it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use offshoot_mux::{Events, Interest, Poller, Token, Waker};

use crate::{Cancel, Subscription};

/// A poller for one connect. Events are not told apart: whoever is woken tries everything, which at the few events of a
/// connect costs less than telling.
pub(super) struct Pump {
    poller: Poller,
    events: Events,
    added: usize,
    _subscription: Subscription,
}

impl Pump {
    /// A pump that a cancellation wakes.
    pub(super) fn new(cancel: &Cancel) -> io::Result<Pump> {
        let poller = Poller::new()?;
        let waker = poller.waker();
        let subscription = cancel.subscribe(move || waker.wake());
        Ok(Pump { poller, events: Events::with_capacity(8), added: 0, _subscription: subscription })
    }

    /// What ends a wait from another thread.
    pub(super) fn waker(&self) -> Waker {
        self.poller.waker()
    }

    pub(super) fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        self.added += 1;
        self.poller.registry().add(fd, Token(self.added), interest)
    }

    /// Waits for an event, the cancellation or the time.
    pub(super) fn wait(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        self.poller.wait(&mut self.events, Some(left))
    }
}
