//! Opening files below a folder, and who is at the other end of a socket.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{c_int, c_long};

use super::{check, fd};

/// Opens a path that may lead nowhere but below the folder. `ENOSYS` before Linux 5.6.
pub(crate) fn beneath(folder: BorrowedFd<'_>, path: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    if crate::fallback::forced(crate::fallback::NO_OPENAT2) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    // SAFETY: all zeros is a valid description: no flags, no mode, no restriction.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    // The kernel refuses a mode where nothing can be created.
    how.mode = if flags & libc::O_CREAT != 0 { u64::from(mode) } else { 0 };
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    let at = c_long::from(folder.as_raw_fd());
    // SAFETY: the path is a C string, and the description is live and of the size stated.
    let raw = unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &how, size_of_val(&how) as c_long) };
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    check(raw as c_int).map(|raw| unsafe { fd::own(raw) })
}

/// Opens a name in a folder.
pub(crate) fn at(folder: BorrowedFd<'_>, name: &CStr, flags: c_int, mode: u32) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the mode is read where something can be created.
    let raw = check(unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, mode) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { fd::own(raw) })
}

/// Process, user and group of whoever connected or listened at the other end of a unix socket.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    let raw = socket.as_raw_fd();
    // SAFETY: the pointers are to a live record and its size.
    check(unsafe {
        libc::getsockopt(raw, libc::SOL_SOCKET, libc::SO_PEERCRED, std::ptr::from_mut(&mut peer).cast(), &mut len)
    })?;
    Ok((peer.pid as u32, peer.uid, peer.gid))
}
