//! Node sets: `web[01-32,40]`, many names in few characters, there and back.
//!
//! This module owns the notation and its limits. It must not know what a name means (a target, a host), where the text
//! came from (the command line, a file) or what is done with the names. It is pure.
//!
//! The notation, after ClusterShell's:
//!
//! - a comma or white space separates sets, unless it stands in brackets;
//! - `[1-3,7]` stands for each of its numbers, `[0-10/5]` for every fifth; several brackets multiply: `db[1-3]x[1-2]`;
//! - zero padding is kept: `[08-10]` is `08`, `09`, `10`;
//! - brackets that hold a colon are an IPv6 address and stand for themselves: `[::1]:2222`.

mod fold;
mod pattern;

use std::collections::HashSet;

pub(crate) use fold::fold;
use pattern::Pattern;

/// The most names that one run works on. Beyond it a typing mistake (`[1-1000000]`) is likelier than a machine room.
pub(crate) const LIMIT: usize = 100_000;

/// Why a text is not a node set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeSetError {
    /// A name between two separators is missing.
    #[error("an empty name in `{0}`")]
    Empty(String),
    /// `[` without `]`.
    #[error("`[` is never closed in `{0}`")]
    Unclosed(String),
    /// `]` without `[`.
    #[error("`]` without `[` in `{0}`")]
    Unopened(String),
    /// What stands in brackets is no list of numbers.
    #[error("expected numbers such as [1-3,7] or [00-10/2], got `[{got}]` in `{text}`")]
    Range {
        /// What stands in the brackets.
        got: String,
        /// The set it stands in.
        text: String,
    },
    /// A range from high to low.
    #[error("the range {0} runs backwards")]
    Backwards(String),
    /// Two ends padded to different widths.
    #[error("the ends of the range {0} have different zero padding")]
    Padding(String),
    /// More than [`pattern::BRACKETS`] brackets in one name.
    #[error("more than {} brackets in one name", pattern::BRACKETS)]
    Brackets,
    /// More than [`LIMIT`] names.
    #[error("more than {LIMIT} names")]
    TooMany,
}

/// A growing set of names, in the order they were first given.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSet {
    names: Vec<String>,
    seen: HashSet<String>,
}

impl NodeSet {
    /// Adds every name that `text` stands for. A name that is there already is left where it is.
    ///
    /// # Errors
    /// [`NodeSetError`]; the set then holds what came before the mistake.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), NodeSetError> {
        for part in split(text)? {
            let pattern = Pattern::parse(part)?;
            // Judged before a single name is made: `[1-999999999]` costs nothing.
            if pattern.count() > LIMIT as u64 {
                return Err(NodeSetError::TooMany);
            }
            pattern.expand(|name| {
                if !self.seen.contains(&name) {
                    if self.names.len() == LIMIT {
                        return Err(NodeSetError::TooMany);
                    }
                    self.seen.insert(name.clone());
                    self.names.push(name);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The names, in order, each once.
    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// The sets of a text: splits at commas and white space outside brackets.
///
/// # Errors
/// [`NodeSetError::Empty`] when one is missing.
pub(crate) fn split(text: &str) -> Result<Vec<&str>, NodeSetError> {
    let mut parts = Vec::new();
    for word in words(text) {
        let (mut start, mut depth) = (0, 0usize);
        for (at, c) in word.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(&word[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&word[start..]);
    }
    if parts.is_empty() || parts.contains(&"") { Err(NodeSetError::Empty(text.into())) } else { Ok(parts) }
}

/// Splits at white space. Inside brackets there is none in a set that is well formed, so they need no care here.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(text: &str) -> Result<Vec<String>, NodeSetError> {
        let mut set = NodeSet::default();
        set.add(text)?;
        Ok(set.into_names())
    }

    fn check(text: &str, names: &str) {
        let expected: Vec<&str> = names.split(' ').collect();
        assert_eq!(expand(text).as_deref(), Ok(&expected.iter().map(|name| name.to_string()).collect::<Vec<_>>()[..]));
    }

    #[test]
    fn a_name_has_so_many_brackets_and_no_more() {
        let name = |brackets| "[1]".repeat(brackets);
        assert_eq!(expand(&name(pattern::BRACKETS)), Ok(vec!["1".repeat(pattern::BRACKETS)]));
        for brackets in [pattern::BRACKETS + 1, 100_000] {
            assert_eq!(expand(&name(brackets)), Err(NodeSetError::Brackets));
        }
    }

    #[test]
    fn sets_expand_in_the_order_they_are_written() {
        check("web", "web");
        check("web[1-3]", "web1 web2 web3");
        check("web[01-03,40]", "web01 web02 web03 web40");
        check("db[1-2]x[1-2]", "db1x1 db1x2 db2x1 db2x2");
        check("a[0-10/5]b", "a0b a5b a10b");
        check("b,a,b", "b a");
        check("a[1,3],b", "a1 a3 b");
        check("a b[1-2] c", "a b1 b2 c");
        check("[098-101]", "098 099 100 101");
        check("jump/web[1-2]/local", "jump/web1/local jump/web2/local");
        check("ann@web[1-2]:2222", "ann@web1:2222 ann@web2:2222");
    }

    #[test]
    fn an_ipv6_address_in_brackets_stands_for_itself() {
        check("[::1]:22", "[::1]:22");
        check("[fe80::1%eth0],u@[2001:db8::2]", "[fe80::1%eth0] u@[2001:db8::2]");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "empty name"),
            ("a,,b", "empty name"),
            ("a,", "empty name"),
            ("web[1-3", "never closed"),
            ("web1-3]", "without `[`"),
            ("web[[1]]", "expected numbers"),
            ("web[[:]", "expected numbers"),
            ("[:]![[:][:.]3!", "expected numbers"),
            ("web[]", "expected numbers"),
            ("web[a-c]", "expected numbers"),
            ("web[1-]", "expected numbers"),
            ("web[1,]", "expected numbers"),
            ("web[1-3/0]", "expected numbers"),
            ("web[1-99999999999999999999]", "expected numbers"),
            ("web[3-1]", "backwards"),
            ("web[001-01]", "padding"),
            ("web[1-03]", "padding"),
            ("web[1-100001]", "more than 100000"),
            ("web[0-99999],x", "more than 100000"),
            ("w[1-999999999999]x[1-999999999999]", "more than 100000"),
        ] {
            let message = expand(text).expect_err(text).to_string();
            assert!(message.contains(part), "{text}: expected {part:?}, got {message:?}");
        }
    }

    #[test]
    fn exactly_the_limit_fits() {
        assert_eq!(expand("web[1-100000]").map(|names| names.len()), Ok(LIMIT));
    }

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names.dedup();
        names
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn folding_then_expanding_gives_the_same_set(
            names in prop::collection::vec("[ab]{0,1}[019]{0,3}[-.x]?[0-9]{0,3}(\\[::[0-9]{1,2}\\])?", 1..16)
        ) {
            let names: Vec<String> = sorted(names).into_iter().filter(|name| !name.is_empty()).collect();
            prop_assume!(!names.is_empty());
            let folded = fold(&names);
            prop_assert_eq!(expand(&folded).map(sorted), Ok(names), "folded to {}", folded);
        }

        #[test]
        fn expanding_then_folding_gives_the_same_set(
            pads in prop::collection::vec((1usize..4, 0u64..130, 0u64..12, 1u64..4), 1..3)
        ) {
            let mut text = String::new();
            for (width, low, more, step) in pads {
                text += &format!("n[{low:0width$}-{:0width$}/{step}]", low + more);
            }
            let names = sorted(expand(&text).expect("well formed"));
            prop_assert_eq!(expand(&fold(&names)).map(sorted), Ok(names));
        }

        #[test]
        fn any_text_is_expanded_or_refused_and_never_more_than_the_limit(text in "[a0-9\\[\\],/ :-]{0,12}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(!names.is_empty() && names.len() <= LIMIT);
            }
        }
    }
}
