//! Two honest nodes, and between them a wire that may lie.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use offshoot_route::{Census, Event, ExchangeId, LinkId, Node, Time};
use offshoot_wire::{EndReason, Failure, FailureKind, LostReason, Verb};

use super::core::{child, small};
use crate::feed::Feed;

/// One end: the node, its link to the other, and what its application knows.
struct Side {
    node: Node,
    link: LinkId,
    open: bool,
    /// What came and is not yet a whole frame.
    input: BytesMut,
    /// What is on its way to the other end.
    wire: Vec<u8>,
    asked: HashMap<ExchangeId, Verb>,
    done: HashSet<ExchangeId>,
    served: Vec<ExchangeId>,
    sent: u64,
    received: u64,
}

impl Side {
    fn new(node: Node, link: LinkId) -> Side {
        Side {
            node,
            link,
            open: true,
            input: BytesMut::new(),
            wire: Vec::new(),
            asked: HashMap::new(),
            done: HashSet::new(),
            served: Vec::new(),
            sent: 0,
            received: 0,
        }
    }

    fn some(&self, feed: &mut Feed<'_>) -> Option<ExchangeId> {
        let mut open: Vec<ExchangeId> =
            self.asked.keys().filter(|id| !self.done.contains(id)).chain(&self.served).copied().collect();
        open.sort_by_key(|id| format!("{id:?}"));
        (!open.is_empty()).then(|| open[feed.below(open.len())])
    }

    fn poll(&mut self, reads: bool, now: Time) {
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::Request { id, .. } => self.served.push(id),
                Event::Done { id, .. } => {
                    assert!(self.asked.contains_key(&id), "an answer to nothing");
                    assert!(self.done.insert(id), "answered twice");
                }
                Event::Data { id, channel, data } => {
                    self.received += data.len() as u64;
                    if reads {
                        self.node.consumed(id, channel, data.len(), now);
                    }
                }
                Event::Cancelled { id } => self.served.retain(|served| *served != id),
                Event::CloseLink { link, reason } => {
                    self.node.poll_transmit(link, 1 << 16, &mut self.wire, now);
                    self.node.link_down(link, reason, now);
                    self.open = false;
                }
                _ => {}
            }
        }
    }

    fn write(&mut self, now: Time) {
        if self.open && self.wire.len() < 1 << 20 {
            self.node.poll_transmit(self.link, 1 << 16, &mut self.wire, now);
        }
    }

    fn take(&mut self, bytes: &[u8], now: Time) {
        if self.open {
            self.input.extend_from_slice(bytes);
            self.node.handle_bytes(self.link, &mut self.input, now);
        }
    }
}

/// A parent and a child that ask each other for things, in any order of operations. As long as the wire is honest no
/// link is closed, every byte sent and read arrives once; lies or not, every wait ends once and nothing is left.
pub(crate) fn two_nodes(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut now = Time::from_micros(1);
    let mut root = Node::root(small(), [1; 16], [2; 32], now);
    let (down, address, below) = child(&mut root, now);
    let (node, up) = below.expect("a child");
    let mut sides = [Side::new(root, down), Side::new(node, up)];
    let mut honest = true;
    let mut turns = 0;
    while !feed.is_over() && turns < 600 {
        turns += 1;
        let who = feed.below(2);
        let other = 1 - who;
        match feed.byte() % 16 {
            0 | 1 => {
                let (dst, verb) = if who == 0 {
                    (address.clone(), [Verb::Echo, Verb::Exec, Verb::Call, Verb::Info][feed.below(4)])
                } else {
                    (offshoot_wire::Address::ROOT, [Verb::Payload, Verb::Image][feed.below(2)])
                };
                let body = vec![7; feed.below(256) * 16];
                if let Ok(id) = sides[who].node.request(&dst, verb, body.into(), None, now) {
                    sides[who].asked.insert(id, verb);
                }
            }
            2 | 3 => {
                if let Some(id) = sides[who].some(&mut feed) {
                    let (channel, length) = (feed.byte() % 8, feed.below(256) * 512);
                    let taken = sides[who].node.send(id, channel, Bytes::from(vec![1; length]), now);
                    assert!(taken <= length);
                    sides[who].sent += taken as u64;
                }
            }
            4 => {
                if let Some(id) = sides[who].some(&mut feed) {
                    let reason = if feed.chance() { EndReason::Done } else { EndReason::Failed("no".into()) };
                    sides[who].node.finish(id, feed.byte() % 8, reason, now);
                }
            }
            5 => {
                if let Some(id) = sides[who].some(&mut feed) {
                    sides[who].node.stop(id, feed.byte() % 8, now);
                }
            }
            6 => {
                if let Some(id) = sides[who].some(&mut feed) {
                    let (channel, bytes) = (feed.byte() % 8, feed.number() as usize);
                    sides[who].node.consumed(id, channel, bytes, now);
                }
            }
            7 => {
                if let Some(id) = sides[who].served.pop() {
                    if feed.chance() {
                        sides[who].node.reply(id, Bytes::from(vec![2; feed.below(256)]), now);
                    } else {
                        sides[who].node.fail(id, Failure::new(FailureKind::Denied, "no"), now);
                    }
                }
            }
            8 => {
                if let Some(id) = sides[who].some(&mut feed).filter(|id| sides[who].asked.contains_key(id)) {
                    sides[who].node.cancel(id, now);
                    sides[who].done.insert(id);
                }
            }
            9 => {
                now = now + Duration::from_millis(feed.number() % 2000);
                for side in &mut sides {
                    side.node.handle_timeout(now);
                }
            }
            10 if feed.byte() < 32 => {
                // The wire lies: a byte is another, is lost, or comes twice.
                let side = &mut sides[who];
                if !side.wire.is_empty() {
                    honest = false;
                    let at = feed.number() as usize % side.wire.len();
                    match feed.byte() % 3 {
                        0 => side.wire[at] ^= feed.byte().max(1),
                        1 => drop(side.wire.remove(at)),
                        _ => side.wire.insert(at, feed.byte()),
                    }
                }
            }
            _ => {
                sides[who].write(now);
                let wire = &mut sides[who].wire;
                let count = (1 + feed.below(256) * 64).min(wire.len());
                let piece: Vec<u8> = wire.drain(..count).collect();
                sides[other].take(&piece, now);
            }
        }
        let reads = feed.byte() < 200;
        for side in &mut sides {
            side.poll(reads, now);
        }
        let silent = sides.iter().any(|side| !side.open);
        if silent && honest {
            // Only silence ends an honest link, and only time makes silence.
            assert!(now.as_micros() > 15_000_000, "an honest link was closed");
        }
        if silent {
            break;
        }
    }
    if honest && sides.iter().all(|side| side.open) {
        for _ in 0..100_000 {
            let mut idle = true;
            for who in [0, 1] {
                sides[who].write(now);
                let piece = std::mem::take(&mut sides[who].wire);
                idle &= piece.is_empty();
                sides[1 - who].take(&piece, now);
                sides[1 - who].poll(true, now);
            }
            if idle {
                break;
            }
        }
        assert!(sides.iter().all(|side| side.open), "an honest link was closed");
        for who in [0, 1] {
            // Less arrives when a reader stopped a channel or gave its exchange up; never more.
            assert!(sides[1 - who].received <= sides[who].sent, "bytes were made up");
        }
    }
    for side in &mut sides {
        side.node.link_down(side.link, LostReason::LinkEnd, now);
        side.poll(true, now);
        for id in std::mem::take(&mut side.asked).into_keys() {
            assert!(side.done.contains(&id), "a wait without an end");
            side.node.cancel(id, now);
        }
        assert_eq!(side.node.census(), Census::default(), "something is left");
    }
}
