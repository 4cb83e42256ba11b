//! Remote functions in trees of real contexts. This binary is the agent and the worker too. Each check runs in a fresh
//! process; after each no process, descriptor or thread may be left.

mod carried;
mod chains;
mod files;
mod functions;
mod groups;
mod life;
mod logs;
mod marked;
#[path = "../../../offshoot-mux/tests/alone/orphans.rs"]
mod orphans;
#[deny(warnings, missing_docs)]
pub mod strict;
mod unhappy;
mod values;
mod workers;

use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot_mux::{EndPlan, Reaper, end_processes, process, tree};

/// A name that states the behaviour, and the check.
pub(crate) type Check = (&'static str, fn());

const NAME: &str = "OFFSHOOT_REMOTE_CHECK";

/// Set for a process that does not call `init`: never, or not where it is to be a worker.
pub(crate) const WITHOUT_INIT: &str = "OFFSHOOT_REMOTE_WITHOUT_INIT";

/// Whether the long versions of checks are wanted.
pub(crate) fn all_wanted() -> bool {
    std::env::var_os("OFFSHOOT_TEST_ALL").is_some()
}

/// How long a check may take.
fn limit() -> Duration {
    Duration::from_secs(if all_wanted() { 900 } else { 120 })
}

fn main() -> ExitCode {
    if let Some(way) = std::env::var_os(WITHOUT_INIT) {
        return life::without_init(&way);
    }
    offshoot::init();
    let checks: Vec<Check> = [
        carried::CHECKS,
        files::CHECKS,
        groups::CHECKS,
        unhappy::CHECKS,
        values::CHECKS,
        life::CHECKS,
        logs::CHECKS,
        workers::CHECKS,
        chains::CHECKS,
        marked::CHECKS,
        strict::CHECKS,
    ]
    .concat();
    if let Ok(name) = std::env::var(NAME) {
        return run(&checks, &name);
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    // Whatever a check leaves becomes ours: found, reported and ended.
    process::set_child_subreaper().expect("a subreaper");
    let (mut passed, mut failed) = (0, 0);
    for (name, _) in checks {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let began = Instant::now();
        let (ok, output) = start(name);
        if ok {
            passed += 1;
            println!("test {name} ... ok ({} ms)", began.elapsed().as_millis());
        } else {
            failed += 1;
            println!("test {name} ... FAILED\n{output}");
        }
    }
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a check in a process of its own, and looks at what it leaves.
fn start(name: &str) -> (bool, String) {
    let (mut output, write) = std::io::pipe().expect("a pipe");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(NAME, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(write.try_clone().expect("a descriptor"))
        .stderr(write)
        .spawn()
        .expect("a process");
    let end = Instant::now() + limit();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if Instant::now() > end => {
                child.kill().expect("a child");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let left = orphans::left();
    end_processes(|| tree::descendants(process::id()), EndPlan { term_first: false, ..EndPlan::default() });
    Reaper.reap();
    offshoot_mux::io::set_nonblocking(&output, true).expect("a pipe");
    let mut text = Vec::new();
    // An error says that something still holds the pipe: it was reported as left.
    let _ = output.read_to_end(&mut text);
    let text = format!("{}{status}; {} processes were left", String::from_utf8_lossy(&text), left.len());
    (left.is_empty() && status.success(), text)
}

fn run(checks: &[Check], name: &str) -> ExitCode {
    let Some((_, check)) = checks.iter().find(|(known, _)| *known == name) else { return ExitCode::FAILURE };
    let before = descriptors();
    // On a thread of its own, so that what a thread keeps for its life is gone too.
    if std::thread::spawn(*check).join().is_err() {
        return ExitCode::FAILURE;
    }
    within("threads are left", || std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1));
    assert_eq!(descriptors(), before, "a descriptor was left");
    assert_eq!(tree::descendants(process::id()), Vec::new(), "a child was left");
    ExitCode::SUCCESS
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

pub(crate) fn master() -> Master {
    Master::new().expect("a master")
}

/// A context with a master, which must outlive it.
pub(crate) fn local(master: &Master) -> Context {
    master.local().connect().expect("a local context")
}

/// Waits until something holds; panics with `what` when it does not in 20 s.
#[track_caller]
pub(crate) fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
