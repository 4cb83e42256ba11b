//! The payload codec: postcard, behind a few functions, so that no other crate names it. What it wrote is read by
//! [`reader`](crate::reader).

use serde::Serialize;

use postcard::ser_flavors::Flavor;

use crate::Limits;
use crate::reader::{Decode, Reader};

/// Bytes that are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end early, are malformed, or break a limit of the type.
    #[error("malformed value: {0}")]
    Malformed(&'static str),
    /// The value is followed by bytes that belong to nothing.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// A value that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It has no form on the wire: a list or map of unknown length, or a type that refuses to be encoded.
    #[error("the value has no form on the wire: its type refuses it, or has a list of unknown length")]
    NoForm,
    /// It is longer than [`Limits::CALL`](crate::Limits::CALL). No more than that was encoded.
    #[error("it is longer than {limit} MiB, the most that is held in memory on both sides", limit = Limits::CALL >> 20)]
    TooLong,
    /// It carries more than [`Limits::CARRIED`](crate::Limits::CARRIED) contexts, or more than
    /// [`Limits::ENDS`](crate::Limits::ENDS) ends of channels and pipes.
    #[error("it carries more than {} contexts, or more than {} ends of channels", Limits::CARRIED, Limits::ENDS)]
    TooMany,
}

/// Encodes a value of a user's type, of at most [`Limits::CALL`](crate::Limits::CALL) bytes; read back by
/// [`decode_untrusted`](crate::decode_untrusted).
///
/// # Errors
/// [`EncodeError`].
pub fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    encode_value_into(value, Vec::new())
}

/// As [`encode_value`], behind what is in `out` already, which counts.
///
/// # Errors
/// [`EncodeError`].
pub fn encode_value_into<T: Serialize + ?Sized>(value: &T, out: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
    struct Bounded {
        out: Vec<u8>,
        full: bool,
    }
    impl Flavor for &mut Bounded {
        type Output = ();

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.try_extend(&[byte])
        }

        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.full = (self.out.len() + bytes.len()) as u64 > Limits::CALL;
            if self.full {
                return Err(postcard::Error::SerializeBufferFull);
            }
            self.out.extend_from_slice(bytes);
            Ok(())
        }

        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    let mut bounded = Bounded { out, full: false };
    match postcard::serialize_with_flavor(value, &mut bounded) {
        Ok(()) => Ok(bounded.out),
        Err(_) if bounded.full => Err(EncodeError::TooLong),
        Err(_) => Err(EncodeError::NoForm),
    }
}

/// Encodes a value of one of this crate's types.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(value, &mut out);
    out
}

/// As [`encode`], appending to `out`.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    struct Append<'a>(&'a mut Vec<u8>);
    impl Extend<u8> for Append<'_> {
        fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
            self.0.extend(bytes);
        }
    }
    // Postcard fails only for sequences of unknown length and for a sink that is full. Our types have neither.
    let result = postcard::to_extend(value, Append(out));
    debug_assert!(result.is_ok(), "a wire type that cannot be encoded");
}

/// Decodes a value of one of this crate's types. What is allocated stays below 4 × the input + 64 KiB (S7).
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one value.
pub fn decode<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = split(bytes)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

/// Decodes a value at the front of `bytes` and returns it with the rest.
pub(crate) fn split<T: Decode>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = T::read(&mut reader);
    reader.end().map(|rest| (value, rest)).map_err(DecodeError::Malformed)
}
