//! Buffers for what processes write, used again and again.
//!
//! A chunk of output lives from the read to the moment the link has taken it, and there are always some under way. With
//! an allocator that gives large blocks back to the system at once (musl's), a fresh one each time costs a page fault
//! per 4 KiB: as much as copying it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The size of a buffer: what one read of an output takes at most.
pub(crate) const BUFFER: usize = 64 * 1024;

/// How many idle buffers are kept: 1 MiB. More are under way only while a link is slower than the processes behind it.
const IDLE: usize = 16;

/// Idle buffers. A cheap handle; the buffers that are under way find their way back by themselves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Box<[u8]>>>>);

/// A buffer under way.
struct Lent {
    buffer: Box<[u8]>,
    used: usize,
    home: Pool,
}

impl Pool {
    /// Fills a buffer by `read`, which gets at most `most` bytes of room, and lends it out.
    ///
    /// # Errors
    /// What `read` reports.
    pub(crate) fn fill<E>(&self, most: usize, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Bytes, E> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lent = Lent { buffer: kept.unwrap_or_else(|| vec![0; BUFFER].into()), used: 0, home: self.clone() };
        lent.used = read(&mut lent.buffer[..most.min(BUFFER)])?;
        Ok(if lent.used < BUFFER / 2 {
            // Pieces are copied: a window full of them must not hold many times its size in buffers.
            Bytes::copy_from_slice(lent.as_ref())
        } else {
            Bytes::from_owner(lent)
        })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s12_what_waits_holds_twice_its_size_in_buffers_at_most() {
        for size in [1, 4097, 8192, BUFFER / 2 - 1, BUFFER / 2, BUFFER] {
            let pool = Pool::default();
            pool.0.lock().expect("no panic").push(vec![0; BUFFER].into());
            let held = pool.fill(size, |buffer| Ok::<_, ()>(buffer.len())).expect("filled");
            let lent = 1 - pool.0.lock().expect("no panic").len();
            assert!(lent * BUFFER <= 2 * size, "{size} bytes hold {lent} buffer of {BUFFER}");
            drop(held);
        }
    }

    #[test]
    fn buffers_come_home_and_small_pieces_are_copied() {
        let pool = Pool::default();
        let idle = |pool: &Pool| pool.0.lock().expect("no panic").len();
        let large = pool.fill(BUFFER, |buffer| Ok::<_, ()>(buffer.len())).expect("filled");
        assert_eq!((large.len(), idle(&pool)), (BUFFER, 0));
        let part = large.slice(5..9);
        drop(large);
        assert_eq!(idle(&pool), 0, "a part of it is still in use");
        drop(part);
        assert_eq!(idle(&pool), 1);
        let small = pool.fill(7, |buffer| Ok::<_, ()>(buffer.len())).expect("filled");
        assert_eq!((small.len(), idle(&pool)), (7, 1));
        assert_eq!(pool.fill(7, |_| Err("gone")), Err("gone"));
        assert_eq!(idle(&pool), 1);
    }
}
