//! Running a program that is in memory.

use crate::sys;

/// The descriptor that programs are run from: a number known beforehand, for the path.
const NUMBER: usize = 9;
const PATH: &[u8; 16] = b"/proc/self/fd/9\0";

/// Becomes the program `image`; returns the errno of the last attempt.
///
/// In order: a memfd, run by `execveat`, else through `/proc/self/fd`; else, with `path`, a file of that name. With
/// `LAST` that file exists no longer once the program runs; otherwise the program is told its path.
///
/// # Safety
///
/// `argv` and `envp` must be null-terminated arrays of C strings, `argv` with at least one; `path` a C string.
pub unsafe fn become_program<const LAST: bool>(
    image: &[u8],
    argv: *const *const u8,
    envp: *const *const u8,
    path: Option<*const u8>,
) -> isize {
    const CLOEXEC_SEALING: usize = 3;
    const EXEC: usize = 0x10;
    // SAFETY: `argv` has a first element, and all pointers are passed on as the caller promised them.
    unsafe {
        let mut fd = sys::memfd(*argv, EXEC | CLOEXEC_SEALING);
        // Kernels before 6.3 do not know the flag; later ones may insist on it.
        if fd == sys::EINVAL {
            fd = sys::memfd(*argv, CLOEXEC_SEALING);
        }
        let mut errno = fd;
        if fd >= 0 {
            errno = sys::write(fd as usize, image);
            if errno > 0 {
                sys::seal(fd as usize);
                errno = run(fd, argv, envp);
            }
        }
        // That a file could be made in memory does not mean that it may be executed.
        let Some(path) = path else { return errno };
        if LAST {
            if file(path, image) > 0 {
                let fd = sys::open(path);
                sys::unlink(path);
                run(fd, argv, envp);
            } else {
                // What found no room: the next one has the same name.
                sys::unlink(path);
            }
            // Neither `execveat` nor `/proc`: once more, with a name.
        }
        errno = file(path, image);
        if errno > 0 {
            if LAST {
                unlink_once_running(path);
            }
            errno = sys::exec(path, argv, envp);
        }
        sys::unlink(path);
        errno
    }
}

/// Makes an executable file; positive, or an errno.
///
/// # Safety
///
/// `path` must be a C string.
unsafe fn file(path: *const u8, image: &[u8]) -> isize {
    // SAFETY: the caller's promise.
    let fd = unsafe { sys::create(path) };
    if fd < 0 {
        return fd;
    }
    let written = sys::write(fd as usize, image);
    // What is open for writing cannot be executed.
    sys::close(fd as usize);
    written
}

/// Becomes the program in `fd`; returns only an errno.
///
/// # Safety
///
/// As for [`become_program`].
unsafe fn run(fd: isize, argv: *const *const u8, envp: *const *const u8) -> isize {
    // The agent closes what it does not know, so none is closed here.
    sys::renumber(fd as usize, NUMBER);
    // SAFETY: the caller's promise; the path is a C string.
    unsafe {
        sys::exec_fd(NUMBER, argv, envp);
        sys::exec(PATH.as_ptr(), argv, envp)
    }
}

/// Leaves a process that unlinks `path` when this one has become another program, or has ended.
///
/// # Safety
///
/// `path` must be a C string.
unsafe fn unlink_once_running(path: *const u8) {
    let Ok([read, write]) = sys::pipe() else { return };
    let child = sys::fork();
    if child == 0 {
        // A child of ours would become a child that the agent does not know.
        if sys::fork() == 0 {
            sys::close(write as usize);
            sys::wait_for_end(read as usize);
            // SAFETY: the caller's promise.
            unsafe { sys::unlink(path) };
        }
        sys::exit(0);
    }
    if child > 0 {
        sys::wait(child as usize);
    }
}
