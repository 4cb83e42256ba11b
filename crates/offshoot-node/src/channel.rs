//! Channels: typed messages from many senders to one receiver, whose ends may be in any context of a tree.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_wire::{EncodeError, Failure, FailureKind, Limits, decode_untrusted, encode_value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::handover::{Reader, Thing, Writer, give, take};
use crate::lane::Lane;
use crate::services::framed;

/// A channel: what is sent by any clone of the sender comes out at the receiver. Either end can be an argument or the value
/// of a remote function, and works there as it does here; messages take the way that the tree has.
///
/// At most `capacity` messages of senders of this process wait to be received, at least 1; then sending waits. Senders
/// elsewhere have credit, 16 KiB of messages at first, 128 KiB as soon as they are heard, more while the receiver keeps up. A
/// message is at most [`Limits::ITEM`] bytes, encoded: 1 MiB. No context or channel can be part of one.
///
/// Neither end waits for one that is gone. The receiver is told when a sender is lost with its context, and goes on with the
/// others; when no sender is left it has reached the end. Senders are told when the receiver is gone.
///
/// # Examples
///
/// ```
/// let (sender, receiver) = offshoot_node::channel::<(u32, String)>(8);
/// std::thread::spawn(move || sender.send(&(7, "seven".into())));
/// assert_eq!(receiver.recv()?, Some((7, "seven".into())));
/// assert_eq!(receiver.recv()?, None);
/// # Ok::<(), offshoot_node::Error>(())
/// ```
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (writer, reader) = Lane::ends(capacity, true);
    let sender = Sender { writer: Writer::Near(writer), of: PhantomData };
    (sender, Receiver { reader: Reader::Near(reader), of: PhantomData })
}

/// The sending end of a [`channel`]. Cloning yields another handle to it; it ends with the last.
pub struct Sender<T> {
    writer: Writer,
    of: PhantomData<fn(T)>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { writer: self.writer.clone(), of: PhantomData }
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends a message; waits while the receiver does not keep up. That it was sent does not say that it was received.
    ///
    /// # Errors
    /// [`FailureKind::Cancelled`] when nobody receives any more, how the receiver's context was lost, or
    /// [`FailureKind::TooLarge`].
    pub fn send(&self, message: &T) -> Result<(), Error> {
        self.put(message, None)
    }

    /// As [`send`](Self::send), with [`FailureKind::Timeout`] when there is no room for the message within `timeout`. One of
    /// more than 16 KiB that has begun to travel is sent to its end, however long that takes.
    ///
    /// # Errors
    /// As [`send`](Self::send), and the timeout: then nothing was sent.
    pub fn send_timeout(&self, message: &T, timeout: Duration) -> Result<(), Error> {
        self.put(message, Instant::now().checked_add(timeout))
    }

    fn put(&self, message: &T, deadline: Option<Instant>) -> Result<(), Error> {
        let failed = |failure: Failure| Error::new(failure, "");
        let bytes = encode_value(message).map_err(|error| {
            let kind = match error {
                EncodeError::NoForm => FailureKind::Malformed,
                EncodeError::TooLong | EncodeError::TooMany => FailureKind::TooLarge,
            };
            failed(Failure::new(kind, format!("the message cannot be sent: {error}")))
        })?;
        if bytes.len() > Limits::ITEM {
            let text = format!("the message is {} bytes, expected at most {}", bytes.len(), Limits::ITEM);
            let failure = Failure::new(FailureKind::TooLarge, text);
            return Err(failed(failure.hint("send what is large by a pipe of bytes, or in parts")));
        }
        match &self.writer {
            Writer::Near(end) => end.0.push(Bytes::from(bytes), deadline).map_err(failed),
            Writer::Far(far) => far.write(framed(&bytes), deadline),
        }
    }
}

impl<T> Serialize for Sender<T> {
    /// Only in the arguments and the value of a remote function. This handle goes on to work. In a value only where the
    /// channel is one of the function's own process; one that came from elsewhere is handed on in arguments.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        give(Thing::Writer(self.writer.clone()), serializer)
    }
}

impl<'de, T> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sender<T>, D::Error> {
        let writer = take(deserializer, |thing| match thing {
            Thing::Writer(writer) => Some(writer),
            Thing::Context(_) | Thing::Reader(_) => None,
        })?;
        Ok(Sender { writer, of: PhantomData })
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The receiving end of a [`channel`]. Any number of threads may wait on it: each message goes to one of them.
pub struct Receiver<T> {
    reader: Reader,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Waits for the next message; `None` when all were received and no sender is left.
    ///
    /// # Errors
    /// [`FailureKind::PeerLost`] when a sender was lost before it ended, behind what it had sent; then the next call goes on
    /// with the other senders. [`FailureKind::Malformed`] for a message that is none of this type; so is what follows.
    pub fn recv(&self) -> Result<Option<T>, Error> {
        self.get(None)
    }

    /// As [`recv`](Self::recv), with [`FailureKind::Timeout`] when nothing comes within `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and the timeout.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>, Error> {
        self.get(Instant::now().checked_add(timeout))
    }

    /// The messages as they come, until no sender is left. An error ends it when no message can follow, and else stands in
    /// the place of one.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, Error>> + '_ {
        let mut over = false;
        std::iter::from_fn(move || {
            if over {
                return None;
            }
            let next = self.recv().transpose();
            over = matches!(&self.reader, Reader::Far(far) if far.is_over());
            next
        })
    }

    fn get(&self, deadline: Option<Instant>) -> Result<Option<T>, Error> {
        let failed = |failure: Failure| Error::new(failure, "");
        let message = match &self.reader {
            Reader::Near(end) => end.0.pop(deadline).map_err(failed)?,
            Reader::Far(far) => far.read(true, deadline)?,
        };
        let Some(message) = message else { return Ok(None) };
        decode_untrusted(&message).map(Some).map_err(|error| {
            failed(Failure::new(FailureKind::Malformed, format!("a message cannot be decoded: {error}")))
        })
    }
}

impl<T> Serialize for Receiver<T> {
    /// Only in the arguments and the value of a remote function: then this end is there, and no longer here.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        give(Thing::Reader(self.reader.clone()), serializer)
    }
}

impl<'de, T> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Receiver<T>, D::Error> {
        let reader = take(deserializer, |thing| match thing {
            Thing::Reader(reader) => Some(reader),
            Thing::Context(_) | Thing::Writer(_) => None,
        })?;
        Ok(Receiver { reader, of: PhantomData })
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
