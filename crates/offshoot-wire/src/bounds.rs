//! Bounds of the values in our own messages, applied while they are decoded (S7, S12).
//!
//! Each function here is a field's `deserialize_with` or `with`: it refuses a list, text or byte string beyond its
//! limit before anything is allocated for it. None of them changes the layout.
//!
//! What a message may allocate is counted, not estimated: a list is charged with the memory of its elements, exactly
//! reserved, against a budget that [`crate::decode`] sets from the length of the input. Texts and bytes cost no more
//! than the input they are copied from. So one message takes at most 3 × input + 60 KiB for lists and 1 × input for
//! texts: within the 4 × input + 64 KiB of S7.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::Serializer;

use crate::{ChildHello, Hello, Limits};

/// What lists may take beyond three times the input, in bytes.
const LISTS: usize = 60 * 1024;

thread_local! {
    /// What lists may still take in the decoding that runs on this thread.
    static BUDGET: Cell<usize> = const { Cell::new(LISTS) };
}

/// The budget of one decoding, for as long as it lives.
pub(crate) struct Budget {
    before: usize,
}

impl Budget {
    /// For an input of `length` bytes.
    pub(crate) fn new(length: usize) -> Budget {
        Budget { before: BUDGET.replace(length.saturating_mul(3).saturating_add(LISTS)) }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        BUDGET.set(self.before);
    }
}

/// A list of at most `MOST` elements, within the budget.
pub(crate) fn list<'de, const MOST: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list within its limit")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            // The codec knows the length, and has none to tell when that is beyond the input: each of our elements
            // takes a byte at least.
            let length = elements.size_hint().ok_or_else(|| A::Error::custom("the list is cut short"))?;
            let cost = length.saturating_mul(size_of::<T>());
            let budget = BUDGET.get();
            if length > MOST || cost > budget {
                return Err(A::Error::custom("the list is too long"));
            }
            BUDGET.set(budget - cost);
            let mut list = Vec::with_capacity(length);
            while let Some(element) = elements.next_element()? {
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// A list whose length only the budget bounds.
pub(crate) fn long_list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list::<{ usize::MAX }, T, D>(deserializer)
}

/// An array of bytes, or none.
pub(crate) fn maybe_array<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<[u8; N]>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Of<const N: usize>(#[serde(deserialize_with = "array")] [u8; N]);

    Ok(Option::<Of<N>>::deserialize(deserializer)?.map(|Of(bytes)| bytes))
}

/// So many bytes. serde's own takes them in a row of as many steps as there are bytes, not in a loop.
pub(crate) fn array<'de, const N: usize, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; N], D::Error> {
    struct Array<const N: usize>;

    impl<'de, const N: usize> Visitor<'de> for Array<N> {
        type Value = [u8; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of bytes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<[u8; N], A::Error> {
            let mut array = [0; N];
            for byte in &mut array {
                *byte = bytes.next_element()?.ok_or_else(|| A::Error::custom("the array is cut short"))?;
            }
            Ok(array)
        }
    }

    deserializer.deserialize_tuple(N, Array)
}

/// The stages of a connect: each once, and some to come.
pub(crate) fn stages<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    list::<16, T, D>(deserializer)
}

/// A text of at most `MOST` bytes.
pub(crate) fn text<'de, const MOST: usize, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text<const MOST: usize>;

    impl<const MOST: usize> Visitor<'_> for Text<MOST> {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text of at most {MOST} bytes")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            if text.len() > MOST { Err(E::custom("the text is too long")) } else { Ok(text.to_owned()) }
        }
    }

    deserializer.deserialize_str(Text::<MOST>)
}

/// A name of at most [`Limits::NAME`] bytes.
pub(crate) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<{ Limits::NAME }, D>(deserializer)
}

/// A message for people, of at most [`Limits::MESSAGE`] bytes.
pub(crate) fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<{ Limits::MESSAGE }, D>(deserializer)
}

/// As [`name`], or nothing.
pub(crate) fn maybe_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(serde::Deserialize)]
    struct Name(#[serde(deserialize_with = "name")] String);
    Ok(Option::<Name>::deserialize(deserializer)?.map(|Name(name)| name))
}

/// A child's account of itself, with the same checks as in its hello.
pub(crate) fn checked_hello<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChildHello, D::Error> {
    let hello = ChildHello::deserialize(deserializer)?;
    hello.check().map_err(D::Error::custom)?;
    Ok(hello)
}

/// Byte strings of at most `MOST` bytes: the layout of a list of bytes, handled as one piece.
pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        at_most::<{ usize::MAX }, D>(deserializer)
    }

    pub(crate) fn at_most<'de, const MOST: usize, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes<const MOST: usize>;

        impl<const MOST: usize> Visitor<'_> for Bytes<MOST> {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > MOST { Err(E::custom("the bytes are too many")) } else { Ok(bytes.to_vec()) }
            }
        }

        deserializer.deserialize_bytes(Bytes::<MOST>)
    }
}

/// What a tool or peer said: at most [`Limits::SEEN`] bytes.
pub(crate) mod seen {
    use super::*;

    pub(crate) use super::bytes::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        bytes::at_most::<{ Limits::SEEN }, D>(deserializer)
    }
}

/// Bytes, or nothing: the layout of [`maybe_bytes`], from where they are.
pub(crate) fn maybe_piece<S: Serializer>(piece: Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(serde::Serialize)]
    struct Borrowed<'a>(#[serde(serialize_with = "bytes::serialize")] &'a [u8]);
    serde::Serialize::serialize(&piece.map(Borrowed), serializer)
}

/// Optional byte strings.
pub(crate) mod maybe_bytes {
    use super::*;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Piece(#[serde(with = "super::bytes")] Vec<u8>);

    #[derive(serde::Serialize)]
    struct Borrowed<'a>(#[serde(with = "super::bytes")] &'a [u8]);

    pub(crate) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&bytes.as_deref().map(Borrowed), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Piece>::deserialize(deserializer)?.map(|Piece(bytes)| bytes))
    }
}

/// Lists of byte strings.
pub(crate) mod byte_strings {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Piece(#[serde(deserialize_with = "super::bytes::deserialize")] Vec<u8>);

    #[derive(serde::Serialize)]
    struct Borrowed<'a>(#[serde(with = "super::bytes")] &'a [u8]);

    pub(crate) fn serialize<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|bytes| Borrowed(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        // The same allocation is reused: a newtype around a Vec has its size and alignment.
        Ok(long_list::<Piece, D>(deserializer)?.into_iter().map(|Piece(bytes)| bytes).collect())
    }
}
