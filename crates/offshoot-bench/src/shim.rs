//! A stand-in for `ssh` that counts: it starts the real client, passes stdin and stdout on, and writes the size of the command
//! and each transfer with its time to the file that `BENCH_SHIM_LOG` names.
//!
//! Owns nothing but its log. Three threads: one for each direction and one that waits for the client.

use crate::contract::monotonic;
use anyhow::{Context as _, Result};
use serde_json::json;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

/// One transfer: when, and how many bytes.
type Events = Arc<Mutex<Vec<(f64, usize)>>>;

/// Runs the real ssh with these arguments.
pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let real = std::env::var_os("BENCH_REAL_SSH").context("BENCH_REAL_SSH is not set")?;
    let log = std::env::var_os("BENCH_SHIM_LOG").context("BENCH_SHIM_LOG is not set")?;
    let mut child = Command::new(real).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (to, mut from) = (child.stdin.take(), child.stdout.take().context("stdout was piped")?);
    let (up, down) = (Events::default(), Events::default());
    let count_up = up.clone();
    // Detached: it ends with this process, once the client has ended.
    std::thread::spawn(move || {
        if let Some(mut to) = to {
            pass(&mut std::io::stdin().lock(), &mut to, &count_up);
        }
    });
    pass(&mut from, &mut std::io::stdout().lock(), &down);
    let status = child.wait()?;
    let events = |e: &Events| e.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |e| e.clone());
    let line = json!({
        "argv_bytes": args.iter().map(|a| a.as_bytes().len() + 1).sum::<usize>(),
        "command_bytes": remote_command(args),
        "up": events(&up),
        "down": events(&down),
    });
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
    writeln!(file, "{line}")?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(255)))
}

/// Bytes of what follows the host, as ssh joins it.
fn remote_command(args: &[OsString]) -> usize {
    let host = args.iter().position(|a| a == "bench").map_or(args.len(), |i| i + 1);
    args[host..].iter().map(|a| a.as_bytes().len() + 1).sum::<usize>().saturating_sub(1)
}

fn pass(from: &mut impl Read, to: &mut impl Write, events: &Events) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            return;
        }
        if let Ok(mut events) = events.lock() {
            events.push((monotonic(), n));
        }
        if to.write_all(&buffer[..n]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remote_command_is_what_follows_the_host() {
        let args = ["-o", "X=1", "bench", "exec", "/bin/sh"].map(OsString::from);
        assert_eq!(remote_command(&args), "exec /bin/sh".len());
        assert_eq!(remote_command(&args[..3]), 0);
    }
}
