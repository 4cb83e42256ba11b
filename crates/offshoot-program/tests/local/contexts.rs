//! Contexts: how they grow, answer, are addressed and end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_connect::methods::{Local, Sudo};
use offshoot_node::{Command, Context, Error, Event, Input, Output, Pending, Process};
use offshoot_program::{Agents, Builder, Master};
use offshoot_wire::{ConnectStage, FailureKind, LostReason, Ran, Recipe, Start};

use crate::{Check, NOT_RUN, builder, children, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_context_says_who_and_where_it_is", identity),
    ("root_behind_sudo_is_a_copy_of_the_program_and_needs_no_agent", behind_sudo),
    ("a_chain_32_deep_answers_and_runs_programs", deep),
    ("two_hundred_contexts_side_by_side", wide),
    ("as_many_connects_as_are_allowed_run_at_once_and_the_others_wait_for_their_turn", limited),
    ("a_connect_that_fails_hides_no_other_and_its_address_is_burnt", failing),
    ("a_connect_to_what_never_answers_ends_in_time_and_leaves_nothing", silent),
    ("an_address_is_never_used_again", addresses),
    ("sixteen_threads_call_one_context_at_once", threads),
    ("a_hundred_thousand_calls_are_on_their_way_at_once", pipelined),
    ("calls_without_end_are_all_answered_at_any_depth", streamed),
    ("shutdown_ends_a_subtree_and_whoever_waits_for_it", subtree),
    ("a_call_to_a_dead_context_fails_at_once", dead),
    ("dropping_a_pending_answer_takes_the_request_back", pending),
    ("a_wait_with_a_timeout_ends_in_time", timeouts),
    ("ending_the_master_ends_every_wait_and_a_connect_under_way", ended),
    ("a_thread_that_panics_takes_back_what_it_asked", panics),
    ("two_masters_live_in_one_process", two_masters),
    ("a_master_is_used_from_many_threads", shared_master),
    ("handles_go_from_thread_to_thread", handles),
];

fn grow(master: &Master, depth: usize) -> Vec<Context> {
    let mut chain = vec![master.local().connect().expect("a context")];
    while chain.len() < depth {
        let next = chain[chain.len() - 1].local().connect().expect("a context");
        chain.push(next);
    }
    chain
}

fn behind_sudo() {
    // As agents are: only who may look into any process sees what they run.
    offshoot_mux::process::set_dumpable(false).expect("it is always allowed");
    let own = format!("/proc/{}/exe", std::process::id());
    let quiet = || std::process::Stdio::null();
    let sudo =
        std::process::Command::new("sudo").args(["-n", "readlink", &own]).stdout(quiet()).stderr(quiet()).status();
    if !sudo.is_ok_and(|status| status.success()) {
        return println!("{NOT_RUN}needs sudo without a password, to a root that may look into other processes");
    }
    let master = master();
    // Once from here, and once from such a context.
    let near = master.connect(Sudo::to("root")).expect("a context behind sudo");
    let far = near.connect(Sudo::to("#0")).expect("a context behind that");
    let own = std::env::current_exe().expect("this program");
    for context in [&near, &far] {
        let script = "id -u; readlink /proc/$PPID/exe; tr '\\0' ' ' </proc/$(cut -d' ' -f4 /proc/$PPID/stat)/cmdline";
        let output = context.command("sh").args(["-c", script]).output().expect("its output");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["0", &own.to_string_lossy()], "{said}");
        // Its guard, too, says in `ps` what it is.
        assert!(lines[2].starts_with("offshoot:"), "{said}");
    }
    near.shutdown().expect("its end");
    within(Duration::from_secs(5), "sudo is left", || children().is_empty());
}

fn identity() {
    let master = builder().process_name("offshoot:check").build().expect("a master");
    let chain = grow(&master, 2);
    let names: Vec<(&str, &str, String)> =
        chain.iter().map(|context| (context.name(), context.path(), context.address().to_string())).collect();
    assert_eq!(names, [("local", "local", "/0".to_owned()), ("local", "local -> local", "/0/0".to_owned())]);
    let info = chain[0].info().expect("an answer");
    let hello = chain[0].hello().expect("a hello");
    assert_eq!((&info.hello, &info.address, info.name.as_str()), (hello, chain[0].address(), "local"));
    assert_eq!(info.children.len(), 1);
    assert_eq!(
        (&info.children[0].address, &info.children[0].hello),
        (chain[1].address(), chain[1].hello().expect("it"))
    );
    assert!(info.link_bytes.0 > 0 && info.link_bytes.1 > 0, "{:?}", info.link_bytes);
    assert!(chain[1].info().expect("an answer").children.is_empty());
    // How long each stage took is told by whoever ran the connect: the root, and the context between.
    for context in &chain {
        let stages: Vec<_> = context.stages().iter().map(|(stage, _)| *stage).collect();
        assert_eq!(stages, [ConnectStage::Start, ConnectStage::Hello]);
        let ends: Vec<Duration> = context.stages().iter().map(|(_, end)| *end).collect();
        assert!(Duration::ZERO < ends[0] && ends[0] < ends[1] && ends[1] < Duration::from_secs(30), "{ends:?}");
    }
    // The root is for connecting: it asks nothing of itself.
    let root = master.context();
    assert_eq!((root.name(), root.path(), root.hello()), ("", "", None));
    for error in [root.ping().expect_err("not itself"), root.command("true").status().expect_err("not itself")] {
        assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    }
    root.local().connect().expect("a context");
    let line = std::fs::read(format!("/proc/{}/cmdline", hello.pid)).expect("a process");
    assert!(line.starts_with(b"offshoot:check"), "{}", line.escape_ascii());
    assert_eq!(chain[1].echo(b"\0any\xff").expect("an echo"), &b"\0any\xff"[..]);
    let text = format!("{:?}", chain[1]);
    assert!(text.contains("local -> local"), "{text}");
}

fn deep() {
    let master = master();
    let chain = grow(&master, 32);
    let last = &chain[31];
    assert_eq!(last.address().depth(), 32);
    assert_eq!(last.path().matches(" -> ").count(), 31);
    last.ping().expect("an answer");
    assert_eq!(crate::exec::sh(last, "exit 32").status.code(), Some(32));
    let error = last.command("no-such-program").output().expect_err("no such program");
    assert_eq!(error.path(), last.path());
}

fn wide() {
    let master = builder().connect_limit(16).build().expect("a master");
    let contexts = master.connect_all(vec![Local::new(); 200]);
    let contexts: Vec<Context> = contexts.into_iter().map(|context| context.expect("a context")).collect();
    let addresses: HashSet<String> = contexts.iter().map(|context| context.address().to_string()).collect();
    let pids: HashSet<u32> = contexts.iter().filter_map(|context| Some(context.hello()?.pid)).collect();
    assert_eq!((addresses.len(), pids.len()), (200, 200));
    let asked: Vec<_> = contexts.iter().map(|context| context.start_echo(b"x").expect("it is sent")).collect();
    for pending in asked {
        assert_eq!(pending.wait().expect("an echo"), &b"x"[..]);
    }
    // Behind a hop the limit is the hop's.
    let below = contexts[7].connect_all(vec![Local::new(); 40]);
    assert!(below.iter().all(Result::is_ok));
    assert_eq!(contexts[7].info().expect("an answer").children.len(), 40);
}

fn program(argv: &[&str]) -> Recipe {
    let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    Recipe::new("exec", "program", Start::Shell { argv, env: Vec::new() })
}

/// How many tools of these connects, each asked for by a thread of its own, ran at once at most.
fn at_once(connects: usize, connect: impl Fn(Recipe) -> bool + Sync) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("now")).expect("a folder");
    let script = "cd \"$0\" && : >now/$$ && sleep 1 && ls now | wc -l >>most; rm now/$$; exit 7";
    let recipe = program(&["sh", "-c", script, folder.path().to_str().expect("text")]);
    std::thread::scope(|scope| {
        for _ in 0..connects {
            scope.spawn(|| assert!(!connect(recipe.clone()), "a tool that does nothing led somewhere"));
        }
    });
    let counts = std::fs::read_to_string(folder.path().join("most")).expect("the counts");
    assert_eq!(counts.lines().count(), connects, "some never had their turn: {counts}");
    counts.lines().map(|line| line.trim().parse::<usize>().expect("a number")).max().unwrap_or(0)
}

fn limited() {
    let few = builder().connect_limit(4).build().expect("a master");
    let most = at_once(12, |recipe| few.context().connect(recipe).is_ok());
    assert!((2..=4).contains(&most), "{most} at once");
    // What a context does by itself when nothing is said, here and behind a hop, whoever asks it.
    let master = master();
    let hop = few.local().connect().expect("a context");
    for context in [master.context(), &hop] {
        let most = at_once(40, |recipe| context.connect(recipe).is_ok());
        assert!((8..=32).contains(&most), "{most} at once");
    }
}

fn failing() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for via in [master.context(), &context] {
        let local = || Recipe::from(Local::new());
        let results =
            via.connect_all([local(), program(&["/nonexistent/tool"]), local(), program(&["false"]), local()]);
        let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true, false, true]);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.ran(), Ran::NotSent, "{error}");
            assert!(error.path().ends_with("exec:program"), "{error}");
        }
        for context in results.into_iter().flatten() {
            context.ping().expect("an answer");
        }
    }
    let error = master.connect(program(&["false"])).expect_err("it is no login");
    assert!(matches!(error.kind(), FailureKind::Connect(_)), "{error}");
}

fn silent() {
    let master = master();
    let before = children().len();
    let start = Instant::now();
    let recipe = Recipe { deadline_ms: 700, stage_ms: 500, ..program(&["sh", "-c", "sleep 600 & sleep 600"]) };
    let error = master.connect(&recipe).expect_err("it never answers");
    assert!(matches!(error.kind(), FailureKind::StageTimeout(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    let garbage = program(&["sh", "-c", "cat /dev/zero"]);
    let error = master.connect(Recipe { deadline_ms: 3000, stage_ms: 500, ..garbage }).expect_err("it is garbage");
    assert_eq!(error.ran(), Ran::NotSent, "{error}");
    within(Duration::from_secs(5), "something is left of the failed connects", || children().len() == before);
}

fn addresses() {
    let master = master();
    let first = master.local().connect().expect("a context");
    let inner = first.local().connect().expect("a context");
    inner.shutdown().expect("it ends");
    let next = first.local().connect().expect("a context");
    assert_ne!(inner.address(), next.address());
    first.shutdown().expect("it ends");
    let second = master.local().connect().expect("a context");
    assert_ne!(first.address(), second.address());
    // The old handles do not reach the new contexts.
    for old in [first, inner, next] {
        let error = old.ping().expect_err("it is gone");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::NoRoute, Ran::NotSent), "{error}");
    }
    second.ping().expect("an answer");
}

fn threads() {
    let master = master();
    let chain = grow(&master, 2);
    std::thread::scope(|scope| {
        for thread in 0..16_u8 {
            let context = &chain[usize::from(thread % 2)];
            scope.spawn(move || {
                for i in 0..300_u16 {
                    let sent = [thread, (i >> 8) as u8, i as u8];
                    assert_eq!(context.echo(&sent).expect("an echo"), &sent[..]);
                }
            });
        }
    });
    // And programs beside them.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let context = &chain[thread % 2];
            scope.spawn(move || {
                assert_eq!(crate::exec::sh(context, &format!("exit {thread}")).status.code(), Some(thread as i32))
            });
            scope.spawn(move || {
                for _ in 0..100 {
                    context.ping().expect("an answer");
                }
            });
        }
    });
}

fn pipelined() {
    let master = master();
    let chain = grow(&master, 3);
    for context in &chain {
        let asked: Vec<Pending<Bytes>> =
            (0..100_000_u32).map(|i| context.start_echo(&i.to_le_bytes()).expect("it is sent")).collect();
        for (i, pending) in asked.into_iter().enumerate() {
            assert_eq!(pending.wait().expect("an echo"), &(i as u32).to_le_bytes()[..]);
        }
        context.ping().expect("an answer");
    }
}

/// One thread asks as fast as it is let, another takes the answers.
fn streamed() {
    let count: u32 = if crate::all_wanted() { 1_000_000 } else { 50_000 };
    let master = master();
    let chain = grow(&master, 3);
    for context in &chain {
        // Small ones, of which the number under way is limited, and larger ones, whose bytes are.
        for (length, count) in [(4, count), (3_000, count / 10)] {
            let (ask, asked) = std::sync::mpsc::channel::<Pending<Bytes>>();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let body = |i: u32| [&i.to_le_bytes()[..], &vec![7; length - 4]].concat();
                    (0..count)
                        .for_each(|i| ask.send(context.start_echo(&body(i)).expect("it is sent")).expect("a reader"));
                });
                let mut came = 0_u32;
                for pending in asked {
                    let echo = pending.wait().expect("an echo");
                    assert_eq!((&echo[..4], echo.len()), (&came.to_le_bytes()[..], length));
                    came += 1;
                }
                assert_eq!(came, count);
            });
        }
    }
}

fn subtree() {
    let master = master();
    let chain = grow(&master, 3);
    let beside = master.local().connect().expect("a context");
    let mut process = chain[2].command("sh").args(["-c", "printf r; exec sleep 600"]).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    let waiter = std::thread::spawn(move || process.wait());
    let before = children().len();
    let start = Instant::now();
    chain[1].shutdown().expect("it ends");
    // `sleep` ends on TERM, so nothing waits for the grace.
    assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    match waiter.join().expect("no panic") {
        // It was ended by TERM, and there was time to tell.
        Ok(status) => assert_eq!(status.signal(), Some(15)),
        Err(error) => {
            assert!(matches!(error.kind(), FailureKind::PeerLost(_)), "{error}");
            assert_eq!(error.ran(), Ran::MaybeExecuted, "{error}");
        }
    }
    within(Duration::from_secs(5), "something is left", || children().len() == before - 5);
    for gone in &chain[1..] {
        let error = gone.ping().expect_err("it is gone");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::NoRoute, Ran::NotSent), "{error}");
        assert_eq!(*gone.shutdown().expect_err("it is gone").kind(), FailureKind::NoRoute);
    }
    chain[0].ping().expect("an answer");
    beside.ping().expect("an answer");
    assert!(chain[0].info().expect("an answer").children.is_empty());
}

fn dead() {
    let master = master();
    let context = master.local().connect().expect("a context");
    context.shutdown().expect("it ends");
    let start = Instant::now();
    for _ in 0..100 {
        for error in [
            context.ping().expect_err("it is gone"),
            context.info().expect_err("it is gone"),
            context.local().connect().expect_err("it is gone"),
            context.command("true").status().expect_err("it is gone"),
        ] {
            assert_eq!((error.kind(), error.ran()), (&FailureKind::NoRoute, Ran::NotSent), "{error}");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(2), "400 calls took {:?}", start.elapsed());
}

fn pending() {
    let master = master();
    let chain = grow(&master, 2);
    for _ in 0..1000 {
        drop(chain[1].start_echo(b"nobody waits").expect("it is sent"));
    }
    let process = chain[1].command("sleep").arg("600").spawn().expect("sleep");
    within(Duration::from_secs(5), "it does not run", || chain[1].info().expect("an answer").processes == 1);
    drop(process);
    within(Duration::from_secs(5), "it was not taken back", || chain[1].info().expect("an answer").processes == 0);
}

fn timeouts() {
    let master = master();
    let context = master.local().connect().expect("a context");
    crate::signal(context.hello().expect("a hello").pid, rustix::process::Signal::STOP);
    for wait in [Duration::ZERO, Duration::from_millis(100)] {
        let start = Instant::now();
        let error = context.start_echo(b"x").expect("it is sent").wait_timeout(wait).expect_err("it is stopped");
        assert_eq!((error.kind(), error.ran()), (&FailureKind::Timeout, Ran::MaybeExecuted), "{error}");
        assert!(start.elapsed() >= wait && start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    }
    let waits = context.start_echo(b"x").expect("it is sent");
    assert!(!waits.is_done());
    crate::signal(context.hello().expect("a hello").pid, rustix::process::Signal::CONT);
    within(Duration::from_secs(5), "no answer came", || waits.is_done());
    assert_eq!(waits.wait_timeout(Duration::ZERO).expect("it is there"), &b"x"[..]);
}

fn ended() {
    let master = master();
    let chain = grow(&master, 2);
    let process = chain[1].command("sleep").arg("600").spawn().expect("sleep");
    let endless = Recipe { deadline_ms: 600_000, stage_ms: 600_000, ..program(&["sleep", "600"]) };
    let waiters = std::thread::scope(|scope| {
        let here = scope.spawn(|| master.connect(&endless).map(drop));
        let there = scope.spawn(|| chain[0].connect(&endless).map(drop));
        let more = scope.spawn(|| master.connect_all(vec![&endless; 40]).into_iter().filter(Result::is_ok).count());
        let process = scope.spawn(move || process.wait());
        std::thread::sleep(Duration::from_millis(700));
        let start = Instant::now();
        master.shutdown_with_grace(Duration::from_millis(500));
        assert!(start.elapsed() < Duration::from_secs(7), "it took {:?}", start.elapsed());
        assert_eq!(more.join().expect("no panic"), 0);
        let error = here.join().expect("no panic").expect_err("it never connects");
        assert_eq!(*error.kind(), FailureKind::Cancelled, "{error}");
        (there.join().expect("no panic"), process.join().expect("no panic"))
    });
    let error = waiters.0.expect_err("it never connects");
    assert!(matches!(error.kind(), FailureKind::PeerLost(_) | FailureKind::Cancelled), "{error}");
    if let Err(error) = waiters.1 {
        assert_eq!(*error.kind(), FailureKind::PeerLost(LostReason::Shutdown), "{error}");
    }
    // Whatever is asked of an ended tree fails at once, the root itself included.
    let start = Instant::now();
    assert_eq!(*chain[0].ping().expect_err("it is gone").kind(), FailureKind::NoRoute);
    master.local().connect().expect_err("it has ended");
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    master.shutdown_with_grace(Duration::ZERO);
    drop(master);
    chain[0].ping().expect_err("it is gone");
}

fn panics() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let theirs = context.clone();
    std::panic::set_hook(Box::new(|_| ()));
    let panicked = std::thread::spawn(move || {
        let _pending = theirs.start_echo(b"x").expect("it is sent");
        let mut process = theirs.command("sh").args(["-c", "printf r; exec sleep 600"]).spawn().expect("a shell");
        assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
        panic!("as the check wants it");
    });
    panicked.join().expect_err("it panics");
    let _ = std::panic::take_hook();
    within(Duration::from_secs(5), "its process runs on", || context.info().expect("an answer").processes == 0);
}

fn two_masters() {
    let (one, two) = (master(), master());
    let (a, b) = (one.local().connect().expect("a context"), two.local().connect().expect("a context"));
    assert_eq!(a.address(), b.address());
    assert_ne!(a.info().expect("an answer").hello.pid, b.info().expect("an answer").hello.pid);
    one.shutdown();
    a.ping().expect_err("it is gone");
    b.ping().expect("an answer");
}

fn shared_master() {
    let master = master();
    let contexts: Vec<Context> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| master.local().connect().expect("a context"))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    // The thread that started them has ended: they live.
    std::thread::sleep(Duration::from_millis(100));
    for context in &contexts {
        context.ping().expect("an answer");
    }
    // Several threads may end it at once.
    std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| master.shutdown_with_grace(Duration::from_millis(100)))));
    });
    assert!(children().is_empty());
}

fn handles() {
    fn shared<T: Send + Sync>() {}
    fn handle<T: Clone + Send + Sync>() {}
    handle::<Context>();
    handle::<Command>();
    handle::<Error>();
    handle::<Builder>();
    shared::<Master>();
    shared::<Agents>();
    shared::<Pending<Bytes>>();
    shared::<Process>();
    shared::<Input>();
    shared::<Output>();
}
