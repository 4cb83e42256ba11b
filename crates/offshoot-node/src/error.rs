//! What an operation on a context can end with.

use std::fmt;

use offshoot_wire::{Failure, FailureKind, LostReason, Ran, RemoteFailure, Resource};

/// An operation that failed: what, where on the path, whether the work ran, what was seen and what to do next.
///
/// `Display` is one line, without raw bytes from elsewhere; [`Error::seen`] and [`Error::hint`] have the rest.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    failure: Failure,
    path: String,
}

impl Error {
    /// The failure of something asked of the context at `path`.
    pub fn new(failure: Failure, path: impl Into<String>) -> Error {
        Error(Box::new(Inner { failure, path: path.into() }))
    }

    /// What kind of failure.
    pub fn kind(&self) -> &FailureKind {
        &self.0.failure.kind
    }

    /// Whether the work ran.
    pub fn ran(&self) -> Ran {
        self.0.failure.ran
    }

    /// Where: the names from the root to the context concerned, joined with ` -> `.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// One sentence. May hold text from another machine: escape it before it reaches a terminal.
    pub fn message(&self) -> &str {
        &self.0.failure.message
    }

    /// The last bytes that were received, at most 4 KiB; empty when there are none. Raw: escape before showing.
    pub fn seen(&self) -> &[u8] {
        &self.0.failure.seen
    }

    /// What to do next; empty when there is no advice.
    pub fn hint(&self) -> &str {
        &self.0.failure.hint
    }

    /// The failure as it crosses the tree.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }
}

/// The name of a kind of failure, for people.
fn title(kind: &FailureKind) -> String {
    match kind {
        FailureKind::Connect(stage) => format!("cannot connect ({stage})"),
        FailureKind::StageTimeout(stage) => format!("timed out ({stage})"),
        FailureKind::Auth(_) => "the login was refused".into(),
        FailureKind::HostKey(_) => "the host key was not accepted".into(),
        FailureKind::NoRoute => "no such context".into(),
        FailureKind::PeerLost(LostReason::Violation(_)) => "the context broke the protocol".into(),
        FailureKind::PeerLost(reason) => format!("the context was lost: {reason}"),
        FailureKind::Timeout => "no answer in time".into(),
        FailureKind::Cancelled => "cancelled".into(),
        FailureKind::Denied => "not allowed".into(),
        FailureKind::TooLarge => "too large".into(),
        FailureKind::Busy => "a limit is reached".into(),
        FailureKind::Exhausted(Resource::Descriptors) => "out of file descriptors".into(),
        FailureKind::Exhausted(Resource::Processes) => "out of processes".into(),
        FailureKind::Exhausted(Resource::Memory) => "out of memory".into(),
        FailureKind::Exhausted(Resource::Disk) => "out of disk space".into(),
        FailureKind::NoExec => "no place on the target can run a program".into(),
        FailureKind::NoAgent(triple) => format!("no agent for {}", triple.escape_debug()),
        FailureKind::Remote(RemoteFailure::Panic) => "the remote function panicked".into(),
        FailureKind::Remote(_) => "the remote function failed".into(),
        FailureKind::Unsupported => "not supported there".into(),
        FailureKind::Malformed => "the request was not understood".into(),
        FailureKind::Os(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        _ => "failed".into(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = &self.0.failure;
        f.write_str(&title(&failure.kind))?;
        if !failure.message.is_empty() {
            write!(f, ": {}", failure.message.escape_debug())?;
        }
        if !self.0.path.is_empty() {
            write!(f, " (on {})", self.0.path.escape_debug())?;
        }
        if failure.ran == Ran::MaybeExecuted {
            write!(f, "; {}", failure.ran)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        let kind = match error.kind() {
            FailureKind::NoRoute | FailureKind::PeerLost(_) => std::io::ErrorKind::BrokenPipe,
            FailureKind::Timeout | FailureKind::StageTimeout(_) => std::io::ErrorKind::TimedOut,
            FailureKind::Denied | FailureKind::Auth(_) => std::io::ErrorKind::PermissionDenied,
            FailureKind::Os(errno) => std::io::Error::from_raw_os_error(*errno).kind(),
            _ => std::io::ErrorKind::Other,
        };
        std::io::Error::new(kind, error)
    }
}

/// The failure for an operating-system error of this machine, at the stage or operation that `what` names.
pub(crate) fn os_failure(what: &str, error: &std::io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(errno) if [EMFILE, ENFILE].contains(&errno) => FailureKind::Exhausted(Resource::Descriptors),
        Some(EAGAIN) => FailureKind::Exhausted(Resource::Processes),
        Some(ENOMEM) => FailureKind::Exhausted(Resource::Memory),
        Some(ENOSPC) => FailureKind::Exhausted(Resource::Disk),
        Some(errno) => FailureKind::Os(errno),
        None => FailureKind::Unsupported,
    };
    Failure::new(kind, format!("{what}: {error}"))
}

// The same on every Linux architecture that is supported, and on the BSDs but for EAGAIN.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;
const EAGAIN: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 11 } else { 35 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_escaped() {
        let failure = Failure::new(FailureKind::Denied, "no\u{1b}[2J\nway").ran(Ran::MaybeExecuted);
        let text = Error::new(failure, "ssh:a -> ssh:b").to_string();
        assert_eq!(text, "not allowed: no\\u{1b}[2J\\nway (on ssh:a -> ssh:b); it may have run");
    }
}
