//! What ssh asks is answered once, by whom it is meant for; what only looks as if it asked is not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use offshoot_tests::bounded::{self, Finished};
use offshoot_tests::expect::code;
use offshoot_tests::{Fleet, Tag, bed, not_run, or_not_run};

const SOON: Duration = Duration::from_secs(30);
const GONE: Duration = Duration::from_secs(12);

/// Runs a command that tells whether input, output and exit codes pass, with somebody to answer.
fn attempt(fleet: &Fleet, tag: &Tag, target: &str) -> Finished {
    fleet
        .offshoot(tag, &["exec", "--password-command", bed::ANSWER, target, "--", "sh", "-c", "cat; id -un; exit 3"])
        .stdin("through stdin\n")
        .run()
}

#[track_caller]
fn works(fleet: &Fleet, done: &Finished, target: &str, account: &str) {
    assert!(done.code == Some(3), "{target}\n{done}\n{}", fleet.logs());
    done.expect_lines(target, &["through stdin", account]);
}

/// A target, who is logged in there, and the hosts and accounts whose passwords sshd sees on the way.
type Login<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

#[test]
fn whatever_ssh_asks_is_answered_once() {
    let name = "whatever_ssh_asks_is_answered_once";
    let tag = Tag::new("answered");
    let fleet = or_not_run!(name, bed::start(&tag));
    let fleet = &fleet;
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    let names = ["p-word", "p-failed", "p-keyboard", "p-both", "p-banner", "p-noisy", "p-slow", "p-tries"];
    let patterns: Vec<(String, String)> = ["h1", "h2"]
        .iter()
        .flat_map(|host| names.iter().map(move |name| (format!("{name}@{host}"), word(host, name))))
        .chain([("*/id_phrase".to_string(), bed::passphrase(fleet))])
        .collect();
    let answers: Vec<(&str, String)> = patterns.iter().map(|(p, a)| (p.as_str(), a.clone())).collect();
    bed::answer(fleet, &answers).unwrap();
    let logins: [Login<'_>; 10] = [
        ("p-word@h2", "p-word", &[("h2", "p-word")]),
        ("p-failed@h1", "p-failed", &[("h1", "p-failed")]),
        ("p-keyboard@h1", "p-keyboard", &[("h1", "p-keyboard")]),
        ("p-banner@h1", "p-banner", &[("h1", "p-banner")]),
        ("p-noisy@h1", "p-noisy", &[("h1", "p-noisy")]),
        ("p-slow@h1", "p-slow", &[("h1", "p-slow")]),
        ("p-tries@h1", "p-tries", &[("h1", "p-tries")]),
        ("phrase", "p-phrase", &[]),
        ("both", "p-both", &[("h1", "p-both")]),
        ("far", "p-word", &[("h1", "p-word"), ("h2", "p-word")]),
    ];
    thread::scope(|scope| {
        for some in logins.chunks(logins.len().div_ceil(3)) {
            let tag = &tag;
            scope.spawn(move || {
                for (target, account, _) in some {
                    works(fleet, &attempt(fleet, tag, target), target, account);
                }
            });
        }
    });
    for host in ["h1", "h2"] {
        for name in names {
            let expected = logins.iter().flat_map(|(.., seen)| *seen).filter(|seen| **seen == (host, name)).count();
            assert_eq!(bed::passwords_seen(fleet, host, name), expected, "{name}@{host}\n{}", fleet.logs());
        }
    }
    assert!(!fleet.logs().contains(fleet.accounts().secret()));
    let asked = bed::asked(fleet);
    // Two ways lead through p-word@h1 and p-word@h2, but in different runs; one needs its own answer for key and account.
    assert_eq!(asked.len(), 12, "{asked:?}");
    // What the login printed looks like a prompt, and it read what came.
    assert_eq!(fleet.on("h1", "cat /home/p-noisy/got").out(), "got:\n");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_wrong_secret_is_tried_once_and_is_an_error_that_says_so() {
    let name = "a_wrong_secret_is_tried_once_and_is_an_error_that_says_so";
    let tag = Tag::new("wrong");
    let fleet = or_not_run!(name, bed::start(&tag));
    let fleet = &fleet;
    let wrong = format!("{} is wrong", fleet.accounts().secret());
    bed::answer(fleet, &[("p-word@h1", fleet.accounts().password("h1", "p-word")), ("*", wrong)]).unwrap();
    // A target, and whose password sshd sees once; what the error says.
    let logins: [(&str, &str, &[&str]); 6] = [
        ("p-slow@h1", "p-slow", &["p-slow@h1", "password is wrong"]),
        ("p-keyboard@h1", "p-keyboard", &["p-keyboard@h1", "password is wrong"]),
        ("p-tries@h1", "p-tries", &["p-tries@h1", "password is wrong"]),
        ("p-failed@h1", "p-failed", &["p-failed@h1", "password is wrong"]),
        ("phrase", "p-phrase", &["phrase", "wrong"]),
        // The jump's password is right, the target's is not.
        ("far", "p-word", &["far", "password is wrong"]),
    ];
    thread::scope(|scope| {
        for (target, _, said) in &logins {
            let tag = &tag;
            scope.spawn(move || {
                let done = attempt(fleet, tag, target);
                done.expect_error(code::OURS, said);
                assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
            });
        }
    });
    for (target, account, _) in &logins {
        let (host, expected) = match *target {
            "phrase" => ("h1", 0),
            "far" => ("h2", 1),
            _ => ("h1", 1),
        };
        assert_eq!(bed::passwords_seen(fleet, host, account), expected, "{target}\n{}", fleet.logs());
    }
    let asked = bed::asked(fleet);
    assert_eq!(asked.len(), logins.len() + 1, "{asked:?}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn no_secret_goes_to_a_host_whose_key_is_unknown_or_has_changed() {
    let name = "no_secret_goes_to_a_host_whose_key_is_unknown_or_has_changed";
    let tag = Tag::new("strange");
    let fleet = or_not_run!(name, bed::start(&tag));
    bed::answer(&fleet, &[("*", fleet.accounts().password("h1", "p-strange"))]).unwrap();
    for (target, said) in [("unknown", "unknown"), ("changed", "changed"), ("careless", "changed")] {
        let done = attempt(&fleet, &tag, target);
        done.expect_error(code::OURS, &["host key", said, target]);
        // With a hop before it as well.
        let done = attempt(&fleet, &tag, &format!("root@h2/{target}"));
        done.expect_error(code::OURS, &["host key", said, target]);
    }
    for host in ["h1", "h2"] {
        assert_eq!(bed::passwords_seen(&fleet, host, "p-strange"), 0, "{}", fleet.logs());
    }
    let asked = bed::asked(&fleet);
    assert!(!asked.iter().any(|account| account.contains("p-strange")), "{asked:?}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_login_that_goes_on_to_something_else_gets_nothing_and_says_what_it_was() {
    let name = "a_login_that_goes_on_to_something_else_gets_nothing_and_says_what_it_was";
    let tag = Tag::new("else");
    let fleet = or_not_run!(name, bed::start(&tag));
    let accounts = ["p-forced", "p-nologin", "p-stale", "p-ended"];
    let patterns: Vec<(String, String)> =
        accounts.iter().map(|name| (format!("{name}@h1"), fleet.accounts().password("h1", name))).collect();
    let answers: Vec<(&str, String)> = patterns.iter().map(|(p, a)| (p.as_str(), a.clone())).collect();
    bed::answer(&fleet, &answers).unwrap();
    for (account, said) in [
        ("p-forced", "password:"),
        ("p-nologin", "account is currently not available"),
        ("p-stale", "password has expired"),
        ("p-ended", "connection closed"),
    ] {
        let done = attempt(&fleet, &tag, &format!("{account}@h1"));
        done.expect_error(code::OURS, &[account, said]);
        assert_eq!(bed::passwords_seen(&fleet, "h1", account), 1, "{account}\n{}", fleet.logs());
    }
    // What the forced command printed looks like a prompt, and it reads what comes.
    let got = fleet.on("h1", "cat /home/p-forced/got").out();
    assert!(!got.contains(fleet.accounts().secret()), "{got:?}");
    assert_eq!(bed::asked(&fleet), accounts.map(|account| format!("{account}@h1")));
    tag.assert_nothing_left(GONE);
}

#[test]
fn without_anybody_to_ask_it_ends_at_once_and_says_what_to_do() {
    let name = "without_anybody_to_ask_it_ends_at_once_and_says_what_to_do";
    let tag = Tag::new("nobody");
    let fleet = or_not_run!(name, bed::start(&tag));
    let nobody = |target: &str| {
        let done = fleet.offshoot(&tag, &["exec", target, "--", "true"]).run();
        done.expect_error(code::OURS, &["none was given", "--password-"]);
    };
    for target in ["p-word@h1", "p-keyboard@h1", "root@h2/p-word@h1"] {
        nobody(target);
    }
    for account in ["p-word", "p-keyboard"] {
        assert_eq!(bed::passwords_seen(&fleet, "h1", account), 0, "{}", fleet.logs());
    }
    // The ssh that leads to a jump host learns nothing of our options: it is heard asking, and sends no empty password.
    nobody("far");
    assert_eq!(bed::passwords_seen(&fleet, "h1", "p-word"), 0, "{}", fleet.logs());
    // ssh does not tell that a key would have done with its passphrase.
    fleet
        .offshoot(&tag, &["exec", "phrase", "--", "true"])
        .run()
        .expect_error(code::OURS, &["no key was accepted", "phrase"]);
    tag.assert_nothing_left(GONE);
}

/// A text without the sequences that set colours.
fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[test]
fn on_a_terminal_each_account_is_asked_for_once_and_nothing_is_shown() {
    let name = "on_a_terminal_each_account_is_asked_for_once_and_nothing_is_shown";
    let tag = Tag::new("terminal");
    let fleet = or_not_run!(name, bed::start(&tag));
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    // Through a host by a password, to an account by sudo's password, and on; and a second way that needs the first password too.
    let target = "p-word@h1/sudo-pw@h2/sudo:goal/h1";
    let mut terminal =
        fleet.offshoot_on_terminal(&tag, &["exec", target, "far", "--", "sh", "-c", "id -un; test -t 0 || exit 3"]);
    let mut asked = Vec::new();
    for _ in 0..3 {
        terminal.await_text("password of ", SOON);
        let whose = terminal.await_text(": ", SOON);
        let account = whose.split(' ').next().unwrap_or_default().to_string();
        terminal.type_line(&match account.as_str() {
            "p-word@h1" => word("h1", "p-word"),
            "p-word@h2" => word("h2", "p-word"),
            "sudo-pw" => word("h2", "sudo-pw"),
            other => panic!("{other:?} is asked for: {}", terminal.shown()),
        });
        asked.push(account);
    }
    let done = terminal.finish(SOON);
    done.expect_code(3);
    asked.sort();
    assert_eq!(asked, ["p-word@h1", "p-word@h2", "sudo-pw"]);
    assert_eq!(done.out().matches("password of ").count(), 3, "{done}");
    let shown = without_colours(&done.out());
    assert!(shown.contains(&format!("{target}: root\r\n")) && shown.contains("far: p-word\r\n"), "{done}");
    assert!(!done.out().contains(fleet.accounts().secret()) && done.restored_terminal(), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_code_behind_the_password_is_another_question_and_no_password_is_an_answer_to_it() {
    let name = "a_code_behind_the_password_is_another_question_and_no_password_is_an_answer_to_it";
    let tag = Tag::new("codes");
    let fleet = or_not_run!(name, bed::one(&tag));
    if let Err(reason) = bed::want_codes(&fleet) {
        tag.assert_nothing_left(GONE);
        not_run!(name, reason);
    }
    let accounts = [("p-code", "verification code:"), ("p-otp", "one-time password (oath) for `p-otp':")];
    let answers = accounts.map(|(account, _)| (format!("{account}@h1"), fleet.accounts().password("h1", account)));
    bed::answer(&fleet, &answers.each_ref().map(|(whose, answer)| (whose.as_str(), answer.clone()))).unwrap();
    // A program's own responder knows both.
    let vault = format!(
        "#!/bin/sh\nif [ -n \"$OFFSHOOT_QUESTION\" ]; then echo {}; else exec {}; fi\n",
        bed::CODE,
        bed::ANSWER
    );
    let path = fleet.shared().join("vault");
    fs::write(&path, vault).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755))).unwrap();
    for (account, question) in accounts {
        let target = format!("{account}@h1");
        let done = fleet.example(&tag, "passwords", &["/run/fixture/vault", &target, "--", "id", "-un"]).run();
        assert!(done.code == Some(0) && done.out() == format!("{account}\n"), "{done}\n{}", fleet.logs());
        assert_eq!(bed::passwords_seen(&fleet, "h1", account), 1, "{}", fleet.logs());
        // A command that gives passwords is not asked, nor is anything else typed.
        let done = attempt(&fleet, &tag, &target);
        done.expect_error(code::OURS, &[&target, "none was given", question]);
        assert_eq!(bed::asked(&fleet), [target.as_str(); 2], "{done}");
        assert_eq!(bed::passwords_seen(&fleet, "h1", account), 1, "{}", fleet.logs());
    }
    // By a user: the password once in a run, a code each time. What is typed is shown where the host wants it shown.
    let address = fleet.sshd("h1").address().0;
    fleet.add_to_config(&format!("Host again\n  HostName {address}\n  HostKeyAlias h1\n  User p-otp")).unwrap();
    let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", "p-otp@h1", "again", "--", "id", "-un"]);
    terminal.await_text("password of p-otp@h1", SOON);
    terminal.type_line(&fleet.accounts().password("h1", "p-otp"));
    for _ in 0..2 {
        terminal.await_text("for `p-otp': ", SOON);
        terminal.type_line(bed::CODE);
    }
    let done = terminal.finish(SOON);
    assert!(done.code == Some(0) && done.restored_terminal(), "{done}");
    assert_eq!(done.out().matches("password of ").count(), 1, "{done}");
    assert_eq!(done.out().matches(bed::CODE).count(), 2, "{done}");
    // An account that gets no terminal from sshd has one from us.
    for (typed, expected) in [(bed::CODE, 3), ("000000", code::OURS)] {
        let script = "test -t 0 && id -un && exit 3";
        let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", "--tty", "p-code@h1", "--", "sh", "-c", script]);
        terminal.await_text("password of p-code@h1", SOON);
        terminal.type_line(&fleet.accounts().password("h1", "p-code"));
        terminal.await_text("Verification code: ", SOON);
        terminal.type_line(typed);
        let done = terminal.finish(SOON);
        assert!(done.code == Some(expected) && done.restored_terminal(), "{typed}\n{done}");
        assert!(!done.out().contains(typed), "{done}");
        let shown = without_colours(&done.out());
        let told = if expected == 3 { "p-code\r\n" } else { "the answer was not accepted" };
        assert!(shown.contains(told) && !shown.contains("password is wrong"), "{typed}\n{done}");
    }
    assert_eq!(bed::passwords_seen(&fleet, "h1", "p-code"), 3, "{}", fleet.logs());
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_user_who_gives_up_at_a_prompt_gets_the_terminal_back() {
    let name = "a_user_who_gives_up_at_a_prompt_gets_the_terminal_back";
    let tag = Tag::new("gives-up");
    let fleet = or_not_run!(name, bed::start(&tag));
    // Also behind a hop, where the question is put by who waits for its connect.
    for (target, asks) in [("p-word@h1", "password of p-word@h1"), ("sudo-pw@h1/sudo:goal", "password of sudo-pw")] {
        let ways = [("\x03", code::INTERRUPTED), ("\x1c", code::QUIT), ("\x04", code::OURS), ("wrong\r", code::OURS)];
        for (keys, expected) in ways {
            let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", target, "--", "true"]);
            terminal.await_text(asks, SOON);
            terminal.await_text(": ", SOON);
            terminal.type_keys(keys);
            let done = terminal.finish(SOON);
            assert!(done.code == Some(expected), "{target}: {}\n{done}", keys.escape_default());
            assert!(done.restored_terminal(), "{target}: {}\n{done}", keys.escape_default());
            assert_eq!(done.out().matches(asks).count(), 1, "{target}: {}\n{done}", keys.escape_default());
        }
    }
    assert_eq!(bed::passwords_seen(&fleet, "h1", "p-word"), 1, "{}", fleet.logs());
    tag.assert_nothing_left(GONE);
}

#[test]
fn an_answer_that_comes_after_the_hosts_patience_is_an_error_that_says_so() {
    let name = "an_answer_that_comes_after_the_hosts_patience_is_an_error_that_says_so";
    let tag = Tag::new("too-late");
    let fleet = or_not_run!(name, bed::impatient(&tag, 3));
    let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", "p-word@h1", "--", "true"]);
    terminal.await_text("password of p-word@h1", SOON);
    terminal.await_text(": ", SOON);
    // It says nothing in its log: a signal handler of its ends it.
    assert!(bounded::eventually(SOON, || fleet.sshd("h1").sessions().is_empty()), "{}", fleet.logs());
    terminal.type_line(&fleet.accounts().password("h1", "p-word"));
    let done = terminal.finish(SOON);
    assert!(done.code == Some(code::OURS) && done.restored_terminal(), "{done}");
    let shown = without_colours(&done.out());
    assert!(shown.contains("p-word@h1") && shown.contains("LoginGraceTime"), "{shown}");
    assert_eq!(bed::passwords_seen(&fleet, "h1", "p-word"), 0, "{}", fleet.logs());
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_host_key_is_a_question_for_the_user_and_its_password_comes_after() {
    let name = "a_host_key_is_a_question_for_the_user_and_its_password_comes_after";
    let tag = Tag::new("key-asked");
    let fleet = or_not_run!(name, bed::start(&tag));
    for (answer, expected) in [("no", code::OURS), ("yes", 0)] {
        let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", "unknown", "--", "true"]);
        let shown = terminal.await_text("(yes/no", SOON);
        assert!(shown.contains("SHA256:"), "{shown:?}");
        terminal.type_line(answer);
        if answer == "yes" {
            terminal.await_text("password of ", SOON);
            terminal.type_line(&fleet.accounts().password("h1", "p-strange"));
        }
        let done = terminal.finish(SOON);
        assert!(done.code == Some(expected) && done.restored_terminal(), "{answer}\n{done}");
        let seen = bed::passwords_seen(&fleet, "h1", "p-strange");
        assert_eq!(seen, usize::from(answer == "yes"), "{}", fleet.logs());
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_host_key_is_asked_for_again_after_another_word_and_also_behind_a_jump() {
    let name = "a_host_key_is_asked_for_again_after_another_word_and_also_behind_a_jump";
    let tag = Tag::new("key-again");
    let fleet = or_not_run!(name, bed::start(&tag));
    let h2 = fleet.sshd("h2").address().0;
    // h1's key is known under its own name: ssh says so, between what it asks.
    fleet
        .add_to_config(&format!(
            "Host farther\n  HostName {h2}\n  HostKeyAlias seen-nowhere\n  User p-strange\n  ProxyJump root@h1\n  StrictHostKeyChecking ask"
        ))
        .unwrap();
    for (target, host) in [("unknown", "h1"), ("farther", "h2")] {
        let mut terminal = fleet.offshoot_on_terminal(&tag, &["exec", target, "--", "true"]);
        let shown = terminal.await_text("(yes/no", SOON);
        assert!(shown.contains("SHA256:"), "{shown:?}");
        if target == "unknown" {
            assert!(shown.contains("known by the following other names"), "{shown:?}");
            terminal.type_line("perhaps");
            terminal.await_text("Please type 'yes'", SOON);
        }
        terminal.type_line("yes");
        terminal.await_text("password of ", SOON);
        terminal.type_line(&fleet.accounts().password(host, "p-strange"));
        let done = terminal.finish(SOON);
        assert!(done.code == Some(0) && done.restored_terminal(), "{target}\n{done}");
    }
    // Nobody to ask: the same hosts are refused, and nothing secret has gone anywhere.
    let done = fleet.offshoot(&tag, &["exec", "changed", "--", "true"]).run();
    done.expect_error(code::OURS, &["host key", "changed"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_jump_host_that_refuses_is_named_and_its_target_is_asked_nothing() {
    let name = "a_jump_host_that_refuses_is_named_and_its_target_is_asked_nothing";
    let tag = Tag::new("jumpno");
    let fleet = or_not_run!(name, bed::start(&tag));
    let wrong = format!("{} is wrong", fleet.accounts().secret());
    bed::answer(&fleet, &[("p-word@h1", wrong), ("*", fleet.accounts().password("h2", "p-word"))]).unwrap();
    let done = attempt(&fleet, &tag, "far");
    done.expect_error(code::OURS, &["password", "wrong", "p-word@h1"]);
    assert!(!done.err().contains(fleet.accounts().secret()), "{done}");
    assert_eq!(bed::passwords_seen(&fleet, "h1", "p-word"), 1, "{}", fleet.logs());
    assert_eq!(bed::passwords_seen(&fleet, "h2", "p-word"), 0, "{}", fleet.logs());
    assert_eq!(bed::asked(&fleet), ["p-word@h1"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_descriptor_gives_one_secret_for_all() {
    let name = "a_descriptor_gives_one_secret_for_all";
    let tag = Tag::new("descriptor");
    let fleet = or_not_run!(name, bed::start(&tag));
    fs::write(fleet.shared().join("word"), fleet.accounts().password("h1", "p-word") + "\nnot this\n").unwrap();
    let offshoot = offshoot_tests::product::binary().display().to_string();
    let script = format!("exec {offshoot} exec --password-fd 3 p-word@h1 -- cat 3</run/fixture/word");
    let done = bounded::run(fleet.command("sh").args(["-c", &script]), Some(b"input".to_vec()), SOON);
    done.expect_code(0).expect_lines("p-word@h1", &["input"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_doctor_asks_for_passwords_too() {
    let name = "the_doctor_asks_for_passwords_too";
    let tag = Tag::new("doctorasks");
    let fleet = or_not_run!(name, bed::start(&tag));
    let mut terminal = fleet.offshoot_on_terminal(&tag, &["doctor", "p-word@h1"]);
    terminal.await_text("password of ", SOON);
    terminal.type_line(&fleet.accounts().password("h1", "p-word"));
    let done = terminal.finish(SOON);
    assert!(done.code == Some(0) && done.restored_terminal(), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn in_a_multiplexer_a_password_is_typed_unseen_and_the_shell_gets_its_terminal_back() {
    let name = "in_a_multiplexer_a_password_is_typed_unseen_and_the_shell_gets_its_terminal_back";
    if bounded::find_program("tmux").is_none() {
        not_run!(name, "tmux is not installed");
    }
    let tag = Tag::new("tmux");
    let fleet = or_not_run!(name, bed::start(&tag));
    offshoot_tests::product::agents();
    fleet.on("control", "mkdir /tmp/tmux").expect_code(0);
    let tmux = |arguments: &[&str]| {
        let mut command = fleet.command("tmux");
        command.env("TMUX_TMPDIR", "/tmp/tmux").args(["-L", "fixture", "-f", "/dev/null"]).args(arguments);
        bounded::run(&mut command, None, SOON)
    };
    tmux(&["new-session", "-d", "-x", "150", "-y", "40", "sh"]).expect_code(0);
    let type_line = |line: &str| {
        tmux(&["send-keys", "-l", line]).expect_code(0);
        tmux(&["send-keys", "Enter"]).expect_code(0);
    };
    let await_screen = |text: &str| {
        let mut screen = String::new();
        let came = bounded::eventually(SOON, || {
            screen = tmux(&["capture-pane", "-p"]).out();
            screen.contains(text)
        });
        assert!(came, "{text:?} is not on the screen:\n{screen}");
        screen
    };
    let offshoot = offshoot_tests::product::binary().display();
    type_line(&format!("{offshoot} exec p-word@h1 -- id -un; echo code $?"));
    await_screen("password of p-word@h1 (ssh:p-word@h1):");
    type_line(&fleet.accounts().password("h1", "p-word"));
    await_screen("p-word@h1: p-word");
    await_screen("code 0");
    // Through a host by a password, to an account by sudo's, and on to a host behind it.
    let four = "p-word@h1/sudo-pw@h2/sudo:goal/h1";
    type_line("clear");
    type_line(&format!("{offshoot} exec {four} -- id -un; echo four $?"));
    await_screen("password of p-word@h1 (ssh:p-word@h1):");
    type_line(&fleet.accounts().password("h1", "p-word"));
    await_screen("password of sudo-pw (");
    type_line(&fleet.accounts().password("h2", "sudo-pw"));
    await_screen(&format!("{four}: root"));
    await_screen("four 0");
    // What is typed is shown again.
    type_line("echo 'sho''wn'");
    let screen = await_screen("\nshown");
    assert!(screen.contains("echo 'sho''wn'") && !screen.contains(fleet.accounts().secret()), "{screen}");
    tmux(&["kill-server"]).expect_code(0);
    fleet.on("control", "rm -rf /tmp/tmux");
    tag.assert_nothing_left(GONE);
}
