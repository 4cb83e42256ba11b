//! The system calls that the loader makes, and what the compiler expects of a C library.
//!
//! One function per call, over one instruction per architecture. No call is ever interrupted: there are no handlers.
//! Results are the kernel's: negative is an errno.

#![allow(dead_code, reason = "each of the two executables uses its own part of these")]

/// An argument is not known to this kernel.
pub const EINVAL: isize = -22;

macro_rules! numbers {
    ($($name:ident = $x86_64:literal, $generic:literal, $i686:literal, $arm:literal;)*) => {
        mod number {
            $(
                #[cfg(target_arch = "x86_64")]
                pub(super) const $name: usize = $x86_64;
                #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
                pub(super) const $name: usize = $generic;
                #[cfg(target_arch = "x86")]
                pub(super) const $name: usize = $i686;
                #[cfg(target_arch = "arm")]
                pub(super) const $name: usize = $arm;
            )*
        }
    };
}

numbers! {
    // name         x86_64 generic i686 arm
    READ          = 0,     63,     3,   3;
    WRITE         = 1,     64,     4,   4;
    CLOSE         = 3,     57,     6,   6;
    MMAP          = 9,     222,    192, 192;
    CLONE         = 56,    220,    120, 120;
    EXECVE        = 59,    221,    11,  11;
    EXIT          = 60,    93,     1,   1;
    WAIT4         = 61,    260,    114, 114;
    FCNTL         = 72,    25,     55,  55;
    OPENAT        = 257,   56,     295, 322;
    UNLINKAT      = 263,   35,     301, 328;
    DUP3          = 292,   24,     330, 358;
    PIPE2         = 293,   59,     331, 359;
    MEMFD_CREATE  = 319,   279,    356, 385;
    EXECVEAT      = 322,   281,    358, 387;
}

/// The `at` calls' name for the working directory.
const AT_FDCWD: usize = -100isize as usize;

// `call1` to `call6` make a system call with so many arguments. They are not safe: the arguments must be what that call
// takes, and memory that it writes the caller's to write. They are inlined, so that registers that a call does not use
// need not be set.

#[cfg(target_arch = "x86_64")]
macro_rules! calls {
    ($($name:ident($($arg:ident = $register:tt),*);)*) => {$(
        #[inline(always)]
        unsafe fn $name(number: usize, $($arg: usize),*) -> isize {
            let result;
            // SAFETY: the caller's promise; the kernel changes rax, rcx and r11 and no other register.
            unsafe {
                core::arch::asm!(
                    "syscall",
                    inlateout("rax") number => result,
                    $(in($register) $arg,)*
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            result
        }
    )*};
}

#[cfg(target_arch = "x86_64")]
calls! {
    call1(a = "rdi");
    call2(a = "rdi", b = "rsi");
    call3(a = "rdi", b = "rsi", c = "rdx");
    call4(a = "rdi", b = "rsi", c = "rdx", d = "r10");
    call5(a = "rdi", b = "rsi", c = "rdx", d = "r10", e = "r8");
    call6(a = "rdi", b = "rsi", c = "rdx", d = "r10", e = "r8", f = "r9");
}

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
macro_rules! calls {
    ($instruction:literal, $number:tt;
     $($name:ident($first:ident = $result:tt $(, $arg:ident = $register:tt)*);)*) => {$(
        #[inline(always)]
        unsafe fn $name(number: usize, $first: usize, $($arg: usize),*) -> isize {
            let result;
            // SAFETY: the caller's promise; the kernel changes the first argument's register and no other.
            unsafe {
                core::arch::asm!(
                    $instruction,
                    in($number) number,
                    inlateout($result) $first => result,
                    $(in($register) $arg,)*
                    options(nostack),
                );
            }
            result
        }
    )*};
}

#[cfg(target_arch = "aarch64")]
calls! {
    "svc 0", "x8";
    call1(a = "x0");
    call2(a = "x0", b = "x1");
    call3(a = "x0", b = "x1", c = "x2");
    call4(a = "x0", b = "x1", c = "x2", d = "x3");
    call5(a = "x0", b = "x1", c = "x2", d = "x3", e = "x4");
    call6(a = "x0", b = "x1", c = "x2", d = "x3", e = "x4", f = "x5");
}

#[cfg(target_arch = "riscv64")]
calls! {
    "ecall", "a7";
    call1(a = "a0");
    call2(a = "a0", b = "a1");
    call3(a = "a0", b = "a1", c = "a2");
    call4(a = "a0", b = "a1", c = "a2", d = "a3");
    call5(a = "a0", b = "a1", c = "a2", d = "a3", e = "a4");
    call6(a = "a0", b = "a1", c = "a2", d = "a3", e = "a4", f = "a5");
}

#[cfg(any(target_arch = "arm", target_arch = "x86"))]
macro_rules! calls {
    ($($name:ident($($arg:ident),*) + $zeros:tt;)*) => {$(
        #[inline(always)]
        unsafe fn $name(number: usize, $($arg: usize),*) -> isize {
            // SAFETY: the caller's promise; arguments that a call does not have it does not look at.
            unsafe { calls!(@call number, $($arg,)* $zeros) }
        }
    )*};
    (@call $number:ident, $($arg:ident,)* ($($zero:literal)*)) => { call($number, [$($arg,)* $($zero),*]) };
}

#[cfg(any(target_arch = "arm", target_arch = "x86"))]
calls! {
    call1(a) + (0 0 0 0 0);
    call2(a, b) + (0 0 0 0);
    call3(a, b, c) + (0 0 0);
    call4(a, b, c, d) + (0 0);
    call5(a, b, c, d, e) + (0);
    call6(a, b, c, d, e, f) + ();
}

/// Makes a system call.
///
/// # Safety
///
/// As for `call1` to `call6`.
#[cfg(target_arch = "arm")]
#[inline(never)]
unsafe fn call(number: usize, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result;
    // SAFETY: the caller's promise; the kernel changes r0 and no other register. r7 can be the frame pointer, which
    // cannot be an operand, so the number passes through another register and r7 is put back.
    unsafe {
        core::arch::asm!(
            "mov {saved}, r7",
            "mov r7, {number}",
            "svc 0",
            "mov r7, {saved}",
            saved = out(reg) _,
            number = in(reg) number,
            inlateout("r0") a => result,
            in("r1") b, in("r2") c, in("r3") d, in("r4") e, in("r5") f,
            options(nostack),
        );
    }
    result
}

/// Makes a system call.
///
/// # Safety
///
/// As for `call1` to `call6`.
#[cfg(target_arch = "x86")]
#[inline(never)]
unsafe fn call(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the caller's promise; the kernel changes eax and no other register. ebx, esi and ebp cannot be operands,
    // so all registers are saved on the stack and the arguments taken from the array; the result goes where `popad`
    // takes eax from.
    unsafe {
        core::arch::asm!(
            "pushad",
            "mov ebx, [ecx]",
            "mov edx, [ecx + 8]",
            "mov esi, [ecx + 12]",
            "mov edi, [ecx + 16]",
            "mov ebp, [ecx + 20]",
            "mov ecx, [ecx + 4]",
            "int 0x80",
            "mov [esp + 28], eax",
            "popad",
            inlateout("eax") number => result,
            in("ecx") args.as_ptr(),
        );
    }
    result
}

/// Ends the process.
pub fn exit(status: usize) -> ! {
    loop {
        // SAFETY: takes a number.
        unsafe { call1(number::EXIT, status) };
    }
}

/// Reads what there is from descriptor 0, at most `len` bytes. 0 for the end, negative for an errno.
///
/// # Safety
///
/// `len` bytes at `to` must be the caller's to write.
pub unsafe fn read_some(to: *mut u8, len: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { call3(number::READ, 0, to as usize, len) }
}

/// Reads from descriptor 0 until `len` bytes are at `to`.
///
/// # Errors
///
/// The errno, 0 for an early end.
///
/// # Safety
///
/// `len` bytes at `to` must be the caller's to write.
pub unsafe fn read(mut to: *mut u8, mut len: usize) -> Result<(), isize> {
    while len > 0 {
        // SAFETY: the caller's promise, for what is left of it.
        let got = unsafe { read_some(to, len) };
        if got <= 0 {
            return Err(got);
        }
        // SAFETY: the kernel wrote `got` bytes, at most `len`.
        to = unsafe { to.add(got as usize) };
        len -= got as usize;
    }
    Ok(())
}

/// Writes all of `data`; whether that worked, else the errno.
pub fn write(fd: usize, mut data: &[u8]) -> isize {
    while !data.is_empty() {
        // SAFETY: the kernel reads the slice.
        let put = unsafe { call3(number::WRITE, fd, data.as_ptr() as usize, data.len()) };
        if put <= 0 {
            return put;
        }
        data = data.get(put as usize..).unwrap_or_default();
    }
    1
}

/// Closes a descriptor.
pub fn close(fd: usize) {
    // SAFETY: takes a number; no descriptor of this process is held by anything that would miss it.
    unsafe { call1(number::CLOSE, fd) };
}

/// New memory, zero. A negative result is an errno.
pub fn memory(len: usize) -> isize {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    // SAFETY: asks for a new mapping, which touches no memory in use.
    unsafe { call6(number::MMAP, 0, len, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0) }
}

/// Opens `path` for writing: a new file, mode 0700, close-on-exec.
///
/// # Safety
///
/// `path` must be a C string.
pub unsafe fn create(path: *const u8) -> isize {
    const WRONLY_CREAT_EXCL_CLOEXEC: usize = 0o1 | 0o100 | 0o200 | 0o2000000;
    // SAFETY: the caller's promise.
    unsafe { call4(number::OPENAT, AT_FDCWD, path as usize, WRONLY_CREAT_EXCL_CLOEXEC, 0o700) }
}

/// Opens `path` for reading, close-on-exec.
///
/// # Safety
///
/// `path` must be a C string.
pub unsafe fn open(path: *const u8) -> isize {
    const CLOEXEC: usize = 0o2000000;
    // SAFETY: the caller's promise.
    unsafe { call3(number::OPENAT, AT_FDCWD, path as usize, CLOEXEC) }
}

/// Unlinks `path`.
///
/// # Safety
///
/// `path` must be a C string.
pub unsafe fn unlink(path: *const u8) {
    // SAFETY: the caller's promise.
    unsafe { call3(number::UNLINKAT, AT_FDCWD, path as usize, 0) };
}

/// Gives `fd` another number, close-on-exec; the old one stays.
pub fn renumber(fd: usize, to: usize) -> isize {
    const CLOEXEC: usize = 0o2000000;
    // SAFETY: takes numbers; nothing in this process counts on a descriptor above 2.
    unsafe { call3(number::DUP3, fd, to, CLOEXEC) }
}

/// A file in memory that can be sealed and is closed on exec.
///
/// # Safety
///
/// `name` must be a C string.
pub unsafe fn memfd(name: *const u8, flags: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { call2(number::MEMFD_CREATE, name as usize, flags) }
}

/// Makes a memfd immutable for good.
pub fn seal(fd: usize) {
    const ADD_SEALS: usize = 1033;
    const SEAL_SHRINK_GROW_WRITE: usize = 0xf;
    // SAFETY: takes numbers; the file is mapped nowhere.
    unsafe { call3(number::FCNTL, fd, ADD_SEALS, SEAL_SHRINK_GROW_WRITE) };
}

/// Becomes the program in `fd`; returns only an errno.
///
/// # Safety
///
/// `argv` and `envp` must be null-terminated arrays of C strings.
pub unsafe fn exec_fd(fd: usize, argv: *const *const u8, envp: *const *const u8) -> isize {
    const AT_EMPTY_PATH: usize = 0x1000;
    let empty = 0u8;
    // SAFETY: the caller's promise, and the path is an empty C string.
    unsafe { call5(number::EXECVEAT, fd, &raw const empty as usize, argv as usize, envp as usize, AT_EMPTY_PATH) }
}

/// Becomes the program at `path`; returns only an errno.
///
/// # Safety
///
/// `path` must be a C string, `argv` and `envp` null-terminated arrays of them.
pub unsafe fn exec(path: *const u8, argv: *const *const u8, envp: *const *const u8) -> isize {
    // SAFETY: the caller's promise.
    unsafe { call3(number::EXECVE, path as usize, argv as usize, envp as usize) }
}

/// A copy of this process; 0 in the copy.
pub fn fork() -> isize {
    const SIGCHLD: usize = 17;
    // SAFETY: without CLONE_VM the copy has memory of its own, and there is one thread.
    unsafe { call5(number::CLONE, SIGCHLD, 0, 0, 0, 0) }
}

/// Waits for the child `pid`.
pub fn wait(pid: usize) {
    // SAFETY: no status is asked for, so nothing is written.
    unsafe { call4(number::WAIT4, pid, 0, 0, 0) };
}

/// A pipe, close-on-exec: read end, write end.
pub fn pipe() -> Result<[i32; 2], isize> {
    const CLOEXEC: usize = 0o2000000;
    let mut ends = [0i32; 2];
    // SAFETY: the kernel writes the two numbers.
    match unsafe { call2(number::PIPE2, ends.as_mut_ptr() as usize, CLOEXEC) } {
        0 => Ok(ends),
        errno => Err(errno),
    }
}

/// Waits until every write end of a pipe that nothing is written to is closed.
pub fn wait_for_end(fd: usize) {
    let mut byte = 0u8;
    // SAFETY: the kernel writes at most the byte.
    unsafe { call3(number::READ, fd, &raw mut byte as usize, 1) };
}
