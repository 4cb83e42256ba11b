//! The process that a connect starts, from its first to its last moment.
//!
//! Owns the process, its error output, and its end: whatever happens, [`Tool::end`] or the drop leaves no process of its
//! group and no descriptor. Knows nothing of what it says.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use offshoot_mux::{Child, io as fd, wait_readable};
use offshoot_wire::{ChildHello, Failure, ParsedHello};

use super::{Clock, Connected, LinkIo, Terminal, classify};

/// How much of the error output is kept: a banner, and the error behind it (S12).
const STDERR_KEPT: usize = 16 << 10;

/// How long the kernel may take to end a killed process. With the longest grace this stays below the promised 2 s.
const KILL: Duration = Duration::from_millis(500);

/// How long a tool whose output has ended may take to say why.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(300);

/// The signals of the usual numbers, the same on every system that we know.
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// What a process that is starting gets when the connect ends with this process: should it be stopped, it goes on, and sees
/// that its link has ended. To whoever is not stopped it means nothing.
pub(super) const SIGCONT: i32 = 18;

/// A process that leads its own session, and its error output.
pub(super) struct Tool {
    /// `None` once it was given away or ended.
    child: Option<Child>,
    /// `None` at its end.
    stderr: Option<OwnedFd>,
    tail: Vec<u8>,
    exit: Option<ExitStatus>,
    /// How long it has between TERM and KILL.
    grace: Duration,
}

impl Tool {
    pub(super) fn new(child: Child, stderr: OwnedFd, grace: Duration) -> io::Result<Tool> {
        let tool = Tool { child: Some(child), stderr: Some(stderr), tail: Vec::new(), exit: None, grace };
        if let Some(stderr) = &tool.stderr {
            fd::set_nonblocking(stderr, true)?;
        }
        Ok(tool)
    }

    pub(super) fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    pub(super) fn stderr(&self) -> Option<&OwnedFd> {
        self.stderr.as_ref()
    }

    /// Reads some of the error output. Whether there may be more to read now.
    pub(super) fn drain(&mut self, buffer: &mut [u8]) -> bool {
        self.hear(buffer, |_| ())
    }

    /// As [`drain`](Self::drain), for somebody who wants to know what came.
    pub(super) fn hear(&mut self, buffer: &mut [u8], hear: impl FnOnce(&[u8])) -> bool {
        let Some(stderr) = &self.stderr else { return false };
        match fd::read(stderr, buffer) {
            Ok(n @ 1..) => {
                hear(&buffer[..n]);
                self.tail.extend_from_slice(&buffer[..n]);
                let excess = self.tail.len().saturating_sub(STDERR_KEPT);
                self.tail.drain(..excess);
                n == buffer.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.stderr = None;
                false
            }
        }
    }

    /// The last of the error output.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// How the process ended, once it has. With it ends what is left of its group: a tool that is gone needs none.
    pub(super) fn exit(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none()
            && let Some(child) = &self.child
            && has_ended(child, Duration::ZERO)
        {
            // Before it is reaped: until then the group's number cannot be another's.
            let _ = child.signal_group(SIGKILL);
            self.exit = child.try_wait().ok().flatten();
        }
        self.exit
    }

    /// Waits a moment for the process to end, and reads what it still says. How it ended, if it did.
    pub(super) fn last_words(&mut self, buffer: &mut [u8]) -> Option<ExitStatus> {
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let over = self.exit().is_some();
            // A flood ends with the time.
            while self.drain(buffer) && Instant::now() < deadline {}
            let left = deadline.saturating_duration_since(Instant::now());
            let exit = self.child.as_ref().and_then(|child| child.exit_fd().ok());
            let Some(exit) = exit.filter(|_| !over && !left.is_zero()) else { return self.exit };
            let fds = [Some(exit), self.stderr.as_ref().map(AsFd::as_fd)];
            let fds: Vec<_> = fds.into_iter().flatten().collect();
            if wait_readable(&fds, Some(left)).is_err() {
                return self.exit;
            }
        }
    }

    /// Ends the process and its group: TERM, KILL after the grace, reaped.
    pub(super) fn end(&mut self) {
        let Some(child) = self.child.take() else { return };
        if self.exit.is_some() {
            return;
        }
        // Errors mean that it is gone already.
        if !has_ended(&child, Duration::ZERO) {
            let _ = child.signal_group(SIGTERM);
            has_ended(&child, self.grace);
        }
        let _ = child.signal_group(SIGKILL);
        let _ = child.wait(Some(Instant::now() + KILL));
    }

    /// Gives everything away, as the result of the connect.
    pub(super) fn into_connected(
        mut self,
        link: LinkIo,
        terminal: Option<Terminal>,
        received: Vec<u8>,
        hello: ParsedHello<ChildHello>,
        clock: &mut Clock,
    ) -> Result<Connected, Failure> {
        let lost = || classify::ended(clock.stage, "the tool", self.exit);
        let child = self.child.take().ok_or_else(lost)?;
        // It closed its error output: something must stand for it.
        let stderr = self.stderr.take().map_or_else(fd::null, Ok);
        let stderr = stderr.map_err(|error| classify::os_error(clock.stage, "no error output", &error))?;
        Ok(Connected {
            link,
            child,
            stderr,
            terminal,
            stderr_tail: std::mem::take(&mut self.tail),
            received,
            hello: hello.hello,
            version: hello.version,
            stages: clock.finish(),
        })
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether the child has ended, after waiting for so long at most; it is not reaped.
fn has_ended(child: &Child, limit: Duration) -> bool {
    let Ok(exit) = child.exit_fd() else {
        // Out of descriptors, on a kernel without pidfd: the caller goes on as if it ran.
        return false;
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match wait_readable(&[exit.as_fd()], Some(left)) {
            Ok(ready) if ready.has(0) => return true,
            Ok(_) if left.is_zero() => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
