//! A process that becomes an agent: two processes from one image, the guard and the node.
//!
//! The process that the connection tool started stays as the *supervisor*, since ssh's server, sudo and container tools
//! wait for exactly that one; its child is the *agent*. Each watches the other, and whichever survives ends everything
//! that descends from the two. Runs before any other thread of the process.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_connect::{AGENT_ARGUMENT, APART, APART_ARGUMENT, WORKER_ARGUMENT};
use offshoot_mux::process::{self, Fork, argument};
use offshoot_mux::{Interest, Poller, Signals, io as fd, wait_readable};
use offshoot_route::{Node, Time};
use offshoot_wire::{Hello, ParentHello, ParsedHello, parse_hello};

use crate::home::{Home, Homecoming};
use crate::image::Identity;
use crate::link::LinkFds;
use crate::links::NewLink;
use crate::options::{CONNECTS, Options, WorkerLimits};
use crate::services::{CallService, Calls, Identity as Own, LaneService, Lanes, Outlet, WORKING, Working, Workshop};
use crate::shared::Shared;
use crate::sources::Source;
use crate::state::{State, Timer};
use crate::{OwnImage, broker, identity, records, supervise};

/// How long the parent has for its hello: it sends it together with the agent itself.
const HELLO: Duration = Duration::from_secs(10);

/// What an agent that cannot even start exits with: as of a usage error.
const FAILED: u8 = 125;

/// Whether this process was started to become an agent or a worker.
pub fn is_wanted() -> bool {
    argument(1).is_some_and(|argument| argument == AGENT_ARGUMENT || argument == WORKER_ARGUMENT)
}

/// What a process becomes. A type for each, so that what one does not need is not linked into its program.
trait Role {
    fn image(&self) -> OwnImage;

    /// The service of calls; `outputs` are the reading ends of the standard streams, for a worker.
    fn calls(&self, outputs: Option<[OwnedFd; 2]>) -> Option<Box<dyn CallService>>;

    /// What takes the output of workers that this process starts.
    fn home(&self, _shared: &Arc<Shared>) -> Option<Box<dyn Homecoming>> {
        None
    }

    /// What serves the ends of channels that were handed over.
    fn lanes(&self) -> Option<Box<dyn LaneService>> {
        None
    }

    /// What only a worker does.
    fn working(&self) -> Option<&'static Working> {
        None
    }

    /// Whether processes of the user's code run here, which waits for them itself: what they leave behind is adopted by
    /// the supervisor, and nothing else is reaped.
    fn has_users_processes(&self) -> bool {
        false
    }
}

/// The agent that is sent to targets.
struct Agent;

impl Role for Agent {
    fn image(&self) -> OwnImage {
        OwnImage::new()
    }

    fn calls(&self, _outputs: Option<[OwnedFd; 2]>) -> Option<Box<dyn CallService>> {
        None
    }
}

/// A program of the user's that is started as an agent or a worker.
#[derive(Clone)]
pub struct Program {
    /// Which program it is.
    pub identity: Identity,
    /// Its functions.
    pub calls: Arc<dyn Calls>,
}

/// A copy of the program.
struct Copied<'a> {
    program: &'a Program,
    /// It is to run the functions. Asked at the start: what the process is called later takes the place of its arguments.
    worker: bool,
}

impl Role for Copied<'_> {
    fn image(&self) -> OwnImage {
        OwnImage::of_program(self.program.identity)
    }

    fn calls(&self, outputs: Option<[OwnedFd; 2]>) -> Option<Box<dyn CallService>> {
        let outlet = Outlet::new(outputs?);
        self.worker.then(|| Box::new(Workshop::new(Arc::clone(&self.program.calls), outlet)) as Box<dyn CallService>)
    }

    fn home(&self, shared: &Arc<Shared>) -> Option<Box<dyn Homecoming>> {
        self.worker.then(|| Box::new(Home::new(shared, false).0) as Box<dyn Homecoming>)
    }

    fn lanes(&self) -> Option<Box<dyn LaneService>> {
        self.worker.then(|| Box::<Lanes>::default() as Box<dyn LaneService>)
    }

    fn working(&self) -> Option<&'static Working> {
        self.worker.then_some(&WORKING)
    }

    fn has_users_processes(&self) -> bool {
        self.worker
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

/// Becomes an agent: the link is descriptors 0 and 1, or 0 and [`APART`] when its second argument says so. Returns when the link has ended and
/// everything below is gone, with the status to exit with.
///
/// Must be called on the main thread before any other is started; everything that `main` would do comes after, and so
/// never, in such a process.
pub fn run() -> u8 {
    run_as(&Agent)
}

/// As [`run`], in a program of the user's: becomes an agent that can start workers of it, or such a worker, as the
/// arguments say.
pub fn run_program(program: &Program) -> u8 {
    let worker = argument(1).is_some_and(|argument| argument == WORKER_ARGUMENT);
    if worker
        && let Some(wanted) = argument(2)
        && let Err(why) = is_build(program, &wanted)
    {
        // Seen by whoever asked for it: the connect fails with what is said here.
        eprintln!("offshoot worker: {why}");
        return FAILED;
    }
    run_as(&Copied { program, worker })
}

/// What a worker says that is not of the build that is wanted; whoever called knows it by that.
pub(crate) const ANOTHER_BUILD: &str = "the image is of another build of the program";

/// Whether this is the build that is wanted, by the identity that the worker's parent was told (S11).
fn is_build(program: &Program, wanted: &OsStr) -> Result<(), String> {
    let own = (program.identity)().map_err(|failure| failure.message.clone())?;
    let own: String = own.iter().map(|byte| format!("{byte:02x}")).collect();
    if wanted == &*own {
        return Ok(());
    }
    Err(ANOTHER_BUILD.into())
}

fn run_as(role: &impl Role) -> u8 {
    let second = argument(2).unwrap_or_default();
    if second == "t" {
        // Whether it can be run was all that was to be known.
        return 0;
    }
    if let Some(name) = argument(3) {
        let _ = process::set_process_name(&name);
    }
    let apart = second == APART_ARGUMENT;
    match start(apart, role) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("offshoot agent: cannot start: {error}");
            FAILED
        }
    }
}

fn start(apart: bool, role: &impl Role) -> io::Result<u8> {
    offshoot_mux::reset_all_signals();
    offshoot_mux::ignore_sigpipe();
    let guards = supervise::Guards::new()?;
    let fds = take_link(apart)?;
    // The folder it was started from must not be held; the home of what it starts is asked for each time.
    std::env::set_current_dir("/")?;
    // A dump would hold other contexts' data. No boundary against the same user.
    process::set_dumpable(false)?;
    adopt_orphans();
    // As many contexts below as the system allows; what is started here gets the login's own limit back.
    let _ = process::raise_descriptor_limit();
    let outputs = if role.has_users_processes() { Some(Outputs::new()?) } else { None };
    let supervisor = process::id();
    match process::fork_single_threaded()? {
        Fork::Parent(agent) => {
            drop(fds);
            // What a crashed worker had written last is still in its pipes: the guard has them too.
            let rest = outputs.map(|outputs| outputs.read);
            Ok(supervise::supervise(agent, guards, rest.as_ref().map_or(&[], |rest| &rest[..])))
        }
        Fork::Child => {
            let (watchdog, guard) = guards.agent(supervisor)?;
            // Behind a login, whose program has our standard streams.
            let relayed = !apart && !role.has_users_processes();
            serve(fds, relayed, watchdog, guard, supervisor, outputs, role)?;
            Ok(0)
        }
    }
}

/// Linux before 3.4 refuses, and so does qemu-user. All the rest of the guards' work can be done there; what daemonized is
/// not found at the end: `docs/security.md`.
fn adopt_orphans() {
    let _ = process::set_child_subreaper();
}

/// The pipes that are a worker's standard output and error output, made before the fork.
struct Outputs {
    read: [OwnedFd; 2],
    write: [OwnedFd; 2],
}

impl Outputs {
    fn new() -> io::Result<Outputs> {
        let (out, err) = (fd::pipe()?, fd::pipe()?);
        fd::set_nonblocking(&out.0, true)?;
        fd::set_nonblocking(&err.0, true)?;
        Ok(Outputs { read: [out.0, err.0], write: [out.1, err.1] })
    }

    /// Puts the writing ends in their places, where nothing but this worker and what it starts holds them.
    fn place(self) -> io::Result<[OwnedFd; 2]> {
        fd::set_standard_outputs(&self.write[0], &self.write[1])?;
        Ok(self.read)
    }
}

/// Takes the link's descriptors and puts the null device in their places.
fn take_link(apart: bool) -> io::Result<LinkFds> {
    let write = if apart { fd::take_passed(APART)? } else { fd::dup_cloexec(io::stdout())? };
    let fds = LinkFds { read: fd::dup_cloexec(io::stdin())?, write };
    fd::detach_standard_streams()?;
    Ok(fds)
}

/// The agent proper: greets, runs the node until the link ends, and sweeps.
fn serve(
    fds: LinkFds,
    relayed: bool,
    mut watchdog: supervise::Watchdog,
    guard: OwnedFd,
    supervisor: u32,
    outputs: Option<Outputs>,
    role: &impl Role,
) -> io::Result<()> {
    process::setsid()?;
    if !role.has_users_processes() {
        // Not inherited by the fork: what runs below is adopted by the nearer of the two guards.
        adopt_orphans();
    }
    let signals = Signals::new(&supervise::SIGNALS)?;
    let mut received = Vec::new();
    let parent = read_hello(&fds, &guard, &mut received)?;
    let ParsedHello { hello, length, .. } = parent;
    received.drain(..length);
    let _ = process::set_process_name(&hello.process_name);

    let mut greeting = Vec::new();
    let own = identity::hello(hello.nonce);
    own.put(&mut greeting);
    fd::write_all(&fds.write, &greeting, Some(Instant::now() + HELLO))?;

    let mut route = offshoot_route::Config::default();
    // What its parent was told holds for the links below, too.
    route.limits.heartbeat = Duration::from_millis(u64::from(hello.heartbeat_ms.max(1)));
    route.limits.silence = Duration::from_millis(u64::from(hello.silence_ms.max(2)));
    let options = Options {
        route,
        connects: CONNECTS,
        image: Arc::new(role.image()),
        payloads: None,
        images: None,
        process_name: hello.process_name.clone(),
        workers: WorkerLimits::default(),
    };
    let mut poller = Poller::new()?;
    let started = Instant::now();
    let (core, link) = Node::child(options.route.clone(), &hello, Time::from_micros(0));
    let mut state = State::new(core);
    state.services.connects.set_tree_tag(&hello.tree);
    state.services.identity = Some(Own { name: hello.name.clone(), path: hello.path.clone(), hello: own });
    let outputs = outputs.map(Outputs::place).transpose()?;
    state.services.calls = role.calls(outputs);
    state.services.working = role.working();
    state.services.lanes = role.lanes();
    state.services.reaper = (!role.has_users_processes()).then_some(offshoot_mux::Reaper);
    let registry = poller.registry();
    let token = state.sources.insert(Source::Signals);
    registry.add(signals.as_fd(), token, Interest::Read)?;
    state.services.signals = Some(signals);
    let token = state.sources.insert(Source::Guard);
    registry.add(guard.as_fd(), token, Interest::Read)?;
    if let Some(calls) = &mut state.services.calls {
        for index in 0..2 {
            let token = state.sources.insert(Source::Output(index));
            registry.add(calls.outlet().fd(index), token, Interest::Read)?;
        }
    }
    records::start(poller.waker(), hello.log);
    watchdog.set_silence(Duration::from_millis(u64::from(hello.silence_ms)));
    state.services.watchdog = Some(watchdog);
    state.after(Duration::ZERO, Timer::Watchdog);

    let shared = Arc::new(Shared::new(state, registry, poller.waker(), options, started));
    shared.lock().services.home = role.home(&shared);
    let new = NewLink { fds, received, tool: None, child: None, tag: String::new(), guard: false, relayed };
    shared.with(|state, now| state.adopt(&shared, link, new, now))?;
    let reason = broker::run(&shared, &mut poller);
    log::debug!("the agent ends: {reason}");
    drop(guard);
    if let Some(watchdog) = shared.lock().services.watchdog.take() {
        watchdog.last();
    }
    supervise::sweep();
    // A guard that was stopped would stay for ever, where nobody else can reach it. An error means that it is gone.
    let _ = process::signal_parent(supervisor, supervise::SIGCONT);
    Ok(())
}

/// Reads the parent's hello and whatever came with it.
fn read_hello(fds: &LinkFds, guard: &OwnedFd, received: &mut Vec<u8>) -> io::Result<ParsedHello<ParentHello>> {
    let read = &fds.read;
    let deadline = Instant::now() + HELLO;
    let mut buffer = [0; 16 * 1024];
    loop {
        match parse_hello(received) {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no hello from the parent"));
        }
        let ready = wait_readable(&[read.as_fd(), guard.as_fd()], Some(left))?;
        if ready.has(1) {
            return Err(io::Error::other("the supervisor is gone"));
        }
        if ready.is_empty() {
            continue;
        }
        match fd::read(read, &mut buffer) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the link ended before the parent's hello")),
            Ok(n) => received.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use offshoot_wire::Failure;

    use super::*;
    use crate::Invocation;

    struct None_;

    impl Calls for None_ {
        fn call(&self, _: &Invocation) -> Result<Vec<u8>, Failure> {
            unreachable!("nothing is called")
        }
    }

    #[test]
    fn s11_a_worker_is_of_the_build_that_is_wanted_or_says_so() {
        let program = Program { identity: || Ok([0xa1; 32]), calls: Arc::new(None_) };
        assert_eq!(is_build(&program, OsStr::new(&"a1".repeat(32))), Ok(()));
        for other in ["", "a1", &"a2".repeat(32), &"A1".repeat(32)] {
            let why = is_build(&program, OsStr::new(other)).expect_err("another build");
            assert!(why.contains("another build"), "{why}");
        }
    }
}
