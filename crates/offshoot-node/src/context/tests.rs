//! Contexts below a root whose other end is played by the test, frame by frame.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use bytes::BytesMut;
use offshoot_mux::{io as fd, wait_readable};
use offshoot_route::{Config, Event, LinkId, Node, Time};
use offshoot_wire::{Limits, Ran, Recipe, RequestHead, Start, parse_frame};

use super::*;
use crate::home::Homecoming;
use crate::link::LinkFds;
use crate::links::NewLink;
use crate::{Options, OwnImage, Root, identity};

/// A child that the test plays.
struct Played {
    core: Node,
    up: LinkId,
    socket: OwnedFd,
    started: Instant,
}

impl Played {
    fn below(root: &Root) -> (Context, Played) {
        let (ours, theirs) = fd::socketpair().unwrap();
        let context = root.context();
        let shared = &context.0.shared;
        let name = String::new;
        let (reply, hello) = shared.with(|state, now| {
            let (link, address, _) = state.core.reserve_child(now).unwrap();
            let hello = state.core.parent_hello(link, [0; 16], name(), name(), name(), now).unwrap();
            let reply =
                ConnectReply { address, name: "played".into(), hello: identity::hello([0; 16]), stages: Vec::new() };
            state.core.child_up(link, &reply.hello, now).unwrap();
            let fds = LinkFds { read: fd::dup_cloexec(&ours).unwrap(), write: ours };
            let (received, child) = (Vec::new(), Some(reply.clone()));
            let new = NewLink { fds, received, tool: None, child, tag: String::new(), guard: false, relayed: false };
            state.adopt(shared, link, new, now).unwrap();
            (reply, hello)
        });
        fd::set_nonblocking(&theirs, true).unwrap();
        let (core, up) = Node::child(Config::default(), &hello, Time::from_micros(0));
        (context.below(reply, None, false), Played { core, up, socket: theirs, started: Instant::now() })
    }

    fn now(&self) -> Time {
        Time::from_micros(self.started.elapsed().as_micros() as u64)
    }

    /// Reads and writes until there is an event, for five seconds at most.
    fn event(&mut self) -> Event {
        let mut input = BytesMut::new();
        loop {
            let mut output = Vec::new();
            while self.core.poll_transmit(self.up, 65_536, &mut output, self.now()) {}
            fd::write_all(&self.socket, &output, None).unwrap();
            if let Some(event) = self.core.poll_event() {
                return event;
            }
            assert!(self.started.elapsed() < Duration::from_secs(5), "nothing happens");
            wait_readable(&[self.socket.as_fd()], Some(Duration::from_millis(10))).unwrap();
            let _ = fd::read_into(&self.socket, &mut input, 65_536);
            let now = self.now();
            self.core.handle_bytes(self.up, &mut input, now);
        }
    }
}

#[test]
fn a_context_that_comes_when_nobody_waits_for_it_any_more_is_ended() {
    let root = root(Config::default());
    for answered_before in [false, true] {
        let (context, mut played) = Played::below(&root);
        let recipe = Recipe::new("exec", "", Start::Local);
        let asked = context
            .ask_connect(&ConnectSpec { recipe, name: None, process_name: String::new(), answers: false })
            .unwrap();
        let Event::Request { id, verb: Verb::Connect, .. } = played.event() else { panic!("expected a connect") };
        let now = played.now();
        let (link, address, _) = played.core.reserve_child(now).unwrap();
        played.core.parent_hello(link, [0; 16], String::new(), String::new(), String::new(), now).unwrap();
        let reply = ConnectReply {
            address: address.clone(),
            name: "new".into(),
            hello: identity::hello([0; 16]),
            stages: Vec::new(),
        };
        let mut asked = Some(asked);
        if !answered_before {
            drop(asked.take());
        }
        played.core.reply(id, encode(&reply).into(), now);
        // What is asked of the new context waits for it at its parent.
        let mut sent = Vec::new();
        while sent.is_empty() {
            let mut output = Vec::new();
            while played.core.poll_transmit(played.up, 65_536, &mut output, now) {}
            fd::write_all(&played.socket, &output, None).unwrap();
            if asked.as_ref().is_some_and(|asked| asked.with(|state, id, _| state.asked(id).unwrap().done)) {
                asked.take();
            }
            wait_readable(&[played.socket.as_fd()], Some(Duration::from_millis(10))).unwrap();
            let mut input = BytesMut::new();
            let _ = fd::read_into(&played.socket, &mut input, 65_536);
            played.core.handle_bytes(played.up, &mut input, now);
            assert!(played.started.elapsed() < Duration::from_secs(5), "it is not ended");
            while played.core.poll_transmit(link, 65_536, &mut sent, now) {}
        }
        let frame = parse_frame(&sent, &Limits::default()).unwrap().unwrap();
        let (verb, ..) = RequestHead::peek(&sent[frame.body.clone()]).unwrap();
        assert_eq!((&frame.header.dst, verb), (&address, Verb::Shutdown.number()));
        played.core.link_down(link, offshoot_wire::LostReason::Shutdown, now);
        let mut output = Vec::new();
        while played.core.poll_transmit(played.up, 65_536, &mut output, now) {}
        fd::write_all(&played.socket, &output, None).unwrap();
    }
}

fn root(route: Config) -> Root {
    let mut options = Options::new(Arc::new(OwnImage::new()));
    options.route = route;
    options.connects = 1;
    Root::start(options).unwrap()
}

#[test]
fn s12_who_waits_for_room_has_one_place_however_often_it_tries() {
    let root = root(Config::with(|config| config.call_window = 10_000));
    let (context, mut played) = Played::below(&root);
    let shared = Arc::clone(&context.0.shared);
    let waiting = || shared.lock().waiting_for_room();
    let mut calls: Vec<_> = (0..9).map(|_| context.start_echo(&[7; 1000]).unwrap()).collect();
    let asker = std::thread::spawn(move || context.start_echo(&[7; 1000]).map(drop));
    let until = Instant::now() + Duration::from_secs(10);
    let (began, mut most) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_millis(450) || most == 0 {
        most = most.max(waiting());
        assert!(Instant::now() < until, "it does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(most, 1, "each try has left a place behind");
    // Room for one: too little to be told, and found by the next try.
    let Event::Request { id, .. } = played.event() else { panic!("expected a call") };
    let now = played.now();
    played.core.reply(id, Bytes::new(), now);
    while !asker.is_finished() {
        let mut output = Vec::new();
        while played.core.poll_transmit(played.up, 65_536, &mut output, now) {}
        fd::write_all(&played.socket, &output, None).unwrap();
        assert!(Instant::now() < until, "it found no room");
        std::thread::sleep(Duration::from_millis(5));
    }
    asker.join().unwrap().unwrap();
    assert_eq!(waiting(), 0, "it has gone, and its place was left behind");
    calls.clear();
}

#[test]
fn r6_what_is_asked_when_the_broker_has_failed_ends_at_once() {
    let root = root(Config::default());
    let (context, _played) = Played::below(&root);
    let before = context.start_echo(b"").unwrap();
    context.0.shared.with(|state, _| state.give_up());
    let failed = before.wait_timeout(Duration::from_secs(10)).unwrap_err();
    assert!(matches!(failed.kind(), FailureKind::PeerLost(_)), "{failed}");
    let asked = context.start_echo(b"").and_then(|call| call.wait_timeout(Duration::from_secs(1)));
    assert_eq!(asked.unwrap_err().kind(), &FailureKind::NoRoute);
    assert_eq!(context.info().unwrap_err().kind(), &FailureKind::NoRoute);
}

/// What panics when the first record comes.
struct Panics;

impl Homecoming for Panics {
    fn level(&self) -> Option<u8> {
        None
    }
    fn name(&mut self, _: &Address, _: &str) {}
    fn gone(&mut self, _: &Address) {}
    fn record(&mut self, _: Address, _: Bytes) {
        panic!("on purpose, by a record");
    }
    fn said(&mut self, _: log::Level, _: &'static str, _: String) {}
    fn attended(&mut self, _: ExchangeId, _: &Address, _: &str) {}
    fn attends(&self, _: ExchangeId) -> bool {
        false
    }
    fn worker(&self, _: ExchangeId) -> Option<Address> {
        None
    }
    fn output(&mut self, _: ExchangeId, _: u8, _: Bytes) {}
    fn ended(&mut self, _: ExchangeId, _: Option<u8>) {}
}

#[test]
fn r6_a_panic_of_the_broker_ends_all_that_waits_and_the_process_goes_on() {
    let root = root(Config::default());
    let (context, mut played) = Played::below(&root);
    let call = context.start_echo(b"").unwrap();
    let Event::Request { .. } = played.event() else { panic!("expected a call") };
    context.0.shared.with(|state, _| state.services.home = Some(Box::new(Panics)));
    // Nobody waits, so nobody but the broker reads.
    played.core.log(Bytes::from_static(b"a record"), played.now());
    let mut output = Vec::new();
    while played.core.poll_transmit(played.up, 65_536, &mut output, played.now()) {}
    fd::write_all(&played.socket, &output, None).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !call.is_done() {
        assert!(Instant::now() < until, "the call waits for ever");
        std::thread::sleep(Duration::from_millis(5));
    }
    let failed = call.wait().unwrap_err();
    assert!(failed.to_string().contains("the broker failed; see its panic"), "{failed}");
    assert_eq!(failed.ran(), Ran::MaybeExecuted);
    root.shutdown(Duration::ZERO);
}

/// An image that cannot be made, by a fault.
struct NoImage;

impl offshoot_connect::LocalImage for NoImage {
    fn image(&self) -> Result<offshoot_connect::Image<'_>, Failure> {
        panic!("on purpose, by an image");
    }
}

#[test]
fn r6_a_connect_that_panics_is_an_error_and_gives_its_place_back() {
    let mut options = Options::new(Arc::new(NoImage));
    options.connects = 1;
    let root = Root::start(options).unwrap();
    for _ in 0..3 {
        let context = root.context();
        let (tell, told) = std::sync::mpsc::channel();
        // On a thread of its own: should it panic, or find no place, that thread does and not this one.
        std::thread::spawn(move || {
            let recipe = Recipe::new("local", "", Start::Local);
            tell.send(context.connect(recipe).map(drop)).unwrap();
        });
        let failed = told.recv_timeout(Duration::from_secs(10)).expect("it ends").unwrap_err();
        assert!(failed.to_string().contains("see its panic"), "{failed}");
        assert_eq!(failed.ran(), Ran::NotSent);
    }
    root.shutdown(Duration::ZERO);
}

/// Nobody's images, by a fault.
struct NoImages;

impl crate::Images for NoImages {
    fn image(&self, _: &[u8; 32], _: &str, _: bool) -> Result<crate::Image, Failure> {
        panic!("on purpose, by a search");
    }
}

#[test]
fn r6_a_search_that_panics_is_an_error_and_gives_its_place_back() {
    let mut options = Options::new(Arc::new(OwnImage::new()));
    options.images = Some(Arc::new(NoImages));
    let root = Root::start(options).unwrap();
    let (_context, mut played) = Played::below(&root);
    // More than are made at once.
    for number in 0..20 {
        let spec = offshoot_wire::PayloadSpec { triple: format!("triple-{number}"), program: Some([1; 32]) };
        let now = played.now();
        let asked = played.core.request(&Address::ROOT, Verb::Payload, encode(&spec).into(), None, now).unwrap();
        let Event::Done { id, result } = played.event() else { panic!("expected an answer") };
        let failed = result.unwrap_err();
        assert!(failed.message.contains("see its panic"), "{}", failed.message);
        assert_eq!((id, &failed.kind), (asked, &FailureKind::NoImage(spec.triple)));
    }
    root.shutdown(Duration::ZERO);
}
