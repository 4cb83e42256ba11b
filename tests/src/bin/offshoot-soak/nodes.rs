//! Who is in the tree, as far as the run was told, and what was done to it.
//!
//! A fault is noted before its signal is sent, and a context that is added later looks whether its processes were hit before: so whatever a fault brings
//! about finds it noted.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use offshoot::Context;
use offshoot_tests::process::Process;
use offshoot_tests::tree::is_ours;

use crate::judge::{Fault, Part};
use crate::rng::Rng;
use crate::ssh::{self, Login, Way};

/// How long a fault is remembered: longer than any operation lasts.
const REMEMBERED: Duration = Duration::from_secs(300);

struct Node {
    context: Context,
    agent: Option<Process>,
    supervisor: Option<Process>,
    /// What leads to it, behind a login.
    way: Way,
    /// The killer leaves it alone.
    spared: bool,
    /// What runs functions for it, as far as that is known.
    worker: Option<Worker>,
}

/// A worker and its guard.
struct Worker {
    address: Vec<u32>,
    worker: Process,
    guard: Process,
}

impl Worker {
    fn processes(&self) -> [(Part, &Process); 2] {
        [(Part::Worker, &self.worker), (Part::Keeper, &self.guard)]
    }

    fn part(&self, wanted: (i32, u64)) -> Option<Part> {
        self.processes().into_iter().find(|(_, process)| id(process) == wanted).map(|(part, _)| part)
    }
}

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<Vec<u32>, Node>,
    faults: VecDeque<Fault>,
}

/// What is never another process': pids are used again within minutes on a busy machine.
pub(crate) fn id(process: &Process) -> (i32, u64) {
    (process.pid, process.start)
}

fn is(process: &Option<Process>, other: (i32, u64)) -> bool {
    process.as_ref().is_some_and(|process| id(process) == other)
}

/// All contexts that were connected and are not known to be gone.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<Inner>);

/// A process to hit.
pub(crate) struct Victim {
    pub(crate) address: Vec<u32>,
    pub(crate) part: Part,
    pub(crate) process: Process,
    /// What all that is below it descends from.
    pub(crate) root: i32,
}

/// An address as lines show it, with a space behind it, so that `/1` is not found in `/12`.
pub(crate) fn shown(address: &[u32]) -> String {
    let mut text = String::new();
    for index in address {
        let _ = write!(text, "/{index}");
    }
    text + if address.is_empty() { "/ " } else { " " }
}

impl Node {
    fn is_behind_login(&self) -> bool {
        self.context.name().starts_with("ssh:")
    }

    /// Its processes, as far as they are known.
    fn processes(&self) -> impl Iterator<Item = (Part, &Process)> {
        let parts = [
            (Part::Agent, &self.agent),
            (Part::Supervisor, &self.supervisor),
            (Part::Client, &self.way.client),
            (Part::Session, &self.way.session),
        ];
        parts.into_iter().filter_map(|(part, process)| Some((part, process.as_ref()?)))
    }

    /// Which part of it, or of its worker, that process is, and its address.
    fn whose(&self, address: &[u32], wanted: (i32, u64)) -> Option<(Part, Vec<u32>)> {
        let own = self.part(wanted).map(|part| (part, address.to_vec()));
        own.or_else(|| self.worker.as_ref().and_then(|worker| Some((worker.part(wanted)?, worker.address.clone()))))
    }

    fn part(&self, wanted: (i32, u64)) -> Option<Part> {
        self.processes().find(|(_, process)| id(process) == wanted).map(|(part, _)| part)
    }
}

impl Inner {
    fn is_lost(&self, address: &[u32]) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.part != Part::Below && fault.is_lethal() && address.starts_with(&fault.address))
    }
}

impl Nodes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A context whose connect began at `since` and has just returned; `login` is that of those behind ssh.
    pub(crate) fn add(&self, context: Context, since: Instant, login: Option<&Login>) {
        let agent = context.hello().and_then(|hello| Process::read(i32::try_from(hello.pid).ok()?)).filter(is_ours);
        let above = agent.as_ref().and_then(|agent| Process::read(agent.parent)).filter(is_ours);
        let address = context.address().path().to_vec();
        let behind = context.name().starts_with("ssh:");
        let way = above.as_ref().zip(login.filter(|_| behind)).map(|(above, login)| ssh::way(above, login));
        let way = way.unwrap_or_default();
        let mut inner = self.lock();
        // An agent whose guard is gone already has been adopted by the agent above.
        let supervisor = above.filter(|above| !inner.nodes.values().any(|node| is(&node.agent, id(above))));
        let node = Node { context, agent, supervisor, way, spared: false, worker: None };
        // One that is gone already cannot be asked who it was.
        let gone = node.agent.is_none()
            || node.supervisor.is_none()
            || behind && (node.way.client.is_none() || node.way.session.is_none());
        let before: Vec<Fault> = inner
            .faults
            .iter()
            .filter(|fault| fault.part == Part::Below && address.starts_with(&fault.address))
            .filter_map(|fault| {
                let part = node.part(fault.process).or((gone && fault.at >= since).then_some(Part::Agent))?;
                Some(Fault { part, address: address.clone(), login: behind, ..fault.clone() })
            })
            .collect();
        inner.faults.extend(before);
        inner.nodes.insert(address, node);
    }

    /// A context that was connected before anything was hit and shall not be; its agent and guard.
    pub(crate) fn spare(&self, context: Context, login: Option<&Login>) -> Option<(Process, Process)> {
        let address = context.address().path().to_vec();
        self.add(context, Instant::now(), login);
        let mut inner = self.lock();
        let node = inner.nodes.get_mut(&address)?;
        node.spared = true;
        let found = login.is_none() || node.way.client.is_some() && node.way.session.is_some();
        node.agent.clone().zip(node.supervisor.clone()).filter(|_| found)
    }

    /// That process and its guard run functions for the context, as one at an address of its own.
    pub(crate) fn serves(&self, context: &[u32], address: &[u32], worker: Process, guard: Process) {
        let mut inner = self.lock();
        let Inner { nodes, faults } = &mut *inner;
        let Some(node) = nodes.get_mut(context) else { return };
        let new = Worker { address: address.to_vec(), worker, guard };
        if node.worker.as_ref().is_some_and(|old| old.address == new.address) {
            return;
        }
        // What was hit while nobody knew what it was.
        for fault in faults.iter_mut().filter(|fault| fault.part == Part::Below) {
            if let Some(part) = new.part(fault.process) {
                (fault.part, fault.address) = (part, new.address.clone());
            }
        }
        node.worker = Some(new);
    }

    /// Whether it was hit, or something above it.
    pub(crate) fn is_lost(&self, address: &[u32]) -> bool {
        self.lock().is_lost(address)
    }

    /// Whether the killer leaves it alone.
    pub(crate) fn is_spared(&self, address: &[u32]) -> bool {
        self.lock().nodes.get(address).is_some_and(|node| node.spared)
    }

    /// Those that are not spared, and below none but what is; they are forgotten.
    pub(crate) fn take_all(&self) -> Vec<Context> {
        let mut inner = self.lock();
        let spares = |address: &[u32]| inner.nodes.get(address).is_some_and(|node| node.spared);
        let top = |address: &[u32]| address.len() <= 1 || spares(&address[..address.len() - 1]);
        let tops = inner.nodes.iter().filter(|(address, node)| !node.spared && top(address));
        let tops: Vec<Context> = tops.map(|(_, node)| node.context.clone()).collect();
        inner.nodes.retain(|_, node| node.spared);
        tops
    }

    /// Gives the memory of all faults back.
    pub(crate) fn forget_faults(&self) {
        self.lock().faults = VecDeque::new();
    }

    /// The context and all below it are gone.
    pub(crate) fn forget(&self, address: &[u32]) {
        self.lock().nodes.retain(|other, _| !other.starts_with(address));
    }

    /// How many there are that were not hit, nor anything above them.
    pub(crate) fn count(&self) -> usize {
        let inner = self.lock();
        inner.nodes.keys().filter(|address| !inner.is_lost(address)).count()
    }

    /// Any context of at most that depth; one that was hit only now and then.
    pub(crate) fn any(&self, rng: &mut Rng, deepest: usize) -> Option<Context> {
        let inner = self.lock();
        let also_lost = rng.chance(10);
        let fits = |address: &[u32]| address.len() <= deepest && (also_lost || !inner.is_lost(address));
        let fitting: Vec<&Node> =
            inner.nodes.iter().filter(|(address, _)| fits(address)).map(|(_, node)| node).collect();
        rng.pick(&fitting).map(|node| node.context.clone())
    }

    /// Notes a fault, and says of whom it is: what was nobody's when it was chosen may have become a context since.
    pub(crate) fn hit(&self, mut fault: Fault) -> Fault {
        let mut inner = self.lock();
        if fault.part == Part::Below {
            let mut nodes = inner.nodes.iter();
            let found = nodes.find_map(|(address, node)| node.whose(address, fault.process));
            if let Some((part, address)) = found {
                (fault.part, fault.address) = (part, address);
            }
        }
        // A fault of somebody below such a context is none of its own.
        fault.login = fault.part != Part::Below && inner.nodes.get(&fault.address).is_some_and(Node::is_behind_login);
        let now = Instant::now();
        while inner.faults.front().is_some_and(|fault| now.saturating_duration_since(fault.until) > REMEMBERED) {
            inner.faults.pop_front();
        }
        inner.faults.push_back(fault.clone());
        fault
    }

    /// Any process of a context that was not hit; `below` are processes of ours that may belong to one that is being connected.
    pub(crate) fn victim(&self, rng: &mut Rng, below: &[Process]) -> Option<Victim> {
        let inner = self.lock();
        let (mut known, mut spared): (Vec<Victim>, Vec<Victim>) = Default::default();
        for (address, node) in inner.nodes.iter().filter(|(address, _)| !inner.is_lost(address)) {
            for (part, process) in node.processes() {
                let root = node.supervisor.as_ref().map_or(process.pid, |supervisor| supervisor.pid);
                let victim = Victim { address: address.clone(), part, process: process.clone(), root };
                if node.spared { &mut spared } else { &mut known }.push(victim);
            }
            // Also that of a context which is spared: whoever has lost many workers holds nothing of them.
            if let Some(worker) = &node.worker {
                for (part, process) in
                    worker.processes().into_iter().filter(|(_, process)| process.refreshed().is_some())
                {
                    let (address, root) = (worker.address.clone(), worker.guard.pid);
                    known.push(Victim { address, part, process: process.clone(), root });
                }
            }
        }
        let is_known = |process: &Process| known.iter().chain(&spared).any(|victim| id(&victim.process) == id(process));
        let fits = |process: &&Process| (is_ours(process) || ssh::is_on_way(process)) && !is_known(process);
        let strangers: Vec<&Process> = below.iter().filter(fits).collect();
        if let (true, Some(stranger)) = (rng.chance(15), rng.pick(&strangers)) {
            let address = inner.above(stranger, below);
            let part = Part::Below;
            return Some(Victim { address, part, process: (*stranger).clone(), root: stranger.pid });
        }
        let count = known.len() as u64;
        let at = rng.between(0, count.checked_sub(1)?);
        Some(known.swap_remove(at as usize))
    }

    /// What the processes of the contexts at and below that address descend from, with what leads to those behind ssh.
    pub(crate) fn roots(&self, address: &[u32]) -> Vec<i32> {
        let inner = self.lock();
        let below = inner.nodes.iter().filter(|(other, _)| other.starts_with(address));
        let roots = below.flat_map(|(_, node)| node.processes().filter(|(part, _)| *part != Part::Agent));
        roots.map(|(_, process)| process.pid).collect()
    }

    /// The faults above, at and below that address.
    pub(crate) fn concerning(&self, address: &[u32]) -> Vec<Fault> {
        let inner = self.lock();
        let near = |fault: &&Fault| address.starts_with(&fault.address) || fault.address.starts_with(address);
        inner.faults.iter().filter(near).cloned().collect()
    }
}

impl Inner {
    /// The nearest context above a process; the root's address when there is none.
    fn above(&self, process: &Process, all: &[Process]) -> Vec<u32> {
        let mut at = process.parent;
        for _ in 0..64 {
            let Some(parent) = all.iter().find(|process| process.pid == at) else { break };
            let of = |node: &Node| node.part(id(parent)).is_some();
            if let Some((address, _)) = self.nodes.iter().find(|(_, node)| of(node)) {
                return address.clone();
            }
            at = parent.parent;
        }
        Vec::new()
    }
}
