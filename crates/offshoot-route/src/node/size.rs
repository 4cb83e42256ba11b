//! What fits a frame of a link, and what is cut when it does not.

use offshoot_wire::{Address, Failure, FailureKind, FrameHeader, LostReason, encode};

/// How many bytes of body fit a frame with this head on a link that takes `limit`.
pub(super) fn room(limit: u32, header: &FrameHeader) -> usize {
    (limit as usize).saturating_sub(head_len(header))
}

/// The length of a head, the length field not counted.
fn head_len(header: &FrameHeader) -> usize {
    let address = |address: &Address| 1 + address.path().iter().map(|&index| leb(index.into())).sum::<usize>();
    2 + address(&header.dst) + address(&header.src) + leb(header.exchange)
}

fn leb(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Whether a request fits a link, with room for data on it later.
pub(super) fn fits(limit: u32, header: &FrameHeader, body: usize) -> bool {
    room(limit, header) >= body.max(64)
}

/// A failure in at most `room` bytes: what was seen goes first, then the hint, then the message.
pub(super) fn failure_body(mut failure: Failure, room: usize) -> Vec<u8> {
    let body = encode(&failure);
    if body.len() <= room {
        return body;
    }
    failure.seen = Vec::new();
    failure.hint = String::new();
    let body = encode(&failure);
    if body.len() <= room {
        return body;
    }
    failure.message = String::new();
    if let FailureKind::PeerLost(LostReason::Violation(text))
    | FailureKind::NoAgent(text)
    | FailureKind::NoImage(text) = &mut failure.kind
    {
        text.clear();
    }
    encode(&failure)
}

#[cfg(test)]
mod tests {
    use offshoot_wire::FrameKind;

    use super::*;

    #[test]
    fn the_length_of_a_head_is_what_encoding_yields() {
        for (dst, src, exchange) in
            [("/", "/3", 0), ("/127/128", "/16384/4294967295", u64::MAX), ("/1/2/3/4/5/6/7", "/", 127)]
        {
            let header = FrameHeader {
                kind: FrameKind::Request,
                full: false,
                answer: false,
                dst: dst.parse().expect("an address"),
                src: src.parse().expect("an address"),
                exchange,
            };
            let mut bytes = Vec::new();
            header.encode(0, &mut bytes);
            assert_eq!(head_len(&header) + 4, bytes.len());
        }
    }
}
