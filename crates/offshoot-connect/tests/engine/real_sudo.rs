//! The engine and this machine's own sudo and su, as root, which needs no password. How far it comes is told by what it
//! fails at: without an agent at hand every one ends, at the latest, in the search for it.

use std::time::Instant;

use offshoot_connect::methods::{Method, Su, Sudo};
use offshoot_connect::{Cancel, Payloads, bundle::Bundle};
use offshoot_wire::{AuthFailure, Failure, FailureKind};

use crate::fixture::Test;

/// No agent for anybody.
struct NoAgents;

impl Payloads for NoAgents {
    fn bundle(&self, triple: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
        Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "no agent at hand"))
    }
}

/// Whether root can use the tool here; a test that cannot run says so.
fn works(test: &str, command: &[&str]) -> bool {
    let root = std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let status = std::process::Command::new(command[0]).args(&command[1..]).status();
    let works = root && status.is_ok_and(|status| status.success());
    if !works {
        println!("not run: {test}: `{}` does not work here as root without a password", command.join(" "));
    }
    works
}

fn fail(test: &Test, method: &dyn Method) -> Failure {
    test.connecting(&method.recipe().expect("a recipe")).payloads(&NoAgents).fail()
}

fn came_in(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::NoAgent(_))
}

#[test]
fn real_sudo_leads_to_a_shell_with_every_option_and_tells_what_it_refuses() {
    let test = Test::begin("real-sudo");
    if !works("real_sudo_leads_to_a_shell", &["sudo", "-n", "true"]) {
        return;
    }
    for sudo in [
        Sudo::to("root"),
        Sudo::to("nobody"),
        Sudo::to("#0"),
        Sudo::to("root").password("not asked for"),
        // By a login shell, which reads the script once more.
        Sudo::to("root").login(true),
        Sudo::to("root").set_home(true).preserve_env_of(["LANG", "TERM"]),
        Sudo::to("root").preserve_env(true),
        Sudo::to("nobody").arg("--group=nogroup"),
    ] {
        let failure = fail(&test, &sudo);
        assert!(came_in(&failure), "{sudo:?}: {failure:?}");
    }
    let failure = fail(&test, &Sudo::to("no-such-user-here"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::NoSuchUser), "{failure:?}");
}

#[test]
fn real_su_leads_to_a_shell_and_tells_what_it_refuses() {
    let test = Test::begin("real-su");
    if !works("real_su_leads_to_a_shell", &["su", "root", "-c", "true"]) {
        return;
    }
    for su in [Su::to("root"), Su::to("root").login(true), Su::to("root").password("not asked for")] {
        let failure = fail(&test, &su);
        assert!(came_in(&failure), "{su:?}: {failure:?}");
    }
    let failure = fail(&test, &Su::to("no-such-user-here"));
    assert_eq!(failure.kind, FailureKind::Auth(AuthFailure::NoSuchUser), "{failure:?}");
}
