//! The image of this process itself, for the local contexts below it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use offshoot_connect::{Image, LocalImage};
use offshoot_wire::Failure;

use crate::error::os_failure;

/// The executable that this process runs, whether it has a name or is only in memory. All contexts that are started from
/// it share its pages.
#[derive(Debug)]
pub struct OwnImage(Result<OwnedFd, Failure>);

impl OwnImage {
    /// Opens it. Where there is no `/proc` that fails, and the failure is told when a local context is asked for.
    pub fn new() -> OwnImage {
        let file = File::open("/proc/self/exe").map(OwnedFd::from);
        OwnImage(file.map_err(|error| os_failure("cannot open the own executable, /proc/self/exe", &error)))
    }
}

impl Default for OwnImage {
    fn default() -> Self {
        OwnImage::new()
    }
}

impl LocalImage for OwnImage {
    fn image(&self) -> Result<Image<'_>, Failure> {
        match &self.0 {
            Ok(file) => Ok(Image::Open(file.as_fd())),
            Err(failure) => Err(failure.clone()),
        }
    }
}
