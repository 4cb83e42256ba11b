//! Bytes that are no frames, frames that are half there, and links that end at any point.

use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_wire::{Bye, Frame, FrameKind, LostReason, ShutdownNotice, encode};

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, answer, cases};
use crate::link::bytes_of;
use crate::stage::{PATIENCE, Place};

fn raw(scene: &mut Scene, frame: &[u8]) {
    let mut bytes = (frame.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(frame);
    scene.link.raw(&bytes);
}

/// A reserved kind, or one that goes downwards only.
fn link_frame(scene: &mut Scene, kind: FrameKind, body: impl Into<Bytes>) {
    scene.link.send(&Frame::link(kind, body.into()));
}

cases! {
    text_where_a_frame_should_be: Cut("got \"Segmentation"), |scene| scene.link.raw(b"Segmentation fault\n");
    random_bytes: Cut("got \""), |scene| {
        scene.link.raw(&[0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15, 0xf3, 0x9c, 0xc0, 0x60]);
    };
    garbage_behind_a_good_frame: Cut("unknown frame kind"), |scene| {
        let mut bytes = bytes_of(&Frame::link(FrameKind::Ping, encode(&offshoot_wire::Ping { seq: 1 }).into()));
        bytes.extend([9, 0, 0, 0, 0x7f, 0, 1, 2, 3]);
        scene.link.raw(&bytes);
    };
    s12_a_frame_longer_than_its_link_takes: Cut("expected at most"), |scene| {
        scene.link.raw(&(65_537u32).to_le_bytes());
    };
    s12_a_frame_of_4_gib: Cut("expected at most"), |scene| scene.link.raw(&u32::MAX.to_le_bytes());
    a_frame_without_a_head: Cut("malformed frame head"), |scene| scene.link.raw(&[0; 4]);
    a_frame_of_one_byte: Cut("malformed frame head"), |scene| raw(scene, &[1]);
    a_frame_of_a_kind_that_is_none: Cut("unknown frame kind 0x00"), |scene| raw(scene, &[0, 0]);
    a_frame_of_a_kind_from_the_future: Cut("unknown frame kind 0x3f"), |scene| raw(scene, &[0x3f, 0, 0, 0, 0]);
    flags_that_mean_nothing: Cut("impossible flags"), |scene| raw(scene, &[1, 0x80, 0, 0, 0]);
    a_reply_that_is_no_answer: Cut("impossible flags"), |scene| raw(scene, &[2, 0, 0, 0, 0]);
    a_request_that_is_an_answer: Cut("impossible flags"), |scene| raw(scene, &[1, 2, 0, 0, 0]);
    a_ping_with_the_mark: Cut("impossible flags"), |scene| raw(scene, &[0x40, 1, 1]);
    s2_an_address_deeper_than_a_tree: Cut("malformed frame head"), |scene| raw(scene, &[&[1, 0, 65], &[0; 70][..]].concat());
    an_address_that_is_cut_short: Cut("malformed frame head"), |scene| raw(scene, &[1, 0, 9, 1]);
    an_address_in_another_encoding: Cut("malformed frame head"), |scene| raw(scene, &[1, 0, 1, 0x80, 0x00, 0, 1]);
    an_index_beyond_32_bits: Cut("malformed frame head"), |scene| {
        raw(scene, &[1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 1]);
    };
    an_exchange_number_beyond_64_bits: Cut("malformed frame head"), |scene| {
        raw(scene, &[&[1, 0, 0, 0], &[0xff; 10][..], &[1]].concat());
    };
    a_shutdown_from_below: Cut("a shutdown from below"), |scene| {
        link_frame(scene, FrameKind::Shutdown, encode(&ShutdownNotice { grace_ms: 0, kill_ms: 0 }));
    };
    a_shutdown_that_cannot_be_read: Cut("shutdown that cannot be read"), |scene| {
        link_frame(scene, FrameKind::Shutdown, vec![0xff; 9]);
    };
    a_notice_of_detaching: Cut("reserved kind"), |scene| link_frame(scene, FrameKind::Detaching, vec![]);
    a_ping_that_cannot_be_read: Cut("ping that cannot be read"), |scene| link_frame(scene, FrameKind::Ping, vec![]);
    a_pong_with_more_behind_it: Cut("pong that cannot be read"), |scene| {
        link_frame(scene, FrameKind::Pong, vec![1, 2]);
    };
    a_notice_of_loss_that_cannot_be_read: Cut("notice of loss that cannot be read"), |scene| {
        link_frame(scene, FrameKind::Gone, vec![200]);
    };
    a_last_word_that_cannot_be_read: Cut("last word that cannot be read"), |scene| {
        link_frame(scene, FrameKind::Bye, vec![99]);
    };
    a_frame_byte_by_byte: Passed, |scene| {
        let frame = bytes_of(&answer(FrameKind::Reply, &scene.me, &scene.sibling, 1, &b"slow"[..]));
        for byte in frame {
            scene.link.raw(&[byte]);
        }
    };
    half_a_frame_that_stalls_holds_up_nobody_else: Passed, |scene| {
        let frame = bytes_of(&answer(FrameKind::Reply, &scene.me, &scene.sibling, 1, vec![7; 60_000]));
        scene.link.raw(&frame[..40_000]);
        for _ in 0..20 {
            let echo = scene.stage.sibling.start_echo(b"beside").expect("it is up");
            assert_eq!(&echo.wait_timeout(PATIENCE).expect("the sibling answers")[..], b"beside");
        }
        scene.link.raw(&frame[40_000..]);
    };
    s7_bodies_that_announce_more_than_they_hold: Passed, |scene| {
        let parent = scene.parent.clone();
        let before = crate::stage::memory("self");
        // A grant with 2^60 links, an announced text of 2^60 bytes, a list of as many holders.
        for (number, tail) in [&[0x80u8; 9][..], &[0xff; 9], &[16, 64, 0xff, 0xff, 0xff, 0xff, 0x0f]].into_iter().enumerate() {
            for verb in [1u8, 3, 4, 10] {
                let body = [&[verb, 0, 1, 0, 1][..], tail, &[0; 64]].concat();
                let number = (number * 100 + usize::from(verb)) as u64;
                let frame = Frame::routed(FrameKind::Request, parent.clone(), scene.me.clone(), number);
                scene.link.send(&frame.with_body(body.into()));
                let failure = scene.link.failure(number);
                assert!(failure.kind != offshoot_wire::FailureKind::NoRoute, "{failure:?}");
            }
        }
        assert!(crate::stage::memory("self") < before + (8 << 20), "it was allocated by what was announced");
    };
}

/// What ends a link that is closed without a word.
fn closed(place: Place, act: fn(&mut Scene), is_reason: fn(&LostReason) -> bool) {
    let mut scene = Scene::new(place);
    let owed = scene.stage.pending(&scene.evil);
    scene.owed = scene.link.request().0.exchange;
    act(&mut scene);
    let Scene { stage, link, evil, .. } = scene;
    drop(link.close());
    let started = Instant::now();
    let error = owed.wait_timeout(PATIENCE).expect_err("it will never answer");
    let offshoot_wire::FailureKind::PeerLost(reason) = error.kind() else { panic!("{error}") };
    assert!(is_reason(reason), "{error}");
    // 250 ms are promised.
    assert!(started.elapsed() < Duration::from_millis(3 * 250 + 1000), "it took {:?}", started.elapsed());
    drop(evil);
    stage.finish();
}

fn is_end(reason: &LostReason) -> bool {
    matches!(reason, LostReason::LinkEnd | LostReason::Exited(0))
}

macro_rules! ends {
    ($($name:ident: $is_reason:expr, $act:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn below_the_master() {
                crate::stage::alone(|| closed(Place::BelowTheMaster, $act, $is_reason));
            }

            #[test]
            fn below_an_agent() {
                crate::stage::alone(|| closed(Place::BelowAnAgent, $act, $is_reason));
            }
        })*
    };
}

ends! {
    the_link_is_closed_between_two_frames: is_end, |_| {};
    the_link_is_closed_in_the_length_of_a_frame: is_end, |scene| scene.link.raw(&[30, 0]);
    the_link_is_closed_in_the_head_of_a_frame: is_end, |scene| scene.link.raw(&[30, 0, 0, 0, 2, 2, 0]);
    the_link_is_closed_in_the_body_of_a_frame: is_end, |scene| {
        let frame = scene.owed(FrameKind::Reply, vec![1; 1000]);
        scene.link.raw(&bytes_of(&frame)[..500]);
    };
    the_link_is_closed_in_the_middle_of_a_stream: is_end, |scene| {
        let number = scene.process();
        let frame = answer(FrameKind::Data, &scene.me, &offshoot_wire::Address::ROOT, number, vec![1; 10_000]);
        scene.link.raw(&bytes_of(&frame));
    };
    the_writing_side_alone_is_closed: is_end, |scene| {
        scene.link.end_writing();
    };
    a_last_word_with_a_reason_of_its_own: |reason| *reason == LostReason::Signalled(11), |scene| {
        let bye = Bye { reason: LostReason::Signalled(11) };
        scene.link.send(&Frame::link(FrameKind::Bye, encode(&bye).into()));
    };
    frames_behind_the_last_word_are_not_heard: |reason| *reason == LostReason::Shutdown, |scene| {
        let bye = Bye { reason: LostReason::Shutdown };
        let mut bytes = bytes_of(&Frame::link(FrameKind::Bye, encode(&bye).into()));
        scene.owed(FrameKind::Reply, &b"too late"[..]).encode(&mut bytes);
        scene.link.raw(&bytes);
    };
}
