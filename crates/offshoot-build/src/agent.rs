//! The agent for a triple: built, checked, and packed into a bundle with its loader.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_image::elf;
use offshoot_loader::build::Loader;

use crate::recipe::{self, Job, Product};
use crate::toolchain::{Found, Recipe};
use crate::triples::Triple;
use crate::{loader, write};

/// Where the agent's sources are.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Sources {
    /// In the workspace at this folder.
    Workspace(PathBuf),
    /// In cargo's registry, by their version.
    Registry(String),
}

/// One agent that was built.
#[derive(Debug)]
#[non_exhaustive]
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

/// How to build agents.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where the sources are.
    pub sources: Sources,
    /// Where cargo builds, each recipe in a folder of its own.
    pub folder: PathBuf,
    /// Where the bundles go.
    pub out: PathBuf,
    /// The recipe; by default the first that can be followed.
    pub recipe: Option<Recipe>,
    /// Whether rustup may fetch what is missing.
    pub install: bool,
    /// Whether cargo must do without the network.
    pub offline: bool,
}

impl Options {
    /// To build from `sources` in `folder`, and to put the bundles there: by the best recipe, and installing nothing; with
    /// what `change` makes of that.
    #[must_use]
    pub fn with(sources: Sources, folder: PathBuf, change: impl FnOnce(&mut Options)) -> Options {
        let out = folder.clone();
        let mut options = Options { sources, folder, out, recipe: None, install: false, offline: false };
        change(&mut options);
        options
    }
}

/// The file name of the bundle for a triple.
pub fn bundle_name(triple: &str) -> String {
    format!("offshoot-agent-{triple}.bundle")
}

/// Whether an agent for the triple can be built here, by any recipe; `install` lets rustup fetch what is missing.
///
/// # Errors
///
/// When it cannot, which says what is missing.
pub fn check(triple: &'static Triple, install: bool) -> Result<()> {
    find(triple, None, install).map(drop)
}

fn find(triple: &'static Triple, recipe: Option<Recipe>, install: bool) -> Result<(Found, Recipe)> {
    let mut found = Found::look(triple)?;
    if install {
        found.install(triple);
    }
    let recipe = found.require("agent", triple, recipe)?;
    Ok((found, recipe))
}

/// Builds the agent for a triple, checks it and packs it. Beside the bundle lies its executable, for local contexts.
///
/// # Errors
///
/// When it cannot be built here, which says what is missing; or what came out is not what it should be.
pub fn build(triple: &'static Triple, options: &Options) -> Result<Built> {
    let Options { folder, out, .. } = options;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let (found, recipe) = find(triple, options.recipe, options.install)?;
    let (executable, rustc) = recipe::build(&job(options)?, triple, recipe, &found)?;
    let about = || format!("the agent for {} by recipe {} is no good", triple.name, recipe.name());
    let linked = std::fs::read(&executable).with_context(|| format!("cannot read {}", executable.display()))?;
    let agent = elf::trimmed(linked);
    let executable = executable.with_file_name("offshoot-agent-trimmed");
    write(&executable, &agent, 0o755)?;
    recipe::check_elf(&agent, triple).with_context(about)?;
    let hello_not_run = recipe::hello(&executable, triple).with_context(about)?;
    let loader = loader::build(folder, triple, &found)?;

    let path = out.join(bundle_name(triple.name));
    let (stage0, stage1) = (loader.stage0.len(), loader.stage1.len());
    let bundle = packed(triple, loader, &agent)?;
    let sent = bundle.agent().bytes.len();
    write(&path, &bundle.encode(), 0o644)?;
    // As it is, for local contexts: they share its pages and nothing need be unpacked.
    write(&out.join(format!("offshoot-agent-{}", triple.name)), &agent, 0o755)?;
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

fn job(options: &Options) -> Result<Job<'_>> {
    let words = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<_>>();
    let folder = &options.folder;
    let (root, verb, mut select, executable) = match &options.sources {
        Sources::Workspace(root) => (
            root,
            "build",
            words(&["--package", "offshoot-agent", "--bin", "offshoot-agent", "--profile", "agent"]),
            "agent/offshoot-agent".into(),
        ),
        Sources::Registry(version) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let root = folder.join("installed");
            let mut select = words(&["offshoot-agent", "--version", &format!("={version}"), "--locked", "--force"]);
            select.extend(["--no-track".into(), "--root".into(), root.clone().into()]);
            (folder, "install", select, root.join("bin/offshoot-agent"))
        }
    };
    if verb == "install" {
        // The workspace's profile does not come along.
        for setting in
            ["opt-level=\"z\"", "lto=\"fat\"", "codegen-units=1", "panic=\"abort\"", "strip=true", "debug=false"]
        {
            select.extend(["--config".into(), format!("profile.release.{setting}").into()]);
        }
    }
    select.extend(options.offline.then(|| "--offline".into()));
    Ok(Job { from: root, root, folder, verb, select, executable, product: Product::Agent })
}

/// The bundle, packed anew: how that is done may have changed since the one in its place was.
fn packed(triple: &Triple, loader: Loader, agent: &[u8]) -> Result<Bundle> {
    Packed::of(agent)
        .and_then(|agent| Bundle::new(triple.name, loader.stage0, loader.stage1, agent))
        .with_context(|| format!("cannot pack the agent for {}", triple.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_from_the_registry_is_the_version_that_the_program_was_built_with() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::Registry("0.1.0".into());
        let options = Options::with(sources, folder.path().into(), |options| options.offline = true);
        let job = job(&options).unwrap();
        assert_eq!(job.verb, "install");
        assert!(job.select.iter().any(|word| word == "=0.1.0"), "{:?}", job.select);
        assert!(job.select.iter().any(|word| word == "--offline"), "{:?}", job.select);
        assert!(job.select.iter().any(|word| word == "profile.release.panic=\"abort\""), "{:?}", job.select);
    }
}
