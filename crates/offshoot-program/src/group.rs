//! Groups of contexts, which take every verb that one takes.
//!
//! Owns how a verb is put to many at once: what can be asked without waiting is asked of all before the first answer is awaited,
//! everything else goes side by side on threads that last as long as the verb. Must not know what a verb does.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use offshoot_connect::methods::{Doas, Local, Method, Ssh, Su, Sudo};
use offshoot_node::{Command, Context, Error, ExitStatus, Finished, Pending, Process, Stdio, Terminal, Via};
use offshoot_wire::{ContentStats, NodeInfo};

use crate::{Call, PendingCall, Select};

/// How many threads wait side by side at most: as many as connects run at once.
const THREADS: usize = offshoot_node::CONNECTS;

/// What became of a verb in each context of a group, in the order of the contexts: one that failed hides no other. An error's
/// [`path`](Error::path) says where.
pub type Results<T> = Vec<Result<T, Error>>;

/// Several contexts. What one context takes, a group takes for all of them: its methods have the names of
/// [`Context`]'s, and yield a result for each, in the order of the contexts.
///
/// Remote functions: [`Call::on_each`] and [`Call::start_each`]. Where a context is asked for, as by
/// [`Master::preload`](crate::Master::preload), a group is an iterator of them. For everything else there is [`each`](Self::each).
///
/// # Examples
///
/// ```no_run
/// use offshoot_program::{Group, Master};
/// # fn demo(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
/// let jump = master.ssh("jump.example.org").connect()?;
/// let (web, failed) = Group::of_results(jump.connect_all(["web1", "web2"].map(offshoot_connect::methods::Ssh::to)));
/// failed.iter().for_each(|error| eprintln!("{error}"));
/// let (roots, _) = Group::of_results(web.sudo("root").connect());
/// for (context, output) in roots.iter().zip(roots.command("df").arg("-h").output()) {
///     println!("{context}: {}", String::from_utf8_lossy(&output?.stdout));
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Group(Vec<Context>);

impl Group {
    /// These contexts.
    pub fn of(contexts: impl IntoIterator<Item = Context>) -> Group {
        Group(contexts.into_iter().collect())
    }

    /// Those that came, and the errors of the others.
    pub fn of_results(results: impl IntoIterator<Item = Result<Context, Error>>) -> (Group, Vec<Error>) {
        let (mut came, mut errors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(context) => came.push(context),
                Err(error) => errors.push(error),
            }
        }
        (Group(came), errors)
    }

    /// The contexts, in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Context> {
        self.0.iter()
    }

    /// How many contexts it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does the same with each context, side by side, at most 32 at once, and waits for all. The results are in the order of the
    /// contexts. A panic of `verb` goes on here when the others have ended.
    pub fn each<T: Send>(&self, verb: impl Fn(&Context) -> T + Sync) -> Vec<T> {
        side_by_side(self.0.iter().collect(), verb)
    }

    fn with<T>(&self, make: impl FnMut(&Context) -> T) -> Each<T> {
        Each(self.0.iter().map(make).collect())
    }

    /// A local context below each; see [`Context::local`].
    pub fn local(&self) -> Each<Via<Local>> {
        self.with(Context::local)
    }

    /// A context that each logs in to by ssh; see [`Context::ssh`].
    pub fn ssh(&self, target: impl AsRef<str>) -> Each<Via<Ssh>> {
        self.with(|context| context.ssh(&target))
    }

    /// A context of another user of each one's machine, by sudo.
    pub fn sudo(&self, user: impl Into<String>) -> Each<Via<Sudo>> {
        let user = user.into();
        self.with(|context| context.sudo(&*user))
    }

    /// A context of another user of each one's machine, by su and that user's password.
    pub fn su(&self, user: impl Into<String>) -> Each<Via<Su>> {
        let user = user.into();
        self.with(|context| context.su(&*user))
    }

    /// A context of another user of each one's machine, by doas.
    pub fn doas(&self, user: impl Into<String>) -> Each<Via<Doas>> {
        let user = user.into();
        self.with(|context| context.doas(&*user))
    }

    /// Starts a context below each by the same method; see [`Context::connect`].
    pub fn connect(&self, method: impl Method + Sync) -> Results<Context> {
        self.each(|context| context.connect(&method))
    }

    /// Starts contexts below each by the same methods; see [`Context::connect_all`].
    pub fn connect_all<M: Method + Sync>(&self, methods: impl IntoIterator<Item = M>) -> Vec<Results<Context>> {
        let methods: Vec<M> = methods.into_iter().collect();
        self.each(|context| context.connect_all(&methods))
    }

    /// A program to run in each; see [`Context::command`].
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Each<Command> {
        self.with(|context| context.command(&program))
    }

    /// The login shell of the account in each; see [`Context::login_shell`].
    pub fn login_shell(&self) -> Each<Command> {
        self.with(Context::login_shell)
    }

    /// Sends bytes there and back; see [`Context::echo`].
    pub fn echo(&self, bytes: &[u8]) -> Results<bytes::Bytes> {
        waited(self.start_echo(bytes), None)
    }

    /// As [`echo`](Self::echo), waiting at most for `timeout`.
    pub fn echo_timeout(&self, bytes: &[u8], timeout: Duration) -> Results<bytes::Bytes> {
        let deadline = Instant::now().checked_add(timeout);
        waited(self.start_echo(bytes), deadline)
    }

    /// As [`echo`](Self::echo), without waiting.
    pub fn start_echo(&self, bytes: &[u8]) -> Results<Pending<bytes::Bytes>> {
        self.0.iter().map(|context| context.start_echo(bytes)).collect()
    }

    /// How long a message takes to each and back, while it takes the same way to the others.
    pub fn ping(&self) -> Results<Duration> {
        self.each(Context::ping)
    }

    /// As [`ping`](Self::ping), waiting for each at most for `timeout`.
    pub fn ping_timeout(&self, timeout: Duration) -> Results<Duration> {
        self.each(|context| context.ping_timeout(timeout))
    }

    /// What each has to say of itself and of its children.
    pub fn info(&self) -> Results<NodeInfo> {
        waited(self.start_info(), None)
    }

    /// As [`info`](Self::info), waiting at most for `timeout`.
    pub fn info_timeout(&self, timeout: Duration) -> Results<NodeInfo> {
        let deadline = Instant::now().checked_add(timeout);
        waited(self.start_info(), deadline)
    }

    /// As [`info`](Self::info), without waiting.
    pub fn start_info(&self) -> Results<Pending<NodeInfo>> {
        self.0.iter().map(Context::start_info).collect()
    }

    /// What each forwarded so far; see [`Context::content_stats`].
    pub fn content_stats(&self) -> Results<ContentStats> {
        self.each(Context::content_stats)
    }

    /// As [`content_stats`](Self::content_stats), waiting for each at most for `timeout`.
    pub fn content_stats_timeout(&self, timeout: Duration) -> Results<ContentStats> {
        self.each(|context| context.content_stats_timeout(timeout))
    }

    /// Ends them and everything below them; see [`Context::shutdown`].
    pub fn shutdown(&self) -> Results<()> {
        self.each(Context::shutdown)
    }

    /// As [`shutdown`](Self::shutdown), waiting for each at most for `timeout`; see [`Context::shutdown_timeout`].
    pub fn shutdown_timeout(&self, timeout: Duration) -> Results<()> {
        self.each(|context| context.shutdown_timeout(timeout))
    }
}

impl FromIterator<Context> for Group {
    fn from_iter<I: IntoIterator<Item = Context>>(contexts: I) -> Group {
        Group::of(contexts)
    }
}

impl Extend<Context> for Group {
    fn extend<I: IntoIterator<Item = Context>>(&mut self, contexts: I) {
        self.0.extend(contexts);
    }
}

impl IntoIterator for Group {
    type Item = Context;
    type IntoIter = std::vec::IntoIter<Context>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Group {
    type Item = &'a Context;
    type IntoIter = std::slice::Iter<'a, Context>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One of something for each context of a [`Group`], such as a command. Options are set for all.
#[derive(Clone)]
#[must_use = "nothing happens until it is run"]
pub struct Each<T>(Vec<T>);

impl<T> Each<T> {
    /// Changes each: for what has no short form here.
    pub fn with(self, change: impl FnMut(T) -> T) -> Each<T> {
        Each(self.0.into_iter().map(change).collect())
    }
}

impl<T: fmt::Debug> fmt::Debug for Each<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Each").field(&self.0).finish()
    }
}

impl<M: Method + Send> Each<Via<M>> {
    /// Starts the new contexts side by side and waits for all.
    pub fn connect(self) -> Results<Context> {
        side_by_side(self.0, Via::connect)
    }
}

impl Each<Command> {
    /// Adds an argument.
    pub fn arg(self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.with(|command| command.arg(&arg))
    }

    /// Adds arguments.
    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Self {
        args.into_iter().fold(self, |all, arg| all.arg(arg))
    }

    /// Sets a variable of its environment.
    pub fn env(self, name: impl AsRef<std::ffi::OsStr>, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.with(|command| command.env(&name, &value))
    }

    /// Removes a variable from its environment.
    pub fn env_remove(self, name: impl AsRef<std::ffi::OsStr>) -> Self {
        self.with(|command| command.env_remove(&name))
    }

    /// Removes all variables that are set so far from its environment.
    pub fn env_clear(self) -> Self {
        self.with(Command::env_clear)
    }

    /// The folder it starts in.
    pub fn current_dir(self, folder: impl AsRef<std::path::Path>) -> Self {
        self.with(|command| command.current_dir(&folder))
    }

    /// Where its input comes from. By default nowhere.
    pub fn stdin(self, stdin: Stdio) -> Self {
        self.with(|command| command.stdin(stdin))
    }

    /// Gives each all of a reader as its input, each one of its own; see [`Command::stdin_from`].
    pub fn stdin_from<R: std::io::Read + Send + 'static>(self, mut source: impl FnMut() -> R) -> Self {
        self.with(|command| command.stdin_from(source()))
    }

    /// Where its output goes. By default to the [`Process`].
    pub fn stdout(self, stdout: Stdio) -> Self {
        self.with(|command| command.stdout(stdout))
    }

    /// Where its error output goes. By default to the [`Process`].
    pub fn stderr(self, stderr: Stdio) -> Self {
        self.with(|command| command.stderr(stderr))
    }

    /// When it is ended; see [`Command::timeout`].
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|command| command.timeout(timeout))
    }

    /// How long it has between TERM and KILL; 5 s by default.
    pub fn grace(self, grace: Duration) -> Self {
        self.with(|command| command.grace(grace))
    }

    /// Added to its priority number: 10 is a polite background job.
    pub fn nice(self, nice: i32) -> Self {
        self.with(|command| command.nice(nice))
    }

    /// Gives each a terminal of its own; see [`Command::terminal`].
    pub fn terminal(self, terminal: Terminal) -> Self {
        self.with(|command| command.terminal(terminal.clone()))
    }

    /// What they write goes to `/dev/null` there, unless set otherwise.
    pub fn quiet(self) -> Self {
        self.with(Command::quiet)
    }

    /// Starts all.
    pub fn spawn(self) -> Results<Process> {
        self.0.into_iter().map(Command::spawn).collect()
    }

    /// Runs all to their ends, side by side, and collects what they wrote.
    pub fn output(self) -> Results<Finished> {
        // All run from the start; what nobody collects yet waits within its window.
        side_by_side(self.spawn(), |process| process?.output())
    }

    /// Runs all to their ends, side by side, [`quiet`](Self::quiet).
    pub fn status(self) -> Results<ExitStatus> {
        side_by_side(self.quiet().spawn(), |process| process?.output().map(|finished| finished.status))
    }
}

impl<T> Call<T> {
    /// Runs it in each context, side by side, and waits for all values; see [`Call::on`]. The arguments are encoded once and kept
    /// once; where they are more than 32 KiB, a thread for each context sends them. A context or the sending end of a channel
    /// among them is there for each; the receiving end of one, and a pipe, are for one context alone.
    pub fn on_each<'a>(self, contexts: impl IntoIterator<Item = &'a Context>) -> Results<T> {
        let pending: Vec<PendingCall<T>> = self.all(contexts).collect();
        pending.into_iter().map(PendingCall::wait).collect()
    }

    /// Has it run in each context; the values are given out as they come. [`Completed::index`](crate::Completed::index) is the
    /// context's place in the group.
    pub fn start_each<'a>(self, contexts: impl IntoIterator<Item = &'a Context>) -> Select<T> {
        Select::new(self.all(contexts))
    }

    /// Has it run in each context, and nobody waits; see [`Call::detached`].
    pub fn detached_each<'a>(self, contexts: impl IntoIterator<Item = &'a Context>) {
        contexts.into_iter().for_each(|context| self.again().detached(context));
    }

    fn all<'a>(self, contexts: impl IntoIterator<Item = &'a Context>) -> impl Iterator<Item = PendingCall<T>> {
        contexts.into_iter().map(move |context| self.again().start(context))
    }
}

/// Waits for all, until `deadline` at most; what has come by then counts.
pub(crate) fn waited<T>(asked: Results<Pending<T>>, deadline: Option<Instant>) -> Results<T> {
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    asked
        .into_iter()
        .map(|asked| match left() {
            Some(left) => asked?.wait_timeout(left),
            None => asked?.wait(),
        })
        .collect()
}

/// Does the same with each, on this thread and on others that end with it; the results are in the order of what was given.
fn side_by_side<T: Send, R: Send>(all: Vec<T>, one: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = all.len().min(THREADS);
    let mut results: Vec<Option<R>> = all.iter().map(|_| None).collect();
    let places = Mutex::new(all.into_iter().zip(&mut results));
    let work = || {
        loop {
            let next = places.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((of, place)) = next else { return };
            *place = Some(one(of));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().name("offshoot-group".into()).spawn_scoped(scope, work).is_err() {
                // As many threads as there are.
                break;
            }
        }
        work();
    });
    drop(places);
    results.into_iter().flatten().collect()
}
