//! Heartbeats and silence. Each link has one entry in the heap; hearing from it moves nothing, the entry is looked at
//! when it comes and set again.

use std::cmp::Reverse;

use offshoot_wire::LostReason;

use super::Node;
use super::lost::By;
use crate::event::LinkId;
use crate::link::Role;
use crate::outbox::{find, find_mut};
use crate::time::Time;

impl Node {
    /// When [`Node::handle_timeout`] is to be called; `None` while no link is up. Looking costs nothing, setting is
    /// O(log n) in the number of links.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Sends the heartbeats that are due and gives up the links that were silent for too long.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&Reverse((at, id))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(link) = find_mut(&mut self.links, id).filter(|link| link.is_up()) else { continue };
            if now >= link.heard + link.limits.silence {
                self.lose(id, LostReason::Silent, By::Core);
                continue;
            }
            if link.role == Role::Child && now >= link.beat + link.limits.heartbeat {
                link.beat = now;
                link.ping = true;
            }
            self.schedule(id);
            self.mark_ready(id);
        }
    }

    pub(super) fn schedule(&mut self, id: LinkId) {
        if let Some(link) = find(&self.links, id) {
            self.timers.push(Reverse((link.deadline(), id)));
        }
    }
}
