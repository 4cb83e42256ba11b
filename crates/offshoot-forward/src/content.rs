//! Contents, whole and on their way.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::ContentHash;

/// How much of a content lies in one piece: what one frame of bulk carries.
pub(crate) const BLOCK: usize = 64 * 1024;

/// A content that is whole and has the hash that it was asked for by. Cloning shares its memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    blocks: Vec<Bytes>,
    /// The size of every block but the last.
    block: usize,
    length: u64,
}

impl Content {
    pub(crate) fn of(bytes: Bytes) -> Content {
        Content { block: bytes.len().max(1), length: bytes.len() as u64, blocks: vec![bytes] }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.blocks.iter()
    }

    /// All of it in one piece; without copying when it lies so.
    pub fn to_bytes(&self) -> Bytes {
        match &self.blocks[..] {
            [one] => one.clone(),
            all => all.concat().into(),
        }
    }

    /// What lies at `at`, at most one block; empty behind the end.
    pub(crate) fn slice(&self, at: u64) -> Bytes {
        slice(&self.blocks, self.block, at)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a content of {} bytes", self.length)
    }
}

fn slice(blocks: &[Bytes], block: usize, at: u64) -> Bytes {
    // Below the largest content, which is in memory.
    let at = at as usize;
    let Some(whole) = blocks.get(at / block) else { return Bytes::new() };
    let from = at % block;
    whole.slice(from.min(whole.len())..whole.len().min(from + BLOCK))
}

/// A content that is on its way, copied into blocks of its own: what came may share the memory of much larger buffers.
pub(crate) struct Partial {
    blocks: Vec<Bytes>,
    tail: Vec<u8>,
    length: u64,
    received: u64,
    hash: Sha256,
}

impl Partial {
    pub(crate) fn new(length: u64) -> Partial {
        Partial { blocks: Vec::new(), tail: Vec::new(), length, received: 0, hash: Sha256::new() }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Takes what came; `false` when it is more than was announced.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> bool {
        if bytes.len() as u64 > self.length - self.received {
            return false;
        }
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.tail.capacity() == 0 {
                let left = self.length - self.blocks.len() as u64 * BLOCK as u64;
                self.tail.reserve_exact(left.min(BLOCK as u64) as usize);
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.tail.len()));
            self.tail.extend_from_slice(now);
            bytes = later;
            if self.tail.len() == BLOCK {
                self.blocks.push(std::mem::take(&mut self.tail).into());
            }
        }
        true
    }

    /// What lies at `at`, at most one block; empty where nothing has come yet.
    pub(crate) fn slice(&self, at: u64) -> Bytes {
        let full = self.blocks.len() as u64 * BLOCK as u64;
        if at < full {
            return slice(&self.blocks, BLOCK, at);
        }
        self.tail.get((at - full) as usize..).map_or_else(Bytes::new, Bytes::copy_from_slice)
    }

    /// The content, when it is whole and has this hash.
    pub(crate) fn finish(mut self, hash: &ContentHash) -> Option<Content> {
        let found: [u8; 32] = self.hash.finalize().into();
        if self.received != self.length || found != *hash.bytes() {
            return None;
        }
        if !self.tail.is_empty() {
            self.blocks.push(self.tail.into());
        }
        Some(Content { blocks: self.blocks, block: BLOCK, length: self.length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_reads_the_same_however_it_came() {
        let whole: Vec<u8> = (0..BLOCK * 2 + 1234).map(|n| (n * 7 % 251) as u8).collect();
        for step in [1000, BLOCK - 1, BLOCK, BLOCK + 1, whole.len()] {
            let mut partial = Partial::new(whole.len() as u64);
            for bytes in whole.chunks(step) {
                assert!(partial.push(bytes));
            }
            assert!(!partial.push(b"x"), "more than was announced");
            assert_eq!(partial.slice(BLOCK as u64 + 5), whole[BLOCK + 5..BLOCK * 2]);
            assert_eq!(partial.slice(BLOCK as u64 * 2 + 4), whole[BLOCK * 2 + 4..]);
            assert!(partial.slice(whole.len() as u64).is_empty());
            let content = partial.finish(&ContentHash::of(&whole)).expect("the right hash");
            assert_eq!(content.to_bytes(), whole);
            assert_eq!(content.slice(BLOCK as u64 * 2 - 1), whole[BLOCK * 2 - 1..BLOCK * 2]);
            assert!(content.slice(whole.len() as u64).is_empty());
        }
    }

    #[test]
    fn a_content_in_one_piece_is_handed_out_in_blocks() {
        let whole = Bytes::from(vec![3; BLOCK + 1]);
        let content = Content::of(whole);
        assert_eq!((content.slice(0).len(), content.slice(BLOCK as u64).len()), (BLOCK, 1));
        assert!(content.slice(BLOCK as u64 + 1).is_empty());
        assert!(Content::of(Bytes::new()).slice(0).is_empty());
    }

    #[test]
    fn s11_what_is_short_or_altered_is_no_content() {
        let hash = ContentHash::of(b"right");
        for wrong in [&b"wrong"[..], b"righ"] {
            let mut partial = Partial::new(5);
            assert!(partial.push(wrong));
            assert!(partial.finish(&hash).is_none(), "{wrong:?}");
        }
    }
}
