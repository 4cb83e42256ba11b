//! Programs in memory: an executable image without a path. Runs on any thread.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::sys;

/// An anonymous file in memory that can be executed (where the system allows that at all) and [sealed](seal). The name
/// is what `/proc` shows for it.
///
/// # Errors
///
/// `ENOSYS` before Linux 3.17; `EACCES` or `EPERM` where the system forbids it; out of descriptors or memory.
pub fn memfd(name: &str) -> io::Result<OwnedFd> {
    sys::image::create(&CString::new(name)?)
}

/// Makes the content of a [`memfd`] final: nobody can change it any more, whoever has it open.
///
/// # Errors
///
/// `EBUSY` while it is mapped for writing; `EINVAL` for other files.
pub fn seal(file: impl AsFd) -> io::Result<()> {
    sys::image::seal(file.as_fd())
}

/// Replaces this process by the program in an open file: by its descriptor, or by its path below `/proc/self/fd` where
/// the kernel cannot. Descriptors that are not closed on exec stay open; signals that are ignored stay so.
///
/// # Errors
///
/// Returns only then: `EACCES` when the file may not be executed, `ENOEXEC` when it is no program, `InvalidInput` for a
/// NUL byte in a string.
pub fn exec_fd<A: AsRef<OsStr>, E: AsRef<OsStr>>(
    file: impl AsFd,
    argv: impl IntoIterator<Item = A>,
    env: impl IntoIterator<Item = E>,
) -> io::Result<Infallible> {
    let strings = |text: &OsStr| CString::new(text.as_bytes());
    let argv = argv.into_iter().map(|arg| strings(arg.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let env = env.into_iter().map(|entry| strings(entry.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let raw = file.as_fd().as_raw_fd();
    let path = CString::new(format!("/proc/self/fd/{raw}"))?;
    Err(sys::start::replace(raw, &path, &argv, &env))
}
