//! Looks at an anchor that holds, from outside: memory, CPU time, wake-ups, and how it ends.
//!
//! Owns the reading of what no anchor can say of itself. Must not know rows or reports.

use crate::anchor::{Anchor, Run, wait_readable};
use crate::contract::monotonic;
use crate::proc;
use crate::suite::add;
use crate::sweep::handle;
use anyhow::Result;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::time::Duration;

/// An anchor to start, and the servers below which its far processes appear.
pub(crate) struct Watch<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) servers: Vec<u32>,
}

impl Watch<'_> {
    /// The anchor, what is below it, and what is below our servers.
    fn everyone(&self, anchor: &Anchor) -> Vec<u32> {
        proc::descendants(&[&self.servers[..], &[anchor.pid()]].concat())
    }

    /// Memory and CPU time of a fan-out of so many contexts.
    pub(crate) fn held(&self, contexts: u64) -> Value {
        let (anchor, mut result) = match ready(self.run) {
            Ok(started) => started,
            Err(result) => return result,
        };
        let below = self.everyone(&anchor);
        let all = [&below[..], &[anchor.pid()]].concat();
        let cpu = proc::cpu_ns(&all) as f64 / 1e9 + proc::reaped_ticks(&all) as f64 / 100.0;
        let pss = proc::pss_kib(&below);
        for (name, value) in [
            ("processes", json!(below.len())),
            ("cpu_s", json!(cpu)),
            ("context_pss_kib", json!(pss as f64 / contexts.max(1) as f64)),
            ("master_pss_kib", json!(proc::pss_kib(&[anchor.pid()]))),
            ("master_cpu_s", json!(proc::cpu_ns(&[anchor.pid()]) as f64 / 1e9)),
        ] {
            add(&mut result, name, value);
        }
        add(&mut result, "shutdown_s", json!(anchor.finish()));
        result
    }

    /// Wake-ups and CPU time while nothing is asked.
    pub(crate) fn idle(&self, quick: bool) -> Value {
        let (anchor, mut result) = match ready(self.run) {
            Ok(started) => started,
            Err(result) => return result,
        };
        let second = Duration::from_secs(1);
        std::thread::sleep(second);
        let below = self.everyone(&anchor);
        let look = |pids: &[u32]| (proc::switches(pids), proc::cpu_ns(pids));
        let (start, before, master_before) = (monotonic(), look(&below), look(&[anchor.pid()]));
        std::thread::sleep(if quick { 2 * second } else { 20 * second });
        let (after, master_after) = (look(&below), look(&[anchor.pid()]));
        let window = monotonic() - start;
        // A thread that ended takes its counts along.
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / window;
        for (name, value) in [
            ("window_s", window),
            ("processes", below.len() as f64),
            ("wakeups_per_s", rate(after.0, before.0)),
            ("cpu_ms_per_s", rate(after.1, before.1) / 1e6),
            ("master_wakeups_per_s", rate(master_after.0, master_before.0)),
            ("master_cpu_ms_per_s", rate(master_after.1, master_before.1) / 1e6),
        ] {
            add(&mut result, name, value.into());
        }
        anchor.finish();
        result
    }

    /// How long what is below lives after the anchor's SIGKILL.
    pub(crate) fn killed(&self, quick: bool) -> Value {
        let (mut anchor, mut result) = match ready(self.run) {
            Ok(started) => started,
            Err(result) => return result,
        };
        // What only helped to connect is given time to end.
        std::thread::sleep(Duration::from_millis(500));
        let below: Vec<_> = self.everyone(&anchor).into_iter().filter_map(handle).collect();
        let limit = Duration::from_secs(if quick { 5 } else { 30 });
        let start = monotonic();
        anchor.kill();
        let mut left = 0;
        for process in &below {
            let patience = limit.saturating_sub(Duration::from_secs_f64(monotonic() - start));
            left += usize::from(!wait_readable(process, patience));
        }
        let took = monotonic() - start;
        add(&mut result, "processes", below.len().into());
        if left == 0 {
            add(&mut result, "all_gone_s", took.into());
        } else {
            add(&mut result, "never", left.into());
        }
        result
    }
}

/// Starts an anchor that holds; its own words when it does not get that far.
fn ready(run: &Run<'_>) -> Result<(Anchor, Value), Value> {
    match run.held() {
        Ok((anchor, first)) if first.get("ready").is_some() => Ok((anchor, first)),
        Ok((_, first)) => Err(first),
        Err(e) => Err(json!({ "error": format!("{e:#}") })),
    }
}

/// The number of contexts of a fan-out.
pub(crate) fn contexts(words: &[OsString]) -> u64 {
    words.last().and_then(|w| w.to_str()?.parse().ok()).unwrap_or(1)
}
