//! What is stopped is noticed, by whoever is above and below it, and by its guard alone when nobody else can.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use offshoot_mux::tree::{self, Proc};
use offshoot_node::Context;
use offshoot_program::Master;
use offshoot_wire::{FailureKind, LostReason, Ran};
use rustix::process::Signal;

use crate::failures::{agent, all_gone, grow, role, supervisor};
use crate::{Check, builder, children, signal, within};

pub(crate) const CHECKS: &[Check] = &[
    ("an_agent_stopped_at_any_depth_is_noticed_by_both_neighbours", agents),
    ("a_guard_stopped_at_any_depth_disturbs_nothing_and_goes_at_the_end", guards),
    ("a_pair_of_guards_stopped_at_any_depth_is_noticed_by_both_neighbours", pairs),
    ("a_stopped_master_is_noticed_and_everything_below_it_goes", stopped_master),
    ("an_agent_that_nobody_above_can_end_is_ended_by_its_guard", || unreachable(false)),
    ("a_pair_of_guards_stopped_that_nobody_above_can_end_ends_itself", || unreachable(true)),
    ("an_agent_stopped_whose_guard_is_killed_goes_with_all_below_it", stopped_and_alone),
    ("a_master_and_its_agents_killed_together_leave_nothing", together),
    ("silence_is_noticed_in_fifteen_seconds_by_default", defaults),
    ("the_end_comes_in_its_time_whatever_is_stopped_below", ends_in_time),
    ("calls_below_a_killed_context_end_within_a_quarter_of_a_second_and_name_it", killed),
    ("a_call_that_races_with_a_disconnect_ends_once_and_says_truly_whether_it_ran", races),
];

const SILENCE: Duration = Duration::from_millis(1500);

/// What ends what was found to be silent: two seconds more.
const ENDED: Duration = Duration::from_secs(2);

fn master() -> Master {
    builder().heartbeat(SILENCE / 5, SILENCE).build().expect("a master")
}

/// Stops something at each depth of a tree three deep while a context beside it is called.
fn stop_each(stop: impl Fn(&Context)) {
    for depth in 0..3 {
        let master = master();
        let (chain, processes) = grow(&master, 3);
        let beside = master.local().connect().expect("a context");
        let mut below = tree::descendants(supervisor(&chain[depth]).pid);
        below.push(supervisor(&chain[depth]));
        let start = Instant::now();
        stop(&chain[depth]);
        let (error, slowest) = std::thread::scope(|scope| {
            let call = scope.spawn(|| chain[2].ping().expect_err("it is stopped"));
            let mut slowest = Duration::ZERO;
            while !call.is_finished() {
                slowest = slowest.max(beside.ping().expect("the one beside it goes on"));
                std::thread::sleep(Duration::from_millis(1));
            }
            (call.join().expect("no panic"), slowest)
        });
        let took = start.elapsed();
        assert_eq!(
            (error.kind(), error.ran()),
            (&FailureKind::PeerLost(LostReason::Silent), Ran::MaybeExecuted),
            "{error}"
        );
        assert_eq!(error.lost_at().as_deref(), Some(chain[depth].path()), "{error}");
        assert!(took >= SILENCE / 2 && took < SILENCE * 3, "depth {depth}: it was told after {took:?}");
        assert!(slowest < Duration::from_secs(1), "depth {depth}: the one beside it answered after {slowest:?}");
        all_gone(&below, (SILENCE + ENDED) * 3);
        println!("depth {depth}: told after {took:?}, gone after {:?}", start.elapsed());
        for above in &chain[..depth] {
            above.ping().expect("those above it go on");
        }
        drop((processes, beside, master));
        assert_eq!(children(), [], "depth {depth}");
    }
}

fn agents() {
    stop_each(|context| signal(agent(context).pid, Signal::STOP));
}

fn pairs() {
    stop_each(|context| {
        let guard = supervisor(context);
        signal(agent(context).pid, Signal::STOP);
        signal(guard.pid, Signal::STOP);
    });
}

fn guards() {
    for depth in 0..3 {
        let master = master();
        let (chain, processes) = grow(&master, 3);
        let guard = supervisor(&chain[depth]);
        signal(guard.pid, Signal::STOP);
        let start = Instant::now();
        while start.elapsed() < SILENCE * 2 {
            chain[2].ping().expect("the link is not the guard's");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Continued, it finds the signs of life that came meanwhile.
        if depth == 1 {
            signal(guard.pid, Signal::CONT);
            std::thread::sleep(SILENCE);
            chain[2].ping().expect("its guard knows that it lives");
            signal(guard.pid, Signal::STOP);
        }
        let start = Instant::now();
        chain[depth].shutdown().expect("it ends");
        // Its agent wakes it: nobody has to wait for it.
        within(Duration::from_secs(3), "the guard stands", || !guard.lives());
        assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
        drop((processes, master));
        assert_eq!(children(), [], "depth {depth}");
    }
}

/// A process that plays a master with signs of life as short as here.
pub(crate) fn wait_with_short_silence() {
    let master = master();
    let tree = grow(&master, 3);
    println!("{}", tree.0.iter().map(|context| agent(context).pid.to_string()).collect::<Vec<_>>().join(" "));
    // Until it is lost; its own silence is noticed by those below.
    while tree.0[2].ping().is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn played(tag: &str) -> (std::process::Child, Vec<Proc>, Vec<Proc>) {
    let mut child = role("role:silent", tag);
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its word");
    let agents = line.split_whitespace().map(|pid| Proc::of(pid.parse().expect("a number")).expect("an agent"));
    let agents: Vec<Proc> = agents.collect();
    assert_eq!(agents.len(), 3, "{line}");
    let mut below = Vec::new();
    within(Duration::from_secs(5), "not all have started", || {
        below = tree::descendants(child.id());
        below.len() == 27
    });
    (child, agents, below)
}

fn stopped_master() {
    let (mut child, _, below) = played(&format!("stopped-{}", std::process::id()));
    signal(child.id(), Signal::STOP);
    let start = Instant::now();
    // The one hop notices; 2 s and 2 s for each further one.
    all_gone(&below, (SILENCE + ENDED * 3) * 3);
    assert!(start.elapsed() >= SILENCE / 2, "a moment's pause was too much: {:?}", start.elapsed());
    println!("all gone after {:?}", start.elapsed());
    signal(child.id(), Signal::CONT);
    within(Duration::from_secs(21), "the master does not end", || child.try_wait().expect("a child").is_some());
}

/// What must go at some depth when nobody above acts, with the guard stopped as well or not.
fn unreachable(pair: bool) {
    for depth in 0..3 {
        let (mut child, agents, below) = played(&format!("watched-{}-{pair}-{depth}", std::process::id()));
        let guard = Proc::of(agents[depth].ppid).expect("a guard");
        // Whoever is above hears nothing and does nothing.
        let above = if depth == 0 { child.id() } else { agents[depth - 1].pid };
        let above_guard = (depth > 0).then(|| agents[depth - 1].ppid);
        let theirs: Vec<Proc> = tree::descendants(guard.pid).into_iter().chain([guard]).collect();
        // The guard first: it would see its agent's state.
        let both = pair.then_some(guard.pid);
        for pid in [Some(above), above_guard, both, Some(agents[depth].pid)].into_iter().flatten() {
            signal(pid, Signal::STOP);
        }
        let start = Instant::now();
        all_gone(&theirs, (SILENCE + ENDED) * 3);
        assert!(start.elapsed() >= SILENCE / 2, "a moment's pause was too much: {:?}", start.elapsed());
        println!("depth {depth}: gone after {:?}", start.elapsed());
        for pid in [Some(above), above_guard].into_iter().flatten().filter(|pid| Proc::of(*pid).is_some()) {
            let _ =
                rustix::process::Pid::from_raw(pid as i32).map(|pid| rustix::process::kill_process(pid, Signal::CONT));
        }
        within(Duration::from_secs(21), "the master does not end", || child.try_wait().expect("a child").is_some());
        all_gone(&below, Duration::from_secs(18));
    }
}

fn stopped_and_alone() {
    for depth in 0..3 {
        // With the signs of life of every tree: nothing that waits for one may take part.
        let master = crate::master();
        let (chain, processes) = grow(&master, 3);
        let (agent, guard) = (agent(&chain[depth]), supervisor(&chain[depth]));
        let mut below = Vec::new();
        within(Duration::from_secs(5), "not all have started", || {
            below = tree::descendants(guard.pid);
            below.len() == 9 * (3 - depth) - 1
        });
        below.push(guard);
        signal(agent.pid, Signal::STOP);
        within(Duration::from_secs(2), "it is not stopped", || Proc::of(agent.pid).is_some_and(|now| now.state == 'T'));
        let start = Instant::now();
        signal(guard.pid, Signal::KILL);
        all_gone(&below, ENDED * (3 - depth as u32) * 3);
        println!("depth {depth}: gone after {:?}", start.elapsed());
        drop((processes, master));
        assert_eq!(children(), [], "depth {depth}");
    }
}

fn together() {
    for depth in 0..3 {
        let (mut child, agents, below) = played(&format!("together-{}-{depth}", std::process::id()));
        // The guards have nobody left to tell anything to.
        child.kill().expect("it lives");
        for agent in &agents[..=depth] {
            let _ = rustix::process::Pid::from_raw(agent.pid as i32)
                .map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        }
        child.wait().expect("it ended");
        all_gone(&below, (ENDED * 3) * 3);
    }
}

fn defaults() {
    let master = crate::master();
    let (chain, processes) = grow(&master, 2);
    let mut below = tree::descendants(supervisor(&chain[0]).pid);
    below.push(supervisor(&chain[0]));
    let start = Instant::now();
    signal(agent(&chain[0]).pid, Signal::STOP);
    let error = chain[1].ping().expect_err("it is stopped");
    let took = start.elapsed();
    assert_eq!(*error.kind(), FailureKind::PeerLost(LostReason::Silent), "{error}");
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(15) * 3, "it was told after {took:?}");
    all_gone(&below, Duration::from_secs(17) * 3);
    println!("told after {took:?}, gone after {:?}", start.elapsed());
    drop(processes);
}

fn ends_in_time() {
    let grace = Duration::from_millis(500);
    for stopped in 1..8_u8 {
        // Each set of the three agents, and their guards every other time.
        let master = master();
        let (chain, processes) = grow(&master, 3);
        for depth in (0..3).filter(|depth| stopped & 1 << depth != 0) {
            let guard = supervisor(&chain[depth]);
            signal(agent(&chain[depth]).pid, Signal::STOP);
            if stopped % 2 == 0 {
                signal(guard.pid, Signal::STOP);
            }
        }
        let below = children();
        let start = Instant::now();
        master.shutdown_with_grace(grace);
        let took = start.elapsed();
        assert!(took < (grace + ENDED) * 3, "set {stopped}: it took {took:?}");
        all_gone(&below, (SILENCE + ENDED) * 3);
        println!("set {stopped}: ended in {took:?}, gone after {:?}", start.elapsed());
        drop((chain, processes, master));
    }
}

fn killed() {
    const PROMISE: Duration = Duration::from_millis(250);
    for depth in 0..3 {
        let master = master();
        let (chain, processes) = grow(&master, 3);
        let calls: Vec<_> = (depth..3)
            .flat_map(|at| [&chain[at]; 10])
            .map(|context| context.command("sleep").arg("600").spawn().expect("it is asked"))
            .collect();
        within(Duration::from_secs(10), "they do not run", || {
            chain[depth..].iter().all(|context| context.info().expect("an answer").processes == 11)
        });
        let start = Instant::now();
        signal(agent(&chain[depth]).pid, Signal::KILL);
        for call in calls {
            let error = call.wait().expect_err("it was killed");
            let FailureKind::PeerLost(_) = error.kind() else { panic!("{error}") };
            assert_eq!(error.ran(), Ran::MaybeExecuted, "{error}");
            assert_eq!(error.lost_at().as_deref(), Some(chain[depth].path()), "{error}");
        }
        let took = start.elapsed();
        println!("depth {depth}: all told after {took:?}");
        assert!(took < PROMISE * 3, "depth {depth}: the last was told after {took:?}");
        drop((processes, master));
    }
}

fn races() {
    let folder = std::env::temp_dir().join(format!("offshoot-races-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let master = master();
    let (mut unsent, mut maybe, mut ran) = (0, 0, 0);
    for round in 0..24_u64 {
        let near = master.local().connect().expect("a context");
        let far = near.local().connect().expect("a context");
        let victim = if round % 2 == 0 { agent(&near) } else { agent(&far) };
        let results: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..6)
                .map(|thread| {
                    let (far, folder) = (&far, &folder);
                    scope.spawn(move || {
                        (0..12)
                            .map(|call| {
                                let file = folder.join(format!("{round}-{thread}-{call}"));
                                let script = format!("echo x >> {}", file.display());
                                let asked = Instant::now();
                                let result = far.command("sh").args(["-c", &script]).status();
                                assert!(asked.elapsed() < SILENCE * 3, "a call ended after {:?}", asked.elapsed());
                                (file, result)
                            })
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(1 + round * 2));
            signal(victim.pid, Signal::KILL);
            calls.into_iter().flat_map(|call| call.join().expect("no panic")).collect()
        });
        // Lost already when it was the one that was killed.
        let _ = near.shutdown();
        within(Duration::from_secs(6), "something runs on", || children().is_empty());
        for (file, result) in results {
            let times = std::fs::read(&file).map_or(0, |text| text.len() / 2);
            match result {
                Ok(status) => {
                    assert!(times == 1 || !status.success(), "{times} times, and said to have run: {status:?}");
                    ran += 1;
                }
                Err(error) if error.ran() == Ran::NotSent => {
                    assert_eq!(times, 0, "{error}");
                    unsent += 1;
                }
                Err(error) => {
                    assert!(times <= 1 && error.ran() == Ran::MaybeExecuted, "{times} times: {error}");
                    maybe += 1;
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).expect("the folder");
    println!("{ran} ran, {maybe} may have, {unsent} were not sent");
    assert!(ran > 0 && maybe > 0 && unsent > 0, "no race: {ran} {maybe} {unsent}");
}
