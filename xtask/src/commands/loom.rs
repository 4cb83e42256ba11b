//! `cargo xtask loom`: every interleaving of the boundary between callers and the broker.

use std::process::Command;

use anyhow::Result;

use crate::run;
use crate::workspace::Workspace;

/// Runs the loom models of offshoot-mux
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the models whose name contains this
    filter: Option<String>,
}

/// Whether the models are there.
pub fn present(workspace: &Workspace) -> bool {
    workspace.member("offshoot-mux").is_some_and(|package| package.has_target("test", "loom"))
}

/// The run of all models, in a target folder of its own: the flag would throw away every other build.
pub fn command(workspace: &Workspace) -> Command {
    let mut command = run::cargo_in(&workspace.root);
    command
        .args(["test", "--release", "--package", "offshoot-mux", "--test", "loom"])
        .env("RUSTFLAGS", "--cfg loom")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", workspace.target.join("loom"));
    command
}

/// Runs the models.
///
/// # Errors
///
/// When a model fails or cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    anyhow::ensure!(present(&workspace), "offshoot-mux has no test target `loom`");
    let mut command = command(&workspace);
    if let Some(filter) = &args.filter {
        command.arg("--").arg(filter);
    }
    run::check(&mut command)?;
    println!("loom: every model holds");
    Ok(())
}
