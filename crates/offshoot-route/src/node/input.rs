//! Bytes in: parsing, the checks of source, mark and exchange, and what each frame does.
//!
//! Two answers to what is wrong. What the neighbour itself did, or should have stopped, ends its link (a [`Fault`]).
//! What a context further away may have done through honest relays ends the exchange, or is dropped and counted: a hostile
//! leaf must not cost its relay the link.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};
use offshoot_wire::{
    Ack, Address, Authority, Bye, ChannelEnd, Credit, EndReason, Failure, FailureKind, FrameHeader, FrameKind, Gone,
    Limits, LostReason, Ping, Ran, RequestHead, ShutdownNotice, Verb, decode, encode, parse_chunk, parse_frame,
};

use super::Node;
use super::lost::By;
use crate::event::{Event, ExchangeId, LinkId};
use crate::exchange::{ASKER, End, Item, SERVER, flow_ref, other};
use crate::link::Role;
use crate::outbox::{find, find_mut};
use crate::policy::{Channels, is_framed, permits};
use crate::time::Time;

/// Why a link is ended.
pub(super) type Fault = Cow<'static, str>;

/// Bodies up to this are copied out of the read buffer. Larger ones are handed on as they lie in it: a slice keeps the
/// whole buffer alive, so a small one would cost more than its copy.
const COPY: usize = 2048;

/// Stream data that waits already is joined with what comes up to this many bytes.
pub(super) const JOIN: usize = 4096;

/// A frame's body, not copied yet.
pub(super) enum Payload<'a> {
    Slice(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Payload::Slice(slice) => slice,
            Payload::Owned(bytes) => bytes,
        }
    }

    /// The bytes from `start` on.
    fn into_bytes(self, start: usize) -> Bytes {
        match self {
            Payload::Slice(slice) => Bytes::copy_from_slice(slice.get(start..).unwrap_or_default()),
            Payload::Owned(bytes) if start <= bytes.len() => bytes.slice(start..),
            Payload::Owned(_) => Bytes::new(),
        }
    }
}

/// What a refusal counts against.
#[derive(Clone, Copy)]
enum Charge {
    /// What an honest neighbour would not have let through: charged to it whoever is said to ask.
    Passed,
    /// Asking what may not be asked: charged when the neighbour itself asks. A relay cannot tell a good grant.
    Refusal,
    /// Asking what is gone, or too much: charged when the neighbour itself asks.
    Bounce,
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
                        if frame.header.kind == FrameKind::Data {
                            entry.bulk_in += frame.length as u64;
                        }
                    }
                    if frame.body.len() > COPY {
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
                self.lose(link, LostReason::Violation(fault.into_owned()), By::Core, now);
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
            FrameKind::Reply | FrameKind::Failure => self.answer_frame(from, header, body, now),
            FrameKind::Data => self.data_frame(from, header, body, now),
            FrameKind::End => self.end_frame(from, header, body, now),
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
                if !link.losses.charge(near, self.config.losses, now) {
                    return Err("a flood of losses".into());
                }
                self.subtree_gone(from, gone.prefix, gone.reason, now);
                Ok(())
            }
            FrameKind::Bye => {
                let bye: Bye = decode(body).map_err(|error| fault("last word", &error))?;
                self.lose(from, bye.reason, By::Peer, now);
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
            _ => Err(format!("a frame of the reserved kind {kind:?}").into()),
        }
    }

    /// Charges a control frame that brings nothing forward: from the link itself, or from a context behind it.
    fn notice_spent(&mut self, from: LinkId, src: Option<&Address>, now: Time) -> Result<(), Fault> {
        let rate = self.config.notices;
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        let near = src.is_none_or(|src| *src == link.address);
        // What comes from further below was charged by the parent of whoever sent it.
        if link.role == Role::Parent || !near || link.notices.take(1, rate, now) {
            return Ok(());
        }
        Err("a flood of control frames".into())
    }

    // Requests.

    fn request_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        if self.exchanges.find(&header.src, header.exchange, &self.address).is_some() {
            // Through a relay this can be a race of a hostile context with its own notice of loss: dropped.
            return self.stray_or_fault(from, &header.src, "a request by the name of one that runs");
        }
        if header.dst == self.address {
            return self.serve(from, header, body, now);
        }
        let out = match self.route(&header.dst) {
            Ok(out) => out,
            Err(failure) => return self.refuse(from, &header, failure, Charge::Bounce, now),
        };
        let (verb, window, has_grant) = match RequestHead::peek(body.as_slice()) {
            Ok(head) => head,
            Err(error) => {
                let failure = self.failure(FailureKind::Malformed, format!("the request's head: {error}"));
                return self.refuse(from, &header, failure, Charge::Passed, now);
            }
        };
        let from_child = find(&self.links, from).is_some_and(|link| link.role == Role::Child);
        let open = Verb::from_number(verb).is_some_and(|verb| permits(verb, Authority::None));
        if from_child && !has_grant && !open {
            let failure =
                self.failure(FailureKind::Denied, format!("{} may ask {} only by a grant", header.src, header.dst));
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        if u64::from(window) > Limits::WINDOW_START {
            let failure = self.failure(FailureKind::Malformed, "the first window is beyond 128 KiB");
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        let length = body.as_slice().len();
        if let Err((failure, charge)) = self.admit(from, out, &header, length, verb, window) {
            return self.refuse(from, &header, failure, charge, now);
        }
        let slot = self.enter(from, out, &header, Channels::of_number(verb), window);
        let mut item = Item::new(FrameKind::Request, body.into_bytes(0));
        item.full = header.full;
        self.push(flow_ref(slot, SERVER), item);
        Ok(())
    }

    /// Whether a request from `from` may pass to `out`.
    fn admit(
        &self,
        from: LinkId,
        out: LinkId,
        header: &FrameHeader,
        length: usize,
        verb: u16,
        window: u32,
    ) -> Result<(), (Failure, Charge)> {
        let (Some(asker), Some(next)) = (find(&self.links, from), find(&self.links, out)) else {
            return Err((self.failure(FailureKind::NoRoute, "the link ended"), Charge::Bounce));
        };
        let most = match asker.role {
            Role::Child => self.config.max_turned_per_child,
            Role::Parent => self.config.max_passed_from_parent,
        };
        if asker.turned >= most || self.is_full(asker.role) {
            return Err((self.busy("as many requests as may pass here at once are under way"), Charge::Bounce));
        }
        if !fits(next.frame, header, length) {
            let message = format!("a request of {length} bytes does not fit the link to {}", next.address);
            return Err((self.failure(FailureKind::TooLarge, message), Charge::Bounce));
        }
        let more = length as u64;
        if self.outbox.calls_of(out, from).saturating_add(more) > self.config.call_budget
            || (asker.role == Role::Child && asker.charged.saturating_add(more) > self.config.call_budget)
        {
            return Err((self.busy("as many bytes of requests as may wait here do"), Charge::Bounce));
        }
        let channels = Channels::of_number(verb);
        let coming = u64::from(channels.answer.count_ones()) * u64::from(window);
        if coming > 0 && !asker.has_room_for(coming, &self.config) {
            return Err((self.busy("as much stream data as may wait here is promised"), Charge::Bounce));
        }
        Ok(())
    }

    /// Makes the exchange of a request from another context.
    fn enter(&mut self, from: LinkId, to: LinkId, header: &FrameHeader, channels: Channels, window: u32) -> u32 {
        let ends = [End::at(from), End::at(to)];
        let slot = self.exchanges.insert(header.src.clone(), Some(header.exchange), header.dst.clone(), ends);
        let exchange = &mut self.exchanges[slot];
        exchange.charge = from;
        exchange.readable = [channels.answer, channels.ask];
        exchange.initial = [window.into(), Limits::WINDOW_FLOOR];
        for side in [ASKER, SERVER] {
            let granted = u64::from(exchange.readable[side].count_ones()) * exchange.initial[side];
            if exchange.end[side].link.is_local() {
                exchange.reserved += granted;
                self.granted += granted;
            } else if !exchange.end[other(side)].link.is_local() {
                exchange.outstanding[side] = granted;
                if let Some(link) = find_mut(&mut self.links, exchange.end[side].link) {
                    link.outstanding += granted;
                }
            }
        }
        if let Some(link) = find_mut(&mut self.links, from) {
            exchange.below = link.role == Role::Child;
            self.below += usize::from(exchange.below);
            if to.is_local() {
                link.served += 1;
            } else {
                link.turned += 1;
            }
        }
        self.join_peer(slot, ASKER);
        self.join_peer(slot, SERVER);
        slot
    }

    fn serve(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let (head, start) = match RequestHead::split(body.as_slice()) {
            Ok((head, rest)) => (head, body.as_slice().len() - rest.len()),
            Err(error) => {
                let failure = self.failure(FailureKind::Malformed, format!("the request's head: {error}"));
                return self.refuse(from, &header, failure, Charge::Refusal, now);
            }
        };
        if u64::from(head.window) > Limits::WINDOW_START {
            let failure = self.failure(FailureKind::Malformed, "the first window is beyond 128 KiB");
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        let Some(verb) = head.verb() else {
            let failure = self.failure(FailureKind::Unsupported, format!("no verb has the number {}", head.verb));
            return self.refuse(from, &header, failure, Charge::Refusal, now);
        };
        let Some(link) = find(&self.links, from) else { return Ok(()) };
        let (authority, handle) = if header.full && link.role == Role::Parent {
            (Authority::Full, None)
        } else if let Some(grant) = &head.grant {
            match self.check_grant(grant, &header.src, verb, now) {
                Ok(handle) => (Authority::Granted, handle),
                Err(message) => {
                    let failure = self.failure(FailureKind::Denied, message);
                    return self.refuse(from, &header, failure, Charge::Refusal, now);
                }
            }
        } else if link.role == Role::Child && header.src == link.address {
            (Authority::Child, None)
        } else {
            (Authority::None, None)
        };
        if !permits(verb, authority) {
            let failure = self.failure(FailureKind::Denied, format!("{} may not ask for {verb:?} here", header.src));
            let charge = if authority == Authority::None { Charge::Passed } else { Charge::Refusal };
            return self.refuse(from, &header, failure, charge, now);
        }
        let most = match link.role {
            Role::Child => self.config.max_served_per_child,
            Role::Parent => self.config.max_served_from_parent,
        };
        if link.served >= most || self.is_full(link.role) {
            let failure = self.busy("as many requests as this context serves at once are under way");
            return self.refuse(from, &header, failure, Charge::Bounce, now);
        }
        let slot = self.enter(from, LinkId::LOCAL, &header, Channels::of(verb), head.window);
        let exchange = &mut self.exchanges[slot];
        exchange.grant = head.grant.map(|grant| grant.number).filter(|_| authority == Authority::Granted);
        let id = ExchangeId(exchange.id);
        let body = body.into_bytes(start);
        self.events.push_back(Event::Request { id, verb, authority, handle, from: header.src, body });
        Ok(())
    }

    /// Whether there is no place for another exchange from this side. What children asked fills up its own share only.
    fn is_full(&self, role: Role) -> bool {
        self.exchanges.is_full() || (role == Role::Child && self.below >= self.config.max_exchanges)
    }

    /// Answers a request that gets no exchange.
    fn refuse(
        &mut self,
        from: LinkId,
        header: &FrameHeader,
        failure: Failure,
        charge: Charge,
        now: Time,
    ) -> Result<(), Fault> {
        let (refusals, bounces, budget) = (self.config.refusals, self.config.bounces, self.config.control_budget);
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        link.stats.refused += 1;
        let near = link.address == header.src;
        let within = match charge {
            _ if link.role == Role::Parent => true,
            Charge::Passed => link.refusals.take(1, refusals, now),
            _ if !near => true,
            Charge::Refusal => link.refusals.take(1, refusals, now),
            Charge::Bounce => link.bounces.take(1, bounces, now),
        };
        if !within {
            return Err(format!("a flood of requests that are refused, the last: {}", failure.message).into());
        }
        if link.raw_bytes > if near { budget } else { budget.saturating_mul(16) } {
            return Err("refusals are asked for and not read".into());
        }
        let back = FrameHeader {
            kind: FrameKind::Failure,
            full: link.role == Role::Child,
            answer: true,
            dst: header.src.clone(),
            src: header.dst.clone(),
            exchange: header.exchange,
        };
        let body = failure_body(failure, room(link.frame, &back));
        let mut frame = Vec::with_capacity(body.len() + 48);
        back.encode(body.len(), &mut frame);
        frame.extend_from_slice(&body);
        link.raw_bytes += frame.len();
        link.raw.push_back(frame);
        self.mark_ready(from);
        Ok(())
    }

    // Frames of an exchange that runs.

    /// The exchange of a frame that comes from its side `side`; counted as a stray when there is none, or the frame comes
    /// from somewhere else (S4).
    fn known(&mut self, from: LinkId, header: &FrameHeader, side: usize) -> Option<u32> {
        let known = self.exchanges.find(header.requester(), header.exchange, &self.address).filter(|&slot| {
            let exchange = &self.exchanges[slot];
            exchange.end[side].link == from
                && *exchange.address(side) == header.src
                && *exchange.address(other(side)) == header.dst
        });
        if known.is_none()
            && let Some(link) = find_mut(&mut self.links, from)
        {
            link.stats.strays += 1;
        }
        known
    }

    fn stray_or_fault(&mut self, from: LinkId, src: &Address, what: &'static str) -> Result<(), Fault> {
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        if link.address == *src {
            return Err(what.into());
        }
        link.stats.strays += 1;
        Ok(())
    }

    /// A context broke the rules of an exchange: when it is the neighbour, its link ends, else the exchange.
    fn blame(&mut self, from: LinkId, slot: u32, src: &Address, what: &'static str, now: Time) -> Result<(), Fault> {
        if find(&self.links, from).is_some_and(|link| link.address == *src) {
            return Err(what.into());
        }
        let reason = LostReason::Violation(what.into());
        let failure = self.failure(FailureKind::PeerLost(reason), format!("{src}: {what}")).ran(Ran::MaybeExecuted);
        self.abort(slot, failure, now);
        Ok(())
    }

    fn answer_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let Some(slot) = self.known(from, &header, SERVER) else { return Ok(()) };
        let good = header.kind == FrameKind::Reply;
        self.settle(slot, good, body.into_bytes(0), now);
        Ok(())
    }

    /// Ends an exchange with its answer: a reply's body, or an encoded failure.
    pub(super) fn settle(&mut self, slot: u32, good: bool, body: Bytes, _now: Time) {
        let exchange = &self.exchanges[slot];
        let id = ExchangeId(exchange.id);
        let to = exchange.end[ASKER].link;
        self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, SERVER));
        if to.is_local() {
            let result = if good { Ok(body) } else { Err(self.read_failure(&body)) };
            self.close(slot);
            self.events.push_back(Event::Done { id, result });
            return;
        }
        let item = match find(&self.links, to) {
            Some(link) => {
                let exchange = &self.exchanges[slot];
                let header = FrameHeader {
                    kind: FrameKind::Reply,
                    full: false,
                    answer: true,
                    dst: exchange.requester.clone(),
                    src: exchange.target.clone(),
                    exchange: exchange.number,
                };
                let room = room(link.frame, &header);
                let waits = link.answers_queued.saturating_add(body.len() as u64);
                if !good && body.len() <= room {
                    Item::new(FrameKind::Failure, body)
                } else if !good {
                    let failure = self.read_failure(&body);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else if body.len() > room {
                    let message = format!("an answer of {} bytes does not fit a link on the way", body.len());
                    let failure = self.failure(FailureKind::TooLarge, message).ran(Ran::Executed);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else if waits > self.config.answer_budget {
                    let failure = self.busy("more answers wait than may, the way back is too slow").ran(Ran::Executed);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else {
                    Item::new(FrameKind::Reply, body)
                }
            }
            None => Item::new(FrameKind::Reply, Bytes::new()),
        };
        self.push(flow_ref(slot, ASKER), item);
        self.close(slot);
    }

    /// Decodes a failure that another context sent.
    fn read_failure(&self, body: &[u8]) -> Failure {
        decode(body).unwrap_or_else(|error| {
            self.failure(FailureKind::Malformed, format!("a failure that cannot be read: {error}"))
                .ran(Ran::MaybeExecuted)
        })
    }

    fn data_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let to = if header.answer { ASKER } else { SERVER };
        let Some(slot) = self.known(from, &header, other(to)) else { return Ok(()) };
        let (number, length) = match parse_chunk(body.as_slice()) {
            Some((number, data)) if !data.is_empty() => (number, data.len()),
            _ => return self.blame(from, slot, &header.src, "stream data without channel or bytes", now),
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, number) else {
            return self.blame(from, slot, &header.src, "data on a channel that the exchange does not have", now);
        };
        let sent = channel.sent.saturating_add(length as u64);
        if channel.ended {
            return self.blame(from, slot, &header.src, "data behind the end of its channel", now);
        }
        if sent > channel.passed {
            return self.blame(from, slot, &header.src, "more data than was granted", now);
        }
        channel.sent = sent;
        channel.tuning.arrived(sent, now);
        let stopped = channel.stopped;
        let id = ExchangeId(exchange.id);
        let reader = exchange.end[to].link;
        if reader.is_local() {
            if !stopped {
                let data = body.into_bytes(1);
                self.events.push_back(Event::Data { id, channel: number, data });
            }
            return Ok(());
        }
        // Only where both sides are links; what this context writes itself is bounded by its send buffer.
        exchange.outstanding[to] -= length as u64;
        if let Some(link) = find_mut(&mut self.links, reader) {
            link.outstanding -= length as u64;
        }
        self.push_data(slot, to, number, body.into_bytes(1));
        Ok(())
    }

    /// Puts stream data behind what waits for a link.
    pub(super) fn push_data(&mut self, slot: u32, to: usize, number: u8, data: Bytes) {
        let flow = flow_ref(slot, to);
        if data.len() < JOIN
            && !is_framed(number)
            && self.outbox.join(&mut self.exchanges, &mut self.links, flow, number, &data, JOIN)
        {
            return;
        }
        let mut item = Item::new(FrameKind::Data, data);
        item.channel = number;
        self.push(flow, item);
    }

    fn end_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let to = if header.answer { ASKER } else { SERVER };
        let Some(slot) = self.known(from, &header, other(to)) else { return Ok(()) };
        let Ok(end) = decode::<ChannelEnd>(body.as_slice()) else {
            return self.blame(from, slot, &header.src, "an end that cannot be read", now);
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, end.channel) else {
            return self.blame(from, slot, &header.src, "the end of a channel that the exchange does not have", now);
        };
        if channel.ended {
            return self.blame(from, slot, &header.src, "a second end of a channel", now);
        }
        if channel.sent != end.total {
            return self.blame(from, slot, &header.src, "an end whose total is not what was sent", now);
        }
        channel.ended = true;
        let stopped = channel.stopped;
        let id = ExchangeId(exchange.id);
        let reader = exchange.end[to].link;
        self.release(slot, to, end.channel);
        if reader.is_local() {
            if !stopped {
                self.events.push_back(Event::End { id, channel: end.channel, reason: end.reason });
            }
            return Ok(());
        }
        let room = find(&self.links, reader).map_or(0, |link| room(link.frame, &header));
        let body = if body.as_slice().len() <= room { body.into_bytes(0) } else { end_body(end, room).into() };
        self.push(flow_ref(slot, to), Item::new(FrameKind::End, body));
        Ok(())
    }

    /// A channel has ended: what was granted on it and will not come is granted no longer.
    pub(super) fn release(&mut self, slot: u32, to: usize, number: u8) {
        let exchange = &mut self.exchanges[slot];
        let reader = exchange.end[to].link;
        let Some(channel) = exchange.channel(to, number) else { return };
        if reader.is_local() {
            let window = std::mem::take(&mut channel.window);
            exchange.reserved -= window;
            self.granted -= window;
        } else if !exchange.end[other(to)].link.is_local()
            && let Some(link) = find_mut(&mut self.links, reader)
        {
            let Some(channel) = exchange.channel(to, number) else { return };
            let left = channel.passed - channel.sent;
            exchange.outstanding[to] -= left;
            link.outstanding -= left;
            if !link.held.is_empty() {
                self.release_held(reader);
            }
        }
    }

    fn credit_frame(&mut self, from: LinkId, header: FrameHeader, body: &[u8], now: Time) -> Result<(), Fault> {
        // Credit is given by the side that reads.
        let to = if header.answer { SERVER } else { ASKER };
        let Some(slot) = self.known(from, &header, to) else { return Ok(()) };
        let Ok(credit) = decode::<Credit>(body) else {
            return self.blame(from, slot, &header.src, "credit that cannot be read", now);
        };
        let Some(channel) = self.exchanges[slot].channel(to, credit.channel) else {
            return self.blame(from, slot, &header.src, "credit for a channel that the exchange does not have", now);
        };
        // An honest reader grants from what it received, so never more than the largest window beyond what was sent.
        if credit.total > channel.sent.saturating_add(Limits::WINDOW_MAX) {
            return self.blame(from, slot, &header.src, "credit beyond the largest window", now);
        }
        let more = credit.total.saturating_sub(channel.credit);
        if more > 0 && !channel.ended {
            channel.credit = credit.total;
            self.pass_credit(slot, to, credit.channel);
        }
        if more < 2048 { self.notice_spent(from, Some(&header.src), now) } else { Ok(()) }
    }

    /// Tells the writer of a channel what its reader, behind a link, has granted; or holds it back while more waits for
    /// that link than may.
    pub(super) fn pass_credit(&mut self, slot: u32, to: usize, number: u8) {
        let exchange = &mut self.exchanges[slot];
        let (reader, writer) = (exchange.end[to].link, exchange.end[other(to)].link);
        let id = exchange.id;
        let Some(channel) = exchange.channel(to, number) else { return };
        if writer.is_local() {
            channel.passed = channel.credit;
            self.wake_writer(slot, to);
            return;
        }
        if channel.ended {
            return;
        }
        let more = channel.credit - channel.passed;
        let Some(link) = find_mut(&mut self.links, reader) else { return };
        let within = link.data_queued <= self.config.relay_budget;
        let total = if within && link.has_room_for(more, &self.config) {
            channel.credit
        } else if within {
            // Others were promised all there is room for. A stream's floor is granted whatever else is, or it could
            // wait for a stream that nobody writes.
            channel.credit.min(channel.sent.saturating_add(Limits::WINDOW_FLOOR)).max(channel.passed)
        } else {
            channel.passed
        };
        if total < channel.credit && !channel.held {
            channel.held = true;
            link.held.push_back((id, to, number));
            if link.held.len() > 2 * self.exchanges.len() + 1024 {
                let exchanges = &self.exchanges;
                link.held.retain(|(id, ..)| exchanges.find_id(*id).is_some());
            }
        }
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, number) else { return };
        let granted = total - channel.passed;
        if granted > 0 {
            channel.passed = total;
            channel.crediting = true;
            exchange.outstanding[to] += granted;
            if let Some(link) = find_mut(&mut self.links, reader) {
                link.outstanding += granted;
            }
            self.queue_credit(slot, other(to));
        }
    }

    /// Lets credit go that was held back, while there is room; a few at a time, in turn.
    pub(super) fn release_held(&mut self, reader: LinkId) {
        for _ in 0..16 {
            let budget = self.config.relay_budget / 2;
            let Some(link) = find_mut(&mut self.links, reader).filter(|link| link.data_queued <= budget) else {
                return;
            };
            let Some((id, to, number)) = link.held.pop_front() else { return };
            let Some(slot) = self.exchanges.find_id(id) else { continue };
            if let Some(channel) = self.exchanges[slot].channel(to, number) {
                channel.held = false;
            }
            self.pass_credit(slot, to, number);
        }
    }

    /// Puts an exchange in the list of those whose credit is told to the link of `side`.
    pub(super) fn queue_credit(&mut self, slot: u32, side: usize) {
        let exchange = &mut self.exchanges[slot];
        let (id, link) = (exchange.id, exchange.end[side].link);
        if std::mem::replace(&mut exchange.flow[side].crediting, true) {
            return;
        }
        if let Some(entry) = find_mut(&mut self.links, link) {
            entry.credits.push_back((id, side));
            if entry.credits.len() > 2 * self.exchanges.len() + 1024 {
                let exchanges = &self.exchanges;
                entry.credits.retain(|(id, _)| exchanges.find_id(*id).is_some());
            }
        }
        self.mark_ready(link);
    }

    fn stop_frame(&mut self, from: LinkId, header: FrameHeader, body: &[u8], now: Time) -> Result<(), Fault> {
        let to = if header.answer { SERVER } else { ASKER };
        let Some(slot) = self.known(from, &header, to) else { return Ok(()) };
        let &[number] = body else {
            return self.blame(from, slot, &header.src, "a stop that cannot be read", now);
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, number) else {
            return self.blame(from, slot, &header.src, "a stop of a channel that the exchange does not have", now);
        };
        if channel.ended {
            // It ended while the stop was on its way.
            return Ok(());
        }
        if channel.stopped {
            return self.notice_spent(from, Some(&header.src), now);
        }
        channel.stopped = true;
        channel.blocked = false;
        let id = ExchangeId(exchange.id);
        if exchange.end[other(to)].link.is_local() {
            self.events.push_back(Event::Stopped { id, channel: number });
        } else {
            let item = Item::new(FrameKind::Stop, Bytes::copy_from_slice(body));
            self.push(flow_ref(slot, other(to)), item);
        }
        Ok(())
    }

    fn cancel_frame(&mut self, from: LinkId, header: FrameHeader) -> Result<(), Fault> {
        if let Some(slot) = self.known(from, &header, ASKER) {
            self.drop_asker(slot);
        }
        Ok(())
    }

    fn log_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let rate = self.config.log_bytes;
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        if link.role == Role::Parent {
            return Err("a log record from above".into());
        }
        let length = body.as_slice().len();
        if length > super::local::LOG_MAX || !link.log_rate.take(length as u32 + 64, rate, now) {
            link.stats.logs_dropped += 1;
            return Ok(());
        }
        self.pass_log(header.src, body.into_bytes(0));
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
    if let FailureKind::PeerLost(LostReason::Violation(text)) | FailureKind::NoAgent(text) = &mut failure.kind {
        text.clear();
    }
    encode(&failure)
}

/// The end of a channel in at most `room` bytes.
fn end_body(mut end: ChannelEnd, room: usize) -> Vec<u8> {
    if let EndReason::Failed(text) = &mut end.reason {
        let mut most = room.saturating_sub(24).min(text.len());
        while !text.is_char_boundary(most) {
            most -= 1;
        }
        text.truncate(most);
    }
    encode(&end)
}

#[cfg(test)]
mod tests {
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
