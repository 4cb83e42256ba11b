//! Taking what comes: from a source above, or from the owner.

use bytes::Bytes;

use super::serve::HEAD;
use super::{Entry, Fetch, Forwarder, Origin, Part, State};
use crate::content::Partial;
use crate::{ContentHash, Event, FetchId, Outcome, Refusal};

/// How many sources are asked for a content, one after the other: the first, and one elsewhere.
const SOURCES: usize = 2;

impl<X: Copy + Ord, L: Copy + Ord> Forwarder<X, L> {
    /// Bytes of a stream that was [asked](Event::Ask) for came, or of a promised content that is to be
    /// [loaded](Event::Load), whose stream has no length at its front. Their credit is given back as they are
    /// [stored](Event::Stored).
    pub fn arrived(&mut self, fetch: FetchId, bytes: Bytes) {
        let Some(hash) = self.fetches.get(&fetch).copied() else { return };
        let Some(coming) = self.coming(&hash) else { return };
        let from = coming.from.as_ref().map(|(link, _)| *link);
        let mut rest = bytes.clone();
        match &mut coming.part {
            Part::Head(head, have) => {
                let taken = rest.split_to(rest.len().min(HEAD as usize - *have));
                head[*have..*have + taken.len()].copy_from_slice(&taken);
                *have += taken.len();
                if *have == HEAD as usize {
                    let length = u64::from_le_bytes(*head);
                    let came = if rest.is_empty() { Vec::new() } else { vec![rest] };
                    coming.part = Part::Waiting { length, came, ended: false };
                    self.events.push_back(Event::Stored { fetch, bytes: taken.len() });
                    if length > self.config.largest {
                        self.broken(hash, Refusal::TooLarge);
                    } else {
                        self.room.push_back(fetch);
                    }
                } else {
                    self.events.push_back(Event::Stored { fetch, bytes: taken.len() });
                }
            }
            Part::Waiting { came, .. } => came.push(rest),
            Part::Stored(_) => {
                self.store(hash, &rest);
            }
        }
        if let Some(link) = from {
            self.link(link).bytes_in += bytes.len() as u64;
        }
        self.admit();
    }

    /// Whether more of a fetch is wanted: it was not [dropped](Event::Drop), has not ended, and nothing failed.
    pub fn wants(&self, fetch: FetchId) -> bool {
        self.fetches.get(&fetch).is_some()
    }

    /// The exchange of a fetch ended, behind all its bytes, or could not be begun.
    pub fn finished(&mut self, fetch: FetchId, outcome: Outcome) {
        let Some(hash) = self.fetches.get(&fetch).copied() else { return };
        let Some(coming) = self.coming(&hash) else { return };
        match (outcome, &mut coming.part) {
            (Err(refusal), _) => self.refuse(hash, refusal),
            (Ok(()), Part::Waiting { ended, .. }) => *ended = true,
            (Ok(()), Part::Stored(_)) => self.complete(hash),
            (Ok(()), Part::Head(..)) => self.damaged(hash),
        }
        self.admit();
    }

    fn coming(&mut self, hash: &ContentHash) -> Option<&mut Fetch<L>> {
        match self.entries.get_mut(hash) {
            Some(Entry { state: State::Coming(fetch), .. }) => Some(fetch),
            _ => None,
        }
    }

    /// Asks the owner for what it promised, else a source that was not asked yet; `false` when there is none left.
    pub(super) fn begin(&mut self, hash: ContentHash) -> bool {
        let id = FetchId(self.name());
        let Some(entry) = self.entries.get_mut(&hash) else { return false };
        let (from, part) = match entry.origin {
            Origin::Promised(length) => {
                self.room.push_back(id);
                (None, Part::Waiting { length, came: Vec::new(), ended: false })
            }
            Origin::Above if entry.tried.len() < SOURCES => {
                let untried = |(link, _): &&(L, _)| !entry.tried.contains(link);
                let Some((link, address)) = self.sources.iter().find(untried).cloned() else { return false };
                entry.tried.push(link);
                self.events.push_back(Event::Ask { fetch: id, link, hash });
                self.links.or_insert_with(link, Default::default).asked += 1;
                (Some((link, address)), Part::Head([0; HEAD as usize], 0))
            }
            Origin::Above | Origin::Registered | Origin::Withdrawn => return false,
        };
        entry.state = State::Coming(Fetch { id, from, part });
        self.fetches.insert(id, hash);
        self.stats.fetches += 1;
        true
    }

    /// There is room for what waited.
    pub(super) fn resume(&mut self, hash: ContentHash) {
        let Some(coming) = self.coming(&hash) else { return };
        let Part::Waiting { length, came, ended } = &mut coming.part else { return };
        let (length, came, ended) = (*length, std::mem::take(came), *ended);
        coming.part = Part::Stored(Partial::new(length));
        if coming.from.is_none() {
            let fetch = coming.id;
            self.events.push_back(Event::Load { fetch, hash });
            return;
        }
        self.wake(&hash);
        if came.iter().all(|bytes| self.store(hash, bytes)) && ended {
            self.complete(hash);
        }
    }

    /// Stores what came and has it handed on; `false` when it is too much.
    fn store(&mut self, hash: ContentHash, bytes: &[u8]) -> bool {
        let Some(Fetch { id, part: Part::Stored(partial), .. }) = self.coming(&hash) else { return false };
        let (fetch, fits) = (*id, partial.push(bytes));
        if fits {
            self.events.push_back(Event::Stored { fetch, bytes: bytes.len() });
            self.wake(&hash);
        } else {
            self.events.push_back(Event::Drop { fetch });
            self.damaged(hash);
        }
        fits
    }

    /// All has come: it is checked.
    fn complete(&mut self, hash: ContentHash) {
        let Some(entry) = self.entries.get_mut(&hash) else { return };
        let State::Coming(fetch) = &mut entry.state else { return };
        let Part::Stored(partial) = std::mem::replace(&mut fetch.part, Part::Head([0; 8], 0)) else { return };
        match partial.finish(&hash) {
            Some(content) => {
                let id = fetch.id;
                self.fetches.remove(&id);
                self.stats.fetched += 1;
                self.here(hash, content);
            }
            None => self.damaged(hash),
        }
    }

    /// What came is not what the hash says.
    fn damaged(&mut self, hash: ContentHash) {
        let own = self.own.clone();
        let Some(coming) = self.coming(&hash) else { return };
        let (link, by) = match &coming.from {
            Some((link, address)) => (Some(*link), address.clone()),
            None => (None, own),
        };
        self.stats.damaged += 1;
        self.events.push_back(Event::Damaged { link, hash });
        self.refuse(hash, Refusal::Damaged(by));
    }

    /// A source sends what is not taken.
    fn broken(&mut self, hash: ContentHash, refusal: Refusal) {
        if let Some(coming) = self.coming(&hash) {
            let fetch = coming.id;
            self.events.push_back(Event::Drop { fetch });
            self.refuse(hash, refusal);
        }
    }

    /// A fetch ended without the content: those who have some of it already are told so; for the others it is asked for
    /// elsewhere, once. What its owner could not load just now is still promised, to those who ask from now on.
    pub(super) fn refuse(&mut self, hash: ContentHash, refusal: Refusal) {
        let own = self.coming(&hash).is_some_and(|coming| coming.from.is_none());
        let later = own && matches!(refusal, Refusal::Busy | Refusal::Lost);
        self.end_fetch(&hash);
        if let Some(entry) = self.entries.get_mut(&hash)
            && own
            && !later
            && entry.origin != Origin::Withdrawn
        {
            // A promise that was not kept.
            entry.origin = Origin::Above;
        }
        self.refuse_served(&hash, &refusal, true);
        if !later && self.is_wanted(&hash) && self.begin(hash) {
            return;
        }
        self.refuse_served(&hash, &refusal, false);
        if let Some(entry) = self.entries.get_mut(&hash) {
            // Who asks from now on asks anew.
            entry.tried.clear();
            if std::mem::take(&mut entry.needs) > 0 {
                self.events.push_back(Event::Failed { hash, refusal: refusal.clone() });
            }
        }
        self.tidy(&hash);
    }

    /// Has a content come no longer, for whatever reason, and tells the owner.
    pub(super) fn stop_fetch(&mut self, hash: &ContentHash) {
        if let Some(coming) = self.coming(hash) {
            let fetch = coming.id;
            self.end_fetch(hash);
            self.events.push_back(Event::Drop { fetch });
        }
    }

    /// Forgets what came of a content, and gives its room back.
    fn end_fetch(&mut self, hash: &ContentHash) {
        let Some(entry) = self.entries.get_mut(hash) else { return };
        let State::Coming(fetch) = &entry.state else { return };
        self.fetches.remove(&fetch.id);
        self.room.retain(|waiting| *waiting != fetch.id);
        self.kept -= std::mem::take(&mut entry.counted);
        entry.state = State::Absent;
    }
}
