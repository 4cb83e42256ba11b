//! S3, R4: grants that are none. Good ones are tried in `lateral.rs`, where the test has the keys to make them.

use std::time::Duration;

use offshoot_route::{Config, Node, Time};
use offshoot_wire::{Address, FailureKind, Grant, GrantLink, Verb, VerbSet};

use crate::case::Expect::Passed;
use crate::case::{Scene, cases, request};

/// A grant that is well sealed, with the only key that the hostile child has: its own.
fn own_grant(scene: &mut Scene, target: &Address, verbs: VerbSet) -> Grant {
    let hello = scene.link.parent_hello();
    let now = Time::ZERO;
    let (mut core, _) = Node::child(Config::default(), &hello, now);
    let below = scene.me.child(0).expect("not deep");
    let mut grant =
        core.grant_for(&below, &scene.me, verbs, None, Duration::from_secs(1000), now).expect("it lies below");
    grant.target = target.clone();
    grant
}

fn made_up(target: &Address, holder: &Address, number: u64, seal: u8) -> Grant {
    let link = GrantLink {
        holder: holder.clone(),
        verbs: Verb::ALL.into_iter().collect(),
        handle: None,
        expires_ms: u64::MAX,
    };
    Grant { target: target.clone(), number, links: vec![link], seal: [seal; 32] }
}

/// Shows a grant for each verb; whoever checks it denies.
fn show(scene: &mut Scene, dst: &Address, grant: &Grant) {
    let body = scene.exec();
    let me = scene.me.clone();
    for (number, verb) in
        [Verb::Echo, Verb::Info, Verb::Exec, Verb::Connect, Verb::Shutdown, Verb::Attach].into_iter().enumerate()
    {
        let number = number as u64 + 1;
        scene.link.send(&request(&me, dst, number, verb.number(), true, Some(grant.clone()), &body));
        let failure = scene.link.failure(number);
        assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        assert_eq!(failure.at, *dst, "somebody else than its target judged the grant");
    }
}

fn all_targets(scene: &Scene) -> [Address; 3] {
    [scene.parent.clone(), scene.sibling.clone(), Address::ROOT]
}

cases! {
    s3_a_made_up_grant_opens_nothing_anywhere: Passed, |scene| {
        for dst in all_targets(scene) {
            let grant = made_up(&dst, &scene.me.clone(), 1, 0);
            show(scene, &dst, &grant);
        }
    };
    s3_a_made_up_grant_as_of_an_ancestor_opens_nothing: Passed, |scene| {
        for dst in all_targets(scene) {
            let grant = made_up(&dst, &scene.me.clone(), 1 << 63 | 1, 7);
            show(scene, &dst, &grant);
        }
    };
    s3_a_grant_sealed_with_its_own_key_opens_nothing: Passed, |scene| {
        for dst in all_targets(scene) {
            let grant = own_grant(scene, &dst, Verb::ALL.into_iter().collect());
            show(scene, &dst, &grant);
        }
    };
    s3_a_grant_without_links_opens_nothing: Passed, |scene| {
        for dst in all_targets(scene) {
            let mut grant = made_up(&dst, &scene.me.clone(), 1 << 63, 7);
            grant.links.clear();
            show(scene, &dst, &grant);
        }
    };
    s3_a_grant_for_its_own_child_opens_nothing_of_its_parent: Passed, |scene| {
        let below = scene.me.child(0).expect("not deep");
        for dst in all_targets(scene) {
            let mut grant = own_grant(scene, &below, Verb::ALL.into_iter().collect());
            grant.target = below.clone();
            show(scene, &dst, &grant);
        }
    };
    s3_a_grant_with_more_links_than_there_may_be_is_malformed: Passed, |scene| {
        let me = scene.me.clone();
        let parent = scene.parent.clone();
        let mut grant = made_up(&parent, &me, 1 << 63, 7);
        let link = grant.links[0].clone();
        grant.links = vec![link; 17];
        scene.link.send(&request(&me, &parent, 1, 1, false, Some(grant), b""));
        scene.link.refused(1, &FailureKind::Malformed);
    };
    s3_a_grant_does_not_open_a_nephew_that_never_was: Passed, |scene| {
        let (me, nephew) = (scene.me.clone(), scene.nephew());
        let grant = made_up(&nephew, &me, 1 << 63, 7);
        scene.link.send(&request(&me, &nephew, 1, 3, true, Some(grant), b""));
        scene.link.refused(1, &FailureKind::NoRoute);
    };
}
