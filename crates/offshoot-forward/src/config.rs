//! What bounds a forwarder, and what it counts.

/// The bounds of a [`Forwarder`](crate::Forwarder).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many bytes of content may be kept or be on their way here, by announced length; 64 MiB by default, some
    /// images of programs. What the owner registered is its own memory and not counted. Worst-case memory: this, one
    /// block of 64 KiB for each content that is coming, and the first window of each that waits for room.
    pub budget: u64,
    /// The largest content that is accepted, in bytes; at most the budget, which it is by default.
    pub largest: u64,
    /// How many exchanges may be open by one link; 64 by default. An honest context below asks once for each content.
    pub serving: u32,
}

impl Config {
    /// The defaults, with what `change` makes of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use offshoot_forward::Config;
    /// let config = Config::with(|config| config.serving = 8);
    /// assert_eq!(config.serving, 8);
    /// ```
    #[must_use]
    pub fn with(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }
}

impl Default for Config {
    fn default() -> Config {
        const BUDGET: u64 = 64 * 1024 * 1024;
        Config { budget: BUDGET, largest: BUDGET, serving: 64 }
    }
}

/// What a forwarder did so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Contents asked for at a source.
    pub fetches: u64,
    /// Of these, the ones that came whole and had the right hash.
    pub fetched: u64,
    /// Contents that were not what their hash said.
    pub damaged: u64,
    /// Contents that made room for others.
    pub evictions: u64,
    /// Bytes kept or on their way here, by announced length.
    pub kept: u64,
    /// Contents known: registered, promised, kept, or on their way.
    pub contents: usize,
    /// Exchanges served now.
    pub serving: usize,
    /// Contents on their way here.
    pub coming: usize,
    /// Contents that wait for room.
    pub waiting: usize,
}

/// What a link carried so far. Bytes are those of the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Requests that came by it.
    pub requests: u64,
    /// Of these, those that found the content here.
    pub hits: u64,
    /// Of these, those that found it on its way.
    pub joined: u64,
    /// Of these, those that did not get it.
    pub refused: u64,
    /// Contents asked for by it.
    pub asked: u64,
    /// Bytes that came by it.
    pub bytes_in: u64,
    /// Bytes that went by it.
    pub bytes_out: u64,
    /// Requests that came by it and are not over.
    pub open: u32,
}

impl std::ops::AddAssign for LinkStats {
    fn add_assign(&mut self, other: LinkStats) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.joined += other.joined;
        self.refused += other.refused;
        self.asked += other.asked;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.open += other.open;
    }
}
