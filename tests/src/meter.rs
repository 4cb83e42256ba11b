//! A stand-in for ssh that runs the command on this machine, counts what passes, and does harm when so many bytes have passed.
//!
//! Owns the processes that it starts. Runs in a process of its own, started by the command under test where ssh would be; must not know what the bytes mean.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, kill_process};

/// What happens when the bytes have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing: all is passed on.
    None,
    /// The far side is killed: the process that the login shell has become.
    Far,
    /// The near side is killed: whoever started this.
    Near,
    /// This is killed, as an ssh client may be.
    Own,
    /// The link is closed in that direction, and stays open in the other.
    Closed,
    /// The byte behind them has one bit changed.
    Flipped,
    /// What is behind them comes as over a slow line: 4 KiB, three times a second. What the command says beside it comes at once.
    Slow,
}

impl Harm {
    /// All that lose something.
    pub const ALL: [Harm; 5] = [Harm::Far, Harm::Near, Harm::Own, Harm::Closed, Harm::Flipped];

    fn name(self) -> &'static str {
        match self {
            Harm::None => "none",
            Harm::Far => "far",
            Harm::Near => "near",
            Harm::Own => "own",
            Harm::Closed => "closed",
            Harm::Flipped => "flipped",
            Harm::Slow => "slow",
        }
    }

    fn named(name: &str) -> Option<Harm> {
        Harm::ALL.into_iter().chain([Harm::None, Harm::Slow]).find(|harm| harm.name() == name)
    }
}

/// How a meter is set.
#[derive(Debug, Clone)]
pub struct Setting {
    /// What happens.
    pub harm: Harm,
    /// Whether the bytes to the command are counted; else those from it.
    pub up: bool,
    /// After how many of them.
    pub after: u64,
    /// How many are passed on at once at most.
    pub chunk: usize,
    /// Where the bytes that pass in that direction are kept.
    pub record: Option<PathBuf>,
    /// What runs the command: `sh -c`, or a tracer in front of it.
    pub shell: Vec<String>,
}

impl Setting {
    /// One that does nothing.
    pub fn harmless() -> Setting {
        let shell = ["sh", "-c"].map(String::from).to_vec();
        Setting { harm: Harm::None, up: true, after: 0, chunk: 64 * 1024, record: None, shell }
    }

    /// Writes a program `ssh` into a folder, to be put in front of `PATH`, that is a meter of this setting. `fixture` is the program of the fixtures.
    ///
    /// # Errors
    ///
    /// What the file system reports.
    pub fn install(&self, folder: &Path, fixture: &Path) -> io::Result<()> {
        let direction = if self.up { "up" } else { "down" };
        let record = self.record.as_deref().unwrap_or(Path::new("-"));
        let shell: String = self.shell.iter().map(|word| format!(" '{word}'")).collect();
        let text = format!(
            "#!/bin/sh\nfor last; do :; done\nexec '{}' meter {} {direction} {} {} '{}' \"$last\"{shell}\n",
            fixture.display(),
            self.harm.name(),
            self.after,
            self.chunk,
            record.display()
        );
        let file = folder.join("ssh");
        // Written beside and moved: a program that is open for writing by anyone cannot be executed.
        let beside = folder.join("ssh.new");
        fs::write(&beside, text)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))?;
        fs::rename(&beside, &file)
    }
}

/// Serves as a meter, by the words that [`Setting::install`] has written; the exit code.
///
/// # Errors
///
/// When the words make no sense, or the command cannot be started.
pub fn serve(words: &[&str]) -> io::Result<u8> {
    let [harm, direction, after, chunk, record, command, shell @ ..] = words else {
        return Err(io::Error::other("a meter needs six words and a shell"));
    };
    let number = |word: &str| word.parse::<u64>().map_err(io::Error::other);
    let harm = Harm::named(harm).ok_or_else(|| io::Error::other("unknown harm"))?;
    let (after, chunk, up) = (number(after)?, number(chunk)? as usize, *direction == "up");
    let [program, arguments @ ..] = shell else {
        return Err(io::Error::other("a meter needs a shell"));
    };
    let near = getppid();
    let mut child =
        Command::new(program).args(arguments).arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let far = Pid::from_child(&child);
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the command has no pipes"));
    };
    let act = move || match harm {
        Harm::Far => drop(kill_process(far, Signal::KILL)),
        Harm::Near => drop(near.map(|near| kill_process(near, Signal::KILL))),
        Harm::Own => drop(kill_process(rustix::process::getpid(), Signal::KILL)),
        Harm::None | Harm::Closed | Harm::Flipped | Harm::Slow => {}
    };
    let record =
        (*record != "-").then(|| OpenOptions::new().create(true).append(true).mode(0o600).open(record)).transpose()?;
    let count = move |of: bool| if of { (harm, after) } else { (Harm::None, 0) };
    let (up_record, down_record) = if up { (record, None) } else { (None, record) };
    // Not joined: it sleeps in a read of what may never come.
    thread::spawn(move || {
        let mut stdin: Option<ChildStdin> = Some(stdin);
        pass(
            io::stdin(),
            |bytes| stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(bytes)),
            count(up),
            chunk,
            up_record,
            act,
        );
        stdin = None;
        drop(stdin);
    });
    let mut out = io::stdout();
    pass(stdout, |bytes| out.write_all(bytes).and_then(|()| out.flush()), count(!up), chunk, down_record, act);
    // A closed output is told by closing it, which the end of this process does; the other direction goes on until the command ends.
    if !up && harm == Harm::Closed {
        let null = fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
    }
    let status = child.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}

/// Passes bytes on until they end, at most so many at once. When the count has come the harm is done: by `act`, or here.
fn pass(
    mut from: impl Read,
    mut to: impl FnMut(&[u8]) -> io::Result<()>,
    (harm, after): (Harm, u64),
    chunk: usize,
    mut record: Option<fs::File>,
    act: impl Fn(),
) {
    let mut passed = 0_u64;
    let mut done = harm == Harm::None;
    let mut slow = false;
    let mut buffer = vec![0; chunk.max(1)];
    loop {
        let left = if done { u64::MAX } else { after - passed };
        if left == 0 && harm != Harm::Flipped {
            done = true;
            act();
            if harm == Harm::Closed {
                return;
            }
            slow = harm == Harm::Slow;
            continue;
        }
        if slow {
            buffer.truncate(4096);
            thread::sleep(Duration::from_millis(330));
        }
        let most = buffer.len().min(usize::try_from(left.max(1)).unwrap_or(usize::MAX));
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if left == 0 {
            buffer[0] ^= 0x10;
            done = true;
        }
        passed += count as u64;
        if let Some(file) = &mut record {
            // What cannot be kept is missed by whoever looks at it.
            let _ = file.write_all(&buffer[..count]);
        }
        if to(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(harm: Harm, after: u64, chunk: usize) -> (Vec<u8>, bool) {
        let (mut out, acted) = (Vec::new(), std::cell::Cell::new(false));
        let act = || acted.set(true);
        pass(
            &b"0123456789"[..],
            |bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            },
            (harm, after),
            chunk,
            None,
            act,
        );
        (out, acted.get())
    }

    #[test]
    fn harm_is_done_after_exactly_so_many_bytes() {
        assert_eq!(passed(Harm::None, 3, 4), (b"0123456789".to_vec(), false));
        assert_eq!(passed(Harm::Closed, 3, 4), (b"012".to_vec(), true));
        assert_eq!(passed(Harm::Flipped, 3, 4), (b"012#456789".to_vec(), false));
        assert_eq!(passed(Harm::Own, 0, 64), (b"0123456789".to_vec(), true));
        assert_eq!(passed(Harm::Own, 11, 64), (b"0123456789".to_vec(), false));
        for harm in Harm::ALL.into_iter().chain([Harm::None, Harm::Slow]) {
            assert_eq!(Harm::named(harm.name()), Some(harm));
        }
    }
}
