//! `cargo xtask image`: a program of this workspace, such as an example, for many machines and as one file.

use anyhow::Result;
use clap::Parser as _;
use offshoot_build::make;

use crate::workspace::Workspace;

/// Builds a program of this workspace for each triple, and the one file of all
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    make: make::Args,
}

/// The examples that the tests send to other machines.
const TESTED: [&str; 2] = ["disk_usage", "install_app"];

/// Builds their images for these triples, not optimized, as the tests ask for them.
///
/// # Errors
///
/// As [`run`].
pub fn build_for_tests(workspace: &Workspace, triples: &[&str]) -> Result<()> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    for example in TESTED {
        let mut words =
            vec!["image", "--package", "offshoot", "--example", example, "--profile", "dev", "--images-only"];
        words.extend(triples.iter().flat_map(|triple| ["--triple", triple]));
        make::run(&workspace.root, &Line::try_parse_from(words)?.args.make, &tell)?;
    }
    Ok(())
}

/// Runs the command, in the folder of the workspace.
///
/// # Errors
///
/// When something cannot be built here, with what is missing and what to do.
pub fn run(args: &Args) -> Result<()> {
    make::run(&Workspace::load()?.root, &args.make, &tell).map(drop)
}

fn tell(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triple_that_is_unknown_is_told_before_anything_is_built() {
        let error = build_for_tests(&Workspace::load().unwrap(), &["sparc"]).unwrap_err().to_string();
        assert!(error.contains("known: x86_64"), "{error}");
    }
}
