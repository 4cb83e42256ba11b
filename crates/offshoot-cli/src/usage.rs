//! What `docs/usage.md` says, for the tests of whoever owns a number that stands there.

const PAGE: &str = include_str!("../../../docs/usage.md");

/// Asserts that a table of the page has a row that begins with these two cells.
#[track_caller]
pub(crate) fn assert_says(what: &str, value: &str) {
    let row = format!("| {what} | {value} |");
    assert!(PAGE.lines().any(|line| line.starts_with(&row)), "docs/usage.md has no row `{row}`");
}

/// So many bytes as the page has them.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "bytes")];
    let (shift, unit) = units.into_iter().find(|(shift, _)| bytes.is_multiple_of(1 << shift)).expect("a multiple of 1");
    format!("{} {unit}", bytes >> shift)
}
