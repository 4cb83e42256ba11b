//! The loader's two stages, which put the agent into RAM on a target.

use anyhow::{Result, bail};

use super::toolchain::Found;
use super::triples::Triple;
use crate::workspace::Workspace;

/// The stages as they are sent.
pub(super) struct Loader {
    pub(super) stage0: Vec<u8>,
    pub(super) stage1: Vec<u8>,
}

/// Builds both stages.
///
/// # Errors
///
/// Until offshoot-loader has its executables, always.
pub(super) fn build(_: &Workspace, triple: &Triple, _: &Found) -> Result<Loader> {
    bail!("cannot build the loader for {}: offshoot-loader has no executables", triple.name)
}
