//! A terminal session: our terminal in raw mode here, a terminal there, and the bytes between the two.
//!
//! The calling thread writes what the target shows. One thread reads what is typed, one sends it, so that a target that
//! does not read cannot hide the escape from us; one waits for changes of our terminal's size. None of them is waited
//! for at the end: the process ends.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_mux::tty::Size;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;

use crate::fault::Fault;
use crate::ground::{Event, Stdin};
use crate::hinted::no_thread;
use crate::interrupt::Interrupt;
use crate::keys::{Keys, Typed};
use crate::output::{Console, Outcome};
use crate::terminal::{self, RawMode};
use crate::tree::Session;
use crate::{exit, front, pause};

/// The size of a terminal that has none to be like.
pub(crate) const USUAL: Size = Size { rows: 24, columns: 80 };

/// What is read of a terminal at a time: the kernel gives no more.
const PIECE: usize = 4096;
/// How many pieces may wait for a target that does not read: 1 MiB of typing.
const PIECES: usize = 256;
/// How long what runs there has to end when the session is left.
const LEAVING: Duration = Duration::from_secs(1);
/// As of a shell whose terminal was hung up.
const HUNG_UP: u8 = exit::SIGNAL + 1;

const HELP: &str = "\
\r\nat the beginning of a line:\r
  ~.   leaves the session; what runs there is ended\r
  ~^Z  stops offshoot; the session stays\r
  ~?   shows this\r
  ~~   is one ~\r\n";

/// What a session is run with.
pub(crate) struct Place<'a> {
    pub(crate) console: &'a Console,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) name: &'a str,
}

/// Follows a session to its end. The outer error is one of our own output.
pub(crate) fn run(mut session: Session, place: &Place<'_>, keys: Keys) -> io::Result<Result<Outcome, Box<Fault>>> {
    let started = Instant::now();
    let raw = io::stdin().is_terminal().then(RawMode::enter).transpose()?;
    if raw.is_some() {
        let resize = session.resizer();
        let mut changes = Signals::new([SIGWINCH])?;
        // It may have changed since it was told.
        terminal::size().into_iter().for_each(&resize);
        let watches = thread::Builder::new().name("size".into()).spawn(move || {
            for _ in changes.forever() {
                terminal::size().into_iter().for_each(&resize);
            }
        });
        watches.map_err(no_thread)?;
    }
    if let Some(stdin) = session.stdin() {
        let (sender, receiver) = mpsc::sync_channel(PIECES);
        thread::Builder::new().name("send".into()).spawn(move || send(&receiver, stdin)).map_err(no_thread)?;
        let typist = Typist {
            sender,
            interrupt: place.interrupt.clone(),
            name: place.name.to_owned(),
            // Escapes are for people.
            keys: if raw.is_some() { keys } else { Keys::new(None) },
            terminal: raw.is_some(),
        };
        thread::Builder::new().name("keys".into()).spawn(move || typist.run()).map_err(no_thread)?;
    }
    loop {
        match session.event() {
            Ok(Event::Output(stream, bytes)) => place.console.write(stream, &bytes)?,
            Ok(Event::End(end, timed_out)) => {
                return Ok(Ok(Outcome::Ended { end, timed_out, took: started.elapsed() }));
            }
            Err(fault) => return Ok(Err(fault)),
        }
    }
}

/// The exit code of output that has nobody left to see it.
pub(crate) fn broken(error: &io::Error) -> Option<u8> {
    match Errno::from_io_error(error) {
        Some(Errno::PIPE) => Some(exit::BROKEN_PIPE),
        // The terminal is gone.
        Some(Errno::IO) => Some(HUNG_UP),
        _ => None,
    }
}

/// Sends what was typed, and its end.
fn send(typed: &Receiver<Bytes>, mut stdin: Box<dyn Stdin>) {
    while let Ok(bytes) = typed.recv() {
        if stdin.write(bytes).is_err() {
            return;
        }
    }
}

/// Reads what is typed.
struct Typist {
    sender: SyncSender<Bytes>,
    interrupt: Interrupt,
    name: String,
    keys: Keys,
    terminal: bool,
}

impl Typist {
    fn run(mut self) {
        let mut buffer = [0; PIECE];
        loop {
            // Looked at before reading: what is typed while we are stopped is not for us.
            pause::wait();
            match poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], None) {
                Ok(_) if !pause::is_on() => {}
                Ok(_) | Err(Errno::INTR) => continue,
                Err(_) => return,
            }
            match rustix::io::read(io::stdin(), &mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    for typed in self.keys.take(&buffer[..n]) {
                        if !self.act(typed) {
                            return;
                        }
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Asked in the background: we were stopped meanwhile.
                Err(Errno::IO) if pause::is_on() => {}
                Err(_) => break,
            }
        }
        if self.terminal {
            // No key ends the input of a raw terminal: it was hung up.
            terminal::restore();
            self.interrupt.trip(HUNG_UP);
        }
    }

    /// Whether to go on.
    fn act(&mut self, typed: Typed) -> bool {
        match typed {
            Typed::Bytes(bytes) => return self.sender.send(bytes.into()).is_ok(),
            Typed::Help => say(HELP),
            Typed::Suspend => {
                if !front::suspend() {
                    say("\r\noffshoot: no shell could continue us\r\n");
                }
            }
            Typed::Leave => {
                terminal::restore();
                say(&format!("\noffshoot: left {}; what runs there is ended\n", shown(&self.name)));
                self.interrupt.trip(exit::LINK_LOST);
                // A link that is stuck is not waited for: with this process it ends on its other side too.
                thread::sleep(LEAVING);
                std::process::exit(i32::from(exit::LINK_LOST));
            }
        }
        true
    }
}

fn shown(name: &str) -> String {
    offshoot::escape::escaped(name.as_bytes()).to_string()
}

/// Straight to the descriptor: the console's lock may be held by a write that blocks.
fn say(text: &str) {
    use std::io::Write as _;
    // Nobody is left to be told that it cannot be said.
    let _ = io::stderr().write_all(text.as_bytes());
}
