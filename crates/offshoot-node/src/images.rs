//! Images of the user's program, as whoever calls its functions finds them.
//!
//! Must not know where they are looked for: that is the program's business. On any thread.

use std::fs::File;
use std::sync::Arc;

use offshoot_wire::{ContentRef, Failure};

/// An image of the program for one triple: a part of an open file, read as it is sent. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Image {
    /// What is sent: its hash, length and packing. The hash is that of the bytes in the file.
    pub content: ContentRef,
    /// The file. Open, so that it stays what it is when its name gets another one.
    pub file: Arc<File>,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
}

impl Image {
    /// An image that begins at `offset` in a file. At most [`Limits::CONTENT`](offshoot_wire::Limits::CONTENT) bytes travel.
    pub fn new(content: ContentRef, file: Arc<File>, offset: u64) -> Image {
        Image { content, file, offset }
    }
}

/// Where the images of the program come from.
pub trait Images: Send + Sync {
    /// The image of the program with this identity for a target triple; `here` says that the target is this machine and sees the same files, where an image
    /// need not be static. May block for as long as reading and hashing a file takes.
    ///
    /// # Errors
    /// A [`Failure`] that says what was looked at and what to do; it is returned as it is.
    fn image(&self, program: &[u8; 32], triple: &str, here: bool) -> Result<Image, Failure>;
}
