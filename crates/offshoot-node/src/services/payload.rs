//! Payload: what bootstraps a target of some triple, handed down the tree.
//!
//! The root finds it; every other node asks its parent once per triple, keeps it, and serves its own children from what
//! it keeps. However many ask at once, one request goes up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use offshoot_connect::bundle::Bundle;
use offshoot_connect::{Cancel, Payloads};
use offshoot_mux::lead::Slot;
use offshoot_route::{ExchangeId, Time};
use offshoot_wire::{
    EndReason, Failure, FailureKind, Limits, PayloadReply, PayloadSpec, Verb, channel, decode, encode,
};

use sha2::{Digest, Sha256};

use crate::error::os_failure;
use crate::identity::TRIPLE;
use crate::ids::IdMap;
use crate::pending::{Exchange, Sending as When};
use crate::shared::Shared;
use crate::state::State;

/// How many triples' payloads are kept: more than there are.
const KEPT: usize = 16;

/// How long a payload may take on its way, over the slowest link.
const FETCH: Duration = Duration::from_secs(30);

/// The largest payload that is taken from a parent: an agent is some hundred KiB.
const LARGEST: u64 = 16 * 1024 * 1024;

/// How many threads look for payloads that children asked for. A child asks once per triple; one that asks for more is
/// refused while they search.
const SEARCHES: usize = 16;

/// Where one of those who wait for a payload gets it.
type Waiting = Arc<Slot<Result<Bundle, Failure>>>;

enum Kept {
    /// A thread is fetching it; these wait.
    Coming(Vec<Waiting>),
    Here(Bundle),
}

/// What is being sent to a child.
struct Sending {
    rest: Bytes,
    reply: PayloadReply,
}

/// The payloads of a node.
#[derive(Default)]
pub(crate) struct PayloadCache {
    /// By triple; at most [`KEPT`].
    kept: Vec<(String, Kept)>,
    /// What was sent last as it is sent, and its hash: many children ask for the same, and all share its memory.
    encoded: Option<(Bundle, Bytes, [u8; 32])>,
    searches: usize,
    sending: IdMap<ExchangeId, Sending>,
}

impl PayloadCache {
    fn kept(&self, triple: &str) -> Option<&Kept> {
        self.kept.iter().find(|(of, _)| of == triple).map(|(_, kept)| kept)
    }
}

/// Asks the parent, and keeps what it sends.
pub(crate) struct AskParent<'a> {
    shared: &'a Arc<Shared>,
}

impl<'a> AskParent<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> AskParent<'a> {
        AskParent { shared }
    }

    /// Fetches the agent that most targets need, this machine's own, while the login is under way.
    fn fetch_likely(&self) {
        // A failure is told when the agent is asked for in earnest.
        join(self.shared, TRIPLE, &Arc::new(Slot::new()));
    }

    fn fetch(&self, triple: &str, deadline: Instant) -> Result<Bundle, Failure> {
        let parent = self.shared.with(|state, _| state.core.address().parent());
        let parent = parent.ok_or_else(|| Failure::new(FailureKind::NoAgent(triple.into()), "nobody to ask for it"))?;
        let spec = PayloadSpec { triple: triple.to_owned() };
        let path: Arc<str> = Arc::from("");
        let failure = |error: crate::Error| error.failure().clone();
        let exchange = Exchange::ask(self.shared, &parent, &path, Verb::Payload, encode(&spec).into(), When::Now)
            .map_err(failure)?;
        let mut bytes = BytesMut::new();
        loop {
            let next = exchange.wait(Some(deadline), |state, id, now| {
                let asked = state.asked(id)?;
                if let Some((number, data)) = asked.take(|_| true) {
                    state.core.consumed(id, number, data.len(), now);
                    return Some(Ok(data));
                }
                asked.result.clone().map(Err)
            });
            match next {
                Ok(Ok(data)) if bytes.len() as u64 + data.len() as u64 <= LARGEST => bytes.extend_from_slice(&data),
                Ok(Ok(_)) => return Err(Failure::new(FailureKind::TooLarge, "the agent sent from above is too large")),
                Ok(Err(Ok(reply))) => return finished(&reply, bytes.freeze()),
                Ok(Err(Err(failure))) => return Err(failure),
                Err(_) => return Err(Failure::new(FailureKind::Timeout, "the agent did not come from above in time")),
            }
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Checks what came against what was promised.
fn finished(reply: &[u8], bytes: Bytes) -> Result<Bundle, Failure> {
    let malformed = |what: String| Failure::new(FailureKind::Malformed, what);
    let reply: PayloadReply =
        decode(reply).map_err(|error| malformed(format!("the answer cannot be decoded: {error}")))?;
    if reply.length != bytes.len() as u64 || reply.sha256 != sha256(&bytes) {
        return Err(malformed("the agent sent from above is damaged".into()));
    }
    Bundle::decode(bytes).map_err(|error| malformed(format!("the agent sent from above: {error}")))
}

impl Payloads for AskParent<'_> {
    fn bundle(&self, triple: &str, deadline: Instant, cancel: &Cancel) -> Result<Bundle, Failure> {
        let slot: Waiting = Arc::new(Slot::new());
        let theirs = Arc::clone(&slot);
        let _woken = cancel.subscribe(move || {
            theirs.complete(Err(Failure::new(FailureKind::Cancelled, "nobody waits for the agent any more")));
        });
        join(self.shared, triple, &slot);
        let late = || Err(Failure::new(FailureKind::Timeout, "the agent did not come from above in time"));
        slot.wait(Some(deadline)).unwrap_or_else(late)
    }

    fn at_hand(&self, triple: Option<&str>) -> Option<Bundle> {
        let Some(triple) = triple else {
            self.fetch_likely();
            return None;
        };
        match self.shared.lock().services.payloads.kept(triple) {
            Some(Kept::Here(bundle)) => Some(bundle.clone()),
            _ => None,
        }
    }
}

/// Has `slot` completed with the payload for a triple: the kept one, or the parent's, asked for once however many wait.
/// Who no longer waits ends nothing: others may.
fn join(shared: &Arc<Shared>, triple: &str, slot: &Waiting) {
    let found = shared.with(|state, _| {
        let kept = &mut state.services.payloads.kept;
        let full = kept.len() >= KEPT;
        match kept.iter_mut().find(|(of, _)| of == triple).map(|(_, kept)| kept) {
            Some(Kept::Here(bundle)) => Some(Ok(bundle.clone())),
            Some(Kept::Coming(waiting)) => {
                waiting.push(Arc::clone(slot));
                None
            }
            None if full => Some(Err(Failure::new(FailureKind::Busy, format!("{KEPT} triples are kept already")))),
            None => match start_fetch(shared, triple) {
                Ok(()) => {
                    kept.push((triple.to_owned(), Kept::Coming(vec![Arc::clone(slot)])));
                    None
                }
                Err(error) => Some(Err(os_failure("no thread for the agent", &error))),
            },
        }
    });
    if let Some(found) = found {
        slot.complete(found);
    }
}

/// Asks the parent on a thread of its own, which then needs the lock that the caller holds.
fn start_fetch(shared: &Arc<Shared>, triple: &str) -> std::io::Result<()> {
    let (shared, triple) = (Arc::clone(shared), triple.to_owned());
    offshoot_mux::thread::start("offshoot-payload", move || {
        let fetched = AskParent::new(&shared).fetch(&triple, Instant::now() + FETCH);
        for slot in shared.with(|state, _| state.keep_payload(triple, &fetched)) {
            slot.complete(fetched.clone());
        }
    })
}

impl State {
    /// A child asks for a payload. Finding it may block: it has a thread.
    pub(crate) fn serve_payload(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: PayloadSpec, now: Time) {
        if spec.triple.len() > Limits::NAME {
            return self.core.fail(id, Failure::new(FailureKind::Malformed, "no such triple"), now);
        }
        if let Some(Kept::Here(bundle)) = self.services.payloads.kept(&spec.triple) {
            let bundle = bundle.clone();
            return self.send_payload(id, bundle, now);
        }
        if self.services.payloads.searches >= SEARCHES {
            let failure = Failure::new(FailureKind::Busy, format!("{SEARCHES} agents are looked for already"));
            return self.core.fail(id, failure, now);
        }
        let theirs = Arc::clone(shared);
        let thread = offshoot_mux::thread::start("offshoot-payload", move || {
            let deadline = Instant::now() + FETCH;
            let found = match &theirs.options.payloads {
                Some(payloads) => payloads.bundle(&spec.triple, deadline, &Cancel::new()),
                None => AskParent::new(&theirs).bundle(&spec.triple, deadline, &Cancel::new()),
            };
            theirs.with(|state, now| {
                state.services.payloads.searches -= 1;
                match found {
                    Ok(bundle) => state.send_payload(id, bundle, now),
                    Err(failure) => state.core.fail(id, failure, now),
                }
            });
        });
        match thread {
            Ok(()) => self.services.payloads.searches += 1,
            Err(error) => self.core.fail(id, os_failure("no thread for the payload", &error), now),
        }
    }

    /// Keeps what was fetched, and yields those who wait for it.
    fn keep_payload(&mut self, triple: String, fetched: &Result<Bundle, Failure>) -> Vec<Waiting> {
        let kept = &mut self.services.payloads.kept;
        let before = kept.iter().position(|(of, _)| *of == triple).map(|at| kept.swap_remove(at).1);
        if let Ok(bundle) = fetched {
            kept.push((triple, Kept::Here(bundle.clone())));
        }
        match before {
            Some(Kept::Coming(waiting)) => waiting,
            Some(Kept::Here(_)) | None => Vec::new(),
        }
    }

    fn send_payload(&mut self, id: ExchangeId, bundle: Bundle, now: Time) {
        let encoded = &mut self.services.payloads.encoded;
        let (rest, sha256) = match encoded {
            Some((of, bytes, sha256)) if *of == bundle => (bytes.clone(), *sha256),
            _ => {
                let bytes = Bytes::from(bundle.encode());
                let sha256 = sha256(&bytes);
                *encoded = Some((bundle, bytes.clone(), sha256));
                (bytes, sha256)
            }
        };
        let reply = PayloadReply { length: rest.len() as u64, sha256 };
        self.services.payloads.sending.insert(id, Sending { rest, reply });
        self.payload_wanted(id, now);
    }

    /// There is credit for a payload.
    pub(crate) fn payload_wanted(&mut self, id: ExchangeId, now: Time) {
        let Some(sending) = self.services.payloads.sending.get_mut(&id) else { return };
        let sent = self.core.send(id, channel::STDOUT, sending.rest.clone(), now);
        let _ = sending.rest.split_to(sent);
        if sending.rest.is_empty() {
            let reply = Bytes::from(encode(&sending.reply));
            self.services.payloads.sending.remove(&id);
            self.core.finish(id, channel::STDOUT, EndReason::Done, now);
            self.core.reply(id, reply, now);
        }
    }

    /// Nobody waits for a payload any more.
    pub(crate) fn cancel_payload(&mut self, id: ExchangeId) {
        self.services.payloads.sending.remove(&id);
    }
}
