//! `cargo xtask fleet`: one program on machines of every architecture that there is an agent for. `cargo xtask test` has those that need no std built.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use offshoot_build::triples;

use super::test::not_run;
use super::{agents, image};
use crate::run;
use crate::workspace::Workspace;

/// Builds agents and images for every triple, and runs the tests of programs for many machines with them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Let rustup fetch what is missing
    #[arg(long)]
    install: bool,
}

/// Runs the command. A test that cannot run here is a failure: this is for seeing all of them.
///
/// # Errors
///
/// When something cannot be built, or a test fails or cannot run.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let names = triples::ALL.map(|triple| triple.name);
    let began = Instant::now();
    agents::build(&workspace, &agents::Wanted::triples(&names).install(args.install))?;
    println!("agents: {}", run::duration(began.elapsed()));
    let began = Instant::now();
    image::build_for_tests(&workspace, &names)?;
    println!("images: {}", run::duration(began.elapsed()));

    let list = workspace.target.join("xtask").join(format!("not-run-fleet-{}", std::process::id()));
    std::fs::create_dir_all(workspace.target.join("xtask"))?;
    std::fs::write(&list, "").with_context(|| format!("cannot write {}", list.display()))?;
    let began = Instant::now();
    // What a new user does has no agents and images at hand, and takes as long as building them.
    let tested = [("images", &[][..]), ("outside", &["--ignored"])].iter().try_for_each(|(target, words)| {
        let mut command = run::cargo_in(&workspace.root);
        command.args(["test", "--package", "offshoot-tests", "--test", target, "--", "--nocapture"]);
        run::check(command.args(["--test-threads", "1"]).args(*words).env(not_run::VARIABLE, &list))
    });
    let missing = not_run::from_file(&list);
    std::fs::remove_file(&list)?;
    tested?;
    println!("tests: {}", run::duration(began.elapsed()));
    let lines: Vec<String> = missing.iter().map(|(name, reason)| format!("  {name}: {reason}")).collect();
    ensure!(lines.is_empty(), "not all of it could run here\n{}", lines.join("\n"));
    Ok(())
}
