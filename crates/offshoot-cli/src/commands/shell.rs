//! `offshoot shell`: the login shell of a target, or a command, on our terminal.

use std::io::IsTerminal;

use crate::args::{GlobalArgs, ReachArgs, ShellArgs};
use crate::fault::Fault;
use crate::ground::{Ground, Job};
use crate::keys::Keys;
use crate::options::{Look, Reach};
use crate::output::{Console, Stream, fault_block};
use crate::session::{self, Place};
use crate::tree::{Hop, Node, Tree};
use crate::{exit, targets, terminal};

/// Runs the session and returns what to exit with.
///
/// # Errors
/// What is wrong before anything runs, and what breaks our own output.
pub(crate) fn shell(args: ShellArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let mut words = args.command.into_iter();
    let job = words.next().map(|program| Job { program, args: words.collect(), timeout: None });
    if job.as_ref().is_some_and(|job| job.program.is_empty()) {
        anyhow::bail!("the command is empty");
    }
    let look = Look::new(global);
    let terminal = std::io::stdin().is_terminal();
    if !terminal && !look.quiet {
        let note = "offshoot: stdin is no terminal, so the shell gets none: it reads stdin as a pipe (-q hides this)\n";
        Console::of_process().write(Stream::Stderr, note.as_bytes())?;
    }
    let reach = Reach::new(&args.reach, global)?;
    run(&[args.target], &args.reach, &reach, global, job, Keys::new(args.escape.0), terminal)
}

/// A command on a terminal there, whatever we have here: `exec --tty`.
///
/// # Errors
/// As [`shell`].
pub(super) fn on_terminal(
    wanted: &[String],
    args: &ReachArgs,
    reach: &Reach,
    global: &GlobalArgs,
    job: Option<Job>,
    keys: Keys,
) -> anyhow::Result<u8> {
    run(wanted, args, reach, global, job, keys, true)
}

fn run(
    wanted: &[String],
    args: &ReachArgs,
    reach: &Reach,
    global: &GlobalArgs,
    job: Option<Job>,
    keys: Keys,
    wants_terminal: bool,
) -> anyhow::Result<u8> {
    let look = Look::new(global);
    let chosen = targets::resolve(wanted, &args.exclude)?;
    let (names, mut paths) = crate::tree::paths(chosen.names, &chosen.excluded, reach)?;
    let (Some(path), true) = (paths.pop(), paths.is_empty()) else {
        anyhow::bail!("a terminal is for one target; these are {}", names.len());
    };
    let (console, interrupt, tree) = super::connected(reach)?;
    // The usual size, for a terminal of which we have none.
    let size = wants_terminal.then(|| terminal::size().unwrap_or(session::USUAL));
    let place = Place { console: &console, interrupt: &interrupt, name: &names[0] };
    let ended = connected(&tree, &path).and_then(|node| node.session(job.as_ref(), size));
    let ended = ended.map(|session| session::run(session, &place, keys));
    terminal::restore();
    let code = match ended {
        Ok(Ok(Ok(outcome))) => exit::code(&outcome),
        Ok(Ok(Err(fault))) | Err(fault) => {
            if interrupt.code().is_none() {
                let block = fault_block(&fault, &names, &[0], &look.palettes[1]);
                console.write(Stream::Stderr, block.as_bytes())?;
            }
            fault.code
        }
        Ok(Err(error)) => session::broken(&error).ok_or(error)?,
    };
    tree.shutdown();
    Ok(interrupt.code().unwrap_or(code))
}

/// Connects the hops of a path, one behind the other.
fn connected(tree: &Tree, path: &[Hop]) -> Result<Node, Box<Fault>> {
    path.iter().try_fold(tree.root().clone(), |node, hop| node.connect(hop))
}
