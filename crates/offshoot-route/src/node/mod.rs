//! A node: the state of one context, driven from outside.

mod grants;
mod input;
mod local;
mod lost;
mod output;
mod requests;
mod size;
mod streams;
mod timer;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use offshoot_wire::{Address, ChildHello, Failure, FailureKind, Limits, LostReason, ParentHello, ShutdownNotice};

use crate::config::Config;
use crate::event::{Census, Event, LinkId, LinkStats};
use crate::exchange::{ASKER, EndPlaces, Exchanges, SERVER, flow_ref};
use crate::hash::Seeded;
use crate::link::{Link, Role, State};
use crate::outbox::{Links, Outbox, find, find_mut};
use crate::seal;
use crate::slab::{NONE, Slab, ring_push, ring_remove};
use crate::time::Time;

use grants::Grants;

/// A context behind a link that takes part in exchanges; its exchanges are a ring.
struct Peer {
    link: LinkId,
    address: Address,
    ends: u32,
}

/// The core of one context: bytes and time go in; bytes, events and the next deadline come out.
///
/// A node is `Send`, and it is driven by whoever holds it: nothing in it blocks, sleeps, or reads a clock. Drain
/// [`Node::poll_event`] after each call that takes `&mut self`, write what [`Node::poll_ready_link`] and
/// [`Node::poll_transmit`] give, and call [`Node::handle_timeout`] when [`Node::poll_timeout`] has come. When bytes are
/// at hand and a deadline has passed, hand the bytes in first: a process that was stopped for a while finds its
/// heartbeats waiting in the descriptor.
pub struct Node {
    config: Config,
    address: Address,
    tree: [u8; 16],
    key: [u8; 32],
    /// The tree's clock at `started`, in milliseconds.
    tree_base: u64,
    started: Time,
    links: Links,
    /// Generations of link slots, so that an old id never names a new link.
    generations: Vec<u32>,
    parent: Option<LinkId>,
    children: HashMap<u32, LinkId, Seeded>,
    next_child: u32,
    peers: Slab<Peer>,
    exchanges: Exchanges,
    outbox: Outbox,
    ready: VecDeque<LinkId>,
    timers: BinaryHeap<Reverse<(Time, LinkId)>>,
    events: VecDeque<Event>,
    grants: Grants,
    /// Exchanges that this node asked and that are not over.
    asked: usize,
    /// Exchanges that children and contexts below them asked.
    below: usize,
    /// The sum of the windows that this node grants as a reader, and of `unread`.
    granted: u64,
    /// Bytes that came on exchanges that this node asked, which are done, and that the application has not consumed.
    unread: HashMap<u64, u64, Seeded>,
    scratch: Vec<u8>,
    /// Down to which level log records are wanted here and below.
    log_level: u8,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret (S19).
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Node {
    /// The root of a tree. `tree` and `key` are random, `key` secret.
    pub fn root(config: Config, tree: [u8; 16], key: [u8; 32], now: Time) -> Node {
        Node::new(config, Address::ROOT, tree, key, 0, now)
    }

    /// A child, from its parent's hello, and the link to its parent, which is up.
    pub fn child(config: Config, hello: &ParentHello, now: Time) -> (Node, LinkId) {
        let mut node = Node::new(config, hello.address.clone(), hello.tree, hello.key, hello.tree_ms, now);
        let limits = Limits {
            frame: node.config.limits.frame,
            heartbeat: Duration::from_millis(hello.heartbeat_ms.max(1).into()),
            silence: Duration::from_millis(hello.silence_ms.max(2).into()),
        };
        let address = hello.address.parent().unwrap_or(Address::ROOT);
        let id = node.insert_link(Role::Parent, State::Up, address, limits, now);
        node.links[id.index].frame = hello.frame.min(limits.frame);
        node.parent = Some(id);
        node.log_level = hello.log;
        node.schedule(id);
        (node, id)
    }

    fn new(config: Config, address: Address, tree: [u8; 16], key: [u8; 32], tree_base: u64, now: Time) -> Node {
        let seed = Seeded::new(&seal::hash_secret(&key));
        Node {
            config,
            address,
            tree,
            key,
            tree_base,
            started: now,
            links: Slab::new(),
            generations: Vec::new(),
            parent: None,
            children: HashMap::with_hasher(seed),
            next_child: 0,
            peers: Slab::new(),
            exchanges: Exchanges::new(seed),
            outbox: Outbox::new(seed),
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            grants: Grants::new(seed),
            asked: 0,
            below: 0,
            granted: 0,
            unread: HashMap::with_hasher(seed),
            scratch: Vec::with_capacity(256),
            log_level: 0,
        }
    }

    /// This context's address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The tree's id.
    pub fn tree(&self) -> [u8; 16] {
        self.tree
    }

    /// What this node allows.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tree's clock, in milliseconds since the root started. A child's clock lags by the time that its parent's hello
    /// took, and so by the sum of those along its path; it is never ahead. So a grant may live that much longer at a deep
    /// context, and never less.
    pub fn tree_ms(&self, now: Time) -> u64 {
        let elapsed = u64::try_from(now.since(self.started).as_millis()).unwrap_or(u64::MAX);
        self.tree_base.saturating_add(elapsed)
    }

    /// Delegates a fresh address, never used before or again, for a child that is about to be connected. Returns the link
    /// to it, its address and its sealing key.
    ///
    /// Requests to it may be asked from now on: they wait, within the budget, until the parent's hello is made
    /// ([`Node::parent_hello`]).
    ///
    /// # Errors
    /// `Busy` when there are [`Config::max_children`] or no index is left; `TooLarge` when this context sits at the
    /// greatest depth.
    pub fn reserve_child(&mut self, now: Time) -> Result<(LinkId, Address, [u8; 32]), Failure> {
        self.reserve_child_with(self.config.limits, now)
    }

    /// As [`Node::reserve_child`], with the limits of a link of another kind, such as a serial line.
    ///
    /// # Errors
    /// As [`Node::reserve_child`].
    pub fn reserve_child_with(&mut self, limits: Limits, now: Time) -> Result<(LinkId, Address, [u8; 32]), Failure> {
        if self.children.len() >= self.config.max_children {
            return Err(self.busy("this context has as many children as it may have"));
        }
        let Some(next) = self.next_child.checked_add(1) else {
            return Err(self.busy("this context has no child address left to give"));
        };
        let address = self
            .address
            .child(self.next_child)
            .map_err(|error| self.failure(FailureKind::TooLarge, error.to_string()))?;
        let index = std::mem::replace(&mut self.next_child, next);
        let limits = Limits {
            frame: limits.frame.clamp(Limits::FRAME_MIN, Limits::FRAME),
            heartbeat: limits.heartbeat.max(Duration::from_millis(1)),
            silence: limits.silence.max(Duration::from_millis(2)),
        };
        let id = self.insert_link(Role::Child, State::Reserved, address.clone(), limits, now);
        self.children.insert(index, id);
        Ok((id, address, seal::child_key(&self.key, index)))
    }

    /// The hello that the owner sends to a child that was reserved. From now on what waits for the child may be sent
    /// behind it.
    ///
    /// # Errors
    /// `NoRoute` when the link is not reserved any more.
    pub fn parent_hello(
        &mut self,
        link: LinkId,
        nonce: [u8; 16],
        name: String,
        path: String,
        process_name: String,
        now: Time,
    ) -> Result<ParentHello, Failure> {
        let tree_ms = self.tree_ms(now);
        let Some(entry) = find_mut(&mut self.links, link)
            .filter(|link| link.role == Role::Child && matches!(link.state, State::Reserved | State::Greeted))
        else {
            return Err(self.failure(FailureKind::NoRoute, "the link is not waiting for a hello"));
        };
        entry.state = State::Greeted;
        let limits = entry.limits;
        let address = entry.address.clone();
        let index = address.path().last().copied().unwrap_or(0);
        self.mark_ready(link);
        Ok(ParentHello {
            nonce,
            tree: self.tree,
            address,
            key: seal::child_key(&self.key, index),
            tree_ms,
            frame: limits.frame,
            heartbeat_ms: millis(limits.heartbeat),
            silence_ms: millis(limits.silence),
            name,
            path,
            process_name,
            log: self.log_level,
        })
    }

    /// The child has answered: its hello is parsed and its nonce is the one that was sent. Its frames may be handed in
    /// from now on (S24).
    ///
    /// # Errors
    /// `NoRoute` when the link does not wait for a child.
    pub fn child_up(&mut self, link: LinkId, hello: &ChildHello, now: Time) -> Result<(), Failure> {
        let Some(entry) = find_mut(&mut self.links, link)
            .filter(|link| link.role == Role::Child && matches!(link.state, State::Reserved | State::Greeted))
        else {
            return Err(self.failure(FailureKind::NoRoute, "the link is not waiting for a child"));
        };
        entry.state = State::Up;
        entry.frame = hello.frame.min(entry.limits.frame);
        entry.heard = now;
        entry.beat = now;
        entry.ping = true;
        self.schedule(link);
        self.mark_ready(link);
        Ok(())
    }

    /// The connect failed: the address is burnt, what waited for it ends as not sent. Does nothing for a link that is up.
    pub fn abandon_child(&mut self, link: LinkId, _now: Time) {
        if find(&self.links, link).is_some_and(|link| matches!(link.state, State::Reserved | State::Greeted)) {
            self.lose(link, LostReason::LinkEnd, lost::By::Owner);
        }
    }

    /// A link has ended, as its owner saw, or is closed after [`Event::CloseLink`].
    pub fn link_down(&mut self, link: LinkId, reason: LostReason, _now: Time) {
        self.lose(link, reason, lost::By::Owner);
    }

    /// Asks a direct child for an orderly end. Its link is closed by the owner when the child closes it, or when the
    /// notice's times have passed.
    pub fn shutdown_child(&mut self, link: LinkId, notice: ShutdownNotice, _now: Time) {
        if let Some(entry) = find_mut(&mut self.links, link).filter(|link| link.role == Role::Child) {
            entry.shutdown = Some(notice);
            self.mark_ready(link);
        }
    }

    /// The link to the parent; `None` at the root and once it is freed.
    pub fn parent_link(&self) -> Option<LinkId> {
        self.parent
    }

    /// The links to children, those being connected included, with their addresses. In no order.
    pub fn children(&self) -> impl Iterator<Item = (LinkId, &Address)> {
        self.children.values().filter_map(|&id| find(&self.links, id).map(|link| (id, &link.address)))
    }

    /// The address at the other end of a link.
    pub fn link_address(&self, link: LinkId) -> Option<&Address> {
        find(&self.links, link).map(|link| &link.address)
    }

    /// The link to the direct child at `address`.
    pub fn child_link(&self, address: &Address) -> Option<LinkId> {
        let index = self.address.next_hop(address)?;
        (address.depth() == self.address.depth() + 1).then(|| self.children.get(&index).copied()).flatten()
    }

    /// Whether anything waits to be sent on a link, bulk that may not be sent yet included. An owner that closes
    /// politely waits for this to be false.
    pub fn is_drained(&self, link: LinkId) -> bool {
        find(&self.links, link).is_none_or(|link| {
            link.lanes.iter().all(|&class| class == NONE)
                && link.raw.is_empty()
                && link.logs.is_empty()
                && link.shutdown.is_none()
                && link.bye.is_none()
        })
    }

    /// What a link did so far.
    pub fn stats(&self, link: LinkId) -> Option<LinkStats> {
        let link = find(&self.links, link)?;
        Some(LinkStats {
            rtt_us: link.path.rtt_us(),
            bulk_limit: link.path.limit(&self.config),
            bulk_in_flight: link.path.in_flight(),
            queued: link.data_queued + link.calls_queued + link.answers_queued,
            exchanges: (link.served + link.turned) as u64,
            bulk_in: link.bulk_in,
            ..link.stats
        })
    }

    /// What the node holds now.
    pub fn census(&self) -> Census {
        let links = || self.links.indexes().map(|index| &self.links[index]);
        Census {
            exchanges: self.exchanges.len(),
            open: self.exchanges.open(),
            asked: self.asked,
            frames: self.outbox.items.len(),
            flows_of_links: self.outbox.classes(),
            peers: self.peers.len() - links().map(|link| link.idle_peers).sum::<usize>(),
            links: self.links.len(),
            queued: links().map(|link| link.data_queued + link.calls_queued + link.answers_queued).sum(),
            promised: links().map(|link| link.outstanding).sum(),
            charged: links().map(|link| link.charged).sum(),
            unheard: links().map(|link| link.unheard).sum(),
            granted: self.granted,
            held: links().flat_map(|link| &link.held).filter(|(id, ..)| self.exchanges.find_id(*id).is_some()).count(),
            notices: links().map(|link| link.raw.len()).sum(),
            events: self.events.len(),
        }
    }

    /// How many exchanges this node asked and has not seen answered.
    pub fn pending(&self) -> usize {
        self.asked
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn failure(&self, kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure::new(kind, message).at(self.address.clone())
    }

    fn busy(&self, message: &str) -> Failure {
        self.failure(FailureKind::Busy, message)
    }

    fn insert_link(&mut self, role: Role, state: State, address: Address, limits: Limits, now: Time) -> LinkId {
        let index = self.links.insert(Link::new(LinkId::LOCAL, role, state, address, limits, now));
        if self.generations.len() <= index as usize {
            self.generations.resize(index as usize + 1, 0);
        }
        let generation = &mut self.generations[index as usize];
        *generation += 1;
        let id = LinkId { index, generation: *generation };
        self.links[index].id = id;
        id
    }

    /// Where a frame for `dst`, which is not this context, goes next.
    fn route(&self, dst: &Address) -> Result<LinkId, Failure> {
        let Some(index) = self.address.next_hop(dst) else {
            let up = self.parent.filter(|&parent| find(&self.links, parent).is_some_and(Link::is_up));
            return up.ok_or_else(|| {
                self.failure(FailureKind::NoRoute, format!("{dst} cannot be reached: there is no way up from here"))
            });
        };
        match self.children.get(&index) {
            Some(&link) if find(&self.links, link).is_some_and(|link| link.state != State::Closed) => Ok(link),
            _ if index < self.next_child => {
                Err(self.failure(FailureKind::NoRoute, format!("{dst} is gone: it was alive before")))
            }
            _ => Err(self.failure(FailureKind::NoRoute, format!("{dst} never existed"))),
        }
    }

    /// Enters the end of an exchange on `side` with the context behind its link.
    fn join_peer(&mut self, slot: u32, side: usize) {
        let link = self.exchanges[slot].end[side].link;
        if link.is_local() {
            return;
        }
        let Some(entry) = find_mut(&mut self.links, link) else { return };
        let address = match entry.role {
            // All that is above goes at once, with the link: one ring is enough.
            Role::Parent => &Address::ROOT,
            Role::Child => self.exchanges[slot].address(side),
        };
        let known = match self.peers.get(entry.last_peer) {
            Some(peer) if peer.link == link && peer.address == *address => Some(entry.last_peer),
            _ => entry.peers.find(address),
        };
        let index = match known {
            Some(index) => index,
            None => {
                if entry.idle_peers > 64 + entry.peers.len() / 2 {
                    let peers = &mut self.peers;
                    entry.peers.retain(|index| {
                        let used = peers[index].ends != NONE;
                        if !used {
                            peers.remove(index);
                        }
                        used
                    });
                    entry.idle_peers = 0;
                }
                let index = self.peers.insert(Peer { link, address: address.clone(), ends: NONE });
                entry.peers.insert(address.clone(), index);
                entry.idle_peers += 1;
                index
            }
        };
        entry.last_peer = index;
        let peer = &mut self.peers[index];
        if peer.ends == NONE {
            entry.idle_peers -= 1;
        }
        ring_push(&mut EndPlaces(&mut self.exchanges), &mut peer.ends, flow_ref(slot, side));
        self.exchanges[slot].end[side].peer = index;
    }

    fn leave_peer(&mut self, slot: u32, side: usize) {
        let end = &mut self.exchanges[slot].end[side];
        let index = std::mem::replace(&mut end.peer, NONE);
        if index == NONE {
            return;
        }
        let link = end.link;
        let peer = &mut self.peers[index];
        ring_remove(&mut EndPlaces(&mut self.exchanges), &mut peer.ends, flow_ref(slot, side));
        if peer.ends == NONE
            && let Some(entry) = find_mut(&mut self.links, link)
        {
            entry.idle_peers += 1;
        }
    }

    /// The asked side of an exchange was heard, or will not be: its request waits nowhere on the way any more.
    fn heard(&mut self, slot: u32) {
        let exchange = &mut self.exchanges[slot];
        let length = std::mem::take(&mut exchange.unheard);
        if length == 0 {
            return;
        }
        let id = exchange.end[SERVER].link;
        let Some(link) = find_mut(&mut self.links, id) else { return };
        link.unheard -= length;
        // At half, so that whoever waits is woken for many requests at once.
        if link.refused_room && link.unheard <= link.call_window(&self.config) / 2 {
            link.refused_room = false;
            self.events.push_back(Event::Room { link: id });
        }
    }

    /// Ends an exchange's life at this node: its name is free, what still waits to go out drains.
    fn close(&mut self, slot: u32) {
        self.leave_peer(slot, ASKER);
        self.leave_peer(slot, SERVER);
        self.heard(slot);
        self.exchanges.close(slot);
        let exchange = &mut self.exchanges[slot];
        self.granted -= std::mem::take(&mut exchange.reserved);
        if exchange.end[ASKER].link.is_local() {
            let unread = exchange.unread(ASKER);
            if unread > 0 {
                self.granted += unread;
                self.unread.insert(exchange.id, unread);
            }
        }
        for side in [ASKER, SERVER] {
            let exchange = &mut self.exchanges[slot];
            let outstanding = std::mem::take(&mut exchange.outstanding[side]);
            let id = exchange.end[side].link;
            if let Some(link) = find_mut(&mut self.links, id) {
                link.outstanding -= outstanding;
                if !link.held.is_empty() {
                    self.release_held(id);
                }
            }
        }
        self.outbox.detach(&mut self.exchanges, flow_ref(slot, ASKER));
        self.outbox.detach(&mut self.exchanges, flow_ref(slot, SERVER));
        self.free_if_done(slot);
    }

    /// Frees an exchange that is over and has nothing waiting.
    fn free_if_done(&mut self, slot: u32) {
        let exchange = &self.exchanges[slot];
        if exchange.open || !exchange.flow[ASKER].is_empty() || !exchange.flow[SERVER].is_empty() {
            return;
        }
        self.below -= usize::from(exchange.below);
        if exchange.charge.is_local() {
            self.asked -= 1;
        } else if let Some(link) = find_mut(&mut self.links, exchange.charge) {
            if exchange.end[SERVER].link.is_local() {
                link.served -= 1;
            } else {
                link.turned -= 1;
            }
        }
        self.exchanges.free(slot);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The key is a secret (S19): it does not stay in freed memory.
        self.key.fill(0);
        std::hint::black_box(&self.key);
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
