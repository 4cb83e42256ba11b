//! Failures: the form in which anything that went wrong crosses the tree.
//!
//! One type answers what failed, where, whether the work ran, what was seen and what to do next. Everything in it
//! came from another machine and is shown escaped.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reader::{Decode, Reader, read_fields, read_variants};
use crate::{Address, bounds};

/// Whether the work of a request ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ran {
    /// It never left for, or was refused by, the context that was asked: it did not run.
    NotSent,
    /// It was sent and no answer came: it may have run.
    MaybeExecuted,
    /// The context that was asked ran it.
    Executed,
}

read_variants!(Ran { NotSent, MaybeExecuted, Executed });

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ran::NotSent => "it did not run",
            Ran::MaybeExecuted => "it may have run",
            Ran::Executed => "it ran",
        })
    }
}

/// The stages of a connect, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ConnectStage {
    /// Waiting for a place: only so many connects run at once.
    Queue,
    /// Starting the tool (ssh, sudo, …).
    Start,
    /// The tool's own work up to the first byte of our script: network, host key, authentication, login shell.
    Login,
    /// Waiting for the script's marker.
    Probe,
    /// Finding the agent for the target.
    Payload,
    /// Sending the agent and waiting for its hello.
    Agent,
    /// Checking the hello.
    Hello,
}

read_variants!(ConnectStage { Queue, Start, Login, Probe, Payload, Agent, Hello });

impl fmt::Display for ConnectStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectStage::Queue => "waiting for a free place",
            ConnectStage::Start => "starting the connection tool",
            ConnectStage::Login => "logging in",
            ConnectStage::Probe => "waiting for the start marker",
            ConnectStage::Payload => "finding the agent for the target",
            ConnectStage::Agent => "starting the agent",
            ConnectStage::Hello => "greeting the agent",
        })
    }
}

/// What stood in the way of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AuthFailure {
    /// A password, passphrase or other secret is asked for and none was given.
    PasswordRequired,
    /// The secret that was given is wrong.
    PasswordIncorrect,
    /// No key or other credential was accepted.
    Rejected,
    /// The tool's question was not answered in time.
    PromptTimeout,
    /// The tool wants a terminal.
    TtyRequired,
    /// The account may not do this.
    NotAllowed,
    /// There is no such user to become.
    NoSuchUser,
}

read_variants!(AuthFailure {
    PasswordRequired,
    PasswordIncorrect,
    Rejected,
    PromptTimeout,
    TtyRequired,
    NotAllowed,
    NoSuchUser,
});

/// What was wrong with a host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HostKeyFailure {
    /// The host is not among the known ones.
    Unknown,
    /// The host is known by another key.
    Changed,
}

read_variants!(HostKeyFailure { Unknown, Changed });

/// How a context or link was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LostReason {
    /// The link ended.
    LinkEnd,
    /// Nothing was heard for the time the link allows.
    Silent,
    /// The process exited with this status.
    Exited(i32),
    /// The process was ended by this signal.
    Signalled(i32),
    /// Its parent was lost.
    ParentLost,
    /// It was shut down by request.
    Shutdown,
    /// It broke the protocol; the text says how.
    Violation(#[serde(deserialize_with = "bounds::message")] String),
}

impl Decode for LostReason {
    fn read(from: &mut Reader<'_>) -> LostReason {
        match from.variant(7) {
            0 => LostReason::LinkEnd,
            1 => LostReason::Silent,
            2 => LostReason::Exited(Decode::read(from)),
            3 => LostReason::Signalled(Decode::read(from)),
            4 => LostReason::ParentLost,
            5 => LostReason::Shutdown,
            _ => LostReason::Violation(from.message()),
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LostReason::LinkEnd => f.write_str("the link ended"),
            LostReason::Silent => f.write_str("nothing was heard from it any more"),
            LostReason::Exited(status) => write!(f, "its process exited with status {status}"),
            LostReason::Signalled(signal) => write!(f, "its process was ended by signal {signal}"),
            LostReason::ParentLost => f.write_str("the context above it was lost"),
            LostReason::Shutdown => f.write_str("it was shut down"),
            LostReason::Violation(how) => {
                write!(f, "it broke the protocol: {}", crate::escape::escaped(how.as_bytes()))
            }
        }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Resource {
    /// File descriptors.
    Descriptors,
    /// Processes or threads.
    Processes,
    /// Memory.
    Memory,
    /// Disk space.
    Disk,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Descriptors => "file descriptors",
            Resource::Processes => "processes",
            Resource::Memory => "memory",
            Resource::Disk => "disk space",
        })
    }
}

read_variants!(Resource { Descriptors, Processes, Memory, Disk });

/// An error from code that ran on the other side.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RemoteFailure {
    /// An error value.
    Error,
    /// A panic.
    Panic,
    /// A signal.
    Signal(i32),
}

impl Decode for RemoteFailure {
    fn read(from: &mut Reader<'_>) -> RemoteFailure {
        match from.variant(3) {
            0 => RemoteFailure::Error,
            1 => RemoteFailure::Panic,
            _ => RemoteFailure::Signal(Decode::read(from)),
        }
    }
}

/// The kinds of failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureKind {
    /// A connect failed in this stage for a reason that has no kind of its own.
    Connect(ConnectStage),
    /// A stage of a connect took too long.
    StageTimeout(ConnectStage),
    /// A login was refused.
    Auth(AuthFailure),
    /// A host key was not accepted.
    HostKey(HostKeyFailure),
    /// There is no such context, or there is no longer.
    NoRoute,
    /// The context was lost while its answer was awaited.
    PeerLost(LostReason),
    /// The answer did not come in time.
    Timeout,
    /// The requester cancelled it.
    Cancelled,
    /// The requester may not ask this.
    Denied,
    /// Something exceeds a limit, which the message names.
    TooLarge,
    /// A limit on how many is reached; later it may work.
    Busy,
    /// The machine ran out of something.
    Exhausted(Resource),
    /// No place on the target can hold an executable file; the message lists what was tried.
    NoExec,
    /// No agent is at hand for this target triple.
    NoAgent(#[serde(deserialize_with = "bounds::name")] String),
    /// Code that ran on the other side failed.
    Remote(RemoteFailure),
    /// The verb, or something in the request, is not known there.
    Unsupported,
    /// The request cannot be understood.
    Malformed,
    /// An operating-system error; the number is the target's errno.
    Os(i32),
    /// No image of the program is at hand for this target triple.
    NoImage(#[serde(deserialize_with = "bounds::name")] String),
    /// What came under a hash is something else; this context sent it.
    Damaged(Address),
}

impl Decode for FailureKind {
    fn read(from: &mut Reader<'_>) -> FailureKind {
        match from.variant(20) {
            0 => FailureKind::Connect(Decode::read(from)),
            1 => FailureKind::StageTimeout(Decode::read(from)),
            2 => FailureKind::Auth(Decode::read(from)),
            3 => FailureKind::HostKey(Decode::read(from)),
            4 => FailureKind::NoRoute,
            5 => FailureKind::PeerLost(Decode::read(from)),
            6 => FailureKind::Timeout,
            7 => FailureKind::Cancelled,
            8 => FailureKind::Denied,
            9 => FailureKind::TooLarge,
            10 => FailureKind::Busy,
            11 => FailureKind::Exhausted(Decode::read(from)),
            12 => FailureKind::NoExec,
            13 => FailureKind::NoAgent(from.name()),
            14 => FailureKind::Remote(Decode::read(from)),
            15 => FailureKind::Unsupported,
            16 => FailureKind::Malformed,
            17 => FailureKind::Os(Decode::read(from)),
            18 => FailureKind::NoImage(from.name()),
            _ => FailureKind::Damaged(Decode::read(from)),
        }
    }
}

/// A failure, as it crosses the tree.
///
/// Dereferences to its [`Report`], whose fields can be read and changed. One pointer in size, so that a
/// `Result<_, Failure>` costs the way without a failure nothing.
///
/// # Examples
///
/// ```
/// use offshoot_wire::{Failure, FailureKind, Ran};
/// let failure = Failure::new(FailureKind::Timeout, "no answer came").ran(Ran::MaybeExecuted);
/// assert_eq!((&failure.kind, &*failure.message), (&FailureKind::Timeout, "no answer came"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure(Box<Report>);

impl Decode for Failure {
    fn read(from: &mut Reader<'_>) -> Failure {
        Report::read(from).into()
    }
}

impl std::ops::Deref for Failure {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl std::ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Failure {
        Failure(Box::new(report))
    }
}

/// What a [`Failure`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// What kind.
    pub kind: FailureKind,
    /// Whether the work ran.
    pub ran: Ran,
    /// The context that reports it; for [`FailureKind::PeerLost`] the top of what was lost.
    pub at: Address,
    /// One sentence, lower case, without a full stop.
    #[serde(deserialize_with = "bounds::message")]
    pub message: String,
    /// The last text that was received, as bytes; empty when there is none.
    #[serde(with = "bounds::seen")]
    pub seen: Vec<u8>,
    /// What to do next; empty when there is no advice.
    #[serde(deserialize_with = "bounds::message")]
    pub hint: String,
    /// Of a connect that failed on the way: its stages up to the one that failed, in order, with the microseconds from
    /// its start to the end of each.
    #[serde(deserialize_with = "bounds::stages")]
    pub stages: Vec<(ConnectStage, u32)>,
}

read_fields!(Report {
    kind,
    ran,
    at,
    message = Reader::message,
    seen = Reader::seen,
    hint = Reader::message,
    stages = Reader::stages,
});

impl Failure {
    /// A failure of `kind` with a message; at the root, not sent, nothing seen, no hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        let mut message = message.into();
        cut(&mut message);
        let (seen, hint, stages) = (Vec::new(), String::new(), Vec::new());
        Report { kind, ran: Ran::NotSent, at: Address::ROOT, message, seen, hint, stages }.into()
    }

    /// The same, with whether the work ran.
    #[must_use]
    pub fn ran(mut self, ran: Ran) -> Failure {
        self.ran = ran;
        self
    }

    /// The same, reported by `at`.
    #[must_use]
    pub fn at(mut self, at: Address) -> Failure {
        self.at = at;
        self
    }

    /// The same, with the tail of what was received; cut to the last [`Limits::SEEN`](crate::Limits::SEEN) bytes.
    #[must_use]
    pub fn seen(mut self, seen: &[u8]) -> Failure {
        self.seen = seen[seen.len().saturating_sub(crate::Limits::SEEN)..].to_vec();
        self
    }

    /// The same, with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        cut(&mut self.hint);
        self
    }
}

/// Cuts text to [`Limits::MESSAGE`](crate::Limits::MESSAGE) bytes at a character border, with a mark.
fn cut(text: &mut String) {
    const MARK: &str = " […]";
    if text.len() > crate::Limits::MESSAGE {
        let mut end = crate::Limits::MESSAGE - MARK.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(MARK);
    }
}
