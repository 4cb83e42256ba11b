//! Requests and their answers: who may ask, what enters the table of exchanges, and how one ends.

use bytes::Bytes;
use offshoot_wire::{Authority, Failure, FailureKind, FrameHeader, FrameKind, Limits, Ran, RequestHead, Verb, decode};

use super::Node;
use super::input::{Fault, Payload};
use super::size::{failure_body, fits, room};
use crate::event::{Event, ExchangeId, LinkId};
use crate::exchange::{ASKER, End, Item, SERVER, flow_ref, other};
use crate::link::Role;
use crate::outbox::{find, find_mut};
use crate::policy::{Channels, permits};
use crate::time::Time;

/// What a refusal counts against.
#[derive(Clone, Copy)]
enum Charge {
    /// What an honest neighbour would not have let through: charged to it whoever is said to ask.
    Passed,
    /// Asking what may not be asked: charged when the neighbour itself asks. A relay cannot tell a good grant.
    Refusal,
    /// Asking what is gone, or too much: charged when the neighbour itself asks.
    Bounce,
}

impl Node {
    pub(super) fn request_frame(
        &mut self,
        from: LinkId,
        header: FrameHeader,
        body: Payload<'_>,
        now: Time,
    ) -> Result<(), Fault> {
        if self.exchanges.find(&header.src, header.exchange, &self.address).is_some() {
            // Through a relay this can be a race of a hostile context with its own notice of loss: dropped.
            return self.stray_or_fault(from, &header.src, "a request by the name of one that runs");
        }
        if header.dst == self.address {
            return self.serve(from, header, body, now);
        }
        let out = match self.route(&header.dst) {
            Ok(out) => out,
            Err(failure) => return self.refuse(from, &header, failure, Charge::Bounce, now),
        };
        let (verb, window, has_grant) = match RequestHead::peek(body.as_slice()) {
            Ok(head) => head,
            Err(error) => {
                let failure = self.failure(FailureKind::Malformed, format!("the request's head: {error}"));
                return self.refuse(from, &header, failure, Charge::Passed, now);
            }
        };
        let from_child = find(&self.links, from).is_some_and(|link| link.role == Role::Child);
        let open = Verb::from_number(verb).is_some_and(|verb| permits(verb, Authority::None));
        if from_child && !has_grant && !open {
            let failure =
                self.failure(FailureKind::Denied, format!("{} may ask {} only by a grant", header.src, header.dst));
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        if u64::from(window) > Limits::WINDOW_START {
            let failure = self.failure(FailureKind::Malformed, "the first window is beyond 128 KiB");
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        let length = body.as_slice().len();
        if let Err((failure, charge)) = self.admit(from, out, &header, length, verb, window) {
            return self.refuse(from, &header, failure, charge, now);
        }
        let slot = self.enter(from, out, &header, Channels::of_number(verb), window);
        let mut item = Item::new(FrameKind::Request, body.into_bytes(0));
        item.full = header.full;
        self.push(flow_ref(slot, SERVER), item);
        Ok(())
    }

    /// Whether a request from `from` may pass to `out`.
    fn admit(
        &self,
        from: LinkId,
        out: LinkId,
        header: &FrameHeader,
        length: usize,
        verb: u16,
        window: u32,
    ) -> Result<(), (Failure, Charge)> {
        let (Some(asker), Some(next)) = (find(&self.links, from), find(&self.links, out)) else {
            return Err((self.failure(FailureKind::NoRoute, "the link ended"), Charge::Bounce));
        };
        let most = match asker.role {
            Role::Child => self.config.max_turned_per_child,
            Role::Parent => self.config.max_passed_from_parent,
        };
        if asker.turned >= most || self.is_full(asker.role) {
            return Err((self.busy("as many requests as may pass here at once are under way"), Charge::Bounce));
        }
        if !fits(next.frame, header, length) {
            let message = format!("a request of {length} bytes does not fit the link to {}", next.address);
            return Err((self.failure(FailureKind::TooLarge, message), Charge::Bounce));
        }
        let more = length as u64;
        // The mark is believed of the parent alone: ancestors have a share of their own, which no other context uses up.
        let most = if header.full { self.config.call_window } else { self.config.call_budget };
        if self.outbox.calls_of(out, from, header.full).saturating_add(more) > most
            || (asker.role == Role::Child && asker.charged.saturating_add(more) > self.config.call_budget)
        {
            return Err((self.busy("as many bytes of requests as may wait here do"), Charge::Bounce));
        }
        let channels = Channels::of_number(verb);
        let coming = u64::from(channels.answer.count_ones()) * u64::from(window);
        if coming > 0 && !asker.has_room_for(coming, &self.config) {
            return Err((self.busy("as much stream data as may wait here is promised"), Charge::Bounce));
        }
        Ok(())
    }

    /// Makes the exchange of a request from another context.
    fn enter(&mut self, from: LinkId, to: LinkId, header: &FrameHeader, channels: Channels, window: u32) -> u32 {
        let ends = [End::at(from), End::at(to)];
        let slot = self.exchanges.insert(header.src.clone(), Some(header.exchange), header.dst.clone(), ends);
        let exchange = &mut self.exchanges[slot];
        exchange.charge = from;
        exchange.readable = [channels.answer, channels.ask];
        exchange.initial = [window.into(), Limits::WINDOW_FLOOR];
        for side in [ASKER, SERVER] {
            let granted = u64::from(exchange.readable[side].count_ones()) * exchange.initial[side];
            if exchange.end[side].link.is_local() {
                exchange.reserved += granted;
                self.granted += granted;
            } else if !exchange.end[other(side)].link.is_local() {
                exchange.outstanding[side] = granted;
                if let Some(link) = find_mut(&mut self.links, exchange.end[side].link) {
                    link.outstanding += granted;
                }
            }
        }
        if let Some(link) = find_mut(&mut self.links, from) {
            exchange.below = link.role == Role::Child;
            self.below += usize::from(exchange.below);
            if to.is_local() {
                link.served += 1;
            } else {
                link.turned += 1;
            }
        }
        self.join_peer(slot, ASKER);
        self.join_peer(slot, SERVER);
        slot
    }

    fn serve(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>, now: Time) -> Result<(), Fault> {
        let (head, start) = match RequestHead::split(body.as_slice()) {
            Ok((head, rest)) => (head, body.as_slice().len() - rest.len()),
            Err(error) => {
                let failure = self.failure(FailureKind::Malformed, format!("the request's head: {error}"));
                return self.refuse(from, &header, failure, Charge::Refusal, now);
            }
        };
        if u64::from(head.window) > Limits::WINDOW_START {
            let failure = self.failure(FailureKind::Malformed, "the first window is beyond 128 KiB");
            return self.refuse(from, &header, failure, Charge::Passed, now);
        }
        let Some(verb) = head.verb() else {
            let failure = self.failure(FailureKind::Unsupported, format!("no verb has the number {}", head.verb));
            return self.refuse(from, &header, failure, Charge::Refusal, now);
        };
        let Some(link) = find(&self.links, from) else { return Ok(()) };
        let (authority, handle) = if header.full && link.role == Role::Parent {
            (Authority::Full, None)
        } else if let Some(grant) = &head.grant {
            match self.check_grant(grant, &header.src, verb, now) {
                Ok(handle) => (Authority::Granted, handle),
                Err(message) => {
                    let failure = self.failure(FailureKind::Denied, message);
                    return self.refuse(from, &header, failure, Charge::Refusal, now);
                }
            }
        } else if link.role == Role::Child && header.src == link.address {
            (Authority::Child, None)
        } else {
            (Authority::None, None)
        };
        if !permits(verb, authority) {
            let failure = self.failure(FailureKind::Denied, format!("{} may not ask for {verb:?} here", header.src));
            let charge = if authority == Authority::None { Charge::Passed } else { Charge::Refusal };
            return self.refuse(from, &header, failure, charge, now);
        }
        let most = match link.role {
            Role::Child => self.config.max_served_per_child,
            Role::Parent => self.config.max_served_from_parent,
        };
        if link.served >= most || self.is_full(link.role) {
            let failure = self.busy("as many requests as this context serves at once are under way");
            return self.refuse(from, &header, failure, Charge::Bounce, now);
        }
        let slot = self.enter(from, LinkId::LOCAL, &header, Channels::of(verb), head.window);
        let exchange = &mut self.exchanges[slot];
        exchange.grant = head.grant.map(|grant| grant.number).filter(|_| authority == Authority::Granted);
        let id = ExchangeId(exchange.id);
        let body = body.into_bytes(start);
        self.events.push_back(Event::Request { id, verb, authority, handle, from: header.src, body });
        Ok(())
    }

    /// Whether there is no place for another exchange from this side. What children asked fills up its own share only.
    fn is_full(&self, role: Role) -> bool {
        self.exchanges.is_full() || (role == Role::Child && self.below >= self.config.max_exchanges)
    }

    /// Answers a request that gets no exchange.
    fn refuse(
        &mut self,
        from: LinkId,
        header: &FrameHeader,
        failure: Failure,
        charge: Charge,
        now: Time,
    ) -> Result<(), Fault> {
        let (refusals, bounces, budget) = (self.config.refusals, self.config.bounces, self.config.control_budget);
        let Some(link) = find_mut(&mut self.links, from) else { return Ok(()) };
        link.stats.refused += 1;
        let near = link.address == header.src;
        let within = match charge {
            _ if link.role == Role::Parent => true,
            Charge::Passed => link.refusals.take(1, refusals, now),
            _ if !near => true,
            Charge::Refusal => link.refusals.take(1, refusals, now),
            Charge::Bounce => link.bounces.take(1, bounces, now),
        };
        if !within {
            return Err(format!("a flood of requests that are refused, the last: {}", failure.message).into());
        }
        if link.raw_bytes > if near { budget } else { budget.saturating_mul(16) } {
            return Err("refusals are asked for and not read".into());
        }
        let back = FrameHeader {
            kind: FrameKind::Failure,
            full: link.role == Role::Child,
            answer: true,
            dst: header.src.clone(),
            src: header.dst.clone(),
            exchange: header.exchange,
        };
        let body = failure_body(failure, room(link.frame, &back));
        let mut frame = Vec::with_capacity(body.len() + 48);
        back.encode(body.len(), &mut frame);
        frame.extend_from_slice(&body);
        link.push_raw(frame);
        self.mark_ready(from);
        Ok(())
    }

    pub(super) fn answer_frame(&mut self, from: LinkId, header: FrameHeader, body: Payload<'_>) -> Result<(), Fault> {
        let Some(slot) = self.known(from, &header, SERVER)? else { return Ok(()) };
        let good = header.kind == FrameKind::Reply;
        self.settle(slot, good, body.into_bytes(0));
        Ok(())
    }

    /// Ends an exchange with its answer: a reply's body, or an encoded failure.
    pub(super) fn settle(&mut self, slot: u32, good: bool, body: Bytes) {
        let exchange = &self.exchanges[slot];
        let id = ExchangeId(exchange.id);
        let to = exchange.end[ASKER].link;
        self.outbox.clear(&mut self.exchanges, &mut self.links, flow_ref(slot, SERVER));
        if to.is_local() {
            let result = if good { Ok(body) } else { Err(self.read_failure(&body)) };
            self.close(slot);
            self.events.push_back(Event::Done { id, result });
            return;
        }
        let item = match find(&self.links, to) {
            Some(link) => {
                let exchange = &self.exchanges[slot];
                let header = FrameHeader {
                    kind: FrameKind::Reply,
                    full: false,
                    answer: true,
                    dst: exchange.requester.clone(),
                    src: exchange.target.clone(),
                    exchange: exchange.number,
                };
                let room = room(link.frame, &header);
                let waits = link.answers_queued.saturating_add(body.len() as u64);
                if !good && body.len() <= room {
                    Item::new(FrameKind::Failure, body)
                } else if !good {
                    let failure = self.read_failure(&body);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else if body.len() > room {
                    let message = format!("an answer of {} bytes does not fit a link on the way", body.len());
                    let failure = self.failure(FailureKind::TooLarge, message).ran(Ran::Executed);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else if waits > self.config.answer_budget {
                    let failure = self.busy("more answers wait than may, the way back is too slow").ran(Ran::Executed);
                    Item::new(FrameKind::Failure, failure_body(failure, room).into())
                } else {
                    Item::new(FrameKind::Reply, body)
                }
            }
            None => Item::new(FrameKind::Reply, Bytes::new()),
        };
        self.push(flow_ref(slot, ASKER), item);
        self.close(slot);
    }

    /// Decodes a failure that another context sent.
    fn read_failure(&self, body: &[u8]) -> Failure {
        decode(body).unwrap_or_else(|error| {
            self.failure(FailureKind::Malformed, format!("a failure that cannot be read: {error}"))
                .ran(Ran::MaybeExecuted)
        })
    }

    pub(super) fn cancel_frame(&mut self, from: LinkId, header: FrameHeader) -> Result<(), Fault> {
        if let Some(slot) = self.known(from, &header, ASKER)? {
            self.drop_asker(slot);
        }
        Ok(())
    }
}
