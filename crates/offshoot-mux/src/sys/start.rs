//! Starting a program: the child's side, between its birth and exec.
//!
//! The child shares the parent's memory and the calling thread sleeps until it execs or ends, as in libc's own
//! `posix_spawn`: so the cost does not grow with the parent. libc's is not used because it cannot close descriptors it
//! was not told of (before glibc 2.34, in musl at all), execute a descriptor without `/proc`, set limits, or take a
//! terminal that has no path. Where the kernel refuses such a clone, or does not really share (an emulator), the same
//! code runs after a plain fork: hence the report by pipe and not by memory.
//!
//! What runs in the child may call the kernel and nothing else: no allocation, no lock, no libc function with state.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use libc::{c_char, c_int, c_long, c_void};

use super::check;
use super::seats::End;

/// What the child does, all prepared. The pointers must be valid until [`start`] returns; descriptors to pass are
/// numbered at least `fds.len() + 2`.
pub(crate) struct Plan<'a> {
    /// The paths to try, in order, null-terminated; ignored when there is a descriptor to execute.
    pub(crate) programs: &'a [*const c_char],
    /// The descriptor to execute, and its path below `/proc/self/fd` as it will be in the child.
    pub(crate) image: Option<(RawFd, *const c_char)>,
    pub(crate) argv: &'a [*const c_char],
    pub(crate) envp: &'a [*const c_char],
    /// What becomes descriptor 0, 1, 2 and so on.
    pub(crate) fds: &'a [RawFd],
    /// The end of a pipe to write on what failed.
    pub(crate) report: RawFd,
    /// The child shares the parent's descriptors until it has cut off those behind: see `seats`.
    pub(crate) end: Option<End>,
    pub(crate) cwd: Option<*const c_char>,
    pub(crate) session: bool,
    pub(crate) group: Option<libc::pid_t>,
    pub(crate) terminal: Option<RawFd>,
    pub(crate) umask: Option<libc::mode_t>,
    pub(crate) limits: &'a [(c_int, libc::rlimit)],
    pub(crate) nice: Option<c_int>,
    pub(crate) death_signal: Option<c_int>,
}

/// What the child was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Step {
    Descriptors = 1,
    Session = 2,
    Terminal = 3,
    Directory = 4,
    Limits = 5,
    Exec = 6,
}

impl Step {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Step::Descriptors, Step::Session, Step::Terminal, Step::Directory, Step::Limits, Step::Exec]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }
}

/// Room for the child's frames, also unoptimized; the largest is the list of descriptors.
const STACK: usize = 64 * 1024;
const GUARD: usize = 64 * 1024;

/// A stack with pages below it that cannot be touched.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), GUARD + STACK, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack(base);
        // SAFETY: the range is the low part of the mapping made above. 64 KiB is a multiple of every page size in use.
        check(unsafe { libc::mprotect(base, GUARD, libc::PROT_NONE) })?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.0.byte_add(GUARD + STACK) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing uses any more: the child has a memory of its own by now.
        unsafe { libc::munmap(self.0, GUARD + STACK) };
    }
}

/// Makes the child and answers its process id, when it has executed the program or failed (then the report says so).
pub(crate) fn start(plan: &Plan<'_>, fork: bool) -> io::Result<libc::pid_t> {
    let mut refused = None;
    if !fork {
        let stack = Stack::new()?;
        let shared = if plan.end.is_some() { libc::CLONE_FILES } else { 0 };
        let mask = MaskAll::new();
        // SAFETY: `child` never returns into our frames; its stack is fresh, aligned and large enough; CLONE_VFORK keeps
        // this frame, and so the plan, alive until it has executed or ended. All signals are blocked, so no handler runs
        // in it, and it changes no memory but its stack, and no descriptor before it has a table of its own.
        let pid = unsafe {
            libc::clone(
                child,
                stack.top(),
                libc::CLONE_VM | libc::CLONE_VFORK | shared | libc::SIGCHLD,
                ptr::from_ref(plan).cast_mut().cast(),
            )
        };
        let result = check(pid);
        drop(mask);
        match result {
            Ok(pid) => return Ok(pid),
            Err(error) => match error.raw_os_error() {
                Some(libc::EPERM | libc::EINVAL | libc::ENOSYS) => refused = Some(error),
                _ => return Err(error),
            },
        }
    }
    let mask = MaskAll::new();
    // SAFETY: the new process calls `child` only, which is written for the state after a fork in a process with threads.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child(ptr::from_ref(plan).cast_mut().cast());
    }
    let result = check(pid);
    drop(mask);
    result.map_err(|error| refused.unwrap_or(error))
}

/// Size in bytes of the kernel's signal set.
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SIGSET: usize = 16;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
const SIGSET: usize = 8;

fn set_mask(new: &[u8; SIGSET], old: Option<&mut [u8; SIGSET]>) {
    let old = old.map_or(ptr::null_mut(), |old| old.as_mut_ptr());
    // SAFETY: both pointers are null or to sets of the size stated. libc's function is not used since it hides the two
    // signals that libc itself handles.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK as c_long, new.as_ptr(), old, SIGSET as c_long)
    };
}

/// Blocks every signal for this thread while it lives.
struct MaskAll([u8; SIGSET]);

impl MaskAll {
    fn new() -> Self {
        let mut old = [0; SIGSET];
        set_mask(&[0xff; SIGSET], Some(&mut old));
        MaskAll(old)
    }
}

impl Drop for MaskAll {
    fn drop(&mut self) {
        set_mask(&self.0, None);
    }
}

/// The default disposition for every signal; an exec keeps those that are ignored otherwise.
pub(crate) fn reset_dispositions() {
    // All zeros is the default action, no flags and an empty mask in the kernel's layout on every architecture.
    let default = [0usize; 8];
    for signal in 1..=64 {
        // SAFETY: the kernel reads at most `default` and writes nothing. KILL and STOP are refused, as they should be.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                c_long::from(signal),
                default.as_ptr(),
                ptr::null_mut::<c_void>(),
                SIGSET as c_long,
            )
        };
    }
}

/// The empty signal mask for this thread.
pub(crate) fn clear_mask() {
    set_mask(&[0; SIGSET], None);
}

/// For how long a child that somebody stops before its exec stays so. The thread that starts it sleeps as long, in the
/// kernel, where nothing else can wake it.
const STOPPED: Duration = Duration::from_secs(1);

extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `start` passes its own argument, which outlives this function.
    let plan = unsafe { &*plan.cast::<Plan<'_>>() };
    // It ends with the exec. Where there is no timer to be had, it goes on when whoever stopped it lets it.
    if let Ok(timer) = super::rouse::create() {
        let _ = super::rouse::set(timer, STOPPED, STOPPED);
    }
    let report = plan.fds.len() as RawFd;
    let (at, step) = match prepare(plan, report) {
        Err((step, at)) => (at, step),
        Ok(()) => {
            exec(plan, report + 1);
            (report, Step::Exec)
        }
    };
    let errno = errno().to_ne_bytes();
    let message = [step as u8, errno[0], errno[1], errno[2], errno[3]];
    // SAFETY: writes five live bytes, then ends this process without running anything of the parent's.
    unsafe {
        libc::write(at, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

fn errno() -> c_int {
    // SAFETY: libc's pointer to this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// Everything before exec. On failure: the step, and where the report's descriptor is by then.
fn prepare(plan: &Plan<'_>, report: RawFd) -> Result<(), (Step, RawFd)> {
    let first = plan.report;
    if plan.end.is_some_and(|end| !end.cut()) {
        return Err((Step::Descriptors, first));
    }
    reset_dispositions();
    // SAFETY: all these calls take numbers, or pointers that the plan promises to be valid, and
    // change this process only.
    unsafe {
        if plan.session {
            ok(libc::setsid(), Step::Session, first)?;
        } else if let Some(group) = plan.group {
            ok(libc::setpgid(0, group), Step::Session, first)?;
        }
        if let Some(terminal) = plan.terminal {
            ok(libc::ioctl(terminal, libc::TIOCSCTTY as _, 0), Step::Terminal, first)?;
        }
        if let Some(signal) = plan.death_signal {
            ok(libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0), Step::Limits, first)?;
        }
        for (target, source) in plan.fds.iter().enumerate() {
            ok(libc::dup2(*source, target as RawFd), Step::Descriptors, first)?;
        }
        ok(libc::dup3(first, report, libc::O_CLOEXEC), Step::Descriptors, first)?;
        let mut open = report + 1;
        if let Some((image, _)) = plan.image {
            ok(libc::dup3(image, open, libc::O_CLOEXEC), Step::Descriptors, report)?;
            open += 1;
        }
        super::close::from(open);
        if let Some(umask) = plan.umask {
            libc::umask(umask);
        }
        if let Some(cwd) = plan.cwd {
            ok(libc::chdir(cwd), Step::Directory, report)?;
        }
        for (resource, limit) in plan.limits {
            ok(libc::setrlimit(*resource as _, limit), Step::Limits, report)?;
        }
        if let Some(nice) = plan.nice {
            // A process can always read its own, and what is beyond the ends is brought back to them.
            let number = libc::getpriority(libc::PRIO_PROCESS, 0).saturating_add(nice);
            ok(libc::setpriority(libc::PRIO_PROCESS, 0, number), Step::Limits, report)?;
        }
    }
    clear_mask();
    Ok(())
}

fn ok(result: c_int, step: Step, report: RawFd) -> Result<(), (Step, RawFd)> {
    if result == -1 { Err((step, report)) } else { Ok(()) }
}

/// Returns only when nothing could be executed, with the reason in errno.
fn exec(plan: &Plan<'_>, image: RawFd) {
    let (argv, envp) = (plan.argv.as_ptr(), plan.envp.as_ptr());
    if let Some((_, path)) = plan.image {
        execute_fd(image, path, argv, envp);
        return;
    }
    let mut denied = false;
    for program in plan.programs {
        // SAFETY: the plan's pointers are valid and the lists null-terminated.
        unsafe { libc::execve(*program, argv, envp) };
        match errno() {
            libc::EACCES => denied = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return,
        }
    }
    // As execvp: a program that may not be executed says more than those that are not there.
    let reason = match (denied, plan.programs.is_empty()) {
        (true, _) => libc::EACCES,
        (false, true) => libc::ENOENT,
        (false, false) => return,
    };
    // SAFETY: libc's pointer to this thread's errno is always valid.
    unsafe { *libc::__errno_location() = reason };
}

/// Executes an open file, by its descriptor or its path below `/proc`. Returns on failure, with the reason in errno.
pub(crate) fn execute_fd(fd: RawFd, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) {
    let mut reason = 0;
    if !crate::fallback::forced(crate::fallback::NO_EXECVEAT) {
        // SAFETY: the lists are valid and null-terminated, as the callers promise; the path is empty.
        unsafe {
            libc::syscall(libc::SYS_execveat, c_long::from(fd), c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH as c_long)
        };
        reason = errno();
    }
    // SAFETY: as above.
    unsafe { libc::execve(path, argv, envp) };
    // Without /proc the second way says "no such file", which is not the reason.
    if reason != 0 && reason != libc::ENOSYS && errno() == libc::ENOENT {
        // SAFETY: libc's pointer to this thread's errno is always valid.
        unsafe { *libc::__errno_location() = reason };
    }
}

/// Replaces this process by the program in an open file; returns the reason when that fails.
pub(crate) fn replace(fd: RawFd, path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (list(argv), list(env));
    execute_fd(fd, path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    io::Error::last_os_error()
}
