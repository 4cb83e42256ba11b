//! Contexts, as the user holds them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_connect::Answers;
use offshoot_connect::methods::{Doas, Local, Method, Ssh, Su, Sudo};
use offshoot_route::ExchangeId;
use offshoot_wire::escape::escaped;
use offshoot_wire::{
    Address, ChildHello, ConnectReply, ConnectSpec, ConnectStage, Failure, FailureKind, Grant, Recipe, Start, Verb,
    encode,
};

use crate::command::Command;
use crate::options::CONNECTS;
use crate::pending::{Exchange, Peer, Sending, decoded};
use crate::shared::Shared;
use crate::via::Via;
use crate::workers::Workers;
use crate::{Error, asking, connecting};

/// A context of the tree: an agent on another machine or in another account, or the root itself.
///
/// A handle: cloning it is cheap, and any number of threads may use it. The context lives until it is
/// [shut down](Context::shutdown), its parent ends, or the tree does; dropping handles does not end it.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

/// A connect that another context was asked for: its answers, the path of the context to be, and whether it is near.
type Login = (Exchange, Answers, Arc<str>, bool);

/// The stages of a connect with their times, from as they cross the tree.
pub(crate) fn timed(stages: &[(ConnectStage, u32)]) -> Vec<(ConnectStage, Duration)> {
    stages.iter().map(|(stage, time)| (*stage, Duration::from_micros((*time).into()))).collect()
}

/// Whether what a recipe leads to runs on the machine of the context that runs it, and sees the same files.
fn is_near(recipe: &Recipe) -> bool {
    match &recipe.start {
        Start::Local | Start::Worker { .. } => true,
        Start::Shell { .. } => matches!(&*recipe.method, "sudo" | "su" | "doas"),
    }
}

struct Inner {
    shared: Arc<Shared>,
    /// It is the context of this process itself.
    own: bool,
    /// It runs on the machine of this process and sees the same files.
    here: bool,
    address: Address,
    name: String,
    path: Arc<str>,
    hello: Option<ChildHello>,
    stages: Vec<(ConnectStage, Duration)>,
    /// By what right it is asked, where it does not lie below this process.
    grant: Option<Grant>,
    /// It is another process's own worker: it ends with that one's handles.
    lent_worker: bool,
    own_worker: Option<OwnWorker>,
}

/// What is told of a context that is handed over.
pub(crate) struct Given {
    pub(crate) address: Address,
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) hello: Option<ChildHello>,
    pub(crate) worker: bool,
    pub(crate) grant: Option<Grant>,
}

/// A worker that belongs to its handles: it ends with the last of them.
struct OwnWorker {
    /// The exchange by which this process's log attends it; without one, that of its streams does.
    attendance: Option<ExchangeId>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(OwnWorker { attendance: Some(id) }) = self.own_worker {
            // Not here: a handle may be dropped under the lock.
            self.shared.workers.let_go(id);
            self.shared.waker.wake();
        }
    }
}

impl Context {
    pub(crate) fn root(shared: Arc<Shared>) -> Context {
        let (name, path) = (String::new(), Arc::from(""));
        Context(Arc::new(Inner {
            shared,
            own: true,
            here: true,
            address: Address::ROOT,
            name,
            path,
            hello: None,
            stages: Vec::new(),
            grant: None,
            lent_worker: false,
            own_worker: None,
        }))
    }

    /// The context of this process itself, wherever in the tree it is.
    pub(crate) fn own(shared: &Arc<Shared>) -> Context {
        let state = shared.lock();
        let address = state.core.address().clone();
        let (name, path, hello) = match &state.services.identity {
            Some(identity) => (identity.name.clone(), Arc::from(&*identity.path), Some(identity.hello.clone())),
            None => (String::new(), Arc::from(""), None),
        };
        drop(state);
        Context(Arc::new(Inner {
            shared: Arc::clone(shared),
            own: true,
            here: true,
            address,
            name,
            path,
            hello,
            stages: Vec::new(),
            grant: None,
            lent_worker: false,
            own_worker: None,
        }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn workers(&self) -> &Workers {
        &self.0.shared.workers
    }

    /// Whether it is the context of this process itself.
    pub(crate) fn is_own(&self) -> bool {
        self.0.own
    }

    /// Whether it runs on the machine of this process and sees the same files.
    pub(crate) fn is_here(&self) -> bool {
        self.0.here
    }

    /// A context that this one has connected, which speaks under its path from now on.
    fn joined(&self, reply: ConnectReply, grant: Option<Grant>, near: bool) -> Context {
        let context = self.below(reply, grant, near);
        context.speaks_as(context.path());
        context
    }

    /// Under which name this context's log records are shown.
    pub(crate) fn speaks_as(&self, path: &str) {
        if let Some(home) = &mut self.0.shared.lock().services.home {
            home.name(&self.0.address, path);
        }
    }

    fn below(&self, reply: ConnectReply, grant: Option<Grant>, near: bool) -> Context {
        let path =
            if self.0.path.is_empty() { reply.name.clone() } else { format!("{} -> {}", self.0.path, reply.name) };
        Context(Arc::new(Inner {
            shared: Arc::clone(&self.0.shared),
            own: false,
            here: self.0.here && near,
            address: reply.address,
            name: reply.name,
            path: Arc::from(path),
            hello: Some(reply.hello),
            stages: timed(&reply.stages),
            grant,
            lent_worker: false,
            own_worker: None,
        }))
    }

    /// This context as a worker that belongs to its handles.
    pub(crate) fn as_own_worker(&self, attendance: Option<ExchangeId>) -> Context {
        let Inner { shared, own, here, address, name, path, hello, stages, grant, lent_worker: _, own_worker: _ } =
            &*self.0;
        Context(Arc::new(Inner {
            shared: Arc::clone(shared),
            here: *here,
            own: *own,
            address: address.clone(),
            name: name.clone(),
            path: Arc::clone(path),
            hello: hello.clone(),
            stages: stages.clone(),
            grant: grant.clone(),
            lent_worker: false,
            own_worker: Some(OwnWorker { attendance }),
        }))
    }

    /// A context that another process handed over.
    pub(crate) fn handed(shared: &Arc<Shared>, given: Given, here: bool) -> Context {
        let Given { address, name, path, hello, worker, grant } = given;
        Context(Arc::new(Inner {
            shared: Arc::clone(shared),
            own: false,
            here,
            address,
            name,
            path: Arc::from(path),
            hello,
            stages: Vec::new(),
            grant,
            lent_worker: worker,
            own_worker: None,
        }))
    }

    /// Whether calls on it go right to it: it is a worker of its own, here or of whoever handed it over.
    pub(crate) fn runs_calls(&self) -> bool {
        self.0.lent_worker || self.is_own_worker()
    }

    /// Whether it is a worker of its own, as [`own_worker`](Self::own_worker) makes them.
    #[doc(hidden)] // what `offshoot-program` builds its calls and workers of
    pub fn is_own_worker(&self) -> bool {
        self.0.own_worker.is_some()
    }

    /// Its own name, by default `method:target`: `ssh:web1`. Empty for the root.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The names from the root's child down to it, joined with ` -> `.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Where it sits in the tree.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// What it said of itself when it started: host, user, process, triple. From another machine: escape the texts
    /// before showing them. `None` for the root.
    pub fn hello(&self) -> Option<&ChildHello> {
        self.0.hello.as_ref()
    }

    /// The stages of the connect that made it, in order, with the time from its start to the end of each. Told by the
    /// context above it. Empty for the root.
    pub fn stages(&self) -> &[(ConnectStage, Duration)] {
        &self.0.stages
    }

    /// A local context below this one: same machine, same user. Call `connect` on it.
    pub fn local(&self) -> Via<Local> {
        Via::new(self.clone(), Local::new())
    }

    /// A context that this one logs in to by ssh, with this one's keys and known hosts. `target` is `[user@]host[:port]`.
    pub fn ssh(&self, target: impl AsRef<str>) -> Via<Ssh> {
        Via::new(self.clone(), Ssh::to(target))
    }

    /// A context of another user of this one's machine, by sudo.
    pub fn sudo(&self, user: impl Into<String>) -> Via<Sudo> {
        Via::new(self.clone(), Sudo::to(user))
    }

    /// A context of another user of this one's machine, by su and that user's password.
    pub fn su(&self, user: impl Into<String>) -> Via<Su> {
        Via::new(self.clone(), Su::to(user))
    }

    /// A context of another user of this one's machine, by doas.
    pub fn doas(&self, user: impl Into<String>) -> Via<Doas> {
        Via::new(self.clone(), Doas::to(user))
    }

    /// Starts a context below this one by a method or a recipe and waits for it.
    ///
    /// # Errors
    /// An option that cannot be right; or the stage that failed, why, what was seen and what to do next. Ends at the
    /// latest with the recipe's deadline.
    pub fn connect(&self, method: impl Method) -> Result<Context, Error> {
        match self.connect_all([method]).pop() {
            Some(result) => result,
            None => Err(self.error(Failure::new(FailureKind::Malformed, "no recipe"))),
        }
    }

    /// Starts contexts below this one side by side, as many at once as this context's limit allows, and waits for all.
    /// The results are in the order of the methods; one that fails hides no other.
    pub fn connect_all<M: Method>(&self, methods: impl IntoIterator<Item = M>) -> Vec<Result<Context, Error>> {
        let specs: Vec<Result<(ConnectSpec, Answers), Failure>> = methods
            .into_iter()
            .map(|method| {
                let (recipe, answers) = (method.recipe()?, method.answers());
                let process_name = self.0.shared.options.process_name.clone();
                Ok((ConnectSpec { recipe, name: None, process_name, answers: !answers.is_none() }, answers))
            })
            .collect();
        if self.0.own { self.connect_here(specs) } else { self.connect_there(specs) }
    }

    /// The path of a context to be.
    fn path_below(&self, spec: &ConnectSpec) -> Arc<str> {
        let name = spec.name.clone().unwrap_or_else(|| spec.recipe.default_name());
        if self.0.path.is_empty() { Arc::from(name) } else { Arc::from(format!("{} -> {name}", self.0.path)) }
    }

    /// This process runs the recipes.
    fn connect_here(&self, specs: Vec<Result<(ConnectSpec, Answers), Failure>>) -> Vec<Result<Context, Error>> {
        let paths: Vec<(Arc<str>, bool)> = specs
            .iter()
            .map(|spec| {
                spec.as_ref().map_or((Arc::from(""), false), |(spec, _)| (self.path_below(spec), is_near(&spec.recipe)))
            })
            .collect();
        let replies = connecting::connect_here(&self.0.shared, specs);
        let results = replies.into_iter().zip(paths);
        results
            .map(|(reply, (path, near))| match reply {
                Ok(reply) => Ok(self.joined(reply, None, near)),
                Err(failure) => Err(Error::new(failure, &*path)),
            })
            .collect()
    }

    /// The context runs the recipes. All are asked before the first answer is awaited; those that may ask something are
    /// waited for side by side.
    fn connect_there(&self, specs: Vec<Result<(ConnectSpec, Answers), Failure>>) -> Vec<Result<Context, Error>> {
        if specs.iter().flatten().any(|(spec, _)| !is_near(&spec.recipe)) {
            self.send_agent_ahead();
        }
        let asked: Vec<Result<Login, Error>> = specs
            .into_iter()
            .map(|spec| {
                let (spec, answers) = spec.map_err(|failure| self.error(failure))?;
                let (path, near) = (self.path_below(&spec), is_near(&spec.recipe));
                Ok((self.ask_connect(&spec)?, answers, path, near))
            })
            .collect();
        let answered = |asked: &Result<Login, Error>| {
            let (exchange, answers, path, near) = asked.as_ref().map_err(Clone::clone)?;
            let reply = asking::connected(exchange, answers, path, &self.0.path)?;
            let (reply, grant) = self.new_below(&reply).map_err(|failure| exchange.error(failure))?;
            Ok(self.joined(reply, grant, *near))
        };
        let asks = asked.iter().any(|asked| asked.as_ref().is_ok_and(|(_, answers, ..)| !answers.is_none()));
        let threads = if asks { CONNECTS } else { 1 };
        let results = connecting::side_by_side(&asked, threads, answered);
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(|| Err(self.error(connecting::thread_ended()))))
            .collect()
    }

    /// Asks for a context below this one. Nobody would have a handle to one that comes when nobody waits for it any more:
    /// it is ended.
    fn ask_connect(&self, spec: &ConnectSpec) -> Result<Exchange, Error> {
        let path = self.path_below(spec);
        let peer = Peer { path: &path, ..self.peer() };
        let asked = Exchange::ask(peer, Verb::Connect, encode(spec).into(), Sending::Now)?;
        let via = self.clone();
        Ok(asked.unwanted(move |body| {
            let Ok((reply, grant)) = via.new_below(&body) else { return };
            // To ask may wait for room, and the lock is held here. Without a thread it lives until its parent ends.
            let unwanted = via.below(reply, grant, false);
            let end = move || drop(unwanted.shutdown());
            let _ = std::thread::Builder::new().name("offshoot-unwanted".into()).spawn(end);
        }))
    }

    /// A new context that this one reports: its own child; where it was asked by a grant, with one for that child.
    fn new_below(&self, body: &Bytes) -> Result<(ConnectReply, Option<Grant>), Failure> {
        let (mut reply, grant) = match self.0.grant {
            Some(_) => decoded::<(ConnectReply, Grant)>(body).map(|(reply, grant)| (reply, Some(grant)))?,
            None => (decoded::<ConnectReply>(body)?, None),
        };
        if reply.address.parent().as_ref() != Some(&self.0.address) {
            return Err(Failure::new(FailureKind::Malformed, "it reported a new context that is not its child"));
        }
        // Shown in paths and logs (R10). A name is one step of a path.
        reply.name = escaped(reply.name.as_bytes()).to_string().replace("->", "_");
        Ok((reply, grant))
    }

    /// A program to run in this context; see [`Command`].
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Command::new(self.clone(), Some(program.as_ref()))
    }

    /// The login shell of the account there, started as a login does; see [`Command::terminal`].
    pub fn login_shell(&self) -> Command {
        Command::new(self.clone(), None)
    }

    pub(crate) fn call(&self, verb: Verb, body: Bytes) -> Result<Bytes, Error> {
        Exchange::call(self.peer(), verb, body)
    }

    pub(crate) fn ask_until(
        &self,
        verb: Verb,
        body: Bytes,
        when: Sending,
        deadline: Option<Instant>,
    ) -> Result<Exchange, Error> {
        Exchange::ask_until(self.peer(), verb, body, when, deadline)
    }

    pub(crate) fn ask(&self, verb: Verb, body: Bytes) -> Result<Exchange, Error> {
        Exchange::ask(self.peer(), verb, body, Sending::Now)
    }

    pub(crate) fn peer(&self) -> Peer<'_> {
        let Inner { shared, address, path, grant, .. } = &*self.0;
        Peer { shared, address, path, grant: grant.as_ref() }
    }

    /// By what right it is asked, where it does not lie below this process.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.0.grant.as_ref()
    }

    pub(crate) fn error(&self, failure: Failure) -> Error {
        Error::new(failure, &*self.0.path)
    }
}

impl fmt::Display for Context {
    /// Its [path](Context::path).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.path)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("address", &self.0.address).field("path", &self.0.path).finish()
    }
}

#[cfg(test)]
mod tests;
