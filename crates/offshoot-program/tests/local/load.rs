//! Much at once: bulk that nobody reads, many stalled streams, many contexts. Memory stays within its promise, and calls
//! do not wait.

use std::time::{Duration, Instant};

use offshoot_connect::methods::Local;
use offshoot_mux::tree;
use offshoot_node::{Context, Event, Process};
use offshoot_program::Master;

use crate::failures::all_gone;
use crate::{Check, NOT_RUN, all_wanted, children, master, within};

pub(crate) const CHECKS: &[Check] = &[
    ("output_without_end_that_nobody_reads_takes_no_memory_and_delays_no_call", unread),
    ("a_thousand_stalled_streams_stay_within_their_budget", stalled),
    ("contexts_by_the_hundred_take_little_memory_and_go_at_once", crowd),
];

const MIB: u64 = 1024 * 1024;
/// The 99th percentile of a call beside bulk.
const PROMPT: Duration = Duration::from_millis(100);

/// A count of memory that the kernel keeps of a process, in bytes.
fn count(pid: u32, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find(|line| line.starts_with(what)).expect("its memory");
    1024 * line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
}

/// The memory of a process's own, in bytes: what it shares with its file is not counted.
fn memory(pid: u32) -> u64 {
    count(pid, "RssAnon:")
}

/// A process while nothing is asked of it.
struct Idle {
    pid: u32,
    /// Its own memory.
    own: u64,
    /// What it shares, with its file above all.
    shared: u64,
}

impl Idle {
    fn of(pid: u32) -> Idle {
        Idle { pid, own: memory(pid), shared: Idle::shared(pid) }
    }

    fn shared(pid: u32) -> u64 {
        count(pid, "RssFile:") + count(pid, "RssShmem:")
    }

    /// The most that it ever held of its own: the kernel misses no moment, but counts what is shared too, which seldom shrinks.
    fn peak(&self) -> u64 {
        count(self.pid, "VmHWM:").saturating_sub(self.shared.max(Idle::shared(self.pid)))
    }
}

/// This process and the agents of a chain.
fn path(chain: &[Context]) -> Vec<u32> {
    let agents = chain.iter().map(|context| context.hello().expect("a hello").pid);
    std::iter::once(std::process::id()).chain(agents).collect()
}

fn chain(master: &Master) -> Vec<Context> {
    let mut chain = vec![master.local().connect().expect("a context")];
    while chain.len() < 3 {
        let next = chain[chain.len() - 1].local().connect().expect("a context");
        chain.push(next);
    }
    for context in &chain {
        context.ping().expect("an answer");
    }
    chain
}

/// The 99th percentile of calls made one after another.
fn slow_calls(context: &Context, count: usize) -> Duration {
    let mut took: Vec<Duration> = (0..count).map(|_| context.ping().expect("an answer")).collect();
    took.sort();
    took[count * 99 / 100]
}

/// Asserts that no process ever held much more than before.
#[track_caller]
fn within_of(before: &[Idle], most: u64, what: &str) {
    for (hop, process) in before.iter().enumerate() {
        let (now, idle) = (memory(process.pid), process.own);
        let ever = process.peak().max(now);
        println!("{what}: hop {hop} holds {} KiB, at most {} KiB, idle {} KiB", now / 1024, ever / 1024, idle / 1024);
        assert!(ever <= idle + most, "{what}: hop {hop} held {ever} bytes, idle {idle}");
    }
}

fn spawn(context: &Context, program: &str, argument: &str) -> Process {
    context.command(program).arg(argument).spawn().expect("it is asked")
}

fn unread() {
    let amount = if all_wanted() { 10 * 1024 * MIB } else { 256 * MIB };
    let master = master();
    let chain = chain(&master);
    let beside = master.local().connect().expect("a context");
    slow_calls(&chain[2], 200);
    slow_calls(&beside, 200);
    let before: Vec<Idle> = path(&chain).into_iter().map(Idle::of).collect();
    let mut process = spawn(&chain[2], "cat", "/dev/zero");
    // Read for a while, so that the window is as large as it gets; and call all the while.
    let calls = std::thread::scope(|scope| {
        let callers = [&chain[2], &beside].map(|context| scope.spawn(|| slow_calls(context, 2_000)));
        let mut came = 0;
        while came < amount {
            match process.event().expect("its output") {
                Event::Stdout(bytes) => came += bytes.len() as u64,
                other => panic!("{other:?}"),
            }
        }
        within_of(&before, 32 * MIB, "reading");
        callers.map(|caller| caller.join().expect("no panic"))
    });
    println!("beside {} MiB: p99 {calls:?}, on its way and on another", amount / MIB);
    assert!(calls.iter().all(|calls| *calls < PROMPT * 3), "calls took {calls:?} beside the stream");
    // Read no more: everything stands still.
    std::thread::sleep(Duration::from_secs(1));
    within_of(&before, 32 * MIB, "not reading");
    let calls = [&chain[2], &beside].map(|context| slow_calls(context, 2_000));
    println!("beside a stream that stands: p99 {calls:?}");
    assert!(calls.iter().all(|calls| *calls < PROMPT * 3), "calls took {calls:?} beside what stands");
    drop(process);
    within(Duration::from_secs(6), "it runs on", || chain[2].info().expect("an answer").processes == 0);
}

/// The windows of one context sum to 16 MiB, and to a floor of 16 KiB for each stream beyond; what is read into buffers
/// beside that is little.
fn stalled() {
    const STREAMS: usize = 1_000;
    let (soft, _) = limits();
    if soft < 8 * STREAMS as u64 {
        println!("{NOT_RUN}needs {} descriptors, {soft} are allowed", 8 * STREAMS);
        return;
    }
    let master = master();
    let chain = chain(&master);
    let before: Vec<Idle> = path(&chain).into_iter().map(Idle::of).collect();
    let mut processes: Vec<Process> = (0..STREAMS).map(|_| spawn(&chain[2], "cat", "/dev/zero")).collect();
    // Each has begun.
    for process in &mut processes {
        assert!(matches!(process.event().expect("its output"), Event::Stdout(_)));
    }
    std::thread::sleep(Duration::from_secs(2));
    // Two outputs each: 16 MiB of windows, and floors.
    let budget = 16 * MIB + 2 * STREAMS as u64 * 16 * 1024;
    within_of(&before, budget, "stalled");
    let calls = slow_calls(&chain[2], 500);
    println!("beside {STREAMS} stalled streams: p99 {calls:?}");
    assert!(calls < PROMPT * 3, "a call took {calls:?}");
    let start = Instant::now();
    drop(processes);
    within(Duration::from_secs(30), "some run on", || chain[2].info().expect("an answer").processes == 0);
    println!("all ended after {:?}", start.elapsed());
}

fn limits() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

fn crowd() {
    let count: usize = if all_wanted() { 2_000 } else { 500 };
    let (soft, _) = limits();
    if soft < 5 * count as u64 {
        println!("{NOT_RUN}needs {} descriptors, {soft} are allowed", 5 * count);
        return;
    }
    let master = master();
    let start = Instant::now();
    let contexts: Vec<Context> =
        master.connect_all(vec![Local::new(); count]).into_iter().map(|context| context.expect("a context")).collect();
    let up = start.elapsed();
    let asked: Vec<_> = contexts.iter().map(|context| context.start_echo(b"x").expect("it is sent")).collect();
    asked.into_iter().for_each(|pending| drop(pending.wait().expect("an echo")));
    let held = memory(std::process::id());
    println!("{count} contexts in {up:?}; the master holds {} KiB", held / 1024);
    assert!(held <= 64 * MIB + count as u64 * 16 * 1024, "the master holds {held} bytes");
    let below = tree::descendants(std::process::id());
    assert_eq!(below.len(), 2 * count);
    let start = Instant::now();
    drop(master);
    let took = start.elapsed();
    all_gone(&below, Duration::from_secs(10) * 3 - took.min(Duration::from_secs(29)));
    println!("all gone after {:?}", start.elapsed());
    assert_eq!(children(), []);
}
