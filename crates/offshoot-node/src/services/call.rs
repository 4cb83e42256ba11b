//! Call: the user's functions, in a worker.
//!
//! Only a worker has this service (R8): the stock agent neither has nor links it. A request's arguments are gathered
//! under the node's lock; the function runs on a thread of a pool, without it. A thread of the pool that has nothing to do
//! reads the link itself, as callers do: so a call that comes alone is read, run and answered by one thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_mux::crew::Crew;
use offshoot_route::{ExchangeId, Node, Time};
use offshoot_wire::{
    Address, CallReply, CallSpec, ChainLink, EndReason, Failure, FailureKind, Limits, Ran, channel, decode, encode,
};

use super::Outlet;
use super::chains::{Chains, Step};
use crate::Context;
use crate::ids::IdMap;
use crate::shared::{Shared, Ticket};

/// How many functions run side by side unless the attendant says otherwise; more wait their turn. Each has a thread.
const AT_ONCE: usize = 64;

/// How many functions may be let run side by side.
const AT_ONCE_MOST: usize = 4096;

/// How many calls may be here in all: those that run, that wait, and whose value is on its way. As many as one context may have asked and not seen answered;
/// some 90 MB at worst beside their arguments, of which whoever asks keeps no more than 16 MiB under way.
const CALLS: usize = 131_072;

/// How many bytes of arguments may be gathered or wait, beside those that came in their request.
const GATHERED: u64 = 4 * Limits::CALL;

/// When so many calls wait for a thread, answers are written in one go.
const MANY: usize = 16;

/// How long a thread of the pool waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// What a worker runs: the user's functions, by name.
pub trait Calls: Send + Sync {
    /// Runs a function to its end and yields its encoded value. Called on a thread of a pool, many at once; nothing of
    /// the node is locked.
    ///
    /// # Errors
    /// Why there is no value: no such function, arguments that cannot be decoded, a panic. It is returned as it is.
    fn call(&self, call: &Invocation) -> Result<Vec<u8>, Failure>;

    /// Whether a value that a function returned is an error of its own: then the chain of the call stops.
    fn is_error(&self, _function: &str, _value: &[u8]) -> bool {
        false
    }
}

/// One call of a function.
#[derive(Debug)]
#[non_exhaustive]
pub struct Invocation {
    /// The function's name.
    pub function: String,
    /// Its encoded arguments.
    pub args: Bytes,
    /// The context in which it runs: what it connects are this worker's own children.
    pub context: Context,
    /// Who called.
    pub from: Address,
    /// Set when nobody waits for the value any more.
    pub cancelled: Arc<AtomicBool>,
}

/// The service, as the node hands requests to it. A trait, so that what does not construct it does not link it.
pub(crate) trait CallService: Send {
    fn request(
        &mut self,
        core: &mut Node,
        shared: &Arc<Shared>,
        id: ExchangeId,
        from: &Address,
        body: &[u8],
        now: Time,
    );
    fn data(&mut self, core: &mut Node, id: ExchangeId, data: &[u8], now: Time);
    fn ended(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, now: Time);
    fn wanted(&mut self, core: &mut Node, id: ExchangeId, now: Time);
    fn done(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, ran: Outcome, now: Time);
    fn cancel(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, now: Time);
    /// What the worker writes to its standard streams.
    fn outlet(&mut self) -> &mut Outlet;
    /// How many functions run side by side from now on.
    fn set_limit(&mut self, limit: usize);
    /// Whether a thread could not be had since this was asked last, so that calls may wait for nothing.
    fn take_short(&self) -> bool;
    /// Has a thread come for a call that waits, if it can be had by now.
    fn again(&mut self, shared: &Arc<Shared>);
    fn is_idle(&self) -> bool;
    /// When a call last came or ended.
    fn last(&self) -> Option<Instant>;
}

/// What a function ended with.
pub(crate) struct Outcome {
    result: Result<Vec<u8>, Failure>,
    /// It did not succeed: there is no value, or an error of its own.
    failed: bool,
}

enum Stage {
    /// Arguments are coming.
    Gathering { function: String, args: Vec<u8>, length: u64 },
    /// It runs, or waits its turn; its arguments count so much.
    Running { gathered: u64 },
    /// Its value is being sent.
    Sending { rest: Bytes, reply: CallReply },
}

/// Who calls, and its number for the chain.
type ChainId = (Address, u64);

type Steps = Vec<Step<ExchangeId, (String, Bytes)>>;

struct Call {
    from: Address,
    stage: Stage,
    cancelled: Arc<AtomicBool>,
    chain: Option<ChainLink>,
}

impl Call {
    /// The chain that a place of this call is in.
    fn chain_of(&self, link: ChainLink) -> ChainId {
        (self.from.clone(), link.chain)
    }
}

/// Runs calls of the user's functions.
pub(crate) struct Workshop {
    calls: IdMap<ExchangeId, Call>,
    gathered: u64,
    pool: Arc<Pool>,
    chains: Chains<ChainId, ExchangeId, (String, Bytes)>,
    /// The chains of calls that run, also of those that were given up meanwhile.
    chained: IdMap<ExchangeId, ChainId>,
    outlet: Outlet,
    last: Option<Instant>,
}

impl Workshop {
    pub(crate) fn new(functions: Arc<dyn Calls>, outlet: Outlet) -> Workshop {
        Workshop {
            calls: IdMap::default(),
            gathered: 0,
            pool: Arc::new(Pool { functions, crew: Crew::new(AT_ONCE), short: AtomicBool::new(false) }),
            chains: Chains::new(),
            chained: IdMap::default(),
            outlet,
            last: None,
        }
    }

    fn run(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, function: String, args: Bytes, now: Time) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let gathered = match &call.stage {
            Stage::Gathering { length, .. } => *length,
            Stage::Running { .. } | Stage::Sending { .. } => 0,
        };
        call.stage = Stage::Running { gathered };
        let Some(link) = call.chain else {
            self.launch(core, shared, id, function, args, now);
            return;
        };
        let chain = call.chain_of(link);
        match self.chains.ready(&chain, link.position, id, (function, args)) {
            Some(steps) => self.follow(core, shared, &chain, steps, now),
            None => self.refuse(core, id, FailureKind::Busy, "the chain of the call is over, or one too many", now),
        }
    }

    /// Has a thread run it; whether there is one.
    fn launch(
        &mut self,
        core: &mut Node,
        shared: &Arc<Shared>,
        id: ExchangeId,
        function: String,
        args: Bytes,
        now: Time,
    ) -> bool {
        let Some(call) = self.calls.get(&id) else { return false };
        let (from, cancelled) = (call.from.clone(), Arc::clone(&call.cancelled));
        let job = Job { id, from, function, args, cancelled, follows: call.chain.is_some() };
        let pushed = self.pool.push(shared, job);
        if let Err(error) = &pushed {
            self.forget(id);
            core.fail(id, crate::error::os_failure("no thread for the function", error), now);
        }
        pushed.is_ok()
    }

    /// Does what the calls of a chain may do now.
    fn follow(&mut self, core: &mut Node, shared: &Arc<Shared>, chain: &ChainId, steps: Steps, now: Time) {
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Run(id, (function, args)) => {
                    self.chained.insert(id, chain.clone());
                    if !self.launch(core, shared, id, function, args, now) {
                        self.chained.remove(&id);
                        steps.extend(self.chains.ended(chain, id, true));
                    }
                }
                Step::Refuse(id) => {
                    let why = "an earlier call of the chain did not succeed";
                    self.refuse(core, id, FailureKind::Cancelled, why, now);
                }
            }
        }
    }

    /// The call's place in its chain, if it has one, is over.
    fn leave_chain(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, failed: bool, now: Time) {
        if let Some(chain) = self.chained.remove(&id) {
            let steps = self.chains.ended(&chain, id, failed);
            self.follow(core, shared, &chain, steps, now);
        }
    }

    /// A place in a chain will not be taken.
    fn skip(&mut self, core: &mut Node, shared: &Arc<Shared>, from: &Address, link: ChainLink, now: Time) {
        let chain = (from.clone(), link.chain);
        let steps = self.chains.skip(&chain, link.position);
        self.follow(core, shared, &chain, steps, now);
    }

    fn forget(&mut self, id: ExchangeId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.last = Some(Instant::now());
        self.gathered -= match &call.stage {
            Stage::Gathering { length, .. } => *length,
            Stage::Running { gathered } => *gathered,
            Stage::Sending { .. } => 0,
        };
        Some(call)
    }

    fn refuse(&mut self, core: &mut Node, id: ExchangeId, kind: FailureKind, why: &str, now: Time) {
        self.forget(id);
        core.fail(id, Failure::new(kind, why), now);
    }
}

impl CallService for Workshop {
    fn request(
        &mut self,
        core: &mut Node,
        shared: &Arc<Shared>,
        id: ExchangeId,
        from: &Address,
        body: &[u8],
        now: Time,
    ) {
        let Ok(CallSpec { function, args, follow, chain }) = decode(body) else {
            return self.refuse(core, id, FailureKind::Malformed, "the call cannot be decoded", now);
        };
        if let Some(link) = chain.filter(|link| link.skip) {
            if link.position == u64::MAX {
                self.chains.forget(&(from.clone(), link.chain));
            } else {
                self.skip(core, shared, from, link, now);
            }
            return core.reply(id, Bytes::new(), now);
        }
        let refused = if self.calls.len() >= CALLS || self.gathered + follow.min(Limits::CALL) > GATHERED {
            Some((FailureKind::Busy, "the worker has as many calls as it takes"))
        } else if follow > Limits::CALL {
            Some((FailureKind::TooLarge, "the arguments of the call are too large"))
        } else {
            None
        };
        if let Some((kind, why)) = refused {
            self.refuse(core, id, kind, why, now);
            if let Some(link) = chain {
                self.skip(core, shared, from, link, now);
            }
            return;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        if follow == 0 {
            self.calls.insert(id, Call { from: from.clone(), stage: Stage::Running { gathered: 0 }, cancelled, chain });
            return self.run(core, shared, id, function, args.into(), now);
        }
        self.gathered += follow;
        let stage = Stage::Gathering { function, args: Vec::new(), length: follow };
        self.calls.insert(id, Call { from: from.clone(), stage, cancelled, chain });
    }

    fn data(&mut self, core: &mut Node, id: ExchangeId, data: &[u8], now: Time) {
        let Some(Call { stage: Stage::Gathering { args, length, .. }, .. }) = self.calls.get_mut(&id) else { return };
        if args.len() as u64 + data.len() as u64 > *length {
            return self.refuse(core, id, FailureKind::Malformed, "more arguments came than were announced", now);
        }
        args.extend_from_slice(data);
        core.consumed(id, channel::STDIN, data.len(), now);
    }

    fn ended(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        let Some(Call { stage: Stage::Gathering { function, args, length }, .. }) = self.calls.get_mut(&id) else {
            return;
        };
        if args.len() as u64 != *length {
            return self.refuse(core, id, FailureKind::Malformed, "fewer arguments came than were announced", now);
        }
        let (function, args) = (std::mem::take(function), std::mem::take(args));
        self.run(core, shared, id, function, args.into(), now);
    }

    fn wanted(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        let Some(Call { stage: Stage::Sending { rest, reply }, .. }) = self.calls.get_mut(&id) else { return };
        let sent = core.send(id, channel::STDOUT, rest.clone(), now);
        let _ = rest.split_to(sent);
        if rest.is_empty() {
            let reply = Bytes::from(encode(reply));
            self.forget(id);
            core.finish(id, channel::STDOUT, EndReason::Done, now);
            core.reply(id, reply, now);
        }
    }

    fn done(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, outcome: Outcome, now: Time) {
        let call = self.forget(id);
        let result = outcome.result.and_then(|value| {
            if value.len() as u64 <= Limits::CALL {
                return Ok(value);
            }
            let failure = Failure::new(FailureKind::TooLarge, "the value of the function is too large");
            Err(failure.ran(Ran::Executed))
        });
        self.leave_chain(core, shared, id, outcome.failed || result.is_err() || call.is_none(), now);
        let Some(Call { from, cancelled, chain, .. }) = call else { return };
        match result {
            Err(failure) => core.fail(id, failure, now),
            Ok(value) if value.len() <= Limits::CALL_INLINE => {
                core.reply(id, encode(&CallReply { value, came: 0 }).into(), now);
            }
            Ok(value) => {
                let reply = CallReply { value: Vec::new(), came: value.len() as u64 };
                let stage = Stage::Sending { rest: value.into(), reply };
                self.calls.insert(id, Call { from, stage, cancelled, chain });
                self.wanted(core, id, now);
            }
        }
    }

    fn cancel(&mut self, core: &mut Node, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        let Some(call) = self.forget(id) else { return };
        call.cancelled.store(true, Ordering::Relaxed);
        let waited = matches!(call.stage, Stage::Running { .. }) && self.pool.forget(id);
        let Some(link) = call.chain.filter(|_| !matches!(call.stage, Stage::Sending { .. })) else { return };
        let chain = call.chain_of(link);
        if waited {
            self.leave_chain(core, shared, id, true, now);
        } else if !self.chains.is_running(&chain, id) {
            // It waits in its chain, or its arguments have not come: its place is given up.
            let mut steps = self.chains.ended(&chain, id, true);
            steps.extend(self.chains.skip(&chain, link.position));
            self.follow(core, shared, &chain, steps, now);
        }
    }

    fn outlet(&mut self) -> &mut Outlet {
        &mut self.outlet
    }

    fn set_limit(&mut self, limit: usize) {
        self.pool.crew.set_limit(limit.clamp(1, AT_ONCE_MOST));
    }

    fn take_short(&self) -> bool {
        // Looked at often.
        self.pool.short.load(Ordering::Relaxed) && self.pool.short.swap(false, Ordering::Relaxed)
    }

    fn again(&mut self, shared: &Arc<Shared>) {
        self.pool.crew.again(|| self.pool.start(shared));
    }

    fn is_idle(&self) -> bool {
        // A function whose caller gave up may still run.
        self.calls.is_empty() && self.pool.crew.is_idle()
    }

    fn last(&self) -> Option<Instant> {
        self.last
    }
}

struct Job {
    id: ExchangeId,
    from: Address,
    function: String,
    args: Bytes,
    cancelled: Arc<AtomicBool>,
    /// One before it may just have ended.
    follows: bool,
}

/// The threads that run functions. They come as calls do and go when there are none.
struct Pool {
    functions: Arc<dyn Calls>,
    crew: Crew<Job>,
    /// One could not be started.
    short: AtomicBool,
}

impl Pool {
    fn push(self: &Arc<Self>, shared: &Arc<Shared>, job: Job) -> std::io::Result<()> {
        self.crew.push(job, || self.start(shared))
    }

    fn start(self: &Arc<Self>, shared: &Arc<Shared>) -> std::io::Result<()> {
        let (pool, theirs) = (Arc::clone(self), Arc::clone(shared));
        let started = std::thread::Builder::new().name("offshoot-call".into()).spawn(move || pool.serve(&theirs));
        if started.is_err() {
            self.short.store(true, Ordering::Relaxed);
            shared.waker.wake();
        }
        started.map(drop)
    }

    /// A call that waits its turn waits no more: while no thread comes to it, it would keep its arguments for ever.
    /// Whether there was such a one.
    fn forget(&self, id: ExchangeId) -> bool {
        // Many are given up in the order in which they came: the first is found first.
        self.crew.remove(|job| job.id == id).is_some()
    }

    /// Says how the function that this thread ran has ended, and waits for the next.
    fn next(self: &Arc<Self>, shared: &Arc<Shared>, ran: Option<(ExchangeId, Outcome)>) -> Option<Job> {
        let until = Instant::now() + IDLE;
        let mut ran = ran;
        let mut tell = || {
            if let Some((id, outcome)) = ran.take() {
                // While many more wait, what has ended by then goes out in one go. Else before this thread runs the next
                // function, which may end the process.
                let many = self.crew.waiting() > MANY;
                shared.with_lazily(|_| many, |state, now| state.call_done(shared, id, outcome, now));
            }
        };
        if self.crew.is_quiet() {
            let ticket = Ticket::default();
            // Told when this thread reads the link: the next call may come before the thread is back here, and would wake
            // the broker.
            let begin = || {
                tell();
                self.crew.lead(&ticket)
            };
            let job = shared.lead_parent(&ticket, until, begin, || self.crew.take(&ticket));
            // The link is handed back by now: while the function runs the broker reads.
            if let Some(job) = job.or_else(|| self.crew.let_go(&ticket)) {
                return Some(job);
            }
        }
        tell();
        self.crew.next(until, || self.start(shared))
    }

    fn serve(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.crew.arrive();
        let context = Context::own(shared);
        let mut ran = None;
        while let Some(Job { id, from, function, args, cancelled, follows }) = self.next(shared, ran.take()) {
            if follows {
                // Whoever had it come holds the lock until the answer of the one before it is written.
                drop(shared.lock());
            }
            let call = Invocation { function, args, context: context.clone(), from, cancelled };
            let result = if call.cancelled.load(Ordering::Relaxed) {
                Err(Failure::new(FailureKind::Cancelled, "nobody waits for the call any more"))
            } else {
                self.functions.call(&call)
            };
            let failed = match &result {
                Ok(value) => self.functions.is_error(&call.function, value),
                Err(_) => true,
            };
            ran = Some((id, Outcome { result, failed }));
        }
    }
}
