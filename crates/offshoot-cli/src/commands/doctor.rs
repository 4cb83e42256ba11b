//! `offshoot doctor`: connects to one target and says how that went, hop by hop, and what is there.

use std::io;
use std::time::Instant;

use crate::args::{DoctorArgs, GlobalArgs};
use crate::doctor::facts::{ANSWER_MAX, Facts, SCRIPT};
use crate::doctor::{Hop, Stage, findings, show};
use crate::exit;
use crate::fault::Fault;
use crate::ground::{Event, Ground, Job, Running};
use crate::options::{Look, Reach};
use crate::output::{Console, Json, Printer as _, Stream};
use crate::tree::Node;

/// How long a target may take for its answers.
const ASK: std::time::Duration = std::time::Duration::from_secs(20);

/// Looks at the target and returns what to exit with.
///
/// # Errors
/// What is wrong before anything runs, and what breaks our own output.
pub(crate) fn doctor(args: DoctorArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let look = Look::new(global);
    let reach = Reach::new(&args.reach, global)?;
    let chosen = crate::targets::resolve(&[args.target], &args.reach.exclude)?;
    let (names, mut paths) = crate::tree::paths(chosen.names, &chosen.excluded, &reach)?;
    let (Some(path), true) = (paths.pop(), paths.is_empty()) else {
        anyhow::bail!("the doctor sees one target at a time; these are {}", names.len());
    };
    let (console, interrupt, tree) = super::connected(&reach)?;
    let agents = crate::tree::agents(reach.agents.as_deref()).0;
    let mut code = 0;
    let mut node = tree.root().clone();
    for hop in &path {
        let started = Instant::now();
        let (mut seen, next) = match node.connect(hop) {
            Ok(next) => (examine(&next), Some(next)),
            Err(fault) => (unreached(&node, hop.to_string(), fault, started), None),
        };
        if interrupt.code().is_some() {
            break;
        }
        seen.name = hop.to_string();
        if let Some(agent) = &mut seen.agent {
            let fits = agents.iter().find(|found| found.triple == agent.triple);
            agent.at_hand = fits.map(|found| (found.sent, found.from.clone()));
        }
        code = code.max(seen.fault.as_ref().map_or(0, |fault| fault.code));
        let shown = if args.json {
            record(&seen, &console, &names)
        } else {
            console.write(Stream::Stdout, show::draw(&seen, &look).as_bytes())
        };
        match shown {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                code = exit::BROKEN_PIPE;
                break;
            }
            shown => shown?,
        }
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    tree.shutdown();
    Ok(interrupt.code().unwrap_or(code))
}

fn record(hop: &Hop, console: &Console, names: &[String]) -> io::Result<()> {
    let mut text = Vec::new();
    show::append_record(hop, &mut text)?;
    console.write(Stream::Stdout, &text)?;
    match &hop.fault {
        Some(fault) => Json { console, names }.failed(&[0], fault),
        None => Ok(()),
    }
}

/// What is to be said of a context that was reached.
fn examine(node: &Node) -> Hop {
    let (mut stages, agent) = node.arrival();
    let mut hop = Hop { path: node.path(), agent: Some(agent), ..Hop::default() };
    let call = node.facts();
    let took = call.as_ref().ok().map(|facts| facts.latency);
    stages.push(Stage { name: "first call".into(), took, failed: call.is_err() });
    hop.stages = stages;
    match call.and_then(|_| ask(node)) {
        Ok(facts) => {
            hop.findings = findings::findings(&facts);
            hop.facts = facts;
        }
        Err(fault) => hop.fault = Some(fault),
    }
    hop
}

/// Asks the target what it has.
fn ask(node: &Node) -> Result<Facts, Box<Fault>> {
    let job = Job { program: "sh".into(), args: vec!["-c".into(), SCRIPT.into()], timeout: Some(ASK) };
    let mut process = node.start(&job, false)?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_MAX {
        match process.event()? {
            Event::Output(Stream::Stdout, bytes) => answer.extend_from_slice(&bytes),
            Event::Output(Stream::Stderr, _) => {}
            Event::End(..) => break,
        }
    }
    Ok(Facts::read(&answer))
}

/// What is to be said of a hop that was not reached.
fn unreached(above: &Node, name: String, fault: Box<Fault>, started: Instant) -> Hop {
    let told = fault.stages.iter().map(|(name, took)| Stage { name: name.clone(), took: Some(*took), failed: false });
    let mut stages: Vec<Stage> = told.collect();
    match stages.last_mut() {
        Some(last) => last.failed = true,
        // It did not come to a connect, or nobody is left to tell of it.
        None => {
            let name = fault.stage.clone().unwrap_or_else(|| "connecting".into());
            stages.push(Stage { name, took: Some(started.elapsed()), failed: true });
        }
    }
    let path = if fault.path.is_empty() { [above.path(), name].join(" -> ") } else { fault.path.clone() };
    Hop { path, stages, fault: Some(fault), ..Hop::default() }
}
