//! The limits of the protocol, each with its reason.

use std::time::Duration;

/// What one end of a link can take, stated in its hello.
///
/// The other end keeps to the smaller of both where a value is shared. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame, its four length bytes not counted. 64 KiB: the point at which a larger frame no longer
    /// saves system calls on a pipe, and small enough that a call waits for one frame only.
    pub frame: u32,
    /// How often a parent sends a heartbeat when nothing else was sent.
    pub heartbeat: Duration,
    /// After how long without a byte the other end counts as lost.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { frame: Limits::FRAME, heartbeat: Duration::from_secs(5), silence: Duration::from_secs(15) }
    }
}

impl Limits {
    /// Default and largest allowed frame body: 64 KiB.
    pub const FRAME: u32 = 64 * 1024;
    /// The smallest frame limit a peer may state: a line link's 512 bytes.
    pub const FRAME_MIN: u32 = 512;
    /// The largest hello body. A hello is a few hundred bytes; names are bounded at [`Limits::NAME`] each.
    pub const HELLO: u32 = 4 * 1024;
    /// The longest name of a context, user, host, method or machine, in bytes.
    pub const NAME: usize = 255;
    /// The longest target of a recipe, as its user wrote it: a user, a host and a port.
    pub const TARGET: usize = 2 * Limits::NAME + 16;
    /// The longest list in a recipe: of arguments, variables or hints.
    pub const RECIPE_LIST: usize = 1024;
    /// The deepest address: 64 hops.
    pub const DEPTH: usize = 64;
    /// How much text of a tool or a peer a failure carries at most, in bytes.
    pub const SEEN: usize = 4 * 1024;
    /// The longest message or hint of a failure, in bytes.
    pub const MESSAGE: usize = 2 * 1024;
    /// The longest secret, in bytes: what a terminal's line takes, with room for the tools' own limits.
    pub const SECRET: usize = 1024;
    /// How many questions a connect may ask: a jump host's, a key's, a password's, a code's, and again as many.
    pub const QUESTIONS: usize = 8;
    /// The longest narrowing chain of a grant: each hand-over adds one link.
    pub const GRANT_LINKS: usize = 16;
    /// How large the arguments or the value of a call may be, in bytes: they are held in memory on both sides. What is
    /// larger is a stream or a file.
    pub const CALL: u64 = 64 * 1024 * 1024;
    /// The largest content, an agent or an image of a program, in bytes as it travels: some large programs that are not
    /// packed. A context that passes it on holds it in memory.
    pub const CONTENT: u64 = 128 * 1024 * 1024;
    /// Up to how many bytes of arguments or value travel in the request or answer itself: half a frame.
    pub const CALL_INLINE: usize = 32 * 1024;
    /// The longest message of a channel, in bytes: it is held in memory on both sides, once for each that sends. What is
    /// larger is a stream of bytes.
    pub const ITEM: usize = 1024 * 1024;
    /// How many contexts and ends of channels the arguments or the value of one call may carry: each takes some hundred bytes
    /// there.
    pub const CARRIED: usize = 4096;
    /// How many of these may be ends of channels: without a grant one is a few bytes long, and takes 300 in memory.
    pub const ENDS: usize = 128;
    /// The longest log record, in bytes: what a person reads of one, with room for a dump.
    pub const LOG: usize = 16 * 1024;
    /// The highest level of a log record: trace.
    pub const LOG_LEVEL: u8 = 5;
    /// The highest channel number of an exchange, exclusive.
    pub const CHANNELS: u8 = 8;
    /// The window that each channel starts with: 128 KiB.
    pub const WINDOW_START: u64 = 128 * 1024;
    /// The window a channel can grow to: 4 MiB.
    pub const WINDOW_MAX: u64 = 4 * 1024 * 1024;
    /// What a channel is granted whatever else is granted: 16 KiB.
    pub const WINDOW_FLOOR: u64 = 16 * 1024;
    /// The sum of what one context grants: 16 MiB.
    pub const WINDOW_SUM: u64 = 16 * 1024 * 1024;
}
