//! Control groups: one that limits how many processes and threads there may be in it, and one that limits their memory.
//!
//! Owns the group, in whichever of the two hierarchies has that limit. Needs root. Must not know what runs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Tag, Unavailable, bounded};

/// A group of its own; removed when dropped, when everything in it has ended.
#[derive(Debug)]
struct Group(PathBuf);

impl Group {
    /// One with the first of these limits that it has, without any yet.
    fn new(tag: &Tag, controller: &str, limits: &[&'static str]) -> Result<(Group, &'static str), Unavailable> {
        let new = Path::new("/sys/fs/cgroup");
        let old = new.join(controller);
        let above = if old.join("tasks").exists() { &old } else { new };
        if above == new {
            // It may be allowed already; where it cannot be, the limit is missing below.
            let _ = fs::write(new.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let group = Group(above.join(format!("offshoot-{controller}.{}", tag.name())));
        let why = |error| Unavailable::because(format!("no control group can be made: {error}"));
        fs::create_dir(&group.0).map_err(why)?;
        match limits.iter().find(|limit| group.0.join(limit).exists()) {
            Some(limit) => Ok((group, limit)),
            None => Err(Unavailable::because(format!("control groups have no limit of {controller} here"))),
        }
    }

    /// A command that is in the group from before its first instruction.
    fn command(&self, tag: &Tag, program: &Path) -> Command {
        let mut command = tag.command("/bin/sh");
        command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who has just ended still counts.
        bounded::eventually(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok());
    }
}

/// A group with a limit of processes.
#[derive(Debug)]
pub struct Pids(Group);

impl Pids {
    /// A group without a limit yet.
    ///
    /// # Errors
    ///
    /// When this machine lets nobody make one, or has no such limit.
    pub fn new(tag: &Tag) -> Result<Pids, Unavailable> {
        Group::new(tag, "pids", &["pids.max"]).map(|(group, _)| Pids(group))
    }

    /// At most so many processes and threads besides those that have ended and are not reaped yet, which count as well; none
    /// for any number. For when nothing runs in the group.
    ///
    /// # Panics
    ///
    /// When the kernel does not take it.
    pub fn limit(&self, most: Option<u32>) {
        let Pids(Group(folder)) = self;
        let counted = fs::read_to_string(folder.join("pids.current")).expect("a number of a group of its own");
        let ended: u32 = counted.trim().parse().expect("a number");
        let most = most.map_or("max".into(), |most| (ended + most).to_string());
        fs::write(folder.join("pids.max"), most).expect("a limit of a group of its own");
    }

    /// A command that is in the group from before its first instruction.
    pub fn command(&self, tag: &Tag, program: &Path) -> Command {
        self.0.command(tag, program)
    }
}

/// A group with a limit of memory: whose processes take more, of them the kernel ends the one that takes most.
#[derive(Debug)]
pub struct Memory(Group);

impl Memory {
    /// A group of so many bytes at most.
    ///
    /// # Errors
    ///
    /// When this machine lets nobody make one, or has no such limit.
    pub fn new(tag: &Tag, bytes: u64) -> Result<Memory, Unavailable> {
        let (group, limit) = Group::new(tag, "memory", &["memory.max", "memory.limit_in_bytes"])?;
        let why = |error| Unavailable::because(format!("the limit of memory is not taken: {error}"));
        fs::write(group.0.join(limit), bytes.to_string()).map_err(why)?;
        // What is swapped out is not ended. Only one of them is there, or none where nothing is swapped.
        for (name, value) in [("memory.swap.max", "0"), ("memory.swappiness", "0")] {
            let path = group.0.join(name);
            if path.exists() {
                fs::write(path, value).map_err(why)?;
            }
        }
        Ok(Memory(group))
    }

    /// A command that is in the group from before its first instruction.
    pub fn command(&self, tag: &Tag, program: &Path) -> Command {
        self.0.command(tag, program)
    }
}
