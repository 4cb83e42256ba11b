//! What an operation on a context can end with.

use std::fmt;
use std::time::Duration;

use offshoot_wire::{Address, ConnectStage, Failure, FailureKind, LostReason, Ran, RemoteFailure, Resource};

use crate::context::timed;

/// An operation that failed: what, where on the path, whether the work ran, what was seen and what to do next.
///
/// `Display` is one line, without raw bytes from elsewhere; [`Error::seen`] and [`Error::hint`] have the rest.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    failure: Failure,
    path: String,
    /// How many bytes of the path name what was lost.
    lost: Option<usize>,
}

impl Error {
    /// The failure of something asked of the context at `path`. What a `PeerLost` failure names as lost is taken to lie on
    /// that path.
    pub fn new(failure: Failure, path: impl Into<String>) -> Error {
        let (failure, path) = (named(failure), path.into());
        let lost = match failure.kind {
            FailureKind::PeerLost(_) => cut(&path, failure.at.depth()),
            _ => None,
        };
        Error(Box::new(Inner { failure, path, lost }))
    }

    /// As [`Error::new`], for what was asked of `target`: what was lost may also be the way there.
    pub(crate) fn of(failure: Failure, path: &str, target: &Address) -> Error {
        let on_path = target.is_under(&failure.at);
        let mut error = Error::new(failure, path);
        error.0.lost = error.0.lost.filter(|_| on_path);
        error
    }

    /// The same, of what came before the work was sent: whatever became of that, the work did not run.
    #[doc(hidden)] // for calls, which wait for their worker first
    pub fn not_sent(mut self) -> Error {
        self.0.failure.ran = Ran::NotSent;
        self
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

    /// The context that was lost first, when one was: [`path`](Self::path), or the part of it down to the context that
    /// took what lies below along.
    pub fn lost_at(&self) -> Option<String> {
        self.0.lost.map(|end| self.0.path[..end].to_owned())
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

    /// Of a connect that failed on the way: its stages, with the time from its start to the end of each; the last one is
    /// that which failed. Told by the context that ran it. Empty where no connect had begun, and for all that is none.
    pub fn stages(&self) -> Vec<(ConnectStage, Duration)> {
        timed(&self.0.failure.stages)
    }

    /// The failure as it crosses the tree.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }
}

/// Where the first `depth` names of a path end; `None` when it has fewer, or for none.
fn cut(path: &str, depth: usize) -> Option<usize> {
    const ARROW: &[u8] = b" -> ";
    // An arrow does not overlap itself, and the search for any text is a kilobyte of code.
    let arrows = path.as_bytes().windows(ARROW.len()).enumerate().filter(|(_, window)| *window == ARROW);
    let next = arrows.map(|(at, _)| at).chain((!path.is_empty()).then_some(path.len()));
    next.enumerate().nth(depth.checked_sub(1)?).map(|(_, end)| end)
}

/// A connect may fail because what was to run had no process to run in: then it is an agent, a shell or a tool that says so, in its
/// own words. They are looked at where the failure arrives: agents need no code for it.
fn named(mut failure: Failure) -> Failure {
    const REFUSED: [&[u8]; 3] = [
        b"cannot start: Resource temporarily unavailable",
        b"fork: Resource temporarily unavailable",
        b": Cannot fork",
    ];
    let says = |text: &&[u8]| failure.seen.windows(text.len()).any(|part| part == *text);
    if matches!(failure.kind, FailureKind::Connect(_)) && REFUSED.iter().any(says) {
        failure.kind = FailureKind::Exhausted(Resource::Processes);
        let advice = "raise the limit of processes there: `ulimit -u`, or the control group's pids.max; or connect to fewer at once";
        failure = failure.hint(advice);
    }
    failure
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
        FailureKind::Exhausted(resource) => format!("out of {resource}"),
        FailureKind::NoExec => "no place on the target can run a program".into(),
        FailureKind::NoAgent(triple) => format!("no agent for {}", triple.escape_debug()),
        FailureKind::Damaged(by) => format!("{by} sent something else than was asked for"),
        FailureKind::NoImage(triple) => format!("no image of this program for {}", triple.escape_debug()),
        FailureKind::Remote(RemoteFailure::Panic) => "the remote function panicked".into(),
        FailureKind::Remote(_) => "the remote function failed".into(),
        FailureKind::Unsupported => "not supported there".into(),
        FailureKind::Malformed => "the request was not understood".into(),
        FailureKind::Os(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
        _ => "failed".into(),
    }
}

/// As a program shows it that gives up, when `main` returns it or something unwraps it: what failed and where, what was
/// seen, escaped, and what to do, each on lines of its own. `{:#?}` shows the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f.debug_tuple("Error").field(&self.0).finish();
        }
        write!(f, "{self}")?;
        for line in self.seen().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            write!(f, "\n  {}", String::from_utf8_lossy(line).escape_debug())?;
        }
        if self.hint().is_empty() { Ok(()) } else { write!(f, "\n  {}", self.hint().escape_debug()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = &self.0.failure;
        let lost = self.lost_at();
        let title = title(&failure.kind);
        // What the system says may end the message already, behind what it was asked to do.
        let said = matches!(failure.kind, FailureKind::Os(_)) && failure.message.contains(&title);
        match (&failure.kind, &lost) {
            (FailureKind::PeerLost(reason), Some(lost)) => write!(f, "{} was lost: {reason}", lost.escape_debug())?,
            _ if said => {}
            _ => f.write_str(&title)?,
        }
        // A message that begins with the address says the same again, in numbers.
        let told = lost.is_some() && failure.message.starts_with(&failure.at.to_string());
        if !failure.message.is_empty() && !told {
            write!(f, "{}{}", if said { "" } else { ": " }, failure.message.escape_debug())?;
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
    fn a_connect_for_which_there_was_no_process_is_called_so_whoever_says_it() {
        let seen = |text: &str| {
            let failure =
                Failure::new(FailureKind::Connect(ConnectStage::Hello), "the agent exited").seen(text.as_bytes());
            Error::new(failure.hint("what it printed says more"), "local")
        };
        for text in [
            "offshoot agent: cannot start: Resource temporarily unavailable (os error 11)\n",
            "sudo: unable to fork: Resource temporarily unavailable\n",
            "sh: 1: Cannot fork\n",
            "bash: fork: Resource temporarily unavailable\n",
        ] {
            let error = seen(text);
            assert_eq!(*error.kind(), FailureKind::Exhausted(Resource::Processes), "{text}");
            assert!(
                error.hint().contains("pids.max") && error.to_string().starts_with("out of processes: "),
                "{error}"
            );
            assert_eq!(error.seen(), text.as_bytes());
        }
        let other = seen("ssh: connect to host a port 22: Resource temporarily unavailable\n");
        assert_eq!(*other.kind(), FailureKind::Connect(ConnectStage::Hello));
        assert_eq!(other.hint(), "what it printed says more");
    }

    #[test]
    fn display_is_one_line_and_escaped() {
        let failure = Failure::new(FailureKind::Denied, "no\u{1b}[2J\nway").ran(Ran::MaybeExecuted);
        let text = Error::new(failure, "ssh:a -> ssh:b").to_string();
        assert_eq!(text, "not allowed: no\\u{1b}[2J\\nway (on ssh:a -> ssh:b); it may have run");
    }

    #[test]
    fn what_the_system_says_is_told_once() {
        let text = |message: &str| Error::new(Failure::new(FailureKind::Os(2), message), "ssh:a").to_string();
        let system = std::io::Error::from_raw_os_error(2);
        assert_eq!(text(&format!("cannot run `x`: {system}")), format!("cannot run `x`: {system} (on ssh:a)"));
        assert_eq!(text("cannot run `x`"), format!("{system}: cannot run `x` (on ssh:a)"));
        assert_eq!(text(""), format!("{system} (on ssh:a)"));
    }

    #[test]
    fn a_program_that_gives_up_shows_the_three_parts_and_escaped() {
        let failure = Failure::new(FailureKind::Denied, "no way").seen(b"first\x1b\n\nsecond\n").hint("ask \u{1b}them");
        let error = Error::new(failure, "ssh:a");
        let expected = "not allowed: no way (on ssh:a)\n  first\\u{1b}\n  second\n  ask \\u{1b}them";
        assert_eq!(format!("{error:?}"), expected);
        assert!(format!("{error:#?}").starts_with("Error(\n    Inner {"));
    }

    fn lost(at: &str, message: &str) -> Failure {
        let at = at.parse().expect("an address");
        Failure::new(FailureKind::PeerLost(LostReason::Signalled(9)), message).at(at).ran(Ran::MaybeExecuted)
    }

    #[test]
    fn a_lost_context_is_told_by_name() {
        let path = "ssh:a -> sudo -> local";
        for (at, name, message) in [
            ("/3", "ssh:a", "/3 was lost, and /3/0/7 with it: why"),
            ("/3/0", "ssh:a -> sudo", "/3/0 was lost, and /3/0/7 with it: why"),
            ("/3/0/7", path, "/3/0/7 was lost: why"),
        ] {
            let error = Error::of(lost(at, message), path, &"/3/0/7".parse().expect("an address"));
            assert_eq!(error.lost_at().as_deref(), Some(name));
            let expected = format!("{name} was lost: its process was ended by signal 9 (on {path}); it may have run");
            assert_eq!(error.to_string(), expected);
        }
        let said = Error::new(lost("/3", "the context ends"), "ssh:a").to_string();
        assert!(said.starts_with("ssh:a was lost: its process was ended by signal 9: the context ends (on"), "{said}");
    }

    #[test]
    fn what_does_not_lie_on_the_path_is_not_named_by_it() {
        let target: Address = "/3/0".parse().expect("an address");
        for (at, path) in [("/1", "a -> b"), ("/", "a -> b"), ("/3/0", "a"), ("/3", ""), ("/3/0/1", "a -> b")] {
            let error = Error::of(lost(at, "it was lost"), path, &target);
            assert_eq!(error.lost_at(), None, "{at} on {path}");
            assert!(error.to_string().contains("it was lost"), "{error}");
        }
        assert_eq!(
            Error::of(Failure::new(FailureKind::Busy, "").at(target.clone()), "a -> b", &target).lost_at(),
            None
        );
    }
}
