//! Bytes out: which frame of which lane goes next.

use bytes::Bytes;
use offshoot_wire::{Ack, Address, Bye, Frame, FrameHeader, FrameKind, Ping, encode};

use super::Node;
use super::streams::JOIN;
use crate::event::{LinkId, Transmit};
use crate::exchange::{ASKER, BULK, Body, CALL, CONTROL, FlowRef, LANES, flow_parts, other};
use crate::link::State;
use crate::outbox::{find, find_mut};
use crate::slab::NONE;
use crate::time::Time;

/// How many bytes of calls go before waiting stream data gets one frame.
const CALLS_IN_ROW: u64 = 128 * 1024;

/// By how many bytes a link's own frames may get ahead of those of exchanges that wait: then both share the link evenly.
/// 32 KiB: what a mass of losses is told in, and what a call may wait for behind somebody else's.
const RAW_AHEAD: usize = 32 * 1024;

impl Node {
    /// The next link that got something to send since it was returned last. Constant time, however many links there are.
    pub fn poll_ready_link(&mut self) -> Option<LinkId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(link) = find_mut(&mut self.links, id) {
                link.ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Whether [`Node::poll_transmit`] would give something now.
    pub fn has_output(&self, link: LinkId) -> bool {
        find(&self.links, link).is_some_and(|link| link.has_output(&self.config))
    }

    /// Hands out whole frames in the order of the lanes until about `budget` bytes, one frame more at most. Returns
    /// whether more could be had at once; a link for which it does is not reported as ready again until it was drained.
    pub fn poll_transmit(&mut self, link: LinkId, budget: usize, out: &mut dyn Transmit, now: Time) -> bool {
        let mut written = 0;
        while written < budget {
            let sent = self.transmit(link, out, now);
            if sent == 0 {
                break;
            }
            written += sent;
            if let Some(entry) = find_mut(&mut self.links, link) {
                entry.stats.frames_out += 1;
                entry.stats.bytes_out += sent as u64;
            }
        }
        self.has_output(link)
    }

    /// Hands out one frame; its length, 0 when there is none.
    fn transmit(&mut self, id: LinkId, out: &mut dyn Transmit, now: Time) -> usize {
        let Some(link) = find_mut(&mut self.links, id) else { return 0 };
        match link.state {
            State::Reserved => return 0,
            State::Closed => {
                let Some(reason) = link.bye.take() else { return 0 };
                return self.link_frame_out(FrameKind::Bye, encode(&Bye { reason }), out);
            }
            State::Greeted | State::Up => {}
        }
        if let Some(seq) = link.pong.take() {
            return self.link_frame_out(FrameKind::Pong, encode(&Ping { seq }), out);
        }
        if std::mem::take(&mut link.ping) {
            let seq = link.path.ping(now);
            return self.link_frame_out(FrameKind::Ping, encode(&Ping { seq }), out);
        }
        if link.owes_ack() {
            link.bulk_acked = link.bulk_in;
            let bulk = link.bulk_in;
            return self.link_frame_out(FrameKind::Ack, encode(&Ack { bulk }), out);
        }
        if let Some(notice) = link.shutdown.take() {
            return self.link_frame_out(FrameKind::Shutdown, encode(&notice), out);
        }
        let raw_first = link.raw_ahead < RAW_AHEAD;
        if raw_first && !link.raw.is_empty() {
            return self.raw_out(id, out);
        }
        while let Some(link) = find_mut(&mut self.links, id)
            && let Some(&(exchange, side)) = link.credits.front()
        {
            let sent = self.credit_out(exchange, side, out);
            if sent > 0 {
                return sent;
            }
            if let Some(link) = find_mut(&mut self.links, id) {
                link.credits.pop_front();
            }
        }
        for lane in self.lanes(id) {
            let Some(link) = find_mut(&mut self.links, id) else { return 0 };
            if lane == usize::from(BULK) && link.lanes[lane] != NONE {
                if !link.may_send_bulk(&self.config) {
                    link.path.limited = true;
                    continue;
                }
                if !link.path.awaits_pong() && link.path.is_stale(self.config.sample_age, now) {
                    let seq = link.path.ping(now);
                    return self.link_frame_out(FrameKind::Ping, encode(&Ping { seq }), out);
                }
            }
            if let Some(flow) = self.outbox.pick(&mut self.exchanges, link, lane) {
                return self.flow_out(id, flow, lane, out);
            }
        }
        let Some(link) = find_mut(&mut self.links, id) else { return 0 };
        if !link.raw.is_empty() {
            return self.raw_out(id, out);
        }
        if let Some((src, body)) = link.logs.pop_front() {
            link.log_bytes -= body.len() + 64;
            let (kind, dst) = (FrameKind::Log, Address::ROOT);
            let header = FrameHeader { kind, full: false, answer: false, dst, src, exchange: 0 };
            return self.frame_out(&header, &[], body, out);
        }
        0
    }

    /// Hands out a frame of the link's own.
    fn raw_out(&mut self, id: LinkId, out: &mut dyn Transmit) -> usize {
        let Some(link) = find_mut(&mut self.links, id) else { return 0 };
        let Some(raw) = link.raw.pop_front() else { return 0 };
        let length = raw.frame.len();
        let alone = link.lanes == [NONE; LANES];
        link.raw_ahead = if alone { 0 } else { RAW_AHEAD.min(link.raw_ahead + length) };
        if raw.of.is_local() {
            link.raw_bytes -= length;
        } else if let Some(of) = find_mut(&mut self.links, raw.of) {
            of.told -= raw.cost();
        }
        out.small(&raw.frame);
        length
    }

    /// The lanes in the order in which they are served now: calls before bulk, but not for ever.
    fn lanes(&self, id: LinkId) -> [usize; 3] {
        let calls_first = find(&self.links, id).is_none_or(|link| link.calls_in_row < CALLS_IN_ROW);
        let (control, call, bulk) = (usize::from(CONTROL), usize::from(CALL), usize::from(BULK));
        if calls_first { [control, call, bulk] } else { [control, bulk, call] }
    }

    fn link_frame_out(&mut self, kind: FrameKind, body: Vec<u8>, out: &mut dyn Transmit) -> usize {
        self.scratch.clear();
        Frame::link(kind, body.into()).encode(&mut self.scratch);
        out.small(&self.scratch);
        self.scratch.len()
    }

    fn frame_out(&mut self, header: &FrameHeader, prefix: &[u8], body: Bytes, out: &mut dyn Transmit) -> usize {
        self.scratch.clear();
        header.encode(prefix.len() + body.len(), &mut self.scratch);
        self.scratch.extend_from_slice(prefix);
        hand_out(&mut self.scratch, body, out)
    }

    /// Tells the writer of an exchange's channels what they may send. One channel at a time.
    fn credit_out(&mut self, id: u64, side: usize, out: &mut dyn Transmit) -> usize {
        let Some(slot) = self.exchanges.find_id(id) else { return 0 };
        let exchange = &mut self.exchanges[slot];
        // Credit never overtakes the request that it belongs to; an honest reader grants nothing before that has left.
        let due = !exchange.flow[side].unsent;
        let channel = exchange.channels.iter_mut().find(|channel| channel.to == other(side) && channel.crediting);
        let Some(channel) = channel.filter(|channel| due && !channel.ended) else {
            exchange.flow[side].crediting = false;
            for channel in &mut exchange.channels {
                channel.crediting &= channel.to != other(side) || !channel.ended;
            }
            return 0;
        };
        channel.crediting = false;
        let (number, total) = (channel.number, channel.passed);
        let header = header_to(exchange, side, FrameKind::Credit, false);
        let mut body = Vec::with_capacity(12);
        Node::credit_body(number, total, &mut body);
        self.scratch.clear();
        header.encode(body.len(), &mut self.scratch);
        self.scratch.extend_from_slice(&body);
        out.small(&self.scratch);
        self.scratch.len()
    }

    /// Hands out the first frame of a flow, or as much of it as fits one frame.
    fn flow_out(&mut self, id: LinkId, flow: FlowRef, lane: usize, out: &mut dyn Transmit) -> usize {
        let (slot, side) = flow_parts(flow);
        let exchange = &self.exchanges[slot];
        let local = exchange.end[other(side)].link.is_local();
        let head = exchange.flow[side].head;
        let limit = find(&self.links, id).map_or(0, |link| link.frame) as usize;
        let item = &mut self.outbox.items[head];
        let (kind, channel) = (item.kind, item.channel);
        let header = header_to(exchange, side, kind, item.full);
        let mut left = 0;
        let sent;
        if kind == FrameKind::Data {
            self.scratch.clear();
            header.encode(0, &mut self.scratch);
            self.scratch.push(item.channel);
            let room = limit.saturating_sub(self.scratch.len() - 4);
            let length = item.body.len();
            let part = match &mut item.body {
                Body::Bytes(bytes) if length > room => bytes.split_to(room),
                Body::Bytes(bytes) => std::mem::take(bytes),
                Body::Joined(bytes) if length > room => {
                    let rest = bytes.split_off(room);
                    Bytes::from(std::mem::replace(bytes, rest))
                }
                Body::Joined(bytes) => Bytes::from(std::mem::take(bytes)),
            };
            self.outbox.shorten(&mut self.exchanges, &mut self.links, flow, part.len());
            if part.is_empty() {
                // Not one byte fits behind the head: only a peer whose own frames are larger than those it takes can have
                // asked so. It gets nothing, and nothing waits for it.
                sent = 1;
            } else {
                left = length - part.len();
                let total = (self.scratch.len() - 4 + part.len()) as u32;
                self.scratch[..4].copy_from_slice(&total.to_le_bytes());
                sent = hand_out(&mut self.scratch, part, out);
            }
        } else {
            let body = match &mut item.body {
                Body::Bytes(bytes) => bytes.clone(),
                Body::Joined(bytes) => Bytes::from(bytes.clone()),
            };
            let prefix = item.prefix;
            sent = self.frame_out(&header, prefix.as_slice(), body, out);
        }
        self.outbox.spend(&mut self.exchanges, flow, sent);
        if left == 0 {
            self.outbox.pop(&mut self.exchanges, &mut self.links, flow);
        }
        if let Some(link) = find_mut(&mut self.links, id) {
            link.raw_ahead = link.raw_ahead.saturating_sub(sent);
            if lane == usize::from(BULK) {
                link.calls_in_row = 0;
                if kind == FrameKind::Data {
                    link.path.sent += sent as u64;
                }
            } else if lane == usize::from(CALL) && link.lanes[usize::from(BULK)] != NONE {
                link.calls_in_row += sent as u64;
            }
            if !link.held.is_empty() {
                self.release_held(id);
            }
        }
        if kind == FrameKind::Data && !local {
            self.pass_credit_on(slot, side, channel);
        }
        if kind == FrameKind::Data && local {
            self.wake_writer(slot, side);
        }
        self.free_if_done(slot);
        sent
    }
}

fn header_to(exchange: &crate::exchange::Exchange, side: usize, kind: FrameKind, full: bool) -> FrameHeader {
    let (dst, src) = exchange.header_parts(side);
    let answer = side == ASKER;
    FrameHeader { kind, full, answer, dst: dst.clone(), src: src.clone(), exchange: exchange.number }
}

/// Hands out a head and its body: together when that is little, else the body without copying.
fn hand_out(head: &mut Vec<u8>, body: Bytes, out: &mut dyn Transmit) -> usize {
    let total = head.len() + body.len();
    if body.len() <= JOIN {
        head.extend_from_slice(&body);
        out.small(head);
    } else {
        out.small(head);
        out.large(body);
    }
    total
}
