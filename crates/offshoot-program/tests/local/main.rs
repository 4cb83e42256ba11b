//! Checks with trees of real local contexts. This binary is the agent too: what is tested is what was just built. Each
//! check runs in a fresh process, which may have at most so many descriptors; after each no process, descriptor or
//! thread may be left.

mod chaos;
mod contexts;
mod damage;
mod entry;
mod exec;
mod failures;
mod fed;
mod limits;
mod liveness;
mod load;
#[path = "../../../offshoot-mux/tests/alone/orphans.rs"]
mod orphans;
mod terminals;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use offshoot_mux::{EndPlan, Reaper, end_processes, process, tree};
use offshoot_program::{Builder, Master};

/// Whether the long versions of checks are wanted.
pub(crate) fn all_wanted() -> bool {
    std::env::var_os("OFFSHOOT_TEST_ALL").is_some()
}

/// A name that states the behaviour, and the check.
pub(crate) type Check = (&'static str, fn());

const NAME: &str = "OFFSHOOT_LOCAL_CHECK";
/// How long a check may take.
fn limit() -> Duration {
    Duration::from_secs(if all_wanted() { 900 } else { 120 })
}

/// Printed by a check that cannot run here, with the reason.
pub(crate) const NOT_RUN: &str = "NOT RUN: ";

fn main() -> ExitCode {
    if let Some(code) = damage::wrapper() {
        return code;
    }
    // A process of the check of the guard must not become an agent.
    if std::env::var_os(entry::WITHOUT_INIT).is_none() {
        offshoot_program::init();
    }
    if let Some(role) = std::env::args().nth(1).filter(|arg| arg.starts_with("role:")) {
        return entry::role(&role);
    }
    if let Ok(name) = std::env::var(entry::WITHOUT_INIT) {
        return entry::role(&name);
    }
    let checks: Vec<Check> = [
        exec::CHECKS,
        contexts::CHECKS,
        fed::CHECKS,
        failures::CHECKS,
        liveness::CHECKS,
        damage::CHECKS,
        load::CHECKS,
        limits::CHECKS,
        entry::CHECKS,
        terminals::CHECKS,
    ]
    .concat();
    if let Ok(name) = std::env::var(NAME) {
        run(&checks, &name);
        return ExitCode::SUCCESS;
    }
    all(&checks)
}

fn all(checks: &[Check]) -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    // Whatever a check leaves becomes ours: found, reported and ended.
    process::set_child_subreaper().expect("a subreaper");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (name, _) in checks {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let began = Instant::now();
        let (ok, output) = start(name);
        let verdict = match (ok, output.lines().find_map(|line| line.strip_prefix(NOT_RUN))) {
            (true, Some(reason)) => {
                not_run += 1;
                format!("not run: {reason}")
            }
            (true, None) => {
                passed += 1;
                format!("ok ({} ms)", began.elapsed().as_millis())
            }
            (false, _) => {
                failed += 1;
                format!("FAILED\n{output}")
            }
        };
        println!("test {name} ... {verdict}");
    }
    println!("\ntest result: {passed} passed; {failed} failed; {not_run} not run");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(name: &str) -> (bool, String) {
    let (mut output, write) = std::io::pipe().expect("a pipe");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env(NAME, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(write.try_clone().expect("a descriptor"))
        .stderr(write)
        .process_group(0)
        .spawn()
        .expect("a process");
    let began = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None if began.elapsed() > limit() => {
                child.kill().expect("a child");
                break child.wait().expect("a child");
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let left = orphans::left();
    let report: Vec<String> = left.iter().take(20).map(describe).collect();
    let plan = EndPlan { term_first: false, ..EndPlan::default() };
    let ended = end_processes(|| tree::descendants(process::id()), plan);
    Reaper.reap();
    // Not to the end: should something live on that holds the pipe, say so and go on.
    offshoot_mux::io::set_nonblocking(&output, true).expect("a pipe");
    let mut text = Vec::new();
    let whole = output.read_to_end(&mut text).is_ok();
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if !left.is_empty() || !whole {
        text.push_str(&format!(
            "\n{} processes were left: {report:#?}, could not be ended: {:?}\n",
            left.len(),
            ended.left
        ));
    }
    if began.elapsed() > limit() {
        text.push_str("it took too long: ");
    }
    (whole && left.is_empty() && status.success(), text + &status.to_string())
}

fn describe(found: &tree::Proc) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", found.pid)).unwrap_or_default();
    format!("{} {} {}", found.pid, found.state, String::from_utf8_lossy(&line).replace('\0', " "))
}

fn run(checks: &[Check], name: &str) {
    let (_, check) = checks.iter().find(|(known, _)| *known == name).expect("a known check");
    let before = descriptors();
    // On a thread of its own, so that what a thread keeps for its life is gone too.
    let passed = std::thread::spawn(*check).join().is_ok();
    assert!(passed, "the check panicked");
    within(Duration::from_secs(5), "threads are left", || threads() == 1);
    assert_eq!(descriptors(), before, "a descriptor was left");
    assert_eq!(children(), Vec::<tree::Proc>::new(), "a child was left");
}

/// The processes below this one.
pub(crate) fn children() -> Vec<tree::Proc> {
    tree::descendants(process::id())
}

pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// All but that of this executable, which is opened once, for good, when an image is first looked for.
fn descriptors() -> Vec<(String, String)> {
    let own = std::env::current_exe().expect("this program").to_string_lossy().into_owned();
    let mut list: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            (!target.starts_with("/proc/") && target != own)
                .then(|| (entry.file_name().to_string_lossy().into_owned(), target))
        })
        .collect();
    list.sort();
    list
}

/// Options for a tree whose contexts are this very binary.
pub(crate) fn builder() -> Builder {
    Master::builder().own_image()
}

pub(crate) fn master() -> Master {
    builder().build().expect("a master")
}

/// Waits until something holds; panics with `what` when it does not in time.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "{what} after {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal by number: the process is one that this check started and nobody has reaped.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process number");
    rustix::process::kill_process(pid, signal).expect("a process to signal");
}
