//! How workers come and go.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use offshoot::{Error, FailureKind, Group, LostReason, Master, Ran, Select, Worker};
use offshoot_mux::tree::Proc;

use crate::functions::*;
use crate::{Check, WITHOUT_INIT, all_wanted, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("one_worker_serves_all_calls_of_a_context_however_they_begin", one_worker),
    ("a_crash_ends_the_workers_calls_and_the_next_call_gets_a_fresh_one", crash),
    ("a_worker_that_is_lost_between_calls_costs_no_call", lost_between),
    ("a_call_that_has_to_begin_again_holds_up_nobody_who_looks_for_others", begins_again),
    ("a_call_to_a_context_that_is_gone_ends_at_once", context_gone),
    ("a_timeout_ends_the_wait_and_the_function_can_see_it", timeout),
    ("a_wait_for_an_agent_that_is_stopped_ends_by_its_timeout", stopped),
    ("a_call_that_is_dropped_is_cancelled", dropped),
    ("a_call_that_is_given_up_sends_no_more_of_its_arguments", given_up),
    ("r6_a_timeout_at_any_moment_tells_the_truth_about_whether_it_ran", truth),
    ("a_function_waits_for_its_own_processes", waits_for_its_own),
    ("r7_what_a_function_started_ends_with_its_worker", nothing_left_of_a_crash),
    ("r7_what_a_function_started_ends_with_the_guard_of_its_worker", nothing_left_of_a_guard),
    ("r7_a_function_that_never_returns_ends_with_the_tree", spinning),
    ("r8_an_agent_answers_while_its_worker_spins", agent_answers),
    ("r5_a_million_calls_leave_the_memory_of_all_processes_flat", flat),
    ("a_function_can_grow_contexts_and_call_there", grows),
    ("a_program_without_init_that_is_started_as_a_worker_ends_with_the_reason_and_its_caller_is_told", no_fork_bomb),
];

fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn one_worker() {
    let master = master();
    let context = local(&master);
    let began: Vec<_> = (0..20).map(|_| count::start(&context)).collect();
    let threads: Vec<_> = (0..5)
        .map(|_| {
            let context = context.clone();
            std::thread::spawn(move || count::on(&context).expect("a value"))
        })
        .collect();
    let mut counted: Vec<u32> = began.into_iter().map(|call| call.wait().expect("a value")).collect();
    counted.extend(threads.into_iter().map(|thread| thread.join().expect("no panic")));
    counted.sort_unstable();
    assert_eq!(counted, (1..=25).collect::<Vec<_>>(), "not one process counted");
    assert_eq!(context.info().expect("an answer").children.len(), 1);
    let other = local(&master);
    assert_eq!(count::on(&other).expect("a value"), 1, "another context has another worker");
}

fn crash() {
    let master = master();
    let (context, sibling) = (local(&master), local(&master));
    let elsewhere = pid::on(&sibling).expect("a value");
    let goes_on = until_cancelled::start(&sibling);
    let killed = |worker: u32| {
        let call = until_cancelled::start(&context);
        assert!(!was_cancelled::on(&context).expect("it runs beside"));
        let status = Command::new("kill").args(["-9", &worker.to_string()]).status().expect("kill");
        assert!(status.success());
        call.wait()
    };
    let mut before = 0;
    for reason in [LostReason::Signalled(6), LostReason::Exited(3), LostReason::Signalled(9)] {
        let worker = pid::on(&context).expect("a fresh worker");
        assert_ne!(worker, before);
        before = worker;
        let beside = until_cancelled::start(&context);
        let end = match reason {
            LostReason::Signalled(6) => abort::on(&context),
            LostReason::Exited(code) => exit::on(&context, code),
            _ => killed(worker),
        };
        let lost = FailureKind::PeerLost(reason);
        for error in [end, beside.wait()].map(|end| end.expect_err("its worker is gone")) {
            assert_eq!((error.kind(), error.ran()), (&lost, Ran::MaybeExecuted), "{error}");
        }
        context.ping().expect("the agent goes on");
    }
    assert_ne!(pid::on(&context).expect("a fresh worker"), before);
    assert!(!goes_on.is_done(), "a call of another context ended with it: {:?}", goes_on.wait());
    assert_eq!(pid::on(&sibling).expect("a value"), elsewhere);
}

fn lost_between() {
    let master = master();
    let context = local(&master);
    let mut before = 0;
    for _ in 0..3 {
        let now = pid::on(&context).expect("a value");
        assert_ne!(now, before);
        before = now;
        let status = Command::new("kill").args(["-9", &now.to_string()]).status().expect("kill");
        assert!(status.success());
        within("the agent still has its worker", || context.info().expect("an answer").children.is_empty());
    }
}

fn begins_again() {
    let master = master();
    let (context, other) = (local(&master), local(&master));
    let file = std::env::temp_dir().join(format!("offshoot-begins-again-{}", std::process::id()));
    nothing::on(&other).expect("a value");
    let agent = context.hello().expect("a hello").pid;
    let signal = |name: &str, pid: u32| {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill").success());
    };
    // Calls wait for room on the link, behind 12 MB, when it is told that their worker is gone.
    let stale = |calls: u32| {
        let before = pid::on(&context).expect("a value");
        signal("-STOP", agent);
        signal("-KILL", before);
        let ahead: Vec<_> = (0..200).map(|_| context.start_echo(&[0; 60_000]).expect("it is asked")).collect();
        let started: Vec<_> = (0..calls).map(|_| until_file::start(&context, file.clone())).collect();
        signal("-CONT", agent);
        for echo in ahead {
            echo.wait().expect("an answer");
        }
        (before, started)
    };

    let (before, mut held) = stale(1);
    let held = held.pop().expect("one");
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert!(!held.is_done(), "a wait would not return at once: {:?}", held.wait());
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::write(&file, "").expect("a file");
    let after = held.wait().expect("nothing had run, so it ran in another worker");
    assert!(after != 0 && after != before, "{after}");
    std::fs::remove_file(&file).expect("ours");

    let (before, held) = stale(3);
    let mut select = Select::new(held);
    let began = Instant::now();
    assert!(select.next_timeout(Duration::from_millis(500)).is_none(), "nothing has ended");
    select.add(until_file::start(&other, "/".into()));
    let done = select.next_timeout(Duration::from_secs(15)).expect("the other has ended");
    assert_eq!(done.index(), 3, "{:?} after {:?}", done.result(), began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // They run side by side: none waited for another one's wait.
    std::fs::write(&file, "").expect("a file");
    let again: Vec<u32> = select.map(|done| done.into_result().expect("it ran in another worker")).collect();
    std::fs::remove_file(&file).expect("ours");
    assert!(again.len() == 3 && again.iter().all(|pid| *pid == again[0] && *pid != 0 && *pid != before), "{again:?}");
}

fn given_up() {
    let master = master();
    let context = local(&master);
    let worker = pid::on(&context).expect("a value").to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &worker]).status().expect("kill").success());
    let senders = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
        names.filter(|name| name.starts_with("offshoot-args")).count()
    };
    signal("-STOP");
    let large = vec![7; 8 << 20];
    let late = same::call(large.clone(), String::new(), BTreeMap::new()).timeout(Duration::from_millis(100));
    let error = late.on(&context).expect_err("a timeout");
    assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
    let pending = same::start(&context, large, String::new(), BTreeMap::new());
    within("nothing is sent", || senders() == 1);
    drop(pending);
    within("what nobody waits for is still being sent", || senders() == 0);
    signal("-CONT");
    nothing::on(&context).expect("a value");
}

fn context_gone() {
    let master = master();
    let context = local(&master);
    pid::on(&context).expect("a value");
    context.shutdown().expect("an end");
    let began = Instant::now();
    let error = pid::on(&context).expect_err("it is gone");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::NoRoute, Ran::NotSent), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));
    let error = pid::start(&context).wait().expect_err("it is gone");
    assert_eq!(error.kind(), &FailureKind::NoRoute, "{error}");
}

fn timeout() {
    let master = master();
    let context = local(&master);
    nothing::on(&context).expect("a value");
    let began = Instant::now();
    let error = until_cancelled::call().timeout(Duration::from_millis(100)).on(&context).expect_err("a timeout");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Timeout, Ran::MaybeExecuted), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(100), "it did not wait");
    within("the function does not see it", || was_cancelled::on(&context).expect("a value"));
}

fn stopped() {
    let master = master();
    let context = local(&master);
    let error = Worker::on(&context).start_timeout(Duration::from_millis(1)).start().expect_err("too soon");
    assert!(matches!(error.kind(), FailureKind::StageTimeout(_) | FailureKind::Timeout), "{error}");
    let group = Group::of([context.clone()]);
    let agent = context.hello().expect("a hello").pid.to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &agent]).status().expect("kill").success());
    signal("-STOP");
    let short = Duration::from_millis(50);
    let mut errors: Vec<Option<Error>> = Vec::new();
    errors.extend(group.echo_timeout(b"", short).into_iter().map(Result::err));
    errors.extend(group.info_timeout(short).into_iter().map(Result::err));
    errors.extend(group.content_stats_timeout(short).into_iter().map(Result::err));
    errors.extend(group.shutdown_timeout(short).into_iter().map(Result::err));
    signal("-CONT");
    let kinds: Vec<_> = errors.iter().flatten().map(Error::kind).collect();
    assert_eq!(kinds, [&FailureKind::Timeout; 4], "{errors:?}");
    within("its end was taken back", || context.ping().is_err());
}

fn dropped() {
    let master = master();
    let context = local(&master);
    let pending = until_cancelled::start(&context);
    nothing::on(&context).expect("a value");
    drop(pending);
    within("the function does not see it", || was_cancelled::on(&context).expect("a value"));
    // Also while its worker is still being started.
    let other = local(&master);
    drop(until_cancelled::start(&other));
    nothing::on(&other).expect("a value");
    let early = until_cancelled::start(&other).wait_timeout(Duration::from_millis(20)).expect_err("a timeout");
    assert_eq!(early.kind(), &FailureKind::Timeout);
}

fn truth() {
    let master = master();
    let (mut early, mut late) = (0, 0);
    // Around the time that a worker takes to start.
    for ms in (0..60).map(|step| step * step / 4) {
        if late > 2 {
            break;
        }
        let context = local(&master);
        let counted = match count::call().timeout(Duration::from_millis(ms)).on(&context) {
            Ok(first) => Some(first),
            Err(error) => {
                assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
                (error.ran() == Ran::NotSent).then_some(0)
            }
        };
        let next = count::on(&context).expect("a value");
        match counted {
            Some(before) => assert_eq!(next, before + 1, "after {ms} ms"),
            None => assert!(next <= 2, "{next} after {ms} ms"),
        }
        early += u32::from(counted == Some(0));
        late += u32::from(counted == Some(1));
        context.shutdown().expect("an end");
    }
    assert!(early > 0 && late > 0, "{early} too early, {late} in time");
}

fn waits_for_its_own() {
    let master = master();
    let calls: Vec<_> = (0..3).map(|_| waits_late::start(&local(&master))).collect();
    for call in calls {
        assert_eq!(call.wait().expect("it ran"), Ok(true), "somebody else has waited for it");
    }
}

fn nothing_left_of_a_crash() {
    let master = master();
    let context = local(&master);
    let left = daemon::on(&context).expect("a value");
    assert!(lives(left));
    abort::on(&context).expect_err("a crash");
    within("what the function started lives on", || !lives(left));
}

fn nothing_left_of_a_guard() {
    for own in [false, true] {
        let master = master();
        let above = local(&master);
        // Below an agent, and below a process of the user's, which adopts nobody.
        let context = if own { master.context().clone() } else { above.clone() };
        let beside = above.command("sh").args(["-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]).output();
        let beside =
            String::from_utf8(beside.expect("a shell").stdout).expect("a number").trim().parse().expect("a number");
        let left = daemon::on(&context).expect("a value");
        let worker = pid::on(&context).expect("a value");
        let guard = Proc::of(worker).expect("the worker lives").ppid;
        let began = Instant::now();
        let status = Command::new("kill").args(["-9", &guard.to_string()]).status().expect("kill");
        assert!(status.success());
        // Whoever adopts them may not have reaped them.
        within("what the guard had adopted lives on", || Proc::of(left).is_none());
        within("the worker lives on", || Proc::of(worker).is_none());
        assert!(began.elapsed() < 3 * Duration::from_secs(2), "all gone after {:?}", began.elapsed());
        assert!(lives(beside), "what another started was ended, too");
        assert_ne!(pid::on(&context).expect("a fresh worker"), worker);
    }
}

fn spinning() {
    let master = master();
    let context = local(&master);
    let started = daemon::on(&context).expect("a value");
    let pending = spin::start(&context);
    context.ping().expect("an answer");
    let began = Instant::now();
    master.shutdown();
    assert!(began.elapsed() < Duration::from_secs(21), "the end took {:?}", began.elapsed());
    let error = pending.wait().expect_err("the tree has ended");
    assert!(matches!(error.kind(), FailureKind::PeerLost(_) | FailureKind::NoRoute), "{error}");
    within("what the function started lives on", || !lives(started));
}

fn agent_answers() {
    let master = master();
    let context = local(&master);
    let spinning: Vec<_> = (0..4).map(|_| spin::start(&context)).collect();
    nothing::on(&context).expect("a value");
    for _ in 0..20 {
        context.ping().expect("an answer");
    }
    assert_eq!(context.command("echo").arg("on").output().expect("a command").stdout, b"on\n");
    drop(spinning);
}

fn grows() {
    let master = master();
    let context = local(&master);
    let (worker, below, path) = deeper::on(&context).expect("it ran").expect("a context");
    assert!(worker != below, "{worker}");
    assert_eq!(path, "local -> worker -> local");
    let error = deeper::on(&context).map(|result| result.map(|_| ())).expect("it ran");
    assert_eq!(error, Ok(()), "a second time");
}

/// A program in which `init` does not come first: `never`, or behind a `look` at the arguments, which a worker's are not.
/// What its call failed with is on its output.
pub(crate) fn without_init(way: &std::ffi::OsStr) -> ExitCode {
    let as_worker = std::env::args().nth(1).is_some_and(|argument| argument == "offshoot-worker");
    if way == "look" {
        if as_worker {
            eprintln!("usage: this program [FOLDER]");
            return ExitCode::from(2);
        }
        offshoot::init();
    }
    let master = Master::new().expect("a master");
    let context = if way == "look" { local(&master) } else { master.context().clone() };
    for error in [nothing::on(&context).expect_err("no worker"), nothing::on(&context).expect_err("no worker")] {
        println!("{:?} {:?} {error:?}", error.kind(), error.ran());
    }
    println!("{:?}", master.local().connect().err());
    ExitCode::SUCCESS
}

fn no_fork_bomb() {
    let run = |way: &str, arguments: &[&str]| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let output = command.env(WITHOUT_INIT, way).args(arguments).stdin(Stdio::null()).output().expect("a process");
        let [out, errors] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        (output.status.code(), out, errors)
    };
    const ADVICE: &str = "call `offshoot::init()` first thing in `main`";
    let (code, out, errors) = run("never", &["offshoot-worker"]);
    assert_eq!((code, &out[..]), (Some(125), ""), "{errors}");
    assert!(errors.contains(ADVICE), "{errors}");

    // Whoever calls is told the same: where `init` never runs before anything is started, else with what `main` said.
    let (code, out, errors) = run("never", &[]);
    assert_eq!((code, &errors[..]), (Some(0), ""), "{out}");
    assert_eq!(out.matches("Unsupported NotSent ").count(), 2, "{out}");
    assert_eq!(out.matches(ADVICE).count(), 3, "{out}");
    assert!(!out.contains("started as an offshoot agent or worker"), "a process was started that cannot be one: {out}");

    let (code, out, errors) = run("look", &[]);
    assert_eq!((code, &errors[..]), (Some(0), ""), "{out}");
    assert_eq!(out.matches("Connect(Hello) NotSent ").count(), 2, "{out}");
    assert_eq!(out.matches("\n  usage: this program [FOLDER]\n").count(), 2, "{out}");
    assert_eq!(out.matches(ADVICE).count(), 2, "{out}");
}

/// What the processes of a call have in use: this one, the agent and the worker, in bytes.
fn memory_of(pids: &[u32]) -> Vec<u64> {
    let of = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kilobytes| kilobytes * 1024)
    };
    pids.iter().map(of).collect()
}

/// By how much a process may grow in the second half: some pages of an allocator that saw a fuller moment, 16 bytes a call.
const FLAT: u64 = 3 << 19;

/// A million where all is wanted, else a fifth of that. The first hundred thousand fill what is kept for reuse.
fn flat() {
    let calls: u32 = if all_wanted() { 1_000_000 } else { 200_000 };
    let master = master();
    let context = local(&master);
    let worker = pid::on(&context).expect("a value");
    let pids = [std::process::id(), context.hello().expect("a hello").pid, worker];
    let run = |numbers: std::ops::Range<u32>| {
        for batch in numbers.step_by(1000) {
            let started: Vec<_> = (batch..batch + 1000).map(|number| twice::start(&context, number)).collect();
            for (number, call) in (batch..).zip(started) {
                assert_eq!(call.wait().expect("a value"), 2 * number);
            }
        }
    };
    run(0..calls / 2);
    let before = memory_of(&pids);
    run(calls / 2..calls);
    let after = memory_of(&pids);
    for (before, after) in before.iter().zip(&after) {
        assert!(*before > 0 && *after < before + FLAT, "{before} bytes after half of the calls, {after} at the end");
    }
    assert_eq!(pid::on(&context).expect("a value"), worker, "another worker");
}
