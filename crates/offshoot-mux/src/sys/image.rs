//! Programs in memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::check;

/// Not yet in libc for Linux; Linux 6.3.
const MFD_EXEC: libc::c_uint = 0x10;

/// An anonymous file that can be executed and sealed.
pub(crate) fn create(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let exec = if crate::fallback::forced(crate::fallback::NO_MFD_EXEC) { u32::MAX } else { flags | MFD_EXEC };
    // SAFETY: the name is a C string.
    let raw = match check(unsafe { libc::memfd_create(name.as_ptr(), exec) }) {
        // Before 6.3 the flag is not known, and not needed.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // SAFETY: as above.
            check(unsafe { libc::memfd_create(name.as_ptr(), flags) })?
        }
        result => result?,
    };
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { super::fd::own(raw) })
}

/// Makes the file's content final, and this too.
pub(crate) fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: takes a number.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(())
}
