//! Fuzzed bytes as a source of choices.

/// Takes choices off the front of the input; when it is used up, every choice is 0.
pub(crate) struct Feed<'a> {
    rest: &'a [u8],
}

impl<'a> Feed<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Feed<'a> {
        Feed { rest }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn chance(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(crate) fn number(&mut self) -> u64 {
        // Small numbers, the edges of each width, and anything.
        match self.byte() {
            small @ 0..=0xbf => u64::from(small),
            0xc0..=0xc7 => u64::MAX,
            0xc8..=0xcf => (1 << 32) - 1,
            0xd0..=0xd7 => 1 << 20 | u64::from(self.byte()),
            0xd8..=0xdf => u64::from(u16::from_le_bytes([self.byte(), self.byte()])),
            0xe0..=0xef => 1 << 22,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// At most `most` bytes, as many as the input says and has.
    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let wanted = usize::from(self.byte()).min(most).min(self.rest.len());
        let (taken, rest) = self.rest.split_at(wanted);
        self.rest = rest;
        taken
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}
