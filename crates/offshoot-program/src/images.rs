//! Where the images of this program come from, by which its functions run in contexts that were started from an agent.
//!
//! Owns the search order. Must not know how an image is sent. On any thread.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use offshoot_image::elf::Elf;
use offshoot_image::onefile::{self, Kind};
use offshoot_node::{Image, TRIPLE};
use offshoot_wire::{ContentRef, Failure, FailureKind, Limits, Packing};
use sha2::{Digest, Sha256};

use crate::identity::{identity, stamp};
use crate::own::Own;
use crate::trust;

/// Why there is no image of the program for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
        format!(
            "build it with `cargo offshoot build --triple {triple}`, which stamps all images of one build, packs them, and \
             leaves out what debuggers read"
        )
    }
}

impl From<ImageMissing> for Failure {
    fn from(missing: ImageMissing) -> Failure {
        let hint = missing.hint();
        let message = missing.looked.join("; ");
        Failure::new(FailureKind::NoImage(missing.triple), message).hint(hint)
    }
}

/// The images of this program at hand.
///
/// The first of these that serves is taken: what is in the one file; the file `PROGRAM-TRIPLE` beside the executable, or in
/// `images` there; that in the build folder that the executable lies in; the executable itself, where it is static and of
/// the triple. For a target on this machine a program that is not one file serves first itself, static or not.
///
/// A file is an image of this program when it is stamped with the same build. A program without a stamp has no other
/// image than itself. At most 128 MiB of an image travel; in one file it is packed.
#[derive(Debug)]
pub struct Images {
    folders: Vec<PathBuf>,
    name: String,
    stamp: Option<&'static str>,
    found: Mutex<HashMap<String, Image>>,
    own: OnceLock<Result<Image, String>>,
}

const _: () = assert!(onefile::SENT_MAX == Limits::CONTENT, "what is in one file must be able to travel");

/// Whether so many bytes of an image travel: no context takes more.
fn travels(length: u64) -> Result<(), String> {
    let [is, may] = [length, Limits::CONTENT].map(onefile::mib);
    if length > Limits::CONTENT { Err(format!("is {is} long, and {may} can travel")) } else { Ok(()) }
}

impl Default for Images {
    fn default() -> Images {
        Images::new()
    }
}

impl Images {
    /// Nothing is looked at before an image is asked for.
    pub fn new() -> Images {
        Images::of(&Own::path().unwrap_or_default(), stamp())
    }

    /// Those of a program that lies there.
    fn of(path: &Path, stamp: Option<&'static str>) -> Images {
        let mut folders = Vec::new();
        if let Some(folder) = path.parent() {
            folders.extend([folder.to_owned(), folder.join("images")]);
            // target/debug/program, target/debug/examples/program, target/TRIPLE/release/program
            folders.extend(folder.ancestors().skip(1).take(3).map(|above| above.join("images")));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Images { folders, name, stamp, found: Mutex::default(), own: OnceLock::new() }
    }

    /// The image for a target of a triple. `here` says that the target is this machine and sees the same files: local
    /// contexts, and those of other users.
    ///
    /// # Errors
    /// [`ImageMissing`], which says what was looked at.
    pub fn find(&self, triple: &str, here: bool) -> Result<Image, ImageMissing> {
        let missing = |looked| ImageMissing { triple: triple.to_owned(), looked };
        // It comes from a target: it must not lead out of the folders.
        if triple.is_empty() || !triple.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            return Err(missing(vec!["the target names no triple".into()]));
        }
        match Own::program() {
            Ok(own) => self.find_as(own, triple, here).map_err(missing),
            Err(error) => Err(missing(vec![format!("the program itself cannot be read: {error}")])),
        }
    }

    /// What [`find`](Self::find) yields in this program; an error says what was looked at.
    fn find_as(&self, own: &Own, triple: &str, here: bool) -> Result<Image, Vec<String>> {
        let same = machine(triple) == machine(TRIPLE);
        if here && same && own.one_file().is_none() {
            return self.own(own).map_err(|error| vec![error]);
        }
        let mut looked = Vec::new();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = found.get(triple) {
            return Ok(image.clone());
        }
        let other = self.embedded(own, triple, &mut looked).or_else(|| self.in_folders(triple, &mut looked));
        if let Some(image) = other {
            found.insert(triple.to_owned(), image.clone());
            return Ok(image);
        }
        let itself = if !same {
            Err(format!("the program itself is for {TRIPLE}"))
        } else if !here && !own.elf.as_ref().is_some_and(Elf::is_static) {
            Err(format!("the program itself, for {TRIPLE}, is not static"))
        } else {
            self.own(own)
        };
        itself.map_err(|why| {
            looked.push(why);
            looked
        })
    }

    fn own(&self, own: &Own) -> Result<Image, String> {
        let image = || {
            travels(own.len).map_err(|why| format!("the program itself {why}"))?;
            whole(Arc::clone(&own.file), own.len).map_err(|error| format!("the program itself: {error}"))
        };
        self.own.get_or_init(image).clone()
    }

    /// What is in the one file. All of it is of one build: it was made in one go, and its index is sealed.
    fn embedded(&self, own: &Own, triple: &str, looked: &mut Vec<String>) -> Option<Image> {
        let one = match &own.appended {
            Ok(Some(one)) => one,
            Ok(None) => {
                looked.push("nothing is behind the executable: it is not one file".into());
                return None;
            }
            Err(why) => {
                looked.push(format!("the one file cannot be used: {why}"));
                return None;
            }
        };
        let Some(part) = one.find(Kind::Image, triple) else {
            looked.push("the one file has none".into());
            return None;
        };
        if let Err(why) = travels(part.stored) {
            looked.push(format!("what the one file has {why}"));
            return None;
        }
        let packing = match part.packed {
            None => Packing::Stored,
            Some((properties, filter)) => Packing::Lzma { properties, filter, length: part.len },
        };
        let content = ContentRef { hash: part.sha256, length: part.stored, packing };
        Some(Image::new(content, Arc::clone(&own.file), part.at))
    }

    fn in_folders(&self, triple: &str, looked: &mut Vec<String>) -> Option<Image> {
        for folder in &self.folders {
            let path = folder.join(format!("{}-{triple}", self.name));
            let trusted = if path.exists() { trust::folder(folder) } else { Ok(()) };
            match trusted
                .map_err(|why| format!("is not taken: its folder {why}"))
                .and_then(|()| self.file(&path, triple))
            {
                Ok(Some(image)) => return Some(image),
                Ok(None) => looked.push(format!("{} is not there", path.display())),
                Err(why) => looked.push(format!("{} {why}", path.display())),
            }
        }
        None
    }

    /// The image in a file, when there is one.
    fn file(&self, path: &Path, triple: &str) -> Result<Option<Image>, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be opened: {error}")),
        };
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            return Err("is no file".into());
        }
        travels(about.len())?;
        trust::file(&about).map_err(|why| format!("is not taken: it {why}"))?;
        let mut bytes = vec![0; about.len() as usize];
        file.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
        let elf = Elf::parse(&bytes).map_err(|error| format!("is no image: {error}"))?;
        if offshoot_image::elf::machine(triple).is_some_and(|machine| machine != elf.machine) {
            return Err(format!("is for {}", elf.triple().unwrap_or("another machine")));
        }
        if !elf.is_static() {
            return Err("is not static".into());
        }
        match (self.stamp, offshoot_image::stamp::find(&bytes)) {
            (None, _) => {
                return Err("is another file than this program, which has no stamp to know its build by".into());
            }
            (_, None) => return Err("has no stamp of its build".into()),
            (Some(own), Some(other)) if own != other => {
                return Err(format!("is of the build {}, this program of {}", &other[..12], &own[..12]));
            }
            _ => {}
        }
        let content = ContentRef { hash: Sha256::digest(&bytes).into(), length: about.len(), packing: Packing::Stored };
        Ok(Some(Image::new(content, Arc::new(file), 0)))
    }
}

impl offshoot_node::Images for Images {
    fn image(&self, program: &[u8; 32], triple: &str, here: bool) -> Result<Image, Failure> {
        crate::master::can_become_worker()?;
        if identity()? != *program {
            return Err(Failure::new(
                FailureKind::NoImage(triple.into()),
                "the master is another build of the program",
            )
            .hint("start the tree from one build"));
        }
        Ok(self.find(triple, here)?)
    }
}

/// What of a triple a static executable depends on: the processor, and that it is Linux.
fn machine(triple: &str) -> Option<&str> {
    let (processor, rest) = triple.split_once('-')?;
    rest.split('-').any(|part| part == "linux").then_some(processor)
}

/// The first `length` bytes of a file, as they are.
fn whole(file: Arc<File>, length: u64) -> io::Result<Image> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < length {
        let wanted = buffer.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        let n = file.read_at(&mut buffer[..wanted], at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..n]);
        at += n as u64;
    }
    let content = ContentRef { hash: hash.finalize().into(), length, packing: Packing::Stored };
    Ok(Image::new(content, file, 0))
}

#[cfg(test)]
mod tests {
    use offshoot_image::onefile::Appended;
    use offshoot_image::stamp::Stamp;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const ARM: &str = "aarch64-unknown-linux-musl";

    #[test]
    fn this_program_is_its_own_image_on_this_machine() {
        let images = Images::new();
        let image = images.find(TRIPLE, true).expect("an image");
        assert_eq!(image.content.length, std::fs::metadata("/proc/self/exe").expect("metadata").len());
        // What is tested here is linked to what the machine has.
        let own = Own::program().expect("the program");
        let is_static = own.elf.as_ref().is_some_and(Elf::is_static);
        assert_eq!(images.find(TRIPLE, false).is_ok(), is_static);
    }

    #[test]
    fn another_processor_is_told_with_what_was_looked_at_and_what_to_do() {
        let missing = Images::new().find(ARM, true).expect_err("no image");
        assert!(missing.looked.iter().any(|why| why.contains(TRIPLE)), "{missing}");
        assert!(missing.looked.iter().any(|why| why.contains("not one file")), "{missing}");
        assert!(missing.looked.iter().any(|why| why.contains(&format!("-{ARM} is not there"))), "{missing}");
        let failure = Failure::from(missing);
        assert_eq!(failure.kind, FailureKind::NoImage(ARM.into()));
        assert!(failure.hint.contains(&format!("cargo offshoot build --triple {ARM}")), "{}", failure.hint);
    }

    #[test]
    fn a_triple_from_a_target_cannot_lead_out_of_the_folders() {
        for triple in ["", "../x", "a/b", "x\0", "x.y"] {
            let missing = Images::new().find(triple, false).expect_err("no image");
            assert_eq!(missing.looked, ["the target names no triple"], "{triple:?}");
        }
    }

    /// The least that reads as a static executable for aarch64, with a stamp.
    fn image(id: Option<&str>) -> Vec<u8> {
        image_for(183, id)
    }

    /// The same for the machine that ELF gives this number.
    fn image_for(machine: u16, id: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        if let Some(stamp) = Stamp::new(id) {
            bytes.extend(stamp.bytes());
        }
        bytes
    }

    fn own(executable: &[u8], parts: &[Appended<'_>]) -> Own {
        use std::io::Write as _;

        let mut file = tempfile::tempfile().expect("a file");
        let bytes = if parts.is_empty() { Ok(executable.to_vec()) } else { onefile::append(executable, parts) };
        file.write_all(&bytes.expect("one file")).expect("written");
        Own::of(file).expect("readable")
    }

    fn images(folder: &Path, stamp: Option<&'static str>) -> Images {
        Images::of(&folder.join("program"), stamp)
    }

    #[test]
    fn s11_an_image_that_others_may_write_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(format!("program-{ARM}"));
        std::fs::write(&path, image(Some(ID))).expect("written");
        assert!(images(folder.path(), Some(ID)).find(ARM, false).is_ok());
        for (writable, who) in [(path.as_path(), "it"), (folder.path(), "its folder")] {
            let before = std::fs::metadata(writable).expect("ours").permissions();
            std::fs::set_permissions(writable, std::fs::Permissions::from_mode(0o777)).expect("ours");
            let missing = images(folder.path(), Some(ID)).find(ARM, false).expect_err(who);
            let why = format!("is not taken: {who} may be written by every user");
            assert!(missing.looked.iter().any(|looked| looked.contains(&why)), "{missing}");
            std::fs::set_permissions(writable, before).expect("ours");
        }
    }

    #[test]
    fn s11_only_a_file_of_the_same_build_is_an_image() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(format!("program-{ARM}"));
        let other: String = ID.chars().rev().collect();
        let cases: [(Option<&str>, Option<&'static str>, &str); 4] = [
            (None, Some(ID), "has no stamp"),
            (Some(&other), Some(ID), "is of the build fedcba987654, this program of 0123456789ab"),
            (Some(ID), None, "this program, which has no stamp"),
            (None, None, "this program, which has no stamp"),
        ];
        for (file, own, why) in cases {
            std::fs::write(&path, image(file)).expect("written");
            let missing = images(folder.path(), own).find(ARM, false).expect_err(why);
            assert!(missing.looked.iter().any(|looked| looked.contains(why)), "{missing}");
        }
        let bytes = image(Some(ID));
        std::fs::write(&path, &bytes).expect("written");
        let found = images(folder.path(), Some(ID)).find(ARM, false).expect("an image");
        assert_eq!(found.content.hash, <[u8; 32]>::from(Sha256::digest(&bytes)));
        let wrong = images(folder.path(), Some(ID));
        std::fs::rename(&path, folder.path().join("program-i686-unknown-linux-musl")).expect("renamed");
        let missing = wrong.find("i686-unknown-linux-musl", false).expect_err("for another machine");
        assert!(missing.looked.iter().any(|why| why.contains(&format!("is for {ARM}"))), "{missing}");
    }

    #[test]
    fn what_is_too_long_to_travel_is_told_with_its_length_the_limit_and_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(format!("program-{ARM}"));
        // Sparse: nothing of it is read.
        let file = File::create(&path).expect("made");
        file.set_len(Limits::CONTENT + 1).expect("long");
        let of = images(folder.path(), Some(ID));
        let missing = of.find(ARM, false).expect_err("too long");
        let why = format!("{} is 128.1 MiB long, and 128 MiB can travel", path.display());
        assert!(missing.looked.contains(&why), "{missing}");
        assert!(Failure::from(missing).hint.contains("packs them, and leaves out what debuggers read"));
        let own = Own::of(File::open(&path).expect("readable")).expect("readable");
        assert_eq!(of.own(&own).expect_err("too long"), "the program itself is 128.1 MiB long, and 128 MiB can travel");
    }

    #[test]
    fn an_image_in_the_one_file_is_taken_as_it_lies_there() {
        let bytes = image(Some(ID));
        let own = own(b"program", &[Appended::new(Kind::Image, ARM, &bytes)]);
        let images = images(Path::new("/nonexistent"), Some(ID));
        let found = images.embedded(&own, ARM, &mut Vec::new()).expect("an image");
        let mut stored = vec![0; found.content.length as usize];
        found.file.read_exact_at(&mut stored, found.offset).expect("the bytes");
        assert_eq!(found.content.hash, <[u8; 32]>::from(Sha256::digest(&stored)));
        let length = bytes.len() as u64;
        assert!(matches!(found.content.packing, Packing::Lzma { length: unpacked, .. } if unpacked == length));
        let mut looked = Vec::new();
        assert!(images.embedded(&own, "i686-unknown-linux-musl", &mut looked).is_none());
        assert_eq!(looked, ["the one file has none"]);
        assert_eq!(whole(Arc::clone(&own.file), own.len).expect("the executable").content.length, 7);
    }

    #[test]
    fn the_one_file_goes_before_what_lies_beside_the_program_that_before_the_build_folder_and_the_program_itself_is_last()
     {
        let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let machine = offshoot_image::elf::machine(&musl).expect("this machine is known");
        // Each may serve, and is told from the others by what is behind its stamp.
        let numbered = |number: u8| [image_for(machine, Some(ID)), vec![number]].concat();
        let top = tempfile::tempdir().expect("a folder");
        let beside = top.path().join("target/release/examples");
        let places = [
            beside.clone(),
            beside.join("images"),
            top.path().join("target/release/images"),
            top.path().join("target/images"),
            top.path().join("images"),
        ];
        let files: Vec<PathBuf> = places.iter().map(|place| place.join(format!("program-{musl}"))).collect();
        for (number, file) in (1..).zip(&files) {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
            std::fs::write(file, numbered(number)).expect("written");
        }
        let hash = |bytes: &[u8]| <[u8; 32]>::from(Sha256::digest(bytes));
        let (executable, embedded) = (numbered(0), numbered(9));
        let plain = own(&executable, &[]);
        let one = own(&executable, &[Appended::new(Kind::Image, &musl, &embedded)]);
        // It has none for this machine.
        let other = own(&executable, &[Appended::new(Kind::Image, ARM, &image(Some(ID)))]);
        let libraries = {
            let mut other = own(&executable, &[Appended::new(Kind::Image, ARM, &image(Some(ID)))]);
            other.elf.as_mut().expect("an executable").interpreter = true;
            other
        };
        // Anew each time: what was found once is kept.
        let found =
            |own: &Own, here: bool| images(&beside, Some(ID)).find_as(own, &musl, here).map(|image| image.content);
        for (number, file) in (1..).zip(&files) {
            for here in [false, true] {
                let first = found(&one, here).expect("it is in the one file");
                assert!(
                    matches!(first.packing, Packing::Lzma { length, .. } if length == embedded.len() as u64),
                    "{first:?}"
                );
                assert_eq!(found(&other, here).expect("an image").hash, hash(&numbered(number)), "{}", file.display());
            }
            assert_eq!(found(&plain, false).expect("an image").hash, hash(&numbered(number)), "{}", file.display());
            assert_eq!(
                found(&plain, true).expect("itself").hash,
                hash(&executable),
                "here it goes before what lies beside it"
            );
            std::fs::remove_file(file).expect("ours");
        }
        for (own, here) in [(&plain, false), (&plain, true), (&other, false), (&other, true), (&libraries, true)] {
            assert_eq!(found(own, here).expect("itself").hash, hash(&executable));
        }
        let looked = found(&libraries, false).expect_err("it runs on this machine alone");
        let mut order: Vec<String> = vec!["the one file has none".into()];
        order.extend(files.iter().map(|file| format!("{} is not there", file.display())));
        order.push(format!("the program itself, for {TRIPLE}, is not static"));
        assert_eq!(looked, order);
    }

    #[test]
    fn of_a_program_that_cannot_become_a_worker_nothing_is_sent() {
        let failure = offshoot_node::Images::image(&Images::new(), &[0; 32], TRIPLE, true).map(drop);
        let failure = failure.expect_err("`init` was not called");
        assert_eq!(
            (&failure.kind, &failure.message[..]),
            (&FailureKind::Unsupported, "this program cannot become a worker")
        );
        assert!(failure.hint.contains("`offshoot::init()`"), "{}", failure.hint);
    }
}
