//! The knobs of a node, each with its reason and its worst-case memory (R5).

use std::time::Duration;

use offshoot_wire::Limits;

use crate::bucket::Rate;

/// What a node allows. The defaults suit masters, agents and workers alike.
///
/// An exchange costs about 350 bytes at every context that it passes and 120 for each channel that was used, and a queued
/// frame about 60 bytes beside its body. What a limit costs at worst is said in those terms. What happens at a limit is said too; nothing is ever
/// dropped in silence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// The frame size, heartbeat and silence that this node states to its children. A child takes the heartbeat and
    /// silence that its parent states.
    pub limits: Limits,
    /// How many children there may be at once, those being connected included. 4,096: twice what one master is promised
    /// to bear. About 1 KiB each. At the limit: `Busy`.
    pub max_children: usize,
    /// How many exchanges this node may have asked and not seen answered. 131,072: 100,000 pending calls and some; 45
    /// MB. At the limit: `Busy`.
    pub max_pending: usize,
    /// How many exchanges one child, with all below it, may have waiting here to be served. 4,096: 1.4 MB, and as many
    /// request bodies as [`Config::call_budget`] holds. At the limit: `Busy`.
    pub max_served_per_child: usize,
    /// How many exchanges the parent side may have waiting here. 131,072, since what a master asks it bounds itself.
    /// At the limit: `Busy`.
    pub max_served_from_parent: usize,
    /// How many exchanges that one child, with all below it, asked may pass through here, upwards or turned. 16,384:
    /// 6 MB for each child that uses it up. At the limit: `Busy`.
    pub max_turned_per_child: usize,
    /// How many exchanges from the parent side may pass downwards. 262,144: 90 MB. At the limit: `Busy`.
    pub max_passed_from_parent: usize,
    /// How many exchanges asked by children there may be in all: 524,288, 180 MB. Many hostile children together meet
    /// this one, and what this context and its parent ask does not. At the limit: `Busy`. All exchanges together are at
    /// most 1,048,576.
    pub max_exchanges: usize,
    /// How much stream data may wait for one link before the credit that passes through in exchange for more is held
    /// back. 4 MiB: a full window, so that one stream at full speed never meets it.
    pub relay_budget: u64,
    /// How much stream data may at most come to wait for one link: what waits plus what its readers were granted and has
    /// not come yet. Credit beyond it is held back; a request that would bring more is refused with `Busy`. 64 MiB: four
    /// contexts that granted all they may. Only floors of single streams come on top.
    pub relay_limit: u64,
    /// How many bytes of requests may wait for one link from one origin, and how many bytes of requests and answers from
    /// one child may wait anywhere. 4 MiB. At the limit a request is refused with `Busy`. Not for what ancestors ask: see
    /// [`Config::call_window`].
    pub call_budget: u64,
    /// How many bytes of requests, each with 96 for its frame, this node may have asked of the contexts below one child
    /// and heard nothing of yet, and how many bytes of requests with full authority may wait here for one link. 16 MiB:
    /// [`Config::max_pending`] small ones. The asked context is heard when it answers or uses a channel. Since no more than
    /// that can wait on the way, one requester meets this limit at home, where its callers wait for room, and never at a
    /// relay. Requests upwards have [`Config::call_budget`] for the same. At the limit: `Busy`.
    pub call_window: u64,
    /// How many bytes of answers may wait for one link. 32 MiB: a slow link under many calls is no mistake. Beyond it an
    /// answer is replaced by a `Busy` failure that says that the work ran.
    pub answer_budget: u64,
    /// How many bytes one channel may have waiting in this node before its writer is told to wait. 256 KiB: two turns of
    /// the loop's writing.
    pub send_buffer: usize,
    /// How many bytes of refusals may wait for a child that does not read them: 4 MiB, then its link is closed. Sixteen
    /// times that when those who asked sit further away, since then the link is slow rather than hostile. As much again
    /// for the notices of what was lost behind a child that wait for the parent link: some 40,000, each with 64 beside
    /// its bytes; then that child's link is closed.
    pub control_budget: usize,
    /// The least bulk that may be in flight on a link without acknowledgement. 64 KiB; see [`Config::bulk_gain`].
    pub bulk_floor: u64,
    /// Bulk in flight stays under this many tenths of the measured rate × the smallest round trip. 15: half as much again
    /// as the path holds, so that a link that became faster is noticed and a call still waits for little.
    pub bulk_gain: u64,
    /// How many log bytes may wait for the parent link. 256 KiB; more are dropped and counted, since logs never stop work.
    pub log_budget: usize,
    /// How many grants may be alive: 65,536, 3 MB. At the limit expired ones go first, then: `Busy`.
    pub max_grants: usize,
    /// Refusals (denied, malformed, unsupported) that a child may cause here. Honest contexts cause nearly none. Beyond it
    /// the link is closed. This rate and the following two are for what the child itself does, or should not have let
    /// through: what a context further below can do through an honest relay costs the relay nothing.
    pub refusals: Rate,
    /// Requests of a child to contexts that are gone, or beyond a limit. An honest one can have 100,000 calls on their way
    /// when a context dies. Beyond it the link is closed.
    pub bounces: Rate,
    /// Control frames of a child that bring nothing forward: pings, acknowledgements and credit of a few bytes, notices.
    /// Those that do are bounded by the data they stand for. Beyond it the link is closed.
    pub notices: Rate,
    /// Losses that a child reports. One that loses all its children at once reports [`Config::max_children`]. What is lost
    /// further below counts a sixteenth, and each 64 bytes of a notice count as one more. Beyond it the link is closed.
    pub losses: Rate,
    /// Frames of a child that belong to no exchange. An honest one sends them when what it answers is given up: a window
    /// full, in pieces of some tens of bytes at worst. Each 4 KiB of a frame count as one more: 1 GiB at once. What a
    /// context further below sends counts a sixteenth. Beyond it the
    /// link is closed, since taking frames apart costs whoever takes them the time that its siblings need.
    pub strays: Rate,
    /// Log bytes of a child. Beyond it they are dropped and counted.
    pub log_bytes: Rate,
    /// A round-trip sample older than this is refreshed by a ping when bulk is sent. 5 s.
    pub sample_age: Duration,
}

impl Config {
    /// The defaults, with what `change` makes of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use offshoot_route::Config;
    /// let config = Config::with(|config| config.max_children = 16);
    /// assert_eq!(config.max_children, 16);
    /// ```
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            max_children: 4096,
            max_pending: 131_072,
            max_served_per_child: 4096,
            max_served_from_parent: 131_072,
            max_turned_per_child: 16_384,
            max_passed_from_parent: 262_144,
            max_exchanges: 524_288,
            relay_budget: 4 * 1024 * 1024,
            relay_limit: 64 * 1024 * 1024,
            call_budget: 4 * 1024 * 1024,
            call_window: 16 * 1024 * 1024,
            answer_budget: 32 * 1024 * 1024,
            send_buffer: 256 * 1024,
            control_budget: 4 * 1024 * 1024,
            bulk_floor: 64 * 1024,
            bulk_gain: 15,
            log_budget: 256 * 1024,
            max_grants: 65_536,
            refusals: Rate { burst: 1024, per_second: 128 },
            bounces: Rate { burst: 262_144, per_second: 16_384 },
            notices: Rate { burst: 16_384, per_second: 2048 },
            losses: Rate { burst: 16_384, per_second: 2048 },
            strays: Rate { burst: 262_144, per_second: 16_384 },
            log_bytes: Rate { burst: 1024 * 1024, per_second: 1024 * 1024 },
            sample_age: Duration::from_secs(5),
        }
    }
}
