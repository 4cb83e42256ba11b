//! Properties of the protocol: everything comes back, every split is waited for, nothing panics, nothing has two
//! encodings, and no input makes a decoder allocate more than S7 allows.

mod counting;
mod values;

use bytes::Bytes;
use counting::{allowed, peak_of};
use offshoot_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use values::*;

/// The value comes back; no shorter input is it; one byte more is noticed.
fn comes_back<T: Serialize + Decode + PartialEq + std::fmt::Debug>(value: &T) -> Result<(), TestCaseError> {
    let bytes = encode(value);
    let back = decode::<T>(&bytes);
    prop_assert_eq!(back.as_ref(), Ok(value));
    for cut in 0..bytes.len() {
        prop_assert!(decode::<T>(&bytes[..cut]).is_err(), "cut at {}", cut);
    }
    let longer = [&bytes[..], &[0]].concat();
    prop_assert!(decode::<T>(&longer).is_err());
    Ok(())
}

/// S7: whatever the bytes are, decoding them takes no more memory than is allowed.
fn is_bounded<T: Decode>(bytes: &[u8]) -> Result<(), TestCaseError> {
    let peak = peak_of(|| decode::<T>(bytes));
    prop_assert!(peak <= allowed(bytes.len()), "{}: {} bytes for {}", std::any::type_name::<T>(), peak, bytes.len());
    Ok(())
}

fn all_are_bounded(bytes: &[u8]) -> Result<(), TestCaseError> {
    is_bounded::<RequestHead>(bytes)?;
    is_bounded::<CommandSpec>(bytes)?;
    is_bounded::<ConnectSpec>(bytes)?;
    is_bounded::<ConnectReply>(bytes)?;
    is_bounded::<NodeInfo>(bytes)?;
    is_bounded::<Failure>(bytes)?;
    is_bounded::<ChannelEnd>(bytes)?;
    is_bounded::<Gone>(bytes)?;
    is_bounded::<Bye>(bytes)?;
    is_bounded::<ParentHello>(bytes)?;
    is_bounded::<CallSpec>(bytes)?;
    is_bounded::<CallReply>(bytes)?;
    let peak = peak_of(|| carried(bytes).map(|(list, _)| list));
    prop_assert!(peak <= allowed(bytes.len()), "what a call carries: {} bytes for {}", peak, bytes.len());
    is_bounded::<Carried>(bytes)?;
    is_bounded::<StreamSpec>(bytes)?;
    is_bounded::<PayloadSpec>(bytes)?;
    is_bounded::<ImageSpec>(bytes)?;
    is_bounded::<ContentRef>(bytes)
}

/// Bytes that look like lists: lengths that lie, short elements, runs of one byte.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 0usize..1500).prop_map(|(byte, length)| vec![byte; length]);
    let lie = any::<u64>().prop_map(|length| encode(&length));
    let piece = prop_oneof![2 => vec(any::<u8>(), 0..40), 1 => run, 2 => lie];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn failures_come_back(value in failure()) {
        comes_back(&value)?;
    }

    #[test]
    fn request_heads_come_back(verb: u16, window: u32, grant in prop::option::weighted(0.3, grant())) {
        let head = RequestHead { verb, window, grant };
        comes_back(&head)?;
        prop_assert_eq!(RequestHead::peek(&encode(&head)), Ok((verb, window, head.grant.is_some())));
    }

    #[test]
    fn commands_come_back(value in command()) {
        comes_back(&value)?;
    }

    #[test]
    fn connects_come_back(recipe in recipe(), name in prop::option::of(text()), process_name in text(), answers: bool) {
        comes_back(&ConnectSpec { recipe, name, process_name, answers })?;
    }

    #[test]
    fn questions_and_answers_come_back(
        asks in asks(), account in text(), text in text(), shown: bool, secret in prop::option::of(vec(any::<u8>(), 0..1024))
    ) {
        comes_back(&Question { asks, account, text, shown })?;
        let bytes = Answer { secret: secret.clone().map(Secret::new) }.encode();
        let answer: Answer = decode(bytes.as_ref()).expect("decodes");
        prop_assert_eq!(answer.secret.map(|secret| secret.bytes().to_vec()), secret);
    }

    #[test]
    fn accounts_of_a_node_come_back(value in node_info()) {
        comes_back(&value)?;
    }

    #[test]
    fn small_messages_come_back(
        channel: u8, total: u64, word in text(), reason in lost(), prefix in address(), numbers: (u32, u32, i32),
        sha256: [u8; 32], flag: bool
    ) {
        comes_back(&Credit { channel, total })?;
        comes_back(&ChannelEnd { channel, total, reason: EndReason::Failed(word.clone()) })?;
        comes_back(&ChannelEnd { channel, total, reason: EndReason::Done })?;
        comes_back(&Ping { seq: total })?;
        comes_back(&Ack { bulk: total })?;
        comes_back(&Gone { prefix, reason: reason.clone() })?;
        comes_back(&Bye { reason })?;
        comes_back(&ShutdownNotice { grace_ms: numbers.0, kill_ms: numbers.1 })?;
        comes_back(&ExecControl::Signal(numbers.2))?;
        comes_back(&ExecControl::Resize(TerminalSize { rows: numbers.1 as u16, columns: numbers.2 as u16 }))?;
        comes_back(&ExecControl::Kill)?;
        comes_back(&ExecReply { exit: ProcessExit::Signalled(numbers.2), timed_out: !flag })?;
        comes_back(&ExecReply { exit: ProcessExit::Exited(numbers.2), timed_out: flag })?;
        comes_back(&PayloadSpec { triple: word, program: flag.then_some(sha256) })?;
        comes_back(&ImageSpec { hash: sha256, keep: flag })?;
        comes_back(&ContentRef { hash: sha256, length: total, packing: Packing::Stored })?;
    }

    #[test]
    fn hellos_come_back_and_are_waited_for_at_every_split(
        hello in child_hello(), address in address(), key: [u8; 32], tree_ms: u64
    ) {
        let mut bytes = Vec::new();
        hello.put(&mut bytes);
        for cut in 0..bytes.len() {
            prop_assert_eq!(parse_hello::<ChildHello>(&bytes[..cut]), Ok(None));
        }
        let parsed = parse_hello::<ChildHello>(&bytes).expect("well formed").expect("whole");
        prop_assert_eq!((&parsed.hello, parsed.length), (&hello, bytes.len()));
        if address.depth() > 0 {
            let parent = ParentHello {
                nonce: hello.nonce, tree: hello.nonce, address, key, tree_ms, frame: hello.frame, heartbeat_ms: 5000,
                silence_ms: 15000, name: hello.host.clone(), path: hello.user.clone(), process_name: String::new(), log: 5,
            };
            let mut bytes = Vec::new();
            parent.put(&mut bytes);
            let parsed = parse_hello::<ParentHello>(&bytes).expect("well formed").expect("whole");
            prop_assert!(parsed.hello == parent);
        }
    }

    #[test]
    fn frames_come_back_and_are_waited_for_at_every_split(frames in vec(frame(), 1..4)) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let limits = Limits::default();
        let mut at = 0;
        for frame in &frames {
            let length = parse_frame(&bytes[at..], &limits).expect("well formed").expect("whole").length;
            for cut in 0..length {
                prop_assert_eq!(parse_frame(&bytes[at..at + cut], &limits), Ok(None));
            }
            let parsed = parse_frame(&bytes[at..at + length], &limits).expect("well formed").expect("whole");
            prop_assert_eq!(&parsed.header, &frame.header);
            prop_assert_eq!(&bytes[at..at + length][parsed.body], &frame.body[..]);
            at += length;
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn a_frame_has_one_encoding(mut bytes in vec(any::<u8>(), 2..60), kind in prop::sample::select(FrameKind::ALL.to_vec()), flags in 0u8..4) {
        // Random bytes seldom are a frame: these have an honest length, kind and flags.
        (bytes[0], bytes[1]) = (kind as u8, flags);
        let frame = [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
        if let Ok(Some(parsed)) = parse_frame(&frame, &Limits::default()) {
            let mut again = Vec::new();
            Frame { header: parsed.header, body: Bytes::copy_from_slice(&frame[parsed.body]) }.encode(&mut again);
            prop_assert_eq!(again, frame);
        }
    }

    #[test]
    fn s7_garbage_never_panics_and_never_takes_more_memory_than_allowed(bytes in garbage()) {
        all_are_bounded(&bytes)?;
        let peak = peak_of(|| (parse_frame(&bytes, &Limits::default()), parse_hello::<ChildHello>(&bytes)));
        prop_assert!(peak <= allowed(bytes.len()));
        let _ = (RequestHead::peek(&bytes), parse_chunk(&bytes));
    }

    #[test]
    fn s7_honest_messages_with_one_wrong_byte_are_bounded(command in command(), info in node_info(), at: prop::sample::Index, byte: u8) {
        for mut bytes in [encode(&command), encode(&info)] {
            *at.get_mut(&mut bytes) = byte;
            all_are_bounded(&bytes)?;
        }
    }

    #[test]
    fn s7_users_types_are_decoded_alike_by_both_readers(
        pairs in vec((any::<u8>(), prop::option::of(text())), 0..4), lists in vec(vec(any::<i64>(), 0..4), 0..4),
        rest: (f64, bool, char)
    ) {
        type Value = (Vec<(u8, Option<String>)>, Vec<Vec<i64>>, (f64, bool, char));
        let bytes = encode(&(pairs, lists, rest));
        // NaN equals nothing, so encodings are compared.
        let ours: Value = decode_untrusted(&bytes).expect("comes back");
        prop_assert_eq!(encode(&ours), &bytes[..]);
        for cut in 0..bytes.len() {
            prop_assert!(decode_untrusted::<Value>(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn s7_users_types_take_no_more_than_their_elements(bytes in garbage()) {
        // What a list takes while it grows: the old and the new one, each at most twice as long as needed.
        let growing = |element: usize| 4 * element * bytes.len() + 64 * 1024;
        prop_assert!(peak_of(|| decode_untrusted::<Vec<u8>>(&bytes)) <= growing(1));
        prop_assert!(peak_of(|| decode_untrusted::<Vec<u64>>(&bytes)) <= growing(8));
        prop_assert!(peak_of(|| decode_untrusted::<Vec<String>>(&bytes)) <= growing(25));
        prop_assert!(peak_of(|| decode_untrusted::<Vec<Vec<Vec<()>>>>(&bytes)) <= growing(48));
        prop_assert!(peak_of(|| decode_untrusted::<std::collections::BTreeMap<u16, String>>(&bytes)) <= growing(64));
        let _ = decode_untrusted::<Failure>(&bytes);
    }
}

#[test]
fn s7_the_worst_lists_are_refused_before_they_are_reserved() {
    let with_list = |count: u64, element: &[u8], times: usize| {
        // A command up to its arguments, then a list that claims `count` elements and has `times`.
        [&[0][..], &encode(&count), &element.repeat(times)].concat()
    };
    for bytes in [
        with_list(u64::MAX, b"", 0),
        with_list(1 << 40, &[0], 60_000),
        with_list(60_000, &[0], 60_000),
        [&[0, 0][..], &encode(&60_000u64), &[2; 60_000]].concat(),
    ] {
        let peak = peak_of(|| assert!(decode::<CommandSpec>(&bytes).is_err()));
        assert!(peak <= allowed(bytes.len()), "{peak} bytes for {}", bytes.len());
    }
}

#[test]
fn an_ordinary_long_command_line_fits() {
    // As many arguments of a file name's length as a frame holds, and a few thousand numbers.
    let spec = |args: Vec<Vec<u8>>| CommandSpec {
        program: b"rm".to_vec(),
        args,
        env: vec![],
        cwd: None,
        stdin: false,
        stdout: true,
        stderr: StderrMode::Apart,
        timeout_ms: 0,
        grace_ms: 0,
        nice: 0,
        terminal: None,
    };
    let files = spec((0..5_000).map(|n| format!("file-{n:06}").into_bytes()).collect());
    let numbers = spec((0..6_000).map(|n| n.to_string().into_bytes()).collect());
    for command in [files, numbers] {
        let bytes = encode(&command);
        assert!(bytes.len() < Limits::FRAME as usize);
        assert!(decode::<CommandSpec>(&bytes).as_ref() == Ok(&command), "{} arguments", command.args.len());
        let peak = peak_of(|| decode::<CommandSpec>(&bytes));
        assert!(peak <= allowed(bytes.len()), "{peak} bytes for {}", bytes.len());
    }
}

#[test]
fn lists_and_names_beyond_their_limits_are_refused() {
    let link = GrantLink { holder: Address::ROOT, verbs: VerbSet::NONE, handle: None, expires_ms: 0 };
    let grant = |links| Grant { target: Address::ROOT, number: 0, links: vec![link.clone(); links], seal: [0; 32] };
    assert!(decode::<Grant>(&encode(&grant(Limits::GRANT_LINKS))).is_ok());
    assert!(decode::<Grant>(&encode(&grant(Limits::GRANT_LINKS + 1))).is_err());

    let recipe = |words: usize, name: usize| {
        let start = Start::Shell { argv: vec!["x".into(); words], env: vec![] };
        Recipe::new("m".repeat(name), "", start)
    };
    assert!(decode::<Recipe>(&encode(&recipe(Limits::RECIPE_LIST, Limits::NAME))).is_ok());
    assert!(decode::<Recipe>(&encode(&recipe(Limits::RECIPE_LIST + 1, 1))).is_err());
    assert!(decode::<Recipe>(&encode(&recipe(1, Limits::NAME + 1))).is_err());

    let failure = |message: usize, seen: usize| {
        let mut failure = Failure::new(FailureKind::Busy, "");
        (failure.message, failure.seen) = ("x".repeat(message), vec![0; seen]);
        failure
    };
    assert!(decode::<Failure>(&encode(&failure(Limits::MESSAGE, Limits::SEEN))).is_ok());
    assert!(decode::<Failure>(&encode(&failure(Limits::MESSAGE + 1, 0))).is_err());
    assert!(decode::<Failure>(&encode(&failure(0, Limits::SEEN + 1))).is_err());
    let staged = |stages| {
        let mut failure = failure(1, 1);
        failure.stages = vec![(ConnectStage::Login, 7); stages];
        encode(&failure)
    };
    assert!(decode::<Failure>(&staged(16)).is_ok() && decode_untrusted::<Failure>(&staged(16)).is_ok());
    assert!(decode::<Failure>(&staged(17)).is_err() && decode_untrusted::<Failure>(&staged(17)).is_err());

    let hello = |host: usize| ChildHello {
        nonce: [0; 16],
        frame: Limits::FRAME,
        triple: String::new(),
        version: String::new(),
        host: "h".repeat(host),
        user: String::new(),
        uid: 0,
        pid: 0,
    };
    let reply = |name: usize, host| ConnectReply {
        address: Address::ROOT,
        name: "n".repeat(name),
        hello: hello(host),
        stages: vec![],
    };
    let staged = |stages| ConnectReply { stages: vec![(ConnectStage::Login, 7); stages], ..reply(1, 1) };
    assert!(decode::<ConnectReply>(&encode(&staged(16))).is_ok());
    assert!(decode::<ConnectReply>(&encode(&staged(17))).is_err());
    assert!(decode::<ConnectReply>(&encode(&reply(Limits::NAME, Limits::NAME))).is_ok());
    assert!(decode::<ConnectReply>(&encode(&reply(Limits::NAME + 1, 1))).is_err());
    assert!(decode::<ConnectReply>(&encode(&reply(1, Limits::NAME + 1))).is_err());
}

#[test]
fn as_many_ends_as_a_call_may_carry_are_read_back_however_short_they_are() {
    let end = Carried::End { home: Address::ROOT, handle: 1, reads: false, grant: None };
    let bytes = encode(&vec![end; Limits::ENDS]);
    let (list, rest) = carried(&bytes).expect("they fit");
    assert_eq!((list.len(), rest), (Limits::ENDS, &[][..]));
}
