//! S2, R3, S8: addresses are given, never claimed. Every kind of frame from every address that is not the sender's, and to
//! every address that lies below it; losses of others.

use bytes::Bytes;
use offshoot_tests::bounded::eventually;
use offshoot_wire::{
    Address, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameKind, Gone, LogRecord, LostReason, encode,
};

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, cases};
use crate::records::{self, FromBelow};
use crate::stage::PATIENCE;

/// A well-formed frame of a routed kind.
fn frame(kind: FrameKind, src: Address, dst: Address, scene: &Scene) -> Frame {
    let body: Bytes = match kind {
        FrameKind::Request => [vec![3, 0, 0], scene.exec()].concat().into(),
        FrameKind::Failure => encode(&Failure::new(FailureKind::Denied, "forged")).into(),
        FrameKind::Data => Bytes::from_static(b"\x01forged"),
        FrameKind::End => encode(&ChannelEnd { channel: 1, total: 0, reason: EndReason::Done }).into(),
        FrameKind::Credit => encode(&Credit { channel: 1, total: 1 }).into(),
        FrameKind::Stop => Bytes::from_static(&[1]),
        FrameKind::Cancel => Bytes::new(),
        _ => Bytes::from_static(b"forged"),
    };
    let mut frame = Frame::routed(kind, dst, src, scene.owed).with_body(body);
    frame.header.full = true;
    if !matches!(kind, FrameKind::Request | FrameKind::Cancel | FrameKind::Log) {
        frame.header.answer = true;
    }
    frame
}

fn claim(scene: &mut Scene, kind: FrameKind, src: Address) {
    // To somewhere that is not below the claimed address, so that nothing but the source is wrong.
    let dst = if src == Address::ROOT { scene.sibling.clone() } else { Address::ROOT };
    let frame = frame(kind, src, dst, scene);
    scene.link.send(&frame);
}

fn misdirect(scene: &mut Scene, kind: FrameKind, dst: Address) {
    let frame = frame(kind, scene.me.clone(), dst, scene);
    scene.link.send(&frame);
}

const CLAIMED: crate::case::Expect = Cut("expected one from under");
const MISDIRECTED: crate::case::Expect = Cut("lies under its sender's own link");

cases! {
    s2_a_request_from_the_master: CLAIMED, |scene| claim(scene, FrameKind::Request, Address::ROOT);
    s2_a_request_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Request, scene.sibling.clone());
    s2_a_request_from_the_future: CLAIMED, |scene| claim(scene, FrameKind::Request, scene.future());
    s2_a_reply_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Reply, scene.sibling.clone());
    s2_a_reply_from_the_master: CLAIMED, |scene| claim(scene, FrameKind::Reply, Address::ROOT);
    s2_a_reply_from_a_nephew: CLAIMED, |scene| claim(scene, FrameKind::Reply, scene.nephew());
    s2_a_failure_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Failure, scene.sibling.clone());
    s2_a_failure_from_the_future: CLAIMED, |scene| claim(scene, FrameKind::Failure, scene.future());
    s2_data_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Data, scene.sibling.clone());
    s2_data_from_the_master: CLAIMED, |scene| claim(scene, FrameKind::Data, Address::ROOT);
    s2_an_end_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::End, scene.sibling.clone());
    s2_credit_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Credit, scene.sibling.clone());
    s2_credit_from_the_master: CLAIMED, |scene| claim(scene, FrameKind::Credit, Address::ROOT);
    s2_a_stop_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Stop, scene.sibling.clone());
    s2_a_cancel_from_the_master: CLAIMED, |scene| claim(scene, FrameKind::Cancel, Address::ROOT);
    s2_a_cancel_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Cancel, scene.sibling.clone());
    s2_a_log_record_from_the_sibling: CLAIMED, |scene| claim(scene, FrameKind::Log, scene.sibling.clone());
    s2_a_request_from_an_address_with_its_own_as_a_text_prefix: CLAIMED, |scene| {
        // /1 is no ancestor of /10.
        let last = scene.me.path().last().expect("a child has one");
        let like = scene.parent.child(last * 10 + 10).expect("not deep");
        claim(scene, FrameKind::Request, like);
    };
    s2_a_request_to_its_own_child: MISDIRECTED, |scene| {
        misdirect(scene, FrameKind::Request, scene.me.child(0).expect("not deep"));
    };
    s2_a_request_to_itself: MISDIRECTED, |scene| misdirect(scene, FrameKind::Request, scene.me.clone());
    s2_a_reply_to_itself: MISDIRECTED, |scene| misdirect(scene, FrameKind::Reply, scene.me.clone());
    s2_data_to_its_own_child: MISDIRECTED, |scene| {
        misdirect(scene, FrameKind::Data, scene.me.child(9).expect("not deep"));
    };
    s2_a_cancel_to_itself: MISDIRECTED, |scene| misdirect(scene, FrameKind::Cancel, scene.me.clone());
    s2_a_log_record_to_its_own_child: MISDIRECTED, |scene| {
        misdirect(scene, FrameKind::Log, scene.me.child(0).expect("not deep"));
    };
    s2_frames_from_made_up_contexts_below_it_reach_nobody: Passed, |scene| {
        let mut src = scene.me.clone();
        for depth in 0..60 {
            let Ok(deeper) = src.child(depth) else { break };
            src = deeper;
            for kind in [FrameKind::Reply, FrameKind::Failure, FrameKind::Data, FrameKind::End, FrameKind::Cancel] {
                let frame = frame(kind, src.clone(), Address::ROOT, scene);
                scene.link.send(&frame);
            }
        }
    };
    s8_a_log_record_with_controls_in_all_that_it_says: Passed, |scene| {
        let nasty = "\x1b]0;t\x07\x1b[2J\r\nx\u{9b}\u{202e}\x7f\0";
        let send = |scene: &mut Scene, seq, level, said: &str| {
            let (module, thread, text) = (said.to_owned(), said.to_owned(), said.to_owned());
            let body = encode(&LogRecord { seq, level, unix_us: u64::MAX, module, thread, text });
            let frame = Frame::routed(FrameKind::Log, Address::ROOT, scene.me.clone(), 0);
            scene.link.send(&frame.with_body(body.into()));
        };
        send(scene, 1, 3, nasty);
        // A level that is none, and a number that tells of more losses than there can be.
        send(scene, u64::MAX, 9, nasty);
        send(scene, 2, 1, "heard still");
        let heard = || records::from_below().iter().any(|record| record.text == "heard still");
        assert!(eventually(PATIENCE, heard), "its records are heard no more: {:?}", records::from_below());
        let name = scene.evil.path().replace(" -> ", "/");
        let escaped = "\\x1b]0;t\\x07\\x1b[2J\\x0d\\x0ax\\xc2\\x9b\\xe2\\x80\\xae\\x7f\\x00";
        let first = FromBelow {
            target: format!("ctx.{name}::{escaped}"),
            module: escaped.into(),
            thread: escaped.into(),
            text: escaped.into(),
        };
        let of_it: Vec<FromBelow> =
            records::from_below().into_iter().filter(|record| record.target.starts_with(&format!("ctx.{name}::"))).collect();
        assert_eq!(of_it.len(), 3, "{of_it:#?}");
        assert_eq!(of_it[0], first);
        assert_eq!(of_it[1].text, format!("{} lines dropped", u64::MAX - 2));
    };
    s2_what_is_sent_to_a_context_that_never_was_is_answered_and_goes_nowhere: Passed, |scene| {
        let dst = scene.parent.child(4_000_000_000).expect("not deep");
        scene.ask(&dst, 1, 3, b"");
        let failure = scene.link.failure(1);
        assert!(matches!(failure.kind, FailureKind::NoRoute), "{failure:?}");
    };
    r3_a_notice_that_the_sibling_is_lost: Cut("is lost from"), |scene| gone(scene, scene.sibling.clone());
    r3_a_notice_that_the_parent_is_lost: Cut("is lost from"), |scene| gone(scene, scene.parent.clone());
    r3_a_notice_that_the_master_is_lost: Cut("is lost from"), |scene| gone(scene, Address::ROOT);
    r3_a_notice_that_it_is_lost_itself: Cut("is lost from"), |scene| gone(scene, scene.me.clone());
    r3_a_notice_that_a_future_sibling_is_lost: Cut("is lost from"), |scene| gone(scene, scene.future());
    r3_a_notice_that_a_nephew_is_lost: Cut("is lost from"), |scene| gone(scene, scene.nephew());
    r3_notices_of_losses_below_it_harm_nobody: Passed, |scene| {
        for index in 0..100 {
            gone(scene, scene.me.child(index).expect("not deep"));
        }
    };
    r3_a_flood_of_losses: Cut("a flood of losses"), |scene| {
        let mut bytes = Vec::new();
        for index in 0..40_000 {
            let prefix = scene.me.child(index).expect("not deep");
            let gone = Gone { prefix, reason: LostReason::LinkEnd };
            Frame::link(FrameKind::Gone, encode(&gone).into()).encode(&mut bytes);
        }
        scene.link.raw(&bytes);
    };
}

fn gone(scene: &mut Scene, prefix: Address) {
    let gone = Gone { prefix, reason: LostReason::Signalled(9) };
    scene.link.send(&Frame::link(FrameKind::Gone, encode(&gone).into()));
}
