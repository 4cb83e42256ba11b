//! From the packed agent to the agent: decoding, then undoing the filter.

pub use crate::lzma::{Damaged, PROBABILITIES};
use crate::{filter, lzma, split};

/// Bytes of `between` that an agent of `len` bytes may need.
pub const fn room_between(len: usize) -> usize {
    len + split::HEAD
}

/// Fills `dst` with the agent of that length. The arguments are [`lzma::decode`]'s and [`filter::undo`]'s. `between` is
/// needed by filters that are not undone in place; [`room_between`] says how long it must be then.
///
/// # Errors
///
/// [`Damaged`], also for a filter that is not known here; what `dst` then holds is of no use.
pub fn unpack(
    properties: u8,
    filter: u8,
    next: impl FnMut() -> u8,
    probabilities: &mut [u16; PROBABILITIES],
    between: &mut [u8],
    dst: &mut [u8],
) -> Result<(), Damaged> {
    let splits = filter::splits(filter);
    let between = match splits {
        Some(_) => between.get_mut(..room_between(dst.len())).ok_or(Damaged)?,
        None => &mut [],
    };
    lzma::decode(properties, next, probabilities, if splits.is_some() { &mut *between } else { &mut *dst })?;
    let whole = match splits {
        Some(wide) => split::join(between, dst, wide).is_some(),
        None => filter::undo(filter, dst),
    };
    if whole { Ok(()) } else { Err(Damaged) }
}

/// The agent of `len` bytes whose packed form is `bytes`. Allocates at most twice `len` and 28 KiB.
///
/// # Errors
///
/// [`Damaged`], also when there are bytes left over. Damage that decodes to something else is not noticed: see the hash.
#[cfg(not(offshoot_stage))]
pub fn unpacked(properties: u8, filter: u8, bytes: &[u8], len: usize) -> Result<Vec<u8>, Damaged> {
    let mut agent = vec![0; len];
    let mut between = vec![0; filter::splits(filter).map_or(0, |_| room_between(len))];
    let mut probabilities = Box::new([0; PROBABILITIES]);
    let mut rest = bytes.iter();
    let mut short = false;
    let next = || {
        rest.next().copied().unwrap_or_else(|| {
            short = true;
            0
        })
    };
    unpack(properties, filter, next, &mut probabilities, &mut between, &mut agent)?;
    if short || rest.len() > 0 { Err(Damaged) } else { Ok(agent) }
}
