//! Grants: what is let through by one, and what only looks like one.

use std::time::Duration;

use offshoot_route::{Event, Node, Time, narrow};
use offshoot_wire::{Address, Frame, FrameKind, GrantLink, RequestHead, Verb, VerbSet, decode, encode};

use super::core::{child, feed_bytes, small};
use crate::feed::Feed;

/// Grants: whatever is made of a good one, only what narrows it by the rules is let through (S3, R4).
pub(crate) fn grants(data: &[u8]) {
    let mut feed = Feed::new(data);
    let now = Time::from_micros(1);
    let mut root = Node::root(small(), [1; 16], [2; 32], now);
    let (link, asker, _) = child(&mut root, now);
    let ttl = Duration::from_secs(10);
    let good = root.grant(&asker, VerbSet::NONE.with(Verb::Echo).with(Verb::Info), Some(5), ttl, now);
    let good = good.expect("room for a grant");
    let mut grant = good.clone();
    // By the rules: narrowed a few times, each link no wider than the one before.
    let mut least = good.links[0].clone();
    for _ in 0..feed.below(4) {
        let next = any_link(&mut feed, &asker);
        if let Ok(narrowed) = narrow(&grant, next.clone()) {
            assert!(next.verbs.is_subset(least.verbs) && next.expires_ms <= least.expires_ms, "it was widened");
            assert!(least.handle.is_none() || next.handle == least.handle, "another handle");
            (grant, least) = (narrowed, next);
        }
    }
    let by_the_rules = grant.clone();
    match feed.byte() % 8 {
        0 => grant.number = feed.number(),
        1 => grant.target = Address::from_path(&[feed.byte().into()]).expect("not deep"),
        2 => grant.seal[feed.below(32)] ^= feed.byte(),
        3 => {
            let at = feed.below(grant.links.len());
            grant.links[at] = any_link(&mut feed, &asker);
        }
        4 => drop(grant.links.pop()),
        5 => grant.links.push(any_link(&mut feed, &asker)),
        6 => {
            let mut bytes = encode(&grant);
            let at = feed.below(bytes.len().min(255));
            bytes[at] ^= feed.byte();
            grant = decode(&bytes).unwrap_or(grant);
        }
        _ => {}
    }
    let verb = Verb::ALL[feed.below(Verb::ALL.len())];
    let later = now + Duration::from_millis(feed.number() % 20_000);
    let head = RequestHead { verb: verb.number(), window: 0, grant: Some(grant.clone()) };
    let src = if feed.chance() { asker.clone() } else { asker.child(1).expect("not deep") };
    let frame = Frame::routed(FrameKind::Request, Address::ROOT, src.clone(), 1).with_body(encode(&head).into());
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    feed_bytes(&mut root, link, &bytes, later);
    let mut opened = None;
    while let Some(event) = root.poll_event() {
        if let Event::Request { authority, handle, .. } = event {
            opened = Some((authority, handle));
        }
    }
    let may = grant == by_the_rules
        && least.verbs.contains(verb)
        && src.is_under(&least.holder)
        && root.tree_ms(later) < least.expires_ms
        && offshoot_route::permits(verb, offshoot_wire::Authority::Granted);
    assert_eq!(opened.is_some(), may, "{grant:?} for {verb:?} by {src}");
    if let Some((authority, handle)) = opened {
        assert_eq!((authority, handle), (offshoot_wire::Authority::Granted, least.handle));
    }
}

fn any_link(feed: &mut Feed<'_>, asker: &Address) -> GrantLink {
    let holder = match feed.byte() % 4 {
        0 => asker.clone(),
        1 => asker.child(1).expect("not deep"),
        2 => Address::ROOT,
        _ => Address::from_path(&[feed.byte().into()]).expect("not deep"),
    };
    let verbs = (0..feed.below(4)).fold(VerbSet::NONE, |set, _| set.with(Verb::ALL[feed.below(Verb::ALL.len())]));
    let handle = match feed.byte() % 3 {
        0 => None,
        1 => Some(5),
        _ => Some(feed.number()),
    };
    GrantLink { holder, verbs, handle, expires_ms: feed.number() }
}
