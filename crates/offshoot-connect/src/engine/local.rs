//! Contexts on the same machine: an image that is at hand, at the other ends of two pipes.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use offshoot_mux::{Interest, Spawn, Stdio, io as fd};
use offshoot_wire::{ConnectStage, Failure};

use super::pump::Pump;
use super::tool::{SIGCONT, Tool};
use super::{Clock, Connected, Connecting, Executable, Image, LinkIo, classify, hex};

/// Between TERM and KILL: a supervisor ends what it guards.
const GRACE: Duration = Duration::from_millis(1500);

/// What a supervisor may say before its hello: the hello and first frames fit many times.
const BUFFER: usize = 16 << 10;

/// Which descriptors of the child are its link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// 0 and [`APART`](super::APART): its stdout goes where its errors go.
    Apart,
    /// 0 and 1.
    Standard,
}

/// What is started.
pub(super) enum From<'a> {
    Image(Image<'a>),
    Made(&'a Executable),
}

impl<'a> std::convert::From<Image<'a>> for From<'a> {
    fn from(image: Image<'a>) -> From<'a> {
        From::Image(image)
    }
}

pub(super) fn connect(
    connecting: &Connecting<'_>,
    image: From<'_>,
    arguments: &[OsString],
    ends: Ends,
    clock: &mut Clock,
) -> Result<Connected, Failure> {
    let mut pump = Pump::new(connecting.cancel).map_err(prepare)?;
    let (ours, theirs) = link().map_err(prepare)?;
    let (stderr, output) = fd::pipe().map_err(prepare)?;
    // The link takes it all, unless it is larger than any preamble that we know.
    let mut unsent = &connecting.preamble[..];
    write(&ours, &mut unsent).map_err(prepare)?;
    let mut tool = start(connecting, image, arguments, (theirs, ends), stderr, output)?;
    // Bound last, so dropped first: the end of its link is what a guard understands best.
    let ours = ours;
    pump.add(ours.read.as_fd(), Interest::Read).map_err(prepare)?;
    if !unsent.is_empty() {
        pump.add(ours.write.as_fd(), Interest::Write).map_err(prepare)?;
    }
    if let Some(stderr) = tool.stderr() {
        pump.add(stderr.as_fd(), Interest::Read).map_err(prepare)?;
    }
    clock.enter(ConnectStage::Hello, Instant::now());

    let mut received = Vec::new();
    let mut buffer = vec![0; BUFFER];
    let mut heard = Instant::now();
    let mut hello = None;
    let hello = loop {
        if connecting.cancel.is_cancelled() {
            return Err(clock.failed(classify::cancelled(clock.stage)));
        }
        let mut more = tool.drain(&mut buffer);
        let mut ended = write(&ours, &mut unsent).is_err();
        if hello.is_none() {
            match fd::read(&ours.read, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => ended = true,
                Ok(n) => {
                    received.extend_from_slice(&buffer[..n]);
                    heard = Instant::now();
                    more = true;
                }
            }
            hello = classify::hello(&received, &connecting.nonce).map_err(|failure| clock.failed(failure))?;
        }
        match hello.take() {
            Some(hello) if unsent.is_empty() => break hello,
            _ if ended => {
                let exit = tool.last_words(&mut buffer);
                let failure = classify::ended(clock.stage, "the agent", exit);
                return Err(clock.failed(failure.seen(tool.tail()).hint(NO_AGENT)));
            }
            waiting => hello = waiting,
        }
        let now = Instant::now();
        let until = clock.until(heard);
        if now >= until {
            let failure = clock.timeout(now).seen(tool.tail()).hint(SILENT);
            return Err(clock.failed(failure));
        }
        if !more {
            pump.wait(until).map_err(prepare)?;
        }
    };
    drop(pump);
    tool.into_connected(ours, None, received, hello, clock)
}

const NO_AGENT: &str = "the image that was started is no agent, or it could not run here; what it printed says more";
const SILENT: &str = "the agent was started and does not answer: it is stopped, or the machine is overloaded";

fn prepare(error: io::Error) -> Failure {
    classify::os_error(ConnectStage::Start, "cannot prepare a local context", &error)
}

/// The two ends of a link: ours, and what the child reads and writes.
fn link() -> io::Result<(LinkIo, [OwnedFd; 2])> {
    let (theirs_in, write) = fd::pipe()?;
    let (read, theirs_out) = fd::pipe()?;
    fd::set_nonblocking(&write, true)?;
    fd::set_nonblocking(&read, true)?;
    Ok((LinkIo { read, write }, [theirs_in, theirs_out]))
}

/// Writes as much as the link takes.
fn write(link: &LinkIo, unsent: &mut &[u8]) -> io::Result<()> {
    while !unsent.is_empty() {
        match fd::write(&link.write, unsent) {
            Ok(n) => *unsent = &unsent[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn start(
    connecting: &Connecting<'_>,
    image: From<'_>,
    arguments: &[OsString],
    ([stdin, write], ends): ([OwnedFd; 2], Ends),
    stderr: OwnedFd,
    output: OwnedFd,
) -> Result<Tool, Failure> {
    let ((key, value), (context_key, context)) = (&connecting.tree_tag, &connecting.context_tag);
    let run = |image: Image<'_>| {
        let spawn = match image {
            Image::Path(path) => Spawn::new(path).argv0(connecting.process_name),
            Image::Open(file) => Spawn::image(file, connecting.process_name),
        };
        let (stdout, spawn) = match ends {
            Ends::Apart => (&output, spawn.pass(Stdio::Borrowed(write.as_fd()))),
            Ends::Standard => (&write, spawn),
        };
        spawn
            .args(arguments)
            .env(*key, value)
            .env(*context_key, context)
            // Not ours to share: Ctrl-C on the master's terminal must not reach it.
            .session()
            .death_signal(SIGCONT)
            .stdin(Stdio::Borrowed(stdin.as_fd()))
            .stdout(Stdio::Borrowed(stdout.as_fd()))
            .stderr(Stdio::Borrowed(output.as_fd()))
            .start()
    };
    let child = match image {
        From::Image(image) => run(image).map_err(|error| classify::spawn_error("the agent's image", &error))?,
        // A name that nobody can guess.
        From::Made(executable) => executable.start(&format!(".offshoot-{}", hex(&connecting.nonce)), &run)?,
    };
    Tool::new(child, stderr, GRACE).map_err(prepare)
}
