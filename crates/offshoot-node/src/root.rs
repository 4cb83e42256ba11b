//! The root of a tree, in a process of the user's.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use offshoot_mux::Poller;
use offshoot_mux::lead::Slot;
use offshoot_route::{Node, Time};
use offshoot_wire::{Failure, LostReason, ShutdownNotice};

use crate::error::os_failure;
use crate::home::{Closing, Home};
use crate::options::Options;
use crate::services::{Identity, Lanes};
use crate::shared::Shared;
use crate::state::State;
use crate::{Context, Error, broker, identity};

/// The root of a tree: a broker thread, and this handle to it.
///
/// Dropping it ends the tree, as [`Root::shutdown`] does.
pub struct Root {
    shared: Arc<Shared>,
    broker: Option<JoinHandle<LostReason>>,
    home: Option<Closing>,
}

impl Root {
    /// Starts a tree: one thread and some descriptors. SIGPIPE is ignored in this process from then on, as Rust programs begin:
    /// its default action would end the master with the first context that is lost while something is written to it.
    ///
    /// # Errors
    /// When the process is out of descriptors or threads, or has no random numbers.
    pub fn start(options: Options) -> Result<Root, Error> {
        let failed = |failure: Failure| Error::new(failure, "");
        let os = |error: io::Error| failed(os_failure("cannot start the broker", &error));
        let tree: [u8; 16] = identity::random().map_err(failed)?;
        let key: [u8; 32] = identity::random().map_err(failed)?;
        offshoot_mux::ignore_sigpipe();
        let mut poller = Poller::new().map_err(os)?;
        let started = Instant::now();
        let core = Node::root(options.route.clone(), tree, key, Time::from_micros(0));
        let mut state = State::new(core);
        state.services.connects.set_tree_tag(&tree);
        let hello = identity::hello([0; 16]);
        state.services.identity = Some(Identity { name: String::new(), path: String::new(), hello });
        let shared = Arc::new(Shared::new(state, poller.registry(), poller.waker(), options, started));
        let (home, closing) = Home::new(&shared, true);
        shared.lock().services.home = Some(Box::new(home));
        shared.lock().services.lanes = Some(Box::new(Lanes::default()));
        let theirs = Arc::clone(&shared);
        let broker = std::thread::Builder::new()
            .name("offshoot-broker".into())
            .spawn(move || {
                let run = AssertUnwindSafe(|| broker::run(&theirs, &mut poller));
                catch_unwind(run).unwrap_or_else(|_| {
                    // The panic itself was reported by its hook. Nobody reads the links any more: nobody may wait.
                    theirs.with(|state, _| state.give_up());
                    LostReason::ParentLost
                })
            })
            .map_err(os)?;
        Ok(Root { shared, broker: Some(broker), home: Some(closing) })
    }

    /// The root itself as a context: what it connects are the root's children.
    pub fn context(&self) -> Context {
        Context::root(Arc::clone(&self.shared))
    }

    /// Ends the tree: processes that run get TERM, after `grace` KILL, and all contexts end. Returns when all are gone,
    /// at the latest 2 s after the grace. Calls that are under way end with an error.
    pub fn shutdown(&self, grace: Duration) {
        let notice = ShutdownNotice { grace_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX), kill_ms: 2000 };
        let ticket = Arc::new(Slot::new());
        let wait = self.shared.with(|state, now| {
            state.await_phase(&ticket);
            state.begin_end(LostReason::Shutdown, notice, now);
            state.ended().is_none()
        });
        let mut ticket = ticket;
        let mut wait = wait;
        while wait {
            ticket.wait(None);
            ticket = Arc::new(Slot::new());
            wait = self.shared.with(|state, _| {
                state.await_phase(&ticket);
                state.ended().is_none()
            });
        }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.shutdown(Duration::from_secs(5));
        if let Some(broker) = self.broker.take() {
            // A panic of the broker was reported by its thread; here it must not become a second one.
            let _ = broker.join();
        }
        if let Some(home) = self.home.take() {
            home.close();
        }
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}
