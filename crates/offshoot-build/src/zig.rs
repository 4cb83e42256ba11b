//! Zig as the linker of recipe B.
//!
//! rustc calls a linker by path alone, and with arguments that zig does not take. So the linker is a two-line script
//! that calls this very program as `zig-link`, which drops those and calls zig.

use std::ffi::OsString;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;
use crate::triples::Triple;

/// Links with zig; what rustc calls through the script
#[derive(Debug, clap::Args)]
pub struct LinkArgs {
    /// Zig's name of the target
    target: OsString,
    /// The linker arguments of rustc
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

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

/// Writes the script that rustc calls as its linker.
///
/// # Errors
///
/// When it cannot be written.
pub fn script(folder: &Path, triple: &Triple) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let line = [&own.display().to_string(), "zig-link", triple.zig, "--"].map(quoted).join(" ");
    written(folder.join(format!("zig-link-{}", triple.zig)), &line)
}

/// Writes the script that calls the `ld.lld` inside zig.
///
/// # Errors
///
/// When there is no zig, or the script cannot be written.
pub fn lld_script(folder: &Path) -> Result<PathBuf> {
    let zig = find().context("no rust-lld, and no zig (OFFSHOOT_ZIG)")?;
    let words: Vec<String> = zig.iter().map(|word| quoted(word)).collect();
    written(folder.join("zig-ld.lld"), &format!("{} ld.lld", words.join(" ")))
}

/// As one word of a shell's line.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// An executable script that runs `line` with the script's own arguments after it.
pub(crate) fn written(path: PathBuf, line: &str) -> Result<PathBuf> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, format!("#!/bin/sh\nexec {line} \"$@\"\n"))
        .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Calls zig with what rustc wants.
///
/// # Errors
///
/// When zig is not there, or fails.
pub fn link(args: &LinkArgs) -> Result<()> {
    let zig = find().context("no zig (OFFSHOOT_ZIG)")?;
    let status = Command::new(&zig[0])
        .args(&zig[1..])
        .args(["cc", "-target"])
        .arg(&args.target)
        .args(args.rest.iter().filter(|argument| !is_dropped(argument)))
        .status()
        .context("cannot start zig")?;
    if !status.success() {
        bail!("zig cc failed: {status}");
    }
    Ok(())
}

/// What rustc passes to a GNU compiler and zig refuses: it has the target from us.
fn is_dropped(argument: &OsString) -> bool {
    let text = argument.to_string_lossy();
    text.starts_with("--target=") || text == "-m32" || text == "-Wl,-melf_i386"
}
