//! A real agent between the test and the test: the test is its parent and its child, and sees what it passes.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use offshoot_wire::{
    Address, ConnectReply, ConnectSpec, Failure, FailureKind, Frame, FrameHeader, FrameKind, Gone, Grant, GrantLink,
    ImageSpec, LogRecord, LostReason, Recipe, Start, Verb, decode, encode,
};

use crate::above::Above;
use crate::case::{answer, request};
use crate::link::{Came, Link};
use crate::stage::{alone, child_hello};

/// A hostile child of the agent, and the agent's parent.
struct Between {
    above: Above,
    below: Link,
    me: Address,
}

impl Between {
    fn new() -> Between {
        let mut above = Above::new();
        let (below, me) = child(&mut above, 1);
        Between { above, below, me }
    }

    /// What the parent is sent until all that the child said is handled.
    fn passed_up(&mut self) -> Vec<(FrameHeader, Bytes)> {
        let _cut_off_or_not = self.below.is_alive();
        assert!(self.above.link.is_alive());
        let mut frames = self.above.link.kept().to_vec();
        while let Came::Frame(header, body) = self.above.link.next(Duration::from_millis(100)) {
            frames.push((header, body));
        }
        frames
    }

    fn finish(self) {
        drop(self.below.close());
        let mut above = self.above;
        above.serves();
        above.finish(0, "");
    }
}

fn child(above: &mut Above, number: u64) -> (Link, Address) {
    above.director.evil_is_next();
    let recipe = Recipe::new("local", "", Start::Local);
    let spec = ConnectSpec { recipe, name: None, process_name: above.director.name.clone(), answers: false };
    above.ask(number, Verb::Connect, &encode(&spec));
    let mut below = above.director.link();
    let hello = below.parent_hello();
    below.send_hello(&child_hello(hello.nonce));
    let (_, body) = above.link.await_frame("a new context", |header| header.kind == FrameKind::Reply);
    let reply: ConnectReply = decode(&body).expect("a reply");
    assert_eq!(reply.address, hello.address);
    (below, hello.address)
}

macro_rules! between {
    ($($name:ident: $act:expr;)*) => {
        $(#[test]
        fn $name() {
            alone(|| {
                let mut between = Between::new();
                let act: fn(&mut Between) = $act;
                act(&mut between);
                between.finish();
            });
        })*
    };
}

between! {
    s1_the_mark_is_taken_away_on_the_way_up: |between| {
        let link = GrantLink {
            holder: between.me.clone(),
            verbs: Verb::ALL.into_iter().collect(),
            handle: None,
            expires_ms: u64::MAX,
        };
        let grant = Grant { target: Address::ROOT, number: 1, links: vec![link], seal: [0; 32] };
        between.below.send(&request(&between.me, &Address::ROOT, 1, 3, true, Some(grant), b"body"));
        let (header, _) = between.above.link.request();
        assert_eq!((header.src, header.full), (between.me.clone(), false));
        // And an answer finds its way.
        let denied = encode(&Failure::new(FailureKind::Denied, "no"));
        between.above.link.send(&answer(FrameKind::Failure, &Address::ROOT, &between.me, 1, denied));
        between.below.refused(1, &FailureKind::Denied);
    };
    s3_a_request_without_a_grant_does_not_pass: |between| {
        for (number, dst) in [vec![], vec![1], vec![1, 2]].into_iter().enumerate() {
            let dst = Address::from_path(&dst).expect("not deep");
            for verb in [1, 2, 3, 4, 7] {
                let number = number as u64 * 100 + verb;
                between.below.send(&request(&between.me, &dst, number, verb as u16, true, None, b"body"));
                between.below.refused(number, &FailureKind::Denied);
            }
        }
        assert_eq!(between.passed_up(), []);
    };
    s4_what_belongs_to_no_exchange_does_not_pass: |between| {
        let kinds = [FrameKind::Reply, FrameKind::Failure, FrameKind::Data, FrameKind::End, FrameKind::Credit, FrameKind::Stop];
        for number in 0..50 {
            for kind in kinds {
                let body = encode(&Failure::new(FailureKind::Denied, "forged"));
                between.below.send(&answer(kind, &between.me, &Address::ROOT, number, body));
            }
            between.below.send(&Frame::routed(FrameKind::Cancel, Address::ROOT, between.me.clone(), number));
        }
        assert_eq!(between.passed_up(), []);
    };
    s4_an_answer_for_a_call_to_the_sibling_does_not_pass: |between| {
        let (mut sibling, address) = child(&mut between.above, 2);
        between.above.link.send(&request(&Address::ROOT, &address, 77, 1, true, None, b"q"));
        assert_eq!(sibling.request().0.exchange, 77);
        for src in [between.me.clone(), between.me.child(0).expect("not deep")] {
            between.below.send(&answer(FrameKind::Reply, &src, &Address::ROOT, 77, &b"forged"[..]));
        }
        assert_eq!(between.passed_up(), []);
        sibling.send(&answer(FrameKind::Reply, &address, &Address::ROOT, 77, &b"genuine"[..]));
        let (header, body) = between.above.link.await_frame("the answer", |header| header.exchange == 77);
        assert_eq!((header.src, &body[..]), (address, &b"genuine"[..]));
        drop(sibling.close());
    };
    s4_of_two_answers_one_passes: |between| {
        between.above.link.send(&request(&Address::ROOT, &between.me, 77, 1, true, None, b"q"));
        between.below.request();
        for text in [&b"first"[..], b"second", b"third"] {
            between.below.send(&answer(FrameKind::Reply, &between.me, &Address::ROOT, 77, text));
        }
        let passed = between.passed_up();
        assert_eq!(passed.len(), 1, "{passed:?}");
        assert_eq!(&passed[0].1[..], b"first");
    };
    r3_a_liar_is_cut_off_and_its_loss_told_once: |between| {
        between.below.send(&answer(FrameKind::Reply, &Address::ROOT, &Address::ROOT, 1, &b"forged"[..]));
        let reason = between.below.end();
        assert!(matches!(reason, Some(LostReason::Violation(_))), "{reason:?}");
        let passed = between.passed_up();
        assert_eq!(passed.len(), 1, "{passed:?}");
        assert_eq!(passed[0].0.kind, FrameKind::Gone);
        let gone: Gone = decode(&passed[0].1).expect("a notice");
        assert_eq!((gone.prefix, Some(gone.reason)), (between.me.clone(), reason));
    };
    s14_data_beyond_the_credit_does_not_pass: |between| {
        between.above.link.send(&request(&Address::ROOT, &between.me, 77, 3, true, None, b"q"));
        between.below.request();
        // The request gave 16 KiB.
        for _ in 0..3 {
            let body = [vec![1], vec![7; 8000]].concat();
            between.below.send(&answer(FrameKind::Data, &between.me, &Address::ROOT, 77, body));
        }
        let reason = between.below.end();
        assert_eq!(reason, Some(LostReason::Violation("more data than was granted".into())));
        let bytes: usize = between
            .passed_up()
            .iter()
            .filter(|(header, _)| header.kind == FrameKind::Data)
            .map(|(_, body)| body.len() - 1)
            .sum();
        assert!(bytes <= 16 * 1024, "{bytes} bytes passed");
    };
    s11_a_content_that_nobody_registered_is_refused_to_who_asked_through_an_agent: |between| {
        let body = encode(&ImageSpec { hash: [7; 32], keep: false });
        let agent = between.above.agent.clone();
        for number in 1..=3 {
            between.below.send(&request(&between.me, &agent, number, Verb::Image.number(), false, None, &body));
        }
        // It is asked for once, however many want it.
        let (header, _) = between.above.link.request();
        let denied = encode(&Failure::new(FailureKind::Denied, "not registered"));
        between.above.link.send(&answer(FrameKind::Failure, &Address::ROOT, &agent, header.exchange, denied));
        for number in 1..=3 {
            between.below.refused(number, &FailureKind::Denied);
        }
        assert_eq!(between.passed_up(), []);
    };
    s8_a_log_record_comes_with_the_address_that_the_path_says: |between| {
        let below = between.me.child(3).expect("not deep");
        let frame = Frame::routed(FrameKind::Log, Address::ROOT, below.clone(), 0);
        let (module, thread, text) = ("/1".into(), "\x1b[2J".into(), "from /1\nand more".into());
        let body: Bytes = encode(&LogRecord { seq: 1, level: 3, unix_us: 0, module, thread, text }).into();
        between.below.send(&frame.with_body(body.clone()));
        let passed = between.passed_up();
        assert_eq!(passed.len(), 1, "{passed:?}");
        assert_eq!((passed[0].0.kind, &passed[0].0.src, &passed[0].1), (FrameKind::Log, &below, &body));
    };
    s13_records_are_made_down_to_the_level_that_the_parent_says: |between| {
        let (mut children, mut wanted) = (Vec::new(), Duration::ZERO);
        // Nothing at all until it is told to. Who connects says so in a debug record.
        for (number, level) in [(2, None), (3, Some(1)), (4, Some(3)), (5, Some(4))] {
            if let Some(level) = level {
                wanted = UNIX_EPOCH.elapsed().expect("later");
                between.above.link.send(&Frame::link(FrameKind::LogLevel, Bytes::copy_from_slice(&[level])));
            }
            children.push(child(&mut between.above, number));
        }
        let (header, body) = between.above.link.await_frame("a record", |header| header.kind == FrameKind::Log);
        let record: LogRecord = decode(&body).expect("a record");
        // They are counted where they are made: this is the first, and was not made before it was wanted.
        assert_eq!((&header.src, record.seq, record.level), (&between.above.agent, 1, 4), "{record:?}");
        assert!(u128::from(record.unix_us) >= wanted.as_micros(), "{record:?}");
        drop(children);
    };
    s13_log_records_pass_at_their_rate: |between| {
        let frame = Frame::routed(FrameKind::Log, Address::ROOT, between.me.clone(), 0);
        let bytes = crate::link::bytes_of(&frame.with_body(Bytes::from(vec![b'x'; 1000])));
        for _ in 0..20 {
            between.below.raw(&bytes.repeat(1000));
        }
        let passed: usize = between.passed_up().iter().map(|(_, body)| body.len()).sum();
        // 20 MB were sent; 1 MiB passes at once, and 1 MiB each second.
        assert!(passed <= 6 << 20, "{passed} bytes of log passed");
    };
    s12_a_log_record_longer_than_any_does_not_pass: |between| {
        let frame = Frame::routed(FrameKind::Log, Address::ROOT, between.me.clone(), 0);
        between.below.send(&frame.with_body(Bytes::from(vec![b'x'; 16 * 1024 + 1])));
        assert_eq!(between.passed_up(), []);
    };
    r3_what_is_asked_of_a_child_that_was_cut_off_ends_at_once: |between| {
        between.below.send(&Frame::link(FrameKind::Detaching, Bytes::new()));
        between.below.end();
        between.above.link.send(&request(&Address::ROOT, &between.me, 78, 1, true, None, b"q"));
        between.above.link.refused(78, &FailureKind::NoRoute);
    };
}
