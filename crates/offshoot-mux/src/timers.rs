//! Timers as data: a set of deadlines in order. Owns no clock (time is an argument) and no thread.

use std::collections::VecDeque;
use std::time::Instant;

/// Deadlines with a key each, in order.
///
/// Insert and cancel cost O(log n) comparisons, and move those timers of whichever are fewer, the earlier or the later;
/// expiry costs O(1). Memory is that of the timers that are set; cancelled ones leave nothing.
/// Timers of the same instant expire in the order of their setting.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// let mut timers = offshoot_mux::Timers::new();
/// let now = Instant::now();
/// timers.insert(now + Duration::from_secs(5), "heartbeat");
/// let call = timers.insert(now + Duration::from_secs(1), "call");
/// assert_eq!(timers.cancel(call), Some("call"));
/// assert_eq!(timers.next(), Some(now + Duration::from_secs(5)));
/// assert_eq!(timers.pop_expired(now), None);
/// assert_eq!(timers.pop_expired(now + Duration::from_secs(5)), Some("heartbeat"));
/// ```
#[derive(Debug)]
pub struct Timers<K> {
    // The earliest first. Most timers are set behind all others or expire; and a tree would double the code.
    set: VecDeque<(TimerId, K)>,
    made: u64,
}

/// One timer of a [`Timers`]; meaningless in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    at: Instant,
    number: u64,
}

impl TimerId {
    /// When the timer expires.
    pub fn deadline(&self) -> Instant {
        self.at
    }
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Timers<K> {
    /// No timers.
    pub const fn new() -> Self {
        Timers { set: VecDeque::new(), made: 0 }
    }

    /// Sets a timer.
    pub fn insert(&mut self, at: Instant, key: K) -> TimerId {
        let id = TimerId { at, number: self.made };
        self.made += 1;
        self.set.insert(self.place(id), (id, key));
        id
    }

    /// Takes a timer back; `None` when it has expired or was cancelled.
    pub fn cancel(&mut self, id: TimerId) -> Option<K> {
        let place = self.place(id);
        if self.set.get(place)?.0 != id {
            return None;
        }
        self.set.remove(place).map(|(_, key)| key)
    }

    /// Where a timer is, or would be.
    fn place(&self, id: TimerId) -> usize {
        self.set.partition_point(|(other, _)| *other < id)
    }

    /// The earliest deadline.
    #[allow(clippy::should_implement_trait)] // it peeks, and the name is the field's
    pub fn next(&self) -> Option<Instant> {
        self.set.front().map(|(id, _)| id.at)
    }

    /// Takes the earliest timer whose deadline is not after `now`. Call until `None`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.set.pop_front().map(|(_, key)| key)
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;
    use std::time::{Duration, Instant};

    #[test]
    fn timers_expire_in_order_of_deadline_then_of_setting() {
        let mut timers = Timers::new();
        let now = Instant::now();
        timers.insert(now + Duration::from_millis(2), 'c');
        timers.insert(now + Duration::from_millis(1), 'a');
        timers.insert(now + Duration::from_millis(1), 'b');
        assert_eq!(timers.next(), Some(now + Duration::from_millis(1)));
        let late = now + Duration::from_secs(1);
        let order: Vec<char> = std::iter::from_fn(|| timers.pop_expired(late)).collect();
        assert_eq!(order, ['a', 'b', 'c']);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_timer_in_the_middle_is_cancelled_once_and_alone() {
        let mut timers = Timers::new();
        let now = Instant::now();
        // Set in an order of neither deadline nor number.
        let ids: Vec<_> = (0..100).map(|i| timers.insert(now + Duration::from_millis(i * 37 % 100), i)).collect();
        for i in (0..100).step_by(3) {
            assert_eq!(timers.cancel(ids[i]), Some(i as u64));
            assert_eq!(timers.cancel(ids[i]), None);
        }
        let left: Vec<u64> =
            std::iter::from_fn(|| timers.pop_expired(now + Duration::from_secs(1))).map(|i| i * 37 % 100).collect();
        let expected: Vec<u64> = (0..100).filter(|at| (0..100).any(|i| i % 3 != 0 && i * 37 % 100 == *at)).collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn cancelled_timers_leave_nothing() {
        let mut timers = Timers::new();
        let now = Instant::now();
        for _ in 0..100_000 {
            let id = timers.insert(now, ());
            assert_eq!(timers.cancel(id), Some(()));
            assert_eq!(timers.cancel(id), None);
        }
        assert_eq!(timers.len(), 0);
        assert_eq!(timers.pop_expired(now), None);
    }
}
