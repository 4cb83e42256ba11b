//! What `offshoot doctor` finds out about a target and says of it.
//!
//! [`facts`] asks the target, [`findings`] judges, [`show`] draws; [`crate::commands::doctor`] runs them hop by hop. None of
//! the three knows the library.

pub(crate) mod facts;
pub(crate) mod findings;
pub(crate) mod show;

use std::time::Duration;

use crate::fault::Fault;
use facts::Facts;
use findings::Finding;

/// One hop of the path: how it was reached, what is there, what to think of it.
#[derive(Debug, Default)]
pub(crate) struct Hop {
    /// As the user wrote it.
    pub(crate) name: String,
    /// The names from the root, joined with ` -> `.
    pub(crate) path: String,
    pub(crate) stages: Vec<Stage>,
    /// What the agent said of itself; `None` when the hop was not reached.
    pub(crate) agent: Option<Agent>,
    pub(crate) facts: Facts,
    pub(crate) findings: Vec<Finding>,
    /// Why it was not reached, or could not be asked.
    pub(crate) fault: Option<Box<Fault>>,
}

/// A stage of a connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// How long it took; `None` when nobody told.
    pub(crate) took: Option<Duration>,
    pub(crate) failed: bool,
}

/// What an agent said of itself. The texts are foreign.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agent {
    pub(crate) user: String,
    pub(crate) uid: u32,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) triple: String,
    pub(crate) version: String,
    /// The agent for such machines that is at hand here: its size as it travels, and where it is from.
    pub(crate) at_hand: Option<(u64, String)>,
}
