//! Making machine code compress better: calls of one function look alike once they name it by where it is, not by how far
//! away it is.
//!
//! Own and simple transformations, each its own inverse's mirror: they change the operands of what looks like a call and
//! never what they recognize it by, so that any bytes whatsoever come back. Those of x86 are [`split`](crate::split)'s.

/// Bytes as they are.
pub const NONE: u8 = 0;
/// AArch64: operands of `bl` and `adrp`.
pub const ARM64: u8 = 2;
/// ARM: operands of `bl`.
pub const ARM: u8 = 3;
/// Thumb-2: operands of `bl`.
pub const THUMB: u8 = 4;
/// x86, 32 bits: not in place, but by [`split`](crate::split).
pub const X86: u8 = 5;
/// x86, 64 bits: likewise.
pub const X86_64: u8 = 6;

/// Whether the filter is [`split`](crate::split)'s, and if so whether for 64 bits.
pub fn splits(filter: u8) -> Option<bool> {
    match filter {
        #[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "x86"))]
        X86 => Some(false),
        #[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "x86_64"))]
        X86_64 => Some(true),
        _ => None,
    }
}

/// Takes back what [`apply`] did; whether that is known here and done in place. What runs on a target, the loader and the
/// agent, knows that machine's alone: it unpacks nothing else.
pub fn undo(filter: u8, data: &mut [u8]) -> bool {
    run::<false>(filter, data)
}

/// Makes `data` easier to compress; whether the filter is known and works in place. At most 1 GiB of data.
#[cfg(not(offshoot_stage))]
pub fn apply(filter: u8, data: &mut [u8]) -> bool {
    run::<true>(filter, data)
}

#[cfg_attr(any(offshoot_stage, offshoot_agent), allow(unused_variables, reason = "on x86 nothing is done in place"))]
fn run<const APPLY: bool>(filter: u8, data: &mut [u8]) -> bool {
    match filter {
        NONE => {}
        #[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "aarch64"))]
        ARM64 => arm64::<APPLY>(data),
        #[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "arm"))]
        ARM => arm::<APPLY>(data),
        #[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "arm"))]
        THUMB => thumb::<APPLY>(data),
        _ => return false,
    }
    true
}

/// Where a word is, counted in `1 << shift` of its units, to be added or taken away.
#[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "aarch64", target_arch = "arm"))]
fn place<const APPLY: bool>(index: usize, shift: u32) -> u32 {
    let place = (index >> shift) as u32;
    if APPLY { place } else { place.wrapping_neg() }
}

#[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "aarch64"))]
fn arm64<const APPLY: bool>(data: &mut [u8]) {
    for (index, bytes) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let word = u32::from_le_bytes(*bytes);
        let word = if word >> 26 == 0x25 {
            word & !0x03ff_ffff | word.wrapping_add(place::<APPLY>(index, 0)) & 0x03ff_ffff
        } else if word & 0x9f00_0000 == 0x9000_0000 {
            // The page's two low bits stand above the others.
            let page = (word >> 29 & 3 | word >> 3 & 0x001f_fffc).wrapping_add(place::<APPLY>(index, 10));
            word & 0x9f00_001f | (page & 3) << 29 | (page & 0x001f_fffc) << 3
        } else {
            continue;
        };
        *bytes = word.to_le_bytes();
    }
}

#[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "arm"))]
fn arm<const APPLY: bool>(data: &mut [u8]) {
    for (index, bytes) in data.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let word = u32::from_le_bytes(*bytes);
        if word >> 24 == 0xeb {
            let to = word.wrapping_add(place::<APPLY>(index, 0)) & 0x00ff_ffff;
            *bytes = (0xeb00_0000 | to).to_le_bytes();
        }
    }
}

#[cfg(any(not(any(offshoot_stage, offshoot_agent)), target_arch = "arm"))]
fn thumb<const APPLY: bool>(data: &mut [u8]) {
    let mut at = 0;
    while let Some(bytes) = data.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        let word = u32::from_le_bytes(*bytes);
        if word & 0xf800_f800 != 0xf800_f000 {
            at += 2;
            continue;
        }
        // Two halves of eleven bits; two more that are the same in almost all calls stay as they are.
        let to = (word >> 16 & 0x7ff | (word & 0x7ff) << 11).wrapping_add(place::<APPLY>(at, 1));
        *bytes = (word & !0x07ff_07ff | (to & 0x7ff) << 16 | to >> 11 & 0x7ff).to_le_bytes();
        at += 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [u8; 4] = [NONE, ARM64, ARM, THUMB];

    /// Bytes among which calls of all machines are frequent.
    fn codelike() -> impl Strategy<Value = Vec<u8>> {
        let byte =
            prop_oneof![any::<u8>(), prop::sample::select(vec![0, 0xff, 0xe8, 0xe9, 0x94, 0x90, 0xeb, 0xf0, 0xf8])];
        proptest::collection::vec(byte, 0..400)
    }

    proptest! {
        #[test]
        fn what_was_filtered_comes_back(data in codelike()) {
            for filter in ALL {
                let mut bytes = data.clone();
                prop_assert!(apply(filter, &mut bytes));
                prop_assert!(undo(filter, &mut bytes));
                prop_assert_eq!(&bytes, &data, "filter {}", filter);
            }
        }

        #[test]
        fn undoing_what_was_never_done_ends_within_bounds(data in codelike()) {
            for filter in ALL {
                let mut bytes = data.clone();
                undo(filter, &mut bytes);
                prop_assert!(apply(filter, &mut bytes));
                prop_assert_eq!(&bytes, &data, "filter {}", filter);
            }
        }
    }

    /// Two calls of one function become the same bytes.
    #[track_caller]
    fn check_alike(filter: u8, width: usize, calls: [(usize, &[u8]); 2]) {
        let mut data = vec![0; 4096];
        for (at, call) in calls {
            data[at..at + call.len()].copy_from_slice(call);
        }
        let before = data.clone();
        apply(filter, &mut data);
        let [first, second] = calls.map(|(at, _)| data[at..at + width].to_vec());
        assert_eq!(first, second);
        assert_ne!(data, before);
    }

    #[test]
    fn calls_of_one_function_become_alike() {
        // Each goes to 0x800; for ARM and Thumb the distance counts from further on, by the same for both.
        check_alike(ARM64, 4, [(0x100, &[0xc0, 1, 0, 0x94]), (0xa00, &[0x80, 0xff, 0xff, 0x97])]);
        check_alike(ARM, 4, [(0x100, &[0xbe, 1, 0, 0xeb]), (0xa00, &[0x7e, 0xff, 0xff, 0xeb])]);
        check_alike(THUMB, 4, [(0x100, &[0, 0xf0, 0x7e, 0xfb]), (0x200, &[0, 0xf0, 0xfe, 0xfa])]);
    }

    #[test]
    fn an_unknown_filter_is_said_and_changes_nothing() {
        let mut data = vec![0xe8; 64];
        assert!(!undo(1, &mut data) && !apply(255, &mut data));
        assert_eq!(data, vec![0xe8; 64]);
    }
}
