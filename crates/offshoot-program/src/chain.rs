//! Chains: calls that run one after the other and stop at the first error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use offshoot_node::{Context, Error};
use offshoot_wire::{Address, ChainLink, Failure, FailureKind};

/// Calls to one context that run one after the other, in the order in which they were started, and stop at the first that
/// does not succeed: a function that returns an `Err`, panics, is lost, or is given up before it has ended. Those behind it end with
/// [`FailureKind::Cancelled`] and have not run; so do new ones, until [`reset`](Chain::reset).
///
/// The calls are sent at once, whatever is still to run before them: a chain of a hundred takes one round trip.
/// Calls outside of the chain, and other chains, go on beside it. Cloning yields the same chain.
///
/// # Examples
///
/// ```no_run
/// # mod stop { use offshoot_program::{Call, Chain}; pub fn call() -> Call<Result<(), String>> { unimplemented!() } }
/// # use stop as upgrade; use stop as start;
/// # fn demo(web: &offshoot_node::Context) -> Result<(), Box<dyn std::error::Error>> {
/// let chain = offshoot_program::Chain::new();
/// let stopped = stop::call().serial(&chain).start(web);
/// let upgraded = upgrade::call().serial(&chain).start(web);
/// start::call().serial(&chain).on(web)??;
/// # drop((stopped, upgraded)); Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chain(Arc<Mutex<Arc<Epoch>>>);

impl Chain {
    /// A chain without calls. It belongs to the context of its first call.
    pub fn new() -> Chain {
        Chain::default()
    }

    /// Forgets what failed: calls started from now on run again, beside what is left of those started before.
    pub fn reset(&self) {
        let before = std::mem::take(&mut *self.lock());
        // Outside of the lock: it may be the last one.
        drop(before);
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Epoch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place behind all calls so far.
    pub(crate) fn join(&self, context: &Context) -> Result<Member, Failure> {
        let epoch = Arc::clone(&self.lock());
        let mut state = epoch.lock();
        if state.failed.is_some() {
            return Err(stopped());
        }
        if state.context.get_or_insert_with(|| context.address().clone()) != context.address() {
            return Err(Failure::new(FailureKind::Unsupported, "the chain belongs to another context"));
        }
        let position = state.next;
        state.next += 1;
        state.open += 1;
        drop(state);
        Ok(Member { chain: self.clone(), place: Mutex::new((epoch, position)) })
    }
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Cancelled, "an earlier call of the chain did not succeed")
        .hint("`reset` the chain to go on")
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A chain between two resets.
#[derive(Debug)]
struct Epoch {
    number: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    context: Option<Address>,
    worker: Option<Context>,
    next: u64,
    /// Calls that have not ended.
    open: usize,
    /// The first position that did not succeed, as far as is known here.
    failed: Option<u64>,
}

impl State {
    fn fail(&mut self, position: u64) {
        self.failed = Some(self.failed.map_or(position, |failed| failed.min(position)));
    }
}

impl Default for Epoch {
    fn default() -> Epoch {
        Epoch { number: NUMBERS.fetch_add(1, Ordering::Relaxed), state: Mutex::default() }
    }
}

impl Epoch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = &state.worker {
            worker.skip_call(ChainLink { chain: self.number, position: u64::MAX, skip: true });
        }
    }
}

/// A call's place in a chain.
#[derive(Debug)]
pub(crate) struct Member {
    chain: Chain,
    place: Mutex<(Arc<Epoch>, u64)>,
}

impl Member {
    fn place(&self) -> (Arc<Epoch>, u64) {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&place.0), place.1)
    }

    /// Its place as the worker is told it, when that is the one that the chain began in; or when it is another, but this
    /// call is the only one under way: then the chain begins anew there.
    pub(crate) fn link(&self, worker: &Context) -> Result<ChainLink, Error> {
        let (epoch, position) = self.place();
        let mut state = epoch.lock();
        if state.failed.is_some_and(|failed| failed < position) {
            return Err(Error::new(stopped(), worker.path()));
        }
        let known = state.worker.get_or_insert_with(|| worker.clone());
        if known.address() == worker.address() {
            return Ok(ChainLink { chain: epoch.number, position, skip: false });
        }
        if state.open > 1 {
            state.fail(position);
            let failure = Failure::new(FailureKind::Cancelled, "the worker in which the chain ran is lost");
            return Err(Error::new(failure, worker.path()));
        }
        let fresh = Arc::new(Epoch::default());
        let (context, worker) = (state.context.clone(), Some(worker.clone()));
        *fresh.lock() = State { context, worker, next: 1, open: 1, failed: None };
        drop(state);
        let number = fresh.number;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::clone(&fresh), 0);
        let mut current = self.chain.lock();
        if Arc::ptr_eq(&current, &epoch) {
            *current = fresh;
        }
        Ok(ChainLink { chain: number, position: 0, skip: false })
    }

    /// The call has ended, well or not.
    pub(crate) fn ended(&self, failed: bool) {
        let (epoch, position) = self.place();
        let mut state = epoch.lock();
        state.open = state.open.saturating_sub(1);
        if failed {
            state.fail(position);
        }
    }

    /// The call will not run, or nobody waits for it: those behind it must not wait for it either.
    pub(crate) fn give_up(&self) {
        self.ended(true);
        let (epoch, position) = self.place();
        let worker = epoch.lock().worker.clone();
        if let Some(worker) = worker {
            worker.skip_call(ChainLink { chain: epoch.number, position, skip: true });
        }
    }
}
