//! Our own terminal while it is in raw mode, and its settings put back whatever happens.
//!
//! One for the process, so that whoever ends it can put them back: the end of a session, a panic, a signal, the front
//! (see [`crate::front`]), which also does it when this process is killed.

use std::io::{self, Stdin};
use std::sync::{Mutex, PoisonError};

use offshoot_mux::tty::{self, Restore, Size};
use rustix::process::{Signal, getpid, kill_process};

static RAW: Mutex<Option<Restore<Stdin>>> = Mutex::new(None);

fn raw<R>(work: impl FnOnce(&mut Option<Restore<Stdin>>) -> R) -> R {
    work(&mut RAW.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Raw mode, until the drop or [`restore`].
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Makes the terminal of our stdin raw. A panic puts it back before it says anything.
    ///
    /// # Errors
    /// When stdin is no terminal.
    pub(crate) fn enter() -> io::Result<RawMode> {
        let settings = Restore::raw(io::stdin())?;
        raw(|raw| *raw = Some(settings));
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            before(info);
        }));
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the settings back for good. Nothing happens when they are as they were.
pub(crate) fn restore() {
    crate::answer::restore();
    raw(|raw| drop(raw.take()));
}

/// Whether a session wants the terminal.
pub(crate) fn is_wanted() -> bool {
    raw(|raw| raw.is_some())
}

/// Puts the settings back for as long as we are stopped.
pub(crate) fn leave() {
    crate::answer::leave();
    raw(|raw| {
        if let Some(settings) = raw {
            settings.put_back();
        }
    });
}

/// We were continued: raw again. The terminal's size may be another by now.
pub(crate) fn come_back() {
    let wanted = raw(|raw| {
        if raw.is_some() {
            // It was a terminal; if it is gone the next read says so.
            let _ = tty::set_raw(io::stdin());
        }
        raw.is_some()
    });
    if wanted {
        // To this process itself, which exists.
        let _ = kill_process(getpid(), Signal::WINCH);
    }
}

/// The size of our terminal; `None` when stdin is none.
pub(crate) fn size() -> Option<Size> {
    tty::size(io::stdin()).ok()
}
