//! The user's terminal: one question, one line, with or without echo.
//!
//! It is our controlling terminal, whatever stdin and stdout are. Its settings are put back in any case, also when a
//! signal ends the process: see [`restore`].

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use offshoot::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, isatty, tcflush, tcgetattr, tcgetpgrp, tcsetattr,
};

use crate::pause;

/// How often a question looks whether the run has ended or is paused, and whether the terminal is ours.
const LOOK: Duration = Duration::from_millis(100);

/// The terminal and its settings before a question, while one stands.
static BEFORE: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Whether a user can be asked.
pub(super) fn is_there() -> bool {
    open().is_some_and(|terminal| isatty(&terminal))
}

fn open() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

/// Puts the terminal's settings back, if a question stands. For whoever ends the process.
pub(crate) fn restore() {
    if let Some((terminal, before)) = standing().take() {
        // At once: who waits for output to drain can wait for ever. If it is gone there is nothing to put back.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Puts them back for as long as we are stopped; the question sets them again when the pause is over.
pub(crate) fn leave() {
    if let Some((terminal, before)) = &*standing() {
        // As above.
        let _ = tcsetattr(terminal, OptionalActions::Now, before);
    }
}

/// Asks, and waits for a line. `None` at the end of input, at `until`, and when `ended` says that nobody waits any more.
pub(super) fn ask(prompt: &str, shown: bool, until: Instant, ended: impl Fn() -> bool) -> Option<Secret> {
    if ended() {
        return None;
    }
    let mut terminal = open()?;
    let before = tcgetattr(&terminal).ok()?;
    let kept = terminal.try_clone().ok()?;
    *standing() = Some((kept, before.clone()));
    let line = read(&terminal, prompt, shown, &before, until, ended);
    restore();
    // The newline that was typed was not shown.
    let _ = terminal.write_all(b"\n");
    line
}

fn standing() -> MutexGuard<'static, Option<(File, Termios)>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether we are in the foreground of the terminal.
fn is_ours(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

/// Shows the question on a terminal that is set for it. `Some(false)` while we are stopped; `None` when the settings have
/// been put back for good.
fn show(mut terminal: &File, prompt: &str, wanted: &Termios) -> Option<bool> {
    // Under the lock: whoever puts them back does so after this, or this does nothing.
    let standing = standing();
    standing.as_ref()?;
    if pause::is_on() {
        return Some(false);
    }
    // At once, as in `restore`, which waits for the lock.
    tcsetattr(terminal, OptionalActions::Now, wanted).ok()?;
    // What was typed ahead was not typed for this.
    tcflush(terminal, QueueSelector::IFlush).ok()?;
    drop(standing);
    terminal.write_all(prompt.as_bytes()).ok()?;
    Some(true)
}

fn read(
    mut terminal: &File,
    prompt: &str,
    shown: bool,
    before: &Termios,
    until: Instant,
    ended: impl Fn() -> bool,
) -> Option<Secret> {
    let mut wanted = before.clone();
    wanted.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
    wanted.local_modes.set(LocalModes::ECHO, shown);
    let mut stands = show(terminal, prompt, &wanted)?;
    let mut typed = false;
    loop {
        if ended() || Instant::now() >= until {
            return None;
        }
        if pause::is_on() || !is_ours(terminal) {
            // It is somebody else's for now, and so is what is typed.
            typed = false;
            thread::sleep(LOOK);
        } else if !stands || tcgetattr(terminal).ok()?.local_modes.contains(LocalModes::ECHO) != shown {
            typed = false;
            stands = show(terminal, prompt, &wanted)?;
        } else if typed {
            break;
        } else {
            let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
            typed = match poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&timeout)) {
                Ok(events) => events > 0,
                Err(rustix::io::Errno::INTR) => false,
                Err(_) => return None,
            };
        }
    }
    // A terminal gives a whole line at a time: as large as it can become, so that no copy is left behind.
    let mut line = vec![0; 4096];
    let length = terminal.read(&mut line).ok()?;
    line.truncate(length);
    // Without its newline it was ended by Ctrl-D.
    line.pop_if(|byte| *byte == b'\n')?;
    Some(Secret::new(line))
}
