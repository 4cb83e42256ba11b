//! Programs that ask on a terminal: run on one, watched, and answered as a person would.
//!
//! The terminal is made by the fixture program where the program under test runs, so it exists in that host's own `/dev/pts`. What the program shows arrives
//! as it is, raw. A program is answered by typing after a text has been shown; whether what was typed was echoed shows in the output.

use std::process::Command;
use std::time::Duration;

use crate::bounded::{self, Finished, Gathered};

/// What the fixture program says when the terminal is as it was before the program.
const RESTORED: &str = "terminal: restored";

/// A program on a terminal of its own.
pub struct Terminal {
    gathered: Gathered,
    /// How much of the output earlier waits have passed.
    passed: usize,
}

impl Terminal {
    /// Starts `command`, made by `Host::on_terminal` and the like.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Terminal {
        Terminal { gathered: Gathered::start_open(command), passed: 0 }
    }

    /// Waits until `text` is shown, behind what was waited for before; gives back what was shown since, up to its end.
    ///
    /// # Panics
    ///
    /// When it is not shown within that time, or the program has ended without.
    #[track_caller]
    pub fn await_text(&mut self, text: &str, within: Duration) -> String {
        let mut found = None;
        bounded::eventually(within, || {
            // Asked before looking, so that the last words of a program that has just ended are looked at.
            let running = self.gathered.is_running();
            found = self.find(text);
            found.is_some() || !running
        });
        // Gathering may lag behind the end of the program.
        if found.is_none() {
            bounded::eventually(Duration::from_millis(300), || {
                found = self.find(text);
                found.is_some()
            });
        }
        let Some(end) = found else {
            panic!("{text:?} is not shown within {within:?}; shown: {}", self.gathered.stdout_so_far().escape_ascii());
        };
        let shown = self.gathered.stdout_so_far();
        let since = String::from_utf8_lossy(&shown[self.passed..end]).into_owned();
        self.passed = end;
        since
    }

    fn find(&self, text: &str) -> Option<usize> {
        let shown = self.gathered.stdout_so_far();
        let rest = &shown[self.passed..];
        rest.windows(text.len())
            .position(|window| window == text.as_bytes())
            .map(|position| self.passed + position + text.len())
    }

    /// Types these bytes.
    pub fn type_keys(&mut self, keys: &str) {
        self.gathered.write(keys.as_bytes());
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.type_keys(&format!("{line}\r"));
    }

    /// All that has been shown.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.gathered.stdout_so_far()).into_owned()
    }

    /// Waits for the program's end, at most that long; it is killed then.
    pub fn finish(self, within: Duration) -> Finished {
        self.gathered.finish(within, || ())
    }
}

impl Finished {
    /// Whether the terminal was left as it was found; only for what ran on one.
    pub fn restored_terminal(&self) -> bool {
        self.err().contains(RESTORED)
    }
}

/// What runs in the fixture program: `PROGRAM ARGUMENTS…` on a new terminal that is its controlling one, our input typed, its output on ours. Ends as the
/// program does, or with our input.
///
/// # Errors
///
/// What the system says.
pub fn serve(program: &[&str]) -> std::io::Result<u8> {
    use std::fs::File;
    use std::io::{Error, Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::{io, thread};

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
    let modes = || tcgetattr(&theirs).map(|t| (t.input_modes, t.output_modes, t.control_modes, t.local_modes));
    let before = modes()?;
    // setsid is no leader of a process group here, so it becomes the program instead of starting it.
    let mut child = Command::new("setsid")
        .arg("--ctty")
        .args(program)
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs.try_clone()?)
        .spawn()?;
    let ours = File::from(ours);
    let (mut keys, mut screen) = (ours.try_clone()?, ours);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut keys);
        // The test has ended: closing the terminal hangs up what runs on it.
        std::process::exit(129);
    });
    let shows = thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The end is EIO: nobody has the other side open any more.
        while let Ok(count @ 1..) = screen.read(&mut buffer) {
            let mut out = io::stdout().lock();
            if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    });
    let status = child.wait()?;
    if modes()? == before {
        eprintln!("{RESTORED}");
    } else {
        eprintln!("terminal: changed");
    }
    drop(theirs);
    // Whatever else holds the terminal must not hold us.
    bounded::eventually(Duration::from_millis(500), || shows.is_finished());
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).ok_or_else(|| Error::other(format!("{status}")))
}
