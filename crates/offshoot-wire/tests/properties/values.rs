//! Arbitrary values of the protocol.

use bytes::Bytes;
use offshoot_wire::*;
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        12 => vec(any::<u32>(), 0..3),
        1 => vec(0u32..300, 0..=Limits::DEPTH),
    ]
    .prop_map(|path| Address::from_path(&path).expect("not too deep"))
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    "[a-z\u{e9}\u{4e2d} ]{0,6}"
}

pub(crate) fn octets() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..10)
}

pub(crate) fn stage() -> impl Strategy<Value = ConnectStage> {
    use ConnectStage::*;
    prop::sample::select(vec![Queue, Start, Login, Probe, Payload, Agent, Hello])
}

pub(crate) fn auth() -> impl Strategy<Value = AuthFailure> {
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

pub(crate) fn host_key() -> impl Strategy<Value = HostKeyFailure> {
    prop::sample::select(vec![HostKeyFailure::Unknown, HostKeyFailure::Changed])
}

pub(crate) fn lost() -> impl Strategy<Value = LostReason> {
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

pub(crate) fn failure_kind() -> impl Strategy<Value = FailureKind> {
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

pub(crate) fn failure() -> impl Strategy<Value = Failure> {
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

pub(crate) fn grant() -> impl Strategy<Value = Grant> {
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

pub(crate) fn child_hello() -> impl Strategy<Value = ChildHello> {
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

pub(crate) fn command() -> impl Strategy<Value = CommandSpec> {
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

pub(crate) fn recipe() -> impl Strategy<Value = Recipe> {
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

pub(crate) fn asks() -> impl Strategy<Value = Asks> {
    prop_oneof![Just(Asks::Password), Just(Asks::Passphrase), Just(Asks::HostKey), Just(Asks::Other)]
}

pub(crate) fn connect_reply() -> impl Strategy<Value = ConnectReply> {
    let stages = vec((prop::sample::select(vec![ConnectStage::Queue, ConnectStage::Hello]), any::<u32>()), 0..=16);
    (address(), text(), child_hello(), stages).prop_map(|(address, name, hello, stages)| ConnectReply {
        address,
        name,
        hello,
        stages,
    })
}

pub(crate) fn content_ref() -> impl Strategy<Value = ContentRef> {
    let packing = prop_oneof![
        Just(Packing::Stored),
        any::<(u8, u8, u64)>().prop_map(|(properties, filter, length)| Packing::Lzma { properties, filter, length }),
    ];
    (any::<[u8; 32]>(), any::<u64>(), packing).prop_map(|(hash, length, packing)| ContentRef { hash, length, packing })
}

pub(crate) fn content_stats() -> impl Strategy<Value = ContentStats> {
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

pub(crate) fn node_info() -> impl Strategy<Value = NodeInfo> {
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

pub(crate) fn frame() -> impl Strategy<Value = Frame> {
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
