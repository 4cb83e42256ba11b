//! What all cases of a hostile child have in common.

use bytes::Bytes;
use offshoot_node::{Context, Process, Stdio};
use offshoot_tests::bounded::eventually;
use offshoot_wire::{
    Address, CommandSpec, FailureKind, Frame, FrameKind, Grant, LostReason, RequestHead, StderrMode, Verb, encode,
};

use crate::link::Link;
use crate::records;
use crate::stage::{PATIENCE, Place, Stage};

/// What must come of what a hostile context does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// Its link is closed, for a reason that says this, and everyone who waits for it is told.
    Cut(&'static str),
    /// Its link goes on, and what it owes is still taken from it.
    Passed,
}

/// A hostile child, what it knows, and one call that it owes an answer to.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) link: Link,
    pub(crate) evil: Context,
    pub(crate) me: Address,
    /// Its parent: the master, or an agent.
    pub(crate) parent: Address,
    pub(crate) sibling: Address,
    /// The exchange of the call that the master waits for.
    pub(crate) owed: u64,
    /// A process that the master believes to run here, when a case asked for one.
    process: Option<Process>,
}

impl Scene {
    pub(crate) fn new(place: Place) -> Scene {
        let mut stage = Stage::new(place);
        let (mut link, evil) = stage.evil();
        let (me, parent, sibling) = (link.me(), stage.above.address().clone(), stage.sibling.address().clone());
        Scene { stage, link, evil, me, parent, sibling, owed: 0, process: None }
    }

    /// An address that the parent will give to its next child.
    pub(crate) fn future(&self) -> Address {
        let next = self.me.path().last().expect("a child has one") + 1;
        self.parent.child(next).expect("not deep")
    }

    /// A context that never was, below the honest sibling.
    pub(crate) fn nephew(&self) -> Address {
        self.sibling.child(0).expect("not deep")
    }

    /// A frame of the exchange that is owed, from the side that was asked.
    pub(crate) fn owed(&self, kind: FrameKind, body: impl Into<Bytes>) -> Frame {
        answer(kind, &self.me, &Address::ROOT, self.owed, body)
    }

    /// Has the master start a process here, as it believes, with input and output; the number of its exchange.
    pub(crate) fn process(&mut self) -> u64 {
        let command = self.evil.command("anything").stdin(Stdio::Piped).stdout(Stdio::Piped);
        self.process = Some(command.spawn().expect("it is up"));
        self.link.request().0.exchange
    }

    /// The body of a request that would run something, if it were let through.
    pub(crate) fn exec(&self) -> Vec<u8> {
        encode(&self.exec_spec())
    }

    pub(crate) fn exec_spec(&self) -> CommandSpec {
        use std::os::unix::ffi::OsStrExt;
        CommandSpec {
            program: b"touch".to_vec(),
            args: vec![self.stage.canary().as_os_str().as_bytes().to_vec()],
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

    /// Sends a request of its own, with the mark that only a parent may give.
    pub(crate) fn ask(&mut self, dst: &Address, number: u64, verb: u16, body: &[u8]) {
        let frame = request(&self.me.clone(), dst, number, verb, true, None, body);
        self.link.send(&frame);
    }
}

/// A request as a context that keeps no rule would send it.
pub(crate) fn request(
    src: &Address,
    dst: &Address,
    number: u64,
    verb: u16,
    full: bool,
    grant: Option<Grant>,
    body: &[u8],
) -> Frame {
    let mut bytes = encode(&RequestHead { verb, window: 16 * 1024, grant });
    bytes.extend_from_slice(body);
    let mut frame = Frame::routed(FrameKind::Request, dst.clone(), src.clone(), number).with_body(bytes.into());
    frame.header.full = full;
    frame
}

/// A frame from the side that was asked.
pub(crate) fn answer(kind: FrameKind, src: &Address, dst: &Address, number: u64, body: impl Into<Bytes>) -> Frame {
    let mut frame = Frame::routed(kind, dst.clone(), src.clone(), number).with_body(body.into());
    frame.header.answer = true;
    frame
}

/// The numbers of all verbs, and some that are none.
pub(crate) fn verbs() -> impl Iterator<Item = u16> {
    Verb::ALL.into_iter().map(Verb::number).chain([0, 14, 255, 65_535])
}

/// Runs a case of a hostile child.
#[track_caller]
pub(crate) fn run(place: Place, expect: Expect, act: fn(&mut Scene)) {
    let mut scene = Scene::new(place);
    let owed = scene.stage.pending(&scene.evil);
    scene.owed = scene.link.request().0.exchange;
    act(&mut scene);
    match expect {
        Expect::Cut(text) => {
            let word = scene.link.end();
            let error = owed.wait_timeout(PATIENCE).expect_err("it will never answer");
            let FailureKind::PeerLost(LostReason::Violation(said)) = error.kind() else { panic!("{word:?}: {error}") };
            assert!(said.contains(text), "expected {text:?}, got {said:?}");
            // The last word is for whoever reads: it is not waited for that there is room for it.
            assert!(word.is_none_or(|word| word == LostReason::Violation(said.clone())), "it was told another reason");
            let error = scene.evil.echo(b"").expect_err("it is gone");
            assert_eq!(error.kind(), &FailureKind::NoRoute, "{error}");
            if place == Place::BelowTheMaster {
                // By the log's own thread.
                let is_told = |line: &String| line.starts_with("WARN") && line.contains("broke the protocol");
                let told = eventually(PATIENCE, || records::all().iter().any(is_told));
                assert!(told, "the violation was not reported: {:#?}", records::all());
            }
        }
        Expect::Passed => {
            assert!(scene.link.is_alive(), "it was cut off");
            assert!(!owed.is_done(), "the call ended: {:?}", owed.wait());
            scene.link.send(&scene.owed(FrameKind::Reply, &b"genuine"[..]));
            let answer = owed.wait_timeout(PATIENCE).expect("it answered");
            assert_eq!(&answer[..], b"genuine");
            assert!(scene.link.is_alive(), "it was cut off");
        }
    }
    let Scene { stage, link, evil, process, .. } = scene;
    drop((process, evil));
    // Its process ends with the connection to the test, so that the tree need not wait for it.
    drop(link.close());
    stage.finish();
}

/// Makes two tests of each case: `name: expectation, what the hostile child does;`
macro_rules! cases {
    ($($name:ident: $expect:expr, $act:expr;)*) => {
        $(mod $name {
            #[allow(unused_imports, reason = "each case needs a few of what all need together")]
            use super::*;

            #[test]
            fn below_the_master() {
                crate::stage::alone(|| crate::case::run(crate::stage::Place::BelowTheMaster, $expect, $act));
            }

            #[test]
            fn below_an_agent() {
                crate::stage::alone(|| crate::case::run(crate::stage::Place::BelowAnAgent, $expect, $act));
            }
        })*
    };
}

pub(crate) use cases;
