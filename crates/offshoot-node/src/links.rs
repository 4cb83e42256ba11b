//! The links of a node and the tools they run through, from the first byte to the reaped process.
//!
//! Runs under the node's lock. A link ends in this order: its reading ends; for a moment its tool may still tell why;
//! the core learns of it; the descriptors close; the tool ends by itself or is ended; it is reaped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use offshoot_connect::Terminal;
use offshoot_mux::tree::Proc;
use offshoot_mux::{Child, EndPlan, Interest, Token, end_tree, io as fd, wait_readable};
use offshoot_route::{LinkId, LinkStats, Time};
use offshoot_wire::escape::escaped;
use offshoot_wire::{ConnectReply, LostReason};

use crate::ids::IdMap;
use crate::link::{Link, LinkFds, LinkIo, Turn};
use crate::shared::Shared;
use crate::sources::{Source, Sources};
use crate::state::{LAST_WORDS, State, Timer};
use crate::supervise::{self, SIGCONT, SIGTERM, SILENT};

/// How long a link's end waits for its tool to tell why: a fraction of the 250 ms in which calls below it must end.
const REASON: Duration = Duration::from_millis(80);

/// How many times [`LAST_WORDS`] nothing must come by a link that stands in the midst of a frame: 2 s. More is on its way, in
/// sshd's packets of 32 KiB, by whatever line there is; unless the agent was lost in the midst of writing.
const CUT: u32 = 10;

/// How long a tool has to end by itself once its link is closed, then after TERM. The agent behind it may take 5 s to
/// end what it started.
const TOOL_ENDS: [Duration; 2] = [Duration::from_secs(7), Duration::from_secs(3)];

/// What a guard that is asked has to end what is below it: twice what it takes at most.
const SWEEP: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// How much of a tool's error output is kept: what an error shows, with room for a banner.
const STDERR_TAIL: usize = 8 * 1024;

/// How many times 4 KiB are read of it in one turn: what a pipe holds, so that who writes on and on holds nobody up.
const STDERR_READS: usize = 16;

/// The process that the connect started: ssh, or the supervisor of a local context.
pub(crate) struct Tool {
    child: Child,
    exit_token: Token,
    stderr: Option<(OwnedFd, Token)>,
    /// What its login asked on: kept and drained until it ends.
    terminal: Option<(Terminal, Token)>,
    tail: Vec<u8>,
    said: Option<Said>,
    exited: Option<LostReason>,
    /// It is the guard of a context on this machine, which ends all that is below it, if it is let.
    guard: bool,
    /// Its processes are being killed, on a thread.
    killing: bool,
    /// The mark of what its context starts, if that is on this machine.
    tag: String,
}

/// What a tool's guard said of the agent's end.
struct Said {
    reason: LostReason,
    /// How often the link had been read when it was looked at last, and how often it was looked at since something came.
    reads: u32,
    quiet: u32,
}

/// A link with all that belongs to it.
pub(crate) struct Entry {
    link: Option<Link>,
    tokens: [Token; 2],
    tool: Option<Tool>,
    /// What the context below said of itself; `None` for the parent link.
    pub(crate) child: Option<ConnectReply>,
}

/// All links of a node. An entry lives until its link is closed and its tool is reaped.
#[derive(Default)]
pub(crate) struct Links {
    entries: IdMap<LinkId, Entry>,
}

/// A connect's result, as the node takes it over.
pub(crate) struct NewLink {
    pub(crate) fds: LinkFds,
    pub(crate) received: Vec<u8>,
    pub(crate) tool: Option<(Child, Option<OwnedFd>, Option<Terminal>)>,
    pub(crate) child: Option<ConnectReply>,
    /// The mark of what a child on this machine starts.
    pub(crate) tag: String,
    /// The tool is the guard of a context on this machine.
    pub(crate) guard: bool,
    /// A program passes on what goes by the descriptors, as ssh does.
    pub(crate) relayed: bool,
}

/// What whoever reads the log is told of a child that is gone, and of what it did that was passed over (S1).
fn told_of_end(name: &str, reason: &LostReason, stats: &LinkStats) -> (log::Level, String) {
    let level = match reason {
        LostReason::Violation(_) => log::Level::Warn,
        _ => log::Level::Debug,
    };
    let verb = if level == log::Level::Warn { "broke the protocol and was cut off" } else { "has ended" };
    let LinkStats { strays, claimed_marks, refused, logs_dropped, .. } = stats;
    let text = format!(
        "{} {verb}: {}; {strays} stray frames, {claimed_marks} claimed marks, {refused} requests refused, \
         {logs_dropped} log records dropped",
        name.escape_debug(),
        escaped(reason.to_string().as_bytes())
    );
    (level, text)
}

impl Links {
    pub(crate) fn link_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.entries.get_mut(&link)?.link.as_mut()
    }

    pub(crate) fn io(&self, link: LinkId) -> Option<Arc<LinkIo>> {
        Some(Arc::clone(&self.entries.get(&link)?.link.as_ref()?.io))
    }

    /// The contexts directly below that are up.
    pub(crate) fn children(&self) -> Vec<ConnectReply> {
        let mut children: Vec<ConnectReply> = self
            .entries
            .values()
            .filter(|entry| entry.link.is_some())
            .filter_map(|entry| entry.child.clone())
            .collect();
        children.sort_unstable_by(|a, b| a.address.cmp(&b.address));
        children
    }

    /// The links to children that are up.
    pub(crate) fn down(&self) -> Vec<LinkId> {
        self.entries
            .iter()
            .filter(|(_, entry)| entry.child.is_some() && entry.link.is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    /// The links whose tool still runs.
    pub(crate) fn with_tools(&self) -> Vec<LinkId> {
        let running = |entry: &Entry| entry.tool.as_ref().is_some_and(|tool| tool.exited.is_none());
        self.entries.iter().filter(|(_, entry)| running(entry)).map(|(id, _)| *id).collect()
    }

    /// Whether every link below is closed and every tool reaped.
    pub(crate) fn is_clear(&self) -> bool {
        self.entries.values().all(|entry| entry.child.is_none() && entry.tool.is_none())
    }

    /// Throws away what a link's tool wrote to its terminal.
    pub(crate) fn drain_terminal(&mut self, shared: &Shared, link: LinkId) {
        let tool = self.entries.get(&link).and_then(|entry| entry.tool.as_ref());
        if let Some((terminal, token)) = tool.and_then(|tool| tool.terminal.as_ref())
            && terminal.drain()
        {
            // More than a turn's worth: told again, so that others have their turn. Else it would stall, as it deserves.
            let _ = shared.registry.set(terminal.as_fd(), *token, Interest::Read);
        }
    }
}

/// Reads a tool's error output, at most a turn's worth, and keeps the last of it.
fn hear(stderr: &OwnedFd, tail: &mut Vec<u8>) -> Turn {
    let mut buffer = [0; 4096];
    for _ in 0..STDERR_READS {
        match fd::read(stderr, &mut buffer) {
            Ok(n @ 1..) => {
                tail.extend_from_slice(&buffer[..n]);
                tail.drain(..tail.len().saturating_sub(STDERR_TAIL));
                if n < buffer.len() {
                    return Turn::Rest;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Rest,
            Ok(0) | Err(_) => return Turn::Ended,
        }
    }
    Turn::More
}

impl Tool {
    /// Reads what its error output holds, at most a turn's worth. Whether there may be more.
    fn drain(&mut self, shared: &Shared, sources: &mut Sources) -> bool {
        let Some((stderr, token)) = &self.stderr else { return false };
        let turn = hear(stderr, &mut self.tail);
        if self.said.is_none() {
            // Whoever forges that speaks of itself.
            let words = supervise::last_words(&self.tail);
            self.said = words.map(|status| Said { reason: exit_reason(status), reads: 0, quiet: 0 });
        }
        if turn == Turn::Ended {
            // Not an error: a descriptor that is closed anyway.
            let _ = shared.registry.remove(stderr.as_fd());
            sources.remove(*token);
            self.stderr = None;
        }
        turn == Turn::More
    }

    /// Asks it to end, also when it is stopped. An error means that it has ended: that is what is wanted.
    fn ask(&self) {
        let _ = self.child.signal(SIGTERM);
        let _ = self.child.signal(SIGCONT);
    }

    fn close(&mut self, shared: &Shared, sources: &mut Sources) {
        self.drain(shared, sources);
        if let Some((stderr, token)) = self.stderr.take() {
            let _ = shared.registry.remove(stderr.as_fd());
            sources.remove(token);
        }
        if let Some((terminal, token)) = self.terminal.take() {
            let _ = shared.registry.remove(terminal.as_fd());
            sources.remove(token);
        }
        if let Ok(exit) = self.child.exit_fd() {
            let _ = shared.registry.remove(exit);
        }
        sources.remove(self.exit_token);
    }
}

impl State {
    /// Takes over the descriptors and the tool of a link that the core knows already, and gives the core what came.
    ///
    /// # Errors
    /// What the poller reports; everything given is closed and the tool is ended.
    pub(crate) fn adopt(&mut self, shared: &Arc<Shared>, id: LinkId, new: NewLink, now: Time) -> io::Result<()> {
        let tokens = [self.sources.insert(Source::LinkRead(id)), self.sources.insert(Source::LinkWrite(id))];
        let tool = match new.tool {
            Some((child, stderr, terminal)) => match self.adopt_tool(shared, id, child, stderr, terminal) {
                Ok(tool) => Some(Tool { guard: new.guard, tag: new.tag, ..tool }),
                Err(error) => {
                    for token in tokens {
                        self.sources.remove(token);
                    }
                    self.core.link_down(id, LostReason::LinkEnd, now);
                    return Err(error);
                }
            },
            None => None,
        };
        let link = Link::new(new.fds, tokens[0], tokens[1], &shared.registry, &new.received, new.relayed);
        let mut entry = Entry { link: None, tokens, tool, child: new.child };
        let result = link.map(|link| entry.link = Some(link));
        self.links.entries.insert(id, entry);
        match result {
            Ok(()) => {
                if let Some(link) = self.links.link_mut(id) {
                    self.core.handle_bytes(id, link.input(), now);
                }
                self.write_link(shared, id, now);
                Ok(())
            }
            Err(error) => {
                for token in tokens {
                    self.sources.remove(token);
                }
                self.end_tool(id, 1);
                self.core.link_down(id, LostReason::LinkEnd, now);
                Err(error)
            }
        }
    }

    fn adopt_tool(
        &mut self,
        shared: &Shared,
        id: LinkId,
        child: Child,
        stderr: Option<OwnedFd>,
        terminal: Option<Terminal>,
    ) -> io::Result<Tool> {
        let exit_token = self.sources.insert(Source::ToolExit(id));
        shared.registry.add(child.exit_fd()?, exit_token, Interest::Read)?;
        let stderr = match stderr {
            Some(stderr) => {
                fd::set_nonblocking(&stderr, true)?;
                let token = self.sources.insert(Source::ToolStderr(id));
                shared.registry.add(stderr.as_fd(), token, Interest::Read)?;
                Some((stderr, token))
            }
            None => None,
        };
        let terminal = match terminal {
            Some(terminal) => {
                let token = self.sources.insert(Source::ToolTerminal(id));
                shared.registry.add(terminal.as_fd(), token, Interest::Read)?;
                Some((terminal, token))
            }
            None => None,
        };
        Ok(Tool {
            child,
            exit_token,
            stderr,
            terminal,
            tail: Vec::new(),
            said: None,
            exited: None,
            guard: false,
            killing: false,
            tag: String::new(),
        })
    }

    /// Reading ended. The tool may be about to tell why.
    pub(crate) fn link_ended(&mut self, shared: &Arc<Shared>, id: LinkId, now: Time) {
        let Some(entry) = self.links.entries.get_mut(&id) else { return };
        if let Some(link) = &mut entry.link {
            // No more events: the end would be told again and again.
            let _ = shared.registry.remove(link.io.read_fd());
            link.io.baton.close();
        }
        match &entry.tool {
            Some(Tool { exited: None, .. }) => {
                self.after(REASON, Timer::LinkReason(id));
            }
            Some(Tool { exited: Some(reason), .. }) => {
                let reason = reason.clone();
                self.link_down(shared, id, reason, now);
            }
            None => self.link_down(shared, id, LostReason::LinkEnd, now),
        }
    }

    /// A link's tool wrote to its error output. Its guard's last words come ahead of the link's end where a login holds that
    /// back: sshd until the command's error output has ended too, sudo until the command has.
    pub(crate) fn tool_wrote(&mut self, shared: &Shared, id: LinkId) {
        let Some(Entry { link, tool: Some(tool), .. }) = self.links.entries.get_mut(&id) else { return };
        let known = tool.said.is_some();
        if tool.drain(shared, &mut self.sources)
            && let Some((stderr, token)) = &tool.stderr
        {
            // Told again, as below.
            let _ = shared.registry.set(stderr.as_fd(), *token, Interest::Read);
        }
        if let (false, Some(link), Some(said)) = (known, link, &mut tool.said) {
            said.reads = link.reads();
            self.after(LAST_WORDS, Timer::LinkReason(id));
        }
    }

    /// The tool has had its time to tell why the link ended.
    pub(crate) fn link_reason_due(&mut self, shared: &Arc<Shared>, id: LinkId, now: Time) {
        let Some(Entry { link: Some(link), tool, .. }) = self.links.entries.get_mut(&id) else { return };
        let mut told = LostReason::LinkEnd;
        if let Some(tool) = tool {
            tool.drain(shared, &mut self.sources);
            if let Some(reason) = &tool.exited {
                told = reason.clone();
            } else if let Some(said) = &mut tool.said {
                // Behind a login the link has no end of its own before the guard's. What was on its way still comes: sshd holds
                // up to 2 MiB of it back, which the words overtake.
                if !link.io.baton.is_closed() {
                    let waits = wait_readable(&[link.io.read_fd()], Some(Duration::ZERO));
                    let came = link.reads() != said.reads || waits.is_ok_and(|ready| !ready.is_empty());
                    said.reads = link.reads();
                    said.quiet = if came { 0 } else { said.quiet + 1 };
                    let enough = if link.is_unwritable() || link.input().is_empty() { 1 } else { CUT };
                    if said.quiet < enough {
                        self.after(LAST_WORDS, Timer::LinkReason(id));
                        return;
                    }
                }
                told = said.reason.clone();
            }
        }
        self.link_down(shared, id, told, now);
    }

    /// The link is over: the core learns of it and the descriptors close.
    pub(crate) fn link_down(&mut self, shared: &Arc<Shared>, id: LinkId, reason: LostReason, now: Time) {
        let Some(entry) = self.links.entries.get_mut(&id) else { return };
        let Some(mut link) = entry.link.take() else { return };
        link.close(&shared.registry);
        for token in entry.tokens {
            self.sources.remove(token);
        }
        if let (Some(child), Some(stats)) = (&entry.child, self.core.stats(id)) {
            let (level, text) = told_of_end(&child.name, &reason, &stats);
            self.say(level, module_path!(), format_args!("{text}"));
        }
        // Who fell silent will not end by itself: it is stopped, or the way to it is cut. A guard that told so holds a TERM
        // back while it clears up.
        let patience = if reason == LostReason::Silent { Duration::ZERO } else { TOOL_ENDS[0] };
        self.core.link_down(id, reason, now);
        self.contents_link_gone(shared, id, now);
        let Some(entry) = self.links.entries.get(&id) else { return };
        match &entry.tool {
            Some(Tool { exited: None, .. }) => {
                self.after(patience, Timer::ToolEnd(id, 0));
            }
            Some(_) | None => self.entry_over(id),
        }
    }

    /// The tool's process ended.
    pub(crate) fn tool_exited(&mut self, shared: &Arc<Shared>, id: LinkId, now: Time) {
        let Some(entry) = self.links.entries.get_mut(&id) else { return };
        let Some(tool) = &mut entry.tool else { return };
        let reason = match tool.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => match status.signal() {
                Some(signal) => LostReason::Signalled(signal),
                None => exit_reason(status.code().unwrap_or(-1)),
            },
            // Reaped by somebody else, as where SIGCHLD is ignored: that it ended is all there is to know.
            Err(_) => LostReason::LinkEnd,
        };
        if let LostReason::Signalled(_) | LostReason::LinkEnd = reason {
            self.services.end_marked(std::mem::take(&mut tool.tag));
        }
        tool.exited = Some(reason.clone());
        tool.close(shared, &mut self.sources);
        if !tool.tail.is_empty() {
            // Of what crashed they are the only account.
            let crashed = matches!(reason, LostReason::Signalled(_)) && !supervise::is_last_word(&tool.tail);
            let level = if crashed { log::Level::Warn } else { log::Level::Debug };
            let tail = std::mem::take(&mut tool.tail);
            let text = format_args!("the tool of a link ended, its last words: {}", tail.escape_ascii());
            self.say(level, module_path!(), text);
        }
        let Some(entry) = self.links.entries.get(&id) else { return };
        match &entry.link {
            // What it wrote before it ended is still to be read; the end of reading comes by itself, unless something
            // else holds the descriptors open.
            Some(link) if !link.io.baton.is_closed() => {
                self.after(REASON, Timer::LinkReason(id));
            }
            Some(_) => self.link_down(shared, id, reason, now),
            None => self.entry_over(id),
        }
    }

    /// A link's tool has had its time: TERM, then KILL to it and whatever is below it on this machine.
    pub(crate) fn end_tool(&mut self, id: LinkId, step: u8) {
        let Some(tool) = self.links.entries.get_mut(&id).and_then(|entry| entry.tool.as_mut()) else { return };
        if tool.exited.is_some() || tool.killing {
            return;
        }
        if step == 0 {
            tool.ask();
            self.after(TOOL_ENDS[1], Timer::ToolEnd(id, 1));
            return;
        }
        tool.killing = true;
        let Some(process) = Proc::of(tool.child.pid()) else { return };
        // It did not end when it was asked. To KILL it alone would leave behind what it guards. Looking for all of them
        // takes its time: not under the lock.
        let end = move || drop(end_tree(process, EndPlan::default().kill_deadline));
        let spawned = offshoot_mux::thread::start("offshoot-end", end);
        if spawned.is_err() {
            let _ = tool.child.signal(SIGKILL);
        }
    }

    /// Ends the tools that are left, at once and without looking further: there is no time any more. A guard is only
    /// asked: it ends what is below it within some seconds, and by KILL it would leave that behind.
    pub(crate) fn end_tools(&mut self) {
        for entry in self.links.entries.values_mut() {
            let Some(tool) = &mut entry.tool else { continue };
            if !tool.guard {
                // An error means that it has ended: that is what is wanted.
                let _ = tool.child.signal(SIGKILL);
                continue;
            }
            tool.ask();
            // Dropped it would be killed, as it is where there is no thread. An agent, which aborts, does without: what is
            // left is below itself, and it looks there.
            if cfg!(panic = "unwind")
                && let Some(tool) = entry.tool.take()
            {
                let wait = move || drop(tool.child.wait(Some(std::time::Instant::now() + SWEEP)));
                drop(offshoot_mux::thread::start("offshoot-ending", wait));
            }
        }
    }

    fn entry_over(&mut self, id: LinkId) {
        self.links.entries.remove(&id);
        self.check_ended();
    }
}

/// What a tool's exit status tells. The guard of an agent that a signal ended exits with 128 and its number, as a shell
/// does, with [`SILENT`] when it did that itself, and tools such as ssh pass that on; no agent and no known tool has such a status of its own.
fn exit_reason(status: i32) -> LostReason {
    const SIGNALS: std::ops::RangeInclusive<i32> = 1..=64;
    if status == i32::from(SILENT) {
        return LostReason::Silent;
    }
    if SIGNALS.contains(&(status - 128)) { LostReason::Signalled(status - 128) } else { LostReason::Exited(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s13_error_output_is_read_in_turns_and_its_end_is_kept() {
        let (ours, theirs) = fd::socketpair().unwrap();
        fd::set_nonblocking(&ours, true).unwrap();
        fd::set_nonblocking(&theirs, true).unwrap();
        // Who writes as fast as it is read: there is always more.
        let (mut tail, mut written) = (Vec::new(), 0);
        while let Ok(count) = fd::write(&theirs, &[b'!'; 4096]) {
            written += count;
        }
        assert!(written > STDERR_READS * 4096, "the socket holds {written} bytes: too little to tell");
        assert_eq!(hear(&ours, &mut tail), Turn::More);
        let mut left = [0; 4096];
        let mut count = 0;
        while let Ok(n @ 1..) = fd::read(&ours, &mut left) {
            count += n;
        }
        assert_eq!(count, written - STDERR_READS * 4096, "one turn read more than its share");
        fd::write(&theirs, b"last words").unwrap();
        assert_eq!(hear(&ours, &mut tail), Turn::Rest);
        assert!(tail.len() == STDERR_TAIL && tail.ends_with(b"!last words"));
        drop(theirs);
        assert_eq!(hear(&ours, &mut tail), Turn::Ended);
    }
}
