//! `offshoot exec`: a command on all targets, side by side.

use std::io::IsTerminal;

use super::{run_job, shell};
use crate::args::{ExecArgs, GlobalArgs};
use crate::ground::Job;
use crate::job::Input;
use crate::keys::Keys;
use crate::options::{Form, Look, Reach};

/// Runs the command and returns what to exit with.
///
/// # Errors
/// What is wrong before anything runs, and what breaks our own output.
pub(crate) fn exec(args: ExecArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let ExecArgs { targets, command, no_stdin, tty, output, reach: reach_args } = args;
    let reach = Reach::new(&reach_args, global)?;
    let mut words = command.into_iter();
    // clap demands at least one word.
    let job = Job { program: words.next().unwrap_or_default(), args: words.collect(), timeout: timeout(&output) };
    if job.program.is_empty() {
        anyhow::bail!("the command is empty");
    }
    if tty {
        return shell::on_terminal(&targets, &reach_args, &reach, global, Some(job), Keys::new(Some(b'~')));
    }
    run_job(&targets, &reach_args, &reach, Form::of(&output), &Look::new(global), &job, |read_stdin| {
        let stdin = std::io::stdin();
        let empty = no_stdin || read_stdin || stdin.is_terminal();
        Ok(if empty { Input::Empty } else { Input::Source(Box::new(stdin)) })
    })
}

/// 0 stands for no limit, as with timeout(1).
pub(super) fn timeout(args: &crate::args::OutputArgs) -> Option<std::time::Duration> {
    args.timeout.filter(|timeout| !timeout.is_zero())
}
