//! `cargo xtask tidy`: the rules that no compiler checks.

use anyhow::{Result, bail};

use crate::tidy;
use crate::workspace::Workspace;

/// Checks the arrows between the crates and the rules for every file
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Warnings fail the check as well
    #[arg(long)]
    strict: bool,
}

/// Prints the findings and a closing line.
///
/// # Errors
///
/// When a rule is broken, or the workspace cannot be read.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let report = tidy::check(&workspace)?;
    for finding in &report.findings {
        println!("{finding}");
    }
    let errors = report.errors();
    let warnings = report.findings.len() - errors;
    let closing = format!("tidy: {} files, {errors} errors, {warnings} warnings", report.files);
    if errors > 0 || (args.strict && warnings > 0) {
        bail!("{closing}");
    }
    println!("{closing}");
    Ok(())
}
