//! Limits of workers, workers of their own, and calls that nobody waits for.

use std::io::Read;
use std::time::{Duration, Instant};

use log::LevelFilter;
use offshoot::{Chain, Worker, WorkerLimits, prelude::*};
use offshoot::{Error, FailureKind, LostReason, Ran};

use crate::functions::*;
use crate::logs::keep;
use crate::{Check, local, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("an_idle_worker_ends_and_the_next_call_gets_another", idle),
    ("a_worker_that_has_work_or_children_is_not_idle", not_idle),
    ("calls_in_a_row_wake_no_thread_of_the_worker_but_the_one_that_runs_them", in_a_row),
    ("calls_side_by_side_keep_to_the_limit_that_the_user_sets", calls_limit),
    ("a_call_for_which_no_thread_could_be_had_gets_one_later_though_another_waits_for_it", short_of_threads),
    ("a_worker_beyond_its_memory_ends_with_its_calls_and_the_next_call_gets_another", memory_limit),
    ("arguments_far_beyond_the_limit_are_refused_before_they_are_encoded_whole", huge_arguments),
    ("a_worker_of_its_own_has_its_own_statics_and_ends_with_its_last_handle", own),
    ("the_output_of_a_worker_of_its_own_can_be_read_as_streams", streamed),
    ("a_cancelled_call_ends_its_own_worker_and_all_that_it_started", killed),
    ("only_a_worker_of_its_own_is_ended_by_a_cancelled_call", not_killed),
    ("a_call_that_never_ran_or_has_ended_ends_no_worker", spared),
    ("r5_no_more_workers_run_in_a_context_than_the_user_allows", workers_limit),
    ("a_detached_call_runs_and_its_failure_is_logged", detached),
];

fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn limited(limits: WorkerLimits) -> Master {
    Master::builder().worker_limits(limits).build().expect("a master")
}

fn idle() {
    let master = limited(WorkerLimits::default().idle(Some(Duration::from_millis(50))));
    let context = local(&master);
    let first = pid::on(&context).expect("a value");
    within("it goes on", || !lives(first));
    assert_ne!(pid::on(&context).expect("a value"), first);
    // Calls all the while, also in the moments in which it ends: none of them fails.
    let end = Instant::now() + Duration::from_secs(5);
    let mut wait = 1;
    while Instant::now() < end {
        nothing::on(&context).expect("a value");
        wait = wait * 7 % 1201;
        std::thread::sleep(Duration::from_millis(wait));
    }
}

fn short_of_threads() {
    let master = master();
    let context = local(&master);
    let (sender, receiver) = offshoot::channel(1);
    let waits = threads_are_short::start(&context, sender, Duration::from_millis(1200));
    receiver.recv().expect("it was told").expect("a message");
    let comes = come::start(&context);
    assert!(waits.wait().expect("it ran").expect("it could be made short"), "it was waited for in vain");
    comes.wait().expect("it ran");
}

fn in_a_row() {
    const CALLS: u64 = 1000;
    let master = master();
    let context = local(&master);
    let turns = || turns_of_the_broker::on(&context).expect("it ran").expect("/proc");
    turns();
    let before = turns();
    for _ in 0..CALLS {
        nothing::on(&context).expect("a value");
    }
    // Its timers, and a call that came while a thread was about to wait. It was one for each call.
    let more = turns() - before;
    assert!(more < CALLS / 4, "{more} turns beside {CALLS} calls");
    // Where functions run for long the others come by the broker, as many as there are.
    let busy: Vec<_> = (0..3).map(|_| until_cancelled::start(&context)).collect();
    for _ in 0..100 {
        nothing::on(&context).expect("a value");
    }
    drop(busy);
    within("the cancels are read", || was_cancelled::on(&context).expect("a value"));
}

fn not_idle() {
    let master = limited(WorkerLimits::default().idle(Some(Duration::from_millis(50))));
    let context = local(&master);
    let worker = pid::on(&context).expect("a value");
    let busy = until_cancelled::start(&context);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pid::on(&context).expect("a value"), worker, "it ended under a call");
    drop(busy);
    deeper::on(&context).expect("it ran").expect("a context");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pid::on(&context).expect("a value"), worker, "it ended above a child");
}

fn calls_limit() {
    for (limit, most) in [(1, 1), (3, 3)] {
        let master = limited(WorkerLimits::default().calls(limit));
        let context = local(&master);
        let calls: Vec<_> = (0..12).map(|_| crowd::start(&context)).collect();
        let seen = calls.into_iter().map(|call| call.wait().expect("a value")).max();
        assert_eq!(seen, Some(most));
    }
}

fn memory_limit() {
    let master = limited(WorkerLimits::default().memory(Some(2 << 30)));
    let context = local(&master);
    assert_eq!(allocate::on(&context, 1 << 20).expect("a value"), 1 << 20);
    let error = allocate::on(&context, 4 << 30).expect_err("more than it may");
    assert_eq!(error.ran(), Ran::MaybeExecuted);
    assert!(matches!(error.kind(), FailureKind::PeerLost(LostReason::Signalled(6))), "{error}");
    assert_eq!(allocate::on(&context, 1 << 20).expect("a value"), 1 << 20);
}

/// The limit as one reads it, and what takes more.
#[track_caller]
pub(crate) fn says_how_large_and_what_to_do(error: &Error) {
    assert!(error.message().contains("longer than 64 MiB"), "{error:?}");
    assert!(error.hint().contains("offshoot::pipe()") && error.hint().contains("RemoteFile"), "{error:?}");
}

fn huge_arguments() {
    struct Endless(u64);
    impl serde::Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut list = serializer.serialize_seq(Some(self.0 as usize / 1024))?;
            (0..self.0 / 1024).try_for_each(|_| list.serialize_element(&[7u64; 16][..]))?;
            list.end()
        }
    }
    let master = master();
    let context = local(&master);
    let began = Instant::now();
    let call = offshoot::__expansion::call::<_, ()>("any::function", &(Endless(10 << 30),));
    let error = call.on(&context).expect_err("too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::NotSent), "{error}");
    says_how_large_and_what_to_do(&error);
    assert!(began.elapsed() < Duration::from_secs(30), "all 10 GiB were encoded: {:?}", began.elapsed());
}

fn own() {
    let master = master();
    let context = local(&master);
    count::on(&context).expect("a value");
    let worker = Worker::on(&context).calls(1).start().expect("a worker");
    assert_eq!(worker.path(), "local -> worker");
    assert_eq!(count::on(&worker).expect("a value"), 1, "it shares the statics of another process");
    let there = pid::on(&worker).expect("a value");
    assert_ne!(there, pid::on(&context).expect("a value"));
    let calls: Vec<_> = (0..4).map(|_| crowd::start(&worker)).collect();
    assert_eq!(calls.into_iter().map(|call| call.wait().expect("a value")).max(), Some(1));
    let other = worker.clone();
    drop(worker);
    assert_eq!(pid::on(&other).expect("a value"), there);
    drop(other);
    within("it outlives its handles", || !lives(there));
    assert_eq!(count::on(&context).expect("a value"), 2);
}

fn streamed() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    let (worker, mut out, mut err) = Worker::on(&context).start_streamed().expect("a worker");
    let there = pid::on(&worker).expect("a value");
    print_lines::on(&worker).expect("a value").expect("written");
    let mut bytes = vec![0; "one\n\ntwo\nof a child\n".len()];
    out.read_exact(&mut bytes).expect("output");
    assert_eq!(bytes, b"one\n\ntwo\nof a child\n");
    let mut bytes = vec![0; "an error\nof a child, too\n".len()];
    err.read_exact(&mut bytes).expect("output");
    assert_eq!(bytes, b"an error\nof a child, too\n");
    // What nobody reads any more stalls nobody.
    drop(out);
    print_raw::on(&worker, vec![b'x'; 1 << 20]).expect("a value").expect("written");
    assert_eq!(kept.texts("stdout"), Vec::<String>::new(), "it went to the log, too");
    drop(err);
    within("it goes on when nobody attends it", || !lives(there));
}

fn killed() {
    let master = master();
    let context = local(&master);
    let folder = std::env::temp_dir().join(format!("offshoot-killed-{}", std::process::id()));
    for by_timeout in [true, false] {
        let worker = Worker::on(&context).start().expect("a worker");
        let call = sleep_beside::call(folder.clone()).kill_on_cancel().timeout(Duration::from_secs(20));
        let pending = call.start(&worker);
        within("it did not begin", || std::fs::read_to_string(&folder).is_ok_and(|pids| pids.contains(' ')));
        let pids = std::fs::read_to_string(&folder).expect("two numbers");
        std::fs::remove_file(&folder).expect("a file");
        let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().expect("a number")).collect();
        if by_timeout {
            let error = pending.wait_timeout(Duration::from_millis(10)).expect_err("a timeout");
            assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
        } else {
            drop(pending);
        }
        within("something of it goes on", || pids.iter().all(|pid| !lives(*pid)));
    }
    // A call that has ended ends nothing.
    let worker = Worker::on(&context).start().expect("a worker");
    let there = pid::call().kill_on_cancel().on(&worker).expect("a value");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pid::on(&worker).expect("a value"), there);
}

fn not_killed() {
    let master = master();
    let context = local(&master);
    let error = pid::call().kill_on_cancel().on(&context).expect_err("refused");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Unsupported, Ran::NotSent), "{error}");
    assert!(error.hint().contains("Worker::on"), "{error}");
}

fn spared() {
    let master = master();
    let context = local(&master);
    let worker = Worker::on(&context).start().expect("a worker");
    let there = pid::on(&worker).expect("a value");
    let job = until_cancelled::start(&worker);
    // Refused, before anything was sent.
    let error = length::call("x".repeat(65 << 20)).kill_on_cancel().on(&worker).expect_err("too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::NotSent), "{error}");
    let chain = Chain::new();
    note::call(1000, 0, vec![]).serial(&chain).on(&worker).expect("it ran").expect_err("an error");
    let behind = note::call(1, 0, vec![]).serial(&chain).kill_on_cancel();
    assert_eq!(behind.on(&worker).expect_err("it is behind an error").kind(), &FailureKind::Cancelled);
    // Ended, and never waited for; looked at before it is dropped, and not.
    let looked_at = nothing::call().kill_on_cancel().start(&worker);
    within("it does not end", || looked_at.is_done());
    drop(looked_at);
    let unseen = nothing::call().kill_on_cancel().start(&worker);
    std::thread::sleep(Duration::from_millis(500));
    drop(unseen);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!job.is_done(), "the worker was ended, and the job in it: {:?}", job.wait());
    assert_eq!(pid::on(&worker).expect("a value"), there);
}

fn detached() {
    let kept = keep(LevelFilter::Info);
    let master = master();
    let context = local(&master);
    print_raw::call(b"ran\n".to_vec()).detached(&context);
    // Of this one nothing is told, since the logger panics at it. The others are told of all the same.
    panic::call("the logger panics".into()).detached(&context);
    std::thread::sleep(Duration::from_millis(300));
    size::call("/does/not/exist".into()).detached(&context);
    panic::call("as told".into()).detached(&context);
    own_error::call(12).detached(&context);
    nothing::call().detached(&context);
    within("not all was told", || kept.texts("detached").len() == 3 && kept.texts("stdout") == ["ran"]);
    let all = kept.texts("detached").join("\n");
    for part in [
        "No such file",
        "functions::size",
        "local",
        "as told",
        "functions::own_error",
        "functions::panic, detached on local, failed",
    ] {
        assert!(all.contains(part), "{part} is not in:\n{all}");
    }
}

fn workers_limit() {
    let master = limited(WorkerLimits::default().count(2));
    let (a, b) = (local(&master), local(&master));
    let first = pid::on(&a).expect("a value");
    let own = Worker::on(&a).start().expect("the second");
    let error = Worker::on(&a).start().expect_err("a third");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Busy, Ran::NotSent), "{error}");
    assert!(error.message().contains("2 workers") && error.hint().contains("WorkerLimits::count"), "{error}");
    // Each context has a limit of its own.
    let others: Vec<_> = (0..2).map(|_| Worker::on(&b).start().expect("there is room")).collect();
    assert_eq!(pid::on(&b).expect_err("a third").kind(), &FailureKind::Busy);
    drop(others);
    within("a place is not given back", || pid::on(&b).is_ok());
    // One that died makes room; so does one that is dropped.
    abort_saying::on(&own, "on purpose".into()).expect_err("it died");
    within("a place is not given back", || Worker::on(&a).start().is_ok());
    within("a place is not given back", || Worker::on(&a).start().is_ok());
    assert_eq!(pid::on(&a).expect("a value"), first, "the shared one was ended");
}
