//! Calls that nobody waits for: kept until they end, and their failures logged.
//!
//! One thread for all of a process, which ends when none is left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use offshoot_wire::decode_untrusted;

use crate::{Completed, PendingCall, RemoteError, Select};

/// How soon the thread takes notice of a call that comes while it waits for others.
const LOOK: Duration = Duration::from_millis(100);

/// An encoded value, and what makes of it what went wrong.
pub(crate) struct Outcome {
    /// What the function returned, if that was an error of its own.
    pub(crate) error: Option<Vec<u8>>,
}

#[derive(Default)]
struct Calls {
    new: Vec<PendingCall<Outcome>>,
    running: bool,
}

static CALLS: Mutex<Calls> = Mutex::new(Calls { new: Vec::new(), running: false });

/// Keeps a call until it ends.
pub(crate) fn keep(call: PendingCall<Outcome>) {
    let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
    calls.new.push(call);
    if !calls.running {
        let thread = std::thread::Builder::new().name("offshoot-detached".into());
        // Without a thread it waits for the next one that can be had.
        calls.running = thread.spawn(watch).is_ok();
    }
}

fn watch() {
    let mut select = Select::new([]);
    loop {
        {
            let mut calls = CALLS.lock().unwrap_or_else(PoisonError::into_inner);
            for call in calls.new.drain(..) {
                select.add(call);
            }
            if select.is_empty() {
                calls.running = false;
                return;
            }
        }
        if let Some(done) = select.next_timeout(LOOK) {
            // The user's logger may panic, which is no reason to let go of the others.
            let _ = catch_unwind(AssertUnwindSafe(|| tell(done)));
        }
    }
}

fn tell(done: Completed<Outcome>) {
    let (context, function) = (done.context().clone(), done.function());
    match done.into_result() {
        Ok(Outcome { error: None }) => {}
        Ok(Outcome { error: Some(error) }) => match decode_untrusted::<RemoteError>(&error) {
            Ok(error) => log::error!("{function}, detached on {context}, returned an error: {error}"),
            Err(_) => log::error!("{function}, detached on {context}, returned an error"),
        },
        Err(error) => log::error!("{function}, detached on {context}, failed: {error}"),
    }
}
