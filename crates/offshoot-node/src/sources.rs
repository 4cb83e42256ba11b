//! What the poller's tokens stand for.

use offshoot_mux::Token;
use offshoot_route::{ExchangeId, LinkId};

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A link's reading side.
    LinkRead(LinkId),
    /// A link's writing side, where that is a descriptor of its own.
    LinkWrite(LinkId),
    /// The end of the tool that a link runs through.
    ToolExit(LinkId),
    /// The error output of that tool.
    ToolStderr(LinkId),
    /// The terminal of that tool.
    ToolTerminal(LinkId),
    /// An output pipe of a process that runs for a request: 0 is stdout, 1 is stderr.
    ProcessOut(ExchangeId, usize),
    /// The input pipe of such a process.
    ProcessIn(ExchangeId),
    /// The end of such a process.
    ProcessExit(ExchangeId),
    /// What this worker writes itself: 0 is stdout, 1 is stderr.
    Output(usize),
    /// Signals to this process.
    Signals,
    /// What ends when this agent's supervisor does.
    Guard,
}

/// The sources by token. A token is not used again for as long as an event of its former owner could be under way: it
/// carries a generation.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Place {
    generation: usize,
    source: Option<Source>,
}

/// Places are numbered in the low bits of a token. A process has far fewer descriptors than this.
const INDEX_BITS: u32 = 20;
const GENERATIONS: usize = 1 << 11;

impl Sources {
    /// A token for `source`.
    pub(crate) fn insert(&mut self, source: Source) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, source: None });
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        place.generation = (place.generation + 1) % GENERATIONS;
        place.source = Some(source);
        Token(index | place.generation << INDEX_BITS)
    }

    /// What `token` stands for; `None` when that is over.
    pub(crate) fn find(&self, token: Token) -> Option<Source> {
        let place = self.places.get(token.0 & ((1 << INDEX_BITS) - 1))?;
        if place.generation == token.0 >> INDEX_BITS { place.source } else { None }
    }

    /// Ends `token`.
    pub(crate) fn remove(&mut self, token: Token) {
        let index = token.0 & ((1 << INDEX_BITS) - 1);
        if self.find(token).is_some() {
            self.places[index].source = None;
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_former_owner_finds_nothing() {
        let mut sources = Sources::default();
        let first = sources.insert(Source::Signals);
        sources.remove(first);
        sources.remove(first);
        let second = sources.insert(Source::Signals);
        assert_ne!(first, second);
        assert_eq!(sources.find(first), None);
        assert_eq!(sources.find(second), Some(Source::Signals));
    }
}
