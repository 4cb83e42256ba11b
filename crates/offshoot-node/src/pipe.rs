//! Pipes: bytes from one context to another.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;
use offshoot_wire::{Failure, FailureKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::connecting::held;
use crate::handover::{Reader, Thing, Writer, give, take};
use crate::lane::{Entry, Lane, lost};

/// How many pieces of bytes wait in a pipe before who writes does.
const PIECES: usize = 4;

/// The most that is written as one piece: what fits a frame, with its head.
const PIECE: usize = 48 * 1024;

/// A pipe of bytes. Either end can be an argument or the value of a remote function: so a function reads a file that is here,
/// or writes one, without a copy of it anywhere in between. Writing waits while the other end does not read, whatever lies
/// between the two; no more than some windows of bytes are under way.
///
/// Dropping the writing end is the end of what is read. One that is lost with its context is an error to whoever reads, and
/// no end.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut writer, mut reader) = offshoot_node::pipe();
/// std::thread::spawn(move || writer.write_all(b"from one thread to another"));
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "from one thread to another");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (writer, reader) = Lane::ends(PIECES, false);
    (PipeWriter { writer: Writer::Near(writer) }, PipeReader { reader: Reader::Near(reader), rest: Bytes::new() })
}

/// The end of a [`pipe`] that is written.
pub struct PipeWriter {
    writer: Writer,
}

impl PipeWriter {
    /// Ends what is read with an error that says why, instead of its plain end.
    pub fn fail(self, why: impl Into<String>) {
        let why = why.into();
        match &self.writer {
            Writer::Near(end) => end.0.deliver(Entry::Lost(lost(&format!("who wrote it could not go on: {why}")))),
            Writer::Far(far) => far.fail(why),
        }
    }
}

impl Write for PipeWriter {
    /// # Errors
    /// `BrokenPipe` when nobody reads any more.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let data = &data[..data.len().min(PIECE)];
        if data.is_empty() {
            return Ok(0);
        }
        let bytes = Bytes::copy_from_slice(data);
        match &self.writer {
            Writer::Near(end) => end.0.push(bytes, None).map_err(broken)?,
            Writer::Far(far) => far.write(bytes, None).map_err(|error| broken(error.failure().clone()))?,
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(failure: Failure) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, Error::new(failure, ""))
}

impl Serialize for PipeWriter {
    /// Only in the arguments and the value of a remote function, and for one context alone. In a value only where the pipe is
    /// one of the function's own process.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        give(Thing::Writer(self.writer.clone()), serializer)
    }
}

impl<'de> Deserialize<'de> for PipeWriter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PipeWriter, D::Error> {
        let writer = take(deserializer, |thing| match thing {
            Thing::Writer(writer) => Some(writer),
            Thing::Context(_) | Thing::Reader(_) => None,
        })?;
        if let Writer::Far(far) = &writer {
            far.set_pipe();
        }
        Ok(PipeWriter { writer })
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").finish_non_exhaustive()
    }
}

/// The end of a [`pipe`] that is read. Dropping it breaks the pipe for who writes.
pub struct PipeReader {
    reader: Reader,
    rest: Bytes,
}

impl PipeReader {
    /// What a source of this process yields: a file, a socket, the output of a process. It is read by a thread of its own,
    /// no faster than this end is; an error of the source is one of the pipe.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn of(mut source: impl Read + Send + 'static) -> io::Result<PipeReader> {
        let (mut writer, reader) = pipe();
        std::thread::Builder::new().name("offshoot-pipe".into()).spawn(move || {
            let mut buffer = vec![0; PIECE];
            let passed = held(FailureKind::Cancelled, || {
                loop {
                    match source.read(&mut buffer) {
                        Ok(0) => return Ok(None),
                        // Nobody reads any more.
                        Ok(n) if writer.write_all(&buffer[..n]).is_err() => return Ok(None),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Ok(Some(error.to_string())),
                    }
                }
            });
            if let Some(why) = passed.unwrap_or_else(|failure| Some(failure.message.clone())) {
                writer.fail(why);
            }
        })?;
        Ok(reader)
    }

    fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match &self.reader {
            Reader::Near(end) => end.0.pop(None).map_err(|failure| Error::new(failure, "")),
            Reader::Far(far) => far.read(false, None),
        }
    }
}

impl Read for PipeReader {
    /// # Errors
    /// When who wrote could not go on, or is lost.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.rest.is_empty() {
            match self.chunk()? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

impl Serialize for PipeReader {
    /// Only in the arguments and the value of a remote function: then this end is there, and no longer here.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.rest.is_empty() {
            return Err(serde::ser::Error::custom("a pipe that was read in part is not handed over"));
        }
        give(Thing::Reader(self.reader.clone()), serializer)
    }
}

impl<'de> Deserialize<'de> for PipeReader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PipeReader, D::Error> {
        let reader = take(deserializer, |thing| match thing {
            Thing::Reader(reader) => Some(reader),
            Thing::Context(_) | Thing::Writer(_) => None,
        })?;
        Ok(PipeReader { reader, rest: Bytes::new() })
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").finish_non_exhaustive()
    }
}
