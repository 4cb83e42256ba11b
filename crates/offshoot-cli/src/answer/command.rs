//! The user's command that gives secrets: one run for one account.
//!
//! It has our terminal, where it may ask for what it needs, and the signals that the user's keys send, as any program of
//! a shell's. It ends with the run. Blocks the calling thread.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use offshoot::escape::escaped;
use offshoot::{Asking, Asks, Secret};
use offshoot_mux::tree::{self, Proc};
use offshoot_mux::{Child, EndPlan, Spawn, Stdio, end_processes, io as fd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{PATIENCE, first_line};

/// How much of a command's further output is read.
const REST: u64 = 64 << 10;

/// How long it has to end when it is asked to, and when it is killed.
const END: Duration = Duration::from_secs(1);

/// How often it is looked whether the run has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How many run, and whether the process is about to end.
static RUNNING: Mutex<(usize, bool)> = Mutex::new((0, false));
static CHANGED: Condvar = Condvar::new();

fn running() -> MutexGuard<'static, (usize, bool)> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One that runs.
struct Running;

impl Running {
    fn begin() -> Running {
        running().0 += 1;
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        running().0 -= 1;
        CHANGED.notify_all();
    }
}

/// Ends all that run, and waits for that. For whoever is about to end the process.
pub(crate) fn end_all() {
    let mut running = running();
    running.1 = true;
    // As long as they have to end in, and as long again.
    let _ = CHANGED.wait_timeout_while(running, END * 4, |(count, _)| *count > 0);
}

/// Runs the user's command for an account; its first line is the answer. `ended` says that nobody waits for it any more.
///
/// # Errors
/// What went wrong with the command, or that it took too long, or the run's end.
pub(super) fn run(command: &OsString, asking: &Asking<'_>, ended: impl Fn() -> bool) -> anyhow::Result<Secret> {
    let _running = Running::begin();
    let ended = || ended() || running().1;
    let question = asking.question;
    let account = if question.account.is_empty() { asking.path } else { &question.account };
    let asks = if question.asks == Asks::Passphrase { "passphrase" } else { "password" };
    let (output, theirs) = fd::pipe()?;
    // Foreign text reaches it by its environment alone, and escaped.
    let child = Spawn::new("sh")
        .arg("-c")
        .arg(command)
        .env("OFFSHOOT_ACCOUNT", escaped(account.as_bytes()).to_string())
        .env("OFFSHOOT_PATH", escaped(asking.path.as_bytes()).to_string())
        .env("OFFSHOOT_ASKS", asks)
        .stdin(Stdio::Null)
        .stdout(theirs)
        .start()?;
    let until = Instant::now() + PATIENCE;
    let mut output = Timed { output, until, ended: &ended };
    let secret = first_line(&mut output);
    if secret.is_ok() {
        // What it writes beyond that is not wanted. It is read, so that it does not fail for it, but not without end, and
        // not for what it leaves behind with its output.
        output.until = until.min(Instant::now() + Duration::from_secs(1));
        let _ = io::copy(&mut output.by_ref().take(REST), &mut io::sink());
    }
    drop(output);
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if ended() || Instant::now() >= until => {
                end(&child);
                bail!("it did not end within {} s", PATIENCE.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    if !status.success() {
        bail!("it ended with {status}");
    }
    secret
}

/// Ends it with all that it started. Asked first: it may have to put the terminal's settings back.
fn end(child: &Child) {
    // Who outlives its parent is below it no longer.
    let mut found = Vec::from_iter(Proc::of(child.pid()));
    let own = || {
        for process in found.clone().iter().flat_map(|process| tree::descendants(process.pid)) {
            let is = |known: &Proc| (known.pid, known.start_time) == (process.pid, process.start_time);
            if !found.iter().any(is) {
                found.push(process);
            }
        }
        found.retain(Proc::lives);
        found.clone()
    };
    end_processes(own, EndPlan { term_first: true, grace: END, kill_deadline: END });
}

/// A command's output, as long as there is time.
struct Timed<'a> {
    output: OwnedFd,
    until: Instant,
    ended: &'a dyn Fn() -> bool,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.ended)() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = left.min(LOOK);
            let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            if poll(&mut [PollFd::new(&self.output, PollFlags::IN)], Some(&left))? > 0 {
                return fd::read(&self.output, buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use offshoot::Question;

    use super::*;

    fn answer(command: &str, ended: impl Fn() -> bool) -> anyhow::Result<Secret> {
        let question =
            Question { asks: Asks::Password, account: "a@b".into(), text: "a@b's password:".into(), shown: false };
        run(&command.into(), &Asking::new(&question, "ssh:b", ""), ended)
    }

    #[test]
    fn a_command_that_fails_gives_no_answer() {
        for command in ["echo hunter2; exit 3", "printf 'a\\033b\\n'", "exec >/dev/null; exit 1"] {
            assert!(answer(command, || false).is_err(), "{command}");
        }
    }

    #[test]
    fn a_command_that_leaves_something_behind_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = folder.path().join("left");
        let begun = Instant::now();
        let secret = answer(&format!("echo hunter2; sleep 60 & echo $! >'{}'", left.display()), || false);
        assert_eq!(secret.expect("an answer").bytes(), b"hunter2");
        let pid = std::fs::read_to_string(&left).expect("written");
        assert!(Command::new("kill").arg(pid.trim()).status().expect("started").success(), "it had ended");
        // Three times the second that its output is read on.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_command_ends_with_the_run_and_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let left = folder.path().join("left");
        let started = AtomicBool::new(false);
        let ended = || {
            started.store(left.exists(), Ordering::SeqCst);
            started.load(Ordering::SeqCst)
        };
        let begun = Instant::now();
        let left_at = left.display();
        let command =
            format!("(trap '' TERM; exec sleep 60) & echo $! >'{left_at}.new'; mv '{left_at}.new' '{left_at}'; wait");
        assert!(answer(&command, ended).is_err());
        assert!(started.load(Ordering::SeqCst));
        let pid = std::fs::read_to_string(&left).expect("written").trim().parse().expect("a number");
        assert_eq!(Proc::of(pid), None);
        // Three times what it has to end in, and be looked at.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_command_gets_the_signals_that_this_process_has_blocked() {
        let own = offshoot_mux::Signals::new(&[2, 20]).expect("signals");
        let secret = answer("sed -n 's/SigBlk:[^0-9a-f]*//p' /proc/self/status", || false);
        assert_eq!(secret.expect("an answer").bytes(), b"0000000000000000");
        drop(own);
    }
}
