//! S11: what a hostile parent sends down for an agent to start.

use bytes::Bytes;
use offshoot_wire::{
    Address, ConnectSpec, ContentRef, Failure, FailureKind, FrameKind, ImageSpec, Packing, PayloadSpec, Recipe, Start,
    Verb, decode, encode,
};
use sha2::{Digest, Sha256};

use crate::above::{Above, above, cut, passed, shell};
use crate::link::bytes_of;

/// Has the agent start a context by a login that works, so that it asks for an agent.
fn connects(above: &mut Above) {
    let recipe = Recipe { deadline_ms: 3000, stage_ms: 2000, ..shell(&["sh", "-c", "\x01probe"]) };
    asks(above, recipe);
}

/// Has the agent start a worker from an image with this hash.
fn works(above: &mut Above, hash: [u8; 32]) {
    let image = Some(ContentRef { hash, length: 5000, packing: Packing::Stored });
    let start = Start::Worker { program: [6; 32], image };
    asks(above, Recipe { deadline_ms: 3000, stage_ms: 2000, ..Recipe::new("worker", "", start) });
}

fn asks(above: &mut Above, recipe: Recipe) {
    let spec = ConnectSpec { recipe, name: None, process_name: "p".into(), answers: false };
    above.ask(10, Verb::Connect, &encode(&spec));
}

/// The number of the agent's request for a name, which is answered with `hash`; then that for the content.
fn named(above: &mut Above, hash: [u8; 32]) -> u64 {
    let (header, body) = above.link.request();
    // Behind the verb, the window (three bytes) and no grant.
    let spec: PayloadSpec = decode(&body[5..]).expect("a request for a name");
    assert_eq!(spec.program, None);
    name(above, header.exchange, hash);
    wanted(above, hash)
}

/// The number of the agent's request for the content.
fn wanted(above: &mut Above, hash: [u8; 32]) -> u64 {
    let (header, body) = above.link.request();
    let spec: ImageSpec = decode(&body[5..]).expect("a request for a content");
    assert_eq!(spec, ImageSpec { hash, keep: false });
    header.exchange
}

/// Answers all that is asked, a name or a content, until the connect fails: why. The agent asks twice, since it begins
/// when the login does and what comes may end before it is needed.
fn fails_with(above: &mut Above, answer: fn(&mut Above, Verb, u64)) -> FailureKind {
    loop {
        let (header, body) = above.link.await_frame("a request, or the end of the connect", |header| {
            header.kind == FrameKind::Request || header.kind == FrameKind::Failure && header.exchange == 10
        });
        if header.kind == FrameKind::Failure {
            let failure: Failure = decode(&body).expect("a failure");
            assert!(!matches!(failure.kind, FailureKind::Denied | FailureKind::NoRoute), "{failure:?}");
            return failure.kind.clone();
        }
        let verb = Verb::from_number(body[0].into()).expect("a verb");
        answer(above, verb, header.exchange);
    }
}

/// The connect fails, and nothing else does.
fn fails(above: &mut Above) -> FailureKind {
    fails_with(above, |_, verb, _| panic!("{verb:?} is asked for"))
}

fn name(above: &mut Above, number: u64, hash: [u8; 32]) {
    let content = ContentRef { hash, length: 5000, packing: Packing::Stored };
    reply(above, number, FrameKind::Reply, encode(&content));
}

fn reply(above: &mut Above, number: u64, kind: FrameKind, body: impl Into<Bytes>) {
    let frame = crate::case::answer(kind, &Address::ROOT, &above.agent.clone(), number, body);
    above.link.send(&frame);
}

/// Sends a content on channel 1, behind the length that is claimed for it.
fn content(above: &mut Above, number: u64, length: u64, bytes: &[u8]) {
    reply(above, number, FrameKind::Data, [&[1][..], &length.to_le_bytes(), bytes].concat());
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

above! {
    s11_an_agent_that_is_not_what_its_hash_says_is_not_started: passed(|above| {
        connects(above);
        let kind = fails_with(above, |above, verb, number| match verb {
            Verb::Payload => name(above, number, [9; 32]),
            _ => {
                content(above, number, 5000, &[0x7f; 5000]);
                reply(above, number, FrameKind::Reply, b"".to_vec());
            }
        });
        assert_eq!(kind, FailureKind::Damaged(Address::ROOT));
    });
    s11_an_image_that_is_not_what_its_hash_says_is_not_started: passed(|above| {
        works(above, [9; 32]);
        let number = wanted(above, [9; 32]);
        content(above, number, 5000, &[0x7f; 5000]);
        reply(above, number, FrameKind::Reply, b"".to_vec());
        assert_eq!(fails(above), FailureKind::Damaged(Address::ROOT));
    });
    s11_an_image_of_fewer_bytes_than_announced_is_not_started: passed(|above| {
        let right = [3; 5000];
        works(above, hash(&right));
        let number = wanted(above, hash(&right));
        content(above, number, 5001, &right);
        reply(above, number, FrameKind::Reply, b"".to_vec());
        assert_eq!(fails(above), FailureKind::Damaged(Address::ROOT));
    });
    s11_an_image_that_is_no_program_is_an_error: passed(|above| {
        let right = [3; 5000];
        works(above, hash(&right));
        let number = wanted(above, hash(&right));
        content(above, number, 5000, &right);
        reply(above, number, FrameKind::Reply, b"".to_vec());
        assert!(matches!(fails(above), FailureKind::Connect(_) | FailureKind::NoExec));
    });
    s11_an_agent_of_more_bytes_than_may_be_is_not_taken: passed(|above| {
        connects(above);
        let kind = fails_with(above, |above, verb, number| match verb {
            Verb::Payload => name(above, number, [9; 32]),
            _ => content(above, number, 1 << 60, &[7]),
        });
        assert_eq!(kind, FailureKind::TooLarge);
    });
    s11_a_name_that_is_none_is_an_error: passed(|above| {
        connects(above);
        let kind = fails_with(above, |above, _, number| reply(above, number, FrameKind::Reply, vec![0xff; 3]));
        assert_eq!(kind, FailureKind::Malformed);
    });
    s11_a_failure_to_send_an_agent_is_an_error: passed(|above| {
        connects(above);
        let kind = fails_with(above, |above, _, number| {
            let failure = Failure::new(FailureKind::NoAgent("x".into()), "none");
            reply(above, number, FrameKind::Failure, encode(&failure));
        });
        assert_eq!(kind, FailureKind::NoAgent("x".into()));
    });
    s11_a_failure_that_cannot_be_read_is_an_error: passed(|above| {
        connects(above);
        fails_with(above, |above, _, number| reply(above, number, FrameKind::Failure, vec![0xff; 3]));
    });
    r6_an_image_that_does_not_come_is_waited_for_no_longer_than_the_connect_may_take: passed(|above| {
        works(above, [9; 32]);
        let number = wanted(above, [9; 32]);
        content(above, number, 5000, &[7; 100]);
        assert_eq!(fails(above), FailureKind::Timeout);
        // What nobody waits for is not to come any more.
        let is_it = |header: &offshoot_wire::FrameHeader| header.kind == FrameKind::Cancel && header.exchange == number;
        above.link.await_frame("a cancel", is_it);
    });
    s14_an_agent_beyond_its_credit_ends_the_link: cut("more data than was granted", |above| {
        connects(above);
        let number = named(above, [9; 32]);
        let body = [&[1][..], &(64u64 << 20).to_le_bytes(), &[7; 60_000]].concat();
        let frame = crate::case::answer(FrameKind::Data, &Address::ROOT, &above.agent.clone(), number, body);
        let piece = bytes_of(&frame).repeat(100);
        above.link.raw(&piece);
    });
}
