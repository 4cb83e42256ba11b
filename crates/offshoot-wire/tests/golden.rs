//! Holds `docs/wire.md` and this crate together: every golden vector of the page is what the crate writes, and the crate
//! reads it back as the value it stands for.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use offshoot_wire::*;
use serde::Serialize;

const PAGE: &str = include_str!("../../../docs/wire.md");

/// The vectors of the page: fenced blocks that begin with ```` ```golden NAME ````, hex up to `;` on each line.
fn vectors() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open: Option<(String, Vec<u8>)> = None;
    for (number, line) in PAGE.lines().enumerate() {
        if let Some(name) = line.strip_prefix("```golden ") {
            assert!(open.is_none(), "line {}: a vector inside a vector", number + 1);
            open = Some((name.trim().to_owned(), Vec::new()));
        } else if line.starts_with("```") {
            if let Some((name, bytes)) = open.take() {
                assert!(found.insert(name.clone(), bytes).is_none(), "{name} is there twice");
            }
        } else if let Some((_, bytes)) = &mut open {
            let hex: String = line.split(';').next().unwrap_or_default().split_whitespace().collect();
            assert!(hex.len().is_multiple_of(2), "line {}: half a byte", number + 1);
            bytes.extend((0..hex.len()).step_by(2).map(|at| {
                u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_else(|_| panic!("line {}: no hex", number + 1))
            }));
        }
    }
    found
}

struct Page {
    vectors: BTreeMap<String, Vec<u8>>,
}

impl Page {
    fn take(&mut self, name: &str, written: &[u8]) {
        let page = self.vectors.remove(name).unwrap_or_else(|| panic!("{name} is not on the page: {}", hex(written)));
        assert_eq!(hex(&page), hex(written), "{name}: the page (left) and the crate (right) differ");
    }

    /// A payload, as it stands in a body.
    fn value<T: Serialize + Decode + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let written = encode(value);
        self.take(name, &written);
        assert_eq!(decode::<T>(&written).as_ref(), Ok(value), "{name} does not come back");
    }

    fn frame(&mut self, name: &str, frame: &Frame) {
        let mut written = Vec::new();
        frame.encode(&mut written);
        self.take(name, &written);
        let parsed = parse_frame(&written, &Limits::default()).expect("well formed").expect("whole");
        assert_eq!(parsed.header, frame.header, "{name}");
        assert_eq!(parsed.length, written.len(), "{name}");
        assert_eq!(&written[parsed.body], &frame.body[..], "{name}");
    }

    fn hello<T: Hello + PartialEq + Debug>(&mut self, name: &str, hello: &T) {
        let mut written = Vec::new();
        hello.put(&mut written);
        self.take(name, &written);
        let parsed = parse_hello::<T>(&written).expect("well formed").expect("whole");
        assert_eq!((&parsed.hello, parsed.version, parsed.length), (hello, 1, written.len()), "{name}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn at(path: &[u32]) -> Address {
    Address::from_path(path).expect("not too deep")
}

fn child_hello() -> ChildHello {
    ChildHello {
        nonce: [0x11; 16],
        frame: 65536,
        triple: "x86_64-unknown-linux-musl".into(),
        version: "0.1.0".into(),
        host: "web1".into(),
        user: "dmw".into(),
        uid: 1000,
        pid: 4711,
    }
}

fn grant() -> Grant {
    let link = GrantLink {
        holder: at(&[2]),
        verbs: [Verb::Echo, Verb::Exec].into_iter().collect(),
        handle: None,
        expires_ms: 60_000,
    };
    Grant { target: at(&[3, 1]), number: 5, links: vec![link], seal: [0x22; 32] }
}

fn recipe() -> Recipe {
    let argv = ["ssh", "--", "web1", Start::PROBE].map(str::to_owned).into();
    let mut recipe = Recipe::new("ssh", "web1", Start::Shell { argv, env: vec![("LC_ALL".into(), "C".into())] });
    recipe.hints = vec![Hint {
        text: "Permission denied".into(),
        means: Meaning::Auth(AuthFailure::Rejected),
        advice: "add a key".into(),
    }];
    let known = vec![Prompt { text: "{}'s password:".into(), asks: Asks::Password }];
    recipe.prompts = Some(Prompts { known, terminal: true, answer_ms: 120_000 });
    recipe
}

fn request(verb: Verb, window: u32, grant: Option<Grant>, body: &[u8]) -> Frame {
    let mut bytes = encode(&RequestHead { verb: verb.number(), window, grant });
    bytes.extend(body);
    let mut frame = Frame::routed(FrameKind::Request, at(&[3, 1]), Address::ROOT, 7).with_body(bytes.into());
    frame.header.full = true;
    frame
}

/// A frame of the exchange that [`request`] opens, from the side that was asked.
fn answer(kind: FrameKind, body: impl Into<Bytes>) -> Frame {
    let mut frame = Frame::routed(kind, Address::ROOT, at(&[3, 1]), 7).with_body(body.into());
    frame.header.answer = true;
    frame
}

#[test]
fn the_page_and_the_crate_agree_on_every_vector() {
    let mut page = Page { vectors: vectors() };
    page.hello(
        "hello-parent",
        &ParentHello {
            nonce: [0x11; 16],
            tree: [0x33; 16],
            address: at(&[3, 300]),
            key: [0x44; 32],
            tree_ms: 1500,
            frame: 65536,
            heartbeat_ms: 5000,
            silence_ms: 15000,
            name: "ssh:web1".into(),
            path: "ssh:jump -> ssh:web1".into(),
            process_name: "offshoot".into(),
            log: 3,
        },
    );
    page.hello("hello-child", &child_hello());

    page.frame("frame-request-echo", &request(Verb::Echo, 0, None, b"hi"));
    let command = CommandSpec {
        program: b"tar".to_vec(),
        args: vec![b"x".to_vec(), b"\xff".to_vec()],
        env: vec![EnvChange::Clear, EnvChange::Set(b"A".to_vec(), b"1".to_vec()), EnvChange::Remove(b"B".to_vec())],
        cwd: Some(b"/srv".to_vec()),
        stdin: true,
        stdout: true,
        stderr: StderrMode::Apart,
        timeout_ms: 0,
        grace_ms: 5000,
        nice: -5,
        terminal: None,
    };
    page.frame("frame-request-exec", &request(Verb::Exec, 131_072, None, &encode(&command)));
    let shell = CommandSpec {
        program: vec![],
        args: vec![],
        env: vec![],
        cwd: None,
        terminal: Some(Terminal::new(TerminalSize { rows: 24, columns: 132 }, "xterm")),
        ..command
    };
    page.frame("frame-request-shell", &request(Verb::Exec, 131_072, None, &encode(&shell)));
    page.frame("frame-request-granted", &request(Verb::Echo, 0, Some(grant()), b""));
    page.frame("frame-reply-echo", &answer(FrameKind::Reply, b"hi".to_vec()));
    let exit = ExecReply { exit: ProcessExit::Exited(3), timed_out: false };
    page.frame("frame-reply-exec", &answer(FrameKind::Reply, encode(&exit)));
    let failure = Failure::new(FailureKind::Os(2), "no such file").at(at(&[3, 1])).seen(b"\x1b").hint("look");
    page.frame("frame-failure", &answer(FrameKind::Failure, encode(&failure)));
    let mut refused = Failure::new(FailureKind::Auth(AuthFailure::Rejected), "no");
    refused.stages = vec![(ConnectStage::Start, 900), (ConnectStage::Login, 300_000)];
    page.value("failure-of-a-connect", &refused);
    let mut data = Vec::new();
    let header = answer(FrameKind::Data, Bytes::new()).header;
    chunk_header(&header, channel::STDOUT, 5, &mut data);
    data.extend(b"hello");
    page.frame("frame-data", &answer(FrameKind::Data, b"\x01hello".to_vec()));
    assert_eq!(vectors()["frame-data"], data, "both ways of writing a chunk");
    let end = ChannelEnd { channel: channel::STDOUT, total: 5, reason: EndReason::Done };
    page.frame("frame-end", &answer(FrameKind::End, encode(&end)));
    let mut credit = request(Verb::Exec, 0, None, b"");
    credit.header.kind = FrameKind::Credit;
    credit.body = encode(&Credit { channel: channel::STDOUT, total: 262_144 }).into();
    page.frame("frame-credit", &credit);
    let mut stop = credit.clone();
    stop.header.kind = FrameKind::Stop;
    stop.body = Bytes::from_static(&[channel::STDOUT]);
    page.frame("frame-stop", &stop);
    let mut cancel = credit;
    cancel.header.kind = FrameKind::Cancel;
    cancel.body = Bytes::new();
    page.frame("frame-cancel", &cancel);

    page.frame("frame-ping", &Frame::link(FrameKind::Ping, encode(&Ping { seq: 300 }).into()));
    page.frame("frame-pong", &Frame::link(FrameKind::Pong, encode(&Ping { seq: 300 }).into()));
    page.frame("frame-ack", &Frame::link(FrameKind::Ack, encode(&Ack { bulk: 70_000 }).into()));
    let gone = Gone { prefix: at(&[3, 1]), reason: LostReason::Signalled(9) };
    page.frame("frame-gone", &Frame::link(FrameKind::Gone, encode(&gone).into()));
    let bye = Bye { reason: LostReason::Violation("flags".into()) };
    page.frame("frame-bye", &Frame::link(FrameKind::Bye, encode(&bye).into()));
    let notice = ShutdownNotice { grace_ms: 5000, kill_ms: 2000 };
    page.frame("frame-log-level", &Frame::link(FrameKind::LogLevel, vec![4].into()));
    let record = LogRecord {
        seq: 7,
        level: 2,
        unix_us: 1_000_000,
        module: "main".into(),
        thread: "t".into(),
        text: "low on \u{1b}".into(),
    };
    let mut log = Frame::routed(FrameKind::Log, Address::ROOT, at(&[3, 1]), 0);
    log.body = encode(&record).into();
    page.frame("frame-log", &log);
    page.frame("frame-shutdown", &Frame::link(FrameKind::Shutdown, encode(&notice).into()));

    page.value("body-exec-signal", &ExecControl::Signal(15));
    page.value("body-exec-kill", &ExecControl::Kill);
    page.value("body-exec-resize", &ExecControl::Resize(TerminalSize { rows: 50, columns: 200 }));
    let connect = ConnectSpec { recipe: recipe(), name: None, process_name: "offshoot".into(), answers: true };
    page.value("body-connect", &connect);
    let connected = ConnectReply {
        address: at(&[3, 1]),
        name: "ssh:web1".into(),
        hello: child_hello(),
        stages: vec![(ConnectStage::Start, 300), (ConnectStage::Hello, 70_000)],
    };
    page.value("body-connect-reply", &connected);
    let (account, text) = ("dmw@web1".to_owned(), "dmw@web1's password:".to_owned());
    page.value("body-question", &Question { asks: Asks::Password, account, text, shown: false });
    page.take("body-answer", Answer { secret: Some("hunter2".into()) }.encode().as_ref());
    let info = NodeInfo {
        address: at(&[3]),
        name: "ssh:jump".into(),
        hello: child_hello(),
        children: vec![],
        processes: 2,
        link_bytes: (1000, 300),
        contents: ContentStats {
            asked: 1,
            bytes_in: 308,
            requests: 3,
            hits: 2,
            joined: 1,
            bytes_out: 924,
            kept: 300,
            refused: 0,
        },
    };
    page.value("body-info-reply", &info);
    page.value(
        "body-call",
        &CallSpec { function: "main::usage".into(), args: vec![0x02, 0x2f, 0x76], follow: 0, chain: None },
    );
    let chain = Some(ChainLink { chain: 300, position: 2, skip: false });
    page.value("body-call-chained", &CallSpec { function: "f".into(), args: vec![], follow: 0, chain });
    page.value("body-call-reply", &CallReply { value: Vec::new(), came: 1_000_000 });
    page.value("body-attend", &AttendSpec { calls: 64, memory: 1 << 30, idle_ms: 60_000 });
    let context = Carried::Context {
        address: at(&[3, 1]),
        name: "ssh:web1".into(),
        path: "ssh:jump -> ssh:web1".into(),
        hello: None,
        near: false,
        worker: true,
        grant: None,
    };
    page.value("carried-context", &context);
    page.value("carried-end", &Carried::End { home: at(&[5]), handle: 9, reads: true, grant: None });
    page.value("body-stream", &StreamSpec { handle: 9, reads: true });
    page.value("body-payload", &PayloadSpec { triple: "aarch64-unknown-linux-musl".into(), program: None });
    let image = ContentRef {
        hash: [0x55; 32],
        length: 100_000,
        packing: Packing::Lzma { properties: 0x5d, filter: 1, length: 300_000 },
    };
    page.value("body-payload-reply", &image);
    page.value("body-image", &ImageSpec { hash: [0x55; 32], keep: false });
    page.value("start-worker", &Start::Worker { program: [0x66; 32], image: Some(image) });
    page.value("failure-damaged", &FailureKind::Damaged(at(&[3])));

    assert!(page.vectors.is_empty(), "nothing stands for {:?}", page.vectors.keys());
}

/// The rows of the table under a heading: the cells of the first two columns.
fn table(heading: &str) -> Vec<(String, String)> {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading");
    section
        .lines()
        .skip_while(|line| !line.starts_with("| "))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .filter_map(|line| {
            let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            Some((cells.next()?, cells.next()?))
        })
        .collect()
}

#[test]
fn the_page_lists_every_kind_and_every_verb_with_its_number() {
    let kinds: Vec<(String, String)> =
        FrameKind::ALL.iter().map(|kind| (format!("0x{:02x}", *kind as u8), format!("{kind:?}"))).collect();
    assert_eq!(table("Frame kinds"), kinds);
    let verbs: Vec<(String, String)> =
        Verb::ALL.iter().map(|verb| (verb.number().to_string(), format!("{verb:?}"))).collect();
    assert_eq!(table("Verbs"), verbs);
}

#[test]
fn the_page_states_the_limits_that_the_crate_has() {
    let limits: BTreeMap<String, String> = table("Limits").into_iter().collect();
    let default = Limits::default();
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    for (name, value) in [
        ("frame", Limits::FRAME.to_string()),
        ("smallest frame limit", Limits::FRAME_MIN.to_string()),
        ("hello body", Limits::HELLO.to_string()),
        ("name", Limits::NAME.to_string()),
        ("target of a recipe", Limits::TARGET.to_string()),
        ("secret", Limits::SECRET.to_string()),
        ("questions", Limits::QUESTIONS.to_string()),
        ("list in a recipe", Limits::RECIPE_LIST.to_string()),
        ("depth", Limits::DEPTH.to_string()),
        ("received text of a failure", Limits::SEEN.to_string()),
        ("message, hint", Limits::MESSAGE.to_string()),
        ("links of a grant", Limits::GRANT_LINKS.to_string()),
        ("arguments or value of a call", Limits::CALL.to_string()),
        ("log record", Limits::LOG.to_string()),
        ("message of a channel", Limits::ITEM.to_string()),
        ("contexts and ends in a call", Limits::CARRIED.to_string()),
        ("ends in a call", Limits::ENDS.to_string()),
        ("content", Limits::CONTENT.to_string()),
        ("channels", Limits::CHANNELS.to_string()),
        ("first window", Limits::WINDOW_START.to_string()),
        ("largest window", Limits::WINDOW_MAX.to_string()),
        ("window floor", Limits::WINDOW_FLOOR.to_string()),
        ("sum of windows", Limits::WINDOW_SUM.to_string()),
        ("heartbeat", seconds(default.heartbeat)),
        ("silence", seconds(default.silence)),
    ] {
        assert_eq!(limits.get(name), Some(&value), "{name}");
    }
    assert_eq!(limits.len(), 25, "a limit on the page that is not checked here");
}
