//! A hostile relay: it stands between two honest agents, passes their frames on, and alters the contents that go down.
//!
//! Owns an honest agent of its own, which it starts from its own program, and which the agent above takes it for. Shared by the
//! program of the evil contexts, which runs it, and by the test, which says what it is to do. Two threads: one for each direction.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use offshoot_connect::APART;
use offshoot_wire::{FrameKind, Limits, ParentHello, channel, parse_frame, parse_hello};

/// What it does to each content that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing: an honest relay.
    None,
    /// A bit of its first byte is another.
    First,
    /// A bit of a byte in its middle is another.
    Middle,
    /// A bit of its last byte is another.
    Last,
    /// It is announced as one byte longer.
    Longer,
    /// It is announced as one byte shorter.
    Shorter,
}

#[allow(dead_code, reason = "the program reads what the test writes")]
impl Harm {
    pub(crate) const ALL: [Harm; 5] = [Harm::First, Harm::Middle, Harm::Last, Harm::Longer, Harm::Shorter];

    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Harm> {
        Harm::ALL.into_iter().chain([Harm::None]).find(|harm| harm.byte() == byte)
    }
}

/// Relays until one side ends. Its link to the agent above is descriptors 0 and [`APART`].
#[allow(dead_code, reason = "the test does not run it itself")]
pub(crate) fn run(harm: Harm) -> io::Result<()> {
    let mut to = File::from(offshoot_mux::io::take_passed(APART)?);
    let above = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (below, theirs) = UnixStream::pair()?;
    let mut arguments = std::env::args_os();
    // By the first argument alone it is an agent whose link is 0 and 1.
    let mut agent = Command::new("/proc/self/exe")
        .arg0(arguments.next().unwrap_or_default())
        .args(arguments.next())
        .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    // Its own end of it is here still as standard input, and must not outlive the link.
    let null = File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut from = below.try_clone()?;
    let ending = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&ending);
    let up = std::thread::spawn(move || {
        let passed = pass(&mut from, &mut to);
        if !ended.load(Ordering::SeqCst) {
            // The agent below has ended. Nothing else ends the reading of what comes from above.
            std::process::exit(0);
        }
        passed
    });
    let passed = down(above, below.try_clone()?, harm);
    ending.store(true, Ordering::SeqCst);
    let _ = below.shutdown(Shutdown::Both);
    let _ = up.join();
    agent.wait()?;
    passed
}

/// Passes what comes on, until it ends. By reads and writes: the library's own copying splices, which stood still here between a socket and a pipe.
fn pass(from: &mut UnixStream, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

/// Passes a hello and frames on, until they end.
fn down(mut from: File, mut to: UnixStream, harm: Harm) -> io::Result<()> {
    let (mut input, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let (mut greeted, mut contents) = (false, Vec::new());
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => count,
        };
        input.extend_from_slice(&buffer[..count]);
        let mut passed = 0;
        if !greeted {
            let Some(hello) = parse_hello::<ParentHello>(&input).map_err(io::Error::other)? else { continue };
            (greeted, passed) = (true, hello.length);
        }
        while let Some(frame) = parse_frame(&input[passed..], &Limits::default()).map_err(io::Error::other)? {
            let body = passed + frame.body.start..passed + frame.body.end;
            passed += frame.length;
            // What the agents below ask for upwards is contents alone, and their names, which have no channel.
            if frame.header.kind == FrameKind::Data && frame.header.answer && input[body.start] == channel::STDOUT {
                let exchange = (frame.header.dst, frame.header.exchange);
                let at = contents.iter().position(|(of, _)| *of == exchange).unwrap_or_else(|| {
                    contents.push((exchange, Coming::default()));
                    contents.len() - 1
                });
                contents[at].1.alter(harm, &mut input[body.start + 1..body.end]);
            }
        }
        if to.write_all(&input[..passed]).is_err() {
            return Ok(());
        }
        input.drain(..passed);
    }
}

/// A content that passes.
#[derive(Default)]
struct Coming {
    /// Its announced length, as far as it came.
    head: Vec<u8>,
    /// How many bytes of itself have passed.
    came: u64,
}

impl Coming {
    fn alter(&mut self, harm: Harm, piece: &mut [u8]) {
        let head = piece.len().min(8 - self.head.len());
        self.head.extend_from_slice(&piece[..head]);
        if head > 0 && self.head.len() == 8 && head == 8 {
            let length = self.length();
            let told = match harm {
                Harm::Longer => length + 1,
                Harm::Shorter => length.saturating_sub(1),
                _ => length,
            };
            piece[..8].copy_from_slice(&told.to_le_bytes());
        }
        let length = self.length();
        let at = match harm {
            Harm::First => Some(0),
            Harm::Middle => Some(length / 2),
            Harm::Last => length.checked_sub(1),
            Harm::None | Harm::Longer | Harm::Shorter => None,
        };
        let rest = &mut piece[head..];
        if let Some(byte) = at.and_then(|at| at.checked_sub(self.came)).and_then(|at| rest.get_mut(at as usize)) {
            *byte ^= 1;
        }
        self.came += rest.len() as u64;
    }

    fn length(&self) -> u64 {
        self.head.first_chunk().map_or(0, |head| u64::from_le_bytes(*head))
    }
}
