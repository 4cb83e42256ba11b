//! How a connect's thread gets what its target is started from: it waits, outside the lock, for what comes from above.

use std::sync::Arc;
use std::time::{Duration, Instant};

use offshoot_connect::bundle::Bundle;
use offshoot_connect::{Cancel, Executable, Payloads};
use offshoot_forward::Content;
use offshoot_mux::lead::Slot;
use offshoot_route::Time;
use offshoot_wire::{ContentRef, Failure, FailureKind, ImageSpec, PayloadSpec, Verb, encode};

use crate::Context;
use crate::identity::TRIPLE;
use crate::services::Waiting;
use crate::shared::Shared;
use crate::state::State;

/// How long the root may look for an agent that is not yet needed: it reads a file of some hundred KiB.
const AHEAD: Duration = Duration::from_secs(1);

impl Context {
    /// Has the agent that logins from this context will most likely need, that of its own machine, brought there. Along with
    /// the request for such a login it comes in one round trip; a context that has to find out asks for its name, then for
    /// it. For the root; what cannot be had is told when it is needed.
    pub(crate) fn send_agent_ahead(&self) {
        let (shared, Some(hello)) = (self.shared(), self.hello()) else { return };
        if shared.options.payloads.is_none() {
            return;
        }
        let spec = agent(&hello.triple);
        let ask = |state: &mut State, slot: &Waiting, now| state.need_named(shared, spec, Some(slot), now);
        let found = FromAbove::new(shared).wait(Instant::now() + AHEAD, &Cancel::new(), ask);
        let Ok((content, _)) = found else { return };
        // Not waited for, and not taken back.
        let spec = ImageSpec { hash: content.hash, keep: true };
        if let Ok(asked) = self.ask(Verb::Image, encode(&spec).into()) {
            drop(asked.unwanted(drop));
        }
    }
}

/// Asks the parent, once for all that wait, and keeps what it sends.
pub(crate) struct FromAbove<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> FromAbove<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> FromAbove<'a> {
        FromAbove { shared }
    }

    /// Asks by `ask` and waits for what comes.
    fn wait(
        &self,
        deadline: Instant,
        cancel: &Cancel,
        ask: impl FnOnce(&mut State, &Waiting, Time),
    ) -> Result<(ContentRef, Content), Failure> {
        let slot: Waiting = Arc::new(Slot::new());
        let theirs = Arc::clone(&slot);
        let _woken = cancel.subscribe(move || {
            theirs.complete(Err(Failure::new(FailureKind::Cancelled, "nobody waits for it any more")));
        });
        self.shared.with(|state, now| ask(state, &slot, now));
        let came = slot.wait(Some(deadline));
        if !matches!(came, Some(Ok(_))) {
            // Others may still wait for it; else it is not to come any more.
            self.shared.with(|state, now| state.content_unneeded(self.shared, &slot, now));
        }
        came.unwrap_or_else(|| {
            Err(Failure::new(FailureKind::Timeout, "what starts it did not come from above in time"))
        })
    }

    /// Which image of a program a target needs, as the root says. Its bytes are fetched, too: they will be asked for.
    pub(crate) fn image(
        &self,
        program: &[u8; 32],
        triple: &str,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<ContentRef, Failure> {
        let spec = PayloadSpec { triple: triple.to_owned(), program: Some(*program) };
        let ask = |state: &mut State, slot: &Waiting, now| state.need_named(self.shared, spec, Some(slot), now);
        self.wait(deadline, cancel, ask).map(|(content, _)| content)
    }
}

fn agent(triple: &str) -> PayloadSpec {
    PayloadSpec { triple: triple.to_owned(), program: None }
}

fn bundle(content: &Content) -> Result<Bundle, Failure> {
    Bundle::decode(content.to_bytes())
        .map_err(|error| Failure::new(FailureKind::Malformed, format!("the agent sent from above: {error}")))
}

impl Payloads for FromAbove<'_> {
    fn bundle(&self, triple: &str, deadline: Instant, cancel: &Cancel) -> Result<Bundle, Failure> {
        let ask =
            |state: &mut State, slot: &Waiting, now| state.need_named(self.shared, agent(triple), Some(slot), now);
        self.wait(deadline, cancel, ask).and_then(|(_, content)| bundle(&content))
    }

    fn at_hand(&self, triple: Option<&str>) -> Option<Bundle> {
        let Some(triple) = triple else {
            // The agent that most targets need, this machine's own, comes while the login is under way. A failure is
            // told when the agent is asked for in earnest.
            self.shared.with(|state, now| state.need_named(self.shared, agent(TRIPLE), None, now));
            return None;
        };
        let content = self.shared.lock().contents.at_hand(&agent(triple)).cloned();
        content.and_then(|content| bundle(&content).ok())
    }

    fn executable(&self, image: &ContentRef, deadline: Instant, cancel: &Cancel) -> Result<Arc<Executable>, Failure> {
        if let Some(made) = self.shared.lock().contents.made(image) {
            return Ok(made);
        }
        let ask = |state: &mut State, slot: &Waiting, now| state.need_content(self.shared, *image, slot, now);
        let (_, content) = self.wait(deadline, cancel, ask)?;
        let made = Arc::new(Executable::of(image, &mut content.pieces().map(|piece| &piece[..]))?);
        self.shared.lock().contents.keep_made(*image, Arc::clone(&made));
        Ok(made)
    }
}
