//! The broker: the one thread of a node that sleeps in the poller.

use std::sync::Arc;

use offshoot_mux::{Events, Poller};
use offshoot_wire::LostReason;

use crate::shared::Shared;

/// Events of one turn. More wait in the kernel.
const EVENTS: usize = 256;

/// Runs until the node has ended; returns why.
pub(crate) fn run(shared: &Arc<Shared>, poller: &mut Poller) -> LostReason {
    let mut events = Events::with_capacity(EVENTS);
    loop {
        let mut state = shared.lock();
        if let Some(reason) = state.ended() {
            shared.settle(state, shared.now());
            return reason;
        }
        let sleep = state.broker_sleeps(shared);
        drop(state);
        if let Err(error) = poller.wait(&mut events, Some(sleep)) {
            // Not expected in a working program; the loop must not spin on it.
            log::error!("the poller fails: {error}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let mut state = shared.lock();
        state.broker_wakes();
        let now = shared.now();
        for event in events.iter() {
            state.on_ready(shared, event, now);
        }
        state.on_time(shared, now);
        shared.settle(state, now);
        shared.give_way();
    }
}
