//! What a node knows of one link: its state, its limits, its clocks, and what waits in its own lane.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use offshoot_wire::{Address, Limits, LostReason, ShutdownNotice};

use crate::bucket::Bucket;
use crate::config::Config;
use crate::event::{LinkId, LinkStats};
use crate::exchange::LANES;
use crate::peers::Peers;
use crate::slab::NONE;
use crate::time::Time;

/// Which way a link leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Parent,
    Child,
}

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The address is given out; the connect runs. Requests may wait; nothing is sent.
    Reserved,
    /// Our hello is on its way: what waits may follow it. Nothing is taken from the other end before its hello (S24).
    Greeted,
    /// Both hellos are done.
    Up,
    /// Given up by the core: only the last word is left to send. The owner says `link_down`.
    Closed,
}

/// Round trip and rate of a link, and what they allow to be in flight.
pub(crate) struct Path {
    /// The number of the last heartbeat that was sent, and of the last that came back.
    pub(crate) pinged: u64,
    pub(crate) ponged: u64,
    /// When the last one was handed out, while it is awaited.
    sent_at: Option<Time>,
    sampled: Option<Time>,
    /// The smallest round trip in this half of the memory and in the one before, in microseconds.
    least: [Option<u64>; 2],
    turned: Time,
    /// Bulk handed out, and acknowledged, in bytes.
    pub(crate) sent: u64,
    pub(crate) acked: u64,
    /// Bytes per second.
    rate: u64,
    measured: Time,
    measured_acked: u64,
    /// Bulk had to wait since the last measurement, so that the rate is the path's and not the application's.
    pub(crate) limited: bool,
}

/// How long a smallest round trip is remembered in each half.
const MEMORY: Duration = Duration::from_secs(30);

impl Path {
    fn new(now: Time) -> Path {
        Path {
            pinged: 0,
            ponged: 0,
            sent_at: None,
            sampled: None,
            least: [None; 2],
            turned: now,
            sent: 0,
            acked: 0,
            rate: 0,
            measured: now,
            measured_acked: 0,
            limited: false,
        }
    }

    /// The number of the next heartbeat, handed out now.
    pub(crate) fn ping(&mut self, now: Time) -> u64 {
        self.pinged += 1;
        self.sent_at = Some(now);
        self.pinged
    }

    /// Whether one is awaited.
    pub(crate) fn awaits_pong(&self) -> bool {
        self.sent_at.is_some()
    }

    /// Takes an answer; `false` when it answers nothing.
    pub(crate) fn pong(&mut self, seq: u64, now: Time) -> bool {
        if seq <= self.ponged || seq > self.pinged {
            return false;
        }
        self.ponged = seq;
        if seq == self.pinged
            && let Some(sent_at) = self.sent_at.take()
        {
            let sample = u64::try_from(now.since(sent_at).as_micros()).unwrap_or(u64::MAX);
            if now.since(self.turned) >= MEMORY {
                self.least = [None, self.least[0]];
                self.turned = now;
            }
            self.least[0] = Some(self.least[0].map_or(sample, |least| least.min(sample)));
            self.sampled = Some(now);
        }
        true
    }

    /// Whether there is no sample younger than `age`.
    pub(crate) fn is_stale(&self, age: Duration, now: Time) -> bool {
        self.sampled.is_none_or(|at| now.since(at) >= age)
    }

    pub(crate) fn rtt_us(&self) -> Option<u64> {
        match self.least {
            [Some(a), Some(b)] => Some(a.min(b)),
            [a, b] => a.or(b),
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.sent.saturating_sub(self.acked)
    }

    /// How much bulk may be in flight.
    pub(crate) fn limit(&self, config: &Config) -> u64 {
        let Some(rtt) = self.rtt_us() else { return config.bulk_floor };
        let held = u128::from(self.rate) * u128::from(rtt) / 1_000_000 * u128::from(config.bulk_gain) / 10;
        u64::try_from(held).unwrap_or(u64::MAX).max(config.bulk_floor)
    }

    /// Takes an acknowledgement; `false` when it is of what was not sent, or goes back.
    pub(crate) fn ack(&mut self, bulk: u64, now: Time) -> bool {
        if bulk > self.sent || bulk < self.acked {
            return false;
        }
        self.acked = bulk;
        // Measured over at least one round trip: a shorter time would take the burst of one read turn for the rate.
        let elapsed = now.since(self.measured);
        if elapsed >= Duration::from_micros(self.rtt_us().unwrap_or(1000).max(100)) {
            let micros = elapsed.as_micros().max(1);
            let sample = u128::from(bulk - self.measured_acked) * 1_000_000 / micros;
            let sample = u64::try_from(sample).unwrap_or(u64::MAX);
            if sample >= self.rate {
                self.rate = sample;
            } else if self.limited {
                self.rate = self.rate - self.rate / 8 + sample / 8;
            }
            self.measured = now;
            self.measured_acked = bulk;
            self.limited = false;
        }
        true
    }
}

/// A frame of a link's own.
pub(crate) struct Raw {
    pub(crate) frame: Vec<u8>,
    /// The link behind which is lost what a notice tells of; this node's own when the frame is none.
    pub(crate) of: LinkId,
}

impl Raw {
    /// What a notice costs while it waits: its bytes, and as much again for the smallest in places, queue and allocator.
    pub(crate) fn cost(&self) -> usize {
        self.frame.len() + 64
    }
}

/// A link.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) role: Role,
    pub(crate) state: State,
    /// Of the other end.
    pub(crate) address: Address,
    /// What this end takes, and the heartbeat of both.
    pub(crate) limits: Limits,
    /// The largest frame that the other end takes, and this one is ready to make.
    pub(crate) frame: u32,

    // Out.
    /// The classes with something waiting, a ring for each lane.
    pub(crate) lanes: [u32; LANES],
    /// Bytes of calls sent since the last stream data.
    pub(crate) calls_in_row: u64,
    /// Frames of the link's own, whole: refusals and notices.
    pub(crate) raw: VecDeque<Raw>,
    /// Bytes of those that are no notices.
    pub(crate) raw_bytes: usize,
    /// By how many bytes the link's own frames are ahead of those of exchanges that wait beside them.
    pub(crate) raw_ahead: usize,
    pub(crate) pong: Option<u64>,
    pub(crate) ping: bool,
    pub(crate) shutdown: Option<ShutdownNotice>,
    pub(crate) bye: Option<LostReason>,
    /// Exchanges whose credit is to be told to this link: id and the side that it leads to.
    pub(crate) credits: VecDeque<(u64, usize)>,
    /// Channels whose credit, come from this link, is held back: id, the side that reads, channel.
    pub(crate) held: VecDeque<(u64, usize, u8)>,
    pub(crate) logs: VecDeque<(Address, Bytes)>,
    pub(crate) log_bytes: usize,
    /// In the node's list of links with output.
    pub(crate) ready: bool,
    /// What waits: stream data, requests, answers; with what a frame costs.
    pub(crate) data_queued: u64,
    pub(crate) calls_queued: u64,
    pub(crate) answers_queued: u64,
    /// What its readers were granted and has not come yet.
    pub(crate) outstanding: u64,
    /// Bytes of the requests that this node asked through it and heard nothing of yet; with what a frame costs.
    pub(crate) unheard: u64,
    /// A request was refused for want of room.
    pub(crate) refused_room: bool,

    // In.
    /// The length of the frame that is being taken.
    pub(crate) frame_in: u32,
    pub(crate) bulk_in: u64,
    pub(crate) bulk_acked: u64,
    /// Bytes of calls from here that wait anywhere.
    pub(crate) charged: u64,
    /// Bytes of notices of what was lost behind this link that wait for the parent link; with what each costs.
    pub(crate) told: usize,
    pub(crate) refusals: Bucket,
    pub(crate) bounces: Bucket,
    pub(crate) notices: Bucket,
    pub(crate) losses: Bucket,
    pub(crate) stray_rate: Bucket,
    pub(crate) log_rate: Bucket,
    /// Exchanges that the contexts behind this link asked and that are served here, and that pass through here.
    pub(crate) served: usize,
    pub(crate) turned: usize,

    // Clocks.
    pub(crate) heard: Time,
    pub(crate) beat: Time,
    pub(crate) path: Path,

    /// The contexts behind this link that take part in an exchange. One for all behind the parent link.
    pub(crate) peers: Peers,
    pub(crate) last_peer: u32,
    pub(crate) idle_peers: usize,

    pub(crate) stats: LinkStats,
}

impl Link {
    pub(crate) fn new(id: LinkId, role: Role, state: State, address: Address, limits: Limits, now: Time) -> Link {
        Link {
            id,
            role,
            state,
            address,
            limits,
            frame: limits.frame,
            lanes: [NONE; LANES],
            calls_in_row: 0,
            raw: VecDeque::new(),
            raw_bytes: 0,
            raw_ahead: 0,
            told: 0,
            pong: None,
            ping: false,
            shutdown: None,
            bye: None,
            credits: VecDeque::new(),
            held: VecDeque::new(),
            logs: VecDeque::new(),
            log_bytes: 0,
            ready: false,
            data_queued: 0,
            calls_queued: 0,
            answers_queued: 0,
            outstanding: 0,
            unheard: 0,
            refused_room: false,
            frame_in: 0,
            bulk_in: 0,
            bulk_acked: 0,
            charged: 0,
            refusals: Bucket::new(now),
            bounces: Bucket::new(now),
            notices: Bucket::new(now),
            losses: Bucket::new(now),
            stray_rate: Bucket::new(now),
            log_rate: Bucket::new(now),
            served: 0,
            turned: 0,
            heard: now,
            beat: now,
            path: Path::new(now),
            peers: Peers::default(),
            last_peer: NONE,
            idle_peers: 0,
            stats: LinkStats::default(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether frames may be sent on it.
    pub(crate) fn is_greeted(&self) -> bool {
        matches!(self.state, State::Greeted | State::Up)
    }

    /// Whether an acknowledgement is due. Every 32 KiB: rare beside the data, and well under the least that may be in
    /// flight, so that the sender never waits for one that is not due yet.
    pub(crate) fn owes_ack(&self) -> bool {
        self.bulk_in - self.bulk_acked >= 32 * 1024
    }

    /// Whether the exchanges of this link's readers may bring `more` bytes of stream data to wait for it.
    pub(crate) fn has_room_for(&self, more: u64, config: &Config) -> bool {
        self.data_queued.saturating_add(self.outstanding).saturating_add(more) <= config.relay_limit
    }

    /// How many bytes of requests this node may have asked through it and heard nothing of: what the first relay takes.
    pub(crate) fn call_window(&self, config: &Config) -> u64 {
        match self.role {
            Role::Child => config.call_window,
            Role::Parent => config.call_budget,
        }
    }

    /// Puts a frame of the link's own, which is no notice, behind those that wait.
    pub(crate) fn push_raw(&mut self, frame: Vec<u8>) {
        self.raw_bytes += frame.len();
        self.raw.push_back(Raw { frame, of: LinkId::LOCAL });
    }

    /// Whether bulk may be sent.
    pub(crate) fn may_send_bulk(&self, config: &Config) -> bool {
        self.path.in_flight() < self.path.limit(config)
    }

    /// Whether something could be handed out now.
    pub(crate) fn has_output(&self, config: &Config) -> bool {
        match self.state {
            State::Reserved => false,
            State::Closed => self.bye.is_some(),
            State::Greeted | State::Up => {
                self.lanes[0] != NONE
                    || self.lanes[1] != NONE
                    || (self.lanes[2] != NONE && self.may_send_bulk(config))
                    || !self.raw.is_empty()
                    || !self.credits.is_empty()
                    || self.pong.is_some()
                    || self.ping
                    || self.shutdown.is_some()
                    || self.owes_ack()
                    || !self.logs.is_empty()
            }
        }
    }

    /// When the clock of this link should be looked at next.
    pub(crate) fn deadline(&self) -> Time {
        let silent = self.heard + self.limits.silence;
        match self.role {
            Role::Child => silent.min(self.beat + self.limits.heartbeat),
            Role::Parent => silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    #[test]
    fn s14_an_acknowledgement_or_pong_of_what_was_not_sent_is_refused() {
        let mut path = Path::new(Time::ZERO);
        path.sent = 100;
        assert!(!path.ack(101, Time::ZERO));
        assert!(path.ack(60, Time::ZERO));
        assert!(!path.ack(59, Time::ZERO));
        assert!(!path.pong(1, Time::ZERO));
        assert_eq!(path.ping(Time::ZERO), 1);
        assert!(path.pong(1, Time::from_micros(5)));
        assert!(!path.pong(1, Time::from_micros(6)));
    }

    #[test]
    fn the_limit_of_bulk_in_flight_follows_rate_and_round_trip() {
        let config = Config::default();
        let mut path = Path::new(Time::ZERO);
        assert_eq!(path.limit(&config), 64 * 1024);
        path.ping(Time::ZERO);
        path.pong(1, Time::from_micros(100 * MS));
        assert_eq!(path.rtt_us(), Some(100 * MS));
        path.sent = 10_000_000;
        assert!(path.ack(10_000_000, Time::from_micros(1000 * MS)));
        // 10 MB/s × 100 ms × 1.5
        assert_eq!(path.limit(&config), 1_500_000);
    }

    #[test]
    fn an_old_smallest_round_trip_is_forgotten() {
        let mut path = Path::new(Time::ZERO);
        let mut at = Time::ZERO;
        for round in [10, 500, 500, 500] {
            let seq = path.ping(at);
            path.pong(seq, at + Duration::from_micros(round));
            at = at + Duration::from_secs(31);
        }
        assert_eq!(path.rtt_us(), Some(500));
    }
}
