//! Where the images of this program come from, by which its functions run in contexts that were started from an agent.
//!
//! Owns the search order. Must not know how an image is sent. On any thread.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use offshoot_node::{Image, TRIPLE};
use offshoot_wire::{ContentRef, Failure, FailureKind, Packing};
use sha2::{Digest, Sha256};

/// Why there is no image of the program for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMissing {
    /// The target's triple.
    pub triple: String,
    /// What was looked at, each with why it does not serve.
    pub looked: Vec<String>,
}

impl fmt::Display for ImageMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no image of this program for {}: {}", self.triple.escape_debug(), self.looked.join("; "))
    }
}

impl std::error::Error for ImageMissing {}

impl ImageMissing {
    /// The command that makes what is missing.
    pub fn hint(&self) -> String {
        let triple = self.triple.escape_debug();
        format!("build the program static for {triple}, or for this machine with `--target {triple}`")
    }
}

impl From<ImageMissing> for Failure {
    fn from(missing: ImageMissing) -> Failure {
        let hint = missing.hint();
        let message = missing.looked.join("; ");
        Failure::new(FailureKind::NoImage(missing.triple), message).hint(hint)
    }
}

/// The images of this program at hand: its own executable where it is static and of the target's triple, or where the
/// target is this machine.
#[derive(Debug, Default)]
pub struct Images {
    own: OnceLock<Result<Own, String>>,
}

/// The executable that this process runs.
#[derive(Clone, Debug)]
struct Own {
    image: Image,
    is_static: bool,
}

impl Images {
    /// Nothing is looked at before an image is asked for.
    pub fn new() -> Images {
        Images::default()
    }

    /// The image for a target of a triple. `here` says that the target is this machine and sees the same files: local
    /// contexts, and those of other users.
    ///
    /// # Errors
    /// [`ImageMissing`], which says what was looked at.
    pub fn find(&self, triple: &str, here: bool) -> Result<Image, ImageMissing> {
        let missing = |why: String| ImageMissing { triple: triple.to_owned(), looked: vec![why] };
        let own = self.own.get_or_init(|| own().map_err(|error| error.to_string()));
        let own = own.as_ref().map_err(|error| missing(format!("the program itself cannot be read: {error}")))?;
        if here && machine(triple) == machine(TRIPLE) {
            return Ok(own.image.clone());
        }
        if machine(triple) != machine(TRIPLE) {
            return Err(missing(format!("the program itself is for {TRIPLE}")));
        }
        if !own.is_static {
            return Err(missing(format!("the program itself, for {TRIPLE}, is not static")));
        }
        Ok(own.image.clone())
    }
}

impl offshoot_node::Images for Images {
    fn image(&self, triple: &str, here: bool) -> Result<Image, Failure> {
        Ok(self.find(triple, here)?)
    }
}

/// What of a triple a static executable depends on: the processor, and that it is Linux.
fn machine(triple: &str) -> Option<&str> {
    let (processor, rest) = triple.split_once('-')?;
    rest.split('-').any(|part| part == "linux").then_some(processor)
}

/// This program, as it runs: by its open file, whatever becomes of its name.
fn own() -> io::Result<Own> {
    let file = File::open("/proc/self/exe")?;
    let length = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < length {
        let n = file.read_at(&mut buffer, at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..n]);
        at += n as u64;
    }
    let content = ContentRef { hash: hash.finalize().into(), length, packing: Packing::Stored };
    let is_static = is_static(&file)?;
    Ok(Own { image: Image { content, file: Arc::new(file), offset: 0 }, is_static })
}

/// Whether an executable names no interpreter, and so needs nothing of the machine that it runs on.
fn is_static(file: &File) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    let little = head[5] == 1;
    let number = |bytes: &[u8]| {
        let shift = |at: usize| if little { 8 * at } else { 8 * (bytes.len() - 1 - at) };
        bytes.iter().enumerate().fold(0u64, |sum, (at, byte)| sum | u64::from(*byte) << shift(at))
    };
    let (table, size, count) = match (&head[..4], head[4]) {
        (b"\x7fELF", 1) => (number(&head[28..32]), number(&head[42..44]), number(&head[44..46])),
        (b"\x7fELF", 2) => (number(&head[32..40]), number(&head[54..56]), number(&head[56..58])),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no ELF file")),
    };
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.saturating_add(index * size))?;
        if number(&kind) == u64::from(INTERPRETER) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_its_own_image_on_this_machine() {
        let images = Images::new();
        let image = images.find(TRIPLE, true).expect("an image");
        assert_eq!(image.content.length, std::fs::metadata("/proc/self/exe").expect("metadata").len());
        // What is tested here is linked to what the machine has.
        assert_eq!(images.find(TRIPLE, false).is_ok(), is_static(&image.file).expect("an executable"));
    }

    #[test]
    fn another_processor_is_told_with_what_was_looked_at_and_what_to_do() {
        let missing = Images::new().find("mips-unknown-linux-musl", true).expect_err("no image");
        assert!(missing.looked[0].contains(TRIPLE), "{missing}");
        let failure = Failure::from(missing);
        assert_eq!(failure.kind, FailureKind::NoImage("mips-unknown-linux-musl".into()));
        assert!(failure.hint.contains("mips-unknown-linux-musl"), "{}", failure.hint);
    }
}
