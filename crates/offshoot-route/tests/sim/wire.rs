//! Links that delay, split, stall, swallow and break.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use offshoot_route::{LinkId, Time};
use offshoot_wire::LostReason;

use super::{Action, Rng, World};

/// One direction.
#[derive(Default)]
pub(crate) struct Pipe {
    chunks: VecDeque<(Time, Vec<u8>)>,
    bytes: usize,
    capacity: usize,
    latency: u64,
    last: Time,
    stalled: Time,
    swallows: bool,
    /// The writer found it full.
    blocked: bool,
    ended: bool,
    received: BytesMut,
}

/// A link between a parent (side 0) and a child (side 1). `pipe[side]` carries what that side sends.
pub(crate) struct Wire {
    members: [usize; 2],
    links: [Option<LinkId>; 2],
    pub(crate) pipe: [Pipe; 2],
    pub(crate) frame: u32,
    /// Something was done to it, or to a member at its end, that may fail calls.
    pub(crate) damaged: bool,
    closed: [bool; 2],
}

impl Wire {
    pub(crate) fn new(
        parent: usize,
        link: LinkId,
        child: usize,
        lower: Option<LinkId>,
        frame: u32,
        rng: &mut Rng,
    ) -> Wire {
        let latency = [20, 200, 2000, 40_000][rng.index(4)];
        let mut pipe = || Pipe { capacity: 1 << (12 + rng.below(8)), latency, ..Pipe::default() };
        let pipe = [pipe(), pipe()];
        let (members, links) = ([parent, child], [Some(link), lower]);
        Wire { members, links, pipe, frame, damaged: false, closed: [false; 2] }
    }

    pub(crate) fn other_member(&self, member: usize) -> usize {
        if self.members[0] == member { self.members[1] } else { self.members[0] }
    }

    fn side(&self, member: usize) -> usize {
        usize::from(self.members[1] == member)
    }
}

impl World {
    /// Writes what a node has for a link, as far as its pipe takes it.
    pub(super) fn flush(&mut self, member: usize, link: LinkId) {
        let Some(&wire) = self.members[member].links.get(&link) else { return };
        let side = self.wires[wire].side(member);
        loop {
            let pipe = &mut self.wires[wire].pipe[side];
            if pipe.bytes >= pipe.capacity {
                pipe.blocked = true;
                return;
            }
            let budget = 1 + self.rng.index(128 * 1024);
            let mut bytes = Vec::new();
            let Some(node) = self.members[member].node.as_mut() else { return };
            let more = node.poll_transmit(link, budget, &mut bytes, self.now);
            assert_eq!(more, node.has_output(link));
            let empty = bytes.is_empty();
            self.write(wire, side, bytes);
            if empty || !more {
                return;
            }
        }
    }

    /// Puts bytes into a pipe, in pieces.
    pub(super) fn write(&mut self, wire: usize, side: usize, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            let pipe = &mut self.wires[wire].pipe[side];
            if pipe.swallows || pipe.ended {
                return;
            }
            let piece = match self.rng.below(4) {
                0 => bytes.len().min(1 + self.rng.index(24)),
                _ => bytes.len(),
            };
            let rest = bytes.split_off(piece);
            let jitter = self.rng.below(1 + pipe.latency / 2);
            let at = (self.now + Duration::from_micros(pipe.latency + jitter)).max(pipe.last).max(pipe.stalled);
            pipe.last = at;
            pipe.bytes += bytes.len();
            pipe.chunks.push_back((at, std::mem::replace(&mut bytes, rest)));
            let wait = at.since(self.now).as_micros() as u64;
            self.after(wait, Action::Deliver(wire, side));
        }
    }

    /// Hands over what has arrived of what `side` sent.
    pub(super) fn deliver(&mut self, wire: usize, side: usize) {
        let now = self.now;
        let pipe = &mut self.wires[wire].pipe[side];
        let mut any = false;
        while pipe.chunks.front().is_some_and(|(at, _)| *at <= now && pipe.stalled <= now) {
            let Some((_, bytes)) = pipe.chunks.pop_front() else { break };
            pipe.bytes -= bytes.len();
            pipe.received.extend_from_slice(&bytes);
            any = true;
        }
        if !any {
            return;
        }
        let unblocked = std::mem::replace(&mut pipe.blocked, false);
        let (to, link) = (self.wires[wire].members[1 - side], self.wires[wire].links[1 - side]);
        if self.wires[wire].closed[1 - side] || !self.members[to].alive {
            self.wires[wire].pipe[side].received.clear();
        } else if self.members[to].hostile.is_some() {
            let bytes = self.wires[wire].pipe[side].received.split();
            self.overhear(to, &bytes);
        } else if let (Some(node), Some(link)) = (self.members[to].node.as_mut(), link) {
            let received = &mut self.wires[wire].pipe[side].received;
            node.handle_bytes(link, received, now);
            self.pump(to);
        }
        if unblocked {
            let (from, link) = (self.wires[wire].members[side], self.wires[wire].links[side]);
            if let Some(link) = link {
                self.flush(from, link);
                self.pump(from);
            }
        }
    }

    /// The end of what `side` sent has arrived.
    pub(super) fn eof(&mut self, wire: usize, side: usize) {
        self.deliver(wire, side);
        let pipe = &mut self.wires[wire].pipe[side];
        if pipe.stalled > self.now {
            let wait = pipe.stalled.since(self.now).as_micros() as u64;
            self.after(wait + 1, Action::Eof(wire, side));
            return;
        }
        let other = 1 - side;
        if std::mem::replace(&mut self.wires[wire].closed[other], true) {
            return;
        }
        let (to, link) = (self.wires[wire].members[other], self.wires[wire].links[other]);
        let now = self.now;
        if let (Some(node), Some(link)) = (self.members[to].node.as_mut(), link) {
            node.link_down(link, LostReason::LinkEnd, now);
            self.members[to].links.remove(&link);
            self.pump(to);
        } else if self.members[to].hostile.is_some() {
            self.kill(to);
        }
        self.hang_up(wire, to);
    }

    /// A member closes its end: what it wrote still arrives, then the end.
    pub(super) fn hang_up(&mut self, wire: usize, member: usize) {
        let side = self.wires[wire].side(member);
        let entry = &mut self.wires[wire];
        entry.damaged = true;
        entry.closed[side] = true;
        let pipe = &mut entry.pipe[side];
        if std::mem::replace(&mut pipe.ended, true) {
            return;
        }
        if pipe.swallows {
            return;
        }
        let wait = pipe.last.max(pipe.stalled).since(self.now).as_micros() as u64 + pipe.latency;
        self.after(wait, Action::Eof(wire, side));
    }

    /// A link breaks: what is on its way is lost, and both ends learn of it sooner or later.
    pub(super) fn cut(&mut self, wire: usize) {
        self.wires[wire].damaged = true;
        for side in 0..2 {
            let pipe = &mut self.wires[wire].pipe[side];
            if std::mem::replace(&mut pipe.ended, true) {
                continue;
            }
            pipe.chunks.clear();
            pipe.bytes = 0;
            let wait = self.rng.below(3_000_000);
            self.after(wait, Action::Eof(wire, side));
        }
    }

    pub(super) fn stall(&mut self, wire: usize, side: usize, micros: u64) {
        self.wires[wire].damaged = true;
        let until = self.now + Duration::from_micros(micros);
        let pipe = &mut self.wires[wire].pipe[side];
        pipe.stalled = pipe.stalled.max(until);
        pipe.last = pipe.last.max(until);
        self.after(micros + 1, Action::Deliver(wire, side));
    }

    /// From now on one direction swallows everything, and nobody is told.
    pub(super) fn black_hole(&mut self, wire: usize, side: usize) {
        self.wires[wire].damaged = true;
        let pipe = &mut self.wires[wire].pipe[side];
        pipe.swallows = true;
        pipe.chunks.clear();
        pipe.bytes = 0;
        pipe.blocked = false;
    }
}
