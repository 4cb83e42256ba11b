//! `cargo xtask test`: every test of the project, the fast ones first.
//!
//! Owns the order, the count over all runners, the list of what could not run, and the look for processes that were
//! left behind. It closes with one line `N passed, N failed, N skipped`.

pub mod counts;
mod junit;
mod leftovers;
pub mod not_run;
mod stages;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use self::counts::Counts;
use self::leftovers::Before;
use self::not_run::{Expected, NotRun};
use self::stages::{Seen, Setting, Suite};
use crate::run;
use crate::workspace::Workspace;

/// Runs the tests, and says what could not run
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what needs nothing but the toolchain: format, tidy, clippy, unit, property and documentation tests
    #[arg(long)]
    fast: bool,
    /// Only the tests against real peers on this machine, and the builds they need
    #[arg(long, conflicts_with = "fast")]
    peers: bool,
    /// Everything: the usual run with the long versions of tests, and packaging
    #[arg(long, conflicts_with_all = ["fast", "peers"])]
    all: bool,
    /// Fail when a test did not run that tests/expected-not-run.txt does not name; the default where CI is set
    #[arg(long)]
    strict: bool,
}

/// How long what the last test started may take to be gone.
const GRACE: Duration = Duration::from_secs(10);

/// One line of the table at the end.
struct Row {
    stage: &'static str,
    took: Duration,
    counts: Counts,
    error: Option<String>,
}

/// Runs the stages and prints the tables. Gives back whether all went well.
///
/// # Errors
///
/// When the run could not even begin. What fails in it is counted.
pub fn run(args: &Args) -> Result<bool> {
    let suite = match (args.fast, args.peers, args.all) {
        (true, ..) => Suite::Fast,
        (_, true, _) => Suite::Peers,
        (.., true) => Suite::All,
        _ => Suite::Usual,
    };
    let workspace = Workspace::load()?;
    let expected = Expected::read(&workspace.root.join("tests/expected-not-run.txt"))?;
    let run_id = run_id();
    let reports = workspace.target.join("xtask");
    std::fs::create_dir_all(&reports)?;
    let file = reports.join(format!("not-run-{run_id}"));
    std::fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    let mut environment =
        vec![(not_run::VARIABLE, file.to_string_lossy().into_owned()), (leftovers::RUN, run_id.clone())];
    if suite == Suite::All {
        // The long versions of tests: ten gibibytes, a million calls.
        environment.push(("OFFSHOOT_TEST_ALL", "1".into()));
    }
    let setting = Setting { environment, workspace };
    let before = Before::look();
    let start = Instant::now();
    let (rows, missing) = run_stages(suite, &setting, &file);
    let _ = std::fs::remove_file(&file);

    let mut total = Counts::default();
    for row in &rows {
        total.add(row.counts);
    }
    let strict = args.strict || std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false");
    let unexpected = report_missing(&missing, &expected, strict);
    total.failed += if strict { unexpected } else { 0 };
    total.failed += report_leftovers(&before, &run_id);
    report_stages(&rows, start.elapsed());
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(total.failed == 0)
}

fn run_stages(suite: Suite, setting: &Setting, file: &Path) -> (Vec<Row>, NotRun) {
    let mut rows = Vec::new();
    let mut missing = NotRun::new();
    for stage in stages::of(suite) {
        println!("\n== {}", stage.name);
        let start = Instant::now();
        let mut counts = Counts::default();
        let mut error = None;
        match (stage.run)(setting) {
            Ok(seen) => counts = settle(seen, file, &mut missing),
            Err(failure) => {
                counts.failed = 1;
                let text = format!("{failure:#}");
                println!("error: {}: {text}", stage.name);
                error = text.lines().next().map(str::to_string);
            }
        }
        rows.push(Row { stage: stage.name, took: start.elapsed(), counts, error });
    }
    (rows, missing)
}

/// Takes what a stage could not run out of what it counted as passed.
fn settle(seen: Seen, file: &Path, missing: &mut NotRun) -> Counts {
    let mut counts = seen.counts;
    let mut new = 0;
    for (name, reason) in seen.not_run.into_iter().chain(not_run::from_file(file)) {
        if missing.insert(name, reason).is_none() {
            new += 1;
        }
    }
    if seen.passed_though_not_run {
        counts.passed = counts.passed.saturating_sub(new);
    }
    counts.skipped += new;
    counts
}

/// Prints what could not run; gives back how many of these the list does not name.
fn report_missing(missing: &NotRun, expected: &Expected, strict: bool) -> u64 {
    if missing.is_empty() {
        return 0;
    }
    println!("\nnot run:");
    let width = missing.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut unexpected = 0;
    for (name, reason) in missing {
        let allowed = expected.allows(name);
        unexpected += u64::from(!allowed);
        let note = if allowed { "expected  " } else { "unexpected" };
        println!("  {note}  {name:width$}  {}", reason.escape_debug());
    }
    if unexpected > 0 {
        let level = if strict { "error" } else { "warning" };
        println!("{level}: {unexpected} tests that did not run are not in tests/expected-not-run.txt");
        println!("  fix: install what they need (see .ci/run), or add the name and the reason there");
    }
    unexpected
}

fn report_leftovers(before: &Before, run_id: &str) -> u64 {
    let left = before.left(run_id, GRACE);
    if left.is_empty() {
        return 0;
    }
    println!("\nerror: processes were left behind, {} s after the last test:", GRACE.as_secs());
    for process in &left {
        println!("  {:>8}  {}  ({})", process.pid, process.command, process.marks);
    }
    1
}

fn report_stages(rows: &[Row], took: Duration) {
    println!("\n{:26} {:>14} {:>8} {:>7} {:>8}", "stage", "time", "passed", "failed", "skipped");
    for row in rows {
        let Counts { passed, failed, skipped } = row.counts;
        let took = run::duration(row.took);
        print!("{:26} {took:>14} {passed:>8} {failed:>7} {skipped:>8}", row.stage);
        match &row.error {
            Some(error) => println!("  {error}"),
            None => println!(),
        }
    }
    println!("{:26} {:>14}", "all", run::duration(took));
}

fn run_id() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{since:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(passed: u64, names: &[&str]) -> Seen {
        Seen {
            counts: Counts { passed, ..Counts::default() },
            not_run: names.iter().map(|n| (n.to_string(), "why".to_string())).collect(),
            passed_though_not_run: true,
        }
    }

    #[test]
    fn what_was_not_run_counts_as_skipped_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "b\twhy\na\twhy\n").unwrap();
        let mut missing = NotRun::new();
        let first = settle(seen(5, &["a"]), file.path(), &mut missing);
        assert_eq!((first.passed, first.skipped), (3, 2));
        let second = settle(seen(5, &[]), file.path(), &mut missing);
        assert_eq!((second.passed, second.skipped), (5, 0), "the file is read again after each stage");
    }

    #[test]
    fn what_may_not_be_missing_is_counted() {
        let missing: NotRun = [("a".to_string(), "x".to_string())].into();
        assert_eq!(report_missing(&missing, &Expected::default(), true), 1);
    }
}
