//! Ending processes, whatever they do against it. Runs on the calling thread alone and starts none.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::tree::{self, Proc};
use crate::{Reaper, child, sys, wake};

/// How [`end_processes`] goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndPlan {
    /// Ask first, by `SIGTERM`.
    pub term_first: bool,
    /// How long those asked have before they are killed.
    pub grace: Duration,
    /// How long the killing may take.
    pub kill_deadline: Duration,
}

impl Default for EndPlan {
    /// Asks, waits 5 s, kills for 2 s at most.
    fn default() -> Self {
        EndPlan { term_first: true, grace: Duration::from_secs(5), kill_deadline: Duration::from_secs(2) }
    }
}

/// What [`end_processes`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EndReport {
    /// How many processes got `SIGKILL`.
    pub killed: usize,
    /// Those that live still: this process may not signal them, or they did not end in time.
    pub left: Vec<Proc>,
}

/// As long as a wait between two looks where nothing tells of an end.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest such wait while those that were asked have their grace: a look reads much of `/proc`.
const LONG_PAUSE: Duration = Duration::from_millis(160);
/// The most ends waited for at once; the others are seen by the next look.
const WATCHED: usize = 63;

/// Ends the processes that `select` finds, until it finds none or the time is over.
///
/// First `SIGTERM`, if wanted, and the grace. Then rounds: all are stopped, and looked for again until there is none that
/// was not stopped, so that they can fork no more; then all are killed. Stopped and traced processes end as well. Those
/// that this process may not signal are reported at once, not waited for. Children of this process among them are
/// reaped, unless a [`Child`](crate::Child) owns them; a subreaper reaps all its orphans, as a [`Reaper`] does. This process and process 1 are never signalled.
///
/// `select` is called several times: [`descendants`](crate::tree::descendants),
/// [`with_env_tag`](crate::tree::with_env_tag), or both, without what is to be spared. With nothing to end it returns
/// after its first call.
///
/// # Examples
///
/// ```standalone_crate
/// use offshoot_mux::{EndPlan, Spawn, end_processes, process, tree};
/// let child = Spawn::new("sh").args(["-c", "trap '' TERM; sleep 100 & wait"]).start()?;
/// let plan = EndPlan { term_first: false, ..EndPlan::default() };
/// let report = end_processes(|| tree::descendants(process::id()), plan);
/// assert!(report.killed >= 1 && report.left.is_empty());
/// assert!(child.try_wait()?.is_some());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn end_processes(mut select: impl FnMut() -> Vec<Proc>, plan: EndPlan) -> EndReport {
    end(&mut select, plan)
}

/// Asks the processes that `select` finds to end, by `SIGTERM`, each once, until it finds no other. Waits for none: see
/// [`end_processes`] for those that do not.
pub fn ask_processes(mut select: impl FnMut() -> Vec<Proc>) {
    // Whoever is asked and starts others all the same is not to keep this thread.
    const ROUNDS: usize = 16;
    let mut ending = Ending::new(&mut select);
    for _ in 0..ROUNDS {
        if !ending.ask_all() {
            return;
        }
    }
}

/// The same for whatever `select` is: compiled once.
fn end(select: &mut dyn FnMut() -> Vec<Proc>, plan: EndPlan) -> EndReport {
    let mut ending = Ending::new(select);
    if ending.look().is_empty() {
        return ending.report();
    }
    if plan.term_first {
        ending.ask(Instant::now() + plan.grace);
    }
    let _hurry = Hurry::new();
    ending.kill(Instant::now() + plan.kill_deadline);
    ending.report()
}

/// Ends a process with all that is below it, by force: the process itself last, and stopped until then. So, when it is a
/// subreaper, what the others leave behind by their own ends becomes its own and is found.
///
/// As [`end_processes`] with `kill_deadline` otherwise. When the time is over it ends the process all the same.
///
/// # Examples
///
/// ```standalone_crate
/// use offshoot_mux::{Spawn, end_tree, tree::Proc};
/// use std::time::{Duration, Instant};
/// let child = Spawn::new("sh").args(["-c", "trap '' TERM; sleep 100 & (sleep 100 & wait) & wait"]).start()?;
/// let root = Proc::of(child.pid()).expect("it lives");
/// let report = end_tree(root, Duration::from_secs(2));
/// assert!(report.left.is_empty());
/// let start = Instant::now();
/// while child.try_wait()?.is_none() {
///     assert!(start.elapsed() < Duration::from_secs(5));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn end_tree(root: Proc, kill_deadline: Duration) -> EndReport {
    let _hurry = Hurry::new();
    let mut select = || if root.lives() { tree::descendants(root.pid) } else { Vec::new() };
    let mut ending = Ending { select: &mut select, signalled: Vec::new(), adopts: false, watched: Vec::new() };
    ending.send(&root, Got::Stop);
    ending.kill(Instant::now() + kill_deadline);
    let report = ending.report();
    ending.send(&root, Got::Kill);
    report
}

/// Runs this thread before others where that is allowed: some hundred processes that do nothing but fork leave it too
/// little of the processor to look at them all in time.
struct Hurry(i32);

impl Hurry {
    fn new() -> Self {
        let before = sys::facts::priority();
        // Refused to ordinary users.
        let _ = sys::facts::set_priority(-20);
        Hurry(before)
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        // Lowering it is allowed to all.
        let _ = sys::facts::set_priority(self.0);
    }
}

/// What a process got, by number and start time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Got {
    Term,
    Stop,
    Kill,
    /// It may not be signalled.
    Denied,
}

struct Ending<'a> {
    select: &'a mut dyn FnMut() -> Vec<Proc>,
    /// In the order of number and start time: numbers rise, so that most are added at the end.
    signalled: Vec<(Got, Proc)>,
    /// Whether orphans are ours to reap.
    adopts: bool,
    /// Some of those that are about to end.
    watched: Vec<OwnedFd>,
}

impl<'a> Ending<'a> {
    fn new(select: &'a mut dyn FnMut() -> Vec<Proc>) -> Self {
        Ending { select, signalled: Vec::new(), adopts: sys::facts::is_child_subreaper(), watched: Vec::new() }
    }

    /// Asks those that live to end. Whether one had not been asked before.
    fn ask_all(&mut self) -> bool {
        let found = self.look();
        found.iter().fold(false, |fresh, process| self.send(process, Got::Term) | fresh)
    }

    /// Those that live, and may be signalled for all we know.
    fn look(&mut self) -> Vec<Proc> {
        let own = sys::pid::own() as u32;
        if self.adopts {
            // A process that forks and ends all the time would fill the system with our zombies.
            Reaper.reap();
        } else {
            for (_, process) in &self.signalled {
                child::reap_unowned(process.pid as i32);
            }
        }
        let mut found = (self.select)();
        found.retain(|process| process.pid != own && process.pid > 1 && self.got(process) != Some(Got::Denied));
        found
    }

    fn got(&self, process: &Proc) -> Option<Got> {
        self.place(process).ok().map(|at| self.signalled[at].0)
    }

    /// Where a process is among those that got something, or would be.
    fn place(&self, process: &Proc) -> Result<usize, usize> {
        let key = |process: &Proc| (process.pid, process.start_time);
        self.signalled.binary_search_by_key(&key(process), |(_, other)| key(other))
    }

    /// Signals a process unless it has got as much already. Whether it was new.
    fn send(&mut self, process: &Proc, what: Got) -> bool {
        if self.got(process) >= Some(what) {
            return false;
        }
        let signal = match what {
            Got::Term => libc::SIGTERM,
            Got::Stop => libc::SIGSTOP,
            Got::Kill | Got::Denied => libc::SIGKILL,
        };
        let fd = sys::pid::open(process.pid as i32);
        // Between being found and this the process may have ended and its number be another's. With a descriptor the
        // check holds for the signal; without one the gap is some microseconds.
        if process.start_time != 0 && !process.lives() {
            return false;
        }
        let result = match &fd {
            Ok(fd) => sys::pid::signal_fd(fd.as_fd(), signal),
            Err(_) => sys::pid::signal(process.pid as i32, signal),
        };
        let got = match result {
            Ok(()) => what,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Got::Denied,
            Err(_) => return false,
        };
        match self.place(process) {
            Ok(at) => self.signalled[at] = (got, *process),
            Err(at) => self.signalled.insert(at, (got, *process)),
        }
        if let (Ok(fd), Got::Term | Got::Kill) = (fd, got)
            && self.watched.len() < WATCHED
        {
            self.watched.push(fd);
        }
        got != Got::Denied
    }

    /// Waits until one of those watched has ended, at most for `most`; only a little where none is watched.
    fn pause(&mut self, deadline: Instant, most: Duration) {
        let left = deadline.saturating_duration_since(Instant::now()).min(most);
        let fds: Vec<_> = self.watched.iter().map(|fd| fd.as_fd()).collect();
        if fds.is_empty() {
            std::thread::sleep(left.min(most / 10));
            return;
        }
        let Ok(ready) = wake::wait_readable(&fds, Some(left)) else { return };
        let mut index = 0;
        self.watched.retain(|_| {
            index += 1;
            !ready.has(index - 1)
        });
    }

    fn ask(&mut self, deadline: Instant) {
        let (mut before, mut pause) = (0, PAUSE);
        loop {
            let found = self.look();
            if found.is_empty() {
                return;
            }
            // What takes its time is looked at more and more seldom.
            pause = if found.len() == before { (pause * 2).min(LONG_PAUSE) } else { PAUSE };
            before = found.len();
            for process in &found {
                self.send(process, Got::Term);
            }
            if Instant::now() >= deadline {
                return;
            }
            self.pause(deadline, pause);
        }
    }

    fn kill(&mut self, deadline: Instant) {
        self.watched.clear();
        loop {
            let mut found = self.look();
            if found.is_empty() {
                return;
            }
            // A stopped process keeps its place in the limits of its user: at last the others can fork no more either.
            while Instant::now() < deadline {
                let mut fresh = false;
                for process in &found {
                    fresh |= self.send(process, Got::Stop);
                }
                if !fresh {
                    break;
                }
                found = self.look();
            }
            for process in &found {
                self.send(process, Got::Kill);
            }
            if Instant::now() >= deadline {
                return;
            }
            self.pause(deadline, PAUSE);
        }
    }

    fn report(&mut self) -> EndReport {
        let mut left = self.look();
        left.extend(
            self.signalled
                .iter()
                .filter(|(got, process)| *got == Got::Denied && process.lives())
                .map(|(_, process)| *process),
        );
        let killed = self.signalled.iter().filter(|(got, _)| *got == Got::Kill).count();
        EndReport { killed, left }
    }
}
