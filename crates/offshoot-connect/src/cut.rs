//! Finding text in short texts: lines of a tool, reports of a target.
//!
//! Used instead of std's search, whose two-way algorithm is worth its code in long texts only, and this code is sent to
//! every target.

/// What stands before and behind the first `part`; `None` where there is none. Takes the product of both lengths in the
/// worst case: for texts of some KiB at most.
pub(crate) fn cut<'a>(text: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let at = (0..=text.len()).find(|&at| text.as_bytes()[at..].starts_with(part.as_bytes()))?;
    // Both are UTF-8, so no text begins within a character of another: only an empty part can, and it is found at 0.
    Some((&text[..at], &text[at + part.len()..]))
}

/// The text with another for each `part`.
pub(crate) fn replaced(text: &str, part: &str, by: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, behind)) = cut(rest, part) {
        done.push_str(before);
        done.push_str(by);
        rest = behind;
    }
    done.push_str(rest);
    done
}

#[cfg(test)]
mod tests {
    use super::{cut, replaced};

    #[test]
    fn text_is_cut_at_the_first_part_as_std_does_it() {
        let texts = ["", "a", "ab", "aab", "abab", "\u{e9}a\u{e9}", "a: b: c", ": ", "\u{20ac}\u{20ac}: x"];
        let parts = ["", "a", "ab", "aab", ": ", "\u{e9}", "\u{20ac}:", "longer than all texts"];
        for (text, part) in texts.iter().flat_map(|text| parts.map(|part| (text, part))) {
            assert_eq!(cut(text, part), text.split_once(part), "{part:?} in {text:?}");
            if !part.is_empty() {
                assert_eq!(replaced(text, part, "<>"), text.replace(part, "<>"), "{part:?} in {text:?}");
            }
        }
    }
}
