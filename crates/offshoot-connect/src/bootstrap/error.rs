//! How a bootstrap fails: the stage, what happened, what was received, what to do next.

use std::fmt;

/// The stages of a bootstrap. Each has its deadline and its limit for noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The command was given; its marker has not come.
    Login,
    /// The target is known; the agent for it is being fetched here.
    Agent,
    /// The target looks for a place that the loader can run from. A stage of its own only with
    /// [`Hold::UntilReady`](super::Hold::UntilReady), else a part of [`Stage::Start`].
    Place,
    /// Loader and agent were sent; the agent's hello has not come.
    Start,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Login => "waiting for the start marker",
            Stage::Agent => "choosing an agent",
            Stage::Place => "finding a place to run from",
            Stage::Start => "waiting for the agent's hello",
        })
    }
}

/// How the connection tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is not known, or the output ended while the tool still runs.
    Unknown,
}

/// What the loader was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoaderStep {
    /// Stage 0 read stage 1.
    ReadLoader,
    /// Stage 0 started stage 1.
    StartLoader,
    /// Stage 1 read header and agent.
    ReadAgent,
    /// Stage 1 looked at the header.
    Header,
    /// Stage 1 asked for memory.
    Memory,
    /// Stage 1 unpacked the agent.
    Unpack,
    /// Stage 1 compared the agent's hash.
    Hash,
    /// Stage 1 started the agent.
    StartAgent,
}

impl LoaderStep {
    /// The step that the loader's letter stands for.
    pub(super) fn from_letter(letter: u8) -> Option<LoaderStep> {
        Some(match letter {
            b'r' => LoaderStep::ReadLoader,
            b'x' => LoaderStep::StartLoader,
            b'R' => LoaderStep::ReadAgent,
            b'M' => LoaderStep::Header,
            b'A' => LoaderStep::Memory,
            b'Z' => LoaderStep::Unpack,
            b'H' => LoaderStep::Hash,
            b'X' => LoaderStep::StartAgent,
            _ => return None,
        })
    }
}

impl fmt::Display for LoaderStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoaderStep::ReadLoader => "reading itself",
            LoaderStep::StartLoader => "starting itself",
            LoaderStep::ReadAgent => "reading the agent",
            LoaderStep::Header => "reading the header",
            LoaderStep::Memory => "asking for memory",
            LoaderStep::Unpack => "unpacking the agent",
            LoaderStep::Hash => "checking the agent's hash",
            LoaderStep::StartAgent => "starting the agent",
        })
    }
}

/// A place from which the loader could not be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interpreter or the directory, escaped.
    pub place: String,
    /// The shell's status for the attempt: 126 is "found, but not executable".
    pub status: i32,
    /// What was said about it, escaped.
    pub text: String,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing came for as long as a stage may be silent.
    Timeout,
    /// The tool's output ended.
    Ended,
    /// More than 64 KiB came that are not what was waited for.
    Noise,
    /// The marker came, but not the facts behind it.
    Answer,
    /// There is no agent for this system.
    System {
        /// `uname -s`, escaped.
        system: String,
    },
    /// There is no agent for this machine.
    Machine {
        /// `uname -m`, escaped.
        machine: String,
    },
    /// The target is another machine than was assumed when everything was sent at once.
    OtherMachine {
        /// The triple that was assumed.
        expected: String,
        /// `uname -s` and `uname -m`, escaped.
        got: String,
    },
    /// The caller has no agent for the target.
    NoAgent {
        /// The caller's reason.
        reason: String,
    },
    /// The target's terminal could not be made transparent: there is no `stty`, or it refused.
    Terminal,
    /// Nothing on the target can be run from memory or from any writable directory.
    NoExec {
        /// What was tried.
        tried: Vec<Place>,
    },
    /// The loader ran and gave up.
    Loader {
        /// What it was doing.
        step: LoaderStep,
        /// The system's error number; 0 where the reason is not the system's.
        errno: i32,
    },
}

/// Why no agent runs on the target.
///
/// [`Display`](fmt::Display) gives one line with the stage, what happened and the end of what was received, all
/// escaped (S8); the hint is separate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootstrapError {
    /// Where it stopped.
    pub stage: Stage,
    /// What happened.
    pub kind: ErrorKind,
    /// How the tool ended, when it has.
    pub exit: Option<Exit>,
    /// The last 64 KiB that came, raw: for display use [`escape`].
    pub received: Vec<u8>,
    /// What to do next.
    pub hint: String,
}

impl BootstrapError {
    /// The end of what was received as one escaped line of at most `max` bytes of the original.
    pub fn received_line(&self, max: usize) -> String {
        escape(&self.received[self.received.len().saturating_sub(max)..])
    }
}

impl std::error::Error for BootstrapError {}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.kind)?;
        match self.exit {
            Some(Exit::Code(code)) => write!(f, " (exit status {code})")?,
            Some(Exit::Signal(signal)) => write!(f, " (signal {signal})")?,
            Some(Exit::Unknown) | None => {}
        }
        if !self.received.is_empty() {
            write!(f, "; received \"{}\"", self.received_line(400))?;
        }
        Ok(())
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Timeout => f.write_str("nothing came in time"),
            ErrorKind::Ended => f.write_str("the connection ended"),
            ErrorKind::Noise => f.write_str("more than 64 KiB of other output came"),
            ErrorKind::Answer => f.write_str("the target's answer is not readable"),
            ErrorKind::System { system } => write!(f, "the target's system is {system}, there are agents for Linux"),
            ErrorKind::Machine { machine } => write!(f, "there is no agent for the machine {machine}"),
            ErrorKind::OtherMachine { expected, got } => {
                write!(f, "the target is {got}, an agent for {expected} was sent")
            }
            ErrorKind::NoAgent { reason } => f.write_str(reason),
            ErrorKind::Terminal => f.write_str("the terminal on the target could not be set to raw mode"),
            ErrorKind::NoExec { tried } => {
                f.write_str("nothing can be executed on the target")?;
                for (at, place) in tried.iter().enumerate() {
                    let separator = if at == 0 { ": tried" } else { "," };
                    write!(f, "{separator} {} (status {}", place.place, place.status)?;
                    if !place.text.is_empty() {
                        write!(f, ", {}", place.text)?;
                    }
                    f.write_str(")")?;
                }
                Ok(())
            }
            ErrorKind::Loader { step, errno: 0 } => write!(f, "the loader failed while {step}"),
            ErrorKind::Loader { step, errno } => write!(f, "the loader failed while {step}: error {errno}"),
        }
    }
}

/// What to do next.
pub(super) fn hint(stage: Stage, kind: &ErrorKind, exit: Option<Exit>, received: bool) -> &'static str {
    match (kind, stage) {
        (ErrorKind::Ended, Stage::Login) if exit == Some(Exit::Code(127)) => {
            "there seems to be no shell at that path on the target"
        }
        (ErrorKind::Ended, Stage::Login) if received => {
            "the login shell printed text and ended without running the command; is the account allowed to run commands?"
        }
        (ErrorKind::Ended, Stage::Login) => "the command was never run; does the same login run `true`?",
        (ErrorKind::Timeout | ErrorKind::Noise, Stage::Login) if received => {
            "the login shell printed text but never ran the command; what does the same login print for `true`?"
        }
        (ErrorKind::Timeout | ErrorKind::Noise, Stage::Login) => {
            "nothing was printed at all; a login script may be waiting for input"
        }
        (ErrorKind::Ended | ErrorKind::Timeout | ErrorKind::Noise, _) => {
            "the agent was sent but did not answer; the target killed it, a limit such as `ulimit -n` is too low, or the path is not 8-bit clean"
        }
        (ErrorKind::Answer, _) => {
            "`uname -sm` printed nothing readable there; is there a uname in PATH, /bin or /usr/bin?"
        }
        (ErrorKind::System { .. }, _) => "agents run on Linux only",
        (ErrorKind::Machine { .. }, _) => "agents exist for x86_64, aarch64, i686, armv7 and riscv64",
        (ErrorKind::OtherMachine { .. }, _) => "connect again without assuming the machine",
        (ErrorKind::NoAgent { .. }, _) => "build the agents for this triple, or name the folder that holds them",
        (ErrorKind::Terminal, _) => "install stty there, or use a way in without a terminal",
        (ErrorKind::NoExec { .. }, _) => {
            "allow execution in one of these directories, or install perl or python3 there; a locked container can be \
             entered from its host by its namespaces"
        }
        (ErrorKind::Loader { step, .. }, _) => match step {
            LoaderStep::Hash | LoaderStep::Unpack | LoaderStep::Header => {
                "the bytes changed on the way: a terminal in the path, or something there that reads its input"
            }
            LoaderStep::Memory => "the target is short of memory, or a limit is set",
            LoaderStep::ReadAgent | LoaderStep::ReadLoader => "the connection ended while the agent was being sent",
            LoaderStep::StartAgent | LoaderStep::StartLoader => {
                "the target forbids execution from memory and from files"
            }
        },
    }
}

/// Foreign bytes as one line that is safe on a terminal and in a log: C0, C1, DEL, bidi controls, other invisible
/// characters, quotes, backslashes and invalid UTF-8 are written as escapes (S8).
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // A combining mark would join what stands before it, also text of ours.
            out.extend(c.escape_debug());
        }
        for byte in chunk.invalid() {
            out.push_str("\\x");
            for digit in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through_escape() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text: Vec<char> = escape(&all).chars().collect();
        text.extend(escape("\u{9b}31m \u{202e}gnp.exe \u{200b}\u{feff}\u{2066} a\u{301}".as_bytes()).chars());
        for c in text {
            assert!((' '..='~').contains(&c), "{c:?} got through");
        }
        assert_eq!(escape("grüße \"x\"\n".as_bytes()), "grüße \\\"x\\\"\\n");
        assert_eq!(escape(b"a\xffb\xc3"), "a\\xffb\\xc3");
    }

    #[test]
    fn an_error_says_stage_kind_exit_and_what_came() {
        let error = BootstrapError {
            stage: Stage::Login,
            kind: ErrorKind::Ended,
            exit: Some(Exit::Code(1)),
            received: b"This account is currently not available.\r\n\x1b[31m".to_vec(),
            hint: String::new(),
        };
        assert_eq!(
            error.to_string(),
            "waiting for the start marker: the connection ended (exit status 1); received \
             \"This account is currently not available.\\r\\n\\u{1b}[31m\""
        );
    }

    #[test]
    fn noexec_lists_every_place() {
        let place = |place: &str, text: &str| Place { place: place.into(), status: 126, text: text.into() };
        let kind = ErrorKind::NoExec { tried: vec![place("/dev/shm", "Permission denied"), place("/tmp", "")] };
        assert_eq!(
            kind.to_string(),
            "nothing can be executed on the target: tried /dev/shm (status 126, Permission denied), /tmp (status 126)"
        );
    }
}
