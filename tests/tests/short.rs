//! Reads and writes that do less than they were asked for, in every process at once: master, loader, agents, workers, and what runs between and for them. Nothing
//! may be missing, doubled or changed, and nothing may wait for an event that does not come.
//!
//! With `OFFSHOOT_FAULTS=all` many seeds (`cargo xtask soak --faults`), otherwise two of each.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use offshoot_tests::bounded::{self, Finished, Gathered};
use offshoot_tests::meter::Setting;
use offshoot_tests::{Tag, not_run, or_not_run, product};

/// A connect in all, and what the tracer costs, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
/// Two seconds and two for each further hop, three times.
const GONE: Duration = Duration::from_secs(18);

const TRACER: &str = env!("CARGO_BIN_EXE_offshoot-short");

fn seeds() -> std::ops::Range<u64> {
    match std::env::var_os("OFFSHOOT_FAULTS").is_some_and(|value| value == "all") {
        true => 100..125,
        false => 100..102,
    }
}

/// Whether calls can be made shorter here.
fn tracer() -> Result<(), String> {
    let mut command = Command::new(TRACER);
    let done = bounded::run(command.args(["0", "/dev/null", "true"]), None, Duration::from_secs(20));
    if done.code == Some(0) { Ok(()) } else { Err(format!("processes cannot be traced here: {}", done.err().trim())) }
}

/// So many bytes of which no two parts are alike.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

/// Runs a command under the tracer; what it left as its report: how often a program's calls were cut.
fn traced(tag: &Tag, seed: u64, program: &Path, more: impl FnOnce(&mut Command), input: Vec<u8>) -> (Finished, Report) {
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().expect("a temporary folder");
    let report = folder.path().join("report");
    let mut command = tag.command(TRACER);
    command.arg(seed.to_string()).arg(&report).arg(program).env("RUST_BACKTRACE", "0");
    more(&mut command);
    let done = Gathered::start(&mut command, Some(input)).finish(LIMIT, || {
        eprintln!("seed {seed}, alive: {:#?}", tag.processes());
        tag.kill_everything();
    });
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    (done, Report(text))
}

/// Lines of `PROGRAM KIND CALL COUNT`.
struct Report(String);

impl Report {
    /// Nothing was shown where nothing was cut: so many calls whose name contains a word, of programs whose name begins so.
    #[track_caller]
    fn expect(&self, program: &str, call: &str, least: u64) {
        let counts = self.0.lines().filter_map(|line| {
            let [name, _, of, count] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
            (name.starts_with(program) && of.contains(call)).then(|| count.parse::<u64>().ok())?
        });
        let count: u64 = counts.sum();
        assert!(count >= least, "only {count} of {program}'s {call}s were cut:\n{}", self.0);
    }
}

/// The command whose streams are compared: what comes in goes out, and a word beside.
const ECHO: &str = "cat; echo 'the end' >&2; exit 7";

#[track_caller]
fn compare(done: &Finished, sent: &[u8], seed: u64) {
    let differs = done.stdout.iter().zip(sent).position(|(came, sent)| came != sent);
    assert!(
        done.stdout == sent && done.code == Some(7) && done.err() == "the end\n",
        "seed {seed}: {} of {} bytes came, the first that differs is {differs:?}; code {:?}, errors:\n{}",
        done.stdout.len(),
        sent.len(),
        done.code,
        done.err()
    );
}

#[test]
fn short_counts_in_master_and_local_agents_lose_nothing() {
    if let Err(reason) = tracer() {
        not_run!("short_counts_in_master_and_local_agents_lose_nothing", reason);
    }
    product::binary();
    for seed in seeds() {
        let tag = Tag::new("short-here");
        let sent = bytes(seed, 400_000);
        let more = |command: &mut Command| {
            command.args(["exec", "--raw", "local/local", "--", "sh", "-c", ECHO]);
        };
        let (done, report) = traced(&tag, seed, product::binary(), more, sent.clone());
        compare(&done, &sent, seed);
        tag.assert_nothing_left(GONE);
        println!("seed {seed}: {:?}\n{}", done.elapsed, report.0);
        // Where agents lie in the build folder, they run; else the command itself.
        report.expect("offshoot", "read", 100);
        report.expect("offshoot", "write", 100);
    }
}

/// Has `ssh` run what it is given on this machine.
fn with_ssh(folder: &Path, command: &mut Command) {
    Setting::harmless()
        .install(folder, Path::new(env!("CARGO_BIN_EXE_offshoot-fixture")))
        .expect("a program in a temporary folder");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
}

#[test]
fn short_counts_in_loader_and_agents_behind_two_logins_lose_nothing() {
    if let Err(reason) = tracer() {
        not_run!("short_counts_in_loader_and_agents_behind_two_logins_lose_nothing", reason);
    }
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().expect("a temporary folder");
    for seed in seeds() {
        let tag = Tag::new("short-there");
        let sent = bytes(seed, 300_000);
        let more = |command: &mut Command| {
            with_ssh(folder.path(), command);
            command.args(["exec", "--raw", "peer/peer", "--", "sh", "-c", ECHO]);
        };
        let (done, report) = traced(&tag, seed, product::binary(), more, sent.clone());
        compare(&done, &sent, seed);
        tag.assert_nothing_left(GONE);
        println!("seed {seed}: {:?}\n{}", done.elapsed, report.0);
        // The loader's two stages, and the agents in memory.
        for (program, call, least) in [
            ("memfd:-", "read", 10),
            ("memfd:o", "read", 50),
            ("memfd:offshoot:", "read", 50),
            ("memfd:offshoot:", "write", 50),
            ("offshoot", "write", 50),
        ] {
            report.expect(program, call, least);
        }
    }
}

#[test]
fn short_counts_around_remote_functions_lose_nothing() {
    if let Err(reason) = tracer() {
        not_run!("short_counts_around_remote_functions_lose_nothing", reason);
    }
    product::caller();
    for seed in seeds() {
        let tag = Tag::new("short-call");
        // One line of text.
        let sent: Vec<u8> = bytes(seed, 100_000).into_iter().map(|byte| b'a' + byte % 26).chain([b'\n']).collect();
        let more = |command: &mut Command| {
            command.arg("all of it came");
        };
        let (done, report) = traced(&tag, seed, product::caller(), more, sent);
        assert!(done.code == Some(0) && done.out() == "all of it came\n", "seed {seed}\n{done}");
        tag.assert_nothing_left(GONE);
        println!("seed {seed}: {:?}\n{}", done.elapsed, report.0);
        report.expect("offshoot-caller", "read", 100);
        report.expect("offshoot-caller", "write", 100);
    }
}

#[test]
fn short_counts_while_an_image_travels_lose_nothing() {
    const NAME: &str = "short_counts_while_an_image_travels_lose_nothing";
    if let Err(reason) = tracer() {
        not_run!(NAME, reason);
    }
    let calls = or_not_run!(NAME, product::calls());
    product::agents();
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().expect("a temporary folder");
    for seed in seeds() {
        let tag = Tag::new("short-image");
        let more = |command: &mut Command| {
            with_ssh(folder.path(), command);
            command.args(["/dev/null", "chain", "peer", "peer"]);
        };
        let (done, report) = traced(&tag, seed, calls, more, Vec::new());
        let ran = done.out().matches(" in ssh:peer -> ssh:peer -> worker, after").count();
        assert!(done.code == Some(0) && ran == 2, "seed {seed}\n{done}");
        tag.assert_nothing_left(GONE);
        println!("seed {seed}: {:?}\n{}", done.elapsed, report.0);
        for (program, call, least) in [
            ("offshoot-calls", "write", 100),
            ("memfd:offshoot:", "read", 200),
            ("memfd:offshoot:", "write", 200),
            ("memfd:offshoot-worker", "read", 5),
        ] {
            report.expect(program, call, least);
        }
    }
}
