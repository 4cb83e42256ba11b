//! Children of this process: their end, and signals to them. Runs on any thread.
//!
//! Owns which children are somebody's ([`Child`]) and which are nobody's (adopted orphans, which a [`Reaper`] reaps). It
//! never waits for "any child" in a way that could take another owner's: a user's process has children of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use libc::pid_t;

use crate::io::left;
use crate::{sys, wake};

/// The children that have an owner and are not reaped yet.
static OWNED: Mutex<Vec<pid_t>> = Mutex::new(Vec::new());
/// Held shared between a child's birth and its entry above, exclusively by a reaper: so that it sees no child that is
/// born and not entered.
static BIRTH: RwLock<()> = RwLock::new(());

fn owned() -> std::sync::MutexGuard<'static, Vec<pid_t>> {
    OWNED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a child and enters it.
pub(crate) fn register(leads_group: bool, make: impl FnOnce() -> io::Result<pid_t>) -> io::Result<Child> {
    let _birth = BIRTH.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pid = make()?;
    owned().push(pid);
    Ok(Child {
        pid,
        leads_group,
        parent: sys::pid::own(),
        process: sys::pid::open(pid).ok(),
        watch: OnceLock::new(),
        end: Mutex::new(End::Running),
    })
}

/// Takes a child out.
fn disown(pid: pid_t) {
    let childless = {
        let mut owned = owned();
        owned.retain(|owned| *owned != pid);
        owned.is_empty()
    };
    if childless {
        sys::seats::give_back();
    }
}

/// Forgets all children: after a fork they are the parent's.
pub(crate) fn forget_all() {
    owned().clear();
}

/// Reaps this child if it has ended and has no owner; anything else it leaves alone.
pub(crate) fn reap_unowned(pid: pid_t) {
    if !owned().contains(&pid) {
        // An error means that it is no child of ours.
        let _ = sys::pid::try_reap(pid);
    }
}

/// Those owned that have not ended, for a system without `/proc`.
pub(crate) fn owned_alive() -> Vec<pid_t> {
    let mut alive = owned().clone();
    alive.retain(|pid| matches!(sys::pid::has_ended(*pid), Ok(false)));
    alive
}

#[derive(Debug, Clone, Copy)]
enum End {
    Running,
    Ended(ExitStatus),
    /// Somebody else reaped it.
    Lost,
}

/// A child process that this process started.
///
/// Dropping it kills the process, if it still runs, and reaps it (waiting one second at most, for a process that the
/// kernel holds back): nothing is left behind by an early return. [`leave`](Self::leave) lets it live.
///
/// All methods can be called from any thread at once.
#[derive(Debug)]
pub struct Child {
    pid: pid_t,
    leads_group: bool,
    /// Who may reap it; differs in a process that this one forked.
    parent: pid_t,
    process: Option<OwnedFd>,
    /// The end of a pipe that a thread closes when the child has ended, where there is no pidfd; made when asked for.
    watch: OnceLock<OwnedFd>,
    end: Mutex<End>,
}

impl Child {
    /// Its process id. Of use for messages: by the time it is used the process may be gone and the number another's.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    fn end(&self) -> std::sync::MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reaps the child if it has ended: its status, now and at every later call.
    ///
    /// # Errors
    ///
    /// `ECHILD` when somebody else has reaped it: foreign code that waits for any child, or ignores `SIGCHLD`.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let mut end = self.end();
        if let End::Running = *end {
            match crate::io::again(|| sys::pid::try_reap(self.pid)) {
                Ok(None) => return Ok(None),
                Ok(Some(status)) => *end = End::Ended(ExitStatus::from_raw(status)),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => *end = End::Lost,
                Err(error) => return Err(error),
            }
            disown(self.pid);
        }
        match *end {
            End::Running => Ok(None),
            End::Ended(status) => Ok(Some(status)),
            End::Lost => Err(io::Error::from_raw_os_error(libc::ECHILD)),
        }
    }

    /// Waits until the child has ended, and reaps it; `None` when the deadline passed before.
    ///
    /// # Errors
    ///
    /// As [`try_wait`](Self::try_wait), and those of `poll(2)`.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            let Some(left) = left(deadline) else { return Ok(None) };
            match self.process.as_ref().or(self.watch.get()) {
                Some(fd) => {
                    wake::wait_readable(&[fd.as_fd()], left)?;
                }
                // No thread for this: a supervisor must stay single-threaded.
                None => {
                    std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
                    pause = (pause * 2).min(Duration::from_millis(10));
                }
            }
        }
    }

    /// A descriptor that becomes readable (or hung up) when the child has ended, for a poller; then call
    /// [`try_wait`](Self::try_wait). It stays so. On kernels without pidfd (before 5.3) the first call starts a thread
    /// that lasts as long as the child.
    ///
    /// # Errors
    ///
    /// Out of descriptors or threads.
    pub fn exit_fd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(process) = &self.process {
            return Ok(process.as_fd());
        }
        if let Some(watch) = self.watch.get() {
            return Ok(watch.as_fd());
        }
        let (read, write) = crate::io::pipe()?;
        let pid = self.pid;
        crate::thread::start_with_stack("child-watch", 32 * 1024, move || {
            sys::signal::block_all();
            // An error means that it has been reaped already: ended as well.
            let _ = crate::io::again(|| sys::pid::wait_unreaped(pid));
            drop(write);
        })?;
        // Should two threads have come here at once, the second watch ends with the child like the first.
        let _ = self.watch.set(read);
        self.watch.get().map(|watch| watch.as_fd()).ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Sends a signal. It cannot reach another process, even one with the same number.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the child has ended and been reaped; `EPERM` when it has become another user.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // While this lock is held nobody reaps the child, and until then its number is its own.
        let end = self.end();
        match (&*end, &self.process) {
            (End::Running, Some(process)) => sys::pid::signal_fd(process.as_fd(), signal),
            (End::Running, None) => sys::pid::signal(self.pid, signal),
            (End::Ended(_) | End::Lost, _) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Sends a signal to the process group that the child leads.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it was not started as the leader of one; `ESRCH` when it has been reaped.
    pub fn signal_group(&self, signal: i32) -> io::Result<()> {
        if !self.leads_group {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let end = self.end();
        match *end {
            End::Running => sys::pid::signal(-self.pid, signal),
            End::Ended(_) | End::Lost => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Lets the process live on without an owner. It stays a child of this process, which should have a [`Reaper`].
    pub fn leave(self) -> u32 {
        disown(self.pid);
        *self.end() = End::Lost;
        self.pid()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // In a process forked from its parent it is not ours to end.
        if self.parent != sys::pid::own() || !matches!(*self.end(), End::Running) {
            return;
        }
        if let Ok(None) = self.try_wait() {
            let _ = self.signal(libc::SIGKILL);
            let _ = self.wait(Some(Instant::now() + Duration::from_secs(1)));
            disown(self.pid);
        }
    }
}

/// Reaps the children that are nobody's: orphans that a subreaper (see
/// [`set_child_subreaper`](crate::process::set_child_subreaper)) has adopted, and those that were
/// [left](Child::leave).
///
/// For a process of ours alone: children started by other means than [`Spawn`](crate::Spawn) it takes for orphans.
#[derive(Debug, Default)]
pub struct Reaper;

/// What a [`Reaper`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// How many orphans had ended and are reaped now.
    pub count: usize,
    /// Whether this process has no child at all any more.
    pub childless: bool,
}

impl Reaper {
    /// Reaps all orphans that have ended; call it at each `SIGCHLD`. Never blocks: while a program is being started on
    /// another thread it does nothing, since the end of that brings another `SIGCHLD`.
    pub fn reap(&self) -> Reaped {
        let mut reaped = Reaped::default();
        let Ok(_birth) = BIRTH.try_write() else { return reaped };
        loop {
            match crate::io::again(sys::pid::peek) {
                Ok(None) => return reaped,
                Ok(Some(pid)) if !owned().contains(&pid) => match sys::pid::try_reap(pid) {
                    Ok(Some(_)) => reaped.count += 1,
                    _ => return reaped,
                },
                // The kernel shows the same one until its owner has reaped it: look for others behind it.
                Ok(Some(_)) => {
                    for process in crate::tree::children() {
                        if !owned().contains(&process) && matches!(sys::pid::try_reap(process), Ok(Some(_))) {
                            reaped.count += 1;
                        }
                    }
                    return reaped;
                }
                Err(error) => {
                    reaped.childless = error.raw_os_error() == Some(libc::ECHILD);
                    return reaped;
                }
            }
        }
    }
}
