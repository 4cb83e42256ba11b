//! Zig as the linker of recipe B.
//!
//! rustc calls a linker by path alone, and with arguments that zig does not take. So the linker is a script of the shell,
//! which drops those and calls zig. It names no program of ours: that may be built anew while the script is in use.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;
use crate::triples::Triple;

/// How zig is called: `OFFSHOOT_ZIG`, `zig` on the path, or the Python package.
pub fn find() -> Option<Vec<String>> {
    if let Ok(named) = std::env::var("OFFSHOOT_ZIG") {
        return Some(vec![named]);
    }
    if run::on_path("zig").is_some() {
        return Some(vec!["zig".to_string()]);
    }
    let python = ["python3", "-m", "ziglang"].map(str::to_string);
    let there = run::read(Command::new(&python[0]).args(&python[1..]).arg("version")).is_ok();
    there.then(|| python.to_vec())
}

/// What rustc passes to a GNU compiler and zig refuses, as patterns of the shell: it has the target from us.
const DROPPED: &str = "--target=*|-m32|-Wl,-melf_i386";

/// Writes the script that rustc calls as its linker.
///
/// # Errors
///
/// When there is no zig, or the script cannot be written.
pub fn script(folder: &Path, triple: &Triple) -> Result<PathBuf> {
    let zig = find().context("no zig (OFFSHOOT_ZIG)")?;
    linking(folder.join(format!("zig-link-{}", triple.zig)), &zig, triple)
}

fn linking(path: PathBuf, zig: &[String], triple: &Triple) -> Result<PathBuf> {
    // The list of a loop is made before its first round, so each word can be taken off and put back.
    let rest = format!("for word do\nshift\ncase $word in {DROPPED}) ;;\n*) set -- \"$@\" \"$word\" ;;\nesac\ndone\n");
    written(path, &rest, &format!("{} cc -target {}", words(zig), quoted(triple.zig)))
}

fn words(program: &[String]) -> String {
    program.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Writes the script that calls the `ld.lld` inside zig.
///
/// # Errors
///
/// When there is no zig, or the script cannot be written.
pub fn lld_script(folder: &Path) -> Result<PathBuf> {
    let zig = find().context("no rust-lld, and no zig (OFFSHOOT_ZIG)")?;
    written(folder.join("zig-ld.lld"), "", &format!("{} ld.lld", words(&zig)))
}

/// As one word of a shell's line.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// An executable script that does `first`, then runs `line` with the script's own arguments after it. A reader never sees
/// half of it.
pub(crate) fn written(path: PathBuf, first: &str, line: &str) -> Result<PathBuf> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    crate::write(&path, format!("#!/bin/sh\n{first}exec {line} \"$@\"\n").as_bytes(), 0o755)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::triples::ALL;

    /// A zig that prints its words, one a line, and where the script that calls it is.
    fn linker() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::Builder::new().prefix("a folder's ").tempdir().unwrap();
        let zig = folder.path().join("a zig");
        std::fs::write(&zig, "printf '%s\\n' \"$@\"\n").unwrap();
        let zig = ["sh", zig.to_str().unwrap(), "two words"].map(str::to_string);
        let script = linking(folder.path().join("zig-link"), &zig, &ALL[2]).unwrap();
        (folder, script)
    }

    #[test]
    fn zig_gets_all_words_but_those_that_it_refuses() {
        let (_folder, script) = linker();
        let given = ["-m32", "a b", "", "--target=i686", "*", "-Wl,-melf_i386", "it's", "-m64", "-o", "x\ny"];
        let got = run::read(Command::new("sh").arg(&script).args(given)).unwrap();
        assert_eq!(got, "two words\ncc\n-target\nx86-linux-musl\na b\n\n*\nit's\n-m64\n-o\nx\ny\n");
    }

    #[test]
    fn the_linker_s_script_names_no_program_that_is_built_anew() {
        let (_folder, script) = linker();
        let own = std::env::current_exe().unwrap();
        let text = std::fs::read_to_string(script).unwrap();
        assert!(!text.contains(own.file_name().unwrap().to_str().unwrap()), "{text}");
    }
}
