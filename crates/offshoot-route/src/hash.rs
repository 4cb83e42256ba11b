//! The hasher of the tables that are keyed by what other contexts chose.
//!
//! Exchange names hold numbers that a requester picks, so a fixed hash would let it pile them into one bucket. The
//! seed is derived from the node's sealing key, which nobody below or beside the node knows, and each child's share of
//! the table is bounded; a multiply-fold hash under a secret seed is enough then, and costs a few nanoseconds.

use std::hash::{BuildHasher, Hasher};

/// Builds seeded hashers.
#[derive(Clone, Copy)]
pub(crate) struct Seeded(u64, u64);

impl Seeded {
    /// A seed from 16 secret bytes.
    pub(crate) fn new(secret: &[u8; 16]) -> Seeded {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *secret;
        Seeded(u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest) | 1)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold { state: self.0, key: self.1 }
    }
}

/// The state of one hash.
pub(crate) struct Fold {
    state: u64,
    key: u64,
}

impl Fold {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * u128::from(self.key ^ 0x9e37_79b9_7f4a_7c15);
        self.state = (product as u64) ^ ((product >> 64) as u64) ^ self.key.rotate_left(17);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.key ^ 0xd6e8_feb8_6659_fd93);
        (product as u64) ^ ((product >> 64) as u64)
    }
}
