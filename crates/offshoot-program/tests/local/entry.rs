//! How a process becomes an agent, and what happens when it does not.

use std::process::{Command, ExitCode, Stdio};

use offshoot_program::Master;
use offshoot_wire::FailureKind;

use crate::{Check, failures, limits, terminals};

pub(crate) const CHECKS: &[Check] = &[
    ("a_program_without_init_that_is_started_as_an_agent_ends_with_the_reason", guard),
    ("a_program_without_init_does_not_start_itself", without_init),
    ("an_agent_without_a_parent_ends_with_the_reason", orphan),
];

/// Set to the role that a process plays which does not call `init`.
pub(crate) const WITHOUT_INIT: &str = "OFFSHOOT_LOCAL_WITHOUT_INIT";

/// What this binary does as another process of a check.
pub(crate) fn role(name: &str) -> ExitCode {
    match name {
        "role:wait" => failures::wait_in_a_tree(),
        "role:idle" => failures::wait_in_an_idle_tree(),
        "role:silent" => crate::liveness::wait_with_short_silence(),
        "role:unreaped" => failures::lose_unreaped(),
        "role:grow" => failures::grow_without_end(),
        "role:processes" => limits::few_processes(),
        terminals::ROLE => terminals::inject(),
        "role:master" => drop(Master::new()),
        "role:local" => {
            let master = crate::master();
            let error = master.local().connect().expect_err("it cannot become an agent");
            assert!(matches!(error.kind(), FailureKind::NoAgent(_)), "{error}");
            assert!(error.hint().contains("offshoot::init()"), "{}", error.hint());
        }
        other => panic!("no such role: {other}"),
    }
    ExitCode::SUCCESS
}

fn this(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(WITHOUT_INIT, role).stdin(Stdio::null());
    command
}

fn guard() {
    let output = this("role:master").args(["offshoot-agent", "apart"]).output().expect("a process");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("call `offshoot::init()` first thing in `main`"), "{text}");
}

fn without_init() {
    let status = this("role:local").status().expect("a process");
    assert!(status.success(), "{status}");
}

fn orphan() {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.arg("offshoot-agent").stdin(Stdio::null()).output().expect("a process");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("the link ended before the parent's hello"), "{text}");
}
