//! The console: our own stdout and stderr, written in whole lines under one lock.
//!
//! One lock for both streams, since both usually end on one terminal. Writes go straight to the descriptor: what was
//! printed has left the process, and a blocked reader is felt at once.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Our own stdout and stderr.
pub(crate) struct Console {
    streams: Mutex<[Box<dyn Write + Send>; 2]>,
}

impl Console {
    /// The process's own.
    pub(crate) fn of_process() -> Console {
        Console::new(Box::new(Descriptor(io::stdout())), Box::new(Descriptor(io::stderr())))
    }

    /// On these two.
    pub(crate) fn new(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>) -> Console {
        Console { streams: Mutex::new([stdout, stderr]) }
    }

    /// Lets nobody write for as long as `meanwhile` takes: a question stands on the terminal.
    pub(crate) fn hold<R>(&self, meanwhile: impl FnOnce() -> R) -> R {
        let _held = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        meanwhile()
    }

    /// Writes all of `text`, which should be whole lines, with nothing of another thread between.
    ///
    /// # Errors
    /// Those of stdout. A stderr that cannot be written is ignored: there is nowhere left to say so.
    pub(crate) fn write(&self, stream: Stream, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        crate::pause::wait();
        // A poisoned lock guards nothing that could be half changed: the streams hold no state of ours.
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let [stdout, stderr] = &mut *streams;
        match stream {
            Stream::Stdout => stdout.write_all(text).and_then(|()| stdout.flush()),
            Stream::Stderr => {
                let _ = stderr.write_all(text).and_then(|()| stderr.flush());
                Ok(())
            }
        }
    }
}

/// A descriptor, past the buffer that the standard library keeps for it. It may be in non-blocking mode: a terminal that
/// another program shares and has set so.
struct Descriptor<F: AsFd>(F);

impl<F: AsFd> Write for Descriptor<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                },
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A console that keeps what was written.

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::Console;

    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.bytes()).expect("text")
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().expect("not poisoned").clone()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(crate) fn console() -> (Console, Kept, Kept) {
        let (stdout, stderr) = (Kept::default(), Kept::default());
        (Console::new(Box::new(stdout.clone()), Box::new(stderr.clone())), stdout, stderr)
    }
}
