//! What a bootstrap is told, and what of that cannot be written into a start line.

use std::fmt;
use std::time::Duration;

use offshoot_wire::HELLO_MAGIC;

use crate::bundle::Bundle;

/// The most of names and values that goes into the start line.
const WORDS_MAX: usize = 1024;

/// How long the payload is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hold {
    /// It may go at once where the machine is known ([`Options::assume`]): pipes all the way, no prompt possible.
    No,
    /// Until the marker came: a prompt is possible, and what follows a wrong password is taken for further ones.
    #[default]
    UntilMarker,
    /// Until the loader is about to start: a terminal is in the path, which is made raw, and of which bash reads
    /// ahead. One more round trip.
    UntilReady,
}

/// What a bootstrap needs to know.
#[derive(Clone)]
pub struct Options {
    /// Random, for this connect alone: from the operating system.
    pub nonce: [u8; 16],
    /// A variable for the agent's environment, by which what is left of a tree can be found. The name must be one of
    /// the shell's: letters, digits, `_`.
    pub tree_tag: Option<(String, String)>,
    /// The agent's `argv[0]`. ASCII, not empty, not `t`.
    pub process_name: String,
    /// The agent's further arguments. ASCII.
    pub args: Vec<String>,
    /// How long each stage may be silent. Received bytes and pieces taken by
    /// [`poll_output`](super::Bootstrap::poll_output) break the silence; a deadline for the whole is the caller's.
    pub stage_timeout: Duration,
    /// How long the payload is held back.
    pub hold: Hold,
    /// The target's shell, an absolute path.
    pub shell: String,
    /// What follows the agent: the parent's hello and its first frames.
    pub preamble: Vec<u8>,
    /// The first bytes of the agent's hello.
    pub hello_magic: Vec<u8>,
    /// The agent for a target that is known already. With [`Hold::No`] everything is sent at once, and the target
    /// checks that it is such a machine; otherwise it is used when the target turns out to be one.
    pub assume: Option<Bundle>,
    /// What [`root_script`](super::Bootstrap::root_script) may run instead of an agent that is sent.
    pub near: Option<Near>,
}

impl Options {
    /// The defaults: `/bin/sh`, 10 s, hold until the marker, the wire protocol's hello.
    pub fn new(nonce: [u8; 16]) -> Options {
        Options {
            nonce,
            tree_tag: None,
            process_name: "offshoot".to_owned(),
            args: Vec::new(),
            stage_timeout: Duration::from_secs(10),
            hold: Hold::UntilMarker,
            shell: "/bin/sh".to_owned(),
            preamble: Vec::new(),
            hello_magic: HELLO_MAGIC.to_vec(),
            assume: None,
            near: None,
        }
    }
}

/// An executable that this process holds open, as a process of root on the same machine finds it.
#[derive(Clone, Debug)]
pub struct Near {
    /// This process.
    pub process: u32,
    /// When it began, as the 22nd field of `/proc/PID/stat` has it: no other that gets its number has begun then.
    pub started: u64,
    /// The open file.
    pub file: i32,
    /// Its arguments, for a link that is descriptors 0 and 3. The first followed by `t` must do nothing, with success.
    pub args: [&'static str; 2],
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The preamble holds the child's sealing key (S19).
        f.debug_struct("Options")
            .field("process_name", &self.process_name)
            .field("args", &self.args)
            .field("hold", &self.hold)
            .field("shell", &self.shell)
            .field("preamble", &self.preamble.len())
            .field("assume", &self.assume)
            .finish_non_exhaustive()
    }
}

/// An option that cannot be written into a start line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A variable's name is letters, digits and `_`, and begins with no digit.
    #[error("the tree tag is no name of an environment variable")]
    TagName,
    /// The names and values are ASCII without control characters and together at most 1,024 bytes.
    #[error("the tree tag, process name or arguments are too long or not plain ASCII")]
    Text,
    /// An empty name, or `t`, which asks the loader for its test.
    #[error("a process cannot be named so")]
    ProcessName,
    /// The shell is an absolute path of letters, digits, `_`, `.`, `-` and `/`.
    #[error("the shell must be a plain absolute path")]
    Shell,
    /// A hello must have a first byte, and at most 64.
    #[error("the hello has no magic to know it by")]
    Magic,
}

pub(super) fn check(options: &Options) -> Result<(), OptionsError> {
    let plain = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let mut words: usize = options.process_name.len();
    if let Some((name, value)) = &options.tree_tag {
        let first = name.bytes().next().ok_or(OptionsError::TagName)?;
        if first.is_ascii_digit() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(OptionsError::TagName);
        }
        if !plain(value) {
            return Err(OptionsError::Text);
        }
        words += name.len() + value.len();
    }
    words += options.args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    if words > WORDS_MAX || !plain(&options.process_name) || !options.args.iter().all(|arg| plain(arg)) {
        return Err(OptionsError::Text);
    }
    if options.process_name.is_empty() || options.process_name == "t" {
        return Err(OptionsError::ProcessName);
    }
    let shell = options.shell.as_str();
    if !shell.starts_with('/')
        || shell.len() > 60
        || !shell.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b))
    {
        return Err(OptionsError::Shell);
    }
    if options.hello_magic.is_empty() || options.hello_magic.len() > 64 {
        return Err(OptionsError::Magic);
    }
    Ok(())
}
