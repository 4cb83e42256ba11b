//! What this process says of itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;

use offshoot_mux::process;
use offshoot_wire::{ChildHello, Failure, Limits};

use crate::error::os_failure;

/// The triple that this program was built for.
pub const TRIPLE: &str = env!("OFFSHOOT_TARGET");

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The hello of this process.
pub(crate) fn hello(nonce: [u8; 16]) -> ChildHello {
    ChildHello {
        nonce,
        frame: Limits::FRAME,
        triple: TRIPLE.to_owned(),
        version: VERSION.to_owned(),
        host: bounded(process::hostname()),
        user: bounded(process::user_name()),
        uid: process::effective_uid(),
        pid: process::id(),
    }
}

fn bounded(mut name: String) -> String {
    let mut end = Limits::NAME.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name
}

/// The folder that processes start in: the home, or `/` when there is none or it may not be entered.
pub(crate) fn home() -> OsString {
    let home = process::home();
    if home.join(".").is_dir() { home.into_os_string() } else { "/".into() }
}

/// What a new process is called in `ps`: who started the tree, from where.
pub fn process_name() -> String {
    let text = format!("offshoot:{}@{}:{}", process::user_name(), process::hostname(), process::id());
    text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(Limits::NAME).collect()
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| os_failure("no random numbers from /dev/urandom", &error))?;
    Ok(bytes)
}
