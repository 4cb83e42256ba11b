//! Plain `poll(2)`, for threads that are not the broker.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::bell::Bell;

/// One bit of a `u64` per descriptor, and one `pollfd` for the bell.
const MOST: usize = 63;

/// Waits for the descriptors to become readable and for the bell, which it silences. A signal ends it early with zero.
pub(crate) fn readable(fds: &[BorrowedFd<'_>], bell: Option<&Bell>, timeout: Option<Duration>) -> io::Result<u64> {
    if fds.len() > MOST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 63 descriptors in one poll"));
    }
    // A call that leads its link polls two: do not write 512 bytes of stack for it.
    if fds.len() < 4 { poll::<4>(fds, bell, timeout) } else { poll::<{ MOST + 1 }>(fds, bell, timeout) }
}

fn poll<const N: usize>(fds: &[BorrowedFd<'_>], bell: Option<&Bell>, timeout: Option<Duration>) -> io::Result<u64> {
    let mut set = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; N];
    let raw = fds.iter().map(AsRawFd::as_raw_fd);
    let mut count = 0;
    for (entry, fd) in set.iter_mut().zip(raw.chain(bell.map(AsRawFd::as_raw_fd))) {
        entry.fd = fd;
        count += 1;
    }
    wait(&mut set[..count], timeout)?;
    if let (Some(bell), Some(last)) = (bell, set[..count].last())
        && last.revents != 0
    {
        bell.silence();
    }
    let mut ready = 0;
    for (index, entry) in set[..fds.len()].iter().enumerate() {
        if entry.revents & libc::POLLNVAL != 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        ready |= u64::from(entry.revents != 0) << index;
    }
    Ok(ready)
}

/// Waits until the descriptor can be written or has failed; `false` when the time is over or a signal came.
pub(crate) fn writable(fd: RawFd, timeout: Option<Duration>) -> io::Result<bool> {
    let mut set = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
    Ok(wait(&mut set, timeout)? != 0)
}

fn wait(set: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<libc::c_int> {
    // Rounded up, so that a deadline has passed when the wait is over.
    let timeout = match timeout {
        None => -1,
        Some(time) => i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    };
    // SAFETY: the pointer and the length are those of one live slice of pollfd.
    let result = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout) };
    match super::check(result) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            for entry in set {
                entry.revents = 0;
            }
            Ok(0)
        }
        result => result,
    }
}
