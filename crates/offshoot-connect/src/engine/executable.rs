//! Executables made of what came: in memory, or where the system runs nothing from there, in a file for a moment.
//!
//! Must not know where the bytes come from. On the connect's thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use offshoot_loader::filter;
use offshoot_loader::unpack::{PROBABILITIES, room_between, unpack};
use offshoot_mux::{Child, SpawnError, image, process};
use offshoot_wire::{ConnectStage, ContentRef, Failure, FailureKind, Packing, Resource};

use super::{Image, classify};
use crate::bundle::AGENT_MAX;

/// An image of the user's program, ready to be started, any number of times.
#[derive(Debug)]
pub struct Executable(Kept);

#[derive(Debug)]
enum Kept {
    /// A sealed file in memory: all that are started from it share its pages.
    Memory(File),
    /// The system has no such files.
    Bytes(Vec<u8>),
}

impl Executable {
    /// Makes it of the pieces of a content whose hash was checked. Holds as much memory as the executable is long, at
    /// most 256 MiB; while it unpacks one twice that.
    ///
    /// # Errors
    /// [`FailureKind::Malformed`] when the content is not packed as it says, [`FailureKind::Exhausted`] when there is no
    /// memory for it.
    pub fn of(content: &ContentRef, pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<Executable, Failure> {
        let whole;
        let mut unpacked = None;
        if let Packing::Lzma { properties, filter, length } = content.packing {
            whole = unpack_pieces(properties, filter, length, pieces)?;
            unpacked = Some(&whole[..]);
        }
        let mut stored = || unpacked.take().or_else(|| pieces.next());
        if let Ok(file) = image::memfd("offshoot-worker") {
            let mut file = File::from(file);
            while let Some(piece) = stored() {
                file.write_all(piece).map_err(memory)?;
            }
            image::seal(&file).map_err(memory)?;
            return Ok(Executable(Kept::Memory(file)));
        }
        let mut bytes = Vec::new();
        while let Some(piece) = stored() {
            bytes.try_reserve_exact(piece.len()).map_err(|_| memory(io::ErrorKind::OutOfMemory.into()))?;
            bytes.extend_from_slice(piece);
        }
        Ok(Executable(Kept::Bytes(bytes)))
    }

    /// Starts it by `run`: from memory, else from a file with this name in the first place that allows it. The file is
    /// removed before this returns.
    pub(super) fn start(
        &self,
        name: &str,
        run: &dyn Fn(Image<'_>) -> Result<Child, SpawnError>,
    ) -> Result<Child, Failure> {
        let copy;
        let bytes = match &self.0 {
            Kept::Bytes(bytes) => bytes,
            Kept::Memory(file) => match run(Image::Open(file.as_fd())) {
                Err(error) if is_refused(&error) => {
                    copy = read(file).map_err(memory)?;
                    &copy
                }
                started => return started.map_err(|error| classify::spawn_error(WHAT, &error)),
            },
        };
        start_from(&places(), name, bytes, run)
    }
}

const WHAT: &str = "the image of the program";

fn start_from(
    places: &[PathBuf],
    name: &str,
    bytes: &[u8],
    run: &dyn Fn(Image<'_>) -> Result<Child, SpawnError>,
) -> Result<Child, Failure> {
    let mut tried = String::new();
    for place in places {
        let path = place.join(name);
        let started = place_file(&path, bytes).and_then(|()| {
            let started = run(Image::Path(&path)).map_err(io::Error::from);
            // Best effort: what can be made in a place can be removed from it.
            let _ = fs::remove_file(&path);
            started
        });
        match started {
            Ok(child) => return Ok(child),
            Err(error) => {
                let shown = place.display();
                tried.push_str(if tried.is_empty() { "tried " } else { ", " });
                tried.push_str(&format!("{shown} ({error})"));
            }
        }
    }
    let message = format!("{WHAT} cannot be executed here: {tried}");
    Err(Failure::new(FailureKind::NoExec, message).hint("mount one of these places without noexec, or with room"))
}

/// Whether the system runs no program from memory, or cannot without `/proc`: EPERM, ENOENT, EACCES, ENOSYS.
fn is_refused(error: &SpawnError) -> bool {
    matches!(error.raw_os_error(), Some(1 | 2 | 13 | 38))
}

/// Where files may be made and executed, best first: as the bootstrap tries them.
fn places() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let user = PathBuf::from(format!("/run/user/{}", process::effective_uid()));
    let fixed = ["/dev/shm", "/run", "/tmp", "/var/tmp", "/dev"].map(PathBuf::from);
    let all = runtime.into_iter().chain([user]).chain(fixed).chain([process::home()]);
    all.filter(|place| place.is_absolute()).collect()
}

/// A new file: never one that was there, nor one that a link leads to.
fn place_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(bytes).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn unpack_pieces(
    properties: u8,
    filter: u8,
    length: u64,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Result<Vec<u8>, Failure> {
    let damaged = || Failure::new(FailureKind::Malformed, "the image of the program is not packed as it says");
    let length = usize::try_from(length).ok().filter(|length| *length <= AGENT_MAX).ok_or_else(damaged)?;
    let mut whole = zeroed(length)?;
    let mut between = zeroed(filter::splits(filter).map_or(0, |_| room_between(length)))?;
    let mut probabilities = Box::new([0; PROBABILITIES]);
    let mut rest: &[u8] = &[];
    let mut short = false;
    let mut next = || {
        while rest.is_empty() {
            match pieces.next() {
                Some(piece) => rest = piece,
                None => {
                    short = true;
                    return 0;
                }
            }
        }
        let (byte, behind) = (rest[0], &rest[1..]);
        rest = behind;
        byte
    };
    let result = unpack(properties, filter, &mut next, &mut probabilities, &mut between, &mut whole);
    if result.is_err() || short || !rest.is_empty() || pieces.next().is_some() { Err(damaged()) } else { Ok(whole) }
}

fn zeroed(length: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| memory(io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length, 0);
    Ok(bytes)
}

fn memory(error: io::Error) -> Failure {
    let mut failure = classify::os_error(ConnectStage::Payload, "no memory for the image of the program", &error);
    if error.kind() == io::ErrorKind::StorageFull {
        // Of a file in memory.
        failure.kind = FailureKind::Exhausted(Resource::Memory);
    }
    failure
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use offshoot_mux::Spawn;

    use super::*;

    fn stored(bytes: &[u8]) -> ContentRef {
        ContentRef { hash: [0; 32], length: bytes.len() as u64, packing: Packing::Stored }
    }

    #[test]
    fn where_nothing_runs_from_memory_it_runs_from_a_file_that_is_gone_at_once() {
        let program = fs::read("/bin/true").unwrap();
        let made = Executable::of(&stored(&program), &mut program.chunks(1000)).unwrap();
        let refused = tempfile::tempfile().unwrap();
        let path = RefCell::new(PathBuf::new());
        let run = |image: Image<'_>| match image {
            // As the system refuses a file that may not be executed.
            Image::Open(_) => Spawn::image(refused.as_fd(), "x").start(),
            Image::Path(of) => {
                path.replace(of.to_owned());
                assert_eq!(fs::read(of).unwrap(), program);
                Spawn::new(of).start()
            }
        };
        let child = made.start(".offshoot-test-executable", &run).unwrap();
        assert!(child.wait(None).unwrap().unwrap().success());
        assert!(path.borrow().is_absolute() && !path.borrow().exists(), "{path:?}");
    }

    #[test]
    fn what_can_be_placed_nowhere_names_the_places() {
        let run = |_: Image<'_>| panic!("nothing is there to be run");
        let places = ["/nonexistent/a", "/proc/self"].map(PathBuf::from);
        let failure = start_from(&places, "x", b"x", &run).map(drop).expect_err("no place");
        assert_eq!(failure.kind, FailureKind::NoExec);
        assert!(failure.message.contains("/nonexistent/a") && failure.message.contains("/proc/self"), "{failure:?}");
    }

    #[test]
    fn a_packed_image_comes_out_as_it_was_and_a_damaged_one_does_not() {
        let program = fs::read("/bin/true").unwrap();
        let packed = offshoot_loader::pack::pack(&program).unwrap();
        let (properties, filter, length) = (packed.properties, packed.filter, program.len() as u64);
        let content = ContentRef { packing: Packing::Lzma { properties, filter, length }, ..stored(&packed.bytes) };
        let Executable(Kept::Memory(file)) = Executable::of(&content, &mut packed.bytes.chunks(999)).unwrap() else {
            panic!("this system has files in memory");
        };
        assert_eq!(read(&file).unwrap(), program);
        let damaged = |bytes: &[u8], content: &ContentRef| {
            Executable::of(content, &mut bytes.chunks(999)).map(drop).expect_err("damaged").kind.clone()
        };
        assert_eq!(damaged(&packed.bytes[..packed.bytes.len() - 9], &content), FailureKind::Malformed);
        assert_eq!(damaged(&[&packed.bytes[..], &[0; 9]].concat(), &content), FailureKind::Malformed);
        let large = ContentRef { packing: Packing::Lzma { properties, filter, length: u64::MAX }, ..content };
        assert_eq!(damaged(&packed.bytes, &large), FailureKind::Malformed);
    }
}
