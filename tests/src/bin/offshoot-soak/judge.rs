//! What an operation may end with, and by when: the promises as arithmetic. No IO and no clock, so that each verdict has a test.
//!
//! Every promised bound is taken three times, and a measured delay of this machine's scheduler is added by the caller.

use std::time::{Duration, Instant};

use offshoot::{FailureKind, LostReason};

/// What was done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSEGV.
    Segv,
    /// SIGTERM.
    Term,
    /// SIGSTOP, and SIGCONT when `until` has come.
    Stop,
    /// No signal: the context was asked to end by [`offshoot::Context::shutdown`].
    Shutdown,
}

/// Which process it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The agent of the context at the fault's address.
    Agent,
    /// Its supervisor.
    Supervisor,
    /// The ssh client that leads to it, beside whoever connected it.
    Client,
    /// The session of the sshd that serves that client.
    Session,
    /// The worker at the fault's address, which runs functions for the context above it.
    Worker,
    /// The worker's supervisor.
    Keeper,
    /// Not a context's, or not yet: somewhere below that address.
    Below,
}

/// Something that happened to the tree.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Instant,
    /// The end of a stop; else the same as `at`.
    pub(crate) until: Instant,
    pub(crate) address: Vec<u32>,
    pub(crate) part: Part,
    pub(crate) blow: Blow,
    /// Whether the context is behind a login.
    pub(crate) login: bool,
    /// The process' id and start time; zeros for none.
    pub(crate) process: (i32, u64),
}

/// What kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answered by the agent itself.
    Call,
    /// A short program, or a stream of some hundred KiB.
    Work,
    /// A remote function, which may have to start its worker.
    Function,
    /// Something that lasts until its context, or its worker, is lost.
    Hold,
    Connect,
    Shutdown,
}

/// A promise, three times.
const fn thrice(milliseconds: u64) -> Duration {
    Duration::from_millis(3 * milliseconds)
}

/// How long a short call may take on a tree that nothing happens to, by the processor's leave.
const CALL: Duration = Duration::from_secs(3);
/// The same for a program or a stream.
const WORK: Duration = Duration::from_secs(10);
/// A connect in all.
const CONNECT: Duration = Duration::from_secs(30);
/// The grace of a shutdown, the time to kill and the round trips.
const SHUTDOWN: Duration = thrice(7000);
/// In how long calls below a killed agent end.
const AGENT: Duration = thrice(250);
/// The same behind a login, which ends no link in the midst of a frame before more of it may have come.
const CUT: Duration = thrice(2250);
/// In how long everything is gone below a process that was killed, and for each further hop.
const GONE: Duration = thrice(2000);
/// A stop of this length may be taken for a loss: three heartbeats make a silence.
const SILENT: Duration = Duration::from_secs(12);
/// In how long a link that is silent is given up, with what follows: its tool is asked, then killed.
const SILENCE: Duration = thrice(15_000);

impl Fault {
    fn lasted(&self) -> Duration {
        self.until.saturating_duration_since(self.at)
    }

    /// Whether the context may be lost by it.
    pub(crate) fn is_lethal(&self) -> bool {
        self.blow != Blow::Stop || self.lasted() >= SILENT
    }

    /// In how long the loss of what it killed is told when nothing holds that back.
    fn notice(&self) -> Duration {
        if self.login && self.part == Part::Agent { CUT } else { AGENT }
    }

    /// By when those who wait for something of the context, or below it, must have been told.
    fn told(&self) -> Instant {
        match (self.blow, self.part) {
            (Blow::Kill | Blow::Segv, Part::Agent | Part::Worker | Part::Client | Part::Session) => {
                self.at + self.notice()
            }
            (Blow::Kill | Blow::Segv | Blow::Term, _) => self.at + GONE,
            (Blow::Stop, _) if self.is_lethal() => self.at + SILENCE,
            (Blow::Stop, _) => self.until,
            (Blow::Shutdown, _) => self.at + SHUTDOWN,
        }
    }

    /// Whether its loss is not told while that lasts.
    fn is_held_by(&self, stop: &Fault) -> bool {
        let same = stop.address == self.address;
        let on_way = self.address.starts_with(&stop.address);
        let stands = match stop.part {
            // A login tells the end of its command's output only when the guard has ended, or has said that the agent has; a
            // stopped one says nothing. Behind no login the link has ended with the agent.
            Part::Supervisor => {
                same && self.login && self.part == Part::Agent && matches!(self.blow, Blow::Kill | Blow::Segv)
            }
            // The news comes this way: of what is behind, and not of what is nearer.
            Part::Agent => on_way && !same,
            Part::Session => on_way && !(same && matches!(self.part, Part::Client | Part::Session)),
            Part::Client => on_way && !(same && self.part == Part::Client),
            Part::Below | Part::Worker | Part::Keeper => false,
        };
        stands && stop.blow == Blow::Stop && stop.at <= self.told() && stop.until >= self.at
    }

    /// By when everything at and below the address must be gone, `hops` being how many levels lie below.
    pub(crate) fn gone(&self, hops: u32) -> Instant {
        // What was killed is gone before its loss is told where that takes longer.
        let told = if matches!(self.blow, Blow::Kill | Blow::Segv) { self.at } else { self.told() };
        told.max(self.at + GONE * (1 + hops))
    }

    /// Whether it has to do with the way to `target`, or with what is asked of it.
    fn concerns(&self, kind: Kind, target: &[u32], start: Instant) -> bool {
        let on_path = target.starts_with(&self.address);
        let below = self.address.starts_with(target);
        // Another worker takes the place of one that is known to be lost, so what befell that does not concern those who come later.
        let recent = self.told() >= start;
        let child = self.address.split_last().is_some_and(|(_, above)| above == target);
        match (kind, self.part) {
            (Kind::Function, Part::Worker | Part::Keeper) => child && recent,
            (Kind::Function, Part::Below) => self.address == target && recent,
            // A connect ends badly when the new processes are hit; the end of a subtree waits for all that is in it.
            (Kind::Connect, Part::Below) | (Kind::Shutdown, _) => on_path || below,
            (_, Part::Below) => false,
            _ => on_path,
        }
    }
}

/// By when an operation that began at `start` must have ended, of the faults that there were until its end.
pub(crate) fn due(kind: Kind, target: &[u32], start: Instant, faults: &[Fault]) -> Option<Instant> {
    let own = match kind {
        Kind::Call => Some(CALL),
        Kind::Work => Some(WORK),
        Kind::Function => Some(CONNECT + WORK),
        Kind::Hold => None,
        Kind::Connect => Some(CONNECT + CALL),
        Kind::Shutdown => Some(SHUTDOWN),
    };
    let concerned = faults.iter().filter(|fault| fault.concerns(kind, target, start));
    let (lethal, stops): (Vec<&Fault>, Vec<&Fault>) = concerned.partition(|fault| fault.is_lethal());
    // What is held back is told at the latest when the silence is over.
    let told = |fault: &Fault| {
        let held = faults.iter().filter(|stop| fault.is_held_by(stop)).map(|stop| stop.until.min(fault.at + SILENCE));
        held.max().map_or(fault.told(), |held| fault.told().max(held + fault.notice()))
    };
    // What has lasted until it is lost ends with the first loss; for the others any loss excuses some time.
    let lost = match kind {
        Kind::Hold => lethal.iter().map(|fault| told(fault)).min(),
        _ => lethal.iter().map(|fault| told(fault)).max(),
    };
    let base = match (own.map(|own| start + own), lost) {
        (Some(own), Some(lost)) => own.max(lost),
        (Some(own), None) => own,
        // What is begun in a context that is being lost is told so as a call would be.
        (None, Some(lost)) => lost.max(start + CALL),
        (None, None) => return None,
    };
    // While a process on the way is stopped nothing passes, neither answer nor news.
    let passed = stops.iter().map(|fault| fault.until + own.unwrap_or(CALL)).max();
    Some(passed.map_or(base, |passed| passed.max(base)))
}

/// Why an operation may not end with this failure; `None` when it may.
pub(crate) fn objection(
    kind: Kind,
    target: &[u32],
    start: Instant,
    failure: &FailureKind,
    names_a_hop: bool,
    faults: &[Fault],
) -> Option<&'static str> {
    let lost = faults.iter().any(|fault| fault.is_lethal() && fault.concerns(kind, target, start));
    // Both are begun by a login of their own kind.
    let connects = matches!(kind, Kind::Connect | Kind::Function);
    match failure {
        FailureKind::PeerLost(LostReason::Violation(_)) | FailureKind::Malformed => Some("no member of this tree lies"),
        FailureKind::PeerLost(_) if !names_a_hop => Some("it does not name the hop that was lost"),
        FailureKind::PeerLost(_) | FailureKind::NoRoute if !lost => Some("nothing on its way was hit"),
        FailureKind::PeerLost(_) | FailureKind::NoRoute => None,
        // A context that ends starts nothing more, and says so.
        FailureKind::Cancelled if lost => None,
        FailureKind::Connect(_) | FailureKind::StageTimeout(_) if connects && lost => None,
        FailureKind::Connect(_) | FailureKind::StageTimeout(_) if connects => {
            Some("neither the new context nor the way to it was hit")
        }
        _ => Some("nothing here may end so"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(at: Instant, address: &[u32], part: Part, blow: Blow) -> Fault {
        Fault { at, until: at, address: address.to_vec(), part, blow, login: false, process: (1, 1) }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_hold_below_a_killed_agent_ends_in_three_times_a_quarter_of_a_second() {
        let start = Instant::now();
        let killed = start + seconds(5);
        let faults = [fault(killed, &[1], Part::Agent, Blow::Kill)];
        assert_eq!(due(Kind::Hold, &[1, 2], start, &faults), Some(killed + AGENT));
        assert_eq!(due(Kind::Hold, &[2], start, &faults), None);
        let both = [faults[0].clone(), fault(start + seconds(1), &[1], Part::Supervisor, Blow::Kill)];
        assert_eq!(due(Kind::Hold, &[1, 2], start, &both), Some(killed + AGENT), "the first loss of the two");
    }

    #[test]
    fn a_short_stop_excuses_time_and_no_loss() {
        let start = Instant::now();
        let stop = Fault { until: start + seconds(4), ..fault(start, &[1], Part::Agent, Blow::Stop) };
        assert_eq!(due(Kind::Call, &[1], start, std::slice::from_ref(&stop)), Some(start + seconds(4) + CALL));
        assert_eq!(due(Kind::Call, &[2], start, std::slice::from_ref(&stop)), Some(start + CALL));
        let lost = FailureKind::PeerLost(LostReason::Silent);
        assert!(objection(Kind::Call, &[1], start, &lost, true, std::slice::from_ref(&stop)).is_some());
        let long = Fault { until: start + seconds(20), ..stop };
        assert!(objection(Kind::Call, &[1], start, &lost, true, &[long]).is_none());
    }

    #[test]
    fn a_stopped_guard_holds_back_the_loss_of_its_agent_behind_a_login_alone() {
        let start = Instant::now();
        let stop = Fault { until: start + seconds(20), ..fault(start, &[1], Part::Supervisor, Blow::Stop) };
        let kill = fault(start + seconds(5), &[1], Part::Agent, Blow::Kill);
        let due_of = |kill: Fault, stop: Fault| due(Kind::Hold, &[1, 2], start, &[stop, kill]);
        let behind = Fault { login: true, ..kill.clone() };
        assert_eq!(due_of(kill.clone(), stop.clone()), Some(kill.at + AGENT));
        assert_eq!(due_of(behind.clone(), stop.clone()), Some(stop.until + CUT));
        let longer = Fault { until: start + seconds(60), ..stop.clone() };
        assert_eq!(due_of(behind.clone(), longer), Some(start + SILENCE), "the silence of the stop itself");
        let before = Fault { until: start + seconds(4), ..stop.clone() };
        let passed = Some(before.until + CALL).max(Some(kill.at + CUT));
        assert_eq!(due_of(behind.clone(), before), passed);
        let elsewhere = Fault { address: vec![3], ..stop };
        assert_eq!(due_of(behind, elsewhere), Some(kill.at + CUT));
    }

    #[test]
    fn the_loss_of_an_ssh_client_or_its_session_is_that_of_the_context_behind_it() {
        let start = Instant::now();
        let lost = FailureKind::PeerLost(LostReason::LinkEnd);
        for part in [Part::Client, Part::Session] {
            let faults = [Fault { login: true, ..fault(start + seconds(5), &[1, 2], part, Blow::Kill) }];
            let due_of = |target: &[u32]| due(Kind::Hold, target, start, &faults);
            assert_eq!(due_of(&[1, 2]), Some(faults[0].at + AGENT));
            assert_eq!(due_of(&[1, 2, 3]), Some(faults[0].at + AGENT));
            assert_eq!(due_of(&[1]), None, "whoever started the client goes on");
            assert!(objection(Kind::Hold, &[1, 2, 3], start, &lost, true, &faults).is_none());
            assert!(objection(Kind::Hold, &[1], start, &lost, true, &faults).is_some());
            let asked = [Fault { blow: Blow::Term, ..faults[0].clone() }];
            assert_eq!(due(Kind::Hold, &[1, 2], start, &asked), Some(asked[0].at + GONE));
            assert_eq!(faults[0].gone(1), faults[0].at + 2 * GONE);
            let stop = Fault { until: start + seconds(9), blow: Blow::Stop, ..faults[0].clone() };
            let stopped = std::slice::from_ref(&stop);
            assert!(objection(Kind::Call, &[1, 2], start, &lost, true, stopped).is_some(), "no silence yet");
            assert_eq!(due(Kind::Call, &[1, 2], start + seconds(5), stopped), Some(stop.until + CALL));
            let long = [Fault { until: stop.at + SILENT, ..stop }];
            assert!(objection(Kind::Call, &[1, 2], start, &lost, true, &long).is_none());
            assert_eq!(due(Kind::Hold, &[1, 2], start, &long), Some(long[0].at + SILENCE));
        }
    }

    #[test]
    fn news_waits_for_whoever_is_stopped_on_its_way_and_for_nobody_else() {
        let start = Instant::now();
        let kill = |address: &[u32], part| fault(start + seconds(5), address, part, Blow::Kill);
        let stop = |part| Fault { until: start + seconds(25), ..fault(start + seconds(5), &[1], part, Blow::Stop) };
        let is_late = |kill: &Fault, stop: &Fault| kill.is_held_by(stop);
        for part in [Part::Agent, Part::Supervisor, Part::Client, Part::Session] {
            let behind = kill(&[1, 2], part);
            assert!(is_late(&behind, &stop(Part::Agent)) && is_late(&behind, &stop(Part::Session)));
            assert!(is_late(&behind, &stop(Part::Client)) && !is_late(&behind, &stop(Part::Supervisor)));
            assert!(!is_late(&kill(&[2], part), &stop(Part::Client)), "another branch");
            assert!(!is_late(&kill(&[], part), &stop(Part::Agent)), "nearer than the stop");
        }
        let (agent, client, session) = (kill(&[1], Part::Agent), kill(&[1], Part::Client), kill(&[1], Part::Session));
        assert!(is_late(&agent, &stop(Part::Client)) && is_late(&agent, &stop(Part::Session)));
        assert!(is_late(&session, &stop(Part::Client)), "a client that is stopped does not end");
        assert!(!is_late(&client, &stop(Part::Session)) && !is_late(&client, &stop(Part::Agent)));
        let over = Fault { until: start + seconds(4), at: start, ..stop(Part::Client) };
        assert!(!is_late(&agent, &over));
        let later = Fault { at: agent.told() + seconds(1), ..stop(Part::Client) };
        assert!(!is_late(&agent, &later));
        let news = [agent.clone(), Fault { until: start + seconds(17), ..stop(Part::Client) }];
        assert_eq!(due(Kind::Hold, &[1], start, &news), Some(start + seconds(17) + AGENT));
    }

    #[test]
    fn a_function_may_fail_with_its_worker_and_the_next_is_served() {
        let start = Instant::now();
        let lost = FailureKind::PeerLost(LostReason::LinkEnd);
        let stage = FailureKind::Connect(offshoot::ConnectStage::Hello);
        for (part, bound) in [(Part::Worker, AGENT), (Part::Keeper, GONE)] {
            let faults = [fault(start + seconds(5), &[1, 7], part, Blow::Kill)];
            let excused =
                |kind, target: &[u32], since, failure| objection(kind, target, since, failure, true, &faults).is_none();
            assert!(excused(Kind::Function, &[1], start, &lost));
            assert!(excused(Kind::Function, &[1], start, &stage), "it was hit while it was started");
            assert!(excused(Kind::Function, &[1], faults[0].at + bound, &lost), "nobody knows yet");
            let later = faults[0].at + bound + Duration::from_millis(1);
            assert!(!excused(Kind::Function, &[1], later, &lost), "another worker serves the next");
            assert!(!excused(Kind::Function, &[2], start, &lost), "another's worker");
            assert!(!excused(Kind::Function, &[], start, &lost), "that of one further above");
            assert!(!excused(Kind::Call, &[1], start, &lost) && !excused(Kind::Work, &[1], start, &lost));
            assert!(!excused(Kind::Hold, &[1], start, &lost), "the context itself goes on");
            // One that stays is told of the end of its own worker, and of no other's.
            assert_eq!(due(Kind::Hold, &[1, 7], start, &faults), Some(faults[0].at + bound));
            assert_eq!(due(Kind::Hold, &[1, 8], start, &faults), None);
            assert_eq!(due(Kind::Function, &[1], start, &faults), Some(start + CONNECT + WORK));
        }
        let above = [fault(start, &[1], Part::Agent, Blow::Kill)];
        assert!(objection(Kind::Function, &[1], start + seconds(60), &lost, true, &above).is_none(), "lost for good");
        assert_eq!(due(Kind::Hold, &[1, 7], start, &above), Some(start + CALL), "with the context above it");
        let busy = objection(Kind::Function, &[1], start, &FailureKind::Timeout, true, &above);
        assert!(busy.is_some());
    }

    #[test]
    fn a_worker_that_is_stopped_for_a_while_excuses_time_alone() {
        let start = Instant::now();
        let stop = Fault { until: start + seconds(2), ..fault(start, &[1, 7], Part::Worker, Blow::Stop) };
        let lost = FailureKind::PeerLost(LostReason::Silent);
        let stopped = std::slice::from_ref(&stop);
        assert!(objection(Kind::Function, &[1], start, &lost, true, stopped).is_some());
        assert_eq!(due(Kind::Function, &[1], start, stopped), Some(stop.until + CONNECT + WORK));
        assert_eq!(due(Kind::Call, &[1], start, stopped), Some(start + CALL), "its agent answers all the same");
        let long = [Fault { until: start + SILENT, ..stop }];
        assert!(objection(Kind::Function, &[1], start, &lost, true, &long).is_none());
        assert!(objection(Kind::Function, &[1], start + SILENCE + seconds(1), &lost, true, &long).is_some());
    }

    #[test]
    fn a_failure_needs_a_fault_on_its_own_way() {
        let at = Instant::now();
        let faults = [fault(at, &[1, 2], Part::Agent, Blow::Kill), fault(at, &[3], Part::Below, Blow::Kill)];
        let lost = FailureKind::PeerLost(LostReason::LinkEnd);
        assert!(objection(Kind::Work, &[1, 2, 4], at, &lost, true, &faults).is_none());
        assert!(objection(Kind::Work, &[1, 2, 4], at, &lost, false, &faults).is_some());
        assert!(objection(Kind::Work, &[1], at, &lost, true, &faults).is_some());
        assert!(objection(Kind::Work, &[3], at, &FailureKind::NoRoute, true, &faults).is_some());
        let stage = FailureKind::Connect(offshoot::ConnectStage::Hello);
        assert!(objection(Kind::Connect, &[3], at, &stage, true, &faults).is_none());
        assert!(objection(Kind::Connect, &[4], at, &stage, true, &faults).is_some());
        assert!(objection(Kind::Call, &[3], at, &stage, true, &faults).is_some());
        assert!(objection(Kind::Work, &[1, 2], at, &FailureKind::Malformed, true, &faults).is_some());
        assert!(objection(Kind::Work, &[1, 2], at, &FailureKind::Busy, true, &faults).is_some());
    }

    #[test]
    fn the_end_of_a_subtree_waits_for_what_is_stopped_in_it() {
        let start = Instant::now();
        let stop = Fault { until: start + seconds(60), ..fault(start, &[1, 2], Part::Supervisor, Blow::Stop) };
        let due = due(Kind::Shutdown, &[1], start, &[stop]).unwrap();
        assert!(due >= start + SILENCE, "{:?}", due - start);
    }
}
