//! The master: the root of a tree, with the agents that it can send out.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use offshoot_connect::methods::{Doas, Local as LocalMethod, Method, Ssh, Su, Sudo};
use offshoot_node::{CONNECTS, Context, Error, Options, Pending, Root, Via, WorkerLimits, agent, process_name};

use offshoot_wire::{Failure, FailureKind};

use crate::agents::Agents;
use crate::group::{Results, waited};
use crate::identity::identity;
use crate::images::Images;
use crate::local::Local;
use crate::registry::{FUNCTIONS, Registry};

/// Whether `init` has run: then a process started from this program's file can become an agent.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// The longest heartbeat that can be asked for: a hello states it in milliseconds, in 32 bits.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long processes have between TERM and KILL when the tree ends.
const GRACE: Duration = Duration::from_secs(5);

/// Lets this program's own executable serve as the agent of local contexts, and as the worker in which remote functions
/// run. Call it first thing in `main`, before any
/// thread is started and before arguments are looked at.
///
/// In an ordinary process it raises the soft limit of descriptors to the hard one (a context costs four; what contexts
/// and tools are started with is the former limit) and returns. In a process that was started to become an agent or a worker it does not return.
///
/// # Examples
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     offshoot_program::init();
///     let master = offshoot_program::Master::new()?;
///     println!("{:?}", master.local().connect()?.info()?);
///     Ok(())
/// }
/// ```
pub fn init() {
    if agent::is_wanted() {
        // `exit` and not a return: nothing of the user's `main` may run in an agent.
        let program = agent::Program { identity, calls: Arc::new(Registry) };
        std::process::exit(agent::run_program(&program).into());
    }
    // Not to be had: then as many contexts as the limit allows.
    let _ = offshoot_mux::process::raise_descriptor_limit();
    INITIALIZED.store(true, Ordering::Relaxed);
}

pub(crate) fn can_become_agent() -> bool {
    INITIALIZED.load(Ordering::Relaxed)
}

/// Why nothing is started to be a worker, here or elsewhere: every image is of this program, and does what this `main` did.
///
/// # Errors
/// Without [`init`].
pub(crate) fn can_become_worker() -> Result<(), Failure> {
    if can_become_agent() {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Unsupported, "this program cannot become a worker")
        .hint("call `offshoot::init()` first thing in `main`"))
}

/// The root of a tree of contexts, in this process.
///
/// Starts one thread, the broker. May be shared between threads. Dropping it ends the tree and waits for that, at most
/// 7 s: see [`Master::shutdown`].
///
/// # Examples
///
/// ```no_run
/// # fn demo() -> Result<(), offshoot_node::Error> {
/// let master = offshoot_program::Master::new()?;
/// let jump = master.ssh("jump.example.org").connect()?;
/// let web = jump.ssh("web1").user("deploy").connect()?;
/// let output = web.command("uptime").output()?;
/// print!("{}", String::from_utf8_lossy(&output.stdout));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the tree"]
pub struct Master {
    root: Root,
    context: Context,
    agents: Arc<Agents>,
    images: Arc<Images>,
}

/// Options of a [`Master`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until `build` is called"]
pub struct Builder {
    agents_dir: Option<PathBuf>,
    own_image: bool,
    connects: usize,
    process_name: Option<String>,
    workers: WorkerLimits,
    route: offshoot_route::Config,
}

impl Builder {
    /// A folder to look for agents in, before all others.
    pub fn agents_dir(mut self, folder: impl Into<PathBuf>) -> Builder {
        self.agents_dir = Some(folder.into());
        self
    }

    /// Starts local contexts from this program's own executable even where an agent is at hand. A program with remote
    /// functions always does. For tests of the agent
    /// itself, and where a folder of agents may be of another build; it needs [`init`].
    pub fn own_image(mut self) -> Builder {
        self.own_image = true;
        self
    }

    /// How often the links of the tree carry a sign of life, and after how long without one the other end counts
    /// as lost; 5 s and 15 s by default. At least 1 ms and twice the heartbeat.
    pub fn heartbeat(mut self, heartbeat: Duration, silence: Duration) -> Builder {
        let heartbeat = heartbeat.clamp(Duration::from_millis(1), LONGEST);
        self.route.limits.heartbeat = heartbeat;
        self.route.limits.silence = silence.clamp(heartbeat * 2, LONGEST * 2);
        self
    }

    /// How many connects this process runs at once; 32 by default. More wait their turn.
    pub fn connect_limit(mut self, limit: usize) -> Builder {
        self.connects = limit.max(1);
        self
    }

    /// The limits of the workers in which remote functions run; see [`WorkerLimits`].
    pub fn worker_limits(mut self, limits: WorkerLimits) -> Builder {
        self.workers = limits;
        self
    }

    /// What the processes of all contexts are called in `ps`; `offshoot:USER@HOST:PID` of this process by default.
    /// Printable ASCII; other characters are replaced.
    pub fn process_name(mut self, name: impl Into<String>) -> Builder {
        self.process_name = Some(name.into());
        self
    }

    /// Starts the master. SIGPIPE is ignored in this process from then on, as Rust programs begin: its default action would end
    /// the program with the first context that is lost while something is written to it.
    ///
    /// # Errors
    /// When the process is out of descriptors or threads.
    ///
    /// # Exits
    /// Ends the process, with the reason on stderr, when it was started to become an agent or a worker and [`init`] was not called:
    /// an agent that behaves as a master would start agents without end.
    pub fn build(self) -> Result<Master, Error> {
        if agent::is_wanted() {
            eprintln!(
                "this process was started as an offshoot agent or worker: call `offshoot::init()` first thing in `main`"
            );
            std::process::exit(125);
        }
        let agents = Arc::new(Agents::new(self.agents_dir));
        let images = Arc::new(Images::new());
        let name = self.process_name.unwrap_or_else(process_name);
        // Only a context that was started from the program can start workers of it.
        let local = Local::new(Arc::clone(&agents), self.own_image || !FUNCTIONS.is_empty());
        let mut options = Options::new(Arc::new(local));
        options.route = self.route;
        options.connects = self.connects;
        options.payloads = Some(Arc::clone(&agents) as Arc<dyn offshoot_connect::Payloads>);
        options.images = Some(Arc::clone(&images) as Arc<dyn offshoot_node::Images>);
        options.workers = self.workers;
        options.process_name = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(255).collect();
        let root = Root::start(options)?;
        Ok(Master { context: root.context(), root, agents, images })
    }
}

impl Master {
    /// A master with the default options.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<Master, Error> {
        Master::builder().build()
    }

    /// Options to start a master with.
    pub fn builder() -> Builder {
        Builder {
            agents_dir: None,
            own_image: false,
            connects: CONNECTS,
            process_name: None,
            workers: WorkerLimits::default(),
            route: offshoot_route::Config::default(),
        }
    }

    /// A context on this machine, as this user. Call `connect` on it.
    pub fn local(&self) -> Via<LocalMethod> {
        self.context.local()
    }

    /// A context that this machine logs in to by ssh: `[user@]host[:port]`. Call `connect` on it.
    pub fn ssh(&self, target: impl AsRef<str>) -> Via<Ssh> {
        self.context.ssh(target)
    }

    /// A context of another user of this machine, by sudo. Call `connect` on it.
    pub fn sudo(&self, user: impl Into<String>) -> Via<Sudo> {
        self.context.sudo(user)
    }

    /// A context of another user of this machine, by su and that user's password. Call `connect` on it.
    pub fn su(&self, user: impl Into<String>) -> Via<Su> {
        self.context.su(user)
    }

    /// A context of another user of this machine, by doas. Call `connect` on it.
    pub fn doas(&self, user: impl Into<String>) -> Via<Doas> {
        self.context.doas(user)
    }

    /// Starts a context by a method or a recipe and waits for it.
    ///
    /// # Errors
    /// As [`Context::connect`].
    pub fn connect(&self, method: impl Method) -> Result<Context, Error> {
        self.context.connect(method)
    }

    /// Starts contexts side by side and waits for all; the results are in the order of the methods.
    pub fn connect_all<M: Method>(&self, methods: impl IntoIterator<Item = M>) -> Vec<Result<Context, Error>> {
        self.context.connect_all(methods)
    }

    /// The master as a context, for code that takes one: what it connects are the master's own children. Anything else
    /// asked of it is [`FailureKind::Unsupported`](offshoot_wire::FailureKind::Unsupported): for a program on this
    /// machine take `std::process`, or a [local](Self::local) context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The agents at hand.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Has the image of this program brought to contexts, so that the first calls there need not wait for it: over each
    /// link of the tree once, however many contexts lie behind it. Waits for all; the results are in the order of the
    /// contexts. Those on this machine that were started from the program itself need none.
    pub fn preload<'a>(&self, contexts: impl IntoIterator<Item = &'a Context>) -> Results<()> {
        waited(start_preload(contexts), None)
    }

    /// As [`preload`](Self::preload), waiting at most for `timeout` in all: what is not there by then is
    /// [`FailureKind::Timeout`](offshoot_wire::FailureKind::Timeout), and does not come.
    pub fn preload_timeout<'a>(
        &self,
        contexts: impl IntoIterator<Item = &'a Context>,
        timeout: Duration,
    ) -> Results<()> {
        let deadline = Instant::now().checked_add(timeout);
        waited(start_preload(contexts), deadline)
    }

    /// The images of this program at hand, by which its functions run on other machines.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Ends the tree: processes get TERM, after 5 s KILL, and all contexts end. Returns when all are gone, after 7 s at
    /// the latest. Calls that are under way end with an error, and so does whatever is asked from then on. Dropping the master
    /// does the same, and waits for the logger until it has taken all that came, for 2 s more at most.
    pub fn shutdown(&self) {
        self.shutdown_with_grace(GRACE);
    }

    /// As [`shutdown`](Self::shutdown), with another time between TERM and KILL; returns at the latest 2 s after that. Called
    /// while another is under way it hurries that one, if its time is shorter.
    pub fn shutdown_with_grace(&self, grace: Duration) {
        self.root.shutdown(grace);
    }
}

/// Asks all before the first is waited for.
fn start_preload<'a>(contexts: impl IntoIterator<Item = &'a Context>) -> Results<Pending<()>> {
    let program = identity();
    contexts
        .into_iter()
        .map(|context| match &program {
            Ok(program) => context.start_preload(*program),
            Err(failure) => Err(Error::new(failure.clone(), context.path())),
        })
        .collect()
}
