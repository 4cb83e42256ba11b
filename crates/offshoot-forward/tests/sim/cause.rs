//! Why a content goes over a link again, is refused, or is waited for: each node's events against what came to it.
//!
//! This is kept beside the forwarders, from the messages alone, and knows what each content is. A refusal is checked where
//! it is uttered, so that those of a whole path hold by steps: an honest node passes on a refusal that it was given, or one
//! for bytes that were not the content's.

use std::collections::BTreeSet;

use bytes::Bytes;
use offshoot_forward::{ContentHash, Event, FetchId, Outcome, Refusal};

use super::{Lie, Message, Sim};

/// What came of a content since it was asked for the last time.
pub(super) struct Way {
    fetch: FetchId,
    source: usize,
    head: Vec<u8>,
    at: u64,
    /// Some of it was not the content's.
    wrong: bool,
    end: Option<Outcome>,
}

/// How a content's way over a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nobody wanted it any more.
    Dropped,
    /// The source refused it, was lost, or sent something else.
    Refused,
    /// It came whole, when the receiver had evicted so many.
    Whole(u64),
}

impl Sim {
    /// How long the stream of a content is; nothing of one that nobody has.
    fn length(&self, hash: &ContentHash) -> u64 {
        self.contents.get(hash).map_or(0, |content| 8 + content.len() as u64)
    }

    /// Whether a content's stream has these bytes there.
    fn has_there(&self, hash: &ContentHash, at: u64, bytes: &[u8]) -> bool {
        let Some(content) = self.contents.get(hash) else { return false };
        let (head, at) = ((content.len() as u64).to_le_bytes(), at as usize);
        let (first, rest) = bytes.split_at(bytes.len().min(8usize.saturating_sub(at)));
        let from = (at + first.len()).saturating_sub(8);
        (first.is_empty() || head[at..].starts_with(first))
            && content.get(from..).is_some_and(|content| content.starts_with(rest))
    }

    /// A message is about to be given to a node.
    pub(super) fn came(&mut self, to: usize, message: &Message) {
        match message {
            Message::Data { exchange, bytes } => self.came_data(to, *exchange, bytes),
            Message::Done { exchange, outcome } => {
                let (source, hash) = self.of[exchange];
                if !self.nodes[to].fetching.values().any(|(of, _)| of == exchange) {
                    return;
                }
                let length = self.length(&hash);
                let evictions = self.nodes[to].forwarder.stats().evictions;
                let way = self.nodes[to].ways.get_mut(&hash).expect("it was asked for");
                way.end = Some(outcome.clone());
                let whole = outcome.is_ok() && !way.wrong && way.at == length;
                self.over.insert((source, to, hash), if whole { Over::Whole(evictions) } else { Over::Refused });
            }
            Message::Want { .. } | Message::Cancel { .. } | Message::Credit { .. } => {}
        }
    }

    fn came_data(&mut self, to: usize, exchange: u64, bytes: &Bytes) {
        let (_, hash) = self.of[&exchange];
        if !self.nodes[to].fetching.values().any(|(of, _)| *of == exchange) {
            return;
        }
        let right = self.has_there(&hash, self.nodes[to].ways[&hash].at, bytes);
        let way = self.nodes[to].ways.get_mut(&hash).expect("it was asked for");
        way.wrong |= !right;
        way.at += bytes.len() as u64;
        way.head.extend(bytes.iter().take(8 - way.head.len()));
    }

    /// A node loses one of those that it may have asked.
    pub(super) fn source_lost(&mut self, index: usize, gone: usize) {
        let node = &mut self.nodes[index];
        for (hash, way) in node.ways.iter_mut().filter(|(_, way)| way.source == gone) {
            if node.fetching.values().any(|(exchange, _)| self.of[exchange] == (gone, *hash)) {
                way.end = Some(Err(Refusal::Lost));
                self.over.insert((gone, index, *hash), Over::Refused);
            }
        }
    }

    /// An event of an honest forwarder, before a liar makes something else of it.
    pub(super) fn check_cause(&mut self, index: usize, event: &Event<u64, usize>) {
        let seed = self.setting.seed;
        match event {
            Event::Ask { fetch, link, hash } => self.check_ask(index, *fetch, *link, *hash),
            Event::Drop { fetch } => {
                // It may have come whole and wait for room.
                let mut ways = self.nodes[index].ways.iter();
                let Some((hash, way)) = ways.find(|(_, way)| way.fetch == *fetch) else { return };
                let (source, hash, broken) = (way.source, *hash, way.wrong);
                assert!(
                    broken || !self.is_wanted(index, &hash),
                    "seed {seed}: /{index} drops {hash:?}, which is wanted"
                );
                self.over.insert((source, index, hash), if broken { Over::Refused } else { Over::Dropped });
            }
            Event::End { exchange, outcome } => {
                let Some(serving) = self.nodes[index].serving.get(exchange).copied() else { return };
                let (_, hash) = self.of[exchange];
                match outcome {
                    Ok(()) => {
                        let length = self.length(&hash);
                        // A liar that leaves bytes out counts them as sent.
                        assert_eq!(serving.sent, length, "seed {seed}: /{index} ends {hash:?} early");
                    }
                    Err(refusal) => {
                        self.check_refusal(index, &hash, refusal);
                        let due = serving.sent > 0 || !self.has_untried(index, &hash);
                        assert!(due, "seed {seed}: /{index} refuses {hash:?} and did not ask elsewhere: {refusal}");
                    }
                }
            }
            Event::Failed { hash, refusal } => {
                self.check_refusal(index, hash, refusal);
                let untried = self.has_untried(index, hash);
                assert!(!untried, "seed {seed}: /{index} fails {hash:?} and did not ask elsewhere: {refusal}");
            }
            Event::Ready { .. }
            | Event::Load { .. }
            | Event::Stored { .. }
            | Event::Send { .. }
            | Event::Damaged { .. } => {}
        }
    }

    fn check_ask(&mut self, index: usize, fetch: FetchId, source: usize, hash: ContentHash) {
        let (seed, liars) = (self.setting.seed, self.setting.liars);
        let known = self.contents.contains_key(&hash);
        let evictions = self.nodes[index].forwarder.stats().evictions;
        match self.over.remove(&(source, index, hash)) {
            None => {
                let times = self.carried.get(&(source, index, hash)).copied().unwrap_or(0);
                assert_eq!(times, 0, "seed {seed}: /{index} asks /{source} for {hash:?}, which is on its way");
            }
            Some(Over::Dropped) => assert!(self.setting.losses || liars, "seed {seed}: nobody changed their mind"),
            Some(Over::Refused) => assert!(!known || liars || self.setting.uncles, "seed {seed}: nobody refuses"),
            Some(Over::Whole(before)) => {
                assert!(evictions > before, "seed {seed}: /{index} has {hash:?} and asks /{source} for it again");
            }
        }
        let node = &mut self.nodes[index];
        let way = Way { fetch, source, head: Vec::new(), at: 0, wrong: false, end: None };
        node.ways.insert(hash, way);
        let round = node.rounds.entry(hash).or_default();
        // The first that is asked again begins the next round.
        if round.contains(&source) {
            round.clear();
        }
        self.tally.elsewhere += u64::from(!round.is_empty());
        round.push(source);
    }

    /// Whether anybody waits at a node for a content.
    fn is_wanted(&self, index: usize, hash: &ContentHash) -> bool {
        let node = &self.nodes[index];
        node.needs.contains_key(hash) || node.serving.keys().any(|exchange| self.of[exchange].1 == *hash)
    }

    /// Whether a node has a source that it could still ask for a content: the first two are asked.
    fn has_untried(&self, index: usize, hash: &ContentHash) -> bool {
        let node = &self.nodes[index];
        let asked = node.rounds.get(hash).map_or(&[][..], |round| round);
        asked.len() < 2 && node.sources.iter().any(|source| self.nodes[*source].alive && !asked.contains(source))
    }

    /// A node may refuse what was refused to it, and what came altered.
    fn check_refusal(&self, index: usize, hash: &ContentHash, refusal: &Refusal) {
        let node = &self.nodes[index];
        let right = match node.ways.get(hash) {
            None => index == 0 && !self.contents.contains_key(hash) && *refusal == Refusal::Unknown,
            Some(way) => {
                let short = way.end == Some(Ok(())) && way.at != self.length(hash);
                let damaged = Refusal::Damaged(self.nodes[way.source].address.clone());
                let announced = <[u8; 8]>::try_from(&way.head[..]).map_or(0, u64::from_le_bytes);
                match refusal {
                    Refusal::TooLarge if announced > node.budget => way.wrong,
                    refusal if *refusal == damaged && (way.wrong || short) => true,
                    refusal => way.end == Some(Err(refusal.clone())),
                }
            }
        };
        // What is there is refused for nothing but a loss or a lie.
        let honest = *refusal == Refusal::Lost || !self.contents.contains_key(hash) || self.setting.liars;
        assert!(right && honest, "seed {}: /{index} refuses {hash:?} for no reason: {refusal}", self.setting.seed);
    }

    /// Whether a wait does not end because of a living node that sends nothing: it is asked, or somebody on the way to it
    /// waits for room that is taken by what does not come or is not taken.
    pub(super) fn is_stalled(&self, index: usize, hash: ContentHash) -> bool {
        let mut next = vec![(index, hash)];
        let mut seen = BTreeSet::new();
        while let Some((index, hash)) = next.pop() {
            if !seen.insert((index, hash)) {
                continue;
            }
            let node = &self.nodes[index];
            let coming = node.fetching.values().map(|(exchange, _)| self.of[exchange]);
            for (source, _) in coming.clone().filter(|(_, of)| *of == hash) {
                if self.nodes[source].lie == Some(Lie::Stall) && self.nodes[source].alive {
                    return true;
                }
                next.push((source, hash));
            }
            if node.forwarder.stats().waiting > 0 {
                next.extend(coming.map(|(_, hash)| (index, hash)));
                next.extend(node.serving.iter().map(|(exchange, serving)| (serving.to, self.of[exchange].1)));
            }
        }
        false
    }
}
