//! What a child makes its parent keep, tell and look at (S12, S13).

use super::*;

/// A context two below an evil one is lost, the evil one says, and has much to say about it.
fn loss(evil: &lab::Evil, number: u32, text: &str) -> Frame {
    let prefix = evil.address.child(1).and_then(|child| child.child(number)).expect("not deep");
    let reason = LostReason::Violation(text.into());
    Frame::link(FrameKind::Gone, encode(&Gone { prefix, reason }).into())
}

#[test]
fn s12_losses_that_cannot_be_told_end_the_link_within_the_budget_and_no_other() {
    for text in ["", &"x".repeat(Limits::MESSAGE)] {
        let mut lab = Lab::new();
        let a = lab.add(0);
        let (evil, other) = (lab.evil(a), lab.evil(a));
        // The link to the parent stands still.
        let mut number = 0;
        while lab.closed(&evil).is_none() {
            assert!(number < 100_000, "{number} losses are kept");
            number += 1;
            lab.inject(&evil, &loss(&evil, number, text));
        }
        assert!(number > 5000, "{number} losses are too many");
        lab.inject(&other, &loss(&other, 1, text));
        assert_eq!(lab.closed(&other), None, "what one child says exhausts another's limit");
        let (up, now) = (lab.link(a, 0), lab.now);
        let mut bytes = Vec::new();
        while lab.nodes[a].poll_transmit(up, 64 * 1024, &mut bytes, now) {}
        assert!(bytes.len() < 5 << 20, "{} bytes waited", bytes.len());
        // What was told counts no longer.
        let link = lab.evil(a);
        for number in 0..4000 {
            lab.inject(&link, &loss(&link, number, text));
            lab.nodes[a].poll_transmit(up, 64 * 1024, &mut bytes, now);
        }
        assert_eq!(lab.closed(&link), None);
    }
}

#[test]
fn s12_what_is_said_of_a_violation_is_passed_on_shortened() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let evil = lab.evil(a);
    lab.inject(&evil, &loss(&evil, 1, &"ä".repeat(Limits::MESSAGE / 2)));
    let bye = LostReason::Violation(format!("a{}", "ä".repeat(Limits::MESSAGE / 2 - 1)));
    lab.inject(&evil, &Frame::link(FrameKind::Bye, encode(&offshoot_wire::Bye { reason: bye }).into()));
    lab.settle();
    let texts: Vec<String> = lab
        .take(0)
        .into_iter()
        .filter_map(|event| match event {
            Event::Gone { reason: LostReason::Violation(text), .. } => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["ä".repeat(256), format!("a{}", "ä".repeat(255))]);
}

#[test]
fn s13_losses_that_are_told_leave_half_of_the_link_to_answers() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let b = lab.add(a);
    let evil = lab.evil(a);
    let now = lab.now;
    let calls: Vec<ExchangeId> = (0..100).map(|_| lab.ask(0, b, Verb::Echo, None).expect("room")).collect();
    lab.settle();
    for number in 0..20_000 {
        lab.inject(&evil, &loss(&evil, number, ""));
    }
    for id in lab.requests(b) {
        lab.nodes[b].reply(id, vec![7; 200].into(), now);
    }
    lab.carry(b, a, usize::MAX);
    // 20 kB of answers behind 32 KiB of notices that may be ahead, and as much again of them beside.
    lab.carry(a, 0, 80_000);
    assert_eq!(lab.done(0).len(), calls.len(), "answers wait for somebody else's losses");
    lab.settle();
    let told = lab.take(0).iter().filter(|event| matches!(event, Event::Gone { .. })).count();
    assert!(told > 15_000, "{told} of 20,000 losses were told behind them");
}

#[test]
fn s12_what_a_reader_holds_keeps_seven_times_its_size_in_memory_at_most() {
    const BUFFER: usize = 192 * 1024;
    for size in [100, 2049, 8000, 30_000, 32_800, 60_000] {
        let mut lab = Lab::new();
        let evil = lab.evil(0);
        let now = lab.now;
        lab.nodes[0].request(&evil.address, Verb::Exec, Bytes::new(), None, now).expect("room");
        let number = lab.received(&evil)[0].0.exchange;
        // One piece of the stream, and the rest of the buffer is thrown away.
        let from_evil = |kind, number, body: Vec<u8>| {
            let mut frame = Frame::routed(kind, Address::ROOT, evil.address.clone(), number).with_body(body.into());
            frame.header.answer = true;
            frame
        };
        let mut buffer = BytesMut::with_capacity(BUFFER);
        let mut bytes = Vec::new();
        from_evil(FrameKind::Data, number, [vec![channel::STDOUT], vec![7; size]].concat()).encode(&mut bytes);
        while bytes.len() + 62_100 < BUFFER {
            from_evil(FrameKind::Reply, 1 << 40, vec![8; 62_000]).encode(&mut bytes);
        }
        buffer.extend_from_slice(&bytes);
        lab.nodes[0].handle_bytes(evil.link, &mut buffer, now);
        assert_eq!(lab.closed(&evil), None);
        let held: Vec<Event> = lab.take(0).into_iter().filter(|event| matches!(event, Event::Data { .. })).collect();
        let [Event::Data { data, .. }] = &held[..] else { panic!("{held:?}") };
        assert_eq!(data.len(), size);
        let pinned = if buffer.try_reclaim(BUFFER) { 0 } else { BUFFER };
        assert!(pinned + size <= 7 * size, "{size} bytes hold {pinned}");
    }
}

#[test]
fn s13_frames_that_belong_to_nothing_are_counted_by_their_length() {
    let strays = Rate { burst: 1000, per_second: 0 };
    for (size, most) in [(10, 1000), (62_000, 70)] {
        let mut lab = Lab::with(Config::with(|config| config.strays = strays));
        let evil = lab.evil(0);
        let mut frame = Frame::routed(FrameKind::Reply, Address::ROOT, evil.address.clone(), 1 << 40)
            .with_body(vec![8; size].into());
        frame.header.answer = true;
        let mut taken = 0;
        while lab.closed(&evil).is_none() {
            lab.inject(&evil, &frame);
            taken += 1;
            assert!(taken <= most + 1, "{taken} frames of {size} bytes");
        }
        assert!(taken > most / 2, "{taken} frames of {size} bytes are a flood");
    }
}
