//! What cargo knows about the workspace: packages, their targets and their declared dependencies.
//!
//! Owns the reading of `cargo metadata`. Knows no rule of the project: those are in [`crate::tidy`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The workspace as cargo describes it.
#[derive(Debug)]
pub struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// The workspace's own packages, sorted by name.
    pub members: Vec<Package>,
    /// Packages from elsewhere that the lock file names.
    pub foreign: Vec<Package>,
}

/// One package.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// cargo's identity of it.
    id: String,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// The one-line description.
    pub description: Option<String>,
    /// The licence expression.
    pub license: Option<String>,
    /// The stated minimum Rust version.
    pub rust_version: Option<String>,
    /// The native library it links, if any.
    pub links: Option<String>,
    /// The registries it may go to: `None` is any, an empty list is none.
    pub publish: Option<Vec<String>>,
    /// What its manifest asks for.
    pub dependencies: Vec<Dependency>,
    /// What it builds.
    pub targets: Vec<Target>,
}

/// One line of a manifest's dependencies.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// `None` for normal ones, else `dev` or `build`.
    pub kind: Option<String>,
}

/// Something that a package builds.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `lib`, `proc-macro`, `bin`, `test`, `example`, `bench`, `custom-build`.
    pub kind: Vec<String>,
    /// Its root file.
    pub src_path: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built from.
    ///
    /// # Errors
    ///
    /// When cargo does not run, or a manifest is wrong; the text is cargo's own.
    pub fn load() -> Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies outside of any workspace")?;
        Workspace::load_at(root)
    }

    /// Asks cargo about the workspace in `root`.
    ///
    /// # Errors
    ///
    /// As [`Workspace::load`].
    pub fn load_at(root: &Path) -> Result<Workspace> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1"])
            .current_dir(root)
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")?;
        let (mut members, foreign): (Vec<_>, Vec<_>) =
            metadata.packages.into_iter().partition(|package| metadata.workspace_members.contains(&package.id));
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Workspace { root: metadata.workspace_root, target: metadata.target_directory, members, foreign })
    }

    /// The workspace's own package of that name.
    pub fn member(&self, name: &str) -> Option<&Package> {
        self.members.iter().find(|package| package.name == name)
    }

    /// `path` as seen from the root of the workspace, for messages.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The published packages, each after those that it needs.
    pub fn published(&self) -> Vec<&Package> {
        let mut ordered: Vec<&Package> = Vec::new();
        let mut waiting: Vec<&Package> = self.members.iter().filter(|p| p.is_published()).collect();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.iter().partition(|package| {
                package.dependencies.iter().all(|dependency| {
                    dependency.kind.as_deref() == Some("dev")
                        || !waiting.iter().any(|other| other.name == dependency.name)
                })
            });
            if ready.is_empty() {
                // A cycle: cargo refuses those itself, so any order is as good as another.
                ordered.extend(rest);
                break;
            }
            ordered.extend(ready);
            waiting = rest;
        }
        ordered
    }
}

impl Package {
    /// The package's folder.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }

    /// Whether it goes to a registry.
    pub fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|to| !to.is_empty())
    }

    /// Its library, if it has one.
    pub fn library(&self) -> Option<&Target> {
        self.targets.iter().find(|t| t.kind.iter().any(|k| k == "lib" || k == "proc-macro"))
    }

    /// Its test targets with a harness of their own, by name. `cargo metadata` does not tell, so the manifest is read.
    pub fn own_harnesses(&self) -> Vec<String> {
        let manifest = std::fs::read_to_string(&self.manifest_path).unwrap_or_default();
        manifest
            .split("\n[")
            .filter_map(|table| table.strip_prefix("[test]]\n"))
            .filter(|table| table.lines().any(|line| line.replace(' ', "") == "harness=false"))
            .filter_map(|table| table.lines().find_map(|line| line.strip_prefix("name = ")))
            .map(|name| name.trim_matches('"').to_string())
            .collect()
    }

    /// Whether it has a target of that kind and name.
    pub fn has_target(&self, kind: &str, name: &str) -> bool {
        self.targets.iter().any(|t| t.name == name && t.kind.iter().any(|k| k == kind))
    }
}

/// The cargo to call: the one that called us, else the one on the path.
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
