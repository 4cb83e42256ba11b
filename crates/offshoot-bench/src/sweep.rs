//! Leaves nothing behind: everything that a run starts carries one environment entry, and is found by it.
//!
//! Owns the tag, the scratch folder, and the sweeper: a process of its own that waits for the suite's end, however that comes, then
//! kills what still carries the tag or descends from something that does, and removes the folder. A server that overwrites its
//! environment, as sshd does with its title, is named to the sweeper instead.

use crate::anchor::wait_readable;
use crate::proc;
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The name of the entry.
pub(crate) const TAG: &str = "OFFSHOOT_BENCH_RUN";

/// A tag, a scratch folder, and the sweeper that watches over both; swept when dropped.
pub(crate) struct Scratch {
    tag: String,
    folder: PathBuf,
    sweeper: Child,
}

impl Scratch {
    /// Makes the folder and starts the sweeper.
    pub(crate) fn new() -> Result<Self> {
        let tag = format!("{}-{}", std::process::id(), crate::contract::monotonic().to_bits());
        let folder = std::env::temp_dir().join(format!("offshoot-bench-{tag}"));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let sweeper = Command::new(std::env::current_exe()?)
            .args(["sweep", &tag])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C must not reach it.
            .process_group(0)
            .spawn()
            .context("cannot start the sweeper")?;
        Ok(Self { tag, folder, sweeper })
    }

    /// The value of the environment entry.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The scratch folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names a process that is to end with the run and may not show the tag.
    pub(crate) fn adopt(&mut self, pid: u32) -> Result<()> {
        let pipe = self.sweeper.stdin.as_mut().context("the sweeper's stdin is open until the end")?;
        writeln!(pipe, "{pid}").context("the sweeper is gone")
    }

    /// Waits until nothing of the run but `servers` is left, at most `patience`; kills the rest and says how many that were.
    pub(crate) fn settle(&self, servers: &[u32], patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        loop {
            let left = alive(&self.tag, servers);
            if left.is_empty() {
                return 0;
            }
            if Instant::now() > deadline {
                kill_all(&self.tag, servers);
                return left.len();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        // A sweeper that is gone has nothing more to say.
        let _ = self.sweeper.wait();
    }
}

/// The sweeper's own entry: waits for the end of stdin.
pub(crate) fn run(tag: &str, folder: &Path) -> Result<()> {
    let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if tag.len() < 8 || name != format!("offshoot-bench-{tag}") {
        bail!("not a tag and scratch folder of this program");
    }
    // Descriptors are taken at once, so that a number that is used again cannot mislead.
    let servers: Vec<(u32, OwnedFd)> = std::io::stdin()
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.parse().ok())
        .filter_map(|pid| Some((pid, handle(pid)?)))
        .collect();
    let numbers: Vec<u32> = servers.iter().filter(|(_, fd)| !ended(fd)).map(|(pid, _)| *pid).collect();
    kill_all(tag, &numbers);
    servers.iter().for_each(|(_, fd)| kill(fd));
    kill_all(tag, &[]);
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn ended(process: &OwnedFd) -> bool {
    wait_readable(process, Duration::ZERO)
}

/// Carriers of the tag and all below them and below the servers; sshd wipes the environment that its sessions show.
fn alive(tag: &str, servers: &[u32]) -> BTreeSet<u32> {
    let mut carriers = proc::with_environment(&format!("{TAG}={tag}"));
    carriers.extend_from_slice(servers);
    let mut found: BTreeSet<u32> = proc::descendants(&carriers).into_iter().collect();
    found.extend(carriers);
    for pid in servers {
        found.remove(pid);
    }
    found
}

fn kill_all(tag: &str, servers: &[u32]) {
    for _ in 0..50 {
        let left = alive(tag, servers);
        if left.is_empty() {
            return;
        }
        // Looked at again with the descriptors in hand: a number may have gone to another process since.
        let held: Vec<_> = left.into_iter().filter_map(|pid| Some((pid, handle(pid)?))).collect();
        let still = alive(tag, servers);
        for (_, fd) in held.iter().filter(|(pid, _)| still.contains(pid)) {
            kill(fd);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A descriptor of a live process: readable once it has ended.
pub(crate) fn handle(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// SIGKILL.
pub(crate) fn kill(process: &OwnedFd) {
    // It may have ended in between, which is what is wanted.
    let _ = pidfd_send_signal(process, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_the_tag_is_found_and_killed_and_nothing_else() {
        let tag = format!("test-{}-{}", std::process::id(), crate::contract::monotonic().to_bits());
        let mut ours = Command::new("sleep").arg("60").env(TAG, &tag).spawn().unwrap();
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        // Between fork and exec a child still shows its parent's environment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive(&tag, &[]).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(alive(&tag, &[]).into_iter().collect::<Vec<_>>(), [ours.id()]);
        assert!(alive(&tag, &[ours.id()]).is_empty());
        kill_all(&tag, &[]);
        assert!(alive(&tag, &[]).is_empty());
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "a process without the tag was killed");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn the_sweeper_refuses_a_folder_that_is_not_its_own() {
        assert!(run("", Path::new("/tmp")).is_err());
        assert!(run("12345678-1", Path::new("/tmp/other")).is_err());
    }
}
