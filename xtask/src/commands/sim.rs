//! `cargo xtask sim`: the deterministic simulation of whole trees, as long and as large as one likes.

use anyhow::{Result, bail};

use crate::run;
use crate::workspace::Workspace;

/// Runs the simulation of the routing core over many seeds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// How many nodes each tree may grow to
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// The first seed; a failing run prints the one that replays it
    #[arg(long, default_value_t = 0)]
    from: u64,
}

/// Runs `offshoot-route`'s example `sim`, which prints the seed that fails.
///
/// # Errors
///
/// When a seed fails, or the simulation cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let route = workspace.member("offshoot-route");
    if !route.is_some_and(|package| package.has_target("example", "sim")) {
        bail!("offshoot-route has no example `sim`");
    }
    let mut command = run::cargo_in(&workspace.root);
    command.args(["run", "--release", "--package", "offshoot-route", "--example", "sim", "--"]);
    command.args(["--seeds", &args.seeds.to_string()]);
    command.args(["--nodes", &args.nodes.to_string()]);
    command.args(["--from", &args.from.to_string()]);
    run::check(&mut command)?;
    println!("sim: {} seeds from {}, up to {} nodes, all hold", args.seeds, args.from, args.nodes);
    Ok(())
}
