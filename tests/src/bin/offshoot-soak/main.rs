//! The random-kill soak: a tree of real agents, threads that work with it, and one that kills, stops and continues its processes. Every operation is judged as
//! it ends, every side effect is counted against what its caller was told.
//!
//! `run` is one run in this very process, which is the master. `soak` and `masters` start such processes and see to it that nothing of them is left: the first
//! one run, the second many, each killed at a moment of chance. `docs/soak.md` says what is checked.

// What the attribute `remote` makes puts a function into a list of the linker, which is an unsafe attribute.
#![deny(unsafe_code)]

// An allocator cannot be written without unsafe code.
#[allow(unsafe_code)]
mod counting;
mod effects;
mod functions;
mod growth;
mod history;
mod judge;
mod killer;
mod nodes;
mod outer;
mod rng;
mod run;
mod spared;
mod ssh;
mod watch;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::run::Options;
use crate::ssh::Login;

const USAGE: &str = "usage: offshoot-soak run|soak|masters [--seconds N | --minutes N] [--seed S] [--every MS-MS] [--contexts N-N] [--long-stops PERCENT] \
                     [--threads N] [--ssh PERCENT] [--spared LEVELS] [--folder FOLDER] [--login CONFIG --sshd PID]";

/// The mode, its options, and the folder for what programs in the tree write.
struct Arguments {
    mode: String,
    options: Options,
    folder: Option<PathBuf>,
}

fn arguments() -> Option<Arguments> {
    let mut words = std::env::args().skip(1);
    let mode = words.next()?;
    let clock =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let mut options = Options {
        seed: clock % 1_000_000_000,
        length: Duration::from_secs(60),
        every: (50, 500),
        contexts: (20, 60),
        long_stops: 2,
        threads: 6,
        ssh: 10,
        spared: killer::DEEPEST,
        login: None,
    };
    let (mut config, mut sshd) = (None, None);
    let mut folder = None;
    let pair = |text: &str| text.split_once('-').and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
    while let Some(name) = words.next() {
        let value = words.next()?;
        match &name[..] {
            "--seconds" => options.length = Duration::from_secs(value.parse().ok()?),
            "--minutes" => options.length = Duration::from_secs(60 * value.parse::<u64>().ok()?),
            "--seed" => options.seed = value.parse().ok()?,
            "--every" => options.every = pair(&value)?,
            "--contexts" => options.contexts = pair(&value)?,
            "--long-stops" => options.long_stops = value.parse().ok()?,
            "--threads" => options.threads = value.parse().ok()?,
            "--ssh" => options.ssh = value.parse().ok()?,
            "--spared" => options.spared = value.parse().ok()?,
            "--login" => config = Some(value),
            "--sshd" => sshd = Some(value.parse().ok()?),
            "--folder" => folder = Some(value.into()),
            _ => return None,
        }
    }
    options.login = config.zip(sshd).map(|(config, sshd)| Login { config, sshd });
    Some(Arguments { mode, options, folder })
}

fn main() -> ExitCode {
    offshoot::init();
    let Some(Arguments { mode, options, folder }) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let well = match &mode[..] {
        "run" => watch::run(options, folder),
        "soak" => outer::soak(&options),
        "masters" => outer::masters(&options),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
