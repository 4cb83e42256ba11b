//! What a call costs: pipelined and one by one, with many links and many pending exchanges beside it.
//!
//!     cargo run --release -p offshoot-route --example calls [PART-OF-A-NAME]

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use offshoot_route::{Config, Event, ExchangeId, LinkId, Node, Time};
use offshoot_wire::{Address, ChildHello, Limits, Verb};

fn join(parent: &mut Node, now: Time) -> (LinkId, Node, LinkId) {
    let (link, ..) = parent.reserve_child(now).expect("room");
    let name = String::new;
    let hello = parent.parent_hello(link, [0; 16], name(), name(), name(), now).expect("reserved");
    let answer = ChildHello {
        nonce: [0; 16],
        frame: Limits::FRAME,
        triple: name(),
        version: name(),
        host: name(),
        user: name(),
        uid: 0,
        pid: 0,
    };
    parent.child_up(link, &answer, now).expect("reserved");
    let (child, up) = Node::child(Config::default(), &hello, now);
    (link, child, up)
}

struct Pair<'a> {
    parent: &'a mut Node,
    link: LinkId,
    child: &'a mut Node,
    up: LinkId,
    address: Address,
    out: Vec<u8>,
    down: BytesMut,
    upward: BytesMut,
    served: Vec<ExchangeId>,
    wanted: String,
}

impl Pair<'_> {
    /// Asks `count` calls at once and carries them there and back.
    fn round(&mut self, count: usize, now: Time) {
        let body = Bytes::from_static(b"twenty-four bytes of it.");
        for _ in 0..count {
            self.parent.request(&self.address, Verb::Echo, body.clone(), None, now).expect("room");
        }
        self.out.clear();
        while self.parent.poll_transmit(self.link, 64 * 1024, &mut self.out, now) {}
        self.down.extend_from_slice(&self.out);
        self.child.handle_bytes(self.up, &mut self.down, now);
        while let Some(event) = self.child.poll_event() {
            if let Event::Request { id, .. } = event {
                self.served.push(id);
            }
        }
        for id in self.served.drain(..) {
            self.child.reply(id, body.clone(), now);
        }
        self.out.clear();
        while self.child.poll_transmit(self.up, 64 * 1024, &mut self.out, now) {}
        self.upward.extend_from_slice(&self.out);
        self.parent.handle_bytes(self.link, &mut self.upward, now);
        let mut done = 0;
        while let Some(event) = self.parent.poll_event() {
            done += usize::from(matches!(event, Event::Done { result: Ok(_), .. }));
        }
        assert_eq!(done, count);
        while self.parent.poll_ready_link().is_some() || self.child.poll_ready_link().is_some() {}
    }

    fn measure(&mut self, what: &str, count: usize, rounds: usize) {
        if !what.contains(&self.wanted) {
            return;
        }
        let now = Time::ZERO;
        for _ in 0..rounds / 10 + 1 {
            self.round(count, now);
        }
        let start = Instant::now();
        for _ in 0..rounds {
            self.round(count, now);
        }
        let each = start.elapsed().as_nanos() as f64 / (count * rounds) as f64;
        println!("{what:60} {each:7.0} ns a call, {:6.2} M frames/s", 2e3 / each);
    }
}

fn main() {
    let now = Time::ZERO;
    let mut parent = Node::root(Config::default(), [0; 16], [1; 32], now);
    let (link, mut child, up) = join(&mut parent, now);
    let address = child.address().clone();
    let mut pair = Pair {
        parent: &mut parent,
        link,
        child: &mut child,
        up,
        address,
        out: Vec::new(),
        down: BytesMut::new(),
        upward: BytesMut::new(),
        served: Vec::new(),
        wanted: std::env::args().nth(1).unwrap_or_default(),
    };
    pair.measure("one by one", 1, 300_000);
    pair.measure("100 at once", 100, 5000);
    pair.measure("10,000 at once", 10_000, 50);
    for _ in 0..2000 {
        let _ = join(pair.parent, now);
    }
    while pair.parent.poll_ready_link().is_some() {}
    pair.measure("one by one, beside 2,000 links", 1, 300_000);
    pair.measure("100 at once, beside 2,000 links", 100, 5000);
    for _ in 0..100_000 {
        pair.parent.request(&pair.address, Verb::Echo, Bytes::new(), None, now).expect("room");
        pair.out.clear();
        pair.parent.poll_transmit(pair.link, 64 * 1024, &mut pair.out, now);
        pair.down.extend_from_slice(&pair.out);
        pair.child.handle_bytes(pair.up, &mut pair.down, now);
        while pair.child.poll_event().is_some() {}
    }
    pair.measure("one by one, beside 100,000 pending exchanges", 1, 300_000);
    pair.measure("100 at once, beside 100,000 pending exchanges", 100, 5000);
}
