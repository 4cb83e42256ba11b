//! A few nodes on a table: no latency, every frame within reach.

// As in the crate: a `Failure` is a value of the protocol, and large.
#![allow(clippy::result_large_err)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use offshoot_route::{Config, Event, ExchangeId, LinkId, Node, Time};
use offshoot_wire::{
    Address, ChildHello, Failure, Frame, FrameHeader, FrameKind, Grant, Limits, LostReason, RequestHead, Verb, encode,
    parse_frame,
};

struct Wire {
    parent: usize,
    down: LinkId,
    child: usize,
    up: LinkId,
}

pub(crate) struct Lab {
    pub(crate) nodes: Vec<Node>,
    pub(crate) events: Vec<Vec<Event>>,
    wires: Vec<Wire>,
    pub(crate) now: Time,
    config: Config,
}

/// What comes out of a child that is no node: the frames that its parent sent it.
pub(crate) struct Evil {
    pub(crate) parent: usize,
    pub(crate) link: LinkId,
    pub(crate) address: Address,
}

pub(crate) fn child_hello(frame: u32) -> ChildHello {
    ChildHello {
        nonce: [0; 16],
        frame,
        triple: String::new(),
        version: String::new(),
        host: String::new(),
        user: String::new(),
        uid: 0,
        pid: 0,
    }
}

impl Lab {
    pub(crate) fn new() -> Lab {
        Lab::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Lab {
        let now = Time::from_micros(1_000_000);
        let nodes = vec![Node::root(config.clone(), [1; 16], [2; 32], now)];
        Lab { nodes, events: vec![Vec::new()], wires: Vec::new(), now, config }
    }

    pub(crate) fn add(&mut self, parent: usize) -> usize {
        self.add_with(parent, Limits::default())
    }

    pub(crate) fn add_with(&mut self, parent: usize, limits: Limits) -> usize {
        let now = self.now;
        let node = &mut self.nodes[parent];
        let (down, ..) = node.reserve_child_with(limits, now).expect("room for a child");
        let name = String::new;
        let hello = node.parent_hello(down, [0; 16], name(), name(), name(), now).expect("a waiting link");
        node.child_up(down, &child_hello(limits.frame), now).expect("a waiting link");
        let mut config = self.config.clone();
        config.limits.frame = limits.frame;
        let (node, up) = Node::child(config, &hello, now);
        self.nodes.push(node);
        self.events.push(Vec::new());
        let child = self.nodes.len() - 1;
        self.wires.push(Wire { parent, down, child, up });
        self.settle();
        child
    }

    pub(crate) fn evil(&mut self, parent: usize) -> Evil {
        let now = self.now;
        let node = &mut self.nodes[parent];
        let (link, address, _) = node.reserve_child(now).expect("room for a child");
        let name = String::new;
        node.parent_hello(link, [0; 16], name(), name(), name(), now).expect("a waiting link");
        node.child_up(link, &child_hello(Limits::FRAME), now).expect("a waiting link");
        let evil = Evil { parent, link, address };
        self.received(&evil);
        evil
    }

    pub(crate) fn address(&self, node: usize) -> Address {
        self.nodes[node].address().clone()
    }

    /// The link of `node` to its child or parent `peer`.
    pub(crate) fn link(&self, node: usize, peer: usize) -> LinkId {
        let wire = self.wires.iter().find_map(|wire| match (wire.parent, wire.child) {
            ends if ends == (node, peer) => Some(wire.down),
            ends if ends == (peer, node) => Some(wire.up),
            _ => None,
        });
        wire.expect("they are neighbours")
    }

    /// Cuts a link, as both owners see it.
    pub(crate) fn cut(&mut self, parent: usize, child: usize) {
        let (down, up, now) = (self.link(parent, child), self.link(child, parent), self.now);
        self.wires.retain(|wire| wire.down != down || wire.parent != parent);
        self.nodes[parent].link_down(down, LostReason::LinkEnd, now);
        self.nodes[child].link_down(up, LostReason::LinkEnd, now);
        self.settle();
    }

    /// Carries one turn of a link's output.
    pub(crate) fn carry(&mut self, from: usize, to: usize, budget: usize) -> usize {
        let (out, into, now) = (self.link(from, to), self.link(to, from), self.now);
        let mut bytes = Vec::new();
        self.nodes[from].poll_transmit(out, budget, &mut bytes, now);
        let mut received = BytesMut::from(&bytes[..]);
        self.nodes[to].handle_bytes(into, &mut received, now);
        assert!(received.is_empty(), "whole frames only");
        bytes.len()
    }

    /// Carries everything until all is at rest.
    pub(crate) fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 100_000, "no rest");
            let ends: Vec<(usize, usize)> =
                self.wires.iter().flat_map(|wire| [(wire.parent, wire.child), (wire.child, wire.parent)]).collect();
            let carried: usize = ends.into_iter().map(|(from, to)| self.carry(from, to, 64 * 1024)).sum();
            self.poll();
            if carried == 0 {
                return;
            }
        }
    }

    pub(crate) fn poll(&mut self) {
        for (node, events) in self.nodes.iter_mut().zip(&mut self.events) {
            while let Some(event) = node.poll_event() {
                events.push(event);
            }
        }
    }

    pub(crate) fn take(&mut self, node: usize) -> Vec<Event> {
        self.poll();
        std::mem::take(&mut self.events[node])
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        let now = self.now;
        self.nodes.iter_mut().for_each(|node| node.handle_timeout(now));
    }

    /// Asks, and says what went wrong at once if it did.
    pub(crate) fn ask(
        &mut self,
        from: usize,
        to: usize,
        verb: Verb,
        grant: Option<Grant>,
    ) -> Result<ExchangeId, Failure> {
        let (dst, now) = (self.address(to), self.now);
        self.nodes[from].request(&dst, verb, Bytes::from_static(b"?"), grant, now)
    }

    /// The requests that arrived at a node.
    pub(crate) fn requests(&mut self, node: usize) -> Vec<ExchangeId> {
        let is_request = |event: Event| match event {
            Event::Request { id, .. } => Some(id),
            _ => None,
        };
        self.take(node).into_iter().filter_map(is_request).collect()
    }

    /// The completions that a node saw.
    pub(crate) fn done(&mut self, node: usize) -> Vec<(ExchangeId, Result<Bytes, Failure>)> {
        let is_done = |event: Event| match event {
            Event::Done { id, result } => Some((id, result)),
            _ => None,
        };
        self.take(node).into_iter().filter_map(is_done).collect()
    }

    /// Sends bytes from an evil child.
    pub(crate) fn inject(&mut self, evil: &Evil, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let now = self.now;
        self.nodes[evil.parent].handle_bytes(evil.link, &mut BytesMut::from(&bytes[..]), now);
    }

    /// What an evil child is sent.
    pub(crate) fn received(&mut self, evil: &Evil) -> Vec<(FrameHeader, Bytes)> {
        let (mut bytes, now) = (Vec::new(), self.now);
        while self.nodes[evil.parent].poll_transmit(evil.link, 64 * 1024, &mut bytes, now) {}
        frames(&bytes)
    }

    /// The reason why the link of an evil child was closed, if it was.
    pub(crate) fn closed(&mut self, evil: &Evil) -> Option<String> {
        self.poll();
        self.events[evil.parent].iter().find_map(|event| match event {
            Event::CloseLink { link, reason: LostReason::Violation(text) } if *link == evil.link => Some(text.clone()),
            _ => None,
        })
    }

    /// Nothing is left anywhere.
    pub(crate) fn assert_empty(&mut self) {
        self.settle();
        for (index, node) in self.nodes.iter().enumerate() {
            let census = node.census();
            let mut nothing = offshoot_route::Census::default();
            nothing.links = census.links;
            assert_eq!(census, nothing, "at node {index}");
        }
    }
}

pub(crate) fn frames(bytes: &[u8]) -> Vec<(FrameHeader, Bytes)> {
    let (mut at, mut frames) = (0, Vec::new());
    while let Some(frame) = parse_frame(&bytes[at..], &Limits::default()).expect("well formed") {
        let body = Bytes::copy_from_slice(&bytes[at + frame.body.start..at + frame.body.end]);
        frames.push((frame.header, body));
        at += frame.length;
    }
    assert_eq!(at, bytes.len());
    frames
}

/// A request, as a context that keeps no rule would send it.
pub(crate) fn request(src: &Address, dst: &Address, number: u64, verb: u16, full: bool, grant: Option<Grant>) -> Frame {
    let body = encode(&RequestHead { verb, window: 16 * 1024, grant });
    let mut frame = Frame::routed(FrameKind::Request, dst.clone(), src.clone(), number).with_body(body.into());
    frame.header.full = full;
    frame
}

/// A frame of an exchange from the side that is asked, or from the one that asks.
pub(crate) fn reply_side(kind: FrameKind, src: &Address, dst: &Address, number: u64, body: Vec<u8>) -> Frame {
    let mut frame = Frame::routed(kind, dst.clone(), src.clone(), number).with_body(body.into());
    frame.header.answer = true;
    frame
}
