//! How texts and bytes of our messages are written, and what bounds those that users' values may hold.
//!
//! Each function here is a field's `serialize_with`, `deserialize_with` or `with`. None of them changes the layout. Our
//! own messages are read, within their limits, by [`reader`](crate::reader); a [`Failure`](crate::Failure) may also be
//! part of a user's value, and keeps its limits there.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;

use crate::Limits;

/// A text of at most `MOST` bytes.
fn text<'de, const MOST: usize, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
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

/// How many stages a connect may have: each of ours once, and some to come.
pub(crate) const STAGES: usize = 16;

/// The stages of a connect, at most [`STAGES`].
pub(crate) fn stages<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct Stages<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Stages<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {STAGES} stages")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == STAGES {
                    return Err(de::Error::custom("the stages are too many"));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Stages(PhantomData))
}

/// Byte strings: the layout of a list of bytes, handled as one piece.
pub(crate) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What a tool or peer said: at most [`Limits::SEEN`] bytes.
pub(crate) mod seen {
    use super::*;

    pub(crate) use super::bytes as serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Seen;

        impl Visitor<'_> for Seen {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                if bytes.len() > Limits::SEEN { Err(E::custom("the bytes are too many")) } else { Ok(bytes.to_vec()) }
            }
        }

        deserializer.deserialize_bytes(Seen)
    }
}

#[derive(serde::Serialize)]
struct Piece<'a>(#[serde(serialize_with = "bytes")] &'a [u8]);

/// Bytes, or nothing: the layout of [`maybe_bytes`], from where they are.
pub(crate) fn maybe_piece<S: Serializer>(piece: Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&piece.map(Piece), serializer)
}

/// Optional byte strings.
pub(crate) fn maybe_bytes<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    maybe_piece(bytes.as_deref(), serializer)
}

/// Lists of byte strings.
pub(crate) fn byte_strings<S: Serializer>(list: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|bytes| Piece(bytes)))
}
