//! Files that are opened in one context and used in another.
//!
//! Owns the handle, and the thread that serves a file to whoever it was handed to. A path never travels: who opened the file
//! chose it, and what may be done with it is what it was opened for (S9).

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use offshoot_node::{Receiver, Sender, channel};
use offshoot_wire::FailureKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{RemoteError, RemoteErrorKind};

/// The most that one request reads or writes: a quarter of what a message may hold.
const CHUNK: usize = 256 * 1024;

/// The least that is asked for, where what is wanted is less: more of it will be.
const LEAST: usize = 8 * 1024;

/// How many requests are under way while a file is read on and on: 1 MiB, so a link of 100 ms carries 10 MiB/s of it.
const AHEAD: usize = 4;

/// How many messages wait in each direction: more than are ever under way, so that neither side waits for the other.
const WAITING: usize = 2 * AHEAD;

/// A file, to be used wherever this handle is: as the argument or the value of a remote function it is read and written there,
/// and nothing of it is copied ahead.
///
/// What may be done with it is what it was opened for. Each read or write elsewhere is a round trip of at most 256 KiB; reading
/// on and on asks for 1 MiB ahead, which others may have changed since. Write through a [`BufWriter`](io::BufWriter): what
/// `write` has returned from is in the file. Who wants all of a file in one go takes a [`PipeReader`](offshoot_node::PipeReader) of
/// it: that is faster.
///
/// A thread of the process that opened it serves each handle elsewhere, until that one is dropped or its context is lost. It
/// counts as two ends of channels in a call. Clones share the file, and have places of their own.
///
/// # Examples
///
/// ```no_run
/// use std::io::{Read, Seek, SeekFrom};
/// # fn demo(mut file: offshoot_program::RemoteFile) -> std::io::Result<()> {
/// // In a remote function that takes `mut file: RemoteFile`; the caller gives `RemoteFile::new(File::open("disk.img")?)`.
/// let mut tail = [0; 512];
/// file.seek(SeekFrom::End(-512))?;
/// file.read_exact(&mut tail)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RemoteFile {
    at: At,
    place: u64,
    /// What was read and not yet given out.
    rest: Cursor<Vec<u8>>,
}

/// Where the file is open.
#[derive(Clone)]
enum At {
    Here(Arc<File>),
    There(Arc<Mutex<Far>>),
}

/// What is asked of whoever has the file open; answered in that order.
#[derive(Serialize, Deserialize)]
enum Ask {
    Read { at: u64, length: u32 },
    Write { at: u64, bytes: Raw },
    Size,
    SetSize(u64),
    Sync,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    /// Fewer than were asked for only at the end of the file.
    Bytes(Raw),
    Number(u64),
    Failed(RemoteError),
}

/// Bytes that are encoded in one piece.
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl RemoteFile {
    /// A file that this process has opened. Its place in the handle is its beginning.
    ///
    /// Every use names an offset, so it must be a file that has them: of a pipe, a socket or a terminal each read and write
    /// fails with [`NotSeekable`](io::ErrorKind::NotSeekable). Hand those over as a
    /// [`PipeReader`](offshoot_node::PipeReader) or [`PipeWriter`](offshoot_node::PipeWriter).
    pub fn new(file: File) -> RemoteFile {
        RemoteFile::of(At::Here(Arc::new(file)), 0)
    }

    fn of(at: At, place: u64) -> RemoteFile {
        RemoteFile { at, place, rest: Cursor::default() }
    }

    /// How many bytes it has now.
    ///
    /// # Errors
    /// Those of the file, and the loss of the context that opened it.
    pub fn size(&self) -> io::Result<u64> {
        self.at.number(Ask::Size)
    }

    /// Cuts it to this size, or fills it up to that with zeros.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.forget();
        self.at.number(Ask::SetSize(size)).map(drop)
    }

    /// Has the system write it to its disk; returns when that is done.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn sync(&self) -> io::Result<()> {
        self.at.number(Ask::Sync).map(drop)
    }

    /// Reads at an offset, whatever the handle's place; at most 256 KiB, and nothing more ahead. 0 is the end of the file.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = buffer.len().min(CHUNK);
        let bytes = self.at.bytes(Ask::Read { at: offset, length: length as u32 })?;
        let n = bytes.len().min(length);
        buffer[..n].copy_from_slice(&bytes[..n]);
        Ok(n)
    }

    /// Writes at an offset, whatever the handle's place; at most 256 KiB, and yields how much. A file that was opened for
    /// appending is written at its end.
    ///
    /// # Errors
    /// As [`size`](Self::size).
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.forget();
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        let written = self.at.number(Ask::Write { at: offset, bytes: Raw(bytes.to_vec()) })?;
        // Who has the file open is not believed to have written more than there was.
        Ok(usize::try_from(written).unwrap_or(usize::MAX).min(bytes.len()))
    }

    fn forget(&mut self) {
        self.rest = Cursor::default();
    }
}

impl From<File> for RemoteFile {
    fn from(file: File) -> RemoteFile {
        RemoteFile::new(file)
    }
}

impl Read for RemoteFile {
    /// # Errors
    /// Those of the file, and the loss of the context that opened it.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = match &self.at {
            At::Here(file) => file.read_at(buffer, self.place)?,
            At::There(far) => {
                if self.rest.position() == self.rest.get_ref().len() as u64 {
                    self.rest = Cursor::new(lock(far).read_on(self.place, buffer.len())?);
                }
                self.rest.read(buffer)?
            }
        };
        self.place = self.place.checked_add(n as u64).ok_or_else(too_far)?;
        Ok(n)
    }
}

impl Write for RemoteFile {
    /// # Errors
    /// As [`write_at`](RemoteFile::write_at).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.write_at(bytes, self.place)?;
        self.place = self.place.checked_add(n as u64).ok_or_else(too_far)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for RemoteFile {
    /// # Errors
    /// `InvalidInput` for a place before the beginning; from the end, those of [`size`](RemoteFile::size).
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.place.checked_add_signed(by),
            SeekFrom::End(by) => self.size()?.checked_add_signed(by),
        };
        let place = place.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no such place"))?;
        if place != self.place {
            self.forget();
            self.place = place;
        }
        Ok(place)
    }
}

impl fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = matches!(self.at, At::Here(_));
        f.debug_struct("RemoteFile").field("here", &here).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Serialize for RemoteFile {
    /// Only in the arguments and the value of a remote function. This handle goes on to work.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ((ask, asked), (answer, answers)) = (channel(WAITING), channel(WAITING));
        let at = self.at.clone();
        std::thread::Builder::new()
            .name("offshoot-file".into())
            .spawn(move || serve(&at, &asked, &answer))
            .map_err(|error| serde::ser::Error::custom(format!("no thread to serve a file: {error}")))?;
        (ask, answers, self.place).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RemoteFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RemoteFile, D::Error> {
        let (ask, answers, place) = Deserialize::deserialize(deserializer)?;
        let far = Far { ask, answers, under_way: VecDeque::new(), end: None };
        Ok(RemoteFile::of(At::There(Arc::new(Mutex::new(far))), place))
    }
}

/// Answers one who was handed the file, until nobody asks any more.
fn serve(at: &At, asked: &Receiver<Ask>, answer: &Sender<Answer>) {
    for ask in asked.iter() {
        let ask = match ask {
            Ok(ask) => ask,
            // One of several who were to have it is lost, or never came for it; the file is there for the others.
            Err(error) if matches!(error.kind(), FailureKind::PeerLost(_)) => continue,
            // Who sends what is no question is not served any further.
            Err(_) => return,
        };
        let said = at.answer(ask).unwrap_or_else(|error| Answer::Failed(told(&error)));
        if answer.send(&said).is_err() {
            return;
        }
    }
}

/// An error as it travels; one that says that the file is lost says so at every hop.
fn told(error: &io::Error) -> RemoteError {
    const EPIPE: i32 = 32;
    let mut told = RemoteError::of(error);
    if error.kind() == io::ErrorKind::BrokenPipe && told.kind == RemoteErrorKind::Other {
        told.kind = RemoteErrorKind::Os(EPIPE);
    }
    told
}

fn lock(far: &Mutex<Far>) -> MutexGuard<'_, Far> {
    far.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_far() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no file goes so far")
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "whoever has the file open answered something else than it was asked")
}

impl At {
    fn answer(&self, ask: Ask) -> io::Result<Answer> {
        let file = match self {
            At::Here(file) => file,
            At::There(far) => return lock(far).ask(&ask),
        };
        match ask {
            Ask::Read { at, length } => read_all(file, at, (length as usize).min(CHUNK)).map(|b| Answer::Bytes(Raw(b))),
            Ask::Write { at, bytes } => file.write_at(&bytes.0, at).map(|n| Answer::Number(n as u64)),
            Ask::Size => file.metadata().map(|about| Answer::Number(about.len())),
            Ask::SetSize(size) => file.set_len(size).map(|()| Answer::Number(0)),
            Ask::Sync => file.sync_all().map(|()| Answer::Number(0)),
        }
    }

    fn number(&self, ask: Ask) -> io::Result<u64> {
        match self.answer(ask)? {
            Answer::Number(number) => Ok(number),
            Answer::Bytes(_) | Answer::Failed(_) => Err(no_answer()),
        }
    }

    fn bytes(&self, ask: Ask) -> io::Result<Vec<u8>> {
        match self.answer(ask)? {
            Answer::Bytes(Raw(bytes)) => Ok(bytes),
            Answer::Number(_) | Answer::Failed(_) => Err(no_answer()),
        }
    }
}

/// As much as there is; an error behind some bytes comes with the next read.
fn read_all(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if filled > 0 => break,
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A file that is open elsewhere.
struct Far {
    ask: Sender<Ask>,
    answers: Receiver<Answer>,
    /// The reads that were asked for and not yet answered: where, and how much.
    under_way: VecDeque<(u64, usize)>,
    /// Where the last read ended.
    end: Option<u64>,
}

impl Far {
    fn ask(&mut self, ask: &Ask) -> io::Result<Answer> {
        self.settle()?;
        self.ask.send(ask).map_err(lost)?;
        self.answer()
    }

    fn answer(&self) -> io::Result<Answer> {
        match self.answers.recv()? {
            Some(Answer::Failed(error)) => Err(error.into()),
            Some(answer) => Ok(answer),
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the file is not open any more where it was opened")),
        }
    }

    /// Waits for what was read ahead and is not wanted any more, however that went.
    fn settle(&mut self) -> io::Result<()> {
        while self.under_way.pop_front().is_some() {
            self.answer().map(drop).or_else(|error| if is_lost(&error) { Err(error) } else { Ok(()) })?;
        }
        Ok(())
    }

    fn begin(&mut self, at: u64, length: usize) -> io::Result<()> {
        self.ask.send(&Ask::Read { at, length: length as u32 }).map_err(lost)?;
        self.under_way.push_back((at, length));
        Ok(())
    }

    /// What is at a place; when that is where the last read ended, what follows is asked for ahead.
    fn read_on(&mut self, at: u64, wanted: usize) -> io::Result<Vec<u8>> {
        let on = self.end == Some(at);
        if self.under_way.front().is_none_or(|(next, _)| *next != at) {
            self.settle()?;
            self.begin(at, if on { CHUNK } else { wanted.clamp(LEAST, CHUNK) })?;
        }
        while on && self.under_way.len() < AHEAD {
            let last = self.under_way.back().and_then(|(last, length)| last.checked_add(*length as u64));
            let Some(next) = last else { break };
            self.begin(next, CHUNK)?;
        }
        let asked = self.under_way.pop_front();
        let bytes = match self.answer()? {
            Answer::Bytes(Raw(bytes)) => bytes,
            Answer::Number(_) | Answer::Failed(_) => return Err(no_answer()),
        };
        if asked.is_some_and(|(_, length)| bytes.len() > length) {
            return Err(no_answer());
        }
        self.end = at.checked_add(bytes.len() as u64);
        Ok(bytes)
    }
}

/// Nobody answers any more, however that is told.
fn lost(error: offshoot_node::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

/// Whether nothing can follow.
fn is_lost(error: &io::Error) -> bool {
    error.get_ref().is_none_or(|inner| !inner.is::<RemoteError>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handle whose other side is what `home` makes of it.
    fn far(home: impl FnOnce(Receiver<Ask>, Sender<Answer>) + Send + 'static) -> RemoteFile {
        let ((ask, asked), (answer, answers)) = (channel(WAITING), channel(WAITING));
        std::thread::spawn(move || home(asked, answer));
        let far = Far { ask, answers, under_way: VecDeque::new(), end: None };
        RemoteFile::of(At::There(Arc::new(Mutex::new(far))), 0)
    }

    /// Answers each question by the same.
    fn says(answer: impl Fn() -> Answer + Send + 'static) -> RemoteFile {
        far(move |asked, sender| asked.iter().take_while(|_| sender.send(&answer()).is_ok()).for_each(drop))
    }

    #[test]
    fn s7_whoever_has_the_file_open_cannot_give_more_than_was_asked_for() {
        let more = || says(|| Answer::Bytes(Raw(vec![7; CHUNK + 1])));
        assert_eq!(more().read(&mut [0; 10]).expect_err("too much").kind(), io::ErrorKind::InvalidData);
        let mut some = [0; 10];
        assert_eq!(more().read_at(&mut some, 0).expect("cut"), 10);
        assert_eq!(says(|| Answer::Number(u64::MAX)).write(b"abc").expect("no more than there was"), 3);
    }

    #[test]
    fn s7_an_answer_to_another_question_is_an_error() {
        let mut number = says(|| Answer::Number(3));
        assert_eq!(number.read(&mut [0; 10]).expect_err("no bytes").kind(), io::ErrorKind::InvalidData);
        let bytes = says(|| Answer::Bytes(Raw(vec![1])));
        assert_eq!(bytes.size().expect_err("no number").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn s12_who_asks_for_more_than_a_request_may_gets_a_part() {
        let path = std::env::temp_dir().join(format!("offshoot-file-{}", std::process::id()));
        std::fs::write(&path, vec![1; CHUNK + 10]).expect("a file");
        let at = At::Here(Arc::new(File::open(&path).expect("a file")));
        std::fs::remove_file(&path).expect("a file");
        let answer = at.answer(Ask::Read { at: 5, length: u32::MAX }).expect("it can be read");
        assert!(matches!(answer, Answer::Bytes(Raw(bytes)) if bytes.len() == CHUNK));
        let answer = at.answer(Ask::Read { at: u64::MAX, length: 1 });
        assert!(answer.is_err() || matches!(answer, Ok(Answer::Bytes(Raw(bytes))) if bytes.is_empty()));
    }

    #[test]
    fn r6_a_place_that_nobody_serves_any_more_is_an_error_at_once() {
        let mut gone = far(|_, _| ());
        assert_eq!(gone.read(&mut [0; 10]).expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(gone.write(&[0; 10]).expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
        // One that is asked, and ends without an answer, is no end of the file.
        let mut ends = far(|asked, answer| {
            let _ = asked.recv();
            drop(answer);
            asked.iter().for_each(drop);
        });
        assert_eq!(ends.read(&mut [0; 10]).expect_err("no answer").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_error_of_what_was_read_ahead_does_not_spoil_what_is_asked_then() {
        let mut answers = vec![
            Answer::Bytes(Raw(vec![1; LEAST])),
            Answer::Bytes(Raw(vec![2; CHUNK])),
            Answer::Failed(RemoteError::new(RemoteErrorKind::Os(5), "a bad block")),
            Answer::Number(0),
            Answer::Bytes(Raw(Vec::new())),
            Answer::Number(77),
        ];
        answers.reverse();
        let answers = Mutex::new(answers);
        let mut file = says(move || answers.lock().expect("no panic").pop().expect("no more is asked"));
        let mut some = vec![0; LEAST + 1];
        file.read_exact(&mut some).expect("both come");
        assert_eq!((some[0], some[LEAST]), (1, 2));
        assert_eq!(file.size().expect("a size"), 77);
    }
}
