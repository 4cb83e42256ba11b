//! A failure as the command line tells it: who, where, at which stage, what was seen, what to do next.
//!
//! Plain data, made by [`crate::tree`] from the library's errors, so that output does not depend on their form. All
//! texts but [`Fault::kind`] may hold foreign bytes and are escaped where they are shown.

use std::time::Duration;

/// What went wrong, on one target or on the way to several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A stable word for programs: `connect`, `stage-timeout`, `auth`, …
    pub(crate) kind: &'static str,
    /// One sentence, lower case, without a full stop and without the place.
    pub(crate) what: String,
    /// Why, as the library puts it; may be empty.
    pub(crate) reason: String,
    /// Where: the names from the root, joined with ` -> `; empty when it is nowhere but here.
    pub(crate) path: String,
    /// In which stage of a connect.
    pub(crate) stage: Option<String>,
    /// The stages of that connect up to the one that failed, each with how long it took; empty when nobody told.
    pub(crate) stages: Vec<(String, Duration)>,
    /// How long it had taken until then.
    pub(crate) after: Option<Duration>,
    /// The last bytes that were received.
    pub(crate) received: Vec<u8>,
    /// Whether the command ran.
    pub(crate) ran: Ran,
    /// What to do next; may be empty.
    pub(crate) hint: String,
    /// A few words for the summary line.
    pub(crate) brief: String,
    /// What the command exits with.
    pub(crate) code: u8,
    /// Whether it only says that we were interrupted ourselves.
    pub(crate) ours: bool,
}

/// Whether the command ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It did not.
    #[default]
    No,
    /// It may have.
    Maybe,
    /// It did.
    Yes,
}

impl Ran {
    /// The stable word of the JSON records.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Ran::No => "no",
            Ran::Maybe => "maybe",
            Ran::Yes => "yes",
        }
    }
}

impl Fault {
    /// A failure of our own, on this machine.
    pub(crate) fn ours(what: String, reason: String) -> Fault {
        Fault { kind: "os", brief: what.clone(), what, reason, code: crate::exit::OURS, ..Fault::default() }
    }
}
