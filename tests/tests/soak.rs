//! The short form of the random-kill soak: some seconds of it, and some masters that are killed. `cargo xtask soak` runs it for longer.

use std::process::Command;
use std::time::Duration;

use offshoot_tests::bounded::{self, Finished};

/// The program is a harness of its own: it marks what it starts, and checks what is left.
fn soak(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offshoot-soak"));
    let done = bounded::run(command.args(arguments), None, Duration::from_secs(200));
    println!("{}", done.out());
    done.expect_code(0);
    done
}

/// The number before a word of the report.
fn number(report: &str, word: &str) -> u64 {
    let words: Vec<&str> = report.split([' ', ',', '\n', ':', '(']).filter(|part| !part.is_empty()).collect();
    let at = words.iter().position(|one| *one == word).unwrap_or_else(|| panic!("no {word:?} in {report}"));
    words[at - 1].parse().unwrap_or_else(|_| panic!("no number before {word:?} in {report}"))
}

#[test]
fn a_tree_whose_processes_are_killed_and_stopped_at_random_keeps_its_promises() {
    let done = soak(&["soak", "--seconds", "10", "--seed", "20", "--contexts", "20-30", "--long-stops", "0"]);
    let report = done.out();
    assert!(report.contains("\nwell: seed 20, "), "{done}");
    // A run that did nothing has promised nothing.
    assert!(number(&report, "kills") >= 10, "{done}");
    assert!(number(&report, "once") >= 50, "{done}");
    assert!(report.contains("nothing is left"), "{done}");
    // One on each of four levels is left alone and holds what it held; functions ran.
    assert_eq!(report.matches(" descriptors early and late; ").count(), 4, "{done}");
    let functions = report.split_once("operations  functions: ").map(|(_, count)| count.split(' ').next());
    assert!(functions.flatten().and_then(|count| count.parse::<u64>().ok()) >= Some(8), "{done}");
}

#[test]
fn masters_that_are_killed_at_random_moments_leave_nothing() {
    let done = soak(&["masters", "--seconds", "6", "--seed", "21"]);
    let report = done.out();
    // One alone may take all the time: what was stopped when its master went is given up after 15 s.
    assert!(number(&report, "killed") >= 1 && number(&report, "programs") >= 1, "{done}");
}
