//! Calls of remote functions, and what they return.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use offshoot_mux::lead::Slot;
use offshoot_node::handover::{self, Packed};
use offshoot_node::{Calling, Context, Error};
use offshoot_wire::{EncodeError, Failure, FailureKind, Ran};
use serde::de::DeserializeOwned;

use crate::chain::{Chain, Member};
use crate::detached::Outcome;
use crate::identity::identity;
use crate::registry::path;

/// A call of a remote function, before it is sent. Made by `name::call`, beside the function.
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
    /// error, that is logged here, at level *error*: with its text when it travels as a [`RemoteError`](crate::RemoteError);
    /// of an error of a type of its own only that there was one.
    pub fn detached(self, context: &Context) {
        crate::detached::keep(
            self.begin(context, |call, _, value| Ok(Outcome { error: call.error_of(value).map(<[u8]>::to_vec) })),
        );
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
                let failure =
                    Failure::new(kind, format!("the arguments of {} cannot be sent: {error}", path(self.function)));
                (None, Err(failure.hint(handover::advice(&error))))
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
        let call = Arc::new(Under {
            context: context.clone(),
            program: identity().unwrap_or_default(),
            function: self.function,
            args: Mutex::new(args),
            deadline,
            kill,
            chain,
            fallible: self.fallible,
            again: AtomicBool::new(true),
            left: AtomicBool::new(false),
            phase: Mutex::default(),
        });
        match program {
            Ok(_) => call.send(),
            Err(failure) => call.enter(Phase::Ended(Err(Error::new(failure, context.path())))),
        }
        PendingCall { call, deadline, decode }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("function", &path(self.function)).finish_non_exhaustive()
    }
}

/// A call on its way.
struct Under {
    context: Context,
    program: [u8; 32],
    function: &'static str,
    /// None when they could not be encoded, and once they are not needed any more: what they carry is let go of then, and
    /// not when somebody looks at how the call ended.
    args: Mutex<Option<Packed>>,
    /// Until when it may wait for room on the way.
    deadline: Option<Instant>,
    /// Its worker ends when it is given up.
    kill: bool,
    chain: Option<Member>,
    fallible: bool,
    /// It may be sent anew, should its worker have ended before it came there.
    again: AtomicBool,
    /// Its place in its chain is over.
    left: AtomicBool,
    phase: Mutex<Phase>,
}

enum Phase {
    /// Its worker is being started; these are told when that is over.
    Starting(Vec<Arc<Slot<()>>>),
    /// It is being sent: from here on it may run.
    Sending(Vec<Arc<Slot<()>>>),
    Sent(Context, Arc<Calling>),
    /// What it ended with: an encoded value, and the worker that this is from.
    Ended(Result<(Context, Vec<u8>), Error>),
    /// It was given up, or its end was taken.
    Over,
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

    /// Takes the arguments; others find none until they are [kept](Self::keep) again.
    fn take_args(&self) -> Option<Packed> {
        self.args.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the arguments for another attempt, unless the call is over meanwhile.
    fn keep(&self, args: Option<Packed>) {
        *self.args.lock().unwrap_or_else(PoisonError::into_inner) = args;
        let is_over = matches!(*self.lock(), Phase::Over);
        if is_over {
            drop(self.take_args());
        }
    }

    fn send(self: &Arc<Self>) {
        let call = Arc::clone(self);
        self.context.with_worker(self.program, move |worker| {
            if !call.begins() {
                return;
            }
            // The start of its worker may have gone far; the call has not begun to.
            let sent = worker.map_err(Error::not_sent).and_then(|worker| {
                let link = call.chain.as_ref().map(|chain| chain.link(&worker)).transpose()?;
                // Not under a lock: it may wait for room, and who gives it up does not.
                let kept = call.take_args();
                let args = kept.as_ref().map(|args| args.for_call(&worker)).transpose().map_err(Error::not_sent)?;
                match worker.start_call(call.function, args.unwrap_or_default(), link, call.deadline) {
                    // It was lost since it was looked up.
                    Err(error) if is_stale(&error) && call.again.swap(false, Ordering::Relaxed) => {
                        call.keep(kept);
                        call.context.forget_worker(&worker);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                    Ok(calling) => {
                        kept.iter().for_each(|args| args.went_with(&calling));
                        call.keep(kept);
                        Ok(Some((calling, worker)))
                    }
                }
            });
            let sent = match sent {
                Ok(None) => {
                    call.enter(Phase::default());
                    return call.send();
                }
                Ok(Some(sent)) => Ok(sent),
                Err(error) => Err(error),
            };
            if sent.is_err() {
                call.leave_chain(None);
            }
            call.enter(match sent {
                Ok((calling, worker)) => Phase::Sent(worker, Arc::new(calling)),
                Err(error) => Phase::Ended(Err(error)),
            });
        });
    }

    /// Whether it has ended, as far as that is known here; when not, `ticket` is completed at the next thing that happens.
    /// One that did not reach its worker is begun again here, so that nobody who looks has to wait for it.
    fn has_ended(self: &Arc<Self>, ticket: Option<&Arc<Slot<()>>>) -> bool {
        loop {
            let mut phase = self.lock();
            match &mut *phase {
                Phase::Ended(_) | Phase::Over => return true,
                Phase::Starting(waiting) | Phase::Sending(waiting) => {
                    waiting.extend(ticket.map(Arc::clone));
                    return false;
                }
                Phase::Sent(_, calling) if !calling.is_done(ticket) => return false,
                Phase::Sent(..) => {}
            }
            // Its answer is for this thread to take; who looks meanwhile is told when that is over.
            let before = std::mem::replace(&mut *phase, Phase::Sending(Vec::new()));
            drop(phase);
            if let Phase::Sent(worker, calling) = before
                && let Some(result) = self.settle(&worker, calling.wait(None))
            {
                self.enter(Phase::Ended(result.map(|value| (worker, value))));
            }
        }
    }

    /// Takes notice of what its worker, or the way there, ended it with; `None` when it has begun again.
    fn settle(self: &Arc<Self>, worker: &Context, result: Result<Vec<u8>, Error>) -> Option<Result<Vec<u8>, Error>> {
        let failed = match &result {
            // The worker ended before the call reached it: nothing ran, and another takes its place, once.
            Err(error) if is_stale(error) && self.again.swap(false, Ordering::Relaxed) => {
                self.context.forget_worker(worker);
                self.enter(Phase::default());
                self.send();
                return None;
            }
            // Who refused it need not be the worker, which then still waits for its place.
            Err(_) => None,
            Ok(value) => Some(self.error_of(value).is_some()),
        };
        self.leave_chain(failed);
        Some(result)
    }

    /// Nobody waits for it any more; `under_way` says that it has not ended.
    fn give_up(&self, under_way: bool) {
        self.enter(Phase::Over);
        if self.kill && under_way {
            // It is one of its own: that was looked at when the call began.
            let _ = self.context.end_worker();
        }
        self.leave_chain(None);
    }

    /// The encoded error of its own, if that is what the function returned.
    fn error_of<'a>(&self, value: &'a [u8]) -> Option<&'a [u8]> {
        // An `Err` is the second variant.
        handover::encoded(value).filter(|_| self.fallible)?.strip_prefix(&[1])
    }

    /// Its place in its chain is over: well or with an error of its own, as its worker knows; `None` when the worker may not know. Once.
    fn leave_chain(&self, failed: Option<bool>) {
        if let Some(chain) = self.chain.as_ref()
            && !self.left.swap(true, Ordering::Relaxed)
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

    /// Goes on to a phase and tells those who wait, unless the call is over.
    fn enter(&self, next: Phase) {
        let ends = matches!(next, Phase::Ended(_) | Phase::Over);
        let mut phase = self.lock();
        // What is replaced is dropped without the lock: it may cancel a call.
        let before = match &*phase {
            Phase::Over => next,
            _ => std::mem::replace(&mut *phase, next),
        };
        drop(phase);
        if ends {
            drop(self.take_args());
        }
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
        loop {
            let calling = {
                let mut phase = self.call.lock();
                match &mut *phase {
                    Phase::Sent(worker, calling) => Ok((worker.clone(), Arc::clone(calling))),
                    Phase::Ended(_) => {
                        let Phase::Ended(end) = std::mem::replace(&mut *phase, Phase::Over) else { continue };
                        drop(phase);
                        return end.and_then(|(worker, value)| self.decoded(&worker, &value));
                    }
                    Phase::Over => {
                        let failure = Failure::new(FailureKind::Cancelled, "the call was given up");
                        return Err(Error::new(failure, self.call.context.path()));
                    }
                    phase if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                        // Given up under the lock: what was not sent by now is not sent any more.
                        let ran = if matches!(phase, Phase::Sending(_)) { Ran::MaybeExecuted } else { Ran::NotSent };
                        *phase = Phase::Over;
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
                Ok((worker, calling)) => {
                    let result = calling.wait(deadline);
                    if let Err(error) = &result
                        && *error.kind() == FailureKind::Timeout
                        && !calling.is_done(None)
                    {
                        // The call is cancelled by dropping it, and its worker is told of its chain behind that.
                        drop(calling);
                        self.call.give_up(true);
                        return result.and_then(|value| self.decoded(&worker, &value));
                    }
                    if let Some(result) = self.call.settle(&worker, result) {
                        self.call.enter(Phase::Over);
                        return result.and_then(|value| self.decoded(&worker, &value));
                    }
                }
            }
        }
    }

    fn decoded(&self, worker: &Context, value: &[u8]) -> Result<T, Error> {
        (self.decode)(&self.call, worker, value).map_err(|mut failure| {
            failure.message = format!("{}: {}", path(self.call.function), failure.message);
            Error::new(failure.ran(Ran::Executed), worker.path())
        })
    }
}

impl<T> PendingCall<T> {
    /// The context that it was started on.
    pub fn context(&self) -> &Context {
        &self.call.context
    }

    /// Whether a wait would return at once.
    pub fn is_done(&self) -> bool {
        self.call.has_ended(None) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// As [`is_done`](Self::is_done); when not, `ticket` is completed at the next thing that happens.
    pub(crate) fn has_ended(&self, ticket: &Arc<Slot<()>>) -> bool {
        self.call.has_ended(Some(ticket))
    }

    pub(crate) fn function(&self) -> &'static str {
        path(self.call.function)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl<T> Drop for PendingCall<T> {
    fn drop(&mut self) {
        // What has come by now counts, though nobody waited for it; what did not reach a worker is not sent again.
        self.call.again.store(false, Ordering::Relaxed);
        let under_way = !self.call.has_ended(None);
        self.call.give_up(under_way);
    }
}

impl<T> fmt::Debug for PendingCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall").field("function", &path(self.call.function)).finish_non_exhaustive()
    }
}

fn is_stale(error: &Error) -> bool {
    error.ran() == Ran::NotSent && matches!(error.kind(), FailureKind::NoRoute | FailureKind::PeerLost(_))
}
