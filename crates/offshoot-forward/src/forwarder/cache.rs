//! The room that contents take, and which of them makes room for others.

use super::{Entry, Forwarder, Part, State};
use crate::ContentHash;

/// What a content counts at least: its entry costs memory, too.
const LEAST: u64 = 4096;

impl<X: Copy + Ord, L: Copy + Ord> Forwarder<X, L> {
    /// Lets what waits for room go on, in the order in which it came: a large one is not overtaken for ever.
    pub(super) fn admit(&mut self) {
        while let Some(fetch) = self.room.front() {
            let hash = self.fetches.get(fetch).copied();
            let Some((hash, length)) = hash.and_then(|hash| Some((hash, self.waits_for(&hash)?))) else {
                self.room.pop_front();
                continue;
            };
            if !self.reserve(hash, length.max(LEAST).min(self.config.budget)) {
                return;
            }
            self.room.pop_front();
            self.resume(hash);
        }
    }

    fn waits_for(&self, hash: &ContentHash) -> Option<u64> {
        match &self.entries.get(hash)?.state {
            State::Coming(fetch) => match &fetch.part {
                Part::Waiting { length, .. } => Some(*length),
                Part::Head(..) | Part::Stored(_) => None,
            },
            State::Absent | State::Here(_) => None,
        }
    }

    /// Takes room for a content, from those that nobody uses if need be; `false` when they are not enough.
    fn reserve(&mut self, hash: ContentHash, bytes: u64) -> bool {
        let excess = (self.kept + bytes).saturating_sub(self.config.budget);
        if excess > 0 {
            let mut idle: Vec<(u64, ContentHash)> = self
                .entries
                .iter()
                .filter(|(hash, entry)| is_cached(entry) && !self.is_wanted(hash))
                .map(|(hash, entry)| (entry.used, *hash))
                .collect();
            idle.sort_unstable();
            let mut freed = 0;
            let enough = idle.iter().position(|(_, hash)| {
                freed += self.entries.get(hash).map_or(0, |entry| entry.counted);
                freed >= excess
            });
            let Some(last) = enough else { return false };
            for (_, hash) in &idle[..=last] {
                self.evict(hash);
            }
        }
        self.kept += bytes;
        if let Some(entry) = self.entries.get_mut(&hash) {
            entry.counted = bytes;
        }
        true
    }

    fn evict(&mut self, hash: &ContentHash) {
        let Some(entry) = self.entries.get_mut(hash) else { return };
        self.kept -= std::mem::take(&mut entry.counted);
        entry.state = State::Absent;
        self.stats.evictions += 1;
        self.tidy(hash);
    }
}

/// Whether a content is here and takes of the budget.
fn is_cached<X, L>(entry: &Entry<X, L>) -> bool {
    entry.counted > 0 && matches!(entry.state, State::Here(_))
}
