//! What `/proc` says about processes, and signals that cannot hit a reused pid.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

/// One process as it was when read. Compare by pid *and* start time: pids are reused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id in the pid namespace of the test.
    pub pid: i32,
    /// Its parent's id; 0 when the parent is outside what the test sees.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// The state letter of `proc(5)`; `Z` is a zombie.
    pub state: char,
    /// Start time in clock ticks since boot.
    pub start: u64,
    /// The kernel's name of it, at most 15 bytes.
    pub comm: String,
    /// Its arguments; empty for a zombie.
    pub cmdline: Vec<String>,
}

impl Process {
    /// Reads one process; `None` when there is none.
    pub fn read(pid: i32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may itself hold spaces and parentheses: the last one closes it.
        let open = stat.find('(')?;
        let close = stat.rfind(')')?;
        let fields: Vec<&str> = stat[close + 1..].split_ascii_whitespace().collect();
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Some(Process {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
            comm: stat[open + 1..close].to_string(),
            cmdline: cmdline
                .split(|byte| *byte == 0)
                .filter(|part| !part.is_empty())
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect(),
        })
    }

    /// Alive: neither gone nor a zombie.
    pub fn is_live(&self) -> bool {
        self.state != 'Z' && self.state != 'X'
    }

    /// Reads it again; `None` when it is gone, a zombie, or its pid has become another process.
    pub fn refreshed(&self) -> Option<Process> {
        Process::read(self.pid).filter(|now| now.start == self.start && now.is_live())
    }

    /// Whether its environment, as it was at its start, holds `NAME=VALUE`.
    pub fn has_env(&self, name: &str, value: &str) -> bool {
        let wanted = format!("{name}={value}");
        fs::read(format!("/proc/{}/environ", self.pid))
            .unwrap_or_default()
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    }

    /// The descriptors that it has open, with what each is.
    pub fn descriptors(&self) -> Vec<(i32, String)> {
        let mut found: Vec<(i32, String)> = fs::read_dir(format!("/proc/{}/fd", self.pid))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                let what = fs::read_link(entry.path()).ok()?;
                Some((number, what.to_string_lossy().into_owned()))
            })
            .collect();
        found.sort();
        found
    }

    /// Sends a signal to this very process: a pidfd is opened, and the start time compared after that, so a reused pid is never hit.
    /// False when it is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return false;
        };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        if self.refreshed().is_none() {
            return false;
        }
        pidfd_send_signal(handle, signal).is_ok()
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pid {} parent {} session {} state {} ({}) {:?}",
            self.pid, self.parent, self.session, self.state, self.comm, self.cmdline
        )
    }
}

/// The inode of a process' pid namespace; works for zombies too.
pub fn pid_namespace(pid: i32) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Every process that the test can see, zombies included.
pub fn all() -> Vec<Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect()
}

/// The direct children of a process.
pub fn children(pid: i32) -> Vec<Process> {
    all().into_iter().filter(|process| process.parent == pid).collect()
}

/// All that descends from a process, itself not included.
pub fn descendants(pid: i32) -> Vec<Process> {
    let everything = all();
    let mut under = BTreeSet::from([pid]);
    // A child's pid may be smaller than its parent's once pids have wrapped, so go round until nothing is added.
    loop {
        let more: Vec<i32> = everything
            .iter()
            .filter(|process| under.contains(&process.parent) && !under.contains(&process.pid))
            .map(|process| process.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        under.extend(more);
    }
    everything.into_iter().filter(|process| process.pid != pid && under.contains(&process.pid)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_child_is_seen_with_its_arguments_and_environment_and_can_be_signalled() {
        let mut child = Command::new("sleep").arg("60").env("OFFSHOOT_PROCESS_TEST", "yes").spawn().unwrap();
        let pid = child.id() as i32;
        let seen = Process::read(pid).unwrap();
        assert_eq!(seen.parent, std::process::id() as i32);
        assert!(seen.is_live());
        assert!(descendants(seen.parent).iter().any(|process| process.pid == pid));
        // The environment is that of the new program once execve has happened, which `spawn` waits for.
        assert!(seen.has_env("OFFSHOOT_PROCESS_TEST", "yes"));
        assert!(!seen.has_env("OFFSHOOT_PROCESS_TEST", "ye"));
        assert!(seen.descriptors().iter().any(|(number, _)| *number == 0));

        let impostor = Process { start: seen.start + 1, ..seen.clone() };
        assert!(!impostor.signal(Signal::KILL), "a process of another start time was signalled");
        assert!(seen.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(seen.refreshed().is_none());
        assert!(!seen.signal(Signal::KILL));
    }
}
