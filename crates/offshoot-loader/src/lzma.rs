//! Decoding LZMA from bytes as they come into a slice: small before fast.
//!
//! The plain stream of LZMA's first version, without its header and without an end marker: who calls knows the
//! properties and the length. What was decoded is the dictionary, so there is no other memory than the output and the
//! probabilities. Not every error is looked for: what damage decodes to is told by the hash. Each step fills output, never
//! beyond its end, and reads nothing before its beginning.

/// The data is damaged, or does not decode to exactly the room given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// How many probabilities there are at the most, with `lc + lp` of 4: 28 KiB.
pub const PROBABILITIES: usize = LITERAL + (0x300 << LITERAL_BITS_MAX);
const LITERAL_BITS_MAX: u32 = 4;

// Where each kind of decision has its probabilities.
const IS_MATCH: usize = 0;
const IS_REP0_LONG: usize = IS_MATCH + (12 << POSITION_BITS);
/// Four by state, 16 apart: is it a repeated distance, not the last, not the one before, not the third?
const IS_REP: usize = IS_REP0_LONG + (12 << POSITION_BITS);
const SLOT: usize = IS_REP + 4 * 16;
const SPECIAL: usize = SLOT + 4 * 64;
const ALIGN: usize = SPECIAL + 128;
const MATCH_LENGTH: usize = ALIGN + 16;
const REP_LENGTH: usize = MATCH_LENGTH + LENGTH;
const LITERAL: usize = REP_LENGTH + LENGTH;
/// Room for the most that `pb` can be here, as a power.
const POSITION_BITS: u32 = 3;

/// The probabilities of a length: two choices, then three sets.
const LENGTH: usize = LENGTH_HIGH + 256;
const LENGTH_LOW: usize = 2;
const LENGTH_MID: usize = LENGTH_LOW + (8 << POSITION_BITS);
const LENGTH_HIGH: usize = LENGTH_MID + (8 << POSITION_BITS);

/// Decodes so that `dst` is full. `properties` is what the encoder chose: LZMA's `lc` in the low three bits, `lp` in the
/// next three, `pb` in the two above. `next` gives the bytes, and something of its choice behind their end.
///
/// What is in `probabilities` does not matter. Time is linear in the length of `dst`, whatever the bytes are: `next` is
/// called at most 50 times for each byte of it.
///
/// # Errors
///
/// [`Damaged`]; `dst` then holds what was decoded so far.
pub fn decode(
    properties: u8,
    mut next: impl FnMut() -> u8,
    probabilities: &mut [u16; PROBABILITIES],
    dst: &mut [u8],
) -> Result<(), Damaged> {
    let (lc, lp, pb) = (u32::from(properties & 7), u32::from(properties >> 3 & 7), u32::from(properties >> 6));
    if lc + lp > LITERAL_BITS_MAX {
        return Err(Damaged);
    }
    probabilities.fill(1 << 10);
    let mut interval = Interval { range: u32::MAX, code: 0 };
    // The first of the five is 0 by the encoder's nature.
    for _ in 0..5 {
        interval.code = interval.code << 8 | u32::from(next());
    }
    let mut coder = Coder { next, interval, probabilities };
    coder.fill(dst, lc, (1 << lp) - 1, (1 << pb) - 1).ok_or(Damaged)
}

/// Where the range coder is.
#[derive(Clone, Copy)]
struct Interval {
    range: u32,
    code: u32,
}

struct Coder<'a, N> {
    next: N,
    interval: Interval,
    probabilities: &'a mut [u16; PROBABILITIES],
}

impl<N: FnMut() -> u8> Coder<'_, N> {
    fn fill(&mut self, dst: &mut [u8], lc: u32, literal_mask: usize, position_mask: usize) -> Option<()> {
        let mut at = 0;
        // What the last steps were; from 7 on the last one was no literal.
        let mut state = 0;
        // The last four distances, less one.
        let mut back = [0; 4];
        while at < dst.len() {
            let position = at & position_mask;
            let by_position = (state << POSITION_BITS) + position;
            if self.bit(IS_MATCH + by_position) == 0 {
                let before = usize::from(*dst.get(at.wrapping_sub(1)).unwrap_or(&0));
                let set = (at & literal_mask) << lc | before >> (8 - lc);
                let other = if state < 7 { None } else { Some(*dst.get(at.wrapping_sub(back[0] + 1))?) };
                *dst.get_mut(at)? = self.literal(LITERAL + 0x300 * set, other);
                at += 1;
                state = match state {
                    0..4 => 0,
                    4..10 => state - 3,
                    _ => state - 6,
                };
                continue;
            }
            let after_literal = state < 7;
            let mut length = 1;
            // Which of the last distances it is; a new one takes the place of the oldest.
            let mut which = 3;
            if self.bit(IS_REP + state) == 0 {
                length = self.length(MATCH_LENGTH, position);
                back[which] = self.distance(length);
                state = if after_literal { 7 } else { 10 };
            } else {
                which = 0;
                while which < 3 && self.bit(IS_REP + 16 * (which + 1) + state) != 0 {
                    which += 1;
                }
                let short = which == 0 && self.bit(IS_REP0_LONG + by_position) == 0;
                if !short {
                    length = self.length(REP_LENGTH, position);
                }
                state = match (after_literal, short) {
                    (true, true) => 9,
                    (true, false) => 8,
                    (false, _) => 11,
                };
            }
            for at in (0..which).rev() {
                back.swap(at, at + 1);
            }
            for _ in 0..length {
                let byte = *dst.get(at.wrapping_sub(back[0]).wrapping_sub(1))?;
                *dst.get_mut(at)? = byte;
                at += 1;
            }
        }
        Some(())
    }

    /// After a match the byte is another one than `other`, with which the match would have gone on.
    fn literal(&mut self, set: usize, other: Option<u8>) -> u8 {
        let Some(other) = other else { return self.tree(set, 1, 0x100) as u8 };
        let (mut other, mut alike) = (usize::from(other), 0x100);
        let mut symbol = 1;
        let mut interval = self.interval;
        while symbol < 0x100 {
            other <<= 1;
            let expected = other & alike;
            let bit = self.step(&mut interval, set + alike + expected + symbol);
            symbol = symbol << 1 | bit;
            // Once a bit was another one, `other` counts no longer.
            alike &= expected ^ bit.wrapping_sub(1);
        }
        self.interval = interval;
        symbol as u8
    }

    fn length(&mut self, set: usize, position: usize) -> usize {
        if self.bit(set) == 0 {
            self.bits(set + LENGTH_LOW + (position << 3), 3) + 2
        } else if self.bit(set + 1) == 0 {
            self.bits(set + LENGTH_MID + (position << 3), 3) + 10
        } else {
            self.bits(set + LENGTH_HIGH, 8) + 18
        }
    }

    /// A distance less one, whose probabilities depend on the length that it goes with.
    fn distance(&mut self, length: usize) -> usize {
        let slot = self.bits(SLOT + 64 * (length - 2).min(3), 6);
        if slot < 4 {
            return slot;
        }
        // The slot is the distance's two leading bits and how many follow them.
        let more = (slot as u32 >> 1) - 1;
        let base = (2 | slot & 1) << more;
        if slot < 14 {
            return base + self.bits_reversed(SPECIAL + base - slot, more);
        }
        let mut middle = 0;
        for _ in 4..more {
            middle = middle << 1 | self.even_bit();
        }
        base + (middle << 4) + self.bits_reversed(ALIGN, 4)
    }

    fn bits(&mut self, set: usize, count: u32) -> usize {
        self.tree(set, 1, 1 << count) - (1 << count)
    }

    /// Bits from the highest on, behind those of `symbol`, until it reaches `end`.
    #[inline(never)]
    fn tree(&mut self, set: usize, mut symbol: usize, end: usize) -> usize {
        let mut interval = self.interval;
        while symbol < end {
            symbol = symbol << 1 | self.step(&mut interval, set + symbol);
        }
        self.interval = interval;
        symbol
    }

    fn bits_reversed(&mut self, set: usize, count: u32) -> usize {
        let (mut node, mut symbol) = (1, 0);
        for at in 0..count {
            let bit = self.bit(set + node);
            node = node << 1 | bit;
            symbol |= bit << at;
        }
        symbol
    }

    #[inline(never)]
    fn bit(&mut self, at: usize) -> usize {
        let mut interval = self.interval;
        let bit = self.step(&mut interval, at);
        self.interval = interval;
        bit
    }

    /// A bit that is as likely as the other.
    fn even_bit(&mut self) -> usize {
        let mut interval = self.interval;
        interval.range >>= 1;
        let one = interval.code >= interval.range;
        if one {
            interval.code -= interval.range;
        }
        self.refill(&mut interval);
        self.interval = interval;
        usize::from(one)
    }

    /// A bit, and the probability that there is for it learns. The interval is apart, so that it stays in registers where
    /// there are bits in a row: they are what the time goes to.
    #[inline(always)]
    fn step(&mut self, interval: &mut Interval, at: usize) -> usize {
        // Every place is below the end by construction; the first one is as good as any.
        let at = if at < PROBABILITIES { at } else { 0 };
        let probability = u32::from(self.probabilities[at]);
        let bound = (interval.range >> 11) * probability;
        let one = interval.code >= bound;
        // Masks and no branch: half of the bits cannot be foreseen, and a wrong guess costs more than both ways do.
        let mask = u32::from(one).wrapping_neg();
        interval.code -= bound & mask;
        interval.range = bound.wrapping_add(mask & interval.range.wrapping_sub(bound << 1));
        // A 32nd of the way to 2,048; or to zero, rounded like `probability - (probability >> 5)`.
        let goal = (2048 & !mask | 31 & mask) as i32;
        let learnt = probability.wrapping_add_signed(goal.wrapping_sub(probability as i32) >> 5);
        self.probabilities[at] = learnt as u16;
        self.refill(interval);
        usize::from(one)
    }

    #[inline(always)]
    fn refill(&mut self, interval: &mut Interval) {
        if interval.range < 1 << 24 {
            interval.range <<= 8;
            interval.code = interval.code << 8 | u32::from((self.next)());
        }
    }
}

#[cfg(all(test, feature = "pack"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter;
    use crate::pack::{Packed, pack_through};
    use crate::unpack::unpacked;

    fn packed(data: &[u8]) -> Packed {
        pack_through(&[filter::NONE], data).unwrap()
    }

    fn back(packed: &Packed, len: usize) -> Result<Vec<u8>, Damaged> {
        unpacked(packed.properties, packed.filter, &packed.bytes, len)
    }

    /// Text with repetitions near and far, which every kind of decision is needed for.
    fn lumpy() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            (any::<u8>(), 0usize..2000).prop_map(|(byte, len)| vec![byte; len]),
            proptest::collection::vec(0u8..4, 0..3000),
        ];
        (proptest::collection::vec(part, 1..12), proptest::collection::vec(0usize..12, 0..30))
            .prop_map(|(parts, order)| order.iter().flat_map(|at| parts[at % parts.len()].clone()).collect())
    }

    /// What `bytes` decode to, how many were asked for, and how it ended.
    fn decoded(properties: u8, bytes: &[u8], len: usize) -> (Vec<u8>, usize, Result<(), Damaged>) {
        let mut dst = vec![0; len];
        let mut asked = 0;
        let next = || {
            asked += 1;
            bytes.get(asked - 1).copied().unwrap_or(0)
        };
        let end = decode(properties, next, &mut [0xffff; PROBABILITIES], &mut dst);
        (dst, asked, end)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_encoded_comes_back(data in lumpy()) {
            prop_assert_eq!(back(&packed(&data), data.len()), Ok(data));
        }

        #[test]
        fn a_cut_stream_is_an_error(data in lumpy(), cut in any::<prop::sample::Index>()) {
            let mut packed = packed(&data);
            packed.bytes.truncate(cut.index(packed.bytes.len()));
            prop_assert_eq!(back(&packed, data.len()), Err(Damaged));
        }

        #[test]
        fn a_damaged_stream_is_never_more_than_wrong_bytes(
            data in lumpy(),
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut packed = packed(&data);
            for (at, byte) in hits {
                let at = at.index(packed.bytes.len());
                packed.bytes[at] = byte;
            }
            let (_, asked, _) = decoded(packed.properties, &packed.bytes, data.len());
            prop_assert!(asked <= 50 * data.len() + 5);
        }

        #[test]
        fn garbage_ends_soon_and_within_bounds(
            properties in any::<u8>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            len in 0usize..70_000,
        ) {
            let (_, asked, end) = decoded(properties, &bytes, len);
            prop_assert!(asked <= 50 * len + 5);
            if (properties & 7) + (properties >> 3 & 7) > 4 {
                prop_assert_eq!(end, Err(Damaged));
            }
        }
    }

    #[test]
    fn a_distance_before_the_start_is_an_error() {
        // All ones decide for a match at once, and for the farthest of distances.
        let (dst, _, end) = decoded(0, &[0xff; 100], 10);
        assert_eq!((dst, end), (vec![0; 10], Err(Damaged)));
    }

    #[test]
    fn a_match_that_goes_on_behind_the_end_is_an_error() {
        let data = vec![7; 40];
        let packed = packed(&data);
        assert_eq!(back(&packed, 39), Err(Damaged));
        assert_eq!(back(&packed, 40), Ok(data));
    }
}
