//! Tests that could not run here: what they say, and which of them may.
//!
//! The protocol. A test that cannot run (no root, no such tool) appends one line `NAME<TAB>REASON` to the file that
//! the environment names in [`VARIABLE`], prints `not run: NAME: reason`, and returns. The file is what counts,
//! because runners hide the output of tests that pass; where output is shown, the printed line is read as well. One
//! name stands for one test. `tests/expected-not-run.txt` lists the names that may be missing, each with its reason.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::counts;

/// The variable that names the file to append to.
pub const VARIABLE: &str = "OFFSHOOT_NOT_RUN";

/// Names and reasons, in order of the names.
pub type NotRun = BTreeMap<String, String>;

/// Reads what the tests appended.
pub fn from_file(path: &Path) -> NotRun {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, reason)| (name.trim().to_string(), reason.trim().to_string()))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// Reads the lines `not run: NAME: reason` of a runner's output.
pub fn from_output(output: &str) -> NotRun {
    output
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("not run: "))
        .map(|rest| rest.split_once(": ").unwrap_or((rest, "no reason given")))
        .map(|(name, reason)| (name.trim().to_string(), reason.trim().to_string()))
        .collect()
}

/// Reads the lines `test NAME ... not run: reason` of a harness of its own.
pub fn from_verdicts(output: &str) -> NotRun {
    output
        .lines()
        .filter_map(counts::verdict)
        .filter_map(|(name, verdict)| Some((name, verdict.strip_prefix("not run: ")?)))
        .map(|(name, reason)| (name.trim().to_string(), reason.trim().to_string()))
        .collect()
}

/// What may be missing: one name a line, `#` and the reason after it. A name may end in `*`.
#[derive(Debug, Default)]
pub struct Expected {
    names: Vec<String>,
}

impl Expected {
    /// Reads the list; a missing file is an empty one.
    ///
    /// # Errors
    ///
    /// When a name stands without its reason.
    pub fn read(path: &Path) -> Result<Expected> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context("cannot read tests/expected-not-run.txt"),
        };
        Expected::parse(&text)
    }

    fn parse(text: &str) -> Result<Expected> {
        let mut names = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, reason) = line.split_once('#').unwrap_or((line, ""));
            anyhow::ensure!(
                !reason.trim().is_empty(),
                "tests/expected-not-run.txt:{}: `{line}` stands without a reason after `#`",
                index + 1
            );
            names.push(name.trim().to_string());
        }
        Ok(Expected { names })
    }

    /// Whether a test of that name may be missing.
    pub fn allows(&self, name: &str) -> bool {
        self.names.iter().any(|expected| match expected.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_file_are_name_and_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ssh_tcsh\tno tcsh\n\nbroken\nssh_tcsh\tno tcsh\nfull\tnot root: x\n").unwrap();
        let read = from_file(file.path());
        assert_eq!(read.len(), 2);
        assert_eq!(read["full"], "not root: x");
        assert!(from_file(Path::new("/nonexistent/file")).is_empty());
    }

    #[test]
    fn printed_lines_are_read_wherever_they_stand() {
        let read = from_output("test a ... ok\n    not run: netns: no privileges: EPERM\nnot run: bare\n");
        assert_eq!(read["netns"], "no privileges: EPERM");
        assert_eq!(read["bare"], "no reason given");
    }

    #[test]
    fn another_harness_names_the_test_before_the_verdict() {
        let read = from_verdicts("test a ... not run: needs root\ntest b ... ok\nnot run: c: d\n");
        assert_eq!(read.len(), 1);
        assert_eq!(read["a"], "needs root");
    }

    #[test]
    fn a_missing_test_is_allowed_by_name_or_beginning_only() {
        let expected = Expected::parse("# head\nnetns_* # no namespaces\nqemu # not installed\n").unwrap();
        assert!(expected.allows("netns_three") && expected.allows("qemu"));
        assert!(!expected.allows("qemu_two") && !expected.allows("ssh"));
        assert!(Expected::parse("qemu\n").is_err());
    }
}
