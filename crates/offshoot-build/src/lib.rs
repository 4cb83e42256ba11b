//! Building what runs elsewhere: offshoot's agents, and the images of users' programs, for each target triple.
//!
//! Owns the recipes, by which a machine without a C compiler for the triple builds for it: what there is of compilers,
//! libraries and linkers ([`toolchain`]), which way to go ([`toolchain::Recipe`]), the checks of what came out; the id by
//! which all images of one build know each other ([`build_id`]); and the one file that holds them ([`image`]). Must not
//! know the project's own tests and budgets. Runs cargo, so it takes seconds to minutes; on any thread, but two at once
//! wait for each other.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod agent;
pub mod build_id;
pub mod flags;
pub mod image;
mod loader;
pub mod make;
pub mod metadata;
mod recipe;
pub mod run;
pub mod toolchain;
pub mod triples;
pub mod zig;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The cargo to call: the one that called us, else the one on the path.
pub fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A reader never sees half a file: it is written beside its place and moved there.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)))
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
