//! Faults of the system and of the link, one at a time: each system call of bootstrap, call and shutdown that fails, and each byte of the bootstrap behind
//! which one side is killed. Whatever is hit, the command ends in time, well or with an error that says what failed; nothing is left, nothing panics.
//!
//! With `OFFSHOOT_FAULTS=all` all of them (`cargo xtask soak --faults`), which takes a quarter of an hour; otherwise an even selection.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use offshoot_tests::bounded::{Finished, Gathered, find_program};
use offshoot_tests::meter::{Harm, Setting};
use offshoot_tests::{Tag, not_run, product};

/// A connect in all, and the end of a tree, and room for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Two seconds and two for a further hop, three times.
const GONE: Duration = Duration::from_secs(12);
/// What the command writes where it runs.
const WORD: &str = "all of it came";
/// Given to the command on its input; it must appear nowhere else.
const SECRET: &str = "s3cr3t-of-the-input";

fn all_wanted() -> bool {
    std::env::var_os("OFFSHOOT_FAULTS").is_some_and(|value| value == "all")
}

/// An even selection of that many, or all.
fn selected<T: Clone>(cases: &[T], most: usize) -> Vec<T> {
    if all_wanted() || cases.len() <= most {
        return cases.to_vec();
    }
    (0..most).map(|at| cases[at * cases.len() / most + (at * 7) % (cases.len() / most)].clone()).collect()
}

/// Runs each case and reports all that fail, not only the first.
#[track_caller]
fn each<T>(cases: &[T], show: impl Fn(&T) -> String, run: impl Fn(&T) -> String) {
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    let mut failed = Vec::new();
    for case in cases {
        match catch_unwind(AssertUnwindSafe(|| run(case))) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without text".into());
                println!("{} fails", show(case));
                failed.push(format!("{}:\n{text}", show(case)));
            }
        }
    }
    println!("{} cases: {outcomes:?}", cases.len());
    assert!(failed.is_empty(), "{} of {} fail:\n\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

/// What one case alone excuses.
#[derive(Clone, Copy, Default)]
struct Excuse {
    /// The command itself is killed.
    killed: bool,
    /// Rust's own answer to an allocation that fails is an abort.
    memory: bool,
    /// Its words may be what cannot be written.
    mute: bool,
}

/// What every end of the command must be like, whatever went wrong; says which it was.
#[track_caller]
fn judge(done: &Finished, excuse: Excuse) -> String {
    assert!(!done.overdue, "it hangs\n{done}");
    let Excuse { killed, memory, mute } = excuse;
    let errors = done.err();
    for word in ["panicked at", "RUST_BACKTRACE", "unreachable", "stack overflow"] {
        // Before any of ours runs, the standard library makes a stack for signals, and knows no other way to say that there is none.
        let of_std = memory && errors.contains("alternative stack");
        assert!(of_std || !errors.contains(word), "{word:?} on stderr\n{done}");
    }
    assert!(!errors.contains(SECRET) && !done.out().contains(SECRET), "it shows its input\n{done}");
    done.expect_harmless();
    if killed {
        assert!(done.signal == Some(9) || done.code.is_some(), "it was killed by another signal\n{done}");
        return "killed".into();
    }
    let complete = done.out().contains(WORD);
    match done.code {
        Some(0) => {
            assert!(complete, "exit code 0 without the output\n{done}");
            "well".into()
        }
        // What runs before any instruction of ours.
        Some(127) if errors.contains("error while loading shared libraries") => "not loaded".into(),
        Some(127) if memory && errors.contains("cannot allocate") => "not loaded".into(),
        Some(code @ (124 | 125 | 126 | 127 | 255)) => {
            assert!(
                mute || errors.lines().any(|line| line.starts_with("error: ")),
                "exit code {code} without an error\n{done}"
            );
            for signal in ["signal 4", "signal 6", "signal 11"] {
                assert!(!errors.contains(signal) || memory, "something of ours has crashed\n{done}");
            }
            format!("error {code}")
        }
        // An agent whose guard was killed ends its programs, and may still tell of their end.
        Some(143) => "ended by TERM".into(),
        Some(code) => {
            assert!(mute || !errors.is_empty(), "exit code {code} without a word\n{done}");
            "the command's own".into()
        }
        None if memory => "no memory".into(),
        None => panic!("a signal ended it\n{done}"),
    }
}

/// The system calls that bootstrap, call and shutdown are made of, and what each may say: names and errors. `close` is not among them: a close that is made to
/// fail is not done, which no system does.
const CALLS: &[(&str, &[&str])] = &[
    ("?read,?readv,?recvfrom", &["EINTR", "EAGAIN", "EIO"]),
    ("?write,?writev,?sendto,?sendmsg", &["EINTR", "EAGAIN", "EPIPE", "ENOSPC"]),
    ("?poll,?ppoll,?epoll_wait,?epoll_pwait", &["EINTR"]),
    ("?epoll_create1,?eventfd2,?signalfd4", &["EMFILE", "ENOMEM"]),
    ("?epoll_ctl", &["ENOMEM", "ENOSPC"]),
    ("?pipe2,?pipe,?socketpair", &["EMFILE", "ENFILE"]),
    ("?pidfd_open", &["EMFILE", "ENOSYS"]),
    ("?clone,?clone3,?fork,?vfork", &["EAGAIN", "ENOMEM"]),
    ("?mmap,?brk", &["ENOMEM"]),
    ("?open,?openat", &["EMFILE", "EINTR"]),
    ("?fcntl,?dup,?dup2,?dup3", &["EMFILE"]),
    ("?execve,?execveat", &["ENOMEM", "EAGAIN"]),
    ("?memfd_create", &["EMFILE", "ENOMEM", "ENOSYS"]),
    ("?wait4,?waitid", &["EINTR"]),
    ("?getrandom", &["EINTR", "ENOSYS"]),
    ("?prctl,?setsid", &["EINVAL"]),
    ("?chdir,?prlimit64", &["EACCES"]),
];

#[derive(Clone, Debug)]
struct Injection {
    calls: &'static str,
    error: &'static str,
    when: u32,
}

/// Each call and error, at each of the first times that a process makes the call, and at some of the later ones, which are the end's.
fn injections(most: u32) -> Vec<Injection> {
    let all = CALLS.iter().flat_map(|(calls, errors)| errors.iter().map(move |error| (*calls, *error)));
    let times = move || (1..=most).chain([2 * most, 3 * most, 5 * most]);
    all.flat_map(|(calls, error)| times().map(move |when| Injection { calls, error, when })).collect()
}

/// The errors that every run must have met, and calls that every tree makes: the reader is gone, nothing can be kept, no memory, no descriptors.
const MET: [(&str, &str); 4] =
    [("EPIPE", "?write,"), ("ENOSPC", "?write,"), ("ENOMEM", "?clone,"), ("EMFILE", "?pipe2,")];

/// All of them; or those of [`MET`], and of each error one at an early time, which most processes come to. Each test has a `turn` of its own, and so other calls.
fn chosen(most: u32, turn: usize) -> Vec<Injection> {
    let all = injections(most);
    if all_wanted() {
        return all;
    }
    let when = 1 + turn as u32 % 2;
    let sure = |case: &&Injection| {
        case.when == when && MET.iter().any(|(error, calls)| case.error == *error && case.calls.starts_with(calls))
    };
    let mut errors: Vec<&str> = all.iter().map(|case| case.error).collect();
    errors.sort_unstable();
    errors.dedup();
    let one = |(at, error): (usize, &&str)| {
        let early: Vec<&Injection> =
            all.iter().filter(|case| case.error == *error && case.when <= 3 && !sure(case)).collect();
        early[(7 * at + 5 * turn) % early.len()].clone()
    };
    all.iter().filter(sure).cloned().chain(errors.iter().enumerate().map(one)).collect()
}

impl Injection {
    /// One that never happens: all must be well.
    fn none() -> Injection {
        Injection { calls: "?write", error: "EIO", when: 60_000 }
    }

    fn excuse(&self) -> Excuse {
        Excuse { killed: false, memory: self.error == "ENOMEM", mute: self.calls.contains("write") }
    }

    /// The tracer's words, to stand in front of a program.
    fn words(&self, log: &Path) -> Vec<String> {
        let Injection { calls, error, when } = self;
        [
            "strace".into(),
            "-f".into(),
            "-qqq".into(),
            "-o".into(),
            log.display().to_string(),
            format!("-etrace={calls}"),
            "-esignal=none".into(),
            format!("-einject={calls}:error={error}:when={when}"),
        ]
        .to_vec()
    }
}

/// What the tracer writes behind a call that it made fail.
const INJECTED: &[u8] = b"(INJECTED)";
/// What is told of a case whose call no process made so often.
const NOT_REACHED: &str = "not reached";

/// Whether the tracer can do its work here.
fn tracer() -> Result<(), String> {
    if find_program("strace").is_none() {
        return Err("strace is not installed".into());
    }
    let seen = Command::new("strace")
        .args(["-f", "-qqq", "-einject=?getcwd:error=EMFILE", "-o", "/dev/null", "true"])
        .output();
    match seen {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("strace cannot inject here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("strace cannot be started: {error}")),
    }
}

/// The script of all these commands: it takes its input, writes, and ends.
fn script() -> String {
    let length = SECRET.len();
    format!(
        "read -r word || {{ echo 'no input' >&2; exit 9; }}; [ ${{#word}} = {length} ] || {{ echo 'other input' >&2; exit 8; }}; echo '{WORD}'"
    )
}

fn run(tag: &Tag, mut command: Command) -> Finished {
    command.env("RUST_BACKTRACE", "0");
    Gathered::start(&mut command, Some(format!("{SECRET}\n").into_bytes())).finish(LIMIT, || {
        eprintln!("alive: {:?}", tag.processes());
        tag.kill_everything();
    })
}

/// What is left after the end is the tracer's to end first: it sees the ends of all whom it traces.
fn settled(tag: &Tag, done: &Finished, excuse: Excuse) -> String {
    let verdict = judge(done, excuse);
    tag.assert_nothing_left(GONE);
    verdict
}

/// Runs what `command` makes of the tracer's words without a fault, and with each of these. A fault that no process came to must change nothing; how many were met is
/// reported, and must be most.
#[track_caller]
fn inject(cases: &[Injection], command: impl Fn(&Tag, Vec<String>) -> Command) {
    let folder = tempfile::Builder::new().prefix("traced-").tempdir().unwrap();
    let log = folder.path().join("log");
    let met: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    each(
        &[vec![Injection::none()], cases.to_vec()].concat(),
        |case| format!("{case:?}"),
        |case| {
            let tag = Tag::new("fault");
            let verdict = settled(&tag, &run(&tag, command(&tag, case.words(&log))), case.excuse());
            let traced = fs::read(&log).expect("the tracer has a log");
            fs::remove_file(&log).expect("it is this case's alone");
            if !traced.windows(INJECTED.len()).any(|window| window == INJECTED) {
                assert_eq!(verdict, "well", "no call was made to fail");
                println!("{NOT_REACHED}: {case:?}");
                return NOT_REACHED.into();
            }
            *met.borrow_mut().entry(case.error).or_default() += 1;
            verdict
        },
    );
    let met = met.into_inner();
    let count: usize = met.values().sum();
    println!("{count} of {} were met: {met:?}", cases.len());
    let least = if all_wanted() { cases.len() / 4 } else { cases.len() * 2 / 3 };
    assert!(count >= least, "{count} of {} faults were met, expected {least}", cases.len());
    let missed: Vec<&str> = MET.map(|(error, _)| error).into_iter().filter(|error| !met.contains_key(error)).collect();
    assert!(missed.is_empty(), "{missed:?} were never met, but {met:?}");
}

#[test]
fn a_system_call_that_fails_in_master_or_local_agents_ends_in_an_error_or_not_at_all() {
    const NAME: &str = "a_system_call_that_fails_in_master_or_local_agents_ends_in_an_error_or_not_at_all";
    if let Err(reason) = tracer() {
        not_run!(NAME, reason);
    }
    product::binary();
    inject(&chosen(14, 0), |tag, words| {
        let mut command = tag.command(&words[0]);
        command.args(&words[1..]).arg(product::binary());
        command.args(["exec", "--raw", "local/local", "--", "sh", "-c", &script()]);
        command
    });
}

#[test]
fn a_system_call_that_fails_around_a_remote_function_ends_in_an_error_or_not_at_all() {
    const NAME: &str = "a_system_call_that_fails_around_a_remote_function_ends_in_an_error_or_not_at_all";
    if let Err(reason) = tracer() {
        not_run!(NAME, reason);
    }
    product::caller();
    inject(&chosen(14, 1), |tag, words| {
        let mut command = tag.command(&words[0]);
        command.args(&words[1..]).arg(product::caller()).arg(WORD);
        command
    });
}

/// A folder with a program `ssh` in it, and a command that finds it there.
fn by_meter(tag: &Tag, folder: &Path, setting: &Setting) -> Command {
    setting
        .install(folder, Path::new(env!("CARGO_BIN_EXE_offshoot-fixture")))
        .expect("a program in a temporary folder");
    let mut command = tag.command(product::binary());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command.args(["exec", "--raw", "peer", "--", "sh", "-c", &script()]);
    command
}

#[test]
fn a_system_call_that_fails_on_the_target_ends_in_an_error_or_not_at_all() {
    const NAME: &str = "a_system_call_that_fails_on_the_target_ends_in_an_error_or_not_at_all";
    if let Err(reason) = tracer() {
        not_run!(NAME, reason);
    }
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    inject(&chosen(10, 2), |tag, words| {
        let shell = [words, ["sh", "-c"].map(String::from).to_vec()].concat();
        by_meter(tag, folder.path(), &Setting { shell, ..Setting::harmless() })
    });
}

/// Where the parts of a bootstrap end, by what passed upwards in one that went well.
fn borders(passed: &[u8]) -> Vec<usize> {
    let find = |needle: &[u8]| passed.windows(needle.len()).position(|window| window == needle);
    let line = find(b"\n").map(|at| at + 1);
    // The header behind stage 1: its mark, two lengths and a hash.
    let header = find(b"OFS2");
    let hello = find(b"\x00offsh\xf5\n");
    let found = [line, header, header.map(|at| at + 44), hello, Some(passed.len())];
    found.into_iter().map(|at| at.expect("every part of a bootstrap is there")).collect()
}

#[derive(Clone, Debug)]
struct Cut {
    harm: Harm,
    up: bool,
    after: u64,
}

/// Cuts every so many bytes, and at and around each border.
fn cuts(borders: &[usize], up: bool, stride: usize) -> Vec<Cut> {
    let end = borders.last().copied().unwrap_or(0);
    let mut places: Vec<usize> = (0..end).step_by(stride).collect();
    for border in borders {
        places.extend(
            [-300_i64, -17, -2, -1, 0, 1, 2, 17, 300].iter().filter_map(|by| border.checked_add_signed(*by as isize)),
        );
    }
    places.sort_unstable();
    places.dedup();
    // What is changed between the start line, which would be another script, and the hello, behind which frames have no checksum of their own, is found by a
    // hash. Links such as ssh's pass nothing on that was changed.
    let hashed = match borders {
        [line, .., hello, _] if up => *line..*hello,
        _ => 0..0,
    };
    let fits = move |harm, after: usize| harm != Harm::Flipped || hashed.contains(&after);
    let of = |harm| {
        let fits = fits.clone();
        let places = places.iter().filter(move |after| fits(harm, **after));
        places.map(move |after| Cut { harm, up, after: *after as u64 })
    };
    Harm::ALL.into_iter().flat_map(of).collect()
}

#[test]
fn a_link_that_is_harmed_behind_any_byte_of_the_bootstrap_ends_in_an_error_or_not_at_all() {
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    let mut cases = Vec::new();
    for up in [true, false] {
        let tag = Tag::new("fault-dry");
        let record = folder.path().join(format!("passed.{up}"));
        let setting = Setting { up, record: Some(record.clone()), ..Setting::harmless() };
        let done = run(&tag, by_meter(&tag, folder.path(), &setting));
        done.expect_code(0);
        assert_eq!(settled(&tag, &done, Excuse::default()), "well");
        let passed = fs::read(&record).unwrap();
        cases.extend(match up {
            true => cuts(&borders(&passed), up, 1499),
            // The marker's line, the second one of the loader, the hello and frames: short, so every few bytes.
            false => cuts(&[passed.len()], up, 7),
        });
    }
    let cases = selected(&cases, 25);
    each(
        &cases,
        |case| format!("{case:?}"),
        |case| {
            let tag = Tag::new("fault-cut");
            let Cut { harm, up, after } = *case;
            let command = by_meter(&tag, folder.path(), &Setting { harm, up, after, ..Setting::harmless() });
            let done = run(&tag, command);
            format!("{harm:?} {}", settled(&tag, &done, Excuse { killed: harm == Harm::Near, ..Excuse::default() }))
        },
    );
}

#[test]
fn s23_the_replay_of_an_earlier_successful_transcript_fools_nobody() {
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    let record = folder.path().join("passed");
    let tag = Tag::new("fault-replay");
    let setting = Setting { up: false, record: Some(record.clone()), ..Setting::harmless() };
    run(&tag, by_meter(&tag, folder.path(), &setting)).expect_code(0);
    let passed = fs::read(&record).unwrap();
    assert!(passed.windows(WORD.len()).any(|window| window == WORD.as_bytes()), "it is no whole transcript");
    // All at once; and as the real one came, each part behind what it answered.
    let hello = passed.windows(8).position(|window| window == b"\x00offsh\xf5\n").expect("a hello");
    let line = passed.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    let paced = format!(
        "head -c {line} passed; sleep 0.3; tail -c +{} passed | head -c {}; sleep 0.3; tail -c +{} passed",
        line + 1,
        hello - line,
        hello + 1
    );
    for (how, replay) in [("at once", "cat passed".to_string()), ("in turn", paced)] {
        // What is sent is taken, whatever it is.
        let text = format!("#!/bin/sh\ncd '{}' || exit 9\n{{ {replay}; }} &\nexec cat >got\n", folder.path().display());
        fs::write(folder.path().join("ssh"), text).unwrap();
        let mut command = tag.command(product::binary());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        command.args(["exec", "--raw", "-t", "3", "peer", "--", "sh", "-c", &script()]);
        let done = run(&tag, command);
        assert_eq!(settled(&tag, &done, Excuse::default()), "error 125", "{how}");
        assert!(!done.out().contains(WORD), "{how}: it takes an old answer for a new one\n{done}");
        let got = fs::read(folder.path().join("got")).unwrap();
        let leaked = got.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!leaked, "{how}: the input went to who replays");
    }
}

#[test]
fn a_link_that_passes_a_few_bytes_at_a_time_does_all_the_same() {
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    for (up, chunk) in [(true, 61), (false, 1), (true, 1021)] {
        let tag = Tag::new("fault-drip");
        let setting = Setting { up, chunk, ..Setting::harmless() };
        let done = run(&tag, by_meter(&tag, folder.path(), &setting));
        done.expect_code(0);
        assert_eq!(settled(&tag, &done, Excuse::default()), "well");
    }
}
