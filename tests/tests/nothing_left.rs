//! R7: when any one process of ours is killed, at any depth, everything below it is gone in the time that is promised.

use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_tests::expect::code;
use offshoot_tests::host::Watched;
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::tree::survivors;
use offshoot_tests::{Fleet, Offshoot, Peer, Running, Tag, Tree, host, or_not_run};

/// What a command can do to outlive its parents: a child, sessions of its own, a daemon by double fork, one with an empty environment, one that ignores
/// polite signals. Seven sleeps.
const LOAD: &str = "sleep 600 & setsid sleep 601 & (setsid sh -c 'sleep 602 & exec sleep 603' &) ; (env -i setsid sleep 604 </dev/null >/dev/null 2>&1 &) ; (trap '' TERM HUP INT; setsid sleep 605 &) ; echo up; exec sleep 606";
const SLEEPS: usize = 7;
const HOPS: usize = 3;
const UP: Duration = Duration::from_secs(40);

/// What is promised: two seconds, and two for each further hop below the one that was hit.
fn promise(hops_below: usize) -> Duration {
    Duration::from_secs(2 + 2 * hops_below as u64)
}

/// Started, with the whole load running everywhere.
fn loaded(running: &mut Running<'_>, tag: &Tag, targets: &[&str]) -> Tree {
    for target in targets {
        running.await_output(&format!("{target}: up"), UP);
    }
    let complete =
        || tag.processes().iter().filter(|process| process.comm == "sleep").count() == SLEEPS * targets.len();
    assert!(offshoot_tests::bounded::eventually(UP, complete), "the load does not run\n{}", running.report());
    running.await_agents(HOPS, UP)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Master,
    Agent(usize),
    Supervisor(usize),
    Ssh(usize),
}

impl Victim {
    fn find(self, running: &Running<'_>, tree: &Tree) -> Process {
        match self {
            Victim::Master => running.master(),
            Victim::Agent(hop) => tree.agents[hop - 1].clone(),
            Victim::Supervisor(hop) => tree.supervisors[hop - 1].clone(),
            Victim::Ssh(hop) => tree.ssh[hop - 1].clone(),
        }
    }

    /// The first hop, counted from 1, of which nothing may be left.
    fn hop(self) -> usize {
        match self {
            Victim::Master => 1,
            Victim::Agent(hop) | Victim::Supervisor(hop) | Victim::Ssh(hop) => hop,
        }
    }
}

/// Kills the victim, then asserts that all of `below` is gone within three times the promise; says how long it took.
#[track_caller]
fn kill_and_await(
    victim: Victim,
    process: &Process,
    signal: Signal,
    below: impl Fn() -> Vec<Process>,
    within: Duration,
) {
    assert!(process.signal(signal), "{victim:?} was gone before: {process}");
    let started = Instant::now();
    let mut left = below();
    while !left.is_empty() && started.elapsed() < within {
        std::thread::sleep(Duration::from_millis(10));
        left = below();
    }
    let report: Vec<String> = left.iter().map(ToString::to_string).collect();
    assert!(left.is_empty(), "{victim:?} was killed, and {within:?} later there are:\n{}", report.join("\n"));
    println!("{victim:?}: all below gone after {:?}", started.elapsed());
}

/// Ends what is left of a run whose middle was killed.
fn wind_up(mut running: Running<'_>, tag: &Tag, victim: Victim) {
    let lost_everything = victim != Victim::Master && victim.hop() == 1;
    if victim != Victim::Master && !lost_everything && running.is_running() {
        // Losses are reported at the end, so nothing shows whether this one has come to the master; once interrupted, it would not be one.
        std::thread::sleep(Duration::from_secs(1));
        running.master().signal(Signal::INT);
    }
    let done = running.finish_within(Duration::from_secs(21));
    assert!(!done.overdue, "{victim:?}: the master does not end\n{done}");
    if victim != Victim::Master {
        // The links were lost with a reason that names where.
        done.expect_harmless();
        assert!(done.err().contains("error: "), "{victim:?}: nothing was said of the loss\n{done}");
    }
    if lost_everything {
        done.expect_code(code::LINK_LOST);
    }
    tag.assert_nothing_left(3 * promise(HOPS - 1));
}

fn local_tree(victims: &[Victim]) {
    let tag = Tag::new("localtree");
    let targets = ["local", "local/local", "local/local/local"];
    for &victim in victims {
        let mut running = Offshoot::new(&tag, &["exec", &targets.join(","), "--", "sh", "-c", LOAD]).start();
        let tree = loaded(&mut running, &tag, &targets);
        let process = victim.find(&running, &tree);
        let supervisor = &tree.supervisors[victim.hop() - 1];
        // Everything at that hop and below descends from its supervisor, the daemons by adoption.
        let mut below = process::descendants(supervisor.pid);
        below.push(supervisor.clone());
        assert!(below.iter().filter(|process| process.comm == "sleep").count() >= SLEEPS, "{below:?}");
        let promised = promise(HOPS - victim.hop());
        kill_and_await(victim, &process, Signal::KILL, || survivors(&below, Duration::ZERO), 3 * promised);
        wind_up(running, &tag, victim);
    }
}

#[test]
fn nothing_is_left_when_the_master_of_a_local_tree_is_killed() {
    local_tree(&[Victim::Master]);
}

#[test]
fn nothing_is_left_below_any_agent_of_a_local_tree_that_is_killed() {
    local_tree(&[Victim::Agent(1), Victim::Agent(2), Victim::Agent(3)]);
}

#[test]
fn nothing_is_left_below_any_supervisor_of_a_local_tree_that_is_killed() {
    local_tree(&[Victim::Supervisor(1), Victim::Supervisor(2), Victim::Supervisor(3)]);
}

fn hosts(fleet: &Fleet, from_hop: usize) -> Vec<Arc<Watched>> {
    ["h1", "h2", "h3"][from_hop - 1..]
        .iter()
        .filter_map(|name| fleet.host(name))
        .map(|host| host.watched().clone())
        .collect()
}

const TARGETS: [&str; 3] = ["h1", "h1/h2", "h1/h2/h3"];

fn ssh_tree(name: &str, victims: &[Victim]) {
    or_not_run!(name, host::allowed());
    let tag = Tag::new("sshtree");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    for &victim in victims {
        let mut running = fleet.offshoot(&tag, &["exec", &TARGETS.join(","), "--", "sh", "-c", LOAD]).start();
        let tree = loaded(&mut running, &tag, &TARGETS);
        let process = victim.find(&running, &tree);
        let below = hosts(&fleet, victim.hop());
        let promised = promise(HOPS - victim.hop());
        // Each host has a pid namespace of its own: whatever lives in it, sshd's listener excepted, is ours to end.
        let alive = || {
            process::all()
                .into_iter()
                .filter(|process| process.is_live() && below.iter().any(|host| host.owns(process)))
                .collect()
        };
        kill_and_await(victim, &process, Signal::KILL, alive, 3 * promised);
        wind_up(running, &tag, victim);
    }
}

#[test]
fn nothing_is_left_on_any_host_when_the_master_is_killed() {
    ssh_tree("nothing_is_left_on_any_host_when_the_master_is_killed", &[Victim::Master]);
}

/// Kills the master of a chain of three hosts after each of some times, and says how many agents there were.
#[track_caller]
fn kill_after(fleet: &Fleet, tag: &Tag, after: Option<Duration>, interrupted: Option<Duration>) -> usize {
    let mut running = fleet.offshoot(tag, &["exec", "h1/h2/h3", "--", "sh", "-c", LOAD]).start();
    let master = running.master();
    match after {
        Some(after) => std::thread::sleep(after),
        None => running.await_output("up", UP),
    }
    if let Some(interrupted) = interrupted {
        master.signal(Signal::INT);
        std::thread::sleep(interrupted);
    }
    let agents = running.tree().agents.len();
    let alive = master.signal(Signal::KILL);
    assert!(!running.finish_within(Duration::from_secs(10)).overdue);
    let took = tag.assert_nothing_left(3 * promise(HOPS - 1));
    let at = format!("after {after:?}, interrupted {interrupted:?} before");
    println!("{at}: killed {alive} with {agents} agents, all gone after {took:?}");
    agents
}

#[test]
fn nothing_is_left_on_any_host_at_whichever_stage_the_master_is_killed() {
    let name = "nothing_is_left_on_any_host_at_whichever_stage_the_master_is_killed";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("stages");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    // What is built first is no part of it.
    fleet.offshoot(&tag, &["exec", "h1", "--", "true"]).run().expect_code(0);
    let began = Instant::now();
    assert_eq!(kill_after(&fleet, &tag, None, None), HOPS);
    // The logins one behind the other, and the start of the program: all of it lies in this time.
    let up = began.elapsed().min(Duration::from_secs(10));
    let mut seen: Vec<usize> =
        (0..=12).map(|twelfth| kill_after(&fleet, &tag, Some(up * twelfth / 12), None)).collect();
    assert_eq!(seen[0], 0, "agents before anything was started");
    seen.sort_unstable();
    seen.dedup();
    println!("killed with these numbers of agents: {seen:?}");
    // And in the end of the tree.
    for milliseconds in [0, 5, 50, 200, 1000] {
        kill_after(&fleet, &tag, None, Some(Duration::from_millis(milliseconds)));
    }
}

#[test]
fn nothing_is_left_on_the_hosts_below_an_agent_that_is_killed() {
    ssh_tree(
        "nothing_is_left_on_the_hosts_below_an_agent_that_is_killed",
        &[Victim::Agent(1), Victim::Agent(2), Victim::Agent(3)],
    );
}

#[test]
fn nothing_is_left_on_the_hosts_below_a_supervisor_that_is_killed() {
    ssh_tree(
        "nothing_is_left_on_the_hosts_below_a_supervisor_that_is_killed",
        &[Victim::Supervisor(1), Victim::Supervisor(2), Victim::Supervisor(3)],
    );
}

#[test]
fn nothing_is_left_on_the_hosts_below_an_ssh_client_that_is_killed() {
    ssh_tree(
        "nothing_is_left_on_the_hosts_below_an_ssh_client_that_is_killed",
        &[Victim::Ssh(1), Victim::Ssh(2), Victim::Ssh(3)],
    );
}

#[test]
fn a_stopped_agent_is_killed_at_shutdown_with_all_that_is_below_it() {
    let tag = Tag::new("stopped");
    let targets = ["local", "local/local", "local/local/local"];
    for stop_supervisor in [false, true] {
        let mut running = Offshoot::new(&tag, &["exec", &targets.join(","), "--", "sh", "-c", LOAD]).start();
        let tree = loaded(&mut running, &tag, &targets);
        assert!(tree.agents[1].signal(Signal::STOP));
        if stop_supervisor {
            assert!(tree.supervisors[1].signal(Signal::STOP));
        }
        running.master().signal(Signal::INT);
        // Seven seconds are promised for Ctrl-C; what is behind a stopped agent learns by the silence of 15 s at worst.
        let done = running.finish_within(Duration::from_secs(21));
        assert!(!done.overdue, "{done}");
        let took = tag.assert_nothing_left(Duration::from_secs(3 * 17));
        println!("a stopped agent (supervisor too: {stop_supervisor}): all gone {took:?} after the master");
    }
}

#[test]
fn a_stopped_agent_on_a_host_is_killed_at_shutdown_with_all_that_is_below_it() {
    let name = "a_stopped_agent_on_a_host_is_killed_at_shutdown_with_all_that_is_below_it";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("sshstopped");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    let mut running = fleet.offshoot(&tag, &["exec", &TARGETS.join(","), "--", "sh", "-c", LOAD]).start();
    let tree = loaded(&mut running, &tag, &TARGETS);
    assert!(tree.agents[1].signal(Signal::STOP));
    running.master().signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(21));
    assert!(!done.overdue, "{done}");
    let took = tag.assert_nothing_left(Duration::from_secs(3 * 17));
    println!("a stopped agent on h2: all gone {took:?} after the master");
}

#[test]
fn a_stopped_agent_is_noticed_by_both_neighbours() {
    let tag = Tag::new("silent");
    let targets = ["local", "local/local", "local/local/local"];
    let mut running = Offshoot::new(&tag, &["exec", &targets.join(","), "--", "sh", "-c", LOAD]).start();
    let tree = loaded(&mut running, &tag, &targets);
    let mut below = process::descendants(tree.supervisors[1].pid);
    below.push(tree.supervisors[1].clone());
    // 15 s until it is noticed; the far side is gone by 17 s.
    kill_and_await(
        Victim::Agent(2),
        &tree.agents[1],
        Signal::STOP,
        || survivors(&below, Duration::ZERO),
        3 * Duration::from_secs(17),
    );
    wind_up(running, &tag, Victim::Agent(2));
}

#[test]
fn a_link_that_is_cut_is_noticed_and_the_far_side_ends_by_itself() {
    let name = "a_link_that_is_cut_is_noticed_and_the_far_side_ends_by_itself";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("cut");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    let mut relay = fleet.relay("h2", "far", Duration::ZERO).unwrap();
    let targets = ["h1", "h1/far", "h1/far/h3"];
    let mut running = fleet.offshoot(&tag, &["exec", &targets.join(","), "--", "sh", "-c", LOAD]).start();
    loaded(&mut running, &tag, &targets);
    relay.cut();
    let cut = Instant::now();
    let far = hosts(&fleet, 2);
    // sshd itself knows nothing of the cut and stays: what must go is everything of ours and of the user's.
    let alive = || -> Vec<Process> {
        process::all()
            .into_iter()
            .filter(|process| {
                process.is_live() && !process.comm.starts_with("sshd") && far.iter().any(|host| host.owns(process))
            })
            .collect()
    };
    assert!(
        offshoot_tests::bounded::eventually(3 * Duration::from_secs(17), || alive().is_empty()),
        "the far side lives: {:?}",
        alive()
    );
    println!("cut link: the far side is gone after {:?}", cut.elapsed());
    running.master().signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(21));
    assert!(!done.overdue && done.err().contains("far"), "{done}");
    drop(relay);
    tag.assert_nothing_left(3 * promise(HOPS - 1));
}

#[test]
fn no_file_is_left_by_killing_during_the_connect() {
    let name = "no_file_is_left_by_killing_during_the_connect";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("midway");
    // No interpreter: the loader goes through a file.
    let fleet = or_not_run!(
        name,
        Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2").profile(host::Profile::NoInterpreters)])
    );
    for milliseconds in [50, 150, 250, 350, 450, 600, 800, 1100] {
        let running = fleet.offshoot(&tag, &["exec", "h1/h2", "--", "sleep", "600"]).start();
        let master = running.master();
        std::thread::sleep(Duration::from_millis(milliseconds));
        master.signal(Signal::KILL);
        assert!(!running.finish_within(Duration::from_secs(10)).overdue);
        tag.assert_nothing_left(3 * promise(1));
    }
}
