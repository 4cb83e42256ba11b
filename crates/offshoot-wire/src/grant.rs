//! Grants as data (R4). Sealing and checking them is the routing core's work.

use serde::Serialize;

use crate::reader::{Decode, Reader, read_fields};
use crate::{Address, Verb};

/// A set of verbs, one bit each by number. Verbs numbered 64 and up cannot be granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct VerbSet(u64);

impl Decode for VerbSet {
    fn read(from: &mut Reader<'_>) -> VerbSet {
        VerbSet(Decode::read(from))
    }
}

impl VerbSet {
    /// No verb.
    pub const NONE: VerbSet = VerbSet(0);

    /// The set with `verb` added.
    #[must_use]
    pub fn with(self, verb: Verb) -> VerbSet {
        VerbSet(self.0 | 1 << verb.number())
    }

    /// Whether `verb` is in the set.
    pub fn contains(self, verb: Verb) -> bool {
        self.0 & (1 << verb.number()) != 0
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: VerbSet) -> VerbSet {
        VerbSet(self.0 & other.0)
    }

    /// The bits, bit *n* for the verb numbered *n*.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether every verb of this set is in `other`.
    pub fn is_subset(self, other: VerbSet) -> bool {
        self.0 & !other.0 == 0
    }
}

impl FromIterator<Verb> for VerbSet {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> VerbSet {
        verbs.into_iter().fold(VerbSet::NONE, VerbSet::with)
    }
}

/// What a grant, or one hand-over of it, allows: to whom, for what, until when.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GrantLink {
    /// Who may use it, with everything below that address.
    pub holder: Address,
    /// The verbs it opens.
    pub verbs: VerbSet,
    /// The one handle it opens, when it is for a handle.
    pub handle: Option<u64>,
    /// When it ends, in milliseconds of the tree's clock (counted from the start of the root).
    pub expires_ms: u64,
}

read_fields!(GrantLink { holder, verbs, handle, expires_ms });

/// An unforgeable token: the target's permission for a holder to ask it something.
///
/// `links[0]` is what the target gave; each further link is a hand-over that narrows it, sealed with the seal before
/// it, so that passing on needs no round trip. Only the target and its ancestors can make or check the seal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Grant {
    /// The context it opens.
    pub target: Address,
    /// Its number at the target, by which it can be revoked.
    pub number: u64,
    /// The original permission and its hand-overs, at most [`Limits::GRANT_LINKS`](crate::Limits::GRANT_LINKS).
    pub links: Vec<GrantLink>,
    /// The HMAC-SHA256 over all of the above, chained.
    pub seal: [u8; 32],
}

read_fields!(Grant { target, number, links = Reader::grant_links, seal });

/// By what right a request arrives at the context it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// It came down from an ancestor: mark full.
    Full,
    /// It carries a grant that verified.
    Granted,
    /// It comes from a direct child, with neither.
    Child,
    /// Neither: anyone in the tree.
    None,
}
