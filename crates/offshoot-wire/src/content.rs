//! The bodies of [`Verb::Payload`](crate::Verb::Payload) and [`Verb::Image`](crate::Verb::Image): contents that are named
//! by their hash, agents and images of programs.

use serde::{Deserialize, Serialize};

use crate::reader::{Decode, Reader, read_fields};

/// What [`Verb::Payload`](crate::Verb::Payload) asks for: which content it is that starts a target. Answered with a
/// [`ContentRef`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PayloadSpec {
    /// The target's triple.
    pub triple: String,
    /// The identity of the user's program whose image is wanted; `None` for the agent.
    pub program: Option<[u8; 32]>,
}

read_fields!(PayloadSpec { triple = Reader::name, program });

/// What [`Verb::Image`](crate::Verb::Image) asks for. The content comes on [`channel::STDOUT`](crate::channel::STDOUT),
/// behind its length in eight bytes, little-endian; the reply is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ImageSpec {
    /// The SHA-256 of the content.
    pub hash: [u8; 32],
    /// The asked context is to have it, from above, and to send nothing but the reply.
    pub keep: bool,
}

read_fields!(ImageSpec { hash, keep });

/// A content by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ContentRef {
    /// The SHA-256 of its bytes, as they travel.
    pub hash: [u8; 32],
    /// How many they are.
    pub length: u64,
    /// What they are.
    pub packing: Packing,
}

read_fields!(ContentRef { hash, length, packing });

/// How an executable travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Packing {
    /// As it is. Of an agent: the bundle.
    Stored,
    /// As one LZMA stream without header, behind a filter: as agents are packed.
    Lzma {
        /// LZMA's properties.
        properties: u8,
        /// The number of the filter.
        filter: u8,
        /// The length of the executable in bytes.
        length: u64,
    },
}

impl Decode for Packing {
    fn read(from: &mut Reader<'_>) -> Packing {
        match from.variant(2) {
            0 => Packing::Stored,
            _ => {
                Packing::Lzma { properties: Decode::read(from), filter: Decode::read(from), length: Decode::read(from) }
            }
        }
    }
}

/// What a context forwarded so far. Contents come down only: what a link carried of them is `bytes_in` at its lower end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentStats {
    /// Contents that it asked for above.
    pub asked: u64,
    /// Bytes of contents that came from above.
    pub bytes_in: u64,
    /// Contents that were asked of it from below.
    pub requests: u64,
    /// Of these, those that it had.
    pub hits: u64,
    /// Of these, those that were on their way to it.
    pub joined: u64,
    /// Of these, those that it did not send whole.
    pub refused: u64,
    /// Bytes of contents that it sent down.
    pub bytes_out: u64,
    /// Bytes that it keeps.
    pub kept: u64,
}

read_fields!(ContentStats { asked, bytes_in, requests, hits, joined, refused, bytes_out, kept });
