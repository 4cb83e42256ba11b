//! Running other programs: their output passed on as it comes and kept for reading, a deadline on each.
//!
//! Owns the child while it runs; two short-lived threads copy its output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cargo;

/// How a program that was run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Its status.
    pub status: ExitStatus,
    /// Everything it printed to stdout and stderr, line by line as it came.
    pub output: String,
    /// Whether it was ended because its time was up.
    pub timed_out: bool,
}

impl Outcome {
    /// Whether it ended by itself and well.
    pub fn success(&self) -> bool {
        self.status.success() && !self.timed_out
    }
}

/// A cargo command in the folder of the workspace, free of the settings of whoever called us, for output that is read.
pub fn cargo_in(root: &std::path::Path) -> Command {
    let mut command = cargo_at(root);
    command.env("CARGO_TERM_COLOR", "never");
    command
}

/// The same, for output that goes where ours does.
pub fn cargo_at(folder: &std::path::Path) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(folder).stdin(Stdio::null());
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUST_RECURSION_COUNT"] {
        command.env_remove(name);
    }
    command
}

/// The output that is kept of one run at most: 16 MiB, and the rest is only passed on. A test run prints far less.
const KEPT: usize = 16 << 20;

/// How long a program that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Runs `command`, passes its output on when `show` is set, and ends it after `limit`.
///
/// # Errors
///
/// When the program cannot be started.
pub fn run(command: &mut Command, limit: Duration, show: bool) -> Result<Outcome> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let (lines, kept) = std::sync::mpsc::channel::<Vec<u8>>();
    let mut copies = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let lines = lines.clone();
        copies.push(thread::spawn(move || copy(stdout, std::io::stdout(), show, &lines)));
    }
    if let Some(stderr) = child.stderr.take() {
        copies.push(thread::spawn(move || copy(stderr, std::io::stderr(), show, &lines)));
    }
    let (status, timed_out) = wait(&mut child, limit)?;
    // What the program left behind may hold its end of the pipes: the copies are given a moment, not for ever.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until && !copies.iter().all(thread::JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(5));
    }
    let mut output = Vec::new();
    for line in kept.try_iter() {
        if output.len() + line.len() <= KEPT {
            output.extend(line);
        }
    }
    Ok(Outcome { status, output: String::from_utf8_lossy(&output).into_owned(), timed_out })
}

fn copy(from: impl Read, mut to: impl Write, show: bool, lines: &std::sync::mpsc::Sender<Vec<u8>>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if show {
            // A closed terminal must not end the run.
            let _ = to.write_all(&line);
            let _ = to.flush();
        }
        if lines.send(std::mem::take(&mut line)).is_err() {
            break;
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<(ExitStatus, bool)> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if Instant::now() >= deadline {
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    // TERM first: a test runner then ends the tests that it started.
    let _ = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &child.id().to_string()]).status();
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok((status, true));
        }
        thread::sleep(Duration::from_millis(50));
    }
    child.kill()?;
    Ok((child.wait()?, true))
}

/// Runs a command to its end with its output shown.
///
/// # Errors
///
/// When it cannot be started, or ends with another status than 0.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command and gives back what it printed on stdout.
///
/// # Errors
///
/// When it cannot be started, or ends with another status than 0; the error has its stderr's last line.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.trim_end().lines().next_back().unwrap_or("no output");
        bail!("{} failed: {last}", line(command));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Whether a program of that name is on the path.
pub fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// `1.2 s`, `3 min 04 s`.
pub fn duration(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_both_streams_is_kept_with_the_status() {
        let outcome =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10), false)
                .unwrap();
        assert_eq!(outcome.status.code(), Some(3));
        assert!(outcome.output.contains("out\n") && outcome.output.contains("err\n"));
        assert!(!outcome.success() && !outcome.timed_out);
    }

    #[test]
    fn a_program_past_its_limit_is_ended_and_says_so() {
        let start = Instant::now();
        let outcome = run(Command::new("sleep").arg("60"), Duration::from_millis(100), false).unwrap();
        assert!(outcome.timed_out && !outcome.success());
        assert!(start.elapsed() < GRACE, "took {:?}", start.elapsed());
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_the_run() {
        let start = Instant::now();
        let outcome =
            run(Command::new("sh").args(["-c", "sleep 20 & echo $!"]), Duration::from_secs(10), false).unwrap();
        assert!(start.elapsed() < Duration::from_secs(15));
        let pid = outcome.output.trim().to_string();
        let _ = Command::new("sh").args(["-c", "kill \"$1\"", "sh", &pid]).status();
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(184)), "3 min 04 s");
    }
}
