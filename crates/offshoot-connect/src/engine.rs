//! The engine that runs recipes: from plain data to a link whose other end has said hello.
//!
//! Owns the start of the tool, the pumping of its pipes through the [bootstrap](crate::bootstrap), the deadlines, the
//! reading of failures, and the clean-up. Must not know frames, the routing, or what the preamble says. Blocking: it
//! runs on a thread of the caller's, one connect at a time; it starts no thread of its own (but for the one per child
//! that [`offshoot_mux::Child`] needs on kernels without pidfd).

// A failure is made once per connect, and goes to the requester as it is: a box would only be unpacked again.
#![allow(clippy::result_large_err)]

mod classify;
mod executable;
mod local;
mod pump;
mod questions;
mod shell;
mod tool;

use std::ffi::OsString;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_mux::Child;
use offshoot_wire::{ChildHello, ConnectStage, ContentRef, Failure, FailureKind, Recipe, Start};

use crate::Cancel;
use crate::bundle::Bundle;
pub use executable::Executable;
pub use questions::{Asker, Reply, Terminal};

/// The first argument of a process that is to become an agent, whichever program it is. An argument and no variable of
/// the environment, so that what the agent starts does not inherit it.
pub const AGENT_ARGUMENT: &str = "offshoot-agent";

/// The first argument of a process that is to become a worker: an agent of its own that also runs the user's functions.
/// Its link is descriptors 0 and 1. The second, where there is one, is the identity of the program that it must be, in 64
/// hexadecimal digits.
pub const WORKER_ARGUMENT: &str = "offshoot-worker";

/// The second argument of an agent that is given its link as descriptors 0 and [`APART`], so that what it prints before it is
/// one goes where its errors go. Without it the link is 0 and 1.
pub const APART_ARGUMENT: &str = "apart";

/// What the agent of [`APART_ARGUMENT`] writes its link by.
pub const APART: i32 = 3;

/// How to start this context's own image, for local contexts.
///
/// The image is started with descriptors 0 and [`APART`] as the link, in a session of its own, with the [arguments](Self::arguments).
pub trait LocalImage: Send + Sync {
    /// The image.
    ///
    /// # Errors
    /// A [`Failure`] that says why there is none; it is returned as it is.
    fn image(&self) -> Result<Image<'_>, Failure>;

    /// The same image as an open file, from which root on the same machine may start it as well; `None` when it has none. It
    /// stays open, and the same, as long as this value.
    fn open(&self) -> Option<BorrowedFd<'_>> {
        match self.image() {
            Ok(Image::Open(file)) => Some(file),
            _ => None,
        }
    }

    /// The arguments behind `argv[0]`: [`AGENT_ARGUMENT`] and [`APART_ARGUMENT`] by default.
    fn arguments(&self) -> Vec<OsString> {
        vec![AGENT_ARGUMENT.into(), APART_ARGUMENT.into()]
    }

    /// The image of the user's program with this identity, for a worker. It is started with [`WORKER_ARGUMENT`] and with
    /// the link as descriptors 0 and 1. Called on a thread of the connect's own; may block for as long as a hash of the
    /// image takes.
    ///
    /// # Errors
    /// A [`Failure`] that says why there is none; it is returned as it is. A context that is no copy of the program has
    /// none.
    fn program(&self, _identity: &[u8; 32]) -> Result<Image<'_>, Failure> {
        Err(Failure::new(FailureKind::Unsupported, "this context has no image of the program")
            .hint("functions run in contexts that are started from the program itself"))
    }
}

/// An executable.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// A file by its path.
    Path(&'a Path),
    /// An open file, such as a sealed memfd: all that are started from it share its pages.
    Open(BorrowedFd<'a>),
}

/// Where the agents for other machines come from.
pub trait Payloads: Send + Sync {
    /// The agent for a target triple. May block, until the deadline at most; a cancellation should end it at once (see
    /// [`Cancel::subscribe`]).
    ///
    /// # Errors
    /// A [`Failure`] that says why there is none and what to do; it is returned as it is.
    fn bundle(&self, triple: &str, deadline: Instant, cancel: &Cancel) -> Result<Bundle, Failure>;

    /// Called at the start of a connect that may need an agent, with the triple if it is known already: the agent, if
    /// it is at hand without waiting. Where agents have to be fetched, this is the time to begin with the likely one: a
    /// login takes longer than that.
    fn at_hand(&self, _triple: Option<&str>) -> Option<Bundle> {
        None
    }

    /// An image of the user's program, fetched by its hash. Blocks as [`bundle`](Self::bundle) does.
    ///
    /// # Errors
    /// As [`bundle`](Self::bundle).
    fn executable(
        &self,
        _image: &ContentRef,
        _deadline: Instant,
        _cancel: &Cancel,
    ) -> Result<Arc<Executable>, Failure> {
        Err(Failure::new(FailureKind::Unsupported, "this context fetches no images of programs"))
    }
}

/// One connect.
pub struct Connecting<'a> {
    /// What to run.
    pub recipe: &'a Recipe,
    /// Random, for this connect alone; the child's hello must bring it back.
    pub nonce: [u8; 16],
    /// The first bytes to send on the link: the encoded parent hello, and first frames, which must hold no secret.
    pub preamble: Vec<u8>,
    /// A variable that everything below carries in its environment, and its value: by it what is left of a tree can be
    /// found.
    pub tree_tag: (&'a str, String),
    /// A variable that this context alone carries, with all that it starts and what these start, and its value. For
    /// contexts on the same machine: by it what is left of one can be found.
    pub context_tag: (&'a str, String),
    /// What the new process is called in `ps`: printable ASCII, not empty.
    pub process_name: &'a str,
    /// The image of local contexts.
    pub image: &'a dyn LocalImage,
    /// The agents for other machines.
    pub payloads: &'a dyn Payloads,
    /// Ends the connect within milliseconds.
    pub cancel: &'a Cancel,
    /// Who answers what the tool asks, where the recipe lets it; with `None` the first question ends the connect.
    pub asker: Option<&'a dyn Asker>,
    /// The name of the context that runs this connect, when it is not the master: for the hints of login errors.
    pub behind: Option<&'a str>,
}

impl fmt::Debug for Connecting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The preamble holds the child's key (S19).
        f.debug_struct("Connecting").field("recipe", &self.recipe.default_name()).finish_non_exhaustive()
    }
}

/// The descriptors of a link: non-blocking, closed on exec. Two pipes, of a tool or of a context on this machine: a call by
/// them costs three quarters of what it costs by a socket.
#[derive(Debug)]
pub struct LinkIo {
    /// From the child.
    pub read: OwnedFd,
    /// To the child.
    pub write: OwnedFd,
}

/// A link whose other end has said hello.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected {
    /// The link. All of the preamble has been written to it.
    pub link: LinkIo,
    /// The tool, or for a local context its supervisor: the leader of its own session and group. Dropping it kills it.
    pub child: Child,
    /// The tool's error output, non-blocking. It must be drained, or the tool stalls.
    pub stderr: OwnedFd,
    /// The tool's terminal, where its recipe gives it one.
    pub terminal: Option<Terminal>,
    /// The last of the error output so far, raw; at most 16 KiB.
    pub stderr_tail: Vec<u8>,
    /// What came from the link: the child's hello from its first byte on, and what came behind it.
    pub received: Vec<u8>,
    /// The hello, parsed, its nonce checked.
    pub hello: ChildHello,
    /// The protocol version that both ends speak.
    pub version: u16,
    /// The stages in order, with the microseconds from the start of the connect to the end of each.
    pub stages: Vec<(ConnectStage, u32)>,
}

/// Runs a recipe. It returns when the child has said hello, or when the connect failed, within the recipe's deadlines
/// and at most 2 s for the clean-up. While a question is open, the time for its answer runs instead of the deadlines.
///
/// # Errors
/// A [`Failure`] with its stage or reason as the kind, what was seen (raw: escape it for display) and what to do next.
/// Its stages are those of the connect, the last one that which failed.
/// The tool and its process group are ended and reaped, and every descriptor is closed. `ran` is
/// [`Ran::NotSent`](offshoot_wire::Ran::NotSent): there is no context that could have run anything.
pub fn connect(connecting: Connecting<'_>) -> Result<Connected, Failure> {
    let mut clock = Clock::new(connecting.recipe);
    let mut result = run(&connecting, &mut clock);
    let took = clock.now() / 1000;
    let name = connecting.recipe.default_name();
    match &mut result {
        Ok(_) => log::debug!("{name}: connected in {took} ms"),
        Err(failure) => {
            if failure.stages.is_empty() {
                failure.stages = clock.finish();
            }
            log::debug!("{name}: not connected after {took} ms: {}", failure.message);
        }
    }
    result
}

fn run(connecting: &Connecting<'_>, clock: &mut Clock) -> Result<Connected, Failure> {
    if connecting.cancel.is_cancelled() {
        return Err(classify::cancelled(ConnectStage::Start));
    }
    match &connecting.recipe.start {
        Start::Local => {
            let image = connecting.image.image()?;
            local::connect(connecting, image.into(), &connecting.image.arguments(), local::Ends::Apart, clock)
        }
        Start::Worker { program, image } => {
            let marker: OsString = WORKER_ARGUMENT.into();
            match (connecting.image.program(program), image) {
                // A copy of the program: nothing is to be fetched.
                (Ok(own), _) => local::connect(connecting, own.into(), &[marker], local::Ends::Standard, clock),
                (Err(failure), None) => Err(failure),
                (Err(_), Some(image)) => fetched_worker(connecting, program, image, marker, clock),
            }
        }
        Start::Shell { argv, env } => shell::connect(connecting, clock, argv, env),
    }
}

/// A worker from an image that comes from above.
fn fetched_worker(
    connecting: &Connecting<'_>,
    program: &[u8; 32],
    image: &ContentRef,
    marker: OsString,
    clock: &mut Clock,
) -> Result<Connected, Failure> {
    clock.enter(ConnectStage::Payload, Instant::now());
    let executable = connecting.payloads.executable(image, clock.deadline, connecting.cancel);
    if connecting.cancel.is_cancelled() {
        return Err(classify::cancelled(clock.stage));
    }
    let executable = executable?;
    clock.enter(ConnectStage::Agent, Instant::now());
    let mut arguments = vec![marker];
    // A build without a stamp is what its executable's hash says: that was compared when the image came.
    if image.hash != *program {
        arguments.push(hex(program).into());
    }
    local::connect(connecting, local::From::Made(&executable), &arguments, local::Ends::Standard, clock)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The deadlines of a connect and the times of its stages.
struct Clock {
    started: Instant,
    deadline: Instant,
    silence: Duration,
    stage: ConnectStage,
    stages: Vec<(ConnectStage, u32)>,
}

impl Clock {
    fn new(recipe: &Recipe) -> Clock {
        let started = Instant::now();
        Clock {
            started,
            deadline: started + Duration::from_millis(recipe.deadline_ms.into()),
            silence: Duration::from_millis(recipe.stage_ms.into()),
            stage: ConnectStage::Start,
            stages: Vec::new(),
        }
    }

    fn enter(&mut self, stage: ConnectStage, now: Instant) {
        if stage != self.stage {
            self.stages.push((self.stage, micros(now - self.started)));
            self.stage = stage;
        }
    }

    /// For so long a question was open: that time does not count.
    fn pause(&mut self, length: Duration) {
        self.deadline += length;
    }

    /// When to give up: at the whole's deadline, or when the stage was silent for too long.
    fn until(&self, heard: Instant) -> Instant {
        self.deadline.min(heard + self.silence)
    }

    /// The failure of giving up now.
    fn timeout(&self, now: Instant) -> Failure {
        if now >= self.deadline {
            classify::timeout(self.stage, "the whole connect took longer than", self.deadline - self.started)
        } else {
            classify::timeout(self.stage, "nothing came for", self.silence)
        }
    }

    /// The microseconds since the start.
    fn now(&self) -> u32 {
        micros(self.started.elapsed())
    }

    /// The failure of the stage that it is in, from before the clean-up, which takes time of its own.
    fn failed(&mut self, mut failure: Failure) -> Failure {
        failure.stages = self.finish();
        failure
    }

    /// All stages; the one that it is in ends now.
    fn finish(&mut self) -> Vec<(ConnectStage, u32)> {
        self.stages.push((self.stage, self.now()));
        std::mem::take(&mut self.stages)
    }
}

/// More than an hour is as good as an hour.
fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
