//! The engine and this machine's own sudo and su, as root, which needs no password. An agent behind sudo tells which of its
//! options had their effect. How far su comes is told by what it fails at: without an agent at hand every one ends, at the
//! latest, in the search for it.

use std::time::{Duration, Instant};

use offshoot_connect::methods::{Method, Su, Sudo};
use offshoot_connect::{Cancel, Payloads, bundle::Bundle};
use offshoot_wire::{AuthFailure, Failure, FailureKind};

use crate::fixture::Test;
use crate::whole;

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

/// What an agent behind sudo tells: as whom it runs, and a variable that is in our own environment and in no policy's.
const TELL: &[u8] = b"tell Uid: Gid: USER HOME CARGO_PKG_NAME CARGO_MANIFEST_DIR";

#[test]
fn real_sudo_gives_each_option_its_effect_and_tells_what_it_refuses() {
    let test = Test::begin("real-sudo");
    if !works("real_sudo_gives_each_option_its_effect", &["sudo", "-n", "true"]) {
        return;
    }
    let agents = match whole::agents() {
        Ok(agents) => agents,
        Err(reason) => return println!("not run: real_sudo_gives_each_option_its_effect: {reason}"),
    };
    let own = |name: &str| std::env::var(name).expect("cargo's, and a login's");
    let (home, package, folder) = (own("HOME"), own("CARGO_PKG_NAME"), own("CARGO_MANIFEST_DIR"));
    let passwd = std::fs::read_to_string("/etc/passwd").expect("accounts");
    let account = |name: &str| -> Vec<&str> {
        passwd.lines().map(|line| line.split(':').collect()).find(|row: &Vec<&str>| row[0] == name).expect("an account")
    };
    let (root, nobody) = (account("root"), account("nobody"));
    assert_ne!(home, nobody[5], "which would tell nothing");
    let (kept, dropped) = ([package.as_str(), &folder], ["nothing"; 2]);
    for (sudo, who, home, environment) in [
        (Sudo::to("root"), &root, root[5], dropped),
        (Sudo::to("nobody"), &nobody, nobody[5], dropped),
        (Sudo::to("#0"), &root, root[5], dropped),
        (Sudo::to("root").password("not asked for"), &root, root[5], dropped),
        // By a login shell, which reads the script once more.
        (Sudo::to("root").login(true), &root, root[5], dropped),
        (Sudo::to("nobody").preserve_env(true), &nobody, home.as_str(), kept),
        (Sudo::to("nobody").preserve_env(true).set_home(true), &nobody, nobody[5], kept),
        (Sudo::to("nobody").preserve_env_of(["CARGO_PKG_NAME", "TERM"]), &nobody, nobody[5], [&package, "nothing"]),
        (Sudo::to("nobody").preserve_env_of(["HOME"]), &nobody, &home, dropped),
        (Sudo::to("nobody").arg("--group=root"), &vec!["nobody", "", nobody[2], "0"], nobody[5], dropped),
    ] {
        let recipe = sudo.recipe().expect("a recipe");
        let link = test.connecting(&recipe).payloads(agents).preamble(TELL.to_vec()).succeed();
        let [package, folder] = environment;
        let expected = [
            format!("Uid:={}", who[2]),
            format!("Gid:={}", who[3]),
            format!("USER={}", who[0]),
            format!("HOME={home}"),
            format!("CARGO_PKG_NAME={package}"),
            format!("CARGO_MANIFEST_DIR={folder}"),
        ];
        assert_eq!(whole::told(&link), expected, "{sudo:?}");
        drop(link);
        test.assert_nothing_left(Duration::from_secs(5));
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
