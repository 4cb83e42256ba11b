//! Reading, writing and flags of descriptors.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use bytes::BytesMut;

use super::{check, check_len};

/// Takes a descriptor that a system call has just returned.
///
/// # Safety
///
/// It must be open and owned by nobody else.
pub(crate) unsafe fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: as the caller promises.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the live slice.
    check_len(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Reads into memory that holds nothing yet, and says how much of it does now.
pub(crate) fn read_uninit(fd: BorrowedFd<'_>, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into the live slice, and reads none of them.
    check_len(unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// Appends what one read gives, at most `most` bytes.
pub(crate) fn read_into(fd: BorrowedFd<'_>, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.reserve(most);
    let n = read_uninit(fd, &mut buffer.spare_capacity_mut()[..most])?;
    // SAFETY: the kernel has written the first `n` bytes of the spare capacity.
    unsafe { buffer.set_len(buffer.len() + n) };
    Ok(n)
}

/// Makes descriptor `number` another one for what `fd` is; what was open there is closed.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: takes two numbers. The standard streams, the only ones this is used for, have no owner in Rust.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) })?;
    Ok(())
}

/// Makes `fd` another one for what is open under `number`; closed on exec. What it was is closed.
#[cfg(not(offshoot_agent))]
pub(crate) fn replace(number: RawFd, fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes two numbers, and the second one's owner is at hand.
    check(unsafe { libc::dup3(number, fd.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

pub(crate) fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    // SAFETY: takes two descriptors that are open, and numbers.
    check_len(unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), most, libc::SPLICE_F_NONBLOCK) })
}

pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes of the live slice.
    check_len(unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) })
}

pub(crate) fn writev(fd: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = libc::c_int::try_from(parts.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `IoSlice` is documented to have the layout of `iovec`, and each part is a live slice.
    check_len(unsafe { libc::writev(fd.as_raw_fd(), parts.as_ptr().cast(), count) })
}

pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: F_GETFL takes no pointer.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: F_SETFL takes a number.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

pub(crate) fn set_pipe_size(fd: BorrowedFd<'_>, bytes: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETPIPE_SZ takes a number.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(())
}

pub(crate) fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flag = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes a number; close-on-exec is its only flag.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flag) })?;
    Ok(())
}

/// A close-on-exec copy with a number of at least `min`.
pub(crate) fn dup_from(fd: BorrowedFd<'_>, min: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes a number.
    let raw = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, min) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { own(raw) })
}

pub(crate) fn is_cloexec(number: RawFd) -> io::Result<bool> {
    // SAFETY: takes numbers; when nothing is open there the kernel says so.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// A close-on-exec copy, numbered at least `min`, of the descriptor with this number.
pub(crate) fn dup_number(number: RawFd, min: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers; when nothing is open there the kernel says so. The copy is a descriptor of its own.
    let raw = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, min) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { own(raw) })
}
