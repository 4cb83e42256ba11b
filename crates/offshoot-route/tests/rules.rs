//! The rules of trust and failure, each a test under its name.

// As in the crate: a `Failure` is a value of the protocol, and large.
#![allow(clippy::result_large_err)]

mod lab;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lab::{Lab, child_hello, frames, reply_side, request};
use offshoot_route::{Config, Event, Node, Rate, Time, narrow};
use offshoot_wire::{
    Ack, Address, Authority, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameKind, Gone, Grant,
    GrantLink, Limits, LostReason, Ping, Ran, RequestHead, ShutdownNotice, Verb, VerbSet, channel, encode,
};

const HOUR: Duration = Duration::from_secs(3600);

fn verbs(verb: Verb) -> VerbSet {
    VerbSet::NONE.with(verb)
}

fn kinds(done: &[(offshoot_route::ExchangeId, Result<Bytes, Failure>)]) -> Vec<(&FailureKind, Ran)> {
    done.iter().filter_map(|(_, result)| result.as_ref().err()).map(|failure| (&failure.kind, failure.ran)).collect()
}

#[test]
fn s1_a_child_that_asks_for_everything_gets_nothing_run_and_is_cut_off() {
    let mut lab = Lab::new();
    let (a, b) = (lab.add(0), lab.add(0));
    let deep = lab.add(a);
    let evil = lab.evil(a);
    let mut asked = 0;
    'all: for round in 0..200u64 {
        for verb in Verb::ALL.map(Verb::number).into_iter().chain([0, 12, 999, u16::MAX]) {
            for target in [0, a, b, deep] {
                for full in [true, false] {
                    let (dst, number) = (lab.address(target), round << 32 | asked);
                    lab.inject(&evil, &request(&evil.address, &dst, number, verb, full, None));
                    asked += 1;
                    if lab.closed(&evil).is_some() {
                        break 'all;
                    }
                }
            }
        }
        lab.settle();
    }
    let config = Config::default();
    assert!(lab.closed(&evil).is_some_and(|text| text.contains("flood")), "{asked} requests");
    assert!(asked < 4 * u64::from(config.refusals.burst), "cut off only after {asked} requests");
    lab.settle();
    for node in [0, a, b, deep] {
        for event in lab.take(node) {
            // What any child may ask its own parent for: what starts a context of its own.
            if let Event::Request { verb, authority, .. } = event {
                assert!(node == a && matches!(verb, Verb::Payload | Verb::Image), "{verb:?} ran at {node}");
                assert_eq!(authority, Authority::Child);
            }
        }
    }
}

#[test]
fn s1_a_claimed_mark_never_reaches_a_target() {
    let mut lab = Lab::new();
    let (a, b) = (lab.add(0), lab.add(0));
    let evil = lab.evil(a);
    let now = lab.now;
    let grant = lab.nodes[b].grant(&evil.address, verbs(Verb::Echo), None, HOUR, now).expect("room");
    let dst = lab.address(b);
    lab.inject(&evil, &request(&evil.address, &dst, 1, Verb::Echo.number(), true, Some(grant.clone())));
    lab.inject(&evil, &request(&evil.address, &dst, 2, Verb::Exec.number(), true, Some(grant)));
    lab.settle();
    let events = lab.take(b);
    assert!(
        matches!(events[..], [Event::Request { authority: Authority::Granted, verb: Verb::Echo, .. }]),
        "{events:?}"
    );
    assert_eq!(lab.nodes[a].stats(evil.link).expect("it is up").claimed_marks, 2);
}

#[test]
fn s2_a_claimed_address_ends_the_link() {
    for claimed in ["/", "/0", "/1", "/0/0", "/0/7", "/9"] {
        let mut lab = Lab::new();
        let a = lab.add(0);
        let (_, _) = (lab.add(0), lab.add(a));
        let evil = lab.evil(a);
        assert_eq!(evil.address.to_string(), "/0/1");
        let claimed: Address = claimed.parse().expect("an address");
        let dst = if claimed == Address::ROOT { lab.address(1) } else { Address::ROOT };
        lab.inject(&evil, &request(&claimed, &dst, 1, Verb::Echo.number(), true, None));
        let reason = lab.closed(&evil).unwrap_or_else(|| panic!("{claimed} was believed"));
        assert!(reason.contains("expected one from under /0/1"), "{reason}");
        let said = lab.received(&evil);
        assert_eq!(said.last().expect("a last word").0.kind, FrameKind::Bye);
    }
}

#[test]
fn s2_a_frame_from_above_that_claims_to_be_from_here_ends_the_link() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let below: Address = "/0/3".parse().expect("an address");
    for (src, dst) in [(&below, &lab.address(a)), (&Address::ROOT, &"/1".parse().expect("an address"))] {
        let mut lab = Lab::new();
        let a = lab.add(0);
        let mut bytes = Vec::new();
        request(src, dst, 1, Verb::Echo.number(), true, None).encode(&mut bytes);
        let (link, now) = (lab.link(a, 0), lab.now);
        lab.nodes[a].handle_bytes(link, &mut BytesMut::from(&bytes[..]), now);
        let events = lab.take(a);
        assert!(events.iter().any(|event| matches!(event, Event::CloseLink { .. })), "{events:?}");
    }
}

#[test]
fn s2_addresses_are_never_given_twice_and_connects_exhaust_nothing() {
    let mut lab = Lab::new();
    let mut last = None;
    for _ in 0..200_000 {
        let now = lab.now;
        let (link, address, _) = lab.nodes[0].reserve_child(now).expect("the one before is gone");
        let index = address.path()[0];
        assert!(last.is_none_or(|last| index > last));
        last = Some(index);
        lab.nodes[0].abandon_child(link, now);
    }
    lab.assert_empty();
    let now = lab.now;
    let most = lab.nodes[0].config().max_children;
    for _ in 0..most {
        lab.nodes[0].reserve_child(now).expect("room");
    }
    assert_eq!(lab.nodes[0].reserve_child(now).expect_err("full").kind, FailureKind::Busy);
}

#[test]
fn s2_what_one_child_asks_exhausts_its_own_limits_only() {
    let mut lab = Lab::new();
    let (evil, honest) = (lab.evil(0), lab.evil(0));
    for number in 0..100_000 {
        lab.inject(&evil, &request(&evil.address, &Address::ROOT, number, Verb::Payload.number(), false, None));
        if number % 1000 == 0 {
            lab.received(&evil);
        }
    }
    let most = lab.nodes[0].config().max_served_per_child;
    assert_eq!(lab.nodes[0].census().exchanges, most);
    assert_eq!(lab.requests(0).len(), most);
    lab.inject(&honest, &request(&honest.address, &Address::ROOT, 1, Verb::Payload.number(), false, None));
    assert_eq!(lab.requests(0).len(), 1, "the sibling is served");
    assert!(lab.closed(&evil).is_none());
}

/// A chain of contexts below the root, a sibling subtree with the holder, and a way to show a grant to the target.
fn deep(depth: usize) -> (Lab, usize, usize) {
    let mut lab = Lab::new();
    let (mut target, mut holder) = (0, 0);
    for _ in 0..depth {
        target = lab.add(target);
        holder = lab.add(holder);
    }
    (lab, target, holder)
}

#[test]
fn s3_a_lateral_request_reaches_its_target_only_with_a_grant_that_verifies() {
    for depth in [1, 2, 5] {
        let (mut lab, target, holder) = deep(depth);
        let now = lab.now;
        let (at, by) = (lab.address(target), lab.address(holder));
        let other = lab.add(0);
        let good = lab.nodes[target].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
        let brief = lab.nodes[target].grant(&by, verbs(Verb::Echo), None, Duration::ZERO, now).expect("room");
        let revoked = lab.nodes[target].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
        lab.nodes[target].revoke(revoked.number, now);
        let elsewhere = lab.nodes[other].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
        let first = good.links[0].clone();
        let link = |change: fn(&mut GrantLink)| {
            let mut link = first.clone();
            change(&mut link);
            link
        };
        let more_verbs = link(|link| link.verbs = Verb::ALL.into_iter().collect());
        assert!(narrow(&good, more_verbs.clone()).is_err());
        let with = |change: &dyn Fn(&mut Grant)| {
            let mut grant = good.clone();
            change(&mut grant);
            grant
        };
        let narrowed = narrow(&good, first.clone()).expect("no wider");
        let bad = [
            ("no grant", None),
            ("another target's", Some(elsewhere)),
            ("another target's, renamed", Some(with(&|grant| grant.target = Address::ROOT))),
            ("widened verbs", Some(with(&|grant| grant.links[0].verbs = more_verbs.verbs))),
            ("a verb appended", Some(with(&|grant| grant.links.push(more_verbs.clone())))),
            (
                "a hand-over taken off",
                Some({
                    let mut grant = narrowed.clone();
                    grant.links.pop();
                    grant
                }),
            ),
            ("another holder", Some(with(&|grant| grant.links[0].holder = Address::ROOT))),
            ("longer", Some(with(&|grant| grant.links[0].expires_ms += 1))),
            ("no links", Some(with(&|grant| grant.links.clear()))),
            ("another number", Some(with(&|grant| grant.number += 1))),
            ("a broken seal", Some(with(&|grant| grant.seal[31] ^= 1))),
            ("expired", Some(brief)),
            ("revoked", Some(revoked)),
        ];
        for (what, grant) in bad {
            lab.ask(holder, target, Verb::Echo, grant).expect("it is sent");
            lab.settle();
            assert!(lab.requests(target).is_empty(), "{what} opened {at}");
            let done = lab.done(holder);
            assert_eq!(kinds(&done), [(&FailureKind::Denied, Ran::NotSent)], "{what}");
        }
        // Another verb, and another holder, with a grant that is good for one.
        lab.ask(holder, target, Verb::Exec, Some(good.clone())).expect("it is sent");
        lab.ask(other, target, Verb::Echo, Some(good.clone())).expect("it is sent");
        lab.settle();
        assert!(lab.requests(target).is_empty());
        // And the good ones: as given, handed over to another, and used from below the holder.
        let below = lab.add(holder);
        let to_other = GrantLink { holder: lab.address(other), ..first.clone() };
        let handed = narrow(&good, to_other).expect("no wider");
        for (who, grant) in [(holder, good.clone()), (below, good), (other, handed)] {
            lab.ask(who, target, Verb::Echo, Some(grant)).expect("it is sent");
            lab.settle();
            let served = lab.requests(target);
            assert_eq!(served.len(), 1, "{who} at depth {depth}");
            let now = lab.now;
            lab.nodes[target].reply(served[0], Bytes::from_static(b"!"), now);
            lab.settle();
            let done = lab.done(who);
            assert!(matches!(&done.last().expect("an answer").1, Ok(body) if body == "!"), "{done:?}");
        }
        lab.assert_empty();
    }
}

#[test]
fn s3_an_ancestor_grants_for_what_lies_below_it_and_nobody_else_can() {
    let (mut lab, target, holder) = deep(3);
    let (at, by, now) = (lab.address(target), lab.address(holder), lab.now);
    let grant = lab.nodes[0].grant_for(&at, &by, verbs(Verb::Echo), Some(7), HOUR, now).expect("an ancestor");
    assert!(lab.nodes[holder].grant_for(&at, &by, verbs(Verb::Echo), None, HOUR, now).is_err());
    lab.ask(holder, target, Verb::Echo, Some(grant)).expect("it is sent");
    lab.settle();
    let events = lab.take(target);
    assert!(
        matches!(events[..], [Event::Request { handle: Some(7), authority: Authority::Granted, .. }]),
        "{events:?}"
    );
}

#[test]
fn s3_a_grant_is_revoked_while_traffic_flows() {
    let (mut lab, target, holder) = deep(2);
    let (by, now) = (lab.address(holder), lab.now);
    let grant = lab.nodes[target].grant(&by, verbs(Verb::Exec), None, HOUR, now).expect("room");
    lab.ask(holder, target, Verb::Exec, Some(grant.clone())).expect("it is sent");
    lab.settle();
    let id = lab.requests(target)[0];
    lab.nodes[target].send(id, channel::STDOUT, Bytes::from_static(&[0; 1000]), now);
    lab.settle();
    lab.nodes[target].revoke(grant.number, now);
    assert_eq!(lab.nodes[target].send(id, channel::STDOUT, Bytes::from_static(b"more"), now), 0);
    lab.settle();
    assert!(lab.take(target).contains(&Event::Cancelled { id }));
    let done = lab.done(holder);
    assert_eq!(kinds(&done), [(&FailureKind::Denied, Ran::MaybeExecuted)]);
    lab.assert_empty();
}

#[test]
fn s3_the_turn_passes_nothing_that_belongs_to_no_entry() {
    let mut lab = Lab::new();
    let (evil, victim) = (lab.evil(0), lab.evil(0));
    let (src, dst) = (&evil.address, &victim.address);
    for number in 0..50 {
        let credit = encode(&Credit { channel: 0, total: 100_000 });
        let end = encode(&ChannelEnd { channel: 0, total: 0, reason: EndReason::Done });
        for (kind, body) in [
            (FrameKind::Reply, vec![1]),
            (FrameKind::Failure, encode(&Failure::new(FailureKind::Denied, "no"))),
            (FrameKind::Data, vec![0, 1, 2]),
            (FrameKind::End, end),
            (FrameKind::Credit, credit),
            (FrameKind::Stop, vec![0]),
            (FrameKind::Cancel, vec![]),
        ] {
            for answer in [true, false] {
                let mut frame = Frame::routed(kind, dst.clone(), src.clone(), number).with_body(body.clone().into());
                match kind {
                    FrameKind::Reply | FrameKind::Failure | FrameKind::Cancel => {}
                    _ => frame.header.answer = answer,
                }
                lab.inject(&evil, &frame);
            }
        }
    }
    assert!(lab.received(&victim).is_empty());
    assert_eq!(lab.nodes[0].census().exchanges, 0);
    assert_eq!(lab.nodes[0].stats(evil.link).expect("it is up").strays, 700);
}

#[test]
fn s4_an_answer_counts_only_from_the_context_that_was_asked_and_once() {
    let mut lab = Lab::new();
    let server = lab.add(0);
    let evil = lab.evil(0);
    let asked: Vec<_> = (0..1000).map(|_| lab.ask(0, server, Verb::Exec, None).expect("room")).collect();
    lab.settle();
    // The numbers of honest exchanges can be guessed, and are: they are no secret.
    for round in 0..200_000u64 {
        let number = (round % 2000 + 1) << 20 | (round % 2000);
        let body = encode(&Failure::new(FailureKind::NoRoute, "forged"));
        let kind = [FrameKind::Reply, FrameKind::Failure, FrameKind::End, FrameKind::Data][round as usize % 4];
        lab.inject(&evil, &reply_side(kind, &evil.address, &Address::ROOT, number, body));
    }
    assert!(lab.done(0).is_empty());
    assert_eq!(lab.nodes[0].pending(), 1000);
    let served = lab.requests(server);
    let now = lab.now;
    for id in &served {
        lab.nodes[server].reply(*id, Bytes::from_static(b"true"), now);
        lab.nodes[server].reply(*id, Bytes::from_static(b"again"), now);
    }
    lab.settle();
    let done = lab.done(0);
    assert_eq!(done.len(), asked.len());
    assert!(done.iter().all(|(_, result)| result.as_deref() == Ok(b"true")));
    lab.assert_empty();
}

#[test]
fn s5_a_verb_needs_the_mark_or_a_grant_that_names_it() {
    for verb in Verb::ALL {
        // From above, with the mark.
        let mut lab = Lab::new();
        let a = lab.add(0);
        lab.ask(0, a, verb, None).expect("it is sent");
        lab.settle();
        assert_eq!(lab.requests(a).len(), 1, "{verb:?} with the mark");
        // From below, without, and with a grant for everything else.
        let evil = lab.evil(a);
        let now = lab.now;
        let others: VerbSet = Verb::ALL.into_iter().filter(|other| *other != verb).collect();
        let wrong = lab.nodes[a].grant(&evil.address, others, None, HOUR, now).expect("room");
        let right = lab.nodes[a].grant(&evil.address, verbs(verb), None, HOUR, now).expect("room");
        let dst = lab.address(a);
        let mut ask = |number, grant| {
            lab.inject(&evil, &request(&evil.address, &dst, number, verb.number(), true, grant));
            lab.requests(a).len()
        };
        let open_to_children = matches!(verb, Verb::Payload | Verb::Image);
        assert_eq!(ask(1, None), usize::from(open_to_children), "{verb:?} with nothing");
        assert_eq!(ask(2, Some(wrong)), 0, "{verb:?} with a grant for others");
        assert_eq!(ask(3, Some(right)), usize::from(verb != Verb::Attach), "{verb:?} with its grant");
    }
}

#[test]
fn s6_an_unknown_verb_is_an_error_of_that_request_alone() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let mut bytes = Vec::new();
    let dst = lab.address(a);
    for verb in [0, 12, 200, u16::MAX] {
        request(&Address::ROOT, &dst, verb.into(), verb, true, None).encode(&mut bytes);
    }
    let (link, now) = (lab.link(a, 0), lab.now);
    lab.nodes[a].handle_bytes(link, &mut BytesMut::from(&bytes[..]), now);
    assert!(lab.take(a).is_empty());
    let mut out = Vec::new();
    lab.nodes[a].poll_transmit(link, usize::MAX, &mut out, now);
    let failures: Vec<Failure> =
        frames(&out).iter().map(|(_, body)| offshoot_wire::decode(body).expect("a failure")).collect();
    assert_eq!(failures.len(), 4);
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Unsupported && failure.ran == Ran::NotSent));
    lab.ask(0, a, Verb::Echo, None).expect("the link is up");
}

#[test]
fn s12_refusals_that_are_not_read_end_the_link_within_the_budget() {
    let config =
        Config { control_budget: 64 * 1024, refusals: Rate { burst: u32::MAX, per_second: 0 }, ..Config::default() };
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
fn s12_requests_to_a_link_that_does_not_read_are_refused_at_the_budget_and_room_is_told() {
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
    assert_eq!((refused.kind, refused.ran), (FailureKind::Busy, Ran::NotSent));
    assert!((60..80).contains(&taken), "{taken} requests of 60 kB");
    lab.settle();
    let link = lab.link(0, a);
    assert!(lab.take(0).contains(&Event::Room { link }));
    assert_eq!(lab.requests(a).len(), taken);
}

#[test]
fn s12_answers_beyond_the_budget_become_failures_that_say_the_work_ran() {
    let config = Config { answer_budget: 200_000, ..Config::default() };
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

#[test]
fn s12_a_relay_over_its_budget_holds_credit_back_and_lets_it_go_again() {
    let config = Config { relay_budget: 256 * 1024, relay_limit: 2 << 20, ..Config::default() };
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
fn s3_a_request_without_a_grant_goes_no_further_than_the_first_hop() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let victim = lab.add(0);
    let evil = lab.evil(relay);
    for target in [0, victim] {
        let dst = lab.address(target);
        lab.inject(&evil, &request(&evil.address, &dst, 1 + target as u64, Verb::Echo.number(), true, None));
        let said = lab.received(&evil);
        let failure: Failure = offshoot_wire::decode(&said[0].1).expect("a failure");
        assert_eq!((failure.kind, failure.at), (FailureKind::Denied, lab.address(relay)));
    }
    let link = lab.link(relay, 0);
    assert!(lab.nodes[relay].is_drained(link));
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

#[test]
fn s24_what_comes_before_the_hello_does_nothing() {
    let mut lab = Lab::new();
    let now = lab.now;
    let (link, address, _) = lab.nodes[0].reserve_child(now).expect("room");
    let mut bytes = Vec::new();
    request(&address, &Address::ROOT, 1, Verb::Payload.number(), true, None).encode(&mut bytes);
    let mut early = BytesMut::from(&bytes[..]);
    lab.nodes[0].handle_bytes(link, &mut early, now);
    assert!(early.is_empty() && lab.take(0).is_empty());
    assert!(!lab.nodes[0].has_output(link), "nothing is sent before our own hello");
    lab.nodes[0].child_up(link, &child_hello(512), now).expect("it is reserved");
    lab.nodes[0].handle_bytes(link, &mut BytesMut::from(&bytes[..]), now);
    assert_eq!(lab.requests(0).len(), 1);
    assert!(lab.nodes[0].child_up(link, &child_hello(512), now).is_err(), "one hello only");
}

#[test]
fn r3_a_loss_is_believed_only_from_above_what_is_lost() {
    for (prefix, believed) in [("/0/0/5", true), ("/0/0", false), ("/0", false), ("/0/1", false), ("/", false)] {
        let mut lab = Lab::new();
        let a = lab.add(0);
        let evil = lab.evil(a);
        let honest = lab.add(a);
        let prefix: Address = prefix.parse().expect("an address");
        let call = lab.ask(0, honest, Verb::Echo, None).expect("room");
        lab.settle();
        let gone = Gone { prefix: prefix.clone(), reason: LostReason::LinkEnd };
        lab.inject(&evil, &Frame::link(FrameKind::Gone, encode(&gone).into()));
        assert_eq!(lab.closed(&evil).is_none(), believed, "{prefix}");
        lab.settle();
        assert!(lab.nodes[0].is_open(call), "{prefix} took an honest call with it");
    }
    let mut lab = Lab::new();
    let a = lab.add(0);
    let mut bytes = Vec::new();
    let gone = Gone { prefix: "/0/0".parse().expect("an address"), reason: LostReason::LinkEnd };
    Frame::link(FrameKind::Gone, encode(&gone).into()).encode(&mut bytes);
    let (link, now) = (lab.link(a, 0), lab.now);
    lab.nodes[a].handle_bytes(link, &mut BytesMut::from(&bytes[..]), now);
    assert!(lab.take(a).iter().any(|event| matches!(event, Event::CloseLink { .. })), "a loss from above");
}

#[test]
fn r3_shutdown_is_believed_only_from_above() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let evil = lab.evil(a);
    let notice = ShutdownNotice { grace_ms: 1, kill_ms: 2 };
    lab.inject(&evil, &Frame::link(FrameKind::Shutdown, encode(&notice).into()));
    assert!(lab.closed(&evil).is_some());
    let (link, now) = (lab.link(0, a), lab.now);
    lab.nodes[0].shutdown_child(link, notice, now);
    lab.settle();
    assert!(lab.take(a).contains(&Event::ShutdownRequested(notice)));
}

#[test]
fn r6_each_kind_of_missing_context_has_its_own_answer_at_once() {
    let mut lab = Lab::new();
    let (a, b) = (lab.add(0), lab.add(0));
    lab.cut(0, b);
    lab.take(0);
    let ask = |lab: &mut Lab, at: &str| {
        let now = lab.now;
        lab.nodes[0].request(&at.parse().expect("an address"), Verb::Echo, Bytes::new(), None, now)
    };
    let gone = ask(&mut lab, "/1").expect_err("gone");
    let never = ask(&mut lab, "/2/5").expect_err("never");
    for failure in [&gone, &never] {
        assert_eq!((&failure.kind, failure.ran), (&FailureKind::NoRoute, Ran::NotSent));
    }
    assert!(gone.message.contains("alive before") && never.message.contains("never existed"));
    // Asked at a distance, the answer comes from where the way ends.
    ask(&mut lab, "/0/4").expect("the first hop is alive");
    lab.settle();
    let done = lab.done(0);
    let failure = done[0].1.as_ref().expect_err("no such context");
    assert_eq!((&failure.kind, failure.ran, &failure.at), (&FailureKind::NoRoute, Ran::NotSent, &lab.address(a)));
}

#[test]
fn r6_a_request_that_has_not_left_fails_as_not_sent_and_one_that_has_as_perhaps_run() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let leaf = lab.add(relay);
    let (first, second) = (lab.ask(0, leaf, Verb::Echo, None), lab.ask(0, leaf, Verb::Echo, None));
    let (first, second) = (first.expect("room"), second.expect("room"));
    lab.carry(0, relay, usize::MAX);
    lab.carry(relay, leaf, 1);
    assert_eq!(lab.requests(leaf).len(), 1);
    let third = lab.ask(0, leaf, Verb::Echo, None).expect("room");
    lab.cut(relay, leaf);
    let done = lab.done(0);
    let ran = |id| done.iter().find(|(other, _)| *other == id).map(|(_, result)| result.as_ref().map_err(|f| f.ran));
    assert_eq!(done.len(), 3);
    assert_eq!(ran(first), Some(Err(Ran::MaybeExecuted)));
    assert_eq!(ran(second), Some(Err(Ran::NotSent)));
    assert_eq!(ran(third), Some(Err(Ran::NotSent)));
    lab.assert_empty();
}

#[test]
fn r6_an_answer_that_left_before_the_loss_counts() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let leaf = lab.add(relay);
    let call = lab.ask(0, leaf, Verb::Exec, None).expect("room");
    lab.settle();
    let (id, now) = (lab.requests(leaf)[0], lab.now);
    lab.nodes[leaf].send(id, channel::STDOUT, Bytes::from(vec![5; 100_000]), now);
    lab.nodes[leaf].finish(id, channel::STDOUT, EndReason::Done, now);
    lab.nodes[leaf].reply(id, Bytes::from_static(b"whole"), now);
    // Bulk is acknowledged hop by hop; the relay's own way up stands still.
    for _ in 0..10 {
        lab.carry(leaf, relay, usize::MAX);
        lab.carry(relay, leaf, usize::MAX);
    }
    lab.cut(relay, leaf);
    let events = lab.take(0);
    let data: usize =
        events.iter().map(|event| if let Event::Data { data, .. } = event { data.len() } else { 0 }).sum();
    assert_eq!(data, 100_000);
    let done = events.iter().position(|event| *event == Event::Done { id: call, result: Ok("whole".into()) });
    let gone = events.iter().position(|event| matches!(event, Event::Gone { .. }));
    assert!(done.expect("the answer") < gone.expect("the notice"), "{events:?}");
    lab.assert_empty();
}

#[test]
fn r6_a_cancel_never_overtakes_its_request_and_drops_what_has_not_left() {
    let mut lab = Lab::new();
    let relay = lab.add(0);
    let leaf = lab.add(relay);
    let now = lab.now;
    let call = lab.ask(0, leaf, Verb::Exec, None).expect("room");
    lab.nodes[0].cancel(call, now);
    lab.settle();
    assert!(lab.take(leaf).is_empty(), "it never left");
    // Cancelled while it waits at the relay.
    let call = lab.ask(0, leaf, Verb::Exec, None).expect("room");
    lab.carry(0, relay, usize::MAX);
    lab.nodes[0].cancel(call, now);
    lab.carry(0, relay, usize::MAX);
    lab.settle();
    assert!(lab.take(leaf).is_empty(), "it never left the relay");
    // Cancelled when it runs, with input on its way.
    let call = lab.ask(0, leaf, Verb::Exec, None).expect("room");
    lab.settle();
    let id = lab.requests(leaf)[0];
    lab.nodes[0].send(call, channel::STDIN, Bytes::from(vec![0; 10_000]), now);
    lab.nodes[0].cancel(call, now);
    lab.settle();
    assert_eq!(lab.take(leaf), [Event::Cancelled { id }]);
    assert!(lab.done(0).is_empty());
    lab.assert_empty();
}

#[test]
fn r6_silence_is_noticed_at_both_ends_and_any_byte_is_life() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    // Heartbeats keep an idle link.
    for _ in 0..20 {
        lab.wait(Duration::from_secs(5));
        lab.settle();
    }
    assert!(lab.take(0).is_empty() && lab.take(a).is_empty());
    let link = lab.link(0, a);
    assert!(lab.nodes[0].stats(link).expect("up").frames_in <= 22, "an idle link costs its heartbeat only");
    lab.wait(Duration::from_secs(14));
    lab.settle();
    assert!(lab.take(0).is_empty());
    lab.wait(Duration::from_secs(15));
    for node in [0, a] {
        let events = lab.take(node);
        let silent = |event: &Event| matches!(event, Event::CloseLink { reason: LostReason::Silent, .. });
        assert!(events.iter().any(silent), "{events:?}");
    }
}

#[test]
fn r6_what_is_gone_ends_lateral_exchanges_at_the_turn() {
    for victim_is_server in [true, false] {
        let (mut lab, target, holder) = deep(2);
        let (by, now) = (lab.address(holder), lab.now);
        let grant = lab.nodes[target].grant(&by, verbs(Verb::Exec), None, HOUR, now).expect("room");
        let call = lab.ask(holder, target, Verb::Exec, Some(grant)).expect("room");
        lab.settle();
        let id = lab.requests(target)[0];
        // Nodes are added target, holder, target, holder.
        let (victim, parent) = if victim_is_server { (target, target - 2) } else { (holder, holder - 2) };
        lab.cut(parent, victim);
        if victim_is_server {
            let done = lab.done(holder);
            assert_eq!(done[0].0, call);
            assert!(matches!(kinds(&done)[0], (FailureKind::PeerLost(_), Ran::MaybeExecuted)));
        } else {
            assert!(lab.take(target).contains(&Event::Cancelled { id }));
        }
        for node in 0..lab.nodes.len() {
            assert_eq!(lab.nodes[node].census().exchanges, 0, "at {node}");
        }
    }
}

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
    // And what is in flight without acknowledgement stays small, however much waits.
    let link = lab.link(0, a);
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

#[test]
fn a_request_before_the_child_is_up_waits_and_fails_as_not_sent_when_the_connect_does() {
    let mut lab = Lab::new();
    let now = lab.now;
    let (link, address, _) = lab.nodes[0].reserve_child(now).expect("room");
    let call = lab.nodes[0].request(&address, Verb::Echo, Bytes::new(), None, now).expect("it waits");
    lab.nodes[0].abandon_child(link, now);
    let done = lab.done(0);
    assert_eq!(done[0].0, call);
    assert!(matches!(kinds(&done)[..], [(FailureKind::PeerLost(_), Ran::NotSent)]));
    lab.assert_empty();
    let (link, address, _) = lab.nodes[0].reserve_child(now).expect("room");
    lab.nodes[0].request(&address, Verb::Echo, Bytes::new(), None, now).expect("it waits");
    assert!(lab.nodes[0].poll_ready_link().is_none());
    let name = String::new;
    lab.nodes[0].parent_hello(link, [0; 16], name(), name(), name(), now).expect("it is reserved");
    assert_eq!(lab.nodes[0].poll_ready_link(), Some(link), "what waits may follow our hello at once");
}

#[test]
fn r4_keys_are_known_to_ancestors_and_differ() {
    let now = Time::ZERO;
    let mut root = Node::root(Config::default(), [0; 16], [9; 32], now);
    let (_, a, key_a) = root.reserve_child(now).expect("room");
    let (_, b, key_b) = root.reserve_child(now).expect("room");
    assert_ne!(key_a, key_b);
    assert_eq!(offshoot_route::key_below(&[9; 32], &Address::ROOT, &a), Some(key_a));
    assert_eq!(offshoot_route::key_below(&key_a, &a, &b), None);
    let below = a.child(4).expect("not deep");
    let derived = offshoot_route::key_below(&[9; 32], &Address::ROOT, &below);
    assert_eq!(derived, Some(offshoot_route::child_key(&key_a, 4)));
}

#[test]
fn a_request_by_the_name_of_one_that_runs_ends_the_link() {
    let mut lab = Lab::new();
    let evil = lab.evil(0);
    let frame = request(&evil.address, &Address::ROOT, 1, Verb::Payload.number(), false, None);
    lab.inject(&evil, &frame);
    lab.inject(&evil, &frame);
    assert!(lab.closed(&evil).is_some());
    let body = encode(&RequestHead { verb: 1, window: u32::MAX, grant: None });
    assert!(body.len() < 16);
}
