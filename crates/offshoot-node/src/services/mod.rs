//! What a node does for others. One file per service; this one hands each request to its service.
//!
//! Runs under the node's lock. By the time a request arrives here the core has checked that its sender may ask it.

mod attend;
mod call;
mod chains;
mod connect;
mod contents;
mod ending;
mod exec;
mod lanes;
mod outlet;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use offshoot_mux::{Signals, Timers};
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{
    Authority, ChildHello, Decode, EndReason, Failure, FailureKind, LostReason, NodeInfo, ShutdownNotice, Verb, decode,
    encode,
};

use crate::home::Homecoming;
use crate::ids::IdMap;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::state::{AT_ONCE, Phase, State, Timer};
use crate::supervise::Watchdog;
pub(crate) use attend::{NoRoom, WORKING, Working};
pub(crate) use call::{CallService, Outcome, Workshop};
pub use call::{Calls, Invocation};
pub(crate) use connect::{Connects, Place, Running, turn};
pub(crate) use contents::{Contents, Waiting};
pub(crate) use exec::{JOB, Job};
pub(crate) use lanes::{End, LaneService, Lanes, Right, framed, message};
pub(crate) use outlet::Outlet;

/// How long what a guard that was killed leaves has between TERM and KILL: two seconds are promised in all.
const LEFT: Duration = Duration::from_secs(1);

/// The services' own state.
#[derive(Default)]
pub(crate) struct Services {
    pub(crate) jobs: IdMap<ExchangeId, Job>,
    pub(crate) connects: Connects,
    endings: ending::Endings,
    /// Only in a worker.
    pub(crate) calls: Option<Box<dyn CallService>>,
    pub(crate) attendance: attend::Attendance,
    /// Only in a worker.
    pub(crate) working: Option<&'static Working>,
    /// Only in a root and in a worker.
    pub(crate) lanes: Option<Box<dyn LaneService>>,
    /// Where logs and the output of workers come home to: only in a root and in a worker.
    pub(crate) home: Option<Box<dyn Homecoming>>,
    /// Whether the time of [`Timer::Records`] is set.
    pub(crate) records_due: bool,
    /// Whether the time of [`Timer::Calls`] is set.
    pub(crate) calls_due: bool,
    /// Where the output of processes is read into.
    pub(crate) pool: Pool,
    /// What this process is, for `Info`; set at the start.
    pub(crate) identity: Option<Identity>,
    /// Where the guard expects a sign of life.
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) signals: Option<Signals>,
    /// By when this context will have ended, once it ends.
    ends_by: Option<std::time::Instant>,
    /// Whether this process reaps what it adopted: an agent does, a program of the user's does not.
    pub(crate) reaper: Option<offshoot_mux::Reaper>,
}

/// What this process is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) hello: ChildHello,
}

impl Services {
    /// The guard of a context on this machine was killed: what it had adopted of the context's processes, and would have
    /// ended, is found by their mark.
    pub(crate) fn end_marked(&self, tag: String) {
        // Without a thread to be had it ends with this context.
        let _ = self.endings.end(None, tag, LEFT);
    }

    pub(crate) fn feed_watchdog(&mut self, timers: &mut Timers<Timer>) {
        let Some(watchdog) = &self.watchdog else { return };
        timers.insert(std::time::Instant::now() + watchdog.feed(), Timer::Watchdog);
    }
}

impl State {
    /// A request of a context that may ask it.
    pub(crate) fn serve(
        &mut self,
        shared: &Arc<Shared>,
        id: ExchangeId,
        verb: Verb,
        right: Right<'_>,
        body: Bytes,
        now: Time,
    ) {
        if self.phase != Phase::Running && verb != Verb::Shutdown {
            let failure = Failure::new(FailureKind::NoRoute, "the context is ending");
            return self.core.fail(id, failure, now);
        }
        let Right { authority, from, .. } = right;
        match verb {
            Verb::Echo => self.core.reply(id, body, now),
            Verb::Info => {
                let info = self.info();
                self.core.reply(id, Bytes::from(encode(&info)), now);
            }
            Verb::Exec => self.with_body(id, &body, now, |state, spec| state.exec(shared, id, spec, now)),
            Verb::Connect => self.with_body(id, &body, now, |state, spec| state.connect_for(shared, id, spec, now)),
            Verb::Payload => self.with_body(id, &body, now, |state, spec| state.serve_payload(shared, id, spec, now)),
            Verb::Image => self.with_body(id, &body, now, |state, spec| {
                state.serve_content(shared, id, from, authority == Authority::Full, spec, now);
            }),
            // Not answered: the end itself is what every requester waits for, and sees once all is over.
            Verb::Shutdown => self.with_body(id, &body, now, |state, notice| {
                state.begin_end(LostReason::Shutdown, notice, now);
            }),
            Verb::Call if self.services.calls.is_some() => {
                if let Some(calls) = &mut self.services.calls {
                    calls.request(&mut self.core, shared, id, from, &body, now);
                }
            }
            Verb::Attend if self.services.working.is_some() => {
                if let Some(working) = self.services.working {
                    (working.attend)(self, shared, id, &body, now);
                }
            }
            Verb::Stream if self.services.lanes.is_some() => {
                if let Some(lanes) = &mut self.services.lanes {
                    lanes.request(&mut self.core, id, right, &body, now);
                }
            }
            Verb::Files | Verb::Call | Verb::Detach | Verb::Attach | Verb::Attend | Verb::Stream => {
                let message = format!("{from} asked for something that this version does not do ({verb:?})");
                self.core.fail(id, Failure::new(FailureKind::Unsupported, message), now);
            }
        }
    }

    fn with_body<T: Decode>(&mut self, id: ExchangeId, body: &[u8], now: Time, run: impl FnOnce(&mut State, T)) {
        match decode(body) {
            Ok(spec) => run(self, spec),
            Err(error) => {
                let failure = Failure::new(FailureKind::Malformed, format!("the request cannot be decoded: {error}"));
                self.core.fail(id, failure, now);
            }
        }
    }

    fn info(&self) -> NodeInfo {
        let (name, hello) = match &self.services.identity {
            Some(identity) => (identity.name.clone(), identity.hello.clone()),
            None => (String::new(), crate::identity::hello([0; 16])),
        };
        NodeInfo {
            address: self.core.address().clone(),
            name,
            hello,
            children: self.links.children(),
            processes: self.services.jobs.len() as u32,
            link_bytes: self.parent_bytes(),
            contents: self.content_stats(),
        }
    }

    fn parent_bytes(&self) -> (u64, u64) {
        let stats = self.core.parent_link().and_then(|link| self.core.stats(link));
        stats.map_or((0, 0), |stats| (stats.bytes_in, stats.bytes_out))
    }

    /// The requester no longer waits.
    pub(crate) fn served_cancelled(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        self.cancel_job(shared, id);
        self.cancel_connect(id);
        self.cancel_content(shared, id, now);
        if let Some(calls) = &mut self.services.calls {
            calls.cancel(&mut self.core, shared, id, now);
        }
        if let Some(lanes) = &mut self.services.lanes {
            lanes.cancelled(&mut self.core, id, now);
        }
        if let Some(working) = self.services.working {
            (working.over)(self, id, now);
        }
    }

    /// A function has ended.
    pub(crate) fn call_done(&mut self, shared: &Arc<Shared>, id: ExchangeId, outcome: Outcome, now: Time) {
        if let Some(calls) = &mut self.services.calls {
            calls.done(&mut self.core, shared, id, outcome, now);
        }
    }

    pub(crate) fn served_data(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, data: Bytes, now: Time) {
        if self.content_came(shared, id, &data, now) {
            return;
        }
        if self.services.lanes.as_mut().is_some_and(|lanes| lanes.data(&mut self.core, id, &data, now)) {
            return;
        }
        if let Some(calls) = &mut self.services.calls {
            calls.data(&mut self.core, id, &data, now);
        }
        self.connect_data(id, channel, &data, now);
        self.job_data(shared, id, channel, data, now);
    }

    pub(crate) fn served_end(
        &mut self,
        shared: &Arc<Shared>,
        id: ExchangeId,
        channel: u8,
        reason: EndReason,
        now: Time,
    ) {
        if let Some(lanes) = &mut self.services.lanes {
            lanes.ended(&mut self.core, id, reason, now);
        }
        if let Some(calls) = &mut self.services.calls {
            calls.ended(&mut self.core, shared, id, now);
        }
        self.job_input_ended(shared, id, channel, now);
    }

    pub(crate) fn served_writable(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        self.job_output_wanted(shared, id, channel, now);
        self.content_wanted(shared, id, now);
        if let Some(working) = self.services.working {
            (working.wanted)(self, shared, id, channel, now);
        }
        if let Some(lanes) = &mut self.services.lanes {
            lanes.wanted(&mut self.core, id, now);
        }
        if let Some(calls) = &mut self.services.calls {
            calls.wanted(&mut self.core, id, now);
        }
    }

    pub(crate) fn served_stopped(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        self.job_output_unwanted(shared, id, channel, now);
        if let Some(working) = self.services.working {
            (working.unread)(self, shared, id, channel, now);
        }
    }

    // ---- the end of this context ----

    /// Ends everything below, orderly within the notice's bounds, then this context.
    ///
    /// Asked again while it ends, it only ever hurries: the parent may be lost meanwhile, or the user impatient.
    pub(crate) fn begin_end(&mut self, reason: LostReason, notice: ShutdownNotice, now: Time) {
        let grace = Duration::from_millis(u64::from(notice.grace_ms));
        let kill = Duration::from_millis(u64::from(notice.kill_ms));
        let by = std::time::Instant::now() + grace + kill;
        let sooner = self.services.ends_by.is_none_or(|before| by < before);
        if sooner && !matches!(self.phase, Phase::Ended(_)) {
            self.services.ends_by = Some(by);
            if self.phase == Phase::Running {
                self.enter(Phase::Ending(reason));
            }
            self.after(grace + kill, Timer::Shutdown);
            self.cancel_connects();
            for link in self.links.down() {
                self.core.shutdown_child(link, notice, now);
            }
            for link in self.links.with_tools() {
                // What is below has had its grace and a moment to say so. A guard, woken if it is stopped, ends a stopped
                // agent a second later, and all that is below.
                self.after(grace + kill / 4, Timer::ToolEnd(link, 0));
            }
            self.end_jobs(grace);
        }
        self.check_ended();
    }

    /// The orderly end takes too long: what is left is ended by force, here and by whoever is below.
    pub(crate) fn shutdown_overdue(&mut self, shared: &Arc<Shared>) {
        let Phase::Ending(reason) = self.phase.clone() else { return };
        let now = shared.now();
        for link in self.links.down() {
            self.link_down(shared, link, LostReason::Shutdown, now);
        }
        self.end_tools();
        self.enter(Phase::Ended(reason));
    }

    /// Whether the end that was begun is reached.
    pub(crate) fn check_ended(&mut self) {
        if let Phase::Ending(reason) = &self.phase
            && self.services.jobs.is_empty()
            && self.services.connects.is_idle()
            && self.links.is_clear()
        {
            let reason = reason.clone();
            if self.services.working.is_some_and(|working| !(working.last_words)(self)) {
                return;
            }
            self.enter(Phase::Ended(reason));
        }
    }

    /// Signals came.
    pub(crate) fn signalled(&mut self, now: Time) {
        const SIGCHLD: i32 = 17;
        let Some(signals) = &mut self.services.signals else { return };
        let came: Vec<i32> = signals.read().collect();
        for signal in came {
            if signal == SIGCHLD {
                if let Some(reaper) = &self.services.reaper {
                    reaper.reap();
                }
            } else {
                self.begin_end(LostReason::Signalled(signal), AT_ONCE, now);
            }
        }
    }
}
