//! The engine against tools that behave badly, and a few that behave.
//!
//! Each test runs alone, and afterwards no process that carries its tag is left and no descriptor more is open than
//! before.

#![allow(clippy::result_large_err)] // as in the engine: a failure is returned as it is

mod ending;
mod fixture;
mod local;
mod login;
mod prompts;
mod real_ssh;
mod real_sudo;
mod sshd;
mod whole;

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use fixture::{NONCE, Script, Test, hello, octal};
use offshoot_connect::methods::{Local, Method, Ssh};
use offshoot_connect::{Cancel, Payloads, bundle::Bundle};
use offshoot_wire::{ConnectStage, Failure, FailureKind, Recipe, Resource, Start};

/// A recipe whose tool is a shell script; `$1` is the probe. It has ssh's hints.
fn tool(script: &str) -> Recipe {
    let mut recipe = Ssh::to("web1").recipe().expect("a recipe");
    let argv = ["sh", "-c", script, "tool", Start::PROBE].map(str::to_owned).to_vec();
    recipe.start = Start::Shell { argv, env: Vec::new() };
    recipe
}

/// The same recipe with deadlines that a test can wait for.
fn hasty(mut recipe: Recipe) -> Recipe {
    recipe.stage_ms = 1_000;
    recipe.deadline_ms = 3_000;
    recipe
}

/// A tool that runs the probe, and behind its marker this script instead of what we send.
fn after_marker(script: &str) -> Recipe {
    let script = script.replace('\'', "'\\''");
    // Once our own line came: nobody answers before he is asked.
    tool(&format!("{{ read -r line; printf '%s\\n' '{script}'; }} | sh -c \"$1\""))
}

fn text(failure: &Failure) -> String {
    String::from_utf8_lossy(&failure.seen).into_owned()
}

#[test]
fn s24_a_hello_of_another_connect_another_version_or_none_is_refused() {
    let test = Test::begin("hello");
    let mut version = hello(NONCE);
    version[8..12].copy_from_slice(&[9, 0, 9, 0]);
    for (bytes, message) in [
        (hello([1; 16]), "the hello answers another connect"),
        (version, "no common protocol version: expected 1 to 1, got 9 to 9"),
        (b"SSH-2.0-x\r\n".to_vec(), "expected a hello, got something else"),
    ] {
        let image = Script::new(&format!("printf '{}' >&3; exec sleep 60", octal(&bytes)));
        let failure = test.connecting(&Local::new().into()).image(&image).fail();
        assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Hello));
        assert_eq!(failure.message, message);
        assert!(!failure.seen.is_empty() && bytes.starts_with(&failure.seen), "{}", text(&failure));
    }
    // Through a tool what is no hello is noise, and a hello of another connect is refused.
    let recipe = after_marker(&format!("printf '{}'; exec sleep 60", octal(&hello([1; 16]))));
    let failure = test.connecting(&recipe).fail();
    assert_eq!(failure.message, "the hello answers another connect");
}

#[test]
fn a_tool_that_leads_to_a_shell_ends_in_two_pipes_and_a_hello() {
    let test = Test::begin("tool");
    let recipe = after_marker(&format!("echo banner >&2; printf '{}more'; exec sleep 60", octal(&hello(NONCE))));
    let connected = test.connecting(&recipe).succeed();
    assert_eq!(connected.received, [hello(NONCE), b"more".to_vec()].concat());
    assert_eq!(connected.stderr_tail, b"banner\n");
    let stages: Vec<_> = connected.stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(stages.first(), Some(&ConnectStage::Start), "{stages:?}");
    assert_eq!(stages.last(), Some(&ConnectStage::Hello), "{stages:?}");
    assert!(stages.contains(&ConnectStage::Payload), "{stages:?}");
}

#[test]
fn a_hello_behind_noise_and_in_pieces_is_found() {
    let test = Test::begin("drip");
    let bytes = hello(NONCE);
    let (first, rest) = bytes.split_at(9);
    let recipe = tool(&format!(
        "echo 'Last login: Tue'; printf '\\0offshnoise\\n'; \
         {{ read -r line; printf '%s\\n' 'printf \"{}\"; sleep 0.1; printf \"{}\"; exec sleep 60'; }} | sh -c \"$1\"",
        octal(first),
        octal(rest)
    ));
    let connected = test.connecting(&recipe).succeed();
    assert_eq!(connected.received, bytes);
}

#[test]
fn the_tool_gets_the_tag_and_the_recipe_environment_and_a_terminal_only_for_its_questions() {
    for terminal in [false, true] {
        environment(terminal);
    }
}

fn environment(terminal: bool) {
    let test = Test::begin("environment");
    let mut recipe = tool(
        "echo \"tag=$OFFSHOOT_TREE who=$WHO home=${HOME:+kept}\"; read -r pid comm state parent group session rest </proc/self/stat; \
         echo \"session=$((session == $$))\"; (: </dev/tty) 2>/dev/null || echo no tty; ls /proc/self/fd | wc -l; exit 4",
    );
    if let Start::Shell { env, .. } = &mut recipe.start {
        env.push(("WHO".to_owned(), "me".to_owned()));
    }
    if !terminal {
        recipe.prompts = None;
    }
    let failure = test.connecting(&recipe).fail();
    // Descriptors 0, 1, 2, and the one with which `ls` reads the folder.
    let none = if terminal { "" } else { "no tty\n" };
    let expected = format!("tag={} who=me home=kept\nsession=1\n{none}4\n", test.tag());
    assert_eq!(text(&failure), expected);
    assert_eq!(failure.message, "ssh exited with status 4 while waiting for the start marker");
}

#[test]
fn a_tool_that_is_not_there_or_cannot_be_run_is_told_by_its_name() {
    let test = Test::begin("missing");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tool");
    std::fs::write(&file, "no program").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    for (program, message) in [
        ("no-such-tool-here", "the program no-such-tool-here is not there".to_owned()),
        (
            file.to_str().expect("plain"),
            format!("cannot start the program {}: Permission denied (os error 13)", file.display()),
        ),
    ] {
        let mut recipe = tool("");
        recipe.start = Start::Shell { argv: vec![program.to_owned(), Start::PROBE.to_owned()], env: Vec::new() };
        let failure = test.connecting(&recipe).fail();
        assert_eq!((&failure.kind, &failure.message), (&FailureKind::Connect(ConnectStage::Start), &message));
    }
    let mut recipe = tool("");
    recipe.start = Start::Shell { argv: Vec::new(), env: Vec::new() };
    assert_eq!(test.connecting(&recipe).fail().kind, FailureKind::Malformed);
    recipe.start = Start::Shell { argv: vec!["sh\0x".to_owned()], env: Vec::new() };
    assert_eq!(test.connecting(&recipe).fail().kind, FailureKind::Malformed);
}

#[test]
fn s23_floods_end_early_or_at_the_deadline_and_are_kept_bounded() {
    let test = Test::begin("flood");
    for script in ["cat /dev/zero", "yes", "cat /dev/urandom", "yes | tr -d '\\n'"] {
        let failure = test.connecting(&hasty(tool(script))).fail();
        assert_eq!(failure.message, "more than 64 KiB of other output came", "{script}");
        assert!(matches!(failure.kind, FailureKind::Connect(ConnectStage::Probe)), "{script}: {:?}", failure.kind);
        assert!(failure.seen.len() <= 4096);
    }
    // Its error output says nothing about a stage: it neither ends it nor breaks the silence.
    let failure = test.connecting(&hasty(tool("yes >&2"))).fail();
    assert_eq!(failure.kind, FailureKind::StageTimeout(ConnectStage::Login));
    assert!(failure.seen.len() <= 4096);
}

#[test]
fn what_goes_wrong_behind_the_marker_is_no_login_failure() {
    let test = Test::begin("behind");
    let failure = test.connecting(&after_marker("echo 'x: Permission denied (publickey).' >&2; exit 9")).fail();
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Agent));
    assert_eq!(failure.message, "ssh exited with status 9 while starting the agent");
    let failure = test.connecting(&after_marker("echo 'Connection reset by 1.2.3.4 port 22' >&2; exit 255")).fail();
    assert_eq!(
        failure.message,
        "the connection broke: Connection reset by 1.2.3.4 port 22 (ssh exited with status 255)"
    );
    // A login script's own troubles.
    let failure = test.connecting(&after_marker("echo 'Connection refused' >&2; exit 1")).fail();
    assert_eq!(failure.message, "ssh exited with status 1 while starting the agent");
    let failure = test.connecting(&hasty(after_marker("sleep 60"))).fail();
    assert_eq!(failure.kind, FailureKind::StageTimeout(ConnectStage::Agent));
    let stages: Vec<_> = failure.stages.iter().map(|(stage, _)| *stage).collect();
    let passed = [ConnectStage::Start, ConnectStage::Login, ConnectStage::Payload, ConnectStage::Agent];
    assert!(stages.iter().filter(|stage| passed.contains(stage)).eq(&passed), "{stages:?}");
    // Its last stage was silent for all the time that it has.
    let [.., (_, before), (_, end)] = failure.stages[..] else { panic!("{stages:?}") };
    assert!((900_000..3_000_000).contains(&(end - before)), "{:?}", failure.stages);
    let failure = test.connecting(&after_marker("printf '!LX013'; sleep 60")).fail();
    assert_eq!(failure.message, "the loader failed while starting the agent: error 13");
    let failure = test.connecting(&after_marker("printf '!LA012'; sleep 60")).fail();
    assert_eq!(failure.kind, FailureKind::Exhausted(Resource::Memory));
    // A hello that is cut.
    let bytes = hello(NONCE);
    let failure = test.connecting(&after_marker(&format!("printf '{}'; exit 5", octal(&bytes[..20])))).fail();
    assert_eq!(failure.message, "ssh exited with status 5 while greeting the agent");
    let recipe = hasty(after_marker(&format!("printf '{}'; sleep 60", octal(&bytes[..20]))));
    let failure = test.connecting(&recipe).fail();
    assert_eq!(failure.kind, FailureKind::StageTimeout(ConnectStage::Hello));
}

#[test]
fn a_machine_without_an_agent_is_named_and_the_reason_why_there_is_none_is_kept() {
    let test = Test::begin("machine");
    let recipe = tool("sh -c \"$1\" | sed -u \"s/$(uname -m)/vax/\"");
    let failure = test.connecting(&recipe).fail();
    assert_eq!(failure.kind, FailureKind::NoAgent("vax".to_owned()));

    struct None_;
    impl Payloads for None_ {
        fn bundle(&self, triple: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
            Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "no agent at hand").hint("cargo xtask agents"))
        }
    }
    let failure = test.connecting(&tool("sh -c \"$1\"")).payloads(&None_).fail();
    assert!(
        matches!(&failure.kind, FailureKind::NoAgent(triple) if triple.ends_with("-linux-musl")),
        "{:?}",
        failure.kind
    );
    assert_eq!((failure.message.as_str(), failure.hint.as_str()), ("no agent at hand", "cargo xtask agents"));
}
