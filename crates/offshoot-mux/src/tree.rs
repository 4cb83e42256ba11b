//! Process trees, from `/proc`. Owns finding processes; ending them is in [`end_processes`](crate::end_processes).
//!
//! A reading is a snapshot of what moves: a process may have ended, or have forked, by the time it is looked at.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::{child, fallback, sys};

/// Readings of one tree in search of what moves: some tenths of a second in all.
const MOST_READINGS: usize = 1000;

/// A process that lived when it was looked at. With its start time the number is unique while the system runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proc {
    /// The process id.
    pub pid: u32,
    /// When it started, in clock ticks since the system did; zero when unknown (no `/proc`).
    pub start_time: u64,
    /// The process id of its parent.
    pub ppid: u32,
    /// One letter: `R` running, `S` sleeping, `D` held by the kernel, `T` stopped, `t` traced.
    pub state: char,
}

impl Proc {
    /// The process with this number, if it lives.
    pub fn of(pid: u32) -> Option<Proc> {
        stat(pid).filter(|stat| stat.alive).map(|stat| stat.process)
    }

    /// Whether it is this process, also where `/proc` is that of another pid namespace, in which our number may be another's.
    pub fn is_self(&self) -> bool {
        fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == &*self.pid.to_string())
    }

    /// Whether the very same process still lives.
    pub fn lives(&self) -> bool {
        Proc::of(self.pid).is_some_and(|now| self.start_time == 0 || now.start_time == self.start_time)
    }
}

/// Whether a process still runs the program that it was started as, a name or a path, and has started none itself: so that
/// what is written where it reads reaches nobody else. `true` also where the system does not tell (no `/proc`, or one that
/// hides other users' processes).
pub fn runs_alone(pid: u32, program: &str) -> bool {
    /// What the kernel keeps of a program's name.
    const KEPT: usize = 15;
    let Ok(mut now) = fs::read(format!("/proc/{pid}/comm")) else { return true };
    if now.last() == Some(&b'\n') {
        now.pop();
    }
    let name = Path::new(program).file_name().map_or(program, |name| name.to_str().unwrap_or(program)).as_bytes();
    now == name[..name.len().min(KEPT)] && descendants(pid).is_empty()
}

/// All processes below one, without itself; zombies count as gone. Parents come before their children.
///
/// Of this process's own tree, when it is a subreaper, nothing is overlooked for good: an answer is empty only when this
/// process has no child, or when two readings found the same zombies and nothing else. For another tree the latter holds,
/// if its root adopts orphans and reaps none: when it is stopped. Without `/proc` only the children
/// started by [`Spawn`](crate::Spawn) are known.
pub fn descendants(root: u32) -> Vec<Proc> {
    let own = root == sys::pid::own() as u32;
    let mut before = None;
    // A process that forks and ends, over and over, is missed by many a reading; but each finds other zombies then.
    for _ in 0..MOST_READINGS {
        if own && matches!(sys::pid::peek(), Err(error) if error.raw_os_error() == Some(libc::ECHILD)) {
            break;
        }
        let (found, seen) = below(&[root]);
        if !found.is_empty() {
            return found;
        }
        if before.as_ref() == Some(&seen) {
            break;
        }
        before = Some(seen);
    }
    Vec::new()
}

/// All processes below any of several, without those themselves, from one reading; zombies count as gone. What moves
/// meanwhile may be missed.
pub fn descendants_of(roots: &[u32]) -> Vec<Proc> {
    below(roots).0
}

/// The living processes below some, and the numbers of all that were seen, in order.
fn below(roots: &[u32]) -> (Vec<Proc>, Vec<u32>) {
    let mut found = Vec::new();
    let mut seen = roots.to_vec();
    seen.sort_unstable();
    if fallback::forced(fallback::NO_PROC) || !Path::new("/proc/self").exists() {
        let own = sys::pid::own() as u32;
        let unknown = |pid: i32| Proc { pid: pid as u32, start_time: 0, ppid: own, state: '?' };
        if roots.contains(&own) {
            found = child::owned_alive().into_iter().map(unknown).collect();
        }
        return (found, seen);
    }
    // With how many threads it has; children belong to threads.
    let mut next: Vec<(u32, Option<u32>)> = roots.iter().map(|root| (*root, None)).collect();
    let scan = if has_children_files() { None } else { Some(by_parent()) };
    while let Some((parent, threads)) = next.pop() {
        // Of a scan what it found is kept: a second look could come too late.
        let children: Vec<(u32, Option<Stat>)> = match &scan {
            // The youngest first: among many zombies they are those that may be gone before they are looked at.
            None => children_of(parent, threads).into_iter().rev().map(|pid| (pid, None)).collect(),
            Some(scan) => {
                let known = of_parent(scan, parent).iter();
                known.map(|stat| (stat.process.pid, Some(*stat))).collect()
            }
        };
        for (pid, known) in children {
            match seen.binary_search(&pid) {
                Ok(_) => continue,
                Err(at) => seen.insert(at, pid),
            }
            if let Some(stat) = known.or_else(|| stat(pid)) {
                if stat.alive {
                    found.push(stat.process);
                }
                next.push((pid, Some(stat.threads)));
            }
        }
    }
    (found, seen)
}

/// The direct children of this process, zombies too.
pub(crate) fn children() -> Vec<i32> {
    let own = sys::pid::own() as u32;
    let found = if has_children_files() {
        children_of(own, None)
    } else {
        of_parent(&by_parent(), own).iter().map(|stat| stat.process.pid).collect()
    };
    found.into_iter().map(|pid| pid as i32).collect()
}

/// Whether the kernel lists each process's children (`CONFIG_PROC_CHILDREN`), which saves reading all of `/proc`.
fn has_children_files() -> bool {
    let own = sys::pid::own();
    !fallback::forced(fallback::NO_PROC_CHILDREN) && Path::new(&format!("/proc/self/task/{own}/children")).exists()
}

fn children_of(pid: u32, threads: Option<u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut add = |path: &Path| {
        if let Ok(list) = fs::read_to_string(path) {
            found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    };
    if threads == Some(1) {
        add(Path::new(&format!("/proc/{pid}/task/{pid}/children")));
        return found;
    }
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for thread in threads.flatten() {
        add(&thread.path().join("children"));
    }
    found
}

/// All processes, in the order of their parents' numbers.
fn by_parent() -> Vec<Stat> {
    let mut found: Vec<Stat> = all().into_iter().filter_map(stat).collect();
    found.sort_unstable_by_key(|stat| stat.process.ppid);
    found
}

/// The children of one among [`by_parent`]'s.
fn of_parent(scan: &[Stat], parent: u32) -> &[Stat] {
    let first = scan.partition_point(|stat| stat.process.ppid < parent);
    let rest = &scan[first..];
    &rest[..rest.partition_point(|stat| stat.process.ppid == parent)]
}

/// The youngest first, as a rule.
fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    all.reverse();
    all
}

/// All living processes but this one in whose environment `key` was set to `value` when their program was executed.
/// Those whose environment this process may not read are left out.
pub fn with_env_tag(key: &str, value: &str) -> Vec<Proc> {
    with_env_tags(key, |found| found == value.as_bytes())
}

/// As [`with_env_tag`], for all values that are `wanted`, from one reading.
pub fn with_env_tags(key: &str, wanted: impl Fn(&[u8]) -> bool) -> Vec<Proc> {
    let value = |entry: &[u8]| {
        let value = entry.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
        Some(wanted(value))
    };
    let own = sys::pid::own() as u32;
    let tagged = |pid: &u32| {
        // The kernel's own limit for arguments and environment is a quarter of the stack, 2 MiB as a rule.
        let mut environment = Vec::new();
        File::open(format!("/proc/{pid}/environ")).is_ok_and(|file| {
            file.take(8 << 20).read_to_end(&mut environment).is_ok()
                && environment.split(|byte| *byte == 0).any(|entry| value(entry) == Some(true))
        })
    };
    all().into_iter().filter(|pid| *pid != own).filter(tagged).filter_map(Proc::of).collect()
}

#[derive(Clone, Copy)]
struct Stat {
    process: Proc,
    threads: u32,
    alive: bool,
}

/// `None` when there is no process with this number, not even a zombie.
fn stat(pid: u32) -> Option<Stat> {
    if fallback::forced(fallback::NO_PROC) {
        return None;
    }
    let mut buffer = [0; 1024];
    let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
    // One read gives all of it: the kernel makes the text at once.
    let len = file.read(&mut buffer).ok()?;
    parse_stat(pid, &buffer[..len])
}

fn parse_stat(pid: u32, text: &[u8]) -> Option<Stat> {
    // The second field is the program's name in parentheses, which may contain anything.
    let after_name = text.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&text[after_name + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let ppid = fields.next()?.parse().ok()?;
    // Fields are counted from 1 in the manual: the state is 3, the parent 4, the threads 20, the start time 22.
    let threads: u32 = fields.nth(15)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    let alive = match state {
        // A zombie with threads is a process whose first thread alone has ended.
        'Z' => threads > 1,
        'X' | 'x' => false,
        _ => true,
    };
    Some(Stat { process: Proc { pid, start_time, ppid, state }, threads, alive })
}

#[cfg(test)]
mod tests {
    use super::{Proc, parse_stat};

    #[test]
    fn a_programs_name_cannot_forge_the_fields_behind_it() {
        let rest = "5 5 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 THREADS 0 77 0 0";
        let stat = |state: &str, threads: &str| {
            let text = format!("9 (x) Z 1 (\n y) {state} {}", rest.replace("THREADS", threads));
            parse_stat(9, text.as_bytes()).unwrap()
        };
        assert_eq!(stat("S", "1").process, Proc { pid: 9, start_time: 77, ppid: 5, state: 'S' });
        assert!(stat("S", "1").alive && !stat("Z", "1").alive);
        assert!(stat("Z", "2").alive, "a process whose first thread has ended lives");
        assert!(parse_stat(9, b"9 (x) S 1").is_none());
    }
}
