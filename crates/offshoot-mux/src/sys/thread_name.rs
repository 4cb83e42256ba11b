//! The name of a thread, without the C library's formatted output. Only in the agent, where size counts
//! (`cargo xtask agents` sets `offshoot_agent`).
//!
//! musl's own function finds other threads by a path that it prints, and so brings `printf` with floating point: a
//! fortieth of the agent. std names a thread only from within it.

use libc::{c_char, c_int, c_ulong, pthread_t};

/// In the place of the C library's function of this name: names the calling thread, whichever is meant.
///
/// # Safety
///
/// `name` is a C string.
// SAFETY: the one other definition is musl's, in an archive, which gives way; type and contract are the same for all
// that std asks.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(_thread: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: the caller's pointer is to a C string, of which the kernel reads 16 bytes at most.
    unsafe { libc::prctl(libc::PR_SET_NAME, name as c_ulong, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) }
}
