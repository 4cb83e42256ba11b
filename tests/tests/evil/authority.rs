//! S1, S5, S6: what a child may ask, whatever it claims.

use offshoot_wire::{Address, FailureKind, ImageSpec, PayloadSpec, ShutdownNotice, Verb, encode};

use crate::case::Expect::{Cut, Passed};
use crate::case::{Scene, cases, request, verbs};

/// Asks for every verb with and without the mark, of a context that is not the parent or is.
fn everything(scene: &mut Scene, dst: &Address) {
    let body = scene.exec();
    let me = scene.me.clone();
    for (number, (verb, full)) in verbs().flat_map(|verb| [(verb, false), (verb, true)]).enumerate() {
        let number = number as u64 + 1;
        let open = [Verb::Payload, Verb::Image].map(Verb::number).contains(&verb);
        if open {
            // Open to a direct child by its policy; tried apart.
            continue;
        }
        scene.link.send(&request(&me, dst, number, verb, full, None, &body));
        let known = Verb::from_number(verb).is_some();
        let serves = *dst == scene.parent && !known;
        scene.link.refused(number, if serves { &FailureKind::Unsupported } else { &FailureKind::Denied });
    }
}

cases! {
    s1_every_verb_with_the_mark_is_denied_by_the_parent: Passed, |scene| everything(scene, &scene.parent.clone());
    s1_every_verb_with_the_mark_is_denied_on_the_way_to_the_sibling: Passed, |scene| {
        everything(scene, &scene.sibling.clone());
    };
    s1_every_verb_with_the_mark_is_denied_on_the_way_to_a_nephew: Passed, |scene| everything(scene, &scene.nephew());
    s1_nothing_is_asked_of_the_root_by_right: Passed, |scene| everything(scene, &Address::ROOT);
    s1_who_goes_on_asking_is_cut_off: Cut("a flood of requests that are refused"), |scene| {
        let (me, parent, body) = (scene.me.clone(), scene.parent.clone(), scene.exec());
        for number in 1..3000 {
            scene.link.raw(&crate::link::bytes_of(&request(&me, &parent, number, 3, true, None, &body)));
        }
    };
    s1_who_goes_on_asking_its_sibling_is_cut_off: Cut("a flood of requests that are refused"), |scene| {
        let (me, sibling, body) = (scene.me.clone(), scene.sibling.clone(), scene.exec());
        for number in 1..3000 {
            scene.link.raw(&crate::link::bytes_of(&request(&me, &sibling, number, 3, true, None, &body)));
        }
    };
    s1_the_mark_is_no_more_believed_after_an_honest_answer: Passed, |scene| {
        let number = scene.process();
        scene.link.send(&crate::case::answer(
            offshoot_wire::FrameKind::Failure,
            &scene.me.clone(),
            &Address::ROOT,
            number,
            encode(&offshoot_wire::Failure::new(FailureKind::Denied, "not here")),
        ));
        assert!(scene.link.is_alive());
        everything(scene, &scene.parent.clone());
    };
    s1_a_shutdown_asked_from_below_ends_nobody: Passed, |scene| {
        let body = encode(&ShutdownNotice { grace_ms: 0, kill_ms: 0 });
        for (number, dst) in [scene.parent.clone(), scene.sibling.clone(), Address::ROOT].iter().enumerate() {
            scene.ask(dst, number as u64 + 1, Verb::Shutdown.number(), &body);
            scene.link.refused(number as u64 + 1, &FailureKind::Denied);
        }
    };
    s5_a_payload_of_no_known_triple_is_an_error_for_its_asker_alone: Passed, |scene| {
        let body = encode(&PayloadSpec { triple: "../../etc/passwd".into(), program: None });
        let parent = scene.parent.clone();
        scene.ask(&parent, 1, Verb::Payload.number(), &body);
        let failure = scene.link.failure(1);
        assert!(matches!(failure.kind, FailureKind::NoAgent(_)), "{failure:?}");
    };
    s5_a_payload_is_open_to_a_direct_child_and_not_to_who_lies_below_it: Passed, |scene| {
        let below = scene.me.child(5).expect("not deep");
        let body = encode(&PayloadSpec { triple: "x".into(), program: None });
        let parent = scene.parent.clone();
        scene.link.send(&request(&below, &parent, 1, Verb::Payload.number(), false, None, &body));
        scene.link.refused(1, &FailureKind::Denied);
    };
    s5_a_payload_asked_of_the_sibling_is_denied_there: Passed, |scene| {
        let body = encode(&PayloadSpec { triple: "x".into(), program: None });
        let sibling = scene.sibling.clone();
        scene.ask(&sibling, 1, Verb::Payload.number(), &body);
        scene.link.refused(1, &FailureKind::Denied);
    };
    s6_a_verb_that_is_none_is_an_error_of_that_request_alone: Passed, |scene| {
        let parent = scene.parent.clone();
        for (number, verb) in [0u16, 14, 999, 65_535].into_iter().enumerate() {
            scene.ask(&parent, number as u64 + 1, verb, b"");
            scene.link.refused(number as u64 + 1, &FailureKind::Unsupported);
        }
    };
    s6_an_image_that_is_asked_for_in_other_words_is_malformed: Passed, |scene| {
        let parent = scene.parent.clone();
        scene.ask(&parent, 1, Verb::Image.number(), b"");
        scene.link.refused(1, &FailureKind::Malformed);
    };
    s11_a_content_that_was_not_registered_is_served_to_nobody: Passed, |scene| {
        let parent = scene.parent.clone();
        let body = encode(&ImageSpec { hash: [7; 32], keep: false });
        scene.ask(&parent, 1, Verb::Image.number(), &body);
        scene.link.refused(1, &FailureKind::Denied);
    };
    s11_a_child_has_nothing_brought_to_its_parent: Passed, |scene| {
        let parent = scene.parent.clone();
        let body = encode(&ImageSpec { hash: [7; 32], keep: true });
        scene.ask(&parent, 1, Verb::Image.number(), &body);
        let failure = scene.link.failure(1);
        assert_eq!(failure.message, "that is not a child's to ask", "{failure:?}");
    };
    s6_a_request_that_is_cut_short_is_an_error_of_that_request_alone: Passed, |scene| {
        use offshoot_wire::{Frame, FrameKind};
        for (number, dst) in [scene.parent.clone(), scene.sibling.clone()].into_iter().enumerate() {
            for (index, body) in [&[][..], &[3], &[0xff; 3], &[3, 0, 1], &[3, 0, 2]].into_iter().enumerate() {
                let number = (number * 100 + index) as u64;
                let frame = Frame::routed(FrameKind::Request, dst.clone(), scene.me.clone(), number);
                scene.link.send(&frame.with_body(bytes::Bytes::from_static(body)));
                let failure = scene.link.failure(number);
                assert!(matches!(failure.kind, FailureKind::Malformed | FailureKind::Denied), "{failure:?}");
            }
        }
    };
    s14_a_first_window_beyond_the_largest_is_refused: Passed, |scene| {
        use offshoot_wire::{Frame, FrameKind, RequestHead};
        for (number, window) in [128 * 1024 + 1, u32::MAX].into_iter().enumerate() {
            let head = RequestHead { verb: Verb::Payload.number(), window, grant: None };
            let frame = Frame::routed(FrameKind::Request, scene.parent.clone(), scene.me.clone(), number as u64);
            scene.link.send(&frame.with_body(encode(&head).into()));
            scene.link.refused(number as u64, &FailureKind::Malformed);
        }
    };
}
