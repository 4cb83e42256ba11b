//! Which system calls are made to do less, and how: by their registers alone.
//!
//! Owns the rules of what is allowed to be short. A call on a descriptor that carries a stream of bytes may always take or give fewer than it was asked for, as after
//! a signal. Left alone is what the system never does: to divide what was written to a pipe in one piece of at most 512 bytes, or to a file in memory of at
//! most a page, a datagram, an event's number, a file of `/proc`; and a library, which the system's own loader reads.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;

use libc::{c_long, pid_t};

use crate::rng::Rng;
use crate::trace::{self, Registers};

/// What is written at once to a pipe and no larger is never divided: what POSIX demands at least.
const WHOLE: u64 = 512;
/// As much is written to a file in memory, within its first page, or nothing.
const PAGE: u64 = 4096;
/// A read of no more than this of a pipe that is no standard stream reads records that were written so.
const RECORD: u64 = 64;

/// What a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    File,
    Memory,
    Pipe,
    Socket,
    Terminal,
}

/// How a call says how much.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// By a count, in this register.
    Count(Register),
    /// By a list of parts.
    Parts,
    /// By a message with a list of parts.
    Message,
}

#[derive(Debug, Clone, Copy)]
enum Register {
    Dx,
    R8,
    R10,
}

/// A call that moves bytes.
#[derive(Debug)]
struct Call {
    number: c_long,
    name: &'static str,
    measure: Measure,
    writes: bool,
    /// The same for one part, if this takes several.
    single: c_long,
}

const fn counted(number: c_long, name: &'static str, register: Register, writes: bool) -> Call {
    Call { number, name, measure: Measure::Count(register), writes, single: number }
}

const fn parted(number: c_long, name: &'static str, writes: bool, single: c_long) -> Call {
    Call { number, name, measure: Measure::Parts, writes, single }
}

const fn message(number: c_long, name: &'static str, writes: bool, single: c_long) -> Call {
    Call { number, name, measure: Measure::Message, writes, single }
}

const CALLS: &[Call] = &[
    counted(libc::SYS_read, "read", Register::Dx, false),
    counted(libc::SYS_pread64, "pread64", Register::Dx, false),
    counted(libc::SYS_recvfrom, "recvfrom", Register::Dx, false),
    counted(libc::SYS_write, "write", Register::Dx, true),
    counted(libc::SYS_pwrite64, "pwrite64", Register::Dx, true),
    counted(libc::SYS_sendto, "sendto", Register::Dx, true),
    // Between two descriptors: what is said of the first holds.
    counted(libc::SYS_tee, "tee", Register::Dx, false),
    counted(libc::SYS_splice, "splice", Register::R8, false),
    counted(libc::SYS_copy_file_range, "copy_file_range", Register::R8, false),
    counted(libc::SYS_sendfile, "sendfile", Register::R10, true),
    parted(libc::SYS_readv, "readv", false, libc::SYS_read),
    parted(libc::SYS_preadv, "preadv", false, libc::SYS_pread64),
    parted(libc::SYS_writev, "writev", true, libc::SYS_write),
    parted(libc::SYS_pwritev, "pwritev", true, libc::SYS_pwrite64),
    message(libc::SYS_recvmsg, "recvmsg", false, libc::SYS_recvfrom),
    message(libc::SYS_sendmsg, "sendmsg", true, libc::SYS_sendto),
];

/// A call that does less.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) descriptor: i32,
    /// The registers with which it is made instead.
    pub(crate) registers: Registers,
}

/// Looks at descriptors, and remembers which sockets are streams.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    streams: HashMap<String, bool>,
}

impl Cutter {
    /// The shorter form of the call that a thread is about to make; `None` when it goes on as it is.
    pub(crate) fn cut(&mut self, pid: pid_t, registers: &Registers, rng: &mut Rng) -> Option<Cut> {
        let call = CALLS.iter().find(|call| call.number as u64 == registers.orig_rax)?;
        let descriptor = registers.rdi as i32;
        let mut cut = *registers;
        // Most calls move little, and nothing else need be looked at then.
        let asked = match call.measure {
            Measure::Count(register) => *count(&mut cut, register),
            _ => u64::MAX,
        };
        if asked <= 1 {
            return None;
        }
        let kind = self.kind(pid, descriptor)?;
        let least = match (kind, call.writes) {
            (Kind::Pipe, true) => WHOLE,
            (Kind::Memory, true) => PAGE,
            (Kind::Pipe, false) if descriptor > 2 => RECORD,
            _ => 1,
        };
        match call.measure {
            Measure::Count(register) => {
                if !allowed(asked, least) {
                    return None;
                }
                *count(&mut cut, register) = shorter(asked, rng)?;
            }
            Measure::Parts => {
                shorten(pid, &mut cut, call.single, (registers.rsi, registers.rdx), least, rng)?;
            }
            Measure::Message => {
                // Name and its length, parts and their number, what goes beside and its length.
                let [name, _, at, number, beside, _] = trace::read::<6>(pid, registers.rsi).ok()?;
                if name != 0 || beside != 0 {
                    return None;
                }
                // Always as one part: a list would have to be changed where it lies.
                let (base, len, _) = parts(pid, at, number).next()?;
                if !allowed(len, least) {
                    return None;
                }
                let flags = registers.rdx;
                (cut.orig_rax, cut.rax) = (call.single as u64, call.single as u64);
                (cut.rsi, cut.rdx, cut.r10, cut.r8, cut.r9) = (base, shorter(len, rng)?, flags, 0, 0);
            }
        }
        Some(Cut { name: call.name, kind, descriptor, registers: cut })
    }

    /// What a descriptor is; `None` for what is not to be touched.
    fn kind(&mut self, pid: pid_t, descriptor: i32) -> Option<Kind> {
        let link = format!("/proc/{pid}/fd/{descriptor}");
        let target = fs::read_link(&link).ok()?.to_string_lossy().into_owned();
        if target.starts_with("pipe:") {
            return Some(Kind::Pipe);
        }
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            let known = self.streams.get(inode).copied();
            let stream = known.unwrap_or_else(|| is_stream(pid, inode));
            self.streams.insert(inode.to_owned(), stream);
            return stream.then_some(Kind::Socket);
        }
        if ["/dev/pts/", "/dev/ptmx", "/dev/tty"].iter().any(|start| target.starts_with(start)) {
            return Some(Kind::Terminal);
        }
        if target.starts_with("/memfd:") {
            return Some(Kind::Memory);
        }
        let kind = fs::metadata(&link).ok()?.file_type();
        let other = ["/proc/", "/sys/", "/dev/"].iter().any(|start| target.starts_with(start));
        match kind.is_file() && !other && !target.contains(".so") {
            true => Some(Kind::File),
            false => kind.is_fifo().then_some(Kind::Pipe),
        }
    }
}

/// Whether the kernel lists the socket as a stream.
fn is_stream(pid: pid_t, inode: &str) -> bool {
    let listed = |table: &str, stream: &dyn Fn(&[&str]) -> bool| {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(|line| stream(&line.split_whitespace().collect::<Vec<_>>()))
    };
    let unix = |words: &[&str]| words.get(4) == Some(&"0001") && words.get(6) == Some(&inode);
    let tcp = |words: &[&str]| words.get(9) == Some(&inode);
    listed("unix", &unix) || listed("tcp", &tcp) || listed("tcp6", &tcp)
}

fn count(registers: &mut Registers, register: Register) -> &mut u64 {
    match register {
        Register::Dx => &mut registers.rdx,
        Register::R8 => &mut registers.r8,
        Register::R10 => &mut registers.r10,
    }
}

/// A smaller count, at least 1; now and then none.
fn shorter(count: u64, rng: &mut Rng) -> Option<u64> {
    match rng.between(0, 7) {
        _ if count <= 1 => None,
        0 => None,
        1..=3 => Some(rng.between(1, (count - 1).min(16))),
        _ => Some(rng.between(1, count - 1)),
    }
}

/// The parts that are not empty: address, length, and which one of all it is.
fn parts(pid: pid_t, at: u64, number: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let part = move |index| trace::read::<2>(pid, at + 16 * index).ok().map(|[base, len]| (base, len, index));
    (0..number.min(1024)).map_while(part).filter(|(_, len, _)| *len > 0)
}

/// Fewer parts, or a piece of the first.
fn shorten(
    pid: pid_t,
    registers: &mut Registers,
    single: c_long,
    (at, number): (u64, u64),
    least: u64,
    rng: &mut Rng,
) -> Option<()> {
    let parts: Vec<_> = parts(pid, at, number).collect();
    let [(base, len, index), rest @ ..] = &parts[..] else { return None };
    if !allowed(parts.iter().map(|(_, len, _)| len).sum(), least) {
        return None;
    }
    if !rest.is_empty() && rng.chance(50) {
        registers.rdx = index + rng.between(1, rest.len() as u64);
        return Some(());
    }
    (registers.orig_rax, registers.rax) = (single as u64, single as u64);
    // With more behind it the first is short as a whole, too.
    let piece = if rest.is_empty() { shorter(*len, rng)? } else { rng.between(1, *len) };
    (registers.rsi, registers.rdx) = (*base, piece);
    Some(())
}

/// Whether a call for so much may be divided. More than any buffer of ours is a mistake of the caller's, which the kernel tells.
fn allowed(count: u64, least: u64) -> bool {
    count > least.max(1) && count < 1 << 31
}

/// A descriptor that is watched for edges: by which poller, for what, with which number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    pub(crate) poller: u64,
    pub(crate) event: [u64; 2],
}

/// What `epoll_ctl` is asked for: the descriptor, and the watch from then on.
pub(crate) fn watch(pid: pid_t, registers: &Registers) -> io::Result<(i32, Option<Watch>)> {
    let descriptor = registers.rdx as i32;
    if registers.rsi == libc::EPOLL_CTL_DEL as u64 {
        return Ok((descriptor, None));
    }
    // Twelve bytes: the events and the number.
    let [low] = trace::read::<1>(pid, registers.r10)?;
    let [high] = trace::read::<1>(pid, registers.r10 + 4)?;
    Ok((descriptor, Some(Watch { poller: registers.rdi, event: [low, high >> 32] })))
}
