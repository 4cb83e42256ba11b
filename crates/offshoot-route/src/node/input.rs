//! Bytes in: parsing, the checks of source, mark and exchange, and the frames of the link itself.
//!
//! Two answers to what is wrong. What the neighbour itself did, or should have stopped, ends its link (a [`Fault`]).
//! What a context further away may have done through honest relays ends the exchange, or is dropped and counted: a hostile
//! leaf must not cost its relay the link.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use offshoot_wire::{
    Ack, Address, Bye, Failure, FailureKind, FrameHeader, FrameKind, Gone, Limits, LostReason, Ping, Ran,
    ShutdownNotice, decode, parse_frame,
};

use super::Node;
use super::lost::By;
use crate::event::{Event, LinkId};
use crate::exchange::{SERVER, other};
use crate::link::Role;
use crate::outbox::{find, find_mut};
use crate::time::Time;

/// Why a link is ended.
pub(super) type Fault = Cow<'static, str>;

/// Bodies under this are copied out of the read buffer. Larger ones are handed on as they lie in it, and each keeps the
/// whole buffer alive, which is 192 KiB: so what a reader was granted costs six times its size at worst, however the
/// sender fills the rest of the buffers. Half a frame: what is sent in bulk is never copied.
const COPY: usize = Limits::FRAME as usize / 2;

/// A frame's body, not copied yet.
pub(super) enum Payload<'a> {
    Slice(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Slice(slice) => slice,
            Payload::Owned(bytes) => bytes,
        }
    }

    /// The bytes from `start` on.
    pub(super) fn into_bytes(self, start: usize) -> Bytes {
        match self {
            Payload::Slice(slice) => Bytes::copy_from_slice(slice.get(start..).unwrap_or_default()),
            Payload::Owned(bytes) if start <= bytes.len() => bytes.slice(start..),
            Payload::Owned(_) => Bytes::new(),
        }
    }
}

impl Node {
    /// Takes the whole frames at the front of `bytes`; a partial one is left there. Large bodies are slices of the
    /// buffer, never copied.
    ///
    /// Bytes for a link that is not up, or no longer, are thrown away. Nothing in `bytes` can make this panic; what breaks
    /// the protocol ends the link with [`Event::CloseLink`].
    pub fn handle_bytes(&mut self, link: LinkId, bytes: &mut BytesMut, now: Time) {
        let Some(entry) = find_mut(&mut self.links, link).filter(|link| link.is_up()) else {
            bytes.clear();
            return;
        };
        if !bytes.is_empty() {
            entry.heard = now;
        }
        let limits = entry.limits;
        let mut at = 0;
        loop {
            let result = match parse_frame(&bytes[at..], &limits) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Some(entry) = find_mut(&mut self.links, link) {
                        entry.stats.frames_in += 1;
                        entry.stats.bytes_in += frame.length as u64;
                        entry.frame_in = frame.length as u32;
                        if frame.header.kind == FrameKind::Data {
                            entry.bulk_in += frame.length as u64;
                        }
                    }
                    if frame.body.len() >= COPY {
                        bytes.advance(at);
                        at = 0;
                        let whole = bytes.split_to(frame.length).freeze();
                        self.frame(link, frame.header, Payload::Owned(whole.slice(frame.body)), now)
                    } else {
                        let body = at + frame.body.start..at + frame.body.end;
                        at += frame.length;
                        self.frame(link, frame.header, Payload::Slice(&bytes[body]), now)
                    }
                }
                Err(error) => Err(first_bytes(&error.to_string(), &bytes[at..]).into()),
            };
            if let Err(fault) = result {
                self.lose(link, LostReason::Violation(fault.into_owned()), By::Core);
            }
            if !find(&self.links, link).is_some_and(|link| link.is_up()) {
                bytes.clear();
                return;
            }
        }
        bytes.advance(at);
        if find(&self.links, link).is_some_and(|link| link.owes_ack()) {
            self.mark_ready(link);
        }
    }

    fn frame(&mut self, from: LinkId, mut header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        if !header.kind.is_routed() {
            return self.link_frame(from, header.kind, body.as_slice(), now);
        }
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        match link.role {
            Role::Child => {
                if !header.src.is_under(&link.address) {
                    return Err(format!("a frame from {}, expected one from under {}", header.src, link.address).into());
                }
                if header.dst.is_under(&link.address) {
                    return Err(format!("a frame for {}, which lies under its sender's own link", header.dst).into());
                }
                // R2: from below the mark is never believed.
                if header.full {
                    header.full = false;
                    link.stats.claimed_marks += 1;
                }
            }
            Role::Parent => {
                if header.src.is_under(&self.address) {
                    return Err(format!("a frame from above that claims to be from {}", header.src).into());
                }
                if !header.dst.is_under(&self.address) {
                    return Err(format!("a frame from above for {}, which does not lie here", header.dst).into());
                }
            }
        }
        match header.kind {
            FrameKind::Request => self.request_frame(from, header, body, now),
            FrameKind::Reply | FrameKind::Failure => self.answer_frame(from, header, body),
            FrameKind::Data => self.data_frame(from, header, body, now),
            FrameKind::End => self.end_frame(from, header, body),
            FrameKind::Credit => self.credit_frame(from, header, body.as_slice(), now),
            FrameKind::Stop => self.stop_frame(from, header, body.as_slice(), now),
            FrameKind::Cancel => self.cancel_frame(from, header),
            FrameKind::Log => self.log_frame(from, header, body, now),
            // Link kinds were told apart above.
            _ => Ok(()),
        }
    }

    // Frames of the link itself.

    fn link_frame(&mut self, from: LinkId, kind: FrameKind, body: &[u8], now: Time) -> Result<(), Fault> {
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        match kind {
            FrameKind::Ping => {
                let ping: Ping = decode(body).map_err(|error| fault("ping", &error))?;
                link.pong = Some(ping.seq);
                self.mark_ready(from);
                self.notice_spent(from, None, now)
            }
            FrameKind::Pong => {
                let pong: Ping = decode(body).map_err(|error| fault("pong", &error))?;
                if link.path.pong(pong.seq, now) { Ok(()) } else { Err("a pong to no ping".into()) }
            }
            FrameKind::Ack => {
                let ack: Ack = decode(body).map_err(|error| fault("acknowledgement", &error))?;
                let before = link.path.acked;
                if !link.path.ack(ack.bulk, now) {
                    return Err("an acknowledgement of what was not sent".into());
                }
                self.mark_ready(from);
                if ack.bulk - before < 16 * 1024 { self.notice_spent(from, None, now) } else { Ok(()) }
            }
            FrameKind::Gone => {
                let gone: Gone = decode(body).map_err(|error| fault("notice of loss", &error))?;
                if link.role == Role::Parent {
                    return Err("a notice of loss from above".into());
                }
                if !gone.prefix.is_below(&link.address) {
                    return Err(format!("a notice that {} is lost from {}", gone.prefix, link.address).into());
                }
                let near = gone.prefix.depth() == link.address.depth() + 1;
                // What waits to be told upwards is memory here, and time of the siblings' there.
                let weight = 1 + (body.len() / 64) as u32;
                if !link.losses.charge(near, weight, self.config.losses, now) {
                    return Err("a flood of losses".into());
                }
                if link.told > self.config.control_budget {
                    return Err("more losses than can be told".into());
                }
                self.subtree_gone(from, gone.prefix, gone.reason);
                Ok(())
            }
            FrameKind::Bye => {
                let bye: Bye = decode(body).map_err(|error| fault("last word", &error))?;
                self.lose(from, bye.reason, By::Peer);
                Ok(())
            }
            FrameKind::Shutdown => {
                let notice: ShutdownNotice = decode(body).map_err(|error| fault("shutdown", &error))?;
                if link.role != Role::Parent {
                    return Err("a shutdown from below".into());
                }
                self.events.push_back(Event::ShutdownRequested(notice));
                Ok(())
            }
            FrameKind::LogLevel => {
                let level: u8 = decode(body).map_err(|error| fault("log level", &error))?;
                if link.role != Role::Parent || level > Limits::LOG_LEVEL {
                    return Err("a log level that it may not set".into());
                }
                self.set_log_level(level);
                self.events.push_back(Event::LogLevel(level));
                Ok(())
            }
            _ => Err(format!("a frame of the reserved kind {kind:?}").into()),
        }
    }

    /// Charges a control frame that brings nothing forward: from the link itself, or from a context behind it.
    pub(super) fn notice_spent(&mut self, from: LinkId, src: Option<&Address>, now: Time) -> Result<(), Fault> {
        let rate = self.config.notices;
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        let near = src.is_none_or(|src| *src == link.address);
        // What comes from further below was charged by the parent of whoever sent it.
        if link.role == Role::Parent || !near || link.notices.take(1, rate, now) {
            return Ok(());
        }
        Err("a flood of control frames".into())
    }

    fn log_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let rate = self.config.log_bytes;
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        if link.role == Role::Parent {
            return Err("a log record from above".into());
        }
        let length = body.as_slice().len();
        if length > Limits::LOG || !link.log_rate.take(length as u32 + 64, rate, now) {
            link.stats.logs_dropped += 1;
            return Ok(());
        }
        self.pass_log(header.src, body.into_bytes(0));
        Ok(())
    }

    // What every frame of an exchange meets.

    /// The exchange of a frame that comes from its side `side`; counted as a stray when there is none, or the frame comes
    /// from somewhere else (S4).
    pub(super) fn known(&mut self, from: LinkId, header: &FrameHeader, side: usize) -> Result<Option<u32>, Fault> {
        let known = self.exchanges.find(header.requester(), header.exchange, &self.address).filter(|&slot| {
            let exchange = &self.exchanges[slot];
            exchange.end[side].link == from
                && *exchange.address(side) == header.src
                && *exchange.address(other(side)) == header.dst
        });
        if known.is_none() {
            self.stray(from, &header.src)?;
        }
        if side == SERVER
            && let Some(slot) = known
        {
            self.heard(slot);
        }
        Ok(known)
    }

    /// Counts a frame that belongs to nothing, and charges the link that it came by (S13).
    fn stray(&mut self, from: LinkId, src: &Address) -> Result<(), Fault> {
        let rate = self.config.strays;
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        link.stats.strays += 1;
        let near = link.address == *src;
        let weight = 1 + link.frame_in / 4096;
        if link.role == Role::Parent || link.stray_rate.charge(near, weight, rate, link.heard) {
            return Ok(());
        }
        Err("a flood of frames that belong to nothing".into())
    }

    pub(super) fn stray_or_fault(&mut self, from: LinkId, src: &Address, what: &'static str) -> Result<(), Fault> {
        if find(&self.links, from).is_some_and(|link| link.address == *src) {
            return Err(what.into());
        }
        self.stray(from, src)
    }

    /// A context broke the rules of an exchange: when it is the neighbour, its link ends, else the exchange.
    pub(super) fn blame(&mut self, from: LinkId, slot: u32, src: &Address, what: &'static str) -> Result<(), Fault> {
        if find(&self.links, from).is_some_and(|link| link.address == *src) {
            return Err(what.into());
        }
        let reason = LostReason::Violation(what.into());
        let failure = Failure::new(FailureKind::PeerLost(reason), format!("{src}: {what}")).at(src.clone());
        self.abort(slot, failure.ran(Ran::MaybeExecuted));
        Ok(())
    }
}

fn fault(what: &str, error: &dyn std::fmt::Display) -> Fault {
    format!("a {what} that cannot be read: {error}").into()
}

/// A violation by bytes, with the first of them for the report; shown escaped by whoever shows it.
fn first_bytes(error: &str, bytes: &[u8]) -> String {
    let seen = &bytes[..bytes.len().min(64)];
    format!("{error}, got \"{}\"", seen.escape_ascii())
}
