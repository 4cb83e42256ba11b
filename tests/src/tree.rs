//! Who is who in a running tree.
//!
//! Agents and supervisors are known by their name, which begins with `offshoot:`. The process that the connection tool started is the supervisor and its
//! child is the agent, so in a chain of such processes they alternate, beginning with a supervisor; that holds for local contexts too, where the next
//! supervisor is a child of an agent.

use std::fmt;

use crate::bounded;
use crate::process::Process;
use crate::tag::{Tag, listed};

/// The processes of a test, by what they are. Each list is in the order of their start, so a deeper hop comes later.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Guards of agents.
    pub supervisors: Vec<Process>,
    /// Agents.
    pub agents: Vec<Process>,
    /// ssh clients.
    pub ssh: Vec<Process>,
    /// Sessions of sshds.
    pub sessions: Vec<Process>,
    /// Everything else: the master, the test's own nsenter, what runs for the user.
    pub others: Vec<Process>,
}

/// Whether a process has the name of an agent or a supervisor.
pub fn is_ours(process: &Process) -> bool {
    process.comm.starts_with("offshoot:") || process.cmdline.first().is_some_and(|name| name.starts_with("offshoot:"))
}

impl Tree {
    /// As it is now.
    pub fn of(tag: &Tag) -> Tree {
        let mut all = tag.processes();
        all.sort_by_key(|process| (process.start, process.pid));
        let mut tree = Tree::default();
        for process in &all {
            let into = if is_ours(process) {
                if ours_above(process, &all).is_multiple_of(2) { &mut tree.supervisors } else { &mut tree.agents }
            } else if process.comm == "ssh" {
                &mut tree.ssh
            } else if process.comm.starts_with("sshd") {
                &mut tree.sessions
            } else {
                &mut tree.others
            };
            into.push(process.clone());
        }
        tree
    }

    /// Everything but what the user's commands are.
    pub fn guards(&self) -> impl Iterator<Item = &Process> {
        self.supervisors.iter().chain(&self.agents).chain(&self.ssh)
    }

    /// The user's processes with that name.
    pub fn named(&self, comm: &str) -> Vec<&Process> {
        self.others.iter().filter(|process| process.comm == comm).collect()
    }
}

/// How many processes named as ours stand above it without a gap.
fn ours_above(process: &Process, all: &[Process]) -> usize {
    let mut count = 0;
    let mut at = process;
    // A chain longer than there are processes would be a loop made of reused pids.
    while let Some(parent) = all.iter().find(|other| other.pid == at.parent).filter(|parent| is_ours(parent)) {
        count += 1;
        at = parent;
        if count > all.len() {
            break;
        }
    }
    count
}

/// Waits until none of these processes lives; those that do when `within` has passed.
pub fn survivors(processes: &[Process], within: std::time::Duration) -> Vec<Process> {
    let mut left = processes.to_vec();
    bounded::eventually(within, || {
        left.retain(|process| process.refreshed().is_some());
        left.is_empty()
    });
    left
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, list) in [
            ("supervisors", &self.supervisors),
            ("agents", &self.agents),
            ("ssh", &self.ssh),
            ("sessions", &self.sessions),
            ("others", &self.others),
        ] {
            write!(f, "{what}:\n{}", listed(list))?;
        }
        Ok(())
    }
}
