//! What travels by reference in the arguments and the value of a call: contexts, and the ends of channels and streams.
//!
//! Each comes with the grant that its new holder needs (R4). They stand before the encoded value, which names them by their
//! places; so the value's own bytes hold no capability, and nothing in them is looked for.

use serde::Serialize;

use crate::codec::split;
use crate::reader::{Decode, Reader, read_fields};
use crate::{Address, ChildHello, DecodeError, Grant};

/// One thing that is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Carried {
    /// A context.
    Context {
        /// Where it sits.
        address: Address,
        /// Its name.
        name: String,
        /// The names down to it, as whoever hands it over knows them.
        path: String,
        /// What it said of itself; none of a root.
        hello: Option<ChildHello>,
        /// It is on the machine of the receiver, as far as whoever hands it over knows: a hint.
        near: bool,
        /// It is a worker of its own: calls go right to it.
        worker: bool,
        /// What the receiver may ask it by; none where it lies below the receiver.
        grant: Option<Grant>,
    },
    /// An end of a channel or stream.
    End {
        /// The process that has it.
        home: Address,
        /// Its number there.
        handle: u64,
        /// What the receiver gets is the end that is read.
        reads: bool,
        /// What the receiver may ask `home` by; none where that lies below the receiver.
        grant: Option<Grant>,
    },
}

impl Decode for Carried {
    fn read(from: &mut Reader<'_>) -> Carried {
        match from.variant(2) {
            0 => Carried::Context {
                address: Decode::read(from),
                name: from.name(),
                path: from.message(),
                hello: from.maybe(ChildHello::checked),
                near: Decode::read(from),
                worker: Decode::read(from),
                grant: Decode::read(from),
            },
            _ => Carried::End {
                home: Decode::read(from),
                handle: Decode::read(from),
                reads: Decode::read(from),
                grant: Decode::read(from),
            },
        }
    }
}

/// What the arguments or the value of a call carry, and the encoded value behind it.
///
/// # Errors
/// [`DecodeError`] when the bytes do not begin with a list of at most [`Limits::CARRIED`](crate::Limits::CARRIED).
///
/// # Examples
///
/// ```
/// use offshoot_wire::{carried, encode};
/// let bytes = [encode::<[offshoot_wire::Carried]>(&[]), encode("value")].concat();
/// let (list, value) = carried(&bytes)?;
/// assert_eq!((list.len(), value), (0, &encode("value")[..]));
/// # Ok::<(), offshoot_wire::DecodeError>(())
/// ```
pub fn carried(bytes: &[u8]) -> Result<(Vec<Carried>, &[u8]), DecodeError> {
    // Nearly always there is nothing.
    if let Some((0, rest)) = bytes.split_first() {
        return Ok((Vec::new(), rest));
    }
    struct List(Vec<Carried>);
    impl Decode for List {
        fn read(from: &mut Reader<'_>) -> List {
            List(from.carried())
        }
    }
    split::<List>(bytes).map(|(list, rest)| (list.0, rest))
}

/// What [`Verb::Stream`](crate::Verb::Stream) asks for. Who writes uses channel 0 ([`channel::STDIN`](crate::channel::STDIN))
/// and is answered once all was read; who reads gets channel 1 and the answer at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StreamSpec {
    /// The end's number.
    pub handle: u64,
    /// The requester reads.
    pub reads: bool,
}

read_fields!(StreamSpec { handle, reads });
