//! What a hostile worker does with what it was handed, and what it hands back: the handles of others, its own for other
//! things, contexts that are not its to give, and messages that are none.

use offshoot_node::handover::{self, Packed};
use offshoot_node::{Context, Receiver, Sender, channel, pipe};
use offshoot_wire::{
    Address, Carried, ChannelEnd, ConnectReply, EndReason, FailureKind, Frame, FrameKind, Grant, GrantLink, Limits,
    LostReason, StreamSpec, Verb, VerbSet, carried, encode,
};
use serde::Serialize;

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, cases, request};
use crate::link::Came;
use crate::stage::PATIENCE;

/// What goes to a context that is called with this.
fn handed(value: &impl Serialize, to: &Context) -> (Packed, Carried) {
    let packed = Packed::new(value).expect("it has a form");
    let bytes = packed.for_call(to).expect("it can be handed over").into_vec();
    let (list, _) = carried(&bytes).expect("a list");
    (packed, list.into_iter().next().expect("it carries something"))
}

/// The handle of an end and the grant for it.
fn end(carried: Carried) -> (u64, Grant) {
    let Carried::End { handle, grant: Some(grant), .. } = carried else { panic!("{carried:?}") };
    (handle, grant)
}

/// A sender that the hostile worker was given, and its receiver.
fn sender(scene: &Scene) -> (Receiver<Vec<u8>>, Packed, u64, Grant) {
    let (sender, receiver) = channel::<Vec<u8>>(1);
    let (packed, carried) = handed(&sender, &scene.evil);
    let (handle, grant) = end(carried);
    (receiver, packed, handle, grant)
}

fn ask(scene: &mut Scene, number: u64, verb: Verb, grant: Option<&Grant>, body: &[u8]) {
    let me = scene.me.clone();
    scene.link.send(&request(&me, &Address::ROOT, number, verb.number(), true, grant.cloned(), body));
}

fn open(scene: &mut Scene, number: u64, grant: Option<&Grant>, handle: u64, reads: bool) {
    ask(scene, number, Verb::Stream, grant, &encode(&StreamSpec { handle, reads }));
}

/// A frame of what it has asked for.
fn mine(scene: &mut Scene, number: u64, kind: FrameKind, body: Vec<u8>) {
    scene.link.send(&Frame::routed(kind, Address::ROOT, scene.me.clone(), number).with_body(body.into()));
}

fn data(bytes: &[u8]) -> Vec<u8> {
    [&[0], bytes].concat()
}

/// A value that is one context, as a worker would return it.
fn context(scene: &Scene, address: &Address, grant: Option<Grant>) -> Result<Context, FailureKind> {
    let carried = Carried::Context {
        address: address.clone(),
        name: "local".into(),
        path: "\u{1b}[2Jlocal".into(),
        hello: None,
        near: true,
        worker: false,
        grant,
    };
    let bytes = [encode(&vec![carried]), encode(&0u32)].concat();
    handover::value(&scene.evil, &bytes).map_err(|failure| failure.kind.clone())
}

cases! {
    s3_a_handle_that_it_was_not_given: Passed, |scene| {
        let (sender, _receiver) = channel::<u8>(1);
        let (_packed, carried) = handed(&sender, &scene.stage.sibling.clone());
        let (handle, grant) = end(carried);
        let (_mine, _packed, own, good) = self::sender(scene);
        assert_ne!(handle, own);
        for (number, grant, handle) in [(1, None, handle), (2, Some(&grant), handle), (3, Some(&good), handle)] {
            open(scene, number, grant, handle, false);
            scene.link.refused(number, &FailureKind::Denied);
        }
        // What is not there looks like what is another's.
        open(scene, 4, Some(&good), 1 << 40, false);
        scene.link.refused(4, &FailureKind::Denied);
    };
    s5_what_opens_its_channel_opens_nothing_else: Passed, |scene| {
        let (_receiver, _packed, handle, grant) = sender(scene);
        let body = scene.exec();
        for (number, verb) in [Verb::Echo, Verb::Info, Verb::Exec, Verb::Connect, Verb::Call, Verb::Attend].into_iter().enumerate() {
            ask(scene, number as u64 + 1, verb, Some(&grant), &body);
            scene.link.refused(number as u64 + 1, &FailureKind::Denied);
        }
        let mut widened = grant.clone();
        widened.links[0].verbs = Verb::ALL.into_iter().collect::<VerbSet>();
        ask(scene, 20, Verb::Exec, Some(&widened), &body);
        scene.link.refused(20, &FailureKind::Denied);
        open(scene, 21, Some(&grant), handle, true);
        scene.link.refused(21, &FailureKind::NoRoute);
    };
    s3_a_channel_that_is_over_is_not_opened_again: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        mine(scene, 1, FrameKind::Data, data(b"\x02\0\0\0\x01a"));
        let end = ChannelEnd { channel: 0, total: 6, reason: EndReason::Done };
        mine(scene, 1, FrameKind::End, encode(&end));
        assert_eq!(receiver.recv().expect("a message"), Some(b"a".to_vec()));
        assert_eq!(receiver.recv().expect("the end"), None);
        scene.link.await_frame("an answer", |header| header.exchange == 1 && header.kind == FrameKind::Reply);
        open(scene, 2, Some(&grant), handle, false);
        scene.link.refused(2, &FailureKind::Denied);
    };
    s7_a_message_that_announces_more_than_there_may_be: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        mine(scene, 1, FrameKind::Data, data(&[0xff, 0xff, 0xff, 0x7f, 1, 2, 3]));
        let error = receiver.recv_timeout(PATIENCE).expect_err("no message");
        assert_eq!(error.kind(), &FailureKind::Malformed, "{error}");
        scene.link.refused(1, &FailureKind::Malformed);
        assert!(receiver.recv_timeout(PATIENCE).expect("the end").is_none());
    };
    s7_messages_that_are_none_of_the_type: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        // A list that is longer than its bytes; no bytes at all; then a good one.
        mine(scene, 1, FrameKind::Data, data(b"\x02\0\0\0\xff\x7f\0\0\0\0\x02\0\0\0\x01a"));
        for _ in 0..2 {
            let error = receiver.recv_timeout(PATIENCE).expect_err("no message");
            assert_eq!(error.kind(), &FailureKind::Malformed, "{error}");
        }
        assert_eq!(receiver.recv_timeout(PATIENCE).expect("a message"), Some(b"a".to_vec()));
    };
    s7_a_message_that_ends_early: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        mine(scene, 1, FrameKind::Data, data(b"\x09\0\0\0a"));
        mine(scene, 1, FrameKind::End, encode(&ChannelEnd { channel: 0, total: 5, reason: EndReason::Done }));
        let error = receiver.recv_timeout(PATIENCE).expect_err("no message");
        assert_eq!(error.kind(), &FailureKind::Malformed, "{error}");
    };
    s12_more_small_messages_than_wait_apart: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        // Less than the first window holds.
        let messages: Vec<u8> = (0..2000u16).flat_map(|n| [&[3, 0, 0, 0, 2][..], &n.to_le_bytes()].concat()).collect();
        let total = messages.len() as u64;
        for piece in messages.chunks(9000) {
            mine(scene, 1, FrameKind::Data, data(piece));
        }
        mine(scene, 1, FrameKind::End, encode(&ChannelEnd { channel: 0, total, reason: EndReason::Done }));
        for n in 0..2000u16 {
            assert_eq!(receiver.recv_timeout(PATIENCE).expect("a message"), Some(n.to_le_bytes().to_vec()));
        }
        assert_eq!(receiver.recv_timeout(PATIENCE).expect("the end"), None);
    };
    s12_more_small_pieces_than_wait_apart: Passed, |scene| {
        use std::io::Read;
        let (writer, mut reader) = pipe();
        let (_packed, carried) = handed(&writer, &scene.evil);
        drop(writer);
        let (handle, grant) = end(carried);
        open(scene, 1, Some(&grant), handle, false);
        for n in 0..1000u16 {
            mine(scene, 1, FrameKind::Data, data(&[n as u8]));
        }
        let mut first = [0; 300];
        reader.read_exact(&mut first).expect("a part");
        for n in 1000..2000u16 {
            mine(scene, 1, FrameKind::Data, data(&[n as u8]));
        }
        mine(scene, 1, FrameKind::End, encode(&ChannelEnd { channel: 0, total: 2000, reason: EndReason::Done }));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the rest");
        let all: Vec<u8> = (0..2000u16).map(|n| n as u8).collect();
        assert!([&first[..], &rest].concat() == all, "{} bytes", rest.len());
    };
    s14_messages_that_nobody_receives_beyond_their_credit: Cut("more data than was granted"), |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        let message = [&60_000u32.to_le_bytes()[..], &[7; 60_000]].concat();
        for _ in 0..80 {
            let _ = scene.link.try_raw(&crate::link::bytes_of(
                &Frame::routed(FrameKind::Data, Address::ROOT, scene.me.clone(), 1).with_body(data(&message).into()),
            ));
        }
        // Messages, or none that were whole; then the loss of who sent them.
        let lost = std::iter::from_fn(|| receiver.recv_timeout(PATIENCE).transpose()).find_map(Result::err);
        let kind = lost.map(|error| error.kind().clone());
        assert!(matches!(kind, Some(FailureKind::PeerLost(LostReason::LinkEnd) | FailureKind::Malformed)), "{kind:?}");
    };
    s12_a_channel_is_read_by_one_that_it_was_given_to: Passed, |scene| {
        let (sender, receiver) = channel::<Vec<u8>>(4);
        let (_packed, carried) = handed(&receiver, &scene.evil);
        let (handle, grant) = end(carried);
        open(scene, 1, Some(&grant), handle, true);
        open(scene, 2, Some(&grant), handle, true);
        scene.link.refused(2, &FailureKind::Busy);
        sender.send(&b"for one".to_vec()).expect("there is room");
        scene.link.await_frame("a message", |header| header.exchange == 1 && header.kind == FrameKind::Data);
        // It gives up: nobody reads any more, and who sends is told.
        mine(scene, 1, FrameKind::Cancel, Vec::new());
        let refused = (0..1000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            sender.send_timeout(&vec![1], PATIENCE).err()
        });
        assert_eq!(refused.expect("it is told").kind(), &FailureKind::Cancelled);
    };
    s12_a_reader_that_gives_no_credit_holds_its_writer_alone: Passed, |scene| {
        use std::io::Write;
        let (mut writer, reader) = pipe();
        let (_packed, carried) = handed(&reader, &scene.evil);
        drop(reader);
        let (handle, grant) = end(carried);
        open(scene, 1, Some(&grant), handle, true);
        let writing = std::thread::spawn(move || (0..10_000).take_while(|_| writer.write_all(&[7; 48_000]).is_ok()).count());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!writing.is_finished(), "480 MB found room");
        mine(scene, 1, FrameKind::Cancel, Vec::new());
        assert!(writing.join().expect("no panic") < 100, "much was taken without credit");
    };
    s2_a_value_that_is_a_context_of_others: Passed, |scene| {
        let (me, sibling, parent) = (scene.me.clone(), scene.sibling.clone(), scene.parent.clone());
        for address in [&sibling, &parent, &Address::ROOT, &scene.nephew(), &scene.future()] {
            assert_eq!(context(scene, address, None).err(), Some(FailureKind::Denied), "{address}");
            let link = GrantLink { holder: Address::ROOT, verbs: Verb::ALL.into_iter().collect(), handle: None, expires_ms: u64::MAX };
            let forged = Grant { target: (*address).clone(), number: 1 << 63 | 1, links: vec![link], seal: [7; 32] };
            assert_eq!(context(scene, address, Some(forged)).err(), Some(FailureKind::Denied), "{address}");
        }
        // What was given to it, and to another, shown without having been passed on.
        for to in [scene.evil.clone(), scene.stage.sibling.clone()] {
            let other = scene.stage.sibling.local().connect().expect("a context");
            let (_packed, carried) = handed(&other, &to);
            if let Carried::Context { address, grant: Some(grant), .. } = carried {
                assert_eq!(context(scene, &address, Some(grant.clone())).err(), Some(FailureKind::Denied), "{address}");
                let mut other = grant;
                other.links[0].holder = Address::ROOT;
                assert_eq!(context(scene, &address, Some(other)).err(), Some(FailureKind::Denied), "{address}");
            }
            other.shutdown().expect("it ends");
            scene.stage.started_one_more();
        }
        // Its own it may make up: asking it leads to itself.
        let below = context(scene, &me.child(3).expect("not deep"), None).expect("its own");
        assert!(!below.path().chars().any(offshoot_wire::escape::is_dangerous), "{:?}", below.path());
        assert_eq!(below.address().parent(), Some(me));
    };
    s2_a_value_that_is_an_end_of_anothers_channel: Passed, |scene| {
        let sibling = scene.sibling.clone();
        for home in [&Address::ROOT, &sibling] {
            let carried = Carried::End { home: home.clone(), handle: 1, reads: false, grant: None };
            let bytes = [encode(&vec![carried]), encode(&0u32)].concat();
            let failure = handover::value::<Sender<u8>>(&scene.evil, &bytes).expect_err("not its to give");
            assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        }
    };
    s12_an_end_that_is_opened_and_lost_again_and_again: Passed, |scene| {
        let (receiver, _packed, handle, grant) = sender(scene);
        open(scene, 1, Some(&grant), handle, false);
        let reason = EndReason::Failed("x".repeat(2000));
        let lost = encode(&ChannelEnd { channel: 0, total: 0, reason });
        let before = crate::stage::memory("self");
        for number in 2..20_000 {
            open(scene, number, Some(&grant), handle, false);
            mine(scene, number, FrameKind::End, lost.clone());
// Read here, so that what else comes is not kept.
            loop {
                match scene.link.next(PATIENCE) {
                    Came::Frame(header, _) if header.exchange == number && header.kind == FrameKind::Failure => break,
                    Came::Frame(..) => {}
                    came @ (Came::Nothing | Came::End) => panic!("no refusal of {number}: {came:?}"),
                }
            }
        }
        let after = crate::stage::memory("self");
        assert!(after < before + (16 << 20), "{} MiB for losses that nobody has heard of", (after - before) >> 20);
        let losses = std::iter::from_fn(|| receiver.recv_timeout(std::time::Duration::from_millis(300)).err());
        let losses = losses.take_while(|error| matches!(error.kind(), FailureKind::PeerLost(_))).count();
        assert!((1..=1000).contains(&losses), "{losses} losses are told");
    };
    s8_a_new_context_with_a_name_for_the_terminal: Passed, |scene| {
        let (evil, me) = (scene.evil.clone(), scene.me.clone());
        let connecting = std::thread::spawn(move || evil.local().connect());
        let (header, _) = scene.link.request();
        let name = "\u{1b}]0;owned\u{7}\u{1b}[2J -> -> root".to_owned();
        let hello = crate::stage::child_hello([0; 16]);
        let reply = ConnectReply { address: me.child(0).expect("not deep"), name, hello, stages: Vec::new() };
        scene.link.send(&crate::case::answer(FrameKind::Reply, &me, &Address::ROOT, header.exchange, encode(&reply)));
        let context = connecting.join().expect("no panic").expect("it is believed");
        for shown in [context.name(), context.path(), &context.to_string()] {
            assert!(!shown.chars().any(offshoot_wire::escape::is_dangerous), "{shown:?}");
        }
        let steps = |path: &str| path.matches(" -> ").count();
        assert_eq!(steps(context.path()), steps(scene.evil.path()) + 1, "{}", context.path());
    };
    s12_a_value_with_more_ends_of_channels_than_there_may_be_opens_none: Passed, |scene| {
        let own = |handle| Carried::End { home: scene.me.clone(), handle, reads: false, grant: None };
        let of = |count: usize| [encode(&(0..count as u64).map(own).collect::<Vec<_>>()), encode(&0u32)].concat();
        let failure = handover::value::<Sender<u8>>(&scene.evil, &of(Limits::ENDS + 1)).expect_err("too many");
        assert_eq!(failure.kind, FailureKind::Malformed, "{failure:?}");
        // As many as there may be it may make up: each leads to itself.
        handover::value::<Sender<u8>>(&scene.evil, &of(Limits::ENDS)).expect("its own");
        let asked = |header: &offshoot_wire::FrameHeader| header.kind == FrameKind::Request;
        let mut opened = std::collections::BTreeSet::new();
        while opened.len() < Limits::ENDS {
            let (header, body) = scene.link.await_frame("an end is opened", asked);
            if Verb::from_number(body[0].into()) == Some(Verb::Stream) {
                assert!(opened.insert(header.exchange));
            }
        }
    };
    s7_a_value_that_carries_what_it_does_not: Passed, |scene| {
        let own = scene.me.clone();
        let list = |carried: &[Carried]| encode(carried);
        let end = Carried::End { home: own, handle: 1, reads: false, grant: None };
        for bytes in [
            [list(&[]), encode(&0u32)].concat(),
            [list(&[]), encode(&u32::MAX)].concat(),
            // An end of a channel is no context.
            [list(std::slice::from_ref(&end)), encode(&0u32)].concat(),
            vec![0xff, 0xff, 0xff, 0xff, 0x7f],
            vec![1],
            vec![],
        ] {
            let failure = handover::value::<Context>(&scene.evil, &bytes).expect_err("no context");
            assert_eq!(failure.kind, FailureKind::Malformed, "{failure:?}");
        }
        // One thing is taken once.
        let twice = [list(&[end]), encode(&(0u32, 0u32))].concat();
        assert!(handover::value::<(Sender<u8>, Sender<u8>)>(&scene.evil, &twice).is_err());
        let _ = scene.link.await_frame("what it was asked", |header| header.kind == FrameKind::Request);
    };
}
