//! One command of a real tree on a terminal, or on pipes where we have no terminal ourselves.

use offshoot::{Controller, Stdio, Terminal, TerminalSize};
use offshoot_mux::tty::Size;

use super::{Node, Remote, exec_fault};
use crate::fault::Fault;
use crate::ground::{Event, Job, Running, Stdin};

/// A command that runs on a terminal.
pub(crate) struct Session {
    remote: Remote,
    controller: Controller,
}

impl Node {
    /// Starts a command, or the account's login shell, with a stdin; with a terminal of this size when there is one.
    pub(crate) fn session(&self, job: Option<&Job>, size: Option<Size>) -> Result<Session, Box<Fault>> {
        let (mut command, program) = match job {
            Some(job) => {
                let command = self.context.command(&job.program).args(&job.args);
                (command, job.program.to_string_lossy().into_owned())
            }
            None => (self.context.login_shell(), "the login shell".to_owned()),
        };
        if let Some(timeout) = job.and_then(|job| job.timeout) {
            command = command.timeout(timeout);
        }
        if let Some(size) = size {
            let term = std::env::var_os("TERM").unwrap_or_default();
            let term = std::os::unix::ffi::OsStringExt::into_vec(term);
            command = command.terminal(Terminal::new(told(size), term));
        }
        match command.stdin(Stdio::Piped).spawn() {
            Ok(process) => {
                let controller = process.controller();
                Ok(Session { remote: Remote { process, program }, controller })
            }
            Err(error) => Err(exec_fault(&error, &program)),
        }
    }
}

impl Session {
    /// What takes its stdin; `None` when that was taken before.
    pub(crate) fn stdin(&mut self) -> Option<Box<dyn Stdin>> {
        self.remote.stdin()
    }

    /// The next thing that it does. Blocks.
    pub(crate) fn event(&mut self) -> Result<Event, Box<Fault>> {
        self.remote.event()
    }

    /// What tells it that our terminal has another size. An error is left to [`event`](Self::event) to tell.
    pub(crate) fn resizer(&self) -> impl Fn(Size) + Send + use<> {
        let controller = self.controller.clone();
        move |size| drop(controller.resize(told(size)))
    }
}

fn told(Size { rows, columns }: Size) -> TerminalSize {
    TerminalSize { rows, columns }
}
