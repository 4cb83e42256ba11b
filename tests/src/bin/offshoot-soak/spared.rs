//! Contexts that the killer leaves alone, one on each level: they work as all others do, and what they hold late must be what they held early.

use std::fs;
use std::time::Duration;

use offshoot::methods::Ssh;
use offshoot::{Context, Error};
use offshoot_tests::process::Process;

use crate::functions;
use crate::growth::{self, Sample, growth};
use crate::killer::DEEPEST;
use crate::nodes::shown;
use crate::rng::Rng;
use crate::run::Run;
use crate::ssh::HOST;
use crate::work;

/// How often each kind of work is done in each before its memory is looked at; what is opened once is there after the first.
const ROUNDS: u64 = 3;

/// One of them.
struct Level {
    context: Context,
    agent: Process,
    guard: Process,
    /// How many descriptors agent and guard had when the tree was empty but for these.
    early: [usize; 2],
    samples: Vec<Sample>,
}

/// All of them, from the nearest on.
#[derive(Default)]
pub(crate) struct Spared(Vec<Level>);

/// What a process holds of memory of its own, in bytes.
fn own_memory(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// What its descriptors are, without the numbers by which two of a kind differ.
fn kinds(process: &Process) -> String {
    let mut kinds: Vec<String> = process
        .descriptors()
        .into_iter()
        .map(|(_, what)| what.split(":[").next().unwrap_or_default().to_string())
        .collect();
    kinds.sort();
    kinds.join(", ")
}

impl Level {
    fn now(&self) -> [usize; 2] {
        [self.agent.descriptors().len(), self.guard.descriptors().len()]
    }
}

impl Spared {
    /// Connects them, each below the other, every second one behind ssh where there is an sshd, and has each do all that a run does.
    pub(crate) fn connect(run: &Run<'_>) -> Result<Spared, Error> {
        let mut spared = Spared::default();
        let mut above = run.master.context().clone();
        for level in 0..run.options.spared.min(DEEPEST) {
            let login = run.options.login.as_ref().filter(|_| level % 2 == 1);
            let context = match login {
                Some(login) => above.connect(Ssh::to(HOST).config(&login.config))?,
                None => above.local().connect()?,
            };
            let address = shown(context.address().path());
            match run.nodes.spare(context.clone(), login) {
                Some((agent, guard)) => {
                    spared.0.push(Level { context: context.clone(), agent, guard, early: [0; 2], samples: Vec::new() });
                }
                None => run.history.find(&address, "the processes of a context that nothing has hit are not found"),
            }
            above = context;
        }
        let mut rng = Rng::of(run.options.seed, 2);
        for _ in 0..if run.options.length >= growth::LONG { ROUNDS } else { 1 } {
            for level in &spared.0 {
                work::each(run, &mut rng, &level.context);
            }
        }
        // What those rounds have started ends a moment later.
        for level in &mut spared.0 {
            let mut seen = level.now();
            crate::watch::within(Duration::from_secs(5), || {
                std::thread::sleep(Duration::from_millis(200));
                let before = std::mem::replace(&mut seen, level.now());
                before == seen
            });
            level.early = seen;
        }
        Ok(spared)
    }

    /// Notes what they hold now.
    pub(crate) fn look(&mut self, operations: u64) {
        for level in &mut self.0 {
            level.samples.extend(own_memory(level.agent.pid).map(|bytes| Sample { operations, bytes }));
        }
    }

    /// Looks whether they hold what they held, with nothing else in the tree; what is to be said of each.
    pub(crate) fn judge(&self, run: &Run<'_>, patience: Duration) -> String {
        let mut report = String::new();
        let mut rng = Rng::of(run.options.seed, 3);
        for level in &self.0 {
            // So that each has a worker again.
            functions::call(run, &mut rng, &level.context);
        }
        for level in &self.0 {
            let address = shown(level.context.address().path());
            if !crate::watch::within(patience, || level.now() == level.early) {
                run.history.find(
                    &address,
                    &format!(
                        "agent and guard of {address}had {:?} descriptors early and have {:?}: {}; {}",
                        level.early,
                        level.now(),
                        kinds(&level.agent),
                        kinds(&level.guard)
                    ),
                );
            }
            let said = growth(&level.samples).unwrap_or_else(|what| {
                run.history.find(&address, &format!("the agent of {address}grows: {what}"));
                what
            });
            report += &format!(
                "spared      {address}{} and {} descriptors early and late; {said}\n",
                level.early[0], level.early[1]
            );
        }
        report
    }

    /// The nearest, with which all the others go.
    pub(crate) fn first(&self) -> Option<&Context> {
        self.0.first().map(|level| &level.context)
    }
}
