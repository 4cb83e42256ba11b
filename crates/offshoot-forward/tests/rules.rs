//! What a single forwarder promises, one test for each promise.

use bytes::Bytes;
use offshoot_forward::{Config, ContentHash, Event, FetchId, Forwarder, Refusal};
use offshoot_wire::Address;

type Relay = Forwarder<u32, u8>;

const PARENT: u8 = 0;

fn at(path: &[u32]) -> Address {
    Address::from_path(path).expect("an address")
}

/// A relay at /1 with a parent.
fn relay(config: Config) -> Relay {
    let mut relay = Forwarder::new(at(&[1]), config);
    relay.add_source(PARENT, Address::ROOT);
    relay
}

fn events(forwarder: &mut Relay) -> Vec<Event<u32, u8>> {
    std::iter::from_fn(|| forwarder.poll_event()).collect()
}

/// The fetch that the forwarder asks for, and nothing else.
fn asked(forwarder: &mut Relay) -> FetchId {
    match &events(forwarder)[..] {
        [Event::Ask { fetch, .. }] => *fetch,
        other => panic!("expected one Ask, got {other:?}"),
    }
}

fn stream(content: &[u8]) -> Bytes {
    [&(content.len() as u64).to_le_bytes()[..], content].concat().into()
}

/// All that can be sent of an exchange now.
fn drain(forwarder: &mut Relay, exchange: u32) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = forwarder.next(exchange) {
        forwarder.sent(exchange, bytes.len());
        all.extend_from_slice(&bytes);
    }
    all
}

fn fetch_whole(forwarder: &mut Relay, content: &[u8]) -> ContentHash {
    let hash = ContentHash::of(content);
    forwarder.need(hash);
    let fetch = asked(forwarder);
    forwarder.arrived(fetch, stream(content));
    forwarder.finished(fetch, Ok(()));
    forwarder.release(&hash);
    events(forwarder);
    hash
}

#[test]
fn s11_only_what_was_registered_is_served() {
    let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
    root.register(&b"public"[..]);
    root.serve(1, 1, ContentHash::of(b"secret"));
    assert_eq!(events(&mut root), [Event::End { exchange: 1, outcome: Err(Refusal::Unknown) }]);
    root.withdraw(&ContentHash::of(b"public"));
    root.serve(2, 1, ContentHash::of(b"public"));
    assert_eq!(events(&mut root), [Event::End { exchange: 2, outcome: Err(Refusal::Unknown) }]);
    assert_eq!((root.stats().contents, root.link_stats(1).refused), (0, 2));
}

#[test]
fn what_is_withdrawn_still_ends_for_those_who_have_begun() {
    let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
    let hash = root.register(&b"public"[..]);
    root.serve(1, 1, hash);
    root.withdraw(&hash);
    assert_eq!(drain(&mut root, 1), stream(b"public"));
    assert_eq!(events(&mut root).last(), Some(&Event::End { exchange: 1, outcome: Ok(()) }));
    assert_eq!(root.stats().contents, 0);
}

#[test]
fn bytes_are_handed_on_before_the_rest_is_there_and_the_end_behind_the_check() {
    let mut relay = relay(Config::default());
    let content = b"first second";
    relay.serve(1, 1, ContentHash::of(content));
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(content).slice(..13));
    assert!(events(&mut relay).contains(&Event::Send { exchange: 1 }));
    assert_eq!(drain(&mut relay, 1), stream(content)[..13]);
    relay.arrived(fetch, stream(content).slice(13..));
    assert_eq!(drain(&mut relay, 1), stream(content)[13..]);
    let ended = |events: &[Event<u32, u8>]| events.iter().any(|event| matches!(event, Event::End { .. }));
    assert!(!ended(&events(&mut relay)), "all bytes are there, but they are not checked");
    relay.finished(fetch, Ok(()));
    assert_eq!(events(&mut relay), [Event::Send { exchange: 1 }]);
    assert_eq!(drain(&mut relay, 1), b"");
    assert_eq!(events(&mut relay), [Event::End { exchange: 1, outcome: Ok(()) }]);
}

#[test]
fn who_joins_late_gets_it_from_the_beginning_and_it_is_asked_for_once() {
    let mut relay = relay(Config::default());
    let hash = ContentHash::of(b"content");
    relay.serve(1, 1, hash);
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(b"content").slice(..10));
    drain(&mut relay, 1);
    relay.serve(2, 2, hash);
    relay.need(hash);
    relay.arrived(fetch, stream(b"content").slice(10..));
    relay.finished(fetch, Ok(()));
    assert_eq!(drain(&mut relay, 2), stream(b"content"));
    let told = events(&mut relay);
    assert!(told.iter().any(|event| matches!(event, Event::Ready { .. })), "{told:?}");
    assert!(!told.iter().any(|event| matches!(event, Event::Ask { .. })), "{told:?}");
    assert_eq!((relay.stats().fetches, relay.link_stats(2).joined), (1, 1));
}

#[test]
fn s11_a_relay_that_alters_is_named_to_all_and_what_it_sent_is_dropped() {
    let mut relay = relay(Config::default());
    let hash = ContentHash::of(b"right");
    relay.need(hash);
    relay.serve(1, 1, hash);
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(b"wrong"));
    relay.finished(fetch, Ok(()));
    let told = events(&mut relay);
    let refusal = Refusal::Damaged(Address::ROOT);
    assert!(told.contains(&Event::Damaged { link: Some(PARENT), hash }), "{told:?}");
    assert!(told.contains(&Event::Failed { hash, refusal: refusal.clone() }), "{told:?}");
    assert!(told.contains(&Event::End { exchange: 1, outcome: Err(refusal) }), "{told:?}");
    let stats = relay.stats();
    assert_eq!((stats.contents, stats.kept, stats.damaged), (0, 0, 1));
}

#[test]
fn s11_more_than_was_announced_ends_the_stream_at_once() {
    let mut relay = relay(Config::default());
    relay.need(ContentHash::of(b"right"));
    let fetch = asked(&mut relay);
    relay.arrived(fetch, [&stream(b"right")[..], b"!"].concat().into());
    assert!(events(&mut relay).contains(&Event::Drop { fetch }));
    relay.finished(fetch, Ok(()));
    assert_eq!(events(&mut relay), []);
}

#[test]
fn a_bad_source_is_followed_by_one_elsewhere_and_no_third() {
    let mut relay = relay(Config::default());
    relay.add_source(1, at(&[7]));
    relay.add_source(2, at(&[8]));
    let hash = ContentHash::of(b"right");
    relay.need(hash);
    let fetch = asked(&mut relay);
    relay.finished(fetch, Err(Refusal::Lost));
    let Some(Event::Ask { fetch, link: 1, .. }) = relay.poll_event() else { panic!("it was not asked for elsewhere") };
    relay.arrived(fetch, stream(b"wrong"));
    relay.finished(fetch, Ok(()));
    let told = events(&mut relay);
    assert_eq!(told.last(), Some(&Event::Failed { hash, refusal: Refusal::Damaged(at(&[7])) }));
    assert!(!told.iter().any(|event| matches!(event, Event::Ask { .. })), "{told:?}");
}

#[test]
fn who_has_bytes_of_a_bad_source_is_refused_and_who_has_none_gets_them_from_elsewhere() {
    let mut relay = relay(Config::default());
    relay.add_source(1, at(&[7]));
    let hash = ContentHash::of(b"right");
    relay.serve(1, 1, hash);
    relay.serve(2, 2, hash);
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(b"wrong"));
    events(&mut relay);
    assert!(!drain(&mut relay, 1).is_empty());
    relay.finished(fetch, Ok(()));
    let told = events(&mut relay);
    assert!(told.contains(&Event::End { exchange: 1, outcome: Err(Refusal::Damaged(Address::ROOT)) }), "{told:?}");
    let Some(Event::Ask { fetch, link: 1, .. }) = told.last() else { panic!("{told:?}") };
    relay.arrived(*fetch, stream(b"right"));
    relay.finished(*fetch, Ok(()));
    assert_eq!(drain(&mut relay, 2), stream(b"right"));
}

#[test]
fn r5_what_is_not_in_use_makes_room_and_what_is_in_use_does_not() {
    let mut relay = relay(Config::with(|config| config.budget = 20_000));
    let old = fetch_whole(&mut relay, &[1; 8000]);
    let used = fetch_whole(&mut relay, &[2; 8000]);
    relay.need(used);
    events(&mut relay);
    let new = fetch_whole(&mut relay, &[3; 8000]);
    assert_eq!((relay.has(&old), relay.has(&used), relay.has(&new)), (false, true, true));
    assert_eq!(relay.stats().evictions, 1);
    // 12,000 bytes are there for those who want them: not for this one, until the other is released.
    let last = vec![4; 14_000];
    relay.need(ContentHash::of(&last));
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(&last));
    relay.finished(fetch, Ok(()));
    assert_eq!(events(&mut relay), [Event::Stored { fetch, bytes: 8 }], "its credit is held back");
    assert_eq!(relay.stats().waiting, 1);
    relay.release(&used);
    let told = events(&mut relay);
    assert!(matches!(told[..], [Event::Stored { bytes: 14_000, .. }, Event::Ready { .. }]), "{told:?}");
    assert!(relay.stats().kept <= 20_000);
}

#[test]
fn r5_a_content_that_never_fits_is_refused_when_its_length_is_known() {
    let mut relay = relay(Config::with(|config| {
        config.budget = 1000;
        config.largest = 1 << 40;
    }));
    let hash = ContentHash::of(b"?");
    relay.need(hash);
    let fetch = asked(&mut relay);
    relay.arrived(fetch, 1001u64.to_le_bytes().to_vec().into());
    let told = events(&mut relay);
    assert!(told.contains(&Event::Drop { fetch }), "{told:?}");
    assert_eq!(told.last(), Some(&Event::Failed { hash, refusal: Refusal::TooLarge }));
    assert_eq!(relay.promise(hash, 1001), Err(Refusal::TooLarge));
}

#[test]
fn r5_a_link_that_asks_for_everything_is_refused_and_its_siblings_are_not() {
    let mut relay = relay(Config::with(|config| config.serving = 3));
    for number in 0..10 {
        relay.serve(number, 1, ContentHash::of(&number.to_le_bytes()));
    }
    let told = events(&mut relay);
    let refused = |event: &&Event<u32, u8>| matches!(event, Event::End { outcome: Err(Refusal::Busy), .. });
    assert_eq!((told.iter().filter(refused).count(), relay.stats().coming), (7, 3));
    relay.serve(100, 2, ContentHash::of(b"x"));
    assert!(matches!(events(&mut relay)[..], [Event::Ask { .. }]));
    relay.give_up(0);
    relay.serve(11, 1, ContentHash::of(b"y"));
    assert!(events(&mut relay).iter().any(|event| matches!(event, Event::Ask { .. })));
}

#[test]
fn what_nobody_waits_for_stops_coming() {
    let mut relay = relay(Config::default());
    let hash = ContentHash::of(b"content");
    relay.serve(1, 1, hash);
    relay.need(hash);
    let fetch = asked(&mut relay);
    relay.arrived(fetch, stream(b"content").slice(..9));
    events(&mut relay);
    relay.give_up(1);
    assert_eq!(events(&mut relay), [], "it is still needed here");
    relay.release(&hash);
    assert_eq!(events(&mut relay), [Event::Drop { fetch }]);
    let stats = relay.stats();
    assert_eq!((stats.contents, stats.kept, stats.coming), (0, 0, 0));
}

#[test]
fn what_is_promised_is_loaded_in_pieces_once_it_is_wanted_and_takes_room_no_longer_than_that() {
    let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
    let (a, b) = (vec![1; 6000], vec![2; 6000]);
    for (content, exchange) in [(&a, 1), (&b, 2), (&a, 3)] {
        let hash = ContentHash::of(content);
        root.promise(hash, 6000).expect("it fits");
        assert_eq!(events(&mut root), []);
        root.serve(exchange, 1, hash);
        let [Event::Load { fetch, .. }] = events(&mut root)[..] else { panic!("nothing to load") };
        let (first, rest) = content.split_at(2500);
        root.arrived(fetch, Bytes::copy_from_slice(first));
        let mut sent = drain(&mut root, exchange);
        assert_eq!(sent, stream(content)[..8 + 2500], "it is handed on while it is loaded");
        root.arrived(fetch, Bytes::copy_from_slice(rest));
        root.finished(fetch, Ok(()));
        sent.extend(drain(&mut root, exchange));
        assert_eq!(sent, stream(content));
        assert!(matches!(events(&mut root).last(), Some(Event::End { outcome: Ok(()), .. })));
        assert_eq!(root.stats().kept, 0);
    }
}

#[test]
fn a_promise_that_is_not_kept_is_refused_and_forgotten() {
    for wrong in [&b"other"[..], b"longer than it"] {
        let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
        let hash = ContentHash::of(b"right");
        root.promise(hash, 5).expect("it fits");
        root.serve(1, 1, hash);
        let [Event::Load { fetch, .. }] = events(&mut root)[..] else { panic!("nothing to load") };
        root.arrived(fetch, Bytes::copy_from_slice(wrong));
        root.finished(fetch, Ok(()));
        assert!(matches!(events(&mut root).last(), Some(Event::End { exchange: 1, outcome: Err(_) })));
        assert_eq!(root.stats().contents, 0);
    }
}

#[test]
fn a_promise_that_cannot_be_kept_just_now_is_kept_to_those_who_ask_later() {
    let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
    let hash = ContentHash::of(b"right");
    root.promise(hash, 5).expect("it fits");
    for (exchange, refusal) in [(1, Refusal::Busy), (2, Refusal::Lost)] {
        root.serve(exchange, 1, hash);
        root.need(hash);
        let [Event::Load { fetch, .. }] = events(&mut root)[..] else { panic!("nothing to load") };
        root.arrived(fetch, Bytes::from_static(b"ri"));
        events(&mut root);
        root.finished(fetch, Err(refusal.clone()));
        let failed = Event::Failed { hash, refusal: refusal.clone() };
        // Nobody waits for a second try, and none is made before somebody asks.
        assert_eq!(events(&mut root), [Event::End { exchange, outcome: Err(refusal) }, failed]);
        assert_eq!((root.stats().coming, root.stats().kept), (0, 0));
    }
    root.serve(3, 1, hash);
    let [Event::Load { fetch, .. }] = events(&mut root)[..] else { panic!("the promise was forgotten") };
    root.arrived(fetch, Bytes::from_static(b"right"));
    root.finished(fetch, Ok(()));
    assert_eq!(drain(&mut root, 3), stream(b"right"));
}

#[test]
fn a_promise_outlives_those_who_gave_up_while_it_was_loaded() {
    let mut root: Relay = Forwarder::new(Address::ROOT, Config::default());
    let hash = ContentHash::of(b"right");
    root.promise(hash, 5).expect("it fits");
    root.serve(1, 1, hash);
    root.give_up(1);
    events(&mut root);
    root.serve(2, 1, hash);
    assert!(matches!(events(&mut root)[..], [Event::Load { .. }]));
}
