//! A hostile worker, or whatever is called in its stead: forged values and failures, values that are not what they were
//! announced as, and what a worker may ask of its agent and its siblings, which is nothing.

use std::time::Instant;

use bytes::Bytes;
use offshoot_node::{Calling, Error};
use offshoot_wire::escape::is_dangerous;
use offshoot_wire::{
    Address, CallReply, CallSpec, ChannelEnd, ConnectSpec, Credit, EndReason, Failure, FailureKind, FrameKind, Limits,
    LostReason, Ran, Recipe, RemoteFailure, Start, Verb, encode,
};

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, answer, cases};
use crate::stage::PATIENCE;

/// A call of the master's, and the number of its exchange.
struct Called {
    calling: Calling,
    number: u64,
}

impl Called {
    fn new(scene: &mut Scene, args: usize) -> Called {
        let calling = scene.evil.start_call("function", vec![7; args], None, None).expect("it is up");
        Called { calling, number: scene.link.request().0.exchange }
    }

    fn send(&self, scene: &mut Scene, kind: FrameKind, body: impl Into<Bytes>) {
        let frame = answer(kind, &scene.me, &Address::ROOT, self.number, body);
        scene.link.send(&frame);
    }

    fn wait(&self) -> Result<Vec<u8>, Error> {
        self.calling.wait(Some(Instant::now() + PATIENCE))
    }

    #[track_caller]
    fn fails(&self, kind: &FailureKind) {
        let error = self.wait().expect_err("nothing good came");
        assert_eq!(error.kind(), kind, "{error}");
    }

    /// Its link was closed, and the call is told so.
    #[track_caller]
    fn is_lost(&self) {
        let error = self.wait().expect_err("its worker was cut off");
        let FailureKind::PeerLost(LostReason::Violation(_)) = error.kind() else { panic!("{error}") };
        assert_eq!(error.ran(), Ran::MaybeExecuted, "{error}");
    }
}

/// One call, and one frame from the side that was asked.
fn answered(scene: &mut Scene, kind: FrameKind, body: impl Into<Bytes>) -> Called {
    let called = Called::new(scene, 3);
    called.send(scene, kind, body);
    called
}

fn piece(channel: u8, length: usize) -> Vec<u8> {
    let mut body = vec![channel];
    body.resize(1 + length, b'v');
    body
}

fn end(total: u64) -> Vec<u8> {
    encode(&ChannelEnd { channel: 1, total, reason: EndReason::Done })
}

fn reply(value: &[u8], came: u64) -> Vec<u8> {
    encode(&CallReply { value: value.to_vec(), came })
}

/// A value by its channel: what comes, what is said of it, and what becomes of the call.
fn large(scene: &mut Scene, came: usize, announced: u64) -> Called {
    let called = Called::new(scene, 3);
    if came > 0 {
        called.send(scene, FrameKind::Data, piece(1, came));
    }
    called.send(scene, FrameKind::End, end(came as u64));
    called.send(scene, FrameKind::Reply, reply(b"", announced));
    called
}

/// What it asks for itself is refused.
fn asks(scene: &mut Scene, dst: &Address, verb: Verb, body: &[u8]) {
    scene.ask(dst, 7, verb.number(), body);
    scene.link.refused(7, &FailureKind::Denied);
}

fn spec() -> Vec<u8> {
    encode(&CallSpec { function: "function".into(), args: vec![], follow: 0, chain: None })
}

cases! {
    s7_a_value_that_is_none: Passed, |scene| {
        answered(scene, FrameKind::Reply, vec![0xff; 100]).fails(&FailureKind::Malformed);
    };
    s7_a_reply_without_a_byte: Passed, |scene| {
        answered(scene, FrameKind::Reply, Bytes::new()).fails(&FailureKind::Malformed);
    };
    s7_a_value_with_bytes_behind_it: Passed, |scene| {
        answered(scene, FrameKind::Reply, [reply(b"value", 0), vec![0]].concat()).fails(&FailureKind::Malformed);
    };
    s7_a_value_that_announces_more_than_a_frame_holds: Passed, |scene| {
        let body = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        answered(scene, FrameKind::Reply, body).fails(&FailureKind::Malformed);
    };
    s7_a_value_that_was_announced_and_did_not_come: Passed, |scene| {
        let called = large(scene, 0, 1 << 20);
        called.fails(&FailureKind::Malformed);
    };
    s7_a_value_shorter_than_it_was_announced: Passed, |scene| {
        large(scene, 100, 101).fails(&FailureKind::Malformed);
    };
    s7_a_value_longer_than_it_was_announced: Passed, |scene| {
        large(scene, 100, 99).fails(&FailureKind::Malformed);
    };
    s7_a_value_announced_beyond_all_bounds: Passed, |scene| {
        large(scene, 100, u64::MAX).fails(&FailureKind::Malformed);
    };
    s7_a_value_that_came_twice_over_is_the_one_that_was_announced: Passed, |scene| {
        let called = Called::new(scene, 3);
        called.send(scene, FrameKind::Data, piece(1, 4));
        called.send(scene, FrameKind::End, end(4));
        called.send(scene, FrameKind::Reply, reply(b"other", 4));
        assert_eq!(called.wait().expect("a value"), b"vvvv");
    };
    s4_a_second_value_is_dropped: Passed, |scene| {
        let called = answered(scene, FrameKind::Reply, reply(b"first", 0));
        called.send(scene, FrameKind::Reply, reply(b"second", 0));
        called.send(scene, FrameKind::Failure, encode(&Failure::new(FailureKind::Denied, "third")));
        assert_eq!(called.wait().expect("a value"), b"first");
    };
    s4_values_for_the_calls_of_others: Passed, |scene| {
        let called = Called::new(scene, 3);
        for number in (1..60).flat_map(|serial| (0..6).map(move |slot| serial << 20 | slot)) {
            if number != called.number && number != scene.owed {
                scene.link.send(&answer(FrameKind::Reply, &scene.me, &Address::ROOT, number, reply(b"forged", 0)));
            }
        }
        called.send(scene, FrameKind::Reply, reply(b"genuine", 0));
        assert_eq!(called.wait().expect("a value"), b"genuine");
    };
    s4_a_value_by_a_made_up_context_below_it: Passed, |scene| {
        let called = Called::new(scene, 3);
        let below = scene.me.child(0).expect("not deep");
        scene.link.send(&answer(FrameKind::Reply, &below, &Address::ROOT, called.number, reply(b"forged", 0)));
        called.send(scene, FrameKind::Reply, reply(b"genuine", 0));
        assert_eq!(called.wait().expect("a value"), b"genuine");
    };
    s2_a_value_in_the_name_of_its_sibling: Cut("expected one from under"), |scene| {
        let called = Called::new(scene, 3);
        let sibling = scene.sibling.clone();
        scene.link.send(&answer(FrameKind::Reply, &sibling, &Address::ROOT, called.number, reply(b"forged", 0)));
        called.is_lost();
    };
    s4_a_value_for_a_call_that_was_given_up: Passed, |scene| {
        let Called { calling, number } = Called::new(scene, 3);
        drop(calling);
        scene.link.await_frame("a cancel", |header| header.kind == FrameKind::Cancel && header.exchange == number);
        for (kind, body) in [(FrameKind::Data, piece(1, 9)), (FrameKind::End, end(9)), (FrameKind::Reply, reply(b"", 9))] {
            scene.link.send(&answer(kind, &scene.me, &Address::ROOT, number, body));
        }
    };
    r6_a_failure_that_says_that_nothing_ran_is_that_calls_own: Passed, |scene| {
        let failure = Failure::new(FailureKind::NoRoute, "forged").ran(Ran::NotSent).at(scene.sibling.clone());
        answered(scene, FrameKind::Failure, encode(&failure)).fails(&FailureKind::NoRoute);
        // Nobody believes it of the sibling: it is asked at the end of every case.
    };
    s8_a_panic_whose_text_would_act_on_a_terminal: Passed, |scene| {
        let kind = FailureKind::Remote(RemoteFailure::Panic);
        let text = "\x1b]0;mine\x07\u{9b}31m\u{202e}\r\n\0gone";
        let called = answered(scene, FrameKind::Failure, encode(&Failure::new(kind.clone(), text)));
        let error = called.wait().expect_err("a panic");
        assert_eq!(error.kind(), &kind, "{error}");
        let shown = error.to_string();
        assert!(shown.contains("gone") && !shown.chars().any(is_dangerous), "{shown:?}");
    };
    s14_more_of_a_value_than_was_granted: Cut("more data than was granted"), |scene| {
        let called = Called::new(scene, 3);
        for _ in 0..80 {
            called.send(scene, FrameKind::Data, piece(1, 60_000));
        }
        called.is_lost();
    };
    s14_a_value_on_the_channel_of_the_arguments: Cut("a channel that the exchange does not have"), |scene| {
        answered(scene, FrameKind::Data, piece(0, 1)).is_lost();
    };
    s14_a_value_on_a_channel_that_calls_do_not_have: Cut("a channel that the exchange does not have"), |scene| {
        answered(scene, FrameKind::Data, piece(2, 1)).is_lost();
    };
    s14_the_end_of_a_value_that_lies_about_it: Cut("whose total is not what was sent"), |scene| {
        let called = answered(scene, FrameKind::Data, piece(1, 10));
        called.send(scene, FrameKind::End, end(11));
        called.is_lost();
    };
    s14_a_value_behind_its_end: Cut("data behind the end"), |scene| {
        let called = answered(scene, FrameKind::End, end(0));
        called.send(scene, FrameKind::Data, piece(1, 1));
        called.is_lost();
    };
    s14_credit_for_arguments_beyond_the_largest_window: Cut("credit beyond the largest window"), |scene| {
        let called = Called::new(scene, 1 << 20);
        let credit = encode(&Credit { channel: 0, total: Limits::WINDOW_MAX * 20 });
        called.send(scene, FrameKind::Credit, credit);
        called.is_lost();
    };
    s14_arguments_that_it_never_reads_hold_up_nobody: Passed, |scene| {
        let called = Called::new(scene, 8 << 20);
        let other = answered(scene, FrameKind::Reply, reply(b"beside", 0));
        assert_eq!(other.wait().expect("a value"), b"beside");
        let error = called.calling.wait(Some(Instant::now())).expect_err("nothing came");
        assert_eq!(error.kind(), &FailureKind::Timeout, "{error}");
    };
    s14_arguments_that_it_wants_no_more_of: Passed, |scene| {
        let called = Called::new(scene, 1 << 20);
        called.send(scene, FrameKind::Stop, vec![0]);
        called.send(scene, FrameKind::Reply, reply(b"early", 0));
        assert_eq!(called.wait().expect("a value"), b"early");
    };
    s1_a_call_of_its_siblings_functions: Passed, |scene| {
        let sibling = scene.sibling.clone();
        asks(scene, &sibling, Verb::Call, &spec());
    };
    s1_a_call_of_its_parents_functions: Passed, |scene| {
        let parent = scene.parent.clone();
        asks(scene, &parent, Verb::Call, &spec());
    };
    s1_a_call_of_the_masters_functions: Passed, |scene| asks(scene, &Address::ROOT, Verb::Call, &spec());
    s1_a_worker_of_its_own_beside_it: Passed, |scene| {
        let recipe = Recipe::new("worker", "", Start::Worker { program: [1; 32], image: None });
        let spec = ConnectSpec { recipe, name: None, process_name: "forged".into(), answers: false };
        let parent = scene.parent.clone();
        asks(scene, &parent, Verb::Connect, &encode(&spec));
    };
}
