//! The one thing that mio cannot say: registered, but with no interest.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Leaves `fd` registered under `token` with nothing to report but a hang-up or an error, once.
///
/// Cheaper than taking it out and putting it back (0.3 µs, no allocation in the kernel), and mio's own re-registration
/// afterwards is a modification too.
#[cfg(target_os = "linux")]
pub(crate) fn quiet(epoll: &mio::Registry, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLET as u32, u64: token as u64 };
    // SAFETY: the event outlives the call, which only reads it.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_MOD, fd.as_raw_fd(), &mut event) };
    super::check(result)?;
    Ok(())
}
