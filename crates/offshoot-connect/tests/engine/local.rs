//! Local contexts: the image on the other end of a socket.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use offshoot_connect::methods::Local;
use offshoot_connect::{Image, LocalImage};
use offshoot_wire::{ConnectStage, Failure, FailureKind};

use crate::fixture::{NONCE, Script, Test, hello, octal};

#[test]
fn a_local_context_is_two_pipes_at_whose_other_ends_a_hello_was_said() {
    let test = Test::begin("local");
    let image =
        Script::new(&format!("echo starting; printf '{}' >&3; head -c 8 >&2; exec sleep 60", octal(&hello(NONCE))));
    let connected = test.connecting(&Local::new().into()).image(&image).succeed();
    assert_eq!(connected.received, hello(NONCE));
    assert_eq!((connected.hello.nonce, connected.hello.host.as_str(), connected.version), (NONCE, "there", 1));
    assert_eq!(
        connected.stages.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(),
        [ConnectStage::Start, ConnectStage::Hello]
    );
    // Its stdout is no link: it goes where its errors go. The preamble was there before it was.
    let mut said = connected.stderr_tail.clone();
    let until = Instant::now() + Duration::from_secs(5);
    while said.len() < 17 && Instant::now() < until {
        let mut more = [0; 64];
        match offshoot_mux::io::read(&connected.stderr, &mut more) {
            Ok(n) => said.extend_from_slice(&more[..n]),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert_eq!(said, b"starting\npreamble");
}

#[test]
fn a_local_context_can_be_started_from_an_open_file_under_its_name() {
    struct Shell(std::fs::File, String);
    impl LocalImage for Shell {
        fn image(&self) -> Result<Image<'_>, Failure> {
            Ok(Image::Open(self.0.as_fd()))
        }

        fn arguments(&self) -> Vec<OsString> {
            vec!["-c".into(), (&self.1).into()]
        }
    }
    let test = Test::begin("local-open");
    let file = std::fs::File::open("/bin/sh").expect("a shell");
    let script = format!("head -c 13 /proc/$$/cmdline; printf '{}' >&3; sleep 60; :", octal(&hello(NONCE)));
    let image = Shell(file, script);
    let link = test.connecting(&Local::new().into()).image(&image).succeed();
    assert_eq!(link.received, hello(NONCE));
    assert_eq!(link.stderr_tail, b"offshoot:test");
}

#[test]
fn a_preamble_larger_than_the_socket_takes_is_sent_before_the_link_is_handed_over() {
    let test = Test::begin("large-preamble");
    let size = 3 << 20;
    let script = format!("sleep 0.1; head -c {size} <&0 | cksum; printf '{}' >&3; sleep 60", octal(&hello(NONCE)));
    let image = Script::new(&script);
    let preamble = vec![b'x'; size];
    let link = test.connecting(&Local::new().into()).image(&image).preamble(preamble).succeed();
    let said = String::from_utf8_lossy(&link.stderr_tail).into_owned();
    assert!(said.ends_with(&format!(" {size}\n")), "{said}");
}

#[test]
fn a_local_image_that_is_no_agent_is_told_by_what_it_printed() {
    let test = Test::begin("no-agent");
    let image = Script::new("echo usage: nonsense; exit 3");
    let failure = test.connecting(&Local::new().into()).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Hello));
    assert_eq!(failure.message, "the agent exited with status 3 while greeting the agent");
    assert_eq!(failure.seen, b"usage: nonsense\n");
    assert!(!failure.hint.is_empty());
}

#[test]
fn a_local_image_that_says_nothing_ends_at_the_stage_deadline() {
    let test = Test::begin("local-silent");
    let image = Script::new("exec sleep 60");
    let recipe = Local::new().stage_timeout(Duration::from_millis(300)).into();
    let failure = test.connecting(&recipe).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::StageTimeout(ConnectStage::Hello));
    assert_eq!(failure.message, "nothing came for 0.3 s while greeting the agent");
}

#[test]
fn a_local_image_that_is_not_there_is_told_by_its_name() {
    let test = Test::begin("local-missing");
    let image = Script::at("/nonexistent/agent");
    let failure = test.connecting(&Local::new().into()).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Start));
    assert_eq!(failure.message, "the agent's image is not there");
}
