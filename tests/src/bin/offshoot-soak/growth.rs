//! Whether a process grows with what it does: arithmetic alone.
//!
//! Of the own process all that is allocated is known, with an empty tree before and after. Of others the memory of their own is seen while they work. What is kept for each operation makes the memory a line over the number of operations, and the slope of that line is what each leaves. What is used once,
//! a cache that fills, an allocator that has found its size, bends it: so the beginning does not count, and what is left must be more than such things come to.

use std::time::Duration;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// How many operations the run had begun.
    pub(crate) operations: u64,
    /// What the process held of memory of its own, in bytes.
    pub(crate) bytes: u64,
}

/// A run that is shorter says nothing.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// The fewest samples that say something, one for each second.
const FEWEST: usize = LONG.as_secs() as usize;
/// What an operation may leave on the line, in bytes. The smallest thing that could be kept for each, a name of 16 bytes in a table, takes more.
const EACH: f64 = 12.0;
/// By how much the line may rise in all, in bytes: pages that an allocator of a few MiB happens to keep.
const NOISE: f64 = 640.0 * 1024.0;

/// The line through samples by the median of the slopes between pairs (Theil and Sen), which peaks do not bend; in bytes for an operation.
fn slope(samples: &[Sample]) -> f64 {
    let half = samples.len() / 2;
    // Pairs that lie far apart alone: near ones tell of noise.
    let far =
        samples.iter().zip(samples.iter().skip(half)).chain(samples.iter().zip(samples.iter().skip(2 * half / 3)));
    let mut slopes: Vec<f64> = far
        .filter(|(early, late)| late.operations > early.operations)
        .map(|(early, late)| (late.bytes as f64 - early.bytes as f64) / (late.operations - early.operations) as f64)
        .collect();
    slopes.sort_unstable_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

/// What the own process may have come to hold beside what each operation leaves, in bytes. 1.5 MiB are the input buffers of links that a node keeps to fill
/// them again, eight of 192 KiB: how many it has come to need differs from run to run. The rest is tables at their longest, longer names of contexts that are
/// gone, the claims of the last programs, and what the run notes for its own report: 0.4 MiB were seen.
const HELD: u64 = 2 * 1024 * 1024;

/// What is to be said of the own process, which had allocated so much before so many operations and has so much after them; an error when they have left
/// something each. Few operations prove nothing.
pub(crate) fn left(before: u64, after: u64, operations: u64) -> Result<String, String> {
    let rise = after.saturating_sub(before);
    let text = format!(
        "{} KiB allocated before {operations} operations, {} KiB after, {:.1} bytes for each",
        before / 1024,
        after / 1024,
        (after as f64 - before as f64) / operations.max(1) as f64
    );
    if rise > HELD { Err(text) } else { Ok(text) }
}

/// What is to be said of a process' memory; an error when it grows with its work. A short run proves nothing.
pub(crate) fn growth(samples: &[Sample]) -> Result<String, String> {
    let (Some(first), Some(last)) = (samples.get(samples.len() / 3), samples.last()) else {
        return Ok("not looked at".to_string());
    };
    let settled = &samples[samples.len() / 3..];
    let each = slope(settled);
    let operations = last.operations - first.operations;
    let rise = each * operations as f64;
    let text = format!(
        "{} KiB after a third, {} KiB late, {each:.1} bytes for each of {operations} operations",
        first.bytes / 1024,
        last.bytes / 1024
    );
    if samples.len() >= FEWEST && each > EACH && rise > NOISE { Err(text) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of a run of ten minutes that does some hundred operations a second.
    fn run(bytes: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..600_u64)
            .map(|second| (second * 180, second))
            .map(|(operations, second)| Sample {
                operations,
                // What comes and goes with the work: up to a MiB, up and down.
                bytes: bytes(operations) + (second * 7919 % 256) * 4096,
            })
            .collect()
    }

    #[test]
    fn what_is_kept_of_each_operation_is_found() {
        for each in [24, 64, 1000] {
            assert!(growth(&run(|operations| (16 << 20) + operations * each)).is_err(), "{each} bytes");
        }
        // As is what only every tenth keeps.
        assert!(growth(&run(|operations| (16 << 20) + operations / 10 * 400)).is_err());
    }

    #[test]
    fn what_fills_or_comes_and_goes_is_no_growth() {
        assert!(growth(&run(|_| 16 << 20)).is_ok());
        assert!(growth(&run(|operations| (16 << 20) + (operations * 400).min(6 << 20))).is_ok(), "a cache that fills");
        assert!(growth(&run(|operations| (24 << 20) - operations * 40)).is_ok(), "it shrinks");
        let peak = |operations| (16 << 20) + if operations > 50_000 && operations < 60_000 { 9 << 20 } else { 0 };
        assert!(growth(&run(peak)).is_ok(), "a peak");
    }

    #[test]
    fn what_is_left_of_each_operation_is_found_when_there_were_many() {
        const EMPTY: u64 = 3 << 20;
        assert!(left(EMPTY, EMPTY + 1900 * 1024, 20_000).is_ok(), "buffers and names");
        assert!(left(EMPTY, EMPTY - 4096, 20_000).is_ok());
        assert!(left(EMPTY, EMPTY, 0).is_ok());
        for (operations, each) in [(40_000, 64), (150_000, 16), (3000, 800)] {
            let said = left(EMPTY, EMPTY + operations * each, operations).unwrap_err();
            assert!(said.ends_with(&format!("{each}.0 bytes for each")), "{said}");
        }
    }

    #[test]
    fn a_short_run_says_nothing() {
        let rising = run(|operations| operations * 1000);
        assert!(growth(&rising[..FEWEST - 1]).is_ok());
        assert!(growth(&rising[..FEWEST]).is_err());
        assert_eq!(growth(&[]), Ok("not looked at".to_string()));
    }
}
