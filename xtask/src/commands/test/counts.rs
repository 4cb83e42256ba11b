//! Reading how many tests passed, failed and were skipped from what the runners print.

/// The tests of one runner, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ended well.
    pub passed: u64,
    /// Ended badly, or never.
    pub failed: u64,
    /// Ignored, or not run for a stated reason.
    pub skipped: u64,
}

impl Counts {
    /// Adds another runner's counts.
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// How many tests were seen at all.
    pub fn all(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

/// The sum of the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …` of cargo's own runner.
pub fn libtest(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines() {
        if let Some(rest) = line.trim_start().strip_prefix("test result: ") {
            counts.passed += before(rest, " passed");
            counts.failed += before(rest, " failed");
            counts.skipped += before(rest, " ignored");
        }
    }
    counts
}

/// The verdicts of a harness of its own, one line each: `test NAME ... ok`, `... FAILED`, `... ignored`, or
/// `... not run: REASON`; the last are left to the list of what was not run.
pub fn verdicts(output: &str) -> Counts {
    let mut counts = Counts::default();
    for (_, verdict) in output.lines().filter_map(verdict) {
        match verdict.split_whitespace().next() {
            Some("ok") => counts.passed += 1,
            Some("ignored") => counts.skipped += 1,
            Some("FAILED") => counts.failed += 1,
            _ => {}
        }
    }
    counts
}

/// Name and verdict of a line `test NAME ... VERDICT`.
pub fn verdict(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// nextest's closing line: `Summary [ 0.1s] 4/5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped`.
/// Nothing when there is none: it did not get that far.
pub fn nextest(output: &str) -> Option<Counts> {
    let line = output.lines().rev().find(|line| line.trim_start().starts_with("Summary ["))?;
    let (run, rest) = line.split_once(" run: ")?;
    let failed = [" failed", " timed out", " exec failed"].iter().map(|word| before(rest, word)).sum::<u64>();
    // `4/5 tests`: the fifth was given up.
    let wanted = run.split(']').nth(1).unwrap_or("");
    let given_up = wanted
        .split_whitespace()
        .next()
        .and_then(|ratio| ratio.split_once('/'))
        .and_then(|(ran, of)| Some(of.parse::<u64>().ok()?.saturating_sub(ran.parse().ok()?)))
        .unwrap_or(0);
    Some(Counts { passed: before(rest, " passed"), failed: failed + given_up, skipped: before(rest, " skipped") })
}

/// The number that stands right before `word`, in any of the parts between commas, semicolons and brackets.
fn before(text: &str, word: &str) -> u64 {
    text.split([',', ';', '(', ')', '.'])
        .find_map(|part| part.trim_end().strip_suffix(word)?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts { passed, failed, skipped }
    }

    #[test]
    fn cargo_s_own_lines_are_summed() {
        let output = "running 4 tests\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      noise\ntest result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n";
        assert_eq!(libtest(output), counts(7, 1, 1));
        assert_eq!(libtest("nothing"), counts(0, 0, 0));
    }

    #[test]
    fn the_lines_of_another_harness_are_counted() {
        let output = "test a ... ok (3 ms)\ntest b [without 0x1] ... FAILED\ntext\ntest c ... ignored\n\
                      test d ... not run: needs root\ntest result: 1 failed\n";
        assert_eq!(verdicts(output), counts(1, 1, 1));
    }

    #[test]
    fn the_summary_of_nextest_is_read() {
        let line = |text: &str| nextest(&format!("x\n     Summary [   0.053s] {text}\n   FAIL y\n"));
        assert_eq!(line("3 tests run: 3 passed, 0 skipped"), Some(counts(3, 0, 0)));
        assert_eq!(line("1 test run: 1 passed, 0 skipped"), Some(counts(1, 0, 0)));
        assert_eq!(line("9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 4 skipped"), Some(counts(6, 3, 4)));
        assert_eq!(line("3/5 tests run: 2 passed, 1 failed, 0 skipped"), Some(counts(2, 3, 0)));
        assert_eq!(nextest("error: could not compile"), None);
    }
}
