//! The bodies of [`Verb::Call`](crate::Verb::Call): one of the user's functions, run by a worker.

use serde::{Deserialize, Serialize};

use crate::bounds;

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSpec {
    /// The function's name, as it is registered there.
    #[serde(deserialize_with = "bounds::message")]
    pub function: String,
    /// Its arguments, encoded; empty when they follow on [`channel::STDIN`](crate::channel::STDIN).
    #[serde(with = "bounds::bytes")]
    pub args: Vec<u8>,
    /// How many bytes of arguments follow on the channel; 0 when they are here.
    pub follow: u64,
}

/// What a function returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReply {
    /// Its value, encoded; empty when it came on [`channel::STDOUT`](crate::channel::STDOUT).
    #[serde(with = "bounds::bytes")]
    pub value: Vec<u8>,
    /// How many bytes of value came on the channel; 0 when they are here.
    pub came: u64,
}
