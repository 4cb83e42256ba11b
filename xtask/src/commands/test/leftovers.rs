//! Processes that a test run left behind, found by the marks in their environment.

use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Set to a value of its own for everything that one run starts.
pub(super) const RUN: &str = "OFFSHOOT_TEST_RUN";

/// Set by every test that starts processes, to a value of its own.
pub(super) const TEST: &str = "OFFSHOOT_TEST";

/// A process by its number and the time it was started at, which together are never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Id {
    pid: u32,
    started: String,
}

/// A process that should be gone.
#[derive(Debug)]
pub(super) struct Leftover {
    /// Its number.
    pub(super) pid: u32,
    /// Its command line.
    pub(super) command: String,
    /// The marks that give it away.
    pub(super) marks: String,
}

/// The processes that were there before the run.
#[derive(Debug)]
pub(super) struct Before {
    tagged: HashSet<Id>,
}

impl Before {
    /// Looks around before the first test.
    pub(super) fn look() -> Before {
        Before { tagged: tagged().into_iter().map(|(id, _)| id).collect() }
    }

    /// What carries a mark of the run `run`, or the mark of a test that no other run started; waits up to `grace` for
    /// it to go.
    pub(super) fn left(&self, run: &str, grace: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + grace;
        loop {
            let left = self.now(run);
            if left.is_empty() || Instant::now() >= deadline {
                return left;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn now(&self, run: &str) -> Vec<Leftover> {
        tagged()
            .into_iter()
            .filter(|(id, marks)| {
                let ours = marks.run.as_deref().is_none_or(|value| value == run);
                ours && !self.tagged.contains(id)
            })
            .map(|(id, marks)| Leftover { pid: id.pid, command: command_line(id.pid), marks: marks.text() })
            .collect()
    }
}

#[derive(Debug, Default)]
struct Marks {
    run: Option<String>,
    test: Option<String>,
}

impl Marks {
    fn read(environ: &[u8]) -> Option<Marks> {
        let value = |name: &str| {
            environ.split(|&b| b == 0).find_map(|entry| {
                let rest = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                Some(String::from_utf8_lossy(rest).into_owned())
            })
        };
        let marks = Marks { run: value(RUN), test: value(TEST) };
        (marks.run.is_some() || marks.test.is_some()).then_some(marks)
    }

    fn text(&self) -> String {
        let part = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={value}"));
        let parts: Vec<String> = [part(TEST, &self.test), part(RUN, &self.run)].into_iter().flatten().collect();
        parts.join(" ").escape_debug().to_string()
    }
}

/// Every live process with a mark. Zombies have no environment, so they count as gone.
fn tagged() -> Vec<(Id, Marks)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own)
        .filter_map(|pid| {
            let folder = Path::new("/proc").join(pid.to_string());
            let marks = Marks::read(&std::fs::read(folder.join("environ")).ok()?)?;
            let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
            // The name in brackets may hold anything; the start time is the twentieth field after it.
            let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_string();
            Some((Id { pid, started }, marks))
        })
        .collect()
}

fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn marked(run: &str) -> Child {
        let child = Command::new("sleep").arg("60").env(RUN, run).spawn().unwrap();
        // Its environment is shown only when the kernel has finished executing it.
        let environ = format!("/proc/{}/environ", child.id());
        while !std::fs::read(&environ).is_ok_and(|bytes| Marks::read(&bytes).is_some()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_of_this_run_is_found_until_it_is_gone() {
        let run = format!("{}-a", std::process::id());
        let before = Before::look();
        let child = marked(&run);
        let pid = child.id();
        let found = before.left(&run, Duration::ZERO);
        end(child);
        assert!(found.iter().any(|l| l.pid == pid && l.command.contains("sleep 60")), "{found:?}");
        assert!(!before.left(&run, Duration::ZERO).iter().any(|l| l.pid == pid));
    }

    #[test]
    fn another_run_and_what_was_there_before_are_left_alone() {
        let run = format!("{}-b", std::process::id());
        let earlier = marked(&run);
        let before = Before::look();
        let foreign = marked("another");
        let found = before.left(&run, Duration::ZERO);
        let pids = [earlier.id(), foreign.id()];
        end(earlier);
        end(foreign);
        assert!(!found.iter().any(|l| pids.contains(&l.pid)), "{found:?}");
    }

    #[test]
    fn marks_are_whole_variables() {
        assert!(Marks::read(b"PATH=/bin\0OFFSHOOT_TEST=a\0").is_some());
        assert!(Marks::read(b"XOFFSHOOT_TEST=a\0OFFSHOOT_TESTS=b\0").is_none());
    }
}
