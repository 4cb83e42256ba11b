//! Payload and Image: agents and images of programs, by their hash, handed down the tree.
//!
//! The root finds them; every other node asks its parent once for each, keeps what came while there is room, and serves
//! its own children from that, also while it comes. What is asked, and whom, is `offshoot-forward`'s business; here is
//! what carries it out: exchanges, threads that read files, and those who wait. Runs under the node's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_connect::{Cancel, Executable};
use offshoot_forward::{Config, Content, ContentHash, Event, FetchId, Forwarder, Outcome, Refusal};
use offshoot_mux::lead::Slot;
use offshoot_route::{ExchangeId, LinkId, Node, Time};
use offshoot_wire::{
    Address, ContentRef, ContentStats, EndReason, Failure, FailureKind, ImageSpec, Limits, LostReason, Packing,
    PayloadSpec, Verb, channel, decode, encode,
};

use crate::connecting::held;
use crate::error::os_failure;
use crate::images::Image;
use crate::shared::Shared;
use crate::state::State;

/// How many targets' contents are known by name: more triples than there are, for a program or two.
const NAMES: usize = 32;

/// How many may wait for one name or content here, beside those below, which their links' limits bound.
const WAITING: usize = 4096;

/// How many threads look for what children asked for. A child asks once per target; one that asks for more is refused
/// while they search.
const SEARCHES: usize = 16;

/// How long a search may take.
const SEARCH: Duration = Duration::from_secs(30);

/// How much of a file is read at a time: a frame.
const PIECE: usize = 64 * 1024;

/// Where one who waits for a content here gets it.
pub(crate) type Waiting = Arc<Slot<Result<(ContentRef, Content), Failure>>>;

/// Who waits for a content here.
enum Need {
    /// A thread.
    Thread(ContentRef, Waiting),
    /// A request to have it here.
    Keep(ExchangeId),
    /// Nobody yet: it is likely to be needed.
    Likely,
}

/// Who waits to learn which content it is.
enum Asker {
    Below(ExchangeId),
    Here(Need),
}

enum Name {
    Coming(Vec<Asker>),
    Known(ContentRef),
}

/// What was asked of the parent.
enum Above {
    Name(PayloadSpec),
    Content(FetchId),
}

/// The contents of a node.
pub(crate) struct Contents {
    forwarder: Forwarder<ExchangeId, LinkId>,
    /// At most [`NAMES`].
    names: Vec<(PayloadSpec, Name)>,
    /// What is on its way: few, each content and name once.
    above: Vec<(ExchangeId, Above)>,
    needs: Vec<(ContentHash, Need)>,
    /// What this process serves from files: an image for each triple that its calls went to.
    files: Vec<Image>,
    /// Threads that look for something, or read it. At most [`SEARCHES`].
    searches: usize,
    /// The last image that a worker was started from: the next one needs no unpacking.
    made: Option<(ContentRef, Arc<Executable>)>,
}

impl Contents {
    pub(crate) fn of(core: &Node) -> Contents {
        let config = Config::with(|config| {
            config.budget = Limits::CONTENT;
            config.largest = Limits::CONTENT;
        });
        let mut forwarder = Forwarder::new(core.address().clone(), config);
        if let (Some(link), Some(parent)) = (core.parent_link(), core.address().parent()) {
            forwarder.add_source(link, parent);
        }
        Contents {
            forwarder,
            names: Vec::new(),
            above: Vec::new(),
            needs: Vec::new(),
            files: Vec::new(),
            searches: 0,
            made: None,
        }
    }

    /// The content that is known under a name, if it is here.
    pub(crate) fn at_hand(&self, spec: &PayloadSpec) -> Option<&Content> {
        self.names.iter().find(|(of, _)| of == spec).and_then(|(_, name)| match name {
            Name::Known(content) => self.forwarder.content(&ContentHash::new(content.hash)),
            Name::Coming(_) => None,
        })
    }

    /// What a worker was last started from, when it is this.
    pub(crate) fn made(&self, image: &ContentRef) -> Option<Arc<Executable>> {
        self.made.as_ref().filter(|(of, _)| of == image).map(|(_, made)| Arc::clone(made))
    }

    pub(crate) fn keep_made(&mut self, image: ContentRef, made: Arc<Executable>) {
        self.made = Some((image, made));
    }

    fn exchange_of(&self, fetch: FetchId) -> Option<usize> {
        self.above.iter().position(|(_, above)| matches!(above, Above::Content(of) if *of == fetch))
    }
}

impl State {
    // ---- for this node's own threads ----

    /// Has the content with this name brought here, for whoever waits on `slot`; with none, because it is likely to be
    /// needed.
    pub(crate) fn need_named(&mut self, shared: &Arc<Shared>, spec: PayloadSpec, slot: Option<&Waiting>, now: Time) {
        let need = slot.map_or(Need::Likely, |slot| {
            // Which content it is is learned first.
            let unknown = ContentRef { hash: [0; 32], length: 0, packing: Packing::Stored };
            Need::Thread(unknown, Arc::clone(slot))
        });
        self.ask_name(shared, spec, Asker::Here(need), now);
    }

    /// Has a content brought here, for whoever waits on `slot`.
    pub(crate) fn need_content(&mut self, shared: &Arc<Shared>, content: ContentRef, slot: &Waiting, now: Time) {
        self.need(shared, content, Need::Thread(content, Arc::clone(slot)), now);
    }

    /// Nobody waits on `slot` any more.
    pub(crate) fn content_unneeded(&mut self, shared: &Arc<Shared>, slot: &Waiting, now: Time) {
        let is_it = |need: &Need| matches!(need, Need::Thread(_, of) if Arc::ptr_eq(of, slot));
        let contents = &mut self.contents;
        for (_, name) in &mut contents.names {
            if let Name::Coming(askers) = name {
                askers.retain(|asker| !matches!(asker, Asker::Here(need) if is_it(need)));
            }
        }
        let before = contents.needs.len();
        let mut hash = None;
        contents.needs.retain(|(of, need)| {
            let over = is_it(need);
            if over {
                hash = Some(*of);
            }
            !over
        });
        if let Some(hash) = hash.filter(|_| contents.needs.len() < before) {
            contents.forwarder.release(&hash);
        }
        self.contents_settle(shared, now);
    }

    /// Has an image of the program served to whoever below asks for it.
    pub(crate) fn serve_image(&mut self, image: Image) -> Result<(), Failure> {
        let contents = &mut self.contents;
        let hash = ContentHash::new(image.content.hash);
        contents.forwarder.promise(hash, image.content.length).map_err(|refusal| failure_of(&hash, &refusal))?;
        contents.files.retain(|of| of.content.hash != image.content.hash);
        contents.files.push(image);
        Ok(())
    }

    /// What was forwarded so far.
    pub(crate) fn content_stats(&self) -> ContentStats {
        let forwarder = &self.contents.forwarder;
        let links = forwarder.totals();
        ContentStats {
            asked: links.asked,
            bytes_in: links.bytes_in,
            requests: links.requests,
            hits: links.hits,
            joined: links.joined,
            refused: links.refused,
            bytes_out: links.bytes_out,
            kept: forwarder.stats().kept,
        }
    }

    // ---- requests ----

    /// A child asks which content it needs.
    pub(crate) fn serve_payload(&mut self, shared: &Arc<Shared>, id: ExchangeId, spec: PayloadSpec, now: Time) {
        self.ask_name(shared, spec, Asker::Below(id), now);
    }

    /// A child asks for a content, or whoever may has one brought here.
    pub(crate) fn serve_content(
        &mut self,
        shared: &Arc<Shared>,
        id: ExchangeId,
        from: &Address,
        full: bool,
        spec: ImageSpec,
        now: Time,
    ) {
        let hash = ContentHash::new(spec.hash);
        if spec.keep && !full {
            return self.core.fail(id, Failure::new(FailureKind::Denied, "that is not a child's to ask"), now);
        }
        if spec.keep {
            let content = ContentRef { hash: spec.hash, length: 0, packing: Packing::Stored };
            return self.need(shared, content, Need::Keep(id), now);
        }
        let Some(link) = self.towards(from) else { return };
        self.contents.forwarder.serve(id, link, hash);
        self.contents_settle(shared, now);
    }

    /// There is credit for a content.
    pub(crate) fn content_wanted(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        self.send_content(id, now);
        self.contents_settle(shared, now);
    }

    /// The requester no longer waits.
    pub(crate) fn cancel_content(&mut self, shared: &Arc<Shared>, id: ExchangeId, now: Time) {
        let contents = &mut self.contents;
        contents.forwarder.give_up(id);
        for (_, name) in &mut contents.names {
            if let Name::Coming(askers) = name {
                askers.retain(|asker| !matches!(asker, Asker::Below(of) if *of == id));
            }
        }
        let kept = |need: &Need| matches!(need, Need::Keep(of) if *of == id);
        if let Some(at) = contents.needs.iter().position(|(_, need)| kept(need)) {
            let (hash, _) = contents.needs.swap_remove(at);
            contents.forwarder.release(&hash);
        }
        self.contents_settle(shared, now);
    }

    /// A link is over.
    pub(crate) fn contents_link_gone(&mut self, shared: &Arc<Shared>, link: LinkId, now: Time) {
        self.contents.forwarder.link_gone(link);
        self.contents_settle(shared, now);
    }

    // ---- what the parent answers ----

    /// Bytes came on an exchange; `false` when it is none of a content.
    pub(crate) fn content_came(&mut self, shared: &Arc<Shared>, id: ExchangeId, data: &Bytes, now: Time) -> bool {
        let contents = &mut self.contents;
        let Some((_, Above::Content(fetch))) = contents.above.iter().find(|(of, _)| *of == id) else { return false };
        let fetch = *fetch;
        contents.forwarder.arrived(fetch, data.clone());
        self.contents_settle(shared, now);
        true
    }

    /// An exchange that was asked of the parent has ended; the result when it is none of a content.
    pub(crate) fn content_done(
        &mut self,
        shared: &Arc<Shared>,
        id: ExchangeId,
        result: Result<Bytes, Failure>,
        now: Time,
    ) -> Option<Result<Bytes, Failure>> {
        let contents = &mut self.contents;
        let Some(at) = contents.above.iter().position(|(of, _)| *of == id) else { return Some(result) };
        match contents.above.swap_remove(at).1 {
            Above::Content(fetch) => {
                // What came and was not stored yet counts no longer against this context's windows.
                self.core.cancel(id, now);
                contents.forwarder.finished(fetch, result.map(drop).map_err(|failure| refusal_of(&failure)));
            }
            Above::Name(spec) => {
                let named = result.and_then(|body| {
                    decode(&body).map_err(|_| Failure::new(FailureKind::Malformed, "the answer cannot be decoded"))
                });
                self.name_found(shared, &spec, &named, now);
            }
        }
        self.contents_settle(shared, now);
        None
    }

    // ---- names ----

    fn ask_name(&mut self, shared: &Arc<Shared>, spec: PayloadSpec, asker: Asker, now: Time) {
        let contents = &mut self.contents;
        if contents.names.len() >= NAMES && contents.names.iter().all(|(of, _)| *of != spec) {
            // What is known can be asked again: nobody can fill the table for good.
            if let Some(known) = contents.names.iter().position(|(_, name)| matches!(name, Name::Known(_))) {
                contents.names.remove(known);
            }
        }
        let full = contents.names.len() >= NAMES;
        let known = contents.names.iter_mut().find(|(of, _)| *of == spec).map(|(_, name)| name);
        let refused = match known {
            Some(Name::Known(content)) => {
                let content = *content;
                return self.named(shared, asker, Ok(content), now);
            }
            Some(Name::Coming(askers)) if askers.len() < WAITING => return askers.push(asker),
            Some(Name::Coming(_)) => busy(),
            None if full => busy(),
            None => match self.begin_name(shared, &spec, now) {
                Ok(()) => return self.contents.names.push((spec, Name::Coming(vec![asker]))),
                Err(failure) => failure,
            },
        };
        self.named(shared, asker, Err(refused), now);
    }

    /// Asks the parent, or searches here, which may block: on a thread.
    fn begin_name(&mut self, shared: &Arc<Shared>, spec: &PayloadSpec, now: Time) -> Result<(), Failure> {
        let contents = &mut self.contents;
        if let Some(parent) = self.core.address().parent() {
            let id = self.core.request(&parent, Verb::Payload, encode(spec).into(), None, now)?;
            contents.above.push((id, Above::Name(spec.clone())));
            return Ok(());
        }
        if contents.searches >= SEARCHES {
            return Err(busy());
        }
        let (theirs, spec) = (Arc::clone(shared), spec.clone());
        offshoot_mux::thread::start("offshoot-search", move || {
            let kind = if spec.program.is_some() { FailureKind::NoImage } else { FailureKind::NoAgent };
            let found = held(kind(spec.triple.clone()), || search(&theirs, &spec));
            theirs.with(|state, now| {
                state.contents.searches -= 1;
                let found = found.and_then(|found| state.serve_found(found));
                state.name_found(&theirs, &spec, &found, now);
                state.contents_settle(&theirs, now);
            });
        })
        .map_err(|error| os_failure("no thread to look for it", &error))?;
        contents.searches += 1;
        Ok(())
    }

    fn serve_found(&mut self, found: Found) -> Result<ContentRef, Failure> {
        match found {
            Found::Agent(content, bytes) => {
                self.contents.forwarder.register_as(ContentHash::new(content.hash), bytes);
                Ok(content)
            }
            Found::Image(image) => {
                let content = image.content;
                self.serve_image(image).map(|()| content)
            }
        }
    }

    fn name_found(&mut self, shared: &Arc<Shared>, spec: &PayloadSpec, found: &Result<ContentRef, Failure>, now: Time) {
        let names = &mut self.contents.names;
        let Some(at) = names.iter().position(|(of, _)| of == spec) else { return };
        let (spec, before) = names.swap_remove(at);
        if let Ok(content) = found {
            names.push((spec, Name::Known(*content)));
        }
        if let Name::Coming(askers) = before {
            for asker in askers {
                self.named(shared, asker, found.clone(), now);
            }
        }
    }

    fn named(&mut self, shared: &Arc<Shared>, asker: Asker, found: Result<ContentRef, Failure>, now: Time) {
        match (asker, found) {
            (Asker::Below(id), Ok(content)) => self.core.reply(id, encode(&content).into(), now),
            (Asker::Below(id), Err(failure)) => self.core.fail(id, failure, now),
            (Asker::Here(Need::Thread(_, slot)), Ok(content)) => {
                self.need(shared, content, Need::Thread(content, slot), now);
            }
            (Asker::Here(need), Ok(content)) => self.need(shared, content, need, now),
            (Asker::Here(need), Err(failure)) => self.met(need, Err(failure), now),
        }
    }

    // ---- contents ----

    fn need(&mut self, shared: &Arc<Shared>, content: ContentRef, need: Need, now: Time) {
        if self.contents.needs.len() >= WAITING {
            return self.met(need, Err(busy()), now);
        }
        let hash = ContentHash::new(content.hash);
        self.contents.needs.push((hash, need));
        self.contents.forwarder.need(hash);
        self.contents_settle(shared, now);
    }

    /// One who waited here gets the content, or why not.
    fn met(&mut self, need: Need, result: Result<&Content, Failure>, now: Time) {
        match need {
            Need::Likely => {}
            Need::Keep(id) => match result {
                Ok(_) => self.core.reply(id, Bytes::new(), now),
                Err(failure) => self.core.fail(id, failure, now),
            },
            Need::Thread(content, slot) => {
                slot.complete(result.map(|came| (content, came.clone())));
            }
        }
    }

    /// A content that was needed here is here, or does not come.
    fn needs_met(&mut self, hash: &ContentHash, result: &Result<Content, Failure>, now: Time) {
        let needs = std::mem::take(&mut self.contents.needs);
        let (met, rest): (Vec<_>, Vec<_>) = needs.into_iter().partition(|(of, _)| of == hash);
        self.contents.needs = rest;
        for (_, need) in met {
            if result.is_ok() {
                // Whoever gets it shares its memory from here on; what is kept is for others.
                self.contents.forwarder.release(hash);
            }
            self.met(need, result.as_ref().map_err(Clone::clone), now);
        }
    }

    fn send_content(&mut self, id: ExchangeId, now: Time) {
        while let Some(bytes) = self.contents.forwarder.next(id) {
            let offered = bytes.len();
            let sent = self.core.send(id, channel::STDOUT, bytes, now);
            self.contents.forwarder.sent(id, sent);
            if sent < offered {
                return;
            }
        }
    }

    /// Does what the forwarder wants done.
    fn contents_settle(&mut self, shared: &Arc<Shared>, now: Time) {
        while let Some(event) = self.contents.forwarder.poll_event() {
            let contents = &mut self.contents;
            match event {
                Event::Ask { fetch, hash, .. } => {
                    let body = encode(&ImageSpec { hash: *hash.bytes(), keep: false });
                    let parent = self.core.address().parent().unwrap_or_default();
                    match self.core.request(&parent, Verb::Image, body.into(), None, now) {
                        Ok(id) => contents.above.push((id, Above::Content(fetch))),
                        Err(failure) => contents.forwarder.finished(fetch, Err(refusal_of(&failure))),
                    }
                }
                Event::Load { fetch, hash } => {
                    let image = contents.files.iter().find(|image| image.content.hash == *hash.bytes()).cloned();
                    let theirs = Arc::clone(shared);
                    let loads = image.filter(|_| contents.searches < SEARCHES).is_some_and(|image| {
                        offshoot_mux::thread::start("offshoot-image", move || load(&theirs, fetch, &image)).is_ok()
                    });
                    if loads {
                        contents.searches += 1;
                    } else {
                        contents.forwarder.finished(fetch, Err(Refusal::Busy));
                    }
                }
                Event::Drop { fetch } => {
                    if let Some(at) = contents.exchange_of(fetch) {
                        let (id, _) = contents.above.swap_remove(at);
                        self.core.cancel(id, now);
                    }
                }
                Event::Stored { fetch, bytes } => {
                    if let Some(at) = contents.exchange_of(fetch) {
                        let (id, _) = contents.above[at];
                        self.core.consumed(id, channel::STDOUT, bytes, now);
                    }
                }
                Event::Send { exchange } => self.send_content(exchange, now),
                Event::End { exchange, outcome } => self.end_content(exchange, &outcome, now),
                Event::Ready { hash, content } => self.needs_met(&hash, &Ok(content), now),
                Event::Failed { hash, refusal } => {
                    let failure = failure_of(&hash, &refusal);
                    self.needs_met(&hash, &Err(failure), now);
                }
                Event::Damaged { hash, .. } => {
                    let text = format_args!("what came for the content {hash} is something else");
                    self.say(log::Level::Warn, module_path!(), text);
                }
            }
        }
    }

    fn end_content(&mut self, id: ExchangeId, outcome: &Outcome, now: Time) {
        match outcome {
            Ok(()) => {
                self.core.finish(id, channel::STDOUT, EndReason::Done, now);
                self.core.reply(id, Bytes::new(), now);
            }
            Err(refusal) => {
                let failure = match refusal {
                    Refusal::Damaged(by) => Failure::new(FailureKind::Damaged(by.clone()), refusal.to_string()),
                    _ => Failure::new(kind_of(refusal), refusal.to_string()),
                };
                self.core.fail(id, failure, now);
            }
        }
    }
}

/// What the root found.
enum Found {
    Agent(ContentRef, Bytes),
    Image(Image),
}

/// Looks for what starts a target, at the root.
fn search(shared: &Shared, spec: &PayloadSpec) -> Result<Found, Failure> {
    let nobody = |kind: fn(String) -> FailureKind| Failure::new(kind(spec.triple.clone()), "nobody to ask for it");
    match &spec.program {
        Some(program) => {
            let images = shared.options.images.as_ref().ok_or_else(|| nobody(FailureKind::NoImage))?;
            images.image(program, &spec.triple, false).map(Found::Image)
        }
        None => {
            let agents = shared.options.payloads.as_ref().ok_or_else(|| nobody(FailureKind::NoAgent))?;
            let bundle = agents.bundle(&spec.triple, Instant::now() + SEARCH, &Cancel::new())?;
            let bytes = Bytes::from(bundle.encode());
            let (hash, length) = (*ContentHash::of(&bytes).bytes(), bytes.len() as u64);
            Ok(Found::Agent(ContentRef { hash, length, packing: Packing::Stored }, bytes))
        }
    }
}

/// Reads an image for those who wait for it, piece by piece: they get it while it is read.
fn load(shared: &Arc<Shared>, fetch: FetchId, image: &Image) {
    use std::os::unix::fs::FileExt;

    let mut at = 0;
    let outcome = loop {
        let left = image.content.length - at;
        if left == 0 {
            break Ok(());
        }
        let mut piece = vec![0; left.min(PIECE as u64) as usize];
        if let Err(error) = image.file.read_exact_at(&mut piece, image.offset + at) {
            log::warn!("an image of the program cannot be read: {error}");
            break Err(Refusal::Lost);
        }
        at += piece.len() as u64;
        let wanted = shared.with(|state, now| {
            state.contents.forwarder.arrived(fetch, piece.into());
            state.contents_settle(shared, now);
            state.contents.forwarder.wants(fetch)
        });
        if !wanted {
            break Ok(());
        }
    };
    shared.with(|state, now| {
        state.contents.searches -= 1;
        state.contents.forwarder.finished(fetch, outcome);
        state.contents_settle(shared, now);
    });
}

fn busy() -> Failure {
    Failure::new(FailureKind::Busy, "too much is asked for at once")
}

fn kind_of(refusal: &Refusal) -> FailureKind {
    match refusal {
        Refusal::Unknown => FailureKind::Denied,
        Refusal::Damaged(by) => FailureKind::Damaged(by.clone()),
        Refusal::TooLarge => FailureKind::TooLarge,
        Refusal::Busy => FailureKind::Busy,
        _ => FailureKind::PeerLost(LostReason::LinkEnd),
    }
}

fn failure_of(hash: &ContentHash, refusal: &Refusal) -> Failure {
    Failure::new(kind_of(refusal), format!("the content {hash} did not come: {refusal}"))
}

fn refusal_of(failure: &Failure) -> Refusal {
    match &failure.kind {
        FailureKind::Denied => Refusal::Unknown,
        FailureKind::Damaged(by) => Refusal::Damaged(by.clone()),
        FailureKind::TooLarge => Refusal::TooLarge,
        FailureKind::Busy => Refusal::Busy,
        _ => Refusal::Lost,
    }
}
