//! Contents that are named by their hash: agents and images of programs.

use serde::{Deserialize, Serialize};

use crate::bounds;

/// A content by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentRef {
    /// The SHA-256 of its bytes, as they travel.
    #[serde(deserialize_with = "bounds::array")]
    pub hash: [u8; 32],
    /// How many they are.
    pub length: u64,
    /// What they are.
    pub packing: Packing,
}

/// How an executable travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
