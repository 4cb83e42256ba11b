//! One file: an executable with agents and images for other triples behind its end.
//!
//! A system that runs an executable reads what its header names and nothing behind. So the file runs as before, and finds
//! what is appended by opening itself.
//!
//! ```text
//! the executable
//! the parts, one behind the other
//! index   u32 LE number of parts, then for each:
//!           u8  what it is: 1 agent bundle, 2 program image
//!           u8  length of the triple, and the triple
//!           u64 LE where it begins, u64 LE how long it lies there, u64 LE how long it is
//!           4 bytes how it is packed: 0 as it is, or 1, LZMA's properties, filter; 0
//!           32 bytes SHA-256 of the bytes as they lie there
//! foot    u64 LE where the index begins, u32 LE its length, 32 bytes SHA-256 of the index, MAGIC
//! ```
//!
//! Bounds: [`INDEX_MAX`] for the index, [`PARTS_MAX`] parts, [`PART_MAX`] bytes for each, and [`SENT_MAX`] of them written.
//! Nothing is allocated by a length that the file cannot have. Images are packed as agents are, and travel as they lie here.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest, Sha256};

/// The last bytes of such a file; the very last is the format's version.
const MAGIC: [u8; 12] = *b"offshoot1f\r\x01";
const FOOT: usize = 8 + 4 + 32 + MAGIC.len();

/// The longest index: 256 parts with the longest names take less.
pub const INDEX_MAX: usize = 64 << 10;
/// The most parts: an agent and an image for each of 128 triples.
pub const PARTS_MAX: usize = 256;
/// The longest part, unpacked: 256 MiB, as for agents.
pub const PART_MAX: u64 = 256 << 20;

/// The longest part as it lies here, and travels: 128 MiB. It is that of all that is forwarded: each context that passes
/// it on holds it in memory.
pub const SENT_MAX: u64 = 128 << 20;

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The file of an agent bundle, as it is.
    Agent,
    /// The program for another triple.
    Image,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Agent => "agent",
            Kind::Image => "image",
        })
    }
}

/// A part, as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// For which triple.
    pub triple: String,
    /// Its length, unpacked, in bytes.
    pub len: u64,
    /// The SHA-256 of its bytes as they lie in the file.
    pub sha256: [u8; 32],
    /// Where in the file they begin.
    pub at: u64,
    /// How many they are.
    pub stored: u64,
    /// LZMA's properties and the filter, when it is packed.
    pub packed: Option<(u8, u8)>,
}

/// Why what is appended cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OneFileError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// The index is not what was written.
    #[error("the index behind the executable is damaged")]
    Index,
    /// A part is not what was written.
    #[error("the {0} for {1} behind the executable is damaged")]
    Part(Kind, String),
    /// A part is empty, or its triple longer than 255 bytes.
    #[error("the {0} for {1} is empty, or has a name that is too long")]
    Limit(Kind, String),
    /// A part is longer than it may be.
    #[error("the {kind} for {triple} is {} long{}, and may be {}", mib(*len), if *packed { " packed" } else { "" }, mib(*limit))]
    TooLarge {
        /// What it is.
        kind: Kind,
        /// For which triple.
        triple: String,
        /// How long it is, in bytes.
        len: u64,
        /// How long it may be, in bytes.
        limit: u64,
        /// Whether that is as it lies in the file, and travels.
        packed: bool,
    },
}

/// A length in MiB, rounded up to a tenth, so that what is over a limit never reads as the limit: `128 MiB`, `128.1 MiB`.
#[doc(hidden)]
pub fn mib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10).div_ceil(1 << 20);
    match tenths % 10 {
        0 => format!("{} MiB", tenths / 10),
        tenth => format!("{}.{tenth} MiB", tenths / 10),
    }
}

/// Whether `file` ends as one file does; its parts are not looked at.
///
/// # Errors
/// When it cannot be read.
pub fn ends(file: &File) -> io::Result<bool> {
    let mut end = [0; MAGIC.len()];
    match file.metadata()?.len().checked_sub(MAGIC.len() as u64) {
        Some(at) => file.read_exact_at(&mut end, at).map(|()| end == MAGIC),
        None => Ok(false),
    }
}

/// A file with parts behind its executable.
#[derive(Debug)]
pub struct OneFile {
    file: File,
    executable: u64,
    parts: Vec<Part>,
}

impl OneFile {
    /// Looks behind the executable in `file`; `None` when nothing of ours is there.
    ///
    /// # Errors
    /// When it cannot be read, or what is there is damaged.
    pub fn open(file: File) -> Result<Option<OneFile>, OneFileError> {
        let len = file.metadata()?.len();
        let Some(foot_at) = len.checked_sub(FOOT as u64) else { return Ok(None) };
        let mut foot = [0; FOOT];
        file.read_exact_at(&mut foot, foot_at)?;
        if foot[FOOT - MAGIC.len()..] != MAGIC {
            return Ok(None);
        }
        let mut fields = Fields(&foot);
        let (Some(at), Some(size), Some(seal)) = (fields.u64(), fields.u32(), fields.array::<32>()) else {
            return Err(OneFileError::Index);
        };
        let size = size as usize;
        if size > INDEX_MAX || at.checked_add(size as u64) != Some(foot_at) {
            return Err(OneFileError::Index);
        }
        let mut index = vec![0; size];
        file.read_exact_at(&mut index, at)?;
        if <[u8; 32]>::from(Sha256::digest(&index)) != seal {
            return Err(OneFileError::Index);
        }
        let parts = decode(&index, at).ok_or(OneFileError::Index)?;
        let executable = parts.iter().map(|part| part.at).min().unwrap_or(at);
        Ok(Some(OneFile { file, executable, parts }))
    }

    /// How many bytes the executable has, without what is behind it.
    pub fn executable(&self) -> u64 {
        self.executable
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What there is.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The part of that kind for that triple.
    pub fn find(&self, kind: Kind, triple: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind && part.triple == triple)
    }

    /// A part's bytes, unpacked and checked. Allocates at most what the part is long, and what it is packed.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was appended.
    pub fn read(&self, part: &Part) -> Result<Vec<u8>, OneFileError> {
        let damaged = || OneFileError::Part(part.kind, part.triple.clone());
        // Both are under the limit of a part, which is far below what a length of this machine can say.
        let [stored, len] = [part.stored, part.len].map(|len| len as usize);
        let mut bytes = vec![0; stored];
        self.file.read_exact_at(&mut bytes, part.at)?;
        if <[u8; 32]>::from(Sha256::digest(&bytes)) != part.sha256 {
            return Err(damaged());
        }
        if let Some((properties, filter)) = part.packed {
            bytes = offshoot_loader::unpack::unpacked(properties, filter, &bytes, len).map_err(|_| damaged())?;
        }
        if bytes.len() != len { Err(damaged()) } else { Ok(bytes) }
    }
}

/// Reads fields one after the other from bytes that may be too few.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, len: usize) -> Option<String> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(first.to_vec()).ok()
    }
}

/// The parts of an index that begins at `end`, before which all of them lie.
fn decode(index: &[u8], end: u64) -> Option<Vec<Part>> {
    let mut fields = Fields(index);
    let count = fields.u32()? as usize;
    if count > PARTS_MAX {
        return None;
    }
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = match fields.u8()? {
            1 => Kind::Agent,
            2 => Kind::Image,
            _ => return None,
        };
        let name = usize::from(fields.u8()?);
        let triple = fields.text(name)?;
        let [at, stored, len] = [fields.u64()?, fields.u64()?, fields.u64()?];
        let packed = match fields.array()? {
            [0, 0, 0, 0] => None,
            [1, properties, filter, 0] => Some((properties, filter)),
            _ => return None,
        };
        let sha256 = fields.array()?;
        let fits = stored <= PART_MAX && len <= PART_MAX && at.checked_add(stored).is_some_and(|to| to <= end);
        if !fits {
            return None;
        }
        parts.push(Part { kind, triple, len, sha256, at, stored, packed });
    }
    fields.0.is_empty().then_some(parts)
}

/// What is to be appended.
#[cfg(feature = "pack")]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Appended<'a> {
    /// What it is. Agents are bundles, packed already; images are packed here.
    pub kind: Kind,
    /// For which triple; at most 255 bytes.
    pub triple: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

#[cfg(feature = "pack")]
impl<'a> Appended<'a> {
    /// A part for a triple.
    pub fn new(kind: Kind, triple: &'a str, bytes: &'a [u8]) -> Appended<'a> {
        Appended { kind, triple, bytes }
    }
}

/// The bytes of one file: `executable`, or, when that is one file already, its executable, with the parts behind it.
///
/// Packing takes two thirds of a second of a processor for each MiB of image in an optimized build, and two seconds for a choice.
///
/// # Errors
/// When a part is over its limit, or there are more than [`PARTS_MAX`].
#[cfg(feature = "pack")]
pub fn append(executable: &[u8], parts: &[Appended<'_>]) -> Result<Vec<u8>, OneFileError> {
    append_within(executable, parts, SENT_MAX)
}

#[cfg(feature = "pack")]
fn append_within(executable: &[u8], parts: &[Appended<'_>], sent_max: u64) -> Result<Vec<u8>, OneFileError> {
    let mut file = alone(executable).to_vec();
    if parts.len() > PARTS_MAX {
        return Err(OneFileError::Index);
    }
    let mut index = (parts.len() as u32).to_le_bytes().to_vec();
    for Appended { kind, triple, bytes } in parts {
        let limit = || OneFileError::Limit(*kind, (*triple).to_string());
        let name = u8::try_from(triple.len()).map_err(|_| limit())?;
        let too_large = |len: u64, limit: u64, packed: bool| match len > limit {
            true => Err(OneFileError::TooLarge { kind: *kind, triple: (*triple).to_string(), len, limit, packed }),
            false => Ok(()),
        };
        if bytes.is_empty() {
            return Err(limit());
        }
        too_large(bytes.len() as u64, PART_MAX, false)?;
        let at = file.len() as u64;
        let (code, how) = match kind {
            Kind::Agent => {
                file.extend_from_slice(bytes);
                (1, [0; 4])
            }
            Kind::Image => {
                let packed = offshoot_loader::pack::pack(bytes)?;
                file.extend_from_slice(&packed.bytes);
                (2, [1, packed.properties, packed.filter, 0])
            }
        };
        too_large(file.len() as u64 - at, sent_max, true)?;
        index.extend([code, name]);
        index.extend(triple.as_bytes());
        for number in [at, file.len() as u64 - at, bytes.len() as u64] {
            index.extend(number.to_le_bytes());
        }
        index.extend(how);
        index.extend(<[u8; 32]>::from(Sha256::digest(&file[at as usize..])));
    }
    if index.len() > INDEX_MAX {
        return Err(OneFileError::Index);
    }
    let at = file.len() as u64;
    file.extend_from_slice(&index);
    file.extend(at.to_le_bytes());
    file.extend((index.len() as u32).to_le_bytes());
    file.extend(<[u8; 32]>::from(Sha256::digest(&index)));
    file.extend(MAGIC);
    Ok(file)
}

/// The executable without what is behind it.
#[cfg(feature = "pack")]
fn alone(file: &[u8]) -> &[u8] {
    let parts = || -> Option<u64> {
        let foot = file.get(file.len().checked_sub(FOOT)?..).filter(|foot| foot.ends_with(&MAGIC))?;
        let mut fields = Fields(foot);
        let (at, size) = (fields.u64()?, fields.u32()?);
        let begin = usize::try_from(at).ok()?;
        let parts = decode(file.get(begin..begin.checked_add(size as usize)?)?, at)?;
        Some(parts.iter().map(|part| part.at).min().unwrap_or(at))
    };
    match parts().and_then(|len| usize::try_from(len).ok()) {
        Some(len) => &file[..len],
        None => file,
    }
}

#[cfg(test)]
#[cfg(feature = "pack")]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn sample() -> Vec<u8> {
        let image: Vec<u8> = (0..3_000u32).map(|n| (n % 61) as u8).collect();
        let parts = [Appended::new(Kind::Agent, "one", b"a bundle"), Appended::new(Kind::Image, "two", &image)];
        append(b"an executable", &parts).unwrap()
    }

    #[test]
    fn what_was_appended_is_found_whole_and_the_executable_is_as_before() {
        let one = sample();
        assert!(one.starts_with(b"an executable"));
        let one = OneFile::open(file(&one)).unwrap().expect("parts");
        assert_eq!(one.executable(), 13);
        assert_eq!(one.read(one.find(Kind::Agent, "one").unwrap()).unwrap(), b"a bundle");
        let image = one.find(Kind::Image, "two").unwrap();
        assert!(image.stored < image.len);
        assert_eq!(one.read(image).unwrap().len(), 3_000);
        assert!(one.find(Kind::Image, "one").is_none());
    }

    #[test]
    fn appending_to_one_file_replaces_what_was_appended() {
        let again = append(&sample(), &[Appended::new(Kind::Agent, "x", b"y")]).unwrap();
        let one = OneFile::open(file(&again)).unwrap().expect("parts");
        assert_eq!((one.executable(), one.parts().len()), (13, 1));
    }

    #[test]
    fn an_ordinary_executable_has_nothing_appended() {
        assert!(OneFile::open(File::open("/proc/self/exe").unwrap()).unwrap().is_none());
        assert!(OneFile::open(file(b"")).unwrap().is_none());
        let cut = sample();
        assert!(OneFile::open(file(&cut[..cut.len() - 1])).unwrap().is_none());
    }

    #[test]
    fn s11_no_flipped_byte_behind_the_executable_goes_unnoticed() {
        let good = sample();
        for at in 13..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            let whole = OneFile::open(file(&bad)).and_then(|one| match one {
                Some(one) => one.parts().iter().try_for_each(|part| one.read(part).map(drop)).map(|()| true),
                None => Ok(false),
            });
            assert!(!matches!(whole, Ok(true)), "flipped at {at}");
        }
    }

    #[test]
    fn lengths_that_the_file_cannot_have_allocate_nothing() {
        let entry = |at: u64, stored: u64, len: u64| {
            let mut index = 1u32.to_le_bytes().to_vec();
            index.extend([2, 1, b't']);
            [at, stored, len].iter().for_each(|number| index.extend(number.to_le_bytes()));
            index.extend([0; 36]);
            decode(&index, 100)
        };
        assert!(entry(0, 100, 100).is_some());
        assert!(entry(1, 100, 100).is_none());
        assert!(entry(u64::MAX, 2, 2).is_none());
        assert!(entry(0, 1, PART_MAX + 1).is_none());
        assert!(decode(&u32::MAX.to_le_bytes(), 100).is_none());
    }

    #[test]
    fn parts_over_their_limit_are_refused() {
        let long = "t".repeat(256);
        for (triple, bytes) in [(long.as_str(), &b"x"[..]), ("t", b"")] {
            let part = Appended::new(Kind::Agent, triple, bytes);
            assert!(matches!(append(b"e", &[part]), Err(OneFileError::Limit(..))));
        }
    }
    #[test]
    fn what_would_be_too_long_to_travel_is_refused_with_its_length_and_the_limit() {
        let image: Vec<u8> = (0..3_000u32).map(|n| ((n * n) >> 5) as u8).collect();
        let part = [Appended::new(Kind::Image, "t", &image)];
        let one = append(b"e", &part).unwrap();
        let stored = OneFile::open(file(&one)).unwrap().expect("parts").parts()[0].stored;
        assert!(append_within(b"e", &part, stored).is_ok());
        let error = append_within(b"e", &part, stored - 1).unwrap_err();
        assert!(
            matches!(error, OneFileError::TooLarge { len, limit, packed: true, .. } if (len, limit) == (stored, stored - 1))
        );
        let large =
            |len, limit, packed| OneFileError::TooLarge { kind: Kind::Image, triple: "t".into(), len, limit, packed };
        let text = large(SENT_MAX + 1, SENT_MAX, true).to_string();
        assert_eq!(text, "the image for t is 128.1 MiB long packed, and may be 128 MiB");
        let text = large(PART_MAX * 2, PART_MAX, false).to_string();
        assert_eq!(text, "the image for t is 512 MiB long, and may be 256 MiB");
    }

    #[test]
    fn one_file_is_told_by_its_end() {
        assert!(ends(&file(&sample())).unwrap());
        assert!(!ends(&file(b"short")).unwrap());
        assert!(!ends(&File::open("/proc/self/exe").unwrap()).unwrap());
    }
}
