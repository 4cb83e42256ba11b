//! Ends processes with all that they started, many at once.
//!
//! Looking for what descends from a process, or carries its mark, reads much of `/proc`. So it is done on threads of
//! their own, few, and each looks for all that are to be ended when it begins. Whoever is asked to end has its grace with
//! nobody waiting for it: one thread sleeps, and looks now and then whether those that were asked live.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use offshoot_mux::tree::{self, Proc};
use offshoot_mux::{EndPlan, ask_processes, end_processes};

use super::exec::JOB;

/// How many threads at once, each a few pages. To ask takes a look or two, to kill as long, and 2 s at most, should the
/// kernel hold a process back: while it does so with all of these, what comes waits.
const THREADS: usize = 4;

/// One that is to be ended.
struct Ending {
    process: Option<Proc>,
    tag: String,
    grace: Duration,
}

/// How long until the first look whether those that were asked live. Twice as long until the next one, and so on.
const SOON: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(640);

/// Some that were asked to end.
struct Asked {
    known: Vec<Proc>,
    tags: Vec<String>,
    until: Instant,
    look: Instant,
    pause: Duration,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Ending>,
    asked: Vec<Asked>,
    threads: usize,
    /// One of them sleeps until it is time to look.
    sleeps: bool,
}

/// The processes of a node that are being ended.
#[derive(Clone, Default)]
pub(super) struct Endings(Arc<(Mutex<Queue>, Condvar)>);

impl Endings {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a process and all that carries its mark ended: TERM, then KILL after the grace. `Err` when there is no thread
    /// to be had for it.
    pub(super) fn end(&self, process: Option<Proc>, tag: String, grace: Duration) -> std::io::Result<()> {
        let mut queue = self.lock();
        if queue.sleeps {
            self.0.1.notify_one();
        } else if queue.threads < THREADS {
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
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let next = queue.asked.iter().map(|asked| asked.look).enumerate().min_by_key(|(_, look)| *look);
            let goes_on = if let Some((at, _)) = next.filter(|(_, look)| *look <= now) {
                let asked = queue.asked.swap_remove(at);
                drop(queue);
                asked.go_on(now)
            } else if let Some(batch) = queue.batch() {
                drop(queue);
                Asked::ask(batch)
            } else if let Some((_, look)) = next.filter(|_| !queue.sleeps) {
                queue.sleeps = true;
                queue = self.0.1.wait_timeout(queue, look - now).unwrap_or_else(PoisonError::into_inner).0;
                queue.sleeps = false;
                continue;
            } else {
                // Who sleeps may do so for longer than until what this thread leaves is to be looked at.
                self.0.1.notify_one();
                queue.threads -= 1;
                return;
            };
            queue = self.lock();
            queue.asked.extend(goes_on);
        }
    }
}

impl Queue {
    /// Those that wait and have the same grace as the first.
    fn batch(&mut self) -> Option<Vec<Ending>> {
        let grace = self.waiting.first()?.grace;
        let (batch, later) = self.waiting.drain(..).partition(|ending| ending.grace == grace);
        self.waiting = later;
        Some(batch)
    }
}

impl Asked {
    /// Asks some that have the same grace to end; `None` when nothing of them lives.
    fn ask(batch: Vec<Ending>) -> Option<Asked> {
        let now = Instant::now();
        let until = now + batch.first()?.grace;
        // Whoever cleared its environment is found by its parent, and remembered for when that is gone.
        let known = batch.iter().filter_map(|ending| ending.process).collect();
        let mut tags: Vec<String> = batch.into_iter().map(|ending| ending.tag).collect();
        tags.sort_unstable();
        Asked { known, tags, until, look: now, pause: SOON }.ask_all(now)
    }

    /// Kills them when their grace is over; `None` when nothing of them lives any more.
    fn go_on(mut self, now: Instant) -> Option<Asked> {
        if self.until <= now {
            let plan = EndPlan { term_first: false, ..EndPlan::default() };
            end_processes(|| self.find(), plan);
            return None;
        }
        if !self.known.iter().any(Proc::lives) {
            // Whoever they started since has not been asked.
            return self.ask_all(now);
        }
        Some(self.later(now))
    }

    fn ask_all(mut self, now: Instant) -> Option<Asked> {
        ask_processes(|| self.find());
        (!self.known.is_empty()).then(|| self.later(now))
    }

    fn later(mut self, now: Instant) -> Asked {
        self.look = (now + self.pause).min(self.until);
        self.pause = (self.pause * 2).min(SELDOM);
        self
    }

    fn find(&mut self) -> Vec<Proc> {
        let Asked { known, tags, .. } = self;
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
    }
}

#[cfg(test)]
mod tests {
    use offshoot_mux::{Child, Spawn, Stdio};

    use super::*;

    fn started(tag: &str, script: &str) -> Child {
        Spawn::new("sh").args(["-c", script]).env(JOB, tag).stdin(Stdio::Null).start().unwrap()
    }

    fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + limit;
        while !holds() {
            assert!(Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn who_has_a_long_grace_holds_up_nobody_and_is_killed_when_it_is_over() {
        let endings = Endings::default();
        let own = std::process::id();
        let end = |child: &Child, tag: String, grace| endings.end(Proc::of(child.pid()), tag, grace).unwrap();
        // Each with a grace of its own, so that none can be ended together with another.
        // Deaf from when it is `sleep`, and not before.
        let deaf = |tag: &str, script: &str| {
            let child = started(tag, script);
            within(Duration::from_secs(10), "it does not run", || {
                std::fs::read_to_string(format!("/proc/{}/comm", child.pid())).is_ok_and(|name| name == "sleep\n")
            });
            child
        };
        let long: Vec<Child> = (0..40)
            .map(|number| {
                let tag = format!("deaf-{own}-{number}");
                let child = deaf(&tag, "trap '' TERM; exec sleep 60");
                end(&child, tag, Duration::from_secs(600 + number));
                child
            })
            .collect();
        let ends = |child: &Child| child.try_wait().unwrap().is_some();
        let polite = started(&format!("polite-{own}"), "sleep 60 & wait");
        end(&polite, format!("polite-{own}"), Duration::from_secs(600));
        within(Duration::from_secs(6), "it is not asked", || ends(&polite));
        let short = deaf(&format!("short-{own}"), "trap '' TERM; sleep 60 & exec sleep 60");
        let began = Instant::now();
        end(&short, format!("short-{own}"), Duration::from_millis(700));
        within(Duration::from_secs(6), "it is not killed", || ends(&short));
        assert!(began.elapsed() >= Duration::from_millis(600), "its grace was {:?}", began.elapsed());
        let left = || tree::with_env_tag(JOB, &format!("short-{own}"));
        within(Duration::from_secs(6), "what it started lives on", || left().is_empty());
        assert!(long.iter().all(|child| !ends(child)), "one was killed in its grace");
        assert!(endings.lock().threads <= THREADS);
    }
}
