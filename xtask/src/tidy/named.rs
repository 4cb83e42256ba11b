//! The pages that say which test shows what name only tests that there are.
//!
//! A name may be shortened by `…`. Whether a test shows what the page says is for readers.

use std::collections::BTreeSet;

use super::{Finding, Tree};

/// What a page holds, and where its tests stand in it.
struct Page {
    path: &'static str,
    /// Whether they stand in the last column of its tables alone, since others have names of functions too.
    last_column: bool,
}

const PAGES: &[Page] =
    &[Page { path: "docs/security.md", last_column: false }, Page { path: "docs/failures.md", last_column: true }];

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) {
    let tests: BTreeSet<&str> = tree.rust.iter().flat_map(|file| names(&file.source.text)).collect();
    for page in PAGES {
        let Some(file) = tree.files.iter().find(|file| file.path.as_os_str() == page.path) else {
            findings.push(Finding::new(page.path, 0, "the page is not there", "write it, or take it off this list"));
            continue;
        };
        for (index, line) in file.text.lines().enumerate() {
            let Some(line) = place(page, line) else { continue };
            for wanted in line.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)) {
                if !tests.iter().any(|test| fits(wanted, test)) {
                    findings.push(Finding::new(
                        &file.path,
                        index + 1,
                        format!("there is no test {wanted}"),
                        "name the test that shows it now",
                    ));
                }
            }
        }
    }
}

/// Where tests are named in a line; nothing where they are not.
fn place<'a>(page: &Page, line: &'a str) -> Option<&'a str> {
    match page.last_column {
        false => Some(line),
        true => line.strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next(),
    }
}

/// What may be a test in a file: a function, or a case of a table, `name: …`, or `("name", …)` where a check has a
/// process of its own.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let line = line.trim_start();
        let function = line.split_once("fn ").map(|(_, rest)| word(rest));
        let case = Some(word(line)).filter(|name| line[name.len()..].starts_with(':'));
        let check = line.strip_prefix("(\"").map(word).filter(|name| line[name.len() + 2..].starts_with("\", "));
        [function, case, check].into_iter().flatten().filter(|name| !name.is_empty())
    })
}

/// The name that a text begins with.
fn word(text: &str) -> &str {
    let end = text.bytes().position(|byte| !is_part(byte)).unwrap_or(text.len());
    &text[..end]
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// A statement in words, `s4_an_answer_counts_once`, or parts of one: `an_answer_counts_…`.
fn is_test_name(name: &str) -> bool {
    let core: String = name.split('…').collect();
    let words = core.bytes().filter(|byte| *byte == b'_').count();
    let shortened = core.len() < name.len();
    let of_a_rule = core.strip_prefix('s').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    core.bytes().all(is_part) && (words >= 4 || (words >= 1 && (shortened || of_a_rule)))
}

/// Whether a name, which may be shortened, is that of a test: all parts of it stand there in order.
fn fits(wanted: &str, test: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = parts.next().and_then(|first| test.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        match parts.peek() {
            None => return rest.ends_with(part),
            Some(_) => match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => return false,
            },
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_functions_and_cases_of_both_kinds() {
        let text =
            "#[test]\nfn one_of_these() {\n    s1_a_case: Passed, |scene| {\n    (\"a_check_of_ours\", check),\n";
        let found: Vec<&str> = names(text).collect();
        assert_eq!(found, ["one_of_these", "s1_a_case", "a_check_of_ours"]);
    }

    #[test]
    fn a_shortened_name_is_found_by_what_is_left_of_it() {
        assert!(fits("a_link_that_…", "a_link_that_ends") && !fits("a_link_that_…", "no_a_link_that_ends"));
        assert!(fits("…_is_killed", "a_master_is_killed") && !fits("…_is_killed", "a_master_is_killed_twice"));
        assert!(fits("a_…_is_…_end", "a_b_is_at_its_end") && !fits("a_…_is_…_end", "a_b_was_at_its_end"));
        assert!(fits("…_is_…", "what_is_it") && fits("whole_name", "whole_name") && !fits("whole", "whole_name"));
    }

    #[test]
    fn statements_are_told_from_other_words_between_ticks() {
        for name in ["s4_once", "a_link_that_is_cut", "a_link_…", "…_is_killed", "a_stopped_…_is_gone"] {
            assert!(is_test_name(name), "{name}");
        }
        for name in ["kill_on_cancel", "docs/soak.md", "X was lost", "Error::ran", "policy", "s_x", "…"] {
            assert!(!is_test_name(name), "{name}");
        }
    }

    #[test]
    fn only_the_last_column_counts_where_it_is_said_so() {
        let page = |last_column| Page { path: "", last_column };
        assert_eq!(place(&page(true), "| `a_b` | – | load `c_d_…` |"), Some(" load `c_d_…` "));
        assert_eq!(place(&page(true), "text `a_b`"), None);
        assert_eq!(place(&page(false), "text `a_b`"), Some("text `a_b`"));
    }
}
