//! Two hosts whose accounts have passwords, and an alias for each way in which ssh asks for one.
//!
//! `h1` and `h2` have all accounts of `accounts.rs`. The aliases lead to them: `phrase` and `both` by a key with a passphrase, `far` through a jump, `unknown`,
//! `changed` and `careless` to a host key that is not the one known.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::bounded::{self, find_program};
use crate::fleet::{Fleet, Peer};
use crate::host::{Profile, scripts};
use crate::not_run::Unavailable;
use crate::sshd::{io_error, make_key_with};
use crate::tag::Tag;

/// What each account may do; the last lines of an sshd_config.
const RULES: &str = "\
UsePAM yes
LogLevel VERBOSE
PubkeyAuthentication yes
Match User p-word,p-strange,p-slow,p-noisy,p-forced,p-nologin,p-stale,p-ended,p-banner,p-tries
  PasswordAuthentication yes
  PubkeyAuthentication no
Match User p-failed
  PasswordAuthentication yes
  AuthorizedKeysFile none
Match User p-tries
  MaxAuthTries 1
Match User p-code
  PermitTTY no
Match User p-keyboard,p-code,p-otp
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
  ForceCommand printf 'Password: '; printf 'Password: ' >&2; timeout 1 cat >~/got; echo done
Match all";

/// A host with passwords; sshd's rules as above.
pub fn peer(name: &str) -> Peer {
    ruled(Peer::new(name))
}

fn ruled(peer: Peer) -> Peer {
    RULES.lines().fold(peer.profile(Profile::Accounts), |peer, line| peer.sshd(line))
}

/// The passphrase of the key `id_phrase`, which `p-phrase` and `p-both` log in with.
pub fn passphrase(fleet: &Fleet) -> String {
    fleet.accounts().password("key", "id_phrase")
}

/// `h1` alone.
///
/// # Errors
///
/// When the machine cannot have it.
pub fn one(tag: &Tag) -> Result<Fleet, Unavailable> {
    Fleet::start(tag, &[peer("h1")])
}

/// `h1` alone, whose sshd gives a login so many seconds.
///
/// # Errors
///
/// When the machine cannot have it.
pub fn impatient(tag: &Tag, seconds: u32) -> Result<Fleet, Unavailable> {
    Fleet::start(tag, &[ruled(Peer::new("h1").sshd(&format!("LoginGraceTime {seconds}")))])
}

/// `h1` and `h2`, and the aliases.
///
/// # Errors
///
/// When the machine cannot have them.
pub fn start(tag: &Tag) -> Result<Fleet, Unavailable> {
    let fleet = Fleet::start(tag, &[peer("h1"), peer("h2")])?;
    make_key_with(&fleet.shared().join("id_phrase"), &passphrase(&fleet))?;
    fs::write(fleet.shared().join("banner"), "Only for the authorised.\np-banner@h1's password: ")
        .map_err(io_error(&fleet.shared().join("banner")))?;
    let seen = fleet.shared_as_seen().display().to_string();
    let (h1, h2) = (fleet.sshd("h1").address().0, fleet.sshd("h2").address().0);
    fleet.add_to_config(&format!(
        "Host phrase both\n  HostName {h1}\n  HostKeyAlias h1\n  IdentityFile {seen}/id_phrase\n  IdentitiesOnly yes\n\
         Host phrase\n  User p-phrase\nHost both\n  User p-both\n\
         Host far\n  HostName {h2}\n  HostKeyAlias h2\n  User p-word\n  ProxyJump p-word@h1\n\
         Host unknown\n  HostName {h1}\n  HostKeyAlias never-seen\n  User p-strange\n  StrictHostKeyChecking ask\n\
         Host changed\n  HostName {h1}\n  HostKeyAlias h2\n  User p-strange\n\
         Host careless\n  HostName {h1}\n  HostKeyAlias h2\n  User p-strange\n  StrictHostKeyChecking no\n\
         Host *\n  NumberOfPasswordPrompts 3"
    ))?;
    Ok(fleet)
}

/// How often sshd has been given a password for that account, right or wrong.
pub fn passwords_seen(fleet: &Fleet, host: &str, account: &str) -> usize {
    let log = fleet.sshd(host).log();
    ["Failed", "Accepted"]
        .iter()
        .flat_map(|event| ["password", "keyboard-interactive/pam"].map(|way| format!("{event} {way} for {account} ")))
        .map(|event| log.matches(&event).count())
        .sum()
}

/// What sshd on h1 wants of `p-code` and `p-otp` besides the password.
pub const CODE: &str = "135790";

/// Has sshd on h1 ask `p-code` and `p-otp` for the [`CODE`] behind the password, the former unseen, the latter shown and by the words of an OATH token.
///
/// # Errors
///
/// When the module that asks cannot be built here.
pub fn want_codes(fleet: &Fleet) -> Result<(), Unavailable> {
    let compiler =
        find_program("cc").ok_or_else(|| Unavailable::because("cc is not installed, to build a PAM module"))?;
    let mut build = Command::new(compiler);
    build
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(fleet.shared().join("pam_code.so"))
        .arg(scripts().join("pam_code.c"));
    let built = bounded::run(&mut build, None, Duration::from_secs(60));
    if built.code != Some(0) {
        return Err(Unavailable::because(format!("a PAM module cannot be built: {}", built.err())));
    }
    let module = "auth required /run/fixture/pam_code.so";
    let lines = format!(
        "{module} p-code {CODE} unseen [Verification code: ]\n{module} p-otp {CODE} shown [One-time password (OATH) for `p-otp': ]\n"
    );
    fs::write(fleet.shared().join("codes"), lines).map_err(io_error(&fleet.shared().join("codes")))?;
    fleet.on("h1", "cat /run/fixture/codes >>/etc/pam.d/sshd").expect_code(0);
    if let Some(host) = fleet.host("h1") {
        host.watched().accept_files();
    }
    Ok(())
}

/// The passwords that sudo, su and doas on h1 found wrong, in any order: for each that was typed the tool, and whose it should have been. Nothing from then on.
pub fn refused(fleet: &Fleet) -> Vec<String> {
    let done = fleet.on("h1", "cat /var/log/refused && : >/var/log/refused");
    done.expect_code(0);
    let mut refused: Vec<String> = done.out().lines().map(str::to_string).collect();
    refused.sort();
    refused
}

/// Where a run that is answered by a program finds that, as the hosts see it.
pub const ANSWER: &str = "/run/fixture/answer";

/// Makes [`ANSWER`] a program that prints the answer for the account in `OFFSHOOT_ACCOUNT`, the first whose pattern (of a shell's `case`) fits, and that
/// notes whom it was asked for.
///
/// # Errors
///
/// When it cannot be written.
pub fn answer(fleet: &Fleet, answers: &[(&str, String)]) -> Result<(), Unavailable> {
    let table: String = answers.iter().map(|(pattern, answer)| format!("{pattern}\t{answer}\n")).collect();
    let script = "#!/bin/sh\n\
        printf '%s\\n' \"$OFFSHOOT_ACCOUNT\" >>/dev/shm/asked\n\
        while IFS='\t' read -r pattern answer; do\n\
        case $OFFSHOOT_ACCOUNT in $pattern) printf '%s\\n' \"$answer\"; exit 0 ;; esac\n\
        done </run/fixture/answers\n\
        exit 1\n";
    for (name, text, mode) in [("answers", table.as_str(), 0o600), ("answer", script, 0o755)] {
        let path = fleet.shared().join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(io_error(&path))?;
    }
    Ok(())
}

/// Whom [`ANSWER`] was asked for, in that order; nobody from then on.
pub fn asked(fleet: &Fleet) -> Vec<String> {
    let asked = fleet.on("control", "cat /dev/shm/asked; rm -f /dev/shm/asked");
    asked.out().lines().map(str::to_string).collect()
}

/// Gives h1 a language that is not English, for everybody who logs in.
///
/// # Errors
///
/// When there are no translations here, or no locale can be made.
pub fn speak_german(fleet: &Fleet) -> Result<(), Unavailable> {
    let made = fleet.on(
        "h1",
        "set -e
        ls /usr/share/locale/de/LC_MESSAGES/sudo.mo
        localedef --no-archive -i de_DE -f UTF-8 /usr/lib/locale/de_DE.UTF-8
        echo LANG=de_DE.UTF-8 >/etc/default/locale",
    );
    if made.code != Some(0) {
        return Err(Unavailable::because(format!("sudo in German cannot be had: {}", made.err())));
    }
    if let Some(host) = fleet.host("h1") {
        host.watched().accept_files();
    }
    Ok(())
}
