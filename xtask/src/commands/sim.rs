//! `cargo xtask sim`: the deterministic simulation of whole trees, as long and as large as one likes.

use anyhow::Result;

use crate::run;
use crate::workspace::Workspace;

/// Runs the simulation of the routing core over many seeds
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed; a failing run prints the one that replays it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Large trees of so many nodes; small ones of every shape without it
    #[arg(long)]
    nodes: Option<u32>,
}

/// Runs `offshoot-route`'s example `sim`, which prints the seed that fails.
///
/// # Errors
///
/// When a seed fails, or the simulation cannot be built.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut command = run::cargo_in(&workspace.root);
    command.args(["run", "--release", "--package", "offshoot-route", "--example", "sim", "--"]);
    command.args(["--seeds", &args.seeds.to_string(), "--seed", &args.seed.to_string()]);
    if let Some(nodes) = args.nodes {
        command.args(["--nodes", &nodes.to_string()]);
    }
    run::check(&mut command)?;
    println!("sim: {} seeds from {} hold", args.seeds, args.seed);
    Ok(())
}
