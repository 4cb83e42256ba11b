//! `cargo xtask release-check`: whether every published crate could go to a registry as it is.

use anyhow::{Result, ensure};

use crate::run;
use crate::workspace::Workspace;

/// Packages every published crate, in the order in which they would be published
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also build each package from its archive
    #[arg(long)]
    verify: bool,
    /// Accept changes that are not committed
    #[arg(long)]
    allow_dirty: bool,
}

impl Args {
    /// As a release would: from what is committed, and built.
    pub fn verified() -> Args {
        Args { verify: true, allow_dirty: false }
    }
}

/// Packages them in one go, since none of them is in a registry for the others to find.
///
/// # Errors
///
/// When a crate cannot be packaged, or they disagree in version.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let crates = workspace.published();
    let Some(first) = crates.first() else {
        anyhow::bail!("no crate is published");
    };
    for package in &crates {
        ensure!(
            package.version == first.version,
            "{} is {}, {} is {}: they are released together",
            package.name,
            package.version,
            first.name,
            first.version
        );
        ensure!(package.rust_version.is_some(), "{} states no minimum Rust version", package.name);
        println!("{} {}", package.name, package.version);
    }
    let mut command = run::cargo_in(&workspace.root);
    command.arg("package");
    for package in &crates {
        command.args(["--package", &package.name]);
    }
    if !args.verify {
        command.arg("--no-verify");
    }
    if args.allow_dirty {
        command.arg("--allow-dirty");
    }
    command.env("CARGO_TARGET_DIR", workspace.target.join("package-check"));
    run::check(&mut command)?;
    println!("release-check: {} crates can be packaged", crates.len());
    Ok(())
}
