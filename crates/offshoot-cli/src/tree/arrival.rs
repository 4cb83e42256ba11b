//! How a context was reached, for the doctor.

use std::time::Duration;

use offshoot::wire::ConnectStage;

use super::Node;
use crate::doctor::{Agent, Stage};

/// The stages of a connect through a tool, in order.
const STAGES: [ConnectStage; 7] = [
    ConnectStage::Queue,
    ConnectStage::Start,
    ConnectStage::Login,
    ConnectStage::Probe,
    ConnectStage::Payload,
    ConnectStage::Agent,
    ConnectStage::Hello,
];

impl Node {
    /// The stages by which this context was reached, with their times, and what it said of itself.
    pub(crate) fn arrival(&self) -> (Vec<Stage>, Agent) {
        let mut before = Duration::ZERO;
        let stages = self.context.stages().iter().map(|(stage, end)| {
            let took = end.saturating_sub(before);
            before = *end;
            Stage { name: stage.to_string(), took: Some(took), failed: false }
        });
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

/// The stages that were passed before this one failed; none when it is not known which.
pub(crate) fn stages_before(failed: Option<&str>) -> impl Iterator<Item = String> {
    let names: Vec<String> = STAGES.iter().map(ConnectStage::to_string).collect();
    let count = names.iter().position(|name| Some(name.as_str()) == failed).unwrap_or(0);
    // The queue is passed unseen.
    names.into_iter().take(count).skip(1)
}
