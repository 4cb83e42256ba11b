//! A control group that limits how many processes and threads there may be in it.
//!
//! Owns the group, in whichever of the two hierarchies has that limit. Needs root. Must not know what runs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Tag, Unavailable, bounded};

/// A group of its own; removed when dropped, when everything in it has ended.
#[derive(Debug)]
pub struct Pids(PathBuf);

impl Pids {
    /// A group without a limit yet.
    ///
    /// # Errors
    ///
    /// When this machine lets nobody make one, or has no such limit.
    pub fn new(tag: &Tag) -> Result<Pids, Unavailable> {
        let (old, new) = (Path::new("/sys/fs/cgroup/pids"), Path::new("/sys/fs/cgroup"));
        let above = if old.join("tasks").exists() { old } else { new };
        if above == new {
            // It may be allowed already; where it cannot be, the limit is missing below.
            let _ = fs::write(new.join("cgroup.subtree_control"), "+pids");
        }
        let pids = Pids(above.join(format!("offshoot-pids.{}", tag.name())));
        let why = |error| Unavailable::because(format!("no control group can be made: {error}"));
        fs::create_dir(&pids.0).map_err(why)?;
        match pids.0.join("pids.max").exists() {
            true => Ok(pids),
            false => Err(Unavailable::because("control groups have no limit of processes here")),
        }
    }

    /// At most so many processes and threads besides those that have ended and are not reaped yet, which count as well; none
    /// for any number. For when nothing runs in the group.
    ///
    /// # Panics
    ///
    /// When the kernel does not take it.
    pub fn limit(&self, most: Option<u32>) {
        let counted = fs::read_to_string(self.0.join("pids.current")).expect("a number of a group of its own");
        let ended: u32 = counted.trim().parse().expect("a number");
        let most = most.map_or("max".into(), |most| (ended + most).to_string());
        fs::write(self.0.join("pids.max"), most).expect("a limit of a group of its own");
    }

    /// A command that is in the group from before its first instruction.
    pub fn command(&self, tag: &Tag, program: &Path) -> Command {
        let mut command = tag.command("/bin/sh");
        command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(self.0.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        // Who has just ended still counts.
        bounded::eventually(Duration::from_secs(5), || fs::remove_dir(&self.0).is_ok());
    }
}
