//! The grants that this context gave, and the checking of those that it is shown (R4).

use std::collections::HashMap;
use std::time::Duration;

use offshoot_wire::{Address, Failure, FailureKind, Grant, GrantLink, Ran, Verb, VerbSet};

use super::Node;
use crate::event::ExchangeId;
use crate::exchange::SERVER;
use crate::hash::Seeded;
use crate::seal;
use crate::time::Time;

/// Grants that an ancestor made for this context carry this bit: they are not in its table, and end by expiry alone.
const BY_ANCESTOR: u64 = 1 << 63;

/// The grants alive, by number: when each ends, in milliseconds of the tree's clock.
pub(super) struct Grants {
    alive: HashMap<u64, u64, Seeded>,
    next: u64,
}

impl Grants {
    pub(super) fn new(seed: Seeded) -> Grants {
        Grants { alive: HashMap::with_hasher(seed), next: 1 }
    }
}

impl Node {
    /// Permits `holder`, and everything below it, to ask this context for `verbs`, or for one handle only, for `ttl`.
    ///
    /// # Errors
    /// `Busy` when [`Config::max_grants`](crate::Config::max_grants) are alive.
    pub fn grant(
        &mut self,
        holder: &Address,
        verbs: VerbSet,
        handle: Option<u64>,
        ttl: Duration,
        now: Time,
    ) -> Result<Grant, Failure> {
        let tree_ms = self.tree_ms(now);
        if self.grants.alive.len() >= self.config.max_grants {
            self.grants.alive.retain(|_, expires| tree_ms < *expires);
            if self.grants.alive.len() >= self.config.max_grants {
                return Err(self.busy("this context has given as many grants as it may"));
            }
        }
        let number = self.grants.next;
        self.grants.next = (self.grants.next + 1) & !BY_ANCESTOR;
        let link = link(holder, verbs, handle, ttl, tree_ms);
        self.grants.alive.insert(number, link.expires_ms);
        Ok(seal::make(&self.key, &self.address, number, link))
    }

    /// Permits `holder` to ask `target`, a context at or below this one, without asking it. Such a grant is not in the
    /// target's table, also when that is this context: it ends by expiry, and cannot be revoked.
    ///
    /// # Errors
    /// `Denied` when `target` does not lie below this context: only ancestors can compute its key.
    pub fn grant_for(
        &mut self,
        target: &Address,
        holder: &Address,
        verbs: VerbSet,
        handle: Option<u64>,
        ttl: Duration,
        now: Time,
    ) -> Result<Grant, Failure> {
        let below = || seal::key_below(&self.key, &self.address, target);
        let Some(key) = Some(self.key).filter(|_| *target == self.address).or_else(below) else {
            return Err(self.failure(FailureKind::Denied, format!("{target} does not lie below {}", self.address)));
        };
        let number = self.grants.next | BY_ANCESTOR;
        self.grants.next = (self.grants.next + 1) & !BY_ANCESTOR;
        Ok(seal::make(&key, target, number, link(holder, verbs, handle, ttl, self.tree_ms(now))))
    }

    /// As [`grant_for`](Self::grant_for), for `target` below this context, and for as long as that lives. `None` when it does
    /// not lie below. Apart from the table of this context's own grants, which agents need not have.
    pub fn grant_below(&mut self, target: &Address, holder: &Address, verbs: VerbSet) -> Option<Grant> {
        let key = seal::key_below(&self.key, &self.address, target)?;
        let number = self.grants.next | BY_ANCESTOR;
        self.grants.next = (self.grants.next + 1) & !BY_ANCESTOR;
        let link = GrantLink { holder: holder.clone(), verbs, handle: None, expires_ms: u64::MAX };
        Some(seal::make(&key, target, number, link))
    }

    /// Takes a grant of this context back, with all hand-overs of it. What was asked by it and still runs is cancelled
    /// here and fails with `Denied` there. An unknown number does nothing.
    pub fn revoke(&mut self, number: u64, _now: Time) {
        if self.grants.alive.remove(&number).is_none() {
            return;
        }
        let by_it = |slot: &u32| {
            let exchange = &self.exchanges[*slot];
            exchange.open && exchange.end[SERVER].link.is_local() && exchange.grant == Some(number)
        };
        let running: Vec<u32> = self.exchanges.slots().filter(by_it).collect();
        for slot in running {
            let failure = self.failure(FailureKind::Denied, "the grant was revoked").ran(Ran::MaybeExecuted);
            self.abort(slot, failure);
        }
    }

    /// How many grants of this context are in its table.
    pub fn grants(&self) -> usize {
        self.grants.alive.len()
    }

    /// Who asked for what this context serves, when it was by a grant.
    pub fn granted_to(&self, id: ExchangeId) -> Option<&Address> {
        let exchange = &self.exchanges[self.exchanges.find_id(id.0)?];
        exchange.grant.map(|_| &exchange.requester)
    }

    /// Whether a grant opens a context below this one to `holder`. So an ancestor can tell whether what it is shown was
    /// really given: it needs no grant itself.
    pub fn vouches(&self, grant: &Grant, holder: &Address, now: Time) -> bool {
        let Some(key) = seal::key_below(&self.key, &self.address, &grant.target) else { return false };
        let handle = seal::verify(&key, &grant.target, grant, holder, Verb::Echo, self.tree_ms(now));
        handle.is_ok_and(|handle| handle.is_none())
    }

    /// Checks a grant that a request brought. On success, the handle it is bound to.
    pub(super) fn check_grant(
        &self,
        grant: &Grant,
        requester: &Address,
        verb: Verb,
        now: Time,
    ) -> Result<Option<u64>, &'static str> {
        // Looked up first: a number that was never given, or is revoked, costs no hashing.
        if grant.number & BY_ANCESTOR == 0 && !self.grants.alive.contains_key(&grant.number) {
            return Err("the grant was revoked, has expired or was never given");
        }
        seal::verify(&self.key, &self.address, grant, requester, verb, self.tree_ms(now))
    }
}

fn link(holder: &Address, verbs: VerbSet, handle: Option<u64>, ttl: Duration, tree_ms: u64) -> GrantLink {
    let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    GrantLink { holder: holder.clone(), verbs, handle, expires_ms: tree_ms.saturating_add(ttl) }
}
