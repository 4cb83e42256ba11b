//! The poll loop's pieces: one [`Poller`] slept in by one thread, its [`Registry`] and its [`Waker`] for all others.
//!
//! Owns the epoll (kqueue) instance through mio. Must not know what the descriptors carry.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;

use crate::lead::{Baton, Lead};
use crate::{WakeFd, WakeFlag};

/// Which registration an event belongs to: any number of the user's but [`Token::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub usize);

impl Token {
    /// The poller's own.
    pub const MAX: Token = Token(usize::MAX);
}

/// What to report about a descriptor. Hang-ups and errors are reported in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It can be read.
    Read,
    /// It can be written.
    Write,
    /// Both.
    Both,
}

impl Interest {
    fn mio(self) -> mio::Interest {
        match self {
            Interest::Read => mio::Interest::READABLE,
            Interest::Write => mio::Interest::WRITABLE,
            Interest::Both => mio::Interest::READABLE | mio::Interest::WRITABLE,
        }
    }
}

/// What happened to one descriptor. More than one may be set; any may be spurious.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The registration.
    pub token: Token,
    /// A read may give bytes.
    pub readable: bool,
    /// A write may take bytes.
    pub writable: bool,
    /// The other side will send no more: read what is left, up to the end of the file.
    pub read_closed: bool,
    /// The other side takes no more.
    pub write_closed: bool,
    /// An error stands on the descriptor; the next read or write says which.
    pub error: bool,
}

/// What one wait found: at most as many events as its capacity.
pub struct Events {
    inner: mio::Events,
    woken: bool,
}

impl Events {
    /// Room for so many events in one wait; more wait for the next.
    pub fn with_capacity(capacity: usize) -> Self {
        Events { inner: mio::Events::with_capacity(capacity), woken: false }
    }

    /// The events of the last wait.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.inner.iter().filter(|event| event.token().0 != Token::MAX.0).map(|event| Event {
            token: Token(event.token().0),
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            write_closed: event.is_write_closed(),
            error: event.is_error(),
        })
    }

    /// Whether a [`Waker`] was used before or during the last wait: look at the work of all threads.
    pub fn woken(&self) -> bool {
        self.woken
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("woken", &self.woken).field("list", &self.iter().collect::<Vec<_>>()).finish()
    }
}

/// Waits for descriptors and wake-ups; the broker thread owns it.
///
/// # Notes
///
/// **Edge-triggered.** An event is told once, when it arises. After a readable event read until `WouldBlock`, or until a
/// read fills less than its buffer, or come back without waiting for another event. The same for writing.
/// [`Registry::set`] and [`Registry::resume`] tell again what is ready at that moment.
///
/// # Examples
///
/// ```
/// use offshoot_mux::{Events, Interest, Poller, Token, io};
/// use std::os::fd::AsFd;
/// let mut poller = Poller::new()?;
/// let (ours, theirs) = io::socketpair()?;
/// io::set_nonblocking(&ours, true)?;
/// poller.registry().add(ours.as_fd(), Token(7), Interest::Read)?;
/// io::write(&theirs, b"hello")?;
/// let mut events = Events::with_capacity(64);
/// poller.wait(&mut events, None)?;
/// let event = events.iter().next().unwrap();
/// assert!(event.token == Token(7) && event.readable);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Poller {
    poll: mio::Poll,
    registry: Registry,
    waker: Waker,
}

impl Poller {
    /// Opens a poller: two descriptors and a copy of one.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let registry = Registry { inner: Arc::new(poll.registry().try_clone()?) };
        let bell = mio::Waker::new(poll.registry(), mio::Token(Token::MAX.0))?;
        let waker = Waker { inner: Arc::new(Inner { flag: WakeFlag::new(), bell }) };
        Ok(Poller { poll, registry, waker })
    }

    /// Waits for events, a wake-up, or the end of the time; `None` is for ever. The time is rounded up to milliseconds.
    /// May return early with nothing (a signal): look at the clock and call again.
    ///
    /// # Errors
    ///
    /// What `epoll_wait(2)` reports, but EINTR; none is expected in a working program.
    pub fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let flag = &self.waker.inner.flag;
        let timeout = if flag.begin_sleep() { timeout } else { Some(Duration::ZERO) };
        let result = self.poll.poll(&mut events.inner, timeout);
        events.woken = self.waker.inner.flag.end_sleep();
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.inner.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// The way to change what is waited for, from any thread.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// The way to end the wait, from any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// Changes what a [`Poller`] waits for; from any thread, also while it waits.
///
/// A descriptor must be [removed](Self::remove) before it is closed if a copy of it lives on elsewhere (another process
/// counts), else its events go on.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<mio::Registry>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// Starts waiting for a descriptor; it should be non-blocking. What is ready already is told.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; `PermissionDenied` for what cannot be waited for (ordinary files); `StorageFull` or
    /// `OutOfMemory` at the system's limits. `InvalidInput` for [`Token::MAX`].
    pub fn add(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        if token == Token::MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this token is the poller's own"));
        }
        self.inner.register(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token.0), interest.mio())
    }

    /// Changes the interest or token of a descriptor. What is ready at this moment is told again.
    ///
    /// # Errors
    ///
    /// `NotFound` when it was not added.
    pub fn set(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        self.inner.reregister(&mut SourceFd(&fd.as_raw_fd()), mio::Token(token.0), interest.mio())
    }

    /// Stops reporting a descriptor until [`resume`](Self::resume), cheaply. A hang-up or an error may still be told,
    /// once, and so may an event that the poller had fetched before.
    ///
    /// # Errors
    ///
    /// `NotFound` when it was not added.
    pub fn suspend(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return crate::sys::epoll::quiet(&self.inner, fd, token.0);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = token;
            self.remove(fd)
        }
    }

    /// Reports a suspended descriptor again; what became ready meanwhile is told.
    ///
    /// # Errors
    ///
    /// `NotFound` when it was not added.
    pub fn resume(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return self.set(fd, token, interest);
        #[cfg(not(target_os = "linux"))]
        self.add(fd, token, interest)
    }

    /// Stops waiting for a descriptor. Events that the poller had fetched before may still be told.
    ///
    /// # Errors
    ///
    /// `NotFound` when it was not added.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.inner.deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Takes over the reading of a link, for a caller that waits: the baton, with the broker's interest in `fd` off
    /// until the [`Lead`] is dropped. `interest` is what it is set to then. `None` when somebody else reads, the link
    /// is closed, or the descriptor is not registered.
    ///
    /// Should putting the interest back fail (the system is out of memory), the baton is closed, since nobody would
    /// read the link any more: check [`Baton::is_closed`] after the drop where that matters.
    pub fn lead<'a>(
        &'a self,
        baton: &'a Baton,
        wake: &crate::sync::Arc<WakeFd>,
        fd: BorrowedFd<'a>,
        token: Token,
        interest: Interest,
    ) -> Option<Lead<'a, impl FnMut() + 'a>> {
        let lead = baton.try_lead(wake, move || {
            if self.resume(fd, token, interest).is_err() {
                baton.close();
            }
        })?;
        self.suspend(fd, token).ok()?;
        Some(lead)
    }
}

struct Inner {
    flag: WakeFlag,
    bell: mio::Waker,
}

/// Ends a [`Poller`]'s wait from any thread.
///
/// Make the work visible first, then wake. It costs a system call only when the poller sleeps or is about to and nobody
/// has woken it yet; else one atomic swap.
#[derive(Clone)]
pub struct Waker {
    inner: Arc<Inner>,
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waker").field(&self.inner.flag).finish()
    }
}

impl Waker {
    /// Ends the current wait, or the next one before it begins.
    pub fn wake(&self) {
        if self.inner.flag.notify() {
            // It fails only when the descriptor is gone, and that lives as long as we do.
            let _ = self.inner.bell.wake();
        }
    }
}
