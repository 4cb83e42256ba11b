//! The engine against tools that behave badly, and a few that behave.
//!
//! Each test runs alone, and afterwards no process that carries its tag is left and no descriptor more is open than
//! before.

#![allow(clippy::result_large_err)] // as in the engine: a failure is returned as it is

mod fixture;
mod real_ssh;
mod sshd;
mod whole;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use fixture::{Link, NONCE, Script, Test, hello, octal};
use offshoot_connect::methods::{Local, Method, Ssh};
use offshoot_connect::{Cancel, Image, LinkIo, LocalImage, Payloads, bundle::Bundle};
use offshoot_wire::{AuthFailure, ConnectStage, Failure, FailureKind, HostKeyFailure, Recipe, Resource, Start};

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
    // A moment later: nobody answers before he is asked.
    tool(&format!("{{ sleep 0.1; printf '%s\\n' '{script}'; }} | sh -c \"$1\""))
}

fn text(failure: &Failure) -> String {
    String::from_utf8_lossy(&failure.seen).into_owned()
}

#[test]
fn a_local_context_is_a_socket_whose_other_end_has_said_hello() {
    let test = Test::begin("local");
    let image =
        Script::new(&format!("echo starting; printf '{}' >&0; head -c 8 >&2; exec sleep 60", octal(&hello(NONCE))));
    let connected = test.connecting(&Local::new().into()).image(&image).succeed();
    assert_eq!(connected.received, hello(NONCE));
    assert_eq!((connected.hello.nonce, connected.hello.host.as_str(), connected.version), (NONCE, "there", 1));
    assert_eq!(
        connected.stages.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(),
        [ConnectStage::Start, ConnectStage::Hello]
    );
    let LinkIo::Socket(_socket) = &connected.link else { panic!("{:?}", connected.link) };
    // Its stdout is no link: it goes where its errors go. The preamble was there before it was.
    let mut said = connected.stderr_tail.clone();
    let until = Instant::now() + Duration::from_secs(5);
    while said.len() < 17 && Instant::now() < until {
        let mut more = [0; 64];
        match offshoot_mux::io::read(&connected.stderr, &mut more) {
            Ok(n) => said.extend_from_slice(&more[..n]),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    assert_eq!(said, b"starting\npreamble");
}

#[test]
fn a_local_context_can_be_started_from_an_open_file_under_its_name() {
    struct Shell(std::fs::File, String);
    impl LocalImage for Shell {
        fn image(&self) -> Result<Image<'_>, Failure> {
            Ok(Image::Open(self.0.as_fd()))
        }

        fn arguments(&self) -> Vec<OsString> {
            vec!["-c".into(), (&self.1).into()]
        }
    }
    let test = Test::begin("local-open");
    let file = std::fs::File::open("/bin/sh").expect("a shell");
    let script = format!("head -c 13 /proc/$$/cmdline; printf '{}' >&0; sleep 60; :", octal(&hello(NONCE)));
    let image = Shell(file, script);
    let link = test.connecting(&Local::new().into()).image(&image).succeed();
    assert_eq!(link.received, hello(NONCE));
    assert_eq!(link.stderr_tail, b"offshoot:test");
}

#[test]
fn a_preamble_larger_than_the_socket_takes_is_sent_before_the_link_is_handed_over() {
    let test = Test::begin("large-preamble");
    let size = 3 << 20;
    let script = format!("sleep 0.1; head -c {size} <&0 | cksum; printf '{}' >&0; sleep 60", octal(&hello(NONCE)));
    let image = Script::new(&script);
    let preamble = vec![b'x'; size];
    let link = test.connecting(&Local::new().into()).image(&image).preamble(preamble).succeed();
    let said = String::from_utf8_lossy(&link.stderr_tail).into_owned();
    assert!(said.ends_with(&format!(" {size}\n")), "{said}");
}

#[test]
fn a_local_image_that_is_no_agent_is_told_by_what_it_printed() {
    let test = Test::begin("no-agent");
    let image = Script::new("echo usage: nonsense; exit 3");
    let failure = test.connecting(&Local::new().into()).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Hello));
    assert_eq!(failure.message, "the agent exited with status 3 while greeting the agent");
    assert_eq!(failure.seen, b"usage: nonsense\n");
    assert!(!failure.hint.is_empty());
}

#[test]
fn a_local_image_that_says_nothing_ends_at_the_stage_deadline() {
    let test = Test::begin("local-silent");
    let image = Script::new("exec sleep 60");
    let recipe = Local::new().stage_timeout(Duration::from_millis(300)).into();
    let failure = test.connecting(&recipe).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::StageTimeout(ConnectStage::Hello));
    assert_eq!(failure.message, "nothing came for 0.3 s while greeting the agent");
}

#[test]
fn a_local_image_that_is_not_there_is_told_by_its_name() {
    let test = Test::begin("local-missing");
    let image = Script::at("/nonexistent/agent");
    let failure = test.connecting(&Local::new().into()).image(&image).fail();
    assert_eq!(failure.kind, FailureKind::Connect(ConnectStage::Start));
    assert_eq!(failure.message, "the agent's image is not there");
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
        let image = Script::new(&format!("printf '{}' >&0; exec sleep 60", octal(&bytes)));
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
    assert!(matches!(connected.link, LinkIo::Pipes { .. }));
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
         {{ sleep 0.1; printf '%s\\n' 'printf \"{}\"; sleep 0.1; printf \"{}\"; exec sleep 60'; }} | sh -c \"$1\"",
        octal(first),
        octal(rest)
    ));
    let connected = test.connecting(&recipe).succeed();
    assert_eq!(connected.received, bytes);
}

#[test]
fn the_tool_gets_the_tag_and_the_recipe_environment_and_no_terminal() {
    let test = Test::begin("environment");
    let mut recipe = tool(
        "echo \"tag=$OFFSHOOT_TREE who=$WHO home=${HOME:+kept}\"; read -r pid comm state parent group session rest </proc/self/stat; \
         echo \"session=$((session == $$))\"; (: </dev/tty) 2>/dev/null || echo no tty; ls /proc/self/fd | wc -l; exit 4",
    );
    if let Start::Shell { env, .. } = &mut recipe.start {
        env.push(("WHO".to_owned(), "me".to_owned()));
    }
    let failure = test.connecting(&recipe).fail();
    // Descriptors 0, 1, 2, and the one with which `ls` reads the folder.
    let expected = format!("tag={} who=me home=kept\nsession=1\nno tty\n4\n", test.tag());
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
        assert_eq!((failure.kind, failure.message), (FailureKind::Connect(ConnectStage::Start), message));
    }
    let mut recipe = tool("");
    recipe.start = Start::Shell { argv: Vec::new(), env: Vec::new() };
    assert_eq!(test.connecting(&recipe).fail().kind, FailureKind::Malformed);
    recipe.start = Start::Shell { argv: vec!["sh\0x".to_owned()], env: Vec::new() };
    assert_eq!(test.connecting(&recipe).fail().kind, FailureKind::Malformed);
}

/// ssh's texts as they were recorded (OpenSSH 9.2), with its exit status.
#[test]
fn the_texts_of_ssh_become_kinds_with_advice() {
    let test = Test::begin("texts");
    let auth = FailureKind::Auth;
    let unreachable = FailureKind::Connect(ConnectStage::Login);
    #[rustfmt::skip] // a table
    let table: &[(&str, i32, FailureKind, &str)] = &[
        ("Host key verification failed.\r\n", 255, FailureKind::HostKey(HostKeyFailure::Unknown), "log in once"),
        ("No ED25519 host key is known for [127.0.0.1]:2202 and you have requested strict checking.\r\nHost key verification failed.\r\n", 255, FailureKind::HostKey(HostKeyFailure::Unknown), "log in once"),
        ("@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key for [127.0.0.1]:2205 has changed and you have requested strict checking.\r\nHost key verification failed.\r\n", 255, FailureKind::HostKey(HostKeyFailure::Changed), "ssh-keygen -R web1"),
        ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nPassword authentication is disabled to avoid man-in-the-middle attacks.\r\npeer1@127.0.0.1: Permission denied (publickey,password,keyboard-interactive).\r\n", 255, FailureKind::HostKey(HostKeyFailure::Changed), "ssh-keygen -R web1"),
        ("peer1@127.0.0.1: Permission denied (publickey).\r\n", 255, auth(AuthFailure::Rejected), "right key"),
        ("peer1@127.0.0.1: Permission denied (publickey,password).\r\n", 255, auth(AuthFailure::PasswordRequired), "passwords cannot be given yet"),
        ("peer1@127.0.0.1: Permission denied (keyboard-interactive).\r\n", 255, auth(AuthFailure::PasswordRequired), "passwords cannot be given yet"),
        ("Received disconnect from 127.0.0.1 port 22:2: Too many authentication failures\r\nDisconnected from 127.0.0.1 port 22\r\n", 255, auth(AuthFailure::Rejected), "IdentitiesOnly"),
        ("@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @\r\np@h: Permission denied (publickey,password).\r\n", 255, auth(AuthFailure::Rejected), "chmod 600"),
        ("sign_and_send_pubkey: signing failed for ED25519-SK \"/k\": device not found\r\np@h: Permission denied (publickey).\r\n", 255, auth(AuthFailure::Rejected), "touch the token"),
        ("You are required to change your password immediately (administrator enforced).\r\nWARNING: Your password has expired.\r\nPassword change required but no TTY available.\r\n", 1, auth(AuthFailure::TtyRequired), "log in once by hand"),
        ("ssh: connect to host 127.0.0.1 port 2299: Connection refused\r\n", 255, unreachable.clone(), "nothing listens"),
        ("ssh: Could not resolve hostname web1: Name or service not known\r\n", 255, unreachable.clone(), "spelling"),
        ("ssh: connect to host 10.0.0.1 port 22: Connection timed out\r\n", 255, unreachable.clone(), "firewall"),
        ("Connection timed out during banner exchange\r\nConnection to 127.0.0.1 port 22 timed out\r\n", 255, unreachable.clone(), "silent"),
        ("kex_exchange_identification: banner line contains invalid characters\r\nbanner exchange: Connection to 127.0.0.1 port 9: invalid format\r\n", 255, unreachable.clone(), "no ssh server"),
        ("jump@jump: Permission denied (publickey).\r\nkex_exchange_identification: Connection closed by remote host\r\nConnection closed by UNKNOWN port 65535\r\n", 255, auth(AuthFailure::Rejected), "right key"),
        ("Unable to negotiate with 127.0.0.1 port 22: no matching host key type found. Their offer: ssh-dss\r\n", 255, unreachable.clone(), "algorithm"),
        ("channel 0: open failed: administratively prohibited: open failed\r\nstdio forwarding failed\r\n", 255, unreachable, "jump host"),
        ("command-line: line 0: Bad configuration option: remotecommand\r\n", 255, FailureKind::Connect(ConnectStage::Start), "7.6"),
        ("Can't open user config file /x: No such file or directory\r\n", 255, FailureKind::Connect(ConnectStage::Start), "-F"),
    ];
    for (stderr, exit, kind, hint) in table {
        let recipe = tool(&format!("printf '%s' '{}' >&2; exit {exit}", stderr.replace('\'', "'\\''")));
        let failure = test.connecting(&recipe).fail();
        assert_eq!(failure.kind, *kind, "{stderr}\n{}", failure.message);
        assert!(failure.hint.contains(hint), "{stderr}\n{}", failure.hint);
        assert!(failure.message.ends_with(&format!(" (ssh exited with status {exit})")), "{}", failure.message);
        assert_eq!(text(&failure), *stderr);
        assert!(failure.message.chars().all(|c| !c.is_control()), "{}", failure.message);
    }
}

#[test]
fn shells_that_run_no_commands_are_told_apart() {
    let test = Test::begin("shells");
    let not_allowed = FailureKind::Auth(AuthFailure::NotAllowed);
    let probe = FailureKind::Connect(ConnectStage::Probe);
    let login = FailureKind::Connect(ConnectStage::Login);
    for (script, kind, message, hint) in [
        (
            "echo 'This account is currently not available.'; exit 1",
            &not_allowed,
            "the account may not do this: This account",
            "another one",
        ),
        ("echo 'rbash: line 1: exec: restricted' >&2; exit 1", &not_allowed, "restricted", "restricted one"),
        (
            "echo 'Welcome to the backup service'",
            &probe,
            "ssh exited with status 0 while waiting for the start marker",
            "forced command",
        ),
        ("", &login, "ssh exited with status 0 while logging in", "forced command"),
        ("exit 7", &login, "ssh exited with status 7 while logging in", ""),
        (
            "echo 'sh: not found' >&2; exit 127",
            &login,
            "ssh exited with status 127 while logging in",
            "no shell at that path",
        ),
        ("kill -9 $$", &login, "ssh was ended by signal 9 while logging in", ""),
        ("exec >&- 2>&-; sleep 60", &login, "ssh closed its output while logging in", ""),
    ] {
        let failure = test.connecting(&tool(script)).fail();
        assert_eq!(failure.kind, *kind, "{script}: {}", failure.message);
        assert!(failure.message.contains(message), "{script}: {}", failure.message);
        assert!(failure.hint.contains(hint), "{script}: {}", failure.hint);
    }
}

#[test]
fn silence_noise_and_questions_end_at_the_deadline_of_their_stage() {
    let test = Test::begin("silence");
    for (script, kind, message, seen) in [
        ("sleep 60", FailureKind::StageTimeout(ConnectStage::Login), "nothing came for 1.0 s while logging in", ""),
        (
            "echo setting up databases; sleep 60",
            FailureKind::StageTimeout(ConnectStage::Probe),
            "nothing came for 1.0 s while waiting for the start marker",
            "setting up databases\n",
        ),
        (
            "while :; do echo tick; sleep 0.1; done",
            FailureKind::StageTimeout(ConnectStage::Probe),
            "the whole connect took longer than 3.0 s while waiting for the start marker",
            "tick\ntick\n",
        ),
        (
            "printf 'Password: ' >&2; sleep 60",
            FailureKind::Auth(AuthFailure::PasswordRequired),
            "the login wants a password or another secret, and none was given: Password:",
            "Password: ",
        ),
        (
            "printf 'login: x\\r\\n(peer1@h) Verification code: '; sleep 60",
            FailureKind::Auth(AuthFailure::PasswordRequired),
            "none was given: (peer1@h) Verification code:",
            "Verification code: ",
        ),
        (
            "printf 'Are you sure you want to continue connecting (yes/no/[fingerprint])? '; sleep 60",
            FailureKind::HostKey(HostKeyFailure::Unknown),
            "the host's key is not known: Are you sure",
            "(yes/no",
        ),
    ] {
        let failure = test.connecting(&hasty(tool(script))).fail();
        assert_eq!(failure.kind, kind, "{script}: {}", failure.message);
        assert!(failure.message.contains(message), "{script}: {}", failure.message);
        assert!(text(&failure).contains(seen), "{script}: {}", text(&failure));
    }
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

#[test]
fn login_errors_behind_a_hop_say_whose_keys_were_used() {
    let test = Test::begin("behind-a-hop");
    let recipe = tool("echo 'p@h: Permission denied (publickey).' >&2; exit 255");
    let failure = test.connecting(&recipe).behind("ssh:jump").fail();
    assert!(failure.hint.contains("this login is made on ssh:jump"), "{}", failure.hint);
    assert!(failure.hint.contains("ProxyJump"), "{}", failure.hint);
    let failure = test.connecting(&recipe).fail();
    assert!(!failure.hint.contains("ProxyJump"), "{}", failure.hint);
}

#[test]
fn s8_what_a_tool_prints_is_escaped_in_messages() {
    let test = Test::begin("escape");
    let recipe = tool("printf 'ssh: \\033]0;x\\007 Could not resolve hostname \\233a\\n' >&2; exit 255");
    let failure = test.connecting(&recipe).fail();
    assert!(failure.message.contains("ssh: \\x1b]0;x\\x07 Could not resolve"), "{}", failure.message);
    assert!(failure.message.chars().chain(failure.hint.chars()).all(|c| !c.is_control()));
}

#[test]
fn a_cancelled_connect_ends_at_once_and_leaves_nothing() {
    let test = Test::begin("cancel");
    let cancel = Cancel::new();
    cancel.cancel();
    let failure = test.connecting(&tool("sleep 60")).cancel(&cancel).fail();
    assert_eq!(failure.kind, FailureKind::Cancelled);

    for recipe in [tool("echo noise; sleep 60"), Local::new().into()] {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(150));
            other.cancel();
            Instant::now()
        });
        let image = Script::new("exec sleep 60");
        let result = test.connecting(&recipe).image(&image).cancel(&cancel).connect();
        let late = thread.join().expect("no panic").elapsed();
        assert_eq!(result.expect_err("a failure").kind, FailureKind::Cancelled);
        assert!(late < Duration::from_millis(300), "ended {late:?} after it was cancelled");
        test.assert_nothing_left(Duration::from_millis(500));
    }
}

#[test]
fn a_connect_that_waits_for_its_agent_can_be_cancelled() {
    struct Waiting;
    impl Payloads for Waiting {
        fn bundle(&self, triple: &str, deadline: Instant, cancel: &Cancel) -> Result<Bundle, Failure> {
            let (send, receive) = std::sync::mpsc::channel();
            let _subscription = cancel.subscribe(move || send.send(()).expect("somebody listens"));
            let other = cancel.clone();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                other.cancel();
            });
            receive.recv_timeout(deadline - Instant::now()).expect("it is cancelled before the deadline");
            thread.join().expect("no panic");
            Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "gave up"))
        }
    }
    let test = Test::begin("cancel-payload");
    let cancel = Cancel::new();
    let failure = test.connecting(&tool("sh -c \"$1\"")).payloads(&Waiting).cancel(&cancel).fail();
    assert_eq!(failure.kind, FailureKind::Cancelled);
    assert_eq!(failure.message, "the connect was cancelled while finding the agent for the target");
}

/// As on kernels before 5.3: a thread watches the tool.
#[test]
fn without_pidfds_a_connect_ends_and_cleans_up_alike() {
    let test = Test::begin("no-pidfd");
    offshoot_mux::fallback::force(offshoot_mux::fallback::NO_PIDFD);
    let failure = test.connecting(&tool("echo 'Connection refused' >&2; exit 255")).connect();
    let link = test.connecting(&after_marker(&format!("printf '{}'; exec sleep 60", octal(&hello(NONCE))))).connect();
    let silent = test.connecting(&hasty(tool("trap '' TERM; sleep 60; :"))).connect();
    offshoot_mux::fallback::force(0);
    assert!(failure.is_err_and(|failure| failure.message.ends_with("(ssh exited with status 255)")));
    drop(Link(link.expect("a link")));
    assert!(silent.is_err_and(|failure| failure.kind == FailureKind::StageTimeout(ConnectStage::Login)));
}

#[test]
fn tools_that_refuse_to_end_are_ended_with_their_whole_group() {
    let test = Test::begin("refuse");
    for script in [
        "trap '' TERM HUP INT; sleep 60 & sleep 60; sleep 60",
        "sleep 60 & kill -STOP $$; sleep 60",
        // The tool ends by itself and leaves something of its group behind, which holds the pipes.
        "sleep 60 & exit 3",
    ] {
        let begun = Instant::now();
        test.connecting(&hasty(tool(script))).connect().expect_err("a failure");
        // A second of silence, and three times what the clean-up may take.
        assert!(begun.elapsed() < Duration::from_secs(7), "{script}: {:?}", begun.elapsed());
        test.assert_nothing_left(Duration::from_millis(200));
    }
}

#[test]
fn without_descriptors_a_connect_fails_alone_and_says_so() {
    let test = Test::begin("descriptors");
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let image = Script::at("/bin/true");
    let mut failures = Vec::new();
    for _ in 0..16 {
        for recipe in [Local::new().into(), tool("exit 3")] {
            failures.push(test.connecting(&recipe).image(&image).connect().expect_err("a failure"));
        }
        hoard.pop();
    }
    drop(hoard);
    let exhausted = |failure: &&Failure| failure.kind == FailureKind::Exhausted(Resource::Descriptors);
    assert!(exhausted(&&failures[0]) && exhausted(&&failures[1]), "{:?}", failures[0]);
    assert!(failures[0].hint.contains("ulimit -n"), "{}", failures[0].hint);
    let count = failures.iter().filter(exhausted).count();
    assert!(count >= 8, "only {count} of {}", failures.len());
    // With enough of them both got as far as they can.
    for failure in &failures[30..] {
        assert!(matches!(failure.kind, FailureKind::Connect(_)), "{failure:?}");
    }
}
