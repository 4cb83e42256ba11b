//! A user's program whose functions run in contexts far away, and which tells what went over each link. Static, so that it
//! is its own image for hosts of the same kind: built by the test that runs it.
//!
//! `offshoot-calls CONFIG economy HOST CONTEXTS THREADS`, `… chain HOST… [sudo:USER]`, `… preload HOST CONTEXTS`,
//! `… crash HOST`, `… cut HOST SCRIPT`, `… logs HOST… [sudo:USER]`, `… storm HOST RECORDS`, `… unterminated HOST BYTES`,
//! `… lent HOST OTHER`, `… hold HOST… [sudo:USER]`, `… hoard HOP…`, `… replaced HOP…`.

#![deny(unsafe_code)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use offshoot::ContentStats;
use offshoot::prelude::*;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Who runs this: the process, its user, and where the worker is.
#[offshoot::remote]
fn who(here: &Here) -> (u32, String, String) {
    let user = std::fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about)).unwrap_or(1);
    (std::process::id(), user.to_string(), here.context().path().to_owned())
}

#[offshoot::remote]
fn crash() {
    std::process::abort();
}

#[offshoot::remote]
fn nothing() {}

/// Takes memory until it has so much of it.
#[offshoot::remote]
fn hoard(mebibytes: usize) -> usize {
    let mut all = Vec::new();
    for _ in 0..mebibytes {
        all.push(vec![1u8; 1 << 20]);
    }
    all.iter().map(Vec::len).sum()
}

#[offshoot::remote]
fn until_cancelled(here: &Here) {
    while !here.is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[offshoot::remote]
fn say(text: String) {
    log::info!("{text}");
}

/// Makes so many records as fast as it can; how long that took, in microseconds.
#[offshoot::remote]
fn storm(records: u32) -> u64 {
    let began = Instant::now();
    for number in 0..records {
        log::info!("record {number}");
    }
    began.elapsed().as_micros() as u64
}

/// So many letters, no part of them like another.
fn letters(bytes: usize) -> String {
    (0..bytes as u64).map(|at| char::from(b'a' + (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8 % 26)).collect()
}

/// Writes so many bytes at once, and no end of line.
#[offshoot::remote]
fn write(bytes: usize) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(letters(bytes).as_bytes())?;
    out.flush()
}

/// What came home: level, target and text.
static CAME: Mutex<Vec<(log::Level, String, String)>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("ctx.") {
            let record = (record.level(), record.target().to_owned(), record.args().to_string());
            CAME.lock().expect("no panic").push(record);
        }
    }

    fn flush(&self) {}
}

fn keep(level: log::LevelFilter) {
    log::set_logger(&Keep).expect("the first logger");
    log::set_max_level(level);
}

/// Waits until what came satisfies; at most 20 s.
fn comes(what: impl Fn(&[(log::Level, String, String)]) -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while !what(&CAME.lock().expect("no panic")) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Records of the agent at the end of a way, and of a function there.
fn logs(config: &str, master: &Master, hops: &[String]) -> Result<(), Failed> {
    keep(log::LevelFilter::Debug);
    let at = reach(config, master, hops)?;
    say::on(&at, "a function says".into())?;
    // Whoever connects says so: that is the agent there.
    let below = at.local().connect()?;
    let both = |came: &[(log::Level, String, String)]| {
        came.iter().any(|(_, _, text)| text == "a function says")
            && came.iter().any(|(_, _, text)| text.starts_with("local: connected"))
    };
    println!("both came: {}", comes(both));
    drop(below);
    for (level, target, text) in CAME.lock().expect("no panic").iter() {
        println!("{level} {target} {text}");
    }
    Ok(())
}

/// Says that it runs, and takes what comes until the channel ends.
#[offshoot::remote]
fn take(tells: Sender<()>, hears: Receiver<()>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tells.send(&())?;
    while hears.recv()?.is_some() {}
    Ok(())
}

/// A function that runs, with a channel to it, until this program is ended.
fn hold(config: &str, master: &Master, hops: &[String]) -> Result<(), Failed> {
    let at = reach(config, master, hops)?;
    let ((tells, told), (say, hears)) = (offshoot::channel(1), offshoot::channel(1));
    let call = take::start(&at, tells, hears);
    told.recv()?;
    println!("held");
    call.wait()??;
    drop(say);
    Ok(())
}

/// What a function on one host does with a context, a sender, a receiver and a file that it was given.
#[offshoot::remote]
fn use_all(
    to: Context,
    tells: Sender<String>,
    hears: Receiver<String>,
    mut file: RemoteFile,
) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    use std::io::{Read, Seek, SeekFrom, Write};
    let (_, user, path) = who::on(&to)?;
    tells.send(&format!("called as user {user} in {path}"))?;
    let output = to.command("sh").args(["-c", "echo of a command"]).output()?;
    tells.send(&format!("ran: {}", String::from_utf8_lossy(&output.stdout).trim()))?;
    let below = to.local().connect()?;
    tells.send(&format!("connected {}", who::on(&below)?.2))?;
    below.shutdown()?;
    while let Some(heard) = hears.recv()? {
        tells.send(&format!("heard {heard}"))?;
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    file.write_all(b", read there")?;
    file.seek(SeekFrom::Start(0))?;
    Ok(text.len() as u64)
}

#[offshoot::remote]
fn open_there(path: std::path::PathBuf) -> std::io::Result<RemoteFile> {
    std::fs::File::open(path).map(RemoteFile::new)
}

/// Two hosts that talk with each other by what they were given, also where one lies behind the other.
fn lent(config: &str, master: &Master, host: &str, other: &str) -> Result<(), Failed> {
    use std::io::Read;
    let hosts = Group::of([master.connect(ssh(config, host))?, master.connect(ssh(config, other))?]);
    let contexts: Vec<Context> = hosts.iter().cloned().collect();
    let behind = contexts[0].connect(ssh(config, other))?;
    for (from, to) in [(&contexts[0], &contexts[1]), (&contexts[0], &behind), (&behind, &contexts[1])] {
        let ((tells, told), (say, hears)) = (offshoot::channel(1), offshoot::channel(1));
        let path = std::env::temp_dir().join(format!("offshoot-lent-{}", std::process::id()));
        std::fs::write(&path, "a file of the master")?;
        let file = std::fs::File::options().read(true).write(true).open(&path)?;
        let call = use_all::start(from, to.clone(), tells, hears, RemoteFile::new(file));
        say.send(&"the master".to_owned())?;
        drop(say);
        for line in told.iter() {
            println!("{from} to {to}: {}", line?);
        }
        let read = call.wait()??;
        println!("{from} to {to}: read {read}, now {:?}", std::fs::read_to_string(&path)?);
        std::fs::remove_file(path)?;
    }
    for (context, there) in hosts.iter().zip(open_there::call("/etc/hostname".into()).on_each(&hosts)) {
        let (mut remote, mut text) = (there??, String::new());
        remote.read_to_string(&mut text)?;
        let same = context.command("cat").arg("/etc/hostname").output()?.stdout == text.as_bytes();
        println!("{context}: its file has {} bytes, the same: {same}", text.len());
    }
    Ok(())
}

fn p99(mut times: Vec<Duration>) -> u128 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).or(times.last()).map_or(0, Duration::as_micros)
}

/// Calls beside more records than any link takes.
fn storms(config: &str, master: &Master, host: &str, records: u32) -> Result<(), Failed> {
    keep(log::LevelFilter::Info);
    let context = master.connect(ssh(config, host))?;
    nothing::on(&context)?;
    let timed = || {
        let began = Instant::now();
        nothing::on(&context).map(|()| began.elapsed())
    };
    let idle = (0..300).map(|_| timed()).collect::<Result<Vec<_>, _>>()?;
    let under_way = storm::start(&context, records);
    let mut beside = Vec::new();
    while !under_way.is_done() || beside.is_empty() {
        beside.push(timed()?);
    }
    let (calls, took) = (beside.len(), under_way.wait()?);
    let lost = |came: &[(log::Level, String, String)]| -> usize {
        let told = came.iter().filter(|(_, target, _)| target.ends_with("::log"));
        told.filter_map(|(.., text)| text.strip_suffix(" lines dropped")?.parse::<usize>().ok()).sum()
    };
    let here =
        |came: &[(log::Level, String, String)]| came.iter().filter(|(.., text)| text.starts_with("record ")).count();
    comes(|came| here(came) + lost(came) >= records as usize);
    let came = CAME.lock().expect("no panic");
    println!(
        "storm: records {records} per_second {} calls {calls} idle_us {} longest_us {} beside_us {} here {} lost {}",
        u64::from(records) * 1_000_000 / took.max(1),
        p99(idle),
        beside.iter().max().map_or(0, Duration::as_micros),
        p99(beside),
        here(&came),
        lost(&came)
    );
    Ok(())
}

/// Output without an end of line comes whole, the last of it with the end of the tree, and delays no call.
fn unterminated(config: &str, master: &Master, host: &str, bytes: usize) -> Result<(), Failed> {
    keep(log::LevelFilter::Info);
    let context = master.connect(ssh(config, host))?;
    nothing::on(&context)?;
    let began = Instant::now();
    let writes = write::start(&context, bytes);
    let (mut calls, mut longest) = (0, Duration::ZERO);
    while !writes.is_done() || calls == 0 {
        let began = Instant::now();
        nothing::on(&context)?;
        (calls, longest) = (calls + 1, longest.max(began.elapsed()));
    }
    writes.wait()??;
    let took = began.elapsed().as_micros();
    drop(context);
    master.shutdown();
    // The logger may be behind.
    comes(|came| came.iter().map(|(.., text)| text.len()).sum::<usize>() >= bytes);
    let came = CAME.lock().expect("no panic");
    let parts = || came.iter().filter(|(_, target, _)| target.ends_with("::stdout")).map(|(.., text)| text.as_str());
    println!(
        "unterminated: written {bytes} took_us {took} longest_us {} here {} part {} same {}",
        longest.as_micros(),
        parts().map(str::len).sum::<usize>(),
        parts().map(str::len).max().unwrap_or(0),
        u8::from(parts().collect::<String>() == letters(bytes))
    );
    Ok(())
}

fn ssh(config: &str, target: &str) -> Ssh {
    Ssh::to(target).config(config)
}

fn told(name: &str, stats: &ContentStats) {
    let ContentStats { asked, bytes_in, requests, hits, joined, refused, bytes_out, kept } = stats;
    println!(
        "{name}: asked {asked} bytes_in {bytes_in} requests {requests} hits {hits} joined {joined} refused {refused} \
         bytes_out {bytes_out} kept {kept}"
    );
}

/// Contexts behind a bastion, all called at once by many threads.
fn economy(config: &str, master: &Master, host: &str, contexts: usize, threads: usize) -> Result<(), Failed> {
    let bastion = master.connect(ssh(config, host))?;
    let behind: Vec<Context> =
        bastion.connect_all(vec![Local::new(); contexts]).into_iter().collect::<Result<_, _>>()?;
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(context) = behind.get(next.fetch_add(1, Ordering::Relaxed)) {
                        who::on(context)?;
                    }
                    Ok::<(), offshoot::Error>(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    println!("first calls of {} in {} ms", behind.len(), began.elapsed().as_millis());
    told("master", &master.context().content_stats()?);
    told("bastion", &bastion.content_stats()?);
    println!("link: came {}", bastion.info()?.link_bytes.0);
    Ok(())
}

/// The context at the end of a way.
fn reach(config: &str, master: &Master, hops: &[String]) -> Result<Context, Failed> {
    let mut at = master.context().clone();
    for hop in hops {
        at = match hop.strip_prefix("sudo:") {
            Some(user) => at.sudo(user).connect()?,
            None if hop == "local" => at.local().connect()?,
            None => at.connect(ssh(config, hop))?,
        };
    }
    Ok(at)
}

/// One hop behind the other, the function at the end; twice.
fn chain(config: &str, master: &Master, hops: &[String]) -> Result<(), Failed> {
    let at = reach(config, master, hops)?;
    for call in ["first", "second"] {
        let began = Instant::now();
        let (process, user, path) = who::on(&at)?;
        println!("{call}: process {process} of user {user} in {path}, after {} us", began.elapsed().as_micros());
    }
    Ok(())
}

/// The image is there before anybody calls.
fn preload(config: &str, master: &Master, host: &str, contexts: usize) -> Result<(), Failed> {
    let bastion = master.connect(ssh(config, host))?;
    let behind: Group = bastion.connect_all(vec![Local::new(); contexts]).into_iter().collect::<Result<_, _>>()?;
    for done in master.preload_timeout(&behind, Duration::from_secs(60)) {
        done?;
    }
    told("preloaded", &bastion.content_stats()?);
    let link_before = bastion.info()?.link_bytes.0;
    for context in &behind {
        who::on(context)?;
    }
    told("called", &bastion.content_stats()?);
    println!("link: came {link_before} later {}", bastion.info()?.link_bytes.0 - link_before);
    Ok(())
}

/// A worker that is lost costs its call, and no second transfer.
fn crashes(config: &str, master: &Master, host: &str) -> Result<(), Failed> {
    let context = master.connect(ssh(config, host))?;
    let (first, ..) = who::on(&context)?;
    let before = context.content_stats()?;
    let lost = crash::on(&context).expect_err("it aborts");
    let (second, ..) = who::on(&context)?;
    println!("lost: {:?}; another process: {}", lost.kind(), first != second);
    println!("fetched again: {}", context.content_stats()?.bytes_in != before.bytes_in);
    Ok(())
}

/// The way is cut while the image is on it: all that wait are told, soon, and so is who comes later.
fn cut(config: &str, master: &Master, host: &str, script: &str) -> Result<(), Failed> {
    let context = master.connect(ssh(config, host))?;
    let calls: Vec<_> = (0..20).map(|_| who::start(&context)).collect();
    let image = std::fs::metadata("/proc/self/exe")?.len();
    let (began, mut sent) = (Instant::now(), 0);
    while sent == 0 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
        sent = master.context().content_stats()?.bytes_out;
    }
    println!("on its way: {} of it, not all: {}", sent > 0, sent < image);
    let began = Instant::now();
    std::process::Command::new("sh").args(["-c", script]).status()?;
    for call in calls {
        let end = call.wait_timeout(Duration::from_secs(60));
        println!(
            "ended: {}",
            end.map_or_else(|error| format!("{:?} {:?}", error.kind(), error.ran()), |_| "came".into())
        );
    }
    println!("all: after_ms {}", began.elapsed().as_millis());
    let late = who::on(&context).map(drop);
    println!("later: {:?}", late.map_err(|error| (error.kind().clone(), error.ran())));
    Ok(())
}

/// A worker that takes more memory than its control group has, and a context beside it.
fn hoards(config: &str, master: &Master, hops: &[String]) -> Result<(), Failed> {
    let (at, beside) = (reach(config, master, hops)?, reach(config, master, hops)?);
    let (first, other) = (who::on(&at)?.0, who::on(&beside)?.0);
    let (goes_on, same) = (until_cancelled::start(&beside), until_cancelled::start(&at));
    for (call, end) in
        [("hoard", hoard::on(&at, 1 << 10).map(drop)), ("call beside it", same.wait_timeout(Duration::from_secs(20)))]
    {
        match end {
            Ok(()) => println!("{call}: came"),
            Err(error) => println!("{call}: {:?} {:?}", error.kind(), error.ran()),
        }
    }
    at.ping()?;
    println!("the next: another process: {}", who::on(&at)?.0 != first);
    println!("beside: goes on: {}, same process: {}", !goes_on.is_done(), who::on(&beside)?.0 == other);
    Ok(())
}

/// The executable is replaced and removed while it runs: what is called is what runs, whenever its master was made.
fn replaced(config: &str, master: &Master, hops: &[String]) -> Result<(), Failed> {
    // A machine that this is none of: of its image there is but the name.
    let other = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86_64" };
    let place = std::env::current_exe()?;
    // As who installs another one does it; nothing was looked at before.
    let new = place.with_extension("new");
    std::fs::copy("/bin/true", &new)?;
    std::fs::rename(new, &place)?;
    for now in ["replaced", "removed"] {
        if now == "removed" {
            std::fs::remove_file(&place)?;
        }
        let later = Master::new()?;
        for (which, master) in [("before", master), ("since", &later)] {
            println!("{now}, {which}: called in {}", who::on(&reach(config, master, hops)?)?.2);
            let missing =
                master.images().find(&format!("{other}-unknown-linux-musl"), false).expect_err("there is none");
            println!("{now}, {which}: {missing}");
        }
    }
    Ok(())
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        [config, "economy", host, contexts, threads] => {
            economy(config, master, host, contexts.parse()?, threads.parse()?)
        }
        [config, "chain", ..] => chain(config, master, &arguments[2..]),
        [config, "preload", host, contexts] => preload(config, master, host, contexts.parse()?),
        [config, "crash", host] => crashes(config, master, host),
        [config, "logs", ..] => logs(config, master, &arguments[2..]),
        [config, "storm", host, records] => storms(config, master, host, records.parse()?),
        [config, "unterminated", host, bytes] => unterminated(config, master, host, bytes.parse()?),
        [config, "hold", ..] => hold(config, master, &arguments[2..]),
        [config, "lent", host, other] => lent(config, master, host, other),
        [config, "hoard", ..] => hoards(config, master, &arguments[2..]),
        [config, "replaced", ..] => replaced(config, master, &arguments[2..]),
        [config, "cut", host, script] => cut(config, master, host, script),
        _ => Err("see the head of the source".into()),
    };
    if let Err(error) = &result {
        // All of it, on one line.
        println!("failed: {error}");
    }
    result
}
