//! Too few processes for what is asked, from one on: whichever process or thread is the one too many, the command ends in time with an error that says so.
//! And too little memory for a function: the kernel ends its worker, and nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use offshoot_tests::bounded::{Gathered, find_program};
use offshoot_tests::{Finished, Memory, Pids, Tag, not_run, or_not_run, product};

/// A connect in all, and room for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::from_secs(12);
/// Written where the command runs.
const WORD: &str = "all of it came";
/// More than any of these commands has at once.
const MOST: u32 = 40;
/// So many that go well in a row are enough.
const ENOUGH: u32 = 3;

/// How a shortage of processes is called: by us, by the system, by shells, by sudo.
const NAMES: &[&str] = &["out of processes", "temporarily unavailable", "annot fork", "unable to fork"];

#[track_caller]
fn says_so(most: u32, done: &Finished) {
    let errors = done.err();
    assert!(!done.overdue && done.signal.is_none(), "with {most} processes it hangs or crashes\n{done}");
    assert!(matches!(done.code, Some(1 | 125..=127 | 255)), "with {most} processes: another status\n{done}");
    assert!(errors.lines().any(|line| line.starts_with("error: ")), "with {most} processes: no error\n{done}");
    for word in ["panicked", "signal 6", "signal 4", "signal 11"] {
        assert!(!errors.contains(word), "with {most} processes: {word}\n{done}");
    }
    assert!(NAMES.iter().any(|name| errors.contains(name)), "with {most} processes: the reason is missing\n{done}");
}

/// Runs a program with room for one process, two, and so on, until it goes well.
#[track_caller]
fn sweep(name: &'static str, program: &Path, arguments: &[&str], hinted: bool) {
    let tag = Tag::new("shortage");
    let pids = match Pids::new(&tag) {
        Ok(pids) => pids,
        Err(reason) => {
            tag.assert_nothing_left(Duration::ZERO);
            not_run!(name, reason);
        }
    };
    let run = |most| {
        pids.limit(most);
        let mut command: Command = pids.command(&tag, program);
        command.args(arguments).env("RUST_BACKTRACE", "0");
        let done = Gathered::start(&mut command, Some(b"input\n".to_vec())).finish(LIMIT, || {
            eprintln!("alive: {:#?}", tag.processes());
            tag.kill_everything();
        });
        tag.assert_nothing_left(GONE);
        done
    };
    let (mut well, mut failed) = (0, 0);
    for most in 1..=MOST {
        let done = run(Some(most));
        if done.code == Some(0) && done.out().contains(WORD) {
            well += 1;
            if well == ENOUGH {
                break;
            }
            continue;
        }
        (well, failed) = (0, failed + 1);
        println!("{most}: {:?} {:?} {}", done.code, done.elapsed, done.err().escape_debug());
        says_so(most, &done);
        assert!(!hinted || done.err().contains("\n  hint "), "with {most} processes: no advice\n{done}");
    }
    assert!(failed > 0, "the limit has no effect");
    assert_eq!(well, ENOUGH, "it does not go well with {MOST} processes");
    let done = run(None);
    assert!(done.code == Some(0) && done.out().contains(WORD), "with room it goes no more\n{done}");
}

#[test]
fn too_few_processes_for_local_contexts_and_a_program_are_called_so() {
    let script = format!("read -r word && echo '{WORD}'");
    sweep(
        "too_few_processes_for_local_contexts_and_a_program_are_called_so",
        product::binary(),
        &["exec", "--raw", "local/local", "--", "sh", "-c", &script],
        true,
    );
}

#[test]
fn too_few_processes_for_another_account_are_called_so() {
    const NAME: &str = "too_few_processes_for_another_account_are_called_so";
    if find_program("sudo").is_none() {
        not_run!(NAME, "sudo is not installed");
    }
    or_not_run!(NAME, offshoot_tests::host::allowed());
    product::agents();
    let script = format!("read -r word && echo '{WORD}'");
    sweep(NAME, product::binary(), &["exec", "--raw", "sudo:root", "--", "sh", "-c", &script], true);
}

#[test]
fn too_few_processes_for_remote_functions_are_called_so() {
    sweep("too_few_processes_for_remote_functions_are_called_so", product::caller(), &[WORD], false);
}

/// Room for the program, its agents and workers, with the image that came; a tenth of what the function takes.
const MEMORY: u64 = 128 << 20;

#[test]
fn r8_a_worker_that_the_kernel_ends_for_its_memory_costs_its_calls_and_its_agent_goes_on() {
    const NAME: &str = "r8_a_worker_that_the_kernel_ends_for_its_memory_costs_its_calls_and_its_agent_goes_on";
    let program = or_not_run!(NAME, product::calls());
    let mut ways = vec!["local"];
    // The agent there is no copy of the program, which only root may run from here.
    match (find_program("sudo"), offshoot_tests::host::allowed()) {
        (None, _) => not_run::report(&format!("{NAME}::sudo"), "sudo is not installed"),
        (_, Err(reason)) => not_run::report(&format!("{NAME}::sudo"), &reason.to_string()),
        (Some(_), Ok(())) => ways.push("sudo:nobody"),
    }
    product::agents();
    for way in ways {
        let tag = Tag::new("hoard");
        let memory = match Memory::new(&tag, MEMORY) {
            Ok(memory) => memory,
            Err(reason) => {
                tag.assert_nothing_left(Duration::ZERO);
                not_run!(NAME, reason);
            }
        };
        let mut command = memory.command(&tag, program);
        command.env("OFFSHOOT_AGENTS", offshoot_tests::host::build_folder().with_file_name("agents"));
        let done = Gathered::start(command.args(["-", "hoard", way]), None).finish(LIMIT, || tag.kill_everything());
        println!("{done}");
        done.expect_code(0);
        let ends = [
            "hoard: PeerLost(Signalled(9)) MaybeExecuted",
            "call beside it: PeerLost(Signalled(9)) MaybeExecuted",
            "the next: another process: true",
            "beside: goes on: true, same process: true",
        ];
        assert_eq!(done.out().lines().collect::<Vec<_>>(), ends, "{way}: {done}");
        tag.assert_nothing_left(GONE);
    }
}
