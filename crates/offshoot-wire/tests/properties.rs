//! Properties of the protocol: everything comes back, every split is waited for, nothing panics, nothing has two
//! encodings, and no input makes a decoder allocate more than S7 allows.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use offshoot_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;

/// Counts what each thread has allocated and not freed, and the most of it.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn count(grown: usize, shrunk: usize) {
    // A thread that ends frees its own storage last: then nothing is counted any more.
    let _ = LIVE.try_with(|live| {
        live.set((live.get() + grown).saturating_sub(shrunk));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist while it is moved.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `run` held at a time, beyond what was there before.
fn peak_of<T>(run: impl FnOnce() -> T) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    drop(run());
    PEAK.get() - before
}

/// S7 for our own messages.
fn allowed(input: usize) -> usize {
    4 * input + 64 * 1024
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        12 => vec(any::<u32>(), 0..3),
        1 => vec(0u32..300, 0..=Limits::DEPTH),
    ]
    .prop_map(|path| Address::from_path(&path).expect("not too deep"))
}

fn text() -> impl Strategy<Value = String> {
    "[a-z\u{e9}\u{4e2d} ]{0,6}"
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..10)
}

fn stage() -> impl Strategy<Value = ConnectStage> {
    use ConnectStage::*;
    prop::sample::select(vec![Queue, Start, Login, Probe, Payload, Agent, Hello])
}

fn auth() -> impl Strategy<Value = AuthFailure> {
    use AuthFailure::*;
    prop::sample::select(vec![
        PasswordRequired,
        PasswordIncorrect,
        Rejected,
        PromptTimeout,
        TtyRequired,
        NotAllowed,
        NoSuchUser,
    ])
}

fn host_key() -> impl Strategy<Value = HostKeyFailure> {
    prop::sample::select(vec![HostKeyFailure::Unknown, HostKeyFailure::Changed])
}

fn lost() -> impl Strategy<Value = LostReason> {
    prop_oneof![
        Just(LostReason::LinkEnd),
        Just(LostReason::Silent),
        any::<i32>().prop_map(LostReason::Exited),
        any::<i32>().prop_map(LostReason::Signalled),
        Just(LostReason::ParentLost),
        Just(LostReason::Shutdown),
        text().prop_map(LostReason::Violation),
    ]
}

fn failure_kind() -> impl Strategy<Value = FailureKind> {
    use offshoot_wire::Resource::*;
    prop_oneof![
        stage().prop_map(FailureKind::Connect),
        stage().prop_map(FailureKind::StageTimeout),
        auth().prop_map(FailureKind::Auth),
        host_key().prop_map(FailureKind::HostKey),
        Just(FailureKind::NoRoute),
        lost().prop_map(FailureKind::PeerLost),
        Just(FailureKind::Timeout),
        Just(FailureKind::Cancelled),
        Just(FailureKind::Denied),
        Just(FailureKind::TooLarge),
        Just(FailureKind::Busy),
        prop::sample::select(vec![Descriptors, Processes, Memory, Disk]).prop_map(FailureKind::Exhausted),
        Just(FailureKind::NoExec),
        text().prop_map(FailureKind::NoAgent),
        text().prop_map(FailureKind::NoImage),
        address().prop_map(FailureKind::Damaged),
        Just(FailureKind::Remote(RemoteFailure::Error)),
        Just(FailureKind::Remote(RemoteFailure::Panic)),
        any::<i32>().prop_map(|signal| FailureKind::Remote(RemoteFailure::Signal(signal))),
        Just(FailureKind::Unsupported),
        Just(FailureKind::Malformed),
        any::<i32>().prop_map(FailureKind::Os),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    let ran = prop::sample::select(vec![Ran::NotSent, Ran::MaybeExecuted, Ran::Executed]);
    let stages = vec((stage(), any::<u32>()), 0..4);
    (failure_kind(), ran, address(), text(), octets(), text(), stages).prop_map(
        |(kind, ran, at, message, seen, hint, stages)| {
            let mut failure = Failure::new(kind, message).ran(ran).at(at).seen(&seen).hint(hint);
            failure.stages = stages;
            failure
        },
    )
}

fn grant() -> impl Strategy<Value = Grant> {
    let verbs = vec(prop::sample::select(Verb::ALL.to_vec()), 0..4).prop_map(|verbs| verbs.into_iter().collect());
    let link = (address(), verbs, any::<Option<u64>>(), any::<u64>())
        .prop_map(|(holder, verbs, handle, expires_ms)| GrantLink { holder, verbs, handle, expires_ms });
    (address(), any::<u64>(), vec(link, 0..4), any::<[u8; 32]>()).prop_map(|(target, number, links, seal)| Grant {
        target,
        number,
        links,
        seal,
    })
}

fn child_hello() -> impl Strategy<Value = ChildHello> {
    let frame = Limits::FRAME_MIN..=Limits::FRAME;
    (any::<[u8; 16]>(), frame, text(), text(), text(), text(), any::<u32>(), any::<u32>()).prop_map(
        |(nonce, frame, triple, version, host, user, uid, pid)| ChildHello {
            nonce,
            frame,
            triple,
            version,
            host,
            user,
            uid,
            pid,
        },
    )
}

fn command() -> impl Strategy<Value = CommandSpec> {
    let change = prop_oneof![
        (octets(), octets()).prop_map(|(name, value)| EnvChange::Set(name, value)),
        octets().prop_map(EnvChange::Remove),
        Just(EnvChange::Clear),
    ];
    let stderr = prop::sample::select(vec![StderrMode::Apart, StderrMode::WithStdout, StderrMode::Null]);
    let texts = (octets(), vec(octets(), 0..6), vec(change, 0..4), prop::option::of(octets()));
    let rest = (any::<bool>(), any::<bool>(), stderr, any::<u64>(), any::<u32>(), any::<i32>());
    let terminal = (any::<u16>(), any::<u16>(), octets())
        .prop_map(|(rows, columns, term)| Terminal::new(TerminalSize { rows, columns }, term));
    (texts, rest, prop::option::of(terminal)).prop_map(
        |((program, args, env, cwd), (stdin, stdout, stderr, timeout_ms, grace_ms, nice), terminal)| CommandSpec {
            program,
            args,
            env,
            cwd,
            stdin,
            stdout,
            stderr,
            timeout_ms,
            grace_ms,
            nice,
            terminal,
        },
    )
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let meaning = prop_oneof![
        auth().prop_map(Meaning::Auth),
        host_key().prop_map(Meaning::HostKey),
        Just(Meaning::Unreachable),
        Just(Meaning::Usage),
    ];
    let hint = (text(), meaning, text()).prop_map(|(text, means, advice)| Hint { text, means, advice });
    let start = prop_oneof![
        Just(Start::Local),
        (any::<[u8; 32]>(), proptest::option::of(content_ref()))
            .prop_map(|(program, image)| Start::Worker { program, image }),
        (vec(text(), 0..6), vec((text(), text()), 0..3)).prop_map(|(argv, env)| Start::Shell { argv, env }),
    ];
    let prompt = (text(), asks()).prop_map(|(text, asks)| Prompt { text, asks });
    let prompts = (vec(prompt, 0..4), any::<bool>(), any::<u32>());
    let prompts = prompts.prop_map(|(known, terminal, answer_ms)| Prompts { known, terminal, answer_ms });
    let times = (any::<u32>(), any::<u32>(), prop::option::of(prompts));
    (text(), text(), start, vec(hint, 0..4), prop::option::of(text()), times).prop_map(
        |(method, target, start, hints, triple, (deadline_ms, stage_ms, prompts))| Recipe {
            method,
            target,
            start,
            hints,
            triple,
            deadline_ms,
            stage_ms,
            prompts,
        },
    )
}

fn asks() -> impl Strategy<Value = Asks> {
    prop_oneof![Just(Asks::Password), Just(Asks::Passphrase), Just(Asks::HostKey), Just(Asks::Other)]
}

fn connect_reply() -> impl Strategy<Value = ConnectReply> {
    let stages = vec((prop::sample::select(vec![ConnectStage::Queue, ConnectStage::Hello]), any::<u32>()), 0..=16);
    (address(), text(), child_hello(), stages).prop_map(|(address, name, hello, stages)| ConnectReply {
        address,
        name,
        hello,
        stages,
    })
}

fn content_ref() -> impl Strategy<Value = ContentRef> {
    let packing = prop_oneof![
        Just(Packing::Stored),
        any::<(u8, u8, u64)>().prop_map(|(properties, filter, length)| Packing::Lzma { properties, filter, length }),
    ];
    (any::<[u8; 32]>(), any::<u64>(), packing).prop_map(|(hash, length, packing)| ContentRef { hash, length, packing })
}

fn content_stats() -> impl Strategy<Value = ContentStats> {
    any::<[u64; 8]>().prop_map(|[asked, bytes_in, requests, hits, joined, refused, bytes_out, kept]| ContentStats {
        asked,
        bytes_in,
        requests,
        hits,
        joined,
        refused,
        bytes_out,
        kept,
    })
}

fn node_info() -> impl Strategy<Value = NodeInfo> {
    let rest = (any::<u32>(), any::<u64>(), any::<u64>(), content_stats());
    (connect_reply(), vec(connect_reply(), 0..4), rest).prop_map(
        |(own, children, (processes, received, sent, contents))| NodeInfo {
            address: own.address,
            name: own.name,
            hello: own.hello,
            children,
            processes,
            link_bytes: (received, sent),
            contents,
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let kind = prop::sample::select(FrameKind::ALL.to_vec());
    let head = (any::<bool>(), any::<bool>(), address(), address(), any::<u64>());
    (kind, head, octets()).prop_map(|(kind, (full, answer, dst, src, exchange), body)| {
        let body = Bytes::from(body);
        if !kind.is_routed() {
            return Frame::link(kind, body);
        }
        let mut frame = Frame::routed(kind, dst, src, exchange).with_body(body);
        frame.header.full = full;
        if matches!(kind, FrameKind::Data | FrameKind::End | FrameKind::Credit | FrameKind::Stop) {
            frame.header.answer = answer;
        }
        frame
    })
}

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
