//! The anchor for plain OpenSSH: a shared connection, `ssh host true`, `ssh host cat`.
//!
//! Owns its control socket, below `BENCH_STATE`. Must not know offshoot.

use crate::contract::{self, Variant, emit, number, skip};
use crate::floor::{CHUNK, noise, zeros};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Sessions at one time over one connection, and logins started at one time.
const SESSIONS: usize = 16;
const LOGINS: usize = 32;
/// A process per call takes milliseconds: more calls than these tell nothing.
const CALLS: usize = 40;
const PIPELINED: usize = 200;

/// Runs one verb of the contract.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    match *args {
        ["connect", variant] => connect(Variant::parse(variant)?),
        ["latency", "ssh", size, n] => latency(number(size)?, number(n)?),
        ["pipeline", "ssh", n] => pipeline(number(n)?),
        ["bulk", "ssh", how @ ("up" | "down"), bytes] => bulk(how, number(bytes)?),
        ["first", "ssh", bytes] => first(number(bytes)?),
        ["fanout", "ssh", n] => fanout(number(n)?),
        ["idle", "ssh"] => fanout(1),
        _ => {
            skip("OpenSSH has no such thing");
            Ok(())
        }
    }
}

fn ssh() -> Vec<OsString> {
    let mut argv = vec![std::env::var_os("BENCH_SSH_PATH").unwrap_or_else(|| "ssh".into())];
    if let Some(config) = std::env::var_os("BENCH_SSH_CONFIG") {
        argv.extend(["-F".into(), config]);
    }
    argv
}

fn command(argv: &[OsString]) -> Command {
    let mut c = Command::new(&argv[0]);
    c.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    c
}

fn done(mut command: Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?}: {status}", command.get_program());
    Ok(())
}

/// One authenticated connection that further sessions share; ended when dropped.
struct Shared {
    socket: PathBuf,
}

impl Shared {
    fn open() -> Result<Self> {
        let folder = std::env::var_os("BENCH_STATE").map_or_else(std::env::temp_dir, PathBuf::from);
        let shared = Self { socket: folder.join(format!("cm-{}", std::process::id())) };
        let mut up = command(&ssh());
        up.args(["-M", "-f", "-N", "-o", "ControlPersist=600", "-S"])
            .arg(&shared.socket)
            .arg("bench")
            .stderr(Stdio::null());
        done(up)?;
        Ok(shared)
    }

    fn session(&self) -> Command {
        let mut c = command(&ssh());
        c.arg("-S").arg(&self.socket).arg("bench");
        c
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut down = command(&ssh());
        down.arg("-S").arg(&self.socket).args(["-O", "exit", "bench"]).stderr(Stdio::null());
        if let Err(e) = done(down) {
            eprintln!("openssh: the shared connection did not end: {e:#}");
        }
    }
}

fn connect(variant: Variant<'_>) -> Result<()> {
    if variant.kind != "ssh" {
        skip("OpenSSH connects by ssh");
        return Ok(());
    }
    let start = Instant::now();
    if variant.hops > 1 {
        let mut argv = Vec::new();
        for hop in 1..=variant.hops {
            argv.extend(ssh());
            argv.push(contract::host(hop).into());
        }
        argv.push("true".into());
        done(command(&argv))?;
        emit(&json!({ "total_s": start.elapsed().as_secs_f64() }));
        return Ok(());
    }
    let shared = Shared::open()?;
    let connected = start.elapsed();
    let mut call = shared.session();
    call.arg("true");
    done(call)?;
    let called = start.elapsed();
    drop(shared);
    let total = start.elapsed();
    emit(&json!({
        "connect_s": connected.as_secs_f64(),
        "first_call_s": (called - connected).as_secs_f64(),
        "shutdown_s": (total - called).as_secs_f64(),
        "total_s": total.as_secs_f64(),
    }));
    Ok(())
}

fn latency(size: usize, n: usize) -> Result<()> {
    let shared = Shared::open()?;
    let data = noise(size);
    let mut times = Vec::new();
    for i in 0..n.min(CALLS) + 3 {
        let start = Instant::now();
        let mut call = shared.session();
        call.arg(if size == 0 { "true" } else { "cat" }).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = call.spawn()?;
        let mut input = child.stdin.take().context("stdin was piped")?;
        let sending = {
            let data = data.clone();
            std::thread::spawn(move || input.write_all(&data))
        };
        let output = child.wait_with_output()?;
        sending.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        ensure!(output.status.success() && output.stdout == data, "the echo differs");
        if i >= 3 {
            times.push(start.elapsed());
        }
    }
    emit(&contract::latency(times));
    Ok(())
}

fn pipeline(n: usize) -> Result<()> {
    let shared = Shared::open()?;
    let n = n.min(PIPELINED);
    let start = Instant::now();
    let mut open: VecDeque<Child> = VecDeque::new();
    for _ in 0..n {
        if open.len() >= SESSIONS
            && let Some(mut oldest) = open.pop_front()
        {
            oldest.wait()?;
        }
        open.push_back(shared.session().arg("true").spawn()?);
    }
    open.iter_mut().try_for_each(|c| c.wait().map(drop))?;
    let wall = start.elapsed().as_secs_f64();
    emit(&json!({ "n": n, "wall_s": wall, "calls_per_s": n as f64 / wall }));
    Ok(())
}

fn bulk(how: &str, bytes: usize) -> Result<()> {
    let shared = Shared::open()?;
    let start;
    let mut got = 0;
    if how == "up" {
        start = Instant::now();
        let mut cat = shared.session().arg("cat >/dev/null").stdin(Stdio::piped()).spawn()?;
        let mut input = cat.stdin.take().context("stdin was piped")?;
        let chunk = noise(CHUNK);
        while got < bytes {
            let n = chunk.len().min(bytes - got);
            input.write_all(&chunk[..n])?;
            got += n;
        }
        drop(input);
        ensure!(cat.wait()?.success(), "cat failed");
    } else {
        start = Instant::now();
        let source = zeros(bytes);
        let mut cat = shared.session().arg(source).stdout(Stdio::piped()).spawn()?;
        let mut output = cat.stdout.take().context("stdout was piped")?;
        let mut buffer = vec![0; 2 * CHUNK];
        loop {
            match output.read(&mut buffer)? {
                0 => break,
                n => got += n,
            }
        }
        ensure!(cat.wait()?.success() && got == bytes, "{got} of {bytes} bytes came");
    }
    emit(&contract::transfer(got, start.elapsed()));
    Ok(())
}

/// What a first call has to bring to the host, by a session of its own over an open connection.
fn first(bytes: usize) -> Result<()> {
    let shared = Shared::open()?;
    let mut once = shared.session();
    once.arg("true");
    done(once)?;
    let data = noise(bytes);
    let start = Instant::now();
    let mut cat = shared.session().arg("cat >/dev/null").stdin(Stdio::piped()).spawn()?;
    cat.stdin.take().context("stdin was piped")?.write_all(&data)?;
    ensure!(cat.wait()?.success(), "cat failed");
    let took = start.elapsed().as_secs_f64();
    emit(&json!({ "first_s": took, "image_bytes": bytes, "MiB_s": bytes as f64 / took / 1_048_576.0 }));
    Ok(())
}

/// N logins of their own, no sharing.
fn fanout(n: usize) -> Result<()> {
    let start = Instant::now();
    let mut open = Vec::with_capacity(n);
    while open.len() < n {
        let mut batch = (0..LOGINS.min(n - open.len()))
            .map(|_| {
                let mut c = command(&ssh());
                let mut child = c.args(["bench", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                child.stdin.as_mut().context("stdin was piped")?.write_all(b"x")?;
                Ok(child)
            })
            .collect::<Result<Vec<_>>>()?;
        for child in &mut batch {
            child.stdout.as_mut().context("stdout was piped")?.read_exact(&mut [0])?;
        }
        open.append(&mut batch);
    }
    emit(&json!({ "ready": true, "total_s": start.elapsed().as_secs_f64() }));
    contract::hold();
    for mut child in open {
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(())
}
