//! Attend: whoever started a worker looks after it; and the logs of this process and of those below it.
//!
//! In a worker: what it writes goes to its attendant, and it ends when it is attended no more, or idle for long. In whoever
//! attends, and at the root: what comes is handed to `home`. Runs under the node's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{AttendSpec, Failure, FailureKind, LostReason, Verb, channel, decode, encode};

use super::outlet::Sent;
use crate::Context;
use crate::home::Homecoming;
use crate::shared::Shared;
use crate::state::{AT_ONCE, Phase, State, Timer};

/// How long a worker that has told that it is about to end still takes calls: those that were on their way.
const RETIRING: Duration = Duration::from_secs(1);

/// How long the end of a worker waits for its last words to leave, when all else is over.
const FLUSH: Duration = Duration::from_millis(300);

/// How many pieces of a worker's output are sent in one go.
const TURNS: usize = 16;

/// How often is looked whether they have.
const LOOK: Duration = Duration::from_millis(2);

/// There is no room for a request now.
pub(crate) struct NoRoom;

/// What a worker knows of its attendance.
#[derive(Debug, Default)]
pub(crate) struct Attendance {
    idle: Duration,
    /// When it last had something to do, as far as was looked.
    busy: Option<Instant>,
    retiring: bool,
    flush_until: Option<Instant>,
}

/// What only a worker does. A table, so that what does not name it does not link it (R8).
pub(crate) struct Working {
    pub(crate) attend: fn(&mut State, &Arc<Shared>, ExchangeId, &[u8], Time),
    pub(crate) over: fn(&mut State, ExchangeId, Time),
    pub(crate) readable: fn(&mut State, Option<&Arc<Shared>>, usize, Time) -> bool,
    pub(crate) wanted: fn(&mut State, &Arc<Shared>, ExchangeId, u8, Time),
    pub(crate) unread: fn(&mut State, &Arc<Shared>, ExchangeId, u8, Time),
    pub(crate) idle: fn(&mut State, Time),
    pub(crate) last_words: fn(&mut State) -> bool,
}

/// The table of a worker.
pub(crate) static WORKING: Working = Working {
    attend: State::attend,
    over: State::attendance_over,
    readable: State::output_readable,
    wanted: State::output_wanted,
    unread: State::output_unread,
    idle: State::look_idle,
    last_words: State::last_words_left,
};

impl State {
    // ---- in a worker ----

    fn attend(&mut self, shared: &Arc<Shared>, id: ExchangeId, body: &[u8], now: Time) {
        let Ok(spec) = decode::<AttendSpec>(body) else {
            let failure = Failure::new(FailureKind::Malformed, "the limits cannot be decoded");
            return self.core.fail(id, failure, now);
        };
        let calls = self.services.calls.as_mut();
        let Some(calls) = calls.and_then(|calls| (!calls.outlet().is_attended()).then_some(calls)) else {
            let failure = Failure::new(FailureKind::Unsupported, "this context is not a worker, or attended already");
            return self.core.fail(id, failure, now);
        };
        if spec.memory > 0
            && let Err(error) = offshoot_mux::process::limit_memory(spec.memory)
        {
            let failure = crate::error::os_failure("cannot limit the memory of the worker", &error);
            return self.core.fail(id, failure, now);
        }
        if spec.calls > 0 {
            calls.set_limit(spec.calls as usize);
        }
        calls.outlet().attend(id);
        if spec.idle_ms > 0 {
            let idle = Duration::from_millis(spec.idle_ms.into());
            self.services.attendance.idle = idle;
            self.services.attendance.busy = Some(Instant::now());
            self.after(idle, Timer::Idle);
        }
        for index in 0..2 {
            self.output_readable(Some(shared), index, now);
        }
    }

    /// An exchange was cancelled: if it was the attendance, nobody knows this worker any more.
    fn attendance_over(&mut self, id: ExchangeId, now: Time) {
        if self.services.calls.as_mut().is_some_and(|calls| calls.outlet().left(id)) {
            self.begin_end(LostReason::Shutdown, AT_ONCE, now);
        }
    }

    /// Sends what waits in one of the worker's outputs, as far as it goes now. Whether it is empty. With `shared` it is
    /// written to the link before it is taken out of its pipe.
    fn output_readable(&mut self, shared: Option<&Arc<Shared>>, index: usize, now: Time) -> bool {
        for _ in 0..TURNS {
            let Some(calls) = &mut self.services.calls else { return true };
            let copied = match calls.outlet().send(&mut self.core, index, now) {
                Sent::Empty => return true,
                Sent::Blocked => return false,
                Sent::Some(copied) => copied,
            };
            if copied > 0
                && let Some(shared) = shared
                && let Some(link) = self.core.parent_link()
            {
                self.write_link(shared, link, now);
            }
            if let Some(calls) = &mut self.services.calls {
                calls.outlet().take_out(index, copied);
            }
        }
        // Others have their turn.
        self.after(Duration::ZERO, Timer::Output(index));
        false
    }

    /// There is credit again for a worker's output.
    fn output_wanted(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        if let Some(index) = self.services.calls.as_mut().and_then(|calls| calls.outlet().wanted(id, channel)) {
            self.output_readable(Some(shared), index, now);
        }
    }

    /// Nobody reads a worker's output any more: it is thrown away from now on.
    fn output_unread(&mut self, shared: &Arc<Shared>, id: ExchangeId, channel: u8, now: Time) {
        let Some(calls) = &mut self.services.calls else { return };
        if let Some(index) = calls.outlet().wanted(id, channel) {
            calls.outlet().discard(index);
            self.output_readable(Some(shared), index, now);
        }
    }

    /// The time of a worker's timer: to look whether it was idle for long, or whether its last words have left.
    fn look_idle(&mut self, now: Time) {
        if self.phase != Phase::Running {
            return self.check_ended();
        }
        let Some(calls) = &self.services.calls else { return };
        let streams = self.services.lanes.as_ref().is_some_and(|lanes| !lanes.is_idle()) || self.awaits_any();
        let idle = calls.is_idle() && self.links.is_clear() && self.services.connects.is_idle() && !streams;
        let attendance = &mut self.services.attendance;
        if !idle {
            attendance.busy = Some(Instant::now());
        }
        let worked = calls.last().max(attendance.busy);
        let since = worked.map_or(attendance.idle, |busy| busy.elapsed());
        if attendance.retiring {
            if since >= RETIRING {
                return self.begin_end(LostReason::Shutdown, AT_ONCE, now);
            }
            self.after(RETIRING - since, Timer::Idle);
        } else if since >= attendance.idle {
            attendance.retiring = true;
            // A call that comes late is busyness, and is waited for.
            attendance.busy = Some(Instant::now());
            if let Some(calls) = &mut self.services.calls {
                calls.outlet().retire(&mut self.core, now);
            }
            self.after(RETIRING, Timer::Idle);
        } else {
            let left = attendance.idle - since;
            self.after(left, Timer::Idle);
        }
    }

    /// Whether what a worker wrote has left, or had its time.
    fn last_words_left(&mut self) -> bool {
        if self.services.calls.is_none() {
            return true;
        }
        // Sending looks at no clock.
        let now = Time::from_micros(0);
        let empty = [0, 1].map(|index| self.output_readable(None, index, now));
        let sent = self.core.parent_link().is_none_or(|link| {
            self.core.is_drained(link) && self.links.link_mut(link).is_none_or(|link| link.is_written())
        });
        let until = *self.services.attendance.flush_until.get_or_insert_with(|| Instant::now() + FLUSH);
        let left = (empty == [true; 2] && sent) || Instant::now() >= until;
        if !left {
            self.after(LOOK, Timer::Idle);
        }
        left
    }

    // ---- where it comes home ----

    /// What takes the output of the worker that is attended by this exchange.
    pub(crate) fn homecoming_of(&mut self, id: ExchangeId) -> Option<&mut (dyn Homecoming + 'static)> {
        self.services.home.as_deref_mut().filter(|home| home.attends(id))
    }

    pub(crate) fn attended_output(&mut self, shared: &Arc<Shared>, id: ExchangeId, number: u8, data: Bytes, now: Time) {
        if number == channel::QUESTION {
            // The worker is about to end by itself: nobody is to call it any more.
            self.core.consumed(id, number, data.len(), now);
            if let Some(worker) = self.homecoming_of(id).and_then(|home| home.worker(id)) {
                shared.workers.gone(&worker);
            }
        } else if let Some(home) = self.homecoming_of(id) {
            home.output(id, number, data);
        }
    }

    /// A worker was started: asks for its output, and tells it its limits. `None` when it is gone already: whoever calls it
    /// will be told; or when nothing comes home here.
    pub(crate) fn begin_attending(
        &mut self,
        worker: &Context,
        path: &str,
        spec: &AttendSpec,
        now: Time,
    ) -> Result<Option<ExchangeId>, NoRoom> {
        let Some(home) = &mut self.services.home else { return Ok(None) };
        match self.core.request(worker.address(), Verb::Attend, Bytes::from(encode(spec)), worker.grant().cloned(), now)
        {
            Ok(id) => {
                home.attended(id, worker.address(), path);
                Ok(Some(id))
            }
            Err(failure) if failure.kind == FailureKind::Busy => Err(NoRoom),
            Err(_) => Ok(None),
        }
    }

    /// Workers of their own that nobody has a handle to any more end.
    pub(crate) fn end_dropped(&mut self, shared: &Shared, now: Time) {
        for id in shared.workers.take_dropped() {
            self.core.cancel(id, now);
            if let Some(home) = self.homecoming_of(id) {
                // Where it does not lie below this process nobody will tell of its end.
                if let Some(worker) = home.worker(id) {
                    shared.workers.gone(&worker);
                }
                home.ended(id, None);
            }
        }
    }

    // ---- logs ----

    pub(crate) fn send_records_again(&mut self, again: Option<Duration>) {
        if let Some(again) = again {
            self.services.records_due = true;
            self.after(again, Timer::Records);
        }
    }

    /// At the root: the tree's log goes down to the level that this process's log has now.
    pub(crate) fn follow_log_level(&mut self) {
        if let Some(level) = self.services.home.as_ref().and_then(|home| home.level()) {
            self.core.set_log_level(level);
        }
    }
}
