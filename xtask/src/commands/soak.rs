//! `cargo xtask soak`: the random-kill soak, masters that are killed, and every fault of the system and the link, for as long as one likes.

use anyhow::{Context as _, Result};
use offshoot_build::image::{self, Options};
use offshoot_build::metadata::Metadata;
use offshoot_build::triples::Triple;

use super::agents;
use crate::run;
use crate::workspace::Workspace;

/// Kills, stops and continues processes of a working tree at random, and checks that every promise is kept
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Decides what each thread does, and in which order; a finding prints it
    #[arg(long)]
    seed: Option<u64>,
    /// Milliseconds between two faults, from and to
    #[arg(long, value_name = "MS-MS")]
    every: Option<String>,
    /// How many percent of the connects go through ssh, where there is an sshd; ten by default
    #[arg(long, value_name = "PERCENT")]
    ssh: Option<u64>,
    /// Kill the master itself, again and again, instead of parts of its tree
    #[arg(long, conflicts_with = "faults")]
    masters: bool,
    /// Fail each system call, harm the link behind each part of the bootstrap, and make reads and writes short, instead; takes as long as it takes
    #[arg(long)]
    faults: bool,
}

/// Builds what is needed and runs it.
///
/// # Errors
///
/// When a promise was not kept, or something cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    // Contexts behind ssh are started from it.
    agents::build_for_host(&workspace)?;
    let mut command;
    if args.faults {
        command = run::cargo_in(&workspace.root);
        command.args([
            "test",
            "--package",
            "offshoot-tests",
            "--test",
            "faults",
            "--test",
            "short",
            "--",
            "--nocapture",
            "--test-threads",
            "1",
        ]);
        command.env("OFFSHOOT_FAULTS", "all").env("RUST_BACKTRACE", "0");
    } else {
        let mode = if args.masters { "masters" } else { "soak" };
        command = std::process::Command::new(build_image(&workspace)?);
        command.current_dir(&workspace.root).env("OFFSHOOT_AGENTS", agents::folder(&workspace));
        command.args([mode, "--minutes", &args.minutes.to_string()]);
        command.args(args.seed.iter().flat_map(|seed| ["--seed".to_string(), seed.to_string()]));
        command.args(args.ssh.iter().flat_map(|percent| ["--ssh".to_string(), percent.to_string()]));
        command.args(args.every.iter().flat_map(|every| ["--every", every]));
    }
    run::check(&mut command)?;
    println!("soak: every promise was kept");
    Ok(())
}

/// The program as an image, which is static: so it can be its own on the far side of a login, too.
fn build_image(workspace: &Workspace) -> Result<std::path::PathBuf> {
    let metadata = Metadata::load(&workspace.root, None, &[])?;
    let package = metadata.package(Some("offshoot-tests"), &workspace.root)?;
    let program = metadata.program(package, Some("offshoot-soak"), None)?;
    let base = Triple::of_this_machine().context("no image is known for this machine")?;
    let options = Options::with(|options| options.profile = "release".into());
    image::build(&metadata, package, &program, &[base], &options)?;
    Ok(workspace.target.join("images").join(image::image_name("offshoot-soak", base.name)))
}
