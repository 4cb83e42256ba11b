//! From a login shell to a running agent: what is sent, and what the answers mean.
//!
//! Owns the probe, the start line, the ladder of ways to run the loader, and the reading of whatever comes back until
//! the agent's hello. Sans-IO: bytes and `now` go in, bytes, events and the next deadline come out; it knows no
//! process, descriptor or clock. Runs on whatever thread drives the connect.
//!
//! ```text
//! caller                                        Bootstrap                          target
//!   start the tool with probe_command()  ─────────────────────────────────────▶  login shell
//!   handle_bytes                         ◀───  marker, uname
//!   NeedBundle ──▶ provide                ───▶  start line, stage 1, agent, preamble ──▶ loader
//!   handle_bytes                         ◀───  the agent's hello
//!   Started
//! ```
//!
//! Memory: the transcript (64 KiB), and what is to be sent: one copy of the bundle's payload and the preamble.

mod error;
mod machine;
mod scan;
mod script;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use offshoot_wire::HELLO_MAGIC;

pub use self::error::{BootstrapError, ErrorKind, Exit, LoaderStep, Place, Stage, escape};
pub use self::machine::Facts;
use self::machine::Machine;
use self::scan::{Matcher, Tail};
use crate::bundle::Bundle;

/// How many bytes that are not what is waited for each stage takes: a long greeting, not a flood (S23).
const NOISE_MAX: usize = 64 << 10;
/// The longest line of facts: `uname -sm` and a few characters.
const FACTS_MAX: usize = 256;
/// What [`Bootstrap::poll_output`] gives at a time: each piece that was written restarts the stage's clock.
const PIECE: usize = 16 << 10;
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
#[derive(Clone, Debug)]
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
    /// How long each stage may be silent. Received bytes and pieces taken by [`Bootstrap::poll_output`] break the
    /// silence; a deadline for the whole is the caller's.
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
        }
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

/// What the caller has to do or to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The target is known: answer with [`Bootstrap::provide`] or [`Bootstrap::provide_error`]. No deadline of the
    /// bootstrap runs meanwhile.
    NeedBundle {
        /// The triple that the agent should have; another one of the same machine does as well.
        triple: &'static str,
        /// What the target said.
        facts: Facts,
    },
    /// The agent's hello came. What [`Bootstrap::poll_output`] still has must be sent before anything else is.
    Started {
        /// What came, from the hello's first byte on; possibly more than the hello, or less.
        rest: Vec<u8>,
    },
    /// It failed: end the tool.
    Failed(BootstrapError),
}

#[derive(Debug)]
enum State {
    /// The marker has not come.
    Login { marker: Matcher },
    /// The marker came, the rest of its line has not.
    Facts { line: Vec<u8> },
    /// The caller looks for the agent.
    Agent { machine: &'static Machine, facts: Facts },
    /// The start line was sent, the payload waits for the target's word.
    Place { payload: Bytes, seen: Seen },
    /// All was sent.
    Start { seen: Seen },
    /// Started or failed.
    Done,
}

/// What can come once the start line runs.
#[derive(Debug)]
struct Seen {
    hello: Matcher,
    ready: Matcher,
    other_machine: Matcher,
    no_exec: Matcher,
    loader: Matcher,
    /// The text behind one of the last three.
    report: Option<(Report, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    OtherMachine,
    NoExec,
    Loader,
}

impl Report {
    /// How the report's text ends, how long it can be, and whether it is then one.
    fn ends(self, text: &[u8]) -> Option<bool> {
        match self {
            Report::OtherMachine if text.ends_with(b" .") => Some(true),
            Report::OtherMachine => (text.len() > FACTS_MAX).then_some(false),
            Report::NoExec if text.ends_with(b"!.") => Some(true),
            Report::NoExec => None,
            Report::Loader if text.len() < 4 => None,
            Report::Loader => {
                Some(LoaderStep::from_letter(text[0]).is_some() && text[1..].iter().all(u8::is_ascii_digit))
            }
        }
    }
}

/// The state machine of one bootstrap. See the [module](self) for its use.
///
/// Bytes that come after [`Event::Started`] or [`Event::Failed`] are ignored: from then on they are the caller's.
#[derive(Debug)]
pub struct Bootstrap {
    options: Options,
    nonce: String,
    state: State,
    output: VecDeque<Bytes>,
    events: VecDeque<Event>,
    tail: Tail,
    /// What came in this stage.
    noise: usize,
    deadline: Instant,
}

impl Bootstrap {
    /// A bootstrap whose command is started now.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] when an option cannot be written into a start line.
    pub fn new(options: Options, now: Instant) -> Result<Bootstrap, OptionsError> {
        check(&options)?;
        let nonce = script::nonce_text(&options.nonce);
        let mut bootstrap = Bootstrap {
            state: State::Login { marker: Matcher::new(format!("M{nonce} ")) },
            output: VecDeque::new(),
            events: VecDeque::new(),
            tail: Tail::default(),
            noise: 0,
            deadline: now + options.stage_timeout,
            nonce,
            options,
        };
        if bootstrap.options.hold == Hold::No
            && let Some(bundle) = bootstrap.options.assume.clone()
            && let Some(machine) = Machine::of_triple(bundle.triple())
        {
            let line = bootstrap.line(machine, &bundle, true);
            let payload = bootstrap.payload(&bundle);
            bootstrap.send(&[line.as_bytes(), &payload]);
        } else if bootstrap.options.hold == Hold::No {
            bootstrap.options.hold = Hold::UntilMarker;
        }
        Ok(bootstrap)
    }

    /// The command for a login shell, whichever it is: one line of less than 200 bytes.
    pub fn probe_command(&self) -> String {
        format!("exec {} -c '{}'", self.options.shell, self.probe_script())
    }

    /// The probe for a tool that takes an argument list: `[shell, "-c", probe_script]`.
    pub fn probe_script(&self) -> String {
        script::probe(&self.nonce, self.options.hold == Hold::UntilReady)
    }

    /// The shell of [`Options::shell`].
    pub fn shell(&self) -> &str {
        &self.options.shell
    }

    /// The stage that the bootstrap is in.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Login { .. } | State::Facts { .. } => Stage::Login,
            State::Agent { .. } => Stage::Agent,
            State::Place { .. } => Stage::Place,
            State::Start { .. } | State::Done => Stage::Start,
        }
    }

    /// The next piece to write, at most 16 KiB. Taking one restarts the stage's clock, so take the next only when the
    /// last has been written.
    pub fn poll_output(&mut self, now: Instant) -> Option<Bytes> {
        let front = self.output.front_mut()?;
        let piece = front.split_to(front.len().min(PIECE));
        if front.is_empty() {
            self.output.pop_front();
        }
        self.deadline = now + self.options.stage_timeout;
        Some(piece)
    }

    /// Whether [`Bootstrap::poll_output`] has something.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Bootstrap::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Agent { .. } | State::Done => None,
            _ => Some(self.deadline),
        }
    }

    /// The clock went on.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.fail(ErrorKind::Timeout, None);
        }
    }

    /// The tool's output ended, or the tool did.
    pub fn handle_eof(&mut self, exit: Exit) {
        if !matches!(self.state, State::Done) {
            self.fail(ErrorKind::Ended, Some(exit));
        }
    }

    /// The target's bytes. Bytes behind the hello become [`Event::Started`]'s `rest`.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Instant) {
        if !bytes.is_empty() {
            self.deadline = now + self.options.stage_timeout;
        }
        while !bytes.is_empty() && !matches!(self.state, State::Done) {
            // A stage's end resets the count, so it is kept for as much as the stage took.
            let room = (NOISE_MAX - self.noise).min(bytes.len());
            let taken = self.take(&bytes[..room], bytes);
            bytes = &bytes[taken..];
            if self.noise >= NOISE_MAX {
                self.fail(ErrorKind::Noise, None);
            }
        }
    }

    /// The answer to [`Event::NeedBundle`].
    pub fn provide(&mut self, bundle: &Bundle, now: Instant) {
        let State::Agent { machine, ref facts } = self.state else { return };
        match Machine::of_triple(bundle.triple()) {
            Some(of) if of.triple == machine.triple => {}
            _ => {
                let got = format!("{} {}", facts.system, facts.machine);
                return self.fail(ErrorKind::OtherMachine { expected: bundle.triple().to_owned(), got }, None);
            }
        }
        let line = self.line(machine, bundle, false);
        let payload = self.payload(bundle);
        let seen = self.seen();
        self.deadline = now + self.options.stage_timeout;
        self.noise = 0;
        if self.options.hold == Hold::UntilReady {
            self.send(&[line.as_bytes()]);
            self.state = State::Place { payload, seen };
        } else {
            self.send(&[line.as_bytes(), &payload]);
            self.state = State::Start { seen };
        }
    }

    /// The other answer to [`Event::NeedBundle`]: there is none, for this reason, which is shown as it is.
    pub fn provide_error(&mut self, reason: impl Into<String>) {
        if matches!(self.state, State::Agent { .. }) {
            self.fail(ErrorKind::NoAgent { reason: reason.into() }, None);
        }
    }

    /// Takes bytes of the current stage, as many as belong to it; `all` are those and what came behind them.
    fn take(&mut self, bytes: &[u8], all: &[u8]) -> usize {
        let mut taken = bytes.len();
        let mut found = None;
        match &mut self.state {
            State::Login { marker } => {
                if let Some(at) = bytes.iter().position(|byte| marker.step(*byte)) {
                    taken = at + 1;
                    found = Some(Found::Marker);
                }
            }
            State::Facts { line } => {
                taken = 0;
                for byte in bytes {
                    taken += 1;
                    if *byte == b'\n' || line.len() == FACTS_MAX {
                        found = Some(Found::Facts(std::mem::take(line)));
                        break;
                    }
                    line.push(*byte);
                }
            }
            State::Agent { .. } => {}
            State::Place { seen, .. } | State::Start { seen } => {
                for (at, byte) in bytes.iter().enumerate() {
                    found = seen.step(*byte);
                    if found.is_some() {
                        taken = at + 1;
                        break;
                    }
                }
            }
            State::Done => return taken,
        }
        self.noise += taken;
        self.tail.push(&bytes[..taken]);
        match found {
            None => {}
            Some(Found::Marker) => self.state = State::Facts { line: Vec::new() },
            Some(Found::Facts(line)) => self.facts(&line),
            Some(Found::Ready) => {
                if let State::Place { payload, seen } = std::mem::replace(&mut self.state, State::Done) {
                    self.output.push_back(payload);
                    self.noise = 0;
                    self.state = State::Start { seen };
                }
            }
            Some(Found::Hello) => {
                let mut rest = self.options.hello_magic.clone();
                rest.extend_from_slice(&all[taken..]);
                self.state = State::Done;
                self.events.push_back(Event::Started { rest });
                taken = all.len();
            }
            Some(Found::Report(report, text)) => self.report(report, &text),
        }
        taken
    }

    /// The line behind the marker.
    fn facts(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let words: Option<Vec<&str>> = std::str::from_utf8(line).ok().map(|line| line.split(' ').collect());
        let (stty, system, machine) = match (self.options.hold, words.as_deref()) {
            (Hold::UntilReady, Some([stty, system, machine, "."])) => (*stty, *system, *machine),
            (Hold::No | Hold::UntilMarker, Some([system, machine, "."])) => ("0", *system, *machine),
            _ => return self.fail(ErrorKind::Answer, None),
        };
        if stty != "0" {
            return self.fail(ErrorKind::Terminal, None);
        }
        if system != "Linux" {
            return self.fail(ErrorKind::System { system: escape(system.as_bytes()) }, None);
        }
        let Some(known) = Machine::named(machine) else {
            return self.fail(ErrorKind::Machine { machine: escape(machine.as_bytes()) }, None);
        };
        let facts = Facts { system: system.to_owned(), machine: machine.to_owned() };
        self.noise = 0;
        let assumed = self.options.assume.clone();
        let fits = |bundle: &Bundle| Machine::of_triple(bundle.triple()).is_some_and(|of| of.triple == known.triple);
        if self.options.hold == Hold::No {
            // All was sent at the start; a wrong guess fails here already, without waiting for the target's own check.
            match assumed {
                Some(bundle) if !fits(&bundle) => {
                    let got = format!("{} {}", facts.system, facts.machine);
                    self.fail(ErrorKind::OtherMachine { expected: bundle.triple().to_owned(), got }, None);
                }
                _ => self.state = State::Start { seen: self.seen() },
            }
            return;
        }
        self.state = State::Agent { machine: known, facts: facts.clone() };
        match assumed.filter(fits) {
            Some(bundle) => self.provide(&bundle, self.deadline - self.options.stage_timeout),
            None => self.events.push_back(Event::NeedBundle { triple: known.triple, facts }),
        }
    }

    /// The target says why it did not work.
    fn report(&mut self, report: Report, text: &[u8]) {
        let kind = match report {
            Report::OtherMachine => ErrorKind::OtherMachine {
                expected: self.options.assume.as_ref().map_or("another machine", |b| b.triple()).to_owned(),
                got: escape(text.strip_suffix(b" .").unwrap_or(text).trim_ascii()),
            },
            Report::NoExec => ErrorKind::NoExec { tried: places(text, &self.nonce) },
            Report::Loader => ErrorKind::Loader {
                step: LoaderStep::from_letter(text[0]).unwrap_or(LoaderStep::StartAgent),
                errno: text[1..4].iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')),
            },
        };
        self.fail(kind, None);
    }

    fn line(&self, machine: &Machine, bundle: &Bundle, check: bool) -> String {
        let mut argv = vec![self.options.process_name.clone()];
        argv.extend(self.options.args.iter().cloned());
        script::Line {
            machine,
            stage0: bundle.stage0(),
            nonce: &self.nonce,
            tag: self.options.tree_tag.as_ref(),
            argv: &argv,
            ready: self.options.hold == Hold::UntilReady,
            check,
        }
        .write()
    }

    fn payload(&self, bundle: &Bundle) -> Bytes {
        let payload = bundle.payload_after_line();
        if self.options.preamble.is_empty() {
            return payload;
        }
        [&payload[..], &self.options.preamble].concat().into()
    }

    fn seen(&self) -> Seen {
        Seen {
            hello: Matcher::new(&self.options.hello_magic[..]),
            ready: Matcher::new(match self.options.hold {
                Hold::UntilReady => format!("R{}", self.nonce),
                Hold::No | Hold::UntilMarker => String::new(),
            }),
            other_machine: Matcher::new(format!("!A{} ", self.nonce)),
            no_exec: Matcher::new(format!("!N{}", self.nonce)),
            loader: Matcher::new("!L"),
            report: None,
        }
    }

    /// Line and payload go out together, so that the first packets are full.
    fn send(&mut self, parts: &[&[u8]]) {
        let mut out = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            out.extend_from_slice(part);
        }
        self.output.push_back(out.freeze());
    }

    fn fail(&mut self, kind: ErrorKind, exit: Option<Exit>) {
        let stage = self.stage();
        let received = self.tail.take();
        let hint = hint(stage, &kind, exit, !received.is_empty());
        self.state = State::Done;
        self.output.clear();
        self.events.push_back(Event::Failed(BootstrapError { stage, kind, exit, received, hint: hint.to_owned() }));
    }
}

/// What a byte completed.
enum Found {
    Marker,
    Facts(Vec<u8>),
    Ready,
    Hello,
    Report(Report, Vec<u8>),
}

impl Seen {
    fn step(&mut self, byte: u8) -> Option<Found> {
        if self.hello.step(byte) {
            return Some(Found::Hello);
        }
        if self.ready.step(byte) {
            // Said once.
            self.ready = Matcher::new(Vec::new());
            return Some(Found::Ready);
        }
        let mut began = None;
        for (matcher, report) in [
            (&mut self.other_machine, Report::OtherMachine),
            (&mut self.no_exec, Report::NoExec),
            (&mut self.loader, Report::Loader),
        ] {
            if matcher.step(byte) {
                began = Some(report);
            }
        }
        let report = match (&mut self.report, began) {
            // What the target says about a place can hold anything, a report of the loader's too.
            (Some((Report::OtherMachine | Report::NoExec, _)), _) | (Some(_), None) => self.report.as_mut()?,
            (_, Some(began)) => {
                self.report = Some((began, Vec::new()));
                return None;
            }
            (None, None) => return None,
        };
        report.1.push(byte);
        let whole = report.0.ends(&report.1)?;
        let (report, text) = self.report.take()?;
        whole.then_some(Found::Report(report, text))
    }
}

/// The places that a target tried, from its report.
fn places(text: &[u8], nonce: &str) -> Vec<Place> {
    let text = String::from_utf8_lossy(text.strip_suffix(b"!.").unwrap_or(text));
    let file = format!(".o{nonce}: ");
    let place = |entry: &str| {
        let (status, rest) = entry.trim_start().split_once(' ')?;
        let (place, said) = rest.split_once(": ").unwrap_or((rest, ""));
        // `sh: 1: /tmp/.oNONCE: Permission denied`: the place is told already.
        let said = said.rsplit(&file).next().unwrap_or(said).trim();
        Some(Place {
            place: escape(place.as_bytes()),
            status: status.parse().ok()?,
            text: escape(&said.as_bytes()[..said.len().min(200)]),
        })
    };
    text.split(&script::entry(nonce)).skip(1).filter_map(place).collect()
}

fn hint(stage: Stage, kind: &ErrorKind, exit: Option<Exit>, received: bool) -> &'static str {
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
            "the agent was sent but did not answer; the target may have killed it, or the path may not be 8-bit clean"
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
            LoaderStep::Hash | LoaderStep::Inflate | LoaderStep::Header => {
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

fn check(options: &Options) -> Result<(), OptionsError> {
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
