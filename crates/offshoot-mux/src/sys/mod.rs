//! Everything of this crate that is `unsafe`: system calls that std does not wrap. One subject per file; each function
//! is safe to call and says why. No policy here: loops over EINTR, limits and fall-backs that need choices are outside.
#![allow(unsafe_code)] // this is the module for it

pub(crate) mod bell;
pub(crate) mod close;
pub(crate) mod epoll;
pub(crate) mod facts;
pub(crate) mod fd;
pub(crate) mod image;
pub(crate) mod open;
pub(crate) mod pid;
pub(crate) mod poll;
pub(crate) mod rouse;
#[cfg_attr(offshoot_agent, path = "no_seats.rs")]
pub(crate) mod seats;
pub(crate) mod signal;
#[cfg(offshoot_agent)]
mod stand_ins;
pub(crate) mod start;
#[cfg(offshoot_main)]
pub(crate) mod thread;
pub(crate) mod tty;

use std::io;

/// The result of a system call that answers -1 for an error.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`check`], for calls that count bytes.
pub(crate) fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
