//! How a context was reached, for the doctor.

use std::time::Duration;

use offshoot::ConnectStage;

use super::Node;
use crate::doctor::{Agent, Stage};

impl Node {
    /// The stages by which this context was reached, with their times, and what it said of itself.
    pub(crate) fn arrival(&self) -> (Vec<Stage>, Agent) {
        let stages = each(self.context.stages()).map(|(name, took)| Stage { name, took: Some(took), failed: false });
        let agent = self.context.hello().map_or_else(Agent::default, |hello| Agent {
            user: hello.user.clone(),
            uid: hello.uid,
            host: hello.host.clone(),
            pid: hello.pid,
            triple: hello.triple.clone(),
            version: hello.version.clone(),
            at_hand: None,
        });
        (stages.collect(), agent)
    }
}

/// How long each stage took, from when each ended.
pub(super) fn each(ends: &[(ConnectStage, Duration)]) -> impl Iterator<Item = (String, Duration)> {
    let mut before = Duration::ZERO;
    ends.iter().map(move |(stage, end)| {
        let took = end.saturating_sub(before);
        before = *end;
        (stage.to_string(), took)
    })
}
