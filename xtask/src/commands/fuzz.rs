//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz` behind libFuzzer, guided by coverage.
//!
//! Stable Rust does: the coverage passes are LLVM's, asked for by flags, and libFuzzer itself is C++ that its crate
//! builds. The corpora grow in the target folder; `--keep` takes over what reaches new code into the repository, where
//! every test run replays it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::run;
use crate::workspace::Workspace;

/// Runs the fuzz targets, one after the other
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these targets; all without
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Take over the smallest set of inputs that reaches all the code that was reached into tests/fuzz/corpus
    #[arg(long)]
    keep: bool,
}

/// What instruments the code under test. Debug assertions find more than a crash does.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";

/// One input may take so many seconds, one allocation and the whole process so many MiB.
const LIMITS: [&str; 3] = ["-timeout=10", "-malloc_limit_mb=64", "-rss_limit_mb=1024"];

struct Fuzzer {
    program: PathBuf,
    work: PathBuf,
    kept: PathBuf,
}

/// Builds the targets and runs them.
///
/// # Errors
///
/// When they cannot be built, or one of them finds something: its input is kept, and named.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let fuzzer = build(&workspace)?;
    let all = fuzzer.list()?;
    for wanted in &args.targets {
        ensure!(
            all.iter().any(|(name, _)| name == wanted),
            "there is no fuzz target {wanted}; there are: {}",
            all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
        );
    }
    let (mut executions, mut found) = (0, Vec::new());
    for (name, longest) in &all {
        if !args.targets.is_empty() && !args.targets.contains(name) {
            continue;
        }
        let (ran, finding) = fuzzer.fuzz(name, longest, args.minutes)?;
        println!("fuzz: {name}: {ran} executions, {}", if finding { "a finding" } else { "nothing found" });
        executions += ran;
        if finding {
            found.push(name.as_str());
        } else if args.keep {
            fuzzer.keep(name)?;
        }
    }
    ensure!(found.is_empty(), "found something in {}; the inputs are in {}", found.join(", "), fuzzer.work.display());
    println!("fuzz: {executions} executions, nothing found");
    Ok(())
}

fn build(workspace: &Workspace) -> Result<Fuzzer> {
    if ["c++", "g++", "clang++"].iter().all(|name| run::on_path(name).is_none()) {
        bail!("libFuzzer is C++, and there is no compiler for it on the path: install g++ or clang");
    }
    let host = host()?;
    let work = workspace.target.join("fuzz");
    let folder = workspace.root.join("tests/fuzz");
    let mut command = run::cargo_in(&folder.join("libfuzzer"));
    command
        // With a target named, the flags are not for build scripts.
        .args(["build", "--release", "--locked", "--target", &host, "--target-dir"])
        .arg(&work)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run::check(&mut command)?;
    let program = work.join(host).join("release/offshoot-libfuzzer");
    Ok(Fuzzer { program, work, kept: folder.join("corpus") })
}

fn host() -> Result<String> {
    let text = run::read(Command::new("rustc").args(["--version", "--verbose"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not tell its host")?;
    Ok(host.to_owned())
}

impl Fuzzer {
    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("OFFSHOOT_FUZZ_TARGET", target).current_dir(&self.work);
        command
    }

    /// The targets, each with its longest input.
    fn list(&self) -> Result<Vec<(String, String)>> {
        let text = run::read(&mut self.command("list"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, longest)| (name.into(), longest.into()))
            .collect())
    }

    fn corpus(&self, target: &str) -> Result<PathBuf> {
        let folder = self.work.join("corpus").join(target);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// How often it ran, and whether it found something.
    fn fuzz(&self, target: &str, longest: &str, minutes: u64) -> Result<(u64, bool)> {
        let seconds = minutes * 60;
        let mut command = self.command(target);
        command
            .args(LIMITS)
            .args(["-use_value_profile=1", "-print_final_stats=1", &format!("-max_len={longest}")])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}-", self.work.join(target).display()))
            .arg(self.corpus(target)?)
            .args(Some(self.kept.join(target)).filter(|kept| kept.is_dir()));
        println!("+ {}", run::line(&command));
        let outcome = run::run(&mut command, Duration::from_secs(seconds + 300), true)?;
        let ran = outcome
            .output
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
            .unwrap_or(0);
        Ok((ran, !outcome.success()))
    }

    /// Puts the inputs that reach different code into the repository, in place of those that are there.
    fn keep(&self, target: &str) -> Result<()> {
        let kept = self.kept.join(target);
        let fresh = self.work.join("kept").join(target);
        clear(&fresh)?;
        let mut command = self.command(target);
        command
            .args(LIMITS)
            .args(["-merge=1", "-use_counters=0"])
            .args([&fresh, &self.corpus(target)?])
            .args(Some(&kept).filter(|kept| kept.is_dir()));
        let outcome = run::run(&mut command, Duration::from_secs(900), false)?;
        ensure!(outcome.success(), "the corpus of {target} cannot be merged\n{}", outcome.output);
        clear(&kept)?;
        let mut count = 0;
        for entry in std::fs::read_dir(&fresh)? {
            let entry = entry?;
            std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
            count += 1;
        }
        println!("fuzz: {target}: {count} inputs kept");
        Ok(())
    }
}

fn clear(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
