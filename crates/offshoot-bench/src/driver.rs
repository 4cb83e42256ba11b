//! offshoot itself, measured through its public interface: a call is the built-in echo, which the agent answers.
//!
//! Runs on the main thread; `beside` has one more. Remote functions are measured by a program of their own, `offshoot-bench-calls`: one that has
//! any starts its local contexts from itself.

use crate::contract::{self, Variant, emit, number, skip};
use crate::floor::{CHUNK, WARM_UP, ends, noise, zeros};
use crate::proc;
use crate::ways::{add, add_fields, chain, family, known, ssh};
use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use offshoot::methods::Local;
use offshoot::{Context, Master, Pending, Process, Stdio};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A larger payload travels as several calls made together, since a call fits into a frame.
const PIECE: usize = 32 * 1024;

/// Runs one verb of the contract; false when there is no such verb.
pub(crate) fn run(args: &[&str]) -> Result<bool> {
    match *args {
        ["connect", variant] => connect(Variant::parse(variant)?)?,
        ["connect_warm", variant, n] => connect_warm(Variant::parse(variant)?, number(n)?)?,
        ["latency", variant, size, n] => latency(Variant::parse(variant)?, number(size)?, number(n)?)?,
        ["pipeline", variant, n] => pipeline(Variant::parse(variant)?, number(n)?)?,
        ["bulk", variant, how, bytes] => bulk(Variant::parse(variant)?, how, number(bytes)?)?,
        ["beside", variant, bytes] => beside(Variant::parse(variant)?, number(bytes)?)?,
        ["fanout", kind, n] => fanout(Variant::parse(kind)?, number(n)?)?,
        ["idle", kind] => fanout(Variant::parse(kind)?, 1)?,
        ["scale", kind, n] => scale(Variant::parse(kind)?, number(n)?)?,
        ["tree", kind, a, b, c] => tree(Variant::parse(kind)?, &[number(a)?, number(b)?, number(c)?])?,
        ["modules", ..] => skip("a program has no modules to forward"),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sends the data there and back.
fn call(context: &Context, data: &[u8]) -> Result<()> {
    let got = if data.len() <= PIECE {
        context.echo(data)?.len()
    } else {
        let pending = data.chunks(PIECE).map(|piece| Ok(context.start_echo(piece)?)).collect::<Result<Vec<_>>>()?;
        pending.into_iter().try_fold(0, |sum, p| Ok::<_, anyhow::Error>(sum + p.wait()?.len()))?
    };
    ensure!(got == data.len(), "{got} of {} bytes came back", data.len());
    Ok(())
}

fn calls(context: &Context, data: &[u8], n: usize) -> Result<Vec<Duration>> {
    (0..n)
        .map(|_| {
            let start = Instant::now();
            call(context, data)?;
            Ok(start.elapsed())
        })
        .collect()
}

fn connect(variant: Variant<'_>) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let start = Instant::now();
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    let (connected, mono_connected) = (start.elapsed(), contract::monotonic());
    call(&context, &[])?;
    let (called, mono_called) = (start.elapsed(), contract::monotonic());
    master.shutdown();
    let total = start.elapsed();
    emit(&json!({
        "connect_s": connected.as_secs_f64(),
        "first_call_s": (called - connected).as_secs_f64(),
        "shutdown_s": (total - called).as_secs_f64(),
        "total_s": total.as_secs_f64(),
        "mono_connected": mono_connected,
        "mono_called": mono_called,
    }));
    Ok(())
}

/// N further contexts below the same parent, one after the other.
fn connect_warm(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let parent = match variant.hops {
        1 => master.context().clone(),
        hops => chain(&master, Variant { hops: hops - 1, ..variant })?,
    };
    let mut times = Vec::with_capacity(n + 1);
    let mut cpu = 0;
    for i in 0..=n {
        if i == 1 {
            cpu = proc::cpu_ns(&[std::process::id()]);
        }
        let start = Instant::now();
        add(&parent, variant.kind, variant.hops)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let cpu = (proc::cpu_ns(&[std::process::id()]) - cpu) as f64 / 1e9;
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    emit(&json!({
        "first_s": first,
        "next_p50_s": times.get(times.len() / 2),
        "next_min_s": times.first(),
        "next_max_s": times.last(),
        "master_cpu_per_next_s": cpu / n.max(1) as f64,
    }));
    master.shutdown();
    Ok(())
}

fn latency(variant: Variant<'_>, size: usize, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    let data = noise(size);
    calls(&context, &data, WARM_UP)?;
    let pids = family();
    let (before, cpu) = (proc::switches(&pids), proc::cpu_ns(&[std::process::id()]));
    let times = calls(&context, &data, n)?;
    let switches = proc::switches(&pids) - before;
    let cpu = proc::cpu_ns(&[std::process::id()]) - cpu;
    let mut line = contract::latency(times);
    add_fields(
        &mut line,
        json!({
            "switches_per_call": switches as f64 / n.max(1) as f64,
            "master_cpu_us_per_call": cpu as f64 / 1e3 / n.max(1) as f64,
        }),
    );
    emit(&line);
    master.shutdown();
    Ok(())
}

fn pipeline(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    call(&context, &[])?;
    let start = Instant::now();
    let pending = (0..n).map(|_| context.start_echo(&[])).collect::<Result<Vec<Pending<Bytes>>, _>>()?;
    let issued = start.elapsed().as_secs_f64();
    pending.into_iter().try_for_each(|p| p.wait().map(drop))?;
    let wall = start.elapsed().as_secs_f64();
    emit(&json!({ "n": n, "wall_s": wall, "issue_s": issued, "calls_per_s": n as f64 / wall }));
    master.shutdown();
    Ok(())
}

/// A process there that takes what is sent, or sends that many bytes.
fn far_end(context: &Context, how: &str, bytes: usize) -> Result<Process> {
    let command = context.command("sh").arg("-c");
    Ok(match how {
        "up" => command.arg("exec cat >/dev/null").stdin(Stdio::Piped).stdout(Stdio::Null).spawn()?,
        _ => command.arg(zeros(bytes)).stdin(Stdio::Null).stdout(Stdio::Piped).spawn()?,
    })
}

fn send(mut process: Process, bytes: usize) -> Result<usize> {
    let mut input = process.stdin.take().context("stdin was piped")?;
    let chunk = Bytes::from(noise(CHUNK));
    let mut sent = 0;
    while sent < bytes {
        let n = chunk.len().min(bytes - sent);
        input.write_bytes(chunk.slice(..n))?;
        sent += n;
    }
    input.finish();
    let status = process.wait()?;
    ensure!(status.success(), "the receiving process: {status}");
    Ok(sent)
}

fn receive(mut process: Process) -> Result<usize> {
    let mut output = process.stdout.take().context("stdout was piped")?;
    let mut got = 0;
    while let Some(chunk) = output.chunk()? {
        got += chunk.len();
    }
    let status = process.wait()?;
    ensure!(status.success(), "the sending process: {status}");
    Ok(got)
}

fn bulk(variant: Variant<'_>, how: &str, bytes: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    if !matches!(how, "up" | "down") {
        skip("files come with the files service");
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    call(&context, &[])?;
    let start = Instant::now();
    let process = far_end(&context, how, bytes)?;
    let got = if how == "up" { send(process, bytes)? } else { receive(process)? };
    let wall = start.elapsed();
    ensure!(got == bytes, "{got} of {bytes} bytes");
    let mut line = contract::transfer(got, wall);
    let peak = |pid: &u32| proc::kib(*pid, "status", "VmHWM");
    add_fields(
        &mut line,
        json!({
            "largest_kib": family().iter().map(peak).max(),
            "master_maxrss_kib": peak(&std::process::id()),
        }),
    );
    emit(&line);
    master.shutdown();
    Ok(())
}

/// Calls while a stream keeps the same link busy.
fn beside(variant: Variant<'_>, bytes: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    calls(&context, &[], WARM_UP)?;
    let process = far_end(&context, "down", bytes)?;
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let (received, times) = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let received = receive(process);
            done.store(true, Ordering::Release);
            (received, start.elapsed())
        });
        let mut times = Vec::new();
        while !done.load(Ordering::Acquire) {
            times.append(&mut calls(&context, &[], 1)?);
            // Room for the stream: calls back to back would be what is measured.
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok::<_, anyhow::Error>((receiving.join().map_err(|_| anyhow!("the receiver panicked"))?, times))
    })?;
    let (got, wall) = (received.0?, received.1);
    let mut line = contract::latency(times);
    add_fields(&mut line, contract::transfer(got, wall));
    emit(&line);
    master.shutdown();
    Ok(())
}

fn fanout(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let start = Instant::now();
    let master = Master::new()?;
    let connected = match variant.kind {
        "local" => master.context().connect_all((0..n).map(|_| Local::new())),
        _ => master.context().connect_all((0..n).map(|_| ssh(1))),
    };
    let contexts = connected.into_iter().collect::<Result<Vec<_>, _>>()?;
    let connect = start.elapsed();
    let pending = contexts.iter().map(|c| c.start_echo(&[])).collect::<Result<Vec<_>, _>>()?;
    pending.into_iter().try_for_each(|p| p.wait().map(drop))?;
    let total = start.elapsed();
    hold(
        master,
        json!({
            "connect_s": connect.as_secs_f64(),
            "first_call_s": (total - connect).as_secs_f64(),
            "total_s": total.as_secs_f64(),
        }),
    )
}

/// Whether the price of one more context, and of a call, stays flat while N are open.
fn scale(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let mut times = Vec::with_capacity(n);
    let mut first: Option<(Context, f64)> = None;
    for _ in 0..n {
        let start = Instant::now();
        let context = add(master.context(), variant.kind, 1)?;
        call(&context, &[])?;
        times.push(start.elapsed().as_secs_f64());
        if first.is_none() {
            let alone = call_median(&context)?;
            first = Some((context, alone));
        }
    }
    let (context, alone) = first.context("no contexts")?;
    let among = call_median(&context)?;
    let (early, late) = ends(&times);
    emit(&json!({ "n": n, "early_p50_s": early, "late_p50_s": late, "alone_us": alone, "among_us": among }));
    master.shutdown();
    Ok(())
}

fn call_median(context: &Context) -> Result<f64> {
    calls(context, &[], WARM_UP)?;
    Ok(contract::median(calls(context, &[], 500)?.iter().map(Duration::as_secs_f64).collect()) * 1e6)
}

fn tree(variant: Variant<'_>, spec: &[usize]) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let start = Instant::now();
    let master = Master::new()?;
    grow(master.context(), variant.kind, 1, spec)?;
    hold(master, json!({ "total_s": start.elapsed().as_secs_f64() }))
}

fn grow(parent: &Context, kind: &str, hop: usize, spec: &[usize]) -> Result<()> {
    let Some((count, rest)) = spec.split_first() else { return Ok(()) };
    for _ in 0..*count {
        let context = add(parent, kind, hop)?;
        call(&context, &[])?;
        grow(&context, kind, hop + 1, rest)?;
    }
    Ok(())
}

/// Says ready, waits for the runner, shuts down.
fn hold(master: Master, fields: Value) -> Result<()> {
    let mut line = json!({ "ready": true });
    add_fields(&mut line, fields);
    emit(&line);
    contract::hold();
    let start = Instant::now();
    master.shutdown();
    emit(&json!({ "shutdown_s": start.elapsed().as_secs_f64() }));
    Ok(())
}
