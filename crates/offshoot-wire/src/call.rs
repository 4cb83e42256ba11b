//! The bodies of [`Verb::Call`](crate::Verb::Call), one of the user's functions, run by a worker, and of
//! [`Verb::Attend`](crate::Verb::Attend), by which whoever started the worker looks after it.

use serde::Serialize;

use crate::bounds;
use crate::reader::{Reader, read_fields};

/// What a call asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallSpec {
    /// The function's name, as it is registered there.
    pub function: String,
    /// Its arguments, encoded; empty when they follow on [`channel::STDIN`](crate::channel::STDIN).
    #[serde(serialize_with = "bounds::bytes")]
    pub args: Vec<u8>,
    /// How many bytes of arguments follow on the channel; 0 when they are here.
    pub follow: u64,
    /// Its place in a chain, if it belongs to one.
    pub chain: Option<ChainLink>,
}

read_fields!(CallSpec { function = Reader::message, args = Reader::octets, follow, chain });

/// The place of a call in a chain: calls that run one after the other, until one does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChainLink {
    /// Which chain, by a number that the caller uses once.
    pub chain: u64,
    /// Where in it, from 0 on. The highest number of all ends the chain.
    pub position: u64,
    /// There is no call here: it was given up, and those behind it are not to wait for it.
    pub skip: bool,
}

read_fields!(ChainLink { chain, position, skip });

/// What a function returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallReply {
    /// Its value, encoded; empty when it came on [`channel::STDOUT`](crate::channel::STDOUT).
    #[serde(serialize_with = "bounds::bytes")]
    pub value: Vec<u8>,
    /// How many bytes of value came on the channel; 0 when they are here.
    pub came: u64,
}

read_fields!(CallReply { value = Reader::octets, came });

/// What a worker is told by whoever started it. Its output comes on [`channel::STDOUT`](crate::channel::STDOUT) and
/// [`channel::STDERR`](crate::channel::STDERR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttendSpec {
    /// How many calls run side by side; more wait their turn. 0 leaves it at the worker's own limit.
    pub calls: u32,
    /// How much memory the process may have, in bytes of address space; 0 is no limit.
    pub memory: u64,
    /// After how long without a call, child or connect it ends, in milliseconds; 0 is never.
    pub idle_ms: u32,
}

read_fields!(AttendSpec { calls, memory, idle_ms });
