//! What ssh, sudo, su and doas themselves ask, on real terminals: the fixtures must be what they claim before a test of the product may lean on them.

use std::time::Duration;

use offshoot_tests::bounded::{self, Finished, find_program};
use offshoot_tests::{Fleet, Host, Peer, Profile, Tag, Terminal, bed, not_run, or_not_run};

const SOON: Duration = Duration::from_secs(20);

/// Runs ssh itself on a terminal; at each prompt, what is typed.
fn ssh(fleet: &Fleet, target: &str, command: &str, dialogue: &[(&str, &str)]) -> Finished {
    let mut ssh = fleet.on_terminal("ssh");
    let mut terminal = Terminal::start(ssh.arg("-F").arg(fleet.config()).args(["-T", target, command]));
    for (prompt, answer) in dialogue {
        terminal.await_text(prompt, SOON);
        terminal.type_line(answer);
    }
    terminal.finish(SOON)
}

/// One login by ssh itself.
struct Login {
    target: &'static str,
    /// What is typed behind which text.
    dialogue: Vec<(String, String)>,
    code: i32,
    shown: &'static str,
}

impl Login {
    fn to(target: &'static str) -> Login {
        Login { target, dialogue: Vec::new(), code: 0, shown: "it ran" }
    }

    fn asks(mut self, text: &str, answer: &str) -> Login {
        self.dialogue.push((text.into(), answer.into()));
        self
    }

    fn ends(mut self, code: i32, shown: &'static str) -> Login {
        (self.code, self.shown) = (code, shown);
        self
    }
}

#[test]
fn ssh_itself_asks_as_the_fixture_says() {
    let name = "ssh_itself_asks_as_the_fixture_says";
    let tag = Tag::new("asks");
    let fleet = or_not_run!(name, bed::start(&tag));
    let fleet = &fleet;
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    let phrase = bed::passphrase(fleet);
    // The host in a prompt is the name that its key is known by.
    let ask = |target: &'static str| {
        let account = target.split('@').next().unwrap_or_default();
        Login::to(target).asks(&format!("{account}@h1's password: "), &word("h1", account))
    };
    let logins = [
        ask("p-word@h1"),
        Login::to("p-word@h1")
            .asks("password: ", "wrong")
            .asks("try again.\r\r\n\rp-word@h1's password: ", &word("h1", "p-word")),
        Login::to("p-keyboard@h1")
            .asks("\r(p-keyboard@h1) Password: ", "wrong")
            .asks("\n\r(p-keyboard@h1) Password: ", &word("h1", "p-keyboard")),
        Login::to("phrase").asks("Enter passphrase for key '/run/fixture/id_phrase': ", &phrase),
        Login::to("both").asks("Enter passphrase for key", &phrase).asks("p-both@h1's", &word("h1", "p-both")),
        Login::to("p-tries@h1").asks("password: ", "wrong").ends(255, "Too many authentication failures"),
        // The banner comes first, and looks the same.
        Login::to("p-banner@h1")
            .asks("authorised.\r\np-banner@h1's password: \rp-banner@h1's password: ", &word("h1", "p-banner")),
        ask("p-failed@h1"),
        ask("p-noisy@h1").ends(0, "asks for a password.\r\nPassword: "),
        ask("p-forced@h1").ends(0, "done"),
        ask("p-nologin@h1").ends(1, "not available"),
        ask("p-stale@h1").ends(1, "Password change required but no TTY available."),
        ask("p-ended@h1").ends(255, "Connection closed"),
        Login::to("far")
            .asks("p-word@h1's password: ", &word("h1", "p-word"))
            .asks("p-word@h2's password: ", &word("h2", "p-word")),
        Login::to("unknown").asks("(yes/no/[fingerprint])? ", "no").ends(255, "Host key verification failed."),
        Login::to("changed").ends(255, "REMOTE HOST IDENTIFICATION HAS CHANGED!"),
        Login::to("careless").ends(255, "Password authentication is disabled to avoid man-in-the-middle attacks."),
    ];
    std::thread::scope(|scope| {
        for Login { target, dialogue, code, shown } in &logins {
            scope.spawn(move || {
                let dialogue: Vec<(&str, &str)> = dialogue.iter().map(|(p, a)| (p.as_str(), a.as_str())).collect();
                let done = ssh(fleet, target, "echo it ran", &dialogue);
                assert!(done.code == Some(*code) && done.out().contains(shown), "{target}\n{done}\n{}", fleet.logs());
                assert!(done.restored_terminal() && !done.out().contains(fleet.accounts().secret()), "{done}");
            });
        }
    });
    assert_eq!(bed::passwords_seen(fleet, "h1", "p-tries"), 1, "{}", fleet.logs());
    assert_eq!(bed::passwords_seen(fleet, "h1", "p-keyboard"), 2, "{}", fleet.logs());
    assert!(!fleet.logs().contains(fleet.accounts().secret()));
    // What only looks like a prompt reads what comes, so that an answer to it would be seen.
    if let Some(h1) = fleet.host("h1") {
        let answered = Some(b"answered\n".to_vec());
        bounded::run(h1.command_as("p-noisy", "bash").args(["-c", ". ~/.bashrc"]), answered, SOON).expect_code(0);
    }
    assert_eq!(fleet.on("h1", "cat /home/p-noisy/got").out(), "got:\ngot:answered\n");
    if let Err(reason) = bed::want_codes(fleet) {
        not_run::report(&format!("{name}::codes"), &reason.to_string());
    } else {
        let password = "\r(p-code@h1) Password: ";
        let code = "\r(p-code@h1) Verification code: ";
        let right = word("h1", "p-code");
        let dialogue = [(password, right.as_str()), (code, "000000"), (password, &right), (code, bed::CODE)];
        let done = ssh(fleet, "p-code@h1", "echo it ran", &dialogue);
        assert!(done.code == Some(0) && done.out().contains("it ran") && !done.out().contains(bed::CODE), "{done}");
        let asks = [
            ("\r(p-otp@h1) Password: ", word("h1", "p-otp")),
            ("\r(p-otp@h1) One-time password (OATH) for `p-otp': ", bed::CODE.to_string()),
        ];
        let done =
            ssh(fleet, "p-otp@h1", "echo it ran", &asks.each_ref().map(|(prompt, answer)| (*prompt, answer.as_str())));
        assert!(done.code == Some(0) && done.out().contains(&format!("': {}\r\n", bed::CODE)), "{done}");
        // The former gets no terminal of sshd.
        let mut forced = fleet.on_terminal("ssh");
        let mut terminal = Terminal::start(forced.arg("-F").arg(fleet.config()).args(["-tt", "p-code@h1", "true"]));
        for (prompt, answer) in [(password, right.as_str()), (code, bed::CODE)] {
            terminal.await_text(prompt, SOON);
            terminal.type_line(answer);
        }
        let done = terminal.finish(SOON);
        assert!(done.code == Some(255) && done.out().contains("PTY allocation request failed"), "{done}");
    }
    // A key alone gets nobody in where a password is wanted, and no terminal means no prompt.
    let done = bounded::run(&mut fleet.ssh(&["p-word@h1", "true"]), None, SOON);
    done.expect_code(255);
    tag.assert_nothing_left(SOON);
}
/// The machine's own files that making accounts changes.
fn own_files() -> Vec<Vec<u8>> {
    ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/motd", "/etc/pam.d/sudo", "/etc/doas.conf"]
        .iter()
        .map(|path| std::fs::read(path).unwrap_or_default())
        .collect()
}

/// One run of sudo itself, or of what does its work, on a terminal.
struct Case<'a> {
    account: &'static str,
    program: &'static str,
    options: &'a [&'static str],
    /// What is typed behind which text.
    dialogue: Vec<(&'static str, String)>,
    code: i32,
    shown: &'static str,
}

impl<'a> Case<'a> {
    fn of(account: &'static str, options: &'a [&'static str]) -> Case<'a> {
        Case { account, program: "sudo", options, dialogue: Vec::new(), code: 0, shown: "0\r\n" }
    }

    fn with(mut self, program: &'static str) -> Case<'a> {
        self.program = program;
        self
    }

    fn answer(self, answer: &str) -> Case<'a> {
        self.answer_to("TOKEN ", answer)
    }

    fn answer_to(mut self, prompt: &'static str, answer: &str) -> Case<'a> {
        self.dialogue.push((prompt, answer.into()));
        self
    }

    fn ends(mut self, code: i32, shown: &'static str) -> Case<'a> {
        (self.code, self.shown) = (code, shown);
        self
    }

    fn run(&self, host: &Host) -> Finished {
        let mut terminal = Terminal::start(host.on_terminal_as(self.account, self.program).args(self.options));
        for (prompt, answer) in &self.dialogue {
            terminal.await_text(prompt, SOON);
            terminal.type_line(answer);
        }
        terminal.finish(SOON)
    }
}

/// Runs them side by side, and asserts what they say.
fn run_all(cases: &[Case<'_>], host: &Host, secret: &str) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                let done = case.run(host);
                let Case { account, options, code, shown, .. } = case;
                assert!(done.code == Some(*code) && done.out().contains(shown), "{account} {options:?}\n{done}");
                assert!(done.restored_terminal() && !done.out().contains(secret), "{done}");
            });
        }
    });
}

#[test]
fn the_accounts_are_what_they_say_and_the_machine_stays_as_it_is() {
    let name = "the_accounts_are_what_they_say_and_the_machine_stays_as_it_is";
    let before = own_files();
    let tag = Tag::new("accounts");
    let fleet = or_not_run!(name, bed::one(&tag));
    let host = fleet.host("h1").unwrap();
    let secret = fleet.accounts().secret();
    let password = |account: &str| fleet.accounts().password("h1", account);
    let id = ["-p", "TOKEN ", "id", "-u"];
    let right = |account: &'static str| Case::of(account, &id).answer(&password(account));
    let cases = [
        Case::of("sudo-nopass", &["id", "-u"]),
        right("sudo-pw"),
        Case::of("sudo-pw", &id).answer("wrong").answer(&password("sudo-pw")).ends(0, "Sorry, try again."),
        Case::of("sudo-pw", &["-n", "id"]).ends(1, "sudo: a password is required"),
        right("sudo-lecture").ends(0, "Respect the privacy of others."),
        Case::of("sudo-tty", &["id", "-u"]),
        right("sudo-ttypw"),
        Case::of("sudo-nopty", &["-p", "TOKEN ", "tty"]).answer(&password("sudo-nopty")).ends(0, "/dev/pts/"),
        right("sudo-log"),
        right("sudo-stars").ends(0, "**********"),
        right("sudo-prompt"),
        right("sudo-override"),
        Case::of("sudo-prompt", &["id", "-u"]).answer_to(" bitte: ", &password("sudo-prompt")),
        Case::of("sudo-one", &["id", "-u"]),
        Case::of("sudo-one", &["-p", "TOKEN ", "ls", "/"])
            .answer(&password("sudo-one"))
            .ends(1, "is not allowed to execute"),
        right("sudo-none").ends(1, "is not in the sudoers file"),
        Case::of("sudo-pw", &["-u", "nobody-here", "id"]).ends(1, "unknown user"),
        Case::of("sudo-target", &id).answer(&password("root")),
        Case::of("sudo-root", &id).answer(&password("root")),
        Case::of("sudo-once", &id).answer("wrong").ends(1, "1 incorrect password attempt"),
        Case::of("sudo-insults", &id).answer("wrong").answer(&password("sudo-insults")),
        right("sudo-ended").ends(1, "account validation failure"),
        Case::of(
            "sudo-keep",
            &["-p", "TOKEN ", "sh", "-c", "sudo -n -u sudo-keep id -u sudo-keep >/dev/null && id -u"],
        )
        .answer(&password("sudo-keep")),
        Case::of("sudo-pw", &["-p", "TOKEN ", "-u", "goal", "id", "-un"])
            .answer(&password("sudo-pw"))
            .ends(0, "goal\r\n"),
    ];
    run_all(&cases, host, secret);
    // A terminal is what it wants; a pipe is not one.
    let mut piped = host.command_as("sudo-tty", "sudo");
    let piped = bounded::run(piped.args(["id"]), None, SOON);
    piped.expect_code(1);
    assert!(piped.err().contains("you must have a tty"), "{piped}");
    assert!(before == own_files(), "the machine's own files have changed");
    tag.assert_nothing_left(SOON);
}

#[test]
fn sudo_rs_asks_as_the_fixture_says() {
    let name = "sudo_rs_asks_as_the_fixture_says";
    let tag = Tag::new("sudors");
    let peer = Peer::new("h1").profile(Profile::Accounts).profile(Profile::SudoRs);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[peer]));
    let host = fleet.host("h1").unwrap();
    let password = |account: &str| fleet.accounts().password("h1", account);
    let id = ["-p", "TOKEN ", "id", "-u"];
    // The token is not alone in its line, and not at its end.
    let right = |account: &'static str| Case::of(account, &id).answer_to("TOKEN ", &password(account));
    let cases = [
        Case::of("sudo-nopass", &["id", "-u"]),
        right("sudo-pw"),
        right("sudo-nopty"),
        right("sudo-stars"),
        right("sudo-pw").ends(0, "[sudo: TOKEN ] Password: "),
        Case::of("sudo-pw", &id)
            .answer("wrong")
            .answer(&password("sudo-pw"))
            .ends(0, "Authentication failed, try again"),
        Case::of("sudo-pw", &["-n", "id"]).ends(1, "interactive authentication is required"),
        Case::of("sudo-none", &id).ends(1, "I'm sorry sudo-none"),
    ];
    run_all(&cases, host, fleet.accounts().secret());
    tag.assert_nothing_left(SOON);
}

#[test]
fn sudo_itself_speaks_the_language_of_the_login() {
    let name = "sudo_itself_speaks_the_language_of_the_login";
    let tag = Tag::new("language");
    let fleet = or_not_run!(name, bed::one(&tag));
    if let Err(reason) = bed::speak_german(&fleet) {
        tag.assert_nothing_left(SOON);
        not_run!(name, reason);
    }
    let host = fleet.host("h1").unwrap();
    let password = fleet.accounts().password("h1", "sudo-pw");
    let options = ["LC_ALL=de_DE.UTF-8", "sudo", "-p", "TOKEN ", "id", "-u"];
    let mut terminal = Terminal::start(host.on_terminal_as("sudo-pw", "env").args(options));
    terminal.await_text("TOKEN ", SOON);
    terminal.type_line("falsch");
    let shown = terminal.await_text("TOKEN ", SOON);
    terminal.type_line(&password);
    terminal.finish(SOON).expect_code(0);
    assert!(shown.contains("bitte nochmal probieren"), "{shown:?}");
    tag.assert_nothing_left(SOON);
}

#[test]
fn su_and_doas_ask_as_the_fixture_says() {
    let name = "su_and_doas_ask_as_the_fixture_says";
    let tag = Tag::new("su");
    let fleet = or_not_run!(name, bed::one(&tag));
    let host = fleet.host("h1").unwrap();
    let password = |account: &str| fleet.accounts().password("h1", account);
    let su = |asked: &str| Case::of("sudo-none", &["goal", "-c", "id -un"]).with("su").answer_to("Password: ", asked);
    let doas = |account: &'static str| Case::of(account, &["id", "-u"]).with("doas");
    let mut cases = vec![su(&password("goal")).ends(0, "goal\r\n"), su("wrong").ends(1, "su: Authentication failure")];
    if find_program("doas").is_some() {
        cases.extend([
            doas("doas-pw").answer_to("\rdoas (doas-pw@h1) password: ", &password("doas-pw")),
            doas("doas-pw").answer_to("password: ", "wrong").ends(1, "doas: Authentication failed"),
            doas("doas-nopass"),
            doas("doas-none").ends(1, "doas: Operation not permitted"),
        ]);
    } else {
        not_run::report(&format!("{name}::doas"), "doas is not installed");
    }
    run_all(&cases, host, fleet.accounts().secret());
    // su reads its password from a pipe too, and leaves the rest of it to the command.
    let mut piped = host.command_as("sudo-none", "su");
    let input = format!("{}\nthe rest\n", password("goal"));
    let done = bounded::run(piped.args(["goal", "-c", "cat"]), Some(input.into_bytes()), SOON);
    done.expect_code(0);
    assert_eq!(done.out(), "the rest\n");
    tag.assert_nothing_left(SOON);
}
