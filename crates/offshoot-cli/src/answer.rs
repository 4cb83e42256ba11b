//! Who answers when a login asks: a user at the terminal, a descriptor, or a command.
//!
//! This module owns the secrets of a run: each account is asked for once, however many connects want it. On the terminal
//! one question stands at a time, while our own output waits. It must not know how a question came here.

mod command;
mod terminal;
mod turns;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use offshoot::escape::escaped;
use offshoot::{Asking, Responder, Secret};
use offshoot::{Asks, Question};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::interrupt::Interrupt;
use crate::output::Console;
pub(crate) use command::end_all;
pub(crate) use terminal::{leave, restore};
use turns::Turns;

/// The longest secret, in bytes, as the library takes it.
const LONGEST: u64 = offshoot::Limits::SECRET as u64;

/// How long a command may take, and how long a question stands on the terminal.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the logins of several targets wait for a user, who answers one after the other.
const QUEUE: Duration = Duration::from_secs(600);

/// Where secrets come from.
enum Source {
    /// One for all accounts, read at the start.
    Given(Secret),
    /// A command of the user's, run once for each account.
    Command(OsString),
    /// Nobody, unless there is a terminal.
    None,
}

/// What is asked once: of whom, from where.
type Key = (Asks, String, String);

/// What was answered, once it was asked; `None` within when nobody answered.
type Slot = Arc<Mutex<Option<Option<Secret>>>>;

/// The secrets of a run.
pub(crate) struct Answers {
    source: Source,
    /// Whether the user can be asked.
    terminal: bool,
    turns: Turns,
    known: Mutex<HashMap<Key, Slot>>,
    around: OnceLock<(Arc<Console>, Interrupt)>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Answers {
    /// Looks for who can answer. `ask` is whether a user at the terminal may be asked.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub(crate) fn new(fd: Option<RawFd>, command: Option<OsString>, ask: bool) -> anyhow::Result<Answers> {
        let source = match (fd, command) {
            // Read long before it is asked for: no core dump is to show it meanwhile.
            (Some(fd), _) if offshoot_mux::process::set_dumpable(false).is_ok() => {
                Source::Given(first_line(&mut descriptor(fd)?).context("cannot read the password")?)
            }
            (Some(_), _) => bail!("this process cannot keep a secret out of core dumps"),
            (None, Some(command)) => Source::Command(command),
            (None, None) => Source::None,
        };
        let terminal = ask && terminal::is_there();
        Ok(Answers::from(source, terminal))
    }

    fn from(source: Source, terminal: bool) -> Answers {
        let turns = Turns::new(PATIENCE, QUEUE);
        Answers { source, terminal, turns, known: Mutex::default(), around: OnceLock::new() }
    }

    /// How long a login should wait for an answer when so many targets are logged in to.
    pub(crate) fn patience(&self, targets: usize) -> Duration {
        if self.terminal && targets > 1 { QUEUE } else { PATIENCE }
    }

    /// What our own output goes through, which waits while a question stands, and what ends the run.
    pub(crate) fn surround(&self, console: &Arc<Console>, interrupt: &Interrupt) {
        let _ = self.around.set((Arc::clone(console), interrupt.clone()));
    }

    /// Who the connects of this run ask; `None` when nobody could answer anything.
    pub(crate) fn responder(self: &Arc<Self>) -> Option<Responder> {
        if matches!(self.source, Source::None) && !self.terminal {
            return None;
        }
        let this = Arc::clone(self);
        Some(Responder::new(move |asking| this.answer(asking)))
    }

    fn answer(&self, asking: &Asking<'_>) -> Option<Secret> {
        let came = Instant::now();
        if asking.question.asks == Asks::Other {
            // A code is good for one time.
            return self.find(asking, came);
        }
        let slot = Arc::clone(lock(&self.known).entry(key(asking)).or_default());
        // Held while it is looked for: whoever wants the same waits for the same answer.
        let mut slot = lock(&slot);
        slot.get_or_insert_with(|| self.find(asking, came)).clone()
    }

    fn find(&self, asking: &Asking<'_>, came: Instant) -> Option<Secret> {
        let secret = matches!(asking.question.asks, Asks::Password | Asks::Passphrase);
        let ended = || self.around.get().is_some_and(|(_, interrupt)| interrupt.code().is_some());
        match &self.source {
            Source::Given(given) if secret => Some(given.clone()),
            Source::Command(command) if secret => match command::run(command, asking, ended) {
                Ok(secret) => Some(secret),
                Err(_) if ended() => None,
                Err(error) => {
                    log::error!("no answer from --password-command for the {}: {error:#}", asking.label());
                    None
                }
            },
            _ if self.terminal => {
                let (console, _) = self.around.get()?;
                let ask = |until| terminal::ask(&prompt(asking), asking.question.shown, until, ended);
                console.hold(|| self.turns.ask(came, ask))
            }
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two questions with the same key have the same answer: an account is one on the machine that logs in to it.
fn key(asking: &Asking<'_>) -> Key {
    let Question { asks, account, text, .. } = asking.question;
    match asks {
        // Another key of the same host is another question.
        Asks::HostKey => (*asks, asking.via.to_owned(), text.clone()),
        _ if account.is_empty() => (*asks, asking.path.to_owned(), String::new()),
        _ => (*asks, asking.via.to_owned(), account.clone()),
    }
}

/// The question as it stands on the terminal: who asks is said by us, what is asked by whoever asks.
fn prompt(asking: &Asking<'_>) -> String {
    let lines: Vec<String> = asking.question.text.lines().map(|line| escaped(line.as_bytes()).to_string()).collect();
    match asking.question.asks {
        Asks::Password | Asks::Passphrase => format!("{}: ", asking.label()),
        Asks::HostKey | Asks::Other => format!("{}:\n  {} ", asking.label(), lines.join("\n  ")),
    }
}

/// The descriptor that was named on the command line.
fn descriptor(fd: RawFd) -> anyhow::Result<Inherited> {
    // Not by /dev/fd: that would open a file anew, at its beginning, and no socket at all.
    let inherited = offshoot_mux::io::dup_inherited(fd);
    inherited.map(|fd| Inherited(fd.into())).with_context(|| format!("descriptor {fd} cannot be read"))
}

/// A descriptor that is shared with whoever gave it, who may have it non-blocking: that is theirs to say, so it is waited for.
struct Inherited(File);

impl Read for Inherited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The first line, without its end.
fn first_line(source: &mut dyn Read) -> anyhow::Result<Secret> {
    // With room for all of it, so that no copy is left behind by growing.
    let mut line = Vec::with_capacity(LONGEST as usize + 2);
    let mut byte = [0];
    // Byte by byte: what follows is somebody else's.
    while line.len() as u64 <= LONGEST {
        match source.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let empty = line.is_empty();
    let secret = Secret::new(line);
    if empty {
        bail!("expected one line, but there is nothing in it");
    }
    if !secret.is_typable() {
        bail!("expected one line of at most {LONGEST} bytes, without control characters");
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_descriptor_that_is_not_to_block_is_waited_for() {
        let (read, write) = offshoot_mux::io::pipe().expect("a pipe");
        offshoot_mux::io::set_nonblocking(&read, true).expect("a pipe");
        let writes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            offshoot_mux::io::write_all(&write, b"word\nrest", None).expect("room");
        });
        let secret = first_line(&mut Inherited(read.into())).expect("a line");
        assert_eq!(secret.bytes(), b"word");
        writes.join().expect("no panic");
    }

    fn question(asks: Asks, account: &str) -> Question {
        Question { asks, account: account.into(), text: "a\u{1b}b\nsecond: ".into(), shown: false }
    }

    fn answers(source: Source) -> Arc<Answers> {
        Arc::new(Answers::from(source, false))
    }

    fn text(secret: Option<Secret>) -> Option<String> {
        secret.map(|secret| String::from_utf8(secret.bytes().to_vec()).expect("text"))
    }

    #[test]
    fn a_command_is_run_once_for_each_account_and_learns_whose_secret_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let command = format!("echo x >>'{}'; echo \"$OFFSHOOT_ASKS of $OFFSHOOT_ACCOUNT\"; echo more", log.display());
        let answers = answers(Source::Command(command.into()));
        let ask =
            |asks, account: &str, path, via| text(answers.answer(&Asking::new(&question(asks, account), path, via)));
        let password = Asks::Password;
        let first = Some("password of ann@web1".to_owned());
        assert_eq!(ask(password, "ann@web1", "ssh:web1", ""), first);
        assert_eq!(ask(password, "ann@web1", "ssh:other", ""), first);
        assert_eq!(ask(Asks::Passphrase, "/k", "ssh:web1", "").as_deref(), Some("passphrase of /k"));
        assert_eq!(ask(password, "", "ssh:web1", "").as_deref(), Some("password of ssh:web1"));
        // The same name behind a hop is another machine's.
        assert_eq!(ask(password, "ann@web1", "ssh:jump -> ssh:web1", "ssh:jump"), first);
        assert_eq!(std::fs::read_to_string(&log).expect("written").lines().count(), 4);
        // Nobody but a user looks at host keys and codes.
        assert_eq!(ask(Asks::HostKey, "web1", "ssh:web1", ""), None);
        assert_eq!(ask(Asks::Other, "ann@web1", "ssh:web1", ""), None);
    }

    #[test]
    fn the_first_line_is_the_secret_and_nothing_behind_it_is_read() {
        let mut source = Cursor::new("hunter2\nrest");
        assert_eq!(text(first_line(&mut source).ok()).as_deref(), Some("hunter2"));
        assert_eq!(source.position(), 8);
        assert_eq!(text(first_line(&mut Cursor::new("no end")).ok()).as_deref(), Some("no end"));
        assert!(first_line(&mut Cursor::new("x".repeat(2000))).is_err());
        assert!(first_line(&mut Cursor::new("a\0b\n")).is_err());
        assert!(first_line(&mut Cursor::new("\nhunter2\n")).is_err());
        assert!(first_line(&mut Cursor::new("")).is_err());
    }

    #[test]
    fn the_logins_of_several_targets_wait_longer_where_a_user_answers_one_after_the_other() {
        let asks = |terminal| Answers::from(Source::None, terminal);
        assert_eq!([1, 2].map(|targets| asks(true).patience(targets)), [PATIENCE, QUEUE]);
        assert_eq!([1, 2].map(|targets| asks(false).patience(targets)), [PATIENCE, PATIENCE]);
    }

    #[test]
    fn without_anybody_there_is_no_responder() {
        assert!(answers(Source::None).responder().is_none());
        assert!(answers(Source::Given("x".into())).responder().is_some());
    }

    #[test]
    fn a_question_says_whose_it_is_and_shows_no_control_characters() {
        let question = question(Asks::HostKey, "web1");
        let shown = prompt(&Asking::new(&question, "ssh:web1", ""));
        assert_eq!(shown, "host key of web1 (ssh:web1):\n  a\\x1bb\n  second:  ");
    }
}
