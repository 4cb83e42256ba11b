//! Maps keyed by the core's own ids.
//!
//! The core numbers links and exchanges itself, so nobody outside can choose keys that collide, and a hash that
//! resists that is not needed: these maps are on the path of every call.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by [`LinkId`](offshoot_route::LinkId) or [`ExchangeId`](offshoot_route::ExchangeId).
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Multiplies by an odd constant (2^64 / the golden ratio), so that dense numbers spread over all bits.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
