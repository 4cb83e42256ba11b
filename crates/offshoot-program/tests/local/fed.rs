//! Input that a reader gives reaches its process, and holds nobody.

use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Duration;

use offshoot_mux::tree;
use offshoot_wire::FailureKind;

use crate::{Check, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("input_from_a_reader_comes_whole_beside_the_output", whole),
    ("a_process_that_leaves_the_rest_of_its_input_is_no_error", rest),
    ("a_reader_that_fails_ends_its_process_and_is_told", broken),
    ("a_reader_that_never_ends_holds_neither_the_answer_nor_the_process", endless),
];

fn whole() {
    let master = master();
    let context = master.local().connect().expect("a context");
    // More than all windows and buffers hold, and as much comes back meanwhile.
    let bytes: Vec<u8> = (0..24u32 << 20).map(|n| (n % 251) as u8).collect();
    let output = context.command("cat").stdin_from(io::Cursor::new(bytes.clone())).output().expect("cat runs");
    assert!(output.status.success() && output.stdout == bytes, "{} bytes came", output.stdout.len());
    let nothing = context.command("wc").arg("-c").stdin_from(io::empty()).output().expect("wc runs");
    assert_eq!(nothing.stdout, b"0\n");
}

fn rest() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let output = context.command("head").args(["-c", "3"]).stdin_from(io::repeat(b'y')).output().expect("head runs");
    assert!(output.status.success() && output.stdout == b"yyy", "{output:?}");
    let missing =
        context.command("/no/such/program").stdin_from(io::repeat(b'y')).output().expect_err("nothing to run");
    assert_eq!(*missing.kind(), FailureKind::Os(2));
}

struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("torn tape"))?;
        buffer.fill(b'y');
        Ok(buffer.len())
    }
}

fn broken() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for pieces in [0, 1, 40] {
        // It does not end by itself, and reads or does not.
        for script in ["cat >/dev/null; sleep 1000", "sleep 1000"] {
            let command = context.command("sh").args(["-c", script]).grace(Duration::ZERO);
            let (done, ended) = mpsc::channel();
            let thread = std::thread::spawn(move || done.send(command.stdin_from(Broken(pieces)).output()));
            if pieces == 40 && script == "sleep 1000" {
                // What it does not read holds the reader up before it can fail.
                assert!(ended.recv_timeout(Duration::from_millis(300)).is_err(), "it ended by itself");
                assert!(context.shutdown().is_ok());
                let _ = thread.join();
                return;
            }
            let error = ended.recv_timeout(Duration::from_secs(20)).expect("an end").expect_err("half an input");
            assert!(error.to_string().contains("torn tape"), "{error}");
            thread.join().expect("no panic").expect("it was heard");
        }
    }
}

/// Gives nothing, ever.
struct Silent(mpsc::Receiver<()>);

impl Read for Silent {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(0)
    }
}

fn endless() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let (_keep, silent) = mpsc::channel();
    let output = context.command("true").stdin_from(Silent(silent)).output().expect("true runs");
    assert!(output.status.success());
    let (_keep, silent) = mpsc::channel();
    let pid = context.hello().expect("it said hello").pid;
    let process = context.command("sleep").arg("1000").grace(Duration::ZERO).stdin_from(Silent(silent)).spawn();
    let process = process.expect("sleep starts");
    within(Duration::from_secs(20), "it does not run", || !tree::descendants(pid).is_empty());
    drop(process);
    within(Duration::from_secs(20), "it lives without its handle", || tree::descendants(pid).is_empty());
}
