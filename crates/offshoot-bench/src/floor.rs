//! The physical limit: the least that any program of this kind has to pay. Bare processes over socket pairs and pipes,
//! `ssh host true`, one `write` per frame.
//!
//! Owns the floor's verbs and its hidden children. Must not know offshoot, the suite or anything outside the standard
//! library: `floor_build` also compiles this file on its own as a static program, so that the floor's processes are as small and
//! quick to start as processes can be. Single-threaded but for relays and pipelining, which use one thread for each direction.
//!
//! A frame is four bytes of length, little-endian, and the payload. An echo process returns bytes as they are.

use crate::proc;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

/// Bytes that a relay or echo moves at once.
const BUFFER: usize = 256 * 1024;
/// Bytes of one write of bulk data.
pub(crate) const CHUNK: usize = 128 * 1024;
/// What a pipe holds.
const PIPE: usize = 64 * 1024;
/// Calls made before the measured ones.
pub(crate) const WARM_UP: usize = 50;

/// Runs one verb, prints its JSON line.
pub(crate) fn run(args: &[OsString]) -> ExitCode {
    let text: Vec<&str> = args.iter().map(|a| a.to_str().unwrap_or("")).collect();
    match verb(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("limit: {e}");
            ExitCode::from(2)
        }
    }
}

fn verb(args: &[&str]) -> io::Result<()> {
    match *args {
        ["connect", variant] => connect(variant),
        ["connect_warm", variant, n] => connect_warm(variant, number(n)?),
        ["latency", variant, size, n] => latency(variant, number(size)?, number(n)?),
        ["pipeline" | "call_pipeline", variant, n] => pipeline(variant, number(n)?),
        // A function that does nothing is an echo of nothing.
        ["call", variant, n] => latency(variant, 0, number(n)?),
        ["bulk", variant, how, bytes] => bulk(variant, how, number(bytes)?),
        ["fanout", "local", n] => fanout(number(n)?),
        ["idle", "local"] => fanout(1),
        ["scale", "local", n] => scale(number(n)?),
        ["tree", "local", a, b, c] => tree(&[a, b, c]),
        ["true"] => Ok(()),
        ["echo"] => echo(&mut raw_stdin()?, &mut raw_stdout()?),
        ["relay", further] => relay(number(further)?),
        ["branch", ref spec @ ..] => branch(spec),
        ["source", bytes] => source(number(bytes)?),
        ["sink"] => sink(),
        _ => {
            println!("{{\"skip\": \"the limit has no such verb\"}}");
            Ok(())
        }
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("not a number: {text:?}")))
}

/// Splits `ssh3` into (`ssh`, 3).
fn hops(variant: &str) -> io::Result<(&str, usize)> {
    let kind = variant.trim_end_matches(|c: char| c.is_ascii_digit());
    let count = &variant[kind.len()..];
    Ok((kind, if count.is_empty() { 1 } else { number(count)? }))
}

/// This program with one of its verbs. The path is that of the program file, since the far end of an ssh must find it too.
fn own_argv(verb: &[&str]) -> io::Result<Vec<OsString>> {
    let mut argv = vec![std::env::current_exe()?.into_os_string(), "limit".into()];
    argv.extend(verb.iter().map(OsString::from));
    Ok(argv)
}

/// `ssh bench ssh bench2 … COMMAND`.
fn over_ssh(hops: usize, command: &[OsString]) -> Vec<OsString> {
    let ssh = std::env::var_os("BENCH_SSH_PATH").unwrap_or_else(|| "ssh".into());
    let config = std::env::var_os("BENCH_SSH_CONFIG");
    let mut argv = Vec::new();
    for hop in 1..=hops {
        argv.push(ssh.clone());
        if let Some(config) = &config {
            argv.extend([OsStr::new("-F").into(), config.clone()]);
        }
        argv.push(if hop == 1 { "bench".into() } else { format!("bench{hop}").into() });
    }
    argv.extend(command.iter().cloned());
    argv
}

fn command(argv: &[OsString]) -> Command {
    let mut c = Command::new(&argv[0]);
    c.args(&argv[1..]);
    c
}

/// Our end of a link.
enum Link {
    Socket(UnixStream),
    Pipes(PipeReader, PipeWriter),
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Socket(end) => end.read(buffer),
            Link::Pipes(end, _) => end.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Link::Socket(end) => end.write(bytes),
            Link::Pipes(_, end) => end.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A child whose stdin and stdout are one socket: the quickest to make, and frames of any size fit.
fn on_socket(argv: &[OsString]) -> io::Result<(Child, Link)> {
    let (ours, theirs) = UnixStream::pair()?;
    let input: OwnedFd = theirs.try_clone()?.into();
    let output: OwnedFd = theirs.into();
    let child = command(argv).stdin(Stdio::from(input)).stdout(Stdio::from(output)).spawn()?;
    Ok((child, Link::Socket(ours)))
}

/// A child whose stdin and stdout are pipes: a third of a socket's price for what fits into one.
fn on_pipes(argv: &[OsString]) -> io::Result<(Child, Link)> {
    let ((input, write), (read, output)) = (io::pipe()?, io::pipe()?);
    let child = command(argv).stdin(input).stdout(output).spawn()?;
    Ok((child, Link::Pipes(read, write)))
}

/// A link to a chain of echoing processes, `hops` local ones or one behind that many ssh logins; of the cheaper kind for frames
/// of `size` bytes.
fn chain(variant: &str, size: usize) -> io::Result<(Child, Link)> {
    let (kind, hops) = hops(variant)?;
    let argv = match kind {
        "local" if hops <= 1 => own_argv(&["echo"])?,
        "local" => own_argv(&["relay", &(hops - 1).to_string()])?,
        "ssh" => over_ssh(hops, &own_argv(&["echo"])?),
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, format!("no variant {variant:?}"))),
    };
    if size < PIPE / 2 { on_pipes(&argv) } else { on_socket(&argv) }
}

fn finish(mut child: Child, link: Link) -> io::Result<()> {
    drop(link);
    child.wait()?;
    Ok(())
}

fn round_trip(link: &mut Link, out: &[u8], back: &mut [u8]) -> io::Result<()> {
    link.write_all(out)?;
    link.read_exact(back)
}

fn connect(variant: &str) -> io::Result<()> {
    let (kind, hops) = hops(variant)?;
    let once = match kind {
        "ssh" => Some(over_ssh(hops, &["true".into()])),
        "sudo" => Some(["sudo", "-n", "-u", "root", "true"].map(OsString::from).to_vec()),
        _ => None,
    };
    let start = Instant::now();
    if let Some(argv) = once {
        let status = command(&argv).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{kind} true: {status}")));
        }
        println!("{{\"total_s\": {:.6}}}", start.elapsed().as_secs_f64());
        return Ok(());
    }
    let (child, mut link) = chain(variant, 0)?;
    let connected = start.elapsed();
    round_trip(&mut link, &[1], &mut [0])?;
    let called = start.elapsed();
    finish(child, link)?;
    let total = start.elapsed();
    println!(
        "{{\"connect_s\": {:.6}, \"first_call_s\": {:.6}, \"shutdown_s\": {:.6}, \"total_s\": {:.6}}}",
        connected.as_secs_f64(),
        (called - connected).as_secs_f64(),
        (total - called).as_secs_f64(),
        total.as_secs_f64()
    );
    Ok(())
}

/// N further links one after the other; over ssh each is a login of its own, as for `connect`.
fn connect_warm(variant: &str, n: usize) -> io::Result<()> {
    let mut times = Vec::with_capacity(n + 1);
    let mut open = Vec::with_capacity(n + 1);
    for _ in 0..=n {
        let start = Instant::now();
        let (child, mut link) = chain(variant, 0)?;
        round_trip(&mut link, &[1], &mut [0])?;
        times.push(start.elapsed().as_secs_f64());
        open.push((child, link));
    }
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let (min, max) = (times.first().copied().unwrap_or(first), times.last().copied().unwrap_or(first));
    println!(
        "{{\"first_s\": {first:.6}, \"next_p50_s\": {:.6}, \"next_min_s\": {min:.6}, \"next_max_s\": {max:.6}}}",
        median(&times).unwrap_or(first)
    );
    open.into_iter().try_for_each(|(child, link)| finish(child, link))
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// Seconds of `n` sequential echoes of a frame, in the order made.
fn echoes(link: &mut Link, size: usize, n: usize) -> io::Result<Vec<f64>> {
    let mut frame = vec![0x5a; size + 4];
    let length = u32::try_from(size).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    let mut back = vec![0; frame.len()];
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        round_trip(link, &frame, &mut back)?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

fn latency(variant: &str, size: usize, n: usize) -> io::Result<()> {
    let (child, mut link) = chain(variant, size)?;
    echoes(&mut link, size, WARM_UP)?;
    let pids = family();
    let before = proc::switches(&pids);
    let mut times = echoes(&mut link, size, n)?;
    let switches = proc::switches(&pids) - before;
    let mean = times.iter().sum::<f64>() / n as f64;
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((n as f64 * q) as usize).min(n - 1)] * 1e6;
    println!(
        "{{\"n\": {n}, \"p50_us\": {:.2}, \"p99_us\": {:.2}, \"min_us\": {:.2}, \"max_us\": {:.2}, \"mean_us\": {:.2}, \
         \"switches_per_call\": {:.3}}}",
        at(0.5),
        at(0.99),
        at(0.0),
        at(1.0),
        mean * 1e6,
        switches as f64 / n as f64
    );
    finish(child, link)
}

/// This process and all below it.
fn family() -> Vec<u32> {
    let own = std::process::id();
    let mut pids = proc::descendants(&[own]);
    pids.push(own);
    pids
}

/// One write for each frame: no batching comes to the limit's help.
fn pipeline(variant: &str, n: usize) -> io::Result<()> {
    let (child, mut link) = chain(variant, 0)?;
    round_trip(&mut link, &[0], &mut [0])?;
    let mut writer: Box<dyn Write + Send> = match &link {
        Link::Socket(end) => Box::new(end.try_clone()?),
        Link::Pipes(_, end) => Box::new(end.try_clone()?),
    };
    let start = Instant::now();
    let writing = std::thread::spawn(move || (0..n).try_for_each(|_| writer.write_all(&[0; 4])));
    let mut left = n * 4;
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        match link.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => left -= got.min(left),
        }
    }
    let wall = start.elapsed().as_secs_f64();
    writing.join().map_err(|_| io::Error::other("the writer panicked"))??;
    println!("{{\"n\": {n}, \"wall_s\": {wall:.6}, \"calls_per_s\": {:.1}}}", n as f64 / wall);
    finish(child, link)
}

/// A source and a sink with a pipe between; each further hop is one more relaying process.
fn bulk(variant: &str, how: &str, bytes: usize) -> io::Result<()> {
    let (kind, hops) = hops(variant)?;
    if kind != "local" || !matches!(how, "up" | "down" | "file") {
        println!("{{\"skip\": \"see openssh\"}}");
        return Ok(());
    }
    let start = Instant::now();
    let (mut children, mut input): (Vec<Child>, Stdio) = if how == "file" {
        let folder = std::env::var_os("BENCH_TMP").map_or_else(std::env::temp_dir, PathBuf::from);
        (Vec::new(), Stdio::from(File::open(folder.join(format!("bench-src-{bytes}")))?))
    } else {
        let (read, write) = io::pipe()?;
        let child = command(&own_argv(&["source", &bytes.to_string()])?).stdin(Stdio::null()).stdout(write).spawn()?;
        (vec![child], read.into())
    };
    let relays = if how == "file" { hops } else { hops - 1 };
    for _ in 0..relays {
        let (read, write) = io::pipe()?;
        children.push(command(&own_argv(&["echo"])?).stdin(input).stdout(write).spawn()?);
        input = read.into();
    }
    let sink = command(&own_argv(&["sink"])?).stdin(input).stdout(Stdio::piped()).spawn()?;
    let got = sink.wait_with_output()?.stdout;
    let wall = start.elapsed().as_secs_f64();
    for mut child in children {
        child.wait()?;
    }
    let got = String::from_utf8_lossy(&got).trim().parse::<usize>().unwrap_or(0);
    if got != bytes {
        return Err(io::Error::other(format!("the sink got {got} of {bytes} bytes")));
    }
    println!("{{\"bytes\": {got}, \"wall_s\": {wall:.6}, \"MiB_s\": {:.2}}}", got as f64 / wall / 1048576.0);
    Ok(())
}

fn fanout(n: usize) -> io::Result<()> {
    let start = Instant::now();
    let argv = own_argv(&["echo"])?;
    let mut open = (0..n).map(|_| on_socket(&argv)).collect::<io::Result<Vec<_>>>()?;
    let connected = start.elapsed();
    open.iter_mut().try_for_each(|(_, link)| link.write_all(&[1]))?;
    open.iter_mut().try_for_each(|(_, link)| link.read_exact(&mut [0]))?;
    let total = start.elapsed();
    println!(
        "{{\"ready\": true, \"connect_s\": {:.6}, \"first_call_s\": {:.6}, \"total_s\": {:.6}}}",
        connected.as_secs_f64(),
        (total - connected).as_secs_f64(),
        total.as_secs_f64()
    );
    hold()?;
    open.into_iter().try_for_each(|(child, link)| finish(child, link))
}

/// Whether the price of one more process, and of a call, stays flat while N are open.
fn scale(n: usize) -> io::Result<()> {
    let argv = own_argv(&["echo"])?;
    let mut open = Vec::with_capacity(n);
    let mut times = Vec::with_capacity(n);
    let mut alone = 0.0;
    for i in 0..n {
        let start = Instant::now();
        let (child, mut link) = on_socket(&argv)?;
        round_trip(&mut link, &[1], &mut [0])?;
        times.push(start.elapsed().as_secs_f64());
        if i == 0 {
            alone = call_median(&mut link)?;
        }
        open.push((child, link));
    }
    let among = match open.first_mut() {
        Some((_, link)) => call_median(link)?,
        None => alone,
    };
    let (early, late) = ends(&times);
    println!(
        "{{\"n\": {n}, \"early_p50_s\": {early:.6}, \"late_p50_s\": {late:.6}, \"alone_us\": {alone:.2}, \"among_us\": {among:.2}}}"
    );
    open.into_iter().try_for_each(|(child, link)| finish(child, link))
}

fn call_median(link: &mut Link) -> io::Result<f64> {
    echoes(link, 0, WARM_UP)?;
    let mut times = echoes(link, 0, 500)?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2] * 1e6)
}

/// Medians of the first and of the last tenth (at least one) of the times, the very first left out as a cold start.
pub(crate) fn ends(times: &[f64]) -> (f64, f64) {
    let times = times.get(1..).filter(|t| !t.is_empty()).unwrap_or(times);
    let part = (times.len() / 10).max(1).min(times.len());
    let middle = |slice: &[f64]| {
        let mut slice = slice.to_vec();
        slice.sort_by(f64::total_cmp);
        median(&slice).unwrap_or(0.0)
    };
    (middle(&times[..part]), middle(&times[times.len() - part..]))
}

fn tree(spec: &[&str]) -> io::Result<()> {
    let start = Instant::now();
    let _below = grow(spec)?;
    println!("{{\"ready\": true, \"total_s\": {:.6}}}", start.elapsed().as_secs_f64());
    hold()
}

/// Starts `spec[0]` children that each grow the rest; returns when all below are up.
fn grow(spec: &[&str]) -> io::Result<Vec<(Child, Link)>> {
    let Some((count, rest)) = spec.split_first() else {
        return Ok(Vec::new());
    };
    let argv = own_argv(&[&["branch"], rest].concat())?;
    let mut below = Vec::new();
    for _ in 0..number(count)? {
        let (child, mut link) = on_socket(&argv)?;
        link.read_exact(&mut [0])?;
        below.push((child, link));
    }
    Ok(below)
}

fn branch(spec: &[&str]) -> io::Result<()> {
    let _below = grow(spec)?;
    io::stdout().write_all(&[1])?;
    io::stdout().flush()?;
    hold()
}

/// Waits for a byte or the end of stdin.
fn hold() -> io::Result<()> {
    let _ = io::stdin().read(&mut [0])?;
    Ok(())
}

fn echo(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Passes bytes both ways between stdin/stdout and a chain of `further` processes. Pipes lie between the relays: a stream
/// socket would also wake the thread that reads it whenever the other side takes what was written.
fn relay(further: usize) -> io::Result<()> {
    let argv = if further <= 1 { own_argv(&["echo"])? } else { own_argv(&["relay", &(further - 1).to_string()])? };
    let (down, child_out) = io::pipe()?;
    let (child_in, mut up) = io::pipe()?;
    let mut child = command(&argv).stdin(child_in).stdout(child_out).spawn()?;
    let (mut down, mut output, mut input) = (down, raw_stdout()?, raw_stdin()?);
    let downwards = std::thread::spawn(move || echo(&mut down, &mut output));
    echo(&mut input, &mut up)?;
    drop(up);
    child.wait()?;
    downwards.join().map_err(|_| io::Error::other("the relay's reader panicked"))?
}

fn raw_stdin() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Standard output without the standard library's line buffer.
fn raw_stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn source(bytes: usize) -> io::Result<()> {
    let chunk = noise(CHUNK);
    let mut out = raw_stdout()?;
    let mut left = bytes;
    while left > 0 {
        let n = left.min(chunk.len());
        out.write_all(&chunk[..n])?;
        left -= n;
    }
    Ok(())
}

/// Bytes that no compression gains on.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x1357_9bdf_0246_8ace_u64;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// A shell's words for a program that writes so many zero bytes, a chunk at a time: `head -c` writes 4 KiB at a time, and
/// that would be most of what is measured. It writes the rest.
pub(crate) fn zeros(bytes: usize) -> String {
    let (chunks, rest) = (bytes / CHUNK, bytes % CHUNK);
    format!("dd if=/dev/zero bs={CHUNK} count={chunks} 2>/dev/null; head -c {rest} /dev/zero")
}

fn sink() -> io::Result<()> {
    let mut input = raw_stdin()?;
    let mut buffer = vec![0; BUFFER];
    let mut total = 0_usize;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => total += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    println!("{total}");
    Ok(())
}
