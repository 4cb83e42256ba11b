//! Connect: child contexts, started for requests or by this process's own threads.
//!
//! The engine that runs a recipe blocks, so each connect has a thread while it lasts; at most so many at once, the rest
//! wait their turn. Here is what happens before and after, under the node's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use offshoot_connect::{Asker, Cancel, Reply};
use offshoot_mux::lead::Slot;
use offshoot_route::{ExchangeId, LinkId, Time};
use offshoot_wire::{
    Address, ConnectReply, ConnectSpec, ConnectStage, Failure, FailureKind, Hello, Start, Verb, VerbSet, encode,
    encode_into,
};

use crate::asking::Above;
use crate::connecting;
use crate::error::os_failure;
use crate::links::NewLink;
use crate::shared::{Shared, Ticket};
use crate::state::{Phase, State};

/// How many connects may wait their turn. More are refused: each holds a request of up to a frame.
const QUEUE: usize = 20_000;

/// A connect that waits its turn.
enum Waiting {
    /// A request's.
    Request(ExchangeId, Box<ConnectSpec>),
    /// One of a thread of this process.
    Thread(Ticket),
}

/// The connects of a node.
#[derive(Default)]
pub(crate) struct Connects {
    running: usize,
    queue: VecDeque<Waiting>,
    /// How those whose turn it is are ended early, by a number of their own. Few at once: `running` is limited.
    cancels: Vec<(u64, Option<ExchangeId>, Cancel)>,
    /// The open questions of those that run for requests.
    asking: Vec<(ExchangeId, Reply)>,
    started: u64,
    jobs: u64,
    tree_tag: Option<String>,
}

/// What a connect needs of the core: a place in the tree, and what the new context is told first.
pub(crate) struct Place {
    pub(crate) link: LinkId,
    pub(crate) address: Address,
    pub(crate) name: String,
    pub(crate) nonce: [u8; 16],
    pub(crate) preamble: Vec<u8>,
    pub(crate) tree_tag: String,
    /// The mark of what the new context starts, if it is on this machine.
    pub(crate) tag: String,
    /// Its tool is the guard of a context on this machine.
    pub(crate) guard: bool,
    /// The names down to this context, unless it is the root.
    pub(crate) behind: Option<String>,
}

/// A connect whose turn it is, from before its thread starts: so whoever gives up waiting reaches it at any time.
pub(crate) struct Running {
    pub(crate) cancel: Cancel,
    number: u64,
}

impl Connects {
    pub(crate) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// A connect waits for the answer to its question.
    pub(crate) fn await_answer(&mut self, id: ExchangeId, reply: Reply) {
        self.asking.push((id, reply));
    }

    /// Whether a connect for this request runs: then an answer to it may come.
    pub(crate) fn is_asking(&self, id: ExchangeId) -> bool {
        self.cancels.iter().any(|(_, of, _)| *of == Some(id))
    }

    /// Where the answer to a connect's open question goes.
    pub(crate) fn take_reply(&mut self, id: ExchangeId) -> Option<Reply> {
        let at = self.asking.iter().position(|(of, _)| *of == id)?;
        Some(self.asking.swap_remove(at).1)
    }

    /// The variable that marks everything below the tree's root.
    pub(crate) fn tree_tag(&self) -> Option<(&'static str, &str)> {
        Some((connecting::TREE, self.tree_tag.as_deref()?))
    }

    pub(crate) fn set_tree_tag(&mut self, tree: &[u8; 16]) {
        self.tree_tag = Some(tree.iter().map(|byte| format!("{byte:02x}")).collect());
    }

    /// A mark for what one request starts: unique in the tree.
    pub(crate) fn next_job_tag(&mut self, address: &Address) -> String {
        self.jobs += 1;
        format!("{}{address}#{}", self.tree_tag.as_deref().unwrap_or_default(), self.jobs)
    }
}

impl State {
    /// A connect for a request: now, or when its turn comes.
    pub(crate) fn connect_for(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: ConnectSpec, now: Time) {
        if self.services.connects.running < shared.options.connects {
            // Where it does not start, who asked has been told.
            let _ = self.start_connect(shared, id, spec, now);
        } else if self.services.connects.queue.len() < QUEUE {
            self.services.connects.queue.push_back(Waiting::Request(id, Box::new(spec)));
        } else {
            let failure = Failure::new(FailureKind::Busy, format!("{QUEUE} connects wait already"));
            self.core.fail(id, failure, now);
        }
    }

    /// Whether it runs; else its requester is told why not.
    fn start_connect(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: ConnectSpec, now: Time) -> bool {
        self.services.connects.running += 1;
        let running = self.begin_connect(Some(id));
        let number = running.number;
        let theirs = Arc::clone(shared);
        let thread = offshoot_mux::thread::start("offshoot-connect", move || {
            let asker = Above { shared: &theirs, id };
            let asker = spec.answers.then_some(&asker as &dyn Asker);
            connecting::run(&theirs, &spec, running, asker, |state, result, now| {
                // Its question is nobody's any more.
                drop(state.services.connects.take_reply(id));
                match result {
                    Ok(reply) => state.connected(id, &reply, now),
                    Err(failure) => state.core.fail(id, failure, now),
                }
            });
        });
        if let Err(error) = &thread {
            self.core.fail(id, os_failure("no thread for the connect", error), now);
            self.leave_turn(number);
        }
        thread.is_ok()
    }

    /// Answers a connect. Who asked by a grant may ask the new context by one, too: for all that it could ask of a child of
    /// its own. It lasts as long as that context, whose address is nobody else's later.
    fn connected(&mut self, id: ExchangeId, reply: &ConnectReply, now: Time) {
        let mut body = encode(reply);
        if let Some(holder) = self.core.granted_to(id).cloned() {
            let verbs = [Verb::Echo, Verb::Info, Verb::Exec, Verb::Connect, Verb::Files, Verb::Call, Verb::Shutdown];
            let verbs = verbs.into_iter().fold(VerbSet::NONE.with(Verb::Attend), VerbSet::with);
            // There is one: what was connected is this context's child.
            if let Some(grant) = self.core.grant_below(&reply.address, &holder, verbs) {
                encode_into(&grant, &mut body);
            }
        }
        self.core.reply(id, Bytes::from(body), now);
    }

    /// Notes a connect whose turn has come, for a request or for a thread of this process.
    pub(crate) fn begin_connect(&mut self, id: Option<ExchangeId>) -> Running {
        let connects = &mut self.services.connects;
        connects.started += 1;
        let running = Running { cancel: Cancel::new(), number: connects.started };
        connects.cancels.push((running.number, id, running.cancel.clone()));
        running
    }

    /// A thread of this process wants to connect: `true` when it may at once, else `ticket` is completed when it may.
    pub(crate) fn may_connect(&mut self, shared: &Shared, ticket: &Ticket) -> bool {
        let connects = &mut self.services.connects;
        if connects.running < shared.options.connects {
            connects.running += 1;
            return true;
        }
        connects.queue.push_back(Waiting::Thread(Arc::clone(ticket)));
        false
    }

    fn leave_turn(&mut self, number: u64) {
        self.services.connects.cancels.retain(|(running, ..)| *running != number);
        self.services.connects.running -= 1;
    }

    /// A connect is over: the next one's turn.
    fn connect_over(&mut self, shared: &Arc<Shared>, number: u64, now: Time) {
        self.leave_turn(number);
        while let Some(next) = self.services.connects.queue.pop_front() {
            let started = match next {
                Waiting::Request(id, spec) => self.start_connect(shared, id, *spec, now),
                Waiting::Thread(ticket) => {
                    self.services.connects.running += 1;
                    self.wake(ticket);
                    true
                }
            };
            // Where it does not start for want of a thread, those that run hand their turns on when they have left one.
            if started || self.services.connects.running > 0 {
                break;
            }
        }
        self.check_ended();
    }

    /// A place for a new context: its address is its own from here on, whether the connect succeeds or not.
    pub(crate) fn reserve(&mut self, spec: &ConnectSpec, nonce: [u8; 16], now: Time) -> Result<Place, Failure> {
        if self.phase != Phase::Running {
            return Err(Failure::new(FailureKind::Cancelled, "the context is ending"));
        }
        self.follow_log_level();
        let (link, address, _key) = self.core.reserve_child(now)?;
        let name = spec.name.clone().unwrap_or_else(|| spec.recipe.default_name());
        let path = match &self.services.identity {
            Some(identity) if !identity.path.is_empty() => format!("{} -> {name}", identity.path),
            _ => name.clone(),
        };
        let hello = match self.core.parent_hello(link, nonce, name.clone(), path, spec.process_name.clone(), now) {
            Ok(hello) => hello,
            Err(failure) => {
                self.core.abandon_child(link, now);
                return Err(failure);
            }
        };
        let mut preamble = Vec::new();
        hello.put(&mut preamble);
        let tree_tag = self.services.connects.tree_tag.clone().unwrap_or_default();
        let behind =
            self.services.identity.as_ref().map(|identity| identity.path.clone()).filter(|path| !path.is_empty());
        let tag = format!("{tree_tag}{address}");
        let guard = matches!(spec.recipe.start, Start::Local);
        Ok(Place { link, address, name, nonce, preamble, tree_tag, tag, guard, behind })
    }

    /// The engine is done, and so is the connect: the new context joins the tree, or its place is given up. An arrival
    /// that is left where it was is not wanted.
    pub(crate) fn end_connect(
        &mut self,
        shared: &Arc<Shared>,
        running: &Running,
        place: Result<Place, Failure>,
        arrival: &mut Option<Result<connecting::Arrival, Failure>>,
        now: Time,
    ) -> Result<ConnectReply, Failure> {
        let result = match place {
            Ok(place) => self.settle_connect(shared, place, &running.cancel, arrival, now),
            Err(failure) => Err(failure),
        };
        self.connect_over(shared, running.number, now);
        result
    }

    fn settle_connect(
        &mut self,
        shared: &Arc<Shared>,
        place: Place,
        cancel: &Cancel,
        arrival: &mut Option<Result<connecting::Arrival, Failure>>,
        now: Time,
    ) -> Result<ConnectReply, Failure> {
        let wanted = self.phase == Phase::Running && !cancel.is_cancelled();
        let arrival = match arrival.take_if(|arrival| wanted || arrival.is_err()) {
            Some(Ok(arrival)) => arrival,
            None => {
                self.core.abandon_child(place.link, now);
                return Err(Failure::new(FailureKind::Cancelled, "nobody waits for the new context any more"));
            }
            Some(Err(failure)) => {
                self.core.abandon_child(place.link, now);
                return Err(failure);
            }
        };
        let mut reply =
            ConnectReply { address: place.address, name: place.name, hello: arrival.hello, stages: Vec::new() };
        if let Err(failure) = self.core.child_up(place.link, &reply.hello, now) {
            self.core.abandon_child(place.link, now);
            return Err(failure);
        }
        let new = NewLink {
            fds: arrival.fds,
            received: arrival.received,
            tool: Some((arrival.child, arrival.stderr, arrival.terminal)),
            child: Some(reply.clone()),
            tag: place.tag,
            guard: place.guard,
            relayed: !place.guard,
        };
        self.adopt(shared, place.link, new, now).map_err(|error| {
            let mut failure = os_failure("cannot watch the new link", &error);
            failure.kind = FailureKind::Connect(ConnectStage::Hello);
            failure
        })?;
        reply.stages = arrival.stages;
        Ok(reply)
    }

    /// The requester of a connect no longer waits.
    pub(crate) fn cancel_connect(&mut self, id: ExchangeId) {
        let connects = &mut self.services.connects;
        connects.queue.retain(|waiting| !matches!(waiting, Waiting::Request(other, _) if *other == id));
        for (_, of, cancel) in &connects.cancels {
            if *of == Some(id) {
                cancel.cancel();
            }
        }
    }

    /// The context ends: so do all its connects.
    pub(crate) fn cancel_connects(&mut self) {
        let connects = &mut self.services.connects;
        for (.., cancel) in &connects.cancels {
            cancel.cancel();
        }
        for waiting in std::mem::take(&mut connects.queue) {
            match waiting {
                // Its requester is told by the end of this context.
                Waiting::Request(..) => {}
                Waiting::Thread(ticket) => {
                    self.services.connects.running += 1;
                    self.wake(ticket);
                }
            }
        }
    }
}

/// A ticket for a thread that waits its turn.
pub(crate) fn turn() -> Ticket {
    Arc::new(Slot::new())
}
