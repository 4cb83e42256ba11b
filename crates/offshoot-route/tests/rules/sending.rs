//! The order in which frames leave, what fits, and how windows grow.

use super::*;

#[test]
fn a_large_copy_does_not_delay_a_call() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let copies: Vec<_> = (0..4).map(|_| lab.ask(0, a, Verb::Exec, None).expect("room")).collect();
    lab.settle();
    let now = lab.now;
    for id in lab.requests(a) {
        lab.nodes[a].consumed(id, channel::STDIN, 0, now);
    }
    lab.settle();
    for id in copies {
        lab.nodes[0].send(id, channel::STDIN, Bytes::from(vec![0; 256 * 1024]), now);
    }
    lab.ask(0, a, Verb::Echo, None).expect("room");
    lab.carry(0, a, 1000);
    assert_eq!(lab.requests(a).len(), 1, "the call goes before the bulk");
    little_is_in_flight(&mut lab, a);
}

#[test]
fn images_on_their_way_do_not_delay_a_call() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let b = lab.add(a);
    let wanted: Vec<_> = (0..4).map(|_| lab.ask(a, 0, Verb::Image, None).expect("room")).collect();
    lab.settle();
    let now = lab.now;
    for id in wanted {
        lab.nodes[a].consumed(id, channel::STDOUT, 0, now);
    }
    let served = lab.requests(0);
    lab.settle();
    for id in served {
        assert!(lab.nodes[0].send(id, channel::STDOUT, Bytes::from(vec![0; 256 * 1024]), now) > 0);
    }
    lab.ask(0, a, Verb::Echo, None).expect("room");
    lab.ask(0, b, Verb::Echo, None).expect("room");
    lab.carry(0, a, 1000);
    lab.carry(a, b, 1000);
    assert_eq!((lab.requests(a).len(), lab.requests(b).len()), (1, 1), "calls go before the images");
    little_is_in_flight(&mut lab, a);
}

/// What is in flight to `a` without acknowledgement stays small, however much waits.
fn little_is_in_flight(lab: &mut Lab, a: usize) {
    let (link, now) = (lab.link(0, a), lab.now);
    let mut bytes = Vec::new();
    while lab.nodes[0].poll_transmit(link, 1 << 20, &mut bytes, now) {}
    let stats = lab.nodes[0].stats(link).expect("up");
    assert!(stats.bulk_in_flight <= stats.bulk_limit + 66_000, "{stats:?}");
    assert!(stats.queued > 300_000, "{stats:?}");
}

#[test]
fn bulk_does_not_starve_under_a_stream_of_calls() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let copy = lab.ask(0, a, Verb::Exec, None).expect("room");
    lab.settle();
    let (now, dst) = (lab.now, lab.address(a));
    let id = lab.requests(a)[0];
    lab.nodes[a].consumed(id, channel::STDIN, 0, now);
    lab.settle();
    lab.nodes[0].send(copy, channel::STDIN, Bytes::from(vec![0; 100_000]), now);
    for _ in 0..60 {
        lab.nodes[0].request(&dst, Verb::Echo, Bytes::from(vec![0; 60_000]), None, now).expect("room");
    }
    lab.carry(0, a, 400_000);
    let data = lab.take(a).iter().filter(|event| matches!(event, Event::Data { .. })).count();
    assert!(data >= 1, "bulk got nothing in 400 kB");
}

#[test]
fn a_slim_link_splits_bulk_and_answers_what_does_not_fit() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let slim = lab.add_with(a, Limits { frame: 512, ..Limits::default() });
    let (dst, now) = (lab.address(slim), lab.now);
    lab.nodes[0].request(&dst, Verb::Echo, Bytes::from(vec![0; 600]), None, now).expect("it fits the first link");
    let call = lab.ask(0, slim, Verb::Exec, None).expect("room");
    lab.settle();
    let done = lab.done(0);
    assert_eq!(kinds(&done), [(&FailureKind::TooLarge, Ran::NotSent)]);
    let id = lab.requests(slim)[0];
    lab.nodes[slim].consumed(id, channel::STDIN, 0, now);
    lab.settle();
    assert_eq!(lab.nodes[0].send(call, channel::STDIN, Bytes::from(vec![7; 100_000]), now), 100_000);
    lab.nodes[0].finish(call, channel::STDIN, EndReason::Failed("long ".repeat(400)), now);
    lab.settle();
    let events = lab.take(slim);
    let got: usize = events.iter().map(|event| if let Event::Data { data, .. } = event { data.len() } else { 0 }).sum();
    assert_eq!(got, 100_000);
    assert!(matches!(events.last(), Some(Event::End { reason: EndReason::Failed(text), .. }) if text.len() > 300));
    lab.nodes[slim].reply(id, Bytes::from(vec![0; 5000]), now);
    lab.settle();
    let done = lab.done(0);
    assert_eq!(kinds(&done), [(&FailureKind::TooLarge, Ran::Executed)]);
    lab.assert_empty();
}

#[test]
fn small_pieces_that_wait_are_joined_and_messages_are_not() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let call = lab.ask(0, a, Verb::Exec, None).expect("room");
    lab.settle();
    let now = lab.now;
    for _ in 0..1000 {
        assert_eq!(lab.nodes[0].send(call, channel::STDIN, Bytes::from_static(b"x"), now), 1);
    }
    assert_eq!(lab.nodes[0].census().frames, 1);
    for _ in 0..3 {
        assert_eq!(lab.nodes[0].send(call, channel::CONTROL, Bytes::from_static(b"m"), now), 1);
    }
    assert_eq!(lab.nodes[0].census().frames, 4);
    lab.settle();
    let messages = lab.take(a).into_iter().filter(|event| matches!(event, Event::Data { channel: 3, .. })).count();
    assert_eq!(messages, 3);
}

#[test]
fn the_window_grows_while_the_reader_keeps_up_and_stays_within_its_sum() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let calls: Vec<_> = (0..12).map(|_| lab.ask(0, a, Verb::Exec, None).expect("room")).collect();
    lab.settle();
    let served = lab.requests(a);
    let now = lab.now;
    for _ in 0..400 {
        for id in &served {
            for _ in 0..20 {
                lab.nodes[a].send(*id, channel::STDOUT, Bytes::from(vec![0; 64 * 1024]), now);
            }
        }
        lab.settle();
        for event in lab.take(0) {
            if let Event::Data { id, channel, data } = event {
                lab.nodes[0].consumed(id, channel, data.len(), now);
            }
        }
        assert!(lab.nodes[0].census().granted <= Limits::WINDOW_SUM + calls.len() as u64 * 2 * Limits::WINDOW_FLOOR);
    }
    assert!(lab.nodes[0].census().granted > 6 << 20, "windows grew to {}", lab.nodes[0].census().granted);
}
