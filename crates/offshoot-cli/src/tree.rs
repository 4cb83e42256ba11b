//! The real tree: the one place that knows the library's contexts and processes.
//!
//! Hops become methods with the user's options (in [`hops`]), contexts and processes become [`Ground`] and [`Running`], and
//! the library's errors become [`Fault`]s.

mod arrival;
mod hops;
mod session;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot::{AuthFailure, FailureKind, Ran as LibraryRan, Resource};
use offshoot::{Context, Error, Master, Process, Stdio};

use crate::exit;
use crate::fault::{Fault, Ran};
use crate::ground::{Event, Facts, Ground, Job, Running, Stdin};
use crate::hinted::{Hinted, PROCESSES};
use crate::options::Reach;
use crate::output::{End, Stream};
pub(crate) use hops::{Hop, paths};
pub(crate) use session::Session;

/// How long processes have between TERM and KILL when the tree is taken down.
const GRACE: Duration = Duration::from_secs(5);
/// The most of a failure's message that the summary line repeats, in characters.
const BRIEF_MAX: usize = 60;

/// Does not return in a process that was started to be an agent.
pub(crate) fn become_agent_if_started_as_one() {
    offshoot::init();
}

/// The tree of one run. A cheap handle.
#[derive(Clone)]
pub(crate) struct Tree {
    master: Arc<Master>,
    root: Node,
}

/// A context, or the root.
#[derive(Clone)]
pub(crate) struct Node {
    context: Context,
}

impl Tree {
    /// Starts the root of a tree.
    ///
    /// # Errors
    /// When this process is out of descriptors or threads.
    pub(crate) fn open(reach: &Reach) -> anyhow::Result<Tree> {
        let mut builder = Master::builder().connect_limit(reach.fanout.max(1));
        if let Some(folder) = &reach.agents {
            builder = builder.agents_dir(folder);
        }
        let master = builder.build().map_err(|error| {
            let hint = match error.kind() {
                FailureKind::Exhausted(Resource::Processes) => PROCESSES,
                FailureKind::Exhausted(_) => "raise this process's limits: see ulimit -n, ulimit -u",
                _ => error.hint(),
            };
            Hinted::new(anyhow::Error::msg(format!("cannot start: {error}")), hint)
        })?;
        let root = Node { context: master.context().clone() };
        Ok(Tree { master: Arc::new(master), root })
    }

    /// The context that this process is.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// Ends everything. Returns within 7 s.
    pub(crate) fn shutdown(&self) {
        self.master.shutdown_with_grace(GRACE);
    }
}

impl Ground for Node {
    type Hop = Hop;
    type Process = Remote;

    fn connect(&self, hop: &Hop) -> Result<Node, Box<Fault>> {
        let started = Instant::now();
        match self.context.connect(hop) {
            Ok(context) => Ok(Node { context }),
            Err(error) => Err(connect_fault(&error, started.elapsed())),
        }
    }

    fn path(&self) -> String {
        self.context.path().to_owned()
    }

    fn start(&self, job: &Job, fed: bool) -> Result<Remote, Box<Fault>> {
        let mut command = self.context.command(&job.program).args(&job.args);
        command = command.stdin(if fed { Stdio::Piped } else { Stdio::Null });
        if let Some(timeout) = job.timeout {
            command = command.timeout(timeout);
        }
        let program = job.program.to_string_lossy().into_owned();
        match command.spawn() {
            Ok(process) => Ok(Remote { process, program }),
            Err(error) => Err(exec_fault(&error, &program)),
        }
    }

    fn facts(&self) -> Result<Facts, Box<Fault>> {
        let told = |error: Error| exec_fault(&error, "");
        let latency = self.context.ping().map_err(told)?;
        let info = self.context.info().map_err(told)?;
        Ok(Facts {
            name: self.context.name().to_owned(),
            user: info.hello.user,
            host: info.hello.host,
            pid: info.hello.pid,
            triple: info.hello.triple,
            latency,
            received: info.link_bytes.0,
            sent: info.link_bytes.1,
        })
    }

    fn close(&self) {
        // It is ended for tidiness; if that fails it was gone already, or goes with the tree.
        if let Err(error) = self.context.shutdown() {
            log::debug!("{}: {error}", self.context.path());
        }
    }
}

/// A command that runs in a context.
pub(crate) struct Remote {
    process: Process,
    program: String,
}

impl Running for Remote {
    fn stdin(&mut self) -> Option<Box<dyn Stdin>> {
        self.process.stdin.take().map(|input| Box::new(RemoteStdin(input)) as Box<dyn Stdin>)
    }

    fn event(&mut self) -> Result<Event, Box<Fault>> {
        match self.process.event() {
            Ok(offshoot::Event::Stdout(bytes)) => Ok(Event::Output(Stream::Stdout, bytes)),
            Ok(offshoot::Event::Stderr(bytes)) => Ok(Event::Output(Stream::Stderr, bytes)),
            Ok(offshoot::Event::Exit(status)) => {
                let end = match status.signal() {
                    Some(signal) => End::Signal(signal),
                    // It has a code whenever it has no signal.
                    None => End::Status(status.code().unwrap_or(i32::from(exit::OURS))),
                };
                Ok(Event::End(end, status.timed_out()))
            }
            Err(error) => Err(exec_fault(&error, &self.program)),
        }
    }
}

struct RemoteStdin(offshoot::Input);

impl Stdin for RemoteStdin {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.write_bytes(bytes)
    }
}

/// An agent that can be sent out.
#[derive(Clone, Debug)]
pub(crate) struct AgentFound {
    pub(crate) triple: String,
    pub(crate) sha256: String,
    /// In bytes, in memory.
    pub(crate) size: u64,
    /// In bytes, as it travels.
    pub(crate) sent: u64,
    pub(crate) from: String,
}

/// The agents at hand, and what is wrong with files that should be one.
pub(crate) fn agents(folder: Option<&Path>) -> (Vec<AgentFound>, Vec<Fault>) {
    let (found, broken) = offshoot::Agents::new(folder.map(Path::to_owned)).list();
    let found = found
        .into_iter()
        .map(|agent| AgentFound {
            triple: agent.triple,
            sha256: agent.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            size: agent.size,
            sent: agent.sent,
            from: format!("{} ({})", agent.path.display(), agent.origin),
        })
        .collect();
    let broken = broken.into_iter().map(|(path, failure)| {
        let fault = fault(&Error::new(failure, ""), path.display().to_string());
        *fault
    });
    (found, broken.collect())
}

/// The fault of a connect that took `after`.
fn connect_fault(error: &Error, after: Duration) -> Box<Fault> {
    let what = match error.kind() {
        FailureKind::Connect(stage) | FailureKind::StageTimeout(stage) => match stage {
            offshoot::ConnectStage::Queue => "no place to connect came free",
            offshoot::ConnectStage::Start => "cannot start the connection tool",
            offshoot::ConnectStage::Login => "cannot log in",
            _ => "cannot start an agent",
        },
        FailureKind::Auth(_) => "the login was refused",
        FailureKind::HostKey(_) => "the host key was not accepted",
        FailureKind::NoExec => "no place can run an agent",
        FailureKind::NoAgent(_) => "no agent is at hand",
        FailureKind::Damaged(_) => "what came is damaged",
        FailureKind::NoImage(_) => "no image of the program is at hand",
        _ => "cannot connect",
    };
    let mut fault = fault(error, what.to_owned());
    if let FailureKind::StageTimeout(_) = error.kind() {
        fault.after = Some(after);
    }
    fault.code = exit::OURS;
    fault
}

/// The fault of something asked of a context that was connected.
fn exec_fault(error: &Error, program: &str) -> Box<Fault> {
    let what = match error.kind() {
        FailureKind::PeerLost(_) | FailureKind::NoRoute => "lost the link".to_owned(),
        _ if program.is_empty() => "cannot ask the agent".to_owned(),
        _ => format!("cannot run `{program}`"),
    };
    let mut fault = fault(error, what);
    fault.code = match error.kind() {
        FailureKind::PeerLost(_) | FailureKind::NoRoute => exit::LINK_LOST,
        FailureKind::Timeout => exit::TIMED_OUT,
        FailureKind::Os(ENOENT) => exit::NOT_FOUND,
        FailureKind::Os(_) => exit::NOT_EXECUTABLE,
        _ => exit::OURS,
    };
    if fault.hint.is_empty() {
        fault.hint = match fault.code {
            exit::LINK_LOST => "what ran there is ended within seconds; see whether the machine is up, then run again",
            exit::NOT_FOUND => "it is looked for in the PATH of the login there",
            exit::NOT_EXECUTABLE => "is it a program, and may this user run it there?",
            _ => "run again with -v for more",
        }
        .to_owned();
    }
    fault
}

/// The errno of a name that is not there: the same everywhere.
const ENOENT: i32 = 2;

/// What all faults have in common; the exit code is the caller's to set.
fn fault(error: &Error, what: String) -> Box<Fault> {
    let kind = error.kind();
    let (stage, reason) = match kind {
        FailureKind::Connect(stage) | FailureKind::StageTimeout(stage) => (Some(stage.to_string()), String::new()),
        FailureKind::PeerLost(reason) => (None, reason.to_string()),
        FailureKind::Os(errno) => (None, os_text(*errno)),
        FailureKind::Exhausted(resource) => (None, format!("out of {resource}")),
        _ => (None, String::new()),
    };
    let message = told_once(error.message(), &what);
    let told = match (reason.is_empty(), message.as_str()) {
        (_, "") => reason.clone(),
        (true, message) => message.to_owned(),
        // The message often says it again in its own words.
        (false, message) if message.to_lowercase().contains(&reason) => message.to_owned(),
        (false, message) => format!("{reason}: {message}"),
    };
    // What was lost is told by name; the message has its address.
    let (cause, reason) = match error.lost_at() {
        Some(lost) => (reason.clone(), format!("{lost} was lost: {reason}")),
        None => (told.clone(), told),
    };
    // The first clause of the cause: what follows it names the host, so that no two would be alike.
    let brief = cause.split(": ").next().filter(|clause| !clause.is_empty()).unwrap_or(&what).to_owned();
    Box::new(Fault {
        kind: word(kind),
        brief: brief.chars().take(BRIEF_MAX).collect(),
        what,
        reason,
        path: error.path().to_owned(),
        stage,
        stages: arrival::each(&error.stages()).collect(),
        after: None,
        received: error.seen().to_vec(),
        ran: match error.ran() {
            LibraryRan::NotSent => Ran::No,
            LibraryRan::MaybeExecuted => Ran::Maybe,
            LibraryRan::Executed => Ran::Yes,
        },
        hint: if *kind == FailureKind::Auth(AuthFailure::PasswordRequired) {
            SECRETS.to_owned()
        } else if error.hint().is_empty() {
            default_hint(kind).to_owned()
        } else {
            error.hint().to_owned()
        },
        code: exit::OURS,
        ours: false,
    })
}

/// A message without what the headline says already, and without error numbers that the text spells out.
fn told_once(message: &str, what: &str) -> String {
    let mut text = message.strip_prefix(what).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message).to_owned();
    while let Some(start) = text.find(" (os error ") {
        let Some(length) = text[start..].find(')') else { break };
        text.replace_range(start..=start + length, "");
    }
    text
}

/// What to do when a secret was asked for and nobody gave it.
const SECRETS: &str = "run it at a terminal to be asked, or give it by --password-fd or --password-command; or log in with \
                       a key that is accepted, by ssh-agent or -o IdentityFile=; for sudo, NOPASSWD";

/// What to do next where the library had no better advice. Empty where [`exec_fault`] knows more.
fn default_hint(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Connect(_) | FailureKind::StageTimeout(_) => "try the same login by hand; -v says more",
        FailureKind::Exhausted(Resource::Processes) => PROCESSES,
        FailureKind::Exhausted(_) => "see ulimit -n and ulimit -u, here and there; a smaller -f needs less at once",
        FailureKind::Busy => "a smaller -f needs less at once",
        FailureKind::TooLarge => "send what is large through stdin",
        _ => "",
    }
}

/// The system's text for an error number, without the number that the standard library adds.
fn os_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The stable word for a kind of failure.
fn word(kind: &FailureKind) -> &'static str {
    match kind {
        FailureKind::Connect(_) => "connect",
        FailureKind::StageTimeout(_) => "stage-timeout",
        FailureKind::Auth(_) => "auth",
        FailureKind::HostKey(_) => "host-key",
        FailureKind::NoRoute => "no-route",
        FailureKind::PeerLost(_) => "peer-lost",
        FailureKind::Timeout => "timeout",
        FailureKind::Cancelled => "cancelled",
        FailureKind::Denied => "denied",
        FailureKind::TooLarge => "too-large",
        FailureKind::Busy => "busy",
        FailureKind::Exhausted(_) => "exhausted",
        FailureKind::NoExec => "no-exec",
        FailureKind::NoAgent(_) => "no-agent",
        FailureKind::Damaged(_) => "damaged",
        FailureKind::NoImage(_) => "no-image",
        FailureKind::Remote(_) => "remote",
        FailureKind::Unsupported => "unsupported",
        FailureKind::Malformed => "malformed",
        FailureKind::Os(_) => "os",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use offshoot::{ConnectStage, Failure, LostReason};

    use super::*;

    fn error(kind: FailureKind, message: &str) -> Error {
        Error::new(Failure::new(kind, message).seen(b"Welcome"), "ssh:jump -> ssh:web1")
    }

    #[test]
    fn a_connect_fault_says_the_stage_and_what_came() {
        let error = error(FailureKind::StageTimeout(ConnectStage::Probe), "nothing came any more");
        let fault = connect_fault(&error, Duration::from_secs(10));
        assert_eq!(fault.what, "cannot start an agent");
        assert_eq!(fault.path, "ssh:jump -> ssh:web1");
        assert_eq!(fault.stage.as_deref(), Some("waiting for the start marker"));
        assert_eq!((fault.received.as_slice(), fault.code, fault.kind), (&b"Welcome"[..], 125, "stage-timeout"));
        assert_eq!(fault.after, Some(Duration::from_secs(10)));
        assert_eq!(fault.brief, "nothing came any more");
    }

    #[test]
    fn what_has_run_out_is_said_whatever_the_tool_says_of_it() {
        for (resource, message, reason) in [
            (Resource::Processes, "ssh exited with status 2", "out of processes: ssh exited with status 2"),
            (Resource::Descriptors, "Out of file descriptors here", "Out of file descriptors here"),
        ] {
            let fault = connect_fault(&error(FailureKind::Exhausted(resource), message), Duration::ZERO);
            assert_eq!((fault.reason.as_str(), fault.kind), (reason, "exhausted"));
        }
        let fault = exec_fault(&error(FailureKind::Exhausted(Resource::Memory), "cannot make a process"), "sh");
        assert_eq!((fault.what.as_str(), fault.brief.as_str()), ("cannot run `sh`", "out of memory"));
    }

    #[test]
    fn the_same_cause_on_two_hosts_has_one_brief() {
        let brief = |host: &str| {
            let message = format!("the host cannot be reached: ssh: connect to host {host} port 22: refused");
            connect_fault(&error(FailureKind::Connect(ConnectStage::Login), &message), Duration::ZERO).brief
        };
        assert_eq!(brief("web1"), "the host cannot be reached");
        assert_eq!(brief("web1"), brief("web2"));
    }

    #[test]
    fn faults_of_commands_have_the_codes_of_a_shell_and_a_hint() {
        let lost = FailureKind::PeerLost(LostReason::Silent);
        for (kind, code) in [
            (FailureKind::Os(2), 127),
            (FailureKind::Os(13), 126),
            (FailureKind::Os(8), 126),
            (lost, 255),
            (FailureKind::NoRoute, 255),
            (FailureKind::TooLarge, 125),
            (FailureKind::Busy, 125),
            (FailureKind::Denied, 125),
        ] {
            let fault = exec_fault(&error(kind, "so it is"), "ls");
            assert_eq!(fault.code, code, "{fault:?}");
            assert!(!fault.hint.is_empty() && !fault.brief.is_empty(), "{fault:?}");
        }
    }

    #[test]
    fn a_lost_link_names_the_hop_and_is_summed_up_by_its_cause() {
        let lost = |name: &str| {
            let at = "/0/1".parse().expect("an address");
            let message = "/0/1 was lost, and /0/1/4 with it: its process was ended by signal 9";
            let failure = Failure::new(FailureKind::PeerLost(LostReason::Signalled(9)), message).at(at);
            exec_fault(&Error::new(failure, format!("local -> {name} -> local")), "ls")
        };
        let fault = lost("local");
        assert_eq!((fault.what.as_str(), fault.path.as_str()), ("lost the link", "local -> local -> local"));
        assert_eq!(fault.reason, "local -> local was lost: its process was ended by signal 9");
        assert_eq!(fault.brief, "its process was ended by signal 9");
        assert_eq!(fault.brief, lost("ssh:web1").brief);
    }

    #[test]
    fn nothing_is_said_twice() {
        let message = "cannot run `ls`: cannot execute the program: No such file or directory (os error 2)";
        let fault = exec_fault(&error(FailureKind::Os(2), message), "ls");
        assert_eq!(fault.what, "cannot run `ls`");
        assert_eq!(fault.reason, "cannot execute the program: No such file or directory");
    }
}
