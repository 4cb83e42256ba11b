//! The image of this process itself, for the local contexts below it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use offshoot_connect::{Image, LocalImage};
use offshoot_wire::Failure;

/// The executable that this process runs, whether it has a name or is only in memory. All contexts that are started from
/// it share its pages.
#[derive(Debug)]
pub struct OwnImage(OwnedFd);

impl OwnImage {
    /// Opens it.
    ///
    /// # Errors
    /// When there is no `/proc`, or the process is out of descriptors.
    pub fn new() -> io::Result<OwnImage> {
        Ok(OwnImage(File::open("/proc/self/exe")?.into()))
    }
}

impl LocalImage for OwnImage {
    fn image(&self) -> Result<Image<'_>, Failure> {
        Ok(Image::Open(self.0.as_fd()))
    }
}
