//! Processes by number or by descriptor: waiting and signalling.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_long, pid_t};

use super::check;
use crate::fallback;

/// A descriptor for a process; readable when it has ended.
pub(crate) fn open(pid: pid_t) -> io::Result<OwnedFd> {
    if fallback::forced(fallback::NO_PIDFD) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    // SAFETY: takes two numbers.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, c_long::from(pid), 0 as c_long) } as c_int)?;
    // SAFETY: the kernel has just given us this descriptor (closed on exec); nobody else owns it.
    Ok(unsafe { super::fd::own(raw) })
}

pub(crate) fn signal_fd(process: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::siginfo_t>();
    let fd = c_long::from(process.as_raw_fd());
    // SAFETY: takes numbers and a null pointer, which the kernel accepts as "no details".
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, c_long::from(signal), none, 0 as c_long) } as c_int)?;
    Ok(())
}

pub(crate) fn signal(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Reaps this child if it has ended; its raw wait status.
pub(crate) fn try_reap(pid: pid_t) -> io::Result<Option<c_int>> {
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    let got = check(unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) })?;
    Ok((got != 0).then_some(status))
}

/// Waits until this child has ended, and leaves it to be reaped.
pub(crate) fn wait_unreaped(pid: pid_t) -> io::Result<()> {
    wait_id(libc::P_PID, pid as libc::id_t, libc::WEXITED | libc::WNOWAIT)?;
    Ok(())
}

/// Whether this child has ended; it is left to be reaped. An error when it is no child.
pub(crate) fn has_ended(pid: pid_t) -> io::Result<bool> {
    Ok(wait_id(libc::P_PID, pid as libc::id_t, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)? != 0)
}

/// One child of this process that has ended, left to be reaped. An error of `ECHILD` when there is no child at all.
pub(crate) fn peek() -> io::Result<Option<pid_t>> {
    let pid = wait_id(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    Ok((pid != 0).then_some(pid))
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, options: c_int) -> io::Result<pid_t> {
    // SAFETY: all zeros is a valid siginfo; the kernel leaves it so when nothing has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live siginfo.
    check(unsafe { libc::waitid(kind, id, &mut info, options) })?;
    // SAFETY: waitid fills in the fields of a child's end, or leaves zeros.
    Ok(unsafe { info.si_pid() })
}

pub(crate) fn own() -> pid_t {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getpid() }
}

pub(crate) fn parent() -> pid_t {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getppid() }
}
