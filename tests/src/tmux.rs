//! A shell in a real terminal emulator, as a person sits before it: keys are typed, the screen is looked at.
//!
//! tmux without a configuration, on a socket of its own; its server and all that runs in it ends with the value.

use std::fmt::Write as _;
use std::time::Duration;

use tempfile::TempDir;

use crate::bounded::{self, Finished, find_program};
use crate::not_run::Unavailable;
use crate::process::Process;
use crate::tag::Tag;

/// How long one command to tmux may take.
const COMMAND: Duration = Duration::from_secs(20);

/// What the shell in the terminal shows when it waits for a line.
pub const PROMPT: &str = "local>";

/// One terminal of 100 columns and 30 lines with a bash that has read no start files.
pub struct Tmux<'a> {
    tag: &'a Tag,
    folder: TempDir,
}

impl<'a> Tmux<'a> {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When there is no tmux or no bash.
    pub fn start(tag: &'a Tag) -> Result<Tmux<'a>, Unavailable> {
        for program in ["tmux", "bash"] {
            if find_program(program).is_none() {
                return Err(Unavailable::because(format!("{program} is not installed")));
            }
        }
        let folder = tempfile::tempdir().map_err(|error| Unavailable::because(format!("no folder: {error}")))?;
        let tmux = Tmux { tag, folder };
        let shell = tmux.bash(PROMPT);
        let started = tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &shell]);
        if started.code != Some(0) {
            return Err(Unavailable::because(format!("tmux does not start: {}", started.err())));
        }
        tmux.await_text(PROMPT, Duration::from_secs(20));
        Ok(tmux)
    }

    /// A command for an interactive bash with this prompt.
    ///
    /// # Panics
    ///
    /// When its start file cannot be written.
    pub fn bash(&self, prompt: &str) -> String {
        // A bash of root's takes no prompt from its environment.
        let file = self.folder.path().join(format!("prompt-{}", prompt.trim_end_matches('>')));
        std::fs::write(&file, format!("PS1='{prompt} '\n")).expect("a file for the prompt");
        format!("bash --noprofile --rcfile {}", file.display())
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut command = self.tag.command("tmux");
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").arg("-S").arg(self.folder.path().join("socket"));
        bounded::run(command.args(arguments), None, COMMAND)
    }

    /// Types keys by tmux's names: `C-c`, `Enter`, `q`.
    pub fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat()).expect_code(0);
    }

    /// Types these characters.
    pub fn text(&self, text: &str) {
        self.run(&["send-keys", "-l", "--", text]).expect_code(0);
    }

    /// Types a line.
    pub fn line(&self, line: &str) {
        if !line.is_empty() {
            self.text(line);
        }
        self.keys(&["Enter"]);
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.run(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).expect_code(0);
    }

    /// What the terminal shows, and what has scrolled out of it.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-J", "-S", "-2000"]).out()
    }

    /// Waits until the screen is as wanted, and gives it back.
    ///
    /// # Panics
    ///
    /// When it is not within that time, with what it shows.
    #[track_caller]
    pub fn await_screen(&self, what: &str, within: Duration, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        let came = bounded::eventually(within, || {
            screen = self.screen();
            wanted(&screen)
        });
        let mut shown = String::new();
        for line in screen.lines().filter(|line| !line.is_empty()) {
            // Writing to a string cannot fail.
            let _ = writeln!(shown, "  | {line}");
        }
        assert!(came, "{what} is not shown within {within:?}; the screen:\n{shown}");
        screen
    }

    /// Waits until a text is shown.
    ///
    /// # Panics
    ///
    /// When it is not within that time.
    #[track_caller]
    pub fn await_text(&self, text: &str, within: Duration) -> String {
        self.await_screen(text, within, |screen| screen.contains(text))
    }

    /// The shell in the terminal.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub fn shell(&self) -> Process {
        let shown = self.run(&["display-message", "-p", "#{pane_pid}"]).out();
        let pid = shown.trim().parse().unwrap_or_else(|_| panic!("tmux says of its shell: {shown:?}"));
        Process::read(pid).unwrap_or_else(|| panic!("the shell {pid} has ended"))
    }

    /// Closes the terminal: what runs in it is hung up.
    pub fn close(&self) {
        self.run(&["kill-server"]);
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
