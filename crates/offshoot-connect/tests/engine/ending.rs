//! How connects end before their time: cancelled, against the will of the tool, without resources.

use std::time::{Duration, Instant};

use offshoot_connect::methods::Local;
use offshoot_connect::{Cancel, Payloads, bundle::Bundle};
use offshoot_wire::{ConnectStage, Failure, FailureKind, Resource};

use crate::fixture::{Link, NONCE, Script, Test, hello, octal};
use crate::{after_marker, hasty, tool};

#[test]
fn a_cancelled_connect_ends_at_once_and_leaves_nothing() {
    let test = Test::begin("cancel");
    let cancel = Cancel::new();
    cancel.cancel();
    let failure = test.connecting(&tool("sleep 60")).cancel(&cancel).fail();
    assert_eq!(failure.kind, FailureKind::Cancelled);

    for recipe in [tool("echo noise; sleep 60"), Local::new().into()] {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            other.cancel();
            Instant::now()
        });
        let image = Script::new("exec sleep 60");
        let result = test.connecting(&recipe).image(&image).cancel(&cancel).connect();
        let late = thread.join().expect("no panic").elapsed();
        assert_eq!(result.expect_err("a failure").kind, FailureKind::Cancelled);
        assert!(late < Duration::from_secs(2), "ended {late:?} after it was cancelled");
        test.assert_nothing_left(Duration::from_secs(2));
    }
}

#[test]
fn a_connect_that_waits_for_its_agent_can_be_cancelled() {
    struct Waiting;
    impl Payloads for Waiting {
        fn bundle(&self, triple: &str, deadline: Instant, cancel: &Cancel) -> Result<Bundle, Failure> {
            let (send, receive) = std::sync::mpsc::channel();
            let _subscription = cancel.subscribe(move || send.send(()).expect("somebody listens"));
            let other = cancel.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                other.cancel();
            });
            receive.recv_timeout(deadline - Instant::now()).expect("it is cancelled before the deadline");
            thread.join().expect("no panic");
            Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "gave up"))
        }
    }
    let test = Test::begin("cancel-payload");
    let cancel = Cancel::new();
    let failure = test.connecting(&tool("sh -c \"$1\"")).payloads(&Waiting).cancel(&cancel).fail();
    assert_eq!(failure.kind, FailureKind::Cancelled);
    assert_eq!(failure.message, "the connect was cancelled while finding the agent for the target");
}

/// As on kernels before 5.3: a thread watches the tool.
#[test]
fn without_pidfds_a_connect_ends_and_cleans_up_alike() {
    let test = Test::begin("no-pidfd");
    offshoot_mux::fallback::force(offshoot_mux::fallback::NO_PIDFD);
    let failure = test.connecting(&tool("echo 'Connection refused' >&2; exit 255")).connect();
    let link = test.connecting(&after_marker(&format!("printf '{}'; exec sleep 60", octal(&hello(NONCE))))).connect();
    let silent = test.connecting(&hasty(tool("trap '' TERM; sleep 60; :"))).connect();
    offshoot_mux::fallback::force(0);
    assert!(failure.is_err_and(|failure| failure.message.ends_with("(ssh exited with status 255)")));
    drop(Link(link.expect("a link")));
    assert!(silent.is_err_and(|failure| failure.kind == FailureKind::StageTimeout(ConnectStage::Login)));
}

#[test]
fn tools_that_refuse_to_end_are_ended_with_their_whole_group() {
    let test = Test::begin("refuse");
    for script in [
        "trap '' TERM HUP INT; sleep 60 & sleep 60; sleep 60",
        "sleep 60 & kill -STOP $$; sleep 60",
        // The tool ends by itself and leaves something of its group behind, which holds the pipes.
        "sleep 60 & exit 3",
    ] {
        let begun = Instant::now();
        test.connecting(&hasty(tool(script))).connect().expect_err("a failure");
        // A second of silence, and three times what the clean-up may take.
        assert!(begun.elapsed() < Duration::from_secs(7), "{script}: {:?}", begun.elapsed());
        test.assert_nothing_left(Duration::from_secs(2));
    }
}

#[test]
fn without_descriptors_a_connect_fails_alone_and_says_so() {
    let test = Test::begin("descriptors");
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let image = Script::at("/bin/true");
    let mut failures = Vec::new();
    for _ in 0..20 {
        for recipe in [Local::new().into(), tool("exit 3")] {
            failures.push(test.connecting(&recipe).image(&image).connect().expect_err("a failure"));
        }
        hoard.pop();
    }
    drop(hoard);
    let exhausted = |failure: &&Failure| failure.kind == FailureKind::Exhausted(Resource::Descriptors);
    assert!(exhausted(&&failures[0]) && exhausted(&&failures[1]), "{:?}", failures[0]);
    assert!(failures[0].hint.contains("ulimit -n"), "{}", failures[0].hint);
    let count = failures.iter().filter(exhausted).count();
    assert!(count >= 8, "only {count} of {}", failures.len());
    // With enough of them both got as far as they can.
    for failure in &failures[38..] {
        assert!(matches!(failure.kind, FailureKind::Connect(_)), "{failure:?}");
    }
}
