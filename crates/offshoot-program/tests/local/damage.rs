//! Links that misbehave: every call ends, in time, and nothing is left.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use offshoot_connect::{AGENT_ARGUMENT, APART};
use offshoot_mux::wait_readable;
use offshoot_node::{Context, Event};
use offshoot_program::Master;
use offshoot_wire::{ConnectStage, FailureKind, LostReason, Ran, Recipe, Start};

use crate::chaos::{self, End, Plan};
use crate::{Check, builder, children, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_plan_of_faults_is_read_and_what_is_none_is_refused", plans),
    ("a_link_that_gives_single_bytes_does_all_that_another_does", split),
    ("a_slow_and_distant_link_does_all_that_another_does", slow),
    ("a_link_that_passes_nothing_one_way_or_both_is_lost_as_silent", holes),
    ("a_link_that_is_not_read_is_lost_as_silent", stalls),
    ("a_link_that_ends_one_way_or_both_is_lost_at_once", ends),
    ("a_link_that_doubles_or_changes_bytes_is_lost_and_nothing_else", damaged),
    ("a_hello_that_is_damaged_fails_the_connect_in_time", hellos),
    ("a_connect_whose_tool_is_silent_trickles_or_never_stops_ends_in_time", tools),
];

/// What every process of a tree is called whose link at some depth is to misbehave: this, the depth and the plan.
const MARK: &str = "chaos/";

/// How many links are still between this process and the one that misbehaves, itself included; zero behind it.
const LEFT: &str = "OFFSHOOT_LOCAL_CHAOS_LEFT";

const SILENCE: Duration = Duration::from_millis(1500);

/// A master of trees whose link at this depth misbehaves.
fn master(depth: usize, plan: &str) -> Master {
    plan.parse::<Plan>().expect("a plan");
    let name = format!("{MARK}{depth}/{plan}");
    builder().process_name(name).heartbeat(SILENCE / 5, SILENCE).build().expect("a master")
}

/// The part of a process that was started as an agent behind a link that misbehaves: it becomes that link.
pub(crate) fn wrapper() -> Option<ExitCode> {
    let mut arguments = std::env::args();
    let name = arguments.next()?;
    let (depth, plan) = name.strip_prefix(MARK)?.split_once('/')?;
    if arguments.next()? != AGENT_ARGUMENT {
        return None;
    }
    let left = std::env::var(LEFT).unwrap_or_else(|_| depth.to_owned()).parse::<usize>().ok()?;
    let mut agent = Command::new(std::env::current_exe().ok()?);
    agent.arg(AGENT_ARGUMENT).env(LEFT, left.saturating_sub(1).to_string());
    match left {
        0 => None,
        1 => Some(behind_a_link(agent.arg0(&name), plan.parse().ok()?)),
        _ => {
            let error = agent.arg0("offshoot:check").args(arguments).exec();
            eprintln!("cannot become an agent: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Starts the agent behind pipes, and passes bytes between them and this process's own link.
fn behind_a_link(agent: &mut Command, plan: Plan) -> ExitCode {
    /// What comes from the master, until it is cut.
    struct Coming(File, Arc<AtomicBool>);

    impl Read for Coming {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            while !self.1.load(Ordering::Relaxed) {
                if wait_readable(&[self.0.as_fd()], Some(Duration::from_millis(2)))?.has(0) {
                    return self.0.read(bytes);
                }
            }
            Ok(0)
        }
    }

    /// What goes to it; ends its direction when dropped.
    struct Going(Arc<Mutex<Option<File>>>);

    impl Write for Going {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            match &mut *self.0.lock().expect("no panic") {
                Some(file) => file.write(bytes),
                None => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Going {
        fn drop(&mut self) {
            *self.0.lock().expect("no panic") = None;
        }
    }

    let write = offshoot_mux::io::take_passed(APART).expect("the link");
    let read = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    offshoot_mux::io::detach_standard_streams().expect("a null device");
    let mut child = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("an agent");
    let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let (cut, going) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Some(File::from(write)))));
    let coming = Coming(read.into(), Arc::clone(&cut));
    let master = End { read: Box::new(coming), write: Box::new(Going(Arc::clone(&going))) };
    let below = End { read: Box::new(output), write: Box::new(input) };
    chaos::run(plan, master, below, &Arc::default(), move || {
        cut.store(true, Ordering::Relaxed);
        *going.lock().expect("no panic") = None;
    });
    let code = child.wait().ok().and_then(|status| status.code());
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn grow(master: &Master, depth: usize) -> Vec<Context> {
    let mut chain = vec![master.local().connect().expect("a context")];
    while chain.len() < depth {
        let next = chain[chain.len() - 1].local().connect().expect("a context");
        chain.push(next);
    }
    chain
}

/// What a link is for.
fn all_works(context: &Context, bulk: usize) {
    for length in [0, 1, bulk.min(60_000)] {
        let sent = vec![7; length];
        assert_eq!(context.echo(&sent).expect("an echo"), &sent[..]);
    }
    assert_eq!(context.info().expect("an answer").address, *context.address());
    let echoed: Vec<_> = (0..100_u8).map(|i| context.start_echo(&[i]).expect("it is sent")).collect();
    for (i, pending) in echoed.into_iter().enumerate() {
        assert_eq!(pending.wait().expect("an echo"), &[i as u8][..]);
    }
    let output = crate::exec::sh(context, &format!("head -c {bulk} /dev/zero; echo end >&2; exit 7"));
    assert_eq!((output.stdout.len(), &output.stderr[..], output.status.code()), (bulk, &b"end\n"[..], Some(7)));
    let mut cat = context.command("cat").stdin(offshoot_node::Stdio::Piped).spawn().expect("cat");
    let mut input = cat.stdin.take().expect("an input");
    let writer = std::thread::spawn(move || input.write_all(&vec![1; bulk]).expect("it reads"));
    let mut came = 0;
    while let Event::Stdout(bytes) = cat.event().expect("an event") {
        came += bytes.len();
    }
    writer.join().expect("no panic");
    assert_eq!(came, bulk);
}

fn plans() {
    let plan = |text: &str| text.parse::<Plan>();
    assert_eq!(plan("both:split"), plan("up:split,down@0:split"));
    assert_ne!(plan("up@5:flip").expect("a plan"), plan("up+5:flip").expect("a plan"));
    plan("up@5000:flip,down+200:hole,both:delay=7,down:rate=100,up!:close").expect("a plan");
    for bad in ["flip", "up", "side:flip", "up@x:flip", "up:flop", "up:rate=", "up@:flip", "up!5:flip"] {
        plan(bad).expect_err(bad);
    }
}

fn split() {
    for depth in [1, 2] {
        let master = master(depth, "both:split");
        let chain = grow(&master, 3);
        chain.iter().for_each(|context| all_works(context, 20_000));
        chain[1].shutdown().expect("it ends");
        chain[0].ping().expect("an answer");
    }
}

fn slow() {
    for plan in ["both:delay=40", "down:rate=400000,up:rate=600000"] {
        let master = master(1, plan);
        let chain = grow(&master, 2);
        chain.iter().for_each(|context| all_works(context, 300_000));
    }
}

/// A tree whose second link will misbehave, with a context beside it, and what a call to the third one ends with. The
/// one beside it is called all the while, and answers.
fn lost(plan: &str, expected: impl Fn(&LostReason) -> bool, earliest: Duration, latest: Duration) {
    let master = master(2, plan);
    let started = Instant::now();
    let chain = grow(&master, 3);
    let beside = master.local().connect().expect("a context");
    let near = chain[0].clone();
    let pending = chain[2].command("sleep").arg("600").spawn().expect("it is asked");
    let waiter = std::thread::spawn(move || pending.wait());
    let mut slowest = Duration::ZERO;
    let error = loop {
        let result = chain[2].start_echo(b"x").and_then(|pending| pending.wait_timeout(SILENCE * 8));
        match result {
            Ok(_) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => break error,
        }
        slowest = slowest.max(beside.ping().expect("the one beside it goes on"));
        assert!(started.elapsed() < latest * 3, "{plan}: the link works still");
    };
    let took = started.elapsed();
    if *error.kind() != FailureKind::NoRoute {
        let FailureKind::PeerLost(reason) = error.kind() else { panic!("{plan}: {error}") };
        assert!(expected(reason), "{plan}: {error}");
        assert_eq!(error.lost_at().as_deref(), Some("local -> local"), "{plan}: {error}");
    }
    assert!(took >= earliest && took < latest * 3, "{plan}: it was told after {took:?}");
    let error = waiter.join().expect("no panic").expect_err("its context was lost");
    let FailureKind::PeerLost(reason) = error.kind() else { panic!("{plan}: {error}") };
    assert!(expected(reason) && error.ran() == Ran::MaybeExecuted, "{plan}: {error}");
    for _ in 0..20 {
        slowest = slowest.max(beside.ping().expect("the one beside it goes on"));
        near.ping().expect("the one above it goes on");
    }
    assert!(slowest < Duration::from_millis(500), "{plan}: the one beside it answered after {slowest:?}");
    within(SILENCE * 6, "something is left below", || near.info().is_ok_and(|info| info.children.is_empty()));
    drop(master);
    assert_eq!(children(), [], "{plan}");
}

/// The time until the link begins to misbehave: the tree has grown by then.
const GROWN: u64 = 700;

fn holes() {
    let silent = |reason: &LostReason| *reason == LostReason::Silent;
    // Whichever end notices first ends the link; the other one sees the end then.
    let either = |reason: &LostReason| {
        matches!(reason, LostReason::Silent | LostReason::LinkEnd | LostReason::Exited(_) | LostReason::ParentLost)
    };
    let grown = Duration::from_millis(GROWN);
    lost(&format!("both+{GROWN}:hole"), silent, grown + SILENCE / 2, grown + SILENCE);
    lost(&format!("up+{GROWN}:hole"), silent, grown + SILENCE / 2, grown + SILENCE);
    lost(&format!("down+{GROWN}:hole"), either, grown + SILENCE / 2, grown + SILENCE);
}

fn stalls() {
    let either = |reason: &LostReason| {
        matches!(reason, LostReason::Silent | LostReason::LinkEnd | LostReason::Exited(_) | LostReason::ParentLost)
    };
    let grown = Duration::from_millis(GROWN);
    for way in ["both", "up", "down"] {
        lost(&format!("{way}+{GROWN}:stall"), either, grown + SILENCE / 2, grown + SILENCE);
    }
}

fn ends() {
    let ended = |reason: &LostReason| !matches!(reason, LostReason::Violation(_));
    let grown = Duration::from_millis(GROWN);
    for what in ["up+{}:close", "both+{}:cut"] {
        let started = Instant::now();
        lost(&what.replace("{}", &GROWN.to_string()), ended, grown / 2, grown + Duration::from_millis(250));
        println!("{what}: {:?}", started.elapsed());
    }
    // What the agent reads ends: it goes, and says so first.
    lost(&format!("down+{GROWN}:close"), ended, grown / 2, grown + Duration::from_millis(250));
}

/// What came of damage to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The context behind it is gone.
    Lost,
    /// A call was answered with an error, or not at all, and the link goes on.
    Refused,
    /// What came back is not what was sent.
    Altered,
    Unnoticed,
}

/// Calls that carry far more than the bytes before the damage, until one does not succeed.
fn call_on(plan: &str, context: &Context) -> Outcome {
    for _ in 0..400 {
        let called = Instant::now();
        let result = context.start_echo(b"twelve bytes").and_then(|pending| pending.wait_timeout(SILENCE * 2));
        assert!(called.elapsed() < SILENCE * 3, "{plan}: a call ended after {:?}", called.elapsed());
        match result {
            Ok(answer) if answer == b"twelve bytes"[..] => {}
            Ok(_) => return Outcome::Altered,
            Err(error) => match error.kind() {
                FailureKind::PeerLost(_) | FailureKind::NoRoute => {
                    let gone = context.ping().expect_err("it was lost");
                    assert_eq!(*gone.kind(), FailureKind::NoRoute, "{plan}: {error}, then {gone}");
                    return Outcome::Lost;
                }
                // Another number, place or verb was asked; what has another number has no answer.
                FailureKind::Malformed | FailureKind::Unsupported | FailureKind::Denied | FailureKind::Timeout => {
                    return Outcome::Refused;
                }
                _ => panic!("{plan}: {error}"),
            },
        }
    }
    Outcome::Unnoticed
}

fn damaged() {
    use Outcome::{Altered, Lost, Unnoticed};
    // Somewhere behind the hellos, in frames of calls: of each four bytes in a row one of a length, several of the data.
    let flips: Vec<usize> = (2000..2032).step_by(4).collect();
    let doubles = [2000, 2001, 2002];
    for way in ["up", "down"] {
        for (what, places) in [("flip", &flips[..]), ("double", &doubles)] {
            let mut outcomes = Vec::new();
            for at in places {
                let plan = format!("{way}@{at}:{what}");
                let master = master(2, &plan);
                let chain = grow(&master, 2);
                let beside = master.local().connect().expect("a context");
                outcomes.push(call_on(&plan, &chain[1]));
                for context in [&chain[0], &beside] {
                    for _ in 0..20 {
                        let took =
                            context.ping().unwrap_or_else(|error| panic!("{plan}: another one is lost: {error}"));
                        assert!(took < Duration::from_millis(500), "{plan}: another one answered after {took:?}");
                    }
                }
                let start = Instant::now();
                drop(master);
                assert!(start.elapsed() < Duration::from_secs(21), "{plan}: {:?}", start.elapsed());
                assert_eq!(children(), [], "{plan}");
            }
            println!("{way}, {what}: {outcomes:?}");
            let count = |of| outcomes.iter().filter(|outcome| **outcome == of).count();
            match what {
                // A byte of the data is nobody's to notice; but for those, and of those of a length at least one.
                "flip" => assert!(count(Lost) >= 1 && count(Altered) >= 1, "{way}: {outcomes:?}"),
                // But where the first of them begins a frame: then a whole one comes twice.
                _ => assert!(count(Lost) >= 2 && count(Altered) == 0, "{way}: {outcomes:?}"),
            }
            assert!(count(Unnoticed) <= 1, "{way}, {what}: the damage has no effect: {outcomes:?}");
        }
    }
}

fn hellos() {
    for plan in ["up@0:flip", "up@9:flip", "up@20:double", "down@0:flip", "down@8:double", "up@3:cut", "up@3:close"] {
        let master = master(1, plan);
        let start = Instant::now();
        let result =
            master.connect(Recipe { deadline_ms: 4000, stage_ms: 2000, ..Recipe::new("local", "", Start::Local) });
        let took = start.elapsed();
        assert!(took < Duration::from_secs(12), "{plan}: it took {took:?}");
        match result {
            Err(error) => assert_eq!(error.ran(), Ran::NotSent, "{plan}: {error}"),
            // Behind a whole hello came what is no frame.
            Ok(context) => {
                assert!(plan.contains("double"), "{plan}: the damage has no effect");
                within(SILENCE * 3, plan, || context.ping().is_err());
            }
        }
        drop(master);
        assert_eq!(children(), [], "{plan}");
    }
    let stalled = master(1, "both:hole");
    let start = Instant::now();
    let recipe = Recipe { deadline_ms: 4000, stage_ms: 500, ..Recipe::new("local", "", Start::Local) };
    let error = stalled.connect(recipe).expect_err("it is silent");
    assert!(matches!(error.kind(), FailureKind::StageTimeout(_)), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(400) && start.elapsed() < Duration::from_secs(6));
}

fn tools() {
    let tool = |script: &str| Recipe {
        deadline_ms: 2000,
        stage_ms: 800,
        ..Recipe::new(
            "exec",
            "tool",
            Start::Shell { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), env: Vec::new() },
        )
    };
    let (silent, trickles) =
        (FailureKind::StageTimeout(ConnectStage::Login), FailureKind::StageTimeout(ConnectStage::Probe));
    let (flood, closed) = (FailureKind::Connect(ConnectStage::Probe), FailureKind::Connect(ConnectStage::Login));
    let nothing = "nothing came for 0.8 s while logging in";
    let longer = "the whole connect took longer than 2.0 s while waiting for the start marker";
    let other = "more than 64 KiB of other output came";
    let master = builder().build().expect("a master");
    // What is told, from when on, and by when.
    for (script, kind, words, earliest, latest) in [
        ("exec sleep 600", &silent, nothing, 800, 800),
        ("while :; do printf x; sleep 0.05; done", &trickles, longer, 2000, 2000),
        ("while :; do echo noise; sleep 0.05; done", &trickles, longer, 2000, 2000),
        ("exec yes", &flood, other, 0, 2000),
        ("exec cat /dev/zero", &flood, other, 0, 2000),
        ("exec >&-; exec sleep 600", &closed, "closed its output while logging in", 0, 2000),
        ("yes >&2", &silent, nothing, 800, 800),
        ("trap '' TERM HUP; while :; do sleep 0.1; done", &silent, nothing, 800, 800),
    ] {
        let start = Instant::now();
        let error = master.connect(tool(script)).expect_err(script);
        let took = start.elapsed();
        assert_eq!(error.ran(), Ran::NotSent, "{script}: {error}");
        assert!(error.kind() == kind && error.to_string().contains(words), "{script}: {error}");
        // What ignores TERM gets KILL after its grace.
        let latest = Duration::from_millis(latest) * 3 + Duration::from_secs(2);
        assert!(took >= Duration::from_millis(earliest) && took < latest, "{script}: {error} after {took:?}");
        within(Duration::from_secs(6), script, || children().is_empty());
    }
}
