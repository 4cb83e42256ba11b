//! Exit codes.
//!
//! | code | means |
//! |--:|---|
//! | 0 … 255 | the command's own; with several targets the largest of all |
//! | 124 | the command's time (`-u`) was up |
//! | 125 | our own failure: usage, no connection |
//! | 126 | the command was found and could not be started |
//! | 127 | the command was not found |
//! | 128 + n | signal n ended the command |
//! | 129, 130, 131, 143 | we were ended by SIGHUP, Ctrl-C, Ctrl-\, SIGTERM |
//! | 141 | whoever read our output went away |
//! | 255 | the link to the target was lost while the command ran |

use crate::output::{End, Outcome};

/// The command's time was up.
pub(crate) const TIMED_OUT: u8 = 124;
/// What is said of that in a few words.
pub(crate) const TIME_WAS_UP: &str = "timed out";
/// Our own failure.
pub(crate) const OURS: u8 = 125;
/// The command cannot be started.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// The command is not there.
pub(crate) const NOT_FOUND: u8 = 127;
/// A signal: this, plus its number.
pub(crate) const SIGNAL: u8 = 128;
/// Our output's reader is gone: what a shell shows for SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;
/// The link was lost.
pub(crate) const LINK_LOST: u8 = 255;

/// The exit code of one target.
pub(crate) fn code(outcome: &Outcome) -> u8 {
    match outcome {
        // Whatever the command made of its TERM: a timeout is never 0.
        Outcome::Ended { timed_out: true, .. } => TIMED_OUT,
        // The kernel keeps the low eight bits.
        Outcome::Ended { end: End::Status(status), .. } => *status as u8,
        Outcome::Ended { end: End::Signal(signal), .. } => u8::try_from(*signal).unwrap_or(0).saturating_add(SIGNAL),
        Outcome::Failed(fault) => fault.code,
    }
}

/// A few words on an outcome for the summary line; `None` when all is well.
pub(crate) fn brief(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Ended { timed_out: true, .. } => Some(TIME_WAS_UP.into()),
        Outcome::Ended { end: End::Status(0), .. } => None,
        Outcome::Ended { end: End::Status(status), .. } => Some(format!("status {status}")),
        Outcome::Ended { end: End::Signal(signal), .. } => Some(format!("signal {signal}")),
        Outcome::Failed(fault) => Some(fault.brief.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn outcomes_become_the_codes_of_a_shell_and_a_timeout_is_never_0() {
        let ended = |end, timed_out| Outcome::Ended { end, timed_out, took: Duration::ZERO };
        for (outcome, expected) in [
            (ended(End::Status(0), false), 0),
            (ended(End::Status(3), false), 3),
            (ended(End::Status(256 + 7), false), 7),
            (ended(End::Signal(9), false), 137),
            (ended(End::Status(0), true), 124),
            (ended(End::Signal(15), true), 124),
        ] {
            assert_eq!(code(&outcome), expected, "{outcome:?}");
        }
    }

    #[test]
    fn the_page_for_users_has_every_code() {
        let codes = [
            (TIMED_OUT, "the command's time (`-u`) was up"),
            (OURS, "our own failure: wrong usage, no connection"),
            (NOT_EXECUTABLE, "the command is there and cannot be started"),
            (NOT_FOUND, "the command is not there"),
            (BROKEN_PIPE, "whoever read our output went away"),
            (LINK_LOST, "the link was lost while the command ran"),
        ];
        for (code, means) in codes {
            crate::usage::assert_says(&code.to_string(), means);
        }
        crate::usage::assert_says(&format!("{SIGNAL} + n"), "signal n ended the command");
    }
}
