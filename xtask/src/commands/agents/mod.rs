//! `cargo xtask agents`: the agent and the loader for each target triple, checked and packed into bundles.

mod loader;
mod recipe;
mod sizes;
pub mod toolchain;
pub mod triples;
pub mod zig;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_loader::build::Loader;

use self::toolchain::{Found, Recipe};
use self::triples::Triple;
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

/// A recipe as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// The first that can be followed
    Auto,
    /// The std of the toolchain
    A,
    /// std built anew, for size
    #[value(name = "a+")]
    APlus,
    /// Debian's rustc-web, linked by zig
    B,
    /// Debian's rustc-web, linked by rust-lld with a musl from elsewhere
    C,
}

impl Choice {
    fn recipe(self) -> Option<Recipe> {
        match self {
            Choice::Auto => None,
            Choice::A => Some(Recipe::A),
            Choice::APlus => Some(Recipe::APlus),
            Choice::B => Some(Recipe::B),
            Choice::C => Some(Recipe::C),
        }
    }
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
}

/// One agent that was built.
#[derive(Debug)]
pub struct Built {
    /// Its triple.
    pub triple: &'static str,
    /// How it was built.
    pub recipe: Recipe,
    /// Bytes of its executable.
    pub raw: usize,
    /// Bytes as sent.
    pub sent: usize,
    /// Bytes of the loader's first stage.
    pub stage0: usize,
    /// Bytes of its second.
    pub stage1: usize,
    /// The compiler's version.
    pub rustc: String,
    /// The file.
    pub bundle: PathBuf,
    /// Why `agent --hello` could not be run here.
    pub hello_not_run: Option<String>,
}

const KIB: usize = 1024;

/// The most that the loader's stages may weigh together.
const LOADER_BUDGET: usize = 16 * KIB;

/// The most that an agent may weigh as sent.
fn budget(recipe: Recipe) -> usize {
    match recipe {
        Recipe::A => 320 * KIB,
        // 160 is what is aimed at, and was kept before agents could answer prompts. Until it is again, this holds growth
        // in check: i686, whose code is the largest, is 181.
        Recipe::APlus | Recipe::B | Recipe::C => 184 * KIB,
    }
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
    let lacks = Found::look(triple)?.require(triple, None).err();
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
    let mut found = Found::look(triple)?;
    if wanted.install {
        found.install(triple);
    }
    let recipe = found.require(triple, wanted.recipe)?;
    let (executable, rustc) = recipe::build(workspace, triple, recipe, &found)?;
    let about = || format!("the agent for {} by recipe {} is no good", triple.name, recipe.name());
    let linked = std::fs::read(&executable).with_context(|| format!("cannot read {}", executable.display()))?;
    let agent = crate::elf::trimmed(linked);
    let executable = executable.with_file_name("offshoot-agent-trimmed");
    write(&executable, &agent, 0o755)?;
    recipe::check_elf(&agent, triple).with_context(about)?;
    let hello_not_run = recipe::hello(&executable, triple).with_context(about)?;
    let loader = loader::build(workspace, triple, &found)?;

    let path = out.join(format!("offshoot-agent-{}.bundle", triple.name));
    let (stage0, stage1) = (loader.stage0.len(), loader.stage1.len());
    let bundle = packed(triple, loader, &agent)?;
    let sent = bundle.agent().bytes.len();
    write(&path, &bundle.encode(), 0o644)?;
    // As it is, for local contexts: they share its pages and nothing need be unpacked.
    write(&out.join(format!("offshoot-agent-{}", triple.name)), &agent, 0o755)?;
    // Checked last: what weighs too much works all the same.
    within(&format!("the agent for {}", triple.name), sent, budget(recipe))?;
    within(&format!("the loader for {}", triple.name), stage0 + stage1, LOADER_BUDGET)?;
    Ok(Built {
        triple: triple.name,
        recipe,
        raw: agent.len(),
        sent,
        stage0,
        stage1,
        rustc,
        bundle: path,
        hello_not_run,
    })
}

/// The bundle, packed anew: how that is done may have changed since the one in its place was.
fn packed(triple: &Triple, loader: Loader, agent: &[u8]) -> Result<Bundle> {
    Packed::of(agent)
        .and_then(|agent| Bundle::new(triple.name, loader.stage0, loader.stage1, agent))
        .with_context(|| format!("cannot pack the agent for {}", triple.name))
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

/// A reader never sees half a file: it is written beside its place and moved there.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)))
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
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
