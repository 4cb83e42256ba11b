//! What is run, in which order: the fast first, so that a mistake shows early.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::counts::{self, Counts};
use super::junit;
use super::not_run;
use crate::commands::{agents, image, loom, mutants, release_check};
use crate::run;
use crate::tidy;
use crate::workspace::Workspace;

/// Which stages a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// Needs nothing but the toolchain.
    Fast,
    /// Real peers on this machine, and what has to be built for them.
    Peers,
    /// Both, the models, and whether the mutants apply.
    Usual,
    /// Everything, all mutants and packaging too.
    All,
}

/// One stage.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    /// Its name, for the table at the end.
    pub(super) name: &'static str,
    /// What it runs.
    pub(super) run: fn(&Setting) -> Result<Seen>,
}

/// What the stages share.
pub(super) struct Setting {
    /// The workspace under test.
    pub(super) workspace: Workspace,
    /// Environment of everything that runs tests.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// What a stage saw. An error is a failed check instead.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Tests, where it ran some; a check without tests counts as one.
    pub(super) counts: Counts,
    /// What it could not run, by name.
    pub(super) not_run: not_run::NotRun,
    /// Whether `not_run` came from tests that their runner counted as passed.
    pub(super) passed_though_not_run: bool,
}

/// The tests against real peers.
const PEERS: &str = "offshoot-tests";

/// The triples that the tests need agents and images for. The others' std is built, too, which takes long: `cargo xtask
/// fleet` has them.
const TRIPLES: [&str; 3] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl", "i686-unknown-linux-musl"];

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// The stages of a suite.
pub(super) fn of(suite: Suite) -> Vec<Stage> {
    let fast = [
        Stage { name: "format", run: format },
        Stage { name: "tidy", run: tidy },
        Stage { name: "clippy", run: clippy },
        Stage { name: "unit and property tests", run: unit },
        Stage { name: "tests one at a time", run: own },
        Stage { name: "documentation tests", run: documentation },
    ];
    let peers = [
        Stage { name: "build", run: build },
        Stage { name: "agents", run: agents },
        Stage { name: "images", run: images },
        Stage { name: "real peers", run: peers },
    ];
    let extra = [Stage { name: "sudo-rs", run: sudo_rs }];
    let models = Stage { name: "loom models", run: models };
    let quick = [models, Stage { name: "mutants apply", run: mutants_apply }];
    let last = [models, Stage { name: "mutants", run: mutants }, Stage { name: "packages", run: packages }];
    match suite {
        Suite::Fast => fast.into(),
        Suite::Peers => peers.into(),
        Suite::Usual => fast.into_iter().chain(peers).chain(quick).collect(),
        Suite::All => fast.into_iter().chain(extra).chain(peers).chain(last).collect(),
    }
}

/// A check that has no tests of its own counts as one that passed.
fn one() -> Seen {
    Seen { counts: Counts { passed: 1, ..Counts::default() }, ..Seen::default() }
}

fn checked(command: &mut Command, limit: Duration) -> Result<Seen> {
    println!("+ {}", run::line(command));
    let outcome = run::run(command, limit, true)?;
    if outcome.timed_out {
        bail!("{} took more than {}", run::line(command), run::duration(limit));
    }
    if !outcome.status.success() {
        bail!("{} failed: {}", run::line(command), outcome.status);
    }
    Ok(one())
}

fn format(setting: &Setting) -> Result<Seen> {
    checked(run::cargo_in(&setting.workspace.root).args(["fmt", "--all", "--check"]), minutes(2))
}

fn tidy(setting: &Setting) -> Result<Seen> {
    let report = tidy::check(&setting.workspace)?;
    for finding in &report.findings {
        println!("{finding}");
    }
    match report.errors() {
        0 => Ok(one()),
        errors => bail!("tidy found {errors} errors"),
    }
}

fn clippy(setting: &Setting) -> Result<Seen> {
    let mut command = run::cargo_in(&setting.workspace.root);
    command.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
    checked(&mut command, minutes(15))
}

fn unit(setting: &Setting) -> Result<Seen> {
    tests(setting, &["--workspace", "--exclude", PEERS], &[], minutes(45))
}

fn peers(setting: &Setting) -> Result<Seen> {
    // They wait for each other, and for time to pass, more than they compute.
    let at_once = std::thread::available_parallelism().map_or(2, usize::from) + 1;
    let environment = [("OFFSHOOT_BIN", program(setting)), ("NEXTEST_TEST_THREADS", at_once.to_string())];
    tests(setting, &["--package", PEERS], &environment, minutes(60))
}

/// The command under test, as the stage before has built it.
fn program(setting: &Setting) -> String {
    setting.workspace.target.join("debug/offshoot").to_string_lossy().into_owned()
}

/// The test targets with a harness of their own: nextest cannot list what is in them, so cargo runs them.
fn own_harnesses(setting: &Setting) -> Vec<(&str, String)> {
    let members = setting.workspace.members.iter().filter(|package| package.name != PEERS);
    members
        .flat_map(|package| package.own_harnesses().into_iter().map(|target| (package.name.as_str(), target)))
        .collect()
}

fn own(setting: &Setting) -> Result<Seen> {
    let mut seen = Seen::default();
    for (package, target) in own_harnesses(setting) {
        let mut command = run::cargo_in(&setting.workspace.root);
        command
            .args(["test", "--locked", "--package", package, "--test", &target])
            .envs(setting.environment.iter().map(|(name, value)| (name, value)));
        println!("+ {}", run::line(&command));
        let limit = minutes(25);
        let outcome = run::run(&mut command, limit, true)?;
        let not_run = not_run::from_verdicts(&outcome.output);
        let counts = counts::verdicts(&outcome.output);
        if not_run.is_empty() || counts.all() > 0 {
            seen.counts.add(judge(counts, &outcome, &run::line(&command), limit)?.counts);
        }
        seen.not_run.extend(not_run);
    }
    Ok(seen)
}

/// Runs tests by nextest where it is installed (each test a process of its own, with a limit), else by cargo.
fn tests(setting: &Setting, which: &[&str], environment: &[(&str, String)], limit: Duration) -> Result<Seen> {
    let by_nextest = run::on_path("cargo-nextest").is_some();
    let mut command = run::cargo_in(&setting.workspace.root);
    if by_nextest {
        command.args(["nextest", "run", "--locked", "--no-fail-fast"]).args(which);
        let apart: Vec<String> = own_harnesses(setting)
            .iter()
            .map(|(package, target)| format!("(package(={package}) & binary(={target}))"))
            .collect();
        if !apart.is_empty() {
            command.args(["--filterset", &format!("not ({})", apart.join(" | "))]);
        }
    } else {
        command.args(["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"]);
        // What passing tests print is shown, for the lines `not run: …`.
        command.args(which).args(["--", "--show-output"]);
    }
    command.envs(setting.environment.iter().map(|(name, value)| (name, value)));
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let report = setting.workspace.target.join(junit::PATH);
    // That of an earlier run says nothing about this one.
    let _ = std::fs::remove_file(&report);
    println!("+ {}", run::line(&command));
    let outcome = run::run(&mut command, limit, true)?;
    let counts = if by_nextest { counts::nextest(&outcome.output) } else { Some(counts::libtest(&outcome.output)) };
    let mut seen = judge(counts.unwrap_or_default(), &outcome, &run::line(&command), limit)?;
    seen.not_run.extend(junit::not_run(&report));
    Ok(seen)
}

/// A runner that fails without a failed test, or that ran none, is itself one failure.
fn judge(mut counts: Counts, outcome: &run::Outcome, line: &str, limit: Duration) -> Result<Seen> {
    let nothing = counts.all() == 0;
    if nothing {
        bail!("{line} ran no test: {}", outcome.status);
    }
    if outcome.timed_out {
        println!("error: {line} took more than {}", run::duration(limit));
        counts.failed += 1;
    } else if !outcome.status.success() && counts.failed == 0 {
        println!("error: {line} failed without a failed test: {}", outcome.status);
        counts.failed += 1;
    }
    Ok(Seen { counts, not_run: not_run::from_output(&outcome.output), passed_though_not_run: true })
}

fn documentation(setting: &Setting) -> Result<Seen> {
    let mut command = run::cargo_in(&setting.workspace.root);
    command
        .args(["test", "--locked", "--doc", "--no-fail-fast", "--workspace"])
        .envs(setting.environment.iter().map(|(name, value)| (name, value)));
    println!("+ {}", run::line(&command));
    let limit = minutes(25);
    let outcome = run::run(&mut command, limit, true)?;
    let counts = counts::libtest(&outcome.output);
    if counts.all() == 0 && outcome.success() {
        return Ok(one());
    }
    judge(counts, &outcome, &run::line(&command), limit)
}

fn build(setting: &Setting) -> Result<Seen> {
    let mut command = run::cargo_in(&setting.workspace.root);
    command.args(["build", "--locked", "--workspace", "--bins", "--examples"]);
    checked(&mut command, minutes(15))
}

/// Builds sudo-rs, which Debian does not have before its version 13, for the tests that meet it.
fn sudo_rs(setting: &Setting) -> Result<Seen> {
    // The version whose words were looked at; a later one is a decision, not an accident.
    const VERSION: &str = "0.2.15";
    let peers = setting.workspace.target.join("peers");
    if peers.join("sudo-rs/bin/sudo").is_file() {
        return Ok(one());
    }
    if !Path::new("/usr/include/security/pam_appl.h").is_file() {
        let reason = "the headers of PAM are not installed".to_string();
        println!("not run: build_of_sudo_rs: {reason}");
        let not_run = not_run::NotRun::from([("build_of_sudo_rs".to_string(), reason)]);
        return Ok(Seen { not_run, ..Seen::default() });
    }
    let mut command = run::cargo_in(&setting.workspace.root);
    command.args(["install", "sudo-rs", "--version", VERSION, "--locked", "--quiet", "--root"]);
    command.arg(peers.join("sudo-rs")).arg("--target-dir").arg(peers.join("build"));
    checked(&mut command, minutes(15))
}

/// Builds an agent per triple. A triple that this machine has no means for is not run; any other failure is one.
fn agents(setting: &Setting) -> Result<Seen> {
    let mut seen = Seen::default();
    for triple in TRIPLES {
        let missing = agents::missing(triple)?;
        let reason = match missing {
            Some(reason) => Some((format!("agent_{triple}"), reason)),
            None => {
                let built = agents::build(&setting.workspace, &agents::Wanted::triples(&[triple]))?;
                seen.counts.passed += built.len() as u64;
                built
                    .into_iter()
                    .find_map(|agent| agent.hello_not_run)
                    .map(|reason| (format!("agent_hello_{triple}"), reason))
            }
        };
        if let Some((name, reason)) = reason {
            println!("not run: {name}: {reason}");
            seen.not_run.insert(name, reason);
        }
    }
    Ok(seen)
}

/// Builds the images of the programs that tests send to other machines: a test has less time than that takes.
fn images(setting: &Setting) -> Result<Seen> {
    let mut there = Vec::new();
    for triple in TRIPLES {
        if agents::missing(triple)?.is_none() {
            there.push(triple);
        }
    }
    image::build_for_tests(&setting.workspace, &there)?;
    Ok(one())
}

fn models(setting: &Setting) -> Result<Seen> {
    if !loom::present(&setting.workspace) {
        bail!("offshoot-mux has no test target `loom`");
    }
    let mut command = loom::command(&setting.workspace);
    println!("+ {}", run::line(&command));
    let limit = minutes(25);
    let outcome = run::run(&mut command, limit, true)?;
    judge(counts::libtest(&outcome.output), &outcome, &run::line(&command), limit)
}

/// To build and test each takes longer than all real peers.
fn mutants_apply(setting: &Setting) -> Result<Seen> {
    mutants_of(setting, &mutants::Args { apply: true, ..mutants::Args::default() })
}

fn mutants(setting: &Setting) -> Result<Seen> {
    mutants_of(setting, &mutants::Args::default())
}

fn mutants_of(setting: &Setting, args: &mutants::Args) -> Result<Seen> {
    let tally = mutants::all(&setting.workspace, args)?;
    Ok(Seen {
        counts: Counts { passed: tally.good as u64, failed: tally.failed as u64, skipped: 0 },
        ..Seen::default()
    })
}

fn packages(_: &Setting) -> Result<Seen> {
    release_check::run(&release_check::Args::verified())?;
    Ok(one())
}
