//! Descriptors: making, reading and writing them, without a thought for who waits. Runs on any thread.
//!
//! The reads and writes repeat after a signal (EINTR) and otherwise answer what the system call did; on a non-blocking
//! descriptor `WouldBlock` means wait for the poller.

use std::ffi::CString;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::sys;

/// Reads at most `buffer.len()` bytes; zero is the end of the file.
///
/// # Errors
///
/// What `read(2)` reports, but EINTR.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    again(|| sys::fd::read(fd.as_fd(), buffer))
}

/// Appends what one read gives to a buffer, at most `most` bytes; zero is the end of the file. The buffer grows for it
/// as needed, and is not cleared first: for bulk this saves a pass over the memory.
///
/// # Errors
///
/// What `read(2)` reports, but EINTR.
pub fn read_into(fd: impl AsFd, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    again(|| sys::fd::read_into(fd.as_fd(), buffer, most))
}

/// Puts the null device in the place of standard input and standard output: for a program of ours whose link came by
/// them and lives on under other numbers. Without a null device (a bare chroot) both become a pipe without other end.
///
/// # Errors
///
/// Out of descriptors.
pub fn detach_standard_streams() -> io::Result<()> {
    let (input, output) = match null() {
        Ok(null) => (dup_cloexec(&null)?, null),
        Err(_) => (pipe()?.0, pipe()?.1),
    };
    sys::fd::place(input.as_fd(), 0)?;
    sys::fd::place(output.as_fd(), 1)
}

/// Takes over the descriptor of this number, from 3 on, that this process was [passed](crate::Spawn::pass) by whoever
/// started it: under another number, closed on exec. Call it before anything else opens a descriptor: one that somebody holds
/// already is closed behind its back.
///
/// # Errors
///
/// When nothing is open there, or the process is out of descriptors.
pub fn take_passed(number: i32) -> io::Result<OwnedFd> {
    let taken = sys::fd::dup_number(number, 3)?;
    sys::close::range(number, number);
    Ok(taken)
}

/// A copy, closed on exec, of the descriptor of this number that this process was given by whoever started it: both share
/// the place in a file. Not one that was opened since.
///
/// # Errors
///
/// `EBADF` when nothing is open there, or what is was not inherited; when the process is out of descriptors.
pub fn dup_inherited(number: i32) -> io::Result<OwnedFd> {
    if sys::fd::is_cloexec(number)? {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    sys::fd::dup_number(number, 3)
}

/// Gives a pipe room for so many bytes, a power of two. What all pipes of a user hold together is limited, but for root.
///
/// # Errors
///
/// `PermissionDenied` beyond that limit; `InvalidInput` or `EBADF` for what is no pipe. It has the room that it had.
pub fn set_pipe_size(fd: impl AsFd, bytes: i32) -> io::Result<()> {
    sys::fd::set_pipe_size(fd.as_fd(), bytes)
}

/// Copies what waits in a pipe to another pipe, at most `most` bytes, and leaves it where it is. Neither is waited for.
///
/// # Errors
///
/// What `tee(2)` reports, but EINTR; `WouldBlock` when nothing waits, or there is no room.
pub fn tee(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    again(|| sys::fd::tee(from.as_fd(), to.as_fd(), most))
}

/// Puts descriptors in the places of standard output and error output.
///
/// # Errors
///
/// What `dup2(2)` reports.
pub fn set_standard_outputs(output: impl AsFd, error: impl AsFd) -> io::Result<()> {
    sys::fd::place(output.as_fd(), 1)?;
    sys::fd::place(error.as_fd(), 2)
}

/// Writes some of the bytes and says how many.
///
/// # Errors
///
/// What `write(2)` reports, but EINTR.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    again(|| sys::fd::write(fd.as_fd(), bytes))
}

/// Writes some of the parts, in order, and says how many bytes. At most 1024 parts.
///
/// # Errors
///
/// What `writev(2)` reports, but EINTR.
pub fn writev(fd: impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    again(|| sys::fd::writev(fd.as_fd(), parts))
}

/// Writes all the bytes, waiting for a non-blocking descriptor to take them until the deadline; for threads that may
/// block.
///
/// # Errors
///
/// `TimedOut` when the deadline passed, with an unknown part written; `WriteZero`; what `write(2)` reports.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8], deadline: Option<Instant>) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(fd.as_fd(), bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = left(deadline).ok_or(ErrorKind::TimedOut)?;
                sys::poll::writable(fd.as_fd().as_raw_fd(), left)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes a text of at most 512 bytes to a descriptor that may block, if it takes that now; else it is lost. For last
/// words: whoever should read them may be gone, or stopped.
pub fn try_say(fd: impl AsFd, text: &str) {
    if matches!(sys::poll::writable(fd.as_fd().as_raw_fd(), Some(Duration::ZERO)), Ok(true)) {
        // A pipe that can be written takes 512 bytes at once.
        let _ = write(fd, &text.as_bytes()[..text.len().min(512)]);
    }
}

/// What is left until a deadline: `None` when it has passed, `Some(None)` when there is none.
pub(crate) fn left(deadline: Option<Instant>) -> Option<Option<Duration>> {
    match deadline {
        None => Some(None),
        Some(deadline) => deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).map(Some),
    }
}

/// Repeats a system call for as long as a signal interrupts it.
pub(crate) fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether reads and writes return instead of waiting. The flag belongs to the open file, which a child or another
/// process may share.
///
/// # Errors
///
/// When the descriptor is of a kind that has no such flag.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    sys::fd::set_nonblocking(fd.as_fd(), on)
}

/// Whether reads and writes return instead of waiting.
///
/// # Errors
///
/// When the descriptor is of a kind that has no such flag.
pub fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    sys::fd::is_nonblocking(fd.as_fd())
}

/// Whether a program started by exec is to find the descriptor closed.
///
/// # Errors
///
/// What `fcntl(2)` reports.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> io::Result<()> {
    sys::fd::set_cloexec(fd.as_fd(), on)
}

/// Another descriptor for the same open file: closed on exec, and not 0, 1 or 2.
///
/// # Errors
///
/// When the process is out of descriptors.
pub fn dup_cloexec(fd: impl AsFd) -> io::Result<OwnedFd> {
    sys::fd::dup_from(fd.as_fd(), 3)
}

/// Two connected stream sockets, closed on exec, blocking.
///
/// # Errors
///
/// When the process is out of descriptors.
pub fn socketpair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = UnixStream::pair()?;
    Ok((a.into(), b.into()))
}

/// A pipe, closed on exec, blocking: the end to read, the end to write.
///
/// # Errors
///
/// When the process is out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    Ok((read.into(), write.into()))
}

/// The null device, for reading and writing.
///
/// # Errors
///
/// When there is none (a bare chroot).
pub fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Closes every descriptor from 3 on but those listed: for a program of ours that starts among what its starter left
/// open. Call it first in `main`: a descriptor that anybody in this process holds already, and that is not listed, is
/// closed behind its back.
///
/// By `close_range`, else by what `/proc/self/fd` lists, else by trying the numbers below the limit (at most 65,536).
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep {
        sys::close::range(first, fd - 1);
        first = fd + 1;
    }
    sys::close::from(first);
}

/// Opens a path below a folder, and nothing that lies outside it, whatever links are on the way: a path that leaves the
/// folder is an error (`EXDEV`, or `ELOOP`), also when somebody moves things about meanwhile. `flags` are those of
/// `open(2)`; the descriptor is closed on exec. Add `O_NONBLOCK` and look at what was opened where a FIFO or device is
/// no use.
///
/// Before Linux 5.6 every symbolic link and every `..` on the way is refused, also those that stay below the folder.
///
/// # Errors
///
/// What `open(2)` reports; `InvalidInput` for a NUL byte.
pub fn open_beneath(folder: impl AsFd, path: impl AsRef<Path>, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    let path = path.as_ref().as_os_str().as_bytes();
    let whole = CString::new(path)?;
    match again(|| sys::open::beneath(folder.as_fd(), &whole, flags, mode)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        result => return result,
    }
    if path.starts_with(b"/") {
        return Err(io::Error::from_raw_os_error(libc::EXDEV));
    }
    let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").peekable();
    let mut folder = sys::fd::dup_from(folder.as_fd(), 3)?;
    while let Some(name) = names.next() {
        if name == b".." {
            return Err(io::Error::from_raw_os_error(libc::EXDEV));
        }
        let name = CString::new(name)?;
        let last = names.peek().is_none();
        let flags = if last { flags } else { libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC };
        let next = again(|| sys::open::at(folder.as_fd(), &name, flags | libc::O_NOFOLLOW, mode))?;
        if last {
            return Ok(next);
        }
        folder = next;
    }
    again(|| sys::open::at(folder.as_fd(), c".", flags, mode))
}

/// Who is at the other end of a unix socket: since the connection was made, or the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process id then.
    pub pid: u32,
    /// The effective user then.
    pub uid: u32,
    /// The effective group then.
    pub gid: u32,
}

/// The kernel's word on who is at the other end of a unix socket.
///
/// # Errors
///
/// `ENOTSOCK`, `ENOPROTOOPT` when it is none.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let (pid, uid, gid) = sys::open::peer(socket.as_fd())?;
    Ok(Peer { pid, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_wait_for_nobody_and_nobody_need_be_there() {
        let (read, write) = pipe().unwrap();
        try_say(&write, "a word\n");
        let mut buffer = [0; 16];
        assert_eq!(super::read(&read, &mut buffer).unwrap(), 7);
        set_nonblocking(&write, true).unwrap();
        while super::write(&write, &[0; 4096]).is_ok() {}
        set_nonblocking(&write, false).unwrap();
        // Would wait for ever.
        try_say(&write, "nobody reads this\n");
        crate::ignore_sigpipe();
        drop(read);
        try_say(&write, "nobody can\n");
    }
}
