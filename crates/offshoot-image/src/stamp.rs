//! The stamp: by which build of a program an executable was made, readable without running it.
//!
//! Whoever builds a program for several triples sets [`VARIABLE`] to the same [`DIGITS`] hexadecimal digits for all of
//! them. The program keeps them as a [`Stamp`], behind a text that is looked for. So a file of another build is told before
//! it is sent anywhere.

/// The variable of the environment that is compiled in.
pub const VARIABLE: &str = "OFFSHOOT_BUILD_ID";

/// How long a build's id is, in hexadecimal digits: a SHA-256.
pub const DIGITS: usize = 64;

/// Stands before the digits. Not text that anybody writes, the last is the format's version.
const MARK: [u8; 16] = *b"\xf0offshoot build\x01";

/// Stands behind the digits.
const END: u8 = 0xf1;

/// A build's id as it lies in an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Stamp {
    mark: [u8; 16],
    id: [u8; DIGITS],
    end: u8,
}

impl Stamp {
    /// The stamp of a build; `None` without an id. For a `static`: `Stamp::new(option_env!("OFFSHOOT_BUILD_ID"))`.
    ///
    /// # Panics
    /// When the id is not of [`DIGITS`] lower-case hexadecimal digits. In a `static` that is an error of the compiler.
    pub const fn new(id: Option<&str>) -> Option<Stamp> {
        let Some(id) = id else { return None };
        let from = id.as_bytes();
        assert!(is_id(from), "OFFSHOOT_BUILD_ID is not of 64 lower-case hexadecimal digits");
        let mut id = [0; DIGITS];
        let mut at = 0;
        while at < DIGITS {
            id[at] = from[at];
            at += 1;
        }
        Some(Stamp { mark: MARK, id, end: END })
    }

    /// The stamp as it lies in an executable.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.mark[..], &self.id, &[self.end]].concat()
    }

    /// The id's digits.
    pub fn id(&self) -> &[u8; DIGITS] {
        &self.id
    }
}

const fn is_id(id: &[u8]) -> bool {
    if id.len() != DIGITS {
        return false;
    }
    let mut at = 0;
    while at < DIGITS {
        if !matches!(id[at], b'0'..=b'9' | b'a'..=b'f') {
            return false;
        }
        at += 1;
    }
    true
}

/// The id of the build that made an executable; `None` when it has no stamp.
pub fn find(executable: &[u8]) -> Option<&str> {
    let whole = MARK.len() + DIGITS + 1;
    let mut rest = executable;
    // By the first byte, which is rare in an executable: a search for the whole mark at each byte takes ten times as long.
    while let Some(at) = rest.iter().position(|byte| *byte == MARK[0]) {
        rest = &rest[at..];
        if rest.starts_with(&MARK)
            && let Some(stamp) = rest.get(..whole)
            && stamp[whole - 1] == END
            && is_id(&stamp[MARK.len()..whole - 1])
        {
            return std::str::from_utf8(&stamp[MARK.len()..whole - 1]).ok();
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_stamp_is_found_wherever_it_lies() {
        let stamp = Stamp::new(Some(ID)).unwrap();
        let decoys = [&MARK[..], b"no digits", &stamp.bytes()[..40], &[MARK[0]; 20]].concat();
        for before in [0, 1, 4095] {
            let file = [&vec![MARK[0]; before][..], &decoys, &stamp.bytes(), b"behind"].concat();
            assert_eq!(find(&file), Some(ID), "{before}");
        }
        assert_eq!(find(&decoys), None);
        assert_eq!(find(&stamp.bytes()[..80]), None);
        assert_eq!(find(b""), None);
    }

    #[test]
    fn a_build_without_an_id_has_no_stamp() {
        assert_eq!(Stamp::new(None), None);
    }

    #[test]
    #[should_panic(expected = "hexadecimal digits")]
    fn an_id_of_other_digits_is_refused() {
        let _ = Stamp::new(Some(&ID.to_uppercase()));
    }
}
