//! Threads that wait for work, of which one may watch where it comes from.
//!
//! Owns the queue, and who of those that wait is told of a job. Must not know what a job is, how a thread is started, or
//! what is watched. Runs on the threads that bring jobs and on those of the crew; its lock is held for a few instructions
//! and for the start of a thread. Model-checked in `tests/loom.rs`: each job is taken once, and none waits while a thread
//! sleeps.
//!
//! A thread of the crew calls [`Crew::arrive`], then does, until [`Crew::next`] yields nothing:
//!
//! 1. when [`Crew::is_quiet`], take over the source of the jobs, as with [`Registry::lead`](crate::Registry::lead), then
//!    [`Crew::lead`] with a ticket of its own, and [attach](Slot::attach) its wake-up to that;
//! 2. until [`Crew::take`] yields a job or the ticket is done: sleep on the source, and [push](Crew::push) what comes;
//! 3. hand the source back, [`Crew::let_go`], and run the job if either yielded one;
//! 4. else [`Crew::next`].
//!
//! So a job that comes alone is read and run by one thread, which nobody has to wake.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Instant;

use crate::lead::Slot;
use crate::sync::{Arc, Condvar, Mutex, lock};

/// Jobs, and the threads that run them.
pub struct Crew<J> {
    work: Mutex<Work<J>>,
    came: Condvar,
}

struct Work<J> {
    queue: VecDeque<J>,
    /// Those that sleep here; one that was told of a job counts until it is up.
    idle: usize,
    threads: usize,
    limit: usize,
    /// One that was told of a job, or is being started, is on its way here.
    coming: bool,
    leader: Option<Leader<J>>,
}

/// The thread that watches the source.
struct Leader<J> {
    ticket: Arc<Slot<()>>,
    /// What it is to run.
    job: Option<J>,
}

impl<J> fmt::Debug for Crew<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = lock(&self.work);
        f.debug_struct("Crew").field("queue", &work.queue.len()).field("threads", &work.threads).finish_non_exhaustive()
    }
}

impl<J> Crew<J> {
    /// A crew without threads, that may have so many.
    pub fn new(limit: usize) -> Crew<J> {
        let work = Work { queue: VecDeque::new(), idle: 0, threads: 0, limit, coming: false, leader: None };
        Crew { work: Mutex::new(work), came: Condvar::new() }
    }

    /// How many threads there may be from now on; those that there are stay.
    pub fn set_limit(&self, limit: usize) {
        lock(&self.work).limit = limit;
    }

    /// Brings a job: to the thread that leads, if it has none yet, else to one that sleeps, else to one that `start`
    /// starts, if there may be more. It runs under the lock; the thread that it starts calls [`arrive`](Self::arrive) first of all.
    /// Else the job waits until a thread is free. While one is on its way no other is told, unless one has gone to sleep since;
    /// it has the next one come when it takes its job: so short jobs that come together are run by few, and each by a thread of its
    /// own if they are long.
    ///
    /// # Errors
    ///
    /// That of `start`, when there is no thread at all; the job is dropped then.
    pub fn push(&self, job: J, start: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut work = lock(&self.work);
        if let Some(leader) = work.leader.as_mut().filter(|leader| leader.job.is_none()) {
            leader.job = Some(job);
            let ticket = Arc::clone(&leader.ticket);
            drop(work);
            ticket.complete(());
            return Ok(());
        }
        work.queue.push_back(job);
        match self.call(&mut work, start) {
            Err(error) if work.threads == 0 => {
                work.queue.pop_back();
                Err(error)
            }
            // The threads that there are will come to it; or see `again`.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Has a thread come, if a job waits and none is on its way.
    fn call(&self, work: &mut Work<J>, start: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if work.queue.is_empty() || work.coming {
            return Ok(());
        }
        if work.idle > 0 {
            self.came.notify_one();
        } else if work.threads < work.limit {
            start()?;
            work.threads += 1;
        } else {
            return Ok(());
        }
        work.coming = true;
        Ok(())
    }

    /// The thread that was started is there.
    pub fn arrive(&self) {
        lock(&self.work).coming = false;
    }

    /// Takes back the first job that is `wanted`, if it still waits.
    pub fn remove(&self, wanted: impl FnMut(&J) -> bool) -> Option<J> {
        let mut work = lock(&self.work);
        let at = work.queue.iter().position(wanted)?;
        work.queue.remove(at)
    }

    /// Whether no job waits or runs.
    pub fn is_idle(&self) -> bool {
        let work = lock(&self.work);
        let leads = usize::from(work.leader.as_ref().is_some_and(|leader| leader.job.is_none()));
        work.queue.is_empty() && work.idle + leads == work.threads
    }

    /// How many jobs wait for a thread.
    pub fn waiting(&self) -> usize {
        lock(&self.work).queue.len()
    }

    /// Has a thread come, if a job waits and none is on its way: for when one could not be started before.
    pub fn again(&self, start: impl FnOnce() -> io::Result<()>) {
        // An error is `start`'s own business: the job waits on.
        let _ = self.call(&mut lock(&self.work), start);
    }

    /// Whether no job waits and every other thread of the crew sleeps: then the calling one may lead.
    pub fn is_quiet(&self) -> bool {
        lock(&self.work).is_quiet()
    }

    /// The calling thread leads, if it is still [quiet](Self::is_quiet): the next job is its own, and completes `ticket`.
    pub fn lead(&self, ticket: &Arc<Slot<()>>) -> bool {
        let mut work = lock(&self.work);
        let quiet = work.is_quiet();
        if quiet {
            work.leader = Some(Leader { ticket: Arc::clone(ticket), job: None });
        }
        quiet
    }

    /// The job of the thread that leads with `ticket`, when one has come; then it leads no longer.
    pub fn take(&self, ticket: &Arc<Slot<()>>) -> Option<J> {
        let mut work = lock(&self.work);
        let leader = &mut work.leader;
        leader.take_if(|leader| leader.job.is_some() && Arc::ptr_eq(&leader.ticket, ticket))?.job
    }

    /// The thread that leads with `ticket` leads no longer; its job, when one has come.
    pub fn let_go(&self, ticket: &Arc<Slot<()>>) -> Option<J> {
        let mut work = lock(&self.work);
        work.leader.take_if(|leader| Arc::ptr_eq(&leader.ticket, ticket))?.job
    }

    /// Waits for a job, at most until then. When more wait, another thread is told, or started, as by [`push`](Self::push).
    /// `None` takes the calling thread out of the crew.
    pub fn next(&self, until: Instant, start: impl FnOnce() -> io::Result<()>) -> Option<J> {
        let mut work = lock(&self.work);
        loop {
            if let Some(job) = work.queue.pop_front() {
                // An error means that there are no more threads to be had: those that there are come to it, or see `again`.
                let _ = self.call(&mut work, start);
                return Some(job);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                work.threads -= 1;
                return None;
            }
            work.idle += 1;
            // Whoever else is on its way, this one is here.
            work.coming = false;
            work = self.came.wait_timeout(work, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
            work.idle -= 1;
            work.coming = false;
        }
    }
}

impl<J> Work<J> {
    fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.leader.is_none() && self.idle + 1 == self.threads
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn never() -> io::Result<()> {
        unreachable!("no thread is needed")
    }

    #[test]
    fn the_thread_that_leads_gets_the_next_job_and_the_one_after_it_starts_another() {
        let crew = Crew::new(2);
        crew.push(1, || Ok(())).unwrap();
        crew.arrive();
        assert_eq!(crew.next(soon(), never), Some(1));
        let ticket = Arc::new(Slot::new());
        assert!(crew.is_quiet() && crew.lead(&ticket));
        assert!(crew.is_idle() && !crew.is_quiet(), "one leads, and no other may");
        crew.push(2, never).unwrap();
        assert!(ticket.is_done() && !crew.is_idle());
        let mut started = 0;
        crew.push(3, || {
            started += 1;
            Ok(())
        })
        .unwrap();
        crew.push(4, never).unwrap();
        assert_eq!(crew.take(&Arc::new(Slot::new())), None, "another's job");
        assert_eq!((crew.take(&ticket), crew.let_go(&ticket)), (Some(2), None));
        assert!(!crew.lead(&ticket), "jobs wait");
        assert_eq!(crew.remove(|job| *job == 4), Some(4));
        crew.arrive();
        assert_eq!(crew.next(soon(), never), Some(3));
        assert!(!crew.is_quiet() && started == 1, "the other thread runs");
    }

    #[test]
    fn one_thread_is_on_its_way_at_a_time_and_has_the_next_one_come_up_to_the_limit() {
        let crew = Crew::new(3);
        let mut started = 0;
        let mut start = || {
            started += 1;
            Ok(())
        };
        for job in 1..=5 {
            crew.push(job, &mut start).unwrap();
        }
        crew.arrive();
        assert_eq!(crew.next(soon(), &mut start), Some(1));
        // Who was started takes its time: meanwhile another comes back.
        assert_eq!(crew.next(soon(), &mut start), Some(2));
        crew.arrive();
        assert_eq!(crew.next(soon(), &mut start), Some(3));
        crew.arrive();
        assert_eq!(crew.next(soon(), &mut start), Some(4));
        assert_eq!(started, 3, "as many as may be");
    }

    #[test]
    fn who_sleeps_is_told_of_a_job_while_another_is_on_its_way() {
        let crew = Arc::new(Crew::new(2));
        crew.push(1, || Ok(())).unwrap();
        crew.arrive();
        crew.next(soon(), never).unwrap();
        // Another is started for it, and takes its time.
        crew.push(2, || Ok(())).unwrap();
        assert_eq!(crew.next(soon(), never), Some(2));
        let theirs = Arc::clone(&crew);
        let first = std::thread::spawn(move || theirs.next(soon(), never));
        while lock(&crew.work).idle == 0 {
            std::thread::yield_now();
        }
        let begun = Instant::now();
        crew.push(3, never).unwrap();
        assert_eq!(first.join().unwrap(), Some(3));
        assert!(begun.elapsed() < Duration::from_secs(15), "it slept to its end");
    }

    #[test]
    fn a_job_for_which_no_thread_could_be_started_gets_one_later() {
        let crew = Crew::new(2);
        let short = || Err(io::ErrorKind::WouldBlock.into());
        crew.push(1, || Ok(())).unwrap();
        crew.push(2, never).unwrap();
        crew.arrive();
        assert_eq!(crew.next(soon(), short), Some(1));
        let mut started = 0;
        crew.again(short);
        crew.again(|| {
            started += 1;
            Ok(())
        });
        crew.again(never);
        assert_eq!((started, crew.waiting()), (1, 1));
    }

    #[test]
    fn a_job_that_comes_while_the_leader_lets_go_is_its_own() {
        let crew = Crew::new(1);
        crew.push(1, || Ok(())).unwrap();
        crew.arrive();
        crew.next(soon(), never).unwrap();
        let ticket = Arc::new(Slot::new());
        assert!(crew.lead(&ticket));
        crew.push(2, never).unwrap();
        assert_eq!(crew.let_go(&ticket), Some(2));
        assert_eq!(crew.next(Instant::now(), never), None);
        crew.push(3, || Err(io::ErrorKind::OutOfMemory.into())).unwrap_err();
        assert!(crew.is_idle(), "no thread, and no job");
    }
}
