//! What waits to be sent: frames in flows, flows in classes, classes in the lanes of links.
//!
//! A *flow* is one direction of an exchange, first in first out. A *class* is all flows that go out on one link and came
//! in on another (or from this node): links share an outgoing link evenly however many exchanges each of them has (S13).
//! Within a class its flows share evenly. Both by deficit round robin, so nobody gains by larger frames. A flow sits in
//! the lane of its first frame.

use std::collections::{HashMap, VecDeque};

use crate::event::LinkId;
use crate::exchange::{
    BULK, Body, Exchanges, FlowPlaces, FlowRef, IDLE, Item, LANES, flow_parts, is_answer, is_call, lane_of, other,
};
use crate::hash::Seeded;
use crate::link::{Link, Raw};
use crate::slab::{NONE, Place, Places, Slab, ring_push, ring_remove};

/// One lane of a class.
struct ClassLane {
    flows: u32,
    place: Place,
    deficit: i32,
}

/// A notice that waits for flows.
struct PendingNotice {
    waiting: usize,
    raw: Raw,
}

/// The flows from one origin to one link.
struct Class {
    out: LinkId,
    origin: LinkId,
    lanes: [ClassLane; LANES],
    /// Flows with something waiting.
    flows: usize,
    /// Bytes of requests waiting, with what a frame costs: without and with full authority.
    calls: [u64; 2],
    /// Detached flows since the last notice.
    detached: usize,
    /// Notices of lost contexts that must not overtake what those contexts sent. The first one has number `first`.
    notices: VecDeque<PendingNotice>,
    first: u64,
}

impl Class {
    fn next_notice(&self) -> u64 {
        self.first + self.notices.len() as u64
    }
}

struct ClassPlaces<'a>(&'a mut Slab<Class>, usize);

impl Places for ClassPlaces<'_> {
    fn place(&mut self, member: u32) -> &mut Place {
        &mut self.0[member].lanes[self.1].place
    }
}

/// Everything that waits in a node.
pub(crate) struct Outbox {
    pub(crate) items: Slab<Item>,
    classes: Slab<Class>,
    named: HashMap<(LinkId, LinkId), u32, Seeded>,
}

/// The links by slot; those that are free are `None`.
pub(crate) type Links = Slab<Link>;

/// The link with this id.
pub(crate) fn find(links: &Links, id: LinkId) -> Option<&Link> {
    links.get(id.index).filter(|link| link.id == id)
}

/// As [`find`], to be changed.
pub(crate) fn find_mut(links: &mut Links, id: LinkId) -> Option<&mut Link> {
    links.get_mut(id.index).filter(|link| link.id == id)
}

impl Outbox {
    pub(crate) fn new(seed: Seeded) -> Outbox {
        Outbox { items: Slab::new(), classes: Slab::new(), named: HashMap::with_hasher(seed) }
    }

    /// Classes in use.
    pub(crate) fn classes(&self) -> usize {
        self.classes.len()
    }

    fn class(&mut self, out: LinkId, origin: LinkId) -> u32 {
        if let Some(&class) = self.named.get(&(out, origin)) {
            return class;
        }
        let lane = || ClassLane { flows: NONE, place: Place::OUT, deficit: 0 };
        let class = self.classes.insert(Class {
            out,
            origin,
            lanes: [lane(), lane(), lane()],
            flows: 0,
            calls: [0; 2],
            detached: 0,
            notices: VecDeque::new(),
            first: 0,
        });
        self.named.insert((out, origin), class);
        class
    }

    /// Puts a frame behind what waits in `flow`.
    pub(crate) fn push(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef, item: Item) {
        let (slot, side) = flow_parts(flow);
        let (out, origin) = (exchanges[slot].end[side].link, exchanges[slot].end[other(side)].link);
        let Some(link) = find_mut(links, out) else { return };
        let cost = item.cost();
        let (kind, full) = (item.kind, item.full);
        if is_call(kind) {
            link.calls_queued += cost;
        } else if is_answer(kind) {
            link.answers_queued += cost;
        } else {
            link.data_queued += cost;
        }
        if (is_call(kind) || is_answer(kind))
            && let Some(from) = find_mut(links, origin)
        {
            from.charged += cost;
        }
        let state = exchanges.flow(flow);
        if lane_of(kind) == BULK {
            state.data += item.body.len() as u64;
        }
        state.unsent |= is_call(kind);
        let index = self.items.insert(item);
        if state.tail == NONE {
            state.head = index;
            state.tail = index;
            let class = self.class(out, origin);
            exchanges.flow(flow).class = class;
            self.classes[class].flows += 1;
            self.enter(exchanges, links, flow, lane_of(kind));
        } else {
            let tail = std::mem::replace(&mut state.tail, index);
            self.items[tail].next = index;
        }
        if is_call(kind) {
            let class = exchanges.flow(flow).class;
            self.classes[class].calls[usize::from(full)] += cost;
        }
    }

    /// Adds stream data to the last frame that waits in `flow`, when that is of the same channel and both stay within
    /// `limit` bytes; whether it did.
    pub(crate) fn join(
        &mut self,
        exchanges: &mut Exchanges,
        links: &mut Links,
        flow: FlowRef,
        channel: u8,
        more: &[u8],
        limit: usize,
    ) -> bool {
        let (slot, side) = flow_parts(flow);
        let out = exchanges[slot].end[side].link;
        let state = exchanges.flow(flow);
        let Some(item) = self.items.get_mut(state.tail) else { return false };
        if lane_of(item.kind) != BULK || item.channel != channel || item.body.len() + more.len() > limit {
            return false;
        }
        match &mut item.body {
            Body::Joined(bytes) => bytes.extend_from_slice(more),
            Body::Bytes(bytes) => {
                let mut joined = Vec::with_capacity(limit);
                joined.extend_from_slice(bytes);
                joined.extend_from_slice(more);
                item.body = Body::Joined(joined);
            }
        }
        state.data += more.len() as u64;
        if let Some(link) = find_mut(links, out) {
            link.data_queued += more.len() as u64;
        }
        true
    }

    /// The flow that `link` should send from in `lane`.
    pub(crate) fn pick(&mut self, exchanges: &mut Exchanges, link: &mut Link, lane: usize) -> Option<FlowRef> {
        // Small frames, small turns: on a slow line a turn of 16 KiB would be seconds.
        let quantum = link.frame.min(16 * 1024) as i32;
        // Ends: every pass over a class or flow raises its deficit, and no frame takes more than a few quanta.
        while link.lanes[lane] != NONE {
            let class = &mut self.classes[link.lanes[lane]].lanes[lane];
            if class.deficit <= 0 {
                class.deficit += quantum;
                link.lanes[lane] = class.place.next;
                continue;
            }
            let flow = exchanges.flow(class.flows);
            if flow.deficit <= 0 {
                flow.deficit += quantum;
                class.flows = flow.place.next;
                continue;
            }
            return Some(class.flows);
        }
        None
    }

    /// Accounts for `bytes` sent from `flow`.
    pub(crate) fn spend(&mut self, exchanges: &mut Exchanges, flow: FlowRef, bytes: usize) {
        let state = exchanges.flow(flow);
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        state.deficit = state.deficit.saturating_sub(bytes);
        let lane = &mut self.classes[state.class].lanes[usize::from(state.lane)];
        lane.deficit = lane.deficit.saturating_sub(bytes);
    }

    /// Takes the first frame of `flow` out. When that was the last one, the flow is idle.
    pub(crate) fn pop(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef) -> Option<Item> {
        let (slot, side) = flow_parts(flow);
        let (out, origin) = (exchanges[slot].end[side].link, exchanges[slot].end[other(side)].link);
        let state = exchanges.flow(flow);
        if state.head == NONE {
            return None;
        }
        let item = self.items.remove(state.head);
        let (kind, full, cost) = (item.kind, item.full, item.cost());
        state.head = item.next;
        let next = item.next;
        if next == NONE {
            state.tail = NONE;
        }
        if lane_of(kind) == BULK {
            state.data -= item.body.len() as u64;
        }
        if is_call(kind) {
            state.unsent = false;
            self.classes[state.class].calls[usize::from(full)] -= cost;
        }
        if let Some(link) = find_mut(links, out) {
            if is_call(kind) {
                link.calls_queued -= cost;
            } else if is_answer(kind) {
                link.answers_queued -= cost;
            } else {
                link.data_queued -= cost;
            }
        }
        if (is_call(kind) || is_answer(kind))
            && let Some(from) = find_mut(links, origin)
        {
            from.charged -= cost;
        }
        if next == NONE {
            self.leave(exchanges, links, flow);
            self.idle(exchanges, links, flow);
        } else {
            let lane = lane_of(self.items[next].kind);
            if lane != exchanges.flow(flow).lane {
                self.leave(exchanges, links, flow);
                self.enter(exchanges, links, flow, lane);
            }
        }
        Some(item)
    }

    /// Takes `sent` bytes off the front of the first frame of `flow`, which is stream data and was too large for the link.
    pub(crate) fn shorten(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef, sent: usize) {
        let (slot, side) = flow_parts(flow);
        let out = exchanges[slot].end[side].link;
        exchanges.flow(flow).data -= sent as u64;
        if let Some(link) = find_mut(links, out) {
            link.data_queued -= sent as u64;
        }
    }

    /// Drops all that waits in `flow`.
    pub(crate) fn clear(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef) {
        while self.pop(exchanges, links, flow).is_some() {}
    }

    /// Says that no frame will be added to `flow` any more: notices for its class made from now on wait for it.
    pub(crate) fn detach(&mut self, exchanges: &mut Exchanges, flow: FlowRef) {
        let state = exchanges.flow(flow);
        if state.is_empty() || state.detached.is_some() {
            return;
        }
        let class = &mut self.classes[state.class];
        class.detached += 1;
        state.detached = Some(class.next_notice());
    }

    /// Sends `frame` on `out` once everything that now waits in detached flows from `origin` is gone, and charges
    /// `origin` for as long as it waits.
    pub(crate) fn notice(&mut self, links: &mut Links, out: LinkId, origin: LinkId, frame: Vec<u8>) {
        let raw = Raw { frame, of: origin };
        if let Some(link) = find_mut(links, origin) {
            link.told += raw.cost();
        }
        if let Some(&class) = self.named.get(&(out, origin)) {
            let class = &mut self.classes[class];
            if class.detached > 0 || !class.notices.is_empty() {
                let waiting = std::mem::take(&mut class.detached);
                class.notices.push_back(PendingNotice { waiting, raw });
                return;
            }
        }
        if let Some(link) = find_mut(links, out) {
            link.raw.push_back(raw);
        }
    }

    /// Some flow that waits for `out`, in any lane.
    pub(crate) fn any_flow(&self, links: &Links, out: LinkId) -> Option<FlowRef> {
        let link = find(links, out)?;
        let lane = (0..LANES).find(|&lane| link.lanes[lane] != NONE)?;
        Some(self.classes[link.lanes[lane]].lanes[lane].flows)
    }

    /// The bytes of requests that wait for `out` and came from `origin`, those with full authority or the others.
    pub(crate) fn calls_of(&self, out: LinkId, origin: LinkId, full: bool) -> u64 {
        self.named.get(&(out, origin)).map_or(0, |&class| self.classes[class].calls[usize::from(full)])
    }

    fn enter(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef, lane: u8) {
        let state = exchanges.flow(flow);
        state.lane = lane;
        state.deficit = state.deficit.min(0);
        let class = state.class;
        let number = usize::from(lane);
        let was_idle = self.classes[class].lanes[number].flows == NONE;
        ring_push(&mut FlowPlaces(exchanges), &mut self.classes[class].lanes[number].flows, flow);
        if was_idle {
            let out = self.classes[class].out;
            let lane = &mut self.classes[class].lanes[number];
            lane.deficit = lane.deficit.min(0);
            if let Some(link) = find_mut(links, out) {
                ring_push(&mut ClassPlaces(&mut self.classes, number), &mut link.lanes[number], class);
            }
        }
    }

    fn leave(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef) {
        let state = exchanges.flow(flow);
        let class = state.class;
        let number = usize::from(std::mem::replace(&mut state.lane, IDLE));
        ring_remove(&mut FlowPlaces(exchanges), &mut self.classes[class].lanes[number].flows, flow);
        if self.classes[class].lanes[number].flows == NONE {
            let out = self.classes[class].out;
            if let Some(link) = find_mut(links, out) {
                ring_remove(&mut ClassPlaces(&mut self.classes, number), &mut link.lanes[number], class);
            }
        }
    }

    /// A flow has nothing waiting any more.
    fn idle(&mut self, exchanges: &mut Exchanges, links: &mut Links, flow: FlowRef) {
        let state = exchanges.flow(flow);
        let index = std::mem::replace(&mut state.class, NONE);
        state.deficit = 0;
        let detached = state.detached.take();
        let class = &mut self.classes[index];
        class.flows -= 1;
        if let Some(number) = detached {
            match number.checked_sub(class.first).and_then(|at| class.notices.get_mut(at as usize)) {
                Some(notice) => notice.waiting -= 1,
                None => class.detached -= 1,
            }
        }
        while class.notices.front().is_some_and(|notice| notice.waiting == 0) {
            class.first += 1;
            if let (Some(notice), Some(link)) = (class.notices.pop_front(), find_mut(links, class.out)) {
                link.raw.push_back(notice.raw);
            }
        }
        if class.flows == 0 {
            let class = self.classes.remove(index);
            self.named.remove(&(class.out, class.origin));
        }
    }
}
