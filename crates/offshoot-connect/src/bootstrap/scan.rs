//! Searching foreign bytes: linear, bounded, indifferent to how they are cut into pieces (S23).

use std::collections::VecDeque;

/// Finds one pattern in a stream (Knuth, Morris, Pratt): each byte is looked at once, whatever the bytes are.
#[derive(Debug)]
pub(super) struct Matcher {
    pattern: Vec<u8>,
    /// For each length that has matched: the longest shorter one that also has.
    shorter: Vec<usize>,
    matched: usize,
}

impl Matcher {
    pub(super) fn new(pattern: impl Into<Vec<u8>>) -> Matcher {
        let pattern: Vec<u8> = pattern.into();
        let mut shorter = vec![0; pattern.len() + 1];
        let mut matched = 0;
        for at in 1..pattern.len() {
            while matched > 0 && pattern[at] != pattern[matched] {
                matched = shorter[matched];
            }
            matched += usize::from(pattern[at] == pattern[matched]);
            shorter[at + 1] = matched;
        }
        Matcher { pattern, shorter, matched: 0 }
    }

    /// Takes the next byte; whether it ends a match. An empty pattern never matches.
    pub(super) fn step(&mut self, byte: u8) -> bool {
        if self.matched == self.pattern.len() {
            self.matched = self.shorter[self.matched];
        }
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.shorter[self.matched];
        }
        self.matched += usize::from(self.pattern.get(self.matched) == Some(&byte));
        self.matched > 0 && self.matched == self.pattern.len()
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    /// What is kept: enough for a login's greeting and the error behind it (S12).
    pub(super) const KEPT: usize = 64 << 10;

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(Tail::KEPT)..];
        let over = (self.bytes.len() + bytes.len()).saturating_sub(Tail::KEPT);
        self.bytes.drain(..over);
        self.bytes.extend(bytes);
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(pattern: &[u8], text: &[u8]) -> Vec<usize> {
        let mut matcher = Matcher::new(pattern);
        text.iter().enumerate().filter_map(|(at, byte)| matcher.step(*byte).then_some(at + 1)).collect()
    }

    #[test]
    fn a_pattern_that_begins_in_its_own_false_start_is_found() {
        assert_eq!(find(b"aab", b"aaab"), [4]);
        assert_eq!(find(b"abab", b"ababab"), [4, 6]);
        assert_eq!(find(b"", b"abc"), [0usize; 0]);
    }

    proptest! {
        #[test]
        fn all_matches_are_found_and_nothing_else(
            pattern in proptest::collection::vec(0u8..3, 1..6),
            text in proptest::collection::vec(0u8..3, 0..200),
        ) {
            let plain: Vec<usize> = text.windows(pattern.len()).enumerate()
                .filter(|(_, window)| *window == pattern).map(|(at, _)| at + pattern.len()).collect();
            prop_assert_eq!(find(&pattern, &text), plain);
        }
    }

    #[test]
    fn the_tail_is_the_end_of_what_came() {
        let all: Vec<u8> = (0..300_000u32).map(|n| (n % 241) as u8).collect();
        for piece in [1, 7, 4096, 65_536, 100_000] {
            let mut tail = Tail::default();
            all.chunks(piece).for_each(|chunk| tail.push(chunk));
            assert_eq!(tail.take(), all[all.len() - Tail::KEPT..], "pieces of {piece}");
        }
    }
}
