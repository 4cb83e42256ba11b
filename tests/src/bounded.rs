//! Child processes that end: run with input, output and a deadline, or waited for until a line comes.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a poll of something cheap sleeps.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// What a process that ended, or was ended at its deadline, left.
#[derive(Clone)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// All of its output.
    pub stdout: Vec<u8>,
    /// All of its errors.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub elapsed: Duration,
    /// Whether it was killed because its deadline had passed.
    pub overdue: bool,
}

impl Finished {
    /// Output as text, invalid bytes replaced.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Errors as text, invalid bytes replaced.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts the exit code, and that the deadline was kept; the whole story otherwise.
    ///
    /// # Panics
    ///
    /// When the code is another, or the process was overdue.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert!(!self.overdue, "still running at its deadline, expected exit code {code}\n{self}");
        assert!(self.code == Some(code), "expected exit code {code}\n{self}");
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  exit code {:?}, signal {:?}, after {:?}{}",
            self.code,
            self.signal,
            self.elapsed,
            if self.overdue { ", KILLED AT ITS DEADLINE" } else { "" }
        )?;
        writeln!(f, "  stdout ({} bytes): {}", self.stdout.len(), excerpt(&self.stdout))?;
        write!(f, "  stderr ({} bytes): {}", self.stderr.len(), excerpt(&self.stderr))
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The head of some bytes, escaped: a failing test must not garble the terminal it is read on.
fn excerpt(bytes: &[u8]) -> String {
    const LIMIT: usize = 4000;
    let head = bytes.get(..LIMIT).unwrap_or(bytes);
    let text = head.escape_ascii().to_string().replace("\\n", "\n    ");
    if bytes.len() > LIMIT { format!("{text} …") } else { text }
}

/// A process whose output is gathered while it runs.
pub struct Gathered {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    threads: Vec<JoinHandle<()>>,
    started: Instant,
    status: Option<ExitStatus>,
}

fn gather(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let into = kept.clone();
    let thread = thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        }
    });
    (kept, thread)
}

impl Gathered {
    /// Starts the command with all three standard streams on pipes, and `stdin` sent; `None` leaves the input empty.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn start(command: &mut Command, stdin: Option<Vec<u8>>) -> Gathered {
        let Some(bytes) = stdin else {
            return Gathered::spawn(command, Stdio::null());
        };
        let mut gathered = Gathered::spawn(command, Stdio::piped());
        if let Some(mut pipe) = gathered.stdin.take() {
            // Not joined: a process that never reads its input holds this thread until it ends. A broken pipe is the process' own choice.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        gathered
    }

    /// The same with an input that stays open for [`Gathered::write`].
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn start_open(command: &mut Command) -> Gathered {
        Gathered::spawn(command, Stdio::piped())
    }

    fn spawn(command: &mut Command, stdin: Stdio) -> Gathered {
        let started = Instant::now();
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (stdout, out_thread) = gather(child.stdout.take().expect("stdout is on a pipe"));
        let (stderr, err_thread) = gather(child.stderr.take().expect("stderr is on a pipe"));
        let stdin = child.stdin.take();
        Gathered { child, stdin, stdout, stderr, threads: vec![out_thread, err_thread], started, status: None }
    }

    /// The process' id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Writes a few bytes to an input that was left open; nothing when the process has closed it.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(pipe) = &mut self.stdin
            && pipe.write_all(bytes).and_then(|()| pipe.flush()).is_err()
        {
            self.stdin = None;
        }
    }

    /// The output so far.
    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The errors so far.
    pub fn stderr_so_far(&self) -> Vec<u8> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap_or(None);
        }
        self.status
    }

    /// Kills it with SIGKILL; nothing when it has ended.
    pub fn kill(&mut self) {
        if self.poll().is_none() {
            let _ = self.child.kill();
        }
    }

    /// Waits until the process has ended, at most `deadline` from now; then calls `overdue` (to report, and to end what it started) and kills it.
    pub fn finish(mut self, deadline: Duration, overdue: impl FnOnce()) -> Finished {
        let until = Instant::now() + deadline;
        while self.poll().is_none() && Instant::now() < until {
            thread::sleep(TICK);
        }
        let elapsed = self.started.elapsed();
        let late = self.poll().is_none();
        if late {
            overdue();
            self.kill();
            let _ = self.child.wait().map(|status| self.status = Some(status));
        }
        // A process left behind may hold the pipes for ever: wait a little for the last bytes, then take what there is.
        let patience = Instant::now() + Duration::from_secs(2);
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < patience {
            thread::sleep(TICK);
        }
        Finished {
            code: self.status.and_then(|status| status.code()),
            signal: self.status.and_then(|status| status.signal()),
            stdout: self.stdout_so_far(),
            stderr: self.stderr_so_far(),
            elapsed,
            overdue: late,
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        if self.poll().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, at most `deadline`; it is killed then.
pub fn run(command: &mut Command, stdin: Option<Vec<u8>>, deadline: Duration) -> Finished {
    Gathered::start(command, stdin).finish(deadline, || ())
}

/// Polls until `ready` says yes; false when `within` has passed first.
pub fn eventually(within: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + within;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(TICK);
    }
}

/// Whether a program can be found: by its path, or in `PATH` and the two folders for administrators' programs.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    if name.contains('/') {
        return Some(name.into()).filter(|path: &std::path::PathBuf| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_errors_and_exit_code_are_kept_apart() {
        let done = run(
            Command::new("sh").args(["-c", "cat; echo oops >&2; exit 7"]),
            Some(b"hello".to_vec()),
            Duration::from_secs(10),
        );
        done.expect_code(7);
        assert_eq!(done.out(), "hello");
        assert_eq!(done.err(), "oops\n");
    }

    #[test]
    fn a_process_that_hangs_is_killed_at_its_deadline_and_called_overdue() {
        let mut told = false;
        let done =
            Gathered::start(Command::new("sleep").arg("60"), None).finish(Duration::from_millis(100), || told = true);
        assert!(done.overdue && told);
        assert_eq!(done.signal, Some(9));
        assert!(done.elapsed < Duration::from_secs(10));
    }
}
