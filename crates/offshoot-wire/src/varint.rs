//! LEB128, as used in frame headers. Canonical: an over-long form is refused, so that a frame has one encoding.

/// Appends `value`.
pub(crate) fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a value from the front of `bytes` and returns it with the rest; `None` when cut short, too large or
/// over-long.
pub(crate) fn take(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if index == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * index);
        if byte & 0x80 == 0 {
            let over_long = byte == 0 && index > 0;
            return (!over_long).then(|| (value, &bytes[index + 1..]));
        }
    }
    None
}

/// As [`take`], for a `u32`.
pub(crate) fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (value, rest) = take(bytes)?;
    Some((u32::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put(value, &mut out);
                out.push(0xaa);
                assert_eq!(take(&out), Some((value, &[0xaa][..])));
            }
        }
    }

    #[test]
    fn cut_over_long_and_too_large_are_refused() {
        assert_eq!(take(&[0x80]), None);
        assert_eq!(take(&[0x80, 0x00]), None);
        assert_eq!(take(&[0xff; 10]), None);
        assert_eq!(take_u32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
    }
}
