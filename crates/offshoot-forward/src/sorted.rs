//! A map that is a sorted list: for tables of a few thousand entries at the most, whose keys mostly come in order.
//!
//! A `BTreeMap` does the same with many times the code, anew for each type, and agents are to be small.

/// Values by keys. What is inserted in the order of keys costs nothing to place; else what lies behind is moved.
#[derive(Clone, Debug)]
pub(crate) struct Sorted<K, V>(Vec<(K, V)>);

impl<K: Ord, V> Sorted<K, V> {
    pub(crate) const fn new() -> Sorted<K, V> {
        Sorted(Vec::new())
    }

    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| other.cmp(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.find(key).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// The value of the key, which is made when there is none.
    pub(crate) fn or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = self.find(&key).unwrap_or_else(|at| {
            self.0.insert(at, (key, make()));
            at
        });
        &mut self.0[at].1
    }

    /// Puts the value in the place of the one there was, if any.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_does_what_a_map_does() {
        let (mut ours, mut map) = (Sorted::new(), BTreeMap::new());
        let mut state = 7u32;
        for step in 0..4000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = state >> 26;
            match state >> 8 & 3 {
                0 => assert_eq!(ours.remove(&key), map.remove(&key)),
                1 => {
                    ours.insert(key, step);
                    map.insert(key, step);
                }
                _ => assert_eq!(ours.or_insert_with(key, || step), map.entry(key).or_insert(step)),
            }
            assert_eq!((ours.get(&key), ours.len()), (map.get(&key), map.len()));
            assert_eq!(ours.get_mut(&key), map.get_mut(&key));
            assert!(ours.iter().eq(map.iter()) && ours.values().eq(map.values()));
        }
    }
}
