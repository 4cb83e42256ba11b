//! One connect from its beginning to its end, on a thread of its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use offshoot_connect::{Connecting, LinkIo, Payloads};
use offshoot_mux::Child;
use offshoot_route::ExchangeId;
use offshoot_wire::{ChildHello, ConnectReply, ConnectSpec, Failure, parse_hello};

use crate::link::LinkFds;
use crate::services;
use crate::shared::Shared;

/// The variable that everything below a tree's root carries, with the tree's id: the second net of the clean-up.
pub(crate) const TREE: &str = "OFFSHOOT_TREE";

/// A new link with the process behind it and what the new context said first.
pub(crate) struct Arrival {
    pub(crate) fds: LinkFds,
    pub(crate) child: Child,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) hello: ChildHello,
    pub(crate) received: Vec<u8>,
}

/// Runs one connect on this thread. The caller has its turn.
pub(crate) fn run(shared: &Arc<Shared>, spec: ConnectSpec, id: Option<ExchangeId>) -> Result<ConnectReply, Failure> {
    let nonce = crate::identity::random()?;
    let place = shared.with(|state, now| state.reserve(&spec, id, nonce, now))?;
    let asking = services::AskParent::new(shared);
    let payloads: &dyn Payloads = match &shared.options.payloads {
        Some(payloads) => payloads.as_ref(),
        None => &asking,
    };
    let connected = offshoot_connect::connect(Connecting {
        recipe: &spec.recipe,
        nonce: place.nonce,
        preamble: place.preamble.clone(),
        tree_tag: (TREE, place.tree_tag.clone()),
        process_name: &spec.process_name,
        image: shared.options.image.as_ref(),
        payloads,
        cancel: &place.cancel,
        behind: place.behind.as_deref(),
    });
    let arrival = connected.map(|mut connected| {
        // The engine has read and checked the hello; what follows it is the core's.
        let hello = parse_hello::<ChildHello>(&connected.received).ok().flatten();
        let received = connected.received.split_off(hello.map_or(0, |hello| hello.length));
        Arrival {
            fds: match connected.link {
                LinkIo::Socket(fd) => LinkFds::Socket(fd),
                LinkIo::Pipes { read, write } => LinkFds::Pipes { read, write },
            },
            child: connected.child,
            stderr: Some(connected.stderr),
            hello: connected.hello,
            received,
        }
    });
    shared.with(|state, now| state.settle_connect(shared, place, arrival, now))
}

/// Runs the connects of a thread of this process, each in its turn: one on this thread, several on threads that last
/// until all are done. The results are in the order of the specs.
pub(crate) fn connect_here(
    shared: &Arc<Shared>,
    specs: Vec<Result<ConnectSpec, Failure>>,
) -> Vec<Result<ConnectReply, Failure>> {
    let threads = specs.len().min(shared.options.connects);
    if threads <= 1 {
        return specs.into_iter().map(|spec| in_turn(shared, spec?)).collect();
    }
    let results: Vec<Mutex<Option<Result<ConnectReply, Failure>>>> = specs.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(spec) = specs.get(index) else { return };
            let result = spec.clone().and_then(|spec| in_turn(shared, spec));
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
    let lost = || Err(Failure::new(offshoot_wire::FailureKind::Cancelled, "the connect's thread ended"));
    results
        .into_iter()
        .map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(lost))
        .collect()
}

fn in_turn(shared: &Arc<Shared>, spec: ConnectSpec) -> Result<ConnectReply, Failure> {
    let ticket = services::turn();
    if !shared.with(|state, _| state.may_connect(shared, &ticket)) {
        ticket.wait(None);
    }
    let result = run(shared, spec, None);
    shared.with(|state, now| state.connect_over(shared, now));
    result
}
