//! sudo, with every setting that changes what it asks, says or does with its terminal.

use std::time::Duration;

use offshoot_tests::bounded::Finished;
use offshoot_tests::{Fleet, Host, Peer, Profile, Tag, Terminal, Unavailable, or_not_run};

const SOON: Duration = Duration::from_secs(20);

fn bed(tag: &Tag) -> Result<Fleet, Unavailable> {
    Fleet::start(tag, &[Peer::new("h1").profile(Profile::Accounts)])
}

/// The machine's own files that making accounts changes.
fn own_files() -> Vec<Vec<u8>> {
    ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/motd", "/etc/pam.d/sudo", "/etc/doas.conf"]
        .iter()
        .map(|path| std::fs::read(path).unwrap_or_default())
        .collect()
}

/// One run of sudo itself, on a terminal.
struct Case<'a> {
    account: &'static str,
    options: &'a [&'static str],
    /// What is typed behind which text.
    dialogue: Vec<(&'static str, String)>,
    code: i32,
    shown: &'static str,
}

impl<'a> Case<'a> {
    fn of(account: &'static str, options: &'a [&'static str]) -> Case<'a> {
        Case { account, options, dialogue: Vec::new(), code: 0, shown: "0\r\n" }
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
        let mut terminal = Terminal::start(host.on_terminal_as(self.account, "sudo").args(self.options));
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
    let fleet = or_not_run!(name, bed(&tag));
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
    let piped = offshoot_tests::bounded::run(piped.args(["id"]), None, SOON);
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
    let fleet = or_not_run!(name, bed(&tag));
    or_not_run!(name, speak_german(&fleet, &tag));
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

/// Gives h1 a language that is not English, for everybody who logs in.
fn speak_german(fleet: &Fleet, tag: &Tag) -> Result<(), Unavailable> {
    let made = fleet.on(
        "h1",
        "set -e
        ls /usr/share/locale/de/LC_MESSAGES/sudo.mo
        localedef --no-archive -i de_DE -f UTF-8 /usr/lib/locale/de_DE.UTF-8
        echo LANG=de_DE.UTF-8 >/etc/default/locale",
    );
    if made.code != Some(0) {
        tag.assert_nothing_left(SOON);
        return Err(Unavailable::because(format!("sudo in German cannot be had: {}", made.err())));
    }
    fleet.host("h1").expect("the bed has hosts").watched().accept_files();
    Ok(())
}
