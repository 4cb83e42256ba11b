//! What must hold: of a node at any time, of a failure, of a tree at rest.

use offshoot_wire::{Address, Failure, FailureKind, Limits, Ran, Verb};

use super::{World, app};

impl World {
    /// What must hold of a node at any time.
    pub(super) fn check_bounds(&self, member: usize) {
        let Some(node) = self.members[member].node.as_ref() else { return };
        let census = node.census();
        let config = node.config();
        assert!(census.asked <= config.max_pending);
        let floors = census.exchanges as u64 * 16 * Limits::WINDOW_FLOOR;
        assert!(
            census.granted <= Limits::WINDOW_SUM + floors,
            "{} grants {} bytes",
            self.members[member].address,
            census.granted
        );
        for &link in self.members[member].links.keys() {
            let Some(stats) = node.stats(link) else { continue };
            let waiting = config.relay_limit + config.send_buffer as u64 * census.open as u64;
            let frames = 70_000 + census.frames as u64 * 200;
            let most = waiting + 3 * config.call_budget + config.call_window + config.answer_budget + floors + frames;
            assert!(stats.queued <= most, "{} bytes wait for one link", stats.queued);
            // One frame more than the limit may be on its way.
            assert!(
                stats.bulk_in_flight <= stats.bulk_limit.max(config.bulk_floor) * 4 + 70_000,
                "{} bytes of bulk in flight, the limit is {}",
                stats.bulk_in_flight,
                stats.bulk_limit
            );
        }
    }

    /// At the end nothing is left anywhere.
    pub(super) fn check_empty(&self) {
        for member in self.members.iter().filter(|member| member.alive) {
            let Some(node) = member.node.as_ref() else { continue };
            let mut left = node.census();
            left.links = 0;
            assert_eq!(
                left,
                offshoot_route::Census::default(),
                "{} is at rest and holds something: {:?}",
                member.address,
                member.app.serving()
            );
            assert_eq!(member.app.serving().len(), 0, "{} still serves something", member.address);
        }
    }

    /// Judges a failure: what it says about the work, and whether there was a cause.
    pub(super) fn judge(&mut self, index: usize, failure: &Failure) {
        let call = &mut self.calls[index];
        match failure.ran {
            Ran::NotSent => {
                assert_eq!(call.executed, 0, "call {index} ran, and is said not to have: {failure:?}");
                call.not_sent = true;
            }
            Ran::Executed => assert_eq!(call.executed, 1, "call {index} did not run, and is said to have: {failure:?}"),
            Ran::MaybeExecuted => {}
        }
        let call = &self.calls[index];
        let damaged = call.wires.iter().any(|&wire| self.wires[wire].damaged);
        let dead = !self.members[call.to].alive || !self.members[call.from].alive;
        let slim = call.wires.iter().any(|&wire| self.wires[wire].frame < 4096);
        let revoked = call.granted.is_some_and(|grant| self.revoked.contains(&grant));
        let cause = match &failure.kind {
            FailureKind::PeerLost(_) | FailureKind::NoRoute => damaged || dead || call.wires.is_empty(),
            FailureKind::Remote(_) => call.mode == app::Mode::Fails,
            FailureKind::Denied => revoked || (call.granted.is_none() && damaged),
            FailureKind::TooLarge => slim,
            FailureKind::Busy => self.setting.tight,
            _ => false,
        };
        let (from, target) = (&self.members[call.from].address, &call.target);
        if let FailureKind::PeerLost(_) = failure.kind {
            let named = target.is_under(&failure.at) || from.is_below(&failure.at);
            assert!(named, "call {index} from {from} to {target}: {} has no part in it", failure.at);
        }
        assert!(cause, "call {index} from {from} to {target} ({:?}) was disturbed: {failure:?}", call.mode);
    }

    pub(super) fn is_evil(&self, address: &Address) -> bool {
        self.members.iter().any(|member| member.hostile.is_some() && address.is_under(&member.address))
    }

    /// Whether a hostile request may reach a handler.
    pub(super) fn may_ask(&self, target: usize, from: &Address, verb: Verb) -> bool {
        self.legit.iter().any(|(at, _, holder, verbs)| *at == target && from.is_under(holder) && verbs.contains(verb))
    }
}
