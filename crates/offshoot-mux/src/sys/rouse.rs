//! Timers of the kernel that continue this process. By system call: libc's functions also serve timers that run threads.

use std::io;
use std::time::Duration;

use libc::{c_int, c_long};

use super::check;

/// A timer of this process, which `exec` and `fork` do not pass on. It is not set yet.
pub(crate) fn create() -> io::Result<c_int> {
    // SAFETY: all zeros is a valid event.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGCONT;
    let mut timer: c_int = -1;
    // SAFETY: the kernel reads the live event and writes one integer.
    check(unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &mut event, &mut timer) } as c_int)?;
    Ok(timer)
}

/// Lets a timer of [`create`] go off so long from now, and again each time `every` has passed, once when that is zero;
/// whatever it was set to before is forgotten.
pub(crate) fn set(timer: c_int, after: Duration, every: Duration) -> io::Result<()> {
    // As this call has it, whatever libc makes of time on the same system: interval, then value, in seconds and
    // nanoseconds. A value of nothing would be none.
    let seconds = |time: Duration| time.as_secs().try_into().unwrap_or(c_long::MAX);
    let nanos = |time: Duration| time.subsec_nanos() as c_long;
    let spec: [c_long; 4] = [seconds(every), nanos(every), seconds(after), nanos(after).max(1)];
    let nothing_back = std::ptr::null_mut::<c_long>();
    // SAFETY: the kernel reads four words of the live array, and is asked nothing back.
    check(unsafe { libc::syscall(libc::SYS_timer_settime, timer, 0, spec.as_ptr(), nothing_back) } as c_int)?;
    Ok(())
}

pub(crate) fn delete(timer: c_int) {
    // SAFETY: takes a number; only `Rouse` has it.
    unsafe { libc::syscall(libc::SYS_timer_delete, timer) };
}
