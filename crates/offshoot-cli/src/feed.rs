//! The feed: our stdin, handed to every target.
//!
//! One thread reads stdin; each target's writer reads the feed at its own pace. Two ways of keeping what was read:
//!
//! - When every target has a place at once, the last few MiB are kept in memory, and the slowest target holds back the
//!   reading: an endless stdin passes through.
//! - When some wait for a place, they must still find the beginning later; so all of it is kept, in a file without a
//!   name, and nothing is held back. Its size is bounded: to hold back what exceeds that would be to wait for ever, since
//!   those that have a place may wait for the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// What is read at a time, in bytes.
const PIECE: usize = 64 * 1024;
/// How many pieces are kept in memory: 4 MiB.
const PIECES: usize = 64;
/// How much the file holds at most, in bytes: 8 GiB. An image of a disk fits; what never ends does not fill ours.
const FILE_MAX: u64 = 8 << 30;

/// A source of bytes for many readers.
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    kept: Kept,
    /// Readers that were not dropped yet.
    readers: usize,
    /// All was read, or reading failed for this reason.
    end: Option<Result<(), String>>,
}

enum Kept {
    Memory {
        /// The pieces that some reader still wants, each with how many do.
        pieces: VecDeque<(Bytes, usize)>,
        /// The number of the first of them.
        first: u64,
    },
    File {
        file: Arc<File>,
        length: u64,
        most: u64,
    },
}

/// One reader's place in a feed. Dropping it lets go of what it has not read.
pub(crate) struct FeedReader {
    feed: Arc<Feed>,
    /// The number of the next piece, or the next offset in the file.
    at: u64,
    stopped: Arc<AtomicBool>,
}

/// Ends a reader's wait from another thread.
pub(crate) struct Stopper {
    feed: Arc<Feed>,
    stopped: Arc<AtomicBool>,
}

impl Feed {
    /// A feed of `readers` readers, none of which has begun; with `all_at_once` as the module says.
    ///
    /// # Errors
    /// When a file is needed and cannot be made.
    pub(crate) fn new(readers: usize, all_at_once: bool) -> io::Result<(Arc<Feed>, Vec<FeedReader>)> {
        Feed::with(readers, all_at_once, FILE_MAX)
    }

    fn with(readers: usize, all_at_once: bool, most: u64) -> io::Result<(Arc<Feed>, Vec<FeedReader>)> {
        let kept = if all_at_once {
            Kept::Memory { pieces: VecDeque::new(), first: 0 }
        } else {
            Kept::File { file: Arc::new(tempfile::tempfile()?), length: 0, most }
        };
        let feed = Arc::new(Feed { state: Mutex::new(State { kept, readers, end: None }), changed: Condvar::new() });
        let readers = (0..readers).map(|_| FeedReader { feed: feed.clone(), at: 0, stopped: Arc::default() }).collect();
        Ok((feed, readers))
    }

    /// Reads all of `source`, until its end, an error, or until no reader is left. Blocks.
    ///
    /// # Errors
    /// Those of `source`, and of the file that keeps what was read, `FileTooLarge` when it would hold too much; the readers
    /// get them too, after what came before.
    pub(crate) fn fill(&self, mut source: impl Read) -> io::Result<()> {
        let result = self.fill_inner(&mut source);
        let mut state = self.lock();
        state.end = Some(result.as_ref().map(|&()| ()).map_err(ToString::to_string));
        self.changed.notify_all();
        result
    }

    fn fill_inner(&self, source: &mut dyn Read) -> io::Result<()> {
        loop {
            if !self.wait_for_room() {
                return Ok(());
            }
            let mut piece = vec![0; PIECE];
            let length = match source.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            piece.truncate(length);
            let mut state = self.lock();
            let readers = state.readers;
            match &mut state.kept {
                Kept::Memory { pieces, .. } => pieces.push_back((piece.into(), readers)),
                Kept::File { length: kept, most, .. } if *kept + length as u64 > *most => {
                    let text = format!("it is longer than the {} MiB that are kept for targets that wait", *most >> 20);
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
                }
                Kept::File { file, length: kept, .. } => {
                    let mut file = &**file;
                    file.write_all(&piece)?;
                    *kept += length as u64;
                }
            }
            self.changed.notify_all();
        }
    }

    /// Whether any reader is left; waits while the memory is full.
    fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        loop {
            let full = matches!(&state.kept, Kept::Memory { pieces, .. } if pieces.len() >= PIECES);
            if state.readers == 0 || !full {
                return state.readers > 0;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A poisoned lock is taken as it is: no step of ours leaves the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops the pieces at the front that nobody wants any more.
    fn let_go(&mut self) {
        if let Kept::Memory { pieces, first } = &mut self.kept {
            while pieces.front().is_some_and(|(_, wanted)| *wanted == 0) {
                pieces.pop_front();
                *first += 1;
            }
        }
    }
}

impl FeedReader {
    /// What ends this reader's wait.
    pub(crate) fn stopper(&self) -> Stopper {
        Stopper { feed: self.feed.clone(), stopped: self.stopped.clone() }
    }

    /// The next piece; `None` at the end, or once it was stopped. Blocks until there is one.
    ///
    /// # Errors
    /// When reading the source failed.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut state = self.feed.lock();
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(None);
            }
            match &mut state.kept {
                Kept::Memory { pieces, first } => {
                    // A reader's place is never before the first: its piece is kept until it has passed.
                    if let Some((piece, wanted)) = pieces.get_mut((self.at - *first) as usize) {
                        let piece = piece.clone();
                        *wanted -= 1;
                        self.at += 1;
                        state.let_go();
                        self.feed.changed.notify_all();
                        return Ok(Some(piece));
                    }
                }
                Kept::File { file, length, .. } if self.at < *length => {
                    let mut piece = vec![0; PIECE.min(usize::try_from(*length - self.at).unwrap_or(PIECE))];
                    let file = file.clone();
                    drop(state);
                    file.read_exact_at(&mut piece, self.at)?;
                    self.at += piece.len() as u64;
                    return Ok(Some(piece.into()));
                }
                Kept::File { .. } => {}
            }
            match &state.end {
                Some(Ok(())) => return Ok(None),
                Some(Err(message)) => return Err(io::Error::other(message.clone())),
                None => state = self.feed.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Stopper {
    /// Lets the reader find the end, now or at its next read.
    pub(crate) fn stop(&self) {
        // Under the lock, or a reader that has just looked would miss the news.
        let _state = self.feed.lock();
        self.stopped.store(true, Ordering::SeqCst);
        self.feed.changed.notify_all();
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        state.readers -= 1;
        if let Kept::Memory { pieces, first } = &mut state.kept {
            for (_, wanted) in pieces.iter_mut().skip((self.at - *first) as usize) {
                *wanted -= 1;
            }
        }
        state.let_go();
        self.feed.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Gives `pieces` pieces, each filled with its number, and counts how many it gave.
    struct Numbered {
        pieces: usize,
        given: Arc<AtomicUsize>,
    }

    impl Read for Numbered {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let number = self.given.load(Ordering::SeqCst);
            if number == self.pieces {
                return Ok(0);
            }
            self.given.store(number + 1, Ordering::SeqCst);
            buffer.fill(number as u8);
            Ok(buffer.len())
        }
    }

    fn drain(mut reader: FeedReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().expect("a piece") {
            all.extend(piece);
        }
        all
    }

    fn settled(given: &AtomicUsize) -> usize {
        loop {
            let before = given.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(50));
            if given.load(Ordering::SeqCst) == before {
                return before;
            }
        }
    }

    #[test]
    fn every_reader_gets_every_byte_in_both_ways_of_keeping() {
        for all_at_once in [true, false] {
            let (feed, readers) = Feed::new(3, all_at_once).expect("made");
            let given = Arc::new(AtomicUsize::new(0));
            let filler = thread::spawn(move || feed.fill(Numbered { pieces: 300, given }));
            let drains: Vec<_> = readers.into_iter().map(|reader| thread::spawn(|| drain(reader))).collect();
            let expected: Vec<u8> = (0..300).flat_map(|number| vec![number as u8; PIECE]).collect();
            for drain in drains {
                assert!(drain.join().expect("drained") == expected);
            }
            filler.join().expect("joined").expect("filled");
        }
    }

    #[test]
    fn the_slowest_reader_holds_back_the_source_and_a_dropped_one_does_not() {
        let (feed, mut readers) = Feed::new(2, true).expect("made");
        let given = Arc::new(AtomicUsize::new(0));
        let source = Numbered { pieces: 300, given: given.clone() };
        let filler = thread::spawn(move || feed.fill(source));
        let slow = readers.pop().expect("a reader");
        let fast = thread::spawn(move || drain(readers.remove(0)).len());
        assert_eq!(settled(&given), PIECES, "the memory's bound");
        drop(slow);
        assert_eq!(fast.join().expect("drained"), 300 * PIECE);
        filler.join().expect("joined").expect("filled");
    }

    #[test]
    fn without_readers_the_source_is_left_alone() {
        let (feed, readers) = Feed::new(1, true).expect("made");
        drop(readers);
        let given = Arc::new(AtomicUsize::new(0));
        feed.fill(Numbered { pieces: 300, given: given.clone() }).expect("ended");
        assert_eq!(given.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_stopped_reader_stops_waiting() {
        let (_feed, mut readers) = Feed::new(1, true).expect("made");
        let mut reader = readers.remove(0);
        let stopper = reader.stopper();
        let waiting = thread::spawn(move || reader.next().map(|piece| piece.is_none()));
        thread::sleep(Duration::from_millis(20));
        stopper.stop();
        assert!(waiting.join().expect("joined").expect("no error"));
    }

    #[test]
    fn a_source_without_end_does_not_fill_the_disk_while_a_target_waits() {
        let (feed, mut readers) = Feed::with(2, false, 5 * PIECE as u64).expect("made");
        let error = feed.fill(io::repeat(b'y')).expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let mut came = 0;
        let error = loop {
            match readers[1].next() {
                Ok(piece) => came += piece.expect("no end").len(),
                Err(error) => break error,
            }
        };
        assert_eq!(came, 5 * PIECE);
        assert!(error.to_string().contains("longer than"), "{error}");
    }

    #[test]
    fn an_error_of_the_source_reaches_the_readers_behind_what_came_before() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    Err(io::Error::other("torn tape"))
                } else {
                    buffer[0] = 7;
                    Ok(1)
                }
            }
        }
        let (feed, mut readers) = Feed::new(1, false).expect("made");
        feed.fill(Broken(false)).expect_err("broken");
        assert_eq!(readers[0].next().expect("a piece").as_deref(), Some(&[7][..]));
        assert_eq!(readers[0].next().expect_err("broken").to_string(), "torn tape");
    }

    #[test]
    fn the_page_for_users_says_how_much_is_kept() {
        crate::usage::assert_says("stdin that is kept while targets wait for a place", &crate::usage::size(FILE_MAX));
    }
}
