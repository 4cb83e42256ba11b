//! Builds the physical-limit program on its own: static, without the rest of this crate.
//!
//! A process of this whole binary takes a millisecond to load and some hundred KiB; the floor should not. Owns the build and its
//! place in the cache.

use anyhow::{Context as _, Result, bail};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCES: [(&str, &str); 3] = [
    ("main.rs", include_str!("../standalone/main.rs")),
    ("floor.rs", include_str!("floor.rs")),
    ("proc.rs", include_str!("proc.rs")),
];

/// Compiles the program unless the cache has it. Errors when there is no compiler, or it fails.
pub(crate) fn build(cache: &Path) -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(&rustc).arg("-V").stdin(Stdio::null()).output().context("no rustc")?;
    let mut hash = DefaultHasher::new();
    (SOURCES, &version.stdout).hash(&mut hash);
    let folder = cache.join(format!("limit-{:016x}", hash.finish()));
    let program = folder.join("limit");
    if program.is_file() {
        return Ok(program);
    }
    std::fs::create_dir_all(&folder)?;
    for (name, text) in SOURCES {
        std::fs::write(folder.join(name), text)?;
    }
    let fresh = folder.join(format!("limit.{}", std::process::id()));
    let built = Command::new(&rustc)
        .current_dir(&folder)
        // The lints belong to the crate's own build; here half of `proc` is unused.
        .args(["--edition", "2024", "--cap-lints", "allow", "--crate-name", "limit"])
        .args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "strip=symbols", "-C", "target-feature=+crt-static"])
        .arg("-o")
        .arg(&fresh)
        .arg("main.rs")
        .stdin(Stdio::null())
        .output()
        .context("cannot run rustc")?;
    if !built.status.success() {
        bail!("rustc: {}", String::from_utf8_lossy(&built.stderr).lines().last().unwrap_or("no message"));
    }
    std::fs::rename(&fresh, &program)?;
    Ok(program)
}
