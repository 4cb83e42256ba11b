//! What happened lately, and what was found wrong.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines are kept: some seconds of a busy run, under 1 MiB.
const KEPT: usize = 3000;
/// How many are shown with a finding: those that speak of the same subtree, and all faults.
const SHOWN: usize = 60;
/// After so many the run ends: what follows is most often the same again.
const MOST: usize = 10;
/// A scheduler's delay that is worth noting.
const LAG: Duration = Duration::from_millis(15);

/// The history of a run.
pub(crate) struct History {
    pub(crate) seed: u64,
    began: Instant,
    lines: Mutex<VecDeque<String>>,
    findings: AtomicUsize,
    lags: Mutex<VecDeque<(Instant, Duration)>>,
}

impl History {
    pub(crate) fn new(seed: u64) -> History {
        History {
            seed,
            began: Instant::now(),
            lines: Mutex::default(),
            findings: AtomicUsize::new(0),
            lags: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, line: &str) {
        let line = format!("{:>8} {line}", self.began.elapsed().as_millis());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Reports something wrong, with the history of `about` (an address as it stands in lines) and all faults.
    pub(crate) fn find(&self, about: &str, what: &str) {
        let number = self.findings.fetch_add(1, Ordering::Relaxed) + 1;
        if number > MOST {
            return;
        }
        let mut text = format!(
            "FINDING {number} (seed {}, at {} ms): {what}\n  history:\n",
            self.seed,
            self.began.elapsed().as_millis()
        );
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned: Vec<&String> =
            lines.iter().filter(|line| line.contains(about) || line.contains("FAULT")).collect();
        for line in concerned.iter().skip(concerned.len().saturating_sub(SHOWN)) {
            let _ = writeln!(text, "  {line}");
        }
        drop(lines);
        println!("{text}");
    }

    pub(crate) fn findings(&self) -> usize {
        self.findings.load(Ordering::Relaxed)
    }

    pub(crate) fn is_hopeless(&self) -> bool {
        self.findings() >= MOST
    }

    /// A sleep of this process took so much longer than asked.
    pub(crate) fn lagged(&self, by: Duration) {
        if by < LAG {
            return;
        }
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        lags.push_back((now, by));
        while lags.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > Duration::from_secs(300)) {
            lags.pop_front();
        }
    }

    /// Gives the memory of all that was noted back.
    pub(crate) fn forget(&self) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = VecDeque::new();
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = VecDeque::new();
    }

    /// By how much this machine was late since then, of the last five minutes.
    pub(crate) fn late_since(&self, since: Instant) -> Duration {
        let lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        lags.iter().rev().take_while(|(at, _)| *at >= since).map(|(_, by)| *by).sum()
    }
}
