//! The leader/follower boundary: a waiting caller may read its own link.
//!
//! Owns who may read a link ([`Baton`]) and where a caller waits for its one answer ([`Slot`]). Must not know links,
//! frames or descriptors: reading and re-arming are the user's. Runs on callers' threads and on the broker thread.
//! Model-checked in `tests/loom.rs`: never two readers, no completion lost, no waiter asleep while its slot is done.
//!
//! A caller does, in this order:
//!
//! 1. [`WakeFd::acknowledge`] on its thread's own `WakeFd`, then send its request;
//! 2. [`Baton::try_lead`]. When it leads, switch the broker's interest off ([`Registry::lead`](crate::Registry::lead)
//!    does both), [`Slot::attach`], then until [`Slot::is_done`] or [`Lead::is_closed`]: [`WakeFd::wait`] on the link,
//!    read, dispatch. Dropping the [`Lead`] gives the baton back and re-arms the broker's interest;
//! 3. [`Slot::wait`]: returns at once when done, else sleeps until somebody completes the slot.

use std::fmt;
use std::time::Instant;

use crate::WakeFd;
use crate::sync::{Arc, Condvar, Mutex, lock};

enum Holder {
    /// The broker may begin a turn and a caller may take over.
    Free,
    /// The broker reads.
    Broker,
    /// A caller reads, and is woken by this.
    Caller(Arc<WakeFd>),
    Closed,
}

/// Who reads a link: the broker in turns, or one waiting caller for as long as it waits.
///
/// One per link. The lock inside is held for a few instructions only. The state of the reader (its buffer, a frame half
/// read) belongs to whoever holds the baton.
pub struct Baton {
    holder: Mutex<Holder>,
}

impl Default for Baton {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Baton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *lock(&self.holder) {
            Holder::Free => "Baton(free)",
            Holder::Broker => "Baton(broker)",
            Holder::Caller(_) => "Baton(caller)",
            Holder::Closed => "Baton(closed)",
        })
    }
}

impl Baton {
    /// A baton that the broker holds.
    pub fn new() -> Self {
        Baton { holder: Mutex::new(Holder::Free) }
    }

    /// The broker's way to read: a turn, when no caller reads. On [`Turn::Led`] drop the event: the leader sees the
    /// bytes, and re-arming reports what is left. Called by the broker alone.
    pub fn turn(&self) -> Turn<'_> {
        let mut holder = lock(&self.holder);
        match *holder {
            Holder::Free => {
                *holder = Holder::Broker;
                Turn::Read(BrokerTurn(self))
            }
            Holder::Broker | Holder::Caller(_) => Turn::Led,
            Holder::Closed => Turn::Closed,
        }
    }

    /// A caller's way to read: the baton, when neither the broker is in a turn nor another caller reads nor the link is
    /// closed. `wake` is what ends the caller's poll when the link is closed. When the [`Lead`] is dropped the baton
    /// goes back first, then `rearm` runs (unless closed): it must make the broker look at the link again even for
    /// bytes that arrived before, as [`Registry::resume`](crate::Registry::resume) does.
    pub fn try_lead<F: FnMut()>(&self, wake: &Arc<WakeFd>, rearm: F) -> Option<Lead<'_, F>> {
        let mut holder = lock(&self.holder);
        match *holder {
            Holder::Free => {
                *holder = Holder::Caller(Arc::clone(wake));
                Some(Lead { baton: self, rearm })
            }
            Holder::Broker | Holder::Caller(_) | Holder::Closed => None,
        }
    }

    /// Ends all reading: later turns and takings fail and a caller that leads is woken. From any thread, any number of
    /// times. The reader of the moment finishes what it is doing, so keep the descriptor open until it has let go.
    pub fn close(&self) {
        let before = std::mem::replace(&mut *lock(&self.holder), Holder::Closed);
        if let Holder::Caller(wake) = before {
            wake.wake();
        }
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        matches!(*lock(&self.holder), Holder::Closed)
    }

    fn give_back(&self) -> bool {
        let mut holder = lock(&self.holder);
        let closed = matches!(*holder, Holder::Closed);
        if !closed {
            *holder = Holder::Free;
        }
        !closed
    }
}

/// What the broker may do with a link that is readable.
#[derive(Debug)]
pub enum Turn<'a> {
    /// Read it, until the turn is dropped.
    Read(BrokerTurn<'a>),
    /// Leave it: a caller reads.
    Led,
    /// Forget it.
    Closed,
}

/// The broker reads for as long as this lives. What it leaves unread it must come back for itself.
#[derive(Debug)]
pub struct BrokerTurn<'a>(&'a Baton);

impl Drop for BrokerTurn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// A caller reads for as long as this lives.
pub struct Lead<'a, F: FnMut()> {
    baton: &'a Baton,
    rearm: F,
}

impl<F: FnMut()> fmt::Debug for Lead<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lead").field(&self.baton).finish()
    }
}

impl<F: FnMut()> Lead<'_, F> {
    /// Whether the link was closed meanwhile: stop reading.
    pub fn is_closed(&self) -> bool {
        self.baton.is_closed()
    }
}

impl<F: FnMut()> Drop for Lead<'_, F> {
    fn drop(&mut self) {
        // In this order: a broker that is told of bytes while the baton is still away would drop the event.
        if self.baton.give_back() {
            (self.rearm)();
        }
    }
}

enum State<T> {
    /// `sleeps` is whether the caller sleeps on the condition: telling it costs a system call even when nobody does.
    Empty {
        wake: Option<Arc<WakeFd>>,
        sleeps: bool,
    },
    Done(T),
    Taken,
}

/// Where one caller waits for one value.
///
/// Completed at most once, from any thread; the value is taken once. Cheap: a lock held for a few instructions, and a
/// system call only when the caller sleeps.
pub struct Slot<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *lock(&self.state) {
            State::Empty { .. } => "Slot(empty)",
            State::Done(_) => "Slot(done)",
            State::Taken => "Slot(taken)",
        })
    }
}

impl<T> Slot<T> {
    /// An empty slot.
    pub fn new() -> Self {
        Slot { state: Mutex::new(State::Empty { wake: None, sleeps: false }), done: Condvar::new() }
    }

    /// Completes the slot and wakes its caller, however it waits. `false`, and the value is dropped, when it was
    /// completed or [closed](Self::close) before.
    pub fn complete(&self, value: T) -> bool {
        let mut state = lock(&self.state);
        let State::Empty { wake, sleeps } = &mut *state else { return false };
        let (wake, sleeps) = (wake.take(), *sleeps);
        *state = State::Done(value);
        drop(state);
        if sleeps {
            self.done.notify_one();
        }
        if let Some(wake) = wake {
            wake.wake();
        }
        true
    }

    /// Whether the slot is complete, or closed.
    pub fn is_done(&self) -> bool {
        !matches!(*lock(&self.state), State::Empty { .. })
    }

    /// Has `wake` woken when the slot completes: for a caller that sleeps in a poll of its own (it leads a link, or
    /// waits for several slots at once). `false` when the slot is done already. The last attached one counts.
    pub fn attach(&self, wake: &Arc<WakeFd>) -> bool {
        match &mut *lock(&self.state) {
            State::Empty { wake: attached, .. } => {
                *attached = Some(Arc::clone(wake));
                true
            }
            State::Done(_) | State::Taken => false,
        }
    }

    /// Undoes [`attach`](Self::attach).
    pub fn detach(&self) {
        if let State::Empty { wake, .. } = &mut *lock(&self.state) {
            *wake = None;
        }
    }

    /// Waits until the slot is complete and takes the value. `None` when the deadline passed, or the value was taken or
    /// the slot closed before. For one caller; no deadline waits for ever.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<T> {
        let mut state = lock(&self.state);
        while let State::Empty { sleeps, .. } = &mut *state {
            *sleeps = true;
            state = match deadline {
                None => self.done.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.done.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0
                }
            };
        }
        take(&mut state)
    }

    /// Takes the value if it is there.
    pub fn try_take(&self) -> Option<T> {
        take(&mut lock(&self.state))
    }

    /// Gives up: takes the value if it came, and refuses it from now on. So a completion either is returned here or is
    /// told that nobody waits. A caller that does wait, on another thread, wakes with nothing.
    pub fn close(&self) -> Option<T> {
        let before = std::mem::replace(&mut *lock(&self.state), State::Taken);
        match before {
            State::Done(value) => return Some(value),
            State::Empty { wake, sleeps } => {
                if sleeps {
                    self.done.notify_one();
                }
                if let Some(wake) = wake {
                    wake.wake();
                }
            }
            State::Taken => {}
        }
        None
    }
}

fn take<T>(state: &mut State<T>) -> Option<T> {
    match state {
        State::Done(_) => match std::mem::replace(state, State::Taken) {
            State::Done(value) => Some(value),
            State::Empty { .. } | State::Taken => None,
        },
        State::Empty { .. } | State::Taken => None,
    }
}
