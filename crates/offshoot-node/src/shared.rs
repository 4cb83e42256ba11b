//! The lock around the core, and how threads wait behind it.
//!
//! Owns [`Shared`]: one per node, used by the broker thread and by every thread that calls. Whoever holds the lock
//! drives the core: puts its command in, handles what comes of it, writes what is ready. No lock is held across a system
//! call that can block, nor while user code runs. Must not know what the requests mean.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use offshoot_mux::lead::Slot;
use offshoot_mux::{Interest, Registry, WakeFd, Waker};
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::Address;

use crate::link::Readable;
use crate::options::Options;
use crate::state::State;
use crate::workers::Workers;

/// How long the broker gives way at most: many times what a thread takes to wake on a busy machine.
const WAY: Duration = Duration::from_millis(2);

/// What one waiting thread is woken by; made anew for each sleep.
pub(crate) type Ticket = Arc<Slot<()>>;

/// One running node, as its threads see it.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// How many threads sleep for it.
    waiting: AtomicUsize,
    pub(crate) registry: Registry,
    pub(crate) waker: Waker,
    pub(crate) options: Options,
    pub(crate) workers: Workers,
    started: Instant,
}

/// A wait that ended without what was waited for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

thread_local! {
    /// What ends this thread's own poll while it reads a link. Kept for the thread's life.
    static WAKE: OnceCell<Option<Arc<WakeFd>>> = const { OnceCell::new() };
}

/// This thread's wake descriptor; `None` when the process is out of descriptors: then the thread does not lead.
fn thread_wake() -> Option<Arc<WakeFd>> {
    WAKE.with(|cell| cell.get_or_init(|| WakeFd::new().ok().map(Arc::new)).clone())
}

impl Shared {
    pub(crate) fn new(state: State, registry: Registry, waker: Waker, options: Options, started: Instant) -> Shared {
        let (state, waiting, workers) = (Mutex::new(state), AtomicUsize::new(0), Workers::default());
        Shared { state, waiting, registry, waker, options, workers, started }
    }

    /// The core's clock.
    pub(crate) fn now(&self) -> Time {
        Time::from_micros(self.started.elapsed().as_micros() as u64)
    }

    /// The instant of a time of the core's clock.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.started + Duration::from_micros(time.as_micros())
    }

    /// The lock. A panic of another thread under it is reported by that thread; the core's own invariants hold between
    /// any two of its calls, so the others go on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        if let Ok(state) = self.state.try_lock() {
            return state;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Lets those who wait for the lock have it first. Whoever runs takes it before one that must wake for it: so a broker
    /// with a child that floods its link would keep it for tenths of a second.
    pub(crate) fn give_way(&self) {
        let mut until = None;
        while self.waiting.load(Ordering::Relaxed) > 0 {
            let now = Instant::now();
            if now >= *until.get_or_insert(now + WAY) {
                break;
            }
            std::thread::yield_now();
        }
    }

    /// Runs `command` on the state, then handles what comes of it and wakes whom it concerns.
    pub(crate) fn with<R>(self: &Arc<Self>, command: impl FnOnce(&mut State, Time) -> R) -> R {
        let mut state = self.lock();
        let now = self.now();
        let result = command(&mut state, now);
        self.settle(state, now);
        result
    }

    /// As [`with`](Self::with), but when it is `lazy`, what comes of the command is left to the broker, which handles all that
    /// has gathered by then in one go.
    pub(crate) fn with_lazily<R>(
        self: &Arc<Self>,
        lazy: impl FnOnce(&State) -> bool,
        command: impl FnOnce(&mut State, Time) -> R,
    ) -> R {
        let mut state = self.lock();
        let now = self.now();
        let result = command(&mut state, now);
        if lazy(&state) {
            drop(state);
            self.waker.wake();
        } else {
            self.settle(state, now);
        }
        result
    }

    /// Handles everything that is ready, lets the lock go and wakes whom it concerns.
    pub(crate) fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>, now: Time) {
        state.settle(self, now);
        let wakes = state.take_wakes();
        let broker = state.broker_is_late(self);
        drop(state);
        for ticket in wakes {
            ticket.complete(());
        }
        if broker {
            self.waker.wake();
        }
    }

    /// Waits until `ready` finds what it looks for, reading the exchange's link itself when nobody else does.
    ///
    /// `ready` runs under the lock, at first and whenever something happened to the exchange.
    ///
    /// # Errors
    /// [`Elapsed`] when the deadline passes first.
    pub(crate) fn wait<T>(
        self: &Arc<Self>,
        exchange: ExchangeId,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut State, Time) -> Option<T>,
    ) -> Result<T, Elapsed> {
        loop {
            let mut state = self.lock();
            let now = self.now();
            if let Some(found) = ready(&mut state, now) {
                self.settle(state, now);
                return Ok(found);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.settle(state, now);
                return Err(Elapsed);
            }
            let ticket: Ticket = Arc::new(Slot::new());
            state.await_exchange(exchange, &ticket);
            let link = state.link_of(exchange).and_then(|link| state.readable_link(link));
            self.settle(state, now);
            let led = link.and_then(|link| self.lead(&link, &ticket, deadline, || true, &mut ready));
            match led {
                Some(found) => return Ok(found),
                None => {
                    if !ticket.is_done() {
                        ticket.wait(deadline);
                    }
                }
            }
        }
    }

    /// Takes over the reading of the link towards `dst`, has `send` send a request there, and reads until `ready` is
    /// satisfied. The order matters: an answer that comes while the broker still watches the link wakes it for nothing.
    ///
    /// `send` is given what the exchange is to wake ([`State::await_exchange`]), and answers whether it sent. It does not
    /// run when this thread cannot read the link. `None` when nothing was found: [`wait`](Self::wait) goes on.
    pub(crate) fn send_leading<T>(
        self: &Arc<Self>,
        dst: &Address,
        send: impl FnOnce(&Ticket) -> bool,
        mut ready: impl FnMut(&mut State, Time) -> Option<T>,
    ) -> Option<T> {
        let state = self.lock();
        let link = state.towards(dst).and_then(|link| state.readable_link(link))?;
        drop(state);
        let ticket: Ticket = Arc::new(Slot::new());
        self.lead(&link, &ticket, None, || send(&ticket), &mut ready)
    }

    /// Reads the link to the parent from this thread, for one that waits for what the requests there bring it: until `ready`
    /// has it, the ticket is complete, or then. `None` also when `begin` refuses, or somebody else reads; in that case it has not run.
    pub(crate) fn lead_parent<T>(
        self: &Arc<Self>,
        ticket: &Ticket,
        until: Instant,
        begin: impl FnOnce() -> bool,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let state = self.lock();
        let link = state.core.parent_link().and_then(|link| state.readable_link(link))?;
        drop(state);
        self.lead(&link, ticket, Some(until), begin, &mut |_, _| ready())
    }

    /// Reads `link` from this thread, once `begin` agrees, until `ready` is satisfied, the ticket is complete, the
    /// deadline passes or the link closes. `None` when there is nothing found yet, or somebody else reads.
    fn lead<T>(
        self: &Arc<Self>,
        link: &Readable,
        ticket: &Ticket,
        deadline: Option<Instant>,
        begin: impl FnOnce() -> bool,
        ready: &mut impl FnMut(&mut State, Time) -> Option<T>,
    ) -> Option<T> {
        let wake = &thread_wake()?;
        wake.acknowledge();
        let Readable { id, io } = link;
        let lead = self.registry.lead(&io.baton, wake, io.read_fd(), io.read_token(), Interest::Read)?;
        if !begin() || !ticket.attach(wake) {
            return None;
        }
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return None;
            }
            let woken = wake.wait(&[io.read_fd()], left).ok()?;
            let mut state = self.lock();
            let now = self.now();
            if woken.has(0) {
                state.read_link(self, *id, now);
            }
            // What came is told before it is looked for.
            state.settle(self, now);
            let found = ready(&mut state, now);
            self.settle(state, now);
            if found.is_some() {
                return found;
            }
            // Completed by another thread, or by the settling above: `ready` is asked again from the start.
            if ticket.is_done() || lead.is_closed() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use offshoot_mux::{Events, Poller, io as fd};
    use offshoot_route::Node;

    use super::*;
    use crate::OwnImage;
    use crate::link::LinkFds;
    use crate::links::NewLink;

    /// The root of a tree, whose broker is the test.
    fn root(poller: &Poller) -> Arc<Shared> {
        let options = Options::new(Arc::new(OwnImage::new()));
        let core = Node::root(options.route.clone(), [1; 16], [2; 32], Time::from_micros(0));
        let (registry, waker) = (poller.registry(), poller.waker());
        Arc::new(Shared::new(State::new(core), registry, waker, options, Instant::now()))
    }

    #[test]
    fn who_waits_for_the_lock_has_it_before_one_that_gave_way() {
        const ROUNDS: usize = 50;
        let poller = Poller::new().unwrap();
        let shared = root(&poller);
        let mut first = 0;
        for _ in 0..ROUNDS {
            let was_there = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let held = shared.lock();
                scope.spawn(|| {
                    let _state = shared.lock();
                    was_there.store(1, Ordering::Relaxed);
                });
                while shared.waiting.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                // It sleeps for the lock by then, or nearly.
                std::thread::sleep(Duration::from_micros(200));
                drop(held);
                shared.give_way();
                let _state = shared.lock();
                first += was_there.load(Ordering::Relaxed);
            });
        }
        // Who must wake for a lock hardly ever has it before one that runs. A busy machine may take longer to wake it.
        assert!(first * 2 >= ROUNDS, "{first} times in {ROUNDS}");
    }

    #[test]
    fn who_waits_for_room_is_told_of_it_though_a_thread_reads_the_link_meanwhile() {
        let mut poller = Poller::new().unwrap();
        let shared = root(&poller);
        let ((read, _theirs), (theirs, write)) = (fd::pipe().unwrap(), fd::pipe().unwrap());
        fd::set_nonblocking(&theirs, true).unwrap();
        let (id, found) = shared.with(|state, now| {
            let (id, ..) = state.core.reserve_child(now).unwrap();
            let new = NewLink {
                fds: LinkFds { read, write },
                received: Vec::new(),
                tool: None,
                child: None,
                tag: String::new(),
                guard: false,
                relayed: false,
            };
            state.adopt(&shared, id, new, now).unwrap();
            (id, state.readable_link(id).expect("a link"))
        });
        // Before that thread is there another one writes more than there is room for.
        shared.with(|state, _| {
            let link = state.links.link_mut(id).unwrap();
            while !link.awaits_room() {
                link.write(&shared.registry, |wanted, out| {
                    out.large(vec![0; wanted].into());
                    true
                });
            }
        });
        let ticket: Ticket = Arc::new(Slot::new());
        let deadline = Instant::now() + Duration::from_millis(20);
        let led = shared.lead(&found, &ticket, Some(deadline), || true, &mut |_, _| None::<()>);
        assert!(led.is_none());

        let mut buffer = vec![0; 64 * 1024];
        while fd::read(&theirs, &mut buffer).is_ok() {}
        let mut events = Events::with_capacity(8);
        let told = std::iter::repeat_with(|| {
            poller.wait(&mut events, Some(Duration::from_secs(10))).unwrap();
            events.iter().any(|event| event.writable)
        });
        assert!(told.take(3).any(|writable| writable), "nobody is told that there is room");
    }
}
