//! What `/proc` says about processes: who descends from whom, switches, CPU time, memory.
//!
//! Owns the parsing of `/proc`. Knows nothing of anchors or rows, and uses the standard library alone, since it is also
//! compiled into the bare physical-limit program (see `floor`). Every reader answers zero for a process that is gone.

use std::collections::HashMap;
use std::fs;

/// One live process as `/proc/PID/stat` shows it.
struct Stat {
    parent: u32,
    state: u8,
    /// Ticks of the process itself and of the children that it has reaped.
    reaped_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may contain spaces and parentheses: fields start after the last one.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    let parent = fields.next()?.parse().ok()?;
    let tick = |n: Option<&str>| n.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let mut rest = fields.skip(11);
    let reaped_ticks = tick(rest.next()) + tick(rest.next());
    Some(Stat { parent, state, reaped_ticks })
}

/// All process ids.
pub(crate) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// Every live descendant of `roots`, zombies and the roots themselves left out.
pub(crate) fn descendants(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<(u32, bool)>> = HashMap::new();
    for pid in all() {
        if let Some(s) = stat(pid) {
            children.entry(s.parent).or_default().push((pid, s.state != b'Z'));
        }
    }
    let mut todo = roots.to_vec();
    let mut found = Vec::new();
    while let Some(pid) = todo.pop() {
        for &(child, alive) in children.get(&pid).map_or(&[][..], Vec::as_slice) {
            if alive {
                found.push(child);
            }
            todo.push(child);
        }
    }
    found
}

/// Whether the process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|s| s.state != b'Z')
}

fn each_task(pid: u32, file: &str, mut f: impl FnMut(&str)) {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return;
    };
    for task in tasks.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join(file)) {
            f(&text);
        }
    }
}

/// Voluntary and involuntary switches of all live threads of the processes.
pub(crate) fn switches(pids: &[u32]) -> u64 {
    let mut total = 0;
    for &pid in pids {
        each_task(pid, "status", |text| {
            for line in text.lines().filter(|l| l.contains("ctxt_switches")) {
                total += line.rsplit('\t').next().and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        });
    }
    total
}

/// Nanoseconds on a CPU, of all live threads of the processes; finer than the clock tick of `stat`.
pub(crate) fn cpu_ns(pids: &[u32]) -> u64 {
    let mut total = 0;
    for &pid in pids {
        each_task(pid, "schedstat", |text| {
            total += text.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        });
    }
    total
}

/// Clock ticks (1/100 s) of the children that the processes have reaped.
pub(crate) fn reaped_ticks(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|&p| stat(p)).map(|s| s.reaped_ticks).sum()
}

/// A `NAME: 123 kB` line of one of the process's files, in KiB.
pub(crate) fn kib(pid: u32, file: &str, name: &str) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/{file}")) else {
        return 0;
    };
    text.lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|v| v.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Proportional memory of the processes, in KiB.
pub(crate) fn pss_kib(pids: &[u32]) -> u64 {
    pids.iter().map(|&p| kib(p, "smaps_rollup", "Pss")).sum()
}

/// Processes whose environment holds `NAME=VALUE`.
pub(crate) fn with_environment(entry: &str) -> Vec<u32> {
    all()
        .into_iter()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|env| env.split(|b| *b == 0).any(|e| e == entry.as_bytes()))
                && is_alive(*pid)
        })
        .collect()
}
