//! The core of a node with a hostile neighbour: below it, and above it.

use std::collections::HashSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use offshoot_route::{Census, Config, Event, ExchangeId, LinkId, Node, Time};
use offshoot_wire::{
    Ack, Address, Bye, ChannelEnd, ChildHello, Credit, EndReason, Failure, FailureKind, Frame, FrameHeader, FrameKind,
    Gone, Grant, Limits, LostReason, Ping, RequestHead, ShutdownNotice, Verb, VerbSet, encode, parse_frame,
};

use crate::feed::Feed;

pub(super) fn hello_of_a_child() -> ChildHello {
    let empty = String::new;
    ChildHello {
        nonce: [0; 16],
        frame: Limits::FRAME,
        triple: empty(),
        version: empty(),
        host: empty(),
        user: empty(),
        uid: 0,
        pid: 0,
    }
}

/// A child of `node` that has said hello, and the node's own end of the link.
pub(super) fn child(node: &mut Node, now: Time) -> (LinkId, Address, Option<(Node, LinkId)>) {
    let (link, address, _) = node.reserve_child(now).expect("room for a child");
    let name = String::new;
    let hello = node.parent_hello(link, [0; 16], name(), name(), name(), now).expect("it waits for one");
    node.child_up(link, &hello_of_a_child(), now).expect("it waits for one");
    (link, address, Some(Node::child(small(), &hello, now)))
}

/// Limits that a short input can reach.
pub(super) fn small() -> Config {
    Config::with(|config| {
        config.max_children = 8;
        config.max_pending = 16;
        config.max_served_per_child = 4;
        config.max_served_from_parent = 8;
        config.max_turned_per_child = 4;
        config.max_passed_from_parent = 8;
        config.max_exchanges = 32;
        config.relay_budget = 64 * 1024;
        config.relay_limit = 512 * 1024;
        config.call_budget = 16 * 1024;
        config.answer_budget = 16 * 1024;
        config.control_budget = 4096;
        config.max_grants = 4;
    })
}

/// The frames that a node has for a link.
pub(super) fn drain(node: &mut Node, link: LinkId, now: Time) -> Vec<(FrameHeader, Vec<u8>)> {
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        if !node.poll_transmit(link, 64 * 1024, &mut bytes, now) {
            break;
        }
    }
    let mut at = 0;
    while let Some(frame) = parse_frame(&bytes[at..], &Limits::default()).expect("a node writes frames") {
        frames.push((frame.header, bytes[at + frame.body.start..at + frame.body.end].to_vec()));
        at += frame.length;
    }
    assert_eq!(at, bytes.len(), "half a frame");
    frames
}

pub(super) fn feed_bytes(node: &mut Node, link: LinkId, bytes: &[u8], now: Time) {
    let mut buffer = BytesMut::from(bytes);
    node.handle_bytes(link, &mut buffer, now);
    assert!(buffer.len() <= Limits::FRAME as usize + 4, "more is kept than one frame");
}

/// What a liar knows: addresses and numbers worth claiming.
struct Known {
    addresses: Vec<Address>,
    numbers: Vec<u64>,
    grants: Vec<Grant>,
}

impl Known {
    fn address(&self, feed: &mut Feed<'_>) -> Address {
        let at = feed.below(self.addresses.len() + 1);
        match self.addresses.get(at) {
            Some(address) => address.clone(),
            None => {
                let path: Vec<u32> = (0..feed.below(4)).map(|_| feed.number() as u32).collect();
                Address::from_path(&path).unwrap_or(Address::ROOT)
            }
        }
    }

    fn number(&self, feed: &mut Feed<'_>) -> u64 {
        let choice = feed.byte();
        match self.numbers.len() {
            0 => feed.number(),
            _ if choice & 3 == 0 => feed.number(),
            many => self.numbers[usize::from(choice >> 2) % many],
        }
    }

    /// One frame, well formed as far as a frame goes.
    fn frame(&self, feed: &mut Feed<'_>) -> Vec<u8> {
        let kind = FrameKind::ALL[feed.below(FrameKind::ALL.len())];
        let raw = feed.byte();
        let body = if raw < 16 { feed.bytes(255).to_vec() } else { self.body(kind, feed) };
        let mut frame = if kind.is_routed() {
            Frame::routed(kind, self.address(feed), self.address(feed), self.number(feed))
        } else {
            Frame::link(kind, Bytes::new())
        }
        .with_body(body.into());
        if kind.is_routed() {
            let flags = feed.byte();
            frame.header.full = flags & 1 == 1;
            if matches!(kind, FrameKind::Data | FrameKind::End | FrameKind::Credit | FrameKind::Stop) {
                frame.header.answer = flags & 2 == 2;
            }
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if raw == 255 {
            // One byte of it is wrong.
            let at = feed.below(bytes.len().min(255));
            bytes[at] ^= 1 << feed.below(8);
        }
        bytes
    }

    fn body(&self, kind: FrameKind, feed: &mut Feed<'_>) -> Vec<u8> {
        let reason = || LostReason::Violation("liar".into());
        match kind {
            FrameKind::Request => {
                let grant = (feed.chance() && !self.grants.is_empty())
                    .then(|| self.grants[feed.below(self.grants.len())].clone());
                let verb = Verb::ALL.get(feed.below(Verb::ALL.len() + 1)).map_or(99, |verb| verb.number());
                let window = [0, 1024, 16 * 1024, 128 * 1024, u32::MAX][feed.below(5)];
                let mut body = encode(&RequestHead { verb, window, grant });
                body.extend(feed.bytes(32));
                body
            }
            FrameKind::Failure => encode(&Failure::new(FailureKind::PeerLost(reason()), "no").at(self.address(feed))),
            FrameKind::Data => {
                let mut body = vec![feed.byte() % 9];
                body.resize(1 + feed.below(256) * (1 + feed.below(256)), 0xee);
                body
            }
            FrameKind::End => encode(&ChannelEnd {
                channel: feed.byte() % 9,
                total: feed.number(),
                reason: if feed.chance() { EndReason::Done } else { EndReason::Failed("no".into()) },
            }),
            FrameKind::Credit => encode(&Credit { channel: feed.byte() % 9, total: feed.number() }),
            FrameKind::Stop => vec![feed.byte() % 9],
            FrameKind::Ping | FrameKind::Pong => encode(&Ping { seq: feed.number() }),
            FrameKind::Ack => encode(&Ack { bulk: feed.number() }),
            FrameKind::Gone => encode(&Gone { prefix: self.address(feed), reason: reason() }),
            FrameKind::Bye => encode(&Bye { reason: reason() }),
            FrameKind::Shutdown => encode(&ShutdownNotice { grace_ms: 1, kill_ms: 1 }),
            _ => feed.bytes(64).to_vec(),
        }
    }

    fn learn(&mut self, frames: &[(FrameHeader, Vec<u8>)]) {
        for (header, _) in frames {
            if header.kind.is_routed() && self.numbers.len() < 64 {
                self.numbers.push(header.exchange);
            }
        }
    }
}

/// What a node's application saw, and what it does about it: it answers every other request.
#[derive(Default)]
struct App {
    asked: HashSet<ExchangeId>,
    done: HashSet<ExchangeId>,
    served: Vec<ExchangeId>,
    full: usize,
    closed: bool,
}

impl App {
    fn poll(&mut self, node: &mut Node, evil: &Address, now: Time) {
        while let Some(event) = node.poll_event() {
            match event {
                Event::Request { id, verb, authority, from, .. } => {
                    let from_evil = from.is_under(evil);
                    self.full += usize::from(from_evil && authority == offshoot_wire::Authority::Full);
                    if from_evil && authority == offshoot_wire::Authority::Child {
                        assert!(matches!(verb, Verb::Payload | Verb::Image), "{verb:?} was opened to a child");
                        assert_eq!(from, *evil, "the right of a child was given to another");
                    }
                    self.served.push(id);
                }
                Event::Done { id, .. } => {
                    assert!(self.asked.contains(&id), "an answer to nothing");
                    assert!(self.done.insert(id), "answered twice");
                }
                Event::Data { id, channel, data } => node.consumed(id, channel, data.len(), now),
                Event::CloseLink { link, reason } => {
                    drain(node, link, now);
                    node.link_down(link, reason, now);
                    self.closed = true;
                }
                _ => {}
            }
        }
    }
}

/// A node between its parent and two children, one of them hostile: the other one's calls are answered by the other one
/// alone, each once; nothing of the liar's is served by right; what the parent is told has a source below the liar; and
/// when all is over nothing is left (S1 to S6, S12, S14).
pub(crate) fn hostile_child(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut now = Time::from_micros(1);
    let mut root = Node::root(small(), [1; 16], [2; 32], now);
    let (down, _, middle) = child(&mut root, now);
    let (mut node, up) = middle.expect("a child");
    let (evil_link, evil, _) = child(&mut node, now);
    let (link, honest, other) = child(&mut node, now);
    let (mut other, other_up) = other.expect("a child");
    let mut known = Known {
        addresses: vec![
            Address::ROOT,
            node.address().clone(),
            evil.clone(),
            honest.clone(),
            evil.child(0).expect("not deep"),
            honest.child(1).expect("not deep"),
            node.address().child(7).expect("not deep"),
        ],
        numbers: Vec::new(),
        grants: Vec::new(),
    };
    let verbs: VerbSet = VerbSet::NONE.with(Verb::Echo);
    if let Ok(grant) = node.grant(&evil, verbs, None, Duration::from_secs(60), now) {
        known.grants.push(grant);
    }
    let (mut app, mut honest_app, mut root_app) = (App::default(), App::default(), App::default());
    let ask = |from: &mut Node, app: &mut App, dst: &Address, verb: Verb, now: Time| {
        if let Ok(id) = from.request(dst, verb, Bytes::from_static(b"q"), None, now) {
            app.asked.insert(id);
        }
    };
    let mut turns = 0;
    while !feed.is_over() && turns < 400 {
        turns += 1;
        match feed.byte() % 16 {
            0 => ask(&mut root, &mut root_app, &honest, Verb::Echo, now),
            1 => ask(&mut root, &mut root_app, &evil, Verb::Exec, now),
            2 => ask(&mut node, &mut app, &evil, Verb::Call, now),
            3 => ask(&mut node, &mut app, &honest, Verb::Exec, now),
            4 => {
                for id in std::mem::take(&mut honest_app.served) {
                    if other.is_open(id) {
                        other.send(id, 1, Bytes::from_static(b"out"), now);
                        other.reply(id, Bytes::from_static(b"genuine"), now);
                    }
                }
            }
            5 => {
                for id in std::mem::take(&mut app.served) {
                    node.reply(id, Bytes::from_static(b"served"), now);
                }
            }
            6 => {
                now = now + Duration::from_millis(feed.number() % 6000);
                for node in [&mut root, &mut node, &mut other] {
                    node.handle_timeout(now);
                }
            }
            7 => {
                if let Some(id) = app.asked.difference(&app.done).copied().min_by_key(|id| format!("{id:?}")) {
                    app.done.insert(id);
                    node.cancel(id, now);
                }
            }
            _ => {
                let bytes = known.frame(&mut feed);
                feed_bytes(&mut node, evil_link, &bytes, now);
            }
        }
        app.poll(&mut node, &evil, now);
        let frames = drain(&mut node, evil_link, now);
        for (header, _) in &frames {
            assert!(!header.kind.is_routed() || header.dst.is_under(&evil), "the liar was sent what is not its own");
        }
        known.learn(&frames);
        // The honest ones and what lies between them.
        for _ in 0..4 {
            let mut bytes = Vec::new();
            node.poll_transmit(link, 64 * 1024, &mut bytes, now);
            let closed = other.parent_link().is_none();
            feed_bytes(&mut other, other_up, &bytes, now);
            honest_app.poll(&mut other, &evil, now);
            assert!(closed || !honest_app.closed, "the honest child was made to close its link");
            let mut bytes = Vec::new();
            other.poll_transmit(other_up, 64 * 1024, &mut bytes, now);
            feed_bytes(&mut node, link, &bytes, now);
            let mut bytes = Vec::new();
            node.poll_transmit(up, 64 * 1024, &mut bytes, now);
            for (header, _) in frames_of(&bytes) {
                assert!(!header.kind.is_routed() || header.src.is_under(node.address()), "sent up from elsewhere");
            }
            feed_bytes(&mut root, down, &bytes, now);
            root_app.poll(&mut root, &evil, now);
            let mut bytes = Vec::new();
            root.poll_transmit(down, 64 * 1024, &mut bytes, now);
            feed_bytes(&mut node, up, &bytes, now);
            app.poll(&mut node, &evil, now);
        }
        assert_eq!(app.full + honest_app.full + root_app.full, 0, "the mark of the liar was believed");
    }
    // All ends: nothing of it is left anywhere.
    for (node, links) in [(&mut other, vec![other_up]), (&mut node, vec![evil_link, link, up]), (&mut root, vec![down])]
    {
        for link in links {
            node.link_down(link, LostReason::LinkEnd, now);
        }
    }
    for (node, app) in [(&mut root, &mut root_app), (&mut node, &mut app), (&mut other, &mut honest_app)] {
        app.poll(node, &evil, now);
        for id in std::mem::take(&mut app.asked) {
            assert!(app.done.contains(&id), "a wait without an end");
            node.cancel(id, now);
        }
        assert_eq!(node.census(), Census::default(), "something is left");
    }
}

fn frames_of(bytes: &[u8]) -> Vec<(FrameHeader, Vec<u8>)> {
    let (mut at, mut frames) = (0, Vec::new());
    while let Ok(Some(frame)) = parse_frame(&bytes[at..], &Limits::default()) {
        frames.push((frame.header, bytes[at + frame.body.start..at + frame.body.end].to_vec()));
        at += frame.length;
    }
    frames
}

/// A node under a hostile parent, with an honest child: whatever comes, nothing breaks, the child is asked nothing that
/// does not lie under it, and when all is over nothing is left (S2, S12, S14).
pub(crate) fn hostile_parent(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut now = Time::from_micros(1);
    let mut root = Node::root(small(), [1; 16], [2; 32], now);
    let (_, _, node) = child(&mut root, now);
    let (mut node, up) = node.expect("a child");
    let (link, honest, other) = child(&mut node, now);
    let (mut other, other_up) = other.expect("a child");
    let mut known = Known {
        addresses: vec![
            Address::ROOT,
            node.address().clone(),
            honest.clone(),
            honest.child(0).expect("not deep"),
            node.address().child(9).expect("not deep"),
        ],
        numbers: Vec::new(),
        grants: Vec::new(),
    };
    let (mut app, mut honest_app) = (App::default(), App::default());
    let nowhere = Address::from_path(&[9, 9]).expect("not deep");
    let mut turns = 0;
    while !feed.is_over() && turns < 400 {
        turns += 1;
        match feed.byte() % 8 {
            0 => {
                if let Ok(id) = node.request(&Address::ROOT, Verb::Payload, Bytes::new(), None, now) {
                    app.asked.insert(id);
                }
            }
            1 => {
                if let Ok(id) = other.request(&Address::ROOT, Verb::Image, Bytes::new(), None, now) {
                    honest_app.asked.insert(id);
                }
            }
            2 => {
                for id in std::mem::take(&mut app.served) {
                    node.send(id, 1, Bytes::from_static(b"out"), now);
                    node.reply(id, Bytes::from_static(b"served"), now);
                }
                for id in std::mem::take(&mut honest_app.served) {
                    other.fail(id, Failure::new(FailureKind::Denied, "no"), now);
                }
            }
            3 => {
                now = now + Duration::from_millis(feed.number() % 6000);
                node.handle_timeout(now);
                other.handle_timeout(now);
            }
            _ => {
                let bytes = known.frame(&mut feed);
                feed_bytes(&mut node, up, &bytes, now);
            }
        }
        app.poll(&mut node, &nowhere, now);
        let frames = drain(&mut node, up, now);
        for (header, _) in &frames {
            assert!(!header.kind.is_routed() || !header.dst.is_under(node.address()), "sent up what belongs below");
        }
        known.learn(&frames);
        for _ in 0..4 {
            let mut bytes = Vec::new();
            node.poll_transmit(link, 64 * 1024, &mut bytes, now);
            for (header, _) in frames_of(&bytes) {
                assert!(!header.kind.is_routed() || header.dst.is_under(&honest), "the child was sent another's frame");
            }
            feed_bytes(&mut other, other_up, &bytes, now);
            honest_app.poll(&mut other, &nowhere, now);
            let mut bytes = Vec::new();
            other.poll_transmit(other_up, 64 * 1024, &mut bytes, now);
            feed_bytes(&mut node, link, &bytes, now);
            app.poll(&mut node, &nowhere, now);
        }
    }
    for (node, links) in [(&mut other, vec![other_up]), (&mut node, vec![link, up])] {
        for link in links {
            node.link_down(link, LostReason::LinkEnd, now);
        }
    }
    for (node, app) in [(&mut node, &mut app), (&mut other, &mut honest_app)] {
        app.poll(node, &nowhere, now);
        for id in std::mem::take(&mut app.asked) {
            assert!(app.done.contains(&id), "a wait without an end");
            node.cancel(id, now);
        }
        assert_eq!(node.census(), Census::default(), "something is left");
    }
}
