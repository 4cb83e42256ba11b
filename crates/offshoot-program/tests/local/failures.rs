//! Whatever of ours is killed or stopped: everything below it goes, and whoever waits is told.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use offshoot_mux::tree::{self, Proc};
use offshoot_node::{Context, Event, Process, Stdio};
use offshoot_program::Master;
use offshoot_wire::{FailureKind, LostReason, Ran};
use rustix::process::Signal;

use crate::{Check, NOT_RUN, builder, children, master, signal, within};

pub(crate) const CHECKS: &[Check] = &[
    ("an_agent_killed_takes_all_below_it_along_and_is_told_by_its_signal", || victim(false, Signal::KILL)),
    ("a_supervisor_killed_takes_all_below_it_along", || victim(true, Signal::KILL)),
    ("a_supervisor_asked_to_end_ends_all_below_it", || victim(true, Signal::TERM)),
    ("a_master_killed_leaves_nothing", master_killed),
    ("a_master_killed_takes_an_idle_tree_along_in_a_moment", idle_killed),
    ("a_master_killed_while_it_grows_leaves_nothing", growing),
    ("a_stopped_agent_is_noticed_and_removed", stopped),
    ("a_stopped_agent_is_gone_after_the_end", || stopped_at_the_end(true, false)),
    ("a_stopped_supervisor_is_gone_after_the_end", || stopped_at_the_end(false, true)),
    ("a_stopped_pair_of_guards_is_gone_after_the_end", || stopped_at_the_end(true, true)),
    ("whatever_is_stopped_while_a_context_comes_works_or_goes_is_gone_after_the_end", stopped_at_any_stage),
    ("a_program_that_ignores_term_is_gone_after_the_end", stubborn),
    ("a_second_end_hurries_the_first", hurried),
    ("a_context_that_ends_slowly_ends_at_once_when_its_parent_is_lost", orphaned_at_the_end),
    ("a_program_whose_output_nobody_reads_does_not_hold_the_end", unread_at_the_end),
    ("contexts_of_a_master_whose_children_are_reaped_by_somebody_else_are_over_all_the_same", unreaped),
    ("a_master_that_had_sigpipe_end_it_outlives_the_contexts_that_it_writes_to", piped),
];

/// Waits, prints, and leaves a plain child, one in a session of its own and a daemon.
const FAMILY: &str = "sleep 600 & setsid sleep 600 & (setsid sh -c 'sleep 600 & sleep 600' &); printf r; sleep 600";

pub(crate) fn family(context: &Context) -> Process {
    let mut process = context.command("sh").args(["-c", FAMILY]).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    process
}

pub(crate) fn grow(master: &Master, depth: usize) -> (Vec<Context>, Vec<Process>) {
    let mut chain = vec![master.local().connect().expect("a context")];
    while chain.len() < depth {
        let next = chain[chain.len() - 1].local().connect().expect("a context");
        chain.push(next);
    }
    let processes = chain.iter().map(family).collect();
    (chain, processes)
}

pub(crate) fn agent(context: &Context) -> Proc {
    Proc::of(context.hello().expect("a hello").pid).expect("an agent that lives")
}

pub(crate) fn supervisor(context: &Context) -> Proc {
    Proc::of(agent(context).ppid).expect("a supervisor that lives")
}

pub(crate) fn all_gone(processes: &[Proc], limit: Duration) {
    within(limit, "processes live on", || !processes.iter().any(Proc::lives));
}

/// Three times the promise: 2 s, and 2 s for each further hop.
fn promise(hops: usize) -> Duration {
    Duration::from_secs(2 + 2 * hops as u64) * 3
}

fn victim(guard: bool, with: Signal) {
    for depth in 0..3 {
        let master = master();
        let (chain, mut processes) = grow(&master, 3);
        let victim = if guard { supervisor(&chain[depth]) } else { agent(&chain[depth]) };
        let pending = chain[2].command("sleep").arg("600").spawn().expect("sleep");
        within(Duration::from_secs(5), "it does not run", || chain[2].info().expect("an answer").processes == 2);
        // Two processes for each context, seven for each family, and the one more stands for the first guard.
        let mut below = Vec::new();
        within(Duration::from_secs(5), "not all have started", || {
            below = tree::descendants(supervisor(&chain[depth]).pid);
            below.len() == 9 * (3 - depth)
        });
        below.push(supervisor(&chain[depth]));
        let start = Instant::now();
        signal(victim.pid, with);
        let ended = pending.wait();
        assert!(start.elapsed() < Duration::from_secs(3), "it was told after {:?}", start.elapsed());
        match ended {
            // An agent whose guard is gone ends orderly, and may have the time to tell.
            Ok(status) => assert!(guard && status.signal() == Some(15), "{status:?}"),
            Err(error) => {
                assert_eq!(error.ran(), Ran::MaybeExecuted, "{error}");
                let FailureKind::PeerLost(reason) = error.kind() else { panic!("{error}") };
                // The guard of the one that was killed tells how, to its parent.
                let killed = LostReason::Signalled(9);
                let told = *reason == killed || *reason == LostReason::LinkEnd || with == Signal::TERM;
                assert!(told, "expected {killed:?}: {error}");
            }
        }
        all_gone(&below, promise(2 - depth));
        for gone in &chain[depth..] {
            within(Duration::from_secs(3), "it has a route still", || {
                gone.ping().is_err_and(|error| *error.kind() == FailureKind::NoRoute)
            });
        }
        for alive in &chain[..depth] {
            alive.ping().expect("what is above goes on");
            assert!(agent(alive).lives());
        }
        processes.truncate(depth);
        drop(processes);
        drop(master);
        assert_eq!(children(), [], "depth {depth}");
    }
}

/// As programs are that somebody starts who ignores SIGCHLD.
fn unreaped() {
    let script = "$SIG{CHLD} = 'IGNORE'; exec @ARGV or die";
    let this = std::env::current_exe().expect("this program");
    let Ok(status) = Command::new("perl").args(["-e", script]).arg(this).arg("role:unreaped").status() else {
        return println!("{NOT_RUN}needs perl, to ignore a signal");
    };
    assert!(status.success(), "{status}");
}

/// Loses contexts whose ends the kernel reaps.
pub(crate) fn lose_unreaped() {
    const CHLD: u32 = 17;
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    assert!(u64::from_str_radix(ignored.trim(), 16).expect("a number") >> (CHLD - 1) & 1 == 1, "{status}");
    let master = master();
    for _ in 0..3 {
        let context = master.local().connect().expect("a context");
        signal(agent(&context).pid, Signal::KILL);
        within(Duration::from_secs(3), "it has a route still", || {
            context.ping().is_err_and(|error| *error.kind() == FailureKind::NoRoute)
        });
    }
    let last = master.local().connect().expect("a context");
    last.ping().expect("an answer");
    let start = Instant::now();
    drop((last, master));
    // Nothing has to be waited for.
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
}

fn piped() {
    // As a program has it that is to end silently before `| head`.
    offshoot_mux::reset_all_signals();
    let master = master();
    for _ in 0..5 {
        let context = master.local().connect().expect("a context");
        let fed = context.command("cat").stdin_from(std::io::repeat(b'x')).stdout(Stdio::Null).spawn().expect("cat");
        std::thread::sleep(Duration::from_millis(20));
        signal(agent(&context).pid, Signal::KILL);
        let error = fed.wait().expect_err("it is lost");
        assert!(matches!(error.kind(), FailureKind::PeerLost(_)), "{error}");
    }
}

pub(crate) fn role(name: &str, tag: &str) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this program"))
        .arg(name)
        .env(TAG, tag)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a process")
}

/// The mark of what a role started, in the environment.
const TAG: &str = "OFFSHOOT_LOCAL_TAG";

/// A master that grows a tree and waits to be killed.
pub(crate) fn wait_in_a_tree() {
    let master = master();
    let _tree = grow(&master, 3);
    println!("ready");
    std::thread::sleep(Duration::from_secs(600));
}

/// A master with twenty contexts three deep that waits to be killed.
pub(crate) fn wait_in_an_idle_tree() {
    let master = master();
    for branch in 0..2 {
        let above = master.local().connect().expect("a context");
        for _ in 0..3 {
            let middle = above.local().connect().expect("a context");
            (0..2).for_each(|_| drop(middle.local().connect().expect("a context")));
        }
        assert_eq!(above.address().path(), [branch]);
    }
    println!("ready");
    std::thread::sleep(Duration::from_secs(600));
}

/// A master that grows without end.
pub(crate) fn grow_without_end() {
    let master = master();
    println!("ready");
    let mut above = master.context().clone();
    loop {
        for context in above.connect_all(vec![offshoot_connect::methods::Local::new(); 3]) {
            let context = context.expect("a context");
            std::mem::forget(family(&context));
            above = context;
        }
    }
}

fn master_killed() {
    let tag = format!("killed-{}", std::process::id());
    let mut child = role("role:wait", &tag);
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its word");
    assert_eq!(line, "ready\n");
    let mut below = Vec::new();
    within(Duration::from_secs(5), "not all have started", || {
        below = tree::descendants(child.id());
        below.len() == 27
    });
    child.kill().expect("it lives");
    child.wait().expect("it ended");
    all_gone(&below, promise(2));
    assert_eq!(tree::with_env_tag(TAG, &tag), []);
}

fn idle_killed() {
    let tag = format!("idle-{}", std::process::id());
    let took = (0..5).map(|_| {
        let mut child = role("role:idle", &tag);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its word");
        let below = tree::descendants(child.id());
        assert_eq!(below.len(), 40);
        let start = Instant::now();
        child.kill().expect("it lives");
        child.wait().expect("it ended");
        while below.iter().any(Proc::lives) {
            assert!(start.elapsed() < promise(2), "processes live on");
            std::thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    });
    let took: Vec<Duration> = took.collect();
    // No wait for something that does not come is on the way: one of them alone would be longer than this.
    assert!(took.iter().min() < Some(&Duration::from_millis(150)), "{took:?}");
}

fn growing() {
    for round in 0..6_u64 {
        let tag = format!("growing-{}-{round}", std::process::id());
        let mut child = role("role:grow", &tag);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("its word");
        std::thread::sleep(Duration::from_millis(3 + 61 * round));
        child.kill().expect("it lives");
        child.wait().expect("it ended");
        within(promise(6), "processes live on", || tree::with_env_tag(TAG, &tag).is_empty());
    }
}

fn stopped() {
    let silence = Duration::from_millis(1500);
    let master = builder().heartbeat(Duration::from_millis(300), silence).build().expect("a master");
    let (chain, processes) = grow(&master, 2);
    let beside = master.local().connect().expect("a context");
    let mut below = tree::descendants(supervisor(&chain[0]).pid);
    below.push(supervisor(&chain[0]));
    let pending = chain[1].start_echo(b"before").expect("it is sent");
    assert_eq!(pending.wait().expect("an echo"), &b"before"[..]);
    let start = Instant::now();
    signal(agent(&chain[0]).pid, Signal::STOP);
    let error = chain[1].ping().expect_err("it is stopped");
    let took = start.elapsed();
    assert_eq!(*error.kind(), FailureKind::PeerLost(LostReason::Silent), "{error}");
    assert_eq!(error.ran(), Ran::MaybeExecuted, "{error}");
    assert!(took >= silence / 2 && took < silence * 3, "it was told after {took:?}");
    beside.ping().expect("its sibling goes on");
    // 7 s for the guards to end by themselves, then they are asked.
    all_gone(&below, Duration::from_secs(15));
    beside.ping().expect("its sibling goes on");
    drop(processes);
}

fn stopped_at_the_end(stop_agent: bool, stop_supervisor: bool) {
    for depth in 0..2 {
        let master = master();
        let (chain, processes) = grow(&master, 2);
        let below = children();
        let (agent, supervisor) = (agent(&chain[depth]), supervisor(&chain[depth]));
        if stop_agent {
            signal(agent.pid, Signal::STOP);
        }
        if stop_supervisor {
            signal(supervisor.pid, Signal::STOP);
        }
        let start = Instant::now();
        master.shutdown_with_grace(Duration::from_secs(1));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(3) * 3, "it took {took:?}");
        drop((chain, processes, master));
        all_gone(&below, Duration::from_secs(6));
    }
}

/// One process of a growing tree is stopped at a moment of its life, whichever it is by then, and the tree ended.
fn stopped_at_any_stage() {
    let silence = Duration::from_millis(1500);
    for round in 0..24_u32 {
        let master = builder().heartbeat(Duration::from_millis(300), silence).build().expect("a master");
        let above = master.local().connect().expect("a context");
        let (stage, moment) = (round % 3, Duration::from_millis(1) * (round / 3));
        let (mut stopped, mut start) = (None, Instant::now());
        std::thread::scope(|scope| {
            // What it answers depends on what was stopped; that it does is what counts.
            let working = scope.spawn(|| match stage {
                0 => drop(master.local().connect()),
                1 => drop(above.local().connect().and_then(|context| context.command("sleep").arg("600").output())),
                _ => drop(above.local().connect().and_then(|context| context.shutdown())),
            });
            // The second and third stage begin when the connect is done.
            std::thread::sleep(moment + if stage == 0 { Duration::ZERO } else { Duration::from_millis(4) });
            let below = children();
            // The youngest as often as not: a context that is just coming.
            let victim = below[below.len() - 1 - (round as usize / 2) % below.len()];
            let pid = rustix::process::Pid::from_raw(victim.pid as i32).expect("a process number");
            // It may just have ended.
            stopped = rustix::process::kill_process(pid, Signal::STOP).ok().map(|()| victim);
            start = Instant::now();
            master.shutdown_with_grace(Duration::from_millis(500));
            let took = start.elapsed();
            assert!(
                took < 3 * Duration::from_millis(2500),
                "round {round}: the end took {took:?}, {victim:?} of {below:?}"
            );
            working.join().expect("no panic");
            let took = start.elapsed();
            assert!(
                took < 3 * Duration::from_millis(2500),
                "round {round}: the wait took {took:?}, {victim:?} of {below:?}"
            );
        });
        drop((above, master));
        let left = || format!("round {round}: {stopped:?} was stopped, and {:?} live on", children());
        let limit = start + 3 * (silence + Duration::from_secs(2));
        while !children().is_empty() {
            assert!(Instant::now() < limit, "{}", left());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(stopped.is_none_or(|victim| !victim.lives()), "{}", left());
    }
}

fn stubborn() {
    let master = master();
    let context = master.local().connect().expect("a context").local().connect().expect("a context");
    let script = "trap '' TERM HUP INT; (trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 0.1; done\" &); printf r; while :; do sleep 0.1; done";
    let mut process = context.command("sh").args(["-c", script]).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    let start = Instant::now();
    master.shutdown_with_grace(Duration::from_millis(500));
    assert!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    assert_eq!(children(), []);
}

/// A program that takes no notice of a request to end.
fn deaf(context: &Context) -> Process {
    let script = "trap '' TERM; printf r; while :; do sleep 0.1; done";
    let mut process = context.command("sh").args(["-c", script]).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    process
}

fn hurried() {
    let master = master();
    let context = master.local().connect().expect("a context").local().connect().expect("a context");
    let process = deaf(&context);
    std::thread::scope(|scope| {
        let patient = scope.spawn(|| master.shutdown_with_grace(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!patient.is_finished(), "the grace was not given");
        let start = Instant::now();
        master.shutdown_with_grace(Duration::ZERO);
        assert!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    });
    assert_eq!(children(), []);
    drop(process);
}

fn orphaned_at_the_end() {
    let master = master();
    let above = master.local().connect().expect("a context");
    let context = above.local().connect().expect("a context");
    let process = deaf(&context);
    let mut below = tree::descendants(supervisor(&above).pid);
    below.push(supervisor(&above));
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| context.shutdown());
        std::thread::sleep(Duration::from_millis(300));
        assert!(!ending.is_finished(), "the grace was not given");
        let start = Instant::now();
        signal(agent(&above).pid, Signal::KILL);
        all_gone(&below, Duration::from_secs(4));
        assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
        ending.join().expect("no panic").expect("it is gone");
    });
    drop(process);
}

fn unread_at_the_end() {
    let master = master();
    let context = master.local().connect().expect("a context").local().connect().expect("a context");
    let process = context.command("cat").arg("/dev/zero").spawn().expect("cat");
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    context.shutdown().expect("it ends");
    // `cat` ends on TERM: the grace of 5 s does not pass.
    assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    drop(process);
}
