//! Errors before anything runs: usage, files, our own limits. Each comes with a hint.

use std::fmt;
use std::io;

use offshoot::escape::escaped;

use crate::nodeset::NodeSetError;
use crate::output::Palette;

/// An error with what to do about it.
#[derive(Debug)]
pub(crate) struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl Hinted {
    pub(crate) fn new(error: anyhow::Error, hint: impl Into<String>) -> Hinted {
        Hinted { error, hint: hint.into() }
    }
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Hinted {}

/// The system starts no thread more: its own words do not say what they are about.
pub(crate) fn no_thread(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot start a thread: {error}"))
}

/// What to do where there are too few processes.
pub(crate) const PROCESSES: &str =
    "raise the limits of processes: ulimit -u, or the control group's pids.max; a smaller -f needs less at once";

/// The error as a block, in the form of [`crate::output::fault_block`].
pub(crate) fn block(error: &anyhow::Error, palette: &Palette) -> String {
    let text = format!("{error:#}");
    format!(
        "{0}error:{0:#} {1}\n  {2}hint{2:#}      {3}\n",
        palette.error,
        escaped(text.as_bytes()),
        palette.faint,
        escaped(hint(error).as_bytes())
    )
}

fn hint(error: &anyhow::Error) -> &str {
    if let Some(hinted) = error.downcast_ref::<Hinted>()
        && !hinted.hint.is_empty()
    {
        return &hinted.hint;
    }
    if error.chain().any(|cause| cause.is::<NodeSetError>()) {
        return "sets are written web[01-32,40], db[1-3]x[1-2], a,b,c; see: offshoot --help";
    }
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(|error| (error.raw_os_error(), error.kind()));
    match errno {
        Some((Some(23 | 24), _)) => "raise the limit of open files: ulimit -n; or a smaller -f",
        Some((_, io::ErrorKind::FileTooLarge)) => {
            "give every target a place at once, by a larger -f: then nothing is kept"
        }
        Some((_, io::ErrorKind::StorageFull)) => "make room, or point TMPDIR to where there is some",
        Some((_, io::ErrorKind::WouldBlock)) => PROCESSES,
        Some((_, io::ErrorKind::OutOfMemory)) => "raise the limit of memory: ulimit -v; or a smaller -f",
        Some((_, io::ErrorKind::NotFound)) => "is the path right?",
        _ => "see: offshoot --help",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn every_error_has_a_hint_and_is_escaped() {
        let own = anyhow::Error::from(Hinted::new(anyhow::anyhow!("bad \u{1b}name"), "do this")).context("outer");
        assert_eq!(block(&own, &Palette::default()), "error: outer: bad \\x1bname\n  hint      do this\n");
        let other: anyhow::Error = anyhow::anyhow!("odd");
        assert!(block(&other, &Palette::default()).ends_with("hint      see: offshoot --help\n"));
        let full: anyhow::Result<()> = Err(io::Error::from_raw_os_error(24)).context("cannot start");
        assert!(block(&full.expect_err("an error"), &Palette::default()).contains("ulimit -n"));
    }
}
