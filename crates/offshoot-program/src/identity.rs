//! Which program this is.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

use offshoot_image::stamp::Stamp;
use offshoot_wire::{Failure, FailureKind};
use sha2::{Digest, Sha256};

/// What whoever builds the program for several triples stamps into each of them; there to be found in the executable.
static STAMP: Option<Stamp> = Stamp::new(option_env!("OFFSHOOT_BUILD_ID"));

/// The id that this program is stamped with.
pub(crate) fn stamp() -> Option<&'static str> {
    // Not from the constant: what is not read where it lies would not lie there.
    std::hint::black_box(&STAMP).as_ref().and_then(|stamp| std::str::from_utf8(stamp.id()).ok())
}

/// The identity of this program: of its build where `OFFSHOOT_BUILD_ID` was set when it was compiled, else of its very
/// executable: then no other file is the same program. It is compared before a function is called, since the encoding of values cannot see that a type changed.
///
/// The hash of the executable is computed once; it takes as long as reading the file does.
///
/// # Errors
/// When the executable cannot be read.
pub(crate) fn identity() -> Result<[u8; 32], Failure> {
    static IDENTITY: OnceLock<Result<[u8; 32], Failure>> = OnceLock::new();
    let compute = || match stamp() {
        Some(build) => Ok(Sha256::new().chain_update(b"offshoot build ").chain_update(build).finalize().into()),
        None => executable().map_err(|error| {
            Failure::new(
                FailureKind::Unsupported,
                format!("cannot tell which program this is: /proc/self/exe: {error}"),
            )
        }),
    };
    IDENTITY.get_or_init(compute).clone()
}

fn executable() -> io::Result<[u8; 32]> {
    let mut file = File::open("/proc/self/exe")?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
