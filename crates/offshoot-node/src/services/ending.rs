//! Ends processes with all that they started, many at once.
//!
//! Looking for what descends from a process, or carries its mark, reads much of `/proc`, again and again until none is
//! left. So it is done on threads of their own, few, and each looks for all that are to be ended when it begins.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use offshoot_mux::tree::{self, Proc};
use offshoot_mux::{EndPlan, end_processes};

use super::exec::JOB;

/// How many threads at once, each a few pages. A batch that holds out takes its grace and 2 s more; meanwhile others take
/// what comes. When all hold out, what comes waits for the first to be done, and goes on as one batch.
const THREADS: usize = 32;

/// One that is to be ended.
struct Ending {
    process: Option<Proc>,
    tag: String,
    grace: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Ending>,
    threads: usize,
}

/// The processes of a node that are being ended.
#[derive(Clone, Default)]
pub(super) struct Endings(Arc<Mutex<Queue>>);

impl Endings {
    /// Has a process and all that carries its mark ended: TERM, then KILL after the grace. `Err` when there is no thread
    /// to be had for it.
    pub(super) fn end(&self, process: Option<Proc>, tag: String, grace: Duration) -> std::io::Result<()> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.threads < THREADS {
            let theirs = self.clone();
            let spawned = offshoot_mux::thread::start("offshoot-end", move || theirs.run());
            match spawned {
                Ok(()) => queue.threads += 1,
                Err(error) if queue.threads == 0 => return Err(error),
                // Those that run will come to it.
                Err(_) => {}
            }
        }
        queue.waiting.push(Ending { process, tag, grace });
        Ok(())
    }

    fn run(&self) {
        loop {
            let batch = {
                let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(grace) = queue.waiting.first().map(|first| first.grace) else {
                    queue.threads -= 1;
                    return;
                };
                let (batch, later) = queue.waiting.drain(..).partition(|ending| ending.grace == grace);
                queue.waiting = later;
                batch
            };
            end_batch(batch);
        }
    }
}

/// Ends some that have the same grace.
fn end_batch(batch: Vec<Ending>) {
    let grace = batch.first().map_or(Duration::ZERO, |first| first.grace);
    // Whoever cleared its environment is found by its parent, and remembered for when that is gone.
    let mut known: Vec<Proc> = batch.iter().filter_map(|ending| ending.process).collect();
    let mut tags: Vec<String> = batch.into_iter().map(|ending| ending.tag).collect();
    tags.sort_unstable();
    let select = || {
        let wanted = |value: &[u8]| tags.binary_search_by(|tag| tag.as_bytes().cmp(value)).is_ok();
        known.extend(tree::with_env_tags(JOB, wanted));
        known.retain(Proc::lives);
        let key = |found: &Proc| (found.pid, found.start_time);
        known.sort_unstable_by_key(key);
        known.dedup_by_key(|found| key(found));
        let below = |found: &&Proc| known.binary_search_by_key(&found.ppid, |above| above.pid).is_err();
        let tops: Vec<u32> = known.iter().filter(below).map(|found| found.pid).collect();
        known.extend(tree::descendants_of(&tops));
        known.sort_unstable_by_key(key);
        known.dedup_by_key(|found| key(found));
        known.clone()
    };
    end_processes(select, EndPlan { grace, ..EndPlan::default() });
}
