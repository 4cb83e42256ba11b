//! What the core hands to its owner, and what it wants of it.

use std::fmt;

use bytes::Bytes;
use offshoot_wire::{Address, Authority, EndReason, Failure, LostReason, ShutdownNotice, Verb};

/// A link of a node. Never reused while the node lives, although its slot is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl LinkId {
    /// Stands for this node itself where a link is expected.
    pub(crate) const LOCAL: LinkId = LinkId { index: u32::MAX, generation: 0 };

    /// The slot, dense from 0: for the owner's own tables.
    pub fn index(self) -> usize {
        self.index as usize
    }

    pub(crate) fn is_local(self) -> bool {
        self == LinkId::LOCAL
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_local() { f.write_str("local") } else { write!(f, "link {}.{}", self.index, self.generation) }
    }
}

/// An exchange that this node asked or serves. Never reused: one that has ended names nothing, and every call with it
/// does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(pub(crate) u64);

impl fmt::Debug for ExchangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange {:#x}", self.0)
    }
}

/// Where the bytes of a link go.
pub trait Transmit {
    /// Takes a few bytes, to be copied into the owner's buffer.
    fn small(&mut self, bytes: &[u8]);
    /// Takes many bytes, to be queued behind the small ones without copying.
    fn large(&mut self, bytes: Bytes);
}

impl Transmit for Vec<u8> {
    fn small(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn large(&mut self, bytes: Bytes) {
        self.extend_from_slice(&bytes);
    }
}

/// What happened. Events come in causal order: the `Done` of an exchange after all its data that arrived before the
/// answer, the `Gone` of a context after the `Done` of what was asked of it.
///
/// When the application ends an exchange itself, events of it that were queued before are still given: they are to be
/// ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone asks this context. The policy has been applied already: what the authority does not open was refused.
    Request {
        /// The exchange: answered with [`Node::reply`](crate::Node::reply) or [`Node::fail`](crate::Node::fail).
        id: ExchangeId,
        /// What is asked.
        verb: Verb,
        /// By what right.
        authority: Authority,
        /// When the right is a grant that is bound to one handle, that handle: nothing else may be touched.
        handle: Option<u64>,
        /// Who asks.
        from: Address,
        /// The verb's own body.
        body: Bytes,
    },
    /// An exchange that this context asked has ended: exactly once for each, unless it was cancelled. Data of it that is
    /// not read any more is given up with [`Node::cancel`](crate::Node::cancel).
    Done {
        /// The exchange.
        id: ExchangeId,
        /// The answer. In a `PeerLost` failure `at` is the top of what was lost, as far as is known where it was noticed: the
        /// context that was asked, or the one above it that took it along; when the way up is lost, the parent.
        result: Result<Bytes, Failure>,
    },
    /// Bytes arrived on a channel. Say [`Node::consumed`](crate::Node::consumed) when they have been used.
    Data {
        /// The exchange.
        id: ExchangeId,
        /// The channel.
        channel: u8,
        /// The bytes; on [`channel::CONTROL`](offshoot_wire::channel::CONTROL) exactly one message.
        data: Bytes,
    },
    /// The writer of a channel has ended it.
    End {
        /// The exchange.
        id: ExchangeId,
        /// The channel.
        channel: u8,
        /// Why.
        reason: EndReason,
    },
    /// A channel that took less than was offered takes more now.
    Writable {
        /// The exchange.
        id: ExchangeId,
        /// The channel.
        channel: u8,
    },
    /// The reader of a channel wants no more of it; what is sent from now on is thrown away.
    Stopped {
        /// The exchange.
        id: ExchangeId,
        /// The channel.
        channel: u8,
    },
    /// A served exchange lost its requester, or its grant: no answer is awaited, the id is dead.
    Cancelled {
        /// The exchange.
        id: ExchangeId,
    },
    /// A direct child is lost, with all below it.
    ChildGone {
        /// Its link.
        link: LinkId,
        /// Its address.
        prefix: Address,
        /// Why.
        reason: LostReason,
    },
    /// A context further below is lost, with all below it.
    Gone {
        /// Its address.
        prefix: Address,
        /// Why, as its parent says.
        reason: LostReason,
    },
    /// The link to the parent is lost: this context should end.
    ParentLost {
        /// Why.
        reason: LostReason,
    },
    /// The owner is to close this link: write what [`Node::poll_transmit`](crate::Node::poll_transmit) still has (a last
    /// word with the reason), close the descriptor, then say [`Node::link_down`](crate::Node::link_down).
    CloseLink {
        /// The link.
        link: LinkId,
        /// Why.
        reason: LostReason,
    },
    /// The parent asks for an orderly end.
    ShutdownRequested(ShutdownNotice),
    /// A link that refused a request for want of room has room again, or has ended.
    Room {
        /// The link.
        link: LinkId,
    },
    /// Down to which level log records are wanted from now on, as the parent says.
    LogLevel(u8),
    /// A log record, at the root.
    Log {
        /// Who sent it, as the path that it came says.
        from: Address,
        /// The record, as sent: to be checked and escaped by the receiver (S8).
        body: Bytes,
    },
}

/// What a link did so far. Bytes include the heads of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Bytes received in whole frames.
    pub bytes_in: u64,
    /// Bytes handed out for sending.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames handed out for sending.
    pub frames_out: u64,
    /// The smallest heartbeat round trip of the last minute or so, in microseconds.
    pub rtt_us: Option<u64>,
    /// How much bulk may be in flight, in bytes.
    pub bulk_limit: u64,
    /// How much is.
    pub bulk_in_flight: u64,
    /// Bytes waiting to be sent: requests, answers and stream data.
    pub queued: u64,
    /// Frames that named no exchange, or not theirs, and were dropped.
    pub strays: u64,
    /// Frames from a child that claimed the mark.
    pub claimed_marks: u64,
    /// Requests of this link that were refused.
    pub refused: u64,
    /// Log records dropped.
    pub logs_dropped: u64,
    /// Exchanges that the contexts behind this link asked and that are not over here.
    pub exchanges: u64,
    /// Bytes received in `Data` frames, heads included.
    pub bulk_in: u64,
}

/// What a node holds at one moment: for dumps, and for tests, after which all of it but links is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Exchanges asked, served and passed, those that are over and still drain included.
    pub exchanges: usize,
    /// Those that are not over.
    pub open: usize,
    /// Those that this context asked, until their last frame has left.
    pub asked: usize,
    /// Frames that wait.
    pub frames: usize,
    /// Pairs of an origin and a link with frames waiting.
    pub flows_of_links: usize,
    /// Contexts behind links that take part in exchanges.
    pub peers: usize,
    /// Links, those being connected and those being closed included.
    pub links: usize,
    /// Bytes that wait, with what frames cost.
    pub queued: u64,
    /// Bytes of stream data that readers behind links were granted and that have not come.
    pub promised: u64,
    /// Bytes of requests and answers that are charged to the links that they came from.
    pub charged: u64,
    /// Bytes of the requests that this context asked and heard nothing of yet, with what frames cost.
    pub unheard: u64,
    /// The sum of the windows that this context grants as a reader.
    pub granted: u64,
    /// Credits held back.
    pub held: usize,
    /// Refusals and notices that wait.
    pub notices: usize,
    /// Events not polled yet.
    pub events: usize,
}
