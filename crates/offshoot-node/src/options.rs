//! What a node is told at its start.

use std::sync::Arc;

use offshoot_connect::{LocalImage, Payloads};
use offshoot_route::Config;

/// What a node is told at its start.
#[derive(Clone)]
pub struct Options {
    /// The routing core's limits.
    pub route: Config,
    /// How many connects run at once; more wait their turn. 32 by default: each holds a thread, a tool and some
    /// descriptors for as long as a login takes.
    pub connects: usize,
    /// What this node starts on its own machine for a local context.
    pub image: Arc<dyn LocalImage>,
    /// Where the agents for other machines come from; `None` asks the parent.
    pub payloads: Option<Arc<dyn Payloads>>,
    /// What the processes of new contexts are called in `ps`.
    pub process_name: String,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("connects", &self.connects).finish_non_exhaustive()
    }
}

/// The default of [`Options::connects`].
pub const CONNECTS: usize = 32;
