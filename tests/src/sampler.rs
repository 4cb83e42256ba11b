//! Looks for a secret where everybody can look: in the arguments and the environment of every process of the machine, again and again while a test runs; and,
//! as root can, in the memory of one process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::process::Process;

/// What a sampler has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often it went through all processes.
    pub rounds: usize,
    /// The names of the processes that it looked at.
    pub names: BTreeSet<String>,
    /// Where the secret was, as `FILE of PROCESS`.
    pub found: BTreeSet<String>,
}

/// A thread that looks until it is told to end.
#[derive(Debug)]
pub struct Sampler {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Sampler {
    /// Begins to look for `secret`.
    pub fn start(secret: &str) -> Sampler {
        let ended = Arc::new(AtomicBool::new(false));
        let (secret, until) = (secret.as_bytes().to_vec(), ended.clone());
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !until.load(Ordering::Relaxed) {
                look(&secret, &mut seen);
                seen.rounds += 1;
                thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Sampler { ended, thread }
    }

    /// What has been seen.
    ///
    /// # Panics
    ///
    /// When the thread did.
    pub fn finish(self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic")
    }
}

/// Goes through all processes once.
fn look(secret: &[u8], seen: &mut Seen) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        for file in ["cmdline", "environ", "comm"] {
            let Ok(bytes) = fs::read(format!("/proc/{pid}/{file}")) else {
                continue;
            };
            if file == "comm" {
                seen.names.insert(String::from_utf8_lossy(&bytes).trim_end().to_string());
            }
            if holds(&bytes, secret) {
                let process = Process::read(pid).map_or_else(|| format!("pid {pid}"), |process| process.to_string());
                seen.found.insert(format!("{file} of {process}"));
            }
        }
    }
}

/// Whether some bytes hold the secret.
pub fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

/// The regions of a process' memory that can be written and hold the secret, as `/proc/PID/maps` names them; `None` when the process is gone, or root is not
/// allowed to look.
pub fn memory_with(pid: i32, secret: &[u8]) -> Option<Vec<String>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(access)) = (fields.next(), fields.next()) else {
            continue;
        };
        let bounds = range
            .split_once('-')
            .and_then(|(start, end)| Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?)));
        let Some((start, end)) = bounds.filter(|_| access.starts_with("rw")) else {
            continue;
        };
        if region_holds(&memory, start, end, secret) {
            found.push(line.to_string());
        }
    }
    Some(found)
}

/// Reads a region in pieces that overlap by the length of the secret; pages that are not there are passed over.
fn region_holds(memory: &File, start: u64, end: u64, secret: &[u8]) -> bool {
    const PIECE: u64 = 1 << 20;
    let mut piece = vec![0; PIECE as usize + secret.len()];
    let mut at = start;
    while at < end {
        let wanted = piece.len().min((end - at) as usize);
        let count = memory.read_at(&mut piece[..wanted], at).unwrap_or(0);
        if holds(&piece[..count], secret) {
            return true;
        }
        at += PIECE;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_secret_in_arguments_environment_or_memory_is_found() {
        let secret = format!("sampled-{}", std::process::id());
        let start = |arguments: &[&str], environment: &str| {
            let mut command = Command::new("sh");
            command.args(arguments).env("OFFSHOOT_SAMPLED", environment).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut open = start(&["-c", "read line; : \"$0\"", &secret], "");
        let mut told = start(&["-c", "read line"], &secret);
        let mut quiet = start(&["-c", "read line; read further"], "");
        std::io::Write::write_all(quiet.stdin.as_mut().unwrap(), format!("{secret}\n").as_bytes()).unwrap();
        let sampler = Sampler::start(&secret);
        assert!(crate::bounded::eventually(Duration::from_secs(10), || {
            memory_with(quiet.id() as i32, secret.as_bytes()).is_some_and(|found| !found.is_empty())
        }));
        assert_eq!(memory_with(quiet.id() as i32, b"nobody has written this").unwrap(), Vec::<String>::new());
        thread::sleep(Duration::from_millis(100));
        let seen = sampler.finish();
        for (process, file) in [(&open, "cmdline"), (&told, "environ")] {
            let what = format!("{file} of pid {} ", process.id());
            assert!(seen.found.iter().any(|found| found.starts_with(&what)), "{what} in {:?}", seen.found);
        }
        let quiet_pid = format!("of pid {} ", quiet.id());
        assert!(!seen.found.iter().any(|found| found.contains(&quiet_pid)), "{:?}", seen.found);
        assert!(seen.rounds > 2 && seen.names.contains("sh"), "{seen:?}");
        for child in [&mut open, &mut told, &mut quiet] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
