//! Interruption: Ctrl-C, TERM, hang-up, and a reader of our output that went away.
//!
//! This module owns the answer to "are we to stop, and with which exit code". The first signal cancels the run in
//! order; the second ends the process at once; in any case it ends within [`PATIENCE`]. It runs on a thread of its own
//! and takes no lock that a blocked write could hold.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
    /// Whether a run that does not end in time is ended with the process. Not in tests, which share theirs.
    by_force: bool,
    /// What ends the waits of the run: set once there is something to end.
    stop: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Interrupt {
    /// Starts to listen for signals.
    ///
    /// # Errors
    /// When the system refuses a handler or a thread.
    pub(crate) fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt { shared: Arc::new(Shared { by_force: true, ..Shared::default() }) };
        let _ = CURRENT.set(interrupt.clone());
        if front::is_split() {
            return Ok(interrupt);
        }
        let wanted: Vec<i32> = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)).collect();
        let mut signals = Signals::new(wanted)?;
        let listens = thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                signalled(signal as u8);
            }
        });
        listens.map_err(no_thread)?;
        Ok(interrupt)
    }

    /// What ends every wait of the run. Called at once if the run is interrupted already.
    pub(crate) fn on_trip(&self, stop: impl Fn() + Send + 'static) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
        if self.code().is_some() {
            self.stop();
        }
    }

    /// The run is to end with `code`; the first reason counts. Does not block.
    pub(crate) fn trip(&self, code: u8) {
        if self.shared.code.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        // Two threads, since what stops the run may itself hang.
        if self.shared.by_force {
            let _ = thread::Builder::new().name("patience".into()).spawn(move || {
                thread::sleep(PATIENCE);
                terminal::restore();
                std::process::exit(i32::from(code));
            });
        }
        let this = self.clone();
        let _ = thread::Builder::new().name("stop".into()).spawn(move || this.stop());
    }

    fn stop(&self) {
        let stop = self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stop) = stop {
            stop();
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
            // Straight to the descriptor: the console's lock may be held by a write that blocks.
            let _ = io::stderr().write_all(b"\noffshoot: ending what runs there; once more ends at once\n");
            run.trip(code);
        }
        // There is nothing to end yet, or the user has no patience.
        None => {
            // A terminal shows the key where it was typed, and the shell's prompt would stand behind it.
            if i32::from(signal) == SIGINT && io::stderr().is_terminal() {
                let _ = io::stderr().write_all(b"\n");
            }
            std::process::exit(i32::from(code));
        }
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
        interrupt.on_trip(move || sender.send(()).expect("heard"));
        receiver.recv().expect("stopped");
        interrupt.trip(141);
        assert_eq!(interrupt.code(), Some(130));
        assert!(receiver.recv().is_err(), "stopped twice");
    }
}
