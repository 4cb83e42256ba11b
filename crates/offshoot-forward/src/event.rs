//! What a forwarder wants of its owner.

use std::fmt;

use offshoot_wire::Address;

use crate::{Content, ContentHash};

/// A content on its way here. Never reused: one that has ended names nothing, and every call with it does nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub(crate) u64);

/// How an exchange for a content ends.
pub type Outcome = Result<(), Refusal>;

/// Why a content did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It was never registered, here or above.
    Unknown,
    /// What this context sent is not what the hash says, as the context that noticed it reports. Dropped everywhere.
    Damaged(Address),
    /// It exceeds what a context on the way keeps.
    TooLarge,
    /// Too much is asked for at once; later it may work.
    Busy,
    /// The way to it was lost.
    Lost,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Unknown => "no context above serves it",
            Refusal::Damaged(by) => return write!(f, "{by} sent something else under its name"),
            Refusal::TooLarge => "it is larger than a context on the way keeps",
            Refusal::Busy => "too much is asked for at once",
            Refusal::Lost => "the way to it was lost",
        })
    }
}

/// What the owner is to do, in this order. Events that concern what the owner has ended itself meanwhile are to be
/// ignored; a call with their name does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<X, L> {
    /// Ask by this link for a content. What comes goes to [`arrived`](crate::Forwarder::arrived), the end to
    /// [`finished`](crate::Forwarder::finished), which is also told when it cannot be asked.
    Ask {
        /// The name of what comes.
        fetch: FetchId,
        /// The link of the source.
        link: L,
        /// What is wanted.
        hash: ContentHash,
    },
    /// Load what was promised: give its bytes to [`arrived`](crate::Forwarder::arrived) and its end, or why it cannot be
    /// loaded, to [`finished`](crate::Forwarder::finished). After [`Busy`](Refusal::Busy) and [`Lost`](Refusal::Lost) it is
    /// still promised to those who ask later; what turns out to be something else is promised no longer.
    Load {
        /// The name of what comes.
        fetch: FetchId,
        /// What is wanted.
        hash: ContentHash,
    },
    /// Nobody wants this any more, or it breaks the rules: cancel the exchange, or stop loading.
    Drop {
        /// What was on its way.
        fetch: FetchId,
    },
    /// So many bytes of a stream are stored: their credit may be given back.
    Stored {
        /// What is on its way.
        fetch: FetchId,
        /// How many bytes.
        bytes: usize,
    },
    /// There are bytes for an exchange, as far as there is credit: see [`next`](crate::Forwarder::next).
    Send {
        /// The exchange.
        exchange: X,
    },
    /// An exchange is over, behind all its bytes: answer it.
    End {
        /// The exchange.
        exchange: X,
        /// How it ended.
        outcome: Outcome,
    },
    /// A content that is [needed](crate::Forwarder::need) here is whole and checked. Every need is to be
    /// [released](crate::Forwarder::release).
    Ready {
        /// Its name.
        hash: ContentHash,
        /// The content.
        content: Content,
    },
    /// A content that is needed here does not come. It is needed no longer, by any of those that waited.
    Failed {
        /// Its name.
        hash: ContentHash,
        /// Why.
        refusal: Refusal,
    },
    /// A source sent something else under a hash. For the log: those who wait are told by their own events.
    Damaged {
        /// The link that it came by; `None` when the owner itself loaded it.
        link: Option<L>,
        /// What it should have been.
        hash: ContentHash,
    },
}
