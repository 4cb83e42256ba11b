//! Lines: cutting a stream of bytes into them, within a bound.

/// The longest line that is shown in one piece, in bytes. A longer one is shown in pieces, each marked as such: a
/// target that never sends a newline holds this much of our memory and no more.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    /// With a newline.
    Newline,
    /// It goes on in the next piece: [`LINE_MAX`] was reached.
    Cut,
    /// With the stream.
    Unterminated,
}

/// The splitter of one stream.
#[derive(Default)]
pub(crate) struct Lines {
    /// What came of a line whose end has not; always shorter than [`LINE_MAX`].
    pending: Vec<u8>,
}

impl Lines {
    /// Takes in bytes and calls `each` with every line that is complete, without its newline.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8], LineEnd)) {
        while let Some(newline) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..newline], &bytes[newline + 1..]);
            if self.pending.is_empty() && line.len() <= LINE_MAX {
                each(line, LineEnd::Newline);
            } else {
                self.keep(line, &mut each);
                each(&self.pending, LineEnd::Newline);
                self.pending.clear();
            }
            bytes = rest;
        }
        self.keep(bytes, &mut each);
    }

    /// The stream ended: a last line without newline is given too.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(&[u8], LineEnd)) {
        if !self.pending.is_empty() {
            each(&self.pending, LineEnd::Unterminated);
            self.pending = Vec::new();
        }
    }

    /// Appends to the pending line, giving away full pieces of it. One byte more than a piece must be there before it
    /// is given: a line of exactly the bound is not cut.
    fn keep(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8], LineEnd)) {
        while self.pending.len() + bytes.len() > LINE_MAX {
            let (now, later) = bytes.split_at(LINE_MAX - self.pending.len());
            self.pending.extend_from_slice(now);
            bytes = later;
            let end = border(&self.pending);
            each(&self.pending[..end], LineEnd::Cut);
            self.pending.drain(..end);
        }
        self.pending.extend_from_slice(bytes);
    }
}

/// Where to cut so that no UTF-8 character is torn: at the end, or up to three bytes before.
fn border(piece: &[u8]) -> usize {
    let tail = piece.len().saturating_sub(3);
    match piece[tail..].iter().rposition(|byte| byte & 0xc0 != 0x80) {
        Some(lead) if wanted(piece[tail + lead]) > piece.len() - tail - lead => tail + lead,
        _ => piece.len(),
    }
}

/// How many bytes a character has that begins with this one.
fn wanted(lead: u8) -> usize {
    match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, LineEnd)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line, end| out.push((line.to_vec(), end)));
            assert!(lines.pending.len() <= LINE_MAX);
        }
        lines.finish(|line, end| out.push((line.to_vec(), end)));
        out
    }

    #[test]
    fn lines_come_whole_and_the_unterminated_last_one_is_kept() {
        use LineEnd::{Newline, Unterminated};
        assert_eq!(
            split(&[b"one\ntw", b"o\n\nlast"]),
            [
                (b"one".to_vec(), Newline),
                (b"two".to_vec(), Newline),
                (b"".to_vec(), Newline),
                (b"last".to_vec(), Unterminated)
            ]
        );
    }

    #[test]
    fn a_line_of_the_bound_is_whole_and_one_byte_more_is_cut() {
        let exact = vec![b'x'; LINE_MAX];
        assert_eq!(split(&[&exact, b"\n"]), [(exact.clone(), LineEnd::Newline)]);
        assert_eq!(split(&[&exact, b"y\n"]), [(exact.clone(), LineEnd::Cut), (b"y".to_vec(), LineEnd::Newline)]);
        let long = vec![b'x'; 3 * LINE_MAX];
        assert_eq!(split(&[&long]).len(), 3);
    }

    #[test]
    fn a_cut_does_not_tear_a_character() {
        let mut line = vec![b'x'; LINE_MAX - 1];
        line.extend("\u{20ac}uro\n".as_bytes());
        let pieces = split(&[&line]);
        assert_eq!(pieces[0].0.len(), LINE_MAX - 1);
        assert_eq!(pieces[1], ("\u{20ac}uro".as_bytes().to_vec(), LineEnd::Newline));
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_no_chunking_shows(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 0..400),
            cuts in prop::collection::vec(1usize..50, 1..40)
        ) {
            let mut rest = &bytes[..];
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            let lines = split(&chunks);
            prop_assert_eq!(&lines, &split(&[&bytes]));
            let mut joined = Vec::new();
            for (line, end) in lines {
                joined.extend(line);
                if end == LineEnd::Newline {
                    joined.push(b'\n');
                }
            }
            prop_assert_eq!(joined, bytes);
        }
    }

    #[test]
    fn the_page_for_users_says_how_long_a_line_may_be() {
        crate::usage::assert_says("a line of output in one piece", &crate::usage::size(LINE_MAX as u64));
    }
}
