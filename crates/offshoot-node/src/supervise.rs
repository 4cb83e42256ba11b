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
pub(crate) const SIGCONT: i32 = 18;

/// What both guards take over: their children's ends, and requests to end.
pub(crate) const SIGNALS: [i32; 4] = [SIGCHLD, SIGTERM, SIGINT, SIGHUP];

/// After how long without a sign of life the supervisor ends its agent at the latest, whatever the agent says of itself.
const SILENCE: Duration = Duration::from_secs(15);

/// What a guard exits with that has ended its agent for being silent: through a tool, ssh as well, it reaches the parent,
/// which may not have noticed yet. No command of the user's ends a tool of ours.
pub(crate) const SILENT: u8 = 121;

/// The least of it: an agent on a busy machine gets its turn within a second.
const LEAST: Duration = Duration::from_secs(1);

/// How long the agent has to end when its supervisor was asked to: as in a loss of the parent, less what the asker would
/// wait for the supervisor itself. A stopped agent never ends by itself.
const ASKED: Duration = Duration::from_secs(1);

/// How long what descends from the guards has between TERM and KILL when they end. Short: in an orderly end their grace
/// has passed already, in any other the promise is 2 s in all.
const SWEEP: EndPlan =
    EndPlan { term_first: true, grace: Duration::from_millis(200), kill_deadline: Duration::from_secs(5) };

/// What the guards watch each other by, made before the fork.
pub(crate) struct Guards {
    /// A sign of life now and then: see [`Watchdog`].
    watchdog: (OwnedFd, OwnedFd),
    /// Never written: its end tells the agent that the supervisor is gone.
    life: (OwnedFd, OwnedFd),
    /// The supervisor's own; the agent has none before it has made one.
    alarm: Option<process::Rouse>,
}

impl Guards {
    pub(crate) fn new() -> io::Result<Guards> {
        let alarm = process::Rouse::new().ok();
        rouse(&alarm, SILENCE);
        Ok(Guards { watchdog: fd::pipe()?, life: fd::pipe()?, alarm })
    }

    /// The agent's ends: where to write, and what ends with the supervisor.
    pub(crate) fn agent(self, supervisor: u32) -> io::Result<(Watchdog, OwnedFd)> {
        // Not to end it, which the end of `life` does: to let it see that, should it be stopped.
        process::set_parent_death_signal(SIGCONT)?;
        if process::parent_id() != supervisor {
            // It died before the signal was asked for.
            return Err(io::Error::other("the supervisor is gone"));
        }
        fd::set_nonblocking(&self.watchdog.1, true)?;
        fd::set_nonblocking(&self.life.0, true)?;
        // Its number may be the one that this process's own gets.
        drop(self.alarm);
        let alarm = process::Rouse::new().ok();
        rouse(&alarm, SILENCE);
        Ok((Watchdog { to: self.watchdog.1, silence: SILENCE, rouse: alarm }, self.life.0))
    }
}

/// The agent's sign of life to its supervisor: each time four bytes, little-endian, the milliseconds after which the next
/// one is overdue. An agent that says nothing for longer is stopped, or stuck.
pub(crate) struct Watchdog {
    to: OwnedFd,
    silence: Duration,
    /// For an agent that is stopped when its supervisor is gone or stopped, too.
    rouse: Option<process::Rouse>,
}

impl Watchdog {
    /// How long the agent may be silent from now on: as long as on its link, within bounds of its own.
    pub(crate) fn set_silence(&mut self, silence: Duration) {
        self.silence = silence.clamp(LEAST, SILENCE);
    }

    /// Says that the agent lives; how long until it is to be said again.
    pub(crate) fn feed(&self) -> Duration {
        // The pipe is full only when the guard is stopped; it is gone only when the guard is, which is told elsewhere.
        let _ = fd::write(&self.to, &(self.silence.as_millis() as u32).to_le_bytes());
        rouse(&self.rouse, self.silence);
        self.silence / 3
    }

    /// The agent is about to end what is left, which may take its time.
    pub(crate) fn last(mut self) {
        self.silence = SILENCE;
        self.feed();
    }
}

/// A guard that is stopped goes on a little after it was to be found silent, so as to end itself and what it guards,
/// where nobody above can reach it: behind a tool that has ended.
fn rouse(rouse: &Option<process::Rouse>, silence: Duration) {
    if let Some(rouse) = rouse {
        rouse.set(silence + LEAST);
    }
}

/// The supervisor: waits for its agent's end, ends it when it is silent for too long, and then everything that is left.
/// Exits as the agent did; 128 and the signal's number when a signal ended it; with [`SILENT`] when the silence was the reason.
///
/// `outputs` is where a worker writes: what it had written last is said when it crashes.
pub(crate) fn supervise(agent: Child, guards: Guards, outputs: &[OwnedFd]) -> u8 {
    let watchdog = guards.watchdog.0;
    drop(guards.watchdog.1);
    drop(guards.life.0);
    // The other end of `life` stays open for as long as this process lives.
    let _life = guards.life.1;
    let signals = Signals::new(&SIGNALS).ok();
    let alarm = guards.alarm;
    // Should that fail, which no kernel does, nothing is read: the agent is watched by its end alone.
    let watched = fd::set_nonblocking(&watchdog, true).is_ok();
    let mut heard = Instant::now();
    let mut silence = SILENCE;
    let mut asked: Option<Instant> = None;
    let mut was_silent = false;
    let mut closed = false;
    let code = loop {
        rouse(&alarm, silence);
        match agent.try_wait() {
            Ok(Some(_)) if was_silent => break SILENT,
            Ok(Some(status)) => break exit_code(status),
            Ok(None) => {}
            Err(_) => break 1,
        }
        let mut buffer = [0; 64];
        let read = if watched { fd::read(&watchdog, &mut buffer) } else { Err(io::ErrorKind::WouldBlock.into()) };
        match read {
            Ok(n @ 1..) => {
                heard = Instant::now();
                if let Some(&[a, b, c, d]) = buffer[..n].chunks_exact(4).last() {
                    silence = Duration::from_millis(u32::from_le_bytes([a, b, c, d]).into()).clamp(LEAST, SILENCE);
                }
            }
            // The agent is gone, or about to be: its end is told by SIGCHLD.
            Ok(0) => closed = true,
            Err(_) => {}
        }
        // What has come was read before: this process may have been stopped itself.
        let silent = heard.elapsed();
        let due = asked.map(|asked| ASKED.saturating_sub(asked.elapsed()));
        was_silent |= watched && silent >= silence;
        if was_silent || due == Some(Duration::ZERO) {
            // Stopped, or spinning: KILL reaches it in either state.
            let _ = agent.signal(SIGKILL);
        }
        let left = silence.saturating_sub(silent).min(due.unwrap_or(SILENCE)).max(Duration::from_millis(100));
        let told_by = [(!closed).then(|| watchdog.as_fd()), signals.as_ref().map(|signals| signals.as_fd())];
        // Without signals it looks by itself.
        let left = if signals.is_some() { left } else { left.min(Duration::from_millis(if closed { 5 } else { 100 })) };
        let waited = wait_readable(&told_by.into_iter().flatten().collect::<Vec<_>>(), Some(left));
        if waited.is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let came: Vec<i32> = signals.iter().flat_map(|signals| signals.read()).collect();
        Reaper.reap();
        if came.iter().any(|signal| *signal != SIGCHLD) && asked.is_none() {
            asked = Some(Instant::now());
            let _ = agent.signal(SIGTERM);
        }
    };
    if code > 128 || code == SILENT {
        say_rest(outputs);
        // To end what is left takes its time, and the parent wants to tell the reason at once.
        say(&format!("{LAST_WORDS}{code}\n"));
    }
    sweep();
    code
}

/// Says what is left in the pipes of a worker that crashed: its last words.
fn say_rest(outputs: &[OwnedFd]) {
    // As much as the parent keeps.
    const MOST: usize = 4 * 1024;
    for output in outputs {
        let mut rest = vec![0; 64 * 1024];
        let length = fd::read(output, &mut rest).unwrap_or(0);
        let last = &rest[length.saturating_sub(MOST)..length];
        last.chunks(256).for_each(|part| say(&String::from_utf8_lossy(part)));
        if !last.is_empty() && !last.ends_with(b"\n") {
            say("\n");
        }
    }
}

/// Says something on the standard error, whose reader may be gone or stopped: neither may keep a guard from its work.
fn say(text: &str) {
    fd::try_say(io::stderr(), text);
}

/// What a guard says on its standard error of the end of its agent before it ends what is left; its status follows.
const LAST_WORDS: &str = "offshoot agent: ended with status ";

/// The status in the last words of a guard, if these are.
pub(crate) fn last_words(tail: &[u8]) -> Option<i32> {
    let line = tail.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok()?.strip_prefix(LAST_WORDS)?.parse().ok()
}

/// Whether a guard said nothing but that.
pub(crate) fn is_last_word(tail: &[u8]) -> bool {
    tail.starts_with(LAST_WORDS.as_bytes())
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
        say(&format!("offshoot agent: {} processes could not be ended\n", report.left.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn only_a_whole_last_line_is_a_guards_last_word() {
        assert_eq!(last_words(b"noise\noffshoot agent: ended with status 137\n"), Some(137));
        for other in ["", "\n", "offshoot agent: ended with status 137", "offshoot agent: ended with status x\n"] {
            assert_eq!(last_words(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(last_words(b"offshoot agent: ended with status 137\nmore\n"), None);
    }
}
