//! From the packed agent to the agent: decoding, then undoing the filter.

pub use crate::lzma::{Damaged, PROBABILITIES};
use crate::{filter, lzma};

/// Fills `dst` with the agent of that length. The arguments are [`lzma::decode`]'s and [`filter::undo`]'s.
///
/// # Errors
///
/// [`Damaged`], also for a filter that is not known here; what `dst` then holds is of no use.
pub fn unpack(
    properties: u8,
    filter: u8,
    next: impl FnMut() -> u8,
    probabilities: &mut [u16; PROBABILITIES],
    dst: &mut [u8],
) -> Result<(), Damaged> {
    lzma::decode(properties, next, probabilities, dst)?;
    if filter::undo(filter, dst) { Ok(()) } else { Err(Damaged) }
}

/// The agent of `len` bytes whose packed form is `bytes`. Allocates `len` bytes and 28 KiB.
///
/// # Errors
///
/// [`Damaged`], also when there are bytes left over. Damage that decodes to something else is not noticed: see the hash.
#[cfg(not(offshoot_stage))]
pub fn unpacked(properties: u8, filter: u8, bytes: &[u8], len: usize) -> Result<Vec<u8>, Damaged> {
    let mut agent = vec![0; len];
    let mut probabilities = Box::new([0; PROBABILITIES]);
    let mut rest = bytes.iter();
    let mut short = false;
    let next = || {
        rest.next().copied().unwrap_or_else(|| {
            short = true;
            0
        })
    };
    unpack(properties, filter, next, &mut probabilities, &mut agent)?;
    if short || rest.len() > 0 { Err(Damaged) } else { Ok(agent) }
}
