//! Whole trees in one thread: honest nodes, hostile members, bad links, and an oracle that knows what may happen.
//!
//! Everything follows from one seed. Time jumps from event to event. The oracle keeps every call from its asking to its
//! end and panics, with the seed, as soon as an invariant breaks; see `oracle.rs`.

mod app;
mod hostile;
mod oracle;
mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use offshoot_route::{Config, Event, ExchangeId, LinkId, Node, Rate, Time};
use offshoot_wire::{Address, ChildHello, Grant, Limits, LostReason, ShutdownNotice, VerbSet};

use hostile::Hostile;
use wire::Wire;

/// A small, fast, seeded source of chance (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            rng.next();
        }
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// What a run is like.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    /// How to run it again.
    pub(crate) replay: String,
    /// Members at the start.
    pub(crate) nodes: usize,
    /// How many of them are hostile.
    pub(crate) hostile: usize,
    /// Calls that are asked over the run.
    pub(crate) calls: usize,
    /// Kills, cuts and stalls over the run.
    pub(crate) mishaps: usize,
    /// The longest stream, in bytes.
    pub(crate) stream: u64,
    /// Limits so low that everything meets them.
    pub(crate) tight: bool,
    /// How long things go on before all is brought to an end.
    pub(crate) run: Duration,
}

impl Setting {
    pub(crate) fn small(seed: u64) -> Setting {
        let mut rng = Rng::new(seed ^ 0x51);
        Setting {
            seed,
            replay: format!("--seed {seed}"),
            nodes: 2 + rng.index(9),
            hostile: if rng.chance(60) { 1 + rng.index(3) } else { 0 },
            calls: 10 + rng.index(40),
            mishaps: if rng.chance(60) { rng.index(6) } else { 0 },
            stream: if rng.chance(20) { 600_000 } else { 60_000 },
            tight: rng.chance(25),
            run: Duration::from_secs(20),
        }
    }

    fn config(&self) -> Config {
        if !self.tight {
            return Config::default();
        }
        Config::with(|config| {
            config.max_pending = 12;
            config.max_served_per_child = 4;
            config.max_turned_per_child = 6;
            config.max_exchanges = 10;
            config.relay_budget = 8 * 1024;
            config.relay_limit = 400 * 1024;
            config.call_budget = 50_000;
            config.call_window = 120_000;
            config.answer_budget = 50_000;
            config.send_buffer = 5_000;
            config.control_budget = 20_000;
            config.log_budget = 300;
            config.max_grants = 20;
            config.refusals = Rate { burst: 40, per_second: 4 };
            config.bounces = Rate { burst: 80, per_second: 8 };
            config.notices = Rate { burst: 60, per_second: 6 };
            config.losses = Rate { burst: 20, per_second: 2 };
        })
    }

    /// The same seed in a tree of `nodes` members.
    pub(crate) fn large(seed: u64, nodes: usize) -> Setting {
        let small = Setting::small(seed);
        let calls = small.calls.max(nodes * 2);
        Setting { nodes, calls, replay: format!("--seed {seed} --nodes {nodes}"), ..small }
    }
}

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Deliver(usize, usize),
    Eof(usize, usize),
    Timer(usize),
    Connected(usize, LinkId, usize),
    Ask,
    Reply(usize, ExchangeId),
    Read(usize, ExchangeId, u8, usize),
    Cancel(usize),
    Mishap,
    Evil(usize),
    Revoke(usize, u64),
}

/// A call, as the oracle knows it.
struct Call {
    from: usize,
    to: usize,
    target: Address,
    mode: app::Mode,
    /// Bytes that the asked side writes, and that the requester writes.
    out: u64,
    input: u64,
    exchange: Option<ExchangeId>,
    executed: u32,
    completed: u32,
    cancelled: bool,
    /// It was answered that it did not run: it must not, ever.
    not_sent: bool,
    got: u64,
    ended: bool,
    granted: Option<(usize, u64)>,
    wires: Vec<usize>,
}

/// A member of the tree.
struct Member {
    address: Address,
    node: Option<Node>,
    hostile: Option<Hostile>,
    /// The wire to the parent; none at the root.
    up: Option<usize>,
    /// The wire of each link.
    links: BTreeMap<LinkId, usize>,
    parent: Option<usize>,
    timer: Option<Time>,
    app: app::App,
    alive: bool,
}

/// A tree and its oracle.
pub(crate) struct World {
    setting: Setting,
    pub(crate) rng: Rng,
    now: Time,
    serial: u64,
    queue: BinaryHeap<Reverse<(Time, u64, Action)>>,
    members: Vec<Member>,
    wires: Vec<Wire>,
    calls: Vec<Call>,
    /// Grants that exist: the target, its number, the holder, the verbs.
    legit: Vec<(usize, u64, Address, VerbSet)>,
    /// Grants that anyone may have seen, for replay.
    seen: Vec<Grant>,
    revoked: Vec<(usize, u64)>,
    ending: bool,
    steps: u64,
    pub(crate) stats: Outcome,
}

/// What happened in a run, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) streamed: u64,
    pub(crate) evil_frames: u64,
    pub(crate) evil_links_closed: u64,
    pub(crate) steps: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, more: &Outcome) {
        self.calls += more.calls;
        self.answered += more.answered;
        self.failed += more.failed;
        self.cancelled += more.cancelled;
        self.streamed += more.streamed;
        self.evil_frames += more.evil_frames;
        self.evil_links_closed += more.evil_links_closed;
        self.steps += more.steps;
    }
}

/// Runs one setting to its end. Panics, naming the seed, when an invariant breaks.
pub(crate) fn run(setting: Setting) -> Outcome {
    struct Naming(Setting);
    impl Drop for Naming {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let replay = &self.0.replay;
                eprintln!("replay with\n    cargo run -p offshoot-route --example sim -- {replay}\n{:?}", self.0);
            }
        }
    }
    let naming = Naming(setting.clone());
    let mut world = World::new(setting);
    world.live();
    let outcome = world.stats;
    drop(naming);
    outcome
}

impl World {
    fn new(setting: Setting) -> World {
        let mut rng = Rng::new(setting.seed);
        let mut tree = [0; 16];
        let mut key = [0; 32];
        tree.iter_mut().chain(&mut key).for_each(|byte| *byte = rng.next() as u8);
        let mut world = World {
            rng,
            now: Time::from_micros(1_000_000),
            serial: 0,
            queue: BinaryHeap::new(),
            members: Vec::new(),
            wires: Vec::new(),
            calls: Vec::new(),
            legit: Vec::new(),
            seen: Vec::new(),
            revoked: Vec::new(),
            ending: false,
            steps: 0,
            stats: Outcome::default(),
            setting,
        };
        let root = Node::root(world.setting.config(), tree, key, world.now);
        world.members.push(Member {
            address: Address::ROOT,
            node: Some(root),
            hostile: None,
            up: None,
            links: BTreeMap::new(),
            parent: None,
            timer: None,
            app: app::App::default(),
            alive: true,
        });
        for _ in 1..world.setting.nodes {
            let parent = world.some_honest();
            world.spawn(parent, false, false);
        }
        for _ in 0..world.setting.hostile {
            let parent = world.some_honest();
            world.spawn(parent, true, false);
        }
        let span = world.setting.run.as_micros() as u64;
        for _ in 0..world.setting.calls {
            let at = world.rng.below(span);
            world.after(at, Action::Ask);
        }
        for _ in 0..world.setting.mishaps {
            let at = world.rng.below(span);
            world.after(at, Action::Mishap);
        }
        world
    }

    fn after(&mut self, micros: u64, action: Action) {
        self.serial += 1;
        self.queue.push(Reverse((self.now + Duration::from_micros(micros), self.serial, action)));
    }

    fn some_honest(&mut self) -> usize {
        loop {
            let index = self.rng.index(self.members.len());
            if self.members[index].alive && self.members[index].hostile.is_none() {
                return index;
            }
        }
    }

    /// Adds a child to `parent`: at once, or `later`, when its connect takes time and may fail.
    fn spawn(&mut self, parent: usize, hostile: bool, later: bool) {
        let now = self.now;
        let limits = if self.rng.chance(5) { Limits { frame: 512, ..Limits::default() } } else { Limits::default() };
        let Some(node) = self.members[parent].node.as_mut() else { return };
        let Ok((link, address, _)) = node.reserve_child_with(limits, now) else { return };
        self.members.push(Member {
            address,
            node: None,
            hostile: hostile.then(Hostile::default),
            up: None,
            links: BTreeMap::new(),
            parent: Some(parent),
            timer: None,
            app: app::App::default(),
            alive: false,
        });
        let child = self.members.len() - 1;
        if later {
            let delay = self.rng.below(500_000);
            self.after(delay, Action::Connected(parent, link, child));
        } else {
            self.connect(parent, link, child);
        }
    }

    fn connect(&mut self, parent: usize, link: LinkId, child: usize) {
        let now = self.now;
        let fails = self.rng.chance(10) && !self.queue.is_empty();
        let Some(node) = self.members[parent].node.as_mut() else { return };
        if fails {
            node.abandon_child(link, now);
            self.pump(parent);
            return;
        }
        let name = String::from("sim");
        let Ok(hello) = node.parent_hello(link, [3; 16], name.clone(), name.clone(), name, now) else { return };
        let answer = ChildHello {
            nonce: hello.nonce,
            frame: hello.frame,
            triple: String::new(),
            version: String::new(),
            host: String::new(),
            user: String::new(),
            uid: 0,
            pid: 0,
        };
        node.child_up(link, &answer, now).expect("the link waits for its child");
        let member = &mut self.members[child];
        let mut lower = None;
        if member.hostile.is_none() {
            let mut config = self.setting.config();
            config.limits.frame = hello.frame;
            let (node, up) = Node::child(config, &hello, now);
            member.node = Some(node);
            lower = Some(up);
        }
        member.alive = true;
        let index = self.wires.len();
        member.up = Some(index);
        if let Some(up) = lower {
            member.links.insert(up, index);
        }
        self.members[parent].links.insert(link, index);
        let wire = Wire::new(parent, link, child, lower, hello.frame, &mut self.rng);
        self.wires.push(wire);
        if self.members[child].hostile.is_some() {
            self.after(1000, Action::Evil(child));
        }
        self.pump(parent);
        self.pump(child);
    }

    /// Runs until all has come to an end, then checks what is left.
    fn live(&mut self) {
        let end = self.now + self.setting.run;
        for member in 0..self.members.len() {
            self.pump(member);
        }
        self.run_until(end);
        self.ending = true;
        // What would wait for ever is given up by whoever asked; hostile members go.
        for index in 0..self.calls.len() {
            if self.calls[index].mode == app::Mode::Never {
                self.cancel(index);
            }
        }
        self.run_until(end + Duration::from_secs(90));
        for index in 0..self.members.len() {
            if self.members[index].hostile.is_some() {
                self.kill(index);
            }
        }
        self.run_until(end + Duration::from_secs(130));
        for (index, call) in self.calls.iter().enumerate() {
            let over = call.completed == 1 || call.cancelled || !self.members[call.from].alive;
            assert!(
                over,
                "call {index} from {} to {} ({:?}) waits for ever",
                self.members[call.from].address, call.target, call.mode
            );
        }
        self.check_empty();
        self.stats.steps = self.steps;
    }

    fn run_until(&mut self, end: Time) {
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, action))) = self.queue.pop() else { return };
            assert!(at >= self.now, "time went backwards");
            self.now = at;
            self.steps += 1;
            // Livelock guard: a tree at rest has heartbeats only.
            let most = 400_000 + 20_000 * (self.members.len() + self.calls.len()) as u64;
            assert!(self.steps < most, "a livelock: {} steps", self.steps);
            self.act(action);
        }
        self.now = end;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Deliver(wire, side) => self.deliver(wire, side),
            Action::Eof(wire, side) => self.eof(wire, side),
            Action::Timer(member) => {
                let now = self.now;
                self.members[member].timer = None;
                if let Some(node) = self.members[member].node.as_mut() {
                    node.handle_timeout(now);
                }
                self.pump(member);
            }
            Action::Connected(parent, link, child) => self.connect(parent, link, child),
            Action::Ask => self.ask(),
            Action::Reply(member, id) => self.answer(member, id),
            Action::Read(member, id, channel, bytes) => {
                let now = self.now;
                if let Some(node) = self.members[member].node.as_mut() {
                    node.consumed(id, channel, bytes, now);
                }
                self.pump(member);
            }
            Action::Cancel(call) => self.cancel(call),
            Action::Mishap => self.mishap(),
            Action::Evil(member) => self.evil(member),
            Action::Revoke(member, number) => {
                let now = self.now;
                self.revoked.push((member, number));
                if let Some(node) = self.members[member].node.as_mut() {
                    node.revoke(number, now);
                }
                self.pump(member);
            }
        }
    }

    /// Drains events and output of a member until it is at rest, and sets its timer.
    fn pump(&mut self, member: usize) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 100_000, "a member that never comes to rest");
            let Some(node) = self.members[member].node.as_mut() else { return };
            if let Some(event) = node.poll_event() {
                self.event(member, event);
                continue;
            }
            let Some(link) = node.poll_ready_link() else { break };
            self.flush(member, link);
        }
        self.check_bounds(member);
        let Some(node) = self.members[member].node.as_ref() else { return };
        if let Some(at) = node.poll_timeout()
            && self.members[member].timer.is_none_or(|set| at < set)
        {
            self.members[member].timer = Some(at);
            self.serial += 1;
            self.queue.push(Reverse((at.max(self.now), self.serial, Action::Timer(member))));
        }
    }

    fn event(&mut self, member: usize, event: Event) {
        match event {
            Event::CloseLink { link, reason } => self.close_link(member, link, &reason),
            Event::ParentLost { .. } => self.kill(member),
            Event::ShutdownRequested(_) => self.kill(member),
            Event::ChildGone { .. } | Event::Gone { .. } | Event::Room { .. } | Event::Log { .. } => {}
            other => self.app_event(member, other),
        }
    }

    fn close_link(&mut self, member: usize, link: LinkId, reason: &LostReason) {
        let now = self.now;
        let Some(&wire) = self.members[member].links.get(&link) else { return };
        let peer = self.wires[wire].other_member(member);
        if let LostReason::Violation(text) = reason {
            let hostile = self.members[peer].hostile.is_some();
            assert!(hostile, "an honest member is said to break the protocol: {text}");
            self.stats.evil_links_closed += 1;
        }
        self.flush(member, link);
        if let Some(node) = self.members[member].node.as_mut() {
            node.link_down(link, reason.clone(), now);
        }
        self.members[member].links.remove(&link);
        self.hang_up(wire, member);
    }

    fn kill(&mut self, member: usize) {
        if !std::mem::replace(&mut self.members[member].alive, false) {
            return;
        }
        self.members[member].node = None;
        let links = std::mem::take(&mut self.members[member].links);
        for wire in links.into_values().chain(self.members[member].up) {
            self.hang_up(wire, member);
        }
    }

    fn mishap(&mut self) {
        let member = self.some_honest();
        match self.rng.below(7) {
            0 if member != 0 => self.kill(member),
            1 | 2 if !self.wires.is_empty() => {
                let wire = self.rng.index(self.wires.len());
                self.cut(wire);
            }
            3 if !self.wires.is_empty() => {
                // A stall, at times longer than the silence that ends a link.
                let (wire, side) = (self.rng.index(self.wires.len()), self.rng.index(2));
                let time = self.rng.below(20_000_000);
                self.stall(wire, side, time);
            }
            4 if !self.wires.is_empty() => {
                let (wire, side) = (self.rng.index(self.wires.len()), self.rng.index(2));
                self.black_hole(wire, side);
            }
            5 => self.spawn(member, false, true),
            _ => {
                let now = self.now;
                let notice = ShutdownNotice { grace_ms: 10, kill_ms: 10 };
                let links: Vec<LinkId> = self.members[member].links.keys().copied().collect();
                let Some(node) = self.members[member].node.as_mut() else { return };
                let down = links.into_iter().find(|&link| !node.is_parent(link));
                if let Some(link) = down {
                    let wire = self.members[member].links[&link];
                    self.wires[wire].damaged = true;
                    if let Some(node) = self.members[member].node.as_mut() {
                        node.shutdown_child(link, notice, now);
                    }
                }
                self.pump(member);
            }
        }
    }

    fn honest_body(bytes: &Bytes) -> Option<usize> {
        let (tag, rest) = bytes.split_first_chunk::<4>()?;
        (tag == b"call").then_some(())?;
        let (index, _) = rest.split_first_chunk::<4>()?;
        Some(u32::from_le_bytes(*index) as usize)
    }

    fn address_of(&self, member: usize) -> Address {
        self.members[member].address.clone()
    }

    /// The wires between two members.
    fn path(&self, a: usize, b: usize) -> Vec<usize> {
        let up = |mut member: usize| {
            let mut chain = Vec::new();
            while let Some(parent) = self.members[member].parent {
                chain.push((member, self.members[member].up));
                member = parent;
            }
            chain
        };
        let (a, b) = (up(a), up(b));
        let only = |one: &[(usize, Option<usize>)], two: &[(usize, Option<usize>)]| {
            one.iter().filter(|step| !two.contains(step)).filter_map(|step| step.1).collect::<Vec<_>>()
        };
        let mut wires = only(&a, &b);
        wires.extend(only(&b, &a));
        wires
    }
}
