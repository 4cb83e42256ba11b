//! Escaping: how bytes from another machine are shown on a terminal or in a log line (R10, S8).
//!
//! This module owns which characters are dangerous and how they are written instead. It knows nothing of terminals,
//! colours or lines; it is pure and may run on any thread.
//!
//! Dangerous are the C0 controls except tab, DEL, the C1 controls, the bidirectional controls, the Unicode line and
//! paragraph separators, and whatever is not UTF-8. Every byte of such a character is written as `\xNN`, so one record
//! stays one line and no byte of it moves a cursor, changes a colour or turns text around. A backslash is left as it
//! is, since text is read more often than it is decoded; [`quoted`] doubles it.

use std::fmt;

/// Whether `c` may change more on a terminal than the cell it is printed in, or end a record early.
///
/// Tab counts as harmless, newline and carriage return do not.
pub fn is_dangerous(c: char) -> bool {
    match c {
        '\t' | ' '..='~' => false,
        // C0, DEL and C1, then: Arabic letter mark, left-to-right and right-to-left marks, line and paragraph
        // separators, embeddings and overrides, isolates.
        '\0'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => true,
        _ => false,
    }
}

/// Bytes, shown as text with everything dangerous escaped.
///
/// ```
/// use offshoot_wire::escape::escaped;
/// assert_eq!(escaped(b"caf\xc3\xa9 \x1b[31m\xff").to_string(), "caf\u{e9} \\x1b[31m\\xff");
/// ```
pub fn escaped(bytes: &[u8]) -> Escaped<'_> {
    Escaped { bytes, quoted: false }
}

/// Bytes, shown as one quoted text: as [`escaped`], with `\n`, `\r`, `\t`, `\"` and `\\` written so.
///
/// ```
/// use offshoot_wire::escape::quoted;
/// assert_eq!(quoted(b"a \"b\"\n\x07").to_string(), r#""a \"b\"\n\x07""#);
/// ```
pub fn quoted(bytes: &[u8]) -> Escaped<'_> {
    Escaped { bytes, quoted: true }
}

/// What [`escaped`] and [`quoted`] return: a value to display.
#[derive(Clone, Copy)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    quoted: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted {
            f.write_str("\"")?;
        }
        for chunk in self.bytes.utf8_chunks() {
            let text = chunk.valid();
            let mut plain = 0;
            for (at, c) in text.char_indices() {
                let short = if self.quoted { shorthand(c) } else { None };
                if short.is_none() && !is_dangerous(c) {
                    continue;
                }
                f.write_str(&text[plain..at])?;
                plain = at + c.len_utf8();
                match short {
                    Some(short) => f.write_str(short)?,
                    None => text.as_bytes()[at..plain].iter().try_for_each(|byte| write_hex(*byte, f))?,
                }
            }
            f.write_str(&text[plain..])?;
            chunk.invalid().iter().try_for_each(|byte| write_hex(*byte, f))?;
        }
        if self.quoted { f.write_str("\"") } else { Ok(()) }
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Appends what [`escaped`] shows to `out`. At most four times as long as `bytes`.
pub fn escape_into(bytes: &[u8], out: &mut Vec<u8>) {
    // Nearly every line is plain ASCII, and this runs for every byte of every target's output.
    if bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut plain = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| is_dangerous(*c)) {
            out.extend_from_slice(&text.as_bytes()[plain..at]);
            plain = at + c.len_utf8();
            text.as_bytes()[at..plain].iter().for_each(|byte| out.extend(hex(*byte)));
        }
        out.extend_from_slice(&text.as_bytes()[plain..]);
        chunk.invalid().iter().for_each(|byte| out.extend(hex(*byte)));
    }
}

fn shorthand(c: char) -> Option<&'static str> {
    Some(match c {
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '"' => "\\\"",
        '\\' => "\\\\",
        _ => return None,
    })
}

fn hex(byte: u8) -> [u8; 4] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

fn write_hex(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    hex(byte).iter().try_for_each(|&digit| fmt::Write::write_char(f, char::from(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(bytes: &[u8]) -> String {
        let shown = escaped(bytes).to_string();
        let mut appended = Vec::new();
        escape_into(bytes, &mut appended);
        assert_eq!(shown.as_bytes(), appended, "the two forms differ");
        shown
    }

    #[test]
    fn s8_controls_bidi_and_invalid_bytes_are_escaped_and_text_is_not() {
        for (bytes, shown) in [
            (&b"plain\ttext ~"[..], "plain\ttext ~"),
            (b"\x1b[2J\x07\x7f\r\n", "\\x1b[2J\\x07\\x7f\\x0d\\x0a"),
            ("na\u{ef}ve \u{4e2d}\u{6587} \u{1f980}".as_bytes(), "na\u{ef}ve \u{4e2d}\u{6587} \u{1f980}"),
            ("\u{9b}31m".as_bytes(), "\\xc2\\x9b31m"),
            ("a\u{202e}b\u{2066}c\u{200f}".as_bytes(), "a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6c\\xe2\\x80\\x8f"),
            ("one\u{2028}record".as_bytes(), "one\\xe2\\x80\\xa8record"),
            (b"\xff\xfe ok \xe2\x82", "\\xff\\xfe ok \\xe2\\x82"),
            (b"C:\\dir", "C:\\dir"),
        ] {
            assert_eq!(both(bytes), shown);
        }
    }

    #[test]
    fn s8_every_single_byte_and_every_dangerous_character_leaves_nothing_dangerous() {
        for byte in 0..=255u8 {
            assert!(!both(&[byte]).chars().any(is_dangerous), "{byte:#x}");
            assert!(!quoted(&[byte]).to_string().contains(|c| is_dangerous(c) || c == '\t'), "{byte:#x}");
        }
        for c in ('\0'..=char::MAX).filter(|c| is_dangerous(*c)) {
            assert!(!both(c.to_string().as_bytes()).chars().any(is_dangerous), "{c:?}");
        }
    }

    #[test]
    fn a_quoted_text_shows_its_backslashes_and_quotes() {
        assert_eq!(quoted("\\ \" \n \u{202e}".as_bytes()).to_string(), "\"\\\\ \\\" \\n \\xe2\\x80\\xae\"");
    }
}
