//! What ssh asks on its terminal, and what only looks as if it asked.

use std::fs;
use std::time::Duration;

use offshoot_tests::bounded::{self, Finished};
use offshoot_tests::{Fleet, Peer, Profile, Tag, Terminal, Unavailable, or_not_run};

const SOON: Duration = Duration::from_secs(20);

/// What each account may do; the last lines of an sshd_config.
const RULES: &str = "\
UsePAM yes
LogLevel VERBOSE
PubkeyAuthentication yes
Match User p-word,p-slow,p-noisy,p-forced,p-nologin,p-stale,p-ended,p-banner,p-tries
  PasswordAuthentication yes
  PubkeyAuthentication no
Match User p-tries
  MaxAuthTries 1
Match User p-keyboard
  KbdInteractiveAuthentication yes
  PubkeyAuthentication no
Match User p-phrase,p-both
  AuthorizedKeysFile /run/fixture/id_phrase.pub
Match User p-both
  PasswordAuthentication yes
  AuthenticationMethods publickey,password
Match User p-banner
  Banner /run/fixture/banner
Match User p-forced
  ForceCommand printf 'Password: '; printf 'Password: ' >&2; sleep 0.2; echo done
Match all";

/// A host with passwords; sshd's rules as above.
fn peer(name: &str) -> Peer {
    RULES.lines().fold(Peer::new(name).profile(Profile::Accounts), |peer, line| peer.sshd(line))
}

/// The passphrase of the key `id_phrase`, which `p-phrase` and `p-both` log in with.
fn passphrase(fleet: &Fleet) -> String {
    fleet.accounts().password("key", "id_phrase")
}

/// The bed: `h1` and `h2`, and an alias for each way to ask.
fn bed(tag: &Tag) -> Result<Fleet, Unavailable> {
    let fleet = Fleet::start(tag, &[peer("h1"), peer("h2")])?;
    offshoot_tests::sshd::make_key_with(&fleet.shared().join("id_phrase"), &passphrase(&fleet))?;
    fs::write(fleet.shared().join("banner"), "Only for the authorised.\np-banner@h1's password: ").unwrap();
    let seen = fleet.shared_as_seen().display().to_string();
    let (h1, h2) = (fleet.sshd("h1").address().0, fleet.sshd("h2").address().0);
    fleet.add_to_config(&format!(
        "Host phrase both\n  HostName {h1}\n  HostKeyAlias h1\n  IdentityFile {seen}/id_phrase\n  IdentitiesOnly yes\n\
         Host phrase\n  User p-phrase\nHost both\n  User p-both\n\
         Host far\n  HostName {h2}\n  HostKeyAlias h2\n  User p-word\n  ProxyJump p-word@h1\n\
         Host unknown\n  HostName {h1}\n  HostKeyAlias never-seen\n  User p-word\n  StrictHostKeyChecking ask\n\
         Host changed\n  HostName {h1}\n  HostKeyAlias h2\n  User p-word\n\
         Host careless\n  HostName {h1}\n  HostKeyAlias h2\n  User p-word\n  StrictHostKeyChecking no\n\
         Host *\n  NumberOfPasswordPrompts 3"
    ))?;
    Ok(fleet)
}

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

/// How often sshd has been given a password for that account, right or wrong.
fn passwords_seen(fleet: &Fleet, host: &str, account: &str) -> usize {
    let log = fleet.sshd(host).log();
    ["Failed", "Accepted"]
        .iter()
        .flat_map(|event| ["password", "keyboard-interactive/pam"].map(|way| format!("{event} {way} for {account} ")))
        .map(|event| log.matches(&event).count())
        .sum()
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
    let fleet = or_not_run!(name, bed(&tag));
    let fleet = &fleet;
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    let phrase = passphrase(fleet);
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
        ask("p-noisy@h1").ends(0, "Password: "),
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
    assert_eq!(passwords_seen(fleet, "h1", "p-tries"), 1, "{}", fleet.logs());
    assert_eq!(passwords_seen(fleet, "h1", "p-keyboard"), 2, "{}", fleet.logs());
    assert!(!fleet.logs().contains(fleet.accounts().secret()));
    // A key alone gets nobody in where a password is wanted, and no terminal means no prompt.
    let done = bounded::run(&mut fleet.ssh(&["p-word@h1", "true"]), None, SOON);
    done.expect_code(255);
    tag.assert_nothing_left(SOON);
}
