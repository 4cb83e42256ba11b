//! One set of names: literal text and brackets of numbers, in turn.

use super::NodeSetError;

/// The most brackets of one set: who names hosts needs two or three.
pub(super) const BRACKETS: usize = 64;

/// A parsed set.
pub(super) struct Pattern<'a> {
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Text(&'a str),
    Numbers(Vec<Range>),
}

struct Range {
    low: u64,
    high: u64,
    step: u64,
    /// The width to fill with zeros; 0 for no padding.
    width: usize,
}

impl<'a> Pattern<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Pattern<'a>, NodeSetError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['[', ']']) {
            if rest[open..].starts_with(']') {
                return Err(NodeSetError::Unopened(text.into()));
            }
            let length = rest[open..].find(']').ok_or_else(|| NodeSetError::Unclosed(text.into()))?;
            let inside = &rest[open + 1..open + length];
            let after = &rest[open + length + 1..];
            // Not with a second bracket in it: where sets are separated that opens another one, which is never closed.
            if inside.contains(':') && !inside.contains('[') {
                parts.push(Part::Text(&rest[..open + length + 1]));
            } else {
                parts.push(Part::Text(&rest[..open]));
                parts.push(Part::Numbers(ranges(inside, text)?));
            }
            if parts.len() > 2 * BRACKETS {
                return Err(NodeSetError::Brackets);
            }
            rest = after;
        }
        parts.push(Part::Text(rest));
        Ok(Pattern { parts })
    }

    /// How many names it stands for, duplicates included; [`u64::MAX`] when that is beyond counting.
    pub(super) fn count(&self) -> u64 {
        self.parts.iter().fold(1, |count: u64, part| match part {
            Part::Text(_) => count,
            Part::Numbers(ranges) => count.saturating_mul(ranges.iter().map(Range::count).fold(0, u64::saturating_add)),
        })
    }

    /// Calls `each` with every name, in order, until it fails.
    pub(super) fn expand<E>(&self, mut each: impl FnMut(String) -> Result<(), E>) -> Result<(), E> {
        expand(&self.parts, &mut String::new(), &mut each)
    }
}

fn expand<E>(parts: &[Part<'_>], name: &mut String, each: &mut impl FnMut(String) -> Result<(), E>) -> Result<(), E> {
    let length = name.len();
    match parts.split_first() {
        None => each(name.clone())?,
        Some((Part::Text(text), rest)) => {
            name.push_str(text);
            expand(rest, name, each)?;
        }
        Some((Part::Numbers(ranges), rest)) => {
            for range in ranges {
                for number in (range.low..=range.high).step_by(range.step as usize) {
                    name.push_str(&format!("{number:0width$}", width = range.width));
                    expand(rest, name, each)?;
                    name.truncate(length);
                }
            }
        }
    }
    name.truncate(length);
    Ok(())
}

impl Range {
    fn count(&self) -> u64 {
        (self.high - self.low) / self.step + 1
    }
}

fn ranges(inside: &str, text: &str) -> Result<Vec<Range>, NodeSetError> {
    let wrong = || NodeSetError::Range { got: inside.into(), text: text.into() };
    inside.split(',').map(|part| range(part, &wrong)).collect()
}

fn range(text: &str, wrong: &dyn Fn() -> NodeSetError) -> Result<Range, NodeSetError> {
    let (ends, step) = match text.split_once('/') {
        Some((ends, step)) => (ends, number(step).filter(|&step| step > 0).ok_or_else(wrong)?),
        None => (text, 1),
    };
    let (low, high) = ends.split_once('-').unwrap_or((ends, ends));
    let (from, to) = (number(low).ok_or_else(wrong)?, number(high).ok_or_else(wrong)?);
    if from > to {
        return Err(NodeSetError::Backwards(text.into()));
    }
    let padded = |end: &str| end.len() > 1 && end.starts_with('0');
    if (padded(low) && high.len() < low.len()) || (padded(high) && high.len() != low.len()) {
        return Err(NodeSetError::Padding(text.into()));
    }
    Ok(Range { low: from, high: to, step, width: if padded(low) { low.len() } else { 0 } })
}

/// A number of at most 18 digits, which always fits a `u64`.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
