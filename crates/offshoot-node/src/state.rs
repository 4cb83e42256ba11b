//! What the node's lock protects: the core, the links' buffers, the exchanges and the services.
//!
//! Owns the turning of events into effects. Every function here runs under the lock, on the broker thread or on a
//! thread that calls, and never blocks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_mux::{Event as Ready, TimerId, Timers};
use offshoot_route::{Event, ExchangeId, LinkId, Node, Time};
use offshoot_wire::{Address, Failure, FailureKind, LostReason, Ran, ShutdownNotice};

use crate::asked::Asked;
use crate::ids::IdMap;
use crate::link::{Readable, Spares, Turn};
use crate::links::Links;
use crate::pending::Unwanted;
use crate::records;
use crate::services::{Contents, Right, Services};
use crate::shared::{Shared, Ticket};
use crate::sources::{Source, Sources};

/// What a timer of the node is for; the core has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A link ended and its tool has not told why: no longer wait for that.
    LinkReason(LinkId),
    /// A link ended and its tool still runs: end it, more firmly each time.
    ToolEnd(LinkId, u8),
    /// A process has run for as long as it may.
    ProcessTimeout(ExchangeId),
    /// A process ended and something else holds its output open: no longer wait for that.
    ProcessLinger(ExchangeId),
    /// The context ends and its processes have had their grace.
    KillJobs,
    /// An orderly end takes too long.
    Shutdown,
    /// The guard wants a sign of life.
    Watchdog,
    /// Log records wait for room, or a storm of them is over.
    Records,
    /// More of this worker's output waits: 0 is stdout, 1 is stderr.
    Output(usize),
    /// A worker may have had nothing to do for long.
    Idle,
    /// A thread for calls that wait could not be had a while ago.
    Calls,
    /// Something that was handed over may not have been taken in time.
    Lanes,
}

/// How far the node is with ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It runs.
    Running,
    /// It was asked to end, or its parent is gone: links and processes are being ended.
    Ending(LostReason),
    /// All is ended: the broker returns.
    Ended(LostReason),
}

/// A turn that was cut short by its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Read(LinkId),
    Write(LinkId),
}

pub(crate) struct State {
    pub(crate) core: Node,
    pub(crate) links: Links,
    pub(crate) sources: Sources,
    spares: Spares,
    pub(crate) timers: Timers<Timer>,
    pub(crate) services: Services,
    pub(crate) contents: Contents,
    pub(crate) phase: Phase,
    asked: IdMap<ExchangeId, Asked>,
    /// Exchanges that nobody waits for, whose answer matters all the same.
    abandoned: IdMap<ExchangeId, Unwanted>,
    pending: VecDeque<Pending>,
    wakes: Vec<Ticket>,
    /// Until when the broker sleeps; `None` while it is awake and will look at everything anyway.
    broker_until: Option<Instant>,
    /// Threads that wait for the phase to change.
    phase_waiting: Vec<Ticket>,
    /// Threads whose request had no room on its link.
    room_waiting: Vec<(LinkId, Ticket)>,
}

/// How a node ends whose parent is gone: what runs has a moment to end by itself, and 2 s in all are promised.
pub(crate) const AT_ONCE: ShutdownNotice = ShutdownNotice { grace_ms: 200, kill_ms: 1500 };

/// How long a link is read that can no longer be written; and how long nothing must come by one whose agent is said to have ended.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long calls wait for a thread until it is tried again to have one.
const SHORT: Duration = Duration::from_millis(500);

/// When nothing is due the broker still looks once an hour: a clock that is read now and then costs nothing.
const FAR: Duration = Duration::from_secs(3600);

impl State {
    pub(crate) fn new(core: Node) -> State {
        let contents = Contents::of(&core);
        State {
            core,
            links: Links::default(),
            sources: Sources::default(),
            spares: Spares::default(),
            timers: Timers::new(),
            services: Services::default(),
            contents,
            phase: Phase::Running,
            asked: IdMap::default(),
            abandoned: IdMap::default(),
            pending: VecDeque::new(),
            wakes: Vec::new(),
            broker_until: None,
            phase_waiting: Vec::new(),
            room_waiting: Vec::new(),
        }
    }

    // ---- the broker ----

    /// How long the broker may sleep. From here on others wake it when something is due earlier.
    pub(crate) fn broker_sleeps(&mut self, shared: &Shared) -> Duration {
        let now = Instant::now();
        let until = self.due(shared).unwrap_or(now);
        self.broker_until = Some(until);
        until.saturating_duration_since(now)
    }

    /// The broker is awake.
    pub(crate) fn broker_wakes(&mut self) {
        self.broker_until = None;
    }

    /// Whether something is due before the broker wakes by itself.
    pub(crate) fn broker_is_late(&self, shared: &Shared) -> bool {
        match self.broker_until {
            Some(until) => self.due(shared).is_none_or(|due| due < until),
            None => false,
        }
    }

    /// When something is due next; `None` is at once.
    fn due(&self, shared: &Shared) -> Option<Instant> {
        if !self.pending.is_empty() || matches!(self.phase, Phase::Ended(_)) {
            return None;
        }
        let core = self.core.poll_timeout().map(|time| shared.instant(time));
        let own = self.timers.next();
        Some(core.into_iter().chain(own).min().unwrap_or_else(|| Instant::now() + FAR))
    }

    /// A descriptor is ready.
    pub(crate) fn on_ready(&mut self, shared: &Arc<Shared>, event: Ready, now: Time) {
        match self.sources.find(event.token) {
            Some(Source::LinkRead(link)) => {
                if event.read_closed
                    && let Some(entry) = self.links.link_mut(link)
                {
                    entry.hang_up();
                }
                if event.readable || event.read_closed || event.error {
                    self.broker_reads(shared, link, now);
                }
            }
            Some(Source::LinkWrite(link)) => self.write_link(shared, link, now),
            Some(Source::ToolExit(link)) => self.tool_exited(shared, link, now),
            Some(Source::ToolStderr(link)) => self.tool_wrote(shared, link),
            Some(Source::ToolTerminal(link)) => self.links.drain_terminal(shared, link),
            Some(Source::ProcessOut(id, index)) => self.process_readable(shared, id, index, now),
            Some(Source::ProcessIn(id)) => self.process_writable(shared, id, now),
            Some(Source::ProcessExit(id)) => self.process_exited(shared, id, now),
            Some(Source::Output(index)) => self.worker_wrote(shared, index, now),
            Some(Source::Signals) => self.signalled(now),
            Some(Source::Guard) => self.begin_end(LostReason::ParentLost, AT_ONCE, now),
            None => {}
        }
    }

    fn worker_wrote(&mut self, shared: &Arc<Shared>, index: usize, now: Time) {
        if let Some(working) = self.services.working {
            (working.readable)(self, Some(shared), index, now);
        }
    }

    /// Time has passed, and turns wait to be continued.
    pub(crate) fn on_time(&mut self, shared: &Arc<Shared>, now: Time) {
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
        let instant = Instant::now();
        while let Some(timer) = self.timers.pop_expired(instant) {
            match timer {
                Timer::LinkReason(link) => self.link_reason_due(shared, link, now),
                Timer::ToolEnd(link, step) => self.end_tool(link, step),
                Timer::ProcessTimeout(id) => self.process_timeout(id),
                Timer::ProcessLinger(id) => self.process_linger(shared, id, now),
                Timer::KillJobs => self.signal_jobs(9),
                Timer::Shutdown => self.shutdown_overdue(shared),
                Timer::Watchdog => self.services.feed_watchdog(&mut self.timers),
                Timer::Records => {
                    self.services.records_due = false;
                    let again = records::count(&mut self.core, now);
                    self.send_records_again(again);
                }
                Timer::Output(index) => self.worker_wrote(shared, index, now),
                Timer::Lanes => {
                    if let Some(lanes) = &mut self.services.lanes {
                        lanes.overdue(&mut self.core, instant, now);
                    }
                }
                Timer::Calls => {
                    self.services.calls_due = false;
                    if let Some(calls) = &mut self.services.calls {
                        calls.again(shared);
                    }
                }
                Timer::Idle => {
                    if let Some(working) = self.services.working {
                        (working.idle)(self, now);
                    }
                }
            }
        }
        if records::any() && !self.services.records_due {
            let again = records::hand_over(&mut self.core, now);
            self.send_records_again(again);
        }
        if !self.services.calls_due && self.services.calls.as_ref().is_some_and(|calls| calls.take_short()) {
            self.services.calls_due = true;
            self.after(SHORT, Timer::Calls);
        }
        self.follow_log_level();
        if self.services.home.is_some() {
            self.end_dropped(shared, now);
        }
        for _ in 0..self.pending.len() {
            match self.pending.pop_front() {
                Some(Pending::Read(link)) => self.broker_reads(shared, link, now),
                Some(Pending::Write(link)) => self.write_link(shared, link, now),
                None => break,
            }
        }
    }

    // ---- links ----

    fn broker_reads(&mut self, shared: &Arc<Shared>, link: LinkId, now: Time) {
        let Some(io) = self.links.io(link) else { return };
        match io.baton.turn() {
            // The thread that leads sees the bytes; when it hands back, the poller tells again.
            offshoot_mux::lead::Turn::Led | offshoot_mux::lead::Turn::Closed => {}
            offshoot_mux::lead::Turn::Read(_turn) => {
                if self.read_link(shared, link, now) {
                    self.pending.push_back(Pending::Read(link));
                }
            }
        }
    }

    /// Reads a link once and gives the core what came. The caller holds the link's baton. Whether there is more: a thread that
    /// leads sees so by its own poll, or has the poller tell it when it hands back.
    pub(crate) fn read_link(&mut self, shared: &Arc<Shared>, link: LinkId, now: Time) -> bool {
        let Some(entry) = self.links.link_mut(link) else { return false };
        let turn = entry.read(&mut self.spares);
        self.core.handle_bytes(link, entry.input(), now);
        if turn == Turn::Ended {
            self.link_ended(shared, link, now);
        }
        turn == Turn::More
    }

    pub(crate) fn write_link(&mut self, shared: &Arc<Shared>, link: LinkId, now: Time) {
        let Some(entry) = self.links.link_mut(link) else { return };
        let core = &mut self.core;
        match entry.write(&shared.registry, |budget, out| core.poll_transmit(link, budget, out, now)) {
            Turn::Rest => {}
            Turn::More => {
                let again = Pending::Write(link);
                if !self.pending.contains(&again) {
                    self.pending.push_back(again);
                }
            }
            // What the other end said before it closed is still read. The end of reading ends the link, or, should the
            // other end keep its own side open, the time for that.
            Turn::Ended => {
                self.pending.push_back(Pending::Read(link));
                self.after(LAST_WORDS, Timer::LinkReason(link));
            }
        }
    }

    /// Tells the log something, without calling it: the user's logger may take its time, or ask for this very lock.
    pub(crate) fn say(&mut self, level: log::Level, target: &'static str, text: fmt::Arguments<'_>) {
        match &mut self.services.home {
            Some(home) if level <= log::max_level() => home.said(level, target, text.to_string()),
            Some(_) => {}
            // An agent's log is its own, and never blocks.
            None => log::log!(target: target, level, "{text}"),
        }
    }

    /// A link that a waiting thread may read.
    pub(crate) fn readable_link(&self, id: LinkId) -> Option<Readable> {
        Some(Readable { id, io: self.links.io(id)? })
    }

    // ---- exchanges of ours ----

    /// Notes an exchange that was just asked.
    pub(crate) fn track(&mut self, id: ExchangeId, dst: &Address) {
        let link = self.towards(dst);
        self.asked.insert(id, Asked::new(link));
    }

    /// The link towards a context; `None` for this one and for what does not exist.
    pub(crate) fn towards(&self, dst: &Address) -> Option<LinkId> {
        let own = self.core.address();
        match own.next_hop(dst) {
            Some(index) => self.core.child_link(&own.child(index).ok()?),
            None if dst == own => None,
            None => self.core.parent_link(),
        }
    }

    /// Has `ticket` completed when a request that had no room may be tried again.
    pub(crate) fn await_room(&mut self, dst: &Address, ticket: &Ticket) {
        match self.towards(dst) {
            Some(link) => self.room_waiting.push((link, Arc::clone(ticket))),
            None => self.wakes.push(Arc::clone(ticket)),
        }
    }

    /// Whoever has this ticket no longer waits for room.
    pub(crate) fn leave_room(&mut self, ticket: &Ticket) {
        self.room_waiting.retain(|(_, other)| !Arc::ptr_eq(other, ticket));
    }

    /// How many threads are to be told of room.
    #[cfg(test)]
    pub(crate) fn waiting_for_room(&self) -> usize {
        self.room_waiting.len()
    }

    fn room(&mut self, link: LinkId) {
        let (now, later) = self.room_waiting.drain(..).partition(|(of, _)| *of == link);
        self.room_waiting = later;
        let now: Vec<(LinkId, Ticket)> = now;
        self.wakes.extend(now.into_iter().map(|(_, ticket)| ticket));
    }

    /// Other threads may wait for it too: they look again, and find it gone.
    fn let_go(&mut self, id: ExchangeId) -> Option<Asked> {
        let mut asked = self.asked.remove(&id)?;
        self.wakes.append(&mut asked.waiting);
        Some(asked)
    }

    /// The exchange, until it is [forgotten](Self::forget).
    pub(crate) fn asked(&mut self, id: ExchangeId) -> Option<&mut Asked> {
        self.asked.get_mut(&id)
    }

    /// Nobody will ask for this exchange any more; cancels it, and says so, when it has not ended.
    pub(crate) fn forget(&mut self, id: ExchangeId, now: Time) -> bool {
        let open = self.let_go(id).is_some_and(|asked| !asked.done);
        if open {
            self.core.cancel(id, now);
            self.ends_of_call(id, true);
        }
        open
    }

    /// Nobody waits for this exchange any more; `then` gets its answer, if that is good and nobody has taken it.
    pub(crate) fn abandon(&mut self, id: ExchangeId, then: Unwanted, now: Time) {
        match self.let_go(id) {
            Some(Asked { done: false, .. }) => drop(self.abandoned.insert(id, then)),
            asked => {
                self.core.cancel(id, now);
                if let Some(Asked { result: Some(Ok(body)), .. }) = asked {
                    then(body);
                }
            }
        }
    }

    /// The link towards the context that was asked.
    pub(crate) fn link_of(&self, id: ExchangeId) -> Option<LinkId> {
        self.asked.get(&id)?.link()
    }

    /// Whether so many requests are under way that one more need not be written by itself.
    pub(crate) fn is_pipelining(&self) -> bool {
        const MANY: usize = 16;
        self.asked.len() > MANY
    }

    /// Whether somebody here waits for an answer, or writes or reads a stream.
    pub(crate) fn awaits_any(&self) -> bool {
        !self.asked.is_empty() || !self.abandoned.is_empty()
    }

    /// Has `ticket` completed when something happens to the exchange.
    pub(crate) fn await_exchange(&mut self, id: ExchangeId, ticket: &Ticket) {
        match self.asked.get_mut(&id) {
            Some(asked) => asked.wake_at_change(ticket),
            None => self.wakes.push(Arc::clone(ticket)),
        }
    }

    fn on_asked(&mut self, id: ExchangeId, change: impl FnOnce(&mut Asked)) -> bool {
        let Some(asked) = self.asked.get_mut(&id) else { return false };
        change(asked);
        self.wakes.append(&mut asked.waiting);
        true
    }

    /// Has `ticket` completed once the lock is free.
    pub(crate) fn wake(&mut self, ticket: Ticket) {
        self.wakes.push(ticket);
    }

    /// Whom to wake, once the lock is free.
    pub(crate) fn take_wakes(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.wakes)
    }

    // ---- events of the core ----

    /// Handles what the core has to say and writes what it has to send, until neither is left.
    pub(crate) fn settle(&mut self, shared: &Arc<Shared>, now: Time) {
        loop {
            let mut idle = true;
            while let Some(event) = self.core.poll_event() {
                idle = false;
                self.on_event(shared, event, now);
            }
            while let Some(link) = self.core.poll_ready_link() {
                idle = false;
                self.write_link(shared, link, now);
            }
            if idle {
                return;
            }
        }
    }

    fn on_event(&mut self, shared: &Arc<Shared>, event: Event, now: Time) {
        match event {
            Event::Done { id, result } => {
                let Some(result) = self.content_done(shared, id, result, now) else { return };
                if !self.abandoned.is_empty()
                    && let Some(then) = self.abandoned.remove(&id)
                {
                    // What came on its channels was read by nobody, and counts no longer.
                    self.core.cancel(id, now);
                    return result.map_or((), then);
                }
                // A worker that is lost may be another's place to take what went with the call.
                let again = |failure: &Failure| matches!(failure.kind, FailureKind::NoRoute | FailureKind::PeerLost(_));
                let refused = |failure: &Failure| failure.ran == Ran::NotSent && !again(failure);
                self.ends_of_call(id, !result.as_ref().is_err_and(refused));
                let asked = self.on_asked(id, |asked| {
                    asked.done = true;
                    asked.result = Some(result);
                });
                if !asked && let Some(home) = self.homecoming_of(id) {
                    if let Some(worker) = home.worker(id) {
                        shared.workers.gone(&worker);
                    }
                    home.ended(id, None);
                }
            }
            Event::Data { id, channel, data } => {
                if self.asked.contains_key(&id) {
                    self.on_asked(id, |asked| asked.came(channel, data));
                } else if self.homecoming_of(id).is_some() {
                    self.attended_output(shared, id, channel, data, now);
                } else {
                    self.served_data(shared, id, channel, data, now);
                }
            }
            Event::End { id, channel, reason } => {
                if self.asked.contains_key(&id) {
                    self.on_asked(id, |asked| asked.ended(channel, reason));
                } else if let Some(home) = self.homecoming_of(id) {
                    home.ended(id, Some(channel));
                } else {
                    self.served_end(shared, id, channel, reason, now);
                }
            }
            Event::Writable { id, channel } => {
                if !self.on_asked(id, |_| ()) {
                    self.served_writable(shared, id, channel, now);
                }
            }
            Event::Stopped { id, channel } => {
                if !self.on_asked(id, |asked| asked.stopped(channel)) {
                    self.served_stopped(shared, id, channel, now);
                }
            }
            Event::Request { id, verb, from, body, authority, handle } => {
                self.serve(shared, id, verb, Right { authority, handle, from: &from }, body, now);
            }
            Event::Cancelled { id } => self.served_cancelled(shared, id, now),
            Event::CloseLink { link, reason } => {
                // The core's last word (why it closes) goes out if the descriptor takes it now.
                self.write_link(shared, link, now);
                self.link_down(shared, link, reason, now);
            }
            Event::ParentLost { reason } => self.begin_end(reason, AT_ONCE, now),
            Event::ShutdownRequested(notice) => self.begin_end(LostReason::Shutdown, notice, now),
            Event::Room { link } => self.room(link),
            Event::ChildGone { prefix, .. } | Event::Gone { prefix, .. } => {
                shared.workers.gone(&prefix);
                if let Some(home) = &mut self.services.home {
                    home.gone(&prefix);
                }
                if let Some(lanes) = &mut self.services.lanes {
                    lanes.gone(&mut self.core, &prefix, now);
                }
            }
            Event::LogLevel(level) => records::set_level(level),
            Event::Log { from, body } => {
                if let Some(home) = &mut self.services.home {
                    home.record(from, body);
                }
            }
        }
    }

    // ---- the end ----

    /// The broker is gone by a fault of ours: everything that is waited for ends, and so do the processes below, when
    /// their links close.
    pub(crate) fn give_up(&mut self) {
        let failure = Failure::new(FailureKind::PeerLost(LostReason::ParentLost), "the broker failed; see its panic");
        for asked in self.asked.values_mut() {
            asked.done = true;
            asked.result.get_or_insert(Err(failure.clone().ran(Ran::MaybeExecuted)));
            self.wakes.append(&mut asked.waiting);
        }
        let waiting = self.room_waiting.drain(..).map(|(_, ticket)| ticket);
        self.wakes.extend(waiting);
        self.abandoned = IdMap::default();
        self.links = Links::default();
        self.enter(Phase::Ended(LostReason::ParentLost));
    }

    /// Whether all is ended, and why.
    pub(crate) fn ended(&self) -> Option<LostReason> {
        match &self.phase {
            Phase::Ended(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Has `ticket` completed when the phase changes.
    pub(crate) fn await_phase(&mut self, ticket: &Ticket) {
        self.phase_waiting.push(Arc::clone(ticket));
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        if let (Phase::Ended(_), Some(lanes)) = (&phase, &mut self.services.lanes) {
            lanes.end();
        }
        self.phase = phase;
        self.wakes.append(&mut self.phase_waiting);
    }

    /// Sets a timer.
    pub(crate) fn after(&mut self, delay: Duration, timer: Timer) -> TimerId {
        self.timers.insert(Instant::now() + delay, timer)
    }
}
