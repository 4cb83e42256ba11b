//! What the command's output looks like, said once: `TARGET: line` for output, three parts for errors, and no byte that a terminal acts upon.

use crate::bounded::Finished;

/// Exit codes of the command itself.
pub mod code {
    /// A deadline passed.
    pub const TIMEOUT: i32 = 124;
    /// The fault is ours or the user's, not the command's that was to run.
    pub const OURS: i32 = 125;
    /// The command cannot be executed.
    pub const NOT_EXECUTABLE: i32 = 126;
    /// There is no such command.
    pub const NOT_FOUND: i32 = 127;
    /// Ctrl-C.
    pub const INTERRUPTED: i32 = 130;
    /// Ctrl-\.
    pub const QUIT: i32 = 131;
    /// TERM.
    pub const TERMINATED: i32 = 143;
    /// A link was lost.
    pub const LINK_LOST: i32 = 255;
}

impl Finished {
    /// The lines that a target has written to its output, without the target's name in front, which may be padded.
    pub fn lines_from(&self, target: &str) -> Vec<String> {
        self.out()
            .lines()
            .filter_map(|line| {
                // Targets have colons too.
                let rest = line.trim_start().strip_prefix(target)?.trim_start_matches(' ').strip_prefix(':')?;
                Some(rest.strip_prefix(' ').unwrap_or(rest).to_string())
            })
            .collect()
    }

    /// Asserts what one target has written.
    ///
    /// # Panics
    ///
    /// When it is anything else.
    #[track_caller]
    pub fn expect_lines(&self, target: &str, lines: &[&str]) -> &Self {
        let came = self.lines_from(target);
        assert!(came == lines, "expected from {target}: {lines:?}, came: {came:?}\n{self}");
        self
    }

    /// Asserts an error of the command itself: this exit code; `error: WHAT AND WHERE` with all of `what` in the report, in any case of letters;
    /// what was seen; a hint; in time; and no byte that a terminal acts upon.
    ///
    /// # Panics
    ///
    /// When anything of it is missing.
    #[track_caller]
    pub fn expect_error(&self, code: i32, what: &[&str]) -> &Self {
        assert!(!self.overdue, "it hangs, expected an error\n{self}");
        assert!(self.code == Some(code), "expected exit code {code}\n{self}");
        let errors = self.err();
        assert!(errors.lines().any(|line| line.starts_with("error: ")), "no line begins with `error: `\n{self}");
        assert!(errors.lines().any(|line| line.trim_start().starts_with("hint")), "the error has no hint\n{self}");
        assert!(!errors.contains("panicked at"), "it panicked\n{self}");
        let lower = errors.to_lowercase();
        for part in what {
            assert!(lower.contains(&part.to_lowercase()), "the error does not say {part:?}\n{self}");
        }
        self.expect_harmless()
    }

    /// Asserts that neither output nor errors hold a byte that a terminal acts upon: valid UTF-8 without control characters but newline and tab, without
    /// DEL, C1 and bidirectional controls.
    ///
    /// # Panics
    ///
    /// When there is one.
    #[track_caller]
    pub fn expect_harmless(&self) -> &Self {
        for (name, bytes) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if let Some((at, what)) = first_harmful(bytes) {
                let around = &bytes[at.saturating_sub(40)..(at + 40).min(bytes.len())];
                panic!("{what} at byte {at} of {name}, in \"{}\"", around.escape_ascii());
            }
        }
        self
    }
}

/// The first place where bytes could do something to a terminal.
pub fn first_harmful(bytes: &[u8]) -> Option<(usize, String)> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            return first_harmful(valid).or_else(|| Some((error.valid_up_to(), "invalid UTF-8".into())));
        }
    };
    text.char_indices()
        .find(|(_, c)| {
            (c.is_control() && *c != '\n' && *c != '\t')
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        })
        .map(|(at, c)| (at, format!("U+{:04X}", u32::from(c))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_move_a_terminal_are_harmful_and_text_is_not() {
        assert_eq!(first_harmful("plain\ttext\nünï 漢 🦀\n".as_bytes()), None);
        for (bytes, at) in [
            (&b"a\x1b[31m"[..], 1),
            (b"\x07", 0),
            (b"ab\x7f", 2),
            ("x\u{9b}31m".as_bytes(), 1),
            ("\u{202e}".as_bytes(), 0),
            (b"ok\xff", 2),
            (b"a\rb", 1),
            (b"\x1b\xff", 0),
        ] {
            assert_eq!(first_harmful(bytes).map(|found| found.0), Some(at), "{}", bytes.escape_ascii());
        }
    }
}
