//! `offshoot-short SEED REPORT PROGRAM ARGUMENTS…`: runs a program, and all that it starts, with reads and writes that do less than they were asked for.
//!
//! Owns the tracing: at the entry of a system call that moves bytes the count is made smaller, from a seed, by way of ptrace; behind it the registers are what they were.
//! Whoever waits for the edge of a descriptor may take a short count for the last there is until the poller tells again (epoll(7)); so it is told again:
//! the thread makes an `epoll_ctl` that changes nothing. What was cut goes to the report, a line `PROGRAM KIND CALL COUNT` each. Ends when all whom it traces
//! have, with the program's own status. If it is killed, so are they. Signals pass, but for a stop, which does not stop who is traced.
//!
//! Must not know what is traced. One thread.

#![deny(unsafe_code)]

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod cut;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(dead_code, reason = "shared with the soak, which needs the rest")]
#[path = "../offshoot-soak/rng.rs"]
mod rng;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "what a tracer asks of the kernel has no safe form in the standard library")]
mod trace;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn run(seed: &str, report: &str, program: &[String]) -> std::io::Result<u8> {
    let seed = seed.parse().map_err(std::io::Error::other)?;
    let [program, arguments @ ..] = program else {
        return Err(std::io::Error::other("no program"));
    };
    let mut command = std::process::Command::new(program);
    let (status, report_text) = tracer::run(command.args(arguments), seed)?;
    std::fs::write(report, report_text)?;
    Ok(status)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn run(_: &str, _: &str, _: &[String]) -> std::io::Result<u8> {
    Err(std::io::Error::other("registers are known for x86_64 alone"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, report, program @ ..] = &arguments[..] else {
        eprintln!("usage: offshoot-short SEED REPORT PROGRAM ARGUMENTS…");
        return ExitCode::from(125);
    };
    match run(seed, report, program) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("offshoot-short: {error}");
            ExitCode::from(125)
        }
    }
}
