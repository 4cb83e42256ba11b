//! The forwarder: what a context has, what is coming, and who waits.
//!
//! Here is the state and what the owner registers and needs; `serve.rs` answers those below, `fetch.rs` takes what
//! comes, `cache.rs` makes room.

mod cache;
mod fetch;
mod serve;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use offshoot_wire::Address;

use crate::content::Partial;
use crate::sorted::Sorted;
use crate::{Config, Content, ContentHash, Event, FetchId, LinkStats, Refusal, Stats};
use serve::Served;

/// One context's part in forwarding contents; the [crate's page](crate) says how it works.
///
/// `X` names an exchange that is served, `L` a link; both by whatever the owner uses. After any call the owner polls
/// [`poll_event`](Forwarder::poll_event) until there is none.
pub struct Forwarder<X, L> {
    own: Address,
    config: Config,
    /// Those above that are asked, in order of preference, with their addresses.
    sources: Vec<(L, Address)>,
    entries: Sorted<ContentHash, Entry<X, L>>,
    served: Sorted<X, Served<L>>,
    fetches: Sorted<FetchId, ContentHash>,
    /// What waits for room, longest first.
    room: VecDeque<FetchId>,
    links: Sorted<L, LinkStats>,
    /// What links carried that are no more.
    past: LinkStats,
    stats: Stats,
    kept: u64,
    /// Counts uses, to tell which was the last.
    uses: u64,
    names: u64,
    events: VecDeque<Event<X, L>>,
}

/// A content that is known here.
struct Entry<X, L> {
    state: State<L>,
    origin: Origin,
    /// How much of the budget it takes.
    counted: u64,
    serving: Vec<X>,
    /// How many wait for it here, and how many hold it.
    needs: u32,
    held: u32,
    /// The sources that were asked for it since it was last here.
    tried: Vec<L>,
    used: u64,
}

enum State<L> {
    Absent,
    Coming(Fetch<L>),
    Here(Content),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It comes from above.
    Above,
    /// The owner loads it when it is wanted; so many bytes.
    Promised(u64),
    /// The owner gave it.
    Registered,
    /// The owner took it back: it ends with those who have it already.
    Withdrawn,
}

struct Fetch<L> {
    id: FetchId,
    /// Whom it comes from; `None` for the owner.
    from: Option<(L, Address)>,
    part: Part,
}

enum Part {
    /// So much of the length has come.
    Head([u8; 8], usize),
    /// Its length is known and there is no room yet. What came waits, at most one window.
    Waiting { length: u64, came: Vec<Bytes>, ended: bool },
    /// It is being stored.
    Stored(Partial),
}

/// What a want found.
enum Found {
    Here,
    Coming,
    Asked,
    Nowhere,
}

impl<X, L> Entry<X, L> {
    fn new(origin: Origin) -> Entry<X, L> {
        Entry {
            state: State::Absent,
            origin,
            counted: 0,
            serving: Vec::new(),
            needs: 0,
            held: 0,
            tried: Vec::new(),
            used: 0,
        }
    }
}

impl<X: Copy + Ord, L: Copy + Ord> Forwarder<X, L> {
    /// A forwarder of the context at `own` that knows no content and no source.
    pub fn new(own: Address, config: Config) -> Forwarder<X, L> {
        Forwarder {
            own,
            config: Config { largest: config.largest.min(config.budget), ..config },
            sources: Vec::new(),
            entries: Sorted::new(),
            served: Sorted::new(),
            fetches: Sorted::new(),
            room: VecDeque::new(),
            links: Sorted::new(),
            past: LinkStats::default(),
            stats: Stats::default(),
            kept: 0,
            uses: 0,
            names: 0,
            events: VecDeque::new(),
        }
    }

    /// Adds a context above that is asked for what is not here, after those that were added before; `address` is named
    /// when it sends something else. An ordinary context has one: its parent.
    pub fn add_source(&mut self, link: L, address: Address) {
        self.sources.push((link, address));
    }

    // ---- what the owner serves ----

    /// Has a content served to whoever asks; yields its name. It stays until it is [withdrawn](Self::withdraw).
    pub fn register(&mut self, content: impl Into<Bytes>) -> ContentHash {
        let content: Bytes = content.into();
        let hash = ContentHash::of(&content);
        self.register_as(hash, content);
        hash
    }

    /// As [`register`](Self::register), for an owner that has computed the hash.
    pub fn register_as(&mut self, hash: ContentHash, content: Bytes) {
        self.stop_fetch(&hash);
        let entry = self.entries.or_insert_with(hash, || Entry::new(Origin::Registered));
        entry.origin = Origin::Registered;
        self.kept -= std::mem::take(&mut entry.counted);
        self.here(hash, Content::of(content));
        self.admit();
    }

    /// Has a content served that the owner loads when it is asked for. It takes room only while somebody wants it.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] for more than [`Config::largest`].
    pub fn promise(&mut self, hash: ContentHash, length: u64) -> Result<(), Refusal> {
        if length > self.config.largest {
            return Err(Refusal::TooLarge);
        }
        let origin = Origin::Promised(length);
        let entry = self.entries.or_insert_with(hash, || Entry::new(origin));
        if entry.origin != Origin::Registered {
            entry.origin = origin;
        }
        Ok(())
    }

    /// Has a content no longer served. Exchanges that are under way go on; who waits for it here fails, as whoever needs it
    /// from now on does.
    pub fn withdraw(&mut self, hash: &ContentHash) {
        if let Some(entry) = self.entries.get_mut(hash) {
            entry.origin = Origin::Withdrawn;
            if std::mem::take(&mut entry.needs) > 0 {
                self.events.push_back(Event::Failed { hash: *hash, refusal: Refusal::Unknown });
            }
            self.tidy(hash);
            self.admit();
        }
    }

    // ---- what the owner needs itself ----

    /// Needs a content here. Ends with [`Event::Ready`] or [`Event::Failed`], each once for all that wait for the same;
    /// [`Forwarder::release`] is due for every need that did not fail.
    pub fn need(&mut self, hash: ContentHash) {
        let found = self.want(hash);
        match (found, self.entries.get_mut(&hash)) {
            (Found::Here, Some(Entry { state: State::Here(content), held, .. })) => {
                *held += 1;
                self.events.push_back(Event::Ready { hash, content: content.clone() });
            }
            (Found::Coming | Found::Asked, Some(entry)) => entry.needs += 1,
            _ => self.events.push_back(Event::Failed { hash, refusal: Refusal::Unknown }),
        }
        self.admit();
    }

    /// Needs a content no longer, whether it came or not. It stays for others while there is room.
    pub fn release(&mut self, hash: &ContentHash) {
        let Some(entry) = self.entries.get_mut(hash) else { return };
        match entry.needs.checked_sub(1) {
            Some(needs) => entry.needs = needs,
            None => entry.held = entry.held.saturating_sub(1),
        }
        self.tidy(hash);
        self.admit();
    }

    /// A content that is here, whole and checked.
    pub fn content(&self, hash: &ContentHash) -> Option<&Content> {
        match self.entries.get(hash) {
            Some(Entry { state: State::Here(content), .. }) => Some(content),
            _ => None,
        }
    }

    /// Whether a content is here, whole and checked.
    pub fn has(&self, hash: &ContentHash) -> bool {
        matches!(self.entries.get(hash), Some(Entry { state: State::Here(_), .. }))
    }

    // ---- links and events ----

    /// A link is lost: nothing is served by it any more and what was on its way by it does not come.
    pub fn link_gone(&mut self, link: L) {
        self.sources.retain(|(source, _)| *source != link);
        let served: Vec<X> = self.served.iter().filter(|(_, served)| served.link == link).map(|(x, _)| *x).collect();
        for exchange in served {
            self.forget(exchange);
        }
        let by_it = |entry: &Entry<X, L>| match &entry.state {
            State::Coming(fetch) => fetch.from.as_ref().is_some_and(|(from, _)| *from == link),
            State::Absent | State::Here(_) => false,
        };
        let lost: Vec<ContentHash> = self.entries.iter().filter(|(_, e)| by_it(e)).map(|(hash, _)| *hash).collect();
        for hash in lost {
            self.refuse(hash, Refusal::Lost);
        }
        if let Some(stats) = self.links.remove(&link) {
            self.past += stats;
        }
        self.admit();
    }

    /// What the owner is to do next.
    pub fn poll_event(&mut self) -> Option<Event<X, L>> {
        self.events.pop_front()
    }

    /// What this context did so far, and what it holds.
    pub fn stats(&self) -> Stats {
        Stats {
            kept: self.kept,
            contents: self.entries.len(),
            serving: self.served.len(),
            coming: self.fetches.len(),
            waiting: self.room.len(),
            ..self.stats
        }
    }

    /// What a link carried so far.
    pub fn link_stats(&self, link: L) -> LinkStats {
        self.links.get(&link).copied().unwrap_or_default()
    }

    /// What all links carried so far, those that are lost included.
    pub fn totals(&self) -> LinkStats {
        self.links.values().fold(self.past, |mut sum, stats| {
            sum += *stats;
            sum
        })
    }

    // ---- for the parts ----

    fn link(&mut self, link: L) -> &mut LinkStats {
        self.links.or_insert_with(link, LinkStats::default)
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Whether anyone here or below waits for a content, or has it in use.
    fn is_wanted(&self, hash: &ContentHash) -> bool {
        self.entries.get(hash).is_some_and(|entry| entry.needs > 0 || entry.held > 0 || !entry.serving.is_empty())
    }

    /// Sees to it that a content is here or on its way.
    fn want(&mut self, hash: ContentHash) -> Found {
        match self.entries.get_mut(&hash) {
            Some(entry) if entry.origin == Origin::Withdrawn => return Found::Nowhere,
            Some(Entry { state: State::Here(_), used, .. }) => {
                self.uses += 1;
                *used = self.uses;
                return Found::Here;
            }
            Some(Entry { state: State::Coming(_), .. }) => return Found::Coming,
            Some(Entry { state: State::Absent, .. }) => {}
            None => {
                self.entries.insert(hash, Entry::new(Origin::Above));
            }
        }
        if self.begin(hash) {
            return Found::Asked;
        }
        self.tidy(&hash);
        Found::Nowhere
    }

    /// A content is whole and checked: those who wait get it.
    fn here(&mut self, hash: ContentHash, content: Content) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        self.uses += 1;
        entry.used = self.uses;
        entry.tried.clear();
        entry.state = State::Here(content.clone());
        if entry.needs > 0 {
            entry.held += std::mem::take(&mut entry.needs);
            self.events.push_back(Event::Ready { hash, content });
        }
        self.wake(&hash);
        self.tidy(&hash);
    }

    /// What nobody wants any more stops coming; what cannot be used again is forgotten.
    fn tidy(&mut self, hash: &ContentHash) {
        if self.is_wanted(hash) {
            return;
        }
        self.stop_fetch(hash);
        let Some(entry) = self.entries.get_mut(hash) else { return };
        entry.tried.clear();
        let useless = match entry.origin {
            Origin::Withdrawn => true,
            Origin::Above => matches!(entry.state, State::Absent),
            Origin::Promised(_) if matches!(entry.state, State::Here(_)) => {
                // It can be loaded again, and its owner's memory is for what cannot.
                entry.state = State::Absent;
                self.kept -= std::mem::take(&mut entry.counted);
                false
            }
            Origin::Promised(_) | Origin::Registered => false,
        };
        if useless {
            self.kept -= entry.counted;
            self.entries.remove(hash);
        }
    }
}

impl<X, L> fmt::Debug for Forwarder<X, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("own", &self.own).field("contents", &self.entries.len()).finish()
    }
}
