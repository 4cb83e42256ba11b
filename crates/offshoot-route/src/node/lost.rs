//! What ends: links, contexts below, exchanges in the middle.

use offshoot_wire::{Address, Failure, FailureKind, Frame, FrameKind, Gone, LostReason, Ran, encode};

use super::Node;
use super::size::{failure_body, room};
use crate::event::{Event, ExchangeId, LinkId};
use crate::exchange::{ASKER, Item, SERVER, flow_parts, flow_ref};
use crate::link::{Role, State};
use crate::outbox::{find, find_mut};
use crate::slab::NONE;

/// How much of what a neighbour or descendant says of a violation is passed on, in bytes: all that this product says.
const TOLD: usize = 512;

/// A reason as it is passed on.
fn shortened(mut reason: LostReason) -> LostReason {
    if let LostReason::Violation(text) = &mut reason {
        let end = (0..=TOLD.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
    }
    reason
}

/// Who found out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The owner: the link's slot is freed.
    Owner,
    /// The core: the owner is asked to close it, and the slot stays until it says that it did.
    Core,
    /// The other end, in its last word: as by the core, and nothing is said back.
    Peer,
}

impl Node {
    /// Ends a link and everything that depends on it.
    pub(super) fn lose(&mut self, id: LinkId, reason: LostReason, by: By) {
        let Some(link) = find_mut(&mut self.links, id) else { return };
        let (role, state) = (link.role, link.state);
        let reason = shortened(reason);
        if state != State::Closed {
            link.state = State::Closed;
            let address = link.address.clone();
            for peer in std::mem::take(&mut link.peers).into_peers() {
                self.lose_peer(peer, id, &address, &reason);
                self.peers.remove(peer);
            }
            // What was over already and waited to go out on this link.
            while let Some(flow) = self.outbox.any_flow(&self.links, id) {
                self.outbox.clear(&mut self.exchanges, &mut self.links, flow);
                self.free_if_done(flow_parts(flow).0);
            }
            if let Some(link) = find_mut(&mut self.links, id) {
                if std::mem::take(&mut link.refused_room) {
                    // Whoever waits for room asks again, and learns that there is no route.
                    self.events.push_back(Event::Room { link: id });
                }
                link.last_peer = NONE;
                link.idle_peers = 0;
                link.raw_bytes = 0;
                for raw in std::mem::take(&mut link.raw) {
                    if let Some(of) = find_mut(&mut self.links, raw.of) {
                        of.told -= raw.cost();
                    }
                }
            }
            if let Some(link) = find_mut(&mut self.links, id) {
                link.credits.clear();
                link.held.clear();
                link.logs.clear();
                link.log_bytes = 0;
                link.pong = None;
                link.ping = false;
                link.shutdown = None;
            }
            match role {
                Role::Child => {
                    if let Some(index) = address.path().last() {
                        self.children.remove(index);
                    }
                    if state != State::Reserved {
                        self.gone_up(id, &address, &reason);
                    }
                    if state == State::Up {
                        let reason = reason.clone();
                        self.events.push_back(Event::ChildGone { link: id, prefix: address, reason });
                    }
                }
                Role::Parent => self.events.push_back(Event::ParentLost { reason: reason.clone() }),
            }
            if by != By::Owner {
                if let Some(link) = find_mut(&mut self.links, id).filter(|_| by == By::Core) {
                    link.bye = Some(reason.clone());
                }
                self.mark_ready(id);
                self.events.push_back(Event::CloseLink { link: id, reason });
            }
        }
        if by == By::Owner {
            if self.parent == Some(id) {
                self.parent = None;
            }
            self.links.remove(id.index);
        }
    }

    /// A child says that something below it is lost.
    pub(super) fn subtree_gone(&mut self, from: LinkId, prefix: Address, reason: LostReason) {
        let Some(link) = find(&self.links, from) else { return };
        let reason = shortened(reason);
        let below: Vec<u32> = link.peers.under(&prefix).collect();
        for peer in below {
            self.lose_peer(peer, from, &prefix, &reason);
        }
        self.gone_up(from, &prefix, &reason);
        self.events.push_back(Event::Gone { prefix, reason });
    }

    /// Passes the notice of a loss upwards, behind everything that the lost contexts had sent.
    fn gone_up(&mut self, child: LinkId, prefix: &Address, reason: &LostReason) {
        let Some(parent) = self.parent else { return };
        let Some(link) = find(&self.links, parent).filter(|link| link.is_up()) else { return };
        let mut body = encode(&Gone { prefix: prefix.clone(), reason: reason.clone() });
        if body.len() + 2 > link.frame as usize {
            let reason = LostReason::Violation(String::new());
            body = encode(&Gone { prefix: prefix.clone(), reason });
        }
        let mut frame = Vec::with_capacity(body.len() + 6);
        Frame::link(FrameKind::Gone, body.into()).encode(&mut frame);
        self.outbox.notice(&mut self.links, parent, child, frame);
        self.mark_ready(parent);
    }

    /// Ends every exchange of one context behind a link. `top` is the context nearest to this one that was lost with it.
    fn lose_peer(&mut self, peer: u32, link: LinkId, top: &Address, reason: &LostReason) {
        while let Some(peer) = self.peers.get(peer)
            && peer.ends != NONE
        {
            let (slot, side) = flow_parts(peer.ends);
            debug_assert_eq!(self.exchanges[slot].end[side].link, link);
            self.lose_side(slot, side, top, reason);
        }
    }

    /// One side of an exchange is lost.
    fn lose_side(&mut self, slot: u32, dead: usize, top: &Address, reason: &LostReason) {
        let unsent = self.exchanges[slot].flow[SERVER].unsent;
        self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, dead));
        if dead == ASKER {
            let to = self.exchanges[slot].end[SERVER].link;
            if find(&self.links, to).is_some_and(|link| link.role == Role::Parent) {
                // Above, the notice of the loss tells it. A request that has not left never will.
                self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, SERVER));
                self.close(slot);
            } else {
                self.drop_asker(slot);
            }
            return;
        }
        let exchange = &self.exchanges[slot];
        let to = exchange.end[ASKER].link;
        let above = find(&self.links, to).is_some_and(|link| link.role == Role::Parent);
        if above && !unsent {
            // The notice of the loss follows what was sent already, and tells it.
            self.close(slot);
            return;
        }
        let ran = if unsent { Ran::NotSent } else { Ran::MaybeExecuted };
        let message = match &exchange.target {
            target if target == top => format!("{top} was lost: {reason}"),
            target if target.is_below(top) => format!("{top} was lost, and {target} with it: {reason}"),
            // Asked by way of the parent, which is what was lost.
            target => format!("{top} was lost, and the way to {target} with it: {reason}"),
        };
        let failure = Failure::new(FailureKind::PeerLost(reason.clone()), message).at(top.clone()).ran(ran);
        self.finish_asker(slot, failure);
    }

    /// Ends an exchange towards its requester, and frees it.
    fn finish_asker(&mut self, slot: u32, failure: Failure) {
        let exchange = &self.exchanges[slot];
        let id = ExchangeId(exchange.id);
        let to = exchange.end[ASKER].link;
        if to.is_local() {
            self.close(slot);
            self.events.push_back(Event::Done { id, result: Err(failure) });
            return;
        }
        if let Some(link) = find(&self.links, to) {
            let header = offshoot_wire::FrameHeader {
                kind: FrameKind::Failure,
                full: false,
                answer: true,
                dst: exchange.requester.clone(),
                src: exchange.target.clone(),
                exchange: exchange.number,
            };
            let body = failure_body(failure, room(link.frame, &header));
            self.push(flow_ref(slot, ASKER), Item::new(FrameKind::Failure, body.into()));
        }
        self.close(slot);
    }

    /// The requester of an exchange is lost or no longer waits: the side that is asked is told, and it ends here.
    pub(super) fn drop_asker(&mut self, slot: u32) {
        self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, ASKER));
        self.tell_server(slot);
        self.close(slot);
    }

    /// Cancels an exchange towards the side that is asked. A request that has not left this node never does.
    fn tell_server(&mut self, slot: u32) {
        let exchange = &self.exchanges[slot];
        let unsent = exchange.flow[SERVER].unsent;
        if exchange.end[SERVER].link.is_local() {
            self.events.push_back(Event::Cancelled { id: ExchangeId(exchange.id) });
            return;
        }
        self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, SERVER));
        if !unsent {
            self.push(flow_ref(slot, SERVER), Item::new(FrameKind::Cancel, bytes::Bytes::new()));
        }
    }

    /// Ends an exchange from the middle, or at a target that takes its permission back: the requester gets `failure`, the
    /// side that is asked a cancel.
    pub(super) fn abort(&mut self, slot: u32, failure: Failure) {
        self.tell_server(slot);
        self.finish_asker(slot, failure);
    }
}
