//! Answering those below: the exchanges that carry contents down.

use bytes::Bytes;

use super::{Forwarder, Found, Part, State};
use crate::{ContentHash, Event, Outcome, Refusal};

/// An exchange that carries a content down.
pub(super) struct Served<L> {
    pub(super) link: L,
    hash: ContentHash,
    /// How much of its stream was sent.
    at: u64,
    /// It was told that there is nothing to send, and is told when there is.
    idle: bool,
}

/// How many bytes of a stream are the content's length.
pub(super) const HEAD: u64 = 8;

impl<X: Copy + Ord, L: Copy + Ord> Forwarder<X, L> {
    /// A context below asks for a content. Ends with [`Event::End`], unless it is [given up](Self::give_up). The owner has
    /// checked that the asker may ask; `exchange` names nothing else.
    pub fn serve(&mut self, exchange: X, link: L, hash: ContentHash) {
        let most = self.config.serving;
        let stats = self.link(link);
        stats.requests += 1;
        let found = if stats.open >= most { Err(Refusal::Busy) } else { Ok(()) };
        let found = found.and_then(|()| match self.want(hash) {
            Found::Nowhere => Err(Refusal::Unknown),
            found => Ok(found),
        });
        match found {
            Err(refusal) => {
                self.link(link).refused += 1;
                self.events.push_back(Event::End { exchange, outcome: Err(refusal) });
            }
            Ok(found) => {
                let stats = self.link(link);
                stats.open += 1;
                match found {
                    Found::Here => stats.hits += 1,
                    Found::Coming => stats.joined += 1,
                    Found::Asked | Found::Nowhere => {}
                }
                if let Some(entry) = self.entries.get_mut(&hash) {
                    entry.serving.push(exchange);
                }
                self.served.insert(exchange, Served { link, hash, at: 0, idle: true });
                if self.has_some(&hash) {
                    self.wake(&hash);
                }
            }
        }
        self.admit();
    }

    /// The next bytes of an exchange's stream, at most 64 KiB; the same again until some were [sent](Self::sent). Asked
    /// while there is credit, and until there is none: that all were sent is noticed here.
    pub fn next(&mut self, exchange: X) -> Option<Bytes> {
        let served = self.served.get_mut(&exchange)?;
        let entry = self.entries.get(&served.hash)?;
        let at = served.at;
        let stream = |length: u64, slice: &dyn Fn(u64) -> Bytes| match at.checked_sub(HEAD) {
            Some(at) => slice(at),
            None => Bytes::copy_from_slice(&length.to_le_bytes()[at as usize..]),
        };
        let (bytes, whole) = match &entry.state {
            State::Here(content) => (stream(content.length(), &|at| content.slice(at)), true),
            State::Coming(fetch) => match &fetch.part {
                Part::Stored(partial) => (stream(partial.length(), &|at| partial.slice(at)), false),
                _ => (Bytes::new(), false),
            },
            State::Absent => (Bytes::new(), false),
        };
        if !bytes.is_empty() {
            return Some(bytes);
        }
        if whole {
            self.end(exchange, Ok(()));
            self.admit();
        } else {
            served.idle = true;
        }
        None
    }

    /// So many bytes of what [`next`](Self::next) gave were sent.
    pub fn sent(&mut self, exchange: X, bytes: usize) {
        if let Some(served) = self.served.get_mut(&exchange) {
            served.at += bytes as u64;
            let link = served.link;
            self.link(link).bytes_out += bytes as u64;
        }
    }

    /// The asker wants it no longer, or is lost.
    pub fn give_up(&mut self, exchange: X) {
        self.forget(exchange);
        self.admit();
    }

    /// Whether some of a content can be handed on.
    fn has_some(&self, hash: &ContentHash) -> bool {
        self.entries.get(hash).is_some_and(|entry| match &entry.state {
            State::Here(_) => true,
            State::Coming(fetch) => matches!(fetch.part, Part::Stored(_)),
            State::Absent => false,
        })
    }

    /// There is more of a content: those who have sent all that there was are told.
    pub(super) fn wake(&mut self, hash: &ContentHash) {
        let Some(entry) = self.entries.get(hash) else { return };
        for exchange in &entry.serving {
            if let Some(served) = self.served.get_mut(exchange)
                && std::mem::take(&mut served.idle)
            {
                self.events.push_back(Event::Send { exchange: *exchange });
            }
        }
    }

    /// Ends the exchanges of a content with a refusal: all, or only those that have bytes of it already.
    pub(super) fn refuse_served(&mut self, hash: &ContentHash, refusal: &Refusal, begun_only: bool) {
        let Some(entry) = self.entries.get(hash) else { return };
        let begun = |exchange: &&X| self.served.get(exchange).is_some_and(|served| served.at > 0);
        let over: Vec<X> = entry.serving.iter().filter(|x| !begun_only || begun(x)).copied().collect();
        for exchange in over {
            self.end(exchange, Err(refusal.clone()));
        }
    }

    fn end(&mut self, exchange: X, outcome: Outcome) {
        if let Some(link) = self.remove(exchange) {
            self.link(link).refused += u64::from(outcome.is_err());
            self.events.push_back(Event::End { exchange, outcome });
        }
    }

    pub(super) fn forget(&mut self, exchange: X) {
        self.remove(exchange);
    }

    /// Nothing more of an exchange; yields its link.
    fn remove(&mut self, exchange: X) -> Option<L> {
        let served = self.served.remove(&exchange)?;
        let stats = self.link(served.link);
        stats.open = stats.open.saturating_sub(1);
        if let Some(entry) = self.entries.get_mut(&served.hash) {
            entry.serving.retain(|other| *other != exchange);
        }
        self.tidy(&served.hash);
        Some(served.link)
    }
}
