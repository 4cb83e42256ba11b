//! S4, S14: forged answers and ends, credit that was not given, acknowledgements of what was not sent.

use bytes::Bytes;
use offshoot_wire::{
    Ack, Address, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameKind, Limits, Ping, encode,
};

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, answer, cases, request};

/// Numbers that the master may have given to a call of somebody else's: a serial and a slot, near to the one seen.
fn neighbours(scene: &Scene) -> impl Iterator<Item = u64> + use<> {
    let (serial, owed) = (scene.owed >> 20, scene.owed);
    (1..serial + 40)
        .flat_map(|serial| (0..6).map(move |slot| serial << 20 | slot))
        .filter(move |number| *number != owed)
}

fn forge(scene: &mut Scene, kind: FrameKind, body: Vec<u8>) {
    let mut bytes = Vec::new();
    for number in neighbours(scene) {
        answer(kind, &scene.me, &Address::ROOT, number, body.clone()).encode(&mut bytes);
    }
    scene.link.raw(&bytes);
}

fn stream(scene: &mut Scene, kind: FrameKind, body: impl Into<Bytes>) {
    let number = scene.process();
    let frame = answer(kind, &scene.me, &Address::ROOT, number, body);
    scene.link.send(&frame);
}

fn data(channel: u8, length: usize) -> Vec<u8> {
    let mut body = vec![channel];
    body.resize(1 + length, 0xee);
    body
}

fn end(channel: u8, total: u64) -> Vec<u8> {
    encode(&ChannelEnd { channel, total, reason: EndReason::Done })
}

/// Sends two frames of a process' exchange.
fn twice(scene: &mut Scene, frames: &[(FrameKind, Vec<u8>)]) {
    let number = scene.process();
    for (kind, body) in frames {
        let frame = answer(*kind, &scene.me, &Address::ROOT, number, body.clone());
        scene.link.send(&frame);
    }
}

/// A control frame of the exchange that the process believes itself the requester of.
fn as_requester(scene: &mut Scene, kind: FrameKind, body: Vec<u8>) {
    let number = scene.process();
    let frame = Frame::routed(kind, Address::ROOT, scene.me.clone(), number).with_body(body.into());
    scene.link.send(&frame);
}

cases! {
    s4_replies_to_calls_of_others: Passed, |scene| forge(scene, FrameKind::Reply, b"forged".to_vec());
    s4_failures_for_calls_of_others: Passed, |scene| {
        forge(scene, FrameKind::Failure, encode(&Failure::new(FailureKind::Cancelled, "forged")));
    };
    s4_data_for_calls_of_others: Passed, |scene| forge(scene, FrameKind::Data, b"\x01forged".to_vec());
    s4_ends_for_calls_of_others: Passed, |scene| forge(scene, FrameKind::End, end(1, 0));
    s4_credit_for_calls_of_others: Passed, |scene| {
        forge(scene, FrameKind::Credit, encode(&Credit { channel: 0, total: 1 << 21 }));
    };
    s4_stops_for_calls_of_others: Passed, |scene| forge(scene, FrameKind::Stop, vec![0]);
    s4_cancels_of_calls_of_others: Passed, |scene| {
        let mut bytes = Vec::new();
        for number in neighbours(scene) {
            for dst in [Address::ROOT, scene.sibling.clone()] {
                Frame::routed(FrameKind::Cancel, dst, scene.me.clone(), number).encode(&mut bytes);
            }
        }
        scene.link.raw(&bytes);
    };
    s4_a_cancel_of_the_call_that_it_was_asked: Passed, |scene| {
        scene.link.send(&Frame::routed(FrameKind::Cancel, Address::ROOT, scene.me.clone(), scene.owed));
    };
    s4_answers_to_the_parent_that_asked_nothing: Passed, |scene| {
        for number in 0..100 {
            for kind in [FrameKind::Reply, FrameKind::Data, FrameKind::Stop] {
                let frame = answer(kind, &scene.me, &scene.parent, number << 20, &b"\x01forged"[..]);
                if scene.parent != Address::ROOT || number != scene.owed >> 20 {
                    scene.link.send(&frame);
                }
            }
        }
    };
    s4_answers_to_the_sibling_that_asked_nothing: Passed, |scene| {
        for number in 0..1000 {
            let frame = answer(FrameKind::Reply, &scene.me, &scene.sibling, number, &b"forged"[..]);
            scene.link.send(&frame);
        }
    };
    s4_an_answer_from_a_made_up_context_below_it: Passed, |scene| {
        let below = scene.me.child(0).expect("not deep");
        for kind in [FrameKind::Reply, FrameKind::Failure] {
            let body = encode(&Failure::new(FailureKind::Denied, "forged"));
            scene.link.send(&answer(kind, &below, &Address::ROOT, scene.owed, body));
        }
    };
    s4_a_second_answer_is_dropped: Passed, |scene| {
        let number = scene.process();
        for _ in 0..3 {
            let frame = answer(FrameKind::Reply, &scene.me, &Address::ROOT, number, vec![0, 0, 0]);
            scene.link.send(&frame);
        }
    };
    s4_data_behind_the_answer_is_dropped: Passed, |scene| {
        twice(scene, &[(FrameKind::Reply, vec![0, 0, 0]), (FrameKind::Data, data(1, 100)), (FrameKind::End, end(1, 9))]);
    };
    s4_an_answer_with_exchange_numbers_at_the_edges: Passed, |scene| {
        for number in [0, 1, u64::from(u32::MAX), 1 << 44, u64::MAX - 1, u64::MAX] {
            scene.link.send(&answer(FrameKind::Reply, &scene.me, &Address::ROOT, number, Bytes::new()));
        }
    };
    s4_a_reply_that_is_no_reply_is_an_error_of_its_call: Passed, |scene| {
        let number = scene.process();
        let frame = answer(FrameKind::Reply, &scene.me, &Address::ROOT, number, vec![0xff; 100]);
        scene.link.send(&frame);
    };
    s4_a_failure_that_is_none_is_an_error_of_its_call: Passed, |scene| {
        stream(scene, FrameKind::Failure, vec![0xff; 100]);
    };
    s4_a_failure_that_names_another_context_as_lost_loses_nobody: Passed, |scene| {
        let reason = offshoot_wire::LostReason::Signalled(9);
        let failure = Failure::new(FailureKind::PeerLost(reason), "forged").at(scene.sibling.clone());
        stream(scene, FrameKind::Failure, encode(&failure));
    };
    s4_a_request_by_the_name_of_one_that_runs: Cut("a request by the name of one that runs"), |scene| {
        let (me, parent) = (scene.me.clone(), scene.parent.clone());
        let body = encode(&offshoot_wire::PayloadSpec { triple: "slow".into(), program: None });
        let first = request(&me, &parent, 7, 10, false, None, &body);
        let mut bytes = crate::link::bytes_of(&first);
        // Twice in one piece: the first is not answered before the second is there.
        first.encode(&mut bytes);
        scene.link.raw(&bytes);
    };
    s14_more_data_than_was_granted: Cut("more data than was granted"), |scene| {
        let piece = (FrameKind::Data, data(1, 60_000));
        twice(scene, &[piece.clone(), piece.clone(), piece]);
    };
    s14_data_on_the_channel_of_the_other_side: Cut("a channel that the exchange does not have"), |scene| {
        stream(scene, FrameKind::Data, data(0, 1));
    };
    s14_data_on_a_channel_that_no_verb_has: Cut("a channel that the exchange does not have"), |scene| {
        stream(scene, FrameKind::Data, data(7, 1));
    };
    s14_data_on_a_channel_beyond_all: Cut("without channel or bytes"), |scene| {
        stream(scene, FrameKind::Data, data(8, 1));
    };
    s14_data_of_an_exchange_without_channels: Cut("a channel that the exchange does not have"), |scene| {
        let frame = scene.owed(FrameKind::Data, data(1, 1));
        scene.link.send(&frame);
    };
    s14_data_without_bytes: Cut("without channel or bytes"), |scene| stream(scene, FrameKind::Data, data(1, 0));
    s14_data_without_a_channel: Cut("without channel or bytes"), |scene| stream(scene, FrameKind::Data, vec![]);
    s14_an_end_that_lies_about_its_total: Cut("whose total is not what was sent"), |scene| {
        twice(scene, &[(FrameKind::Data, data(1, 10)), (FrameKind::End, end(1, 11))]);
    };
    s14_data_behind_the_end: Cut("data behind the end"), |scene| {
        twice(scene, &[(FrameKind::Data, data(1, 10)), (FrameKind::End, end(1, 10)), (FrameKind::Data, data(1, 1))]);
    };
    s14_a_second_end: Cut("a second end"), |scene| {
        twice(scene, &[(FrameKind::End, end(1, 0)), (FrameKind::End, end(1, 0))]);
    };
    s14_an_end_that_cannot_be_read: Cut("an end that cannot be read"), |scene| {
        stream(scene, FrameKind::End, vec![0xff; 40]);
    };
    s14_an_end_of_a_channel_that_is_none: Cut("a channel that the exchange does not have"), |scene| {
        stream(scene, FrameKind::End, end(5, 0));
    };
    s14_credit_beyond_the_largest_window: Cut("credit beyond the largest window"), |scene| {
        stream(scene, FrameKind::Credit, encode(&Credit { channel: 0, total: Limits::WINDOW_MAX + 1 }));
    };
    s14_credit_without_bound: Cut("credit beyond the largest window"), |scene| {
        stream(scene, FrameKind::Credit, encode(&Credit { channel: 0, total: u64::MAX }));
    };
    s14_credit_that_cannot_be_read: Cut("credit that cannot be read"), |scene| {
        stream(scene, FrameKind::Credit, vec![0xff; 30]);
    };
    s14_credit_for_a_channel_that_is_none: Cut("a channel that the exchange does not have"), |scene| {
        stream(scene, FrameKind::Credit, encode(&Credit { channel: 6, total: 1 }));
    };
    s14_a_stop_of_a_channel_that_is_none: Cut("a channel that the exchange does not have"), |scene| {
        stream(scene, FrameKind::Stop, vec![6]);
    };
    s14_a_stop_that_cannot_be_read: Cut("a stop that cannot be read"), |scene| {
        stream(scene, FrameKind::Stop, vec![0, 0]);
    };
    s14_credit_given_by_the_side_that_asked_nothing: Passed, |scene| {
        as_requester(scene, FrameKind::Credit, encode(&Credit { channel: 1, total: 1 << 20 }));
    };
    s14_data_as_if_it_had_asked: Passed, |scene| as_requester(scene, FrameKind::Data, data(0, 10));
    s14_an_end_as_if_it_had_asked: Passed, |scene| as_requester(scene, FrameKind::End, end(0, 0));
    s14_an_acknowledgement_of_what_was_not_sent: Cut("an acknowledgement of what was not sent"), |scene| {
        scene.link.send(&Frame::link(FrameKind::Ack, encode(&Ack { bulk: 1 }).into()));
    };
    s14_an_acknowledgement_without_bound: Cut("an acknowledgement of what was not sent"), |scene| {
        scene.link.send(&Frame::link(FrameKind::Ack, encode(&Ack { bulk: u64::MAX }).into()));
    };
    s14_an_acknowledgement_that_cannot_be_read: Cut("acknowledgement that cannot be read"), |scene| {
        scene.link.send(&Frame::link(FrameKind::Ack, Bytes::from_static(&[0xff; 12])));
    };
    s14_a_pong_to_no_ping: Cut("a pong to no ping"), |scene| {
        scene.link.send(&Frame::link(FrameKind::Pong, encode(&Ping { seq: 1 << 50 }).into()));
    };
}
