//! A run from its beginning to its end, and what is watched meanwhile: delays of the machine, operations that hang, memory, descriptors, threads.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use offshoot::Master;
use offshoot_tests::process;

use crate::counting;
use crate::effects::Effects;
use crate::growth;
use crate::history::History;
use crate::killer;
use crate::rng::Rng;
use crate::run::{Counts, Options, Run};
use crate::spared::Spared;
use crate::ssh;
use crate::work;

/// No operation lasts for that long, whatever happens: the longest promise is a silence and a shutdown, three times.
const STUCK: Duration = Duration::from_secs(120);
/// Threads that wait for what does not end.
const WAITING: u64 = 8;
/// How long the end may take: a grace and a kill, three times.
const END: Duration = Duration::from_secs(21);

/// What this process holds: the targets of its open descriptors, the names of its threads.
///
/// Not the descriptor that lists them, nor that of the own executable, which is opened once, for good, when an image is first
/// looked for; nor the thread of the log, which begins with the first record, or when a thousand contexts have come and
/// gone, and ends with the master.
struct Held {
    descriptors: Vec<String>,
    threads: Vec<String>,
}

const LOGGING: &str = "offshoot-log";

fn held() -> Held {
    let own = std::env::current_exe().ok();
    let entries = |folder| fs::read_dir(folder).into_iter().flatten().flatten();
    let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let others = |to: &PathBuf| !to.starts_with("/proc") && Some(to) != own.as_ref();
    let name = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
    Held {
        descriptors: entries("/proc/self/fd")
            .filter_map(target)
            .filter(others)
            .map(|to| to.display().to_string())
            .collect(),
        threads: entries("/proc/self/task")
            .filter_map(name)
            .map(|name| name.trim_end().to_string())
            .filter(|name| name != LOGGING)
            .collect(),
    }
}

impl Held {
    fn counts(&self) -> (usize, usize) {
        (self.descriptors.len(), self.threads.len())
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (descriptors, threads) = self.counts();
        write!(
            f,
            "{descriptors} descriptors ({}) and {threads} threads ({})",
            self.descriptors.join(", "),
            self.threads.join(", ")
        )
    }
}

/// Whether it holds before that time is over.
pub(crate) fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs, prints the report, and says whether all was well.
pub(crate) fn run(options: Options, folder: Option<PathBuf>) -> bool {
    let own = folder.is_none().then(|| tempfile::Builder::new().prefix("soak-").tempdir());
    let folder = match (&folder, &own) {
        (Some(folder), _) => folder.clone(),
        (None, Some(Ok(own))) => own.path().to_path_buf(),
        (None, _) => {
            println!("error: no temporary folder can be made");
            return false;
        }
    };
    println!("seed {}", options.seed);
    let history = History::new(options.seed);
    let before = held();
    let login = options.login.clone();
    let (length, mut report) = (options.length, String::new());
    let effects = Effects::new(&folder);
    let counts = Counts::default();
    // On a thread of its own: one that has waited for a context keeps a descriptor for as long as it lives.
    std::thread::scope(|scope| {
        scope.spawn(|| match Master::builder().own_image().build() {
            Ok(master) => {
                let run = Run::new(options, master, &history, &effects, &counts);
                let idle = idle(&run);
                println!("up");
                // Else nothing is to be known of its memory.
                if run.options.spared > 0 && length >= growth::LONG {
                    age(&run);
                }
                let mut spared = Spared::connect(&run).unwrap_or_else(|error| {
                    history.find("/", &format!("a connect fails before anything was hit: {error}"));
                    Spared::default()
                });
                let before = (allocated(&run), run.operations());
                load(&run, &mut spared);
                report = end(&run, &idle, &spared, before);
                report += &format!(
                    "held        {} descriptors and {} threads with an empty tree, before and after\n",
                    idle.counts().0,
                    idle.counts().1
                );
            }
            Err(error) => history.find("/", &format!("no master: {error}")),
        });
    });
    let left = || {
        ssh::below(login.as_ref())
            .into_iter()
            .filter(process::Process::is_live)
            .map(|process| process.to_string())
            .collect::<Vec<_>>()
    };
    if !within(END, || left().is_empty()) {
        history.find("/", &format!("after the end there are:\n    {}", left().join("\n    ")));
    }
    if !within(Duration::from_secs(5), || held().counts() == before.counts()) {
        history.find("/", &format!("before the master there were {before}; after it there are {}", held()));
    }
    for what in effects.check(true) {
        history.find("/", &what);
    }
    print!("{}{report}", counts.report());
    let [never, once, at_most] = effects.counts();
    println!("effects     {never} never, {once} once, {at_most} at most once, as was said of each");
    let findings = history.findings();
    let verdict = if findings == 0 { "well" } else { "NOT WELL" };
    println!("{verdict}: seed {}, {} kills, {findings} findings", history.seed, counts.kills());
    findings == 0
}

/// What the master holds while its tree is empty and has been used.
fn idle(run: &Run<'_>) -> Held {
    for _ in 0..2 {
        match run.master.local().connect() {
            Ok(context) => drop(context.shutdown()),
            Err(error) => run.history.find("/", &format!("the first connect fails: {error}")),
        }
    }
    // The tool of a link that was shut down ends a moment after it.
    let mut seen = held();
    within(Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(200));
        let before = std::mem::replace(&mut seen, held());
        before.counts() == seen.counts()
    });
    seen
}

/// So many contexts come and go that the master has all that it keeps of contexts that are gone: the names of the last thousand, for their last records.
fn age(run: &Run<'_>) {
    const EACH: usize = 280;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    if let Err(error) = run.master.local().connect().and_then(|context| context.shutdown()) {
                        return run.history.find("/", &format!("one of the first contexts: {error}"));
                    }
                }
            });
        }
    });
}

/// What this process has allocated, but for what the run itself has noted, which is forgotten.
fn allocated(run: &Run<'_>) -> u64 {
    run.history.forget();
    run.nodes.forget_faults();
    counting::live()
}

/// The part with faults; the memory of those that are spared each second.
fn load(run: &Run<'_>, spared: &mut Spared) {
    let seed = run.options.seed;
    let threads = run.options.threads;
    std::thread::scope(|scope| {
        let mut joined = Vec::new();
        for thread in 0..threads {
            joined.push(scope.spawn(move || work::busy(run, Rng::of(seed, 100 + thread))));
        }
        for thread in 0..WAITING {
            joined.push(scope.spawn(move || work::waiting(run, Rng::of(seed, 200 + thread))));
        }
        // The tree first.
        let fewest = run.options.contexts.0 as usize;
        if !within(Duration::from_secs(60), || run.nodes.count() >= fewest) {
            run.history
                .find("/", &format!("there are {} contexts after a minute, {fewest} are wanted", run.nodes.count()));
        }
        joined.push(scope.spawn(move || killer::work(run, Rng::of(seed, 1))));
        let until = Instant::now() + run.options.length;
        let mut next = Instant::now();
        while joined.iter().any(|thread| !thread.is_finished()) {
            const NAP: Duration = Duration::from_millis(20);
            let slept = Instant::now();
            std::thread::sleep(NAP);
            run.history.lagged(slept.elapsed().saturating_sub(NAP));
            if Instant::now() >= until || run.history.is_hopeless() {
                run.over.store(true, Ordering::Relaxed);
            }
            if Instant::now() < next {
                continue;
            }
            next += Duration::from_secs(1);
            spared.look(run.operations());
            for what in run.effects.check(false) {
                run.history.find("/", &what);
            }
            let stuck = run.stuck(STUCK);
            if !stuck.is_empty() {
                run.history.find("/", &format!("these do not end:\n    {}", stuck.join("\n    ")));
                // Threads that hang cannot be joined; the tree ends with this process.
                std::process::exit(1);
            }
        }
    });
}

/// Empties the tree and looks whether what was spared, and the master, hold what they held before: `before` is what this process had allocated with nothing
/// but those in the tree, and how many operations there had been.
fn end(run: &Run<'_>, idle: &Held, spared: &Spared, before: (u64, u64)) -> String {
    let empty = |contexts: &[offshoot::Context]| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for context in contexts {
                // One that was lost has no route; others are gone when it returns.
                scope.spawn(|| drop(context.shutdown()));
            }
        });
        if started.elapsed() > END + 3 * run.history.late_since(started) {
            run.history.find("/", &format!("the tree was emptied in {:?}", started.elapsed()));
        }
    };
    empty(&run.nodes.take_all());
    let mut report = spared.judge(run, END);
    // What operations have left is there to stay; what their threads held goes with them.
    let mut memory = Ok(String::new());
    within(END, || {
        memory = growth::left(before.0, allocated(run), run.operations() - before.1);
        memory.is_ok()
    });
    let memory = memory.unwrap_or_else(|what| {
        // A short one has not begun with all that is kept of contexts that are gone.
        if run.options.spared > 0 && run.options.length >= growth::LONG {
            run.history.find("/", &format!("the master grows: {what}"));
        }
        what
    });
    report += &format!("memory      of the master: {memory}\n");
    empty(&Vec::from_iter(spared.first().cloned()));
    // A link whose tool is stopped is given up after some seconds, and nothing is stopped now.
    let (descriptors, threads) = idle.counts();
    let back = || {
        let now = held().counts();
        now.0 <= descriptors && now.1 <= threads
    };
    if !within(END, back) {
        run.history.find("/", &format!("with an empty tree there were {idle}, and are {}", held()));
    }
    report
}
