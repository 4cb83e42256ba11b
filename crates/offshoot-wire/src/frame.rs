//! Frames: the unit that a link carries.
//!
//! ```text
//! u32 LE   length of all that follows
//! u8       kind (FrameKind)
//! u8       flags: bit 0 mark (1 = full), bit 1 answer (1 = from the side that was asked); the others are 0
//! routed kinds (below 0x40) only:
//!   address  destination: u8 depth, then each index as LEB128
//!   address  source
//!   LEB128   exchange number, chosen by the requester
//! rest     body
//! ```
//!
//! A request, its streams and its answer share one *exchange*, named by the requester's address and the number it
//! chose. Link kinds (0x40 and up) concern the two ends of a link alone and are never passed on.

use std::ops::Range;

use bytes::Bytes;

use crate::{Address, Limits, varint};

/// What a frame is. Numbers are the wire form and never change meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Opens an exchange: a [`RequestHead`](crate::RequestHead), then the verb's own body.
    Request = 0x01,
    /// Ends an exchange well. The body is the verb's own.
    Reply = 0x02,
    /// Ends an exchange badly: a [`Failure`](crate::Failure).
    Failure = 0x03,
    /// Bytes on a channel: `u8` channel, then the bytes.
    Data = 0x04,
    /// The end of a channel: [`EndReason`](crate::EndReason).
    End = 0x05,
    /// More may be sent on a channel: [`Credit`](crate::Credit).
    Credit = 0x06,
    /// The reader wants no more of a channel: `u8` channel.
    Stop = 0x07,
    /// The requester no longer waits; what was started for it ends.
    Cancel = 0x08,
    /// A log record on its way to the root: a [`LogRecord`](crate::LogRecord). Upwards only.
    Log = 0x09,
    /// A heartbeat: [`Ping`](crate::Ping).
    Ping = 0x40,
    /// Its answer: the same [`Ping`](crate::Ping).
    Pong = 0x41,
    /// Bulk received so far on this link: [`Ack`](crate::Ack).
    Ack = 0x42,
    /// A subtree ended: [`Gone`](crate::Gone). Upwards only.
    Gone = 0x43,
    /// The last frame of a link that is closed for a reason: [`Bye`](crate::Bye).
    Bye = 0x44,
    /// The parent asks for an orderly end: [`ShutdownNotice`](crate::ShutdownNotice). Downwards only.
    Shutdown = 0x45,
    /// A subtree that is about to detach reports itself. Reserved.
    Detaching = 0x46,
    /// Down to which level log records are wanted from now on: `u8`, as in [`LogRecord::level`](crate::LogRecord::level).
    /// Downwards only; each context passes it on.
    LogLevel = 0x47,
}

impl FrameKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [FrameKind; 17] = [
        FrameKind::Request,
        FrameKind::Reply,
        FrameKind::Failure,
        FrameKind::Data,
        FrameKind::End,
        FrameKind::Credit,
        FrameKind::Stop,
        FrameKind::Cancel,
        FrameKind::Log,
        FrameKind::Ping,
        FrameKind::Pong,
        FrameKind::Ack,
        FrameKind::Gone,
        FrameKind::Bye,
        FrameKind::Shutdown,
        FrameKind::Detaching,
        FrameKind::LogLevel,
    ];

    /// The kind of a wire number; `None` when there is none.
    pub fn from_number(number: u8) -> Option<FrameKind> {
        // A match on the number, not a search of ALL: this runs for every frame.
        Some(match number {
            0x01 => FrameKind::Request,
            0x02 => FrameKind::Reply,
            0x03 => FrameKind::Failure,
            0x04 => FrameKind::Data,
            0x05 => FrameKind::End,
            0x06 => FrameKind::Credit,
            0x07 => FrameKind::Stop,
            0x08 => FrameKind::Cancel,
            0x09 => FrameKind::Log,
            0x40 => FrameKind::Ping,
            0x41 => FrameKind::Pong,
            0x42 => FrameKind::Ack,
            0x43 => FrameKind::Gone,
            0x44 => FrameKind::Bye,
            0x45 => FrameKind::Shutdown,
            0x46 => FrameKind::Detaching,
            0x47 => FrameKind::LogLevel,
            _ => return None,
        })
    }

    /// Whether frames of this kind carry addresses and an exchange number.
    pub fn is_routed(self) -> bool {
        (self as u8) < 0x40
    }
}

const MARK: u8 = 1;
const ANSWER: u8 = 2;

/// A frame's head, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// The mark: `true` = full authority, believed only from the parent link (R2).
    pub full: bool,
    /// Whether it comes from the side that was asked. Always `true` for replies and failures, `false` for requests
    /// and cancels, either for the frames of channels.
    pub answer: bool,
    /// Where it goes; the root for link kinds.
    pub dst: Address,
    /// Where it comes from; the root for link kinds.
    pub src: Address,
    /// The exchange; 0 for link kinds.
    pub exchange: u64,
}

impl FrameHeader {
    /// The requester's address: with [`FrameHeader::exchange`], the name of the exchange.
    pub fn requester(&self) -> &Address {
        if self.answer { &self.dst } else { &self.src }
    }

    /// Appends the encoded head for a body of `body_len` bytes, the length field included.
    pub fn encode(&self, body_len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([0; 4]);
        out.push(self.kind as u8);
        out.push(u8::from(self.full) * MARK + u8::from(self.answer) * ANSWER);
        if self.kind.is_routed() {
            self.dst.put(out);
            self.src.put(out);
            varint::put(self.exchange, out);
        }
        let length = (out.len() - start - 4 + body_len) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A frame: head and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The head.
    pub header: FrameHeader,
    /// The body, as its kind lays it out.
    pub body: Bytes,
}

impl Frame {
    /// A routed frame without body, mark none. `Reply` and `Failure` are answers; other kinds are not until
    /// [`FrameHeader::answer`] is set.
    pub fn routed(kind: FrameKind, dst: Address, src: Address, exchange: u64) -> Frame {
        let answer = matches!(kind, FrameKind::Reply | FrameKind::Failure);
        Frame { header: FrameHeader { kind, full: false, answer, dst, src, exchange }, body: Bytes::new() }
    }

    /// A link frame with `body`.
    pub fn link(kind: FrameKind, body: Bytes) -> Frame {
        let header =
            FrameHeader { kind, full: false, answer: false, dst: Address::ROOT, src: Address::ROOT, exchange: 0 };
        Frame { header, body }
    }

    /// The same frame with another body.
    pub fn with_body(mut self, body: Bytes) -> Frame {
        self.body = body;
        self
    }

    /// Appends the whole frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.header.encode(self.body.len(), out);
        out.extend_from_slice(&self.body);
    }
}

/// Bytes that cannot be a frame. The link they came from is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length field is beyond the link's limit.
    #[error("a frame of {got} bytes, expected at most {limit}")]
    TooLong {
        /// What the length field says.
        got: u32,
        /// The link's limit.
        limit: u32,
    },
    /// No such kind.
    #[error("unknown frame kind {0:#04x}")]
    Kind(u8),
    /// Bits are set in the flags that mean nothing, or do not go with the kind.
    #[error("impossible flags {0:#04x}")]
    Flags(u8),
    /// The head is cut short, over-long or has an address beyond the limits.
    #[error("malformed frame head")]
    Head,
}

/// A frame found in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedFrame {
    /// The head.
    pub header: FrameHeader,
    /// Where the body lies in the buffer.
    pub body: Range<usize>,
    /// The length of the whole frame, its length field included.
    pub length: usize,
}

/// Parses the frame at the front of `bytes`. `Ok(None)` when it is not there in full yet.
///
/// # Errors
/// [`FrameError`] as soon as the bytes cannot become a frame.
pub fn parse_frame(bytes: &[u8], limits: &Limits) -> Result<Option<ParsedFrame>, FrameError> {
    let Some((length, _)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if length > limits.frame {
        return Err(FrameError::TooLong { got: length, limit: limits.frame });
    }
    if length < 2 {
        return Err(FrameError::Head);
    }
    let end = 4 + length as usize;
    // The kind is judged as soon as it is there: garbage is told apart after six bytes, not after 64 KiB.
    if let Some(&number) = bytes.get(4) {
        FrameKind::from_number(number).ok_or(FrameError::Kind(number))?;
    }
    let Some(frame) = bytes.get(4..end) else { return Ok(None) };
    let kind = FrameKind::from_number(frame[0]).ok_or(FrameError::Kind(frame[0]))?;
    let flags = frame[1];
    let answer = flags & ANSWER != 0;
    let answer_fits = match kind {
        FrameKind::Reply | FrameKind::Failure => answer,
        FrameKind::Request | FrameKind::Cancel | FrameKind::Log => !answer,
        FrameKind::Data | FrameKind::End | FrameKind::Credit | FrameKind::Stop => true,
        _ => flags == 0,
    };
    if flags & !(MARK | ANSWER) != 0 || !answer_fits {
        return Err(FrameError::Flags(flags));
    }
    let rest = &frame[2..];
    let (dst, src, exchange, rest) = if kind.is_routed() {
        let (dst, rest) = Address::take(rest).ok_or(FrameError::Head)?;
        let (src, rest) = Address::take(rest).ok_or(FrameError::Head)?;
        let (exchange, rest) = varint::take(rest).ok_or(FrameError::Head)?;
        (dst, src, exchange, rest)
    } else {
        (Address::ROOT, Address::ROOT, 0, rest)
    };
    let header = FrameHeader { kind, full: flags & MARK != 0, answer, dst, src, exchange };
    Ok(Some(ParsedFrame { header, body: end - rest.len()..end, length: end }))
}

/// Appends the head of a `Data` frame whose payload of `len` bytes follows from elsewhere, so that bulk need not be
/// copied into the frame.
pub fn chunk_header(header: &FrameHeader, channel: u8, len: usize, out: &mut Vec<u8>) {
    header.encode(1 + len, out);
    out.push(channel);
}

/// Splits the body of a `Data` frame into its channel and bytes; `None` when the channel is missing or beyond
/// [`Limits::CHANNELS`].
pub fn parse_chunk(body: &[u8]) -> Option<(u8, &[u8])> {
    let (&channel, bytes) = body.split_first()?;
    (channel < Limits::CHANNELS).then_some((channel, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: FrameKind) -> Frame {
        let frame = if kind.is_routed() {
            Frame::routed(kind, Address::from_path(&[3, 300]).expect("fits"), Address::ROOT, 99)
        } else {
            Frame::link(kind, Bytes::new())
        };
        frame.with_body(Bytes::from_static(b"body"))
    }

    #[test]
    fn every_kind_comes_back_and_is_incomplete_at_every_cut() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_number(kind as u8), Some(kind));
            let frame = sample(kind);
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            for cut in 0..bytes.len() {
                assert_eq!(parse_frame(&bytes[..cut], &Limits::default()), Ok(None), "{kind:?} cut at {cut}");
            }
            let parsed = parse_frame(&bytes, &Limits::default()).expect("well formed").expect("whole");
            assert_eq!(parsed.header, frame.header);
            assert_eq!(&bytes[parsed.body], b"body");
        }
    }

    #[test]
    fn an_unknown_kind_is_told_from_five_bytes() {
        assert_eq!(parse_frame(&[200, 0, 0, 0, 0x7f], &Limits::default()), Err(FrameError::Kind(0x7f)));
    }

    #[test]
    fn flags_that_mean_nothing_are_refused() {
        let mut bytes = Vec::new();
        sample(FrameKind::Reply).encode(&mut bytes);
        for flags in [0, 4, 0x80, 6] {
            bytes[5] = flags;
            assert_eq!(parse_frame(&bytes, &Limits::default()), Err(FrameError::Flags(flags)));
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_by_its_length_alone() {
        let limits = Limits { frame: 512, ..Limits::default() };
        assert_eq!(parse_frame(&513u32.to_le_bytes(), &limits), Err(FrameError::TooLong { got: 513, limit: 512 }));
    }
}
