//! Stream: the ends of this process's channels and streams that were handed over to others.
//!
//! An end is a handle: a number that only who was given it may use (R4), once a grant of this process names it. Who writes
//! gets credit as the reader here takes what came; who reads gets what credit it gives, so a reader that stops stops the
//! writers, wherever both are. Runs under the node's lock. Only a root and a worker have this service: the stock agent
//! neither has nor links it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use offshoot_route::{ExchangeId, Node, Time};
use offshoot_wire::{
    Address, Authority, EndReason, Failure, FailureKind, Grant, Limits, Ran, StreamSpec, Verb, VerbSet, channel, decode,
};

use crate::handover::AFTER_CALL;
use crate::ids::IdMap;
use crate::lane::{Entry, Lane, Next, lost, nobody};
use crate::shared::Shared;
use crate::state::{State, Timer};

/// How many ends may be handed over at once: each holds a grant and some hundred bytes.
const HANDLES: usize = 16_384;

/// How many messages or pieces of one writer wait apart, each with some hundred bytes beside its own. What comes beyond
/// them waits as it came, which its window bounds: else a window full of empty messages would cost fifty times its bytes.
const APART: usize = 128;

/// What stands for the loss of a writer where messages are read elsewhere.
const LOST: u32 = u32::MAX;

/// The service, as the node hands requests to it. A trait, so that what does not construct it does not link it.
pub(crate) trait LaneService: Send {
    fn request(&mut self, core: &mut Node, id: ExchangeId, right: Right<'_>, body: &[u8], now: Time);
    /// Whether the exchange is one of this service.
    fn data(&mut self, core: &mut Node, id: ExchangeId, data: &Bytes, now: Time) -> bool;
    fn ended(&mut self, core: &mut Node, id: ExchangeId, reason: EndReason, now: Time);
    fn wanted(&mut self, core: &mut Node, id: ExchangeId, now: Time);
    fn cancelled(&mut self, core: &mut Node, id: ExchangeId, now: Time);
    /// Contexts are gone: those that had not asked for what they were given will not.
    fn gone(&mut self, core: &mut Node, prefix: &Address, now: Time);
    /// This context has ended.
    fn end(&mut self);
    fn pump(&mut self, core: &mut Node, lane: &Arc<Lane>, now: Time);
    fn used(&mut self, core: &mut Node, from: ExchangeId, bytes: usize, now: Time);
    fn unread(&mut self, core: &mut Node, lane: &Arc<Lane>, now: Time);
    fn hand(
        &mut self,
        core: &mut Node,
        end: End<'_>,
        holder: &Address,
        now: Time,
    ) -> Result<(u64, Option<Grant>), Failure>;
    /// Hands an end that nobody asked for yet to another holder.
    fn hand_again(
        &mut self,
        core: &mut Node,
        handle: u64,
        holder: &Address,
        now: Time,
    ) -> Result<Option<Grant>, Failure>;
    /// With which call an end was handed over.
    fn went_with(&mut self, handle: u64, call: ExchangeId);
    /// A call has ended: what went with it is asked for within so long, or not wanted. Whether anything did.
    fn call_ended(&mut self, call: ExchangeId, within: Duration) -> bool;
    /// An end that is not asked for by then is not wanted. When that is to be looked at.
    fn let_go(&mut self, handle: u64, until: Instant) -> Option<Instant>;
    /// Ends what was not asked for in time.
    fn overdue(&mut self, core: &mut Node, instant: Instant, now: Time);
    fn is_idle(&self) -> bool;
}

/// By what right an end is asked for.
pub(crate) struct Right<'a> {
    pub(crate) authority: Authority,
    pub(crate) handle: Option<u64>,
    pub(crate) from: &'a Address,
}

/// An end that is to be handed over.
pub(crate) struct End<'a> {
    pub(crate) lane: &'a Arc<Lane>,
    pub(crate) reads: bool,
    pub(crate) home: &'a Arc<Shared>,
}

struct Handed {
    lane: Arc<Lane>,
    reads: bool,
    holder: Address,
    grant: Option<u64>,
    /// How many exchanges use it.
    open: usize,
    /// Until when it may be asked for, if it was not, and who gave it no longer waits.
    until: Option<Instant>,
}

struct Open {
    handle: u64,
    lane: Arc<Lane>,
    reads: bool,
    /// Of a writer: what came and is not taken apart: the beginning of a message, or what exceeds [`APART`].
    partial: BytesMut,
    /// Of a writer: how many bytes of the beginning of a message were told to be used already.
    ahead: usize,
    /// Of a writer: how many messages or pieces of it wait apart.
    held: usize,
    ended: bool,
    /// Of a reader: what is being sent.
    rest: Bytes,
}

/// The ends that were handed over.
#[derive(Default)]
pub(crate) struct Lanes {
    last: u64,
    handles: HashMap<u64, Handed>,
    open: IdMap<ExchangeId, Open>,
    /// The ends that went with each call that is under way.
    calls: IdMap<ExchangeId, Vec<u64>>,
    /// A lane is being pumped: what it sets off concerns the same lane, and is seen there.
    pumping: bool,
    /// This context has ended: what is handed over now nobody would ever let go of.
    over: bool,
}

/// Why nothing comes, or goes, any more.
const ENDED: &str = "this context has ended";

/// The next whole message of what came; an error for what is none.
pub(crate) fn message(buffer: &mut BytesMut) -> Option<Result<Bytes, Failure>> {
    let length = u32::from_le_bytes(*buffer.first_chunk()?);
    if length == LOST {
        buffer.advance(4);
        return Some(Err(lost("one who sent is lost")));
    }
    if length as usize > Limits::ITEM {
        let text = format!("a message of {length} bytes was announced, expected at most {}", Limits::ITEM);
        return Some(Err(Failure::new(FailureKind::Malformed, text)));
    }
    if buffer.len() < 4 + length as usize {
        return None;
    }
    buffer.advance(4);
    // A copy: a small message does not keep all that it came with.
    Some(Ok(Bytes::copy_from_slice(&buffer.split_to(length as usize))))
}

/// A message as it travels.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(4 + message.len());
    // No message is longer than `Limits::ITEM`.
    frame.extend_from_slice(&(message.len() as u32).to_le_bytes());
    frame.extend_from_slice(message);
    frame.freeze()
}

impl Lanes {
    fn grant(core: &mut Node, handle: u64, holder: &Address, now: Time) -> Result<Option<Grant>, Failure> {
        if core.address().is_below(holder) || core.address() == holder {
            return Ok(None);
        }
        core.grant(holder, VerbSet::NONE.with(Verb::Stream), Some(handle), Duration::MAX, now).map(Some)
    }

    /// Nobody may ask for it any more.
    fn drop_handle(&mut self, core: &mut Node, handle: u64, why: Option<Failure>, now: Time) {
        let Some(handed) = self.handles.remove(&handle) else { return };
        if let Some(number) = handed.grant {
            core.revoke(number, now);
        }
        if handed.reads {
            handed.lane.close(why.unwrap_or_else(nobody));
            self.unread(core, &handed.lane, now);
        } else {
            if let Some(why) = why {
                handed.lane.deliver(Entry::Lost(why));
            }
            handed.lane.remove_writer();
            self.pump(core, &handed.lane, now);
        }
    }

    /// A writer has ended, and all that it wrote is used.
    fn finish_writer(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        core.reply(id, Bytes::new(), now);
        self.writer_over(core, id, now);
    }

    fn writer_over(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        let Some(open) = self.open.remove(&id) else { return };
        let last = self.handles.get_mut(&open.handle).is_some_and(|handed| {
            handed.open -= 1;
            handed.open == 0
        });
        if last {
            self.drop_handle(core, open.handle, None, now);
        }
    }

    /// Sends what waits to a reader elsewhere, as far as its credit goes.
    fn send_what_waits(&mut self, core: &mut Node, lane: &Arc<Lane>, now: Time) {
        let Some(id) = lane.reader() else { return };
        // Ends: credit does, or what waits does.
        loop {
            let Some(open) = self.open.get_mut(&id) else { return };
            if !open.rest.is_empty() {
                let sent = core.send(id, channel::STDOUT, open.rest.clone(), now);
                open.rest.advance(sent);
                if !open.rest.is_empty() {
                    return;
                }
            }
            let reason = match lane.next() {
                Next::Nothing => return,
                Next::Entry(Entry::Message(bytes, from)) => {
                    open.rest = if lane.framed { framed(&bytes) } else { bytes };
                    if let Some((from, bytes)) = from {
                        self.used(core, from, bytes, now);
                    }
                    continue;
                }
                Next::Entry(Entry::Lost(_)) if lane.framed => {
                    open.rest = Bytes::copy_from_slice(&LOST.to_le_bytes());
                    continue;
                }
                Next::Entry(Entry::Lost(failure)) => EndReason::Failed(failure.message.clone()),
                Next::End => EndReason::Done,
            };
            let handle = open.handle;
            self.open.remove(&id);
            core.finish(id, channel::STDOUT, reason, now);
            core.reply(id, Bytes::new(), now);
            return self.drop_handle(core, handle, None, now);
        }
    }

    /// Has as many messages of a writer wait apart as may; and ends it, when it has ended and nothing of it waits.
    fn take_apart(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        let Some(open) = self.open.get_mut(&id) else { return };
        while open.held < APART && !open.partial.is_empty() {
            let before = open.partial.len();
            let next =
                if open.lane.framed { message(&mut open.partial) } else { Some(Ok(open.partial.split().freeze())) };
            match next {
                None => break,
                Some(Ok(message)) => {
                    let bytes = before - open.partial.len() - std::mem::take(&mut open.ahead);
                    open.held += 1;
                    open.lane.deliver(Entry::Message(message, Some((id, bytes))));
                }
                Some(Err(failure)) => return self.refuse_writer(core, id, failure, now),
            }
        }
        if open.held == 0 {
            // A message may be longer than the window: what is there of it is used, when nothing waits before it.
            let more = open.partial.len() - std::mem::replace(&mut open.ahead, open.partial.len());
            if more > 0 {
                core.consumed(id, channel::STDIN, more, now);
            }
        }
        if open.ended && open.held < APART && !open.partial.is_empty() {
            let failure = Failure::new(FailureKind::Malformed, "the last message did not come whole");
            return self.refuse_writer(core, id, failure, now);
        }
        if open.ended && open.held == 0 {
            self.finish_writer(core, id, now);
        }
    }

    /// What a writer did is not what it may.
    fn refuse_writer(&mut self, core: &mut Node, id: ExchangeId, failure: Failure, now: Time) {
        let Some(open) = self.open.get(&id) else { return };
        open.lane.deliver(Entry::Lost(failure.clone()));
        core.fail(id, failure, now);
        self.writer_over(core, id, now);
    }
}

impl LaneService for Lanes {
    fn request(&mut self, core: &mut Node, id: ExchangeId, right: Right<'_>, body: &[u8], now: Time) {
        let Ok(StreamSpec { handle, reads }) = decode(body) else {
            return core.fail(id, Failure::new(FailureKind::Malformed, "the request cannot be decoded"), now);
        };
        // What is there is told to nobody who was not given it.
        if right.authority != Authority::Full && right.handle != Some(handle) {
            let text = format!("{} was not given this end of a channel", right.from);
            return core.fail(id, Failure::new(FailureKind::Denied, text), now);
        }
        let Some(handed) = self.handles.get_mut(&handle).filter(|handed| handed.reads == reads) else {
            let text = "this end of a channel is not handed out, or no longer";
            return core.fail(id, Failure::new(FailureKind::NoRoute, text), now);
        };
        if reads && handed.open > 0 {
            return core.fail(id, Failure::new(FailureKind::Busy, "it is read already"), now);
        }
        if !reads && let Some(why) = handed.lane.closed() {
            return core.fail(id, why, now);
        }
        handed.open += 1;
        handed.until = None;
        let lane = Arc::clone(&handed.lane);
        let (partial, rest) = (BytesMut::new(), Bytes::new());
        let open = Open { handle, lane: Arc::clone(&lane), reads, partial, ahead: 0, held: 0, ended: false, rest };
        self.open.insert(id, open);
        if reads {
            lane.read_by(id);
            self.pump(core, &lane, now);
        } else {
            core.consumed(id, channel::STDIN, 0, now);
        }
    }

    fn data(&mut self, core: &mut Node, id: ExchangeId, data: &Bytes, now: Time) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        let lane = Arc::clone(&open.lane);
        if open.reads {
            return true;
        }
        if !lane.framed && open.held < APART && open.partial.is_empty() {
            open.held += 1;
            lane.deliver(Entry::Message(data.clone(), Some((id, data.len()))));
        } else {
            open.partial.extend_from_slice(data);
            self.take_apart(core, id, now);
        }
        self.pump(core, &lane, now);
        true
    }

    fn ended(&mut self, core: &mut Node, id: ExchangeId, reason: EndReason, now: Time) {
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.reads && !open.ended) else { return };
        open.ended = true;
        let lane = Arc::clone(&open.lane);
        if let EndReason::Failed(why) = reason {
            self.refuse_writer(core, id, lost(&format!("who wrote it could not go on: {why}")), now);
        } else {
            self.take_apart(core, id, now);
        }
        self.pump(core, &lane, now);
    }

    fn wanted(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        if let Some(open) = self.open.get(&id) {
            let lane = Arc::clone(&open.lane);
            self.pump(core, &lane, now);
        }
    }

    fn cancelled(&mut self, core: &mut Node, id: ExchangeId, now: Time) {
        let Some(open) = self.open.get(&id) else { return };
        let (lane, handle) = (Arc::clone(&open.lane), open.handle);
        if open.reads {
            self.open.remove(&id);
            return self.drop_handle(core, handle, None, now);
        }
        if !open.ended {
            lane.deliver(Entry::Lost(lost("one who sent is lost")));
        }
        self.writer_over(core, id, now);
        self.pump(core, &lane, now);
    }

    fn gone(&mut self, core: &mut Node, prefix: &Address, now: Time) {
        let of = |handed: &Handed| handed.open == 0 && handed.holder.is_under(prefix);
        let handles: Vec<u64> = self.handles.iter().filter(|(_, handed)| of(handed)).map(|(at, _)| *at).collect();
        for handle in handles {
            self.drop_handle(core, handle, Some(lost("the context that it was handed to is lost")), now);
        }
    }

    fn end(&mut self) {
        self.over = true;
        let why = || lost(ENDED);
        for handed in self.handles.drain().map(|(_, handed)| handed) {
            if handed.reads {
                handed.lane.close(why());
            } else {
                handed.lane.deliver(Entry::Lost(why()));
                handed.lane.remove_writer();
            }
        }
        self.open.clear();
        self.calls.clear();
    }

    fn pump(&mut self, core: &mut Node, lane: &Arc<Lane>, now: Time) {
        if std::mem::replace(&mut self.pumping, true) {
            return;
        }
        self.send_what_waits(core, lane, now);
        self.pumping = false;
    }

    fn used(&mut self, core: &mut Node, from: ExchangeId, bytes: usize, now: Time) {
        let Some(open) = self.open.get_mut(&from) else { return };
        open.held -= 1;
        core.consumed(from, channel::STDIN, bytes, now);
        self.take_apart(core, from, now);
    }

    fn unread(&mut self, core: &mut Node, lane: &Arc<Lane>, now: Time) {
        let of = |open: &Open| !open.reads && Arc::ptr_eq(&open.lane, lane);
        let writers: Vec<ExchangeId> = self.open.iter().filter(|(_, open)| of(open)).map(|(id, _)| *id).collect();
        for id in writers {
            core.fail(id, nobody(), now);
            self.writer_over(core, id, now);
        }
    }

    fn hand(
        &mut self,
        core: &mut Node,
        end: End<'_>,
        holder: &Address,
        now: Time,
    ) -> Result<(u64, Option<Grant>), Failure> {
        if self.over {
            return Err(lost(ENDED).ran(Ran::NotSent));
        }
        if self.handles.len() >= HANDLES {
            let text = format!("{HANDLES} ends of channels are handed over already");
            return Err(Failure::new(FailureKind::Busy, text));
        }
        self.last += 1;
        let handle = self.last;
        let grant = Lanes::grant(core, handle, holder, now)?;
        let End { lane, reads, home } = end;
        let given = if reads { lane.give_reader(home) } else { lane.add_writer(home) };
        let number = grant.as_ref().map(|grant| grant.number);
        if let Err(failure) = given {
            number.into_iter().for_each(|number| core.revoke(number, now));
            return Err(failure);
        }
        let (lane, holder) = (Arc::clone(lane), holder.clone());
        self.handles.insert(handle, Handed { lane, reads, holder, grant: number, open: 0, until: None });
        Ok((handle, grant))
    }

    fn hand_again(
        &mut self,
        core: &mut Node,
        handle: u64,
        holder: &Address,
        now: Time,
    ) -> Result<Option<Grant>, Failure> {
        let grant = Lanes::grant(core, handle, holder, now)?;
        let Some(handed) = self.handles.get_mut(&handle).filter(|handed| handed.open == 0) else {
            grant.into_iter().for_each(|grant| core.revoke(grant.number, now));
            return Err(lost("the context that it was handed to is lost"));
        };
        handed.holder = holder.clone();
        handed.until = None;
        let before = std::mem::replace(&mut handed.grant, grant.as_ref().map(|grant| grant.number));
        before.into_iter().for_each(|number| core.revoke(number, now));
        Ok(grant)
    }

    fn went_with(&mut self, handle: u64, call: ExchangeId) {
        self.calls.entry(call).or_default().push(handle);
    }

    fn call_ended(&mut self, call: ExchangeId, within: Duration) -> bool {
        // Most calls carry nothing, and need not know the time.
        let Some(handles) = self.calls.remove(&call) else { return false };
        let until = Instant::now() + within;
        handles.into_iter().filter_map(|handle| self.let_go(handle, until)).count() > 0
    }

    fn let_go(&mut self, handle: u64, until: Instant) -> Option<Instant> {
        let handed = self.handles.get_mut(&handle).filter(|handed| handed.open == 0)?;
        let until = handed.until.map_or(until, |before| before.min(until));
        handed.until = Some(until);
        Some(until)
    }

    fn overdue(&mut self, core: &mut Node, instant: Instant, now: Time) {
        let late = |handed: &Handed| handed.open == 0 && handed.until.is_some_and(|until| until <= instant);
        let handles: BTreeSet<u64> =
            self.handles.iter().filter(|(_, handed)| late(handed)).map(|(at, _)| *at).collect();
        for handle in handles {
            self.drop_handle(core, handle, Some(lost("nobody has taken what was handed over")), now);
        }
    }

    fn is_idle(&self) -> bool {
        self.handles.is_empty()
    }
}

impl State {
    fn lanes(&mut self, run: impl FnOnce(&mut dyn LaneService, &mut Node)) {
        if let Some(lanes) = &mut self.services.lanes {
            run(&mut **lanes, &mut self.core);
        }
    }

    /// A lane has something new for a reader elsewhere.
    pub(crate) fn pump(&mut self, lane: &Arc<Lane>, now: Time) {
        self.lanes(|lanes, core| lanes.pump(core, lane, now));
    }

    /// Something of a writer elsewhere was used.
    pub(crate) fn used(&mut self, from: ExchangeId, bytes: usize, now: Time) {
        self.lanes(|lanes, core| lanes.used(core, from, bytes, now));
    }

    /// Nobody reads a lane any more.
    pub(crate) fn unread(&mut self, lane: &Arc<Lane>, now: Time) {
        self.lanes(|lanes, core| lanes.unread(core, lane, now));
    }

    /// With which call an end was handed over. That may have ended by now.
    pub(crate) fn end_went_with(&mut self, handle: u64, call: ExchangeId) {
        if self.asked(call).is_none_or(|asked| asked.done) {
            return self.let_go_end(handle, AFTER_CALL);
        }
        if let Some(lanes) = &mut self.services.lanes {
            lanes.went_with(handle, call);
        }
    }

    /// A call has ended, whether or not somebody waits for it. Where nothing ran, nobody has what went with it.
    pub(crate) fn ends_of_call(&mut self, call: ExchangeId, ran: bool) {
        let Some(lanes) = &mut self.services.lanes else { return };
        let after = if ran { AFTER_CALL } else { Duration::ZERO };
        if lanes.call_ended(call, after) {
            self.after(after, Timer::Lanes);
        }
    }

    /// Who handed an end over no longer waits for what it is for.
    pub(crate) fn let_go_end(&mut self, handle: u64, after: Duration) {
        let until = Instant::now() + after;
        if self.services.lanes.as_mut().and_then(|lanes| lanes.let_go(handle, until)).is_some() {
            self.after(after, Timer::Lanes);
        }
    }
}
