//! Out of descriptors, out of processes: an error for the new operation alone.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use offshoot_connect::methods::Local;
use offshoot_wire::{FailureKind, Ran, Resource};
use rustix::process::{Resource as Limited, Rlimit, getrlimit, setrlimit};

use crate::{Check, NOT_RUN, master};

pub(crate) const CHECKS: &[Check] = &[
    ("out_of_descriptors_only_the_new_connect_fails", descriptors),
    ("out_of_descriptors_on_a_target_only_the_new_program_fails", descriptors_there),
    ("out_of_processes_only_the_new_connect_fails", processes),
    ("out_of_processes_in_a_control_group_only_what_is_new_fails_and_works_again_with_room", grouped),
    ("connects_that_wait_their_turn_when_there_are_no_processes_left_fail_one_by_one", queued),
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
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Exhausted(Resource::Processes), Ran::NotSent), "{error}");
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

/// A control group of this process, with a limit of processes and threads.
struct Group {
    above: &'static Path,
    path: PathBuf,
}

impl Group {
    /// Makes one and moves this process into it; the reason where there is none to be had.
    fn enter() -> Result<Group, String> {
        let (old, new) = (Path::new("/sys/fs/cgroup/pids"), Path::new("/sys/fs/cgroup"));
        let above = if old.join("tasks").exists() { old } else { new };
        if above == new {
            // It may be allowed already, and where it cannot be, the limit is missing below.
            let _ = fs::write(new.join("cgroup.subtree_control"), "+pids");
        }
        let group = Group { above, path: above.join(format!("offshoot-check.{}", std::process::id())) };
        fs::create_dir(&group.path).map_err(|error| format!("no control group can be made: {error}"))?;
        if !group.path.join("pids.max").exists() {
            return Err("control groups have no limit of processes here".into());
        }
        let moved = fs::write(group.path.join("cgroup.procs"), "0");
        moved.map_err(|error| format!("this process cannot be moved into a control group: {error}"))?;
        Ok(group)
    }

    /// How many there are now.
    fn current(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("pids.current")).expect("a number");
        text.trim().parse().expect("a number")
    }

    /// Room for so many more; without a number for any.
    fn leave_room(&self, room: Option<u64>) {
        let most = room.map_or("max".into(), |room| (self.current() + room).to_string());
        fs::write(self.path.join("pids.max"), most).expect("a limit");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.above.join("cgroup.procs"), "0");
        let end = Instant::now() + Duration::from_secs(10);
        // Who has just ended still counts.
        while fs::remove_dir(&self.path).is_err() && self.path.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How long an error may take that nothing has to be waited for: five seconds, three times.
const SOON: Duration = Duration::from_secs(15);

fn grouped() {
    let group = match Group::enter() {
        Ok(group) => group,
        Err(reason) => return println!("{NOT_RUN}{reason}"),
    };
    let master = master();
    let first = master.local().connect().expect("a context");
    let works = |context: &offshoot_node::Context| crate::exec::sh(context, "exit 3").status.code() == Some(3);
    assert!(works(&first));
    // As many as a context has, one after the other: whichever of its processes and threads is refused.
    for room in 0..8 {
        for (who, context) in [("the master", None), ("a context", Some(&first))] {
            group.leave_room(Some(room));
            let began = Instant::now();
            let connected = context.map_or_else(|| master.local().connect(), |context| context.local().connect());
            match connected {
                Ok(context) => {
                    assert!(room >= 2, "{who} starts two processes where there is room for {room}");
                    group.leave_room(None);
                    context.shutdown().expect("it ends");
                }
                Err(error) => {
                    let kind = error.kind();
                    assert_eq!(*kind, FailureKind::Exhausted(Resource::Processes), "{who}, room for {room}: {error:?}");
                    assert_eq!(error.ran(), Ran::NotSent, "{error}");
                    assert!(began.elapsed() < SOON, "{who} took {:?}: {error}", began.elapsed());
                }
            }
            first.ping().expect("the others go on");
            let all_gone = || crate::children().iter().all(|child| child.state != 'Z') && first.info().is_ok();
            crate::within(SOON, "what has failed is still there", all_gone);
        }
    }
    group.leave_room(Some(0));
    let error = first.command("true").status().expect_err("no process");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::Exhausted(Resource::Processes), Ran::NotSent), "{error}");
    group.leave_room(None);
    assert!(works(&first));
    let second = first.local().connect().expect("there is room again");
    assert!(works(&second));
    drop((first, second, master));
    drop(group);
}

fn queued() {
    /// Many times as many as run at once.
    const CONNECTS: usize = 3000;
    let group = match Group::enter() {
        Ok(group) => group,
        Err(reason) => return println!("{NOT_RUN}{reason}"),
    };
    let master = master();
    let first = master.local().connect().expect("a context");
    let results = std::thread::scope(|scope| {
        let asked = scope.spawn(|| first.connect_all(vec![Local::new(); CONNECTS]));
        crate::within(SOON, "none has come", || !first.info().expect("an answer").children.is_empty());
        group.leave_room(Some(0));
        asked.join().expect("no panic")
    });
    assert_eq!(results.len(), CONNECTS);
    let (came, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(came.len() < CONNECTS / 2, "the limit has no effect");
    for error in errors.into_iter().filter_map(Result::err) {
        assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Processes), "{error:?}");
        assert_eq!(error.ran(), Ran::NotSent, "{error}");
    }
    first.ping().expect("it goes on");
    group.leave_room(None);
    first.local().connect().expect("there is room again").ping().expect("an answer");
    drop((first, master));
    drop(group);
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
