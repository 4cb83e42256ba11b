//! `cargo xtask image`: a program of this workspace, such as an example, for many machines and as one file.

use anyhow::Result;
use offshoot_build::make;

use crate::workspace::Workspace;

/// Builds a program of this workspace for each triple, and the one file of all
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    make: make::Args,
}

/// Runs the command, in the folder of the workspace.
///
/// # Errors
///
/// When something cannot be built here, with what is missing and what to do.
pub fn run(args: &Args) -> Result<()> {
    make::run(&Workspace::load()?.root, &args.make).map(drop)
}
