//! Threads and the program's start without those of std, in the agent alone: std watches for the overflow of stacks, to name
//! the thread in a message, and keeps account of its threads for programs that ask it; none of it is of use there.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// What std gives a thread; the C library gives a sixteenth.
const STACK: usize = 2 << 20;

thread_local! {
    static NAME: Cell<&'static str> = const { Cell::new("main") };
}

struct Start {
    name: &'static str,
    work: Box<dyn FnOnce() + Send>,
}

/// Starts a thread that nobody waits for.
pub(crate) fn spawn(name: &'static str, stack: Option<usize>, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let start = Box::into_raw(Box::new(Start { name, work }));
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are used between being made and being given up; a size that is refused changes nothing; what
    // runs is given the only pointer to `start`, which comes from a box.
    let error = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack.unwrap_or(STACK));
        libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, start.cast())
    };
    if error != 0 {
        // SAFETY: no thread has it.
        drop(unsafe { Box::from_raw(start) });
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(())
}

extern "C" fn run(start: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it of a box, for this thread alone.
    let Start { name, work } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    NAME.set(name);
    // Of no consequence when it fails.
    let _ = super::facts::set_comm(name.as_bytes());
    work();
    ptr::null_mut()
}

/// As [`spawn`] named the calling thread.
pub(crate) fn name() -> &'static str {
    NAME.get()
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// What std does before `main`, but for `SIGPIPE`, which is an agent's own to set: descriptors 0, 1 and 2 lead somewhere,
/// so that no file can take their place; the arguments are known.
///
/// # Safety
///
/// The arguments must be those that the C library gave to `main`, and this the only thread.
pub unsafe fn begin(count: c_int, arguments: *const *const c_char) {
    for fd in 0..3 {
        // SAFETY: asks and opens; the lowest free descriptor is this one, since those below it are open.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    ARGUMENTS.store(arguments.cast_mut(), Ordering::Relaxed);
    COUNT.store(usize::try_from(count).unwrap_or(0), Ordering::Relaxed);
}

/// The argument at this place, the program's own name at 0.
pub(crate) fn argument(place: usize) -> Option<OsString> {
    if place >= COUNT.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the C library's list has so many strings, which stay; they are overwritten by the only thread of a process,
    // within the same bounds and with a NUL at the end.
    let argument = unsafe { CStr::from_ptr(*ARGUMENTS.load(Ordering::Relaxed).add(place)) };
    Some(OsStr::from_bytes(argument.to_bytes()).to_owned())
}

/// Makes a function that gives the exit code what the C library starts.
#[macro_export]
macro_rules! main_of {
    ($run:path) => {
        // SAFETY: the only one of this name, of the type that the C library calls.
        #[unsafe(no_mangle)]
        extern "C" fn main(count: i32, arguments: *const *const core::ffi::c_char) -> i32 {
            // SAFETY: they are the C library's, and nothing has run yet.
            unsafe { $crate::begin(count, arguments) };
            i32::from($run())
        }
    };
}
