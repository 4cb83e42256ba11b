//! Reading this crate's own messages, within their limits (S7, S12).
//!
//! What goes wrong is kept, and from there on there are no more bytes: what is read is zero or empty. So no field asks
//! whether the one before it could be read, and the reader of a message is a row of calls, which is what an agent has
//! room for. [`crate::decode`] asks once, at the end, and drops what was read then.
//!
//! What a message may allocate is counted, not estimated: a list is charged with the memory of its elements, exactly
//! reserved, against a budget that follows from the length of the input. Texts and bytes cost no more than the input they
//! are copied from. So one message takes at most 3 × input + 60 KiB for lists and 1 × input for texts: within the
//! 4 × input + 64 KiB of S7.

use crate::{Limits, Secret, bounds};

/// What lists may take beyond three times the input, in bytes.
const LISTS: usize = 60 * 1024;

const LIMIT: &str = "breaks a limit";

/// A value that [`decode`](crate::decode) can read: one of this crate's types, or one that they are made of. Types of
/// users are read by [`decode_untrusted`](crate::decode_untrusted).
pub trait Decode: Sized {
    /// Reads it. Means nothing once the reader has failed.
    fn read(from: &mut Reader<'_>) -> Self;
}

/// A message that is being read.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// What lists may still take.
    budget: usize,
    failed: Option<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, budget: bytes.len().saturating_mul(3).saturating_add(LISTS), failed: None }
    }

    /// What follows the value that was read, or why there is none.
    pub(crate) fn end(self) -> Result<&'a [u8], &'static str> {
        self.failed.map_or(Ok(self.rest), Err)
    }

    /// There is no such message; the first reason counts.
    #[inline(never)]
    pub(crate) fn fail(&mut self, reason: &'static str) {
        self.rest = &[];
        self.failed.get_or_insert(reason);
    }

    #[inline(never)]
    fn take(&mut self, length: usize) -> &'a [u8] {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            self.fail("the bytes end early");
            return &[];
        };
        self.rest = rest;
        taken
    }

    #[inline(never)]
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number of so many bits.
    #[inline(never)]
    fn number(&mut self, bits: u32) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            // The last byte that can be has bits to spare, its highest among them: so this ends.
            if bits - shift < 7 && byte >> (bits - shift) != 0 {
                self.fail("bad integer");
                return 0;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    fn length(&mut self) -> usize {
        usize::try_from(self.number(64)).unwrap_or(usize::MAX)
    }

    /// One of two, where anything else is `otherwise`.
    #[inline(never)]
    fn flag(&mut self, otherwise: &'static str) -> bool {
        let byte = self.byte();
        if byte > 1 {
            self.fail(otherwise);
        }
        byte == 1
    }

    /// Which variant of so many.
    #[inline(never)]
    pub(crate) fn variant(&mut self, count: usize) -> usize {
        let variant = self.number(32) as usize;
        if variant < count {
            return variant;
        }
        self.fail("unknown variant");
        0
    }

    /// One of these, which are all variants in their order.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.variant(all.len())]
    }

    #[inline(never)]
    fn piece(&mut self, most: usize) -> &'a [u8] {
        let length = self.length();
        let piece = self.take(length);
        if length > most {
            self.fail(LIMIT);
            return &[];
        }
        piece
    }

    #[inline(never)]
    fn text(&mut self, most: usize) -> String {
        match str::from_utf8(self.piece(most)) {
            Ok(text) => text.to_owned(),
            Err(_) => {
                self.fail("bad text");
                String::new()
            }
        }
    }

    /// A name of at most [`Limits::NAME`] bytes.
    pub(crate) fn name(&mut self) -> String {
        self.text(Limits::NAME)
    }

    /// As [`name`](Self::name), or nothing.
    pub(crate) fn maybe_name(&mut self) -> Option<String> {
        self.maybe(Self::name)
    }

    /// A message for people, of at most [`Limits::MESSAGE`] bytes.
    pub(crate) fn message(&mut self) -> String {
        self.text(Limits::MESSAGE)
    }

    /// What somebody wants to connect to.
    pub(crate) fn target(&mut self) -> String {
        self.text(Limits::TARGET)
    }

    /// Bytes that the input alone bounds.
    pub(crate) fn octets(&mut self) -> Vec<u8> {
        self.piece(usize::MAX).to_vec()
    }

    /// As [`octets`](Self::octets), or nothing.
    pub(crate) fn maybe_octets(&mut self) -> Option<Vec<u8>> {
        self.maybe(Self::octets)
    }

    /// What a tool or peer said: at most [`Limits::SEEN`] bytes.
    pub(crate) fn seen(&mut self) -> Vec<u8> {
        self.piece(Limits::SEEN).to_vec()
    }

    /// A secret, or nothing.
    pub(crate) fn maybe_secret(&mut self) -> Option<Secret> {
        self.maybe(|from| Secret::new(from.piece(Limits::SECRET).to_vec()))
    }

    pub(crate) fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag("bad option") { Some(read(self)) } else { None }
    }

    fn elements<T>(&mut self, most: usize, read: impl Fn(&mut Self) -> T) -> Vec<T> {
        let length = self.length();
        let cost = length.saturating_mul(size_of::<T>());
        // Each of our elements takes a byte at least.
        if length > most || length > self.rest.len() || cost > self.budget {
            self.fail(LIMIT);
            return Vec::new();
        }
        self.budget -= cost;
        let mut list = Vec::with_capacity(length);
        while list.len() < length && self.failed.is_none() {
            list.push(read(self));
        }
        list
    }

    /// A list whose length only the budget bounds.
    pub(crate) fn list<T: Decode>(&mut self) -> Vec<T> {
        self.elements(usize::MAX, T::read)
    }

    /// A list in a recipe.
    pub(crate) fn recipe_list<T: Decode>(&mut self) -> Vec<T> {
        self.elements(Limits::RECIPE_LIST, T::read)
    }

    /// What a grant consists of.
    pub(crate) fn grant_links<T: Decode>(&mut self) -> Vec<T> {
        self.elements(Limits::GRANT_LINKS, T::read)
    }

    /// What the arguments or the value of a call carry.
    pub(crate) fn carried<T: Decode>(&mut self) -> Vec<T> {
        self.elements(Limits::CARRIED, T::read)
    }

    /// The stages of a connect.
    pub(crate) fn stages<T: Decode>(&mut self) -> Vec<T> {
        self.elements(bounds::STAGES, T::read)
    }

    /// How many hops an address has.
    pub(crate) fn hops(&mut self) -> usize {
        let hops = self.length();
        if hops > Limits::DEPTH {
            self.fail(LIMIT);
            return 0;
        }
        hops
    }

    /// Byte strings.
    pub(crate) fn octet_strings(&mut self) -> Vec<Vec<u8>> {
        self.elements(usize::MAX, Self::octets)
    }
}

impl Decode for u8 {
    fn read(from: &mut Reader<'_>) -> u8 {
        from.byte()
    }
}

impl Decode for u16 {
    fn read(from: &mut Reader<'_>) -> u16 {
        from.number(16) as u16
    }
}

impl Decode for u32 {
    fn read(from: &mut Reader<'_>) -> u32 {
        from.number(32) as u32
    }
}

impl Decode for u64 {
    fn read(from: &mut Reader<'_>) -> u64 {
        from.number(64)
    }
}

impl Decode for i32 {
    fn read(from: &mut Reader<'_>) -> i32 {
        let number = from.number(32) as u32;
        (number >> 1) as i32 ^ -((number & 1) as i32)
    }
}

impl Decode for bool {
    fn read(from: &mut Reader<'_>) -> bool {
        from.flag("bad boolean")
    }
}

/// Of any length that the input has.
impl Decode for String {
    fn read(from: &mut Reader<'_>) -> String {
        from.text(usize::MAX)
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn read(from: &mut Reader<'_>) -> [u8; N] {
        from.take(N).try_into().unwrap_or([0; N])
    }
}

impl<T: Decode> Decode for Option<T> {
    fn read(from: &mut Reader<'_>) -> Option<T> {
        from.maybe(T::read)
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn read(from: &mut Reader<'_>) -> (A, B) {
        (A::read(from), B::read(from))
    }
}

impl<A: Decode, B: Decode, C: Decode> Decode for (A, B, C) {
    fn read(from: &mut Reader<'_>) -> (A, B, C) {
        (A::read(from), B::read(from), C::read(from))
    }
}

/// How a structure is read: its fields in their order, each by [`Decode`] or by the function that is named.
macro_rules! read_fields {
    ($type:ident { $($field:ident $(= $read:expr)?),* $(,)? }) => {
        impl crate::reader::Decode for $type {
            fn read(from: &mut crate::reader::Reader<'_>) -> $type {
                $type { $($field: crate::reader::read_fields!(@ from $($read)?)),* }
            }
        }
    };
    (@ $from:ident) => { crate::reader::Decode::read($from) };
    (@ $from:ident $read:expr) => { $read($from) };
}

/// How an enumeration without fields is read: its variants in their order.
macro_rules! read_variants {
    ($type:ident { $($variant:ident),* $(,)? }) => {
        impl crate::reader::Decode for $type {
            fn read(from: &mut crate::reader::Reader<'_>) -> $type {
                from.one_of(&[$($type::$variant),*])
            }
        }
    };
}

pub(crate) use {read_fields, read_variants};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeError, decode, encode};

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                assert_eq!(decode(&encode(&value)), Ok(value));
                assert_eq!(decode(&encode(&(value as u32))), Ok(value as u32));
                assert_eq!(decode(&encode(&(value as u16))), Ok(value as u16));
                for signed in [value as i32, (value as i32).wrapping_neg(), i32::MIN] {
                    assert_eq!(decode(&encode(&signed)), Ok(signed));
                }
            }
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let bad = |reason| Err(DecodeError::Malformed(reason));
        assert_eq!(decode::<u16>(&[0xff, 0xff, 0x04]).map(drop), bad("bad integer"), "17 bits");
        assert_eq!(decode::<u16>(&[0xff, 0xff, 0x83, 0x00]).map(drop), bad("bad integer"), "four bytes");
        assert_eq!(decode::<u32>(&[0xff, 0xff, 0xff, 0xff, 0x10]).map(drop), bad("bad integer"), "33 bits");
        assert_eq!(decode::<u64>(&[0xff; 10]).map(drop), bad("bad integer"), "70 bits");
        assert_eq!(decode::<u64>(&[0xff; 9]).map(drop), bad("the bytes end early"));
        assert_eq!(decode::<bool>(&[2]).map(drop), bad("bad boolean"));
        assert_eq!(decode::<Option<u8>>(&[2, 0]).map(drop), bad("bad option"));
        assert_eq!(decode::<String>(&[1, 0xff]).map(drop), bad("bad text"));
        assert_eq!(decode::<String>(&[2, b'a']).map(drop), bad("the bytes end early"));
        assert_eq!(decode::<crate::Ran>(&[3]).map(drop), bad("unknown variant"));
        assert_eq!(decode::<[u8; 4]>(&[1, 2, 3]).map(drop), bad("the bytes end early"));
        assert_eq!(decode::<u8>(&[1, 2]).map(drop), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn the_first_reason_counts() {
        let mut reader = Reader::new(&[2, 7]);
        assert!(!reader.flag("bad boolean"));
        assert_eq!((reader.byte(), reader.octets(), reader.name()), (0, Vec::new(), String::new()));
        assert_eq!(reader.end(), Err("bad boolean"));
    }
}
