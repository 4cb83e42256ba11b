//! Whole trees of forwarders in one thread, from a seed: links that deliver in random turns, relays that lie, contexts
//! that are lost, caches that are too small.
//!
//! What is checked all the time: no cache exceeds its budget, what is ready has the hash, a relay blames nobody honest;
//! a link carries a content again only when what it carried was given up, refused or evicted, and each refusal has its
//! cause at the node that utters it (`cause.rs`). At the end: every need has ended, nothing is left over, and who waited
//! for ever waited for a relay that lives and sends nothing.

mod cause;
mod setting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cause::{Over, Way};
use offshoot_forward::{Config, ContentHash, Event, FetchId, Forwarder, Outcome, Refusal};
use offshoot_wire::Address;
pub(crate) use setting::{Setting, Tally};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    Flip,
    Short,
    Long,
    Length,
    Stall,
    Claim,
}

enum Message {
    Want { exchange: u64, hash: ContentHash },
    Data { exchange: u64, bytes: Bytes },
    Done { exchange: u64, outcome: Outcome },
    Cancel { exchange: u64 },
    Credit { exchange: u64, bytes: u64 },
}

struct Node {
    forwarder: Forwarder<u64, usize>,
    address: Address,
    children: Vec<usize>,
    alive: bool,
    lie: Option<Lie>,
    budget: u64,
    /// Whom it asks, in order; those that are lost stay in it.
    sources: Vec<usize>,
    /// What this node asked for: the exchange and whom.
    fetching: BTreeMap<FetchId, (u64, usize)>,
    serving: BTreeMap<u64, Serving>,
    /// What came of each content since it was asked for the last time, and the sources that were asked in this round.
    ways: BTreeMap<ContentHash, Way>,
    rounds: BTreeMap<ContentHash, Vec<usize>>,
    loads: Vec<(FetchId, ContentHash)>,
    needs: BTreeMap<ContentHash, u32>,
    holds: Vec<ContentHash>,
}

/// An exchange that a node serves.
#[derive(Clone, Copy)]
struct Serving {
    to: usize,
    credit: u64,
    sent: u64,
}

pub(crate) struct Sim {
    setting: Setting,
    random: u64,
    nodes: Vec<Node>,
    contents: BTreeMap<ContentHash, Bytes>,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// Which contents each link began to carry, and how often.
    carried: BTreeMap<(usize, usize, ContentHash), u32>,
    /// How the last of these ended.
    over: BTreeMap<(usize, usize, ContentHash), Over>,
    of: BTreeMap<u64, (usize, ContentHash)>,
    exchanges: u64,
    tally: Tally,
}

/// Runs a tree to its end; panics with the seed where a promise is broken.
pub(crate) fn run(setting: Setting) -> Tally {
    let mut sim = Sim::new(setting);
    sim.play();
    sim.tally
}

impl Sim {
    fn new(setting: Setting) -> Sim {
        let mut sim = Sim {
            setting,
            random: setting.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            nodes: Vec::new(),
            contents: BTreeMap::new(),
            links: BTreeMap::new(),
            carried: BTreeMap::new(),
            over: BTreeMap::new(),
            of: BTreeMap::new(),
            exchanges: 0,
            tally: Tally::default(),
        };
        let mut parents = Vec::new();
        for index in 0..setting.nodes {
            let parent = (index > 0).then(|| sim.below(index.min(4).max(index / 2)));
            let address = match parent {
                None => Address::ROOT,
                Some(parent) => {
                    let child = sim.nodes[parent].children.len() as u32;
                    sim.nodes[parent].children.push(index);
                    sim.nodes[parent].address.child(child).expect("not that deep")
                }
            };
            let budget = if setting.small_caches && index > 0 { 330_000 } else { 64 << 20 };
            let lies = [Lie::Flip, Lie::Short, Lie::Long, Lie::Length, Lie::Stall, Lie::Claim];
            let lie = (setting.liars && index > 0 && sim.below(4) == 0).then(|| lies[sim.below(lies.len())]);
            let mut forwarder = Forwarder::new(
                address.clone(),
                Config::with(|config| {
                    config.budget = budget;
                    config.largest = budget;
                }),
            );
            let mut sources = Vec::from_iter(parent);
            if let Some(above) = parent.and_then(|parent| parents[parent]).filter(|_| setting.second_sources) {
                sources.push(above);
            }
            if setting.uncles && index > 1 {
                // What is asked first can be lost while this node lives.
                let uncle = sim.below(index);
                sources.retain(|source| *source != uncle);
                sources.insert(0, uncle);
            }
            for source in &sources {
                forwarder.add_source(*source, sim.nodes[*source].address.clone());
            }
            parents.push(parent);
            sim.nodes.push(Node {
                forwarder,
                address,
                children: Vec::new(),
                alive: true,
                lie,
                budget,
                sources,
                ways: BTreeMap::new(),
                rounds: BTreeMap::new(),
                fetching: BTreeMap::new(),
                serving: BTreeMap::new(),
                loads: Vec::new(),
                needs: BTreeMap::new(),
                holds: Vec::new(),
            });
        }
        for number in 0..4u64 {
            let length = [0, 1, 65_536, 65_537 + sim.below(230_000)][number as usize];
            let fill = setting.seed.wrapping_add(number) as usize;
            let bytes: Bytes = (0..length).map(|at| ((at * 31 + fill) % 253) as u8).collect();
            let hash = ContentHash::of(&bytes);
            if number % 2 == 0 {
                assert_eq!(sim.nodes[0].forwarder.register(bytes.clone()), hash);
            } else {
                sim.nodes[0].forwarder.promise(hash, length as u64).expect("it fits");
            }
            sim.contents.insert(hash, bytes);
        }
        sim
    }

    fn below(&mut self, most: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % most
    }

    fn play(&mut self) {
        for _ in 0..self.setting.nodes * 3 {
            self.begin_something();
            for _ in 0..self.below(40) {
                self.step();
            }
        }
        // A source that stalls, or that is never rid of what it holds, is given up by whoever waits.
        for round in 0.. {
            assert!(round < 10_000, "seed {}: it does not end", self.setting.seed);
            let mut steps = 0u64;
            while self.step() {
                steps += 1;
                assert!(steps < 3_000_000, "seed {}: it does not come to rest", self.setting.seed);
            }
            if !self.give_up_one() {
                break;
            }
        }
        self.check_end();
    }

    fn begin_something(&mut self) {
        let index = self.below(self.nodes.len());
        if !self.nodes[index].alive {
            return;
        }
        let known: Vec<ContentHash> = self.contents.keys().copied().collect();
        let hash = match self.below(12) {
            0 => ContentHash::new([9; 32]),
            _ => known[self.below(known.len())],
        };
        match self.below(10) {
            0 if self.setting.losses && index > 0 => self.lose(index),
            1 if index == 0 || self.below(3) == 0 => {
                // Many contexts below want it at once, as by a preload.
                let top = self.nodes[index].address.clone();
                for below in 0..self.nodes.len() {
                    let node = &self.nodes[below];
                    if node.alive && node.address.is_under(&top) && self.below(3) > 0 {
                        self.need(below, hash);
                        self.pump(below);
                    }
                }
            }
            2 if self.setting.losses => {
                // Whoever waits changes their mind.
                let waits: Vec<ContentHash> = self.nodes[index].needs.keys().copied().collect();
                if let Some(hash) = waits.first() {
                    self.stop_waiting(index, *hash);
                }
            }
            _ => self.need(index, hash),
        }
        self.pump(index);
    }

    fn need(&mut self, index: usize, hash: ContentHash) {
        *self.nodes[index].needs.entry(hash).or_default() += 1;
        self.nodes[index].forwarder.need(hash);
    }

    fn stop_waiting(&mut self, index: usize, hash: ContentHash) {
        let node = &mut self.nodes[index];
        let Some(count) = node.needs.get_mut(&hash) else { return };
        *count -= 1;
        if *count == 0 {
            node.needs.remove(&hash);
        }
        node.forwarder.release(&hash);
    }

    /// Gives up one wait that does not end by itself.
    fn give_up_one(&mut self) -> bool {
        let waits = (0..self.nodes.len()).find_map(|index| {
            let node = &self.nodes[index];
            node.needs.keys().next().filter(|_| node.alive).map(|hash| (index, *hash))
        });
        let Some((index, hash)) = waits else { return false };
        let seed = self.setting.seed;
        assert!(self.is_stalled(index, hash), "seed {seed}: /{index} waits for {hash:?} for ever, and not for a liar");
        self.tally.timed_out += 1;
        self.stop_waiting(index, hash);
        self.pump(index);
        true
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.nodes[from].alive && self.nodes[to].alive {
            self.links.entry((from, to)).or_default().push_back(message);
        }
    }

    /// Delivers one message, loads one content, or releases one.
    fn step(&mut self) -> bool {
        if self.below(8) == 0 {
            let index = self.below(self.nodes.len());
            if let Some(hash) = self.nodes[index].holds.pop() {
                self.nodes[index].forwarder.release(&hash);
                self.pump(index);
                return true;
            }
            if let Some((fetch, hash)) = self.nodes[index].loads.pop() {
                let bytes = self.contents[&hash].clone();
                self.nodes[index].forwarder.arrived(fetch, bytes);
                self.nodes[index].forwarder.finished(fetch, Ok(()));
                self.pump(index);
                return true;
            }
        }
        let busy: Vec<(usize, usize)> =
            self.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
        if busy.is_empty() {
            return self.nodes.iter().any(|node| node.alive && (!node.holds.is_empty() || !node.loads.is_empty()));
        }
        let (from, to) = busy[self.below(busy.len())];
        let message = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("not empty");
        self.deliver(from, to, message);
        self.pump(to);
        true
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let first = 20_000 + self.below(110_000) as u64;
        self.came(to, &message);
        let node = &mut self.nodes[to];
        match message {
            Message::Want { exchange, hash } => {
                node.serving.insert(exchange, Serving { to: from, credit: first, sent: 0 });
                node.forwarder.serve(exchange, from, hash);
            }
            Message::Data { exchange, bytes } => {
                if let Some((fetch, _)) = node.fetching.iter().find(|(_, (of, _))| *of == exchange) {
                    node.forwarder.arrived(*fetch, bytes);
                }
            }
            Message::Done { exchange, outcome } => {
                let fetch = node.fetching.iter().find(|(_, (of, _))| *of == exchange).map(|(fetch, _)| *fetch);
                if let Some(fetch) = fetch {
                    node.fetching.remove(&fetch);
                    node.forwarder.finished(fetch, outcome);
                }
            }
            Message::Cancel { exchange } => {
                node.serving.remove(&exchange);
                node.forwarder.give_up(exchange);
            }
            Message::Credit { exchange, bytes } => {
                if let Some(serving) = node.serving.get_mut(&exchange) {
                    serving.credit += bytes;
                    self.transmit(to, exchange);
                }
            }
        }
    }

    /// Does what a node's forwarder wants.
    fn pump(&mut self, index: usize) {
        while let Some(event) = self.nodes[index].forwarder.poll_event() {
            self.on_event(index, event);
            let (stats, budget) = (self.nodes[index].forwarder.stats(), self.nodes[index].budget);
            assert!(stats.kept <= budget, "seed {}: {stats:?}", self.setting.seed);
        }
    }

    fn on_event(&mut self, index: usize, event: Event<u64, usize>) {
        let seed = self.setting.seed;
        self.check_cause(index, &event);
        let node = &mut self.nodes[index];
        match event {
            Event::Ask { fetch, link, hash } => {
                self.exchanges += 1;
                let exchange = self.exchanges;
                self.of.insert(exchange, (link, hash));
                node.fetching.insert(fetch, (exchange, link));
                *self.carried.entry((link, index, hash)).or_default() += 1;
                self.tally.retried += u64::from(self.carried[&(link, index, hash)] > 1);
                if self.nodes[link].alive {
                    self.send(index, link, Message::Want { exchange, hash });
                } else {
                    self.nodes[index].fetching.remove(&fetch);
                    self.nodes[index].forwarder.finished(fetch, Err(Refusal::Lost));
                }
            }
            Event::Load { fetch, hash } => node.loads.push((fetch, hash)),
            Event::Drop { fetch } => {
                node.loads.retain(|(of, _)| *of != fetch);
                if let Some((exchange, link)) = node.fetching.remove(&fetch) {
                    self.send(index, link, Message::Cancel { exchange });
                }
            }
            Event::Stored { fetch, bytes } => {
                if let Some((exchange, link)) = node.fetching.get(&fetch).copied() {
                    self.send(index, link, Message::Credit { exchange, bytes: bytes as u64 });
                }
            }
            Event::Send { exchange } => self.transmit(index, exchange),
            Event::End { exchange, outcome } => {
                let Some(Serving { to, .. }) = node.serving.remove(&exchange) else { return };
                match (node.lie, outcome) {
                    (Some(Lie::Stall), _) => {}
                    (Some(Lie::Claim), _) => {
                        let outcome = Err(Refusal::Damaged(Address::ROOT));
                        self.send(index, to, Message::Done { exchange, outcome });
                    }
                    (Some(Lie::Long), Ok(())) => {
                        self.send(index, to, Message::Data { exchange, bytes: Bytes::from_static(b"more") });
                        self.send(index, to, Message::Done { exchange, outcome: Ok(()) });
                    }
                    (_, outcome) => self.send(index, to, Message::Done { exchange, outcome }),
                }
            }
            Event::Ready { hash, content } => {
                assert_eq!(Some(&content.to_bytes()), self.contents.get(&hash), "seed {seed}");
                let count = node.needs.remove(&hash).expect("somebody waits");
                node.holds.extend(std::iter::repeat_n(hash, count as usize));
                self.tally.ready += 1;
            }
            Event::Failed { hash, refusal } => {
                assert!(node.needs.remove(&hash).is_some(), "seed {seed}: nobody waits");
                let known = self.contents.contains_key(&hash);
                self.tally.failed += u64::from(known);
                self.tally.unknown += u64::from(!known);
                let may = !known || self.setting.liars || self.setting.losses && self.setting.uncles;
                assert!(may, "seed {seed}: /{index} is refused {hash:?}: {refusal}");
            }
            Event::Damaged { link, .. } => {
                self.tally.damaged += 1;
                let link = link.expect("the root's own contents are right");
                assert!(self.nodes[link].lie.is_some(), "seed {seed}: /{index} blames the honest /{link}");
            }
        }
    }

    fn transmit(&mut self, index: usize, exchange: u64) {
        while let Some(Serving { to, credit, sent: before }) = self.nodes[index].serving.get(&exchange).copied() {
            if credit == 0 {
                return;
            }
            let Some(bytes) = self.nodes[index].forwarder.next(exchange) else { break };
            let most = (credit as usize).min(bytes.len());
            let sent = if self.below(4) == 0 { 1 + self.below(most) } else { most };
            self.nodes[index].forwarder.sent(exchange, sent);
            let now = Serving { to, credit: credit - sent as u64, sent: before + sent as u64 };
            self.nodes[index].serving.insert(exchange, now);
            let mut bytes = bytes.slice(..sent);
            let roll = self.below(3) == 0;
            match self.nodes[index].lie {
                Some(Lie::Stall) => continue,
                Some(Lie::Short) if roll => {
                    // It spends no credit on what it leaves out.
                    self.nodes[index].serving.insert(exchange, Serving { credit, ..now });
                    continue;
                }
                Some(Lie::Length) if bytes.len() >= 8 => {
                    let mut wrong = bytes.to_vec();
                    wrong[if roll { 5 } else { 0 }] ^= 1;
                    bytes = wrong.into();
                }
                Some(Lie::Flip) if roll => {
                    let mut wrong = bytes.to_vec();
                    wrong[0] ^= 1;
                    bytes = wrong.into();
                }
                _ => {}
            }
            self.send(index, to, Message::Data { exchange, bytes });
        }
    }

    /// A context is lost with all below it.
    fn lose(&mut self, index: usize) {
        let top = self.nodes[index].address.clone();
        let lost: BTreeSet<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].address.is_under(&top)).collect();
        for at in &lost {
            self.nodes[*at].alive = false;
            self.tally.lost += 1;
            self.nodes[*at].holds.clear();
            self.nodes[*at].loads.clear();
        }
        self.links.retain(|(from, to), _| !lost.contains(from) && !lost.contains(to));
        for at in 0..self.nodes.len() {
            if !self.nodes[at].alive {
                continue;
            }
            for gone in &lost {
                self.source_lost(at, *gone);
                self.nodes[at].forwarder.link_gone(*gone);
                self.nodes[at].serving.retain(|_, serving| serving.to != *gone);
                self.nodes[at].fetching.retain(|_, (_, link)| link != gone);
            }
            self.pump(at);
        }
    }

    fn check_end(&mut self) {
        let seed = self.setting.seed;
        for (index, node) in self.nodes.iter().enumerate() {
            let stats = node.forwarder.stats();
            self.tally.evictions += stats.evictions;
            for other in 0..self.nodes.len() {
                self.tally.joined += node.forwarder.link_stats(other).joined;
            }
            if !node.alive {
                continue;
            }
            assert!(node.needs.is_empty(), "seed {seed}: /{index} still waits");
            assert_eq!((stats.serving, stats.coming, stats.waiting), (0, 0, 0), "seed {seed}: /{index} {stats:?}");
        }
    }
}
