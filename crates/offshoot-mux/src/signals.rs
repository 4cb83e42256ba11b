//! Signals as a descriptor for the poller. For binaries only: a library must not take its user's signals.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::fallback;
use crate::sys::signal::{self, Disposition};

/// Receives signals of this process through a descriptor, instead of their default action.
///
/// Make it before any other thread is started: it blocks the signals in the calling thread, and threads started later
/// inherit that. Programs started by [`Spawn`](crate::Spawn) do not. Signals of the same number that come before the
/// first is read count as one. Dropping it gives the signals their default action back.
///
/// # Examples
///
/// ```standalone_crate
/// use offshoot_mux::Signals;
/// let signals = Signals::new(&[libc::SIGWINCH])?;
/// std::process::Command::new("kill").args(["-WINCH", &std::process::id().to_string()]).status()?;
/// # offshoot_mux::wait_readable(&[std::os::fd::AsFd::as_fd(&signals)], None)?;
/// assert_eq!(signals.read().collect::<Vec<_>>(), [libc::SIGWINCH]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Signals {
    signals: Vec<i32>,
    fd: OwnedFd,
    /// The end that the handler writes to, where there is no signalfd.
    write: Option<OwnedFd>,
}

impl Signals {
    /// Takes over these signals.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for what is no signal; out of descriptors; `AlreadyExists` for a second one at a time on kernels
    /// without signalfd.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        if !fallback::forced(fallback::NO_SIGNALFD) {
            // In this order: a signal between the two must stay pending.
            signal::block(signals)?;
            match signal::open(signals) {
                Ok(fd) => {
                    let taken = Signals { signals: signals.to_vec(), fd, write: None };
                    for number in signals {
                        // An inherited "ignore" of SIGCHLD would make the kernel reap our children itself.
                        signal::dispose(*number, Disposition::Default)?;
                    }
                    return Ok(taken);
                }
                Err(error) => {
                    signal::unblock(signals)?;
                    if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                        return Err(error);
                    }
                }
            }
        }
        let (read, write) = crate::io::pipe()?;
        crate::io::set_nonblocking(&read, true)?;
        crate::io::set_nonblocking(&write, true)?;
        if !signal::set_pipe(write.as_raw_fd()) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let taken = Signals { signals: signals.to_vec(), fd: read, write: Some(write) };
        for number in signals {
            signal::dispose(*number, Disposition::Pipe)?;
        }
        Ok(taken)
    }

    /// The signals that came since the last call; does not wait.
    pub fn read(&self) -> impl Iterator<Item = i32> + '_ {
        std::iter::from_fn(|| {
            if self.write.is_none() {
                return crate::io::again(|| signal::read(self.fd.as_fd())).ok();
            }
            let mut number = [0];
            match crate::io::read(&self.fd, &mut number) {
                Ok(1) => Some(i32::from(number[0])),
                _ => None,
            }
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Errors here could only be about numbers that were accepted before.
        for number in &self.signals {
            let _ = signal::dispose(*number, Disposition::Default);
        }
        if self.write.is_some() {
            signal::set_pipe(-1);
        } else {
            let _ = signal::unblock(&self.signals);
        }
    }
}

/// Makes writes to a closed pipe or socket an error instead of the end of this process. (Rust programs begin so unless
/// their `main` is not Rust's; programs started by [`Spawn`](crate::Spawn) begin with the default.)
pub fn ignore_sigpipe() {
    // The signal exists and may be ignored.
    let _ = signal::dispose(libc::SIGPIPE, Disposition::Ignore);
}

/// Gives every signal its default action and blocks none in this thread: for a program of ours that does not trust what
/// it inherited. SIGPIPE too.
pub fn reset_all_signals() {
    crate::sys::start::reset_dispositions();
    crate::sys::start::clear_mask();
}
