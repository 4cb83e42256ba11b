//! Chains of calls, in a worker: which of them may run.
//!
//! Calls of a chain run one after the other, in the order of their positions, whatever order they arrive in, and after one
//! that did not succeed none does. Pure: the calls themselves are run by whoever asks.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// How many chains are known at once: some 100 bytes each.
const CHAINS: usize = 65_536;

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<I, J> {
    /// Run this call.
    Run(I, J),
    /// Refuse it: an earlier one did not succeed.
    Refuse(I),
}

struct Chain<I, J> {
    /// The position that comes next.
    next: u64,
    running: Option<I>,
    /// What came too early, by position; `None` for a call that was given up.
    waiting: BTreeMap<u64, Option<(I, J)>>,
    failed: bool,
}

/// The chains of a worker, each of whoever calls: `C` names a chain, `I` a call, `J` is what it needs to run.
pub(crate) struct Chains<C, I, J> {
    chains: HashMap<C, Chain<I, J>>,
}

impl<C: Clone + Eq + Hash, I: Copy + Eq + Hash, J> Chains<C, I, J> {
    pub(crate) fn new() -> Chains<C, I, J> {
        Chains { chains: HashMap::new() }
    }

    /// A call is ready to run when its turn comes. `None` when there are too many chains, or its position is over.
    pub(crate) fn ready(&mut self, chain: &C, position: u64, id: I, job: J) -> Option<Vec<Step<I, J>>> {
        self.put(chain, position, Some((id, job)))
    }

    /// A position will not run: its call was given up.
    pub(crate) fn skip(&mut self, chain: &C, position: u64) -> Vec<Step<I, J>> {
        self.put(chain, position, None).unwrap_or_default()
    }

    fn put(&mut self, chain: &C, position: u64, call: Option<(I, J)>) -> Option<Vec<Step<I, J>>> {
        if !self.chains.contains_key(chain) && self.chains.len() >= CHAINS {
            return None;
        }
        let new = || Chain { next: 0, running: None, waiting: BTreeMap::new(), failed: false };
        let chain = self.chains.entry(chain.clone()).or_insert_with(new);
        if position < chain.next || chain.waiting.contains_key(&position) {
            return None;
        }
        chain.waiting.insert(position, call);
        Some(chain.advance())
    }

    /// A call of a chain has ended, or was given up before it ran.
    pub(crate) fn ended(&mut self, chain: &C, id: I, failed: bool) -> Vec<Step<I, J>> {
        let Some(chain) = self.chains.get_mut(chain) else { return Vec::new() };
        if chain.running == Some(id) {
            chain.running = None;
            chain.failed |= failed;
        } else if let Some(call) =
            chain.waiting.values_mut().find(|call| call.as_ref().is_some_and(|(of, _)| *of == id))
        {
            *call = None;
        }
        chain.advance()
    }

    /// Whether this call is the one of its chain that runs.
    pub(crate) fn is_running(&self, chain: &C, id: I) -> bool {
        self.chains.get(chain).is_some_and(|chain| chain.running == Some(id))
    }

    /// Nobody will add to a chain any more.
    pub(crate) fn forget(&mut self, chain: &C) {
        self.chains.remove(chain);
    }
}

impl<I: Copy, J> Chain<I, J> {
    fn advance(&mut self) -> Vec<Step<I, J>> {
        let mut steps = Vec::new();
        while self.running.is_none()
            && let Some(call) = self.waiting.remove(&self.next)
        {
            self.next += 1;
            match call {
                None => self.failed = true,
                Some((id, _)) if self.failed => steps.push(Step::Refuse(id)),
                Some((id, job)) => {
                    self.running = Some(id);
                    steps.push(Step::Run(id, job));
                }
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_run_one_after_the_other_in_the_order_of_their_positions() {
        let mut chains = Chains::new();
        assert_eq!(chains.ready(&1, 1, 'b', ()), Some(vec![]));
        assert_eq!(chains.ready(&1, 0, 'a', ()), Some(vec![Step::Run('a', ())]));
        assert_eq!(chains.ready(&1, 2, 'c', ()), Some(vec![]));
        assert_eq!(chains.ended(&1, 'a', false), [Step::Run('b', ())]);
        assert_eq!(chains.ended(&1, 'b', false), [Step::Run('c', ())]);
        assert_eq!(chains.ended(&1, 'c', false), []);
        assert_eq!(chains.ready(&1, 2, 'x', ()), None, "a position twice");
    }

    #[test]
    fn after_a_failure_or_a_gap_that_was_given_up_none_runs() {
        let mut chains = Chains::new();
        chains.ready(&1, 0, 'a', ());
        chains.ready(&1, 1, 'b', ());
        chains.ready(&1, 3, 'd', ());
        assert_eq!(chains.ended(&1, 'a', true), [Step::Refuse('b')]);
        assert_eq!(chains.ready(&1, 2, 'c', ()), Some(vec![Step::Refuse('c'), Step::Refuse('d')]));
        let mut chains = Chains::new();
        chains.ready(&1, 1, 'b', ());
        assert_eq!(chains.skip(&1, 0), [Step::Refuse('b')]);
        let mut chains = Chains::new();
        chains.ready(&1, 0, 'a', ());
        chains.ready(&1, 1, 'b', ());
        chains.ready(&1, 2, 'c', ());
        assert_eq!(chains.ended(&1, 'b', true), [], "given up while it waited");
        assert_eq!(chains.ended(&1, 'a', false), [Step::Refuse('c')]);
    }
}
