//! Properties over generated input: any bytes on a link, any order of operations on a stream.

// Each test file uses its part of the lab.
#[allow(dead_code)]
mod lab;

use bytes::{Bytes, BytesMut};
use lab::Lab;
use offshoot_route::Event;
use offshoot_wire::{Address, EndReason, Frame, FrameKind, Limits, RequestHead, Verb, channel, encode};
use proptest::prelude::*;

/// A frame that is well formed, with anything in it.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let address = || {
        prop_oneof![
            3 => Just(vec![]),
            3 => Just(vec![0]),
            3 => Just(vec![0, 1]),
            2 => Just(vec![1]),
            1 => prop::collection::vec(0..4u32, 0..5),
            1 => prop::collection::vec(any::<u32>(), 60..65),
        ]
        .prop_map(|path| Address::from_path(&path).expect("at most 64 hops"))
    };
    let number = prop_oneof![0..4u64, (0..4u64).prop_map(|serial| (serial + 1) << 20 | serial), any::<u64>()];
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        (0..13u16, 0..200_000u32).prop_map(|(verb, window)| encode(&RequestHead { verb, window, grant: None })),
        (0..9u8, 0..70_000usize).prop_map(|(channel, len)| vec![channel; len + 1]),
    ];
    (0..FrameKind::ALL.len(), any::<bool>(), any::<bool>(), address(), address(), number, body).prop_map(
        |(kind, full, answer, dst, src, number, body)| {
            let kind = FrameKind::ALL[kind];
            let mut frame = Frame::routed(kind, dst, src, number).with_body(body.into());
            if kind.is_routed() {
                frame.header.full = full;
                frame.header.answer |= answer;
            }
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            bytes
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Read(usize),
    Carry(usize),
    Back(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..200_000usize).prop_map(Step::Send),
        (0..200_000usize).prop_map(Step::Read),
        (1..200_000usize).prop_map(Step::Carry),
        (1..1000usize).prop_map(Step::Back),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// S1, S4, S12: whatever a child sends, cut anywhere, nothing panics, nothing runs that may not, no honest exchange ends,
    /// and nothing is left when the child is gone.
    #[test]
    fn any_frames_from_a_child_disturb_nothing(
        sent in prop::collection::vec(any_frame(), 1..12),
        flip in prop::option::of((any::<prop::sample::Index>(), 0..8u32)),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut lab = Lab::new();
        let relay = lab.add(0);
        let honest = lab.add(relay);
        let evil = lab.evil(relay);
        let call = lab.ask(0, honest, Verb::Exec, None).expect("room");
        lab.settle();
        let id = lab.requests(honest)[0];
        let mut bytes = sent.concat();
        if let Some((at, bit)) = flip {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut buffer, now) = (BytesMut::new(), lab.now);
        for ends in cuts.windows(2) {
            buffer.extend_from_slice(&bytes[ends[0]..ends[1]]);
            lab.nodes[relay].handle_bytes(evil.link, &mut buffer, now);
            lab.settle();
        }
        for node in [0, honest] {
            for event in lab.take(node) {
                prop_assert!(!matches!(event, Event::Request { .. } | Event::CloseLink { .. } | Event::Done { .. }), "{event:?}");
            }
        }
        lab.nodes[honest].reply(id, Bytes::from_static(b"fine"), now);
        lab.settle();
        prop_assert_eq!(lab.done(0), [(call, Ok(Bytes::from_static(b"fine")))]);
        lab.nodes[relay].link_down(evil.link, offshoot_wire::LostReason::LinkEnd, now);
        lab.assert_empty();
    }

    /// S14 and the windows: in any order of writing, carrying and reading, what was sent and not read stays within what was
    /// granted, nothing is lost, and in the end all arrives.
    #[test]
    fn a_stream_keeps_its_window_in_any_order(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut lab = Lab::new();
        let relay = lab.add(0);
        let leaf = lab.add(relay);
        lab.ask(0, leaf, Verb::Exec, None).expect("room");
        lab.settle();
        let (id, now) = (lab.requests(leaf)[0], lab.now);
        let (mut sent, mut came, mut read) = (0usize, 0usize, 0usize);
        let mut reader = None;
        let mut ended = false;
        let mut look = |lab: &mut Lab, came: &mut usize, ended: &mut bool| {
            for event in lab.take(0) {
                match event {
                    Event::Data { id, data, .. } => {
                        for (at, byte) in data.iter().enumerate() {
                            assert_eq!(*byte, (*came + at) as u8, "out of order");
                        }
                        *came += data.len();
                        reader = Some(id);
                    }
                    Event::End { .. } => *ended = true,
                    _ => {}
                }
            }
            reader
        };
        for step in steps {
            match step {
                Step::Send(len) => {
                    let data: Vec<u8> = (sent..sent + len).map(|at| at as u8).collect();
                    let room = lab.nodes[leaf].writable(id, channel::STDOUT);
                    let taken = lab.nodes[leaf].send(id, channel::STDOUT, data.into(), now);
                    prop_assert_eq!(taken, room.min(len));
                    sent += taken;
                }
                Step::Carry(budget) => {
                    lab.carry(leaf, relay, budget);
                    lab.carry(relay, 0, budget);
                }
                Step::Back(budget) => {
                    lab.carry(0, relay, budget);
                    lab.carry(relay, leaf, budget);
                }
                Step::Read(most) => {
                    let reader = look(&mut lab, &mut came, &mut ended);
                    let bytes = most.min(came - read);
                    if let Some(reader) = reader {
                        lab.nodes[0].consumed(reader, channel::STDOUT, bytes, now);
                        read += bytes;
                    }
                }
            }
            look(&mut lab, &mut came, &mut ended);
            prop_assert!(came <= sent);
            prop_assert!((sent - read) as u64 <= lab.nodes[0].census().granted.max(Limits::WINDOW_START) + Limits::WINDOW_START);
        }
        lab.nodes[leaf].finish(id, channel::STDOUT, EndReason::Done, now);
        lab.settle();
        look(&mut lab, &mut came, &mut ended);
        prop_assert_eq!(came, sent);
        prop_assert!(ended);
        lab.nodes[leaf].reply(id, Bytes::new(), now);
        lab.settle();
        prop_assert_eq!(lab.nodes[0].census().granted, (came - read) as u64, "what is unread counts");
        if let Some(reader) = reader {
            lab.nodes[0].consumed(reader, channel::STDOUT, came - read, now);
        }
        lab.assert_empty();
    }
}
