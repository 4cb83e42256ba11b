//! Interruption: Ctrl-C, TERM, hang-up, and a reader of our output that went away.
//!
//! This module owns the answer to "are we to stop, and with which exit code". The first signal cancels the run in
//! order; the second ends the process at once; in any case it ends within [`PATIENCE`]. It runs on threads of its own,
//! which are there before anything can need them, and takes no lock that a blocked write could hold.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::hinted::no_thread;
use crate::{exit, front, terminal};

/// How long an orderly end may take: the promise to the user is 7 s.
const PATIENCE: Duration = Duration::from_millis(6500);

/// Whether the run is to end, and with which code; shared by all threads.
#[derive(Clone, Default)]
pub(crate) struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The exit code; 0 as long as nothing happened.
    code: AtomicU8,
    /// Who waits for a code. Held only to look at it and to tell.
    waiting: Mutex<()>,
    tripped: Condvar,
}

impl Interrupt {
    /// Starts to listen for signals.
    ///
    /// # Errors
    /// When the system refuses a handler or a thread.
    pub(crate) fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        interrupt.when_tripped("patience", |code| {
            thread::sleep(PATIENCE);
            terminal::restore();
            std::process::exit(i32::from(code));
        })?;
        let _ = CURRENT.set(interrupt.clone());
        if front::is_split() {
            return Ok(interrupt);
        }
        let wanted = [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
        let wanted: Vec<i32> = wanted.collect();
        let mut signals = Signals::new(wanted)?;
        let listens = thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                signalled(signal as u8);
            }
        });
        listens.map_err(no_thread)?;
        Ok(interrupt)
    }

    /// What ends every wait of the run: on a thread of its own, since it may itself hang.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub(crate) fn on_trip(&self, stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.when_tripped("stop", |_| stop())
    }

    /// Has a thread wait for the end of the run. It is started now: by then there may be none to be had.
    fn when_tripped(&self, name: &str, act: impl FnOnce(u8) + Send + 'static) -> io::Result<()> {
        let this = self.clone();
        let waits = thread::Builder::new().name(name.into()).spawn(move || {
            let mut waiting = this.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let code = loop {
                if let Some(code) = this.code() {
                    break code;
                }
                waiting = this.shared.tripped.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            };
            drop(waiting);
            act(code);
        });
        waits.map(drop).map_err(no_thread)
    }

    /// The run is to end with `code`; the first reason counts. Does not block.
    pub(crate) fn trip(&self, code: u8) {
        let _waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.code.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.shared.tripped.notify_all();
        }
    }

    /// The exit code, once the run is to end.
    pub(crate) fn code(&self) -> Option<u8> {
        Some(self.shared.code.load(Ordering::SeqCst)).filter(|&code| code != 0)
    }
}

/// The run that signals interrupt.
static CURRENT: OnceLock<Interrupt> = OnceLock::new();

/// A signal came.
pub(crate) fn signalled(signal: u8) {
    let code = exit::SIGNAL + signal;
    // First of all: whatever hangs from here on, the user has a terminal.
    terminal::restore();
    match CURRENT.get().filter(|run| run.code().is_none()) {
        Some(run) => {
            run.trip(code);
            say(b"\noffshoot: ending what runs there; once more ends at once\n");
        }
        // There is nothing to end yet, or the user has no patience.
        None => {
            // A terminal shows the key where it was typed, and the shell's prompt would stand behind it.
            if i32::from(signal) == SIGINT && io::stderr().is_terminal() {
                say(b"\n");
            }
            std::process::exit(i32::from(code));
        }
    }
}

/// Tells the user, if that can be done at once: a pipe that nobody reads, or a terminal that was halted, takes nothing.
/// Straight to the descriptor, since a write that blocks may hold the console's lock and the library's.
fn say(text: &[u8]) {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // Where there is room a pipe has some for this much.
    if poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().contains(PollFlags::OUT) {
        let _ = rustix::io::write(stderr.as_fd(), text);
    }
}

/// Whether a signal was set to be ignored by who started us (`nohup`, a shell's `&`): that wish is kept.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_first_reason_counts_and_stops_the_run_once() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.code(), None);
        let (sender, receiver) = mpsc::channel();
        interrupt.shared.code.store(130, Ordering::SeqCst);
        interrupt.on_trip(move || sender.send(()).expect("heard")).expect("a thread");
        receiver.recv().expect("stopped");
        interrupt.trip(141);
        assert_eq!(interrupt.code(), Some(130));
        assert!(receiver.recv().is_err(), "stopped twice");
    }
}
