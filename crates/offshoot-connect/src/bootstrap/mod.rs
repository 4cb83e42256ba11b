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

mod answer;
mod error;
mod machine;
mod options;
mod scan;
mod script;

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use self::answer::{FACTS_MAX, Found, Report, Seen, places};
use self::error::hint;
pub use self::error::{BootstrapError, ErrorKind, Exit, LoaderStep, Place, Stage, escape};
pub use self::machine::Facts;
use self::machine::Machine;
use self::options::check;
pub use self::options::{Hold, Near, Options, OptionsError};
use self::scan::{Matcher, Tail};
use crate::bundle::Bundle;

/// How many bytes that are not what is waited for each stage takes: a long greeting, not a flood (S23).
const NOISE_MAX: usize = 64 << 10;
/// What [`Bootstrap::poll_output`] gives at a time: each piece that was written restarts the stage's clock.
const PIECE: usize = 16 << 10;
/// The length of a secret part of a file's name: 48 bits, for the milliseconds in which somebody could guess.
const SECRET: usize = 8;

/// A word of 22 letters, digits, `_` and `-` that tells nothing of the nonce, nor of what else is derived from it.
fn derived(nonce: &[u8; 16], what: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest([&nonce[..], what].concat()).into();
    let mut word = [0; 16];
    word.copy_from_slice(&hash[..16]);
    script::nonce_text(&word)
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

/// The state machine of one bootstrap. See the [module](self) for its use.
///
/// Bytes that come after [`Event::Started`] or [`Event::Failed`] are ignored: from then on they are the caller's.
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

impl fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is to be sent holds the preamble (S19).
        f.debug_struct("Bootstrap")
            .field("stage", &self.stage())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Bootstrap {
    /// A bootstrap whose command is started now.
    ///
    /// # Errors
    ///
    /// [`OptionsError`] when an option cannot be written into a start line.
    pub fn new(options: Options, now: Instant) -> Result<Bootstrap, OptionsError> {
        check(&options)?;
        let nonce = derived(&options.nonce, b"marker");
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
            && bootstrap.options.near.is_none()
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

    /// The probe as a script for `sh -c`, which first gives these variables the values that this process has for them:
    /// they were set for the tool alone.
    pub fn script(&self, set: &[(String, String)]) -> String {
        let former: String = set.iter().map(|(key, _)| script::former(key)).collect();
        former + &self.probe_script()
    }

    /// As [`script`](Self::script), for root on the same machine: where it can, it has what [`Options::near`] says run,
    /// and nothing is sent.
    pub fn root_script(&self, set: &[(String, String)]) -> String {
        let script = self.script(set);
        match &self.options.near {
            Some(near) => script::root(&script, near),
            None => script,
        }
    }

    /// As [`script`](Self::script), without a `$`.
    pub fn plain_script(&self, set: &[(String, String)]) -> String {
        script::plain(&self.script(set))
    }

    /// A word of 22 letters, digits, `_` and `-` that nobody can guess, and that tells nothing of the marker: it shows in
    /// a tool's arguments.
    pub fn token(&self) -> String {
        derived(&self.options.nonce, b"prompt")
    }

    /// Time passed that is nobody's fault: the stage's clock starts anew.
    pub fn restart_clock(&mut self, now: Instant) {
        self.deadline = now + self.options.stage_timeout;
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
        if machine == script::HERE
            && let Some(near) = self.options.near.take()
        {
            let line = script::start_near(&near, self.options.tree_tag.as_ref(), &self.options.process_name);
            let preamble = std::mem::take(&mut self.options.preamble);
            self.send(&[line.as_bytes(), &preamble]);
            self.noise = 0;
            self.state = State::Start { seen: self.seen() };
            return;
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
        let secrets = std::array::from_fn(|place| {
            let mut word = derived(&self.options.nonce, &[place as u8]);
            word.truncate(SECRET);
            word
        });
        script::Line {
            secrets: &secrets,
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
        Seen::new(&self.nonce, &self.options.hello_magic, self.options.hold == Hold::UntilReady)
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
