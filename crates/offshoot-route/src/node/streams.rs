//! Channels: data, ends, stops and the credit that pays for them.

use bytes::Bytes;
use offshoot_wire::{ChannelEnd, Credit, EndReason, FrameHeader, FrameKind, Limits, decode, encode, parse_chunk};

use super::Node;
use super::input::{Fault, Payload};
use super::size::room;
use crate::event::{Event, ExchangeId, LinkId};
use crate::exchange::{ASKER, Item, SERVER, flow_ref, other};
use crate::outbox::{find, find_mut};
use crate::policy::is_framed;
use crate::time::Time;

/// Stream data that waits already is joined with what comes up to this many bytes.
pub(super) const JOIN: usize = 4096;

impl Node {
    pub(super) fn data_frame(
        &mut self,
        from: LinkId,
        header: FrameHeader,
        body: Payload<'_>,
        now: Time,
    ) -> Result<(), Fault> {
        let to = if header.answer { ASKER } else { SERVER };
        let Some(slot) = self.known(from, &header, other(to))? else { return Ok(()) };
        let (number, length) = match parse_chunk(body.as_slice()) {
            Some((number, data)) if !data.is_empty() => (number, data.len()),
            _ => return self.blame(from, slot, &header.src, "stream data without channel or bytes"),
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, number) else {
            return self.blame(from, slot, &header.src, "data on a channel that the exchange does not have");
        };
        let sent = channel.sent.saturating_add(length as u64);
        if channel.ended {
            return self.blame(from, slot, &header.src, "data behind the end of its channel");
        }
        if sent > channel.passed {
            return self.blame(from, slot, &header.src, "more data than was granted");
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

    pub(super) fn end_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>) -> Result<(), Fault> {
        let to = if header.answer { ASKER } else { SERVER };
        let Some(slot) = self.known(from, &header, other(to))? else { return Ok(()) };
        let Ok(end) = decode::<ChannelEnd>(body.as_slice()) else {
            return self.blame(from, slot, &header.src, "an end that cannot be read");
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, end.channel) else {
            return self.blame(from, slot, &header.src, "the end of a channel that the exchange does not have");
        };
        if channel.ended {
            return self.blame(from, slot, &header.src, "a second end of a channel");
        }
        if channel.sent != end.total {
            return self.blame(from, slot, &header.src, "an end whose total is not what was sent");
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
            // What came is in memory until the application has read it.
            let unread = if channel.stopped { 0 } else { channel.sent - channel.consumed };
            let left = channel.window.saturating_sub(unread);
            channel.window -= left;
            exchange.reserved -= left;
            self.granted -= left;
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

    pub(super) fn credit_frame(
        &mut self,
        from: LinkId,
        header: FrameHeader,
        body: &[u8],
        now: Time,
    ) -> Result<(), Fault> {
        // Credit is given by the side that reads.
        let to = if header.answer { SERVER } else { ASKER };
        let Some(slot) = self.known(from, &header, to)? else { return Ok(()) };
        let Ok(credit) = decode::<Credit>(body) else {
            return self.blame(from, slot, &header.src, "credit that cannot be read");
        };
        let Some(channel) = self.exchanges[slot].channel(to, credit.channel) else {
            return self.blame(from, slot, &header.src, "credit for a channel that the exchange does not have");
        };
        // An honest reader grants from what it received, so never more than the largest window beyond what was sent.
        if credit.total > channel.sent.saturating_add(Limits::WINDOW_MAX) {
            return self.blame(from, slot, &header.src, "credit beyond the largest window");
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
        // Where others were promised all there is, the stream's own data asks again when it leaves.
        if !within && total < channel.credit && !channel.held {
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

    /// Data of a channel has left: credit that was held back for want of room may go, by the floor at least.
    pub(super) fn pass_credit_on(&mut self, slot: u32, to: usize, number: u8) {
        let exchange = &self.exchanges[slot];
        // Not for every few bytes: a credit is a frame, too.
        let due = exchange.used_channel(to, number).is_some_and(|channel| {
            channel.credit > channel.passed && channel.passed - channel.sent < Limits::WINDOW_FLOOR / 2
        });
        if due && exchange.open {
            self.pass_credit(slot, to, number);
        }
    }

    /// Lets credit go that was held back, while there is room; a few at a time, in turn. To be called whenever what waits
    /// for the link becomes less: when nothing waits any more, all of it goes, since nothing would call again.
    pub(super) fn release_held(&mut self, reader: LinkId) {
        const AT_A_TIME: usize = 16;
        let budget = self.config.relay_budget / 2;
        let held = find(&self.links, reader).map_or(0, |link| link.held.len());
        for turn in 0..held {
            let Some(link) = find_mut(&mut self.links, reader).filter(|link| link.data_queued <= budget) else {
                return;
            };
            if turn >= AT_A_TIME && link.data_queued > 0 {
                return;
            }
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

    pub(super) fn stop_frame(
        &mut self,
        from: LinkId,
        header: FrameHeader,
        body: &[u8],
        now: Time,
    ) -> Result<(), Fault> {
        let to = if header.answer { SERVER } else { ASKER };
        let Some(slot) = self.known(from, &header, to)? else { return Ok(()) };
        let &[number] = body else {
            return self.blame(from, slot, &header.src, "a stop that cannot be read");
        };
        let exchange = &mut self.exchanges[slot];
        let Some(channel) = exchange.channel(to, number) else {
            return self.blame(from, slot, &header.src, "a stop of a channel that the exchange does not have");
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
