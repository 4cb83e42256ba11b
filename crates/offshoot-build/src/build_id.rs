//! The id of a build: one for all triples, another as soon as anything differs that the program is made of.
//!
//! It is a hash of the sources of the package and of what it needs from other folders, with any feature; of the lock
//! file, which names the rest; of the features, and of the conditions (`--cfg`) that the compiler is given. Not of the
//! compiler, its other flags and the profile: they change no type. What a build takes from elsewhere is not seen: files
//! that a build script makes, and those that `include!` and its like name outside of a package's folder.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use offshoot_image::onefile;
use sha2::{Digest, Sha256};

use crate::metadata::{Metadata, Package, Program};

/// The most files and folders of one package, and the most bytes of one file: far more than sources are, so that a data
/// set that lies between them is told and not read for minutes.
const FILES_MAX: usize = 20_000;
const FILE_MAX: u64 = 64 << 20;

/// How to keep something from being a source.
const ELSEWHERE: &str =
    "fix: move what is no source out of the package's folder, or put a file CACHEDIR.TAG into its own folder";

/// The id, in hexadecimal digits. `features` are cargo's words for them, `conditions` what is behind each `--cfg`.
///
/// # Errors
///
/// When a source cannot be read, or there are too many.
pub fn build_id(
    metadata: &Metadata,
    package: &Package,
    program: &Program,
    features: &[String],
    conditions: &[String],
) -> Result<String> {
    let mut hash = Sha256::new();
    let mut text = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text("offshoot build 2");
    text(&program.package);
    text(&program.name);
    text(if program.example { "example" } else { "bin" });
    for words in [features, conditions] {
        let mut words = words.to_vec();
        words.sort();
        words.dedup();
        text(&words.len().to_string());
        words.iter().for_each(|word| text(word));
    }
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
    let mut found = Found { root, target, files: Vec::new(), seen: 0 };
    found.gather(root, &mut Vec::new())?;
    found.files.sort();
    hash.update(b"package");
    for path in &found.files {
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
        file(hash, &format!("{}/{name}", package.name), path)?;
    }
    Ok(())
}

/// The files of a package, as they are looked for.
struct Found<'a> {
    root: &'a Path,
    target: &'a Path,
    files: Vec<PathBuf>,
    seen: usize,
}

impl Found<'_> {
    /// `behind` are the folders, as they really are, whose links led here.
    fn gather(&mut self, folder: &Path, behind: &mut Vec<PathBuf>) -> Result<()> {
        let unreadable = |path: &Path| format!("cannot read {}", path.display());
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        for entry in entries.with_context(|| unreadable(folder))? {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') || path == self.target {
                continue;
            }
            self.seen += 1;
            ensure!(self.seen <= FILES_MAX, "{} has more than {FILES_MAX} files\n{ELSEWHERE}", self.root.display());
            let kind = entry.file_type().with_context(|| unreadable(&path))?;
            if path.is_file() {
                self.files.push(path);
            } else if path.is_dir() && !path.join("CACHEDIR.TAG").is_file() && !path.join("Cargo.toml").is_file() {
                if !kind.is_symlink() {
                    self.gather(&path, behind)?;
                    continue;
                }
                // What leads back to where it was come from has nothing new, and no end.
                let [here, there] = [folder, &path].map(Path::canonicalize);
                let (here, there) =
                    (here.with_context(|| unreadable(folder))?, there.with_context(|| unreadable(&path))?);
                behind.push(here);
                if !behind.iter().any(|from| from.starts_with(&there)) {
                    self.gather(&path, behind)?;
                }
                behind.pop();
            }
        }
        Ok(())
    }
}

fn file(hash: &mut Sha256, name: &str, path: &Path) -> Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    let mut source = File::open(path).with_context(unreadable)?;
    // What was built before is no source, wherever it was put.
    if onefile::ends(&source).with_context(unreadable)? {
        return Ok(());
    }
    let len = source.metadata().with_context(unreadable)?.len();
    ensure!(len <= FILE_MAX, "{} has {len} bytes, more than any source\n{ELSEWHERE}", path.display());
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).with_context(unreadable)?;
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
        id_by(&Metadata::load(folder, None, &[]).unwrap(), folder, features)
    }

    fn id_by(metadata: &Metadata, folder: &Path, features: &[&str]) -> String {
        let package = metadata.package(Some("sample"), folder).unwrap();
        let program = metadata.program(package, None, None).unwrap();
        let features: Vec<String> = features.iter().map(ToString::to_string).collect();
        build_id(metadata, package, &program, &features, &[]).unwrap()
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
        let metadata = Metadata::load(folder.path(), None, &[]).unwrap();
        fs::write(at("Cargo.lock"), fs::read_to_string(at("Cargo.lock")).unwrap() + "\n# changed\n").unwrap();
        seen.push(id_by(&metadata, folder.path(), &[]));
        let mut different = seen.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), seen.len(), "{seen:?}");
    }
    /// A package whose optional dependency lies in a folder beside it; its own folder.
    fn with_extra(place: &Path) -> PathBuf {
        let folder = place.join("sample");
        fs::rename(package().keep(), &folder).unwrap();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let dependency = "[dependencies]\nextra = { path = \"../extra\", optional = true }\n";
        fs::write(folder.join("Cargo.toml"), format!("{manifest}{dependency}")).unwrap();
        fs::create_dir_all(place.join("extra/src")).unwrap();
        let manifest = "[package]\nname = \"extra\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
        fs::write(place.join("extra/Cargo.toml"), manifest).unwrap();
        fs::write(place.join("extra/src/lib.rs"), "pub struct Sent(pub u8);\n").unwrap();
        folder
    }

    #[test]
    fn s11_a_type_in_a_crate_that_only_a_feature_brings_makes_another_build() {
        let place = tempfile::tempdir().unwrap();
        let folder = with_extra(place.path());
        let words = ["--features=extra"];
        let first = id(&folder, &words);
        assert_eq!(id(&folder, &words), first);
        fs::write(place.path().join("extra/src/lib.rs"), "pub struct Sent(pub u64);\n").unwrap();
        assert_ne!(id(&folder, &words), first);
    }

    #[test]
    fn s11_a_condition_of_the_compiler_makes_another_build() {
        let folder = package();
        let metadata = Metadata::load(folder.path(), None, &[]).unwrap();
        let package = metadata.package(None, folder.path()).unwrap();
        let program = metadata.program(package, None, None).unwrap();
        let of = |conditions: &[&str]| {
            let conditions: Vec<String> = conditions.iter().map(ToString::to_string).collect();
            build_id(&metadata, package, &program, &[], &conditions).unwrap()
        };
        assert_ne!(of(&[]), of(&["wide"]));
        assert_ne!(of(&["a", "b"]), of(&["a,b"]));
        assert_eq!(of(&["a", "b"]), of(&["b", "a", "b"]));
    }

    #[test]
    fn s11_sources_behind_a_link_count_and_links_that_go_round_end() {
        use std::os::unix::fs::symlink;

        let (folder, shared) = (package(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::write(shared.path().join("types.rs"), "pub struct Sent(pub u8);\n").unwrap();
        symlink(shared.path(), at("src/shared")).unwrap();
        symlink(folder.path(), at("src/round")).unwrap();
        symlink(at("src"), shared.path().join("back")).unwrap();
        symlink(at("nowhere"), at("src/broken")).unwrap();
        let first = id(folder.path(), &[]);
        assert_eq!(id(folder.path(), &[]), first);
        fs::write(shared.path().join("types.rs"), "pub struct Sent(pub u64);\n").unwrap();
        assert_ne!(id(folder.path(), &[]), first);
    }

    #[test]
    fn a_one_file_among_the_sources_is_none_however_long_it_is() {
        let folder = package();
        let first = id(folder.path(), &[]);
        let part = onefile::Appended::new(onefile::Kind::Agent, "t", b"a bundle");
        let one = onefile::append(b"a program", &[part]).unwrap();
        fs::write(folder.path().join("deploy"), &one).unwrap();
        assert_eq!(id(folder.path(), &[]), first);
        // Sparse: nothing of it is read.
        let long = File::create(folder.path().join("src/deploy")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&long, &one, FILE_MAX).unwrap();
        assert_eq!(id(folder.path(), &[]), first);
        fs::write(folder.path().join("deploy"), "#!/bin/sh\n").unwrap();
        assert_ne!(id(folder.path(), &[]), first);
    }

    #[test]
    fn what_is_too_long_for_a_source_is_told_with_what_to_do() {
        let folder = package();
        File::create(folder.path().join("data")).unwrap().set_len(FILE_MAX + 1).unwrap();
        let metadata = Metadata::load(folder.path(), None, &[]).unwrap();
        let package = metadata.package(None, folder.path()).unwrap();
        let program = metadata.program(package, None, None).unwrap();
        let error = build_id(&metadata, package, &program, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("data has 67108865 bytes, more than any source\nfix: move"), "{error}");
    }
}
