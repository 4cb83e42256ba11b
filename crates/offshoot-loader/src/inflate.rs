//! Inflating (RFC 1951) from one slice into another: small before fast.
//!
//! Bit by bit, as in Mark Adler's `puff`, with the tables of lengths and distances computed. About 25 MB/s of output.
//! Not every error is looked for: codes that are not in the set read as symbol 0, and bits behind the end as 0. Each
//! step still takes input or fills output, never beyond either, and the hash tells.

/// The deflated data is damaged, or does not inflate to exactly the room given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Inflates `src`, a raw deflate stream, so that it fills `dst`.
///
/// Bytes of `src` behind the stream's last block are ignored.
///
/// # Errors
///
/// [`Damaged`]; `dst` then holds what was decoded so far. Time is linear in both lengths, whatever the bytes are.
/// Bits are counted in a `usize`: `src` must be shorter than 512 MiB where that has 32 bits.
pub fn inflate(src: &[u8], dst: &mut [u8]) -> Result<(), Damaged> {
    let mut stream = Stream { src, next: 0, dst, at: 0 };
    match stream.blocks() {
        Some(()) if stream.at == stream.dst.len() && stream.next.div_ceil(8) <= src.len() => Ok(()),
        _ => Err(Damaged),
    }
}

/// The most symbols that a set of codes has.
const SYMBOLS: usize = 288;

/// Canonical codes: how many there are of each length, and the symbols in the order of their codes.
struct Codes {
    count: [u16; 16],
    symbol: [u16; SYMBOLS],
}

/// Code lengths: of literals and lengths from 0, of distances from [`SYMBOLS`].
type Lengths = [u8; SYMBOLS + 32];

struct Stream<'a> {
    src: &'a [u8],
    /// The next bit.
    next: usize,
    dst: &'a mut [u8],
    at: usize,
}

impl Stream<'_> {
    fn blocks(&mut self) -> Option<()> {
        loop {
            let last = self.bits(1);
            let mut lengths: Lengths = [0; SYMBOLS + 32];
            match self.bits(2) {
                0 => {
                    self.stored()?;
                }
                1 => {
                    for (at, length) in lengths.iter_mut().enumerate() {
                        *length = match at {
                            144..256 => 9,
                            256..280 => 7,
                            SYMBOLS.. => 5,
                            _ => 8,
                        };
                    }
                    self.coded(&lengths)?;
                }
                2 => {
                    self.dynamic(&mut lengths)?;
                    self.coded(&lengths)?;
                }
                _ => return None,
            }
            if last != 0 {
                return Some(());
            }
        }
    }

    #[inline(never)]
    fn bits(&mut self, count: u32) -> u32 {
        let mut bits = 0;
        for at in 0..count {
            let byte = self.src.get(self.next / 8).copied().unwrap_or(0);
            bits |= (u32::from(byte) >> (self.next & 7) & 1) << (at & 31);
            self.next += 1;
        }
        bits
    }

    #[inline(never)]
    fn put(&mut self, byte: u8) -> Option<()> {
        *self.dst.get_mut(self.at)? = byte;
        self.at += 1;
        Some(())
    }

    fn stored(&mut self) -> Option<()> {
        self.next = (self.next + 7) & !7;
        let len = self.bits(16);
        // Behind the end this is 0 twice, so an early end is an error here at the latest.
        if len + self.bits(16) != 0xffff {
            return None;
        }
        for _ in 0..len {
            let byte = self.bits(8) as u8;
            self.put(byte)?;
        }
        Some(())
    }

    fn dynamic(&mut self, lengths: &mut Lengths) -> Option<()> {
        let literals = self.bits(5) as usize + 257;
        let distances = self.bits(5) as usize + 1;
        let order = b"\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f";
        let known = self.bits(4) as usize + 4;
        let mut own = [0; 19];
        for at in order.iter().take(known) {
            if let Some(length) = own.get_mut(usize::from(*at)) {
                *length = self.bits(3) as u8;
            }
        }
        let mut codes = Codes::NONE;
        codes.set(&own);
        let (mut at, mut length) = (0, 0);
        while at < literals + distances {
            let mut times = 1;
            match self.symbol(&codes) {
                16 => times = self.bits(2) + 3,
                symbol => {
                    length = symbol as u8;
                    if symbol > 16 {
                        length = 0;
                        times = if symbol == 17 { self.bits(3) + 3 } else { self.bits(7) + 11 };
                    }
                }
            }
            for _ in 0..times {
                let slot = if at < literals { at } else { at - literals + SYMBOLS };
                *lengths.get_mut(slot)? = length;
                at += 1;
            }
        }
        Some(())
    }

    /// A block's symbols.
    #[inline(never)]
    fn coded(&mut self, lengths: &Lengths) -> Option<()> {
        let (literals, distances) = lengths.split_at(SYMBOLS);
        let mut codes = [Codes::NONE; 2];
        let [literal, distance] = &mut codes;
        literal.set(literals);
        distance.set(distances);
        loop {
            let symbol = self.symbol(literal);
            if symbol < 256 {
                self.put(symbol as u8)?;
                continue;
            }
            if symbol == 256 {
                return Some(());
            }
            // 257 is a length of 3; four lengths share each number of extra bits; 285 is 258 by itself.
            let length = if symbol == 285 { 255 } else { self.stepped(symbol - 257, 2) };
            let symbol = self.symbol(distance);
            let back = self.stepped(symbol, 1) as usize + 1;
            for _ in 0..length + 3 {
                let byte = *self.dst.get(self.at.wrapping_sub(back))?;
                self.put(byte)?;
            }
        }
    }

    /// A number whose symbol is like a float: the low `mantissa` bits below a leading one, the rest counts extra bits;
    /// the smallest are as they are.
    #[inline(never)]
    fn stepped(&mut self, symbol: u32, mantissa: u32) -> u32 {
        let one = 1 << mantissa;
        let exponent = symbol >> mantissa;
        if exponent < 2 {
            return symbol;
        }
        // Below 15: distance symbols end at 31.
        let extra = exponent - 1;
        ((symbol & (one - 1) | one) << extra) + self.bits(extra)
    }

    #[inline(never)]
    fn symbol(&mut self, codes: &Codes) -> u32 {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for count in &codes.count[1..] {
            let count = u32::from(*count);
            code = code << 1 | self.bits(1);
            first <<= 1;
            // In a set with too many codes `code` can lie below `first`; the table has an end all the same.
            let ahead = code.wrapping_sub(first);
            if ahead < count {
                return codes.symbol.get((index + ahead) as usize).map_or(0, |symbol| u32::from(*symbol));
            }
            index += count;
            first += count;
        }
        0
    }
}

impl Codes {
    const NONE: Codes = Codes { count: [0; 16], symbol: [0; SYMBOLS] };

    /// The codes for symbols of these lengths; `self` must be [`Codes::NONE`]. Not a function from lengths to codes:
    /// that would copy them.
    #[inline(never)]
    fn set(&mut self, lengths: &[u8]) {
        let mut next = 0;
        for (length, count) in self.count.iter_mut().enumerate().skip(1) {
            for (symbol, of) in lengths.iter().enumerate() {
                if usize::from(*of) == length
                    && let Some(slot) = self.symbol.get_mut(next)
                {
                    *slot = symbol as u16;
                    next += 1;
                    *count += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::{
        compress_to_vec,
        core::{
            CompressionStrategy, CompressorOxide, TDEFLFlush, TDEFLStatus, compress, create_comp_flags_from_zip_params,
        },
    };
    use proptest::prelude::*;

    use super::*;

    fn inflated(src: &[u8], len: usize) -> Result<Vec<u8>, Damaged> {
        let mut dst = vec![0; len];
        inflate(src, &mut dst).map(|()| dst)
    }

    /// A stream of fixed codes only.
    fn compress_fixed(data: &[u8]) -> Vec<u8> {
        let flags = create_comp_flags_from_zip_params(9, 0, CompressionStrategy::Fixed as i32);
        let mut out = vec![0; data.len() * 2 + 100];
        let (status, _, len) = compress(&mut CompressorOxide::new(flags), data, &mut out, TDEFLFlush::Finish);
        assert_eq!(status, TDEFLStatus::Done);
        out.truncate(len);
        out
    }

    /// Text with repetitions near and far, which every kind of symbol is needed for.
    fn lumpy() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            (any::<u8>(), 0usize..2000).prop_map(|(byte, len)| vec![byte; len]),
            proptest::collection::vec(0u8..4, 0..3000),
        ];
        (proptest::collection::vec(part, 1..12), proptest::collection::vec(0usize..12, 0..30))
            .prop_map(|(parts, order)| order.iter().flat_map(|at| parts[at % parts.len()].clone()).collect())
    }

    proptest! {
        #[test]
        fn what_was_deflated_comes_back(data in lumpy(), level in 0u8..=10) {
            prop_assert_eq!(inflated(&compress_to_vec(&data, level), data.len()), Ok(data));
        }

        #[test]
        fn fixed_codes_are_read(data in lumpy()) {
            prop_assert_eq!(inflated(&compress_fixed(&data), data.len()), Ok(data));
        }

        #[test]
        fn a_wrong_length_is_an_error(data in lumpy(), by in 1usize..50) {
            let deflated = compress_to_vec(&data, 6);
            prop_assert_eq!(inflated(&deflated, data.len() + by), Err(Damaged));
            if let Some(less) = data.len().checked_sub(by) {
                prop_assert_eq!(inflated(&deflated, less), Err(Damaged));
            }
        }

        #[test]
        fn a_cut_stream_is_an_error(data in lumpy(), cut in any::<prop::sample::Index>()) {
            let deflated = compress_to_vec(&data, 6);
            prop_assert_eq!(inflated(&deflated[..cut.index(deflated.len())], data.len()), Err(Damaged));
        }

        #[test]
        fn garbage_ends_soon_and_within_bounds(src in proptest::collection::vec(any::<u8>(), 0..600), len in 0usize..70_000) {
            let _ = inflated(&src, len);
        }

        #[test]
        fn a_damaged_stream_is_never_more_than_wrong_bytes(
            data in lumpy(),
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut deflated = compress_to_vec(&data, 6);
            for (at, byte) in hits {
                let at = at.index(deflated.len());
                deflated[at] = byte;
            }
            let _ = inflated(&deflated, data.len());
        }
    }

    #[test]
    fn a_distance_before_the_start_is_an_error() {
        // Fixed block: literal 'a', then length 3 at distance 2.
        let deflated = [0b0100_1011, 0b0000_0100, 0b0000_0001, 0];
        assert_eq!(inflated(&deflated, 4), Err(Damaged));
    }

    #[test]
    fn endless_empty_blocks_end_with_the_input() {
        let deflated = [0, 0, 0, 0xff, 0xff].repeat(1000);
        assert_eq!(inflated(&deflated, 0), Err(Damaged));
        let mut ended = deflated;
        ended.extend([1, 0, 0, 0xff, 0xff]);
        assert_eq!(inflated(&ended, 0), Ok(vec![]));
    }
}
