//! Token buckets: what one link may make this node do (S13).

use std::time::Duration;

use crate::Time;

/// How often something may happen: `burst` at once, then `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// How many each second in the long run.
    pub per_second: u32,
}

/// The state of one [`Rate`]. Counts in millionths of a token, so that microseconds lose nothing.
pub(crate) struct Bucket {
    spent: u64,
    at: Time,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    pub(crate) fn new(now: Time) -> Bucket {
        Bucket { spent: 0, at: now }
    }

    /// Charges a link for something that its neighbour did, or a context behind it.
    ///
    /// What lies behind is charged a sixteenth: its own parent charges it in full and cuts it off, so an honest relay
    /// bears sixteen hostile children at their limits, and a hostile one that makes up contexts is still cut off.
    /// `weight` is how many things it counts as.
    pub(crate) fn charge(&mut self, near: bool, weight: u32, rate: Rate, now: Time) -> bool {
        let rate = Rate { burst: rate.burst.saturating_mul(16), per_second: rate.per_second.saturating_mul(16) };
        self.take(weight.saturating_mul(if near { 16 } else { 1 }), rate, now)
    }

    /// Takes `tokens`; whether there were that many. When not, nothing is taken.
    pub(crate) fn take(&mut self, tokens: u32, rate: Rate, now: Time) -> bool {
        let elapsed: Duration = now.since(self.at);
        let back = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(rate.per_second.into());
        self.spent = self.spent.saturating_sub(back);
        self.at = self.at.max(now);
        let spent = self.spent.saturating_add(u64::from(tokens) * TOKEN);
        let fits = spent <= u64::from(rate.burst) * TOKEN;
        if fits {
            self.spent = spent;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { burst: 10, per_second: 2 };
        let mut bucket = Bucket::new(Time::ZERO);
        assert!((0..10).all(|_| bucket.take(1, rate, Time::ZERO)));
        assert!(!bucket.take(1, rate, Time::from_micros(499_999)));
        assert!(bucket.take(1, rate, Time::from_micros(500_000)));
        assert!(!bucket.take(1, rate, Time::from_micros(500_001)));
        let later = Time::from_micros(u64::MAX);
        assert!((0..10).all(|_| bucket.take(1, rate, later)));
        assert!(!bucket.take(1, rate, later));
    }
}
