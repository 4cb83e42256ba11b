//! Logs in by passwords that a program of yours knows, hop behind hop, and runs a command at the end: for a password manager, or a vault.
//!
//! ```text
//! cargo run --example passwords -- vault.sh ann@web1 sudo:postgres -- psql -l
//! ```
//!
//! For each password that a login asks for, `vault.sh` is run with the account in `OFFSHOOT_ACCOUNT`, such as `ann@web1`; it prints the password, or fails
//! when it has none. What else a login asks, such as a one-time code, it finds in `OFFSHOOT_QUESTION`, which is empty for passwords.

use std::io::Write;
use std::process::{Command, ExitCode};

use offshoot::prelude::*;
use offshoot::{Asking, Asks, Responder, Secret};

fn main() -> ExitCode {
    offshoot::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|argument| argument == "--").unwrap_or(0);
    let (before, command) = arguments.split_at(split);
    let ([vault, hops @ ..], [_, program, rest @ ..]) = (before, command) else {
        eprintln!("usage: passwords VAULT HOP… -- PROGRAM ARGUMENT…");
        return ExitCode::from(2);
    };
    match run(vault, hops, program, rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}\n  hint      {}", error.hint());
            ExitCode::FAILURE
        }
    }
}

fn run(vault: &str, hops: &[String], program: &str, arguments: &[String]) -> Result<u8, offshoot::Error> {
    let vault = vault.to_owned();
    let responder = Responder::new(move |asking| ask(&vault, asking));
    let master = Master::new()?;
    let mut here = master.context().clone();
    for hop in hops {
        here = match hop.strip_prefix("sudo:") {
            // With a dash in front, as `su -` has it, by the user's login shell.
            Some(user) => match user.strip_prefix('-') {
                Some(user) => here.sudo(user).login(true).responder(responder.clone()).connect()?,
                None => here.sudo(user).responder(responder.clone()).connect()?,
            },
            None => here.ssh(hop).responder(responder.clone()).connect()?,
        };
    }
    let output = here.command(program).args(arguments).output()?;
    // What cannot be shown is no reason to lose the exit code.
    let _ = std::io::stdout().write_all(&output.stdout);
    Ok(output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// What the vault prints for the account; `None` ends the login with an error that says what was asked for.
fn ask(vault: &str, asking: &Asking<'_>) -> Option<Secret> {
    let question = match asking.question.asks {
        Asks::Password | Asks::Passphrase => "",
        // Whether a host is the right one is for somebody else to say.
        Asks::HostKey => return None,
        Asks::Other => &asking.question.text,
    };
    let mut vault = Command::new(vault);
    vault.env("OFFSHOOT_ACCOUNT", &asking.question.account).env("OFFSHOOT_QUESTION", question);
    let mut output = vault.output().ok()?;
    if output.stdout.last() == Some(&b'\n') {
        output.stdout.pop();
    }
    output.status.success().then(|| Secret::new(output.stdout))
}
