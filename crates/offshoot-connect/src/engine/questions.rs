//! The terminal that a tool asks on, and the way of a question to the requester and of its answer back.
//!
//! Owns the pseudo-terminal and the one open question. When a secret may be typed is decided by
//! [`Dialogue`](crate::prompt::Dialogue). What the tool writes there is looked at and thrown away: no transcript holds it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use offshoot_mux::tty::{self, Pty};
use offshoot_mux::{Waker, io as fd};
use offshoot_wire::{Prompts, Question, Secret};
use zeroize::Zeroizing;

use super::classify;
use crate::prompt::{Dialogue, Refusal, Step};

/// How many reads of a terminal are made at a time: each gives 4 KiB at most.
const READS: usize = 64;

/// Who answers what a tool asks.
pub trait Asker: Send + Sync {
    /// Passes a question on. Must not block: the answer comes later, from any thread, by `reply`. At most one question
    /// of a connect is open.
    fn ask(&self, question: Question, reply: Reply);
}

/// The way back of one answer. Dropped unused it says that there is none.
pub struct Reply {
    slot: Arc<Slot>,
    given: bool,
}

struct Slot {
    /// `None` until there is an answer.
    answer: Mutex<Option<Option<Secret>>>,
    waker: Waker,
}

impl Reply {
    /// Gives the answer; `None` when nobody can or wants to.
    pub fn give(mut self, answer: Option<Secret>) {
        self.put(answer);
    }

    fn put(&mut self, answer: Option<Secret>) {
        self.given = true;
        *self.slot.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.slot.waker.wake();
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.given {
            self.put(None);
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The terminal of a tool. It must be kept until the tool ends, which would be hung up else, and
/// [drained](Self::drain), or the tool stalls when it writes there.
#[derive(Debug)]
pub struct Terminal {
    pty: Pty,
    /// Kept open: without any slave open every read of the master fails, and every poll tells of it.
    slave: OwnedFd,
}

impl Terminal {
    fn open() -> io::Result<Terminal> {
        let pty = Pty::open()?;
        fd::set_nonblocking(&pty, true)?;
        let slave = pty.open_slave()?;
        Ok(Terminal { pty, slave })
    }

    /// Throws away what the tool wrote, as far as it is there. Whether there may be more.
    pub fn drain(&self) -> bool {
        let mut buffer = [0; 4096];
        (0..READS).all(|_| matches!(fd::read(&self.pty, &mut buffer), Ok(1..)))
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pty.as_fd()
    }
}

/// The questions of one connect.
pub(super) struct Questions<'a> {
    dialogue: Dialogue,
    terminal: Option<Terminal>,
    asker: Option<&'a dyn Asker>,
    slot: Arc<Slot>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        prompts: &Prompts,
        token: &str,
        asker: Option<&'a dyn Asker>,
        waker: Waker,
    ) -> io::Result<Questions<'a>> {
        let terminal = if prompts.terminal { Some(Terminal::open()?) } else { None };
        let dialogue = Dialogue::new(prompts, token, asker.is_some());
        Ok(Questions { dialogue, terminal, asker, slot: Arc::new(Slot { answer: Mutex::new(None), waker }) })
    }

    /// The side of the terminal that is ours, to be watched.
    pub(super) fn master(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// The side that is to be the tool's controlling terminal.
    pub(super) fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(|terminal| terminal.slave.as_fd())
    }

    pub(super) fn into_terminal(self) -> Option<Terminal> {
        self.terminal
    }

    /// Reads the terminal once. Whether there may be more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        match fd::read(&terminal.pty, buffer) {
            Ok(n @ 1..) => {
                self.dialogue.handle_bytes(&buffer[..n], Instant::now());
                true
            }
            Ok(0) | Err(_) => false,
        }
    }

    /// The tool wrote to its error output: where it asks when it has no terminal for that.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        if self.terminal.is_none() {
            self.dialogue.handle_bytes(bytes, Instant::now());
        }
    }

    /// Does what is to be done now. `input` is the tool's stdin. `alone` tells whether nobody but the tool itself can have asked:
    /// what it led to (a login shell's start file) could do so in its stead.
    pub(super) fn turn(&mut self, input: Option<&OwnedFd>, alone: impl FnOnce() -> bool) -> Result<(), Refused> {
        let now = Instant::now();
        let answer = self.slot.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(answer) = answer {
            self.dialogue.answer(answer, now);
        }
        // What cannot be looked at may show what is typed.
        let terminal = self.terminal.as_ref();
        let echo = || terminal.is_some_and(|terminal| tty::echo(&terminal.pty).unwrap_or(true));
        let step = self.dialogue.poll(now, echo);
        if matches!(step, Some(Step::Ask(_) | Step::Type(_))) && !alone() {
            self.dialogue.close();
            return Ok(());
        }
        match step {
            None => Ok(()),
            Some(Step::Ask(question)) => {
                let reply = Reply { slot: Arc::clone(&self.slot), given: false };
                if let Some(asker) = self.asker {
                    asker.ask(question, reply);
                }
                Ok(())
            }
            Some(Step::Type(secret)) => self.type_in(&secret, input).map_err(Refused::Io),
            Some(Step::Refuse(refusal)) => Err(Refused::Question(refusal)),
        }
    }

    fn type_in(&self, secret: &Secret, input: Option<&OwnedFd>) -> io::Result<()> {
        // As large as it becomes: no copy is left behind by growing.
        let mut line = Zeroizing::new(Vec::with_capacity(secret.bytes().len() + 1));
        line.extend_from_slice(secret.bytes());
        line.push(b'\n');
        let written = match (&self.terminal, input) {
            (Some(terminal), _) => fd::write(&terminal.pty, &line)?,
            (None, Some(input)) => fd::write(input, &line)?,
            (None, None) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        // Nothing else was written there, and a line fits.
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// The tool led to its shell.
    pub(super) fn close(&mut self) {
        self.dialogue.close();
    }

    pub(super) fn is_asking(&self) -> bool {
        self.dialogue.is_asking()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.dialogue.poll_timeout()
    }

    pub(super) fn answered(&self) -> &[Question] {
        self.dialogue.answered()
    }

    /// What the tool wrote to its terminal, as long as nothing was typed there.
    pub(super) fn unanswered(&self) -> &[u8] {
        if self.terminal.is_some() { self.dialogue.unanswered() } else { &[] }
    }
}

/// Why a tool cannot be answered.
pub(super) enum Refused {
    Question(Refusal),
    Io(io::Error),
}

impl Refused {
    pub(super) fn failure(&self, scene: &classify::Scene<'_>) -> offshoot_wire::Failure {
        match self {
            Refused::Question(refusal) => scene.refused(refusal),
            Refused::Io(error) => classify::os_error(scene.stage, "cannot answer the connection tool", error),
        }
    }
}
