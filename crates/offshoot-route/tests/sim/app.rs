//! What honest members do: ask, serve, stream, read slowly, cancel. The request says what its answer is to be.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use offshoot_route::{Event, ExchangeId, narrow};
use offshoot_wire::{
    Authority, EndReason, Failure, FailureKind, Grant, GrantLink, Ran, RemoteFailure, Verb, VerbSet, channel,
};

use super::{Action, Call, Member, Rng, World};

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Echo,
    Delayed,
    Fails,
    Never,
    Stream,
    /// The requester stops the output half way.
    Stopped,
    /// The answer does not wait for the input.
    Early,
}

const MODES: [Mode; 7] =
    [Mode::Echo, Mode::Delayed, Mode::Fails, Mode::Never, Mode::Stream, Mode::Stopped, Mode::Early];

/// An exchange that is served.
#[derive(Debug)]
pub(crate) struct Serving {
    call: Option<usize>,
    out: u64,
    written: u64,
    input: u64,
    got: u64,
    input_ended: bool,
    early: bool,
}

/// The state of a member's application.
#[derive(Default)]
pub(crate) struct App {
    serving: BTreeMap<ExchangeId, Serving>,
    asked: BTreeMap<ExchangeId, (usize, u64)>,
}

impl App {
    pub(crate) fn serving(&self) -> &BTreeMap<ExchangeId, Serving> {
        &self.serving
    }
}

/// The longest piece that is written at once.
const PIECE: u64 = 100_000;

/// After how many bytes the content of a stream comes again: a prime, so that no size of a frame divides it.
const PERIOD: usize = 65_521;

/// The content of all streams: noise, each stream beginning at a place of its own. Slices of it are written and compared
/// with what arrives; making each byte anew took most of a run's time.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = Rng::new(0xc0ffee);
    let period: Vec<u8> = (0..PERIOD).map(|_| rng.next() as u8).collect();
    period.iter().copied().cycle().take(PERIOD + PIECE as usize).collect::<Vec<u8>>().into()
});

/// At most [`PIECE`] bytes of a stream, beginning with its byte `from`.
fn pattern(call: usize, channel: u8, from: u64, len: usize) -> Bytes {
    let start = (call as u64 * 31 + u64::from(channel) * 7703 + from) as usize % PERIOD;
    NOISE.slice(start..start + len)
}

impl World {
    pub(super) fn ask(&mut self) {
        let (from, to) = (self.some_honest(), self.some_honest());
        if from == to {
            return;
        }
        let now = self.now;
        let (source, target) = (self.address_of(from), self.address_of(to));
        let mode = MODES[self.rng.index(MODES.len())];
        let streams = matches!(mode, Mode::Stream | Mode::Stopped | Mode::Early);
        let verb = if streams { Verb::Exec } else { Verb::Echo };
        let below = target.is_below(&source);
        let mut granted = None;
        let grant = if below && self.rng.chance(80) {
            None
        } else {
            // Whom one may not simply ask gives a grant; it travels outside the simulation.
            let verbs: VerbSet = [Verb::Echo, Verb::Exec].into_iter().collect();
            let ttl = std::time::Duration::from_secs(1000);
            let node = self.members[to].node.as_mut();
            let Some(mut grant) = node.and_then(|node| node.grant(&source, verbs, None, ttl, now).ok()) else { return };
            self.legit.push((to, grant.number, source.clone(), verbs));
            if self.rng.chance(30) {
                let link = GrantLink { verbs: VerbSet::NONE.with(verb), ..grant.links[0].clone() };
                grant = narrow(&grant, link).expect("it is narrower");
            }
            if self.rng.chance(10) {
                let wait = self.rng.below(2_000_000);
                self.after(wait, Action::Revoke(to, grant.number));
            }
            granted = Some((to, grant.number));
            self.seen.push(grant.clone());
            Some(grant)
        };
        let most = self.setting.stream.max(1);
        let (out, input) = if streams { (self.rng.below(most), self.rng.below(most)) } else { (0, 0) };
        let index = self.calls.len();
        let mut body = b"call".to_vec();
        body.extend((index as u32).to_le_bytes());
        body.push(MODES.iter().position(|other| *other == mode).unwrap_or(0) as u8);
        body.extend(out.to_le_bytes());
        body.extend(input.to_le_bytes());
        let padding = [0, 0, 10, 3000, 40_000][self.rng.index(5)];
        body.resize(body.len() + padding, 0xaa);
        let wires = self.path(from, to);
        self.calls.push(Call {
            from,
            to,
            target: target.clone(),
            mode,
            out,
            input,
            exchange: None,
            executed: 0,
            completed: 0,
            cancelled: false,
            not_sent: false,
            got: 0,
            ended: false,
            granted,
            wires,
        });
        self.stats.calls += 1;
        self.send_request(index, verb, body.into(), grant);
        let cancels = mode != Mode::Never && self.rng.chance(15);
        if cancels {
            let wait = self.rng.below(300_000);
            self.after(wait, Action::Cancel(index));
        }
    }

    fn send_request(&mut self, index: usize, verb: Verb, body: Bytes, grant: Option<Grant>) {
        let (from, target, now) = (self.calls[index].from, self.calls[index].target.clone(), self.now);
        let Some(node) = self.members[from].node.as_mut() else { return };
        match node.request(&target, verb, body, grant, now) {
            Ok(id) => {
                self.calls[index].exchange = Some(id);
                self.members[from].app.asked.insert(id, (index, 0));
                self.write_input(from, id);
            }
            Err(failure) => {
                self.calls[index].completed = 1;
                assert_eq!(failure.ran, Ran::NotSent);
                self.stats.failed += 1;
                self.judge(index, &failure);
            }
        }
        self.pump(from);
    }

    pub(super) fn cancel(&mut self, index: usize) {
        let (call, now) = (&mut self.calls[index], self.now);
        let Some(id) = call.exchange else { return };
        if call.completed > 0 || call.cancelled {
            return;
        }
        call.cancelled = true;
        self.stats.cancelled += 1;
        let from = call.from;
        self.members[from].app.asked.remove(&id);
        if let Some(node) = self.members[from].node.as_mut() {
            node.cancel(id, now);
        }
        self.pump(from);
    }

    pub(super) fn app_event(&mut self, member: usize, event: Event) {
        match event {
            Event::Request { id, verb, authority, handle, from, body } => {
                assert_eq!(handle, None);
                self.requested(member, id, verb, authority, &from, body);
            }
            Event::Done { id, result } => self.done(member, id, result),
            Event::Data { id, channel, data } => self.arrived(member, id, channel, data),
            Event::End { id, channel, reason } => {
                assert_eq!(reason, EndReason::Done);
                if let Some((index, _)) = self.members[member].app.asked.get(&id) {
                    assert_eq!(channel, channel::STDOUT);
                    let call = &mut self.calls[*index];
                    assert!(!call.ended);
                    assert_eq!(call.got, call.out, "the output ended early");
                    call.ended = true;
                } else if let Some(serving) = self.members[member].app.serving.get_mut(&id) {
                    if serving.call.is_some() {
                        assert_eq!(serving.got, serving.input, "the input ended early");
                    }
                    serving.input_ended = true;
                    self.write_output(member, id);
                }
            }
            Event::Writable { id, .. } | Event::Stopped { id, .. } => {
                self.write_output(member, id);
                self.write_input(member, id);
            }
            Event::Cancelled { id } => {
                // What this member has answered itself meanwhile may still be in the queue of events.
                self.members[member].app.serving.remove(&id);
            }
            other => panic!("not the application's: {other:?}"),
        }
    }

    fn requested(
        &mut self,
        member: usize,
        id: ExchangeId,
        verb: Verb,
        authority: Authority,
        from: &offshoot_wire::Address,
        body: Bytes,
    ) {
        let now = self.now;
        let honest = World::honest_body(&body)
            .filter(|&index| self.calls.get(index).is_some_and(|call| self.members[call.from].address == *from));
        let Some(index) = honest else {
            assert!(self.is_evil(from), "an honest request that nobody asked, from {from}");
            let may = match authority {
                Authority::Full => false,
                Authority::Granted => self.may_ask(member, from, verb),
                Authority::Child => matches!(verb, Verb::Payload | Verb::Image),
                Authority::None => false,
            };
            assert!(may, "a hostile request for {verb:?} from {from} ran by {authority:?}");
            let streams = self.rng.chance(50);
            let serving = Serving {
                call: None,
                out: if streams { 300_000 } else { 0 },
                written: 0,
                input: u64::MAX,
                got: 0,
                input_ended: false,
                early: self.rng.chance(70),
            };
            self.members[member].app.serving.insert(id, serving);
            self.write_output(member, id);
            return;
        };
        let call = &mut self.calls[index];
        assert_eq!(call.to, member, "a request reached another context");
        call.executed += 1;
        assert_eq!(call.executed, 1, "call {index} ran twice");
        assert!(!call.not_sent, "call {index} ran after it was said not to have been sent");
        let (mode, out, input) = (call.mode, call.out, call.input);
        if call.granted.is_none() {
            assert_eq!(authority, Authority::Full);
        }
        let early = mode == Mode::Early;
        let serving = Serving { call: Some(index), out, written: 0, input, got: 0, input_ended: false, early };
        self.members[member].app.serving.insert(id, serving);
        match mode {
            Mode::Echo => {
                self.members[member].app.serving.remove(&id);
                if let Some(node) = self.members[member].node.as_mut() {
                    node.reply(id, body, now);
                }
            }
            Mode::Delayed | Mode::Fails => {
                let wait = self.rng.below(2_000_000);
                self.after(wait, Action::Reply(member, id));
            }
            Mode::Never => {}
            Mode::Stream | Mode::Stopped | Mode::Early => {
                if let Some(node) = self.members[member].node.as_mut() {
                    node.consumed(id, channel::STDIN, 0, now);
                }
                self.write_output(member, id);
            }
        }
    }

    /// A delayed answer is due.
    pub(super) fn answer(&mut self, member: usize, id: ExchangeId) {
        let now = self.now;
        let Some(serving) = self.members[member].app.serving.remove(&id) else { return };
        let Some(index) = serving.call else { return };
        let Some(node) = self.members[member].node.as_mut() else { return };
        if self.calls[index].mode == Mode::Fails {
            let kind = FailureKind::Remote(RemoteFailure::Error);
            node.fail(id, Failure::new(kind, "as asked").ran(Ran::Executed), now);
        } else {
            node.reply(id, Bytes::from_static(b"late"), now);
        }
        self.pump(member);
    }

    fn done(&mut self, member: usize, id: ExchangeId, result: Result<Bytes, Failure>) {
        let (index, _) = self.members[member].app.asked.remove(&id).expect("a completion of what was asked, once");
        let call = &mut self.calls[index];
        call.completed += 1;
        assert_eq!(call.completed, 1, "call {index} completed twice");
        assert!(!call.cancelled, "call {index} completed after its cancel");
        if call.mode == Mode::Stopped
            && let Some(node) = self.members[member].node.as_mut()
        {
            // What it does not read is thrown away.
            node.cancel(id, self.now);
        }
        match result {
            Ok(body) => {
                assert_eq!(call.executed, 1, "call {index} is answered and did not run");
                self.stats.answered += 1;
                match call.mode {
                    Mode::Echo => assert_eq!(World::honest_body(&body), Some(index), "a forged answer"),
                    Mode::Stream | Mode::Early => {
                        assert_eq!(call.got, call.out, "call {index} is answered before its output has come");
                        assert!(call.ended);
                        assert_eq!(&body[..], b"done");
                    }
                    Mode::Stopped => assert_eq!(&body[..], b"done"),
                    Mode::Delayed => assert_eq!(&body[..], b"late"),
                    Mode::Fails | Mode::Never => panic!("call {index} cannot be answered well"),
                }
            }
            Err(failure) => {
                self.stats.failed += 1;
                self.judge(index, &failure);
            }
        }
    }

    fn arrived(&mut self, member: usize, id: ExchangeId, channel: u8, data: Bytes) {
        let now = self.now;
        assert!(!data.is_empty());
        self.stats.streamed += data.len() as u64;
        let app = &mut self.members[member].app;
        if let Some((index, _)) = app.asked.get(&id) {
            let call = &mut self.calls[*index];
            assert_eq!(channel, channel::STDOUT);
            assert!(!call.ended, "data behind its end");
            check(*index, channel, call.got, &data);
            call.got += data.len() as u64;
            assert!(call.got <= call.out);
            if call.mode == Mode::Stopped && call.got * 2 > call.out {
                if let Some(node) = self.members[member].node.as_mut() {
                    node.stop(id, channel, now);
                }
                return;
            }
        } else if let Some(serving) = app.serving.get_mut(&id) {
            if let Some(index) = serving.call {
                assert_eq!(channel, channel::STDIN);
                check(index, channel, serving.got, &data);
            }
            serving.got += data.len() as u64;
            assert!(serving.call.is_none() || serving.got <= serving.input);
        } else {
            // This member ended the exchange itself while the data was in the queue of events.
            let node = self.members[member].node.as_ref();
            assert!(node.is_some_and(|node| !node.is_open(id)), "data of no exchange");
            return;
        }
        let slow = self.rng.chance(20);
        let wait = if slow { self.rng.below(400_000) } else { 0 };
        if wait == 0 {
            if let Some(node) = self.members[member].node.as_mut() {
                node.consumed(id, channel, data.len(), now);
            }
        } else {
            self.after(wait, Action::Read(member, id, channel, data.len()));
        }
    }

    /// Writes as much output as goes, and answers when all is done.
    fn write_output(&mut self, member: usize, id: ExchangeId) {
        let now = self.now;
        let Member { app, node: Some(node), .. } = &mut self.members[member] else { return };
        let Some(serving) = app.serving.get_mut(&id) else { return };
        while serving.written < serving.out {
            let piece = (serving.out - serving.written).min(1 + self.rng.below(PIECE)) as usize;
            let data = pattern(serving.call.unwrap_or(0), channel::STDOUT, serving.written, piece);
            let taken = node.send(id, channel::STDOUT, data, now);
            serving.written += taken as u64;
            if taken < piece {
                return;
            }
        }
        if serving.written == serving.out && (serving.input_ended || serving.early) {
            node.finish(id, channel::STDOUT, EndReason::Done, now);
            node.reply(id, Bytes::from_static(b"done"), now);
            app.serving.remove(&id);
        }
    }

    /// Writes as much input as goes.
    fn write_input(&mut self, member: usize, id: ExchangeId) {
        let now = self.now;
        let Member { app, node: Some(node), .. } = &mut self.members[member] else { return };
        let Some((index, written)) = app.asked.get_mut(&id) else { return };
        let call = &self.calls[*index];
        if !matches!(call.mode, Mode::Stream | Mode::Stopped | Mode::Early) {
            return;
        }
        while *written < call.input {
            let piece = (call.input - *written).min(1 + self.rng.below(PIECE)) as usize;
            let taken = node.send(id, channel::STDIN, pattern(*index, channel::STDIN, *written, piece), now);
            *written += taken as u64;
            if taken < piece {
                return;
            }
        }
        node.finish(id, channel::STDIN, EndReason::Done, now);
    }
}

fn check(call: usize, channel: u8, from: u64, data: &[u8]) {
    let expected = pattern(call, channel, from, data.len());
    if data != expected {
        let wrong = data.iter().zip(&expected).position(|(got, expected)| got != expected);
        let wrong = from + wrong.expect("they are equally long and differ") as u64;
        panic!("call {call}: byte {wrong} of channel {channel} is wrong");
    }
}
