//! Where a remote function runs, for the function itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use offshoot_connect::methods::{Doas, Local, Ssh, Su, Sudo};
use offshoot_node::{Context, Invocation, Via};
use offshoot_wire::Address;

/// Where a remote function runs: its first argument, when it takes `&Here`. What it connects is below its worker; to run a
/// program on its own machine it takes `std::process::Command`, and what that starts ends with the worker.
#[derive(Clone, Debug)]
pub struct Here {
    context: Context,
    cancelled: Arc<AtomicBool>,
}

impl Here {
    pub(crate) fn of(call: &Invocation) -> Here {
        Here { context: call.context.clone(), cancelled: Arc::clone(&call.cancelled) }
    }

    /// The worker as a context: what it connects are its own children, and end with it.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The name of the context that the function runs in: `worker`, as its agent calls it.
    pub fn name(&self) -> &str {
        self.context.name()
    }

    /// The names from the root's child down to the context that the function runs in, joined with ` -> `: what errors and
    /// logs call it.
    pub fn path(&self) -> &str {
        self.context.path()
    }

    /// Where in the tree the function runs. No other context of the tree has that address, now or later.
    pub fn address(&self) -> &Address {
        self.context.address()
    }

    /// A context below this worker: same machine, same user. Call `connect` on it.
    pub fn local(&self) -> Via<Local> {
        self.context.local()
    }

    /// A context below this worker, that it logs in to by ssh: `[user@]host[:port]`. Call `connect` on it.
    pub fn ssh(&self, target: impl AsRef<str>) -> Via<Ssh> {
        self.context.ssh(target)
    }

    /// A context of another user of the worker's machine, by sudo. Call `connect` on it.
    pub fn sudo(&self, user: impl Into<String>) -> Via<Sudo> {
        self.context.sudo(user)
    }

    /// A context of another user of the worker's machine, by su and that user's password. Call `connect` on it.
    pub fn su(&self, user: impl Into<String>) -> Via<Su> {
        self.context.su(user)
    }

    /// A context of another user of the worker's machine, by doas. Call `connect` on it.
    pub fn doas(&self, user: impl Into<String>) -> Via<Doas> {
        self.context.doas(user)
    }

    /// Whether nobody waits for the value any more: the caller cancelled, its time was up, or it is lost. The function
    /// is not ended; one that takes long should ask now and then.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
