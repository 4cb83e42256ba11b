//! Programs run in a context as documented, and end with all that they started.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use offshoot_mux::tree;
use offshoot_node::{Context, Event, Finished, Stdio};
use offshoot_wire::{FailureKind, Ran};
use sha2::{Digest, Sha256};

use crate::{Check, children, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("arguments_arrive_byte_for_byte", arguments),
    ("the_environment_is_the_logins_own_with_the_changes_in_order", environment),
    ("a_program_starts_in_the_home_or_where_it_is_told", folder),
    ("the_umask_is_the_logins_own_not_the_agents", umask),
    ("a_program_has_exactly_three_descriptors_and_default_signals", clean),
    ("stdout_and_stderr_are_apart_or_together_in_order", streams),
    ("exit_codes_and_signals_are_told_exactly", statuses),
    ("what_cannot_be_run_says_why", not_run),
    ("input_reaches_the_program_and_its_end_too", input),
    ("writing_to_a_program_that_reads_no_more_is_a_broken_pipe", closed_input),
    ("a_timeout_ends_daemons_too", timeout),
    ("kill_ends_what_ignores_term_after_the_grace", kill),
    ("a_program_that_clears_its_environment_is_ended_too", cleared),
    ("a_signal_reaches_the_process_group", signalled),
    ("dropping_a_process_ends_it_and_what_it_started", dropped),
    ("a_daemon_that_holds_stdout_does_not_hold_the_answer", lingering),
    ("a_producer_that_nobody_reads_blocks_and_memory_stays_flat", unread),
    ("a_hundred_mebibytes_go_there_and_back_unharmed", bulk),
    ("many_programs_run_side_by_side", many),
    ("too_large_a_command_is_refused_and_the_context_goes_on", huge),
    ("an_output_is_whole_before_the_status_comes", status_last),
    ("a_program_that_closes_its_outputs_early_is_waited_for", early_close),
    ("output_is_whole_when_room_for_it_comes_as_its_time_is_over", late_room),
    ("a_flood_that_nobody_wants_any_more_holds_up_no_call", unwanted_flood),
    ("a_deadline_for_an_event_leaves_the_process_alone", event_deadline),
];

pub(crate) fn sh(context: &Context, script: &str) -> Finished {
    context.command("sh").arg("-c").arg(script).output().expect("a shell runs")
}

#[track_caller]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn arguments() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let odd = std::os::unix::ffi::OsStringExt::from_vec(b"\xff \x01'\"$(id)\n*".to_vec());
    let odd: std::ffi::OsString = odd;
    let output = context.command("printf").args(["%s|", "", "a b"]).arg(&odd).output().expect("printf runs");
    assert_eq!(output.stdout, b"|a b|\xff \x01'\"$(id)\n*|");
    assert!(output.status.success() && output.stderr.is_empty());
}

fn environment() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let lines = |output: &Finished| {
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // Beyond what this process has, nothing but the two marks by which processes are found.
    let env = context.command("env").output().expect("env runs");
    let added: Vec<String> = lines(&env)
        .iter()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .filter(|name| std::env::var_os(name).is_none() && !["_", "PWD", "SHLVL"].contains(&name.as_str()))
        .collect();
    assert_eq!(added, ["OFFSHOOT_JOB", "OFFSHOOT_TREE"]);
    // Changes apply in the order they were made.
    let env = context.command("env").env("A", "1").env_clear().env("B", "2").env("C", "3").env_remove("C");
    let env = lines(&env.output().expect("env runs"));
    let names: Vec<&str> = env.iter().filter_map(|line| line.split('=').next()).collect();
    assert_eq!(names, ["B", "OFFSHOOT_JOB", "OFFSHOOT_TREE"], "{env:?}");
    assert_eq!(env[0], "B=2");
}

fn folder() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let home = text(&sh(&context, "cd && pwd -P").stdout).to_owned();
    assert_eq!(text(&context.command("pwd").arg("-P").output().expect("pwd runs").stdout), home);
    let there = context.command("pwd").current_dir("/usr").output().expect("pwd runs");
    assert_eq!(text(&there.stdout), "/usr\n");
    let error = context.command("pwd").current_dir("/nonexistent/folder").output().expect_err("no such folder");
    assert_eq!(*error.kind(), FailureKind::Os(2), "{error}");
    assert_eq!(error.ran(), Ran::NotSent, "{error}");
}

fn umask() {
    let own = std::process::Command::new("sh").args(["-c", "umask"]).output().expect("a shell").stdout;
    let master = master();
    let context = master.local().connect().expect("a context");
    assert_eq!(text(&sh(&context, "umask").stdout), text(&own));
}

fn clean() {
    let master = master();
    let context = master.local().connect().expect("a context");
    // `ls` opens the folder itself as 3.
    for program in
        [context.command("ls").arg("/proc/self/fd").stdin(Stdio::Piped), context.command("ls").arg("/proc/self/fd")]
    {
        assert_eq!(text(&program.output().expect("ls runs").stdout), "0\n1\n2\n3\n");
    }
    let status = context.command("cat").arg("/proc/self/status").output().expect("cat runs");
    for line in text(&status.stdout).lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ")) {
        let (name, mask) = line.split_once(':').expect("a name and a mask");
        assert_eq!(u64::from_str_radix(mask.trim(), 16), Ok(0), "{name} of a program is not clean");
    }
    let session = sh(&context, "echo $$; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat");
    let ids: Vec<&str> = text(&session.stdout).split_whitespace().collect();
    assert_eq!(ids[0], ids[1], "a program leads a session of its own");
}

fn streams() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = "printf out1; printf err1 >&2; printf out2; printf err2 >&2";
    let apart = sh(&context, script);
    assert_eq!((text(&apart.stdout), text(&apart.stderr)), ("out1out2", "err1err2"));
    let command = || context.command("sh").arg("-c").arg(script);
    let together = command().stderr(Stdio::Stdout).output().expect("a shell runs");
    assert_eq!((text(&together.stdout), text(&together.stderr)), ("out1err1out2err2", ""));
    let none = command().stdout(Stdio::Null).stderr(Stdio::Null).output().expect("a shell runs");
    assert_eq!((none.stdout.len(), none.stderr.len()), (0, 0));
    assert!(command().status().expect("a shell runs").success());
    // Streams that are taken out are read on threads of their own, side by side.
    let mut process = context.command("sh").arg("-c").arg("seq 20000; seq 30000 >&2").spawn().expect("a shell");
    let mut out = process.stdout.take().expect("an output");
    let mut err = process.stderr.take().expect("an error output");
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        err.read_to_string(&mut all).map(|_| all)
    });
    let mut all = String::new();
    out.read_to_string(&mut all).expect("all of it");
    assert_eq!(all.lines().count(), 20_000);
    assert_eq!(reader.join().expect("no panic").expect("all of it").lines().count(), 30_000);
    assert_eq!(process.event().expect("its end"), Event::Exit(process.event().expect("its end, once more").exit()));
}

trait Exit {
    fn exit(self) -> offshoot_node::ExitStatus;
}

impl Exit for Event {
    #[track_caller]
    fn exit(self) -> offshoot_node::ExitStatus {
        match self {
            Event::Exit(status) => status,
            other => panic!("expected the end, got {other:?}"),
        }
    }
}

fn statuses() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for code in [0, 3, 127, 255] {
        let status = sh(&context, &format!("exit {code}")).status;
        assert_eq!((status.code(), status.signal(), status.success()), (Some(code), None, code == 0));
    }
    for signal in [1, 9, 15, 11] {
        let status = sh(&context, &format!("kill -{signal} $$; sleep 60")).status;
        assert_eq!((status.code(), status.signal(), status.success()), (None, Some(signal), false));
        assert_eq!(status.to_string(), format!("signal {signal}"));
    }
}

fn not_run() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for (program, errno) in [
        ("no-such-program-anywhere", 2),
        ("/no/such/file", 2),
        ("/etc/passwd", 13),
        ("/etc", 13),
        ("/etc/passwd/x", 20),
        ("", 2),
    ] {
        let error = context.command(program).output().expect_err("it cannot be run");
        assert_eq!(*error.kind(), FailureKind::Os(errno), "`{program}`: {error}");
        assert_eq!((error.ran(), error.path()), (Ran::NotSent, "local"), "`{program}`: {error}");
        assert!(error.message().contains(program), "{error}");
    }
    // The same when the streams are read, and when it is waited for.
    let mut process = context.command("no-such-program").stdin(Stdio::Piped).spawn().expect("it is asked");
    let error = process.stdout.as_mut().expect("an output").chunk().expect_err("no output");
    assert_eq!(*error.kind(), FailureKind::Os(2));
    let error = process.wait().expect_err("it never ran");
    assert_eq!(*error.kind(), FailureKind::Os(2));
    assert!(sh(&context, "true").status.success(), "the context goes on");
}

fn input() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let mut process = context.command("cat").stdin(Stdio::Piped).spawn().expect("cat");
    let mut input = process.stdin.take().expect("an input");
    input.write_all(b"first, ").expect("it reads");
    assert_eq!(process.event().expect("an echo"), Event::Stdout("first, ".into()));
    input.write_bytes("unterminated".into()).expect("it reads");
    input.finish();
    let finished = process.output().expect("its end");
    assert_eq!(text(&finished.stdout), "unterminated");
    // Without an input the end comes at once; with an empty one as well.
    assert!(context.command("cat").output().expect("cat").stdout.is_empty());
    assert!(context.command("cat").stdin(Stdio::Piped).output().expect("cat").stdout.is_empty());
}

fn closed_input() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for script in ["exec 0<&-; sleep 0.3", "exit 0", "head -c 10 >/dev/null; exec sleep 0.3 0<&-"] {
        let mut process = context.command("sh").args(["-c", script]).stdin(Stdio::Piped).spawn().expect("a shell");
        let mut input = process.stdin.take().expect("an input");
        let block = [7; 64 * 1024];
        let error = (0..1000).find_map(|_| input.write_all(&block).err()).expect("it does not take 64 MB");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{script}: {error}");
        drop(input);
        assert!(process.wait().expect("its end").success(), "{script}");
    }
}

/// Starts, in the background, a plain child, one in a session of its own, and one that forked twice. They stay for ten
/// minutes unless they are ended.
const FAMILY: &str = "sleep 600 & setsid sleep 600 & (setsid sh -c 'sleep 600 & sleep 600' &); ";

/// The processes of a tree that sleep.
fn sleepers() -> usize {
    children()
        .iter()
        .filter(|found| std::fs::read(format!("/proc/{}/comm", found.pid)).is_ok_and(|comm| comm == b"sleep\n"))
        .count()
}

fn timeout() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = format!("{FAMILY} printf started; trap '' TERM; sleep 600");
    let start = Instant::now();
    let command = context.command("sh").args(["-c", &script]);
    let mut process =
        command.timeout(Duration::from_secs(2)).grace(Duration::from_millis(300)).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("started".into()));
    within(Duration::from_secs(10), "not all have started", || sleepers() == 5);
    let status = process.wait().expect("its end");
    assert!(status.timed_out() && !status.success(), "{status:?}");
    assert!(start.elapsed() >= Duration::from_secs(2), "it was ended before its time");
    within(Duration::from_secs(6), "some are left", || sleepers() == 0);
    assert!(sh(&context, "true").status.success(), "the context goes on");
}

fn kill() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let script = "trap '' TERM; printf r; while :; do sleep 0.1; done";
    let command = context.command("sh").args(["-c", script]);
    let mut process = command.grace(Duration::from_millis(200)).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    process.kill().expect("it is asked");
    let status = process.event().expect("its end").exit();
    assert_eq!((status.signal(), status.timed_out()), (Some(9), false));
    process.kill().expect("nothing happens any more");
    // One that ends itself on TERM is not killed.
    let script = "trap 'exit 7' TERM; printf r; while :; do sleep 0.05; done";
    let mut process = context.command("sh").args(["-c", script]).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    process.kill().expect("it is asked");
    assert_eq!(process.wait().expect("its end").code(), Some(7));
}

fn cleared() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let env = || context.command("env").args(["-i", "sleep", "600"]);
    let status = env().timeout(Duration::from_millis(300)).status().expect("its end");
    assert!(status.timed_out() && status.signal() == Some(15), "{status:?}");
    // What ignores TERM and loses its parent by it is not forgotten.
    let family = "env -i setsid sh -c \"trap '' TERM; while :; do /bin/sleep 1; done\" & env -i setsid sleep 600; true";
    let start = Instant::now();
    let command = context.command("env").args(["-i", "/bin/sh", "-c", family]);
    let status =
        command.timeout(Duration::from_millis(500)).grace(Duration::from_millis(500)).status().expect("its end");
    assert!(status.timed_out(), "{status:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    within(Duration::from_secs(6), "some are left", || children().len() == 2);
}

fn signalled() {
    let master = master();
    let context = master.local().connect().expect("a context");
    // Its `sleep` gets the signal too, which the shell mentions.
    let script = "trap 'printf usr1' USR1; printf r; while :; do sleep 0.1; done";
    let mut process = context.command("sh").args(["-c", script]).stderr(Stdio::Null).spawn().expect("a shell");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    process.signal(10).expect("it is sent");
    assert_eq!(process.event().expect("its word"), Event::Stdout("usr1".into()));
    process.signal(9).expect("it is sent");
    assert_eq!(process.wait().expect("its end").signal(), Some(9));
}

fn dropped() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let mut process = context.command("sh").args(["-c", &format!("{FAMILY} printf r; sleep 600")]).spawn().expect("sh");
    assert_eq!(process.event().expect("its word"), Event::Stdout("r".into()));
    within(Duration::from_secs(10), "not all have started", || sleepers() == 5);
    // A stream that lives on keeps it alive.
    let output = process.stdout.take();
    drop(process);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sleepers(), 5);
    drop(output);
    within(Duration::from_secs(10), "some are left", || sleepers() == 0);
}

fn lingering() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let start = Instant::now();
    let finished = sh(&context, "setsid sleep 600 & printf last");
    assert_eq!(text(&finished.stdout), "last");
    assert!(finished.status.success());
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    // The daemon is the user's until the context ends; then it goes, see `after_each`.
    assert_eq!(sleepers(), 1);
}

/// Resident memory in KiB.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn unread() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let below = context.local().connect().expect("a context");
    let agents = [context.hello().expect("a hello").pid, below.hello().expect("a hello").pid, std::process::id()];
    let before: Vec<u64> = agents.iter().map(|pid| memory(*pid)).collect();
    let process = below.command("cat").arg("/dev/zero").spawn().expect("cat");
    std::thread::sleep(Duration::from_secs(1));
    let cat = children()
        .into_iter()
        .find(|found| std::fs::read(format!("/proc/{}/comm", found.pid)).is_ok_and(|comm| comm == b"cat\n"))
        .expect("cat runs");
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", cat.pid)).expect("its counters");
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).expect("what it wrote")
    };
    let then = written();
    for (pid, before) in agents.iter().zip(&before) {
        let now = memory(*pid);
        assert!(now < before + 32 * 1024, "process {pid} grew from {before} to {now} KiB");
    }
    // Calls beside it are answered.
    for _ in 0..100 {
        below.ping().expect("an answer");
    }
    assert_eq!(written(), then, "it still writes");
    assert!(then < 16 << 20, "{then} bytes were taken that nobody read");
    drop(process);
}

/// Bytes that differ everywhere.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn bulk() {
    const SIZE: usize = 100 << 20;
    let master = master();
    let context = master.local().connect().expect("a context").local().connect().expect("a context");
    let sent = noise(SIZE);
    let expected = Sha256::digest(&sent);
    let mut process = context.command("cat").stdin(Stdio::Piped).spawn().expect("cat");
    let mut input = process.stdin.take().expect("an input");
    let writer = std::thread::spawn(move || {
        for block in sent.chunks(200_001) {
            input.write_all(block).expect("it reads");
        }
    });
    let mut hash = Sha256::new();
    let mut length = 0;
    let status = loop {
        match process.event().expect("output") {
            Event::Stdout(bytes) => {
                length += bytes.len();
                hash.update(&bytes);
            }
            Event::Stderr(bytes) => panic!("{bytes:?}"),
            Event::Exit(status) => break status,
        }
    };
    writer.join().expect("all is written");
    assert!(status.success());
    assert_eq!(length, SIZE);
    assert_eq!(hash.finalize(), expected);
}

fn many() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let processes: Vec<_> = (0..100)
        .map(|i| context.command("sh").args(["-c", &format!("sleep 0.1; printf {i}; exit {i}")]).spawn().expect("sh"))
        .collect();
    for (i, process) in processes.into_iter().enumerate() {
        let finished = process.output().expect("its end");
        assert_eq!((text(&finished.stdout), finished.status.code()), (i.to_string().as_str(), Some(i as i32)));
    }
    assert_eq!(context.info().expect("an answer").processes, 0);
}

fn huge() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let error = context.command("true").arg("x".repeat(100 * 1024)).output().expect_err("too large");
    assert_eq!((error.kind(), error.ran()), (&FailureKind::TooLarge, Ran::NotSent), "{error}");
    let fits = context.command("printf").arg("%s").arg("x".repeat(60 * 1024)).output().expect("printf");
    assert_eq!(fits.stdout.len(), 60 * 1024);
    assert_eq!(*context.echo(&[0; 100 * 1024]).expect_err("too large").kind(), FailureKind::TooLarge);
    context.ping().expect("the context goes on");
}

fn status_last() {
    let master = master();
    let context = master.local().connect().expect("a context");
    for _ in 0..20 {
        let finished = sh(&context, "head -c 300000 /dev/zero; printf unterminated; printf e >&2; exit 5");
        assert_eq!(finished.stdout.len(), 300_012);
        assert!(finished.stdout.ends_with(b"\0unterminated"));
        assert_eq!((text(&finished.stderr), finished.status.code()), ("e", Some(5)));
    }
    // A reader that is slow gets all of it too, though the process has long ended.
    let mut process = context.command("head").args(["-c", "190000", "/dev/zero"]).spawn().expect("head");
    std::thread::sleep(Duration::from_millis(800));
    let mut all = Vec::new();
    process.stdout.take().expect("an output").read_to_end(&mut all).expect("all of it");
    assert_eq!(all.len(), 190_000);
    assert!(process.wait().expect("its end").success());
}

fn early_close() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let start = Instant::now();
    let finished = sh(&context, "printf x; exec 1>&- 2>&-; sleep 1; exit 4");
    assert_eq!((text(&finished.stdout), finished.status.code()), ("x", Some(4)));
    assert!(start.elapsed() >= Duration::from_millis(990));
    // And one whose output the reader gives up sees a closed pipe.
    let mut process = context.command("cat").arg("/dev/zero").spawn().expect("cat");
    drop(process.stdout.take());
    assert_eq!(process.wait().expect("its end").signal(), Some(13));
}

fn unwanted_flood() {
    let master = master();
    let context = master.local().connect().expect("a context");
    // It does not end before its grace of 5 s is over, and writes all the while.
    let flood = |context: &Context| context.command("sh").args(["-c", "trap '' TERM; cat /dev/zero"]).spawn();
    let mut floods: Vec<_> = (0..2).map(|_| flood(&context).expect("cat")).collect();
    for process in &mut floods {
        assert!(matches!(process.event(), Ok(Event::Stdout(_))));
    }
    drop(floods);
    let until = Instant::now() + Duration::from_secs(3);
    let mut slowest = Duration::ZERO;
    while Instant::now() < until {
        slowest = slowest.max(context.ping().expect("an answer"));
    }
    assert!(slowest < Duration::from_secs(3), "a call took {slowest:?}");
}

fn event_deadline() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let mut process = context.command("sh").args(["-c", "sleep 0.5; printf x"]).spawn().expect("a shell");
    let error = process.event_before(Instant::now()).expect_err("nothing yet");
    assert_eq!(*error.kind(), FailureKind::Timeout);
    let error = process.event_before(Instant::now() + Duration::from_millis(20)).expect_err("nothing yet");
    assert_eq!(*error.kind(), FailureKind::Timeout);
    assert_eq!(process.event().expect("its word"), Event::Stdout("x".into()));
    assert!(process.wait().expect("its end").success());
}

fn late_room() {
    let master = master();
    let context = master.local().connect().expect("a context");
    let agent = context.hello().expect("a hello").pid;
    // More than the first window and less than that and a pipe: the program ends, and its last words wait for room.
    const LENGTH: usize = 170_000;
    const PROGRAMS: usize = 64;
    for _ in 0..3 {
        let start = || context.command("head").args(["-c", &LENGTH.to_string(), "/dev/zero"]).spawn().expect("head");
        let processes: Vec<_> = (0..PROGRAMS).map(|_| start()).collect();
        within(Duration::from_secs(10), "they do not end", || tree::descendants(agent).is_empty());
        // Room comes about when the time that an ended program's output has passes, now for one and now for another.
        std::thread::sleep(Duration::from_millis(230));
        for process in processes {
            let finished = process.output().expect("its output");
            assert!(finished.status.success(), "{}", finished.status);
            assert_eq!(finished.stdout.len(), LENGTH, "bytes are missing");
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}
