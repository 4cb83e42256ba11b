//! The loader's two stages, which put the agent into RAM on a target. Which compiler and linker build them is decided
//! here; how is the business of `offshoot-loader`.

use std::path::Path;

use anyhow::{Context as _, Result};
use offshoot_loader::build::{Loader, Options};

use crate::toolchain::Found;
use crate::triples::Triple;
use crate::zig;

/// Builds both stages with the usual compiler, or with the second one where the usual one has neither `core` for the
/// triple nor the sources to build it from.
///
/// # Errors
///
/// When there is no linker, or the build fails.
pub(crate) fn build(folder: &Path, triple: &Triple, found: &Found) -> Result<Loader> {
    let folder = folder.join("build-loader");
    let mut options = Options::new(&folder);
    let usual = found.rust.has_core(triple) || found.rust.has_sources();
    if !usual {
        options.rustc = found.fallback.as_ref().map(|rust| rust.rustc.clone());
    }
    options.linker = match found.rust.lld() {
        Some(lld) => lld,
        None => zig::lld_script(&folder)?,
    };
    offshoot_loader::build::build(triple.name, &options)
        .with_context(|| format!("the loader for {} cannot be built", triple.name))
}
