//! Addresses: the path of child indexes from the root of the tree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smallvec::SmallVec;

use crate::reader::{Decode, Reader};
use crate::{limits::Limits, varint};

/// Where a context sits in its tree: the child indexes from the root, at most [`Limits::DEPTH`] of them.
///
/// An address is given by the parent and never reused within a tree (R3). The root is [`Address::ROOT`], written `/`.
///
/// ```
/// use offshoot_wire::Address;
/// let web: Address = "/3/1".parse().unwrap();
/// assert_eq!(web.parent().unwrap().to_string(), "/3");
/// assert!(web.is_under(&Address::ROOT));
/// ```
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(SmallVec<[u32; 6]>);

impl Clone for Address {
    // Copied as a slice: the derived one goes element by element, and addresses are cloned for every frame.
    fn clone(&self) -> Address {
        Address(SmallVec::from_slice(&self.0))
    }
}

/// Why a path is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// More than [`Limits::DEPTH`] hops.
    #[error("an address is at most 64 hops deep")]
    TooDeep,
    /// The text is not `/` or `/N/N…`.
    #[error("an address is written / or /N/N…, each N a child's number")]
    Syntax,
}

impl Address {
    /// The root of the tree: the master.
    pub const ROOT: Address = Address(SmallVec::new_const());

    /// The address at the end of `path`.
    ///
    /// # Errors
    /// [`AddressError::TooDeep`] when the path is longer than [`Limits::DEPTH`].
    pub fn from_path(path: &[u32]) -> Result<Address, AddressError> {
        if path.len() > Limits::DEPTH {
            return Err(AddressError::TooDeep);
        }
        Ok(Address(SmallVec::from_slice(path)))
    }

    /// The child indexes from the root.
    pub fn path(&self) -> &[u32] {
        &self.0
    }

    /// How many hops below the root.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// The address of child `index` of this context.
    ///
    /// # Errors
    /// [`AddressError::TooDeep`] when this context already sits at [`Limits::DEPTH`].
    pub fn child(&self, index: u32) -> Result<Address, AddressError> {
        if self.0.len() >= Limits::DEPTH {
            return Err(AddressError::TooDeep);
        }
        let mut path = self.0.clone();
        path.push(index);
        Ok(Address(path))
    }

    /// The parent's address; `None` for the root.
    pub fn parent(&self) -> Option<Address> {
        let (_, parent) = self.0.split_last()?;
        Some(Address(SmallVec::from_slice(parent)))
    }

    /// Whether this context is `ancestor` itself or lies below it.
    pub fn is_under(&self, ancestor: &Address) -> bool {
        self.0.starts_with(&ancestor.0)
    }

    /// Whether this context lies strictly below `ancestor`.
    pub fn is_below(&self, ancestor: &Address) -> bool {
        self.0.len() > ancestor.0.len() && self.is_under(ancestor)
    }

    /// The index of the child of `self` on the way down to `below`; `None` when `below` is not below.
    pub fn next_hop(&self, below: &Address) -> Option<u32> {
        if below.is_below(self) { below.0.get(self.0.len()).copied() } else { None }
    }

    /// The lowest common ancestor: where a message between the two turns.
    pub fn common(&self, other: &Address) -> Address {
        let shared = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        Address(SmallVec::from_slice(&self.0[..shared]))
    }

    /// Appends the header form: one byte of depth, then each index as LEB128.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(self.0.len() as u8);
        for &index in &self.0 {
            varint::put(u64::from(index), out);
        }
    }

    /// Reads the header form from the front of `bytes`.
    pub(crate) fn take(bytes: &[u8]) -> Option<(Address, &[u8])> {
        let (&depth, mut rest) = bytes.split_first()?;
        if usize::from(depth) > Limits::DEPTH {
            return None;
        }
        let mut path = [0; Limits::DEPTH];
        let path = path.get_mut(..usize::from(depth))?;
        for place in &mut *path {
            (*place, rest) = varint::take_u32(rest)?;
        }
        Some((Address(SmallVec::from_slice(path)), rest))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|index| write!(f, "/{index}"))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let rest = text.strip_prefix('/').ok_or(AddressError::Syntax)?;
        if rest.is_empty() {
            return Ok(Address::ROOT);
        }
        let path: Vec<u32> =
            rest.split('/').map(|part| part.parse().map_err(|_| AddressError::Syntax)).collect::<Result<_, _>>()?;
        Address::from_path(&path)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.path().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        struct Path;
        impl<'de> de::Visitor<'de> for Path {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address of at most 64 hops")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Address, A::Error> {
                let mut path = SmallVec::new();
                while let Some(index) = seq.next_element()? {
                    if path.len() == Limits::DEPTH {
                        return Err(de::Error::custom(AddressError::TooDeep));
                    }
                    path.push(index);
                }
                Ok(Address(path))
            }
        }
        deserializer.deserialize_seq(Path)
    }
}

impl Decode for Address {
    fn read(from: &mut Reader<'_>) -> Address {
        let mut path = SmallVec::new();
        for _ in 0..from.hops() {
            path.push(u32::read(from));
        }
        Address(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Address {
        text.parse().expect("an address")
    }

    #[test]
    fn relations_follow_the_path() {
        assert!(at("/3/1").is_below(&at("/3")));
        assert!(at("/3").is_under(&at("/3")));
        assert!(!at("/3").is_below(&at("/3")));
        assert!(!at("/31").is_under(&at("/3")));
        assert_eq!(at("/3").next_hop(&at("/3/7/9")), Some(7));
        assert_eq!(at("/3").next_hop(&at("/3")), None);
        assert_eq!(at("/3").next_hop(&at("/4/1")), None);
        assert_eq!(at("/3/1/5").common(&at("/3/2")), at("/3"));
        assert_eq!(at("/1").common(&at("/2")), Address::ROOT);
    }

    #[test]
    fn the_65th_hop_is_refused_everywhere() {
        let deep = Address::from_path(&[1; 64]).expect("64 hops fit");
        assert_eq!(deep.child(0), Err(AddressError::TooDeep));
        assert_eq!(Address::from_path(&[1; 65]), Err(AddressError::TooDeep));
        let mut bytes = vec![65];
        bytes.extend([1; 65]);
        assert_eq!(Address::take(&bytes), None);
        assert!(crate::decode::<Address>(&bytes).is_err());
    }

    #[test]
    fn text_comes_back() {
        for text in ["/", "/0", "/3/1", "/4294967295/7"] {
            assert_eq!(at(text).to_string(), text);
        }
        for bad in ["", "3", "//", "/3/", "/-1", "/4294967296"] {
            assert_eq!(bad.parse::<Address>(), Err(AddressError::Syntax), "{bad}");
        }
    }
}
