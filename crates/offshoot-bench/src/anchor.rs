//! Runs one anchor in a fresh process, with a deadline.
//!
//! Owns the command line of each anchor and the reading of its lines. Must not know measurements or reports.

use crate::contract::monotonic;
use crate::peers::Peers;
use crate::rows::Program;
use crate::sweep::{TAG, handle, kill};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Limit,
    Openssh,
    Execnet,
    Mitogen,
    Offshoot,
}

impl Who {
    /// In the order of the report's columns.
    pub(crate) const ALL: [Self; 5] = [Self::Limit, Self::Openssh, Self::Execnet, Self::Mitogen, Self::Offshoot];

    /// As on the command line and in result files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Openssh => "openssh",
            Self::Execnet => "execnet",
            Self::Mitogen => "mitogen",
            Self::Offshoot => "offshoot",
        }
    }

    /// The opposite of [`Who::name`].
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.name() == name)
    }
}

/// Where the anchors are.
pub(crate) struct Programs {
    /// This program.
    pub(crate) own: PathBuf,
    /// The physical-limit program on its own, when it could be built.
    pub(crate) floor: Option<PathBuf>,
    /// The one with remote functions, when it was built.
    pub(crate) calls: Option<PathBuf>,
    /// The same as an image to be sent.
    pub(crate) image: Option<PathBuf>,
    pub(crate) peers: Option<Peers>,
}

impl Programs {
    /// The command of an anchor; none when it is not to be had here.
    pub(crate) fn command(&self, who: Who, program: Program) -> Option<Vec<OsString>> {
        let own = OsString::from(&self.own);
        let peer = |name| {
            let peers = self.peers.as_ref()?;
            Some(vec![OsString::from(&peers.master), peers.script(name).into_os_string()])
        };
        match who {
            Who::Limit => {
                let program = self.floor.as_ref().map_or(own, OsString::from);
                Some(vec![program, "limit".into()])
            }
            Who::Openssh => Some(vec![own, "openssh".into()]),
            Who::Offshoot => match program {
                Program::Driver => Some(vec![own]),
                Program::Calls => Some(vec![self.calls.as_ref()?.into()]),
                Program::Image => Some(vec![self.image.as_ref()?.into()]),
            },
            Who::Execnet => peer("execnet"),
            Who::Mitogen => peer("mitogen"),
        }
    }
}

/// One command with its environment and deadline.
pub(crate) struct Run<'a> {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(&'a str, OsString)>,
    pub(crate) tag: &'a str,
    pub(crate) deadline: Duration,
}

impl Run<'_> {
    fn spawn(&self) -> Result<Anchor> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(k, v)| (k, v))).env(TAG, self.tag);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.argv[0].to_string_lossy()))?;
        let input = child.stdin.take();
        let (line, lines) = channel();
        let output = child.stdout.take().context("stdout was piped")?;
        // Both readers are detached: what the anchor left behind may hold the pipe open until it is swept.
        std::thread::spawn(move || {
            for text in BufReader::new(output).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let (error, errors) = channel();
        let complaints = child.stderr.take().context("stderr was piped")?;
        std::thread::spawn(move || drop(error.send(last_line(complaints))));
        Ok(Anchor { child, input, lines, errors, until: Instant::now() + self.deadline })
    }

    /// Runs to the end and answers the last line, or an object with `error`.
    pub(crate) fn once(&self) -> Value {
        let start = monotonic();
        let mut anchor = match self.spawn() {
            Ok(anchor) => anchor,
            Err(e) => return json!({ "error": format!("{e:#}") }),
        };
        drop(anchor.input.take());
        let ended = anchor.wait();
        let wall = monotonic() - start;
        let mut answer = anchor.last();
        if !ended {
            return json!({ "error": format!("not done within {} s", self.deadline.as_secs()) });
        }
        if let Some(fields) = answer.as_object_mut() {
            fields.insert("process_s".into(), wall.into());
        }
        answer
    }

    /// Starts and waits for the line that says `ready`; the anchor then holds until [`Anchor::finish`].
    pub(crate) fn held(&self) -> Result<(Anchor, Value)> {
        let mut anchor = self.spawn()?;
        let first = anchor.line();
        Ok((anchor, first))
    }
}

/// A running anchor; killed when dropped.
pub(crate) struct Anchor {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    until: Instant,
}

impl Anchor {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn line(&mut self) -> Value {
        match self.lines.recv_timeout(self.left()) {
            Ok(text) => parse(&text),
            Err(_) => self.complaint(),
        }
    }

    fn complaint(&mut self) -> Value {
        let said = self.errors.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
        json!({ "error": if said.is_empty() { "no output".into() } else { said } })
    }

    fn last(&mut self) -> Value {
        let mut last = None;
        while let Ok(text) = self.lines.recv_timeout(Duration::from_millis(200)) {
            last = Some(text);
        }
        last.map_or_else(|| self.complaint(), |text| parse(&text))
    }

    /// Waits for the end; false when the deadline came first, and the process was killed.
    fn wait(&mut self) -> bool {
        let ended = handle(self.child.id()).is_none_or(|fd| wait_readable(&fd, self.left()));
        if !ended {
            // It may have ended in between, which is what is wanted.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        ended
    }

    /// Lets it go on; answers how long it took to shut down, none when it had to be killed.
    pub(crate) fn finish(mut self) -> Option<f64> {
        let start = monotonic();
        if let Some(mut input) = self.input.take() {
            // Its end, when the write fails, says the same.
            let _ = input.write_all(b"\n");
        }
        self.until = Instant::now() + Duration::from_secs(60);
        self.wait().then(|| monotonic() - start)
    }

    /// SIGKILL, without waiting.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        if let Some(fd) = handle(self.child.id()) {
            kill(&fd);
        }
        let _ = self.child.wait();
    }
}

/// Whether the descriptor becomes readable in time.
pub(crate) fn wait_readable(fd: &impl std::os::fd::AsFd, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({ "error": format!("not JSON: {text:.80}") }))
}

/// The last line, at most 200 bytes of it, with control characters escaped.
fn last_line(mut from: impl Read) -> String {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n) = from.read(&mut chunk) {
        if n == 0 {
            break;
        }
        all.extend_from_slice(&chunk[..n]);
        all.drain(..all.len().saturating_sub(8192));
    }
    let text = String::from_utf8_lossy(&all);
    let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("");
    line.chars().take(200).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, deadline: Duration) -> Run<'static> {
        Run { argv: ["sh", "-c", script].map(OsString::from).to_vec(), env: Vec::new(), tag: "none", deadline }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_last_line_of_an_anchor_is_its_result() {
        let result = shell("echo '{\"a\": 1}'; echo '{\"b\": 2}'", LONG).once();
        assert_eq!((&result["a"], result["b"].as_u64()), (&Value::Null, Some(2)));
        assert!(result["process_s"].as_f64().is_some_and(|s| s > 0.0));
    }

    #[test]
    fn a_failing_anchor_is_reported_by_its_last_complaint_escaped() {
        let result = shell("echo first >&2; printf 'bad \\033[1m\\n\\n' >&2; exit 3", LONG).once();
        assert_eq!(result["error"], "bad \\u{1b}[1m");
    }

    #[test]
    fn an_anchor_that_does_not_end_is_killed_at_its_deadline() {
        let start = Instant::now();
        let result = shell("exec sleep 60", Duration::from_millis(100)).once();
        assert!(result["error"].as_str().is_some_and(|e| e.contains("not done")), "{result}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_held_anchor_goes_on_when_told_and_is_killed_when_dropped() {
        let script = "echo '{\"ready\": true}'; read line";
        let (anchor, first) = shell(script, LONG).held().unwrap();
        assert_eq!(first["ready"], true);
        assert!(anchor.finish().is_some());
        let (anchor, _) = shell("echo '{\"ready\": true}'; exec sleep 60", LONG).held().unwrap();
        let pid = anchor.pid();
        drop(anchor);
        assert!(!crate::proc::is_alive(pid));
    }

    #[test]
    fn what_keeps_the_pipe_open_does_not_hold_the_runner_up() {
        let start = Instant::now();
        let result = shell("echo '{\"a\": 1}'; sleep 3 & exit 0", LONG).once();
        assert_eq!(result["a"].as_u64(), Some(1));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
