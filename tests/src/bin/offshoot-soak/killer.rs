//! The thread that kills, stops and continues processes of ours, and looks whether what was below them goes.

use std::time::{Duration, Instant};

use offshoot_tests::process::{Process, Signal};

use crate::judge::{Blow, Fault, Part};
use crate::nodes::{Victim, id, shown};
use crate::rng::Rng;
use crate::run::Run;
use crate::ssh;

/// The deepest context.
pub(crate) const DEEPEST: usize = 4;

/// How often the thread looks around.
const TICK: Duration = Duration::from_millis(10);

/// More than what is promised for one hop: shown in the report, with what was stopped at the time.
const SLOW: Duration = Duration::from_secs(2);

/// What was below a victim and must be gone.
struct Doomed {
    due: Instant,
    since: Instant,
    processes: Vec<Process>,
    what: String,
    address: Vec<u32>,
}

/// A process that is stopped until then.
struct Stopped {
    until: Instant,
    process: Process,
}

pub(crate) fn work(run: &Run<'_>, mut rng: Rng) {
    let mut next = Instant::now();
    let mut stopped: Vec<Stopped> = Vec::new();
    let mut doomed: Vec<Doomed> = Vec::new();
    while !run.is_over() || !stopped.is_empty() {
        std::thread::sleep(TICK);
        let now = Instant::now();
        stopped.retain(|one| {
            let over = now >= one.until || run.is_over();
            if over {
                one.process.signal(Signal::CONT);
                run.history.note(&format!("FAULT {} goes on", one.process.pid));
            }
            !over
        });
        doomed.retain_mut(|one| !is_settled(run, one));
        if now < next || run.is_over() {
            continue;
        }
        next = now + Duration::from_millis(rng.between(run.options.every.0, run.options.every.1));
        let below = ssh::below(run.options.login.as_ref());
        if let Some(victim) = run.nodes.victim(&mut rng, &below) {
            strike(run, &mut rng, victim, &below, &mut stopped, &mut doomed);
        }
    }
    // The last ones: all of them go with the tree at the latest.
    let patience = Instant::now() + Duration::from_secs(60);
    while !doomed.is_empty() && Instant::now() < patience {
        std::thread::sleep(TICK);
        doomed.retain_mut(|one| !is_settled(run, one));
    }
}

fn blow(rng: &mut Rng) -> (Blow, Signal) {
    match rng.between(0, 99) {
        0..=64 => (Blow::Kill, Signal::KILL),
        65..=74 => (Blow::Segv, Signal::SEGV),
        75..=79 => (Blow::Term, Signal::TERM),
        _ => (Blow::Stop, Signal::STOP),
    }
}

/// Of a list of processes those at and below some.
fn below(roots: &[i32], all: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = all.iter().filter(|process| roots.contains(&process.pid)).cloned().collect();
    let mut at = 0;
    while let Some(above) = found.get(at).map(|process| process.pid) {
        // Each once: a list that was read while it changed may hold a circle.
        let under = all.iter().filter(|process| process.parent == above && !found.contains(process));
        let under: Vec<Process> = under.cloned().collect();
        found.extend(under);
        at += 1;
    }
    found
}

fn strike(
    run: &Run<'_>,
    rng: &mut Rng,
    victim: Victim,
    all: &[Process],
    stopped: &mut Vec<Stopped>,
    doomed: &mut Vec<Doomed>,
) {
    let (blow, signal) = blow(rng);
    if stopped.iter().any(|one| one.process.pid == victim.process.pid) {
        return;
    }
    let now = Instant::now();
    let lasts = match blow {
        Blow::Stop if rng.chance(run.options.long_stops) => rng.between(18_000, 22_000),
        Blow::Stop => rng.between(20, 2500),
        _ => 0,
    };
    let until = now + Duration::from_millis(lasts);
    let Victim { address, part, process, root } = victim;
    // Behind ssh nothing descends from what is above it: each context below is a root of its own.
    // One that is being connected has none yet, and above it may be the root.
    let alone = matches!(part, Part::Below | Part::Worker | Part::Keeper);
    let behind = if alone { vec![process.pid] } else { run.nodes.roots(&address) };
    let below = below(&[vec![root], behind].concat(), all);
    let fault = Fault { at: now, until, address, part, blow, login: false, process: id(&process) };
    let fault = run.nodes.hit(fault);
    let (part, address) = (fault.part, fault.address.clone());
    if !process.signal(signal) {
        // It was gone before: what is noted excuses a little too much, and is no kill.
        return;
    }
    let what = format!("{blow:?} {part:?} of {}pid {} for {lasts} ms", shown(&address), process.pid);
    run.history.note(&format!("FAULT {what}"));
    run.counts.fault(blow);
    run.counts.victim(part);
    if blow == Blow::Stop {
        stopped.push(Stopped { until, process });
        return;
    }
    let near = |one: &&Stopped| below.iter().any(|process| process.pid == one.process.pid);
    let names: Vec<i32> = stopped.iter().filter(near).map(|one| one.process.pid).collect();
    let what = if names.is_empty() { what } else { format!("{what}, with {names:?} stopped") };
    // A guard that is stopped cleans up when it goes on, or is ended by the one above.
    let held = stopped.iter().filter(|one| below.iter().any(|process| process.pid == one.process.pid));
    let held = held.map(|one| one.until).max().unwrap_or(now).max(now);
    let hops = u32::try_from(DEEPEST - address.len().min(DEEPEST)).unwrap_or(0) + u32::from(part == Part::Below);
    let due = fault.gone(hops) + held.saturating_duration_since(now);
    doomed.push(Doomed { due, since: now, processes: below, what, address });
}

fn is_settled(run: &Run<'_>, one: &mut Doomed) -> bool {
    // As they are now: a finding that shows who was stopped then tells of another time.
    one.processes = one.processes.iter().filter_map(Process::refreshed).collect();
    if one.processes.is_empty() {
        let took = one.since.elapsed();
        run.counts.gone(took);
        if took > SLOW {
            run.counts.slow(&format!("{} ms until all was gone after {}", took.as_millis(), one.what));
        }
        return true;
    }
    if !run.is_late(Instant::now(), one.due, one.since) {
        return false;
    }
    let left: Vec<String> = one.processes.iter().map(ToString::to_string).collect();
    let late = one.since.elapsed();
    run.history
        .find(&shown(&one.address), &format!("{late:?} after {} there are:\n    {}", one.what, left.join("\n    ")));
    true
}
