//! The measuring program: a driver for offshoot, the physical limit, OpenSSH, and the suite that runs them beside the peers.
//!
//! `offshoot-bench VERB …` measures offshoot itself and prints one JSON object per line; `limit` and `openssh` before the verb
//! measure those instead; `suite` runs everything interleaved, `report` prints result files as tables.

#![forbid(unsafe_code)]

mod anchor;
mod calls_image;
mod contract;
mod delay;
mod driver;
mod floor;
mod floor_build;
mod openssh;
mod peers;
mod proc;
mod report;
mod rows;
mod shim;
mod sshd;
mod suite;
mod sweep;
mod watch;
mod ways;

use anchor::Who;
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures offshoot, its limits and its peers, on this machine alone.
#[derive(Parser)]
#[command(
    version,
    after_help = "Other words measure one thing: [limit|openssh] connect|connect_warm|latency|pipeline|bulk|beside|fanout|idle|tree|scale ARGS…; remote functions: offshoot-bench-calls"
)]
enum Cli {
    /// Runs the measurements, every anchor in turn, each in a fresh process.
    Suite {
        /// Measurements by name, such as `connect` or `latency/local-0`
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Repetitions of each, instead of its own number
        #[arg(long)]
        reps: Option<u32>,
        /// Who is measured: limit, openssh, execnet, mitogen, offshoot
        #[arg(long, value_delimiter = ',', value_parser = who)]
        impls: Vec<Who>,
        /// Tiny counts and one repetition: shows that all works, measures nothing
        #[arg(long)]
        quick: bool,
        /// File to append the result lines to
        #[arg(long)]
        out: Option<PathBuf>,
        /// Page whose measured part is rewritten
        #[arg(long)]
        write: Option<PathBuf>,
        /// Folder for the peers' environments and the limit program
        #[arg(long)]
        cache: Option<PathBuf>,
    },
    /// Prints result files as a table.
    Report {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Page whose measured part is rewritten
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

fn who(name: &str) -> Result<Who, String> {
    Who::from_name(name).ok_or_else(|| format!("one of {}", Who::ALL.map(Who::name).join(", ")))
}

fn main() -> ExitCode {
    // First: a local context may be this program once more.
    offshoot::init();
    let args: Vec<OsString> = std::env::args_os().collect();
    run(&args).unwrap_or_else(|e| {
        eprintln!("offshoot-bench: {e:#}");
        ExitCode::FAILURE
    })
}

fn run(args: &[OsString]) -> Result<ExitCode> {
    let (program, rest) = args.split_first().context("started without a name")?;
    if Path::new(program).file_name().is_some_and(|name| name == "ssh") {
        return shim::run(rest);
    }
    let words: Vec<&str> = rest.iter().map(|a| a.to_str().unwrap_or("")).collect();
    match words.split_first() {
        Some((&"limit", _)) => return Ok(floor::run(&rest[1..])),
        Some((&"openssh", verb)) => openssh::run(verb)?,
        // The two that the suite starts itself with.
        Some((&"pin", [cpu, ..])) => suite::pin(cpu, &rest[2..])?,
        Some((&"sweep", [tag, folder])) => sweep::run(tag, Path::new(folder))?,
        _ if driver::run(&words)? => {}
        _ => command(Cli::parse_from(args))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn command(cli: Cli) -> Result<()> {
    let (lines, page) = match cli {
        Cli::Suite { only, reps, impls, quick, out, write, cache } => {
            let options = suite::Options {
                only,
                repetitions: reps,
                who: if impls.is_empty() { Who::ALL.to_vec() } else { impls },
                quick,
                out,
                cache: match cache {
                    Some(folder) => std::path::absolute(folder)?,
                    None => default_cache()?,
                },
            };
            (suite::run(&options)?, write)
        }
        Cli::Report { files, write } => (report::read(&files)?, write),
    };
    let measured = report::render(&lines);
    println!("{measured}");
    for error in report::errors(&lines) {
        eprintln!("{error}");
    }
    match page {
        Some(page) => report::write(&page, &measured),
        None => Ok(()),
    }
}

fn default_cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    match set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))) {
        Some(folder) if folder.is_absolute() => Ok(folder.join("offshoot-bench")),
        _ => bail!("no folder for the cache: set HOME, or pass --cache"),
    }
}
