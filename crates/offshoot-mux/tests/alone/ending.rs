//! Process trees, and their end.

use std::time::{Duration, Instant};

use offshoot_mux::fallback::{NO_PIDFD, NO_PROC, NO_PROC_CHILDREN};
use offshoot_mux::{Child, EndPlan, EndReport, Spawn, Stdio, end_processes, process, tree};

use crate::harness::{Check, NOT_RUN};

pub(crate) const CHECKS: &[Check] = &[
    ("a_tree_is_found_without_its_zombies", found, &[NO_PROC_CHILDREN]),
    ("a_tag_in_the_environment_is_found", tagged, &[]),
    ("with_nothing_to_end_it_ends_at_once", nothing, &[NO_PIDFD, NO_PROC_CHILDREN, NO_PROC]),
    ("those_that_end_when_asked_are_not_killed", asked, &[NO_PIDFD]),
    ("stubborn_stopped_and_daemonized_processes_end", stubborn, &[NO_PIDFD, NO_PROC_CHILDREN]),
    ("without_proc_own_children_end", no_proc, &[NO_PROC, NO_PROC | NO_PIDFD]),
    ("a_process_that_forks_and_ends_all_the_time_ends", runner, &[NO_PIDFD, NO_PROC_CHILDREN]),
    ("a_bomb_of_processes_ends", bomb, &[NO_PIDFD, NO_PROC_CHILDREN]),
    ("those_that_may_not_be_signalled_are_reported_and_not_waited_for", denied, &[NO_PIDFD]),
    ("a_child_spared_by_the_selection_lives", spared, &[]),
];

const LONG: Duration = Duration::from_secs(20);
const AT_ONCE: EndPlan = EndPlan { term_first: false, grace: Duration::ZERO, kill_deadline: Duration::from_secs(10) };

fn sh(script: &str) -> Child {
    Spawn::new("sh").args(["-c", script]).stdin(Stdio::Null).start().unwrap()
}

fn own() -> Vec<tree::Proc> {
    tree::descendants(process::id())
}

/// Waits until so many processes are below this one.
fn until(count: usize) {
    let began = Instant::now();
    while own().len() < count {
        assert!(began.elapsed() < LONG, "{:?}", own());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn end(plan: EndPlan) -> EndReport {
    let began = Instant::now();
    let report = end_processes(own, plan);
    println!("{:?} {report:?}", began.elapsed());
    report
}

fn found() {
    process::set_child_subreaper().unwrap();
    let zombie = sh("exit 0");
    let child = sh("sleep 1000 & (setsid sleep 1001 &) ; exec sh -c 'sleep 1002; :'");
    until(4);
    let list = own();
    assert_eq!(list.len(), 4, "{list:?}");
    assert!(list.iter().all(|process| process.pid != zombie.pid() && process.start_time > 0));
    assert!(list.iter().any(|process| process.pid == child.pid() && process.ppid == process::id()));
    assert_eq!(tree::Proc::of(zombie.pid()), None);
    assert!(list[0].lives() && !tree::Proc { start_time: 1, ..list[0] }.lives());
    // Below another process than this one.
    assert!(tree::descendants(child.pid()).len() >= 2);
    assert_eq!(end(AT_ONCE).left, []);
}

fn tagged() {
    let value = format!("mux-{}", process::id());
    let child = Spawn::new("sh").args(["-c", "sleep 1000 & wait"]).env("OFFSHOOT_TEST_TAG", &value).start().unwrap();
    let select = || tree::with_env_tag("OFFSHOOT_TEST_TAG", &value);
    let began = Instant::now();
    while select().len() < 2 {
        assert!(began.elapsed() < LONG);
    }
    assert_eq!(tree::with_env_tag("OFFSHOOT_TEST_TAG", &value[..value.len() - 1]), []);
    let report = end_processes(select, AT_ONCE);
    assert_eq!((report.killed, report.left), (2, vec![]));
    // A process loses its environment, and so the tag, a moment before it has ended.
    assert!(child.wait(Some(Instant::now() + LONG)).unwrap().is_some());
}

fn nothing() {
    process::set_child_subreaper().unwrap();
    assert_eq!(end(EndPlan::default()), EndReport::default());
    let began = Instant::now();
    for _ in 0..10 {
        end_processes(own, EndPlan::default());
    }
    let each = began.elapsed() / 10;
    assert!(each < Duration::from_millis(6), "{each:?}");
    println!("{each:?}");
}

fn asked() {
    process::set_child_subreaper().unwrap();
    let polite = sh("trap 'exit 9' TERM; echo >/dev/null; while :; do sleep 0.01; done");
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    let report = end(EndPlan { grace: LONG, ..EndPlan::default() });
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(report, EndReport::default());
    assert_eq!(polite.try_wait().unwrap().unwrap().code(), Some(9));
}

fn stubborn() {
    process::set_child_subreaper().unwrap();
    let first = sh("trap '' TERM HUP INT; sleep 1000 & wait");
    let stopped = sh("kill -STOP $$");
    // A daemon as they do it: twice forked, a session of its own.
    let daemon = sh("(setsid sh -c 'trap \"\" TERM; sleep 1001 & sleep 1002' & ) ; exit 0");
    until(6);
    assert!(daemon.wait(None).unwrap().unwrap().success());
    let began = Instant::now();
    let report = end(EndPlan { grace: Duration::from_millis(100), ..EndPlan::default() });
    assert!(report.left.is_empty() && report.killed >= 3, "{report:?}");
    assert!(began.elapsed() >= Duration::from_millis(100), "they have their grace");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(first.try_wait().unwrap().is_some() && stopped.try_wait().unwrap().is_some());
}

fn no_proc() {
    let children = [sh("trap '' TERM; while :; do :; done"), sh("exec sleep 1000")];
    std::thread::sleep(Duration::from_millis(50));
    let report = end_processes(own, EndPlan { grace: Duration::from_millis(50), ..EndPlan::default() });
    assert_eq!(report.left, []);
    assert!(children.iter().all(|child| child.try_wait().unwrap().is_some()));
}

fn runner() {
    process::set_child_subreaper().unwrap();
    let role = std::env::current_exe().unwrap();
    for _ in 0..3 {
        Spawn::new(&role).arg("role:run").stdin(Stdio::Null).start().unwrap().wait(None).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(!own().is_empty());
    let report = end(AT_ONCE);
    assert!(offshoot_mux::Reaper.reap().childless, "one got away");
    assert!(report.left.is_empty() && report.killed >= 3, "{report:?}");
}

/// Forks and ends, over and over, so that no number lives for much more than a millisecond: a second or two at
/// most, in case that the test fails.
pub(crate) fn run() {
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(1));
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child != 0 {
            // SAFETY: ends this process.
            unsafe { libc::_exit(0) };
        }
    }
}

fn bomb() {
    if process::effective_uid() != 0 {
        println!("{NOT_RUN}needs root, to become a user with a limit of processes");
        return;
    }
    process::set_child_subreaper().unwrap();
    let exe = copy("bomb");
    let bomb = Spawn::new("setpriv")
        .args(["--reuid=54321", "--clear-groups"])
        .arg(&exe)
        .arg("role:bomb")
        .limit(offshoot_mux::Limit::Processes, 300, 300)
        .limit(offshoot_mux::Limit::Core, 0, 0)
        .start()
        .unwrap();
    until(200);
    let report = end(AT_ONCE);
    std::fs::remove_file(exe).unwrap();
    assert!(report.left.is_empty() && report.killed >= 200, "{report:?}");
    assert!(bomb.try_wait().unwrap().is_some());
}

/// Every process forks as fast as it can, also those just killed would be replaced: the limit of the user keeps them at
/// 300. For 15 s, in case that the test fails.
pub(crate) fn explode() {
    let began = Instant::now();
    while began.elapsed() < LONG * 3 / 4 {
        // SAFETY: this process has one thread.
        if unsafe { libc::fork() } == -1 {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

/// This program where any user may execute it.
fn copy(name: &str) -> std::path::PathBuf {
    let copy = std::env::temp_dir().join(format!("offshoot-mux-{name}-{}", process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    copy
}

fn denied() {
    if process::effective_uid() != 0 {
        println!("{NOT_RUN}needs root, to become another user");
        return;
    }
    let exe = copy("denied");
    let role = Spawn::new("setpriv").args(["--reuid=54321", "--clear-groups"]).arg(&exe).arg("role:denied").start();
    let status = role.unwrap().wait(None).unwrap().unwrap();
    std::fs::remove_file(exe).unwrap();
    assert!(status.success(), "{status}");
}

/// As a user that may not signal its parent.
pub(crate) fn denied_role() -> bool {
    let began = Instant::now();
    let parent = tree::Proc::of(process::parent_id()).unwrap();
    let report = end_processes(|| vec![parent], EndPlan { grace: LONG, ..EndPlan::default() });
    println!("{report:?}");
    report.killed == 0 && report.left.len() == 1 && report.left[0].pid == parent.pid && began.elapsed() < LONG / 4
}

fn spared() {
    process::set_child_subreaper().unwrap();
    let kept = sh("exec sleep 1000");
    let gone = sh("exec sleep 1000");
    until(2);
    let select = || own().into_iter().filter(|process| process.pid != kept.pid()).collect();
    let report = end_processes(select, EndPlan::default());
    assert_eq!(report.left, []);
    assert!(kept.try_wait().unwrap().is_none() && gone.try_wait().unwrap().is_some());
}
