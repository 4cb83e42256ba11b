//! Calls of remote functions, and what they return.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use offshoot_connect::methods::{Local, Ssh};
use offshoot_mux::lead::Slot;
use offshoot_node::handover::{self, Packed};
use offshoot_node::{Calling, Context, Error, Invocation, Via};
use offshoot_wire::{Address, EncodeError, Failure, FailureKind, Ran};
use serde::de::DeserializeOwned;

use crate::chain::{Chain, Member};
use crate::detached::Outcome;
use crate::identity::identity;

/// Where a remote function runs: its first argument, when it takes `&Here`.
#[derive(Clone, Debug)]
pub struct Here {
    context: Context,
    cancelled: Arc<AtomicBool>,
}

impl Here {
    pub(crate) fn of(call: &Invocation) -> Here {
        Here { context: call.context.clone(), cancelled: Arc::clone(&call.cancelled) }
    }

    /// The worker as a context: what it connects are its own children, and end with it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The name of the context that the function runs in: `worker`, as its agent calls it.
    pub fn name(&self) -> &str {
        self.context.name()
    }

    /// The names from the root's child down to the context that the function runs in, joined with ` -> `: what errors and
    /// logs call it.
    pub fn path(&self) -> &str {
        self.context.path()
    }

    /// Where in the tree the function runs. No other context of the tree has that address, now or later.
    pub fn address(&self) -> &Address {
        self.context.address()
    }

    /// A context below this worker: same machine, same user. Call `connect` on it.
    pub fn local(&self) -> Via<Local> {
        self.context.local()
    }

    /// A context below this worker, that it logs in to by ssh: `[user@]host[:port]`. Call `connect` on it.
    pub fn ssh(&self, target: impl AsRef<str>) -> Via<Ssh> {
        self.context.ssh(target)
    }

    /// Whether nobody waits for the value any more: the caller cancelled, its time was up, or it is lost. The function
    /// is not ended; one that takes long should ask now and then.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A call of a remote function, before it is sent. Made by the function's module.
#[must_use = "nothing happens until `on` or `start` is called"]
pub struct Call<T> {
    function: &'static str,
    args: Result<Packed, EncodeError>,
    timeout: Option<Duration>,
    kill: bool,
    chain: Option<Chain>,
    /// The value is a `Result`.
    fallible: bool,
    decode: Decode<T>,
}

/// What a value is, by its bytes.
type Decode<T> = fn(&Under, &Context, &[u8]) -> Result<T, Failure>;

impl<T> Call<T> {
    pub(crate) fn new(function: &'static str, args: Result<Packed, EncodeError>) -> Call<T>
    where
        T: DeserializeOwned,
    {
        let decode: Decode<T> = |_, worker, value| handover::value(worker, value);
        Call { function, args, timeout: None, kill: false, chain: None, fallible: false, decode }
    }

    /// The same call, for another context.
    pub(crate) fn again(&self) -> Call<T> {
        let Call { function, args, timeout, kill, chain, fallible, decode } = self;
        let (args, chain) = (args.clone(), chain.clone());
        Call { function, args, timeout: *timeout, kill: *kill, chain, fallible: *fallible, decode: *decode }
    }

    /// How long the caller waits, from the start of the call on. Then it is cancelled: the wait ends with
    /// [`FailureKind::Timeout`], and the function can see that nobody waits.
    pub fn timeout(mut self, timeout: Duration) -> Call<T> {
        self.timeout = Some(timeout);
        self
    }

    /// For the attribute alone: what the function returns is a `Result`.
    #[doc(hidden)]
    pub fn fallible(mut self, fallible: bool) -> Call<T> {
        self.fallible = fallible;
        self
    }

    /// Ends the worker, with all that its functions started, when the call is cancelled: by its timeout, or by dropping it
    /// before it has ended. It needs a [`Worker`](crate::Worker) of its own: others' calls would end with it.
    pub fn kill_on_cancel(mut self) -> Call<T> {
        self.kill = true;
        self
    }

    /// Has it run behind all calls that were started in the chain before it, if those succeed.
    pub fn serial(mut self, chain: &Chain) -> Call<T> {
        self.chain = Some(chain.clone());
        self
    }

    /// Has it run in a context and goes on at once; nobody waits for its value. When it fails, or the function returns an
    /// error, that is logged here, at level *error*.
    pub fn detached(self, context: &Context) {
        crate::detached::keep(self.begin(context, |call, _, value| {
            let error = call.error_of(value).map(<[u8]>::to_vec);
            Ok(Outcome { function: call.function, error })
        }));
    }

    /// Runs it in a context and waits for its value.
    ///
    /// The function runs in the context's worker for this program: a process that is started for the first call and
    /// shared by all, side by side. A worker that was lost takes its calls along, and the next call starts another.
    ///
    /// # Errors
    /// When it did not run to its end, or its value did not come back; [`Error::ran`] tells whether it may have run. A panic
    /// is [`FailureKind::Remote`], with its message and place.
    pub fn on(self, context: &Context) -> Result<T, Error> {
        self.start(context).wait()
    }

    /// Has it run in a context, without waiting. What stands in the way is told by the wait.
    pub fn start(self, context: &Context) -> PendingCall<T> {
        let decode = self.decode;
        self.begin(context, decode)
    }

    fn begin<V>(self, context: &Context, decode: Decode<V>) -> PendingCall<V> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (args, program) = match (self.args, identity()) {
            (Ok(args), Ok(program)) => (Some(args), Ok(program)),
            (Ok(args), Err(failure)) => (Some(args), Err(failure)),
            (Err(error), _) => {
                let kind = match error {
                    EncodeError::NoForm => FailureKind::Malformed,
                    EncodeError::TooLong | EncodeError::TooMany => FailureKind::TooLarge,
                };
                let failure = Failure::new(kind, format!("the arguments of {} cannot be sent: {error}", self.function));
                (None, Err(failure.hint("send what is large in parts, by a pipe, or as the input of a command")))
            }
        };
        let kill = self.kill && context.is_own_worker();
        let program = if self.kill && !kill {
            Err(Failure::new(FailureKind::Unsupported, "a call may end its worker only where that is its own")
                .hint("start one by `Worker::on(&context).start()` and call there"))
        } else {
            program
        };
        let (program, chain) = match (program, self.chain.map(|chain| chain.join(context)).transpose()) {
            (Ok(program), Ok(chain)) => (Ok(program), chain),
            (Err(failure), Ok(chain)) => {
                chain.iter().for_each(Member::give_up);
                (Err(failure), None)
            }
            (_, Err(failure)) => (Err(failure), None),
        };
        let (function, fallible, phase) = (self.function, self.fallible, Mutex::default());
        let ended = AtomicBool::new(false);
        let call = Arc::new(Under { context: context.clone(), function, args, kill, chain, fallible, ended, phase });
        match program {
            Ok(program) => call.send(program),
            Err(failure) => call.enter(Phase::Refused(Error::new(failure, context.path()))),
        }
        PendingCall { call, deadline, program: identity().unwrap_or_default(), decode }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("function", &self.function).finish_non_exhaustive()
    }
}

/// A call on its way.
struct Under {
    context: Context,
    function: &'static str,
    /// None when they could not be encoded.
    args: Option<Packed>,
    /// Its worker ends when it is given up.
    kill: bool,
    chain: Option<Member>,
    fallible: bool,
    /// Its end has been told.
    ended: AtomicBool,
    phase: Mutex<Phase>,
}

enum Phase {
    /// Its worker is being started; these are told when that is over.
    Starting(Vec<Arc<Slot<()>>>),
    /// It is being sent: from here on it may run.
    Sending(Vec<Arc<Slot<()>>>),
    Sent(Context, Arc<Calling>),
    Refused(Error),
    GivenUp,
}

impl Default for Phase {
    fn default() -> Phase {
        Phase::Starting(Vec::new())
    }
}

impl Under {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(self: &Arc<Self>, program: [u8; 32]) {
        let call = Arc::clone(self);
        self.context.with_worker(program, move |worker| {
            if !call.begins() {
                return;
            }
            let sent = worker.and_then(|worker| {
                let link = call.chain.as_ref().map(|chain| chain.link(&worker)).transpose()?;
                let args = call.args.as_ref().map(|args| args.for_call(&worker)).transpose()?.unwrap_or_default();
                Ok((worker.start_call(call.function, args, link)?, worker))
            });
            if sent.is_err() {
                call.leave_chain(None);
            }
            call.enter(match sent {
                Ok((calling, worker)) => Phase::Sent(worker, Arc::new(calling)),
                Err(error) => Phase::Refused(error),
            });
        });
    }

    /// The encoded error of its own, if that is what the function returned.
    fn error_of<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        // An `Err` is the second variant.
        handover::encoded(value).filter(|_| self.fallible)?.strip_prefix(&[1])
    }

    /// Its place in its chain is over: with success, or not; `None` when it was given up. Once.
    fn leave_chain(&self, failed: Option<bool>) {
        if let Some(chain) = self.chain.as_ref()
            && !self.ended.swap(true, Ordering::Relaxed)
        {
            match failed {
                Some(failed) => chain.ended(failed),
                None => chain.give_up(),
            }
        }
    }

    /// Whether it is still to be sent; from here on it may run.
    fn begins(&self) -> bool {
        let mut phase = self.lock();
        let Phase::Starting(waiting) = &mut *phase else { return false };
        let waiting = std::mem::take(waiting);
        *phase = Phase::Sending(waiting);
        true
    }

    /// Goes on to a phase and tells those who wait, unless the call was given up.
    fn enter(&self, next: Phase) {
        let mut phase = self.lock();
        // What is replaced is dropped without the lock: it may cancel a call.
        let before = match &*phase {
            Phase::GivenUp => next,
            _ => std::mem::replace(&mut *phase, next),
        };
        drop(phase);
        if let Phase::Starting(waiting) | Phase::Sending(waiting) = before {
            for ticket in waiting {
                ticket.complete(());
            }
        }
    }
}

/// A call whose value is on its way. Dropping it cancels the call.
///
/// `Send`: it can be waited for on another thread than the one that started it.
#[must_use = "dropping it cancels the call"]
pub struct PendingCall<T> {
    call: Arc<Under>,
    deadline: Option<Instant>,
    program: [u8; 32],
    decode: Decode<T>,
}

impl<T> PendingCall<T> {
    /// Waits for the value; see [`Call::on`]. It does end: with the value, the call's timeout, or the loss of the worker.
    ///
    /// # Errors
    /// As [`Call::on`].
    pub fn wait(self) -> Result<T, Error> {
        self.finish(self.deadline)
    }

    /// As [`wait`](Self::wait), at most for `timeout`; then the call is cancelled.
    ///
    /// # Errors
    /// As [`Call::on`], or [`FailureKind::Timeout`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, Error> {
        let until = Instant::now().checked_add(timeout);
        self.finish(self.deadline.into_iter().chain(until).min())
    }

    fn finish(&self, deadline: Option<Instant>) -> Result<T, Error> {
        let mut again = true;
        loop {
            let calling = {
                let mut phase = self.call.lock();
                match &mut *phase {
                    Phase::Sent(worker, calling) => Ok((worker.clone(), Arc::clone(calling))),
                    Phase::Refused(error) => return Err(error.clone()),
                    Phase::GivenUp => {
                        let failure = Failure::new(FailureKind::Cancelled, "the call was given up");
                        return Err(Error::new(failure, self.call.context.path()));
                    }
                    phase if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                        // Given up under the lock: what was not sent by now is not sent any more.
                        let ran = if matches!(phase, Phase::Sending(_)) { Ran::MaybeExecuted } else { Ran::NotSent };
                        *phase = Phase::GivenUp;
                        let failure = Failure::new(FailureKind::Timeout, "the worker did not start in time").ran(ran);
                        return Err(Error::new(failure, self.call.context.path()));
                    }
                    Phase::Starting(waiting) | Phase::Sending(waiting) => {
                        let ticket = Arc::new(Slot::new());
                        waiting.push(Arc::clone(&ticket));
                        Err(ticket)
                    }
                }
            };
            match calling {
                // Whether it came in time is seen above.
                Err(ticket) => drop(ticket.wait(deadline)),
                Ok((worker, calling)) => match calling.wait(deadline) {
                    Ok(value) => {
                        self.call.leave_chain(Some(self.call.error_of(&value).is_some()));
                        self.call.ended.store(true, Ordering::Relaxed);
                        return (self.decode)(&self.call, &worker, &value).map_err(|mut failure| {
                            failure.message = format!("{}: {}", self.call.function, failure.message);
                            Error::new(failure.ran(Ran::Executed), worker.path())
                        });
                    }
                    // It ended before the call reached it: nothing ran, and another takes its place, once.
                    Err(error) if again && is_stale(&error) => {
                        again = false;
                        self.call.context.forget_worker(&worker);
                        self.call.enter(Phase::default());
                        self.call.send(self.program);
                    }
                    Err(error) => {
                        // Of a call that ends otherwise than by its time the worker knows.
                        if *error.kind() != FailureKind::Timeout {
                            self.call.leave_chain(Some(true));
                            self.call.ended.store(true, Ordering::Relaxed);
                        }
                        return Err(error);
                    }
                },
            }
        }
    }
}

impl<T> PendingCall<T> {
    /// The context that it was started on.
    pub fn context(&self) -> &Context {
        &self.call.context
    }

    /// Whether a wait would return at once.
    pub fn is_done(&self) -> bool {
        self.settled(None)
    }

    /// As [`is_done`](Self::is_done); when not, `ticket` is completed at the next thing that happens.
    pub(crate) fn settled(&self, ticket: Option<&Arc<Slot<()>>>) -> bool {
        let calling = match &mut *self.call.lock() {
            Phase::Sent(_, calling) => Arc::clone(calling),
            Phase::Refused(_) | Phase::GivenUp => return true,
            Phase::Starting(waiting) | Phase::Sending(waiting) => {
                waiting.extend(ticket.map(Arc::clone));
                return false;
            }
        };
        calling.is_done(ticket)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl<T> Drop for PendingCall<T> {
    fn drop(&mut self) {
        self.call.enter(Phase::GivenUp);
        if self.call.kill && !self.call.ended.load(Ordering::Relaxed) {
            // It is one of its own: that was looked at when the call began.
            let _ = self.call.context.end_worker();
        }
        self.call.leave_chain(None);
    }
}

impl<T> fmt::Debug for PendingCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall").field("function", &self.call.function).finish_non_exhaustive()
    }
}

fn is_stale(error: &Error) -> bool {
    error.ran() == Ran::NotSent && matches!(error.kind(), FailureKind::NoRoute | FailureKind::PeerLost(_))
}
