//! The commands, one file each: from arguments to an exit code.

pub(crate) mod agents;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod tree;

use std::sync::Arc;

use crate::args::ReachArgs;
use crate::interrupt::Interrupt;
use crate::options::{Form, Look, Reach};
use crate::output::Console;
use crate::tree::Tree;
use crate::{ground, job, targets};

/// What every command that connects has: our console, what ends it before its time, and the tree, which that ends.
///
/// # Errors
/// When our signals cannot be taken, or the tree cannot be opened.
fn connected(reach: &Reach) -> anyhow::Result<(Arc<Console>, Interrupt, Tree)> {
    let console = Arc::new(Console::of_process());
    let interrupt = Interrupt::listen()?;
    reach.answers.surround(&console, &interrupt);
    let tree = Tree::open(reach)?;
    let stopping = tree.clone();
    interrupt.on_trip(move || stopping.shutdown())?;
    Ok((console, interrupt, tree))
}

/// What `exec` and `run` share: resolves the targets, grows the tree, runs the job, takes the tree down.
fn run_job(
    wanted: &[String],
    args: &ReachArgs,
    reach: &Reach,
    form: Form,
    look: &Look,
    job: &ground::Job,
    input: impl FnOnce(bool) -> anyhow::Result<job::Input>,
) -> anyhow::Result<u8> {
    let chosen = targets::resolve(wanted, &args.exclude)?;
    let (names, paths) = crate::tree::paths(chosen.names, &chosen.excluded, reach)?;
    let input = input(chosen.read_stdin)?;
    let (console, interrupt, tree) = connected(reach)?;
    let printer = form.printer(&console, &names, look);
    let code = job::run(tree.root(), paths, reach.fanout, job, input, &*printer, &interrupt);
    tree.shutdown();
    Ok(code?)
}
