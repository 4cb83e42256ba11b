//! A program for many machines, from the command line's words to the one file: what `cargo offshoot build` and
//! `cargo xtask image` do.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use offshoot_image::onefile;

use crate::agent::{self, Sources};
use crate::flags::Flags;
use crate::image::{self, Options};
use crate::metadata::{Metadata, Package};
use crate::run;
use crate::toolchain::Recipe;
use crate::triples::{ALL, Triple};

/// A recipe as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Choice {
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
    /// The recipe; nothing for the first that can be followed.
    pub fn recipe(self) -> Option<Recipe> {
        match self {
            Choice::Auto => None,
            Choice::A => Some(Recipe::A),
            Choice::APlus => Some(Recipe::APlus),
            Choice::B => Some(Recipe::B),
            Choice::C => Some(Recipe::C),
        }
    }
}

/// What to build, and how.
// Without a group of its own: whoever takes these arguments in has one of that name.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The package; by default the one in this folder
    #[arg(short, long, value_name = "PACKAGE")]
    package: Option<String>,
    /// The binary; by default the only one
    #[arg(long, value_name = "NAME", conflicts_with = "example")]
    bin: Option<String>,
    /// An example instead of a binary
    #[arg(long, value_name = "NAME")]
    example: Option<String>,
    /// A target triple; may be repeated. By default x86_64 and aarch64; that of this machine is always among them
    #[arg(long = "triple", value_name = "TRIPLE")]
    triples: Vec<String>,
    /// Features to activate, separated by commas
    #[arg(short = 'F', long, value_name = "FEATURES")]
    features: Vec<String>,
    /// Activate all features
    #[arg(long)]
    all_features: bool,
    /// Do not activate the default feature
    #[arg(long)]
    no_default_features: bool,
    /// cargo's profile
    #[arg(long, value_name = "NAME", default_value = "release")]
    profile: String,
    /// The release profile, which is the default
    #[arg(short, long, conflicts_with = "profile")]
    release: bool,
    /// How to build the images
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    recipe: Choice,
    /// Let rustup fetch what is missing
    #[arg(long)]
    install: bool,
    /// Take the agents from this folder instead of building them
    #[arg(long, value_name = "FOLDER")]
    agents: Option<PathBuf>,
    /// Where the one file goes: a file, or a folder for NAME; by default target/offshoot/NAME
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Build the images alone: no agents, no one file
    #[arg(long, conflicts_with_all = ["agents", "out"])]
    images_only: bool,
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
    /// Do not change Cargo.lock
    #[arg(long)]
    locked: bool,
    /// Do without the network
    #[arg(long)]
    offline: bool,
    /// Both of these
    #[arg(long)]
    frozen: bool,
}

impl Args {
    /// Whether there will be a file to run.
    pub fn makes_one_file(&self) -> bool {
        !self.images_only
    }

    /// cargo's words about the lock file and the network.
    fn lock(&self) -> Vec<String> {
        let words = [(self.locked, "--locked"), (self.offline, "--offline"), (self.frozen, "--frozen")];
        words.into_iter().filter(|(given, _)| *given).map(|(_, word)| word.to_string()).collect()
    }
}

/// Builds the images, the agents, and the one file of them, and gives back the latter's path; nothing when only images
/// were asked for. What was built is told, a line each; what is on its way is shown on stderr, with cargo's own words.
///
/// # Errors
///
/// When something cannot be built here, with what is missing and what to do.
pub fn run(folder: &Path, args: &Args, tell: &dyn Fn(&str)) -> Result<Option<PathBuf>> {
    let began = Instant::now();
    let manifest = match &args.manifest_path {
        Some(path) => {
            let path = folder.join(path);
            Some(path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?)
        }
        None => None,
    };
    let lock = args.lock();
    let metadata = Metadata::load(folder, manifest.as_deref(), &lock)?;
    let package =
        metadata.package(args.package.as_deref(), manifest.as_deref().and_then(Path::parent).unwrap_or(folder))?;
    let program = metadata.program(package, args.bin.as_deref(), args.example.as_deref())?;
    let base = Triple::of_this_machine().context("no image is known for this machine")?;
    let triples = triples(&args.triples, base)?;
    let options = Options::with(|options| {
        options.features = features(args);
        options.profile.clone_from(&args.profile);
        options.recipe = args.recipe.recipe();
        options.install = args.install;
        options.lock = lock;
        options.from = Some(folder.to_path_buf());
        options.flags = Flags::look(folder);
    });
    if args.makes_one_file() {
        agents_at_hand(&metadata, package, &triples, args)?;
    }
    for note in options.flags.notes() {
        eprintln!("note: {note}");
    }
    let names: Vec<&str> = triples.iter().map(|triple| triple.name).collect();
    let what = if args.makes_one_file() && args.agents.is_none() { "images, and then agents," } else { "images" };
    eprintln!("{}: {what} for {}; what is built for the first time takes minutes", program.name, names.join(" and "));
    let images = image::build(&metadata, package, &program, &triples, &options)?;
    let relative = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    for image in &images.all {
        let (triple, recipe) = (image.triple, image.recipe.name());
        tell(&format!("image {triple}: recipe {recipe}, {:.1} KiB, {}", kib(image.bytes), relative(&image.path)));
    }
    if !args.makes_one_file() {
        // They travel as they are.
        for image in &images.all {
            image::fits(image.bytes, onefile::SENT_MAX).with_context(|| {
                format!("the image for {} alone is no good; in one file, packed, it may be", image.triple)
            })?;
        }
        return Ok(None);
    }
    let agents = match &args.agents {
        Some(agents) => agents.clone(),
        None => build_agents(&metadata, package, &triples, args, tell)?,
    };
    let out = place(args.out.as_deref(), &metadata.target_directory, &program.name)?;
    eprintln!("packing the images into one file");
    let bytes = image::one_file(&images, base, &agents, &out)?;
    tell(&format!("one file: {:.1} KiB, build {}, {}", kib(bytes), &images.id[..12], relative(&out)));
    eprintln!("all of it took {}", run::duration(began.elapsed()));
    Ok(Some(out))
}

/// Where the one file of the program goes. A whole path: whoever runs it must not look for its name.
fn place(out: Option<&Path>, target: &Path, name: &str) -> Result<PathBuf> {
    let file = match out {
        Some(folder) if folder.is_dir() => folder.join(name),
        Some(file) => file.to_path_buf(),
        None => target.join("offshoot").join(name),
    };
    std::path::absolute(&file).with_context(|| format!("{} is no place for a file", file.display()))
}

fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

/// Each once, and `base` among them.
fn triples(names: &[String], base: &'static Triple) -> Result<Vec<&'static Triple>> {
    let mut triples = vec![base];
    let named = names.iter().map(|name| Triple::named(name)).collect::<Result<Vec<_>>>()?;
    for triple in if named.is_empty() { ALL.iter().take(2).collect() } else { named } {
        if !triples.contains(&triple) {
            triples.push(triple);
        }
    }
    Ok(triples)
}

/// The words for features, the same for the same ones: they go into the id.
fn features(args: &Args) -> Vec<String> {
    let mut features: Vec<&str> = args.features.iter().flat_map(|list| list.split([',', ' '])).collect();
    features.retain(|feature| !feature.is_empty());
    features.sort_unstable();
    features.dedup();
    let mut words = Vec::new();
    if !features.is_empty() {
        words.push(format!("--features={}", features.join(",")));
    }
    words.extend(args.all_features.then(|| "--all-features".to_string()));
    words.extend(args.no_default_features.then(|| "--no-default-features".to_string()));
    words
}

/// Sees to it, before anything is built, that there will be an agent for each triple.
fn agents_at_hand(metadata: &Metadata, package: &Package, triples: &[&'static Triple], args: &Args) -> Result<()> {
    let node = node(metadata, package)?;
    for triple in triples {
        match &args.agents {
            Some(folder) => {
                let path = folder.join(agent::bundle_name(triple.name));
                ensure!(
                    path.is_file(),
                    "no agent for {}: {} is not there\n\
                     fix: leave --agents away, then it is built; or `cargo xtask agents --triple {}` in a checkout of offshoot {}",
                    triple.name,
                    path.display(),
                    triple.name,
                    node.version
                );
            }
            None => agent::check(triple, args.install)?,
        }
    }
    Ok(())
}

/// offshoot as the program is built with it.
fn node<'a>(metadata: &'a Metadata, package: &'a Package) -> Result<&'a Package> {
    let node = metadata.needed(package, "offshoot-node").with_context(|| {
        "the program does not depend on offshoot\nfix: cargo add offshoot, and see its documentation".to_string()
    })?;
    let own = env!("CARGO_PKG_VERSION");
    ensure!(
        node.version == own,
        "the program is built with offshoot {}, this command makes agents of {own}\n\
         fix: cargo install cargo-offshoot --version {}",
        node.version,
        node.version
    );
    Ok(node)
}

/// The agents of the very version that the program is built with.
fn build_agents(
    metadata: &Metadata,
    package: &Package,
    triples: &[&'static Triple],
    args: &Args,
    tell: &dyn Fn(&str),
) -> Result<PathBuf> {
    let node = node(metadata, package)?;
    // In a checkout, by path or from git, the agent lies beside.
    let beside = node.folder().with_file_name("offshoot-agent/Cargo.toml");
    let sources = if beside.is_file() {
        Sources::Workspace(workspace(&beside)?)
    } else {
        Sources::Registry(node.version.clone())
    };
    let options = agent::Options::with(sources, metadata.target_directory.join("agents"), |options| {
        options.install = args.install;
        options.offline = args.offline || args.frozen;
    });
    for triple in triples {
        let agent = agent::build(triple, &options)?;
        let recipe = agent.recipe.name();
        tell(&format!("agent {}: recipe {recipe}, {:.1} KiB as sent", agent.triple, kib(agent.sent)));
    }
    Ok(options.out)
}

/// The folder of the workspace that the package with this manifest is of: its profile for agents stands there.
fn workspace(manifest: &Path) -> Result<PathBuf> {
    let mut command = run::cargo_in(manifest.parent().unwrap_or(manifest));
    let root = run::read(command.args(["locate-project", "--workspace", "--message-format", "plain"]))?;
    let root = Path::new(root.trim_end_matches('\n'));
    Ok(root.parent().with_context(|| format!("{} is in no folder", root.display()))?.to_path_buf())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::try_parse_from([&["x"], words].concat()).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn the_same_features_are_the_same_words_however_they_are_given() {
        let one = features(&args(&["-F", "b,a", "--features", "a c"]));
        assert_eq!(one, features(&args(&["--features", "c,b,a"])));
        assert_eq!(one, ["--features=a,b,c"]);
        assert!(features(&args(&[])).is_empty());
        assert_ne!(features(&args(&["--all-features"])), features(&args(&["--no-default-features"])));
    }

    #[test]
    fn the_triple_of_this_machine_is_always_built_and_each_once() {
        let base = &ALL[0];
        let names = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            triples(&words, base).map(|all| all.iter().map(|triple| triple.qemu).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["x86_64", "aarch64"]);
        assert_eq!(names(&[ALL[2].name, ALL[2].name]).unwrap(), ["x86_64", "i386"]);
        assert!(names(&["sparc"]).unwrap_err().to_string().contains("known: x86_64"));
    }
    #[test]
    fn the_one_file_has_a_whole_path_and_may_be_put_into_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = Path::new("/target");
        assert_eq!(place(None, target, "app").unwrap(), Path::new("/target/offshoot/app"));
        assert_eq!(place(Some(folder.path()), target, "app").unwrap(), folder.path().join("app"));
        let named = place(Some(Path::new("deploy")), target, "app").unwrap();
        assert_eq!(named, std::env::current_dir().unwrap().join("deploy"));
    }

    #[test]
    fn cargo_s_words_about_the_lock_file_and_the_profile_are_taken() {
        assert_eq!(args(&["--locked", "--offline"]).lock(), ["--locked", "--offline"]);
        assert_eq!(args(&["--frozen"]).lock(), ["--frozen"]);
        assert!(args(&[]).lock().is_empty());
        assert_eq!(args(&["--release"]).profile, "release");
        assert!(Line::try_parse_from(["x", "--release", "--profile", "dev"]).is_err());
    }

    #[test]
    fn the_agent_is_built_in_its_workspace_where_its_profile_stands() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = workspace(&own.join("Cargo.toml")).unwrap();
        assert!(std::fs::read_to_string(root.join("Cargo.toml")).unwrap().contains("[profile.agent]"));
    }
}
