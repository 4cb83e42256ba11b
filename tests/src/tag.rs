//! The mark that everything a test starts carries, and the check that nothing of it is left.
//!
//! A process belongs to a test when any of these holds: its environment has `OFFSHOOT_TEST=<tag>`; it is in the test's control group (where one can be
//! made); it lives in a host that the test made and is not one of the fixture's own; it descends from a server that the test watches. The first is lost by
//! `env -i`, the second needs root and cgroup v2, the third needs namespaces: together they see everything wherever the tests run as root.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bounded::{TICK, find_program};
use crate::process::{self, Process, Signal};
use crate::watched::Watched;

/// The environment variable that carries the tag.
pub const VARIABLE: &str = "OFFSHOOT_TEST";

/// One test's mark. Make it before the test's fixtures, so that it goes after them. Ending the test without [`Tag::assert_nothing_left`] makes the test fail.
#[derive(Debug)]
pub struct Tag {
    name: String,
    cgroup: Option<PathBuf>,
    hosts: Mutex<Vec<Arc<Watched>>>,
    servers: Mutex<BTreeSet<i32>>,
    places: Vec<PathBuf>,
    /// `TMPDIR` of what runs on the machine: whatever lies in it was left.
    temporary: TempDir,
    files_before: BTreeSet<PathBuf>,
    descriptors_before: Option<usize>,
    settled: AtomicBool,
}

impl Tag {
    /// A tag that no other test has, `NAME.PID.N`.
    pub fn new(test: &str) -> Tag {
        Tag::with_places(test, places())
    }

    fn with_places(test: &str, places: Vec<PathBuf>) -> Tag {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{test}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroup = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists())
            .map(|root| root.join(format!("offshoot-tests.{name}")))
            .filter(|path| fs::create_dir(path).is_ok());
        Tag {
            name,
            cgroup,
            hosts: Mutex::default(),
            servers: Mutex::default(),
            files_before: suspicious_files(&places),
            places,
            descriptors_before: descriptors(),
            temporary: tempfile::Builder::new().prefix("peers-").tempdir().expect("the machine has a temporary folder"),
            settled: AtomicBool::new(false),
        }
    }

    /// The value of `OFFSHOOT_TEST`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command on the machine itself that carries the tag and, where there is one, is in the test's control group from before its first instruction. It is
    /// killed when the test's thread ends, so that it does not outlive a test process that was killed itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(cgroup) = &self.cgroup {
            words.extend(["/bin/sh", "-c", "echo 0 >\"$0\" && exec \"$@\""].map(Into::into));
            words.push(cgroup.join("cgroup.procs").into());
        }
        if let Some(setpriv) = find_program("setpriv") {
            words.push(setpriv.into());
            words.extend(["--pdeathsig", "KILL", "--"].map(Into::into));
        }
        words.push(program.as_ref().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env(VARIABLE, &self.name).env("TMPDIR", self.temporary.path());
        command
    }

    /// Says that the test ends as not run, so that nothing need be checked.
    pub(crate) fn excuse(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// From now on every process in that host that is not the fixture's, and every file that appears there, counts as this test's.
    pub fn watch(&self, host: &Arc<Watched>) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).push(host.clone());
    }

    /// From now on everything below this process, but not the process, counts as this test's: for a server on the machine itself.
    pub fn watch_below(&self, server: i32) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).insert(server);
    }

    /// Everything of this test that exists, zombies included as far as they can be told; the control group does not list them.
    pub fn everything(&self) -> Vec<Process> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let below: BTreeSet<i32> =
            servers.iter().flat_map(|server| process::descendants(*server)).map(|process| process.pid).collect();
        let grouped: BTreeSet<i32> = self
            .cgroup
            .iter()
            .filter_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect();
        let me = std::process::id() as i32;
        process::all()
            .into_iter()
            .filter(|process| process.pid != me && !servers.contains(&process.pid))
            .filter(|process| {
                below.contains(&process.pid)
                    || grouped.contains(&process.pid)
                    || process.has_env(VARIABLE, &self.name)
                    || hosts.iter().any(|host| host.owns(process))
            })
            .collect()
    }

    /// Everything of this test that is alive.
    pub fn processes(&self) -> Vec<Process> {
        self.everything().into_iter().filter(Process::is_live).collect()
    }

    /// Zombies in the test's hosts whose parent is there too. PID 1 of a host reaps at once, so one that lasts has a parent that does not; the machine's own
    /// PID 1, to which the rest falls, may take seconds.
    pub fn zombies(&self) -> Vec<Process> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        process::all()
            .into_iter()
            .filter(|process| !process.is_live())
            .filter(|process| hosts.iter().any(|host| host.owns(process) && host.contains(process.parent)))
            .collect()
    }

    /// Files that have appeared since the test began: any in its hosts; on the machine itself, where others write too, those that look like ours.
    pub fn new_files(&self) -> Vec<String> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files: Vec<String> = hosts.iter().flat_map(|host| host.new_files()).collect();
        files.extend(
            suspicious_files(&self.places).difference(&self.files_before).map(|path| path.display().to_string()),
        );
        files
    }

    /// Kills all that is left of the test, round after round, for at most two seconds.
    pub fn kill_everything(&self) {
        let until = Instant::now() + Duration::from_secs(2);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > until {
                break;
            }
            for process in left {
                process.signal(Signal::KILL);
            }
            thread::sleep(TICK);
        }
    }

    /// Waits until every process of the test is gone, at most `within`; then asserts that no zombie and no file is left either. Returns how long the
    /// processes took.
    ///
    /// # Panics
    ///
    /// When anything is left, with what it is. Processes are killed before the panic.
    #[track_caller]
    pub fn assert_nothing_left(&self, within: Duration) -> Duration {
        self.settled.store(true, Ordering::Relaxed);
        let started = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            if started.elapsed() > within {
                let report = listed(&left);
                self.kill_everything();
                panic!("{} processes of {} are left after {within:?}:\n{report}", left.len(), self.name);
            }
            thread::sleep(TICK);
        }
        let took = started.elapsed();
        // Files and zombies of processes that have just ended go a moment later: unlink and wait come after exit has been seen.
        let patience = Instant::now() + Duration::from_secs(3);
        loop {
            let (zombies, files) = (self.zombies(), self.new_files());
            if zombies.is_empty() && files.is_empty() {
                break;
            }
            assert!(Instant::now() < patience, "left by {}:\n{}{}", self.name, listed(&zombies), files.join("\n"));
            thread::sleep(TICK);
        }
        took
    }
}

/// One process a line.
pub(crate) fn listed(processes: &[Process]) -> String {
    processes.iter().fold(String::new(), |mut text, process| {
        let _ = writeln!(text, "  {process}");
        text
    })
}

/// How many descriptors the test process has open. Only where a process runs one test (cargo nextest): another test's thread opens and closes its own.
fn descriptors() -> Option<usize> {
    if std::env::var_os("NEXTEST_EXECUTION_MODE").is_none_or(|mode| mode != "process-per-test") {
        return None;
    }
    fs::read_dir("/proc/self/fd").ok().map(Iterator::count)
}

/// The places on the machine that an agent could write to.
fn places() -> Vec<PathBuf> {
    let own = ["HOME", "XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let runtime = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    ["/tmp", "/dev/shm", "/run", "/var/tmp", "/dev", "/"]
        .iter()
        .map(PathBuf::from)
        .chain(own)
        .chain([runtime])
        .collect()
}

/// What in these places looks like ours: a loader's file, or, but for the folders of temporary files, where tests of other crates make their own at the same
/// time, any with the product's name in its name.
fn suspicious_files(places: &[PathBuf]) -> BTreeSet<PathBuf> {
    places
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let nonce = name.strip_prefix(".o").unwrap_or_default();
            let is_loader = nonce.len() == 22 && nonce.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            let is_shared = ["/tmp", "/var/tmp"].iter().any(|shared| entry.path().parent() == Some(Path::new(shared)));
            is_loader || !is_shared && name.to_lowercase().contains("offshoot")
        })
        .map(|entry| entry.path())
        .collect()
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.kill_everything();
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Some(cgroup) = &self.cgroup {
            // A group with a zombie in it cannot be removed yet.
            crate::bounded::eventually(Duration::from_secs(2), || fs::remove_dir(cgroup).is_ok());
        }
        if !thread::panicking() {
            // The fixtures of the test are gone by now; threads that gather output end a moment after their process.
            let back = || descriptors() <= self.descriptors_before;
            assert!(
                crate::bounded::eventually(Duration::from_secs(2), back),
                "the test process has {:?} descriptors open and had {:?} before",
                descriptors(),
                self.descriptors_before
            );
            assert!(self.settled.load(Ordering::Relaxed), "the test {} never checked what it left", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn message(panic: Box<dyn std::any::Any + Send>) -> String {
        panic.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_daemon_that_left_its_session_is_found_and_reported_and_killed() {
        let tag = Tag::new("daemon");
        let mut shell = tag.command("sh").args(["-c", "(setsid sleep 61 &) ; exit 0"]).spawn().unwrap();
        shell.wait().unwrap();
        assert!(crate::bounded::eventually(Duration::from_secs(5), || tag
            .processes()
            .iter()
            .any(|process| process.comm == "sleep")));
        let panic = catch_unwind(AssertUnwindSafe(|| tag.assert_nothing_left(Duration::from_millis(50)))).unwrap_err();
        let said = message(panic);
        assert!(said.contains("1 processes of daemon") && said.contains("\"sleep\", \"61\""), "{said}");
        tag.assert_nothing_left(Duration::from_secs(2));
    }

    #[test]
    fn a_daemon_with_an_empty_environment_is_found_by_its_control_group() {
        let tag = Tag::new("emptied");
        if tag.cgroup.is_none() {
            tag.assert_nothing_left(Duration::ZERO);
            crate::not_run!(
                "a_daemon_with_an_empty_environment_is_found_by_its_control_group",
                "no control group can be made"
            );
        }
        let mut shell = tag.command("sh").args(["-c", "(env -i setsid sleep 62 &) ; exit 0"]).spawn().unwrap();
        shell.wait().unwrap();
        assert!(crate::bounded::eventually(Duration::from_secs(5), || tag
            .processes()
            .iter()
            .any(|process| process.comm == "sleep")));
        assert!(catch_unwind(AssertUnwindSafe(|| tag.assert_nothing_left(Duration::from_millis(50)))).is_err());
        tag.assert_nothing_left(Duration::from_secs(2));
    }

    #[test]
    fn a_file_with_our_name_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let tag = Tag::with_places("file", vec![folder.path().to_path_buf()]);
        for name in ["offshoot-left", ".oAbCdEfGhIjKlMnOpQr_-12"] {
            let path = folder.path().join(name);
            fs::write(&path, "x").unwrap();
            let panic = catch_unwind(AssertUnwindSafe(|| tag.assert_nothing_left(Duration::ZERO))).unwrap_err();
            fs::remove_file(&path).unwrap();
            assert!(message(panic).contains(name));
        }
        tag.assert_nothing_left(Duration::ZERO);
    }

    #[test]
    fn a_descriptor_left_open_in_the_test_process_is_reported() {
        if descriptors().is_none() {
            crate::not_run!(
                "a_descriptor_left_open_in_the_test_process_is_reported",
                "needs one process a test, as cargo nextest does"
            );
        }
        let tag = Tag::new("descriptor");
        tag.assert_nothing_left(Duration::ZERO);
        let open = fs::File::open("/dev/null").unwrap();
        let said = message(catch_unwind(AssertUnwindSafe(|| drop(tag))).unwrap_err());
        drop(open);
        assert!(said.contains("descriptors open"), "{said}");
    }

    #[test]
    fn a_test_that_does_not_check_fails() {
        assert!(catch_unwind(|| drop(Tag::new("unchecked"))).is_err());
    }
}
