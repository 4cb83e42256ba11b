//! The front of a command that runs on a terminal: the process that the user's shell knows as its job.
//!
//! A stopped process sends no heartbeats, so Ctrl-Z on a process that holds a tree would cost the tree. Where there is a
//! terminal with job control, the command therefore splits in two before it has any thread: the *front* stays, is stopped
//! and continued, and passes signals on; the *worker* does everything else. While the front is stopped the worker
//! shows nothing and reads nothing, so that the targets' output waits, and its broker runs on. The worker ends with the
//! front, and the front as the worker did; the front puts the terminal's settings back when the worker was killed.
//!
//! Signals go to the front alone: keys reach both, and the worker has them blocked. Runs on the main thread before any
//! other is started (`split`), and in the worker on a thread of its own.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::OnceLock;
use std::time::Duration;

use offshoot_mux::process::{self, Fork};
use offshoot_mux::tree::Proc;
use offshoot_mux::{Child, Signals, io as fd, tty, wait_readable};
use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, getsid, kill_process};
use rustix::termios::tcgetpgrp;

use crate::hinted::{PROCESSES, no_thread};
use crate::{exit, interrupt, pause, terminal};

/// What the front passes on: signals by their numbers.
const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGTERM: u8 = 15;
const SIGCHLD: u8 = 17;
const SIGCONT: u8 = 18;
const SIGTSTP: u8 = 20;
const SIGTTIN: u8 = 21;
const SIGTTOU: u8 = 22;

/// How long the worker has to leave the terminal to others before the front stops all the same.
const LEAVE: Duration = Duration::from_secs(1);

/// The worker's way to its front: a byte asks it to stop, or says that the terminal is left.
static TO_FRONT: OnceLock<OwnedFd> = OnceLock::new();

/// Splits the process where that is of use. Returns in the worker, and where there was nothing to split; the front does
/// not return. Signals are listened to from here on, see [`interrupt`].
pub(crate) fn split() {
    // In the background too: it may be brought to the foreground.
    if foreground().is_some()
        && let Err(error) = try_split()
    {
        // As good as before, but for Ctrl-Z.
        log::debug!("no process for the front: {error}");
    }
}

/// The foreground of our terminal, if one of the standard streams is that.
fn foreground() -> Option<Pid> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    // It tells only of the terminal that controls us.
    [stdin.as_fd(), stderr.as_fd(), stdout.as_fd()].into_iter().find_map(|fd| tcgetpgrp(fd).ok())
}

fn try_split() -> io::Result<()> {
    // What was to be ignored stays so in both: `nohup`, a shell's `&`.
    let wanted = [SIGINT, SIGQUIT, SIGTERM, SIGHUP].into_iter();
    let wanted: Vec<u8> = wanted.filter(|signal| !interrupt::is_ignored(i32::from(*signal))).collect();
    let numbers = |signals: &[u8]| signals.iter().map(|signal| i32::from(*signal)).collect::<Vec<_>>();
    let (commands, to_worker) = fd::pipe()?;
    let (from_worker, to_front) = fd::pipe()?;
    match process::fork_single_threaded()? {
        Fork::Parent(worker) => {
            drop((commands, to_front));
            let taken = [wanted.as_slice(), &[SIGCHLD, SIGTSTP]].concat();
            let code = match Signals::new(&numbers(&taken)) {
                Ok(signals) => Front { worker, signals, to_worker, from_worker }.run(),
                // Without signals of its own the front is only in the way.
                Err(_) => worker.wait(None).map_or(exit::OURS, |status| status.map_or(exit::OURS, code)),
            };
            std::process::exit(i32::from(code));
        }
        Fork::Child => {
            drop((to_worker, from_worker));
            // Blocked, and never read: they come by way of the front, and a background process may set a terminal's
            // settings back only when it does not listen to SIGTTOU.
            let blocked = [wanted.as_slice(), &[SIGTSTP, SIGTTIN, SIGTTOU]].concat();
            if let Ok(signals) = Signals::new(&numbers(&blocked)) {
                std::mem::forget(signals);
            }
            let _ = TO_FRONT.set(to_front);
            let listens = std::thread::Builder::new().name("front".into()).spawn(move || listen(&commands));
            if let Err(error) = listens {
                // Nobody would hear what the front passes on, and without a front there is one already.
                let text = format!("error: {}\n  hint      {PROCESSES}\n", no_thread(error));
                let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
                std::process::exit(i32::from(exit::OURS));
            }
            Ok(())
        }
    }
}

/// The exit code that a shell shows for an end.
fn code(status: std::process::ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => exit::SIGNAL.saturating_add(signal.unwrap_or(0) as u8),
    }
}

// ---- the front ----

struct Front {
    worker: Child,
    signals: Signals,
    to_worker: OwnedFd,
    from_worker: OwnedFd,
}

impl Front {
    fn run(self) -> u8 {
        // The settings as they were: the worker may be killed while it has them otherwise.
        let settings = tty::Restore::new(io::stdin()).ok();
        let status = loop {
            match self.worker.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) => {}
                Err(_) => break None,
            }
            let ready = wait_readable(&[self.signals.as_fd(), self.from_worker.as_fd()], None);
            let signals: Vec<i32> = self.signals.read().collect();
            for signal in signals.into_iter().filter_map(|signal| u8::try_from(signal).ok()) {
                match signal {
                    SIGCHLD => {}
                    SIGTSTP => {
                        self.tell(SIGTSTP);
                        // The answer, or not: the user wants the terminal.
                        let _ = wait_readable(&[self.from_worker.as_fd()], Some(LEAVE)).map(|_| self.heard());
                        self.stop();
                    }
                    signal => self.tell(signal),
                }
            }
            // It has left the terminal and asks to be stopped; at its end there is nothing to read.
            if ready.is_ok_and(|ready| ready.has(1)) && self.heard() {
                self.stop();
            }
        };
        match settings {
            // By its own end the worker has put them back, or left them as the user's command set them.
            Some(settings) if status.is_none_or(|status| status.signal().is_none()) => std::mem::forget(settings),
            settings => drop(settings),
        }
        status.map_or(exit::OURS, code)
    }

    fn tell(&self, signal: u8) {
        // A worker that is gone needs no telling.
        let _ = fd::write_all(&self.to_worker, &[signal], Some(std::time::Instant::now() + LEAVE));
    }

    fn heard(&self) -> bool {
        match fd::read(&self.from_worker, &mut [0; 16]) {
            Ok(n) => n > 0,
            Err(error) => error.kind() == ErrorKind::Interrupted,
        }
    }

    /// Stops this process; the shell sees a stopped job. Returns when it is continued.
    fn stop(&self) {
        if has_shell() {
            // Not SIGTSTP, which is taken over here. It cannot fail.
            let _ = kill_process(getpid(), Signal::STOP);
        }
        self.tell(SIGCONT);
    }
}

/// Whether somebody above us in the session could continue us: without, a stop would be for ever.
fn has_shell() -> bool {
    const ANCESTORS: usize = 64;
    let session = getsid(None);
    let mut above = process::parent_id();
    for _ in 0..ANCESTORS {
        let Some(pid) = i32::try_from(above).ok().and_then(Pid::from_raw) else { return false };
        if getsid(Some(pid)) != session {
            return false;
        }
        if getpgid(Some(pid)).is_ok_and(|group| group != getpgrp()) {
            return true;
        }
        let Some(found) = Proc::of(above) else { return false };
        above = found.ppid;
    }
    false
}

// ---- the worker ----

/// Does what the front passes on, until the front is gone.
fn listen(commands: &OwnedFd) {
    loop {
        let mut byte = [0];
        match fd::read(commands, &mut byte) {
            Ok(1) => {}
            // The front was killed, and all of this job with it.
            _ => {
                terminal::restore();
                std::process::exit(i32::from(exit::SIGNAL) + 9);
            }
        }
        match byte[0] {
            SIGTSTP => leave(),
            SIGCONT => come_back(),
            signal => interrupt::signalled(signal),
        }
    }
}

/// Whether this is the worker of a front, from which its signals come.
pub(crate) fn is_split() -> bool {
    TO_FRONT.get().is_some()
}

/// Leaves the terminal to others and has the front stopped. `false` when there is none: then nothing happens.
pub(crate) fn suspend() -> bool {
    if is_split() {
        leave();
    }
    is_split()
}

fn leave() {
    pause::begin();
    terminal::leave();
    if let Some(front) = TO_FRONT.get() {
        let _ = fd::write_all(front, b".", Some(std::time::Instant::now() + LEAVE));
    }
}

fn come_back() {
    // Continued in the background a terminal session has no terminal: it stops again, as any program that wants one. If
    // there is no terminal any more it goes on, and its next read says so.
    if terminal::is_wanted() && foreground().is_some_and(|group| group != getpgrp()) {
        return leave();
    }
    terminal::come_back();
    pause::end();
}
