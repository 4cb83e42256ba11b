//! Programs on a terminal of their own: all that they show arrives, what is typed reaches them, and nothing of it
//! reaches another terminal.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use offshoot_mux::{Spawn, io as fd, tty, wait_readable};
use offshoot_node::{Command, Context, Event, Process, Stdio, Terminal, TerminalSize};
use offshoot_wire::{FailureKind, Ran};
use sha2::{Digest, Sha256};

use crate::exec::{memory, noise};
use crate::{Check, NOT_RUN, children, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("a_terminal_has_its_size_and_type_and_controls_a_session_of_its_own", own),
    ("all_that_a_terminal_shows_comes_before_the_status", complete),
    ("a_resize_reaches_what_runs_on_a_terminal", resized),
    ("keys_and_signals_reach_the_foreground_of_a_terminal_alone", foreground),
    ("the_end_of_input_is_typed_once_where_a_line_begins_and_twice_within_one", end_of_input),
    ("dropping_a_process_hangs_up_its_terminal_at_once", hung_up),
    ("giving_up_the_output_of_a_terminal_hangs_it_up", output_dropped),
    ("an_interactive_shell_does_not_hold_the_end_of_its_context", shell_at_the_end),
    ("kill_ends_all_that_runs_on_a_terminal_and_what_left_it", killed),
    ("a_background_job_that_holds_a_terminal_does_not_hold_the_answer", lingering),
    ("a_terminal_that_nobody_reads_blocks_its_writer_and_memory_stays_flat", unread),
    ("a_gibibyte_through_a_terminal_arrives_whole", bulk),
    ("what_is_typed_into_a_raw_terminal_arrives_whole", typed),
    ("a_login_shell_knows_that_it_is_one", login),
    ("s16_what_a_target_types_into_its_terminal_reaches_no_other", injected),
];

const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 132 };

fn on_terminal(context: &Context, script: &str) -> Command {
    let terminal = Terminal::new(SIZE, "vt100");
    context.command("sh").arg("-c").arg(script).terminal(terminal).stdin(Stdio::Piped)
}

fn shown(context: &Context, script: &str) -> String {
    let finished = on_terminal(context, script).stdin(Stdio::Null).output().expect("it runs");
    assert!(finished.stderr.is_empty());
    String::from_utf8(finished.stdout).expect("text")
}

/// Reads on until the output holds a text.
#[track_caller]
fn await_text(process: &mut Process, text: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut all = String::new();
    while !all.contains(text) {
        match process.event_before(deadline).unwrap_or_else(|error| panic!("no {text:?} in {all:?}: {error}")) {
            Event::Stdout(bytes) => all.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("no {text:?} in {all:?}, but {other:?}"),
        }
    }
    all
}

fn enter(process: &mut Process, text: &[u8]) {
    process.stdin.as_mut().expect("an input").write_all(text).expect("it is typed");
}

fn own() {
    let master = master();
    let context = master.local().connect().expect("a context").local().connect().expect("a context");
    assert_eq!(shown(&context, "stty size; printf $TERM"), "24 132\r\nvt100");
    assert_eq!(shown(&context, "test -t 0 && test -t 1 && test -t 2 && printf yes"), "yes");
    // Its own session, its own group in the foreground, and the terminal controls it: fields 5 to 8 of stat.
    let fields = shown(&context, "echo $$; cut -d' ' -f5,6,8 /proc/$$/stat; echo out >/dev/tty");
    let lines: Vec<&str> = fields.lines().collect();
    assert_eq!(lines[1], format!("{0} {0} {0}", lines[0]), "{fields}");
    assert_eq!(lines[2], "out");
    assert_eq!(shown(&context, "ls /proc/self/fd | tr -d '\\r\\n'"), "0123");
    // The user's own word counts more.
    let other = on_terminal(&context, "printf \"[$TERM]\"").env("TERM", "xterm").output().expect("it runs");
    assert_eq!(other.stdout, b"[xterm]");
    let none = Terminal::new(SIZE, "");
    let kept = context.command("sh").args(["-c", "printf \"[$TERM]\""]).env("TERM", "dumb").terminal(none);
    assert_eq!(kept.output().expect("it runs").stdout, b"[dumb]");
    let missing = context.command("/no/such/program").terminal(Terminal::default()).output().expect_err("not there");
    assert_eq!((missing.kind(), missing.ran()), (&FailureKind::Os(2), Ran::NotSent), "{missing}");
}

fn complete() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for _ in 0..20 {
        let script = "head -c 300000 /dev/zero | tr '\\0' x; printf unterminated; printf e >&2; exit 5";
        let finished = on_terminal(&context, script).output().expect("it runs");
        assert_eq!(finished.stdout.len(), 300_013);
        assert!(finished.stdout.ends_with(b"xunterminatede"));
        assert_eq!(finished.status.code(), Some(5));
    }
    let signalled = on_terminal(&context, "printf last; kill -9 $$").output().expect("it runs");
    assert_eq!((signalled.stdout.as_slice(), signalled.status.signal()), (&b"last"[..], Some(9)));
}

fn resized() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = "trap 'stty size; exit 0' WINCH; stty size; while :; do sleep 0.05; done";
    let mut process = on_terminal(&context, script).spawn().expect("a shell");
    await_text(&mut process, "24 132\r\n");
    process.controller().resize(TerminalSize { rows: 50, columns: 211 }).expect("sent");
    await_text(&mut process, "50 211\r\n");
    assert!(process.wait().expect("its end").success());
    // Without a terminal it means nothing and harms nothing.
    let plain = context.command("sh").args(["-c", "sleep 0.2; printf ok"]).spawn().expect("a shell");
    plain.resize(SIZE).expect("sent");
    assert_eq!(plain.output().expect("its end").stdout, b"ok");
}

fn foreground() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = "set -m; trap 'printf shell-hit' INT; printf rea; printf dy; sleep 600; printf $?; cat";
    for by_key in [true, false] {
        let mut process = on_terminal(&context, script).spawn().expect("a shell");
        await_text(&mut process, "ready");
        within(Duration::from_secs(5), "sleep does not run", || {
            children().iter().any(|found| comm(found.pid).as_deref() == Some("sleep"))
        });
        if by_key {
            enter(&mut process, b"\x03");
        } else {
            // 2 is the number of INT everywhere.
            process.signal(2).expect("sent");
        }
        // With job control the sleep has a group of its own: it is interrupted, the shell is not.
        await_text(&mut process, "130");
        enter(&mut process, b"typed\n");
        let all = await_text(&mut process, "typed\r\ntyped\r\n");
        assert!(!all.contains("shell-hit"), "{all:?}");
        enter(&mut process, b"\x04");
        assert!(process.wait().expect("its end").success());
    }
}

fn comm(pid: u32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

fn end_of_input() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for (input, expected) in [("", ""), ("whole\n", "whole\r\n"), ("part", "part"), ("a\npart", "a\r\npart")] {
        let mut process = on_terminal(&context, "stty -echo; printf :; cat; printf '|'").spawn().expect("a shell");
        await_text(&mut process, ":");
        enter(&mut process, input.as_bytes());
        let finished = process.output().expect("its end");
        assert_eq!(String::from_utf8_lossy(&finished.stdout), format!("{expected}|"), "{input:?}");
    }
    // Where a line begins it is one end, not two: who reads next waits.
    let script = "stty -echo; printf :; cat; printf '|'; timeout 0.5 cat; printf $?";
    let mut process = on_terminal(&context, script).spawn().expect("a shell");
    await_text(&mut process, ":");
    enter(&mut process, b"whole\n");
    assert_eq!(process.output().expect("its end").stdout, b"whole\r\n|124");
}

/// Says so when its terminal is hung up, and does not listen to TERM, as interactive shells.
const STUBBORN: &str = "trap '' TERM; trap 'exit 3' HUP; printf r; while :; do sleep 0.05; done";

fn hung_up() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let quiet = children();
    let mut process = on_terminal(&context, STUBBORN).spawn().expect("a shell");
    await_text(&mut process, "r");
    let start = Instant::now();
    drop(process);
    // The grace, after which KILL would come, is 5 s.
    within(Duration::from_secs(3), "it lives on", || children().len() == quiet.len());
    assert!(start.elapsed() < Duration::from_secs(3));
}

fn output_dropped() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let mut process = on_terminal(&context, STUBBORN).spawn().expect("a shell");
    await_text(&mut process, "r");
    drop(process.stdout.take());
    assert_eq!(process.wait().expect("its end").code(), Some(3));
}

fn shell_at_the_end() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let mut process = on_terminal(&context, STUBBORN).spawn().expect("a shell");
    await_text(&mut process, "r");
    let start = Instant::now();
    context.shutdown().expect("its end");
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    drop(process);
}

fn killed() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let quiet = children().len();
    let script = "sleep 600 & setsid sleep 600 & (setsid sh -c 'sleep 600 & sleep 600' &); printf r; sleep 600";
    let mut process = on_terminal(&context, script).grace(Duration::from_millis(300)).spawn().expect("a shell");
    await_text(&mut process, "r");
    within(Duration::from_secs(5), "not all have started", || children().len() == quiet + 7);
    process.kill().expect("sent");
    assert!(process.wait().expect("its end").signal().is_some());
    within(Duration::from_secs(5), "something lives on", || children().len() == quiet);
}

fn lingering() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let start = Instant::now();
    let finished = on_terminal(&context, "trap '' HUP; sleep 600 & printf x; exit 4").output().expect("its end");
    assert_eq!((finished.stdout.as_slice(), finished.status.code()), (&b"x"[..], Some(4)));
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
}

fn unread() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let agents = [context.hello().expect("a hello").pid, std::process::id()];
    let before: Vec<u64> = agents.iter().map(|pid| memory(*pid)).collect();
    let mut process = on_terminal(&context, "exec yes 0123456789").spawn().expect("yes");
    await_text(&mut process, "0123456789");
    let yes = children().into_iter().find(|found| comm(found.pid).as_deref() == Some("yes")).expect("yes runs");
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", yes.pid)).expect("its counters");
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).expect("what it wrote")
    };
    let mut last = written();
    within(Duration::from_secs(20), "it still writes", || {
        std::thread::sleep(Duration::from_millis(300));
        last == std::mem::replace(&mut last, written())
    });
    for (pid, before) in agents.iter().zip(&before) {
        let now = memory(*pid);
        assert!(now < before + 32 * 1024, "process {pid} grew from {before} to {now} KiB");
    }
    context.ping().expect("calls beside it are answered");
    assert!(last < 16 << 20, "{last} bytes were taken that nobody read");
}

fn bulk() {
    const LINE: &[u8; 16] = b"0123456789abcde\n";
    const SIZE: usize = 1 << 30;
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = format!("stty raw -echo; yes 0123456789abcde | head -c {SIZE}; exit 7");
    let mut process = on_terminal(&context, &script).stdin(Stdio::Null).spawn().expect("a shell");
    let pattern = LINE.repeat(8193);
    let mut length = 0;
    let status = loop {
        match process.event().expect("output") {
            Event::Stdout(bytes) => {
                for piece in bytes.chunks(128 * 1024) {
                    let phase = length % LINE.len();
                    assert!(*piece == pattern[phase..phase + piece.len()], "damaged behind byte {length}");
                    length += piece.len();
                }
            }
            Event::Stderr(bytes) => panic!("{bytes:?}"),
            Event::Exit(status) => break status,
        }
    };
    assert_eq!((length, status.code()), (SIZE, Some(7)));
}

fn typed() {
    const SIZE: usize = 8 << 20;
    let master = master();
    let context = master.local().connect().expect("a context");
    let sent = noise(SIZE);
    let expected: String = Sha256::digest(&sent).iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!("stty raw -echo; printf r; head -c {SIZE} | sha256sum");
    let mut process = on_terminal(&context, &script).spawn().expect("a shell");
    await_text(&mut process, "r");
    let mut input = process.stdin.take().expect("an input");
    input.write_all(&sent).expect("it reads");
    assert!(await_text(&mut process, "-").starts_with(&expected));
    drop(input);
    assert!(process.wait().expect("its end").success());
}

fn login() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let account = offshoot_mux::process::account(offshoot_mux::process::effective_uid());
    let Some(account) = account else { return println!("{NOT_RUN}this user is not in /etc/passwd") };
    let shell = account.shell.file_name().expect("a name").to_string_lossy().into_owned();
    if !["sh", "bash", "dash", "zsh", "ksh", "ash"].contains(&shell.as_str()) {
        return println!("{NOT_RUN}the login shell is {shell}");
    }
    let finished = context.login_shell().args(["-c", "echo $0"]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&finished.stdout).lines().last(), Some(format!("-{shell}").as_str()));
}

/// What [`injected`] runs, with a terminal that controls it.
pub(crate) const ROLE: &str = "role:injected";

/// The text that a target types into its own terminal.
const INJECTED: &str = "injected";

pub(crate) fn inject() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let below = context.local().connect().expect("a context");
    let terminal = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let fields = stat.rsplit(')').next().expect("fields").to_owned();
        fields.split_whitespace().nth(4).expect("a terminal").to_owned()
    };
    assert_ne!(terminal(std::process::id()), "0", "the check itself needs a terminal");
    for found in children() {
        assert_eq!(terminal(found.pid), "0", "{found:?} has a controlling terminal");
    }
    for context in [&context, &below] {
        let plain = context.command("sh").args(["-c", ": </dev/tty"]).output().expect("a shell");
        assert!(!plain.status.success(), "a program without a terminal has one");
        // 0x5412 is TIOCSTI; where the kernel refuses it, there is nothing to be afraid of.
        let script = format!(
            "stty -icanon -echo; perl -e 'for (split //, \"{INJECTED}\") {{ ioctl(STDIN, 0x5412, $_) or last }}'; \
             dd bs=64 count=1 iflag=nonblock 2>/dev/null; :"
        );
        print!("{} ", shown(context, &script));
    }
    println!("done");
}

fn injected() {
    let pty = tty::Pty::open().expect("a terminal");
    let slave = pty.open_slave().expect("its other side");
    let settings = tty::Restore::raw(&slave).expect("a terminal");
    let (out, write) = fd::pipe().expect("a pipe");
    let program = std::env::current_exe().expect("this program");
    let child = Spawn::new(program)
        .arg(ROLE)
        .controlling_terminal(slave.as_fd())
        .stdin(slave.as_fd())
        .stdout(write.as_fd())
        .stderr(write.as_fd())
        .start()
        .expect("a process");
    drop(write);
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(out), &mut said).expect("its words");
    let said = String::from_utf8_lossy(&said).into_owned();
    let status = child.wait(None).expect("a child");
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{said}");
    // Into the terminal of the one who asked, nothing was typed; nothing was written to it either.
    fd::set_nonblocking(&slave, true).expect("a terminal");
    let mut buffer = [0; 64];
    assert!(fd::read(&slave, &mut buffer).is_err(), "it was typed into: {}", buffer.escape_ascii());
    let ready = wait_readable(&[pty.as_fd()], Some(Duration::ZERO)).expect("a terminal");
    assert!(!ready.has(0), "it was written to");
    drop(settings);
    match said.as_str() {
        said if said == format!("{INJECTED} {INJECTED} done\n") => {}
        "  done\n" => println!("{NOT_RUN}this kernel refuses TIOCSTI, or there is no perl"),
        said => panic!("{said}"),
    }
}
