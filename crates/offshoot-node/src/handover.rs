//! Contexts, channels and streams in the arguments and values of calls.
//!
//! Owns what happens around the encoding and decoding of a value that is handed over: what it carries is set aside, so that
//! the value's bytes hold nothing but its place in a list, and that list gets the grants for whoever it goes to (R4).
//! Serializing such a thing anywhere else is an error. On the thread that calls, which holds no lock.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use offshoot_route::{Node, Time, narrow};
use offshoot_wire::escape::escaped;
use offshoot_wire::{
    Address, Carried, DecodeError, EncodeError, Failure, FailureKind, Grant, GrantLink, Limits, Verb, VerbSet, carried,
    decode_untrusted, encode, encode_value_into,
};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::context::Given;
use crate::far::{FarReader, FarWriter, Place};
use crate::lane::{Lane, ReaderEnd, WriterEnd};
use crate::services::{End, Invocation};
use crate::shared::Shared;
use crate::{Calling, Context, Error};

/// What to do about a value that cannot be sent as it is, in arguments or as what a function returns.
#[doc(hidden)] // for what `offshoot-program` says of its calls
pub fn advice(error: &EncodeError) -> &'static str {
    match error {
        EncodeError::NoForm => "derive `serde::Serialize` for all of it, and collect what has no known length first",
        EncodeError::TooLong => IN_PARTS,
        EncodeError::TooMany => "hand over fewer at once, in several calls",
    }
}

/// For what is larger than [`Limits::CALL`].
pub(crate) const IN_PARTS: &str =
    "send what is large by a pipe (`offshoot::pipe()`), as a `RemoteFile`, or in parts, by several calls";

/// How long an end in the arguments of a call may be asked for after the call: it is asked for before the function runs, but
/// the two may take different ways.
pub(crate) const AFTER_CALL: Duration = Duration::from_secs(10);

/// How long one in a value may be: whoever waits for the value takes it when it looks.
const AFTER_REPLY: Duration = Duration::from_secs(600);

/// One thing that is handed over.
#[derive(Clone)]
pub(crate) enum Thing {
    Context(Context),
    Writer(Writer),
    Reader(Reader),
}

/// A writing end, wherever its lane is.
#[derive(Clone)]
pub(crate) enum Writer {
    Near(Arc<WriterEnd>),
    Far(Arc<FarWriter>),
}

/// A reading end, wherever its lane is.
#[derive(Clone)]
pub(crate) enum Reader {
    Near(Arc<ReaderEnd>),
    Far(Arc<FarReader>),
}

/// What the thread is doing with a value.
enum Scope {
    Packing { things: Vec<Thing>, ends: usize, full: bool },
    Unpacking(Vec<Option<Thing>>),
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Runs `code` in a scope, and yields what is left of that; one within another is a scope of its own.
fn within<R>(scope: Scope, code: impl FnOnce() -> R) -> (R, Option<Scope>) {
    struct Restore(Option<Option<Scope>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(before) = self.0.take() {
                SCOPE.set(before);
            }
        }
    }
    let mut restore = Restore(Some(SCOPE.replace(Some(scope))));
    let result = code();
    let left = SCOPE.replace(restore.0.take().flatten());
    (result, left)
}

/// Serializes a thing as its place among those that are carried.
pub(crate) fn give<S: Serializer>(thing: Thing, serializer: S) -> Result<S::Ok, S::Error> {
    let place = SCOPE.with_borrow_mut(|scope| match scope {
        Some(Scope::Packing { things, ends, full }) => {
            *ends += usize::from(!matches!(thing, Thing::Context(_)));
            *full |= things.len() >= Limits::CARRIED || *ends > Limits::ENDS;
            things.push(thing);
            (!*full).then_some(things.len() as u32 - 1)
        }
        _ => None,
    });
    match place {
        Some(place) => place.serialize(serializer),
        None => Err(S::Error::custom(
            "a context or channel travels in the arguments and the value of a remote function, and nowhere else",
        )),
    }
}

/// Takes a thing by the place that stands for it.
pub(crate) fn take<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    pick: impl FnOnce(Thing) -> Option<T>,
) -> Result<T, D::Error> {
    let place = u32::deserialize(deserializer)?;
    let thing = SCOPE.with_borrow_mut(|scope| match scope {
        Some(Scope::Unpacking(things)) => things.get_mut(place as usize)?.take(),
        _ => None,
    });
    thing.and_then(pick).ok_or_else(|| D::Error::custom("no such context or channel came with the value"))
}

impl Serialize for Context {
    /// Only in the arguments and the value of a remote function, where it brings the right to use it along.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        give(Thing::Context(self.clone()), serializer)
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Context, D::Error> {
        take(deserializer, |thing| match thing {
            Thing::Context(context) => Some(context),
            Thing::Writer(_) | Thing::Reader(_) => None,
        })
    }
}

/// An end that was handed over: when this is dropped, nobody waits for what it is for.
struct Token {
    shared: Arc<Shared>,
    handle: u64,
    after: Duration,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.shared.with(|state, _| state.let_go_end(self.handle, self.after));
    }
}

/// A value that is to be handed over, encoded.
pub struct Packed {
    /// The value, behind a byte that says that it carries nothing. Shared by all whom it goes to.
    bytes: Bytes,
    carried: Mutex<Vec<Parcel>>,
}

/// A value as it goes to one receiver: what it carries there, and behind that the value, which others may share.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    carried: Vec<u8>,
    value: Bytes,
}

impl Handed {
    /// How many bytes it is.
    pub(crate) fn len(&self) -> usize {
        self.carried.len() + self.value.len()
    }

    /// Its parts, in their order.
    pub(crate) fn parts(self) -> [Bytes; 2] {
        [self.carried.into(), self.value]
    }

    /// All of it in one piece; without copying where nobody shares it and it carries nothing.
    pub fn into_vec(self) -> Vec<u8> {
        if self.carried.is_empty() {
            return self.value.into();
        }
        let mut all = self.carried;
        all.extend_from_slice(&self.value);
        all
    }
}

impl From<Vec<u8>> for Handed {
    fn from(bytes: Vec<u8>) -> Handed {
        Handed { carried: Vec::new(), value: bytes.into() }
    }
}

/// A thing on its way.
#[derive(Clone)]
enum Parcel {
    Thing(Thing),
    /// A writing end from elsewhere that was handed on: in a call that is made again it goes to another worker.
    On(Arc<FarWriter>),
    /// An end that was handed over: it is no longer one of this process.
    Handed(bool, Arc<Token>),
}

/// Whom something is handed to.
struct To<'a> {
    address: &'a Address,
    /// It is on the machine of this process.
    near: bool,
    /// It comes with a value, which who called takes when it looks.
    reply: bool,
}

impl To<'_> {
    fn after(&self) -> Duration {
        if self.reply { AFTER_REPLY } else { AFTER_CALL }
    }
}

impl Packed {
    /// Encodes a value.
    ///
    /// # Errors
    /// [`EncodeError`] when it has no form on the wire or is too long.
    pub fn new<T: Serialize + ?Sized>(value: &T) -> Result<Packed, EncodeError> {
        let scope = Scope::Packing { things: Vec::new(), ends: 0, full: false };
        let (bytes, scope) = within(scope, || encode_value_into(value, vec![0]));
        let things = match scope {
            Some(Scope::Packing { full: true, .. }) => return Err(EncodeError::TooMany),
            Some(Scope::Packing { things, .. }) => things,
            _ => Vec::new(),
        };
        Ok(Packed { bytes: bytes?.into(), carried: Mutex::new(things.into_iter().map(Parcel::Thing).collect()) })
    }

    /// As it goes to a worker, with the right of the worker to use what it carries. Again, to another worker, as long as
    /// nothing of it was used.
    ///
    /// # Errors
    /// When something that it carries cannot be handed over.
    pub fn for_call(&self, worker: &Context) -> Result<Handed, Error> {
        let to = To { address: worker.address(), near: worker.is_here(), reply: false };
        self.hand(worker.shared(), &to).map_err(|failure| worker.error(failure))
    }

    /// With which call it went: what nobody has asked for some seconds after that has ended is lost, whether or not somebody
    /// looks at the call.
    pub fn went_with(&self, calling: &Calling) {
        let parcels = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        for parcel in &*parcels {
            if let Parcel::Handed(_, token) = parcel {
                calling.with(|state, id| state.end_went_with(token.handle, id));
            }
        }
    }

    /// As it goes back to whoever called.
    ///
    /// # Errors
    /// As [`for_call`](Self::for_call).
    pub fn for_reply(self, call: &Invocation) -> Result<Vec<u8>, Failure> {
        let to = To { address: &call.from, near: true, reply: true };
        let handed = self.hand(call.context.shared(), &to)?;
        drop(self);
        Ok(handed.into_vec())
    }

    fn hand(&self, shared: &Arc<Shared>, to: &To<'_>) -> Result<Handed, Failure> {
        let mut parcels = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        if parcels.is_empty() {
            return Ok(Handed { carried: Vec::new(), value: self.bytes.clone() });
        }
        let list = parcels.iter_mut().map(|parcel| hand(parcel, shared, to));
        let carried = encode(&list.collect::<Result<Vec<Carried>, Failure>>()?);
        Ok(Handed { carried, value: self.bytes.slice(1..) })
    }
}

impl Clone for Packed {
    /// For another receiver. What only one can have, such as the end of a channel that is read, goes to the first.
    fn clone(&self) -> Packed {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Packed { bytes: self.bytes.clone(), carried: Mutex::new(carried) }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// What a handed-over context may be asked: not to end, and not for its own children's sake.
fn lent() -> VerbSet {
    [Verb::Echo, Verb::Info, Verb::Exec, Verb::Connect, Verb::Files, Verb::Call].into_iter().collect()
}

fn refused(text: &str) -> Failure {
    Failure::new(FailureKind::Unsupported, text)
}

fn hand(parcel: &mut Parcel, shared: &Arc<Shared>, to: &To<'_>) -> Result<Carried, Failure> {
    let (lane, reads) = match &*parcel {
        Parcel::Handed(reads, token) => return hand_again(*reads, token, shared, to),
        Parcel::Thing(Thing::Context(context)) => return hand_context(context, shared, to),
        Parcel::On(end) => return hand_on(end, shared, to),
        Parcel::Thing(Thing::Writer(Writer::Far(end))) => {
            let end = Arc::clone(end);
            let carried = hand_on(&end, shared, to)?;
            end.give()?;
            *parcel = Parcel::On(end);
            return Ok(carried);
        }
        Parcel::Thing(Thing::Reader(Reader::Far(_))) => {
            let text = "the reading end of a channel that came from elsewhere is not handed on: hand on what it brings";
            return Err(refused(text));
        }
        Parcel::Thing(Thing::Writer(Writer::Near(end))) => (Arc::clone(&end.0), false),
        Parcel::Thing(Thing::Reader(Reader::Near(end))) => (Arc::clone(&end.0), true),
    };
    let (carried, handle) = hand_end(&lane, reads, shared, to)?;
    let token = Token { shared: Arc::clone(shared), handle, after: to.after() };
    // What is replaced is the end that was here. It goes without the node's lock.
    *parcel = Parcel::Handed(reads, Arc::new(token));
    Ok(carried)
}

fn hand_context(context: &Context, shared: &Arc<Shared>, to: &To<'_>) -> Result<Carried, Failure> {
    if !Arc::ptr_eq(context.shared(), shared) {
        return Err(refused("a context of another tree cannot be handed over"));
    }
    if *context.address() == Address::ROOT {
        return Err(refused("the master itself is not handed over: nobody below may ask it for anything")
            .hint("hand over a context that it has connected, or the sending end of a channel"));
    }
    let grant = shared.with(|state, now| may_use(&mut state.core, context, to.address, now))?;
    Ok(Carried::Context {
        address: context.address().clone(),
        name: context.name().to_owned(),
        path: context.path().to_owned(),
        hello: context.hello().cloned(),
        near: context.is_here() && to.near,
        worker: context.runs_calls(),
        grant,
    })
}

/// The right of another context to use one.
fn may_use(core: &mut Node, context: &Context, to: &Address, now: Time) -> Result<Option<Grant>, Failure> {
    let address = context.address();
    match context.grant() {
        // What is its own needs no grant.
        _ if address == to => Ok(None),
        // Also for an ancestor, who sees by it that it was really given.
        Some(grant) => narrowed(grant, to).map(Some),
        None if address.is_below(to) => Ok(None),
        None => core.grant_for(address, to, lent(), None, Duration::MAX, now).map(Some),
    }
}

/// A grant for the next holder.
fn narrowed(grant: &Grant, to: &Address) -> Result<Grant, Failure> {
    let last = grant.links.last().ok_or_else(|| refused("its grant is empty"))?;
    let verbs = last.verbs.and(lent().with(Verb::Stream));
    let link = GrantLink { holder: to.clone(), verbs, handle: last.handle, expires_ms: last.expires_ms };
    narrow(grant, link).map_err(|error| refused(&format!("it cannot be handed on: {error}")))
}

fn no_lanes() -> Failure {
    refused("this process hands no channels over")
}

fn hand_end(lane: &Arc<Lane>, reads: bool, shared: &Arc<Shared>, to: &To<'_>) -> Result<(Carried, u64), Failure> {
    shared.with(|state, now| {
        let home = state.core.address().clone();
        let lanes = state.services.lanes.as_mut().ok_or_else(no_lanes)?;
        let (handle, grant) = lanes.hand(&mut state.core, End { lane, reads, home: shared }, to.address, now)?;
        Ok((Carried::End { home, handle, reads, grant }, handle))
    })
}

fn hand_again(reads: bool, token: &Token, shared: &Arc<Shared>, to: &To<'_>) -> Result<Carried, Failure> {
    shared.with(|state, now| {
        let home = state.core.address().clone();
        let lanes = state.services.lanes.as_mut().ok_or_else(no_lanes)?;
        let grant = lanes.hand_again(&mut state.core, token.handle, to.address, now)?;
        Ok(Carried::End { home, handle: token.handle, reads, grant })
    })
}

/// A writing end that came from elsewhere goes on to yet another context.
fn hand_on(end: &FarWriter, shared: &Arc<Shared>, to: &To<'_>) -> Result<Carried, Failure> {
    let Place { home, handle, grant } = &end.place;
    if !Arc::ptr_eq(&end.shared, shared) {
        return Err(refused("a channel of another tree cannot be handed over"));
    }
    if home == to.address {
        return Err(refused("the sending end of a channel is not handed back to where the channel is"));
    }
    if to.reply {
        // Ours ends with the function, the other begins when who called looks at the value: in between there would be none.
        return Err(refused("the sending end of a channel that came from elsewhere is not returned as a value")
            .hint("hand it over in the arguments of a call"));
    }
    let stream = VerbSet::NONE.with(Verb::Stream);
    let grant = match grant {
        _ if home.is_below(to.address) => None,
        Some(grant) => Some(narrowed(grant, to.address)?),
        None => Some(
            shared
                .with(|state, now| state.core.grant_for(home, to.address, stream, Some(*handle), Duration::MAX, now))?,
        ),
    };
    Ok(Carried::End { home: home.clone(), handle: *handle, reads: false, grant })
}

/// The encoded value within what was handed over: for those who look at its first bytes.
pub fn encoded(bytes: &[u8]) -> Option<&[u8]> {
    carried(bytes).ok().map(|(_, value)| value)
}

/// Decodes the arguments of a call.
///
/// # Errors
/// `Malformed` when they are not those of such a function; `Denied` when they carry what the caller cannot give.
pub fn arguments<T: DeserializeOwned>(call: &Invocation) -> Result<T, Failure> {
    unpack(call.context.shared(), &call.from, true, &call.args, "the arguments")
}

/// Decodes the value of a call that a worker ran.
///
/// # Errors
/// As [`arguments`].
pub fn value<T: DeserializeOwned>(worker: &Context, bytes: &[u8]) -> Result<T, Failure> {
    unpack(worker.shared(), worker.address(), worker.is_here(), bytes, "the value")
}

fn unpack<T: DeserializeOwned>(
    shared: &Arc<Shared>,
    from: &Address,
    near: bool,
    bytes: &[u8],
    what: &str,
) -> Result<T, Failure> {
    let malformed =
        |error: DecodeError| Failure::new(FailureKind::Malformed, format!("{what} cannot be decoded: {error}"));
    let (list, value) = carried(bytes).map_err(malformed)?;
    // Opening one asks its home.
    if list.iter().filter(|carried| matches!(carried, Carried::End { .. })).count() > Limits::ENDS {
        return Err(malformed(DecodeError::Malformed("it carries more ends of channels than there may be")));
    }
    let mut things = Vec::with_capacity(list.len());
    for carried in list {
        things.push(Some(receive(carried, shared, from, near)?));
    }
    within(Scope::Unpacking(things), || decode_untrusted(value)).0.map_err(malformed)
}

/// Takes what another context handed over, if it was its to give.
fn receive(carried: Carried, shared: &Arc<Shared>, from: &Address, near: bool) -> Result<Thing, Failure> {
    match carried {
        Carried::Context { address, name, path, hello, near: beside, worker, grant } => {
            let me = shared.lock().core.address().clone();
            let from_above = me.is_below(from);
            if address == me {
                let own = from_above.then(|| Thing::Context(Context::own(shared)));
                return own.ok_or_else(|| not_given(from, &address));
            }
            if !from_above && !address.is_under(from) && address.is_below(&me) {
                // It has the right by its place; whether it is what was given to whoever names it must be shown.
                let vouched = shared.with(|state, now| {
                    grant.as_ref().is_some_and(|grant| grant.target == address && state.core.vouches(grant, &me, now))
                });
                if !vouched {
                    return Err(not_given(from, &address));
                }
            }
            let grant = grant.filter(|_| !address.is_below(&me));
            let (name, path) = (escaped(name.as_bytes()).to_string(), escaped(path.as_bytes()).to_string());
            let given = Given { address, name, path, hello, worker, grant };
            Ok(Thing::Context(Context::handed(shared, given, near && beside)))
        }
        Carried::End { home, handle, reads, grant } => {
            let me = shared.lock().core.address().clone();
            // Its own ends it would serve to itself; those of its subtree only to whom they were given.
            let foreign = home == me || (home.is_below(&me) && !home.is_under(from) && !me.is_below(from));
            // Elsewhere it is opened by a right alone, which its home has given.
            let granted = home.is_below(&me) || grant.as_ref().is_some_and(|grant| grant.target == home);
            if foreign || !granted {
                return Err(not_given(from, &home));
            }
            let place = Place { grant: grant.filter(|_| !home.is_below(&me)), home, handle };
            Ok(if reads {
                Thing::Reader(Reader::Far(Arc::new(FarReader::open(shared, &place))))
            } else {
                Thing::Writer(Writer::Far(Arc::new(FarWriter::open(shared, place))))
            })
        }
    }
}

fn not_given(from: &Address, what: &Address) -> Failure {
    Failure::new(FailureKind::Denied, format!("{from} handed over {what}, which is not its to give"))
}
