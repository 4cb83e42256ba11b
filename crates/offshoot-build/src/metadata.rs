//! What cargo knows about a user's packages: which there are, what they build, and which of them a package needs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What `cargo metadata` says, with all features: what is not there without one counts as well.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// All packages, those from elsewhere too.
    pub packages: Vec<Package>,
    /// The folder of the workspace.
    pub workspace_root: PathBuf,
    /// Where cargo builds.
    pub target_directory: PathBuf,
    workspace_members: Vec<String>,
    #[serde(default)]
    workspace_default_members: Vec<String>,
    resolve: Option<Resolve>,
}

/// A package.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    id: String,
    /// Where it is from; nothing when it lies in a folder.
    pub source: Option<String>,
    /// Its `Cargo.toml`.
    pub manifest_path: PathBuf,
    /// What it builds.
    pub targets: Vec<Target>,
    default_run: Option<String>,
}

/// Something that a package builds.
#[derive(Debug, Deserialize)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// `bin`, `example`, `lib`, …
    pub kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// What to build: a binary or an example of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Program {
    /// The package.
    pub package: String,
    /// The name of the binary or example.
    pub name: String,
    /// Whether it is an example.
    pub example: bool,
}

impl Program {
    /// cargo's words for it.
    pub fn select(&self) -> Vec<OsString> {
        let kind = if self.example { "--example" } else { "--bin" };
        ["--package", &self.package, kind, &self.name].iter().map(Into::into).collect()
    }
}

impl Metadata {
    /// Asks cargo about the workspace of `folder`, or of `manifest`; `lock` are its words about the lock file and the
    /// network: `--locked`, `--offline`, `--frozen`.
    ///
    /// # Errors
    ///
    /// When cargo does not run, or a manifest is wrong; the text is cargo's own.
    pub fn load(folder: &Path, manifest: Option<&Path>, lock: &[String]) -> Result<Metadata> {
        let mut command = Command::new(crate::cargo());
        command.args(["metadata", "--format-version", "1", "--all-features"]).args(lock).current_dir(folder);
        if let Some(manifest) = manifest {
            command.arg("--manifest-path").arg(manifest);
        }
        let output = command.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        serde_json::from_slice(&output.stdout).context("cannot read cargo's metadata")
    }

    /// The package of that name in the workspace; without one, the one that `folder` lies in, or the only one.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one to choose from; the names are in the error.
    pub fn package(&self, name: Option<&str>, folder: &Path) -> Result<&Package> {
        let members = || self.packages.iter().filter(|package| self.workspace_members.contains(&package.id));
        let names = || members().map(|package| package.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = name {
            return members()
                .find(|package| package.name == name)
                .with_context(|| format!("no package {name} is in this workspace\n  there are: {}", names()));
        }
        let folder = canonical(folder);
        let depth = |package: &Package| {
            let own = canonical(package.folder());
            folder.starts_with(&own).then(|| own.components().count())
        };
        let here = members().filter_map(|package| Some((depth(package)?, package))).max_by_key(|(depth, _)| *depth);
        let default = members().filter(|package| self.workspace_default_members.contains(&package.id));
        let candidates: Vec<&Package> = match here.map(|(_, package)| package) {
            Some(package) => vec![package],
            None => default.filter(|package| package.targets.iter().any(|t| t.is("bin"))).collect(),
        };
        match candidates[..] {
            [package] => Ok(package),
            _ => bail!("which package?\n  there are: {}\nfix: say -p PACKAGE", names()),
        }
    }

    /// The binary or example to build.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or more than one to choose from; the names are in the error.
    pub fn program(&self, package: &Package, bin: Option<&str>, example: Option<&str>) -> Result<Program> {
        let of = |kind: &'static str| package.targets.iter().filter(move |t| t.is(kind)).map(|t| t.name.as_str());
        let (kind, wanted) = match (bin, example) {
            (_, Some(example)) => ("example", Some(example)),
            (bin, None) => ("bin", bin.or(package.default_run.as_deref())),
        };
        let names: Vec<&str> = of(kind).collect();
        let name = match (wanted, &names[..]) {
            (Some(wanted), _) if names.contains(&wanted) => wanted,
            (None, [only]) => only,
            (Some(wanted), _) => {
                bail!("{} has no {kind} {wanted}\n  there are: {}", package.name, names.join(", "))
            }
            (None, []) => bail!(
                "{} has no binary\n  examples: {}\nfix: say --example NAME",
                package.name,
                of("example").collect::<Vec<_>>().join(", ")
            ),
            (None, _) => bail!(
                "which binary of {}?\n  there are: {}\nfix: say --bin NAME, or --example NAME",
                package.name,
                names.join(", ")
            ),
        };
        Ok(Program { package: package.name.clone(), name: name.to_string(), example: kind == "example" })
    }

    /// The package itself and all that it needs, with any of its features.
    fn needs(&self, package: &Package) -> Vec<&Package> {
        let by_id: HashMap<&str, &Package> = self.packages.iter().map(|p| (p.id.as_str(), p)).collect();
        let nodes = self.resolve.iter().flat_map(|resolve| &resolve.nodes);
        let needs: HashMap<&str, &[String]> = nodes.map(|n| (n.id.as_str(), n.dependencies.as_slice())).collect();
        let mut order: Vec<&str> = vec![&package.id];
        let mut seen: HashSet<&str> = HashSet::from([package.id.as_str()]);
        let mut next = 0;
        while let Some(id) = order.get(next).copied() {
            next += 1;
            let needed = needs.get(id).copied().unwrap_or_default().iter().map(String::as_str);
            order.extend(needed.filter(|needed| seen.insert(needed)));
        }
        order.iter().filter_map(|id| by_id.get(id).copied()).collect()
    }

    /// The package itself and all that it needs, with any of its features, as far as they lie in folders and not in a
    /// registry; sorted by name.
    pub fn own(&self, package: &Package) -> Vec<&Package> {
        let mut own = self.needs(package);
        own.retain(|needed| needed.source.is_none());
        own.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        own
    }

    /// What the package needs under that name, with any of its features.
    pub fn needed(&self, package: &Package, name: &str) -> Option<&Package> {
        self.needs(package).into_iter().find(|needed| needed.name == name)
    }
}

/// Where it really is: cargo and its user may have come there by different links.
fn canonical(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

impl Package {
    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(Path::new(""))
    }
}

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> (Metadata, PathBuf) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        (Metadata::load(&folder, None, &[]).unwrap(), folder)
    }

    #[test]
    fn what_a_package_needs_is_found_as_far_as_it_lies_in_folders() {
        let (metadata, folder) = here();
        let own = metadata.own(metadata.package(None, &folder).unwrap());
        let names: Vec<&str> = own.iter().map(|package| package.name.as_str()).collect();
        assert!(names.contains(&"offshoot-build") && names.contains(&"offshoot-loader"), "{names:?}");
        assert!(!names.contains(&"serde"), "{names:?}");
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let (metadata, folder) = here();
        let error = metadata.package(Some("nope"), &folder).unwrap_err().to_string();
        assert!(error.contains("offshoot-build"), "{error}");
        let package = metadata.package(Some("offshoot"), &folder).unwrap();
        let error = metadata.program(package, None, Some("nope")).unwrap_err().to_string();
        assert!(error.contains("the_basics"), "{error}");
        let error = metadata.program(package, None, None).unwrap_err().to_string();
        assert!(error.contains("--example NAME"), "{error}");
    }
    /// A package in `src/deep` of which cargo was started, and one beside it that only a feature brings.
    fn with_an_optional_one() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, rest) in [
            ("main", "[dependencies]\nextra = { path = \"../extra\", optional = true }\n"),
            ("extra", "[features]\nunused = []\n"),
        ] {
            let at = folder.path().join(name);
            std::fs::create_dir_all(at.join("src/deep")).unwrap();
            let package = format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{rest}");
            std::fs::write(at.join("Cargo.toml"), package).unwrap();
            std::fs::write(at.join("src/lib.rs"), "").unwrap();
        }
        folder
    }

    #[test]
    fn what_only_a_feature_brings_is_needed_too() {
        let folder = with_an_optional_one();
        let main = folder.path().join("main");
        let metadata = Metadata::load(&main, None, &[]).unwrap();
        let package = metadata.package(None, &main).unwrap();
        let names: Vec<&str> = metadata.own(package).iter().map(|package| package.name.as_str()).collect();
        assert_eq!(names, ["extra", "main"]);
        assert!(metadata.needed(package, "extra").is_some());
        assert!(metadata.needed(package, "offshoot-node").is_none());
    }

    #[test]
    fn the_package_is_found_from_below_its_folder_and_by_a_link_to_it() {
        let folder = with_an_optional_one();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("main"), &link).unwrap();
        let metadata = Metadata::load(&link, None, &[]).unwrap();
        for from in [link.clone(), link.join("src/deep"), folder.path().join("main/src")] {
            assert_eq!(metadata.package(None, &from).unwrap().name, "main", "{}", from.display());
        }
    }
}
