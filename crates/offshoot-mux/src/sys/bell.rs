//! The descriptor that ends a poll: an eventfd, or a pipe.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::fd;

/// Rings from any thread; the owner polls [`as_fd`](AsFd::as_fd) and [`silence`](Bell::silence)s.
#[cfg_attr(loom, allow(dead_code))] // the model rings its own
#[derive(Debug)]
pub(crate) struct Bell {
    read: OwnedFd,
    /// `None` when one descriptor serves both ways.
    write: Option<OwnedFd>,
}

#[cfg_attr(loom, allow(dead_code))] // as above
impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if !crate::fallback::forced(crate::fallback::NO_EVENTFD) {
            // SAFETY: eventfd takes two numbers and touches no memory of ours.
            let opened = super::check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) });
            match opened {
                // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
                Ok(raw) => return Ok(Bell { read: unsafe { fd::own(raw) }, write: None }),
                // A sandbox may refuse the call; a pipe does as well.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) => {}
                Err(error) => return Err(error),
            }
        }
        let (read, write) = io::pipe()?;
        let bell = Bell { read: read.into(), write: Some(write.into()) };
        fd::set_nonblocking(bell.read.as_fd(), true)?;
        fd::set_nonblocking(bell.write_end(), true)?;
        Ok(bell)
    }

    fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_ref().unwrap_or(&self.read).as_fd()
    }

    pub(crate) fn ring(&self) {
        // A failure that lasts means that the counter or the pipe is full: it is ringing. After any other it is rung again: a
        // wake-up that is lost is never made up for.
        let _ = (0..2).any(|_| fd::write(self.write_end(), &1u64.to_ne_bytes()).is_ok());
    }

    pub(crate) fn silence(&self) {
        let mut buffer = [0; 64];
        // An eventfd is emptied by one read. A pipe holds more only after many rings in one sleep, which the flag
        // before it prevents; what stays costs a spurious wake-up.
        let _ = fd::read(self.read.as_fd(), &mut buffer);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.read.as_raw_fd()
    }
}
