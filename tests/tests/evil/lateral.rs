//! S3, S5: what a context asks of an agent beside it, by way of their parent, which is the test. It has the keys, so here
//! are the grants that are good, too.

use std::time::Duration;

use offshoot_route::narrow;
use offshoot_wire::{Address, Failure, FailureKind, FrameKind, Grant, GrantLink, Verb, VerbSet};

use crate::above::{AT, Above, above, passed};
use crate::case::request;

const LATERAL: &[Verb] = &[Verb::Echo, Verb::Info, Verb::Exec, Verb::Connect, Verb::Shutdown, Verb::Payload];

/// A lateral request with a grant; its answer.
fn by(above: &mut Above, grant: Option<Grant>, verb: Verb, src: &Address) -> Result<(), Failure> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1000);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    above.link.send(&request(src, &above.agent.clone(), number, verb.number(), false, grant, b""));
    let (header, body) = above.link.await_frame("an answer", |header| {
        header.exchange == number && matches!(header.kind, FrameKind::Failure | FrameKind::Reply)
    });
    match header.kind {
        FrameKind::Reply => Ok(()),
        _ => Err(offshoot_wire::decode(&body).expect("a failure")),
    }
}

#[track_caller]
fn denied(above: &mut Above, grant: Grant, verb: Verb, src: &Address, why: &str) {
    let failure = by(above, Some(grant), verb, src).expect_err("it was let through");
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains(why), "expected {why:?}, got {:?}", failure.message);
}

/// A good grant for the agent, made with the key that its parent has.
fn good(above: &mut Above, verbs: VerbSet, ttl: Duration) -> Grant {
    let (agent, holder) = (above.agent.clone(), above.sibling());
    above.core.grant_for(&agent, &holder, verbs, None, ttl, AT).expect("it lies below")
}

const LONG: Duration = Duration::from_secs(1000);

fn echo() -> VerbSet {
    VerbSet::NONE.with(Verb::Echo)
}

above! {
    s3_a_lateral_request_without_a_grant_is_denied: passed(|above| {
        let sibling = above.sibling();
        for verb in LATERAL {
            let failure = by(above, None, *verb, &sibling).expect_err("it was let through");
            assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        }
    });
    s1_the_root_without_the_mark_is_denied: passed(|above| {
        for verb in LATERAL {
            let failure = by(above, None, *verb, &Address::ROOT).expect_err("it was let through");
            assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        }
    });
    s3_a_good_grant_opens_what_it_names_to_its_holder: passed(|above| {
        let (grant, sibling) = (good(above, echo(), LONG), above.sibling());
        assert_eq!(by(above, Some(grant.clone()), Verb::Echo, &sibling), Ok(()));
        // And to what lies below the holder.
        let nephew = sibling.child(4).expect("not deep");
        assert_eq!(by(above, Some(grant), Verb::Echo, &nephew), Ok(()));
    });
    s3_a_narrowed_grant_opens_what_is_left_to_its_new_holder: passed(|above| {
        let (grant, sibling) = (good(above, echo().with(Verb::Info), LONG), above.sibling());
        let other = Address::from_path(&[2]).expect("not deep");
        let link = GrantLink { holder: other.clone(), verbs: echo(), handle: None, expires_ms: 500_000 };
        let narrowed = narrow(&grant, link).expect("it is narrower");
        assert_eq!(by(above, Some(narrowed.clone()), Verb::Echo, &other), Ok(()));
        denied(above, narrowed.clone(), Verb::Info, &other, "does not open this verb");
        denied(above, narrowed, Verb::Echo, &sibling, "belongs to another");
    });
    s3_a_grant_of_another_holder: passed(|above| {
        let grant = good(above, echo(), LONG);
        let other = Address::from_path(&[2]).expect("not deep");
        denied(above, grant.clone(), Verb::Echo, &other, "belongs to another");
        denied(above, grant, Verb::Echo, &Address::ROOT, "belongs to another");
    });
    s3_a_grant_for_another_verb: passed(|above| {
        let (grant, sibling) = (good(above, echo(), LONG), above.sibling());
        for verb in [Verb::Info, Verb::Exec, Verb::Connect, Verb::Shutdown] {
            denied(above, grant.clone(), verb, &sibling, "does not open this verb");
        }
    });
    s3_a_grant_whose_verbs_were_widened: passed(|above| {
        let (mut grant, sibling) = (good(above, echo(), LONG), above.sibling());
        grant.links[0].verbs = Verb::ALL.into_iter().collect();
        denied(above, grant, Verb::Exec, &sibling, "seal is broken");
    });
    s3_a_grant_whose_end_was_moved: passed(|above| {
        let (mut grant, sibling) = (good(above, echo(), LONG), above.sibling());
        grant.links[0].expires_ms += 1;
        denied(above, grant, Verb::Echo, &sibling, "seal is broken");
    });
    s3_a_grant_whose_holder_was_changed: passed(|above| {
        let mut grant = good(above, echo(), LONG);
        let other = Address::from_path(&[2]).expect("not deep");
        grant.links[0].holder = other.clone();
        denied(above, grant, Verb::Echo, &other, "seal is broken");
    });
    s3_a_grant_with_another_number: passed(|above| {
        let (mut grant, sibling) = (good(above, echo(), LONG), above.sibling());
        grant.number ^= 1;
        denied(above, grant, Verb::Echo, &sibling, "seal is broken");
    });
    s3_a_grant_that_the_agent_is_said_to_have_given: passed(|above| {
        let (mut grant, sibling) = (good(above, echo(), LONG), above.sibling());
        grant.number &= !(1 << 63);
        denied(above, grant, Verb::Echo, &sibling, "was never given");
    });
    s3_a_grant_with_any_bit_of_its_seal_turned: passed(|above| {
        let (grant, sibling) = (good(above, echo(), LONG), above.sibling());
        for at in 0..32 {
            let mut broken = grant.clone();
            broken.seal[at] ^= 1 << (at % 8);
            denied(above, broken, Verb::Echo, &sibling, "seal is broken");
        }
    });
    s3_a_grant_for_another_target: passed(|above| {
        let (mut grant, sibling) = (good(above, echo(), LONG), above.sibling());
        grant.target = sibling.clone();
        denied(above, grant, Verb::Echo, &sibling, "for another context");
        let below = above.agent.child(0).expect("not deep");
        let other = above.core.grant_for(&below, &sibling, echo(), None, LONG, AT).expect("it lies below");
        denied(above, other, Verb::Echo, &sibling, "for another context");
    });
    s3_a_grant_that_has_expired: passed(|above| {
        let (grant, sibling) = (good(above, echo(), Duration::from_millis(1)), above.sibling());
        std::thread::sleep(Duration::from_millis(20));
        denied(above, grant, Verb::Echo, &sibling, "has expired");
    });
    s3_a_link_taken_off_a_chain: passed(|above| {
        let (grant, sibling) = (good(above, echo(), LONG), above.sibling());
        let other = Address::from_path(&[2]).expect("not deep");
        let link = GrantLink { holder: other, verbs: echo(), handle: None, expires_ms: 1000 };
        let mut cut = narrow(&grant, link).expect("it is narrower");
        cut.links.pop();
        denied(above, cut, Verb::Echo, &sibling, "seal is broken");
    });
    s3_a_link_put_on_a_chain_without_a_seal: passed(|above| {
        let mut grant = good(above, echo(), LONG);
        let other = Address::from_path(&[2]).expect("not deep");
        grant.links.push(GrantLink { holder: other.clone(), verbs: echo(), handle: None, expires_ms: 1000 });
        denied(above, grant, Verb::Echo, &other, "seal is broken");
    });
    s3_a_good_grant_behind_which_the_mark_is_claimed_opens_no_more: passed(|above| {
        let (grant, sibling) = (good(above, echo(), LONG), above.sibling());
        denied(above, grant, Verb::Exec, &sibling, "does not open this verb");
    });
}
