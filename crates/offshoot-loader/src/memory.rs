//! The functions that the compiler calls without being asked, byte by byte: what they are used for here is short.
//!
//! Volatile, since the compiler would make a plain loop into a call of the very function.

/// Fills `len` bytes at `to`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(byte as u8) };
    }
    to
}

/// Copies `len` bytes.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    for at in 0..len {
        // SAFETY: the caller's promise.
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}
