//! What a simulation is run with, and what it counted.

/// What may go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Relays lie, are lost, and caches are small.
    pub(crate) liars: bool,
    pub(crate) losses: bool,
    pub(crate) small_caches: bool,
    pub(crate) second_sources: bool,
    /// Any other node is asked first, and the parent second.
    pub(crate) uncles: bool,
}

/// What happened, to see that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ready: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) damaged: u64,
    pub(crate) retried: u64,
    pub(crate) evictions: u64,
    pub(crate) joined: u64,
    pub(crate) timed_out: u64,
    pub(crate) lost: u64,
    /// A content was asked for at the second source.
    pub(crate) elsewhere: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.ready += other.ready;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.damaged += other.damaged;
        self.retried += other.retried;
        self.evictions += other.evictions;
        self.joined += other.joined;
        self.timed_out += other.timed_out;
        self.lost += other.lost;
        self.elsewhere += other.elsewhere;
    }
}
