//! Links over ssh that fail, and the command's own end while something is stopped or cut off. What it does with links of
//! its own making is tested beside the library; here are real connections, with the defaults of 5 s and 15 s.

use std::time::{Duration, Instant};

use offshoot_tests::bounded::eventually;
use offshoot_tests::expect::code;
use offshoot_tests::meter::{Harm, Setting};
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::servers::Server;
use offshoot_tests::{Finished, Fleet, Offshoot, Peer, Running, Tag, bed, host, or_not_run, product};

/// When silence is noticed, and when the far side has gone.
const SILENT: Duration = Duration::from_secs(15);
const FAR: Duration = Duration::from_secs(17);
/// When Ctrl-C has ended everything.
const INTERRUPTED: Duration = Duration::from_secs(7);

/// When a loss is told: the promised 250 ms, a part of which the link is still read behind a login.
const TOLD: Duration = Duration::from_millis(250);

/// When nothing is left below a link that ended.
const ENDS: Duration = Duration::from_secs(2);

const UP: Duration = Duration::from_secs(40);

/// A line ten times a second, and something beside it that is not easily ended.
const TICKING: &str = "(trap '' TERM HUP; setsid sleep 600 &) ; while :; do echo tick; sleep 0.1; done";

/// When each line of a target came, by looking often.
fn longest_pause(running: &Running<'_>, target: &str, mut until: impl FnMut() -> bool, most: Duration) -> Duration {
    let start = Instant::now();
    let (mut before, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
    while !until() && start.elapsed() < most {
        let lines = running.output_so_far().lines().filter(|line| line.starts_with(&format!("{target}:"))).count();
        if lines != before {
            (before, since) = (lines, Instant::now());
        }
        longest = longest.max(since.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    longest
}

/// What lives on hosts but sshd, which is told nothing of a cut.
fn alive_on(fleet: &Fleet, names: &[&str]) -> Vec<Process> {
    of_hosts(fleet, names, &process::all())
}

fn of_hosts(fleet: &Fleet, names: &[&str], all: &[Process]) -> Vec<Process> {
    let hosts: Vec<_> = names.iter().filter_map(|name| fleet.host(name)).map(|host| host.watched().clone()).collect();
    let alive = all.iter().filter(|process| process.is_live() && !process.comm.starts_with("sshd"));
    alive.filter(|process| hosts.iter().any(|host| host.owns(process))).cloned().collect()
}

#[track_caller]
fn interrupted(running: Running<'_>) -> Finished {
    running.master().signal(Signal::INT);
    let done = running.finish_within(INTERRUPTED * 3);
    assert!(!done.overdue, "{done}");
    done.expect_harmless();
    done
}

#[test]
fn a_host_that_the_network_loses_is_lost_at_both_ends_in_time_and_no_other_is_disturbed() {
    let name = "a_host_that_the_network_loses_is_lost_at_both_ends_in_time_and_no_other_is_disturbed";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("cutoff");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    let targets = ["h1", "h2", "h2/h3"];
    let mut running = fleet.offshoot(&tag, &["exec", &targets.join(","), "--", "sh", "-c", TICKING]).start();
    for target in targets {
        running.await_output(&format!("{target}: tick"), UP);
    }
    assert!(!alive_on(&fleet, &["h2"]).is_empty() && !alive_on(&fleet, &["h3"]).is_empty());
    or_not_run!(name, fleet.cut_off("h2"));
    let start = Instant::now();
    let mut told = None;
    let looked = || {
        let lost = running.errors_so_far().matches("ssh:h2 was lost: nothing was heard from it any more").count();
        told = told.or((lost == 2).then(|| start.elapsed()));
        told.is_some() && alive_on(&fleet, &["h2", "h3"]).is_empty()
    };
    let pause = longest_pause(&running, "h1", looked, FAR * 3);
    // Of both behind it, by the name of the host that was lost, while the command goes on.
    let told = told.unwrap_or_else(|| panic!("it was not told\n{}", running.report()));
    println!("it was told after {told:?}");
    assert!(told > SILENT / 2 && told < SILENT * 3, "it was told after {told:?}");
    let left = alive_on(&fleet, &["h2", "h3"]);
    assert!(left.is_empty(), "{:?} after the cut there are {left:?}", start.elapsed());
    println!("the far side is gone after {:?}; the longest pause of the other host {pause:?}", start.elapsed());
    assert!(start.elapsed() > SILENT / 2, "a moment's silence was too much: {:?}", start.elapsed());
    assert!(pause < Duration::from_secs(3), "the other host paused for {pause:?}");
    let done = interrupted(running);
    for target in ["h2", "h2 -> ssh:h3"] {
        assert!(done.err().contains(&format!("ssh:{target}")), "nothing of the loss of {target}\n{done}");
    }
    assert!(eventually(Duration::from_secs(6), || alive_on(&fleet, &["h1", "h2", "h3"]).is_empty()));
    drop(fleet);
    tag.assert_nothing_left(Duration::from_secs(6));
}

#[test]
fn guards_stopped_on_a_host_that_nobody_reaches_any_more_end_themselves() {
    let name = "guards_stopped_on_a_host_that_nobody_reaches_any_more_end_themselves";
    or_not_run!(name, host::allowed());
    // Both stopped, until the silence is over; and an agent whose guard is gone, which sees it at once.
    for (guard_by, most) in [(Signal::STOP, FAR), (Signal::KILL, Duration::from_secs(2))] {
        let tag = Tag::new("stoppedpair");
        let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
        let mut running = fleet.offshoot(&tag, &["exec", "h1", "--", "sh", "-c", TICKING]).start();
        running.await_output("h1: tick", UP);
        let tree = running.await_agents(1, UP);
        let start = Instant::now();
        assert!(tree.agents[0].signal(Signal::STOP) && tree.supervisors[0].signal(guard_by));
        // No master and no ssh that could end anything on that host. The latter may have gone with its link already.
        assert!(running.master().signal(Signal::KILL));
        let _ = tree.ssh[0].signal(Signal::KILL);
        assert!(!running.finish_within(Duration::from_secs(10)).overdue);
        let left = || alive_on(&fleet, &["h1"]);
        assert!(eventually(most * 3, || left().is_empty()), "after {:?} there are {:?}", start.elapsed(), left());
        println!("an agent stopped, its guard hit by {guard_by:?}: gone after {:?}", start.elapsed());
        drop(fleet);
        tag.assert_nothing_left(Duration::from_secs(6));
    }
}

/// A link that is harmed when all are up, and what is to be seen of it.
struct Broken {
    alias: &'static str,
    host: &'static str,
    plan: &'static str,
    /// What is told: one of these.
    words: &'static [&'static str],
    /// When, at the earliest and by promise.
    told: (Duration, Duration),
    /// By when nothing lives on that host, by promise.
    gone: Duration,
}

/// The time of each notice and of each far side's end, from the moment when the links broke.
#[derive(Debug, Default)]
struct Times {
    told: Option<Duration>,
    gone: Option<Duration>,
}

#[test]
fn a_connection_that_passes_nothing_one_way_is_lost_in_time() {
    let name = "a_connection_that_passes_nothing_one_way_is_lost_in_time";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("oneway");
    let hosts = ["h1", "h2", "h3", "h4", "h5", "h6"];
    let fleet = or_not_run!(name, Fleet::start(&tag, &hosts.map(Peer::new)));
    const UNHEARD: &[&str] = &["nothing was heard from it any more"];
    // It is the far side that hears nothing, and that ends; the near one may see how before it has the word.
    const EITHER: &[&str] = &["nothing was heard from it any more", "its process exited with status", "the link ended"];
    const ENDED: &[&str] = &["its process exited with status 255", "the link ended"];
    let silent = (SILENT / 2, SILENT);
    let at_once = (Duration::ZERO, Duration::from_secs(1));
    let broken = [
        Broken { alias: "deaf", host: "h1", plan: "up!:hole", words: UNHEARD, told: silent, gone: FAR },
        Broken { alias: "mute", host: "h2", plan: "down!:hole", words: EITHER, told: silent, gone: FAR },
        Broken { alias: "stuck", host: "h3", plan: "both!:stall", words: UNHEARD, told: silent, gone: FAR },
        Broken { alias: "shut-up", host: "h4", plan: "up!:close", words: ENDED, told: at_once, gone: ENDS },
        Broken { alias: "shut-down", host: "h5", plan: "down!:close", words: ENDED, told: at_once, gone: ENDS },
    ];
    let mut relays = Vec::new();
    for Broken { alias, host, plan, .. } in &broken {
        relays.push(or_not_run!(name, fleet.chaos(host, alias, plan)));
    }
    let targets: Vec<&str> = broken.iter().map(|link| link.alias).chain(["h6"]).collect();
    let mut running = fleet.offshoot(&tag, &["exec", &targets.join(","), "--", "sh", "-c", TICKING]).start();
    for target in &targets {
        running.await_output(&format!("{target}: tick"), UP);
    }
    let start = Instant::now();
    relays.iter_mut().for_each(Server::begin);
    let mut times = broken.each_ref().map(|_| Times::default());
    let looked = || {
        let (errors, now) = (running.errors_so_far(), start.elapsed());
        let all = process::all();
        for (link, times) in broken.iter().zip(&mut times) {
            if times.told.is_none() && told_of(&errors, link.alias).is_some() {
                times.told = Some(now);
            }
            if times.gone.is_none() && of_hosts(&fleet, &[link.host], &all).is_empty() {
                times.gone = Some(start.elapsed());
            }
        }
        times.iter().all(|times| times.told.is_some() && times.gone.is_some())
    };
    let pause = longest_pause(&running, "h6", looked, FAR * 3);
    println!("the other host paused for {pause:?} at most");
    for (link, times) in broken.iter().zip(&times) {
        println!("{}: {times:?}: {:?}", link.plan, told_of(&running.errors_so_far(), link.alias));
    }
    for (link, times) in broken.iter().zip(&times) {
        let Broken { alias, plan, words, told: (earliest, latest), gone, .. } = link;
        let text = told_of(&running.errors_so_far(), alias)
            .unwrap_or_else(|| panic!("{plan}: nothing is told\n{}", running.report()));
        assert!(words.iter().any(|word| text.contains(word)), "{plan}: expected one of {words:?}, told: {text}");
        assert!(times.told.is_some_and(|at| at >= *earliest && at < *latest * 3), "{plan}: {times:?}");
        assert!(times.gone.is_some_and(|at| at >= *earliest && at < *gone * 3), "{plan}: {times:?}");
    }
    assert!(pause < Duration::from_secs(3), "the other host paused for {pause:?}");
    assert!(!alive_on(&fleet, &["h6"]).is_empty(), "the other host was lost");
    let done = interrupted(running);
    done.expect_code(code::INTERRUPTED);
    assert!(told_of(&done.err(), "h6").is_none(), "{done}");
    assert!(eventually(Duration::from_secs(6), || alive_on(&fleet, &hosts).is_empty()));
    drop(fleet);
    tag.assert_nothing_left(Duration::from_secs(6));
}

/// What was told of a target, from its `error:` to the next one.
fn told_of(errors: &str, target: &str) -> Option<String> {
    let from =
        errors.match_indices("error: ").map(|(at, _)| errors[at..].lines().take(4).collect::<Vec<_>>().join(" "));
    from.into_iter().find(|text| text.lines().next().is_some_and(|line| line.contains(target)))
}

#[test]
fn a_connection_whose_bytes_are_changed_or_that_is_cut_is_lost_at_once() {
    let name = "a_connection_whose_bytes_are_changed_or_that_is_cut_is_lost_at_once";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("flipped");
    let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2", "h3"].map(Peer::new)));
    // Behind the login: ssh itself notices a changed byte.
    let _flip = or_not_run!(name, fleet.chaos("h1", "flipped", "up@60000:flip"));
    let _cut = or_not_run!(name, fleet.chaos("h2", "cut", "both@60000:cut"));
    let _slow = or_not_run!(name, fleet.chaos("h3", "slow", "both:split"));
    let script = "yes | head -c 200000; echo end";
    let done = fleet.offshoot(&tag, &["exec", "flipped,cut,slow", "--", "sh", "-c", script]).run();
    done.expect_code(code::LINK_LOST).expect_harmless();
    assert_eq!(done.lines_from("slow").last().map(String::as_str), Some("end"), "{done}");
    for target in ["flipped", "cut"] {
        let told = done.err().lines().any(|line| line.starts_with("error:") && line.contains(target));
        assert!(told, "nothing of the loss of {target}\n{done}");
    }
    assert!(eventually(Duration::from_secs(6), || alive_on(&fleet, &["h1", "h2", "h3"]).is_empty()));
    tag.assert_nothing_left(Duration::from_secs(6));
}

#[test]
fn an_interrupted_command_ends_in_time_though_a_host_is_cut_off() {
    let name = "an_interrupted_command_ends_in_time_though_a_host_is_cut_off";
    or_not_run!(name, host::allowed());
    // Typed on a terminal, which is then as it was; and from elsewhere.
    for (typed, expected) in [(true, code::INTERRUPTED), (false, code::TERMINATED)] {
        let tag = Tag::new("cutint");
        let fleet = or_not_run!(name, Fleet::start(&tag, &["h1", "h2"].map(Peer::new)));
        let words = ["exec", "h1,h1/h2", "--", "sh", "-c", TICKING];
        let (start, done) = if typed {
            let mut terminal = fleet.offshoot_on_terminal(&tag, &words);
            // In colours, and padded.
            for target in ["h1:", "h1/h2:"] {
                terminal.await_text(target, UP);
            }
            or_not_run!(name, fleet.cut_off("h2"));
            let start = Instant::now();
            terminal.type_keys("\x03");
            (start, terminal.finish(INTERRUPTED * 3))
        } else {
            let mut running = fleet.offshoot(&tag, &words).start();
            for target in ["h1", "h1/h2"] {
                running.await_output(&format!("{target}: tick"), UP);
            }
            or_not_run!(name, fleet.cut_off("h2"));
            let start = Instant::now();
            running.master().signal(Signal::TERM);
            (start, running.finish_within(INTERRUPTED * 3))
        };
        println!("code {expected}: ended after {:?}", start.elapsed());
        done.expect_code(expected);
        assert!(!typed || done.restored_terminal(), "the terminal is not as it was\n{done}");
        assert!(eventually(FAR * 3, || alive_on(&fleet, &["h1", "h2"]).is_empty()), "the far side lives");
        println!("code {expected}: the far side is gone after {:?}", start.elapsed());
        drop(fleet);
        tag.assert_nothing_left(Duration::from_secs(6));
    }
}

#[test]
fn an_interrupted_command_ends_in_time_whatever_is_stopped_and_at_once_when_asked_twice() {
    let targets = ["local", "local/local", "local/local/local"];
    for (signal, twice) in [(Signal::INT, false), (Signal::TERM, false), (Signal::INT, true)] {
        let tag = Tag::new("stopint");
        let mut running = Offshoot::new(&tag, &["exec", &targets.join(","), "--", "sh", "-c", TICKING]).start();
        for target in targets {
            running.await_output(&format!("{target}: tick"), UP);
        }
        let tree = running.await_agents(3, UP);
        tree.agents[0].signal(Signal::STOP);
        tree.supervisors[2].signal(Signal::STOP);
        let start = Instant::now();
        running.master().signal(signal);
        if twice {
            std::thread::sleep(Duration::from_millis(200));
            running.master().signal(signal);
        }
        let most = if twice { Duration::from_secs(1) } else { INTERRUPTED };
        let done = running.finish_within(most * 3);
        println!("{signal:?}, twice: {twice}: ended after {:?}", start.elapsed());
        done.expect_code(if signal == Signal::TERM { code::TERMINATED } else { code::INTERRUPTED }).expect_harmless();
        // Whom nobody told learns by the silence.
        tag.assert_nothing_left(FAR * 3);
    }
}

#[test]
fn the_loss_of_an_intermediate_host_is_told_of_everything_below_it_by_its_name() {
    let tag = Tag::new("named");
    let targets = ["local", "local/local", "local/local/local"];
    let mut running = Offshoot::new(&tag, &["exec", &targets.join(","), "--", "sh", "-c", TICKING]).start();
    for target in targets {
        running.await_output(&format!("{target}: tick"), UP);
    }
    let tree = running.await_agents(3, UP);
    let start = Instant::now();
    assert!(tree.agents[1].signal(Signal::KILL));
    let told =
        || running.errors_so_far().matches("local -> local was lost: its process was ended by signal 9").count() == 2;
    assert!(eventually(TOLD * 3, told), "not both were told\n{}", running.report());
    println!("told after {:?}", start.elapsed());
    let before = running.output_so_far().len();
    assert!(
        eventually(Duration::from_secs(3), || running.output_so_far().len() > before),
        "the one above does not go on"
    );
    let done = interrupted(running);
    done.expect_code(code::INTERRUPTED);
    tag.assert_nothing_left(Duration::from_secs(6));
}

#[test]
fn the_loss_of_an_agent_behind_a_login_is_told_though_its_guard_takes_long_to_end_what_it_left() {
    let name = "the_loss_of_an_agent_behind_a_login_is_told_though_its_guard_takes_long_to_end_what_it_left";
    let tag = Tag::new("lingering");
    let fleet = or_not_run!(name, bed::one(&tag));
    // Told to end, it stops who told it: the guard, which has said its last words by then and is its parent.
    let biting = "exec 2>/dev/null; trap 'read -r pid name state guard rest < /proc/$$/stat; kill -STOP $guard' TERM; echo up; \
                  while :; do sleep 0.1; done";
    for (target, agents) in [("sudo-nopass@h1", 1), ("sudo-nopass@h1/sudo:sudo-nopass", 2)] {
        let mut running = fleet.offshoot(&tag, &["exec", target, "--", "sh", "-c", biting]).start();
        running.await_output("up", UP);
        let tree = running.await_agents(agents, UP);
        let start = Instant::now();
        assert!(tree.agents[agents - 1].signal(Signal::KILL));
        let told = || running.errors_so_far().contains("its process was ended by signal 9");
        assert!(eventually(TOLD * 3, told), "{target}: nothing was told\n{}", running.report());
        println!("{target}: told after {:?}", start.elapsed());
        let guard = || tree.supervisors[agents - 1].refreshed();
        let stopped = || guard().is_some_and(|guard| guard.state == 'T');
        assert!(eventually(Duration::from_secs(5), stopped), "{target}: its guard is not stopped: {:?}", guard());
        assert!(guard().is_some_and(|guard| guard.signal(Signal::CONT)));
        running.finish_within(INTERRUPTED * 3).expect_code(code::LINK_LOST).expect_harmless();
    }
    drop(fleet);
    tag.assert_nothing_left(Duration::from_secs(6));
}

#[test]
fn what_a_lost_agent_had_sent_still_arrives_over_a_slow_line_which_its_guards_word_overtakes() {
    let tag = Tag::new("trickle");
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().expect("a temporary folder");
    let slow = Setting { harm: Harm::Slow, up: false, ..Setting::harmless() };
    slow.install(folder.path(), std::path::Path::new(env!("CARGO_BIN_EXE_offshoot-fixture")))
        .expect("a program in a temporary folder");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    product::agents();
    // As much as the pipe of the link takes at once.
    let script = "head -c 50000 /dev/zero | tr '\\0' x; touch \"$0\"; exit 7";
    let written = folder.path().join("written");
    let words = ["exec", "--raw", "peer", "--", "sh", "-c", script, written.to_str().expect("a plain path")];
    let running = Offshoot::new(&tag, &words).env("PATH", path).start();
    assert!(eventually(UP, || written.exists()), "nothing was written\n{}", running.report());
    let tree = running.await_agents(1, UP);
    // So that it has passed on the end, too. All of it takes more than four seconds.
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    assert!(tree.agents[0].signal(Signal::KILL));
    assert!(running.output_so_far().len() < 50_000, "all had come before\n{}", running.report());
    let done = running.finish_within(Duration::from_secs(30));
    println!("ended {:?} after the loss", start.elapsed());
    assert_eq!((done.stdout.len(), done.code), (50_000, Some(7)), "{done}");
    done.expect_harmless();
    tag.assert_nothing_left(Duration::from_secs(6));
}
