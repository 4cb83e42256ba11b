//! The pair of guards: how supervisor and agent watch each other, and how the survivor cleans up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use offshoot_mux::{Child, EndPlan, Reaper, Signals, end_processes, io as fd, process, tree, wait_readable};

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGCHLD: i32 = 17;

/// What both guards take over: their children's ends, and requests to end.
pub(crate) const SIGNALS: [i32; 4] = [SIGCHLD, SIGTERM, SIGINT, SIGHUP];

/// After how long without a sign of life the supervisor ends its agent: three heartbeats.
const SILENCE: Duration = Duration::from_secs(15);

/// How long the agent has to end when its supervisor was asked to: as in a loss of the parent, less what the asker would
/// wait for the supervisor itself. A stopped agent never ends by itself.
const ASKED: Duration = Duration::from_secs(1);

/// How long what descends from the guards has between TERM and KILL when they end. Short: in an orderly end their grace
/// has passed already, in any other the promise is 2 s in all.
const SWEEP: EndPlan =
    EndPlan { term_first: true, grace: Duration::from_millis(200), kill_deadline: Duration::from_secs(5) };

/// The pipes between the guards, made before the fork.
pub(crate) struct Guards {
    /// A byte at every heartbeat of the agent's.
    watchdog: (OwnedFd, OwnedFd),
    /// Never written: its end tells the agent that the supervisor is gone.
    life: (OwnedFd, OwnedFd),
}

impl Guards {
    pub(crate) fn new() -> io::Result<Guards> {
        Ok(Guards { watchdog: fd::pipe()?, life: fd::pipe()? })
    }

    /// The agent's ends: where to write, and what ends with the supervisor.
    pub(crate) fn agent(self, supervisor: u32) -> io::Result<(OwnedFd, OwnedFd)> {
        process::set_parent_death_signal(SIGTERM)?;
        if process::parent_id() != supervisor {
            // It died before the signal was asked for.
            return Err(io::Error::other("the supervisor is gone"));
        }
        fd::set_nonblocking(&self.watchdog.1, true)?;
        fd::set_nonblocking(&self.life.0, true)?;
        Ok((self.watchdog.1, self.life.0))
    }
}

/// The supervisor: waits for its agent's end, ends it when it is silent for too long, and then everything that is left.
/// Exits as the agent did; 128 and the signal's number when a signal ended it.
pub(crate) fn supervise(agent: Child, guards: Guards) -> u8 {
    let watchdog = guards.watchdog.0;
    drop(guards.watchdog.1);
    drop(guards.life.0);
    // The other end of `life` stays open for as long as this process lives.
    let _life = guards.life.1;
    let signals = Signals::new(&SIGNALS).ok();
    let nonblocking = fd::set_nonblocking(&watchdog, true);
    let mut heard = Instant::now();
    let mut asked: Option<Instant> = None;
    let code = loop {
        match agent.try_wait() {
            Ok(Some(status)) => break exit_code(status),
            Ok(None) => {}
            Err(_) => break 1,
        }
        let silent = heard.elapsed();
        let due = asked.map(|asked| ASKED.saturating_sub(asked.elapsed()));
        if (silent >= SILENCE && nonblocking.is_ok()) || due == Some(Duration::ZERO) {
            // Stopped, or spinning: KILL reaches it in either state.
            let _ = agent.signal(SIGKILL);
        }
        let left = SILENCE.saturating_sub(silent).min(due.unwrap_or(SILENCE)).max(Duration::from_millis(100));
        let waited = match &signals {
            Some(signals) => wait_readable(&[watchdog.as_fd(), signals.as_fd()], Some(left)),
            None => wait_readable(&[watchdog.as_fd()], Some(left.min(Duration::from_millis(100)))),
        };
        if waited.is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut buffer = [0; 64];
        match fd::read(&watchdog, &mut buffer) {
            Ok(1..) => heard = Instant::now(),
            // The agent is gone, or about to be: its end is told by SIGCHLD.
            Ok(0) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => {}
        }
        let came: Vec<i32> = signals.iter().flat_map(|signals| signals.read()).collect();
        Reaper.reap();
        if came.iter().any(|signal| *signal != SIGCHLD) && asked.is_none() {
            asked = Some(Instant::now());
            let _ = agent.signal(SIGTERM);
        }
    };
    sweep();
    code
}

fn exit_code(status: std::process::ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Ends everything that descends from this process. As a subreaper it has adopted whatever was left by those between.
pub(crate) fn sweep() {
    if Reaper.reap().childless {
        return;
    }
    let own = process::id();
    let report = end_processes(|| tree::descendants(own), SWEEP);
    if !report.left.is_empty() {
        eprintln!("offshoot agent: {} processes could not be ended", report.left.len());
    }
}
