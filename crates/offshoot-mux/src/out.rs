//! Output that waits for a descriptor to take it. Owns the bytes and their order; must not know what they mean. Belongs
//! to whoever drives the link; not shared.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;

use bytes::{Buf, Bytes};

/// Bodies shorter than this are copied: a part of their own in the list and the write costs more.
const COPIED: usize = 512;
/// The gathered bytes' memory that an empty queue keeps.
const KEPT: usize = 64 * 1024;
/// Parts of one `writev`.
const PARTS: usize = 64;

#[derive(Debug)]
enum Piece {
    /// So many bytes of the ring.
    Gathered(usize),
    Whole(Bytes),
}

/// A bounded queue of output for one descriptor.
///
/// Small pieces are copied into one ring, large ones kept as they are; both leave by one `writev`, in the order of
/// their coming. Takes at most `limit` bytes of content; its own memory beside is at most as much again (the ring grows
/// by doubling) and 40 bytes per large piece. A `Bytes` that is part of a larger buffer holds all of that. A steady flow
/// of small pieces allocates nothing.
///
/// # Examples
///
/// ```
/// use offshoot_mux::{OutQueue, io};
/// let (ours, theirs) = io::socketpair()?;
/// io::set_nonblocking(&ours, true)?;
/// let mut out = OutQueue::new(4 << 20);
/// out.push_framed(b"head", vec![b'x'; 60_000])?;
/// assert!(out.write_to(&ours, 128 * 1024)?.empty);
/// # let mut buffer = [0; 4];
/// # io::read(&theirs, &mut buffer)?;
/// # assert_eq!(&buffer, b"head");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutQueue {
    ring: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    len: usize,
    limit: usize,
}

/// The queue has no room for the piece; nothing of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("output queue full")
    }
}

impl std::error::Error for Full {}

/// How far a [`OutQueue::write_to`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the descriptor took.
    pub written: usize,
    /// It takes no more for now: wait for a writable event. When neither this nor `empty` is set the budget ended it.
    pub blocked: bool,
    /// All is written.
    pub empty: bool,
}

impl OutQueue {
    /// An empty queue that takes at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        OutQueue { ring: VecDeque::new(), pieces: VecDeque::new(), len: 0, limit }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it would take now.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// Adds a small piece by copying it: frames' headers, calls.
    ///
    /// # Errors
    ///
    /// [`Full`], with nothing taken.
    pub fn push_small(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.room() {
            return Err(Full);
        }
        self.gather(bytes);
        Ok(())
    }

    /// Adds a large piece without copying it (under 512 bytes it is copied after all).
    ///
    /// # Errors
    ///
    /// [`Full`], with nothing taken.
    pub fn push_large(&mut self, bytes: impl Into<Bytes>) -> Result<(), Full> {
        self.push_framed(&[], bytes)
    }

    /// Adds a small head and a large body, both or neither.
    ///
    /// # Errors
    ///
    /// [`Full`], with nothing taken.
    pub fn push_framed(&mut self, head: &[u8], body: impl Into<Bytes>) -> Result<(), Full> {
        let body = body.into();
        match head.len().checked_add(body.len()) {
            Some(len) if len <= self.room() => {}
            _ => return Err(Full),
        }
        self.gather(head);
        if body.len() < COPIED {
            self.gather(&body);
        } else {
            self.len += body.len();
            self.pieces.push_back(Piece::Whole(body));
        }
        Ok(())
    }

    fn gather(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.ring.extend(bytes);
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Gathered(len)) => *len += bytes.len(),
            _ => self.pieces.push_back(Piece::Gathered(bytes.len())),
        }
    }

    /// Writes to a non-blocking descriptor until it takes no more, all is written, or `budget` bytes are. A short write
    /// counts as blocked: on an edge-triggered poller the writable event follows.
    ///
    /// # Errors
    ///
    /// What `writev(2)` reports but `WouldBlock`; what was written before it is taken out of the queue.
    pub fn write_to(&mut self, fd: impl AsFd, budget: usize) -> io::Result<Progress> {
        let mut written = 0;
        let mut blocked = false;
        while self.len > 0 && written < budget && !blocked {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let (count, want) = self.parts(&mut parts, budget - written);
            // A call is one part, and `write` is the cheaper of the two.
            let result = match &parts[..count] {
                [part] => crate::io::write(fd.as_fd(), part),
                parts => crate::io::writev(fd.as_fd(), parts),
            };
            match result {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    written += n;
                    blocked = n < want;
                    self.advance(n);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(error),
            }
        }
        Ok(Progress { written, blocked, empty: self.len == 0 })
    }

    /// The front of the queue as parts of one write: how many, and how many bytes.
    fn parts<'a>(&'a self, parts: &mut [IoSlice<'a>; PARTS], budget: usize) -> (usize, usize) {
        let (front, back) = self.ring.as_slices();
        let (mut want, mut count, mut at) = (0, 0, 0);
        let mut add = |bytes: &'a [u8]| {
            let bytes = &bytes[..bytes.len().min(budget - want)];
            if !bytes.is_empty() && count < PARTS {
                parts[count] = IoSlice::new(bytes);
                want += bytes.len();
                count += 1;
            }
            want < budget && count < PARTS
        };
        for piece in &self.pieces {
            let more = match piece {
                Piece::Whole(bytes) => add(bytes),
                Piece::Gathered(len) => {
                    let end = at + len;
                    let first = &front[at.min(front.len())..end.min(front.len())];
                    let rest = &back[at.saturating_sub(front.len())..end.saturating_sub(front.len())];
                    at = end;
                    add(first) && add(rest)
                }
            };
            if !more {
                break;
            }
        }
        (count, want)
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            // The kernel took no more than it was given, and that was in the list.
            let Some(first) = self.pieces.front_mut() else { break };
            let left = match first {
                Piece::Gathered(len) => {
                    let taken = n.min(*len);
                    self.ring.drain(..taken);
                    *len -= taken;
                    n -= taken;
                    *len
                }
                Piece::Whole(bytes) => {
                    let taken = n.min(bytes.len());
                    bytes.advance(taken);
                    n -= taken;
                    bytes.len()
                }
            };
            if left == 0 {
                self.pieces.pop_front();
            }
        }
        if self.ring.is_empty() && self.ring.capacity() > KEPT {
            self.ring = VecDeque::new();
        }
    }

    /// Drops everything that waits, and the memory.
    pub fn clear(&mut self) {
        *self = OutQueue::new(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, KEPT, OutQueue, Progress};
    use crate::io;

    /// Reads what is there from a non-blocking descriptor.
    fn drain(fd: &std::os::fd::OwnedFd, most: usize) -> Vec<u8> {
        let mut got = Vec::new();
        let mut buffer = vec![0; 8192];
        while got.len() < most {
            let room = (most - got.len()).min(buffer.len());
            match io::read(fd, &mut buffer[..room]) {
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(_) => break,
            }
        }
        got
    }

    fn pair() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
        let (ours, theirs) = io::socketpair().unwrap();
        io::set_nonblocking(&ours, true).unwrap();
        io::set_nonblocking(&theirs, true).unwrap();
        (ours, theirs)
    }

    #[test]
    fn bytes_leave_in_the_order_of_their_coming_whatever_the_sizes_and_short_writes() {
        let (ours, theirs) = pair();
        let mut out = OutQueue::new(1 << 20);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for _ in 0..3000 {
            let head: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
            let body: Vec<u8> = (0..[0, 10, 511, 512, 5000][next() % 5]).map(|i| i as u8).collect();
            if out.push_framed(&head, body.clone()).is_ok() {
                sent.extend_from_slice(&head);
                sent.extend_from_slice(&body);
            }
            if next() % 3 == 0 {
                out.write_to(&ours, next() % 70_000).unwrap();
                got.extend(drain(&theirs, next() % 90_000));
            }
        }
        while !out.write_to(&ours, 4096).unwrap().empty {
            got.extend(drain(&theirs, usize::MAX));
        }
        got.extend(drain(&theirs, usize::MAX));
        assert!(got == sent, "{} bytes sent, {} received, or altered", sent.len(), got.len());
        assert_eq!(out.len(), 0);
    }

    #[test]
    fn a_full_queue_takes_nothing_of_a_piece() {
        let mut out = OutQueue::new(1000);
        out.push_small(&[1; 300]).unwrap();
        assert_eq!(out.push_framed(&[2; 101], vec![3; 600]), Err(Full));
        assert_eq!(out.push_small(&[2; 701]), Err(Full));
        assert_eq!((out.len(), out.room()), (300, 700));
        out.push_large(vec![3; 700]).unwrap();
        assert_eq!(out.push_small(&[0]), Err(Full));
    }

    #[test]
    fn one_write_to_keeps_to_its_budget_and_says_why_it_ended() {
        let (ours, theirs) = pair();
        let mut out = OutQueue::new(16 << 20);
        out.push_large(vec![7; 8 << 20]).unwrap();
        assert_eq!(out.write_to(&ours, 1000).unwrap(), Progress { written: 1000, blocked: false, empty: false });
        let progress = out.write_to(&ours, usize::MAX).unwrap();
        assert!(progress.blocked && !progress.empty && progress.written > 0, "{progress:?}");
        assert_eq!(out.write_to(&ours, 10).unwrap().written, 0);
        drop(theirs);
        out.write_to(&ours, 10).unwrap_err();
    }

    #[test]
    fn a_steady_flow_keeps_its_memory_and_a_burst_gives_it_back() {
        let (ours, theirs) = pair();
        let mut out = OutQueue::new(1 << 20);
        out.push_small(&[0; 24]).unwrap();
        let capacity = out.ring.capacity();
        for _ in 0..1000 {
            out.push_small(&[0; 8]).unwrap();
            out.write_to(&ours, 100).unwrap();
            drain(&theirs, 200);
        }
        assert!(out.ring.capacity() <= 2 * capacity);
        out.push_small(&vec![0; 2 * KEPT]).unwrap();
        while !out.write_to(&ours, usize::MAX).unwrap().empty {
            drain(&theirs, usize::MAX);
        }
        assert_eq!(out.ring.capacity(), 0);
    }
}
