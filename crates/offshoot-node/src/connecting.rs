//! One connect from its beginning to its end, on a thread of its own.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use offshoot_connect::{Answers, Asker, Connecting, Payloads, Terminal};
use offshoot_mux::Child;
use offshoot_route::Time;
use offshoot_wire::{ChildHello, ConnectReply, ConnectSpec, ConnectStage, Failure, FailureKind, parse_hello};

use crate::asking;
use crate::fetching::FromAbove;
use crate::link::LinkFds;
use crate::services::{self, Place, Running};
use crate::shared::Shared;
use crate::state::State;

/// The variable that everything below a tree's root carries, with the tree's id: the second net of the clean-up.
pub(crate) const TREE: &str = "OFFSHOOT_TREE";

/// A new link with the process behind it and what the new context said first.
pub(crate) struct Arrival {
    pub(crate) fds: LinkFds,
    pub(crate) child: Child,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) hello: ChildHello,
    pub(crate) received: Vec<u8>,
    pub(crate) stages: Vec<(ConnectStage, u32)>,
}

/// Runs one connect on this thread. The caller has its turn, which ends with this. `finish` tells the requester, under
/// the same lock under which the new context joined the tree: no cancellation comes between the two.
pub(crate) fn run<R>(
    shared: &Arc<Shared>,
    spec: &ConnectSpec,
    running: Running,
    asker: Option<&dyn Asker>,
    finish: impl FnOnce(&mut State, Result<ConnectReply, Failure>, Time) -> R,
) -> R {
    let place = crate::identity::random().and_then(|nonce| shared.with(|state, now| state.reserve(spec, nonce, now)));
    let mut arrival = place
        .as_ref()
        .ok()
        .map(|place| held(FailureKind::Connect(ConnectStage::Start), || connect(shared, spec, &running, asker, place)));
    let told = shared.with(|state, now| {
        let result = state.end_connect(shared, &running, place, &mut arrival, now);
        finish(state, result, now)
    });
    // Ending what is not wanted takes its time: not under the lock.
    drop(arrival);
    told
}

/// A panic, of ours or of what the program brought (images, agents), ends this connect or search alone, with an error of
/// `kind`: its place is given back and who waits is told. The panic itself was reported by its hook. An agent aborts instead.
pub(crate) fn held<R>(kind: FailureKind, run: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    if !cfg!(panic = "unwind") {
        return run();
    }
    // What it had in its hands is dropped, and locks do not mind a panic.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failure::new(kind, "it failed by a fault of this program; see its panic")))
}

/// The part without the lock.
fn connect(
    shared: &Arc<Shared>,
    spec: &ConnectSpec,
    running: &Running,
    asker: Option<&dyn Asker>,
    place: &Place,
) -> Result<Arrival, Failure> {
    let above = FromAbove::new(shared);
    let payloads: &dyn Payloads = match &shared.options.payloads {
        Some(payloads) => payloads.as_ref(),
        None => &above,
    };
    let connected = offshoot_connect::connect(Connecting {
        recipe: &spec.recipe,
        nonce: place.nonce,
        preamble: place.preamble.clone(),
        tree_tag: (TREE, place.tree_tag.clone()),
        context_tag: (services::JOB, place.tag.clone()),
        process_name: &spec.process_name,
        image: shared.options.image.as_ref(),
        payloads,
        cancel: &running.cancel,
        asker,
        behind: place.behind.as_deref(),
    });
    connected.map(|mut connected| {
        // The engine has read and checked the hello; what follows it is the core's.
        let hello = parse_hello::<ChildHello>(&connected.received).ok().flatten();
        let received = connected.received.split_off(hello.map_or(0, |hello| hello.length));
        Arrival {
            fds: connected.link,
            child: connected.child,
            stderr: Some(connected.stderr),
            terminal: connected.terminal,
            hello: connected.hello,
            received,
            stages: connected.stages,
        }
    })
}

/// Runs the connects of a thread of this process, each in its turn: one on this thread, several on threads that last
/// until all are done. The results are in the order of the specs.
pub(crate) fn connect_here(
    shared: &Arc<Shared>,
    specs: Vec<Result<(ConnectSpec, Answers), Failure>>,
) -> Vec<Result<ConnectReply, Failure>> {
    let one = |spec: &Result<(ConnectSpec, Answers), Failure>| match spec {
        Ok((spec, answers)) => in_turn(shared, spec, answers),
        Err(failure) => Err(failure.clone()),
    };
    side_by_side(&specs, shared.options.connects, one)
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err(thread_ended())))
        .collect()
}

/// The failure of what a thread should have done that is no more.
pub(crate) fn thread_ended() -> Failure {
    Failure::new(FailureKind::Cancelled, "the connect's thread ended")
}

/// Does the same with each element: one on this thread, several on at most so many threads, which last until all are
/// done. The results are in the order of the elements.
pub(crate) fn side_by_side<T: Sync, R: Send>(all: &[T], most: usize, one: impl Fn(&T) -> R + Sync) -> Vec<Option<R>> {
    let threads = all.len().min(most);
    if threads <= 1 {
        return all.iter().map(|element| Some(one(element))).collect();
    }
    let results: Vec<Mutex<Option<R>>> = all.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(element) = all.get(index) else { return };
            let result = one(element);
            *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let builder = std::thread::Builder::new().name("offshoot-connect".into());
            if builder.spawn_scoped(scope, work).is_err() {
                // As many threads as there are.
                break;
            }
        }
        work();
    });
    results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

fn in_turn(shared: &Arc<Shared>, spec: &ConnectSpec, answers: &Answers) -> Result<ConnectReply, Failure> {
    let ticket = services::turn();
    if !shared.with(|state, _| state.may_connect(shared, &ticket)) {
        ticket.wait(None);
    }
    let running = shared.with(|state, _| state.begin_connect(None));
    let asker = asking::Here::new(spec.name.clone().unwrap_or_else(|| spec.recipe.default_name()), answers.clone());
    let asker = (!answers.is_none()).then_some(&asker as &dyn Asker);
    run(shared, spec, running, asker, |_, result, _| result)
}
