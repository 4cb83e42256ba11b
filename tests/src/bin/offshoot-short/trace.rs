//! What a tracer asks of the kernel, and nothing else: all `unsafe` of this program.
//!
//! Must not know why a process is traced. Runs on the one thread that traces: the kernel answers no other.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use libc::{c_int, c_long, c_void, pid_t};

/// The registers of a stopped thread.
pub(crate) type Registers = libc::user_regs_struct;

/// What `wait` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has ended, with this exit code; 128 and the number when a signal ended it.
    Ended(i32),
    /// It is about to enter a system call, or comes out of one.
    Call,
    /// It has executed a program.
    Executed,
    /// It has made a process or a thread.
    Born,
    /// It is about to get this signal.
    Signal(c_int),
}

/// Which side of a system call a thread stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Before it, of the 64-bit kind.
    Entry,
    /// Behind it, of whatever kind.
    Exit,
    /// Neither, or of a kind that is left alone.
    Other,
}

fn check(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Starts a program that is traced from its first instruction on, with all that it will start.
pub(crate) fn start(command: &mut Command) -> io::Result<Child> {
    let ask = || {
        // SAFETY: takes no memory; allowed between fork and exec.
        check(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }).map(drop)
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(ask) };
    let child = command.spawn()?;
    let pid = child.id() as pid_t;
    let mut status = 0;
    // SAFETY: the pointer is to a live integer. It stops behind its exec.
    check(c_long::from(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }))?;
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_EXITKILL;
    // SAFETY: takes numbers.
    check(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options as c_long) })?;
    resume(pid, 0)?;
    Ok(child)
}

/// Waits for a stop or an end of any traced thread; `None` when there is none left.
pub(crate) fn wait() -> io::Result<Option<(pid_t, Stop)>> {
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    let pid = match check(c_long::from(unsafe { libc::waitpid(-1, &mut status, libc::__WALL) })) {
        Ok(pid) => pid as pid_t,
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stop = if libc::WIFEXITED(status) {
        Stop::Ended(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Stop::Ended(128 + libc::WTERMSIG(status))
    } else {
        match (libc::WSTOPSIG(status), status >> 16) {
            (signal, 0) if signal == libc::SIGTRAP | 0x80 => Stop::Call,
            (signal, 0) => Stop::Signal(signal),
            (_, libc::PTRACE_EVENT_EXEC) => Stop::Executed,
            _ => Stop::Born,
        }
    };
    Ok(Some((pid, stop)))
}

/// Lets a thread go on to its next system call, with a signal or 0. Whether it still lives is told by `wait`.
pub(crate) fn resume(pid: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, c_long::from(signal)) }).map(drop)
}

/// Where a thread that stopped for a system call stands.
pub(crate) fn side(pid: pid_t) -> io::Result<Side> {
    /// The kernel's number of the 64-bit architecture.
    const X86_64: u32 = 0xc000_003e;
    // SAFETY: all zeros is a valid value of this structure of numbers.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    // SAFETY: the kernel writes at most `size` bytes to a live structure of that size.
    check(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &mut info) })?;
    Ok(match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY if info.arch == X86_64 => Side::Entry,
        libc::PTRACE_SYSCALL_INFO_EXIT => Side::Exit,
        _ => Side::Other,
    })
}

/// The registers of a stopped thread.
pub(crate) fn registers(pid: pid_t) -> io::Result<Registers> {
    // SAFETY: all zeros is a valid value of this structure of numbers.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure that this architecture has.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &mut registers) })?;
    Ok(registers)
}

/// Sets the registers of a stopped thread.
pub(crate) fn set_registers(pid: pid_t, registers: &Registers) -> io::Result<()> {
    // SAFETY: the kernel reads a live structure of this architecture.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, registers) }).map(drop)
}

/// Words of a stopped thread's memory.
pub(crate) fn read<const N: usize>(pid: pid_t, at: u64) -> io::Result<[u64; N]> {
    let mut words = [0_u64; N];
    let local = libc::iovec { iov_base: words.as_mut_ptr().cast::<c_void>(), iov_len: size_of_val(&words) };
    let remote = libc::iovec { iov_base: at as *mut c_void, iov_len: size_of_val(&words) };
    // SAFETY: the kernel writes to the live array, within its length; the other address is the other process's.
    let got = check(unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) } as c_long)?;
    if got as usize == size_of_val(&words) { Ok(words) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Changes words of a stopped thread's memory.
pub(crate) fn write(pid: pid_t, at: u64, words: &[u64]) -> io::Result<()> {
    for (index, word) in words.iter().enumerate() {
        // SAFETY: takes numbers; the address is the other process's.
        check(unsafe { libc::ptrace(libc::PTRACE_POKEDATA, pid, at + 8 * index as u64, *word) })?;
    }
    Ok(())
}
