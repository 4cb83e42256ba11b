//! What is bounded and by what: queues, work, credit (S12 to S14).

use super::*;

#[test]
fn s12_refusals_that_are_not_read_end_the_link_within_the_budget() {
    let config = Config::with(|config| {
        config.control_budget = 64 * 1024;
        config.refusals = Rate { burst: u32::MAX, per_second: 0 };
    });
    let mut lab = Lab::with(config);
    let evil = lab.evil(0);
    let dst: Address = "/77".parse().expect("an address");
    let mut number = 0;
    while lab.closed(&evil).is_none() {
        number += 1;
        assert!(number < 10_000);
        lab.inject(&evil, &request(&evil.address, &dst, number, Verb::Echo.number(), false, None));
    }
    assert!(number > 100);
}

#[test]
fn s12_requests_that_nothing_is_heard_of_are_refused_at_the_window_and_room_is_told() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let (dst, now) = (lab.address(a), lab.now);
    let body = Bytes::from(vec![0; 60_000]);
    let mut taken = 0;
    let refused = loop {
        match lab.nodes[0].request(&dst, Verb::Echo, body.clone(), None, now) {
            Ok(_) => taken += 1,
            Err(failure) => break failure,
        }
    };
    assert_eq!((&refused.kind, refused.ran), (&FailureKind::Busy, Ran::NotSent));
    assert!(lab.nodes[0].awaits_room(lab.link(0, a)));
    assert!((250..290).contains(&taken), "{taken} requests of 60 kB");
    lab.settle();
    assert!(lab.nodes[0].awaits_room(lab.link(0, a)), "they have arrived, and nobody has said so");
    let arrived = lab.requests(a);
    assert_eq!(arrived.len(), taken);
    for id in arrived {
        lab.nodes[a].reply(id, Bytes::new(), now);
    }
    lab.settle();
    let link = lab.link(0, a);
    assert!(lab.take(0).contains(&Event::Room { link }));
    assert!(!lab.nodes[0].awaits_room(link));
    assert_eq!(lab.nodes[0].census().unheard, 0);
    // Whoever waits for room hears of the end of the link, too.
    while lab.nodes[0].request(&dst, Verb::Echo, body.clone(), None, now).is_ok() {}
    lab.cut(0, a);
    assert!(lab.take(0).contains(&Event::Room { link }));
}

#[test]
fn what_one_context_asks_through_relays_is_refused_by_none_of_them() {
    // The last hop passes nothing on, so everything waits in front of it.
    let config = Config::with(|config| {
        config.call_window = 400_000;
        config.call_budget = 100_000;
    });
    let mut lab = Lab::with(config);
    let a = lab.add(0);
    let b = lab.add(a);
    let c = lab.add(b);
    let (dst, now) = (lab.address(c), lab.now);
    let mut asked = 0;
    for length in (0..=60_000).step_by(997).cycle() {
        if lab.nodes[0].request(&dst, Verb::Echo, vec![1; length].into(), None, now).is_err() {
            break;
        }
        asked += 1;
        lab.carry(0, a, usize::MAX);
        lab.carry(a, b, usize::MAX);
    }
    assert!(lab.nodes[b].census().queued > 330_000, "{} bytes wait", lab.nodes[b].census().queued);
    assert_eq!(lab.done(0), [], "a relay refused");
    lab.settle();
    for id in lab.requests(c) {
        lab.nodes[c].reply(id, Bytes::new(), now);
    }
    lab.settle();
    let done = lab.done(0);
    assert!(done.iter().all(|(_, result)| result.is_ok()) && done.len() == asked, "{done:?}");
    lab.assert_empty();
}

#[test]
fn what_is_asked_by_a_grant_leaves_the_share_of_ancestors_alone() {
    let mut lab = Lab::with(Config::with(|config| {
        config.call_window = 100_000;
        config.call_budget = 50_000;
    }));
    let holder = lab.add(0);
    let relay = lab.add(0);
    let target = lab.add(relay);
    let now = lab.now;
    let by = lab.address(holder);
    let grant = lab.nodes[target].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
    let body = Bytes::from(vec![0; 9_000]);
    // The way from the relay to the target stands still; the holder asks as much as it is let.
    let dst = lab.address(target);
    for _ in 0..20 {
        let _ = lab.nodes[holder].request(&dst, Verb::Echo, body.clone(), Some(grant.clone()), now);
        lab.carry(holder, 0, usize::MAX);
        lab.carry(0, relay, usize::MAX);
    }
    assert!(lab.nodes[relay].census().queued > 30_000);
    let mut asked = 0;
    while lab.nodes[0].request(&dst, Verb::Echo, body.clone(), None, now).is_ok() {
        asked += 1;
        lab.carry(0, relay, usize::MAX);
    }
    lab.carry(relay, 0, usize::MAX);
    assert!(asked >= 10 && lab.done(0).is_empty(), "one of {asked} was refused");
}

#[test]
fn a_request_counts_no_longer_once_the_asked_context_was_heard() {
    let mut lab = Lab::with(Config::with(|config| config.call_window = 20_000));
    let a = lab.add(0);
    let b = lab.add(a);
    let (dst, now) = (lab.address(b), lab.now);
    for _ in 0..50 {
        lab.nodes[0].request(&dst, Verb::Exec, vec![0; 15_000].into(), None, now).expect("room");
        lab.settle();
        let id = *lab.requests(b).last().expect("it came");
        // It runs on, and says that it reads its input.
        lab.nodes[b].consumed(id, channel::STDIN, 0, now);
        lab.settle();
    }
    assert_eq!((lab.nodes[0].pending(), lab.nodes[0].census().unheard), (50, 0));
}

#[test]
fn s12_too_many_requests_under_way_is_told_from_want_of_room() {
    let mut lab = Lab::with(Config::with(|config| config.max_pending = 3));
    let a = lab.add(0);
    for _ in 0..3 {
        lab.ask(0, a, Verb::Echo, None).expect("a place");
    }
    let refused = lab.ask(0, a, Verb::Echo, None).expect_err("no place");
    assert_eq!(refused.kind, FailureKind::Busy);
    assert!(!lab.nodes[0].awaits_room(lab.link(0, a)), "no room will be told of");
    lab.settle();
    let (id, now) = (lab.requests(a)[0], lab.now);
    lab.nodes[a].reply(id, Bytes::new(), now);
    lab.settle();
    assert_eq!(lab.done(0).len(), 1);
    lab.ask(0, a, Verb::Echo, None).expect("the place of the one that is done");
}

#[test]
fn s12_answers_beyond_the_budget_become_failures_that_say_the_work_ran() {
    let config = Config::with(|config| config.answer_budget = 200_000);
    let mut lab = Lab::with(config);
    let a = lab.add(0);
    let b = lab.add(a);
    for _ in 0..10 {
        lab.ask(0, b, Verb::Echo, None).expect("room");
    }
    lab.settle();
    let now = lab.now;
    for id in lab.requests(b) {
        lab.nodes[b].reply(id, Bytes::from(vec![7; 50_000]), now);
        // Carried to the relay at once; the relay's own way up stands still.
        lab.carry(b, a, usize::MAX);
    }
    assert!(lab.nodes[a].census().queued < 260_000);
    lab.settle();
    let done = lab.done(0);
    let failed = kinds(&done);
    assert_eq!(done.len(), 10);
    assert_eq!(failed.len(), 7);
    assert!(failed.iter().all(|failure| *failure == (&FailureKind::Busy, Ran::Executed)));
    lab.assert_empty();
}

#[test]
fn s12_a_reader_that_stalls_holds_its_own_stream_alone() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let b = lab.add(a);
    let (slow, fast) = (lab.ask(0, b, Verb::Exec, None), lab.ask(0, b, Verb::Exec, None));
    let (slow, fast) = (slow.expect("room"), fast.expect("room"));
    lab.settle();
    let served = lab.requests(b);
    let now = lab.now;
    let piece = Bytes::from(vec![0; 64 * 1024]);
    let (mut read, mut sent) = (0usize, [0usize; 2]);
    for _ in 0..2000 {
        for (index, id) in served.iter().enumerate() {
            sent[index] += lab.nodes[b].send(*id, channel::STDOUT, piece.clone(), now);
        }
        lab.settle();
        for event in lab.take(0) {
            match event {
                Event::Data { id, channel, data } if id == fast => {
                    read += data.len();
                    lab.nodes[0].consumed(id, channel, data.len(), now);
                }
                Event::Data { id, .. } => assert_eq!(id, slow),
                _ => {}
            }
        }
    }
    assert!(read > 32 << 20, "the fast one read {read}");
    assert_eq!(sent[0], Limits::WINDOW_START as usize, "the slow one was sent its window");
    for node in [0, a, b] {
        assert_eq!(lab.nodes[node].census().queued, 0, "nothing piles up at {node}");
    }
}

/// A context whose child sent it 50,000 bytes and ended the channel; the call, and what the child serves.
fn unread() -> (Lab, ExchangeId, usize, ExchangeId) {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let call = lab.ask(0, a, Verb::Exec, None).expect("room");
    lab.settle();
    let (id, now) = (lab.requests(a)[0], lab.now);
    lab.nodes[a].send(id, channel::STDOUT, Bytes::from(vec![0; 50_000]), now);
    lab.nodes[a].finish(id, channel::STDOUT, EndReason::Done, now);
    lab.settle();
    let of_stderr = Limits::WINDOW_START;
    assert_eq!(
        lab.nodes[0].census().granted,
        of_stderr + 50_000,
        "what came and is not read counts when the channel ends"
    );
    (lab, call, a, id)
}

#[test]
fn s12_what_came_counts_until_it_is_read_also_when_the_exchange_is_done() {
    let (mut lab, call, a, id) = unread();
    let now = lab.now;
    lab.nodes[0].consumed(call, channel::STDOUT, 10_000, now);
    lab.nodes[a].reply(id, Bytes::new(), now);
    lab.settle();
    assert_eq!(lab.done(0).len(), 1);
    assert_eq!(lab.nodes[0].census().granted, 40_000);
    lab.nodes[0].consumed(call, channel::STDOUT, 30_000, now);
    assert_eq!(lab.nodes[0].census().granted, 10_000);
    lab.nodes[0].consumed(call, channel::STDOUT, 30_000, now);
    lab.assert_empty();
}

#[test]
fn s12_what_is_thrown_away_counts_no_longer() {
    for (before, after) in [(true, false), (false, true), (false, false)] {
        let (mut lab, call, a, id) = unread();
        let now = lab.now;
        if before {
            lab.nodes[0].stop(call, channel::STDOUT, now);
        }
        if before || after {
            lab.nodes[a].reply(id, Bytes::new(), now);
        } else {
            lab.cut(0, a);
        }
        lab.settle();
        assert_eq!(lab.nodes[0].census().granted, if before { 0 } else { 50_000 });
        lab.nodes[0].cancel(call, now);
        lab.assert_empty();
    }
    let (mut lab, call, ..) = unread();
    let now = lab.now;
    lab.nodes[0].cancel(call, now);
    lab.settle();
    assert_eq!(lab.nodes[0].census().granted, 0, "cancelled before it was done");
}

#[test]
fn s12_unread_data_leaves_new_streams_the_floor_only() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let now = lab.now;
    let mut calls = Vec::new();
    for _ in 0..200 {
        let call = lab.ask(0, a, Verb::Exec, None).expect("room");
        lab.settle();
        let id = lab.requests(a)[0];
        lab.nodes[a].send(id, channel::STDOUT, Bytes::from(vec![0; 128 * 1024]), now);
        lab.nodes[a].reply(id, Bytes::new(), now);
        lab.settle();
        calls.push(call);
    }
    let held: usize =
        lab.take(0).iter().map(|event| if let Event::Data { data, .. } = event { data.len() } else { 0 }).sum();
    assert_eq!(lab.nodes[0].census().granted, held as u64);
    let floors = 200 * 2 * Limits::WINDOW_FLOOR;
    assert!(held as u64 <= Limits::WINDOW_SUM + floors, "{held} bytes of answered exchanges are held");
    assert!(held > 15 << 20, "{held}");
    calls.into_iter().for_each(|call| lab.nodes[0].cancel(call, now));
    lab.assert_empty();
}

#[test]
fn s12_a_relay_over_its_budget_holds_credit_back_and_lets_it_go_again() {
    let config = Config::with(|config| {
        config.relay_budget = 256 * 1024;
        config.relay_limit = 2 << 20;
    });
    let mut lab = Lab::with(config);
    let a = lab.add(0);
    let b = lab.add(a);
    for _ in 0..8 {
        lab.ask(0, b, Verb::Exec, None).expect("room");
    }
    lab.settle();
    let served = lab.requests(b);
    let now = lab.now;
    // The way from the relay up stands still while readers above grant more and more.
    let mut most = 0;
    let mut total = 0usize;
    for round in 0..4000 {
        for id in &served {
            total += lab.nodes[b].send(*id, channel::STDOUT, Bytes::from(vec![1; 8192]), now);
        }
        lab.carry(b, a, 256 * 1024);
        lab.carry(a, b, 256 * 1024);
        if round % 8 == 0 {
            lab.carry(a, 0, 64 * 1024);
            for event in lab.take(0) {
                if let Event::Data { id, channel, data } = event {
                    lab.nodes[0].consumed(id, channel, data.len(), now);
                }
            }
            lab.carry(0, a, 64 * 1024);
        }
        most = most.max(lab.nodes[a].census().queued);
    }
    assert!(total > 8 << 20, "streams went on: {total}");
    let floors = 16 * Limits::WINDOW_FLOOR;
    assert!(most > 256 * 1024, "the budget was never met");
    assert!(most < (2 << 20) + floors + 100_000, "{most} bytes waited at the relay");
}

#[test]
fn credit_that_was_held_back_goes_when_what_waited_is_given_up() {
    let config = Config::with(|config| config.relay_budget = 64 * 1024);
    let mut lab = Lab::with(config);
    let a = lab.add(0);
    let b = lab.add(a);
    let now = lab.now;
    let window = Limits::WINDOW_START as usize;
    let fill = |lab: &mut Lab, id| lab.nodes[b].send(id, channel::STDOUT, Bytes::from(vec![1; window]), now);
    // More than are let go at a time. All of them have sent what they may, and it has come.
    let readers: Vec<_> = (0..40).map(|_| lab.ask(0, b, Verb::Call, None).expect("room")).collect();
    lab.settle();
    let writers = lab.requests(b);
    for id in &writers {
        assert_eq!(fill(&mut lab, *id), window);
    }
    lab.settle();
    // One more fills the relay, on whose way up nothing moves.
    let given_up = lab.ask(0, b, Verb::Call, None).expect("room");
    lab.settle();
    let last = lab.requests(b)[0];
    assert_eq!(fill(&mut lab, last), window);
    lab.carry(b, a, usize::MAX);
    for id in &readers {
        lab.nodes[0].consumed(*id, channel::STDOUT, window, now);
    }
    lab.carry(0, a, usize::MAX);
    assert_eq!(lab.nodes[a].census().held, readers.len());
    lab.nodes[0].cancel(given_up, now);
    lab.settle();
    assert_eq!(lab.nodes[a].census().held, 0);
    let stuck = writers.iter().filter(|id| lab.nodes[b].writable(**id, channel::STDOUT) == 0).count();
    assert_eq!(stuck, 0, "of {} streams", writers.len());
}

#[test]
fn a_stream_goes_on_by_its_floor_while_all_that_may_come_is_promised_to_others() {
    // Many hold what they were promised and send nothing; one sends.
    let config = Config::with(|config| config.relay_limit = 4 << 20);
    let mut lab = Lab::with(config);
    let a = lab.add(0);
    let b = lab.add(a);
    let window = Limits::WINDOW_START as usize;
    let readers: Vec<_> = (0..30).map(|_| lab.ask(0, b, Verb::Call, None).expect("room")).collect();
    lab.settle();
    let writers = lab.requests(b);
    // Each is read fast once, so that its window grows beyond what the relay may promise.
    let mut total = [0usize; 30];
    let pump = |lab: &mut Lab, index: usize, total: &mut [usize; 30]| {
        let now = lab.now;
        let sent = lab.nodes[b].send(writers[index], channel::STDOUT, Bytes::from(vec![1; window]), now);
        total[index] += sent;
        lab.settle();
        for event in lab.take(0) {
            if let Event::Data { id, channel, data } = event {
                lab.nodes[0].consumed(id, channel, data.len(), now);
            }
        }
        lab.settle();
        sent
    };
    for _ in 0..40 {
        for index in 0..readers.len() {
            pump(&mut lab, index, &mut total);
        }
        lab.now = lab.now + Duration::from_micros(10);
    }
    let promised = lab.nodes[a].census().promised;
    assert!(promised > (4 << 20) - Limits::WINDOW_START, "the limit was never met: {promised}");
    let before = total[7];
    for round in 0..1000 {
        assert!(pump(&mut lab, 7, &mut total) > 0, "it stands still after {round} rounds");
    }
    assert!(total[7] - before > 4 << 20, "{} bytes", total[7] - before);
}

#[test]
fn s13_a_flood_of_pings_or_useless_notices_ends_its_link_and_pongs_are_not_piled_up() {
    let mut lab = Lab::new();
    let evil = lab.evil(0);
    let ping = Frame::link(FrameKind::Ping, encode(&Ping { seq: 9 }).into());
    for _ in 0..10_000 {
        lab.inject(&evil, &ping);
    }
    let pongs = lab.received(&evil);
    assert_eq!(pongs.len(), 1, "one pong answers for all");
    for _ in 0..10_000 {
        lab.inject(&evil, &ping);
    }
    assert!(lab.closed(&evil).is_some_and(|text| text.contains("flood")));
}

#[test]
fn s13_a_flood_of_frames_that_belong_to_nothing_ends_its_link_and_no_relay_s() {
    let mut lab = Lab::new();
    let (near, relay) = (lab.evil(0), lab.add(0));
    let far = lab.evil(relay);
    let stray = |evil: &crate::lab::Evil| {
        reply_side(FrameKind::Data, &evil.address, &Address::ROOT, 77, vec![channel::STDOUT, 1])
    };
    let (mut at_once, burst) = (0, Config::default().strays.burst);
    while lab.closed(&near).is_none() {
        lab.inject(&near, &stray(&near));
        at_once += 1;
        assert!(at_once <= burst + 1, "a stray costs nothing");
    }
    assert!(at_once > burst, "an honest child may send {burst} after its answers were given up, got {at_once}");
    while lab.closed(&far).is_none() {
        lab.inject(&far, &stray(&far));
    }
    lab.settle();
    let events = lab.take(0);
    assert!(events.iter().filter(|event| matches!(event, Event::CloseLink { .. })).count() <= 1, "{events:?}");
}

#[test]
fn s13_a_child_that_floods_requests_does_not_delay_its_sibling() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let (evil, honest) = (lab.evil(relay), lab.add(relay));
    let now = lab.now;
    let (by, to) = (evil.address.clone(), Address::ROOT);
    let grant = lab.nodes[0].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
    let me = lab.address(honest);
    let mine = lab.nodes[0].grant(&me, verbs(Verb::Echo), None, HOUR, now).expect("room");
    for number in 0..2000 {
        let mut frame = request(&by, &to, number, Verb::Echo.number(), false, Some(grant.clone()));
        let mut body = frame.body.to_vec();
        body.resize(1900, 0);
        frame.body = body.into();
        lab.inject(&evil, &frame);
    }
    let (dst, now) = (Address::ROOT, lab.now);
    lab.nodes[honest].request(&dst, Verb::Echo, Bytes::new(), Some(mine), now).expect("room");
    lab.carry(honest, relay, usize::MAX);
    // The relay's way up: the honest request is in the first part of what waits.
    let waits = lab.nodes[relay].census().queued;
    assert!(waits > 2_000_000, "{waits}");
    let sent = lab.carry(relay, 0, 40_000);
    assert!(sent < 50_000);
    let from = lab.address(honest);
    let came = lab.take(0).into_iter().any(|event| matches!(event, Event::Request { from: by, .. } if by == from));
    assert!(came, "the sibling waits behind the flood");
}

#[test]
fn s13_what_is_refused_far_away_costs_the_honest_relay_nothing() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let (other, honest) = (lab.add(0), lab.add(relay));
    let evil = lab.evil(relay);
    let link = GrantLink {
        holder: evil.address.clone(),
        verbs: Verb::ALL.into_iter().collect(),
        handle: None,
        expires_ms: u64::MAX,
    };
    let call = lab.ask(0, honest, Verb::Echo, None).expect("room");
    for number in 0..6000 {
        let to = lab.address([0, other][number as usize % 2]);
        let grant = Grant { target: to.clone(), number, links: vec![link.clone()], seal: [3; 32] };
        lab.inject(&evil, &request(&evil.address, &to, number, Verb::Exec.number(), false, Some(grant)));
        lab.settle();
        lab.received(&evil);
    }
    assert!(lab.take(other).is_empty(), "a forged grant opened something");
    let events = lab.take(0);
    assert!(!events.iter().any(|event| matches!(event, Event::Request { .. } | Event::CloseLink { .. })), "{events:?}");
    let (id, now) = (lab.requests(honest)[0], lab.now);
    lab.nodes[honest].reply(id, Bytes::new(), now);
    lab.settle();
    assert_eq!(lab.done(0), [(call, Ok(Bytes::new()))]);
}

#[test]
fn s13_sources_that_a_child_makes_up_do_not_keep_it_from_being_cut_off() {
    let mut lab = Lab::new();
    let evil = lab.evil(0);
    let other = lab.evil(0);
    let mut number = 0;
    while lab.closed(&evil).is_none() {
        number += 1;
        assert!(number < 3000);
        let src = evil.address.child(number as u32).expect("not deep");
        let dst = if number % 2 == 0 { &other.address } else { &Address::ROOT };
        lab.inject(&evil, &request(&src, dst, number, Verb::Payload.number(), false, None));
    }
}

#[test]
fn s14_credit_is_never_taken_on_trust() {
    // Each of these is sent by a child that is asked to run something.
    let credit = |total| (FrameKind::Credit, encode(&Credit { channel: channel::STDIN, total }));
    let data = |channel: u8, len| (FrameKind::Data, [vec![channel], vec![0; len]].concat());
    let end =
        |total| (FrameKind::End, encode(&ChannelEnd { channel: channel::STDOUT, total, reason: EndReason::Done }));
    type Sent = (FrameKind, Vec<u8>);
    let cases: Vec<(&str, Vec<Sent>)> = vec![
        ("more data than was granted", vec![data(1, 60_000), data(1, 60_000), data(1, 20_000)]),
        ("a channel that the exchange does not have", vec![data(0, 1)]),
        ("a channel that the exchange does not have", vec![data(5, 1)]),
        ("without channel or bytes", vec![data(1, 0)]),
        ("without channel or bytes", vec![(FrameKind::Data, vec![])]),
        ("whose total is not what was sent", vec![data(1, 10), end(11)]),
        ("behind the end", vec![data(1, 10), end(10), data(1, 1)]),
        ("a second end", vec![end(0), end(0)]),
        ("beyond the largest window", vec![credit(Limits::WINDOW_MAX + 1)]),
        ("beyond the largest window", vec![credit(u64::MAX)]),
        ("credit that cannot be read", vec![(FrameKind::Credit, vec![0xff; 30])]),
        ("a stop that cannot be read", vec![(FrameKind::Stop, vec![])]),
    ];
    for (what, evil_frames) in cases {
        let mut lab = Lab::new();
        let evil = lab.evil(0);
        let now = lab.now;
        let asked =
            lab.nodes[0].request(&evil.address, Verb::Exec, Bytes::from_static(b"?"), None, now).expect("it is up");
        let number = lab.received(&evil)[0].0.exchange;
        for (kind, body) in evil_frames {
            lab.inject(&evil, &reply_side(kind, &evil.address, &Address::ROOT, number, body));
        }
        let reason = lab.closed(&evil).unwrap_or_else(|| panic!("{what} was let through"));
        assert!(reason.contains(what), "expected {what:?}, got {reason:?}");
        let done = lab.done(0);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].0, asked);
        assert!(matches!(&done[0].1, Err(failure) if failure.ran == Ran::MaybeExecuted));
    }
}

#[test]
fn s14_an_acknowledgement_of_what_was_not_sent_ends_the_link() {
    for frame in [
        Frame::link(FrameKind::Ack, encode(&Ack { bulk: 1 }).into()),
        Frame::link(FrameKind::Pong, encode(&Ping { seq: 5 }).into()),
    ] {
        let mut lab = Lab::new();
        let evil = lab.evil(0);
        lab.inject(&evil, &frame);
        assert!(lab.closed(&evil).is_some());
    }
}

#[test]
fn s14_a_hostile_context_behind_an_honest_relay_costs_the_relay_nothing() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let (evil, honest) = (lab.evil(relay), lab.add(relay));
    let (now, dst) = (lab.now, evil.address.clone());
    lab.nodes[0].request(&dst, Verb::Exec, Bytes::new(), None, now).expect("room");
    let call = lab.ask(0, honest, Verb::Echo, None).expect("room");
    lab.settle();
    let number = lab.received(&evil).into_iter().find(|(header, _)| header.kind == FrameKind::Request);
    let number = number.expect("the request").0.exchange;
    for _ in 0..3 {
        let body = [vec![channel::STDOUT], vec![0; 60_000]].concat();
        lab.inject(&evil, &reply_side(FrameKind::Data, &evil.address, &Address::ROOT, number, body));
    }
    assert!(lab.closed(&evil).is_some_and(|text| text.contains("more data than was granted")));
    lab.settle();
    let served = lab.requests(honest);
    lab.nodes[honest].reply(served[0], Bytes::new(), now);
    lab.settle();
    let events = lab.take(0);
    assert!(events.iter().all(|event| !matches!(event, Event::CloseLink { .. })), "{events:?}");
    assert!(events.contains(&Event::Done { id: call, result: Ok(Bytes::new()) }));
    assert!(events.contains(&Event::Gone {
        prefix: evil.address.clone(),
        reason: LostReason::Violation("more data than was granted".into())
    }));
}
