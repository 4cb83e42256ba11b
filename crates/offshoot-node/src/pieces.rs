//! What came in many small pieces, kept in fewer. Pure; touched under the lock of whoever keeps them.
//!
//! A piece costs some 70 bytes beside its own, and what a hostile context may have waiting is counted in its own: sent one by one,
//! the bytes of a window would take 70 times what was granted (S12).

use bytes::{Bytes, BytesMut};

/// So many pieces wait each for itself, in the order in which they came. Who is later than that has the order of each channel.
/// For an exchange they are 70 KiB at most, beside what is in them.
pub(crate) const APART: usize = 1024;

/// How long joined pieces become. Two that follow each other are longer, so that what they cost is a thirtieth of it.
const JOINED: usize = 4 * 1024;

/// Puts `data` behind `last`, unless that would be too long.
pub(crate) fn join(last: &mut Bytes, data: &[u8]) -> bool {
    let fits = last.len() + data.len() <= JOINED;
    if fits {
        // Where nobody else has it, and that is so, it keeps its memory, with room for the next.
        let mut joined = BytesMut::from(std::mem::take(last));
        joined.extend_from_slice(data);
        *last = joined.freeze();
    }
    fits
}
