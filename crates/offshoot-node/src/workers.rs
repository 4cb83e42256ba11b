//! The workers that this process has started for its calls: one for each context and program.
//!
//! Whoever calls keeps them, since it learns of their end anyway; the agents above them know them as their children and
//! nothing more. A start blocks, so it has a thread; few at once, as many starts wait for the same login anyway.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_connect::Cancel;
use offshoot_connect::methods::Method;
use offshoot_route::ExchangeId;
use offshoot_wire::{
    Address, ConnectStage, ContentRef, Failure, FailureKind, ImageSpec, Recipe, ShutdownNotice, Start, Verb, channel,
    encode,
};

use crate::agent::ANOTHER_BUILD;
use crate::connecting::held;
use crate::error::os_failure;
use crate::fetching::FromAbove;
use crate::options::WorkerLimits;
use crate::services::NoRoom;
use crate::{Context, Error, Output, Pending, TRIPLE};

/// How many workers are started at once.
const STARTS: usize = 32;

/// How often is looked for room to attend a worker.
const ROOM: Duration = Duration::from_millis(5);

type Then = Box<dyn FnOnce(Result<Context, Error>) + Send>;

enum Worker {
    Starting(Vec<Then>),
    Up(Context),
}

struct Entry {
    /// The context whose worker it is.
    of: Address,
    program: [u8; 32],
    worker: Worker,
}

#[derive(Default)]
struct Table {
    /// In the order of their contexts and programs: each call looks here.
    entries: Vec<Entry>,
    queue: VecDeque<(Context, [u8; 32])>,
    threads: usize,
    /// The attendances of workers whose last handle was dropped.
    dropped: Vec<ExchangeId>,
    /// The contexts in which one is being started.
    starting: Vec<Address>,
    /// Those that were started and are not gone.
    alive: Vec<Address>,
}

/// The workers of this process.
#[derive(Default)]
pub(crate) struct Workers(Mutex<Table>);

impl Workers {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody has a handle to the worker with this attendance any more.
    pub(crate) fn let_go(&self, id: ExchangeId) {
        self.lock().dropped.push(id);
    }

    /// The attendances that are to end.
    pub(crate) fn take_dropped(&self) -> Vec<ExchangeId> {
        std::mem::take(&mut self.lock().dropped)
    }

    /// A place for one more in a context.
    fn reserve(&self, of: &Context, most: u32) -> Result<Place<'_>, Error> {
        let mut table = self.lock();
        let address = of.address();
        let starting = table.starting.iter().filter(|other| *other == address).count();
        let alive = table.alive.iter().filter(|worker| worker.parent().as_ref() == Some(address)).count();
        if starting + alive >= most as usize {
            let text = format!("{} workers of this program run there already, as many as may", starting + alive);
            let hint = "drop a worker of its own that is no longer needed, or set `WorkerLimits::count`";
            return Err(of.error(Failure::new(FailureKind::Busy, text).hint(hint)));
        }
        table.starting.push(address.clone());
        Ok(Place { workers: self, of: address.clone() })
    }

    /// Everything at or under an address has ended.
    pub(crate) fn gone(&self, prefix: &Address) {
        let mut table = self.lock();
        table.alive.retain(|worker| !worker.is_under(prefix));
        table.entries.retain(|entry| match &entry.worker {
            Worker::Up(worker) => !worker.address().is_under(prefix),
            // Its own thread will learn of it.
            Worker::Starting(_) => true,
        });
    }
}

/// A worker that is being started counts from the beginning.
struct Place<'a> {
    workers: &'a Workers,
    of: Address,
}

impl Place<'_> {
    /// It runs. Counted until it is gone.
    fn filled(self, worker: &Context) {
        self.workers.lock().alive.push(worker.address().clone());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut table = self.workers.lock();
        if let Some(at) = table.starting.iter().position(|other| *other == self.of) {
            table.starting.swap_remove(at);
        }
    }
}

impl Table {
    /// Where an entry is, or belongs.
    fn find(&self, of: &Address, program: &[u8; 32]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.of.cmp(of).then_with(|| entry.program.cmp(program)))
    }
}

/// How long a worker may take to start where its image has to come first: over any link that is of use.
const WITH_IMAGE: Duration = Duration::from_secs(15 * 60);

/// The recipe of a worker.
struct WorkerOf {
    program: [u8; 32],
    image: Option<ContentRef>,
    /// When it must be there, if whoever starts it says so.
    until: Option<Instant>,
}

impl Method for WorkerOf {
    fn recipe(&self) -> Result<Recipe, offshoot_connect::methods::RecipeError> {
        let start = Start::Worker { program: self.program, image: self.image };
        let mut recipe = Recipe::new("worker", "", start);
        if self.image.is_some() {
            recipe.deadline_ms = WITH_IMAGE.as_millis() as u32;
        }
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            recipe.deadline_ms = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
        }
        Ok(recipe)
    }
}

/// What was started said no hello: because it is of another build, or most likely because `main` did something else first. Looked at where the
/// failure arrives: agents need no code for it.
fn advised(error: Error) -> Error {
    let mut failure = error.failure().clone();
    let says = |text: &str| failure.seen.windows(text.len()).any(|part| part == text.as_bytes());
    if !matches!(
        failure.kind,
        FailureKind::Connect(ConnectStage::Hello) | FailureKind::StageTimeout(ConnectStage::Hello)
    ) {
        return error;
    }
    let advice = if says(ANOTHER_BUILD) {
        (failure.kind, failure.message) = (FailureKind::Unsupported, ANOTHER_BUILD.into());
        "build the program and its images for all targets in one go: `cargo offshoot build`"
    } else if failure.kind == FailureKind::Connect(ConnectStage::Hello) {
        "call `offshoot::init()` first thing in `main`; where that is so, the image could not run there: what it printed says more"
    } else {
        "call `offshoot::init()` first thing in `main`; where that is so, the image is stopped there, or the machine is overloaded"
    };
    Error::new(failure.hint(advice), error.path())
}

impl Context {
    /// Starts a worker below this context: a process of its own that runs the functions of the program with this
    /// identity. Each call makes another.
    ///
    /// # Errors
    /// As [`Context::connect`]; [`NoImage`](FailureKind::NoImage) when there is no image of the program for this context,
    /// [`Damaged`](FailureKind::Damaged) when a context on the way sent something else.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn new_worker(&self, program: [u8; 32]) -> Result<Context, Error> {
        let worker = self.start_worker(program, None)?;
        // What a context's functions say is said by that context.
        worker.speaks_as(self.path());
        self.attend(&worker, self.path(), self.shared().options.workers);
        Ok(worker)
    }

    /// As [`new_worker`](Self::new_worker), for a worker of its own: calls on what this yields run in it and nowhere else,
    /// its limits are given here, it is never idle for too long, and it ends when the last handle to it is dropped. It must
    /// have started `within` that time, if one is given.
    ///
    /// # Errors
    /// As [`new_worker`](Self::new_worker).
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn own_worker(
        &self,
        program: [u8; 32],
        limits: WorkerLimits,
        within: Option<Duration>,
    ) -> Result<Context, Error> {
        let worker = self.start_worker(program, within)?;
        let attendance = self.attend(&worker, worker.path(), WorkerLimits { idle: None, ..limits });
        Ok(worker.as_own_worker(attendance))
    }

    /// As [`own_worker`](Self::own_worker), with its stdout and stderr as streams instead of lines in the log. It ends when
    /// both are dropped.
    ///
    /// # Errors
    /// As [`new_worker`](Self::new_worker).
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn own_worker_streamed(
        &self,
        program: [u8; 32],
        limits: WorkerLimits,
        within: Option<Duration>,
    ) -> Result<(Context, Output, Output), Error> {
        let worker = self.start_worker(program, within)?;
        let spec = WorkerLimits { idle: None, ..limits }.spec();
        let asked = worker.ask(Verb::Attend, encode(&spec).into());
        if asked.is_err() || worker.grant().is_some() {
            // Gone already; or of its end nobody will tell, since it does not lie below this process: it is not counted.
            self.workers().gone(worker.address());
        }
        let exchange = Arc::new(asked?);
        let output = |channel| Output { exchange: Arc::clone(&exchange), channel, rest: Bytes::new() };
        Ok((worker.as_own_worker(None), output(channel::STDOUT), output(channel::STDERR)))
    }

    /// Ends a worker of its own at once, with all that its functions started; their calls end with its loss.
    ///
    /// # Errors
    /// [`Unsupported`](offshoot_wire::FailureKind::Unsupported) when this is no worker of its own.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn end_worker(&self) -> Result<(), Error> {
        if !self.is_own_worker() {
            let failure = Failure::new(FailureKind::Unsupported, "only a worker of its own can be ended by a call");
            return Err(self.error(failure));
        }
        let notice = ShutdownNotice { grace_ms: 0, kill_ms: 1500 };
        // Not waited for, and not taken back. An error means that it is gone: that is what is wanted.
        if let Ok(asked) = self.ask(Verb::Shutdown, encode(&notice).into()) {
            drop(asked.unwanted(drop));
        }
        Ok(())
    }

    /// Attends a worker that was just started; `None` where nothing of it comes home.
    fn attend(&self, worker: &Context, path: &str, limits: WorkerLimits) -> Option<ExchangeId> {
        let spec = limits.spec();
        loop {
            let asked = self.shared().with(|state, now| state.begin_attending(worker, path, &spec, now));
            match asked {
                Ok(id) => {
                    if id.is_none() {
                        // It is gone already: nothing else will tell.
                        self.workers().gone(worker.address());
                    }
                    return id;
                }
                // As many requests wait as may: those are answered, or lost with their link.
                Err(NoRoom) => std::thread::sleep(ROOM),
            }
        }
    }

    fn start_worker(&self, program: [u8; 32], within: Option<Duration>) -> Result<Context, Error> {
        let place = self.workers().reserve(self, self.shared().options.workers.count)?;
        let worker = self.connect_worker(program, within.and_then(|within| Instant::now().checked_add(within)))?;
        place.filled(&worker);
        Ok(worker)
    }

    fn connect_worker(&self, program: [u8; 32], until: Option<Instant>) -> Result<Context, Error> {
        if self.is_here() {
            // A copy of the program, as local contexts are, needs no image; it says so when it is none.
            let started = self.connect(WorkerOf { program, image: None, until });
            match &started {
                Err(error) if *error.kind() == FailureKind::Unsupported => {}
                Ok(_) | Err(_) => return started.map_err(advised),
            }
        }
        let image = self.image(&program, until).map_err(|failure| self.error(failure))?;
        self.connect(WorkerOf { program, image: Some(image), until }).map_err(advised)
    }

    /// Has the image of the program with this identity brought to this context, so that the first call there need not wait
    /// for it. A content that is there already costs a round trip; one that is not goes over each link once, however many
    /// contexts behind it want it.
    ///
    /// # Errors
    /// As [`new_worker`](Self::new_worker), and how the context was lost.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn preload(&self, program: [u8; 32]) -> Result<(), Error> {
        self.start_preload(program)?.wait()
    }

    /// As [`preload`](Self::preload), without waiting until it is there.
    ///
    /// # Errors
    /// When there is no image for this context, or it cannot be asked.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn start_preload(&self, program: [u8; 32]) -> Result<Pending<()>, Error> {
        let image = self.image(&program, None).map_err(|failure| self.error(failure))?;
        let spec = ImageSpec { hash: image.hash, keep: true };
        Ok(Pending::new(self.ask(Verb::Image, encode(&spec).into())?, |_| Ok(())))
    }

    /// The image for this context, which this process serves from now on, or asks for above.
    fn image(&self, program: &[u8; 32], until: Option<Instant>) -> Result<ContentRef, Failure> {
        let triple = self.hello().map_or(TRIPLE, |hello| &hello.triple);
        let shared = self.shared();
        match &shared.options.images {
            Some(images) => {
                let image = held(FailureKind::Unsupported, || images.image(program, triple, self.is_here()))?;
                let content = image.content;
                shared.with(|state, _| state.serve_image(image))?;
                Ok(content)
            }
            None => {
                let until = until.unwrap_or_else(|| Instant::now() + WITH_IMAGE);
                FromAbove::new(shared).image(program, triple, until, &Cancel::new())
            }
        }
    }

    /// Hands this process's worker in this context to `then`: at once when there is one, else when it is started, on
    /// another thread. One is started however many ask.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn with_worker(&self, program: [u8; 32], then: impl FnOnce(Result<Context, Error>) + Send + 'static) {
        if self.runs_calls() {
            return then(Ok(self.clone()));
        }
        let workers = self.workers();
        let mut table = workers.lock();
        let at = match table.find(self.address(), &program) {
            Ok(at) => match &mut table.entries[at].worker {
                Worker::Up(worker) => {
                    let worker = worker.clone();
                    drop(table);
                    return then(Ok(worker));
                }
                Worker::Starting(waiting) => return waiting.push(Box::new(then)),
            },
            Err(at) => at,
        };
        let worker = Worker::Starting(vec![Box::new(then)]);
        table.entries.insert(at, Entry { of: self.address().clone(), program, worker });
        table.queue.push_back((self.clone(), program));
        if table.threads >= STARTS {
            return;
        }
        let context = self.clone();
        match std::thread::Builder::new().name("offshoot-workers".into()).spawn(move || context.start_workers()) {
            Ok(_) => table.threads += 1,
            Err(_) if table.threads > 0 => {}
            Err(error) => {
                table.queue.pop_back();
                let entry = table.entries.remove(at);
                drop(table);
                let error = self.error(os_failure("no thread to start a worker", &error));
                if let Worker::Starting(waiting) = entry.worker {
                    waiting.into_iter().for_each(|then| then(Err(error.clone())));
                }
            }
        }
    }

    /// That worker is no longer to be used, in this context or any other.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn forget_worker(&self, worker: &Context) {
        self.workers().gone(worker.address());
    }

    fn start_workers(&self) {
        loop {
            let mut table = self.workers().lock();
            let Some((context, program)) = table.queue.pop_front() else {
                table.threads -= 1;
                return;
            };
            drop(table);
            let started = context.new_worker(program);
            let mut table = self.workers().lock();
            let Ok(at) = table.find(context.address(), &program) else { continue };
            let before = match &started {
                // One that was lost meanwhile is no longer told of: whoever waits finds out, and has another started.
                Ok(worker) if !table.alive.contains(worker.address()) => table.entries.remove(at).worker,
                Ok(worker) => std::mem::replace(&mut table.entries[at].worker, Worker::Up(worker.clone())),
                Err(_) => table.entries.remove(at).worker,
            };
            drop(table);
            if let Worker::Starting(waiting) = before {
                waiting.into_iter().for_each(|then| then(started.clone()));
            }
        }
    }
}
