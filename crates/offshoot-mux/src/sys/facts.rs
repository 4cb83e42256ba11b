//! Facts about this process, and its attributes.

use std::io;
use std::time::Duration;

use libc::{c_int, c_long, c_ulong, pid_t};

use super::check;

pub(crate) fn uid() -> u32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::getuid() }
}

pub(crate) fn euid() -> u32 {
    // SAFETY: takes and changes nothing.
    unsafe { libc::geteuid() }
}

pub(crate) fn umask(bits: u32) -> u32 {
    // SAFETY: takes a number.
    let before = unsafe { libc::umask(bits as libc::mode_t) };
    #[allow(clippy::useless_conversion)] // narrower elsewhere
    before.into()
}

/// The soft and the hard limit of descriptors.
pub(crate) fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the live struct.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    #[allow(clippy::useless_conversion)] // narrower elsewhere
    Ok((limit.rlim_cur.into(), limit.rlim_max.into()))
}

pub(crate) fn set_descriptor_limit(soft: u64, hard: u64) -> io::Result<()> {
    let value = |value: u64| libc::rlim_t::try_from(value).unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: value(soft), rlim_max: value(hard) };
    // SAFETY: the kernel reads the live struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

/// Both limits: what runs here could raise a soft one again.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    let bytes = libc::rlim_t::try_from(bytes).unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the kernel reads the live struct.
    check(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) })?;
    Ok(())
}

pub(crate) fn setsid() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() })?;
    Ok(())
}

pub(crate) fn hostname() -> io::Result<Vec<u8>> {
    let mut name = [0u8; 256];
    // SAFETY: libc writes at most `len` bytes into the live buffer; the last is kept for the NUL.
    check(unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) })?;
    Ok(name.split(|byte| *byte == 0).next().unwrap_or(&[]).to_vec())
}

pub(crate) fn monotonic() -> Duration {
    // SAFETY: all zeros is a valid timespec.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live timespec; this clock exists on every system.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn prctl(option: c_int, value: c_ulong) -> io::Result<()> {
    // SAFETY: for the options used here the second argument is a number, and the others are zero.
    check(unsafe { libc::prctl(option, value, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })?;
    Ok(())
}

pub(crate) fn set_child_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// This thread's scheduling priority.
pub(crate) fn priority() -> c_int {
    // SAFETY: takes numbers. An error looks like the priority -1, and cannot be for one's own.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Sets this thread's scheduling priority.
pub(crate) fn set_priority(priority: c_int) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) })?;
    Ok(())
}

pub(crate) fn is_child_subreaper() -> bool {
    let mut is: c_int = 0;
    // SAFETY: the pointer is to a live integer.
    let result =
        unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &mut is, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) };
    result == 0 && is != 0
}

pub(crate) fn set_parent_death_signal(signal: c_int) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong)
}

pub(crate) fn set_dumpable(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, c_ulong::from(on))
}

/// The thread's name, cut to 15 bytes.
pub(crate) fn set_comm(name: &[u8]) -> io::Result<()> {
    let mut buffer = [0u8; 16];
    for (to, from) in buffer.iter_mut().take(15).zip(name) {
        *to = *from;
    }
    // SAFETY: the kernel reads at most 16 bytes of the live buffer, up to its NUL.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, buffer.as_ptr(), 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) })?;
    Ok(())
}

/// Whether this is the only thread of the process; an error when the system does not say.
pub(crate) fn is_alone() -> io::Result<bool> {
    // To stop sharing the thread group is refused when there is one to share, and nothing at all otherwise.
    // SAFETY: with this flag the call changes nothing.
    match check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_THREAD as c_long) } as c_int) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => is_alone_in_qemu(),
        // Sandboxes refuse it to those without privileges.
        Err(_) => Ok(std::fs::read_dir("/proc/self/task")?.count() == 1),
    }
}

/// qemu-user has one thread of its own in each process, which holds no lock of the program's and does not run in the child
/// of a fork. No thread but those that qemu starts blocks all signals except for these three of faults: ILL, FPE, SEGV. Before it
/// has run for the first time it blocks those too, so a second thread is looked at for 100 ms.
fn is_alone_in_qemu() -> io::Result<bool> {
    const QEMUS: &[u8] = b"\nSigBlk:\tfffffffe7ffbfa77\n";
    let mut looks = 0;
    loop {
        let (mut tasks, mut qemus) = (0, 0);
        for task in std::fs::read_dir("/proc/self/task")? {
            let status = std::fs::read(task?.path().join("status"))?;
            tasks += 1;
            qemus += usize::from(status.windows(QEMUS.len()).any(|part| part == QEMUS));
        }
        if tasks != 2 || qemus == 1 || looks == 20 {
            return Ok((tasks, qemus) == (2, 1));
        }
        looks += 1;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn threads() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "not in a process that has several threads")
}

/// Forks, when this is the only thread: zero in the child.
pub(crate) fn fork_alone() -> io::Result<pid_t> {
    if !is_alone()? {
        return Err(threads());
    }
    // SAFETY: with one thread of the program no lock can be held by a thread that the child does not have; and only this
    // thread could have started another since.
    check(unsafe { libc::fork() })
}

/// Overwrites the memory where the kernel has put the arguments of this process, when this is the only thread. How many
/// bytes of the name had room.
pub(crate) fn overwrite_arguments(name: &[u8]) -> io::Result<usize> {
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    if !is_alone()? {
        return Err(threads());
    }
    let stat = std::fs::read("/proc/self/stat")?;
    // The second field is the program's name in parentheses, which may contain anything; the arguments are 48 and 49.
    let after_name = stat.iter().rposition(|byte| *byte == b')').ok_or_else(missing)?;
    let mut fields = stat[after_name..].split(|byte| *byte == b' ').skip(46);
    let mut address = || std::str::from_utf8(fields.next()?).ok()?.trim_end().parse::<usize>().ok();
    let (Some(start), Some(end)) = (address(), address()) else { return Err(missing()) };
    let size = end.saturating_sub(start);
    // More than the kernel allows for arguments is no argument area.
    if start == 0 || size == 0 || size > 64 << 20 {
        return Err(missing());
    }
    // The last byte stays NUL: else the kernel takes the environment behind it for a part.
    let len = name.len().min(size - 1);
    let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that this area holds our argument strings: it is on our stack and writable. Nobody reads
    // it meanwhile (`std::env::args` does, in other threads), since this is the only thread.
    unsafe {
        std::ptr::copy_nonoverlapping(name.as_ptr(), area, len);
        std::ptr::write_bytes(area.add(len), 0, size - len);
    }
    Ok(len)
}
