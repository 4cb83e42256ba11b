//! Closing descriptors by the range. Runs in a child between its birth and exec too: no allocation here.

use std::os::fd::RawFd;

use libc::{c_int, c_long};

use crate::fallback;

/// Without `close_range` and `/proc` there is nothing but trying; more than this take too long.
const MOST_TRIED: RawFd = 65_536;

/// Closes every descriptor from `first` on.
pub(crate) fn from(first: RawFd) {
    range(first, RawFd::MAX);
}

/// Closes the descriptors from `first` to `last`, both included.
///
/// Safe in the sense of memory only: whoever owns one of them finds it closed. The callers are a child before exec, and
/// a function that says so in its documentation.
pub(crate) fn range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    if by_range(first, last, 0) || listed(first, last) {
        return;
    }
    // SAFETY: all zeros is a valid rlimit.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    let end = if known { RawFd::try_from(limit.rlim_cur).unwrap_or(MOST_TRIED).min(MOST_TRIED) } else { MOST_TRIED };
    for fd in first..end.min(last.saturating_add(1)) {
        // SAFETY: as for the function.
        unsafe { libc::close(fd) };
    }
}

/// Leaves this process a table of its own, if it shared one, with the descriptors before `end` only.
#[cfg(not(offshoot_agent))]
pub(crate) fn cut(end: RawFd) -> bool {
    by_range(end, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE)
}

/// Whether [`cut`] works here.
#[cfg(not(offshoot_agent))]
pub(crate) fn cuts() -> bool {
    by_range(RawFd::MAX, RawFd::MAX, 0)
}

fn by_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> bool {
    // SAFETY: takes three numbers.
    !fallback::forced(fallback::NO_CLOSE_RANGE)
        && unsafe { libc::syscall(libc::SYS_close_range, first as c_long, last as c_long, flags as c_long) } == 0
}

/// Closes those that `/proc/self/fd` lists. `false` when it cannot be read.
fn listed(first: RawFd, last: RawFd) -> bool {
    if fallback::forced(fallback::NO_PROC) {
        return false;
    }
    // SAFETY: the path is a C string; the result is checked.
    let dir: c_int =
        unsafe { libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC) };
    if dir < 0 {
        return false;
    }
    let mut buffer = [0u64; 256];
    let size = size_of_val(&buffer);
    let done = loop {
        // SAFETY: the kernel writes at most `size` bytes into the live buffer.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, dir as c_long, buffer.as_mut_ptr(), size as c_long) };
        if got <= 0 {
            break got == 0;
        }
        // SAFETY: the kernel has written `got` bytes, at most the size of the buffer; any bytes are valid.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), got as usize) };
        each_name(bytes, |name| {
            if let Some(fd) = number(name)
                && fd >= first
                && fd <= last
                && fd != dir
            {
                // SAFETY: as for `range`.
                unsafe { libc::close(fd) };
            }
        });
    };
    // SAFETY: ours, opened above.
    unsafe { libc::close(dir) };
    done
}

/// The names of a block of directory entries: inode (8 bytes), offset (8), length of the entry (2), type (1), name.
fn each_name(mut block: &[u8], mut each: impl FnMut(&[u8])) {
    while let (Some([low, high]), Some(name)) = (block.get(16..18), block.get(19..)) {
        let len = usize::from(u16::from_ne_bytes([*low, *high]));
        each(name.split(|byte| *byte == 0).next().unwrap_or(&[]));
        match block.get(len..) {
            Some(rest) if len > 0 => block = rest,
            _ => break,
        }
    }
}

/// A decimal number, or `None` (the entries `.` and `..`).
fn number(name: &[u8]) -> Option<RawFd> {
    if name.is_empty() {
        return None;
    }
    name.iter().try_fold(0 as RawFd, |number, digit| {
        digit.is_ascii_digit().then_some(())?;
        number.checked_mul(10)?.checked_add(RawFd::from(digit - b'0'))
    })
}
