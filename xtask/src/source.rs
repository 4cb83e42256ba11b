//! A reader of Rust source that knows just enough to tell code from comments and from text.
//!
//! Owns the masking that lets [`crate::tidy`] look for words without finding them in a string or a comment.
//! It builds no tree and expands no macro.

/// A source file in three views of equal length and equal lines.
#[derive(Debug)]
pub struct Source {
    /// The file as it is.
    pub text: String,
    /// Comments blanked, the contents of strings kept.
    pub uncommented: String,
    /// Comments and the contents of strings and characters blanked.
    pub code: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Code,
    Comment,
    Literal,
}

impl Source {
    /// Splits `text` into its views.
    pub fn new(text: String) -> Source {
        let parts = classify(text.as_bytes());
        let view = |keep: &dyn Fn(Part) -> bool| {
            let bytes =
                text.bytes().zip(&parts).map(|(byte, &part)| if byte == b'\n' || keep(part) { byte } else { b' ' });
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        };
        let uncommented = view(&|part| part != Part::Comment);
        let code = view(&|part| part == Part::Code);
        Source { text, uncommented, code }
    }

    /// The code before the first `#[cfg(test)]` that stands at the beginning of a line: tests come last in a file.
    pub fn code_without_tests(&self) -> &str {
        let end = self.code.find("\n#[cfg(test)]").unwrap_or(self.code.len());
        &self.code[..end]
    }
}

fn classify(bytes: &[u8]) -> Vec<Part> {
    let mut parts = vec![Part::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => mark(&mut parts, at, line_end(bytes, at), Part::Comment),
            b'/' if bytes.get(at + 1) == Some(&b'*') => mark(&mut parts, at, block_end(bytes, at), Part::Comment),
            b'"' => mark(&mut parts, at + 1, string_end(bytes, at + 1), Part::Literal) + 1,
            b'r' if !after_word(bytes, at) && raw_hashes(bytes, at + 1).is_some() => {
                let hashes = raw_hashes(bytes, at + 1).unwrap_or(0);
                let start = at + 2 + hashes;
                mark(&mut parts, start, raw_end(bytes, start, hashes), Part::Literal) + 1 + hashes
            }
            b'\'' => match char_end(bytes, at) {
                Some(end) => mark(&mut parts, at + 1, end, Part::Literal) + 1,
                None => at + 1,
            },
            _ => at + 1,
        };
        at = end;
    }
    parts
}

fn mark(parts: &mut [Part], from: usize, to: usize, part: Part) -> usize {
    let to = to.min(parts.len());
    if from < to {
        parts[from..to].fill(part);
    }
    to.max(from)
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes[from..].iter().position(|&b| b == b'\n');
    rest.map_or(bytes.len(), |length| from + length)
}

/// Block comments nest.
fn block_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0usize;
    let mut at = from;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether the byte before belongs to a word, so that an `r` here ends a name instead of beginning a raw string.
/// The prefixes of byte and C strings do not count.
fn after_word(bytes: &[u8], at: usize) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match at.checked_sub(1).map(|i| bytes[i]) {
        Some(b'b' | b'c') => at >= 2 && word(bytes[at - 2]),
        Some(byte) => word(byte),
        None => false,
    }
}

/// How many `#` stand between the `r` and the quote of a raw string; nothing when it is not one.
fn raw_hashes(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from..].iter().take_while(|&&b| b == b'#').count();
    (bytes.get(from + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(bytes: &[u8], from: usize, hashes: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        let closes = bytes[at] == b'"' && bytes[at + 1..].iter().take_while(|&&b| b == b'#').count() >= hashes;
        if closes {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Where a character literal ends; nothing for a lifetime or a label.
fn char_end(bytes: &[u8], quote: usize) -> Option<usize> {
    let first = *bytes.get(quote + 1)?;
    if first == b'\\' {
        let rest = bytes.get(quote + 3..)?;
        return rest.iter().position(|&b| b == b'\'').map(|i| quote + 3 + i);
    }
    let width = match first {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(quote + 1 + width) == Some(&b'\'')).then_some(quote + 1 + width)
}

/// The places where `word` stands as a whole word.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word))
}

/// The number of the line, from 1, in which the byte `at` lies.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str) {
        assert_eq!(Source::new(text.to_string()).code, code);
    }

    #[test]
    fn comments_are_blanked_and_lines_kept() {
        check("a // unsafe\nb", "a          \nb");
        check("a /* x /* y */ z */ b", "a                   b");
        check("/* open\nend", "       \n   ");
    }

    #[test]
    fn strings_are_blanked_but_their_quotes_stay() {
        check(r#"f("a\"b") + 1"#, r#"f("    ") + 1"#);
        check(r##"r#"a"b"# + 1"##, r##"r#"   "# + 1"##);
        check(r#"br"x" b"y" c"z""#, r#"br" " b" " c" ""#);
        check("\"// no comment\" x", "\"             \" x");
    }

    #[test]
    fn characters_are_blanked_and_lifetimes_are_not() {
        check(r"'a' '\'' '\u{1f}' 'ü'", r"' ' '  ' '      ' '  '");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("'\"' unsafe '\"'", "' ' unsafe ' '");
    }

    #[test]
    fn a_name_that_ends_in_r_begins_no_raw_string() {
        check(r#"var"x" r#type"#, r#"var" " r#type"#);
    }

    #[test]
    fn only_whole_words_are_found() {
        let at: Vec<usize> = words("unsafe_code unsafe (unsafe) xunsafe", "unsafe").collect();
        assert_eq!(at, [12, 20]);
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!(line_of("a\nb\nc", 0), 1);
        assert_eq!(line_of("a\nb\nc", 4), 3);
    }

    #[test]
    fn code_ends_where_the_tests_begin() {
        let source = Source::new("a\n#[cfg(test)]\nmod tests {}".to_string());
        assert_eq!(source.code_without_tests(), "a");
    }
}
