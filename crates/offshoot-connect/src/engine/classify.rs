//! What a failed connect means: from a tool's texts, exit and silence to a [`Failure`] with a kind and advice.
//!
//! Owns the words. Pure: it looks at what was collected and starts nothing. Texts of a tool are only ever searched, and
//! quoted escaped.

use std::fmt::Display;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use offshoot_mux::SpawnError;
use offshoot_wire::escape::escaped;
use offshoot_wire::{
    Asks, AuthFailure, ChildHello, ConnectStage, Failure, FailureKind, HelloError, Hint, HostKeyFailure, Meaning,
    ParsedHello, Question, Recipe, Resource, parse_hello,
};

use crate::bootstrap::{BootstrapError, ErrorKind, LoaderStep};
use crate::cut::{cut, replaced};
use crate::prompt::{Refusal, Why};

/// How much of each stream a failure shows; together they fit [`Limits::SEEN`](offshoot_wire::Limits::SEEN).
const SHOWN: usize = 2000;

/// How much of a tool's line a message quotes, in bytes.
const QUOTED: usize = 200;

/// What to do about a wrong secret.
const ONCE: &str = "it was tried once, so as to lock no account: is it right, and all that is asked for?";

/// What is known when a connect through a tool fails.
pub(super) struct Scene<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) behind: Option<&'a str>,
    pub(super) stage: ConnectStage,
    pub(super) exit: Option<ExitStatus>,
    pub(super) stdout: &'a [u8],
    pub(super) stderr: &'a [u8],
    /// What the tool wrote to its terminal, as long as nothing was typed there.
    pub(super) terminal: &'a [u8],
    /// The questions that were answered.
    pub(super) answered: &'a [Question],
}

impl Scene<'_> {
    /// The bootstrap gave up.
    pub(super) fn failed(&self, error: &BootstrapError) -> Failure {
        let failure = match &error.kind {
            ErrorKind::Ended => return self.ended(&error.hint),
            ErrorKind::Timeout => {
                let limit = Duration::from_millis(self.recipe.stage_ms.into());
                return self.given_up(timeout(self.stage, "nothing came for", limit).hint(&error.hint));
            }
            ErrorKind::System { system: name } | ErrorKind::Machine { machine: name } => {
                Failure::new(FailureKind::NoAgent(name.clone()), error.kind.to_string())
            }
            ErrorKind::NoExec { .. } => Failure::new(FailureKind::NoExec, error.kind.to_string()),
            ErrorKind::Loader { step, errno } => {
                let resource = exhausted(*errno).or((*step == LoaderStep::Memory).then_some(Resource::Memory));
                let kind = resource.map_or(FailureKind::Connect(self.stage), FailureKind::Exhausted);
                Failure::new(kind, error.kind.to_string())
            }
            _ => Failure::new(FailureKind::Connect(self.stage), error.kind.to_string()),
        };
        failure.seen(&self.seen()).hint(&error.hint)
    }

    /// A deadline passed: with what was asked, if the last that came is a question.
    pub(super) fn given_up(&self, failure: Failure) -> Failure {
        let asked = [self.terminal, self.stderr, self.stdout].into_iter().find_map(question);
        match asked.filter(|_| self.in_login()) {
            Some((means, line)) => self.meant(means, &line, "it waits for an answer that nobody can give"),
            None => failure.seen(&self.seen()),
        }
    }

    /// The tool asked something that is not answered.
    pub(super) fn refused(&self, refusal: &Refusal) -> Failure {
        let Question { asks, text, .. } = &refusal.question;
        let quoted = quoted(&replaced(text, "\n", " "));
        let (auth, what, advice) = match (refusal.why, asks) {
            (Why::NotGiven, Asks::HostKey) => {
                let (kind, what) = (HostKeyFailure::Unknown, "the host's key is not known");
                // All of it: the fingerprint is what the user needs.
                let failure =
                    Failure::new(FailureKind::HostKey(kind), format!("{what}: {}", replaced(text, "\n", " ")));
                let known = self.recipe.hints.iter().find(|hint| hint.means == Meaning::HostKey(kind));
                let advice = known.map_or("", |hint| &hint.advice);
                return failure.hint(format!("{advice}{}", self.hops(Meaning::HostKey(kind))));
            }
            (Why::NotGiven, _) => {
                let hint = "give it, or somebody who can be asked; or use a key";
                (AuthFailure::PasswordRequired, auth_text(AuthFailure::PasswordRequired).to_owned(), hint)
            }
            (Why::Wrong, _) => {
                let what = match asks {
                    Asks::Password => "the password is wrong",
                    Asks::Passphrase => "the passphrase is wrong",
                    Asks::HostKey | Asks::Other => "the answer was not accepted",
                };
                (AuthFailure::PasswordIncorrect, what.to_owned(), ONCE)
            }
            (Why::Late(limit), _) => {
                let what = format!("nobody answered for {} s", limit.as_secs());
                (AuthFailure::PromptTimeout, what, "connect again and answer sooner, or give the secret beforehand")
            }
            (Why::Shown, _) => {
                let what = "it asks for a secret where it would be shown, and gets none".to_owned();
                (AuthFailure::TtyRequired, what, "log in once by hand and see what it asks")
            }
            (Why::TooMany, _) => {
                (AuthFailure::Rejected, "it asks without end".to_owned(), "log in once by hand and see what it asks")
            }
            (Why::TooLong, _) => (
                AuthFailure::Rejected,
                "the server's question is longer than 4 KiB, and gets no answer".to_owned(),
                "log in once by hand and see what it asks",
            ),
            (Why::Untypable, _) => {
                let what = "the answer is too long, or holds control characters".to_owned();
                (AuthFailure::PasswordIncorrect, what, "give one line of text, of at most 1024 bytes")
            }
        };
        let hops = self.hops(Meaning::Auth(auth));
        Failure::new(FailureKind::Auth(auth), format!("{what}: {quoted}"))
            .seen(&self.seen())
            .hint(format!("{advice}{hops}"))
    }

    /// A login that was refused after a secret had been typed was refused for it.
    fn wrong_answer(&self, means: Meaning) -> Option<&'static str> {
        let refused = matches!(means, Meaning::Auth(AuthFailure::PasswordRequired | AuthFailure::Rejected));
        match self.answered.last().filter(|_| refused)?.asks {
            Asks::Password => Some("the password is wrong"),
            // Where the server asks for the key first, as it does when its public half is known, only this is left.
            Asks::Passphrase => Some("the passphrase is wrong, or the key is not accepted"),
            Asks::Other => Some("the answer was not accepted"),
            Asks::HostKey => None,
        }
    }

    /// Whether a tool that asks on its error output ended behind a password in its own words: those are translated.
    fn is_refusal(&self) -> bool {
        let pipes = self.recipe.prompts.as_ref().is_some_and(|prompts| !prompts.terminal);
        let failed = self.exit.and_then(|exit| exit.code()).is_some_and(|code| code != 0);
        pipes && failed && self.in_login() && !self.answered.is_empty()
    }

    /// The link ended between the hello's first byte and its last.
    pub(super) fn cut(&self) -> Failure {
        ended(self.stage, &self.recipe.method, self.exit).seen(&self.seen())
    }

    /// The tool's output ended before an agent said hello.
    fn ended(&self, hint: &str) -> Failure {
        let texts = [self.stderr, self.stdout, self.terminal];
        let known = texts.into_iter().find_map(|text| self.known(text));
        match known {
            Some((hint, line)) => self.meant(hint.means, &line, &hint.advice),
            None if self.is_refusal() => {
                let failure = Failure::new(FailureKind::Auth(AuthFailure::PasswordIncorrect), "the password is wrong");
                failure.seen(&self.seen()).hint(ONCE)
            }
            None => {
                let hint = match self.exit.and_then(|exit| exit.code()) {
                    Some(0) if self.in_login() => {
                        "the login ran something else than its command: a forced command, or a shell that takes none"
                    }
                    _ => hint,
                };
                ended(self.stage, &self.recipe.method, self.exit).seen(&self.seen()).hint(hint)
            }
        }
    }

    /// The first of the recipe's hints that fits a line of `text`, with that line. Once the marker came the login is
    /// over, and texts about it are somebody else's; so are those about the connection, unless ssh itself failed.
    fn known(&self, text: &[u8]) -> Option<(&Hint, String)> {
        let text = String::from_utf8_lossy(text);
        let hints = self.recipe.hints.iter();
        let broke = self.exit.and_then(|exit| exit.code()) == Some(255);
        let mut hints = hints.filter(|hint| self.in_login() || (broke && hint.means == Meaning::Unreachable));
        hints.find_map(|hint| text.lines().find(|line| fits(&hint.text, line)).map(|line| (hint, quoted(line))))
    }

    fn meant(&self, means: Meaning, line: &str, advice: &str) -> Failure {
        let (kind, what) = match means {
            Meaning::Auth(auth) => (FailureKind::Auth(auth), auth_text(auth)),
            Meaning::HostKey(HostKeyFailure::Unknown) => {
                (FailureKind::HostKey(HostKeyFailure::Unknown), "the host's key is not known")
            }
            Meaning::HostKey(HostKeyFailure::Changed) => {
                (FailureKind::HostKey(HostKeyFailure::Changed), "the host's key is not the one that is known")
            }
            Meaning::HostKey(other) => (FailureKind::HostKey(other), "the host's key was not accepted"),
            Meaning::Unreachable if self.in_login() => {
                (FailureKind::Connect(ConnectStage::Login), "the host cannot be reached")
            }
            Meaning::Unreachable => (FailureKind::Connect(self.stage), "the connection broke"),
            Meaning::Usage => (FailureKind::Connect(ConnectStage::Start), "the tool cannot work with these options"),
        };
        let exit = match self.exit {
            Some(exit) => format!(" ({} {})", self.recipe.method, how(Some(exit))),
            None => String::new(),
        };
        let (kind, what, advice) = match self.wrong_answer(means) {
            Some(what) => (FailureKind::Auth(AuthFailure::PasswordIncorrect), what, ONCE),
            None => (kind, what, advice),
        };
        let hops = self.hops(means);
        Failure::new(kind, format!("{what}: {line}{exit}")).seen(&self.seen()).hint(format!("{advice}{hops}"))
    }

    /// What a login problem has to do with where the login is made.
    fn hops(&self, means: Meaning) -> String {
        match (means, self.behind) {
            (Meaning::Auth(_) | Meaning::HostKey(HostKeyFailure::Unknown), Some(via))
                if self.recipe.method == "ssh" =>
            {
                format!(
                    "; this login is made on {}, with the keys, agent and known hosts there: for those of this machine \
                     use ssh's ProxyJump instead of a hop",
                    escaped(via.as_bytes())
                )
            }
            _ => String::new(),
        }
    }

    /// Whether the login's own words can still be what comes.
    fn in_login(&self) -> bool {
        matches!(self.stage, ConnectStage::Start | ConnectStage::Login | ConnectStage::Probe)
    }

    /// The last of both streams, raw.
    fn seen(&self) -> Vec<u8> {
        let last = |text: &[u8]| text[text.len().saturating_sub(SHOWN)..].to_vec();
        let mut seen = last(self.stdout);
        for text in [self.stderr, self.terminal] {
            if !seen.is_empty() && !text.is_empty() && !seen.ends_with(b"\n") {
                seen.push(b'\n');
            }
            seen.extend(last(text));
        }
        seen
    }
}

fn auth_text(auth: AuthFailure) -> &'static str {
    match auth {
        AuthFailure::PasswordRequired => "the login wants a password or another secret, and none was given",
        AuthFailure::PasswordIncorrect => "the password is wrong",
        AuthFailure::Rejected => "no key was accepted",
        AuthFailure::PromptTimeout => "nobody answered the question in time",
        AuthFailure::TtyRequired => "the login wants a terminal",
        AuthFailure::NotAllowed => "the account may not do this",
        AuthFailure::NoSuchUser => "there is no such user",
        _ => "the login was refused",
    }
}

/// Whether a line holds the pattern; `*` stands for any text.
fn fits(pattern: &str, line: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|part| match cut(rest, part) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

/// A line of a tool for a message: trimmed, escaped, cut.
fn quoted(line: &str) -> String {
    let line = line.trim();
    let end = (0..=line.len().min(QUOTED)).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    escaped(&line.as_bytes()[..end]).to_string()
}

/// What the last line asks for, if it is a question for a secret or about a host key.
fn question(text: &[u8]) -> Option<(Meaning, String)> {
    const SECRETS: &[&str] = &["password", "passphrase", "passcode", "verification code", "one-time", "otp", "pin "];
    let text = String::from_utf8_lossy(text);
    let line = text.rsplit(['\n', '\r']).next()?.trim();
    let lower = line.to_ascii_lowercase();
    if cut(&lower, "(yes/no").is_some() {
        return Some((Meaning::HostKey(HostKeyFailure::Unknown), quoted(line)));
    }
    let asks = line.ends_with([':', '?', '>']) && SECRETS.iter().any(|word| cut(&lower, word).is_some());
    asks.then(|| (Meaning::Auth(AuthFailure::PasswordRequired), quoted(line)))
}

/// How a process ended, behind its name.
fn how(exit: Option<ExitStatus>) -> String {
    match exit {
        None => "closed its output".to_owned(),
        Some(exit) => match (exit.code(), exit.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
    }
}

/// `who` ended before the stage was over.
pub(super) fn ended(stage: ConnectStage, who: &str, exit: Option<ExitStatus>) -> Failure {
    let who = escaped(who.as_bytes());
    Failure::new(FailureKind::Connect(stage), format!("{who} {} while {stage}", how(exit)))
}

/// A stage or the whole took too long; `what` goes before the time.
pub(super) fn timeout(stage: ConnectStage, what: &str, limit: Duration) -> Failure {
    // Tenths by hand: formatting a fraction costs an agent more than all other numbers together.
    let tenths = (limit.as_millis() as u64 + 50) / 100;
    let message = format!("{what} {}.{} s while {stage}", tenths / 10, tenths % 10);
    Failure::new(FailureKind::StageTimeout(stage), message)
}

/// The requester took it back.
pub(super) fn cancelled(stage: ConnectStage) -> Failure {
    Failure::new(FailureKind::Cancelled, format!("the connect was cancelled while {stage}"))
}

/// The recipe cannot be run by anybody.
pub(super) fn malformed(problem: &dyn Display) -> Failure {
    Failure::new(FailureKind::Malformed, problem.to_string())
}

/// An error of the operating system on this side.
pub(super) fn os_error(stage: ConnectStage, what: &str, error: &io::Error) -> Failure {
    let resource = match error.kind() {
        io::ErrorKind::OutOfMemory => Some(Resource::Memory),
        io::ErrorKind::StorageFull => Some(Resource::Disk),
        // Of all that a connect asks the system for, only a new process is refused so.
        io::ErrorKind::WouldBlock => Some(Resource::Processes),
        _ => error.raw_os_error().and_then(exhausted),
    };
    let kind = resource.map_or(FailureKind::Connect(stage), FailureKind::Exhausted);
    let hint = match resource {
        Some(Resource::Descriptors) => "raise `ulimit -n`, or connect to fewer targets at once",
        Some(Resource::Processes) => "raise `ulimit -u`, or connect to fewer targets at once",
        _ => "",
    };
    Failure::new(kind, format!("{what}: {error}")).hint(hint)
}

/// A tool that does not start.
pub(super) fn tool_error(program: &str, error: &SpawnError) -> Failure {
    let failure = spawn_error(&format!("the program {}", escaped(program.as_bytes())), error);
    match error.io().kind() {
        io::ErrorKind::NotFound => failure.hint("install it on the machine that logs in, or give its path"),
        _ => failure,
    }
}

/// Something of ours that does not start.
pub(super) fn spawn_error(what: &str, error: &SpawnError) -> Failure {
    let stage = ConnectStage::Start;
    match error.io().kind() {
        io::ErrorKind::NotFound => Failure::new(FailureKind::Connect(stage), format!("{what} is not there")),
        io::ErrorKind::InvalidInput => malformed(error),
        _ => os_error(stage, &format!("cannot start {what}"), error.io()),
    }
}

/// The resource that an errno of Linux, where agents run, says has run out; the first two are the same elsewhere.
fn exhausted(errno: i32) -> Option<Resource> {
    match errno {
        23 | 24 => Some(Resource::Descriptors), // ENFILE, EMFILE
        11 => Some(Resource::Processes),        // EAGAIN, of clone
        12 => Some(Resource::Memory),           // ENOMEM
        28 => Some(Resource::Disk),             // ENOSPC
        _ => None,
    }
}

/// The hello at the front of what came; `None` while it is not whole.
pub(super) fn hello(received: &[u8], nonce: &[u8; 16]) -> Result<Option<ParsedHello<ChildHello>>, Failure> {
    let result = match parse_hello::<ChildHello>(received) {
        Ok(Some(parsed)) if parsed.hello.nonce != *nonce => Err(HelloError::Nonce),
        result => result,
    };
    result.map_err(|error| {
        let hint = match error {
            HelloError::Version { .. } => "the agent is of another version: build the agents of this one",
            _ => "what answered is not the agent that was sent",
        };
        Failure::new(FailureKind::Connect(ConnectStage::Hello), error.to_string())
            .seen(&received[..received.len().min(SHOWN)])
            .hint(hint)
    })
}
