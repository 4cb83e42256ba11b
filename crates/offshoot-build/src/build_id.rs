//! The id of a build: one for all triples, another as soon as anything differs that the program is made of.
//!
//! It is a hash of the sources of the package and of what it needs from other folders, of the lock file, which names the
//! rest, and of the features. Not of the compiler and the profile: they change no type. Files that are made by a build
//! script from elsewhere are not seen.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest, Sha256};

use crate::metadata::{Metadata, Package, Program};

/// The most files of one package, and the most bytes of one file: far more than sources are, so that a data set that
/// lies between them is told and not read for minutes.
const FILES_MAX: usize = 20_000;
const FILE_MAX: u64 = 64 << 20;

/// The id, in hexadecimal digits.
///
/// # Errors
///
/// When a source cannot be read, or there are too many.
pub fn build_id(metadata: &Metadata, package: &Package, program: &Program, features: &[String]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text("offshoot build 1");
    text(&program.package);
    text(&program.name);
    text(if program.example { "example" } else { "bin" });
    let mut features = features.to_vec();
    features.sort();
    features.dedup();
    text(&features.join(","));
    let lock = metadata.workspace_root.join("Cargo.lock");
    file(&mut hash, "Cargo.lock", &lock)?;
    // What a member takes from the workspace stands there.
    let manifest = metadata.workspace_root.join("Cargo.toml");
    if manifest.is_file() {
        file(&mut hash, "Cargo.toml", &manifest)?;
    }
    for package in metadata.own(package) {
        sources(&mut hash, package, &metadata.target_directory)?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Every file of the package's folder, by its name in sorted order; not what is hidden, built, or another package.
fn sources(hash: &mut Sha256, package: &Package, target: &Path) -> Result<()> {
    let root = package.folder();
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Links to folders are not followed: they may go round.
            let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
            if hidden || path == target {
                continue;
            }
            if kind.is_dir() {
                let built = path.join("CACHEDIR.TAG").is_file();
                if !built && !path.join("Cargo.toml").is_file() {
                    folders.push(path);
                }
            } else if path.is_file() {
                files.push(path);
            }
            ensure!(
                files.len() <= FILES_MAX,
                "{} has more than {FILES_MAX} files\nfix: move what is no source out of the package's folder",
                root.display()
            );
        }
    }
    files.sort();
    hash.update(b"package");
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        file(hash, &format!("{}/{name}", package.name), &path)?;
    }
    Ok(())
}

fn file(hash: &mut Sha256, name: &str, path: &Path) -> Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    let len = std::fs::metadata(path).with_context(unreadable)?.len();
    ensure!(
        len <= FILE_MAX,
        "{} has {len} bytes, more than any source\nfix: move what is no source out of the package's folder",
        path.display()
    );
    let bytes = std::fs::read(path).with_context(unreadable)?;
    for part in [name.as_bytes(), &bytes] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A package of its own, without dependencies.
    fn package() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("src/deep")).unwrap();
        let manifest = "[package]\nname = \"sample\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[features]\nmore = []\n";
        fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.path().join("src/main.rs"), "fn main() {}\n").unwrap();
        fs::write(folder.path().join("src/deep/data.txt"), "data").unwrap();
        folder
    }

    fn id(folder: &Path, features: &[&str]) -> String {
        id_by(&Metadata::load(folder, None).unwrap(), folder, features)
    }

    fn id_by(metadata: &Metadata, folder: &Path, features: &[&str]) -> String {
        let package = metadata.package(Some("sample"), folder).unwrap();
        let program = metadata.program(package, None, None).unwrap();
        let features: Vec<String> = features.iter().map(ToString::to_string).collect();
        build_id(metadata, package, &program, &features).unwrap()
    }

    #[test]
    fn s11_sources_lock_file_and_features_make_another_build_and_nothing_else_does() {
        let folder = package();
        let at = |name: &str| folder.path().join(name);
        let first = id(folder.path(), &[]);
        assert_eq!(first.len(), offshoot_image::stamp::DIGITS);
        fs::create_dir(at(".git")).unwrap();
        fs::write(at(".git/HEAD"), "x").unwrap();
        fs::create_dir(at("out")).unwrap();
        fs::write(at("out/CACHEDIR.TAG"), "x").unwrap();
        assert_eq!(id(folder.path(), &[]), first);
        let elsewhere = package();
        assert_eq!(id(elsewhere.path(), &[]), first, "the place is no part of a build");

        let mut seen = vec![first, id(folder.path(), &["more"])];
        fs::write(at("src/deep/data.txt"), "datum").unwrap();
        seen.push(id(folder.path(), &[]));
        fs::rename(at("src/deep/data.txt"), at("src/deep/other.txt")).unwrap();
        seen.push(id(folder.path(), &[]));
        // Asked before: cargo writes the file anew.
        let metadata = Metadata::load(folder.path(), None).unwrap();
        fs::write(at("Cargo.lock"), fs::read_to_string(at("Cargo.lock")).unwrap() + "\n# changed\n").unwrap();
        seen.push(id_by(&metadata, folder.path(), &[]));
        let mut different = seen.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), seen.len(), "{seen:?}");
    }
}
