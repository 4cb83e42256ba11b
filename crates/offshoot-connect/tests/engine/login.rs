//! What the texts, exits and silences of a login become.

use offshoot_wire::{AuthFailure, ConnectStage, FailureKind, HostKeyFailure};

use crate::fixture::Test;
use crate::{hasty, text, tool};

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
        ("peer1@127.0.0.1: Permission denied (publickey,password).\r\n", 255, auth(AuthFailure::PasswordRequired), "give the password"),
        ("peer1@127.0.0.1: Permission denied (keyboard-interactive).\r\n", 255, auth(AuthFailure::PasswordRequired), "give the password"),
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
