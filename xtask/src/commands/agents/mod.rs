//! `cargo xtask agents`: the agent and the loader for each target triple, checked and packed into bundles.

mod sizes;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use offshoot_build::agent::{self, Built, Sources};
use offshoot_build::make::Choice;
use offshoot_build::toolchain::{Found, Recipe};
use offshoot_build::triples::{self, Triple};

use crate::workspace::Workspace;

/// Builds the agent for each triple and packs it with its loader
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A target triple; may be repeated. By default x86_64 and aarch64
    #[arg(long = "triple", value_name = "TRIPLE")]
    triples: Vec<String>,
    /// How to build
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    recipe: Choice,
    /// Let rustup fetch what is missing
    #[arg(long)]
    install: bool,
    /// Where the bundles go; by default target/agents
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Rewrite docs/sizes.md
    #[arg(long)]
    write_sizes: bool,
}

/// What to build.
#[derive(Debug, Default)]
pub struct Wanted {
    triples: Vec<String>,
    recipe: Option<Recipe>,
    install: bool,
    out: Option<PathBuf>,
}

impl Wanted {
    /// These triples, by the best recipe that can be followed.
    pub fn triples(names: &[&str]) -> Wanted {
        Wanted { triples: names.iter().map(ToString::to_string).collect(), ..Wanted::default() }
    }

    /// Lets rustup fetch what is missing.
    pub fn install(self, install: bool) -> Wanted {
        Wanted { install, ..self }
    }
}

const KIB: usize = 1024;

/// The most that the loader's stages may weigh together.
const LOADER_BUDGET: usize = 16 * KIB;

/// The most that an agent may weigh as sent.
///
/// 162 KiB is what is promised for the two default triples. The others have what they weighed when it was kept there, and
/// three per cent: their code is larger for the same program, so less of that would only forbid what the promise allows.
fn budget(recipe: Recipe, triple: &str) -> usize {
    let kib = match (recipe, triple.split('-').next()) {
        // Prints its panics, and std is not built for size.
        (Recipe::A, _) => 320,
        (Recipe::APlus, Some("x86_64" | "aarch64")) => 162,
        // Eight registers, so that much goes through the stack; and what is 64 bits wide takes two of them.
        (Recipe::APlus, Some("i686")) => 176,
        // By zig's linker, which folds no functions that are alike nor puts them side by side.
        (_, Some("armv7")) => 175,
        // Likewise, and each address that is not near takes two instructions.
        (_, Some("riscv64gc")) => 188,
        // For a developer's machine without the sources of its std; not what is released.
        _ => 184,
    };
    kib * KIB
}

/// The default triples.
const DEFAULT: [&str; 2] = [triples::ALL[0].name, triples::ALL[1].name];

/// Where agents are built and, by default, their bundles put.
pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("agents")
}

/// Runs the command.
///
/// # Errors
///
/// When an agent cannot be built, is not what it should be, or is over its budget.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let built = build(
        &workspace,
        &Wanted {
            triples: args.triples.clone(),
            recipe: args.recipe.recipe(),
            install: args.install,
            out: args.out.clone(),
        },
    )?;
    for agent in &built {
        if let Some(reason) = &agent.hello_not_run {
            println!("not run: agent_hello_{}: {reason}", agent.triple);
        }
    }
    if args.write_sizes {
        sizes::write(&workspace.root.join("docs/sizes.md"), &built)?;
    }
    println!("agents: {} built", built.len());
    Ok(())
}

/// Builds the agent that this machine runs.
///
/// # Errors
///
/// As [`build`].
pub fn build_for_host(workspace: &Workspace) -> Result<()> {
    let triple = Triple::of_this_machine().context("no agent is known for this machine")?;
    build(workspace, &Wanted::triples(&[triple.name])).map(drop)
}

/// What this machine lacks for building an agent for the triple, in one line; nothing when it can.
///
/// # Errors
///
/// When the triple is unknown, or there is no compiler at all.
pub fn missing(triple: &str) -> Result<Option<String>> {
    let triple = Triple::named(triple)?;
    let lacks = Found::look(triple)?.require("agent", triple, None).err();
    Ok(lacks.map(|error| {
        let text = error.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.join(" ")
    }))
}

/// Builds, checks and packs.
///
/// # Errors
///
/// At the first triple that cannot be built, checked or packed.
pub fn build(workspace: &Workspace, wanted: &Wanted) -> Result<Vec<Built>> {
    let out = wanted.out.clone().unwrap_or_else(|| folder(workspace));
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let names: Vec<&str> =
        if wanted.triples.is_empty() { DEFAULT.to_vec() } else { wanted.triples.iter().map(String::as_str).collect() };
    let triples = names.into_iter().map(Triple::named).collect::<Result<Vec<_>>>()?;
    let mut built = Vec::new();
    for triple in triples {
        let agent = one(workspace, triple, wanted, &out)?;
        println!(
            "{}: recipe {}, {:.1} KiB, {:.1} KiB as sent, loader {} + {} bytes, {}",
            agent.triple,
            agent.recipe.name(),
            kib(agent.raw),
            kib(agent.sent),
            agent.stage0,
            agent.stage1,
            workspace.relative(&agent.bundle).display()
        );
        built.push(agent);
    }
    Ok(built)
}

fn kib(bytes: usize) -> f64 {
    bytes as f64 / KIB as f64
}

fn one(workspace: &Workspace, triple: &'static Triple, wanted: &Wanted, out: &Path) -> Result<Built> {
    let sources = Sources::Workspace(workspace.root.clone());
    let options = agent::Options::with(sources, folder(workspace), |options| {
        options.out = out.to_path_buf();
        options.recipe = wanted.recipe;
        options.install = wanted.install;
    });
    let built = agent::build(triple, &options)?;
    // Checked last: what weighs too much works all the same.
    within(&format!("the agent for {}", triple.name), built.sent, budget(built.recipe, triple.name))?;
    within(&format!("the loader for {}", triple.name), built.stage0 + built.stage1, LOADER_BUDGET)?;
    Ok(built)
}

fn within(what: &str, size: usize, budget: usize) -> Result<()> {
    ensure!(
        size <= budget,
        "{what} is {size} bytes, {} over its budget of {budget}\n\
         fix: find what grew with `cargo bloat --profile agent -p offshoot-agent`, or with the diff of docs/sizes.md",
        size - budget.min(size)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_budget_fails_with_the_excess() {
        assert!(within("it", 10, 10).is_ok());
        let error = within("it", 12, 10).unwrap_err().to_string();
        assert!(error.starts_with("it is 12 bytes, 2 over its budget of 10"), "{error}");
    }

    #[test]
    fn an_unknown_triple_names_the_known_ones() {
        let error = Triple::named("sparc-sun-solaris").unwrap_err().to_string();
        assert!(error.contains("x86_64-unknown-linux-musl"), "{error}");
    }
}
