//! Who may ask what, who may answer, and who says so (S1 to S6, S24, R4).

use super::*;
use crate::lab::Evil;

#[test]
fn s1_a_child_that_asks_for_everything_gets_nothing_run_and_is_cut_off() {
    let mut lab = Lab::new();
    let (a, b) = (lab.add(0), lab.add(0));
    let deep = lab.add(a);
    let evil = lab.evil(a);
    let mut asked = 0;
    'all: for round in 0..200u64 {
        for verb in Verb::ALL.map(Verb::number).into_iter().chain([0, 14, 999, u16::MAX]) {
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
    for _ in 0..millions() {
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

/// What the rules speak of ten million of, and what a run has time for that is not one of all.
const TEN_MILLION: u64 = 10_000_000;
fn millions() -> u64 {
    if std::env::var_os("OFFSHOOT_TEST_ALL").is_some() { TEN_MILLION } else { TEN_MILLION / 10 }
}

/// Sends so many frames, no faster than what is tolerated of a child, which reads what it is sent.
fn pour(lab: &mut Lab, evil: &Evil, count: u64, frame: impl Fn(u64) -> Frame) {
    const AT_ONCE: u64 = 10_000;
    let mut bytes = Vec::new();
    for round in 0..count / AT_ONCE {
        bytes.clear();
        (0..AT_ONCE).for_each(|number| frame(round * AT_ONCE + number).encode(&mut bytes));
        let now = lab.now;
        lab.nodes[evil.parent].handle_bytes(evil.link, &mut BytesMut::from(&bytes[..]), now);
        lab.received(evil);
        lab.now = now + Duration::from_secs(1);
    }
}

#[test]
fn s2_what_one_child_asks_exhausts_its_own_limits_only() {
    let mut lab = Lab::new();
    let (evil, honest) = (lab.evil(0), lab.evil(0));
    let (me, open) = (evil.address.clone(), [Verb::Payload, Verb::Image]);
    pour(&mut lab, &evil, millions(), |number| {
        request(&me, &Address::ROOT, number, open[number as usize % 2].number(), false, None)
    });
    assert!(lab.closed(&evil).is_none(), "it was cut off before it had asked for all");
    let most = lab.nodes[0].config().max_served_per_child;
    assert_eq!(lab.nodes[0].census().exchanges, most);
    assert_eq!(lab.requests(0).len(), most);
    lab.inject(&honest, &request(&honest.address, &Address::ROOT, 1, Verb::Payload.number(), false, None));
    assert_eq!(lab.requests(0).len(), 1, "the sibling is served");
}

#[test]
fn s4_ten_million_forged_answers_end_none_of_a_thousand_calls() {
    let mut lab = Lab::new();
    let server = lab.add(0);
    let evil = lab.evil(0);
    for _ in 0..1000 {
        lab.ask(0, server, Verb::Exec, None).expect("room");
    }
    lab.settle();
    let me = evil.address.clone();
    pour(&mut lab, &evil, TEN_MILLION, |round| {
        let number = (round % 2000 + 1) << 20 | (round % 2000);
        let kind = [FrameKind::Reply, FrameKind::Failure, FrameKind::End, FrameKind::Data][round as usize % 4];
        reply_side(kind, &me, &Address::ROOT, number, vec![0; 8])
    });
    assert!(lab.closed(&evil).is_none(), "it was cut off before it had forged all");
    assert!(lab.done(0).is_empty());
    assert_eq!(lab.nodes[0].pending(), 1000);
    let now = lab.now;
    for id in lab.requests(server) {
        lab.nodes[server].reply(id, Bytes::from_static(b"true"), now);
    }
    lab.settle();
    let done = lab.done(0);
    assert_eq!(done.len(), 1000);
    assert!(done.iter().all(|(_, result)| result.as_deref() == Ok(b"true")));
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
    let call = lab.ask(holder, target, Verb::Exec, Some(grant.clone())).expect("it is sent");
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
    lab.nodes[holder].cancel(call, now);
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
    for verb in [0, 14, 200, u16::MAX] {
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
        assert_eq!((&failure.kind, &failure.at), (&FailureKind::Denied, &lab.address(relay)));
    }
    let link = lab.link(relay, 0);
    assert!(lab.nodes[relay].is_drained(link));
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
