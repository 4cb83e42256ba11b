//! Where agents come from: bundles in folders or in the one file, one per target triple.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use offshoot_connect::bundle::Bundle;
use offshoot_connect::{Cancel, Payloads};
use offshoot_image::onefile::{Kind, OneFile};
use offshoot_wire::{Failure, FailureKind};

use crate::own::Own;
use crate::trust;

/// The variable that names a folder of agents.
const FOLDER: &str = "OFFSHOOT_AGENTS";

/// The largest file that is read as a bundle: far above any agent.
const LARGEST: u64 = 32 * 1024 * 1024;

/// Where a folder of agents was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// By the program: [`Builder::agents_dir`](crate::Builder::agents_dir).
    Named,
    /// By the variable `OFFSHOOT_AGENTS`.
    Environment,
    /// Behind the executable itself, in the one file.
    OneFile,
    /// The folder of the executable, or `agents` in it.
    Beside,
    /// The build folder that the executable lies in.
    Build,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Named => "named by the program",
            Origin::Environment => "OFFSHOOT_AGENTS",
            Origin::OneFile => "in the one file",
            Origin::Beside => "beside the program",
            Origin::Build => "build folder",
        })
    }
}

impl Origin {
    /// Whether a file may be taken from a folder. What was named is the business of who named it.
    fn trusts(self, folder: &Path, path: &Path) -> Result<(), String> {
        if !matches!(self, Origin::Beside | Origin::Build) {
            return Ok(());
        }
        trust::folder(folder).map_err(|why| format!("{} {why}", folder.display()))?;
        let about = std::fs::symlink_metadata(path).and_then(|link| Ok((link, std::fs::metadata(path)?)));
        let (link, about) = about.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let judged = if link.is_symlink() { trust::link(&link) } else { Ok(()) };
        judged.and_then(|()| trust::file(&about)).map_err(|why| format!("{} {why}", path.display()))
    }
}

/// An agent that was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundAgent {
    /// The target triple.
    pub triple: String,
    /// SHA-256 of the agent.
    pub sha256: [u8; 32],
    /// Its size in memory, in bytes.
    pub size: u64,
    /// Its size as sent, with the loader, in bytes.
    pub sent: u64,
    /// The file.
    pub path: PathBuf,
    /// How its folder was found.
    pub origin: Origin,
}

impl FoundAgent {
    fn of(bundle: &Bundle, path: &Path, origin: Origin) -> FoundAgent {
        FoundAgent {
            triple: bundle.triple().to_owned(),
            sha256: bundle.agent().sha256,
            size: u64::from(bundle.agent().len),
            sent: bundle.payload_after_line().len() as u64,
            path: path.to_owned(),
            origin,
        }
    }
}

/// The agents at hand. The first folder that has one for a triple wins; each is read once.
#[derive(Debug)]
pub struct Agents {
    folders: Vec<(Origin, PathBuf)>,
    read: Mutex<HashMap<String, Bundle>>,
}

impl Agents {
    /// Looks, in this order, in `named`, in the folder that `OFFSHOOT_AGENTS` names, behind the executable when it is one
    /// file, beside it, and in the build folder that it lies in.
    pub fn new(named: Option<PathBuf>) -> Agents {
        let mut folders = Vec::new();
        folders.extend(named.map(|folder| (Origin::Named, folder)));
        folders.extend(
            std::env::var_os(FOLDER)
                .filter(|folder| !folder.is_empty())
                .map(|folder| (Origin::Environment, PathBuf::from(folder))),
        );
        if let Ok(program) = std::env::current_exe()
            && let Some(folder) = program.parent()
        {
            folders.push((Origin::OneFile, program.clone()));
            folders.push((Origin::Beside, folder.to_owned()));
            folders.push((Origin::Beside, folder.join("agents")));
            // target/debug/program, target/debug/deps/test, target/TRIPLE/release/program
            folders.extend(folder.ancestors().skip(1).take(3).map(|above| (Origin::Build, above.join("agents"))));
        }
        Agents { folders, read: Mutex::new(HashMap::new()) }
    }

    /// The file name of the agent for a triple.
    fn file_name(triple: &str) -> String {
        format!("offshoot-agent-{triple}.bundle")
    }

    /// The agent for a triple.
    ///
    /// # Errors
    /// [`FailureKind::NoAgent`], which names the folders and the command that builds it; or why the file cannot be used.
    pub fn find(&self, triple: &str) -> Result<Bundle, Failure> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bundle) = read.get(triple) {
            return Ok(bundle.clone());
        }
        // A triple comes from a target: it must not lead out of the folder.
        if triple.is_empty() || !triple.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
            return Err(Failure::new(FailureKind::NoAgent(triple.into()), "the target names no triple"));
        }
        let mut skipped = Vec::new();
        for (origin, folder) in &self.folders {
            let path = if *origin == Origin::OneFile { folder.clone() } else { folder.join(Agents::file_name(triple)) };
            let bundle = match origin {
                Origin::OneFile => appended(&path, triple)?,
                _ if path.is_file() => match origin.trusts(folder, &path) {
                    Ok(()) => Some(load(&path)?),
                    Err(why) => {
                        skipped.push(why);
                        None
                    }
                },
                _ => None,
            };
            let Some(bundle) = bundle else { continue };
            if bundle.triple() != triple {
                let message = format!("{} holds an agent for {}", path.display(), bundle.triple());
                return Err(Failure::new(FailureKind::NoAgent(triple.into()), message));
            }
            read.insert(triple.to_owned(), bundle.clone());
            return Ok(bundle);
        }
        Err(self.missing(triple, &skipped))
    }

    /// The executable itself, uncompressed, where the build left one beside the bundle: for local contexts.
    pub(crate) fn executable(&self, triple: &str) -> Option<PathBuf> {
        let has = |(origin, folder): &&(Origin, PathBuf)| match origin {
            Origin::OneFile => one_file().is_some_and(|one| one.find(Kind::Agent, triple).is_some()),
            _ => {
                let path = folder.join(Agents::file_name(triple));
                path.is_file() && origin.trusts(folder, &path).is_ok()
            }
        };
        let (origin, folder) = self.folders.iter().find(has)?;
        let path = folder.join(format!("offshoot-agent-{triple}"));
        (path.is_file() && origin.trusts(folder, &path).is_ok()).then_some(path)
    }

    fn missing(&self, triple: &str, skipped: &[String]) -> Failure {
        let looked: Vec<String> = self.folders.iter().map(|(_, folder)| folder.display().to_string()).collect();
        let skipped: String = skipped.iter().map(|why| format!("; not taken: {why}")).collect();
        let message = format!("looked in {}{skipped}", looked.join(", "));
        Failure::new(FailureKind::NoAgent(triple.into()), message).hint(format!(
            "build it with `cargo xtask agents --triple {triple}`, or into the program with `cargo offshoot build --triple \
             {triple}`, or name a folder that has it: --agents DIR, or {FOLDER}"
        ))
    }

    /// Every agent that would be used, by triple; and the files that look like agents and cannot be used.
    pub fn list(&self) -> (Vec<FoundAgent>, Vec<(PathBuf, Failure)>) {
        let (mut found, mut broken): (Vec<FoundAgent>, _) = (Vec::new(), Vec::new());
        for (origin, folder) in &self.folders {
            if *origin == Origin::OneFile {
                for part in one_file().into_iter().flat_map(|one| one.parts()).filter(|part| part.kind == Kind::Agent) {
                    if found.iter().any(|agent| agent.triple == part.triple) {
                        continue;
                    }
                    match appended(folder, &part.triple) {
                        Ok(bundle) => found.extend(bundle.map(|bundle| FoundAgent::of(&bundle, folder, *origin))),
                        Err(failure) => broken.push((folder.clone(), failure)),
                    }
                }
                continue;
            }
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let Some(triple) =
                    name.to_str().and_then(|name| name.strip_prefix("offshoot-agent-")?.strip_suffix(".bundle"))
                else {
                    continue;
                };
                if found.iter().any(|agent| agent.triple == triple) {
                    continue;
                }
                let loaded = origin.trusts(folder, &entry.path()).map_err(|why| unusable(&entry.path(), &why));
                match loaded.and_then(|()| load(&entry.path())) {
                    Ok(bundle) => {
                        found.push(FoundAgent {
                            triple: triple.to_owned(),
                            ..FoundAgent::of(&bundle, &entry.path(), *origin)
                        });
                    }
                    Err(failure) => broken.push((entry.path(), failure)),
                }
            }
        }
        found.sort_by(|a, b| a.triple.cmp(&b.triple));
        (found, broken)
    }
}

/// What is appended to this program, when it is one file.
fn one_file() -> Option<&'static OneFile> {
    Own::program().ok()?.one_file()
}

/// The agent for a triple in the one file, when it has one.
fn appended(path: &Path, triple: &str) -> Result<Option<Bundle>, Failure> {
    if let Ok(Own { appended: Err(why), .. }) = Own::program() {
        return Err(unusable(path, why));
    }
    let Some((one, part)) = one_file().and_then(|one| Some((one, one.find(Kind::Agent, triple)?))) else {
        return Ok(None);
    };
    let bytes = one.read(part).map_err(|error| unusable(path, &error.to_string()))?;
    Bundle::decode(bytes).map(Some).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> Failure {
    Failure::new(FailureKind::Malformed, format!("the agent in {} cannot be used: {why}", path.display()))
        .hint("build it again with `cargo xtask agents`")
}

fn load(path: &Path) -> Result<Bundle, Failure> {
    let unusable = |why: String| unusable(path, &why);
    let size = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?.len();
    if size > LARGEST {
        return Err(unusable(format!("{size} bytes, expected at most {LARGEST}")));
    }
    let bytes = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    Bundle::decode(bytes).map_err(|error| unusable(error.to_string()))
}

impl Payloads for Agents {
    fn bundle(&self, triple: &str, _deadline: Instant, _cancel: &Cancel) -> Result<Bundle, Failure> {
        self.find(triple)
    }

    fn at_hand(&self, triple: Option<&str>) -> Option<Bundle> {
        self.find(triple?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triple_from_a_target_cannot_lead_out_of_the_folder() {
        let agents = Agents { folders: vec![(Origin::Named, "/".into())], read: Mutex::default() };
        for triple in ["", "../x", "a/b", "x86_64\0"] {
            let failure = agents.find(triple).expect_err("no agent");
            assert_eq!(failure.message, "the target names no triple", "{triple:?}");
        }
    }

    #[test]
    fn s11_an_agent_in_a_folder_that_anybody_may_write_is_not_taken_unless_it_was_named() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let triple = "mips-unknown-linux-musl";
        let bundle = folder.path().join(Agents::file_name(triple));
        let executable = folder.path().join(format!("offshoot-agent-{triple}"));
        for path in [&bundle, &executable] {
            std::fs::write(path, "no agent").expect("written");
        }
        let of = |origin| Agents { folders: vec![(origin, folder.path().to_owned())], read: Mutex::default() };
        // What is taken is looked into.
        for origin in [Origin::Named, Origin::Environment, Origin::Beside, Origin::Build] {
            assert_eq!(of(origin).find(triple).expect_err("no agent").kind, FailureKind::Malformed, "{origin}");
            assert!(of(origin).executable(triple).is_some(), "{origin}");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
        for origin in [Origin::Beside, Origin::Build] {
            let failure = of(origin).find(triple).expect_err("no agent");
            assert_eq!(failure.kind, FailureKind::NoAgent(triple.into()), "{origin}");
            let why = format!("not taken: {} may be written by every user", folder.path().display());
            assert!(failure.message.contains(&why), "{}", failure.message);
            assert_eq!(of(origin).executable(triple), None, "{origin}");
            let (found, broken) = of(origin).list();
            assert!(found.is_empty() && broken[0].1.message.contains("every user"), "{broken:?}");
        }
        assert!(of(Origin::Named).executable(triple).is_some());
    }

    #[test]
    fn a_missing_agent_names_the_folders_and_the_command() {
        let agents = Agents { folders: vec![(Origin::Named, "/nonexistent".into())], read: Mutex::default() };
        let failure = agents.find("mips-unknown-linux-musl").expect_err("no agent");
        assert!(failure.message.contains("/nonexistent"), "{}", failure.message);
        assert!(failure.hint.contains("cargo xtask agents --triple mips-unknown-linux-musl"), "{}", failure.hint);
    }
}
