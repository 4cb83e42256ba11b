//! Signals of this process: blocking, reading, dispositions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use super::check;

fn set_of(signals: &[c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: all zeros is a valid set, and is then made an empty one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set.
    check(unsafe { libc::sigemptyset(&mut set) })?;
    for signal in signals {
        // SAFETY: as above; a number that is no signal is refused.
        check(unsafe { libc::sigaddset(&mut set, *signal) })?;
    }
    Ok(set)
}

fn mask(how: c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the pointer is to a live set, and nothing is asked back.
    let error = unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Blocks every signal for this thread, but those that libc needs for itself.
pub(crate) fn block_all() {
    // SAFETY: all zeros is a valid set, and is then filled.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live set.
    unsafe { libc::sigfillset(&mut set) };
    // It fails for a wrong first argument only.
    let _ = mask(libc::SIG_SETMASK, &set);
}

pub(crate) fn block(signals: &[c_int]) -> io::Result<()> {
    mask(libc::SIG_BLOCK, &set_of(signals)?)
}

pub(crate) fn unblock(signals: &[c_int]) -> io::Result<()> {
    mask(libc::SIG_UNBLOCK, &set_of(signals)?)
}

/// A descriptor from which blocked signals are read.
pub(crate) fn open(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = set_of(signals)?;
    // SAFETY: the pointer is to a live set.
    let raw = check(unsafe { libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { super::fd::own(raw) })
}

/// One signal from a descriptor of [`open`].
pub(crate) fn read(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: all zeros is a valid record.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes into the live record, any of which are valid.
    super::check_len(unsafe { libc::read(fd.as_raw_fd(), std::ptr::from_mut(&mut info).cast(), size) })?;
    Ok(info.ssi_signo as c_int)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    Default,
    Ignore,
    /// Writes the signal's number to the [`set_pipe`] descriptor.
    Pipe,
}

pub(crate) fn dispose(signal: c_int, disposition: Disposition) -> io::Result<()> {
    // SAFETY: all zeros is a valid action: default, no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    match disposition {
        Disposition::Default => action.sa_sigaction = libc::SIG_DFL,
        Disposition::Ignore => action.sa_sigaction = libc::SIG_IGN,
        Disposition::Pipe => {
            action.sa_sigaction = note as extern "C" fn(c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        }
    }
    // SAFETY: the pointer is to a live action; a handler of ours calls only `write`, which signal handlers may.
    check(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) })?;
    Ok(())
}

static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The descriptor for [`Disposition::Pipe`]; -1 for none. `false` when there was one already.
pub(crate) fn set_pipe(fd: c_int) -> bool {
    if fd == -1 {
        PIPE.store(-1, Ordering::Release);
        return true;
    }
    PIPE.compare_exchange(-1, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

extern "C" fn note(signal: c_int) {
    let pipe = PIPE.load(Ordering::Acquire);
    let byte = [signal as u8];
    // SAFETY: libc's pointer to this thread's errno is always valid, and what was interrupted must find it unchanged.
    // The write reads one live byte; on a descriptor closed meanwhile it fails.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(pipe, byte.as_ptr().cast(), 1);
        *libc::__errno_location() = errno;
    }
}
