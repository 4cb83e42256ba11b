//! A hostile parent of a worker: calls that are not what they say they are, in any number. It has every right to call, so
//! what is shown is that the worker stays within its bounds, answers what it can, and ends in order.

use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_tests::{bounded, process};
use offshoot_wire::{
    Address, CallReply, CallSpec, ChannelEnd, EndReason, FailureKind, FrameKind, Limits, LostReason, Verb, decode,
    encode,
};

use crate::above::{Above, above};
use crate::case::request;
use crate::link::bytes_of;
use crate::stage::{PATIENCE, memory};

/// How many calls a worker takes, with those that wait.
const CALLS: u64 = 131_072;

/// How many of them run at once.
const AT_ONCE: u64 = 64;

fn spec(function: &str, args: &[u8], follow: u64) -> Vec<u8> {
    encode(&CallSpec { function: function.into(), args: args.to_vec(), follow, chain: None })
}

fn end(total: u64) -> Vec<u8> {
    encode(&ChannelEnd { channel: 0, total, reason: EndReason::Done })
}

/// A worker that is driven so goes on, and ends with its link.
fn passed(act: fn(&mut Above)) {
    let mut worker = Above::worker();
    act(&mut worker);
    worker.serves();
    works(&mut worker);
    worker.finish(0, "");
}

/// A worker that is driven so closes the link with this reason.
fn cut(text: &str, act: fn(&mut Above)) {
    let mut worker = Above::worker();
    act(&mut worker);
    let reason = worker.link.end();
    let Some(LostReason::Violation(said)) = &reason else { panic!("expected {text:?}, got {reason:?}") };
    assert!(said.contains(text), "expected {text:?}, got {said:?}");
    worker.finish(0, "");
}

/// A function runs and its value comes.
#[track_caller]
fn works(worker: &mut Above) {
    worker.ask(1 << 40, Verb::Call, &spec("echo", b"value", 0));
    let (header, body) = worker.link.await_frame("an answer", |header| header.exchange == 1 << 40);
    assert_eq!(header.kind, FrameKind::Reply, "{:?}", decode::<offshoot_wire::Failure>(&body));
    assert_eq!(decode::<CallReply>(&body).expect("a reply").value, b"value");
}

/// Arguments that follow, and what they come to.
fn following(worker: &mut Above, announced: u64, came: u64) {
    worker.ask(1, Verb::Call, &spec("echo", b"", announced));
    if came > 0 {
        worker.of(FrameKind::Data, 1, vec![0; 1 + came as usize]);
    }
    worker.of(FrameKind::End, 1, end(came));
    worker.link.refused(1, &FailureKind::Malformed);
}

/// Calls that wait behind as many as can run, none of which ends: asked and given up, over and over.
fn given_up(mut worker: Above) {
    for number in 1..=AT_ONCE {
        worker.ask(number, Verb::Call, &spec("never", b"", 0));
    }
    assert!(worker.link.is_alive());
    // The guard, and the worker below it.
    let own = |worker: &Above| {
        let below = process::descendants(worker.process.id() as i32);
        below.iter().map(|found| memory(found.pid)).sum::<u64>() + memory(worker.process.id())
    };
    let idle = own(&worker);
    let (args, mut bytes) = (vec![7; 30_000], Vec::new());
    // 120 MB of arguments, of which no more than one round may be here at any time.
    for round in 0..40 {
        bytes.clear();
        for number in (1 << 30) + round * 100..(1 << 30) + round * 100 + 100 {
            let (me, root) = (worker.agent.clone(), Address::ROOT);
            let asked = request(&root, &me, number, Verb::Call.number(), true, None, &spec("echo", &args, 0));
            bytes.extend(bytes_of(&asked));
            let cancel = offshoot_wire::Frame::routed(FrameKind::Cancel, me, root, number);
            bytes.extend(bytes_of(&cancel));
        }
        worker.link.raw(&bytes);
        assert!(worker.link.is_alive());
    }
    let after = own(&worker);
    assert!(after < idle + (48 << 20), "{idle} bytes before, {after} after");
    worker.serves();
    worker.finish(0, "");
}

/// As many calls as there may be, and one more.
fn crowded(worker: &mut Above) {
    let ask = |worker: &mut Above, numbers: std::ops::RangeInclusive<u64>| {
        let (me, root) = (worker.agent.clone(), Address::ROOT);
        let spec = spec("echo", b"", 1);
        let asked = |number| bytes_of(&request(&root, &me, number, Verb::Call.number(), true, None, &spec));
        worker.link.raw(&numbers.flat_map(asked).collect::<Vec<u8>>());
    };
    const ROUND: u64 = 8192;
    for round in 0..CALLS / ROUND {
        ask(worker, round * ROUND + 1..=(round + 1) * ROUND);
        assert!(worker.link.is_alive());
    }
    ask(worker, CALLS + 1..=CALLS + 1);
    worker.link.refused(CALLS + 1, &FailureKind::Busy);
    for number in 1..=CALLS {
        worker.of(FrameKind::Cancel, number, Bytes::new());
        if number % ROUND == 0 {
            assert!(worker.link.is_alive());
        }
    }
}

above! {
    s5_a_function_that_is_not_there: passed(|worker| {
        worker.ask(1, Verb::Call, &spec("no such function", b"", 0));
        worker.link.refused(1, &FailureKind::Unsupported);
    });
    s7_a_call_that_is_none: passed(|worker| {
        worker.ask(1, Verb::Call, &[0xff; 50]);
        worker.link.refused(1, &FailureKind::Malformed);
    });
    s7_fewer_arguments_than_were_announced: passed(|worker| following(worker, 100, 99));
    s7_more_arguments_than_were_announced: passed(|worker| following(worker, 100, 101));
    s7_no_arguments_where_some_were_announced: passed(|worker| following(worker, Limits::CALL, 0));
    s12_arguments_beyond_their_limit: passed(|worker| {
        worker.ask(1, Verb::Call, &spec("echo", b"", Limits::CALL + 1));
        worker.link.refused(1, &FailureKind::TooLarge);
        worker.ask(2, Verb::Call, &spec("echo", b"", u64::MAX));
        worker.link.refused(2, &FailureKind::TooLarge);
    });
    s12_announced_arguments_of_many_calls: passed(|worker| {
        for number in 1..=5 {
            worker.ask(number, Verb::Call, &spec("echo", b"", Limits::CALL));
        }
        worker.link.refused(5, &FailureKind::Busy);
        // What they hold is free again with them.
        for number in 1..=4 {
            worker.of(FrameKind::Cancel, number, Bytes::new());
        }
        worker.ask(6, Verb::Call, &spec("echo", b"", Limits::CALL));
        worker.of(FrameKind::End, 6, end(0));
        worker.link.refused(6, &FailureKind::Malformed);
    });
    s12_more_calls_than_it_takes: passed(crowded);
    s12_calls_that_wait_and_are_given_up_leave_nothing: given_up(Above::worker());
    s14_a_value_that_nobody_takes_waits_and_holds_up_nobody: passed(|worker| {
        for number in 1..=8 {
            worker.ask(number, Verb::Call, &spec("large", b"", 0));
        }
        let until = Instant::now() + PATIENCE;
        bounded::eventually(Duration::from_millis(300), || false);
        assert!(worker.link.is_alive() && Instant::now() < until);
        for number in 1..=8 {
            worker.of(FrameKind::Cancel, number, Bytes::new());
        }
    });
    s14_more_arguments_than_it_granted: cut("more data than was granted", |worker| {
        worker.ask(1, Verb::Call, &spec("echo", b"", Limits::CALL));
        for _ in 0..10 {
            worker.of(FrameKind::Data, 1, vec![0; 60_000]);
        }
    });
    s14_arguments_on_the_channel_of_the_value: cut("a channel that the exchange does not have", |worker| {
        worker.ask(1, Verb::Call, &spec("echo", b"", 100));
        worker.of(FrameKind::Data, 1, vec![1, 1]);
    });
    s4_two_calls_of_one_name: cut("a request by the name of one that runs", |worker| {
        worker.ask(1, Verb::Call, &spec("never", b"", 0));
        worker.ask(1, Verb::Call, &spec("never", b"", 0));
    });
    r7_a_link_that_ends_while_functions_run_that_never_return: {
        let mut worker = Above::worker();
        for number in 1..=2 * AT_ONCE {
            worker.ask(number, Verb::Call, &spec("never", b"", 0));
        }
        assert!(worker.link.is_alive());
        worker.finish(0, "");
    };
}
