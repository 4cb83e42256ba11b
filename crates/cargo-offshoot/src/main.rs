//! `cargo offshoot`: a program for many machines.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use offshoot_build::make;
use offshoot_build::toolchain::{Found, Recipe};
use offshoot_build::triples::ALL;

/// What cargo calls: `cargo-offshoot offshoot …`.
#[derive(Parser)]
#[command(name = "cargo", bin_name = "cargo")]
enum Cargo {
    Offshoot(Offshoot),
}

/// Builds a program that uses offshoot for many machines, and as one file
///
/// Functions of a program run on other machines in a process that is started from the program itself. For that, the
/// program is needed once for each kind of machine (its images), all of one build; and offshoot's agents, which go ahead.
/// `cargo offshoot build` makes them and puts everything into one executable that runs anywhere on Linux.
#[derive(clap::Args)]
#[command(version)]
struct Offshoot {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Builds the program for each triple, and the one file of all
    #[command(after_help = "Examples:
  cargo offshoot build
  cargo offshoot build --bin deploy --triple x86_64-unknown-linux-musl --triple riscv64gc-unknown-linux-musl
  cargo offshoot build --install          lets rustup fetch the targets' libraries")]
    Build(make::Args),
    /// Builds it, and runs the one file here
    #[command(after_help = "Example:
  cargo offshoot run -- web1 web2")]
    Run {
        #[command(flatten)]
        make: make::Args,
        /// The arguments of the program
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Tells for which triples this machine can build, and how
    Triples,
}

fn main() -> ExitCode {
    let result = match Cargo::parse() {
        Cargo::Offshoot(Offshoot { command: Sub::Build(args) }) => {
            // Whether or not somebody reads it, it is built.
            let tell = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
            std::env::current_dir()
                .context("no current folder")
                .and_then(|here| make::run(&here, &args, &tell))
                .map(drop)
        }
        Cargo::Offshoot(Offshoot { command: Sub::Run { make, args } }) => run(&make, &args),
        Cargo::Offshoot(Offshoot { command: Sub::Triples }) => triples(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the program: its signals, terminal and status are its own.
fn run(make: &make::Args, args: &[OsString]) -> Result<()> {
    const NOTHING: &str = "with --images-only there is nothing to run";
    let here = std::env::current_dir().context("no current folder")?;
    ensure!(make.makes_one_file(), NOTHING);
    // What is on stdout is the program's.
    let file = make::run(&here, make, &|line| eprintln!("{line}"))?.context(NOTHING)?;
    let error = Command::new(&file).args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", file.display()))
}

fn triples() -> Result<()> {
    let mut text = format!("{:34} {:6} {:6}\n", "triple", "agent", "image");
    for triple in &ALL {
        let found = Found::look(triple)?;
        let word = |recipe: Option<Recipe>| recipe.map_or("-", Recipe::name);
        writeln!(text, "{:34} {:6} {:6}", triple.name, word(found.best()), word(found.best_for_images()))?;
        if let Err(missing) = found.require("image", triple, found.best_for_images()) {
            writeln!(text, "  {}", missing.to_string().replace('\n', "\n  "))?;
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        // As who is ended by SIGPIPE.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(141),
        written => written.context("cannot write to stdout"),
    }
}
