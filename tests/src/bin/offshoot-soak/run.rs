//! One run: what its threads share, how an operation is judged, and the numbers at the end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use offshoot::{Error, Master};

use crate::effects::Effects;
use crate::history::History;
use crate::judge::{self, Blow, Kind, Part};
use crate::nodes::{Nodes, shown};
use crate::ssh::Login;

/// In how long a delay of this machine is noted after it is over.
const SEEN: Duration = Duration::from_millis(200);

/// How long before an operation a delay may have kept the news of a worker's loss from it.
const LATELY: Duration = Duration::from_secs(10);

/// The most slow things that the report names.
const SLOW: usize = 40;

/// How a run is to be.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    /// Milliseconds between two faults, from and to.
    pub(crate) every: (u64, u64),
    /// How many contexts there shall be, from and to.
    pub(crate) contexts: (u64, u64),
    /// How many percent of the stops last longer than a silence.
    pub(crate) long_stops: u64,
    /// Threads that do short things.
    pub(crate) threads: u64,
    /// How many percent of the connects go through ssh, where there is an sshd.
    pub(crate) ssh: u64,
    /// On how many levels a context is left alone by the killer.
    pub(crate) spared: usize,
    /// Where they log in.
    pub(crate) login: Option<Login>,
}

/// What the threads of a run share.
pub(crate) struct Run<'a> {
    pub(crate) options: Options,
    pub(crate) master: Master,
    pub(crate) nodes: Nodes,
    pub(crate) history: &'a History,
    pub(crate) effects: &'a Effects,
    pub(crate) counts: &'a Counts,
    pub(crate) over: AtomicBool,
    /// There is no image of this program for contexts behind ssh.
    pub(crate) without_image: AtomicBool,
    open: Mutex<BTreeMap<u64, (Instant, String)>>,
    next: AtomicU64,
}

/// An operation that has begun.
pub(crate) struct Begun {
    number: u64,
    kind: Kind,
    target: Vec<u32>,
    start: Instant,
}

impl Begun {
    /// The same, from now on as another kind of operation at another place.
    pub(crate) fn becomes(self, kind: Kind, target: &[u32]) -> Begun {
        Begun { kind, target: target.to_vec(), ..self }
    }
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        options: Options,
        master: Master,
        history: &'a History,
        effects: &'a Effects,
        counts: &'a Counts,
    ) -> Run<'a> {
        Run {
            options,
            master,
            nodes: Nodes::default(),
            history,
            effects,
            counts,
            over: AtomicBool::new(false),
            without_image: AtomicBool::new(false),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Notes that an operation begins; `target` is the context that is asked.
    pub(crate) fn begin(&self, kind: Kind, what: &str, target: &[u32]) -> Begun {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let line = format!("#{number} {what} at {}", shown(target));
        self.history.note(&format!("{line}begins"));
        let start = Instant::now();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, (start, line));
        Begun { number, kind, target: target.to_vec(), start }
    }

    /// How many operations have begun.
    pub(crate) fn operations(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Judges how it ended: in time, and when badly with a reason that is one.
    pub(crate) fn end(&self, begun: Begun, result: Result<&str, &Error>) {
        let now = Instant::now();
        let Begun { number, kind, target, start } = begun;
        let line = match self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number) {
            Some((_, line)) => line,
            None => {
                self.history.find(&shown(&target), &format!("operation {number} ended twice"));
                return;
            }
        };
        let faults = self.nodes.concerning(&target);
        let said = match result {
            Ok(what) => what.to_string(),
            Err(error) => format!("{:?} {:?}: {error}", error.kind(), error.ran()),
        };
        self.history.note(&format!("{line}after {} ms: {said}", now.saturating_duration_since(start).as_millis()));
        self.counts.operation(kind, result.is_ok());
        let about = shown(&target);
        match judge::due(kind, &target, start, &faults) {
            Some(due) if self.is_late(now, due, start) => {
                let by = now.saturating_duration_since(due);
                self.history.find(&about, &format!("{line}ended {by:?} after it was due: {said}"));
            }
            _ => {}
        }
        if kind == Kind::Hold
            && let Some(lost) = faults
                .iter()
                .filter(|fault| target.starts_with(&fault.address))
                .filter(|fault| fault.part != Part::Below && matches!(fault.blow, Blow::Kill | Blow::Segv))
                .map(|fault| fault.at)
                .min()
            && lost >= start
        {
            let after = now.saturating_duration_since(lost);
            self.counts.told(after);
            if after > Duration::from_secs(1) {
                let on_path = faults.iter().filter(|fault| target.starts_with(&fault.address) && fault.until >= start);
                let on_path: Vec<String> = on_path
                    .map(|fault| format!("{:?} {:?} of {}", fault.blow, fault.part, shown(&fault.address)))
                    .collect();
                self.counts.slow(&format!(
                    "{} ms until a hold at {}was told of {}; the machine was late by {} ms in all since then",
                    after.as_millis(),
                    shown(&target),
                    on_path.join(", "),
                    self.history.late_since(lost).as_millis()
                ));
            }
        }
        if let Err(error) = result {
            let objection =
                |start| judge::objection(kind, &target, start, error.kind(), error.lost_at().is_some(), &faults);
            // What befell a worker was to be known here before it began, but for a delay of this machine.
            let objection = objection(start).and_then(|_| {
                std::thread::sleep(SEEN);
                let shortly = start.checked_sub(LATELY).unwrap_or(start);
                objection(start.checked_sub(3 * self.history.late_since(shortly)).unwrap_or(start))
            });
            if let Some(why) = objection {
                self.history.find(&about, &format!("{line}failed, and {why}: {said}"));
            }
            use offshoot::FailureKind::{NoRoute, PeerLost};
            // A worker's loss is not that of its context; a worker is none of the contexts that are known.
            if matches!(error.kind(), NoRoute | PeerLost(_)) && !matches!(kind, Kind::Connect | Kind::Function) {
                self.nodes.forget(&target);
            }
        }
    }

    /// Whether what lasted from `since` to `now` was due before, a delay of this machine apart. Whoever measures those may wake up later than
    /// whoever suffered one, so it is waited for.
    pub(crate) fn is_late(&self, now: Instant, due: Instant, since: Instant) -> bool {
        let is_late = || now > due + 3 * self.history.late_since(since);
        is_late() && {
            std::thread::sleep(SEEN);
            is_late()
        }
    }

    /// Finds an operation that should have ended by now, though it has not.
    pub(crate) fn look_at(&self, begun: &Begun) {
        let faults = self.nodes.concerning(&begun.target);
        let due = judge::due(begun.kind, &begun.target, begun.start, &faults);
        if due.is_some_and(|due| self.is_late(Instant::now(), due, begun.start)) {
            self.history
                .find(&shown(&begun.target), &format!("operation #{} is under way after it was due", begun.number));
        }
    }

    /// As [`end`](Self::end), for one that has become another kind of operation then.
    pub(crate) fn end_since(&self, begun: Begun, kind: Kind, since: Instant, result: Result<&str, &Error>) {
        self.end(Begun { kind, start: since, ..begun }, result);
    }

    /// The operations that have lasted for that long, as they stand in the history.
    pub(crate) fn stuck(&self, limit: Duration) -> Vec<String> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values()
            .filter(|(start, _)| start.elapsed() > limit)
            .map(|(start, line)| format!("{line}since {:?}", start.elapsed()))
            .collect()
    }
}

/// The numbers of a run.
#[derive(Default)]
pub(crate) struct Counts {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    faults: BTreeMap<&'static str, u64>,
    victims: BTreeMap<&'static str, u64>,
    operations: BTreeMap<&'static str, [u64; 2]>,
    told: Times,
    gone: Times,
    slow: Vec<String>,
    bytes: u64,
    logins: u64,
    served: u64,
}

/// How often there was each time, in milliseconds: no more of them than there are bounds to, however long the run.
type Times = BTreeMap<u128, u64>;

impl Counts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fault(&self, blow: Blow) {
        let name = match blow {
            Blow::Kill => "killed",
            Blow::Segv => "segfaulted",
            Blow::Term => "terminated",
            Blow::Stop => "stopped",
            Blow::Shutdown => "shut down",
        };
        *self.lock().faults.entry(name).or_default() += 1;
    }

    /// What was hit, in any way.
    pub(crate) fn victim(&self, part: Part) {
        let name = match part {
            Part::Agent => "agents",
            Part::Supervisor => "supervisors",
            Part::Client => "ssh clients",
            Part::Session => "sessions of sshd",
            Part::Worker => "workers",
            Part::Keeper => "guards of workers",
            Part::Below => "in a connect",
        };
        *self.lock().victims.entry(name).or_default() += 1;
    }

    fn operation(&self, kind: Kind, well: bool) {
        let name = match kind {
            Kind::Call => "calls",
            Kind::Function => "functions",
            Kind::Work => "programs and streams",
            Kind::Hold => "holds",
            Kind::Connect => "connects",
            Kind::Shutdown => "shutdowns",
        };
        self.lock().operations.entry(name).or_default()[usize::from(!well)] += 1;
    }

    /// So many bytes of streams were compared.
    pub(crate) fn compared(&self, bytes: u64) {
        self.lock().bytes += bytes;
    }

    /// A context has served a function after one that had failed.
    pub(crate) fn served(&self) {
        self.lock().served += 1;
    }

    /// A context was connected through ssh.
    pub(crate) fn logged_in(&self) {
        self.lock().logins += 1;
    }

    fn told(&self, after: Duration) {
        *self.lock().told.entry(after.as_millis()).or_default() += 1;
    }

    /// All below a victim was gone after that.
    pub(crate) fn gone(&self, after: Duration) {
        *self.lock().gone.entry(after.as_millis()).or_default() += 1;
    }

    /// Within the bound, and slow all the same.
    pub(crate) fn slow(&self, what: &str) {
        let slow = &mut self.lock().slow;
        if slow.len() < SLOW {
            slow.push(what.to_string());
        }
    }

    /// How many processes were killed in any way.
    pub(crate) fn kills(&self) -> u64 {
        let inner = self.lock();
        ["killed", "segfaulted", "terminated"].iter().filter_map(|name| inner.faults.get(name)).sum()
    }

    /// The report, one fact a line.
    pub(crate) fn report(&self) -> String {
        let inner = self.lock();
        let mut text = String::new();
        let faults: Vec<String> = inner.faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let _ = writeln!(text, "faults      {}", faults.join(", "));
        let victims: Vec<String> = inner.victims.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let _ = writeln!(text, "victims     {}", victims.join(", "));
        for (name, [well, badly]) in &inner.operations {
            let _ = writeln!(text, "operations  {name}: {well} well, {badly} told of a loss");
        }
        let _ = writeln!(text, "logins      {} of the contexts were connected through ssh", inner.logins);
        let _ = writeln!(text, "functions   {} times the next was served when one had failed", inner.served);
        let _ = writeln!(text, "streams     {} KiB compared", inner.bytes / 1024);
        let told = percentiles(&inner.told);
        let _ = writeln!(text, "told        {told} after a kill above, those who waited for its end");
        let gone = percentiles(&inner.gone);
        let _ = writeln!(text, "gone        {gone} after a kill, all below it");
        for line in &inner.slow {
            let _ = writeln!(text, "slow        {line}");
        }
        text
    }
}

fn percentiles(times: &Times) -> String {
    let count: u64 = times.values().sum();
    let at = |percent: u64| {
        let mut before = 0;
        let mut reached = |times: u64| {
            before += times;
            before * 100 > count * percent || before == count
        };
        times.iter().find(|(_, many)| reached(**many)).map_or(0, |(time, _)| *time)
    };
    format!("p50 {} ms, p99 {} ms, most {} ms ({count})", at(50), at(99), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_times_one_by_one() {
        assert_eq!(percentiles(&Times::new()), "p50 0 ms, p99 0 ms, most 0 ms (0)");
        let times = Times::from([(1, 50), (7, 48), (20, 1), (900, 1)]);
        assert_eq!(percentiles(&times), "p50 7 ms, p99 900 ms, most 900 ms (100)");
        assert_eq!(percentiles(&Times::from([(5, 3)])), "p50 5 ms, p99 5 ms, most 5 ms (3)");
    }
}
