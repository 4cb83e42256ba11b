//! The `offshoot` command: found or built once, and run with a deadline, on the machine or in a host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::bounded::{self, Finished, Gathered};
use crate::host::build_folder;
use crate::not_run::Unavailable;
use crate::process::{self, Process};
use crate::tag::{Tag, listed};
use crate::terminal::Terminal;
use crate::tree::Tree;
use crate::watched::Watched;

/// How long a command may take unless the test says otherwise. Generous: two cores run several tests at once.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The command under test: `OFFSHOOT_BIN`, else built by cargo, once in a test process, into the folder that this test was built into.
///
/// # Panics
///
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("OFFSHOOT_BIN") {
            let path = PathBuf::from(path);
            assert!(
                path.is_absolute() && path.is_file(),
                "OFFSHOOT_BIN must be the absolute path of a program, and is {path:?}"
            );
            return path;
        }
        let folder = build_folder();
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--package", "offshoot-cli", "--bin", "offshoot", "--manifest-path"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml"));
        command.arg("--target-dir").arg(folder.parent().unwrap_or(&folder));
        if folder.ends_with("release") {
            command.arg("--release");
        }
        let built = bounded::run(&mut command, None, Duration::from_secs(1200));
        assert!(built.code == Some(0), "the offshoot command does not build\n{built}");
        folder.join("offshoot")
    })
}

/// An example of the facade, built beside the command.
///
/// # Panics
///
/// When it cannot be built.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = match std::env::var_os("OFFSHOOT_BIN").map(PathBuf::from) {
            Some(path) => path.parent().map(Path::to_path_buf).unwrap_or_default(),
            None => build_folder(),
        };
        let examples = folder.join("examples");
        if std::env::var_os("OFFSHOOT_BIN").is_some() && examples.is_dir() {
            return examples;
        }
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--package", "offshoot", "--examples", "--manifest-path"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml"));
        command.arg("--target-dir").arg(folder.parent().unwrap_or(&folder));
        let built = bounded::run(&mut command, None, Duration::from_secs(1200));
        assert!(built.code == Some(0), "the examples do not build\n{built}");
        examples
    });
    folder.join(name)
}

/// The program whose functions run far away, static: built beside the command.
///
/// # Errors
///
/// When the compiler has no static target for this machine.
///
/// # Panics
///
/// When it has, and it cannot be built.
pub fn calls() -> Result<&'static Path, Unavailable> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let mut sysroot = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = bounded::run(sysroot.args(["--print", "sysroot"]), None, DEADLINE);
    if !Path::new(sysroot.out().trim()).join("lib/rustlib").join(&triple).is_dir() {
        return Err(Unavailable::because(format!("the compiler has no target {triple}")));
    }
    Ok(BUILT.get_or_init(|| own_example("offshoot-calls", Some(&triple))))
}

/// The same program as cargo builds it where nothing is said: it needs the libraries of this machine.
///
/// # Panics
///
/// When it cannot be built.
pub fn calls_of_this_machine() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| own_example("offshoot-calls", None))
}

/// A program with remote functions that is a copy of itself in all its contexts, for this machine: built beside the command.
///
/// # Panics
///
/// When it cannot be built.
pub fn caller() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| own_example("offshoot-caller", None))
}

/// Builds an example of the tests, for this machine as the command is or for a triple.
fn own_example(name: &str, triple: Option<&str>) -> PathBuf {
    let folder = build_folder();
    let target = folder.parent().unwrap_or(&folder);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", "offshoot-tests", "--example", name, "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml"));
    command.arg("--target-dir").arg(target).args(triple.map(|triple| ["--target", triple]).into_iter().flatten());
    if triple.is_some() {
        // Without them it is some megabytes, as users' programs are.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_DEV_STRIP", "symbols");
    }
    let built = bounded::run(&mut command, None, Duration::from_secs(1200));
    assert!(built.code == Some(0), "{name} does not build\n{built}");
    triple.map_or_else(|| target.to_owned(), |triple| target.join(triple)).join("debug/examples").join(name)
}

/// An example as one file, with the agents that lie in the build folder and its images for `triples`, and for this machine's in any case. A build that is
/// not optimized: what is built for one triple takes half a minute, and no more the next time.
///
/// # Panics
///
/// When it cannot be built.
pub fn one_file(name: &str, triples: &[&str]) -> PathBuf {
    // Cargo would let one wait for the other anyway.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    agents();
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let target = build_folder().with_file_name("");
    let file = target.join("one-file").join(format!("{name}-{}", std::process::id()));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--package", "xtask", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml"));
    command.args(["--", "image", "--package", "offshoot", "--example", name, "--profile", "dev", "--agents"]);
    command.arg(target.join("agents")).arg("--out").arg(&file);
    let own = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    for triple in triples.iter().copied().chain([own.as_str()]) {
        command.args(["--triple", triple]);
    }
    let built = bounded::run(&mut command, None, Duration::from_secs(1200));
    assert!(built.code == Some(0), "{name} does not build as one file\n{built}");
    file
}

/// Sees to it that there is an agent for this machine's architecture, for targets that are reached by ssh: with `OFFSHOOT_BIN` whoever set it has done so,
/// else `cargo xtask agents` does it when none lies in the build folder.
///
/// # Panics
///
/// When it cannot be built.
pub fn agents() {
    static AGENTS: OnceLock<()> = OnceLock::new();
    AGENTS.get_or_init(|| {
        let folder = build_folder().with_file_name("agents");
        let found = std::fs::read_dir(&folder).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.contains(std::env::consts::ARCH) && name.ends_with(".bundle")
        });
        if found || std::env::var_os("OFFSHOOT_BIN").is_some() {
            return;
        }
        let triple = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["run", "--quiet", "--package", "xtask", "--manifest-path"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml"));
        command.args(["--", "agents", "--triple", &triple]);
        let built = bounded::run(&mut command, None, Duration::from_secs(1200));
        assert!(built.code == Some(0), "the agent for {triple} does not build\n{built}");
    });
}

/// The folders that hosts must see: the build folder with the agents beside it, that of `OFFSHOOT_BIN`, and the fixtures' scripts; separated by colons.
pub(crate) fn programs_folder() -> String {
    let folder = build_folder();
    let mut folders = vec![folder.parent().unwrap_or(&folder).to_path_buf(), crate::host::scripts()];
    if let Some(own) =
        std::env::var_os("OFFSHOOT_BIN").map(PathBuf::from).and_then(|path| path.parent().map(Path::to_path_buf))
        && own.is_absolute()
        && !own.starts_with(&folders[0])
    {
        folders.push(own);
    }
    folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":")
}

/// One run of the command, to be started.
pub struct Offshoot<'a> {
    tag: &'a Tag,
    command: Command,
    host: Option<Arc<Watched>>,
    stdin: Option<Vec<u8>>,
    deadline: Duration,
}

impl<'a> Offshoot<'a> {
    /// `offshoot ARGUMENTS…` on the machine itself.
    pub fn new(tag: &'a Tag, arguments: &[&str]) -> Offshoot<'a> {
        Offshoot::in_place(tag, tag.command(binary()), None, arguments, None)
    }

    /// Another program than the command, on this machine.
    pub fn program(tag: &'a Tag, program: &Path, arguments: &[&str]) -> Offshoot<'a> {
        let mut command = tag.command(program);
        command.args(arguments);
        Offshoot::in_place(tag, command, None, &[], None)
    }

    /// As [`program`](Self::program), on a terminal of its own that shows colours.
    pub fn program_on_terminal(tag: &'a Tag, program: &Path, arguments: &[&str]) -> Terminal {
        let mut command = tag.command(crate::host::fixture_program());
        command.env_remove("NO_COLOR").env("TERM", "xterm").arg("terminal").arg(program).args(arguments);
        Offshoot::in_place(tag, command, None, &[], None).start_on_terminal()
    }

    /// `command` starts the program; `-F config` is put behind the subcommand.
    pub(crate) fn in_place(
        tag: &'a Tag,
        mut command: Command,
        host: Option<Arc<Watched>>,
        arguments: &[&str],
        config: Option<&Path>,
    ) -> Offshoot<'a> {
        if let Some((subcommand, rest)) = arguments.split_first() {
            command.arg(subcommand);
            if let Some(config) = config {
                command.arg("-F").arg(config);
            }
            command.args(rest);
        }
        // Hosts start from an empty environment; where the agents lie is for the command to know there too.
        if let Some(folder) = std::env::var_os("OFFSHOOT_AGENTS") {
            command.env("OFFSHOOT_AGENTS", folder);
        }
        Offshoot { tag, command, host, stdin: None, deadline: DEADLINE }
    }

    /// Gives it an input; without, its input is empty.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// How long it may take before it is killed and called overdue.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Starts it on a terminal, for which its command must have been made.
    pub(crate) fn start_on_terminal(mut self) -> Terminal {
        Terminal::start(&mut self.command)
    }

    /// Starts it.
    pub fn start(mut self) -> Running<'a> {
        let gathered = Gathered::start(&mut self.command, self.stdin.take());
        Running { tag: self.tag, gathered, host: self.host, deadline: self.deadline }
    }
}

/// A run that has not ended.
pub struct Running<'a> {
    tag: &'a Tag,
    gathered: Gathered,
    host: Option<Arc<Watched>>,
    deadline: Duration,
}

impl Running<'_> {
    /// The master: the process of the command itself. In a host it is the child of the `nsenter` that the test started.
    ///
    /// # Panics
    ///
    /// When it does not appear within five seconds.
    pub fn master(&self) -> Process {
        let started = self.gathered.pid();
        let mut found = None;
        bounded::eventually(Duration::from_secs(5), || {
            found = match &self.host {
                None => Process::read(started),
                Some(host) => process::children(started).into_iter().find(|child| host.contains(child.pid)),
            }
            .filter(|process| process.cmdline.first().is_some_and(|name| Path::new(name) == binary()));
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("the master has not started: {:?}\n{}", Process::read(started), self.report()))
    }

    /// The tree as it is now.
    pub fn tree(&self) -> Tree {
        Tree::of(self.tag)
    }

    /// Waits until the output holds a text.
    ///
    /// # Panics
    ///
    /// When it has not come within that time.
    #[track_caller]
    pub fn await_output(&mut self, text: &str, within: Duration) {
        let came = bounded::eventually(within, || {
            let out = self.gathered.stdout_so_far();
            out.windows(text.len()).any(|window| window == text.as_bytes()) || !self.gathered.is_running()
        });
        let out = self.gathered.stdout_so_far();
        assert!(
            came && out.windows(text.len()).any(|window| window == text.as_bytes()),
            "{text:?} has not come within {within:?}\n{}",
            self.report()
        );
    }

    /// Waits until as many agents live as there should be.
    ///
    /// # Panics
    ///
    /// When they are not there within that time.
    #[track_caller]
    pub fn await_agents(&self, count: usize, within: Duration) -> Tree {
        let mut tree = self.tree();
        let came = bounded::eventually(within, || {
            tree = self.tree();
            tree.agents.len() == count && tree.supervisors.len() == count
        });
        assert!(came, "expected {count} agents, each with a supervisor, within {within:?}\n{tree}\n{}", self.report());
        tree
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        self.gathered.is_running()
    }

    /// Its output so far, as text.
    pub fn output_so_far(&self) -> String {
        String::from_utf8_lossy(&self.gathered.stdout_so_far()).into_owned()
    }

    /// Its errors so far, as text.
    pub fn errors_so_far(&self) -> String {
        String::from_utf8_lossy(&self.gathered.stderr_so_far()).into_owned()
    }

    /// The output and errors so far, and the processes of the test.
    pub fn report(&self) -> String {
        format!(
            "  stdout so far: {}\n  stderr so far: {}\n{}",
            self.gathered.stdout_so_far().escape_ascii(),
            self.gathered.stderr_so_far().escape_ascii(),
            listed(&self.tag.everything())
        )
    }

    /// Waits for its end, at most the deadline counted from now.
    pub fn finish(self) -> Finished {
        let deadline = self.deadline;
        self.finish_within(deadline)
    }

    /// Waits for its end, at most that long; when it is overdue, what lives is printed and killed.
    pub fn finish_within(self, deadline: Duration) -> Finished {
        let tag = self.tag;
        self.gathered.finish(deadline, || {
            eprintln!("{} is overdue; alive:\n{}", tag.name(), listed(&tag.processes()));
            tag.kill_everything();
        })
    }
}
