//! The bodies of frames and of the verbs' requests and replies.

use serde::{Deserialize, Serialize};

use crate::reader::{Decode, Reader, read_fields, read_variants};
use crate::{Address, ChildHello, ConnectStage, ContentStats, DecodeError, Grant, LostReason, Recipe, Verb, bounds};

/// The channel numbers of an [`Verb::Exec`] exchange; other verbs number theirs alike.
pub mod channel {
    /// From the requester: what the process reads.
    pub const STDIN: u8 = 0;
    /// To the requester: what the process writes.
    pub const STDOUT: u8 = 1;
    /// To the requester: what the process writes to its error output.
    pub const STDERR: u8 = 2;
    /// From the requester: [`ExecControl`](crate::ExecControl) messages, of a connect [`Answer`](crate::Answer)s, one per
    /// `Data` frame.
    pub const CONTROL: u8 = 3;
    /// To the requester of a connect: [`Question`](crate::Question)s, one per `Data` frame.
    pub const QUESTION: u8 = 4;
}

/// The head of a request's body; the verb's own body follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RequestHead {
    /// The verb's number. Kept a number: one that is not known ends this request, not the link.
    pub verb: u16,
    /// How many bytes the answering side may send on each channel before any [`Credit`].
    pub window: u32,
    /// The grant by which the requester asks, if it needs one.
    ///
    /// Last, so that a relay reads what it needs ([`RequestHead::peek`]) without decoding it.
    pub grant: Option<Grant>,
}

read_fields!(RequestHead { verb, window, grant });

impl RequestHead {
    /// Splits a request's body into its head and the verb's own body.
    ///
    /// # Errors
    /// [`DecodeError`] when the head is malformed.
    pub fn split(body: &[u8]) -> Result<(RequestHead, &[u8]), DecodeError> {
        crate::codec::split(body)
    }

    /// What a relay needs of a request's head: the verb's number, the window, and whether a grant is attached.
    ///
    /// # Errors
    /// [`DecodeError`] when the head is malformed that far.
    pub fn peek(body: &[u8]) -> Result<(u16, u32, bool), DecodeError> {
        let ((verb, window, grant), _) = crate::codec::split::<(u16, u32, bool)>(body)?;
        Ok((verb, window, grant))
    }

    /// The verb; `None` when the number is not known here.
    pub fn verb(&self) -> Option<Verb> {
        Verb::from_number(self.verb)
    }
}

/// More may be sent on a channel. Totals, not increments: a repeated or reordered credit does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Credit {
    /// The channel.
    pub channel: u8,
    /// How many bytes in all may have been sent on it since the exchange began.
    pub total: u64,
}

read_fields!(Credit { channel, total });

/// Why a channel ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum EndReason {
    /// All was sent.
    Done,
    /// The sender could not go on, for this reason.
    Failed(String),
}

impl Decode for EndReason {
    fn read(from: &mut Reader<'_>) -> EndReason {
        match from.variant(2) {
            0 => EndReason::Done,
            _ => EndReason::Failed(Decode::read(from)),
        }
    }
}

/// The end of a channel, with how much it carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelEnd {
    /// The channel.
    pub channel: u8,
    /// How many bytes were sent on it in all.
    pub total: u64,
    /// Why it ended.
    pub reason: EndReason,
}

read_fields!(ChannelEnd { channel, total, reason });

/// A heartbeat and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ping {
    /// Chosen by the one who asks; sent back.
    pub seq: u64,
}

read_fields!(Ping { seq });

/// How many bytes of `Data` frames, heads included, were received on this link in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ack {
    /// The count.
    pub bulk: u64,
}

read_fields!(Ack { bulk });

/// A context ended, with all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The top of what ended.
    pub prefix: Address,
    /// Why.
    pub reason: LostReason,
}

read_fields!(Gone { prefix, reason });

/// Why this link is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bye {
    /// Why.
    pub reason: LostReason,
}

read_fields!(Bye { reason });

/// The parent wants the child to end in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShutdownNotice {
    /// How long processes have after TERM, in milliseconds.
    pub grace_ms: u32,
    /// How long they have after that until the rest is reported, in milliseconds.
    pub kill_ms: u32,
}

read_fields!(ShutdownNotice { grace_ms, kill_ms });

/// A change to the environment of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum EnvChange {
    /// Set a variable.
    Set(#[serde(serialize_with = "bounds::bytes")] Vec<u8>, #[serde(serialize_with = "bounds::bytes")] Vec<u8>),
    /// Remove a variable.
    Remove(#[serde(serialize_with = "bounds::bytes")] Vec<u8>),
    /// Remove all variables.
    Clear,
}

impl Decode for EnvChange {
    fn read(from: &mut Reader<'_>) -> EnvChange {
        match from.variant(3) {
            0 => EnvChange::Set(from.octets(), from.octets()),
            1 => EnvChange::Remove(from.octets()),
            _ => EnvChange::Clear,
        }
    }
}

/// Where a process's error output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum StderrMode {
    /// To its own channel.
    Apart,
    /// Into the output channel, in the order written.
    WithStdout,
    /// Nowhere.
    Null,
}

read_variants!(StderrMode { Apart, WithStdout, Null });

/// The size of a terminal in characters; zeros mean unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

read_fields!(TerminalSize { rows, columns });

/// The terminal that a process gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Terminal {
    /// Its size at the start.
    pub size: TerminalSize,
    /// What it understands: the variable `TERM`, left as it is when this is empty.
    #[serde(serialize_with = "bounds::bytes")]
    pub term: Vec<u8>,
}

read_fields!(Terminal { size, term = Reader::octets });

impl Terminal {
    /// A terminal of this size that understands what `term`, a name such as `xterm`, stands for.
    pub fn new(size: TerminalSize, term: impl Into<Vec<u8>>) -> Terminal {
        Terminal { size, term: term.into() }
    }
}

/// What [`Verb::Exec`] starts. Texts are bytes: the target's own, whatever their encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandSpec {
    /// The program: a path, or a name to look up in the target's `PATH`. Empty is the account's login shell, started as
    /// a login does.
    #[serde(serialize_with = "bounds::bytes")]
    pub program: Vec<u8>,
    /// The arguments after the program's name.
    #[serde(serialize_with = "bounds::byte_strings")]
    pub args: Vec<Vec<u8>>,
    /// Changes to the login's environment, in order.
    pub env: Vec<EnvChange>,
    /// The folder to start in; the login's home when there is none.
    #[serde(serialize_with = "bounds::maybe_bytes")]
    pub cwd: Option<Vec<u8>>,
    /// Whether stdin comes from [`channel::STDIN`]; else it is `/dev/null`.
    pub stdin: bool,
    /// Whether stdout goes to [`channel::STDOUT`]; else it is `/dev/null`.
    pub stdout: bool,
    /// Where stderr goes.
    pub stderr: StderrMode,
    /// When to end it: TERM to its whole tree, then KILL after [`CommandSpec::grace_ms`]. Milliseconds; 0 is never.
    pub timeout_ms: u64,
    /// How long it has after TERM, in milliseconds.
    pub grace_ms: u32,
    /// Added to the scheduling priority number (`nice`).
    pub nice: i32,
    /// A terminal of its own, which then is its input, output and error output, and what controls its session; `stdin`
    /// says whether anything is typed there, `stdout` and `stderr` mean nothing. Its output comes on
    /// [`channel::STDOUT`].
    pub terminal: Option<Terminal>,
}

read_fields!(CommandSpec {
    program = Reader::octets,
    args = Reader::octet_strings,
    env = Reader::list,
    cwd = Reader::maybe_octets,
    stdin,
    stdout,
    stderr,
    timeout_ms,
    grace_ms,
    nice,
    terminal,
});

/// What can be done to a process that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum ExecControl {
    /// Sends a signal to the process and its process group; with a terminal to the group in its foreground.
    Signal(i32),
    /// Ends the process and all it started: TERM, then KILL after the grace. With a terminal HUP goes ahead, since
    /// interactive shells ignore TERM.
    Kill,
    /// Gives its terminal another size; nothing without one.
    Resize(TerminalSize),
}

impl Decode for ExecControl {
    fn read(from: &mut Reader<'_>) -> ExecControl {
        match from.variant(3) {
            0 => ExecControl::Signal(Decode::read(from)),
            1 => ExecControl::Kill,
            _ => ExecControl::Resize(Decode::read(from)),
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProcessExit {
    /// It exited with this status, 0 to 255.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
}

impl Decode for ProcessExit {
    fn read(from: &mut Reader<'_>) -> ProcessExit {
        match from.variant(2) {
            0 => ProcessExit::Exited(Decode::read(from)),
            _ => ProcessExit::Signalled(Decode::read(from)),
        }
    }
}

/// The reply of [`Verb::Exec`]: the last thing of the exchange, behind the last output byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExecReply {
    /// How the process ended.
    pub exit: ProcessExit,
    /// Whether it was ended because [`CommandSpec::timeout_ms`] had passed.
    pub timed_out: bool,
}

read_fields!(ExecReply { exit, timed_out });

/// What [`Verb::Connect`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectSpec {
    /// The way to the new context.
    pub recipe: Recipe,
    /// Its name; the recipe's default when there is none.
    pub name: Option<String>,
    /// What its process is called in `ps`.
    pub process_name: String,
    /// Whether the requester answers questions: without it a login that asks any fails.
    pub answers: bool,
}

read_fields!(ConnectSpec { recipe, name = Reader::maybe_name, process_name = Reader::name, answers });

/// The reply of [`Verb::Connect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectReply {
    /// The new context's address.
    pub address: Address,
    /// Its name.
    pub name: String,
    /// What it said of itself.
    pub hello: ChildHello,
    /// The stages of the connect, in order, with the microseconds from its start to the end of each. Empty where a
    /// context is only listed ([`NodeInfo::children`]).
    pub stages: Vec<(ConnectStage, u32)>,
}

read_fields!(ConnectReply { address, name = Reader::name, hello = ChildHello::checked, stages = Reader::stages });

/// The reply of [`Verb::Info`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// The context's address.
    pub address: Address,
    /// Its name.
    pub name: String,
    /// What it said of itself at its start.
    pub hello: ChildHello,
    /// The contexts directly below it.
    pub children: Vec<ConnectReply>,
    /// Processes that run for requests.
    pub processes: u32,
    /// Bytes received from and sent to the parent.
    pub link_bytes: (u64, u64),
    /// What it forwarded.
    pub contents: ContentStats,
}

read_fields!(NodeInfo {
    address,
    name = Reader::name,
    hello = ChildHello::checked,
    children = Reader::list,
    processes,
    link_bytes,
    contents,
});
