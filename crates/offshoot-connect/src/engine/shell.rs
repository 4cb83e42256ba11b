//! Tools that lead to a shell: their pipes, driven through the bootstrap.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use offshoot_mux::{Interest, Spawn, io as fd, process, tree};
use offshoot_wire::{ChildHello, ConnectStage, Failure, Limits, ParsedHello, Start};

use super::classify::{self, Scene};
use super::pump::Pump;
use super::questions::Questions;
use super::tool::{LAST_WORDS, SIGCONT, Tool};
use super::{AGENT_ARGUMENT, APART_ARGUMENT, Clock, Connected, Connecting, LinkIo, LocalImage};
use crate::bootstrap::{Bootstrap, Event, Exit, Hold, Near, Options, Stage};
use crate::cut::replaced;

/// Between TERM and KILL: ssh ends at once, and what its other end guards ends with the connection.
const GRACE: Duration = Duration::from_millis(300);

/// What is read at a time: a pipe's size.
const BUFFER: usize = 64 << 10;

/// What is taken of a link before it is handed over: a hello and the first answers fit many times.
const RECEIVED: usize = 256 << 10;

pub(super) fn connect(
    connecting: &Connecting<'_>,
    clock: &mut Clock,
    argv: &[String],
    env: &[(String, String)],
) -> Result<Connected, Failure> {
    let recipe = connecting.recipe;
    let Some((program, args)) = argv.split_first() else {
        return Err(classify::malformed(&"the recipe has no command"));
    };
    // What is run from here need not be fetched.
    let near = if args.iter().any(|arg| arg == Start::ROOT_SCRIPT) { near(connecting.image) } else { None };
    let assume = match near {
        Some(_) => None,
        None => connecting.payloads.at_hand(recipe.triple.as_deref()),
    };
    let mut options = Options::new(connecting.nonce);
    let (key, value) = &connecting.tree_tag;
    options.tree_tag = Some(((*key).to_owned(), value.clone()));
    options.process_name = connecting.process_name.to_owned();
    options.args = vec![AGENT_ARGUMENT.to_owned()];
    options.stage_timeout = clock.silence;
    // Without a triple nothing can go at once; `Bootstrap` holds until the marker then.
    // Where nobody answers, the first question on a terminal is the end: nothing can take the payload for an answer.
    let asks = recipe.prompts.as_ref().is_some_and(|prompts| !prompts.terminal || connecting.asker.is_some());
    options.hold = if asks { Hold::UntilMarker } else { Hold::No };
    options.preamble = connecting.preamble.clone();
    options.assume = recipe.triple.as_ref().and(assume);
    options.near = near;
    let bootstrap = Bootstrap::new(options, Instant::now()).map_err(|error| classify::malformed(&error))?;

    let mut pump = Pump::new(connecting.cancel).map_err(prepare)?;
    let (stdin, to_tool) = fd::pipe().map_err(prepare)?;
    let (from_tool, stdout) = fd::pipe().map_err(prepare)?;
    let (stderr, errors) = fd::pipe().map_err(prepare)?;
    fd::set_nonblocking(&to_tool, true).map_err(prepare)?;
    fd::set_nonblocking(&from_tool, true).map_err(prepare)?;

    let token = bootstrap.token();
    let questions = match &recipe.prompts {
        Some(prompts) => Some(Questions::new(prompts, &token, connecting.asker, pump.waker()).map_err(prepare)?),
        None => None,
    };
    let args = args.iter().map(|arg| match arg.as_str() {
        Start::PROBE => bootstrap.probe_command(),
        Start::SCRIPT => bootstrap.script(env),
        Start::ROOT_SCRIPT => bootstrap.root_script(env),
        Start::PLAIN_SCRIPT => bootstrap.plain_script(env),
        arg => replaced(arg, Start::TOKEN, &token),
    });
    let mut spawn = Spawn::new(program.as_str()).args(args).env(*key, value);
    for (key, value) in env {
        spawn = spawn.env(key, value);
    }
    // A session of its own (S16): without a terminal, so that a prompt has nobody to ask and fails at once, or with one
    // of its own.
    let spawn = match questions.as_ref().and_then(Questions::slave) {
        Some(slave) => spawn.controlling_terminal(slave),
        None => spawn.session(),
    };
    let child = spawn.death_signal(SIGCONT).stdin(stdin).stdout(stdout).stderr(errors).start();
    let child = child.map_err(|error| classify::tool_error(program, &error))?;
    let tool = Tool::new(child, stderr, GRACE).map_err(prepare)?;
    // Bound after the tool, so closed before it is ended.
    let (from_tool, to_tool) = (from_tool, to_tool);

    pump.add(from_tool.as_fd(), Interest::Read).map_err(prepare)?;
    pump.add(to_tool.as_fd(), Interest::Write).map_err(prepare)?;
    if let Some(stderr) = tool.stderr() {
        pump.add(stderr.as_fd(), Interest::Read).map_err(prepare)?;
    }
    if let Some(Ok(exit)) = tool.child().map(|child| child.exit_fd()) {
        pump.add(exit, Interest::Read).map_err(prepare)?;
    }
    if let Some(master) = questions.as_ref().and_then(Questions::master) {
        pump.add(master, Interest::Read).map_err(prepare)?;
    }
    let mut session = Session {
        write: Some(to_tool),
        read: Some(from_tool),
        tool,
        questions,
        paused: None,
        connecting,
        bootstrap,
        clock,
        piece: Bytes::new(),
        said: Vec::new(),
        received: None,
        heard: Instant::now(),
        silent_since: None,
        more: false,
    };
    let mut buffer = vec![0; BUFFER];
    loop {
        match session.turn(&mut buffer) {
            Ok(Some(hello)) => return session.finish(hello),
            Ok(None) => {}
            Err(failure) => return Err(session.clock.failed(failure)),
        }
        if !session.more {
            pump.wait(session.until()).map_err(prepare)?;
        }
    }
}

fn prepare(error: io::Error) -> Failure {
    classify::os_error(ConnectStage::Start, "cannot prepare the connection tool", &error)
}

/// Where a shell of root on this machine finds the image of local contexts; `None` where it cannot, or where the `/proc` that is
/// there is another pid namespace's: our number is somebody else's in it.
fn near(image: &dyn LocalImage) -> Option<Near> {
    let file = image.open()?.as_raw_fd();
    let own = tree::Proc::of(process::id()).filter(tree::Proc::is_self)?;
    Some(Near { process: own.pid, started: own.start_time, file, args: [AGENT_ARGUMENT, APART_ARGUMENT] })
}

/// The state of one connect. The pipes come first: they are closed before the tool is ended.
struct Session<'a> {
    /// To the tool's stdin; `None` when the tool reads no more.
    write: Option<OwnedFd>,
    /// From the tool's stdout; `None` at its end.
    read: Option<OwnedFd>,
    tool: Tool,
    /// `None` where the tool can ask nothing. Closed after the tool has ended, which the end of its terminal would hang
    /// up.
    questions: Option<Questions<'a>>,
    /// Since when the requester has a question.
    paused: Option<Instant>,
    connecting: &'a Connecting<'a>,
    bootstrap: Bootstrap,
    clock: &'a mut Clock,
    /// What is being written.
    piece: Bytes,
    /// The last of the tool's output, for errors.
    said: Vec<u8>,
    /// What came from the hello on.
    received: Option<Vec<u8>>,
    /// When the last byte of that came.
    heard: Instant,
    /// When the output ended.
    silent_since: Option<Instant>,
    /// There may be more to read at once.
    more: bool,
}

impl Session<'_> {
    /// Does all that can be done without waiting. The hello, once it is there and all of the preamble is sent.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<Option<ParsedHello<ChildHello>>, Failure> {
        if self.connecting.cancel.is_cancelled() {
            return Err(classify::cancelled(self.clock.stage));
        }
        // Before the reading: what an ended tool wrote is in the pipe by now.
        let exit = self.tool.exit();
        let questions = &mut self.questions;
        self.more = self.tool.hear(buffer, |bytes| {
            if let Some(questions) = questions {
                questions.hear(bytes);
            }
        });
        self.read(buffer);
        while let Some(event) = self.bootstrap.poll_event() {
            self.event(event)?;
        }
        self.clock.enter(self.stage(self.bootstrap.stage()), Instant::now());
        if let Some(received) = &self.received
            && let Some(hello) = classify::hello(received, &self.connecting.nonce)?
            && self.write()
        {
            return Ok(Some(hello));
        }
        self.write();
        let asking = self.ask(exit, buffer)?;
        let now = Instant::now();
        if self.is_over(exit, now) {
            return Err(self.over(exit, buffer));
        }
        if asking {
            return Ok(None);
        }
        self.bootstrap.handle_timeout(now);
        if let Some(event) = self.bootstrap.poll_event() {
            self.event(event)?;
        }
        if now >= self.clock.deadline || (self.received.is_some() && now >= self.clock.until(self.heard)) {
            return Err(self.scene(exit).given_up(self.clock.timeout(now)));
        }
        Ok(None)
    }

    /// Goes on with the tool's questions. Whether one is open: then no deadline but its own runs.
    fn ask(&mut self, exit: Option<ExitStatus>, buffer: &mut [u8]) -> Result<bool, Failure> {
        let over = self.received.is_some() || self.bootstrap.stage() != Stage::Login;
        let Some(questions) = &mut self.questions else { return Ok(false) };
        self.more |= questions.read(buffer);
        if over {
            questions.close();
        }
        // Before the marker nothing of ours is under way to the tool's stdin. ssh asks by others, too: the ssh that leads to a
        // jump host; and whom it leads to is on another machine.
        let recipe = self.connecting.recipe;
        let alone = || match (self.tool.child(), &recipe.start) {
            _ if recipe.method == "ssh" => true,
            (Some(child), Start::Shell { argv, .. }) => {
                argv.first().is_some_and(|program| tree::runs_alone(child.pid(), program))
            }
            _ => false,
        };
        if let Err(refused) = questions.turn(self.write.as_ref(), alone) {
            return Err(refused.failure(&self.scene(exit)));
        }
        let asking = questions.is_asking();
        let now = Instant::now();
        if asking {
            self.paused.get_or_insert(now);
        } else if let Some(since) = self.paused.take() {
            self.clock.pause(now - since);
            self.bootstrap.restart_clock(now);
        }
        Ok(asking)
    }

    /// Reads once from the tool.
    fn read(&mut self, buffer: &mut [u8]) {
        let Some(read) = &self.read else { return };
        // The hello is there, and what we have to send is not taken: the pipe keeps the rest.
        if self.received.as_ref().is_some_and(|received| received.len() >= RECEIVED) {
            return;
        }
        match fd::read(read, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => self.read = None,
            Ok(n) => {
                self.more = true;
                let bytes = &buffer[..n];
                self.heard = Instant::now();
                match &mut self.received {
                    Some(received) => received.extend_from_slice(bytes),
                    None => {
                        self.said.extend_from_slice(bytes);
                        let excess = self.said.len().saturating_sub(Limits::SEEN);
                        self.said.drain(..excess);
                        self.bootstrap.handle_bytes(bytes, self.heard);
                    }
                }
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::NeedBundle { triple, .. } => {
                self.clock.enter(ConnectStage::Payload, Instant::now());
                let Connecting { payloads, cancel, .. } = self.connecting;
                let bundle = payloads.bundle(triple, self.clock.deadline, cancel);
                if cancel.is_cancelled() {
                    return Err(classify::cancelled(self.clock.stage));
                }
                self.bootstrap.provide(&bundle?, Instant::now());
                Ok(())
            }
            Event::Started { rest } => {
                self.received = Some(rest);
                Ok(())
            }
            Event::Failed(error) => {
                self.clock.enter(self.stage(error.stage), Instant::now());
                let exit = self.tool.exit();
                Err(self.scene(exit).failed(&error))
            }
        }
    }

    fn stage(&self, stage: Stage) -> ConnectStage {
        match stage {
            _ if self.received.is_some() => ConnectStage::Hello,
            // The first byte on its output means that the login's shell runs.
            Stage::Login if self.said.is_empty() => ConnectStage::Login,
            Stage::Login => ConnectStage::Probe,
            Stage::Agent => ConnectStage::Payload,
            Stage::Place | Stage::Start => ConnectStage::Agent,
        }
    }

    /// Writes what the tool takes. Whether all is written.
    fn write(&mut self) -> bool {
        loop {
            if self.piece.is_empty() {
                match self.bootstrap.poll_output(Instant::now()) {
                    Some(piece) => self.piece = piece,
                    None => return true,
                }
            }
            let Some(write) = &self.write else { return false };
            match fd::write(write, &self.piece) {
                Ok(n) => self.piece.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // It reads no more. Its output or its end says why.
                Err(_) => self.write = None,
            }
        }
    }

    /// Whether nothing can come any more, or the tool had its time to end after its output did.
    fn is_over(&mut self, exit: Option<ExitStatus>, now: Instant) -> bool {
        if self.read.is_none() {
            let since = *self.silent_since.get_or_insert(now);
            exit.is_some() || now >= since + LAST_WORDS
        } else {
            // Something else still holds the pipe, but what the tool wrote has been read.
            exit.is_some() && !self.more
        }
    }

    fn over(&mut self, exit: Option<ExitStatus>, buffer: &mut [u8]) -> Failure {
        let exit = exit.or_else(|| self.tool.last_words(buffer));
        if self.received.is_some() {
            return self.scene(exit).cut();
        }
        self.bootstrap.handle_eof(match exit {
            Some(status) => match status.code() {
                Some(code) => Exit::Code(code),
                None => status.signal().map_or(Exit::Unknown, Exit::Signal),
            },
            None => Exit::Unknown,
        });
        match self.bootstrap.poll_event() {
            Some(Event::Failed(error)) => {
                self.clock.enter(self.stage(error.stage), Instant::now());
                self.scene(exit).failed(&error)
            }
            _ => self.scene(exit).cut(),
        }
    }

    fn scene(&self, exit: Option<ExitStatus>) -> Scene<'_> {
        Scene {
            recipe: self.connecting.recipe,
            behind: self.connecting.behind,
            stage: self.clock.stage,
            exit,
            stdout: &self.said,
            stderr: self.tool.tail(),
            terminal: self.questions.as_ref().map_or(&[], Questions::unanswered),
            answered: self.questions.as_ref().map_or(&[], Questions::answered),
        }
    }

    /// When [`turn`](Self::turn) has something to do though nothing happens.
    fn until(&self) -> Instant {
        let question = self.questions.as_ref().and_then(Questions::poll_timeout);
        let last = self.silent_since.map(|since| since + LAST_WORDS);
        if self.paused.is_some() {
            // Without one of these it would be open for ever: it has a deadline while it is open.
            return [question, last].into_iter().flatten().min().unwrap_or(self.clock.deadline);
        }
        let stage = match self.received {
            Some(_) => Some(self.heard + self.clock.silence),
            None => self.bootstrap.poll_timeout(),
        };
        [stage, last, question].into_iter().flatten().fold(self.clock.deadline, Instant::min)
    }

    fn finish(self, hello: ParsedHello<ChildHello>) -> Result<Connected, Failure> {
        let Session { write, read, tool, questions, clock, received, connecting, .. } = self;
        let terminal = questions.and_then(Questions::into_terminal);
        match (read, write, received) {
            (Some(read), Some(write), Some(received)) => {
                tool.into_connected(LinkIo { read, write }, terminal, received, hello, clock)
            }
            // One direction has ended already: there is no link.
            _ => Err(classify::ended(ConnectStage::Hello, &connecting.recipe.method, None)),
        }
    }
}
