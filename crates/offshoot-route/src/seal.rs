//! Sealing keys and grants (R4): making, narrowing and checking them.
//!
//! A child's key is `HMAC-SHA256(parent's key, "child" ‖ index)`. So every ancestor can compute the key of anything
//! below it and nobody else can; passing fresh keys up instead would need a table at each ancestor and a frame per
//! context. A grant's seal is a chain: the first is made with the target's key, each hand-over with the seal before it.
//! Who holds a grant can narrow it without asking anyone, and cannot take a link off again.

use hmac::{Hmac, KeyInit, Mac};
use offshoot_wire::{Address, Grant, GrantLink, Limits, Verb, encode_into};
use sha2::Sha256;

fn mac(key: &[u8; 32], label: &[u8], data: &[u8]) -> Hmac<Sha256> {
    // A key of 32 bytes is below the block size of 64: HMAC takes any length and never refuses.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(label);
    mac.update(data);
    mac
}

fn seal(key: &[u8; 32], label: &[u8], data: &[u8]) -> [u8; 32] {
    mac(key, label, data).finalize().into_bytes().into()
}

/// The sealing key of child `index` of the context that has `key`.
pub fn child_key(key: &[u8; 32], index: u32) -> [u8; 32] {
    seal(key, b"child", &index.to_le_bytes())
}

/// The key of `below`, for the context at `at` that has `key`; `None` when it is not at or below `at`.
pub fn key_below(key: &[u8; 32], at: &Address, below: &Address) -> Option<[u8; 32]> {
    if !below.is_under(at) {
        return None;
    }
    Some(below.path().iter().skip(at.depth()).fold(*key, |key, &index| child_key(&key, index)))
}

/// Sixteen bytes for seeding hash tables, from the node's key.
pub(crate) fn hash_secret(key: &[u8; 32]) -> [u8; 16] {
    let full = seal(key, b"hash", b"");
    let mut half = [0; 16];
    half.copy_from_slice(&full[..16]);
    half
}

fn first_seal(key: &[u8; 32], target: &Address, number: u64, link: &GrantLink) -> [u8; 32] {
    let mut data = Vec::with_capacity(96);
    encode_into(target, &mut data);
    encode_into(&number, &mut data);
    encode_into(link, &mut data);
    seal(key, b"grant", &data)
}

fn next_seal(last: &[u8; 32], link: &GrantLink) -> [u8; 32] {
    let mut data = Vec::with_capacity(64);
    encode_into(link, &mut data);
    seal(last, b"pass", &data)
}

/// Makes a grant with the target's key.
pub(crate) fn make(key: &[u8; 32], target: &Address, number: u64, link: GrantLink) -> Grant {
    let seal = first_seal(key, target, number, &link);
    Grant { target: target.clone(), number, links: vec![link], seal }
}

/// Why a grant cannot be handed over as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NarrowError {
    /// The new link allows something that the grant does not: a verb, another handle, or a later end.
    Widened,
    /// The chain is at its limit, [`Limits::GRANT_LINKS`].
    TooLong,
    /// The grant has no link to narrow.
    Empty,
}

impl std::fmt::Display for NarrowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NarrowError::Widened => "a grant can be narrowed, not widened",
            NarrowError::TooLong => "a grant is handed over at most 16 times",
            NarrowError::Empty => "the grant is empty",
        })
    }
}

impl std::error::Error for NarrowError {}

/// Whether `next` allows nothing that `last` does not.
fn narrows(last: &GrantLink, next: &GrantLink) -> bool {
    next.verbs.is_subset(last.verbs)
        && next.expires_ms <= last.expires_ms
        && (last.handle.is_none() || next.handle == last.handle)
}

/// Hands a grant over: adds `link`, whose holder may then use it, sealed with the old seal. No key is needed.
///
/// # Errors
/// [`NarrowError`] when `link` is not narrower, or the chain is full.
pub fn narrow(grant: &Grant, link: GrantLink) -> Result<Grant, NarrowError> {
    let last = grant.links.last().ok_or(NarrowError::Empty)?;
    if grant.links.len() >= Limits::GRANT_LINKS {
        return Err(NarrowError::TooLong);
    }
    if !narrows(last, &link) {
        return Err(NarrowError::Widened);
    }
    let seal = next_seal(&grant.seal, &link);
    let mut links = grant.links.clone();
    links.push(link);
    Ok(Grant { target: grant.target.clone(), number: grant.number, links, seal })
}

/// Checks a grant at its target. On success, the handle that it is bound to, if it is.
///
/// # Errors
/// What is wrong with it, as a message for the requester.
pub(crate) fn verify(
    key: &[u8; 32],
    me: &Address,
    grant: &Grant,
    requester: &Address,
    verb: Verb,
    tree_ms: u64,
) -> Result<Option<u64>, &'static str> {
    if grant.target != *me {
        return Err("the grant is for another context");
    }
    if grant.links.len() > Limits::GRANT_LINKS {
        return Err("the grant's chain is too long");
    }
    let Some((first, passed)) = grant.links.split_first() else { return Err("the grant is empty") };
    // The seal is checked before anything that it covers is answered for: who forges learns nothing but "broken".
    let mut expected = first_seal(key, me, grant.number, first);
    let mut last = first;
    let mut narrowed = true;
    for link in passed {
        expected = next_seal(&expected, link);
        narrowed &= narrows(last, link);
        last = link;
    }
    if !equal(&expected, &grant.seal) {
        return Err("the grant's seal is broken");
    }
    if !narrowed {
        return Err("the grant was widened on the way");
    }
    if !requester.is_under(&last.holder) {
        return Err("the grant belongs to another context");
    }
    if !last.verbs.contains(verb) {
        return Err("the grant does not open this verb");
    }
    if tree_ms >= last.expires_ms {
        return Err("the grant has expired");
    }
    Ok(last.handle)
}

/// Compares in constant time.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0u8, |different, (a, b)| different | (a ^ b))) == 0
}
