//! Waking a thread that sleeps in a poll, with a system call only when it really sleeps.
//!
//! Owns the flag protocol between one sleeper and any number of wakers, and the descriptor with which a calling thread
//! can be woken from its own `poll(2)`. Must not know what the wake-up is about. Runs on any thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sys;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

/// The flag between one thread that sleeps and all that may wake it.
///
/// The sleeper calls [`begin_sleep`](Self::begin_sleep) before and [`end_sleep`](Self::end_sleep) after its poll; a
/// waker makes its work visible first and then calls [`notify`](Self::notify). A notification is sticky: one that comes
/// while the sleeper is awake makes the next `begin_sleep` answer `false`. So a sleeper that looks at all its work after
/// `end_sleep` (or [`acknowledge`](Self::acknowledge)) misses nothing, and the bell is rung at most once per sleep.
///
/// Most users want [`Waker`](crate::Waker) or [`WakeFd`], which contain one.
///
/// # Implementation notes
///
/// Three states in one byte, changed by swaps alone, each acquiring and releasing. A waker that found `ASLEEP` rings
/// after its swap, perhaps when the sleeper is up already for another reason: that costs one spurious wake-up later.
/// Model-checked in `tests/loom.rs`.
#[derive(Debug)]
pub struct WakeFlag(AtomicU8);

impl WakeFlag {
    /// A flag whose sleeper is awake and has not been notified.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        WakeFlag(AtomicU8::new(AWAKE))
    }

    /// A flag whose sleeper is awake and has not been notified.
    #[cfg(loom)]
    #[allow(clippy::new_without_default)] // `Default` is only for the build that users see
    pub fn new() -> Self {
        WakeFlag(AtomicU8::new(AWAKE))
    }

    /// Announces that the sleeper is about to sleep. When it answers `false` somebody has notified since the last
    /// acknowledgement: poll without waiting.
    #[must_use]
    pub fn begin_sleep(&self) -> bool {
        self.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Ends the sleep and acknowledges every notification so far. `true` when there was one. Look at the work after
    /// this call, not before.
    pub fn end_sleep(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Forgets the notifications so far, outside a sleep: for a sleeper that looks at all its work next.
    pub fn acknowledge(&self) {
        self.end_sleep();
    }

    /// Notes a notification. When it answers `true` the sleeper sleeps and nobody else rings: the caller must ring the
    /// bell that ends the poll.
    #[must_use]
    pub fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }
}

#[cfg(not(loom))]
impl Default for WakeFlag {
    fn default() -> Self {
        Self::new()
    }
}

/// Which of the descriptors given to a wait are ready, and whether the waiter was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub(crate) fds: u64,
    pub(crate) woken: bool,
}

impl Ready {
    /// Whether the descriptor at this place of the list can be read without blocking; an end of file or an error on it
    /// counts as readable, since a read reports it.
    pub fn has(&self, index: usize) -> bool {
        index < 64 && self.fds & (1 << index) != 0
    }

    /// Whether no descriptor is ready: the time ran out, a signal came, or only a wake-up.
    pub fn is_empty(&self) -> bool {
        self.fds == 0
    }

    /// Whether a [`WakeFd::wake`] ended the wait, or had come before it.
    pub fn woken(&self) -> bool {
        self.woken
    }
}

/// Waits until one of at most 63 descriptors can be read, by plain `poll(2)`; `None` waits for ever.
///
/// It may return early with nothing ready (a signal). For a caller that reads its own link; to be woken by other
/// threads too use [`WakeFd::wait`].
///
/// # Errors
///
/// `InvalidInput` for more than 63 descriptors, else what `poll(2)` reports.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Ready> {
    Ok(Ready { fds: sys::poll::readable(fds, None, timeout)?, woken: false })
}

/// A descriptor that wakes one thread out of its own poll: an eventfd, or a pipe where there is none.
///
/// Each thread that leads a link owns one and keeps it for its life; others hold it in an `Arc` and call
/// [`wake`](Self::wake), which costs a system call only while the owner is inside [`wait`](Self::wait).
///
/// # Examples
///
/// ```
/// use std::{sync::Arc, thread};
/// let wake = Arc::new(offshoot_mux::WakeFd::new()?);
/// let other = Arc::clone(&wake);
/// let waker = thread::spawn(move || other.wake());
/// assert!(wake.wait(&[], None)?.woken());
/// waker.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct WakeFd {
    flag: WakeFlag,
    bell: Bell,
}

#[cfg(not(loom))]
type Bell = sys::bell::Bell;

impl WakeFd {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    #[cfg(not(loom))]
    pub fn new() -> io::Result<Self> {
        Ok(WakeFd { flag: WakeFlag::new(), bell: sys::bell::Bell::new()? })
    }

    /// Wakes the owner; before its wait as well as during it. Any number of calls before the owner wakes count as one.
    pub fn wake(&self) {
        if self.flag.notify() {
            self.bell.ring();
        }
    }

    /// Forgets earlier wake-ups. The owner calls this before it looks at what it is about to wait for, so that a stale
    /// wake-up of an earlier wait does not cost a turn. Never between registering with two sources of wake-ups.
    pub fn acknowledge(&self) {
        self.flag.acknowledge();
    }

    /// Waits until one of at most 63 descriptors can be read, somebody [woke](Self::wake) the owner, or the time is
    /// over; returns at once when the owner was woken since its last wait. May return early with nothing. Only the
    /// owner may call it: two threads in it at once lose wake-ups (never memory).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more than 63 descriptors, else what `poll(2)` reports.
    #[cfg(not(loom))]
    pub fn wait(&self, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout = if self.flag.begin_sleep() { timeout } else { Some(Duration::ZERO) };
        let ready = sys::poll::readable(fds, Some(&self.bell), timeout);
        let woken = self.flag.end_sleep();
        Ok(Ready { fds: ready?, woken })
    }
}

#[cfg(loom)]
pub use model::Bell;

/// What stands for the kernel in the model: the test rings and polls.
#[cfg(loom)]
mod model {
    use super::{WakeFd, WakeFlag};
    use std::fmt;

    /// The ringing of the model's descriptor.
    pub struct Bell(pub Box<dyn Fn() + Send + Sync>);

    impl Bell {
        pub(super) fn ring(&self) {
            (self.0)();
        }
    }

    impl fmt::Debug for Bell {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Bell")
        }
    }

    impl WakeFd {
        /// One that rings by the given function.
        pub fn with_bell(bell: Bell) -> Self {
            WakeFd { flag: WakeFlag::new(), bell }
        }

        /// The flag, for a test that sleeps by itself.
        pub fn flag(&self) -> &WakeFlag {
            &self.flag
        }
    }
}
