//! S11: agents that a hostile parent sends down for an agent to start.

use bytes::Bytes;
use offshoot_wire::{Address, ConnectSpec, Failure, FailureKind, FrameKind, PayloadReply, Recipe, Verb, encode};

use crate::above::{Above, above, cut, passed, shell};
use crate::link::bytes_of;

/// Has the agent ask for an agent, answers with `answer`, and asserts that the connect fails and nothing else does.
fn sends(above: &mut Above, answer: fn(&mut Above, u64)) {
    // A login that works, so that an agent is asked for.
    let recipe = Recipe { deadline_ms: 3000, stage_ms: 2000, ..shell(&["sh", "-c", "\x01probe"]) };
    let spec = ConnectSpec { recipe, name: None, process_name: "p".into(), answers: false };
    above.ask(10, Verb::Connect, &encode(&spec));
    let (header, _) = above.link.request();
    answer(above, header.exchange);
    let failure = above.link.failure(10);
    assert!(!matches!(failure.kind, FailureKind::Denied | FailureKind::NoRoute), "{failure:?}");
}

fn reply(above: &mut Above, number: u64, kind: FrameKind, body: impl Into<Bytes>) {
    let frame = crate::case::answer(kind, &Address::ROOT, &above.agent.clone(), number, body);
    above.link.send(&frame);
}

above! {
    s11_an_agent_that_is_not_what_its_hash_says_is_not_started: passed(|above| sends(above, |above, number| {
        reply(above, number, FrameKind::Data, [&[1][..], &[0x7f; 5000]].concat());
        reply(above, number, FrameKind::Reply, encode(&PayloadReply { length: 5000, sha256: [0; 32] }));
    }));
    s11_an_agent_of_another_length_is_not_started: passed(|above| sends(above, |above, number| {
        reply(above, number, FrameKind::Reply, encode(&PayloadReply { length: 1 << 60, sha256: [0; 32] }));
    }));
    s11_an_answer_that_is_no_agent_is_an_error: passed(|above| sends(above, |above, number| {
        reply(above, number, FrameKind::Reply, vec![0xff; 3]);
    }));
    s11_a_failure_to_send_an_agent_is_an_error: passed(|above| sends(above, |above, number| {
        reply(above, number, FrameKind::Failure, encode(&Failure::new(FailureKind::NoAgent("x".into()), "none")));
    }));
    s11_a_failure_that_cannot_be_read_is_an_error: passed(|above| sends(above, |above, number| {
        reply(above, number, FrameKind::Failure, vec![0xff; 3]);
    }));
    s14_an_agent_beyond_its_credit_ends_the_link: cut("more data than was granted", |above| {
        let recipe = Recipe { deadline_ms: 3000, stage_ms: 2000, ..shell(&["sh", "-c", "\x01probe"]) };
        let spec = ConnectSpec { recipe, name: None, process_name: "p".into(), answers: false };
        above.ask(10, Verb::Connect, &encode(&spec));
        let number = above.link.request().0.exchange;
        let frame = crate::case::answer(FrameKind::Data, &Address::ROOT, &above.agent.clone(), number, [&[1][..], &[7; 60_000]].concat());
        let piece = bytes_of(&frame).repeat(100);
        above.link.raw(&piece);
    });
}
