//! The user's terminal: one question, one line, with or without echo.
//!
//! It is our controlling terminal, whatever stdin and stdout are. Its settings are put back in any case, also when a
//! signal ends the process: see [`restore`].

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use offshoot::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

use crate::pause;

/// How often a question looks whether the run has ended or is paused, and whether the terminal is ours.
const LOOK: Duration = Duration::from_millis(100);

/// How long a question stands: the connect that asks waits no longer, and our output waits for the question.
const PATIENCE: Duration = Duration::from_secs(120);

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
    if let Some((terminal, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // At once: who waits for output to drain can wait for ever. If it is gone there is nothing to put back.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Puts them back for as long as we are stopped; the question sets them again when the pause is over.
pub(crate) fn leave() {
    if let Some((terminal, before)) = &*BEFORE.lock().unwrap_or_else(PoisonError::into_inner) {
        // As above.
        let _ = tcsetattr(terminal, OptionalActions::Now, before);
    }
}

/// Asks, and waits for a line. `None` at the end of input, after two minutes, and when `ended` says that nobody waits any more.
pub(super) fn ask(prompt: &str, shown: bool, ended: impl Fn() -> bool) -> Option<Secret> {
    let mut terminal = open()?;
    let before = tcgetattr(&terminal).ok()?;
    let kept = terminal.try_clone().ok()?;
    *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((kept, before.clone()));
    let line = read(&mut terminal, prompt, shown, &before, ended);
    restore();
    // The newline that was typed was not shown.
    let _ = terminal.write_all(b"\n");
    line
}

/// Whether we are in the foreground of the terminal.
fn is_ours(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}

fn read(terminal: &mut File, prompt: &str, shown: bool, before: &Termios, ended: impl Fn() -> bool) -> Option<Secret> {
    let mut wanted = before.clone();
    wanted.local_modes.insert(LocalModes::ICANON | LocalModes::ISIG);
    wanted.local_modes.set(LocalModes::ECHO, shown);
    // What was typed ahead was not typed for this.
    tcsetattr(&*terminal, OptionalActions::Flush, &wanted).ok()?;
    (&*terminal).write_all(prompt.as_bytes()).ok()?;
    let until = Instant::now() + PATIENCE;
    loop {
        if ended() || Instant::now() >= until {
            return None;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
        let typed = match poll(&mut [PollFd::new(&*terminal, PollFlags::IN)], Some(&timeout)) {
            Ok(events) => events > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(_) => return None,
        };
        if pause::is_on() || !is_ours(terminal) {
            // It is somebody else's for now, and so is what is typed.
            thread::sleep(LOOK);
            continue;
        }
        let now = tcgetattr(&*terminal).ok()?;
        if now.local_modes.contains(LocalModes::ECHO) != shown {
            tcsetattr(&*terminal, OptionalActions::Flush, &wanted).ok()?;
            (&*terminal).write_all(prompt.as_bytes()).ok()?;
        } else if typed {
            break;
        }
    }
    // A terminal gives a whole line at a time: as large as it can become, so that no copy is left behind.
    let mut line = vec![0; 4096];
    let length = (&*terminal).read(&mut line).ok()?;
    line.truncate(length);
    // Without its newline it was ended by Ctrl-D.
    line.pop_if(|byte| *byte == b'\n')?;
    Some(Secret::new(line))
}
