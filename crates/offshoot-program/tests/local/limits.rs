//! Out of descriptors, out of processes: an error for the new operation alone.

use std::os::unix::process::CommandExt;
use std::process::Command;

use offshoot_wire::{FailureKind, Ran, Resource};
use rustix::process::{Resource as Limited, Rlimit, getrlimit, setrlimit};

use crate::{Check, NOT_RUN, master};

pub(crate) const CHECKS: &[Check] = &[
    ("out_of_descriptors_only_the_new_connect_fails", descriptors),
    ("out_of_descriptors_on_a_target_only_the_new_program_fails", descriptors_there),
    ("out_of_processes_only_the_new_connect_fails", processes),
    ("a_master_that_cannot_start_says_why", no_master),
];

fn limit(of: Limited, to: u64) {
    let Rlimit { maximum, .. } = getrlimit(of);
    setrlimit(of, Rlimit { current: Some(to), maximum }).expect("a limit");
}

fn open() -> u64 {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count() as u64
}

fn descriptors() {
    let master = master();
    let first = master.local().connect().expect("a context");
    first.ping().expect("an answer");
    let before = getrlimit(Limited::Nofile).current.expect("a limit");
    // Room for a few contexts only. The descriptors need not be numbered without gaps.
    let highest = open() + 24;
    limit(Limited::Nofile, highest);
    let mut contexts = Vec::new();
    let error = loop {
        match master.local().connect() {
            Ok(context) => contexts.push(context),
            Err(error) => break error,
        }
        assert!(contexts.len() < 100, "the limit has no effect");
    };
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Exhausted(Resource::Descriptors), Ran::NotSent), "{error}");
    assert!(!contexts.is_empty());
    for context in contexts.iter().chain([&first]) {
        context.ping().expect("the others go on");
        assert!(crate::exec::sh(context, "exit 0").status.success());
    }
    // A thread without a descriptor to wake it waits all the same.
    let pinged = std::thread::scope(|scope| scope.spawn(|| first.ping().is_ok()).join());
    assert!(pinged.expect("no panic"));
    contexts.pop().expect("one").shutdown().expect("it ends");
    limit(Limited::Nofile, before);
    master.local().connect().expect("there is room again").ping().expect("an answer");
}

fn descriptors_there() {
    // The highest one too: an agent takes what it may.
    setrlimit(Limited::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).expect("a limit");
    let master = master();
    let context = master.local().connect().expect("a context");
    let command = || context.command("sleep").arg("600");
    let mut running = Vec::new();
    let error = loop {
        let mut process = command().spawn().expect("it is asked");
        match process.event_before(std::time::Instant::now() + std::time::Duration::from_millis(200)) {
            Err(error) if *error.kind() == FailureKind::Timeout => running.push(process),
            Err(error) => break error,
            Ok(event) => panic!("{event:?}"),
        }
        assert!(running.len() < 64, "the limit has no effect");
    };
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Exhausted(Resource::Descriptors), Ran::NotSent), "{error}");
    context.ping().expect("the context goes on");
    let error = context.local().connect().expect_err("no descriptors");
    assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Descriptors), "{error}");
    assert_eq!(context.info().expect("an answer").processes as usize, running.len());
    running.clear();
    crate::within(std::time::Duration::from_secs(10), "there is no room again", || {
        context.command("true").status().is_ok_and(|status| status.success())
    });
}

/// The number of an account that has no other process.
const NOBODY_ELSE: u32 = 62_011;

fn processes() {
    if offshoot_mux::process::effective_uid() != 0 {
        println!("{NOT_RUN}needs an account without other processes: only root can make one");
        return;
    }
    // The limit counts all processes of an account, and does not hold for root.
    let status = Command::new("/proc/self/exe")
        .arg("role:processes")
        .current_dir("/")
        .uid(NOBODY_ELSE)
        .gid(NOBODY_ELSE)
        .status()
        .expect("a process");
    assert!(status.success(), "{status}");
}

/// Meets its limit of processes.
pub(crate) fn few_processes() {
    let master = master();
    // Threads count too: two of this process, and two of each context.
    limit(Limited::Nproc, 12);
    let first = master.local().connect().expect("a context");
    let mut contexts = Vec::new();
    let error = loop {
        match master.local().connect() {
            Ok(context) => contexts.push(context),
            Err(error) => break error,
        }
        assert!(contexts.len() < 12, "the limit has no effect");
    };
    assert_eq!(error.ran(), Ran::NotSent, "{error}");
    for context in contexts.iter().chain([&first]) {
        context.ping().expect("the others go on");
    }
    // Below it the limit is met too: by a program, and by a connect.
    let mut running = Vec::new();
    while running.len() < 12 {
        let mut process = first.command("sleep").arg("600").spawn().expect("it is asked");
        match process.event_before(std::time::Instant::now() + std::time::Duration::from_millis(200)) {
            Err(error) if *error.kind() == FailureKind::Timeout => running.push(process),
            Err(error) => {
                assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Processes), "{error}");
                break;
            }
            Ok(event) => panic!("{event:?}"),
        }
    }
    assert!(running.len() < 12, "the limit has no effect");
    let error = first.local().connect().expect_err("no processes");
    assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Processes), "{error}");
    first.ping().expect("the context goes on");
    drop((running, master));
    assert_eq!(crate::children(), []);
}

fn no_master() {
    let before = getrlimit(Limited::Nofile).current.expect("a limit");
    // Counted while there is room for it: listing them takes a descriptor, which a limit as low as this may not leave.
    let used = open() - 1;
    for room in 0..6 {
        limit(Limited::Nofile, used + room);
        match crate::builder().build() {
            Ok(master) => drop(master),
            Err(error) => assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Descriptors), "{error}"),
        }
    }
    limit(Limited::Nofile, 3);
    crate::builder().build().expect_err("there is no room");
    limit(Limited::Nofile, before);
    drop(master());
}
