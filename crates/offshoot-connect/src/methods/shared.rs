//! What all methods do alike: say which option cannot be right, and turn their tables of texts into hints. Any thread.

use offshoot_wire::{AuthFailure, Hint, Meaning};

use super::{OptionProblem, RecipeError};
use crate::answers::Answers;
use crate::names::NameError;

/// A method, by its name, as the one whose options are checked.
pub(super) struct OptionsOf(pub(super) &'static str);

impl OptionsOf {
    pub(super) fn wrong(&self, option: &'static str, value: &str, problem: OptionProblem) -> RecipeError {
        RecipeError::new(self.0, option, value, problem)
    }

    pub(super) fn checked(
        &self,
        option: &'static str,
        value: &str,
        result: Result<(), NameError>,
    ) -> Result<(), RecipeError> {
        result.map_err(|problem| self.wrong(option, value, problem.into()))
    }

    /// That every secret can be typed.
    pub(super) fn typable(&self, answers: &Answers) -> Result<(), RecipeError> {
        if answers.are_typable() { Ok(()) } else { Err(self.wrong("secret", "not shown", OptionProblem::Secret)) }
    }
}

/// A row of a table of texts: what the tool prints, what that means, and what to do.
pub(super) type Text = (&'static str, Meaning, &'static str);

pub(super) fn hints(texts: &[Text]) -> Vec<Hint> {
    let hint = |&(text, means, advice): &Text| Hint { text: text.to_owned(), means, advice: advice.to_owned() };
    texts.iter().map(hint).collect()
}

/// Short, for the tables.
pub(super) const fn auth(failure: AuthFailure) -> Meaning {
    Meaning::Auth(failure)
}
