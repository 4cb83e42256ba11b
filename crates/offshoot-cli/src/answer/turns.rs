//! Whose turn it is to be asked: one question at a time, and none that nobody waits for any more.
//!
//! A question waits for those before it. How long is counted from when it came: the login that asks waits no longer. Who
//! let one stand for its whole time is not there, so those that came meanwhile are not shown. It must not know
//! what is asked. Any thread.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The questions to one user.
pub(super) struct Turns {
    /// How long a question stands at most.
    stands: Duration,
    /// How long it is of use to whoever asks.
    waits: Duration,
    /// When one had last stood for all of its time.
    away: Mutex<Option<Instant>>,
}

impl Turns {
    pub(super) fn new(stands: Duration, waits: Duration) -> Turns {
        Turns { stands, waits, away: Mutex::new(None) }
    }

    /// Asks, now that it is this question's turn, unless that is of no use: `ask` is given the time until which it stands.
    pub(super) fn ask<R>(&self, came: Instant, ask: impl FnOnce(Instant) -> Option<R>) -> Option<R> {
        let now = Instant::now();
        let late = came + self.waits;
        let away = || *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= late || away().is_some_and(|away| came <= away) {
            return None;
        }
        let until = late.min(now + self.stands);
        let answer = ask(until);
        let now = Instant::now();
        if answer.is_none() && now >= until {
            *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Lets it stand for all of its time.
    fn nobody(until: Instant) -> Option<()> {
        thread::sleep(until.saturating_duration_since(Instant::now()));
        None
    }

    #[test]
    fn a_question_that_came_while_another_stood_unanswered_is_not_shown_and_a_later_one_is() {
        let turns = Turns::new(Duration::from_millis(20), Duration::from_secs(600));
        let came = Instant::now();
        assert_eq!(turns.ask(came, nobody), None);
        assert_eq!(turns.ask(came, |_| -> Option<()> { panic!("shown") }), None);
        assert_eq!(turns.ask(Instant::now(), |_| Some(1)), Some(1));
    }

    #[test]
    fn who_declines_one_question_is_asked_the_next() {
        let turns = Turns::new(Duration::from_secs(120), Duration::from_secs(600));
        let came = Instant::now();
        assert_eq!(turns.ask(came, |_| None::<u8>), None);
        assert_eq!(turns.ask(came, |_| Some(1)), Some(1));
    }

    #[test]
    fn how_long_a_question_is_of_use_is_counted_from_when_it_came() {
        let turns = Turns::new(Duration::from_secs(120), Duration::from_secs(600));
        let now = Instant::now();
        let left = |came| turns.ask(came, |until| Some(until.saturating_duration_since(now).as_secs()));
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).expect("a machine that runs so long");
        assert!(left(ago(1)).is_some_and(|left| (119..=150).contains(&left)));
        assert!(left(ago(570)).is_some_and(|left| left <= 30));
        assert_eq!(left(ago(600)), None);
    }
}
