//! The contexts behind a link that take part in an exchange, in the order of their addresses. No clock; pure data.

use offshoot_wire::Address;

/// Places of peers by address. A sorted list: most links have few, a search is what is done often, and the code of a tree
/// would be a fiftieth of the agent. The most that there are, one for each exchange, are moved in some microseconds.
#[derive(Debug, Default)]
pub(crate) struct Peers(Vec<(Address, u32)>);

impl Peers {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn place(&self, address: &Address) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(address))
    }

    pub(crate) fn find(&self, address: &Address) -> Option<u32> {
        self.place(address).ok().map(|at| self.0[at].1)
    }

    /// Adds what is not there yet.
    pub(crate) fn insert(&mut self, address: Address, peer: u32) {
        match self.place(&address) {
            Ok(at) => self.0[at].1 = peer,
            Err(at) => self.0.insert(at, (address, peer)),
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        self.0.retain(|(_, peer)| keep(*peer));
    }

    /// Those at or under `prefix`: addresses are ordered by path, so they are one range.
    pub(crate) fn under(&self, prefix: &Address) -> impl Iterator<Item = u32> {
        let first = self.place(prefix).unwrap_or_else(|at| at);
        self.0[first..].iter().take_while(move |(address, _)| address.is_under(prefix)).map(|(_, peer)| *peer)
    }

    pub(crate) fn into_peers(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().map(|(_, peer)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(path: &[u32]) -> Address {
        path.iter().fold(Address::ROOT, |address, index| address.child(*index).unwrap())
    }

    fn some() -> Peers {
        let mut peers = Peers::default();
        for (peer, path) in [&[2, 1][..], &[2], &[10], &[2, 1, 7], &[3], &[2, 0]].iter().enumerate() {
            peers.insert(address(path), peer as u32);
        }
        peers
    }

    #[test]
    fn a_peer_is_found_by_its_address_alone() {
        let mut peers = some();
        assert_eq!((peers.len(), peers.find(&address(&[2])), peers.find(&address(&[10]))), (6, Some(1), Some(2)));
        assert_eq!((peers.find(&address(&[1])), peers.find(&address(&[2, 1, 7, 1]))), (None, None));
        peers.insert(address(&[2]), 9);
        assert_eq!((peers.len(), peers.find(&address(&[2]))), (6, Some(9)));
    }

    #[test]
    fn what_lies_under_a_prefix_is_found_whether_the_prefix_is_there_or_not() {
        let under = |path: &[u32]| some().under(&address(path)).collect::<Vec<_>>();
        assert_eq!(under(&[2]), [1, 5, 0, 3]);
        assert_eq!(under(&[2, 1]), [0, 3]);
        assert_eq!(under(&[2, 1, 7, 4]), [0; 0]);
        assert_eq!(under(&[1]), [0; 0]);
        assert_eq!(under(&[]).len(), 6);
    }

    #[test]
    fn those_that_are_not_kept_are_gone() {
        let mut peers = some();
        peers.retain(|peer| peer % 2 == 0);
        assert_eq!(peers.find(&address(&[2])), None);
        assert_eq!(peers.into_peers().collect::<Vec<_>>(), [0, 4, 2]);
    }
}
