//! offshoot's remote functions, measured through the public interface: the program whose functions they are.
//!
//! Owns the verbs of typed calls. A program of its own, since one with remote functions starts its local contexts from itself, and since it is the
//! image that travels: built static, and as long as the runner made it. Runs on the main thread; `economy` has as many more as it is told.

#![deny(unsafe_code)]

#[allow(dead_code, reason = "shared with the driver, which needs the rest")]
#[path = "../contract.rs"]
mod contract;
#[allow(dead_code, reason = "shared with the driver, which needs the rest")]
#[path = "../proc.rs"]
mod proc;
#[path = "../ways.rs"]
mod ways;

use anyhow::{Context as _, Result, anyhow, ensure};
use contract::{Variant, emit, number, skip};
use offshoot::methods::Local;
use offshoot::{Context, Master};
use serde_json::json;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use ways::{add_fields, chain, family, known, ssh};

/// Calls made before the measured ones: as many as of the other anchors.
const WARM_UP: usize = 50;

/// A function that does nothing: what a call costs is all that is seen.
#[offshoot::remote]
fn nothing() {}

fn main() -> ExitCode {
    // First: a context may be this program once more.
    offshoot::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offshoot-bench-calls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match *words {
        ["call", variant, n] => call(Variant::parse(variant)?, number(n)?),
        ["call_pipeline", variant, n] => pipeline(Variant::parse(variant)?, number(n)?),
        ["first", variant, bytes] => first(Variant::parse(variant)?, number(bytes)?),
        ["economy", "ssh", contexts, threads, bytes] => economy(number(contexts)?, number(threads)?, number(bytes)?),
        _ => {
            skip("no such verb");
            Ok(())
        }
    }
}

/// Calls one after the other.
fn call(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    for _ in 0..WARM_UP {
        nothing::on(&context)?;
    }
    let pids = family();
    let (before, cpu) = (proc::switches(&pids), proc::cpu_ns(&pids));
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        nothing::on(&context)?;
        times.push(start.elapsed());
    }
    let (switches, cpu) = (proc::switches(&pids) - before, proc::cpu_ns(&pids) - cpu);
    let mut line = contract::latency(times);
    let calls = n.max(1) as f64;
    add_fields(
        &mut line,
        json!({ "switches_per_call": switches as f64 / calls, "cpu_us_per_call": cpu as f64 / 1e3 / calls }),
    );
    emit(&line);
    master.shutdown();
    Ok(())
}

/// Calls that are all started before the first value is waited for.
fn pipeline(variant: Variant<'_>, n: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    nothing::on(&context)?;
    let start = Instant::now();
    let pending: Vec<_> = (0..n).map(|_| nothing::start(&context)).collect();
    let issued = start.elapsed().as_secs_f64();
    pending.into_iter().try_for_each(offshoot::PendingCall::wait)?;
    let wall = start.elapsed().as_secs_f64();
    emit(&json!({ "n": n, "wall_s": wall, "issue_s": issued, "calls_per_s": n as f64 / wall }));
    master.shutdown();
    Ok(())
}

/// This program is its own image.
fn is_as_long(bytes: usize) -> Result<()> {
    let image = std::fs::metadata("/proc/self/exe").context("this program's file")?.len();
    ensure!(image == bytes as u64, "the program has {image} bytes, expected {bytes}");
    Ok(())
}

/// The first call to a context that is up, and the second one.
fn first(variant: Variant<'_>, bytes: usize) -> Result<()> {
    if !known(variant) {
        return Ok(());
    }
    is_as_long(bytes)?;
    let master = Master::new()?;
    let context = chain(&master, variant)?;
    context.echo(&[])?;
    let came = |context: &Context| Ok::<_, offshoot::Error>(context.info()?.link_bytes.0);
    let before = came(&context)?;
    let start = Instant::now();
    nothing::on(&context)?;
    let first = start.elapsed().as_secs_f64();
    nothing::on(&context)?;
    let second = start.elapsed().as_secs_f64() - first;
    let sent = came(&context)? - before;
    emit(&json!({
        "first_s": first,
        "second_s": second,
        "image_bytes": bytes,
        "sent_bytes": sent,
        "MiB_s": bytes as f64 / first / 1_048_576.0,
    }));
    master.shutdown();
    Ok(())
}

/// Contexts behind one host, all called at once by so many threads.
fn economy(contexts: usize, threads: usize, bytes: usize) -> Result<()> {
    is_as_long(bytes)?;
    let master = Master::new()?;
    let bastion = master.connect(ssh(1))?;
    let behind = bastion.connect_all((0..contexts).map(|_| Local::new())).into_iter().collect::<Result<Vec<_>, _>>()?;
    for context in &behind {
        context.echo(&[])?;
    }
    let (mono_connected, start, next) = (contract::monotonic(), Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(context) = behind.get(next.fetch_add(1, Ordering::Relaxed)) {
                        nothing::on(context)?;
                    }
                    Ok::<_, offshoot::Error>(())
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| {
            caller.join().map_err(|_| anyhow!("a caller panicked"))?.map_err(anyhow::Error::from)
        })
    })?;
    let (calls, mono_called) = (start.elapsed().as_secs_f64(), contract::monotonic());
    let stats = bastion.content_stats()?;
    emit(&json!({
        "calls_s": calls,
        "mono_connected": mono_connected,
        "mono_called": mono_called,
        "asked": stats.asked,
        "image_bytes_in": stats.bytes_in,
        "image_bytes_out": stats.bytes_out,
    }));
    master.shutdown();
    Ok(())
}
