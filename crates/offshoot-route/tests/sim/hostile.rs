//! Hostile members: they completed the hello, and then send anything.

use bytes::Bytes;
use offshoot_wire::{
    Ack, Address, Bye, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameKind, Gone, Grant, GrantLink,
    Limits, LostReason, Ping, RequestHead, ShutdownNotice, Verb, VerbSet, encode, parse_frame,
};

use super::{Action, World};

/// The state of one.
#[derive(Default)]
pub(crate) struct Hostile {
    /// Exchanges that it saw: requester, number, target.
    names: Vec<(Address, u64, Address)>,
    pings: u64,
    /// Frames that a flood repeats.
    last: Vec<u8>,
    requests: u64,
}

impl World {
    /// A hostile member reads what it is sent, and remembers names.
    pub(super) fn overhear(&mut self, member: usize, bytes: &[u8]) {
        let Some(hostile) = self.members[member].hostile.as_mut() else { return };
        let mut at = 0;
        while let Ok(Some(frame)) = parse_frame(&bytes[at..], &Limits::default()) {
            let header = frame.header;
            match header.kind {
                FrameKind::Ping => hostile.pings = hostile.pings.wrapping_add(1),
                kind if kind.is_routed() && hostile.names.len() < 100 => {
                    let target = if header.answer { header.src.clone() } else { header.dst.clone() };
                    hostile.names.push((header.requester().clone(), header.exchange, target));
                }
                _ => {}
            }
            at += frame.length;
        }
    }

    pub(super) fn evil(&mut self, member: usize) {
        if !self.members[member].alive || self.ending {
            return;
        }
        let Some(wire) = self.members[member].up else { return };
        if self.rng.chance(3) {
            // A grant of its own: the right to ask one honest member one thing.
            let target = self.some_honest();
            let (holder, now) = (self.address_of(member), self.now);
            let verbs = VerbSet::NONE.with(if self.rng.chance(50) { Verb::Echo } else { Verb::Exec });
            let ttl = std::time::Duration::from_secs(1000);
            if let Some(node) = self.members[target].node.as_mut()
                && let Ok(grant) = node.grant(&holder, verbs, None, ttl, now)
            {
                self.legit.push((target, grant.number, holder, verbs));
                self.seen.push(grant);
            }
        }
        let count = if self.rng.chance(5) { 300 } else { 1 + self.rng.below(6) };
        let mut bytes = Vec::new();
        for _ in 0..count {
            self.stats.evil_frames += 1;
            self.evil_frame(member, &mut bytes);
        }
        if self.rng.chance(1) {
            let at = self.rng.index(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.rng.below(8);
            }
        }
        self.write(wire, 1, bytes);
        let wait = self.rng.below(400_000);
        self.after(wait, Action::Evil(member));
        if self.rng.chance(1) {
            let parent = self.some_honest();
            self.spawn(parent, true, false);
        }
    }

    fn some_address(&mut self, member: usize, careful: bool) -> Address {
        let own = self.address_of(member);
        match self.rng.below(if careful { 3 } else { 9 }) {
            0 | 1 => own,
            2 => own.child(self.rng.below(3) as u32).unwrap_or(own),
            3 => own.parent().unwrap_or(own),
            4 => Address::ROOT,
            5 => own.parent().and_then(|up| up.child(self.rng.below(8) as u32).ok()).unwrap_or(own),
            _ => self.any_member(),
        }
    }

    fn any_member(&mut self) -> Address {
        let index = self.rng.index(self.members.len());
        let address = self.address_of(index);
        if self.rng.chance(10) { address.child(self.rng.below(4) as u32).unwrap_or(address) } else { address }
    }

    fn some_number(&mut self, member: usize) -> u64 {
        let (name, guess) = (self.rng.next(), self.rng.below(3));
        let hostile = self.members[member].hostile.as_mut().expect("a hostile member");
        match guess {
            0 if !hostile.names.is_empty() => hostile.names[name as usize % hostile.names.len()].1,
            // The shape of an honest number: a serial and a slot.
            1 => (((name % 60) + 1) << 20) | ((name >> 32) % 8),
            _ => {
                hostile.requests += 1;
                hostile.requests
            }
        }
    }

    fn evil_grant(&mut self, target: &Address, verb: Verb) -> Option<Grant> {
        if self.rng.chance(20) {
            return None;
        }
        if self.rng.chance(70) && !self.seen.is_empty() {
            let index = self.rng.index(self.seen.len());
            let mut grant = self.seen[index].clone();
            match self.rng.below(6) {
                0 => grant.target = target.clone(),
                1 => grant.number = grant.number.wrapping_add(1),
                2 => grant.seal[0] ^= 1,
                3 => grant.links[0].verbs = Verb::ALL.into_iter().collect(),
                _ => {}
            }
            return Some(grant);
        }
        let link =
            GrantLink { holder: Address::ROOT, verbs: VerbSet::NONE.with(verb), handle: None, expires_ms: u64::MAX };
        Some(Grant { target: target.clone(), number: self.rng.next(), links: vec![link], seal: [5; 32] })
    }

    fn evil_frame(&mut self, member: usize, out: &mut Vec<u8>) {
        // Most of the time it keeps to what its parent cannot tell at once, or it would be cut off at its first frame.
        let careful = !self.rng.chance(2);
        let src = self.some_address(member, careful);
        let own = self.address_of(member);
        let mut dst = self.any_member();
        if careful && dst.is_under(&own) {
            dst = own.parent().unwrap_or(Address::ROOT);
        }
        let channel = self.rng.below(if careful { 4 } else { 9 }) as u8;
        let kind = if careful {
            [
                FrameKind::Request,
                FrameKind::Request,
                FrameKind::Reply,
                FrameKind::Failure,
                FrameKind::Data,
                FrameKind::End,
                FrameKind::Credit,
                FrameKind::Stop,
                FrameKind::Cancel,
                FrameKind::Log,
                FrameKind::Ping,
                FrameKind::Gone,
            ][self.rng.index(12)]
        } else {
            FrameKind::ALL[self.rng.index(16)]
        };
        let start = out.len();
        if !kind.is_routed() {
            let text = String::from("evil");
            let body = match kind {
                FrameKind::Ping | FrameKind::Pong => encode(&Ping { seq: self.rng.below(9) }),
                FrameKind::Ack => encode(&Ack { bulk: self.rng.below(100_000) }),
                FrameKind::Gone => {
                    let prefix = if careful { own.child(self.rng.below(5) as u32).unwrap_or(own) } else { src };
                    encode(&Gone { prefix, reason: LostReason::Violation(text) })
                }
                FrameKind::Bye => encode(&Bye { reason: LostReason::Violation(text) }),
                FrameKind::Shutdown => encode(&ShutdownNotice { grace_ms: 0, kill_ms: 0 }),
                _ => vec![1, 2, 3],
            };
            Frame::link(kind, body.into()).encode(out);
            return;
        }
        let number = self.some_number(member);
        let verb = Verb::ALL[self.rng.index(Verb::ALL.len())];
        let body = match kind {
            FrameKind::Request => {
                let grant = self.evil_grant(&dst, verb);
                let window = self.rng.below(200_000) as u32;
                let number = if self.rng.chance(5) { self.rng.next() as u16 } else { verb.number() };
                let mut body = encode(&RequestHead { verb: number, window, grant });
                body.extend(b"evil body");
                body
            }
            FrameKind::Failure => encode(&Failure::new(FailureKind::Denied, "forged")),
            FrameKind::Data => {
                let mut body = vec![channel];
                let len = [0, 1, 100, 20_000][self.rng.index(4)];
                body.resize(1 + len, 0xee);
                body
            }
            FrameKind::End => {
                let reason = EndReason::Failed("evil".into());
                encode(&ChannelEnd { channel, total: self.rng.below(3) * 1000, reason })
            }
            FrameKind::Credit => encode(&Credit { channel, total: self.rng.below(9_000_000) }),
            FrameKind::Stop => vec![channel],
            _ => b"evil".to_vec(),
        };
        let mut frame = Frame::routed(kind, dst, src, number).with_body(Bytes::from(body));
        if matches!(kind, FrameKind::Data | FrameKind::End | FrameKind::Credit | FrameKind::Stop) {
            frame.header.answer = self.rng.chance(50);
        }
        frame.header.full = self.rng.chance(50);
        frame.encode(out);
        let hostile = self.members[member].hostile.as_mut().expect("a hostile member");
        if self.rng.chance(6) {
            hostile.last = out[start..].to_vec();
        } else if self.rng.chance(6) {
            // A replay of something said before.
            out.extend_from_slice(&hostile.last);
        }
    }
}
