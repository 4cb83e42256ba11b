//! What a check leaves behind, for the harnesses whose checks are processes of their own.

use std::time::{Duration, Instant};

use offshoot_mux::tree::Proc;
use offshoot_mux::{Reaper, process, tree};

/// What is still below this process, which has adopted it: whoever ended a moment ago is still to be reaped, and what a
/// failed connect started and nobody owns may still be about to end by its KILL.
pub(crate) fn left() -> Vec<Proc> {
    let since = Instant::now();
    loop {
        Reaper.reap();
        let left = tree::descendants(process::id());
        if left.is_empty() || since.elapsed() > Duration::from_secs(3) {
            return left;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
