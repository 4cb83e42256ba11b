//! The method *local*: a copy of the context's own image, on the same machine, as the same user.

use std::time::Duration;

use offshoot_wire::{Recipe, Start};

use super::{Hop, Method, OptionProblem, RecipeError};
use crate::deadlines::Deadlines;

/// A context on the same machine, as the same user: the default target of every example; it needs nothing.
///
/// # Examples
///
/// ```
/// use offshoot_connect::methods::{Local, Method};
/// assert_eq!(Local::new().recipe()?.default_name(), "local");
/// # Ok::<(), offshoot_connect::methods::RecipeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Local {
    deadlines: Deadlines,
}

impl Local {
    /// With the default deadlines: 30 s in all, 10 s for each silent stage.
    pub fn new() -> Local {
        Local::default()
    }

    /// How long the whole connect may take. At least 1 ms, at most 49 days.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Local {
        self.deadlines.set_total(limit);
        self
    }

    /// How long a stage of the connect may be silent. At least 1 ms, at most 49 days.
    #[must_use]
    pub fn stage_timeout(mut self, limit: Duration) -> Local {
        self.deadlines.set_stage(limit);
        self
    }
}

impl Method for Local {
    fn recipe(&self) -> Result<Recipe, RecipeError> {
        Ok(self.clone().into())
    }
}

impl From<Local> for Recipe {
    fn from(local: Local) -> Recipe {
        local.deadlines.apply(Recipe::new("local", "", Start::Local))
    }
}

pub(super) fn hop(rest: Option<&str>) -> Result<Hop, RecipeError> {
    match rest {
        None => Ok(Hop::Local(Local::new())),
        Some(rest) => Err(RecipeError {
            method: "local",
            option: "name",
            value: rest.to_owned(),
            problem: OptionProblem::Superfluous,
        }),
    }
}
