//! The functions that the checks call.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot_wire as wire;

#[offshoot::remote]
pub(crate) fn pid() -> u32 {
    std::process::id()
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How often it was called in this process.
#[offshoot::remote]
pub(crate) fn count() -> u32 {
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

/// Returns once as many are in it as say so, or says that they never were.
#[offshoot::remote]
pub(crate) fn meet(others: u32) -> bool {
    static HERE: AtomicU32 = AtomicU32::new(0);
    HERE.fetch_add(1, Ordering::Relaxed);
    let end = Instant::now() + Duration::from_secs(20);
    while HERE.load(Ordering::Relaxed) < others {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[offshoot::remote]
pub(crate) fn same(
    bytes: Vec<u8>,
    mut text: String,
    map: BTreeMap<u8, Option<f64>>,
) -> (Vec<u8>, String, BTreeMap<u8, Option<f64>>) {
    text.push('!');
    (bytes, text, map)
}

#[offshoot::remote]
pub(crate) fn fill(length: usize) -> String {
    "7".repeat(length)
}

#[offshoot::remote]
pub(crate) fn nothing() {}

#[offshoot::remote]
pub(crate) fn length(text: String) -> usize {
    text.len()
}

/// Waits until there is such a file, and yields this process's number; 0 when none comes.
#[offshoot::remote]
pub(crate) fn until_file(path: PathBuf) -> u32 {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        if Instant::now() > end {
            return 0;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::process::id()
}

/// How often the thread that watches this process's links and timers got a processor.
#[offshoot::remote]
pub(crate) fn turns_of_the_broker() -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{}/status", std::process::id()))?;
    let counts = status.lines().filter_map(|line| line.split_once("_ctxt_switches:")?.1.trim().parse::<u64>().ok());
    Ok(counts.sum())
}

#[offshoot::remote]
pub(crate) fn twice(number: u32) -> u32 {
    2 * number
}

#[offshoot::remote]
pub(crate) fn size(path: PathBuf) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Refused {
    TooMany(u32),
}

#[offshoot::remote]
pub(crate) fn own_error(number: u32) -> Result<u32, Refused> {
    if number > 9 { Err(Refused::TooMany(number)) } else { Ok(number) }
}

#[offshoot::remote]
pub(crate) fn boxed_error(text: String) -> Result<(), Box<dyn Error + Send + Sync>> {
    Err(io::Error::new(io::ErrorKind::InvalidData, Outer(text.parse::<u32>().err())).into())
}

/// An error with a cause.
#[derive(Debug)]
struct Outer(Option<std::num::ParseIntError>);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no number")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_ref().map(|error| error as &(dyn Error + 'static))
    }
}

#[offshoot::remote]
pub(crate) fn panic(text: String) {
    panic!("as told: {text}");
}

#[offshoot::remote]
pub(crate) fn abort() {
    std::process::abort();
}

#[offshoot::remote]
pub(crate) fn exit(code: i32) {
    std::process::exit(code);
}

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Goes on until nobody waits any more.
#[offshoot::remote]
pub(crate) fn until_cancelled(here: &Here) {
    while !here.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
    CANCELLED.store(true, Ordering::Relaxed);
}

#[offshoot::remote]
pub(crate) fn was_cancelled() -> bool {
    CANCELLED.load(Ordering::Relaxed)
}

#[offshoot::remote]
pub(crate) fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

static COME: AtomicBool = AtomicBool::new(false);

/// Leaves no room for the stack of a further thread, for so long; whether [`come`] then runs before this ends.
#[offshoot::remote]
pub(crate) fn threads_are_short(told: Sender<()>, wait: Duration) -> io::Result<bool> {
    let limit = |room: &str| -> io::Result<()> {
        let mut prlimit = std::process::Command::new("prlimit");
        let done = prlimit.args(["--pid", &std::process::id().to_string(), &format!("--as={room}:")]).status()?;
        if done.success() { Ok(()) } else { Err(io::Error::other("prlimit did not do it")) }
    };
    let status = std::fs::read_to_string("/proc/self/status")?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let size: u64 = size.and_then(|size| size.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    limit(&(1024 * (size + 1024)).to_string())?;
    told.send(&()).map_err(io::Error::other)?;
    std::thread::sleep(wait);
    if COME.load(Ordering::Relaxed) {
        return Err(io::Error::other("there was room for its thread"));
    }
    limit("unlimited")?;
    let begun = std::time::Instant::now();
    while !COME.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(COME.load(Ordering::Relaxed))
}

#[offshoot::remote]
pub(crate) fn come() {
    COME.store(true, Ordering::Relaxed);
}

/// Starts a process that leaves its session, and yields its number.
#[offshoot::remote]
pub(crate) fn daemon() -> u32 {
    let output = std::process::Command::new("setsid")
        .args(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// Waits for a process some time after it has ended.
#[offshoot::remote]
pub(crate) fn waits_late() -> io::Result<bool> {
    let mut child = std::process::Command::new("true").spawn()?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(child.wait()?.success())
}

/// Grows a context below, and asks who runs there.
#[offshoot::remote]
pub(crate) fn deeper(here: &Here) -> Result<(u32, u32, String), String> {
    let below = here.context().local().connect().map_err(|error| error.to_string())?;
    let there = pid::on(&below).map_err(|error| error.to_string())?;
    Ok((std::process::id(), there, below.path().to_owned()))
}

#[offshoot::remote]
pub(crate) fn descriptors() -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").expect("/proc");
    list.flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| ["0", "1", "2"].contains(&name)))
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect()
}

/// What the worker has open, and what a program that it starts sees of itself: its descriptors and its signals.
#[offshoot::remote]
pub(crate) fn clean() -> (Vec<String>, String) {
    // The folder that is read is one of them, by its own path.
    let list = std::fs::read_dir("/proc/self/fd").expect("/proc");
    let open = list.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let mut open: Vec<String> = open.map(|to| to.to_string_lossy().into_owned()).collect();
    open.retain(|to| !to.starts_with("/proc/"));
    // grep looks at itself: a shell has signals blocked for a moment while it starts something.
    let script = "ls /proc/$$/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status";
    let started = std::process::Command::new("sh").args(["-c", script]).output().expect("a shell");
    (open, String::from_utf8_lossy(&started.stdout).into_owned())
}

/// A name that clashes with those of the expansion does no harm.
#[offshoot::remote]
pub(crate) fn call(context: u32, run: u32, args: u32, value: u32) -> u32 {
    context + run + args + value
}

/// Found by name alone, whatever is around it.
pub(crate) mod inner {
    type Result<T> = std::result::Result<T, super::wire::EncodeError>;

    #[offshoot::remote]
    pub(crate) fn alias() -> Result<u8> {
        Err(super::wire::EncodeError::NoForm)
    }
}

#[offshoot::remote]
pub(crate) fn say(level: u8, text: String) {
    let level = log::Level::iter().nth(usize::from(level) - 1).unwrap_or(log::Level::Trace);
    log::log!(level, "{text}");
}

/// Connects a context below, has it say something, and tells that one's address.
#[offshoot::remote]
pub(crate) fn say_below(here: &Here, text: String) -> Result<String, Box<dyn Error>> {
    let below = here.context().local().connect()?;
    say::on(&below, 3, text)?;
    // What it says is on its way when it has answered, and goes no further than this process when that ends it.
    std::thread::sleep(Duration::from_millis(200));
    Ok(below.address().to_string())
}

#[offshoot::remote]
pub(crate) fn log_level() -> u8 {
    log::max_level() as u8
}

#[offshoot::remote]
pub(crate) fn print_lines() -> io::Result<()> {
    println!("one\n");
    println!("two");
    eprintln!("an error");
    std::process::Command::new("sh").args(["-c", "echo of a child; echo of a child, too >&2"]).status().map(drop)
}

#[offshoot::remote]
pub(crate) fn print_raw(bytes: Vec<u8>) -> io::Result<()> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    out.write_all(&bytes)?;
    out.flush()
}

#[offshoot::remote]
pub(crate) fn storm_of(records: u32) {
    for number in 0..records {
        log::info!("{number}");
    }
}

#[offshoot::remote]
pub(crate) fn abort_saying(text: String) {
    eprintln!("{text}");
    std::process::abort();
}

/// How many of these ran at once at most, so far.
#[offshoot::remote]
pub(crate) fn crowd() -> u32 {
    static NOW: AtomicU32 = AtomicU32::new(0);
    static MOST: AtomicU32 = AtomicU32::new(0);
    let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
    let most = MOST.fetch_max(now, Ordering::SeqCst).max(now);
    std::thread::sleep(Duration::from_millis(20));
    NOW.fetch_sub(1, Ordering::SeqCst);
    most
}

#[offshoot::remote]
pub(crate) fn allocate(bytes: usize) -> usize {
    let memory = vec![1u8; bytes];
    memory.iter().map(|byte| usize::from(*byte)).sum()
}

/// Starts a process that lives for long, and goes on for ever.
#[offshoot::remote]
pub(crate) fn sleep_beside(file: PathBuf) -> io::Result<()> {
    let child = std::process::Command::new("sleep").arg("600").spawn()?;
    std::fs::write(file, format!("{} {}", std::process::id(), child.id()))?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

static NOTES: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());

/// Notes a number after a while; an error for one from 1000 on, a panic from 2000 on, an abort from 3000 on.
#[offshoot::remote]
pub(crate) fn note(number: u32, wait_ms: u64, _large: Vec<u8>) -> Result<(), String> {
    std::thread::sleep(Duration::from_millis(wait_ms));
    match number {
        0..1000 => {}
        1000..2000 => return Err("too many".into()),
        2000..3000 => panic!("far too many"),
        _ => std::process::abort(),
    }
    NOTES.lock().expect("no panic").push(number);
    Ok(())
}

#[offshoot::remote]
pub(crate) fn notes() -> Vec<u32> {
    NOTES.lock().expect("no panic").clone()
}
