//! Exchanges: a request with its channels and its answer, as every context on its path keeps it.
//!
//! One table serves requester, relays, turn and target alike: an exchange has two sides, and each is either this node
//! or a link. What is checked (who may answer, how much may be sent) is checked wherever the exchange passes, so that
//! the first honest context stops a hostile one, and no honest relay is blamed for what it passed on.

use std::time::Duration;

use bytes::Bytes;
use offshoot_wire::{Address, FrameKind, Limits};

use crate::event::LinkId;
use crate::hash::Seeded;
use crate::names::Names;
use crate::slab::{NONE, Place, Places};
use crate::time::Time;

/// The side that asks.
pub(crate) const ASKER: usize = 0;
/// The side that is asked.
pub(crate) const SERVER: usize = 1;

/// The other side.
pub(crate) fn other(side: usize) -> usize {
    1 - side
}

/// One direction of an exchange at this node: the frames that wait to go towards a side.
pub(crate) type FlowRef = u32;

/// The flow of exchange `slot` towards `side`.
pub(crate) fn flow_ref(slot: u32, side: usize) -> FlowRef {
    slot << 1 | side as u32
}

/// The exchange slot and side of a flow.
pub(crate) fn flow_parts(flow: FlowRef) -> (u32, usize) {
    (flow >> 1, (flow & 1) as usize)
}

/// A frame's body while it waits.
pub(crate) enum Body {
    /// As it came, or as the application gave it.
    Bytes(Bytes),
    /// Small pieces of stream data, joined while they waited.
    Joined(Vec<u8>),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Body::Bytes(bytes) => bytes.len(),
            Body::Joined(bytes) => bytes.len(),
        }
    }
}

/// The first bytes of a body that the core made itself: a request's head without a grant.
#[derive(Clone, Copy, Default)]
pub(crate) struct Prefix {
    bytes: [u8; 11],
    len: u8,
}

impl Prefix {
    pub(crate) fn new(bytes: &[u8]) -> Option<Prefix> {
        let mut prefix = Prefix { bytes: [0; 11], len: bytes.len() as u8 };
        prefix.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(prefix)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A frame that waits.
pub(crate) struct Item {
    pub(crate) kind: FrameKind,
    pub(crate) full: bool,
    /// Of `Data` frames.
    pub(crate) channel: u8,
    pub(crate) prefix: Prefix,
    pub(crate) body: Body,
    pub(crate) next: u32,
}

/// What a queued frame costs beside its body, about.
pub(crate) const ITEM_COST: u64 = 96;

impl Item {
    pub(crate) fn new(kind: FrameKind, body: Bytes) -> Item {
        Item { kind, full: false, channel: 0, prefix: Prefix::default(), body: Body::Bytes(body), next: NONE }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.body.len() as u64 + ITEM_COST
    }
}

/// The lanes of a link, in order of precedence; `IDLE` for a flow with nothing waiting.
pub(crate) const CONTROL: u8 = 0;
pub(crate) const CALL: u8 = 1;
pub(crate) const BULK: u8 = 2;
pub(crate) const LANES: usize = 3;
pub(crate) const IDLE: u8 = 3;

/// The lane of a frame.
pub(crate) fn lane_of(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Failure | FrameKind::Cancel | FrameKind::Stop => CONTROL,
        FrameKind::Data => BULK,
        _ => CALL,
    }
}

/// Frames of one exchange that wait to go one way, first in first out.
pub(crate) struct Flow {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    /// Stream bytes waiting.
    pub(crate) data: u64,
    pub(crate) class: u32,
    pub(crate) place: Place,
    pub(crate) deficit: i32,
    pub(crate) lane: u8,
    /// The request is among what waits: it has not left this node.
    pub(crate) unsent: bool,
    /// In the link's list of credits to send.
    pub(crate) crediting: bool,
    /// The exchange is over; what waits is all there will be, and the class's notice with this number waits for it.
    pub(crate) detached: Option<u64>,
}

impl Flow {
    fn new() -> Flow {
        Flow {
            head: NONE,
            tail: NONE,
            data: 0,
            class: NONE,
            place: Place::OUT,
            deficit: 0,
            lane: IDLE,
            unsent: false,
            crediting: false,
            detached: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

/// Where a side is.
pub(crate) struct End {
    pub(crate) link: LinkId,
    pub(crate) peer: u32,
    pub(crate) place: Place,
}

impl End {
    pub(crate) fn at(link: LinkId) -> End {
        End { link, peer: NONE, place: Place::OUT }
    }
}

/// What a reader measures to tune a window.
///
/// The round trip is from granting credit to the first byte that needed it: nothing shorter can be seen, and a writer
/// that waits for credit makes it exact. A window that is read within two round trips is what holds the writer back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tuning {
    /// Data beyond this total needs credit granted at that time.
    probe: Option<(u64, Time)>,
    round_trip: Option<Duration>,
    /// When this much had been consumed.
    mark: Option<(u64, Time)>,
}

impl Tuning {
    /// Credit beyond `before` was granted.
    pub(crate) fn granted(&mut self, before: u64, now: Time) {
        self.probe.get_or_insert((before, now));
    }

    /// Data up to `total` has arrived.
    pub(crate) fn arrived(&mut self, total: u64, now: Time) {
        if let Some((before, at)) = self.probe
            && total > before
        {
            let sample = now.since(at);
            self.round_trip = Some(self.round_trip.map_or(sample, |least| least.min(sample)));
            self.probe = None;
        }
    }

    /// Whether a window should grow, now that `consumed` bytes have been read.
    pub(crate) fn wants_more(&mut self, consumed: u64, window: u64, now: Time) -> bool {
        let Some((from, since)) = self.mark else {
            self.mark = Some((consumed, now));
            return false;
        };
        if consumed - from < window {
            return false;
        }
        self.mark = Some((consumed, now));
        self.round_trip.is_some_and(|round_trip| now.since(since) <= round_trip * 2)
    }
}

/// A channel of an exchange, from the side that writes to the side `to`.
pub(crate) struct Channel {
    pub(crate) to: usize,
    pub(crate) number: u8,
    /// What the reader has granted in all, as known here.
    pub(crate) credit: u64,
    /// How much of that the writer was told: what it is held to.
    pub(crate) passed: u64,
    /// What the writer has sent in all.
    pub(crate) sent: u64,
    /// What the application here has used, when it is the reader.
    pub(crate) consumed: u64,
    /// The window that this node grants, when it is the reader; once the channel has ended, what of it is unread.
    pub(crate) window: u64,
    /// How the window is tuned, when the application here is the reader.
    pub(crate) tuning: Tuning,
    pub(crate) ended: bool,
    pub(crate) stopped: bool,
    /// Credit is to be sent to the writer.
    pub(crate) crediting: bool,
    /// Credit is held back, since the link to the reader is over its budget.
    pub(crate) held: bool,
    /// The application here, as the writer, was refused room.
    pub(crate) blocked: bool,
}

/// An exchange.
pub(crate) struct Exchange {
    pub(crate) id: u64,
    pub(crate) number: u64,
    pub(crate) requester: Address,
    pub(crate) target: Address,
    /// By side: where it is.
    pub(crate) end: [End; 2],
    /// By side: what waits to go there.
    pub(crate) flow: [Flow; 2],
    /// Not over yet. One that is over is kept until its flows are empty.
    pub(crate) open: bool,
    /// Whose limit it counts against.
    pub(crate) charge: LinkId,
    /// Asked by a child or below it.
    pub(crate) below: bool,
    /// By side: the channels that it may read, one bit each.
    pub(crate) readable: [u8; 2],
    /// By side: the credit that each of its channels begins with.
    pub(crate) initial: [u64; 2],
    /// By side: what was granted and has not come yet, for the relay's limit.
    pub(crate) outstanding: [u64; 2],
    /// The sum of the windows that this node grants for it.
    pub(crate) reserved: u64,
    /// What its request counts among the link's unheard ones; zero once the asked side was heard.
    pub(crate) unheard: u64,
    pub(crate) channels: Vec<Channel>,
    /// The number of the grant by which it was asked, at the target.
    pub(crate) grant: Option<u64>,
}

impl Exchange {
    pub(crate) fn header_parts(&self, to: usize) -> (&Address, &Address) {
        if to == ASKER { (&self.requester, &self.target) } else { (&self.target, &self.requester) }
    }

    pub(crate) fn address(&self, side: usize) -> &Address {
        if side == ASKER { &self.requester } else { &self.target }
    }

    /// The channel `number` towards `to`; made when the exchange has such a channel and it is used for the first time.
    pub(crate) fn channel(&mut self, to: usize, number: u8) -> Option<&mut Channel> {
        if number >= Limits::CHANNELS || self.readable[to] & 1 << number == 0 {
            return None;
        }
        let index = match self.channels.iter().position(|channel| channel.to == to && channel.number == number) {
            Some(index) => index,
            None => {
                let initial = self.initial[to];
                self.channels.push(Channel {
                    to,
                    number,
                    credit: initial,
                    passed: initial,
                    sent: 0,
                    consumed: 0,
                    window: initial,
                    tuning: Tuning::default(),
                    ended: false,
                    stopped: false,
                    crediting: false,
                    held: false,
                    blocked: false,
                });
                self.channels.len() - 1
            }
        };
        self.channels.get_mut(index)
    }

    /// The bytes that came for the application here, as the reader `side`, and that it has not consumed.
    pub(crate) fn unread(&self, side: usize) -> u64 {
        let reads = |channel: &&Channel| channel.to == side && !channel.stopped;
        self.channels.iter().filter(reads).map(|channel| channel.sent - channel.consumed).sum()
    }

    /// The channel `number` towards `to`, if it was used already.
    pub(crate) fn used_channel(&self, to: usize, number: u8) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.to == to && channel.number == number)
    }
}

/// How many bits of an exchange's id are its slot: room for 1,048,576 at once.
const SLOT_BITS: u32 = 20;

/// All exchanges that this node asked, serves or passes.
pub(crate) struct Exchanges {
    slots: Vec<Option<Exchange>>,
    free: Vec<u32>,
    serial: u64,
    /// Exchanges that others asked, by name. Those that this node asked carry their id as their number.
    names: Names,
    open: usize,
}

impl Exchanges {
    pub(crate) fn new(seed: Seeded) -> Exchanges {
        Exchanges { slots: Vec::new(), free: Vec::new(), serial: 0, names: Names::new(seed), open: 0 }
    }

    /// How many slots are in use.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether every slot that an id can name is in use.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= 1 << SLOT_BITS
    }

    /// How many are not over.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Adds an exchange; `number` is `None` for one that this node asks, which is then named by its id.
    pub(crate) fn insert(&mut self, requester: Address, number: Option<u64>, target: Address, end: [End; 2]) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.serial += 1;
        let id = self.serial << SLOT_BITS | u64::from(slot);
        if let Some(number) = number {
            self.names.insert(&requester, number, slot);
        }
        let exchange = Exchange {
            id,
            number: number.unwrap_or(id),
            requester,
            target,
            end,
            flow: [Flow::new(), Flow::new()],
            open: true,
            charge: LinkId::LOCAL,
            below: false,
            readable: [0; 2],
            initial: [0; 2],
            outstanding: [0; 2],
            reserved: 0,
            unheard: 0,
            channels: Vec::new(),
            grant: None,
        };
        self.slots[slot as usize] = Some(exchange);
        self.open += 1;
        slot
    }

    /// The open exchange with this name. `mine` is this node's address.
    pub(crate) fn find(&self, requester: &Address, number: u64, mine: &Address) -> Option<u32> {
        if requester == mine {
            return self.find_id(number);
        }
        self.names.find(requester, number, |slot| {
            let exchange = &self[slot];
            exchange.number == number && exchange.requester == *requester
        })
    }

    /// The open exchange with this id.
    pub(crate) fn find_id(&self, id: u64) -> Option<u32> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as u32;
        let exchange = self.slots.get(slot as usize)?.as_ref()?;
        (exchange.id == id && exchange.open).then_some(slot)
    }

    /// Marks an exchange as over: its name is free.
    pub(crate) fn close(&mut self, slot: u32) {
        self[slot].open = false;
        let exchange = self.slots[slot as usize].as_ref().filter(|exchange| !exchange.end[ASKER].link.is_local());
        if let Some(exchange) = exchange {
            self.names.remove(&exchange.requester, exchange.number, slot);
        }
        self.open -= 1;
    }

    /// Frees the slot of an exchange that is over and has nothing waiting.
    pub(crate) fn free(&mut self, slot: u32) {
        self.slots[slot as usize] = None;
        self.free.push(slot);
        if self.free.len() == self.slots.len() && self.slots.capacity() > 4096 {
            // A burst is over: what it needed is given back. Ids stay unique, since the serial goes on.
            self.slots = Vec::new();
            self.free = Vec::new();
            self.names.release();
        }
    }

    /// The slots in use.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.is_some()).map(|(slot, _)| slot as u32)
    }

    pub(crate) fn flow(&mut self, flow: FlowRef) -> &mut Flow {
        let (slot, side) = flow_parts(flow);
        &mut self[slot].flow[side]
    }
}

impl std::ops::Index<u32> for Exchanges {
    type Output = Exchange;

    fn index(&self, slot: u32) -> &Exchange {
        self.slots[slot as usize].as_ref().expect("a slot number of the core's own names an exchange")
    }
}

impl std::ops::IndexMut<u32> for Exchanges {
    fn index_mut(&mut self, slot: u32) -> &mut Exchange {
        self.slots[slot as usize].as_mut().expect("a slot number of the core's own names an exchange")
    }
}

/// The places of flows in the rings of their lanes.
pub(crate) struct FlowPlaces<'a>(pub(crate) &'a mut Exchanges);

impl Places for FlowPlaces<'_> {
    fn place(&mut self, member: u32) -> &mut Place {
        &mut self.0.flow(member).place
    }
}

/// The places of ends in the rings of their peers.
pub(crate) struct EndPlaces<'a>(pub(crate) &'a mut Exchanges);

impl Places for EndPlaces<'_> {
    fn place(&mut self, member: u32) -> &mut Place {
        let (slot, side) = flow_parts(member);
        &mut self.0[slot].end[side].place
    }
}

/// Whether a frame counts as a waiting request.
pub(crate) fn is_call(kind: FrameKind) -> bool {
    kind == FrameKind::Request
}

/// Whether a frame counts as a waiting answer.
pub(crate) fn is_answer(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Reply | FrameKind::Failure)
}
