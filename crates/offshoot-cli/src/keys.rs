//! What is typed in a terminal session: all of it is the target's, but for the escapes at the beginning of a line.
//!
//! Pure: bytes in, bytes and wishes out. As with ssh, `~` means something only behind a newline, and twice it is itself.

/// Something to do with what was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These bytes are the target's.
    Bytes(Vec<u8>),
    /// The session is to end at once.
    Leave,
    /// We are to be stopped.
    Suspend,
    /// The user wants to know the escapes.
    Help,
}

/// Finds the escapes.
#[derive(Debug)]
pub(crate) struct Keys {
    /// `None` when there are none.
    escape: Option<u8>,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Escape,
    Within,
}

const CTRL_Z: u8 = 0x1a;

impl Keys {
    pub(crate) fn new(escape: Option<u8>) -> Keys {
        Keys { escape, at: At::LineStart }
    }

    /// Takes what was typed.
    pub(crate) fn take(&mut self, typed: &[u8]) -> Vec<Typed> {
        let Some(escape) = self.escape else { return vec![Typed::Bytes(typed.to_vec())] };
        let mut found = Vec::new();
        let mut bytes = Vec::new();
        for &byte in typed {
            let wish = match (self.at, byte) {
                (At::LineStart, byte) if byte == escape => {
                    self.at = At::Escape;
                    continue;
                }
                (At::Escape, b'.') => Some(Typed::Leave),
                (At::Escape, CTRL_Z) => Some(Typed::Suspend),
                (At::Escape, b'?') => Some(Typed::Help),
                _ => None,
            };
            if let Some(wish) = wish {
                if !bytes.is_empty() {
                    found.push(Typed::Bytes(std::mem::take(&mut bytes)));
                }
                found.push(wish);
                self.at = At::LineStart;
                continue;
            }
            if self.at == At::Escape && byte != escape {
                // It was no escape after all.
                bytes.push(escape);
            }
            bytes.push(byte);
            self.at = if matches!(byte, b'\r' | b'\n') { At::LineStart } else { At::Within };
        }
        if !bytes.is_empty() {
            found.push(Typed::Bytes(bytes));
        }
        found
    }
}

/// Reads the value of `--escape`: one printable character, `^X`, or `none`.
pub(crate) fn escape(text: &str) -> Result<Option<u8>, String> {
    match text.as_bytes() {
        b"none" => Ok(None),
        [byte] if byte.is_ascii_graphic() => Ok(Some(*byte)),
        [b'^', byte] if (b'@'..=b'_').contains(&byte.to_ascii_uppercase()) => {
            Ok(Some(byte.to_ascii_uppercase() & 0x1f))
        }
        _ => Err("expected one character, ^X, or none".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(escape: Option<u8>, typed: &[&str]) -> Vec<Typed> {
        let mut keys = Keys::new(escape);
        let mut all: Vec<Typed> = Vec::new();
        for typed in typed.iter().flat_map(|typed| keys.take(typed.as_bytes())) {
            match (all.last_mut(), typed) {
                (Some(Typed::Bytes(before)), Typed::Bytes(more)) => before.extend(more),
                (_, typed) => all.push(typed),
            }
        }
        all
    }

    fn bytes(text: &str) -> Typed {
        Typed::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn an_escape_counts_only_where_a_line_begins() {
        assert_eq!(taken(Some(b'~'), &["~."]), [Typed::Leave]);
        assert_eq!(taken(Some(b'~'), &["ls\r", "~", "."]), [bytes("ls\r"), Typed::Leave]);
        assert_eq!(taken(Some(b'~'), &["ls ~.", "x~."]), [bytes("ls ~.x~.")]);
        assert_eq!(taken(Some(b'~'), &["\n~?ab"]), [bytes("\n"), Typed::Help, bytes("ab")]);
        assert_eq!(taken(Some(b'~'), &["\r~\x1a~."]), [bytes("\r"), Typed::Suspend, Typed::Leave]);
    }

    #[test]
    fn what_is_no_escape_is_the_targets_untouched() {
        assert_eq!(taken(Some(b'~'), &["~~."]), [bytes("~.")]);
        assert_eq!(taken(Some(b'~'), &["~", "x~."]), [bytes("~x~.")]);
        assert_eq!(taken(Some(b'~'), &["~\r~."]), [bytes("~\r"), Typed::Leave]);
        assert_eq!(taken(None, &["\r~.\r~?"]), [bytes("\r~.\r~?")]);
        assert_eq!(taken(Some(0x1d), &["\r~.\r\x1d."]), [bytes("\r~.\r"), Typed::Leave]);
    }

    #[test]
    fn the_option_takes_a_character_a_control_character_or_none() {
        assert_eq!(escape("~"), Ok(Some(b'~')));
        assert_eq!(escape("^]"), Ok(Some(0x1d)));
        assert_eq!(escape("none"), Ok(None));
        for wrong in ["", "ab", "^1", "ü", " ", "^^^"] {
            assert!(escape(wrong).is_err(), "{wrong:?}");
        }
    }
}
