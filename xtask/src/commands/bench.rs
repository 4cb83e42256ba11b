//! `cargo xtask bench`: builds what is measured, then hands over to `offshoot-bench suite`.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use offshoot_build::image::{self, Options};
use offshoot_build::metadata::Metadata;
use offshoot_build::triples::Triple;

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

/// Builds the driver, the program with remote functions and the command in release, that program once more as the image that is sent, and the agent of
/// this machine; then runs the suite.
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
    build_image(&workspace)?;
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

/// The program with remote functions as users' images are: static, and stamped.
fn build_image(workspace: &Workspace) -> Result<()> {
    let metadata = Metadata::load(&workspace.root, None, &[])?;
    let package = metadata.package(Some("offshoot-bench"), &workspace.root)?;
    let program = metadata.program(package, Some("offshoot-bench-calls"), None)?;
    let base = Triple::of_this_machine().context("no image is known for this machine")?;
    let options = Options::with(|options| options.profile = "small".into());
    image::build(&metadata, package, &program, &[base], &options).map(drop)
}
