//! No unwinder. Not on 32-bit arm, whose unwinders have other functions.

use std::ffi::{c_int, c_void};

/// Finds no frames. An agent aborts when it panics, so all that std wants of an unwinder is backtraces; of a stripped
/// program they would say nothing, and with the reader of debugging information they are a third of an agent whose std
/// was not built anew. The panic's message and its place are printed all the same.
// SAFETY: the only one of this name, as the module above says; pointers that it does not look at may be any.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_each: *mut c_void, _argument: *mut c_void) -> c_int {
    /// `_URC_END_OF_STACK`.
    const END_OF_STACK: c_int = 5;
    END_OF_STACK
}

/// Defines functions that are only called while something unwinds or looks at frames, which never happens.
macro_rules! never_called {
    ($($name:ident),*) => {$(
        // SAFETY: the only one of this name; of whatever type, it does not look at its arguments and does not return.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called!(
    _Unwind_DeleteException,
    _Unwind_FindEnclosingFunction,
    _Unwind_GetCFA,
    _Unwind_GetDataRelBase,
    _Unwind_GetIP,
    _Unwind_GetIPInfo,
    _Unwind_GetLanguageSpecificData,
    _Unwind_GetRegionStart,
    _Unwind_GetTextRelBase,
    _Unwind_RaiseException,
    _Unwind_Resume,
    _Unwind_SetGR,
    _Unwind_SetIP
);
