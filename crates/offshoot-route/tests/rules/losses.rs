//! Every wait ends, and says how: losses, cancels, silence, what never left (R3, R6).

use super::*;

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
    lab.nodes[0].consumed(call, channel::STDOUT, data, now);
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

/// Of the only completion that a node saw: the context that was lost first, the message, and whether it ran.
fn loss(lab: &mut Lab, node: usize) -> (String, String, Ran) {
    let mut done = lab.done(node);
    assert_eq!(done.len(), 1, "{done:?}");
    let failure = done.remove(0).1.expect_err("a loss");
    assert!(matches!(failure.kind, FailureKind::PeerLost(_)), "{failure:?}");
    (failure.at.to_string(), failure.message.clone(), failure.ran)
}

fn lost(at: &str, message: &str, ran: Ran) -> (String, String, Ran) {
    (at.into(), message.into(), ran)
}

#[test]
fn r6_a_loss_names_the_hop_that_was_lost_first() {
    // The requester's own link, a link further down, and that of the context itself.
    for (cut, top, message) in [
        (0, "/0", "/0 was lost, and /0/0/0 with it: the link ended"),
        (1, "/0/0", "/0/0 was lost, and /0/0/0 with it: the link ended"),
        (2, "/0/0/0", "/0/0/0 was lost: the link ended"),
    ] {
        let mut lab = Lab::new();
        let a = lab.add(0);
        let b = lab.add(a);
        let path = [0, a, b, lab.add(b)];
        lab.ask(0, path[3], Verb::Echo, None).expect("room");
        lab.settle();
        lab.cut(path[cut], path[cut + 1]);
        assert_eq!(loss(&mut lab, 0), lost(top, message, Ran::MaybeExecuted));
    }
}

#[test]
fn r6_a_loss_names_the_hop_to_lateral_waiters_too() {
    for (cut, top, message) in [
        (0, "/0", "/0 was lost, and /0/0/0 with it: the link ended"),
        (1, "/0/0", "/0/0 was lost, and /0/0/0 with it: the link ended"),
        (2, "/0/0/0", "/0/0/0 was lost: the link ended"),
    ] {
        let (mut lab, target, holder) = deep(3);
        let (by, now) = (lab.address(holder), lab.now);
        let grant = lab.nodes[target].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
        lab.ask(holder, target, Verb::Echo, Some(grant)).expect("room");
        lab.settle();
        // Nodes are added target, holder, target, holder.
        lab.cut([0, 1, 3][cut], [1, 3, 5][cut]);
        assert_eq!(loss(&mut lab, holder), lost(top, message, Ran::MaybeExecuted));
    }
}

#[test]
fn r6_a_loss_that_a_relay_tells_names_the_hop_that_was_lost() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let b = lab.add(a);
    let c = lab.add(b);
    lab.ask(0, c, Verb::Echo, None).expect("room");
    // It waits at the first relay and has not left it: the relay answers, before its notice.
    lab.carry(0, a, usize::MAX);
    lab.cut(a, b);
    let message = "/0/0 was lost, and /0/0/0 with it: the link ended";
    assert_eq!(loss(&mut lab, 0), lost("/0/0", message, Ran::NotSent));
    // The same below it, asked over a link whose frames are small.
    let mut lab = Lab::new();
    let a = lab.add_with(0, Limits { frame: 512, ..Limits::default() });
    let b = lab.add(a);
    let c = lab.add(b);
    lab.ask(0, c, Verb::Echo, None).expect("room");
    lab.carry(0, a, usize::MAX);
    lab.carry(a, b, usize::MAX);
    lab.cut(b, c);
    assert_eq!(loss(&mut lab, 0), lost("/0/0/0", "/0/0/0 was lost: the link ended", Ran::NotSent));
}

#[test]
fn r6_a_lost_parent_is_named_to_those_who_asked_by_way_of_it() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let (b, other) = (lab.add(a), lab.add(0));
    let (by, now) = (lab.address(b), lab.now);
    let sibling = lab.add(a);
    for to in [a, sibling, other] {
        let grant = lab.nodes[to].grant(&by, verbs(Verb::Echo), None, HOUR, now).expect("room");
        lab.ask(b, to, Verb::Echo, Some(grant)).expect("room");
        lab.settle();
    }
    lab.cut(a, b);
    let done = lab.done(b);
    let mut messages: Vec<_> = done
        .iter()
        .map(|(_, result)| result.as_ref().expect_err("a loss"))
        .map(|f| (f.at.to_string(), &*f.message))
        .collect();
    messages.sort();
    assert_eq!(
        messages,
        [
            ("/0".into(), "/0 was lost, and /0/1 with it: the link ended"),
            ("/0".into(), "/0 was lost, and the way to /1 with it: the link ended"),
            ("/0".into(), "/0 was lost: the link ended"),
        ]
    );
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
fn noise_behind_the_hello_ends_the_link_and_is_told_with_its_first_bytes() {
    let mut lab = Lab::new();
    let evil = lab.evil(0);
    let now = lab.now;
    let mut noise = BytesMut::from(&b"-bash: \x1b[31mno job control in this shell\n"[..]);
    lab.nodes[0].handle_bytes(evil.link, &mut noise, now);
    let told = lab.closed(&evil).expect("it is closed");
    assert!(told.contains("-bash: \\x1b[31mno job"), "{told}");
}

#[test]
fn r2_the_log_level_comes_from_above_and_reaches_everything_below() {
    let mut lab = Lab::new();
    let a = lab.add(0);
    let b = lab.add(a);
    lab.nodes[0].set_log_level(4);
    lab.settle();
    assert_eq!([a, b].map(|node| lab.nodes[node].log_level()), [4, 4]);
    assert!(lab.take(b).iter().any(|event| matches!(event, Event::LogLevel(4))), "its owner was not told");
    // One that joins later is told by its hello, and one that is greeted meanwhile behind it.
    let c = lab.add(b);
    assert_eq!(lab.nodes[c].log_level(), 4);
    for forged in [vec![5], vec![6], vec![]] {
        let evil = lab.evil(b);
        lab.inject(&evil, &Frame::link(FrameKind::LogLevel, forged.into()));
        assert_eq!([0, a, b].map(|node| lab.nodes[node].log_level()), [4, 4, 4]);
        let closed = |event: &Event| matches!(event, Event::CloseLink { reason: LostReason::Violation(_), .. });
        assert!(lab.take(b).iter().any(closed), "it goes on");
    }
}
