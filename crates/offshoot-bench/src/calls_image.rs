//! Where the program with remote functions lies, and the image that is made of it.
//!
//! Owns the copy in the scratch folder. Built by `cargo xtask bench`: beside this program, and once more static.

use crate::floor::noise;
use crate::rows::IMAGE;
use anyhow::{Context as _, Result, bail};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "offshoot-bench-calls";

/// The one that lies beside this program.
pub(crate) fn beside(own: &Path) -> Result<PathBuf> {
    found(own.with_file_name(NAME))
}

/// A static one that is as long as [`IMAGE`]: what is missing is appended, as noise that no compression gains on.
pub(crate) fn image(own: &Path, scratch: &Path) -> Result<PathBuf> {
    let target = own.parent().and_then(Path::parent).context("this program lies in no build folder")?;
    let built = found(target.join(format!("images/{NAME}-{}-unknown-linux-musl", std::env::consts::ARCH)))?;
    let mut bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let Some(missing) = (IMAGE as usize).checked_sub(bytes.len()) else {
        bail!("{} has {} bytes, expected at most {IMAGE}", built.display(), bytes.len());
    };
    bytes.extend(noise(missing));
    let image = scratch.join(NAME);
    std::fs::write(&image, bytes)?;
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755))?;
    Ok(image)
}

fn found(path: PathBuf) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is not there: `cargo xtask bench` builds it", path.display());
    }
    Ok(path)
}
