//! `cargo xtask bench`: builds what is measured, then hands over to `offshoot-bench suite`.

use std::ffi::OsString;

use anyhow::Result;

use super::agents;
use crate::run;
use crate::workspace::Workspace;

/// Measures offshoot beside its peers; the arguments are those of `offshoot-bench suite`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passed on to `offshoot-bench suite`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Builds the driver and the command in release, and the agent of this machine; then runs the suite.
///
/// # Errors
///
/// When a build or the suite fails.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    agents::build_for_host(&workspace)?;
    run::check(run::cargo_in(&workspace.root).args([
        "build",
        "--release",
        "--package",
        "offshoot-bench",
        "--package",
        "offshoot-cli",
    ]))?;
    let driver = workspace.target.join("release/offshoot-bench");
    let mut command = std::process::Command::new(driver);
    command
        .current_dir(&workspace.root)
        .arg("suite")
        .args(&args.rest)
        .env("OFFSHOOT_AGENTS", agents::folder(&workspace));
    run::check(&mut command)?;
    println!("bench: done");
    Ok(())
}
