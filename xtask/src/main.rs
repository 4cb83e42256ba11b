//! `cargo xtask COMMAND`: see the README.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use xtask::commands::{agents, bench, fleet, fuzz, image, loom, mutants, release_check, sim, soak, test, tidy};

/// The project's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    Agents(agents::Args),
    Image(image::Args),
    Tidy(tidy::Args),
    Test(test::Args),
    Mutants(mutants::Args),
    Loom(loom::Args),
    Sim(sim::Args),
    Fleet(fleet::Args),
    Fuzz(fuzz::Args),
    Soak(soak::Args),
    Bench(bench::Args),
    ReleaseCheck(release_check::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Agents(args) => agents::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Test(args) => match test::run(&args) {
            // Its closing line has said what failed.
            Ok(well) => return ExitCode::from(u8::from(!well)),
            Err(error) => Err(error),
        },
        Command::Mutants(args) => mutants::run(&args),
        Command::Loom(args) => loom::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::ReleaseCheck(args) => release_check::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
