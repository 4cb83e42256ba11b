//! The names of exchanges that others asked: from a requester and its number to the slot.
//!
//! Open addressing with linear probing, at most half full. An entry is a hash and a slot; the name itself is read in the
//! exchange. So a lookup touches one line here and the exchange that it finds, no key is copied, and removing leaves no
//! marks that a busy table would have to be cleaned of.

use std::hash::{BuildHasher, Hash, Hasher};

use offshoot_wire::Address;

use crate::hash::Seeded;
use crate::slab::NONE;

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    /// [`NONE`] in an entry that is free.
    slot: u32,
}

const FREE: Entry = Entry { hash: 0, slot: NONE };

/// The fewest entries of a table that has any.
const LEAST: usize = 64;

/// The table.
pub(crate) struct Names {
    /// Empty, or a power of two.
    entries: Vec<Entry>,
    len: usize,
    seed: Seeded,
}

impl Names {
    pub(crate) fn new(seed: Seeded) -> Names {
        Names { entries: Vec::new(), len: 0, seed }
    }

    fn hash(&self, requester: &Address, number: u64) -> u32 {
        let mut hasher = self.seed.build_hasher();
        requester.hash(&mut hasher);
        hasher.write_u64(number);
        hasher.finish() as u32
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.entries.len() - 1)
    }

    /// The slot by this name; `is` says whether the exchange in a slot has it.
    pub(crate) fn find(&self, requester: &Address, number: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hash(requester, number);
        let mut place = hash as usize & (self.entries.len() - 1);
        // Ends: at least half of the entries are free.
        loop {
            let entry = self.entries[place];
            if entry.slot == NONE {
                return None;
            }
            if entry.hash == hash && is(entry.slot) {
                return Some(entry.slot);
            }
            place = self.next(place);
        }
    }

    /// Adds a name that is not in the table.
    pub(crate) fn insert(&mut self, requester: &Address, number: u64, slot: u32) {
        if (self.len + 1) * 2 > self.entries.len() {
            let more = (self.entries.len() * 2).max(LEAST);
            let before = std::mem::replace(&mut self.entries, vec![FREE; more]);
            before.into_iter().filter(|entry| entry.slot != NONE).for_each(|entry| self.put(entry));
        }
        self.len += 1;
        self.put(Entry { hash: self.hash(requester, number), slot });
    }

    fn put(&mut self, entry: Entry) {
        let mut place = entry.hash as usize & (self.entries.len() - 1);
        while self.entries[place].slot != NONE {
            place = self.next(place);
        }
        self.entries[place] = entry;
    }

    /// Takes the name of `slot` out.
    pub(crate) fn remove(&mut self, requester: &Address, number: u64, slot: u32) {
        if self.len == 0 {
            return;
        }
        let mask = self.entries.len() - 1;
        let mut hole = self.hash(requester, number) as usize & mask;
        while self.entries[hole].slot != slot {
            if self.entries[hole].slot == NONE {
                return;
            }
            hole = self.next(hole);
        }
        self.len -= 1;
        // What lies behind the hole and may lie nearer to its own place moves up, so that no lookup ends too early.
        let mut place = self.next(hole);
        while self.entries[place].slot != NONE {
            let home = self.entries[place].hash as usize & mask;
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(hole) & mask) {
                self.entries[hole] = self.entries[place];
                hole = place;
            }
            place = self.next(place);
        }
        self.entries[hole] = FREE;
    }

    /// Gives back what an empty table holds.
    pub(crate) fn release(&mut self) {
        if self.len == 0 {
            self.entries = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_table_knows_what_a_map_knows_however_full_it_was() {
        let addresses: Vec<Address> =
            ["/", "/1", "/1/2", "/7/7/7/7/7/7/7/7"].iter().map(|text| text.parse().expect("an address")).collect();
        let mut names = Names::new(Seeded::new(&[7; 16]));
        let mut slots: BTreeMap<u32, (usize, u64)> = BTreeMap::new();
        let mut known: BTreeMap<(usize, u64), u32> = BTreeMap::new();
        let mut state = 1u64;
        for step in 0..60_000u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((state >> 33) as usize % 4, (state >> 40) % 600);
            let is = |slot: u32| slots[&slot] == key;
            let found = names.find(&addresses[key.0], key.1, is);
            assert_eq!(found, known.get(&key).copied(), "step {step}");
            match found {
                Some(slot) => {
                    names.remove(&addresses[key.0], key.1, slot);
                    slots.remove(&slot);
                    known.remove(&key);
                }
                // It fills up, and empties again.
                None if step % 20_000 < 10_000 || step % 3 == 0 => {
                    names.insert(&addresses[key.0], key.1, step);
                    slots.insert(step, key);
                    known.insert(key, step);
                }
                None => {}
            }
            assert_eq!(names.len, known.len());
        }
        for (key, slot) in known {
            names.remove(&addresses[key.0], key.1, slot);
        }
        assert!(names.entries.iter().all(|entry| entry.slot == NONE), "nothing is left");
        names.release();
        assert_eq!(names.find(&addresses[0], 1, |_| true), None);
        names.remove(&addresses[0], 1, 1);
    }
}
