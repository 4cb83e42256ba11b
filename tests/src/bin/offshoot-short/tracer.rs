//! The loop of the tracer: who stands where, and what is told again.
//!
//! Owns the traced threads and, by process, what its pollers watch. Must not know which calls are cut, and how.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::Command;

use libc::{c_int, pid_t};

use crate::cut::{self, Cutter, Kind, Watch};
use crate::rng::Rng;
use crate::trace::{self, Registers, Side, Stop};

/// Below the stack pointer this much belongs to the function that runs.
const RED_ZONE: u64 = 128;

/// Where a thread is.
#[derive(Debug, Clone)]
enum Place {
    /// In no call that matters here.
    Free,
    /// In a call that was made shorter; the registers are those that it was made with.
    Cut { before: Registers, descriptor: i32 },
    /// In an `epoll_ctl` of its own.
    Control { descriptor: i32, watch: Option<Watch> },
    /// Asked to have the poller tell again. `entered` when it is in that call; then it goes on with these registers.
    Telling { after: Registers, entered: bool },
}

/// A thread that stands until the watches of its process are nobody's.
#[derive(Debug)]
enum Held {
    /// Before an `epoll_ctl`.
    Control(pid_t),
    /// Behind a call that was cut.
    Tell { thread: pid_t, after: Box<Registers>, descriptor: i32 },
}

#[derive(Debug)]
struct Thread {
    process: pid_t,
    place: Place,
}

/// What the threads of a process share.
#[derive(Debug, Default)]
struct Process {
    watched: HashMap<i32, Watch>,
    /// How many are in an `epoll_ctl`.
    controls: usize,
    /// One tells: nobody else changes a watch meanwhile, or what it says would be what was.
    telling: bool,
    held: VecDeque<Held>,
    /// The program's name.
    name: Option<String>,
}

struct Tracer {
    threads: HashMap<pid_t, Thread>,
    processes: HashMap<pid_t, Process>,
    cutter: Cutter,
    rng: Rng,
    counts: BTreeMap<(String, Kind, &'static str), u64>,
}

/// Runs a program to its end and that of all it started: its status, and the report.
pub(crate) fn run(command: &mut Command, seed: u64) -> io::Result<(u8, String)> {
    let root = trace::start(command)?.id() as pid_t;
    let mut tracer = Tracer {
        threads: HashMap::new(),
        processes: HashMap::new(),
        cutter: Cutter::default(),
        rng: Rng::of(seed, 0),
        counts: BTreeMap::new(),
    };
    tracer.threads.insert(root, Thread { process: root, place: Place::Free });
    let mut status = 0;
    while let Some((pid, stop)) = trace::wait()? {
        if let (Stop::Ended(code), true) = (stop, pid == root) {
            status = u8::try_from(code).unwrap_or(255);
        }
        // An error is that the thread was killed while it stood: its end is told.
        let _ = tracer.on_stop(pid, stop);
    }
    let report = tracer.counts.iter().fold(String::new(), |mut text, ((name, kind, call), count)| {
        let _ = writeln!(text, "{name} {} {call} {count}", format!("{kind:?}").to_lowercase());
        text
    });
    Ok((status, report))
}

impl Tracer {
    fn on_stop(&mut self, pid: pid_t, stop: Stop) -> io::Result<()> {
        match stop {
            Stop::Ended(_) => {
                self.ended(pid);
                Ok(())
            }
            Stop::Executed => {
                // The thread that executes has the number of its process from then on, and is the only one.
                self.processes.remove(&pid);
                self.threads.insert(pid, Thread { process: pid, place: Place::Free });
                trace::resume(pid, 0)
            }
            Stop::Born => trace::resume(pid, 0),
            // What a thread that is born traced begins with.
            Stop::Signal(libc::SIGSTOP) if !self.threads.contains_key(&pid) => {
                self.known(pid);
                trace::resume(pid, 0)
            }
            Stop::Signal(signal) => self.signal(pid, signal),
            Stop::Call => {
                self.known(pid);
                match trace::side(pid)? {
                    Side::Entry => self.entry(pid),
                    Side::Exit => self.exit(pid),
                    Side::Other => trace::resume(pid, 0),
                }
            }
        }
    }

    fn signal(&mut self, pid: pid_t, signal: c_int) -> io::Result<()> {
        self.known(pid);
        trace::resume(pid, signal)
    }

    /// Enters a thread that is seen for the first time.
    fn known(&mut self, pid: pid_t) {
        self.threads.entry(pid).or_insert_with(|| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
            Thread { process: process.unwrap_or(pid), place: Place::Free }
        });
    }

    fn ended(&mut self, pid: pid_t) {
        let Some(thread) = self.threads.remove(&pid) else { return };
        if let Some(process) = self.processes.get_mut(&thread.process) {
            match thread.place {
                Place::Control { .. } => process.controls -= 1,
                Place::Telling { .. } => process.telling = false,
                Place::Free | Place::Cut { .. } => {}
            }
            process.held.retain(|held| match held {
                Held::Control(thread) | Held::Tell { thread, .. } => *thread != pid,
            });
        }
        self.settle(thread.process);
        if !self.threads.values().any(|other| other.process == thread.process) {
            self.processes.remove(&thread.process);
        }
    }

    fn entry(&mut self, pid: pid_t) -> io::Result<()> {
        let registers = trace::registers(pid)?;
        let Some(thread) = self.threads.get_mut(&pid) else { return Ok(()) };
        if let Place::Telling { entered, .. } = &mut thread.place {
            // A handler of a signal that came in between may make calls of its own.
            *entered = registers.orig_rax == libc::SYS_epoll_ctl as u64;
            return trace::resume(pid, 0);
        }
        let process = thread.process;
        if registers.orig_rax == libc::SYS_epoll_ctl as u64 {
            self.processes.entry(process).or_default().held.push_back(Held::Control(pid));
            self.settle(process);
            return Ok(());
        }
        let Some(cut) = self.cutter.cut(pid, &registers, &mut self.rng) else { return trace::resume(pid, 0) };
        let of = self.processes.entry(process).or_default();
        let name = of.name.get_or_insert_with(|| {
            let path = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
            let path = path.to_string_lossy().into_owned();
            let name = path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default();
            if name.is_empty() { "?".into() } else { name.replace(' ', "_") }
        });
        *self.counts.entry((name.clone(), cut.kind, cut.name)).or_default() += 1;
        thread.place = Place::Cut { before: registers, descriptor: cut.descriptor };
        trace::set_registers(pid, &cut.registers)?;
        trace::resume(pid, 0)
    }

    fn exit(&mut self, pid: pid_t) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(&pid) else { return Ok(()) };
        let process = thread.process;
        match thread.place.clone() {
            Place::Free => trace::resume(pid, 0),
            Place::Cut { before, descriptor } => {
                thread.place = Place::Free;
                // The kernel changes the result, and two registers by the instruction itself. If it makes the call again, it makes the one that was meant.
                let now = trace::registers(pid)?;
                let Registers { rax, rip, rcx, r11, eflags, .. } = now;
                let after = Registers { rax, rip, rcx, r11, eflags, ..before };
                trace::set_registers(pid, &after)?;
                let watched = self.processes.get(&process).is_some_and(|of| of.watched.contains_key(&descriptor));
                if !watched || (rax as i64) <= 0 {
                    return trace::resume(pid, 0);
                }
                let of = self.processes.entry(process).or_default();
                of.held.push_back(Held::Tell { thread: pid, after: Box::new(after), descriptor });
                self.settle(process);
                Ok(())
            }
            Place::Control { descriptor, watch } => {
                thread.place = Place::Free;
                let succeeded = trace::registers(pid)?.rax == 0;
                let of = self.processes.entry(process).or_default();
                of.controls -= 1;
                if succeeded {
                    match watch {
                        Some(watch) => of.watched.insert(descriptor, watch),
                        None => of.watched.remove(&descriptor),
                    };
                }
                self.settle(process);
                trace::resume(pid, 0)
            }
            Place::Telling { entered: false, .. } => trace::resume(pid, 0),
            Place::Telling { after, entered: true } => {
                thread.place = Place::Free;
                // An error means that the descriptor was closed, and with it the watch.
                trace::set_registers(pid, &after)?;
                self.processes.entry(process).or_default().telling = false;
                self.settle(process);
                trace::resume(pid, 0)
            }
        }
    }

    /// Lets those go on that stood for what is over.
    fn settle(&mut self, process: pid_t) {
        loop {
            let Some(of) = self.processes.get_mut(&process) else { return };
            let next = match of.held.front() {
                _ if of.telling => return,
                Some(Held::Tell { .. }) if of.controls > 0 => return,
                Some(_) => of.held.pop_front(),
                None => return,
            };
            // An error is that it was killed meanwhile: told by its end, which takes it out of the count.
            let _ = match next {
                Some(Held::Control(thread)) => self.control(thread),
                Some(Held::Tell { thread, after, descriptor }) => self.tell(thread, *after, descriptor),
                None => Ok(()),
            };
        }
    }

    fn control(&mut self, pid: pid_t) -> io::Result<()> {
        let registers = trace::registers(pid)?;
        let (Some(thread), Ok((descriptor, watch))) = (self.threads.get_mut(&pid), cut::watch(pid, &registers)) else {
            return trace::resume(pid, 0);
        };
        thread.place = Place::Control { descriptor, watch };
        self.processes.entry(thread.process).or_default().controls += 1;
        trace::resume(pid, 0)
    }

    /// Has the thread change a watch to what it is, so that the poller tells what is ready.
    fn tell(&mut self, pid: pid_t, after: Registers, descriptor: i32) -> io::Result<()> {
        let Some(thread) = self.threads.get_mut(&pid) else { return Ok(()) };
        let Some(of) = self.processes.get_mut(&thread.process) else { return Ok(()) };
        let Some(watch) = of.watched.get(&descriptor) else { return trace::resume(pid, 0) };
        let room = (after.rsp - RED_ZONE - 1024) & !15;
        let number = libc::SYS_epoll_ctl as u64;
        let call = Registers {
            rax: number,
            // Not in a call: else the kernel might take its result for one that is to be made again.
            orig_rax: u64::MAX,
            // Back to the instruction that makes a call, which is two bytes long.
            rip: after.rip - 2,
            rdi: watch.poller,
            rsi: libc::EPOLL_CTL_MOD as u64,
            rdx: descriptor as u64,
            r10: room,
            ..after
        };
        trace::write(pid, room, &watch.event)?;
        trace::set_registers(pid, &call)?;
        of.telling = true;
        thread.place = Place::Telling { after, entered: false };
        trace::resume(pid, 0)
    }
}
