//! The image of this process itself, for the local contexts below it.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use offshoot_connect::{Image, LocalImage};
use offshoot_wire::{Failure, FailureKind};

use crate::error::os_failure;

/// The executable that this process runs, whether it has a name or is only in memory. All contexts that are started from
/// it share its pages.
pub struct OwnImage {
    file: Result<OwnedFd, Failure>,
    /// Of which program it is, when it is one of the user's.
    program: Option<Identity>,
}

/// Which program a process runs: computed when it is first asked for, which may take as long as a hash of the executable.
pub type Identity = fn() -> Result<[u8; 32], Failure>;

impl OwnImage {
    /// Opens it. Where there is no `/proc` that fails, and the failure is told when a local context is asked for.
    pub fn new() -> OwnImage {
        let file = File::open("/proc/self/exe").map(OwnedFd::from);
        let file = file.map_err(|error| os_failure("cannot open the own executable, /proc/self/exe", &error));
        OwnImage { file, program: None }
    }

    /// Opens it, as that of the user's program, which can become a worker.
    pub fn of_program(identity: Identity) -> OwnImage {
        OwnImage { program: Some(identity), ..OwnImage::new() }
    }
}

impl Default for OwnImage {
    fn default() -> Self {
        OwnImage::new()
    }
}

impl LocalImage for OwnImage {
    fn image(&self) -> Result<Image<'_>, Failure> {
        match &self.file {
            Ok(file) => Ok(Image::Open(file.as_fd())),
            Err(failure) => Err(failure.clone()),
        }
    }

    fn program(&self, wanted: &[u8; 32]) -> Result<Image<'_>, Failure> {
        let Some(identity) = self.program else {
            return Err(Failure::new(
                FailureKind::Unsupported,
                "this context was started from an agent, not the program",
            )
            .hint("functions run in contexts that are started from the program itself"));
        };
        if identity()? != *wanted {
            return Err(Failure::new(
                FailureKind::Unsupported,
                "this context was started from another build of the program",
            )
            .hint("start the tree from one build"));
        }
        self.image()
    }
}

impl fmt::Debug for OwnImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnImage").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_only_the_program_that_is_wanted_becomes_a_worker() {
        let image = OwnImage::of_program(|| Ok([1; 32]));
        assert!(image.program(&[1; 32]).is_ok());
        let other = image.program(&[2; 32]).map(drop).expect_err("another build");
        assert_eq!(other.kind, FailureKind::Unsupported);
        assert!(other.message.contains("another build"), "{}", other.message);
        let unknown = OwnImage::of_program(|| Err(Failure::new(FailureKind::Unsupported, "no /proc")));
        assert_eq!(unknown.program(&[1; 32]).map(drop).expect_err("unknown").message, "no /proc");
    }

    #[test]
    fn r8_an_agent_is_no_image_of_any_program() {
        let failure = OwnImage::new().program(&[1; 32]).map(drop).expect_err("an agent");
        assert_eq!(failure.kind, FailureKind::Unsupported);
        assert!(!failure.hint.is_empty());
    }
}
