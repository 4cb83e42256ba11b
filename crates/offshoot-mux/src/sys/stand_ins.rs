//! Functions in the place of those of the C library and the unwinder that would bring far more code than they are worth.
//! Only in the agent, where size counts: `cargo xtask agents` sets `offshoot_agent`.
//!
//! The linker takes these and leaves the others in their archives. Their types and contracts are the same, for all that
//! std asks.

use libc::{c_char, c_int, c_ulong, pthread_t};

#[cfg(not(target_arch = "arm"))]
mod unwinder;

/// Names the calling thread, whichever is meant: std names a thread only from within it. musl's finds other threads by a
/// path that it prints, and so brings `printf` with floating point, a fortieth of the agent.
///
/// # Safety
///
/// `name` is a C string.
// SAFETY: the only one of this name, as the module says.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(_thread: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller's pointer is to a C string, of which the kernel reads 16 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }
}
