//! A hostile parent: the test drives a real agent on its descriptor 0. A parent has every right over what lies below it,
//! so what is shown is that it cannot break the agent: whatever comes, the agent ends in order, with all that it started,
//! and speaks for nobody else.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_route::{Config, LinkId, Node, Time};
use offshoot_tests::bounded;
use offshoot_wire::{
    Ack, Address, ChannelEnd, CommandSpec, ConnectSpec, Credit, EndReason, EnvChange, FailureKind, Frame, FrameKind,
    Gone, HELLO_MAGIC, Hello, Limits, LostReason, ParentHello, Ping, Recipe, RequestHead, ShutdownNotice, Start,
    StderrMode, Verb, encode,
};

use crate::case::request;
use crate::link::Link;
use crate::stage::{Director, PATIENCE, PROGRAM, memory};

/// A real agent below the test.
pub(crate) struct Above {
    pub(crate) link: Link,
    pub(crate) agent: Address,
    pub(crate) director: Director,
    pub(crate) process: Child,
    stderr: ChildStderr,
    /// The core of a root, for hellos, keys and grants.
    pub(crate) core: Node,
    child: LinkId,
    folder: tempfile::TempDir,
}

pub(crate) const AT: Time = Time::ZERO;

impl Above {
    pub(crate) fn unborn() -> Above {
        Above::started("offshoot-agent")
    }

    /// A worker.
    pub(crate) fn worker() -> Above {
        Above::started("offshoot-worker").greeted()
    }

    fn started(argument: &str) -> Above {
        let director = Director::new();
        let (input, write) = std::io::pipe().expect("a pipe");
        let (read, output) = std::io::pipe().expect("a pipe");
        let mut process = Command::new(PROGRAM)
            .arg0(&director.name)
            .arg(argument)
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stderr = process.stderr.take().expect("a pipe");
        let mut core = Node::root(Config::default(), [9; 16], [8; 32], AT);
        let (child, agent, _) = core.reserve_child(AT).expect("room for a child");
        // The sibling that lateral requests are said to come from.
        let (sibling, ..) = core.reserve_child(AT).expect("room for a child");
        core.child_up(sibling, &crate::stage::child_hello([0; 16]), AT).expect("it waits");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Above { link: Link::above([read.into(), write.into()]), agent, director, process, stderr, core, child, folder }
    }

    pub(crate) fn hello(&mut self) -> ParentHello {
        let name = self.director.name.clone();
        self.core.parent_hello(self.child, [5; 16], "local".into(), "local".into(), name, AT).expect("it waits")
    }

    pub(crate) fn new() -> Above {
        Above::unborn().greeted()
    }

    fn greeted(mut self) -> Above {
        let hello = self.hello();
        self.link.send_hello(&hello);
        assert_eq!(self.link.child_hello().nonce, [5; 16]);
        self
    }

    /// Another child of the root, which lateral requests are said to come from.
    pub(crate) fn sibling(&self) -> Address {
        Address::from_path(&[1]).expect("not deep")
    }

    /// Asks as the master, whose right nobody doubts.
    pub(crate) fn ask(&mut self, number: u64, verb: Verb, body: &[u8]) {
        let frame = request(&Address::ROOT, &self.agent.clone(), number, verb.number(), true, None, body);
        self.link.send(&frame);
    }

    /// Starts `cat`, whose exchange has this number.
    fn cat(&mut self, number: u64) {
        let spec = CommandSpec { program: b"cat".to_vec(), stdin: true, stdout: true, ..spec() };
        self.ask(number, Verb::Exec, &encode(&spec));
        assert!(self.link.is_alive());
    }

    /// A frame of an exchange of the master's, from the side that asked.
    pub(crate) fn of(&mut self, kind: FrameKind, number: u64, body: impl Into<Bytes>) {
        let frame = Frame::routed(kind, self.agent.clone(), Address::ROOT, number).with_body(body.into());
        self.link.send(&frame);
    }

    /// Asserts that it serves still.
    #[track_caller]
    pub(crate) fn serves(&mut self) {
        assert!(self.link.is_alive(), "the agent closed the link");
        self.ask(1 << 50, Verb::Echo, b"still here");
        let (_, body) = self.link.await_frame("an echo", |header| header.exchange == 1 << 50);
        assert_eq!(&body[..], b"still here");
    }

    /// Closes the link and asserts that the agent ends in order, with everything below it.
    #[track_caller]
    pub(crate) fn finish(mut self, code: i32, said: &str) {
        drop(self.link.close());
        let ended = bounded::eventually(PATIENCE, || self.process.try_wait().expect("a child").is_some());
        if !ended {
            self.process.kill().expect("a child");
        }
        let status = self.process.wait().expect("a child");
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).expect("text");
        assert!(ended, "the agent did not end: {text}");
        assert!(!text.contains("panicked"), "{text}");
        assert_eq!(status.code(), Some(code), "{status}: {text}");
        assert!(text.contains(said), "expected {said:?}, got {text:?}");
        let left = || self.director.processes();
        assert!(bounded::eventually(PATIENCE, || left().is_empty()), "left: {:?}", left());
        assert!(!self.folder.path().join("canary").exists(), "something was run");
    }
}

fn spec() -> CommandSpec {
    CommandSpec {
        program: b"true".to_vec(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: None,
        stdin: false,
        stdout: false,
        stderr: StderrMode::Null,
        terminal: None,
        timeout_ms: 0,
        grace_ms: 0,
        nice: 0,
    }
}

pub(crate) fn cut(text: &str, act: fn(&mut Above)) {
    let mut above = Above::new();
    act(&mut above);
    let reason = above.link.end();
    let Some(LostReason::Violation(said)) = &reason else { panic!("expected {text:?}, got {reason:?}") };
    assert!(said.contains(text), "expected {text:?}, got {said:?}");
    above.finish(0, "");
}

pub(crate) fn passed(act: fn(&mut Above)) {
    let mut above = Above::new();
    act(&mut above);
    above.serves();
    above.finish(0, "");
}

fn unborn(said: &str, act: fn(&mut Above)) {
    let mut above = Above::unborn();
    act(&mut above);
    let closed = bounded::eventually(3 * PATIENCE, || above.process.try_wait().expect("a child").is_some());
    assert!(closed, "the agent waits still");
    above.finish(125, said);
}

/// Makes a test of each case: `name: what runs;`
macro_rules! above {
    ($($name:ident: $run:expr;)*) => {
        $(#[test]
        fn $name() {
            crate::stage::alone(|| $run);
        })*
    };
}

pub(crate) use above;

fn spoilt(above: &mut Above, change: fn(&mut ParentHello)) {
    let mut hello = above.hello();
    change(&mut hello);
    above.link.send_hello(&hello);
}

fn claim(above: &mut Above, src: &[u32], dst: &[u32]) {
    let (src, dst) = (Address::from_path(src).expect("not deep"), Address::from_path(dst).expect("not deep"));
    above.link.send(&request(&src, &dst, 1, Verb::Echo.number(), true, None, b""));
}

fn link_frame(above: &mut Above, kind: FrameKind, body: impl Into<Bytes>) {
    above.link.send(&Frame::link(kind, body.into()));
}

// ---- the hello ----

above! {
    s24_an_agent_takes_text_for_no_hello: unborn("expected a hello", |above| above.link.raw(b"GET / HTTP/1.1\r\n"));
    s24_an_agent_takes_no_other_version: unborn("no common protocol version", |above| {
        let mut bytes = Vec::new();
        above.hello().put(&mut bytes);
        bytes[8..12].copy_from_slice(&[7, 0, 9, 0]);
        above.link.raw(&bytes);
    });
    s12_an_agent_takes_no_hello_longer_than_any: unborn("expected at most 4096", |above| {
        above.link.raw(&[&HELLO_MAGIC[..], &[1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff]].concat());
    });
    s24_an_agent_takes_no_hello_that_is_cut_short: unborn("ended before the parent's hello", |above| {
        let mut bytes = Vec::new();
        above.hello().put(&mut bytes);
        above.link.raw(&bytes[..bytes.len() - 1]);
        above.link.end_writing();
    });
    s24_an_agent_takes_no_body_that_is_none: unborn("malformed hello", |above| {
        above.link.raw(&[&HELLO_MAGIC[..], &[1, 0, 1, 0, 9, 0, 0, 0], &[0xff; 9]].concat());
    });
    s2_an_agent_is_not_the_root: unborn("out of bounds: address", |above| spoilt(above, |hello| hello.address = Address::ROOT));
    s24_an_agent_takes_no_heartbeat_of_zero: unborn("out of bounds: heartbeat", |above| {
        spoilt(above, |hello| hello.heartbeat_ms = 0);
    });
    s24_an_agent_takes_no_silence_shorter_than_the_heartbeat: unborn("out of bounds: heartbeat", |above| {
        spoilt(above, |hello| hello.silence_ms = hello.heartbeat_ms);
    });
    s24_an_agent_takes_no_frames_too_small_to_be_of_use: unborn("out of bounds: frame size", |above| {
        spoilt(above, |hello| hello.frame = 1);
    });
    s12_an_agent_takes_no_name_longer_than_any: unborn("out of bounds: name", |above| {
        spoilt(above, |hello| hello.name = "n".repeat(256));
    });
    s24_a_second_hello_is_no_frame: cut("got \"", |above| {
        let hello = above.hello();
        above.link.send_hello(&hello);
    });
}

// ---- addresses and frames of the link ----

above! {
    s2_a_frame_from_above_that_says_it_is_from_the_agent: cut("claims to be from", |above| claim(above, &[0], &[0]));
    s2_a_frame_from_above_that_says_it_is_from_below: cut("claims to be from", |above| claim(above, &[0, 3], &[0]));
    s2_a_frame_from_above_for_the_root: cut("which does not lie here", |above| claim(above, &[1], &[]));
    s2_a_frame_from_above_for_a_sibling: cut("which does not lie here", |above| claim(above, &[], &[1]));
    r3_a_loss_told_from_above: cut("a notice of loss from above", |above| {
        let gone = Gone { prefix: above.agent.clone(), reason: LostReason::LinkEnd };
        link_frame(above, FrameKind::Gone, encode(&gone));
    });
    a_log_record_from_above: cut("a log record from above", |above| {
        let frame = Frame::routed(FrameKind::Log, above.agent.clone(), Address::ROOT, 0);
        above.link.send(&frame.with_body(Bytes::from_static(b"forged")));
    });
    a_reserved_kind_from_above: cut("reserved kind", |above| link_frame(above, FrameKind::Detaching, vec![]));
    bytes_that_are_no_frame: cut("got \"", |above| above.link.raw(b"\xff\xff\xff\xff\xff\xff"));
    s14_an_acknowledgement_of_nothing: cut("acknowledgement of what was not sent", |above| {
        link_frame(above, FrameKind::Ack, encode(&Ack { bulk: 1 }));
    });
    s14_a_pong_of_nothing: cut("a pong to no ping", |above| link_frame(above, FrameKind::Pong, encode(&Ping { seq: 1 })));
    s4_answers_to_nothing: passed(|above| {
        for number in 0..200 {
            for kind in [FrameKind::Reply, FrameKind::Failure, FrameKind::Data, FrameKind::End, FrameKind::Credit] {
                for src in [Address::ROOT, above.sibling()] {
                    let mut frame = Frame::routed(kind, above.agent.clone(), src, number << 20);
                    frame.header.answer = true;
                    above.link.send(&frame.with_body(Bytes::from_static(b"\x01\x01\x01")));
                }
            }
        }
    });
    s4_frames_for_exchanges_that_never_were: passed(|above| {
        for number in 0..200 {
            for kind in [FrameKind::Cancel, FrameKind::Data, FrameKind::Stop, FrameKind::Credit, FrameKind::End] {
                above.of(kind, number, &b"\x01\x01\x01"[..]);
            }
        }
    });
    r6_a_request_to_a_context_that_never_was: passed(|above| {
        let below = above.agent.child(7).expect("not deep");
        above.link.send(&request(&Address::ROOT, &below, 3, 1, true, None, b""));
        above.link.refused(3, &FailureKind::NoRoute);
    });
    r6_a_parent_that_falls_silent_ends_the_agent: {
        let mut above = Above::unborn();
        spoilt(&mut above, |hello| (hello.heartbeat_ms, hello.silence_ms) = (100, 300));
        above.link.child_hello();
        let started = Instant::now();
        assert_eq!(above.link.end(), Some(LostReason::Silent));
        assert!(started.elapsed() < 3 * Duration::from_millis(300) + Duration::from_secs(1));
        above.finish(0, "");
    };
    a_shutdown_with_all_the_time_of_the_world_ends_an_idle_agent_at_once: {
        let mut above = Above::new();
        let started = Instant::now();
        link_frame(&mut above, FrameKind::Shutdown, encode(&ShutdownNotice { grace_ms: u32::MAX, kill_ms: u32::MAX }));
        above.link.end();
        assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
        above.finish(0, "");
    };
}

// ---- requests ----

fn malformed(above: &mut Above, verb: Verb, body: &[u8]) {
    above.ask(9, verb, body);
    let failure = above.link.failure(9);
    assert!(matches!(failure.kind, FailureKind::Malformed | FailureKind::TooLarge), "{failure:?}");
}

fn connect_fails(above: &mut Above, number: u64, recipe: Recipe) {
    let spec = ConnectSpec { recipe, name: None, process_name: "p".into(), answers: false };
    above.ask(number, Verb::Connect, &encode(&spec));
    let failure = above.link.failure(number);
    assert!(!matches!(failure.kind, FailureKind::Denied | FailureKind::NoRoute), "{failure:?}");
}

pub(crate) fn shell(argv: &[&str]) -> Recipe {
    let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    let mut recipe = Recipe::new("evil", "", Start::Shell { argv, env: Vec::new() });
    (recipe.deadline_ms, recipe.stage_ms) = (2000, 1000);
    recipe
}

above! {
    s6_a_request_whose_body_is_none_is_malformed: passed(|above| {
        for verb in [Verb::Exec, Verb::Connect, Verb::Payload, Verb::Shutdown] {
            for body in [&[][..], &[0xff; 1], &[0xff; 40], &[0x80; 40]] {
                malformed(above, verb, body);
            }
        }
    });
    s7_lists_that_announce_more_than_they_hold_are_refused_unallocated: passed(|above| {
        let before: u64 = above.director.processes().iter().map(|process| memory(process.pid)).sum();
        for count in [0xff, 0x7f] {
            // A program, then 2^28 arguments; and a text that announces as many bytes.
            malformed(above, Verb::Exec, &[1, b'x', 0xff, 0xff, 0xff, count, 1, 0, 0]);
            malformed(above, Verb::Exec, &[0xff, 0xff, 0xff, count, b'x']);
            malformed(above, Verb::Connect, &[1, b'm', 1, b't', 1, 0xff, 0xff, 0xff, count, 1]);
        }
        // Elements of one byte that cost 24 each: as many as a frame holds.
        let empty = [&[1, b'x', 0x80, 0xf0, 0x03][..], &[0; 63_000]].concat();
        malformed(above, Verb::Exec, &empty);
        let after: u64 = above.director.processes().iter().map(|process| memory(process.pid)).sum();
        assert!(after < before + (4 << 20), "{} KiB more", (after - before) >> 10);
    });
    a_program_that_cannot_be_is_an_error: passed(|above| {
        for program in [&b"\0"[..], b"no/such", b"/", b"a\0b"] {
            above.ask(4, Verb::Exec, &encode(&CommandSpec { program: program.to_vec(), ..spec() }));
            let failure = above.link.failure(4);
            assert!(matches!(failure.kind, FailureKind::Os(_) | FailureKind::Unsupported | FailureKind::Malformed), "{failure:?}");
        }
    });
    arguments_names_and_folders_that_cannot_be_are_errors: passed(|above| {
        let set = |name: &[u8], value: &[u8]| vec![EnvChange::Set(name.to_vec(), value.to_vec())];
        for spec in [
            CommandSpec { args: vec![b"a\0b".to_vec()], ..spec() },
            CommandSpec { env: set(b"a\0", b""), ..spec() },
            CommandSpec { env: set(b"a", b"\0"), ..spec() },
            CommandSpec { env: set(b"=", b"x"), ..spec() },
            CommandSpec { cwd: Some(b"/no/such/folder".to_vec()), ..spec() },
            CommandSpec { cwd: Some(b"\0".to_vec()), ..spec() },
        ] {
            above.ask(4, Verb::Exec, &encode(&spec));
            // An odd name may be passed on to the process; what matters is one answer and an agent that lives.
            above.link.await_frame("an answer", |header| {
                header.exchange == 4 && matches!(header.kind, FrameKind::Failure | FrameKind::Reply)
            });
        }
    });
    r7_processes_with_every_priority_and_time_limit_end_with_the_link: passed(|above| {
        for (number, (nice, timeout_ms)) in
            [(0, 0), (i32::MIN, 0), (i32::MAX, u64::MAX), (5, u64::MAX / 2)].into_iter().enumerate()
        {
            let args = vec![b"1000".to_vec()];
            let spec = CommandSpec { program: b"sleep".to_vec(), args, nice, timeout_ms, ..spec() };
            above.ask(100 + number as u64, Verb::Exec, &encode(&spec));
        }
    });
    signals_that_are_none_do_nothing: passed(|above| {
        above.cat(4);
        for message in [&[0, 0][..], &[0, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0, 130, 1], &[9], &[1, 1], &[0xff; 30]] {
            above.of(FrameKind::Data, 4, [&[3], message].concat());
        }
    });
    recipes_that_cannot_be_run_are_errors: passed(|above| {
        for (number, recipe) in [
            shell(&[]),
            shell(&[""]),
            shell(&["\0"]),
            shell(&["/no/such/tool"]),
            shell(&["false"]),
            shell(&["true", "\x01probe"]),
            shell(&["echo", "not a marker"]),
            Recipe { deadline_ms: 0, stage_ms: 0, ..shell(&["sleep", "1000"]) },
            Recipe { deadline_ms: 300, stage_ms: u32::MAX, ..shell(&["sleep", "1000"]) },
            Recipe { deadline_ms: u32::MAX, stage_ms: 300, ..shell(&["sleep", "1000"]) },
            Recipe { deadline_ms: 1000, ..shell(&["yes"]) },
            Recipe { triple: Some("\0".into()), ..shell(&["false"]) },
        ]
        .into_iter()
        .enumerate()
        {
            connect_fails(above, 10 + number as u64, recipe);
        }
    });
    r7_connects_that_never_finish_end_with_the_link: {
        let mut above = Above::new();
        // A time that no other test sleeps for.
        let time = format!("1{:08}", std::process::id());
        for number in 0..50 {
            let recipe = Recipe { deadline_ms: u32::MAX, stage_ms: u32::MAX, ..shell(&["sleep", &time]) };
            let spec = ConnectSpec { recipe, name: None, process_name: "p".into(), answers: false };
            above.ask(10 + number, Verb::Connect, &encode(&spec));
        }
        assert!(above.link.is_alive());
        let sleeps = || {
            let all = offshoot_tests::process::all();
            all.into_iter().filter(|process| process.cmdline == ["sleep", &time]).count()
        };
        assert!(bounded::eventually(PATIENCE, || sleeps() == 32), "{} of 32 connects run", sleeps());
        above.finish(0, "");
        assert!(bounded::eventually(PATIENCE, || sleeps() == 0), "{} tools are left", sleeps());
    };
}

// ---- streams ----

fn data(channel: u8, length: usize) -> Vec<u8> {
    let mut body = vec![channel];
    body.resize(1 + length, b'x');
    body
}

above! {
    s14_more_input_than_was_granted: cut("more data than was granted", |above| {
        // A process that does not read: its window is never opened again.
        let args = vec![b"1000".to_vec()];
        let spec = CommandSpec { program: b"sleep".to_vec(), args, stdin: true, ..spec() };
        above.ask(4, Verb::Exec, &encode(&spec));
        for _ in 0..40 {
            above.of(FrameKind::Data, 4, data(0, 16_000));
        }
    });
    s14_input_on_an_output: cut("a channel that the exchange does not have", |above| {
        above.cat(4);
        above.of(FrameKind::Data, 4, data(1, 1));
    });
    s14_input_behind_its_end: cut("data behind the end", |above| {
        above.cat(4);
        above.of(FrameKind::Data, 4, data(0, 3));
        // In one piece: the process may end before the next one is there.
        let end = encode(&ChannelEnd { channel: 0, total: 3, reason: EndReason::Done });
        let frames = [(FrameKind::End, end), (FrameKind::Data, data(0, 1))];
        let mut bytes = Vec::new();
        for (kind, body) in frames {
            Frame::routed(kind, above.agent.clone(), Address::ROOT, 4).with_body(body.into()).encode(&mut bytes);
        }
        above.link.raw(&bytes);
    });
    s14_an_end_of_input_that_lies: cut("whose total is not what was sent", |above| {
        above.cat(4);
        above.of(FrameKind::End, 4, encode(&ChannelEnd { channel: 0, total: 9, reason: EndReason::Done }));
    });
    s14_credit_without_bound_for_output: cut("credit beyond the largest window", |above| {
        above.cat(4);
        above.of(FrameKind::Credit, 4, encode(&Credit { channel: 1, total: u64::MAX }));
    });
    s14_a_window_without_bound: passed(|above| {
        let head = RequestHead { verb: Verb::Exec.number(), window: u32::MAX, grant: None };
        let body = [encode(&head), encode(&spec())].concat();
        let frame = Frame::routed(FrameKind::Request, above.agent.clone(), Address::ROOT, 4);
        above.link.send(&frame.with_body(body.into()));
        above.link.refused(4, &FailureKind::Malformed);
    });
    s4_a_request_by_the_name_of_one_that_runs: cut("a request by the name of one that runs", |above| {
        above.cat(4);
        above.ask(4, Verb::Exec, &encode(&spec()));
    });
    s12_output_that_is_never_read_stops_at_its_window: passed(|above| {
        let args = vec![b"/dev/zero".to_vec()];
        let spec = CommandSpec { program: b"cat".to_vec(), args, stdout: true, ..spec() };
        above.ask(4, Verb::Exec, &encode(&spec));
        let mut got = 0;
        while let crate::link::Came::Frame(header, body) = above.link.next(Duration::from_millis(300)) {
            got += if header.kind == FrameKind::Data { body.len() - 1 } else { 0 };
            assert!(got <= 16 * 1024, "more than the window of 16 KiB came: {got}");
        }
        assert_eq!(got, 16 * 1024, "the window was not used");
    });
}

const _: () = assert!(Limits::WINDOW_START == 128 * 1024, "the cases of more than was granted send more than this");
