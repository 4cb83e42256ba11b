//! What the application of this context does: asking, serving, reading and writing channels.

use bytes::Bytes;
use offshoot_wire::{
    Address, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameHeader, FrameKind, Grant, Limits,
    RequestHead, Verb, encode, encode_into,
};

use super::Node;
use super::size::{fits, room};
use crate::event::{Event, ExchangeId, LinkId};
use crate::exchange::{ASKER, End, ITEM_COST, Item, Prefix, SERVER, flow_ref, other};
use crate::link::Role;
use crate::outbox::{find, find_mut};
use crate::policy::{Channels, is_framed};
use crate::time::Time;

/// The first window for a call's value when many are under way: 256 bytes. Nearly all values come in the answer itself; so as many calls may be on their
/// way as requests, and no relay has to refuse one for what might come. A value that does come by its channel has the usual window as soon as
/// its first bytes are read.
const CALL_WINDOW: u64 = 256;

impl Node {
    /// Asks `dst` for `verb`. The answer is an [`Event::Done`].
    ///
    /// # Errors
    /// Nothing was sent: `NoRoute` when there is no such context or no longer, `TooLarge` when the body does not fit a
    /// frame of the first link, `Unsupported` for asking this context itself, `Busy` when a limit is reached. That is
    /// either no room on the link: then [`Node::awaits_room`] says so of it, and [`Event::Room`] follows. Or there are
    /// [`Config::max_pending`](crate::Config::max_pending) requests under way: then each [`Event::Done`] makes a place.
    pub fn request(
        &mut self,
        dst: &Address,
        verb: Verb,
        body: Bytes,
        grant: Option<Grant>,
        _now: Time,
    ) -> Result<ExchangeId, Failure> {
        if *dst == self.address {
            return Err(self.failure(FailureKind::Unsupported, "a context does not ask itself"));
        }
        let out = self.route(dst)?;
        if self.asked >= self.config.max_pending || self.exchanges.is_full() {
            return Err(self.busy("as many requests as this context may ask at once are under way"));
        }
        let channels = Channels::of(verb);
        let readable = u64::from(channels.answer.count_ones());
        let window = if readable == 0 {
            0
        } else if matches!(verb, Verb::Connect | Verb::Attend) {
            // A few questions, or lines: no reason to take room from streams.
            Limits::WINDOW_FLOOR
        } else if self.granted + readable * Limits::WINDOW_START <= Limits::WINDOW_SUM {
            Limits::WINDOW_START
        } else if verb == Verb::Call {
            CALL_WINDOW
        } else {
            Limits::WINDOW_FLOOR
        };
        let head = RequestHead { verb: verb.number(), window: window as u32, grant };
        self.scratch.clear();
        encode_into(&head, &mut self.scratch);
        let length = self.scratch.len() + body.len();
        // The number is not known yet; ten bytes is its longest form.
        let header = FrameHeader {
            kind: FrameKind::Request,
            full: dst.is_below(&self.address),
            answer: false,
            dst: dst.clone(),
            src: self.address.clone(),
            exchange: u64::MAX,
        };
        let Some(link) = find_mut(&mut self.links, out) else {
            return Err(self.failure(FailureKind::NoRoute, "the link ended"));
        };
        if !fits(link.frame, &header, length) {
            let message = format!("a request of {length} bytes does not fit a frame of {}", link.frame);
            return Err(self.failure(FailureKind::TooLarge, message));
        }
        let unheard = length as u64 + ITEM_COST;
        // One that is larger than the window goes alone.
        if link.unheard > 0 && link.unheard.saturating_add(unheard) > link.call_window(&self.config) {
            link.refused_room = true;
            return Err(self.busy("as many bytes of requests as may be under way through the link are"));
        }
        link.unheard += unheard;
        let mut item = Item::new(FrameKind::Request, body);
        match Prefix::new(&self.scratch) {
            Some(prefix) => item.prefix = prefix,
            None => {
                let mut whole = Vec::with_capacity(length);
                whole.extend_from_slice(&self.scratch);
                if let crate::exchange::Body::Bytes(body) = &item.body {
                    whole.extend_from_slice(body);
                }
                item = Item::new(FrameKind::Request, whole.into());
            }
        }
        item.full = header.full;
        let ends = [End::at(LinkId::LOCAL), End::at(out)];
        let slot = self.exchanges.insert(header.src, None, header.dst, ends);
        let exchange = &mut self.exchanges[slot];
        exchange.readable = [channels.answer, channels.ask];
        exchange.initial = [window, Limits::WINDOW_FLOOR];
        exchange.reserved = readable * window;
        exchange.unheard = unheard;
        self.granted += exchange.reserved;
        self.asked += 1;
        let id = ExchangeId(exchange.id);
        self.join_peer(slot, SERVER);
        self.push(flow_ref(slot, SERVER), item);
        Ok(id)
    }

    /// Whether a request was refused for want of room on a link, so that an [`Event::Room`] is to come.
    pub fn awaits_room(&self, link: LinkId) -> bool {
        find(&self.links, link).is_some_and(|link| link.refused_room)
    }

    /// The requester no longer waits: there is no `Done`. What was started for it ends; a request that has not left yet
    /// never does. What arrived for it and was not consumed counts no longer; so this is to be said of an exchange that
    /// is done, too, when its data is thrown away.
    pub fn cancel(&mut self, id: ExchangeId, _now: Time) {
        if let Some((slot, ASKER)) = self.mine(id) {
            self.drop_asker(slot);
        }
        if let Some(unread) = self.unread.remove(&id.0) {
            self.granted -= unread;
        }
    }

    /// Answers an exchange that this context serves. It goes behind the data that was sent on it.
    pub fn reply(&mut self, id: ExchangeId, body: Bytes, _now: Time) {
        if let Some((slot, SERVER)) = self.mine(id) {
            self.settle(slot, true, body);
        }
    }

    /// Ends an exchange that this context serves with a failure; one that names no context gets this one's address.
    pub fn fail(&mut self, id: ExchangeId, mut failure: Failure, _now: Time) {
        if let Some((slot, SERVER)) = self.mine(id) {
            if failure.at == Address::ROOT {
                failure.at = self.address.clone();
            }
            self.settle(slot, false, encode(&failure).into());
        }
    }

    /// Whether an exchange still runs.
    pub fn is_open(&self, id: ExchangeId) -> bool {
        self.mine(id).is_some()
    }

    /// How many bytes a channel takes now: what its reader has granted, within what may wait in this node.
    pub fn writable(&self, id: ExchangeId, channel: u8) -> usize {
        let Some((slot, side)) = self.mine(id) else { return 0 };
        let to = other(side);
        let exchange = &self.exchanges[slot];
        let credit = match exchange.used_channel(to, channel) {
            Some(channel) if channel.ended => 0,
            Some(channel) => channel.passed - channel.sent,
            None if channel < Limits::CHANNELS && exchange.readable[to] & 1 << channel != 0 => exchange.initial[to],
            None => 0,
        };
        let room = self.config.send_buffer.saturating_sub(exchange.flow[to].data as usize);
        usize::try_from(credit).unwrap_or(usize::MAX).min(room)
    }

    /// Has an [`Event::Writable`] follow when a channel that takes nothing now takes something: for a writer that does
    /// not fetch what it could not send.
    pub fn await_room(&mut self, id: ExchangeId, channel: u8) {
        let Some((slot, side)) = self.mine(id) else { return };
        let Some(state) = self.exchanges[slot].channel(other(side), channel) else { return };
        if !state.ended {
            state.blocked = true;
        }
    }

    /// Sends bytes on a channel and returns how many were taken: at most what is writable. When that is fewer than
    /// offered, an [`Event::Writable`] follows as soon as there is room. On
    /// [`channel::CONTROL`](offshoot_wire::channel::CONTROL) `data` is one message, of 256 bytes at most, and taken whole
    /// or not at all.
    ///
    /// What is sent on a channel that its reader stopped is taken and thrown away.
    pub fn send(&mut self, id: ExchangeId, channel: u8, mut data: Bytes, _now: Time) -> usize {
        let Some((slot, side)) = self.mine(id) else { return 0 };
        let to = other(side);
        let room = self.writable(id, channel);
        let Some(state) = self.exchanges[slot].channel(to, channel) else { return 0 };
        if state.ended || data.is_empty() {
            return 0;
        }
        let offered = data.len();
        if state.stopped {
            return offered;
        }
        let taken = if is_framed(channel) && room < offered { 0 } else { offered.min(room) };
        if taken < offered {
            state.blocked = true;
        }
        if taken == 0 {
            return 0;
        }
        data.truncate(taken);
        state.sent += taken as u64;
        self.push_data(slot, to, channel, data);
        taken
    }

    /// Ends a channel that this context writes.
    pub fn finish(&mut self, id: ExchangeId, channel: u8, reason: EndReason, _now: Time) {
        let Some((slot, side)) = self.mine(id) else { return };
        let to = other(side);
        let Some(state) = self.exchanges[slot].channel(to, channel) else { return };
        if state.ended {
            return;
        }
        state.ended = true;
        state.blocked = false;
        let total = state.sent;
        self.release(slot, to, channel);
        let reason = match reason {
            EndReason::Failed(text) => EndReason::Failed(cut(text)),
            EndReason::Done => EndReason::Done,
        };
        let body = encode(&ChannelEnd { channel, total, reason });
        self.push(flow_ref(slot, to), Item::new(FrameKind::End, body.into()));
    }

    /// The application has used `bytes` of what arrived on a channel: as many may be sent again, and the window grows
    /// while the application reads it within two round trips. With 0 it says that it reads: a channel of a
    /// served exchange then gets its full first window.
    ///
    /// What was not consumed counts in the sum of windows ([`Limits::WINDOW_SUM`]) until it is, also when the channel has
    /// ended and when what this context asked is done; [`Node::cancel`] ends that. A context that serves holds nothing any
    /// more once it has answered.
    pub fn consumed(&mut self, id: ExchangeId, channel: u8, bytes: usize, now: Time) {
        let Some((slot, side)) = self.mine(id) else {
            self.consumed_late(id, bytes as u64);
            return;
        };
        let exchange = &mut self.exchanges[slot];
        let Some(state) = exchange.channel(side, channel) else { return };
        let before = state.consumed;
        state.consumed = before.saturating_add(bytes as u64).min(state.sent);
        if state.ended {
            let read = state.window.min(state.consumed - before);
            state.window -= read;
            exchange.reserved -= read;
            self.granted -= read;
            return;
        }
        if state.stopped {
            return;
        }
        let wanted = if state.window < Limits::WINDOW_START {
            Limits::WINDOW_START
        } else if state.tuning.wants_more(state.consumed, state.window, now) {
            (state.window * 2).min(Limits::WINDOW_MAX)
        } else {
            state.window
        };
        let mut more = wanted - state.window;
        if self.granted.saturating_add(more) > Limits::WINDOW_SUM {
            more = Limits::WINDOW_FLOOR.saturating_sub(state.window);
        }
        if more > 0 {
            state.window += more;
            exchange.reserved += more;
            self.granted += more;
        }
        let Some(state) = exchange.channel(side, channel) else { return };
        let total = state.consumed.saturating_add(state.window);
        // A quarter of the window at a time: few frames, and the writer never runs dry for want of one.
        if total.saturating_sub(state.credit) < state.window / 4 {
            return;
        }
        state.tuning.granted(state.credit, now);
        state.credit = total;
        state.passed = total;
        state.crediting = true;
        self.queue_credit(slot, other(side));
    }

    /// Data of an exchange that is done has been used.
    fn consumed_late(&mut self, id: ExchangeId, bytes: u64) {
        if self.unread.is_empty() {
            return;
        }
        let Some(unread) = self.unread.get_mut(&id.0) else { return };
        let read = bytes.min(*unread);
        *unread -= read;
        if *unread == 0 {
            self.unread.remove(&id.0);
        }
        self.granted -= read;
    }

    /// The reader wants no more of a channel. What is on its way is thrown away, and so is what arrived and was not read.
    pub fn stop(&mut self, id: ExchangeId, channel: u8, _now: Time) {
        let Some((slot, side)) = self.mine(id) else { return };
        let exchange = &mut self.exchanges[slot];
        let Some(state) = exchange.channel(side, channel) else { return };
        if std::mem::replace(&mut state.stopped, true) {
            return;
        }
        if state.ended {
            // All has come; what is unread is thrown away.
            let unread = std::mem::take(&mut state.window);
            exchange.reserved -= unread;
            self.granted -= unread;
            return;
        }
        self.push(flow_ref(slot, other(side)), Item::new(FrameKind::Stop, Bytes::copy_from_slice(&[channel])));
    }

    /// Sends a log record to the root; at the root, it is an event. Logs never stop work: what is longer than 16 KiB or
    /// finds no room is dropped and counted.
    pub fn log(&mut self, body: Bytes, _now: Time) {
        if body.len() <= Limits::LOG {
            self.pass_log(self.address.clone(), body);
        } else if let Some(link) = self.parent.and_then(|parent| find_mut(&mut self.links, parent)) {
            link.stats.logs_dropped += 1;
        }
    }

    /// How many bytes of log records find room now, each counted with 64 bytes more. Without a bound at the root.
    pub fn log_room(&self) -> usize {
        match self.parent.and_then(|parent| find(&self.links, parent)) {
            Some(link) => self.config.log_budget.saturating_sub(link.log_bytes),
            None => usize::MAX,
        }
    }

    /// Down to which level this context and those below it send log records.
    pub fn log_level(&self) -> u8 {
        self.log_level
    }

    /// Sets [`log_level`](Self::log_level), here and in all contexts below. It is what the parent says, in all contexts but
    /// the root.
    pub fn set_log_level(&mut self, level: u8) {
        if level == self.log_level {
            return;
        }
        self.log_level = level;
        let mut frame = Vec::new();
        Frame::link(FrameKind::LogLevel, Bytes::copy_from_slice(&[level])).encode(&mut frame);
        let children: Vec<LinkId> = self.children.values().copied().collect();
        for child in children {
            // One that was not greeted yet is told by its hello.
            if let Some(link) = find_mut(&mut self.links, child).filter(|link| link.is_greeted()) {
                link.push_raw(frame.clone());
                self.mark_ready(child);
            }
        }
    }

    pub(super) fn pass_log(&mut self, from: Address, body: Bytes) {
        let Some(parent) = self.parent else {
            if self.address == Address::ROOT {
                self.events.push_back(Event::Log { from, body });
            }
            return;
        };
        let budget = self.config.log_budget;
        let Some(link) = find_mut(&mut self.links, parent).filter(|link| link.is_up()) else { return };
        let header = FrameHeader {
            kind: FrameKind::Log,
            full: false,
            answer: false,
            dst: Address::ROOT,
            src: from,
            exchange: 0,
        };
        let cost = body.len() + 64;
        if link.log_bytes + cost > budget || body.len() > room(link.frame, &header) {
            link.stats.logs_dropped += 1;
            return;
        }
        link.log_bytes += cost;
        link.logs.push_back((header.src, body));
        self.mark_ready(parent);
    }

    /// The slot of an exchange that this context takes part in, and its side.
    fn mine(&self, id: ExchangeId) -> Option<(u32, usize)> {
        let slot = self.exchanges.find_id(id.0)?;
        let exchange = &self.exchanges[slot];
        if exchange.end[ASKER].link.is_local() {
            Some((slot, ASKER))
        } else {
            exchange.end[SERVER].link.is_local().then_some((slot, SERVER))
        }
    }

    /// Tells the application, as a writer towards `to`, that there is room again.
    pub(super) fn wake_writer(&mut self, slot: u32, to: usize) {
        let buffer = self.config.send_buffer as u64;
        let exchange = &mut self.exchanges[slot];
        if !exchange.open || exchange.flow[to].data > buffer / 2 {
            return;
        }
        let id = ExchangeId(exchange.id);
        for channel in &mut exchange.channels {
            if channel.to == to && channel.blocked && channel.passed > channel.sent {
                channel.blocked = false;
                self.events.push_back(Event::Writable { id, channel: channel.number });
            }
        }
    }

    /// Queues a frame and tells the owner.
    pub(super) fn push(&mut self, flow: crate::exchange::FlowRef, item: Item) {
        let (slot, side) = crate::exchange::flow_parts(flow);
        let link = self.exchanges[slot].end[side].link;
        self.outbox.push(&mut self.exchanges, &mut self.links, flow, item);
        self.mark_ready(link);
    }

    /// Puts a link in the list of those with output, when it has some.
    pub(super) fn mark_ready(&mut self, id: LinkId) {
        if let Some(link) = find_mut(&mut self.links, id)
            && !link.ready
            && link.has_output(&self.config)
        {
            link.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Whether a link leads to the parent.
    pub fn is_parent(&self, link: LinkId) -> bool {
        find(&self.links, link).is_some_and(|link| link.role == Role::Parent)
    }

    pub(super) fn credit_body(channel: u8, total: u64, out: &mut Vec<u8>) {
        encode_into(&Credit { channel, total }, out);
    }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(Limits::MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
