//! Decoding values of users' types that come from a context which may be hostile (S7).
//!
//! This module owns a second reader of the payload format that [`crate::encode`] writes. A user's type can be anything,
//! so unlike [`crate::decode`] it trusts no length: nothing is reserved in advance, and what a value is made of is
//! counted while it is read. It is pure and may run on any thread.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use crate::DecodeError;

/// The most elements that take no bytes, over the whole value: `Vec<()>` of a billion is five bytes long.
const EMPTY_MAX: usize = 65_536;
/// The deepest nesting of lists, maps, structures, options and variants: a list of lists must not eat the stack.
const DEPTH_MAX: usize = 64;

/// Decodes a value of a user's type.
///
/// - Elements of lists and maps: no more than the input has bytes, beside at most 65,536 that take none.
/// - Nothing is reserved on the word of a length; containers grow as their elements come.
/// - Nesting is at most 64 deep.
///
/// How much memory an element takes is the type's own choice: a list of large optional arrays can be large.
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one value, or break one of these limits.
///
/// # Examples
///
/// ```
/// use offshoot_wire::{decode_untrusted, encode};
/// let value: Vec<(String, Option<f64>)> = vec![("load".into(), Some(0.5))];
/// assert_eq!(decode_untrusted(&encode(&value)), Ok(value));
/// assert!(decode_untrusted::<Vec<()>>(&encode(&vec![(); 100_000])).is_err());
/// ```
pub fn decode_untrusted<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader { rest: bytes, empty: 0, depth: 0 };
    let value = T::deserialize(&mut reader).map_err(|Stop(reason)| DecodeError::Malformed(reason))?;
    if reader.rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(reader.rest.len())) }
}

/// Why reading stopped. A type's own message is dropped: it may be as long as the sender likes.
#[derive(Debug)]
struct Stop(&'static str);

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Stop {
        Stop("the type refuses it")
    }
}

const CUT: Stop = Stop("the bytes end early");

struct Reader<'de> {
    rest: &'de [u8],
    /// Elements so far that took no bytes.
    empty: usize,
    /// How deep the value that is read now is nested.
    depth: usize,
}

impl<'de> Reader<'de> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&byte, rest) = self.rest.split_first().ok_or(CUT)?;
        self.rest = rest;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&'de [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An unsigned integer of at most `bits` bits: LEB128.
    fn integer(&mut self, bits: u32) -> Result<u128, Stop> {
        let mut value = 0u128;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if shift >= bits || (bits - shift < 7 && part >> (bits - shift) != 0) {
                return Err(Stop("bad integer"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A signed integer: zigzag, so that small negative ones are short.
    fn signed(&mut self, bits: u32) -> Result<i128, Stop> {
        let value = self.integer(bits)?;
        Ok((value >> 1) as i128 ^ -((value & 1) as i128))
    }

    fn length(&mut self) -> Result<usize, Stop> {
        usize::try_from(self.integer(64)?).map_err(|_| CUT)
    }

    fn piece(&mut self) -> Result<&'de [u8], Stop> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'de str, Stop> {
        std::str::from_utf8(self.piece()?).map_err(|_| Stop("bad text"))
    }

    /// Reads something nested.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        if self.depth == DEPTH_MAX {
            return Err(Stop("nested too deeply"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// The length of a list or map, judged before its first element.
    fn count(&mut self) -> Result<usize, Stop> {
        let count = self.length()?;
        if count > self.rest.len() + (EMPTY_MAX - self.empty) {
            return Err(Stop("more elements than bytes"));
        }
        Ok(count)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $read:ident $bits:literal $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            // No loss: the value was read with this many bits.
            visitor.$visit(self.$read($bits)? as $type)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Stop;

    integers! {
        deserialize_u16 visit_u16 integer 16 u16;
        deserialize_u32 visit_u32 integer 32 u32;
        deserialize_u64 visit_u64 integer 64 u64;
        deserialize_u128 visit_u128 integer 128 u128;
        deserialize_i16 visit_i16 signed 16 i16;
        deserialize_i32 visit_i32 signed 32 i32;
        deserialize_i64 visit_i64 signed 64 i64;
        deserialize_i128 visit_i128 signed 128 i128;
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop("the type wants a format that describes itself"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Stop("bad boolean")),
        }
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_u8(self.byte()?)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_i8(self.byte()? as i8)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut characters = self.text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => visitor.visit_char(character),
            _ => Err(Stop("bad text")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_borrowed_bytes(self.piece()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.nested(|reader| visitor.visit_some(reader)),
            _ => Err(Stop("bad option")),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.nested(|reader| visitor.visit_newtype_struct(reader))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let left = self.count()?;
        self.nested(|reader| visitor.visit_seq(Elements { reader, left, counted: true }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Stop> {
        self.nested(|reader| visitor.visit_seq(Elements { reader, left, counted: false }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let left = self.count()?;
        self.nested(|reader| visitor.visit_map(Elements { reader, left, counted: true }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.nested(|reader| visitor.visit_enum(Variant { reader }))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }
}

/// What is left of a list, tuple or map.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
    /// Whether their number comes from the input; that of a tuple's or structure's is the type's.
    counted: bool,
}

impl<'de> Elements<'_, 'de> {
    fn next<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Stop> {
        let before = self.reader.rest.len();
        let value = seed.deserialize(&mut *self.reader)?;
        if self.counted && self.reader.rest.len() == before {
            self.reader.empty += 1;
            if self.reader.empty > EMPTY_MAX {
                return Err(Stop("too many elements without bytes"));
            }
        }
        Ok(value)
    }
}

impl<'de> de::SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.next(seed).map(Some)
    }

    /// None, though the length is known: containers would reserve it.
    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de> de::MapAccess<'de> for Elements<'_, 'de> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        None
    }
}

struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Stop> {
        // No loss: read with 32 bits.
        let number = self.reader.integer(32)? as u32;
        Ok((seed.deserialize(IntoDeserializer::<Stop>::into_deserializer(number))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stop> {
        de::Deserializer::deserialize_tuple(self.reader, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.tuple_variant(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::encode;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Dot,
        Circle(f32),
        Line(i8, i64),
        Named { name: String, of: Option<Box<Shape>> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        unit: (),
        flag: bool,
        small: (u8, u16, i16),
        wide: (u128, i128, i32, u32),
        letter: char,
        shapes: Vec<Shape>,
        map: BTreeMap<String, Vec<u8>>,
        fixed: [u64; 3],
    }

    fn everything() -> Everything {
        Everything {
            unit: (),
            flag: true,
            small: (255, 65535, -32768),
            wide: (u128::MAX, i128::MIN, i32::MIN, u32::MAX),
            letter: '\u{1f980}',
            shapes: vec![
                Shape::Dot,
                Shape::Circle(1.5),
                Shape::Line(-1, i64::MIN),
                Shape::Named { name: "x".into(), of: Some(Box::new(Shape::Dot)) },
            ],
            map: [("a".to_owned(), vec![0, 255])].into(),
            fixed: [0, 1, u64::MAX],
        }
    }

    #[test]
    fn what_was_encoded_comes_back_and_every_cut_is_refused() {
        let bytes = encode(&everything());
        assert_eq!(decode_untrusted(&bytes), Ok(everything()));
        for cut in 0..bytes.len() {
            assert!(decode_untrusted::<Everything>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode_untrusted::<Everything>(&longer), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn s7_a_length_that_lies_is_refused_before_its_first_element() {
        let lie = encode(&u64::MAX);
        for result in [
            decode_untrusted::<Vec<u8>>(&lie).map(drop),
            decode_untrusted::<Vec<()>>(&lie).map(drop),
            decode_untrusted::<BTreeMap<u8, u8>>(&lie).map(drop),
            decode_untrusted::<Vec<[u64; 32]>>(&lie).map(drop),
        ] {
            assert_eq!(result, Err(DecodeError::Malformed("more elements than bytes")));
        }
        assert_eq!(decode_untrusted::<String>(&lie), Err(DecodeError::Malformed("the bytes end early")));
    }

    #[test]
    fn s7_elements_without_bytes_are_counted_over_the_whole_value() {
        assert_eq!(decode_untrusted::<Vec<()>>(&encode(&vec![(); 65_536])).map(|list| list.len()), Ok(65_536));
        assert!(decode_untrusted::<Vec<()>>(&encode(&vec![(); 65_537])).is_err());
        let split = encode(&vec![vec![(); 40_000]; 2]);
        assert_eq!(decode_untrusted::<Vec<Vec<()>>>(&split), Err(DecodeError::Malformed("more elements than bytes")));
        // The same, where the bytes that follow hide it from the first look.
        let hidden = encode(&(vec![vec![(); 40_000]; 2], vec![0u8; 100_000]));
        assert_eq!(
            decode_untrusted::<(Vec<Vec<()>>, Vec<u8>)>(&hidden),
            Err(DecodeError::Malformed("too many elements without bytes"))
        );
    }

    #[test]
    fn s7_nesting_ends_at_64() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Nest(Vec<Nest>);
        fn nest(depth: usize) -> Vec<u8> {
            [vec![1; depth - 1], vec![0]].concat()
        }
        assert!(decode_untrusted::<Nest>(&nest(32)).is_ok(), "each level is a structure and a list");
        assert_eq!(decode_untrusted::<Nest>(&nest(33)), Err(DecodeError::Malformed("nested too deeply")));
        assert_eq!(decode_untrusted::<Nest>(&nest(1_000_000)), Err(DecodeError::Malformed("nested too deeply")));
    }

    #[test]
    fn values_that_no_encoder_writes_are_refused() {
        assert!(decode_untrusted::<bool>(&[2]).is_err());
        assert!(decode_untrusted::<Option<u8>>(&[2, 0]).is_err());
        assert!(decode_untrusted::<u16>(&[0xff, 0xff, 0x04]).is_err(), "17 bits");
        assert!(decode_untrusted::<u16>(&[0xff, 0xff, 0xff, 0x00]).is_err(), "four bytes");
        assert!(decode_untrusted::<Shape>(&[9]).is_err());
        assert!(decode_untrusted::<String>(&[1, 0xff]).is_err());
        assert!(decode_untrusted::<char>(&[2, b'a', b'b']).is_err());
        assert!(decode_untrusted::<char>(&[0]).is_err());
    }
}
