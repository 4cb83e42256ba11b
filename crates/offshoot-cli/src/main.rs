//! The `offshoot` command: run commands on trees of hosts and accounts.
//!
//! From the command line to the tree and back: [`args`] are the raw flags, [`options`] what they mean, [`targets`] and
//! [`nodeset`] which places; [`commands`] has one file per command; [`walk`] connects, [`job`] runs, [`feed`] hands out
//! stdin, [`answer`] gives secrets, [`output`] shows. [`session`] is one command on a terminal, with [`keys`] and our own [`terminal`]; [`front`]
//! is the process that Ctrl-Z stops. [`tree`] alone knows the library's contexts and processes; others use its escaping and its questions.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod commands;
mod doctor;
mod exit;
mod fault;
mod feed;
mod front;
mod ground;
mod hinted;
mod interrupt;
mod job;
mod keys;
mod logging;
mod nodeset;
mod options;
mod output;
mod pause;
mod session;
mod targets;
mod terminal;
mod tree;
#[cfg(test)]
mod usage;
mod walk;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    // Started as an agent, this process is one, and nothing below this line is for it.
    tree::become_agent_if_started_as_one();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let error = tipped(error);
            let asked_for = !error.use_stderr();
            // Help that nobody reads is no failure.
            let _ = error.print();
            return ExitCode::from(if asked_for { 0 } else { exit::OURS });
        }
    };
    if cli.command.runs() {
        front::split();
    }
    logging::start(cli.global.verbose, cli.global.quiet);
    let result = match cli.command {
        Command::Exec(args) => commands::exec::exec(args, &cli.global),
        Command::Shell(args) => commands::shell::shell(args, &cli.global),
        Command::Run(args) => commands::run::run(args, &cli.global),
        Command::Tree(args) => commands::tree::tree(args, &cli.global),
        Command::Doctor(args) => commands::doctor::doctor(args, &cli.global),
        Command::Agents(args) => commands::agents::agents(&args, &cli.global),
        Command::Completions(args) => completions(args.shell),
        Command::Man(args) => manual(args.command.as_deref()),
    };
    // A question may still stand, where nobody waits for its answer any more.
    terminal::restore();
    answer::end_all();
    match result {
        // Not by returning: a thread may sit in a read of stdin, and nothing of ours needs to be unwound.
        Ok(code) => std::process::exit(i32::from(code)),
        Err(error) => {
            let palette = options::Look::new(&cli.global).palettes[1];
            // Nobody is left to be told that stderr cannot be written.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), hinted::block(&error, &palette).as_bytes());
            std::process::exit(i32::from(exit::OURS));
        }
    }
}

/// A usage error, with what is to be done where it does not say so: from ssh one is used to a command without `--`.
fn tipped(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};

    let command = |missing: &ContextValue| matches!(missing, ContextValue::Strings(names) if names.iter().any(|name| name.starts_with("<CMD>")));
    if error.get(ContextKind::InvalidArg).is_some_and(command) {
        let tip = "the command comes behind `--`: offshoot exec web1 -- uptime".to_owned();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "offshoot", &mut text);
    print(&text)
}

fn manual(name: Option<&str>) -> anyhow::Result<u8> {
    let mut command = Cli::command();
    // Gives the commands their full names.
    command.build();
    if let Some(name) = name {
        command = match command.find_subcommand(name).filter(|command| !command.is_hide_set()) {
            Some(found) => found.clone(),
            None => anyhow::bail!("there is no command `{}`", offshoot::escape::escaped(name.as_bytes())),
        };
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    print(&text)
}

fn print(text: &[u8]) -> anyhow::Result<u8> {
    match output::Console::of_process().write(output::Stream::Stdout, text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::BROKEN_PIPE),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(0),
    }
}
