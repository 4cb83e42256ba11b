//! The deadlines that every method has, as numbers that fit a recipe.

use std::time::Duration;

use offshoot_wire::Recipe;

/// How long the whole connect may take, how long one stage may be silent, and how long an answer to a question of the tool
/// may take. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Deadlines {
    pub(crate) total: u32,
    pub(crate) stage: u32,
    pub(crate) answer: u32,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { total: 30_000, stage: 10_000, answer: 120_000 }
    }
}

impl Deadlines {
    pub(crate) fn set_total(&mut self, limit: Duration) {
        self.total = millis(limit);
    }

    pub(crate) fn set_stage(&mut self, limit: Duration) {
        self.stage = millis(limit);
    }

    pub(crate) fn set_answer(&mut self, limit: Duration) {
        self.answer = millis(limit);
    }

    pub(crate) fn apply(&self, mut recipe: Recipe) -> Recipe {
        recipe.deadline_ms = self.total;
        recipe.stage_ms = self.stage;
        recipe
    }

    /// The whole seconds to give a tool for its own waiting: a second less than the stage, so that its own words arrive
    /// before ours replace them; at least one.
    pub(crate) fn tool_seconds(&self) -> u32 {
        (self.total.min(self.stage) / 1000).saturating_sub(1).max(1)
    }
}

fn millis(limit: Duration) -> u32 {
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_gives_up_a_second_before_we_do() {
        assert_eq!(Deadlines::default().tool_seconds(), 9);
        assert_eq!(Deadlines { total: 4_500, ..Deadlines::default() }.tool_seconds(), 3);
        assert_eq!(Deadlines { total: 500, ..Deadlines::default() }.tool_seconds(), 1);
    }

    #[test]
    fn no_deadline_is_zero_or_overflows() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::MAX), u32::MAX);
    }
}
