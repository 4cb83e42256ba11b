//! Hosts of their own, made of namespaces on this machine.
//!
//! Owns: a network namespace shared by the hosts of one test, and the hosts: each its own mount, uts and pid namespace over a copy-on-write view of the
//! machine (`peers/host.sh` does the mounting). PID 1 of a host ends with the test process, whatever ends that, and takes everything in the host along; so
//! nothing a test does can outlive it. Must not know what runs in a host.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::bounded::{self, TICK, find_program};
use crate::not_run::Unavailable;
use crate::process::{self, Process};
pub use crate::watched::Watched;

/// What is wrong with a host, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `/` is read-only; /tmp, /run, /home, /root, /dev and /dev/shm can be written.
    ReadOnly,
    /// Those are mounted noexec. Together with `ReadOnly` nothing is both writable and executable.
    NoExec,
    /// Every write ends with ENOSPC.
    FullDisk,
    /// /proc is empty.
    NoProc,
    /// memfd_create fails with EPERM.
    NoMemfd,
    /// No perl, no python, and no other interpreter but the shell.
    NoInterpreters,
    /// The account `busybox` logs in to a root that holds a static busybox and nothing else.
    Busybox,
    /// Accounts with passwords, and sudoers of each kind: `peers/accounts.sh` has the list.
    Accounts,
    /// sudo is sudo-rs; goes with `Accounts`.
    SudoRs,
    /// A machine of another architecture, as `uname -m` names it: one of [`foreign`]. Its own programs are still this machine's, which it runs as
    /// well; what is built for it runs by qemu.
    Foreign(&'static str),
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::ReadOnly => "read-only",
            Profile::NoExec => "noexec",
            Profile::FullDisk => "full-disk",
            Profile::NoProc => "no-proc",
            Profile::NoMemfd => "no-memfd",
            Profile::NoInterpreters => "no-interpreters",
            Profile::Busybox => "busybox",
            Profile::Accounts => "accounts",
            Profile::SudoRs => "sudo-rs",
            Profile::Foreign(_) => "foreign",
        }
    }
}

/// The architecture in qemu's words of a machine that `uname -m` calls so; nothing when no host can be made to be one.
pub fn foreign(machine: &str) -> Option<&'static str> {
    match machine {
        "aarch64" => Some("aarch64"),
        "armv7l" => Some("arm"),
        "riscv64" => Some("riscv64"),
        _ => None,
    }
}

/// The folder with the scripts that fixtures run.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The folder of the build that this test belongs to, such as `target/debug`; the programs under test lie in it or beside it.
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has an executable");
    let folder = test.parent().expect("an executable lies in a folder");
    // Tests lie in `deps`, the fixture program beside that folder.
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_path_buf() } else { folder.to_path_buf() }
}

/// The `offshoot-fixture` program, which cargo builds with the tests.
pub(crate) fn fixture_program() -> PathBuf {
    build_folder().join("offshoot-fixture")
}

/// Where `cargo xtask test --all` puts the sudo of sudo-rs.
fn sudo_rs() -> PathBuf {
    let folder = build_folder();
    folder.parent().unwrap_or(&folder).join("peers/sudo-rs/bin/sudo")
}

/// Reads the first line that a child writes, at most `within`; what came instead otherwise.
pub(crate) fn first_line(from: impl Read + Send + 'static, within: Duration) -> Result<String, String> {
    let (tell, line) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = String::new();
        let outcome = reader.read_line(&mut line);
        let _ = tell.send(outcome.map(|_| line).map_err(|error| error.to_string()));
        // Kept open and read to its end, so that later output does not end the child with a broken pipe.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    match line.recv_timeout(within) {
        Ok(Ok(line)) if line.ends_with('\n') => Ok(line.trim_end().to_string()),
        Ok(Ok(line)) => Err(format!("its output ended after {line:?}")),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(format!("no line within {within:?}")),
    }
}

/// Whether hosts can be had here.
///
/// # Errors
///
/// What is missing.
pub fn allowed() -> Result<(), Unavailable> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unavailable::because("needs root for mount, pid and network namespaces"));
    }
    for program in ["unshare", "nsenter", "ip", "mount", "pivot_root"] {
        if find_program(program).is_none() {
            return Err(Unavailable::because(format!("{program} is not installed")));
        }
    }
    let tried = bounded::run(
        Command::new("unshare").args([
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--fork",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "tmpfs",
            "/mnt",
        ]),
        None,
        Duration::from_secs(10),
    );
    if tried.code == Some(0) {
        Ok(())
    } else {
        Err(Unavailable::because(format!("namespaces are refused: {}", tried.err().trim())))
    }
}

/// A child that lives as long as its standard input is open.
#[derive(Debug)]
struct Held {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Held {
    fn start(command: &mut Command, what: &str, log: Option<&Path>) -> Result<Held, Unavailable> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(match log {
                Some(path) => fs::File::create(path)
                    .map_err(|error| Unavailable::because(format!("{}: {error}", path.display())))?
                    .into(),
                None => Stdio::null(),
            })
            .spawn()
            .map_err(|error| Unavailable::because(format!("{what}: {error}")))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is on a pipe");
        let mut held = Held { child, stdin };
        match first_line(stdout, Duration::from_secs(30)) {
            Ok(line) if line == "ready" => Ok(held),
            other => {
                held.end();
                let told = log.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
                Err(Unavailable::because(format!("{what} did not start: {other:?} {}", told.trim())))
            }
        }
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn end(&mut self) {
        self.stdin = None;
        if !bounded::eventually(Duration::from_secs(3), || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

/// A network namespace with nothing in it but the loopback device and the addresses that are added to it.
#[derive(Debug)]
pub struct Network {
    held: Held,
}

impl Network {
    /// Makes one; it goes when this value does.
    ///
    /// # Errors
    ///
    /// When the machine does not allow it.
    pub fn start() -> Result<Network, Unavailable> {
        let held = Held::start(
            Command::new("unshare").arg("--net").arg(fixture_program()).arg("hold"),
            "a network namespace",
            None,
        )?;
        let network = Network { held };
        network.ip(&["link", "set", "lo", "up"])?;
        Ok(network)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.held.pid())
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), Unavailable> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("ip").args(arguments);
        let done = bounded::run(&mut command, None, Duration::from_secs(10));
        if done.code == Some(0) {
            Ok(())
        } else {
            Err(Unavailable::because(format!("ip {arguments:?}: {}", done.err().trim())))
        }
    }

    /// Adds an address that only this namespace knows.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn add_address(&self, address: Ipv4Addr) -> Result<(), Unavailable> {
        self.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])
    }

    /// Takes an address away: whatever goes to it or comes from it vanishes from now on, and nobody is told.
    ///
    /// # Errors
    ///
    /// What `ip` says.
    pub fn remove_address(&self, address: Ipv4Addr) -> Result<(), Unavailable> {
        self.ip(&["address", "delete", &format!("{address}/32"), "dev", "lo"])
    }

    /// A command that will run in this network, with everything else as the test has it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }
}

/// One host. Ends, with everything in it, when this value is dropped or the test process ends.
#[derive(Debug)]
pub struct Host {
    held: Held,
    watched: Arc<Watched>,
    profiles: Vec<Profile>,
}

impl Host {
    /// Makes a host in a network. `shared` is seen in it as `/run/fixture`, read-only.
    ///
    /// # Errors
    ///
    /// When the machine does not allow it.
    pub fn start(name: &str, shared: &Path, network: &Network, profiles: &[Profile]) -> Result<Host, Unavailable> {
        let place = shared.join("hosts").join(name);
        fs::create_dir_all(&place).map_err(|error| Unavailable::because(format!("{}: {error}", place.display())))?;
        let mut command = network.command("unshare");
        command
            .args(["--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private", "sh"])
            .arg(scripts().join("host.sh"))
            .env("FIXTURE_NAME", name)
            .env("FIXTURE_SHARED", shared)
            .env("FIXTURE_PROGRAMS", crate::product::programs_folder())
            .env("FIXTURE_INIT", fixture_program())
            .env("FIXTURE_SUDO_RS", sudo_rs())
            .env("FIXTURE_PROFILES", profiles.iter().map(|profile| profile.name()).collect::<Vec<_>>().join(" "));
        if let Some(machine) = machine(profiles) {
            command.env("FIXTURE_MACHINE", machine);
        }
        let held = Held::start(&mut command, &format!("host {name}"), Some(&shared.join(format!("hosts/{name}.log"))))?;
        let init = process::children(held.pid())
            .first()
            .map(|init| init.pid)
            .ok_or_else(|| Unavailable::because(format!("host {name} has no first process")))?;
        let pinned = fs::File::open(format!("/proc/{init}/ns/pid"))
            .map_err(|error| Unavailable::because(format!("the pid namespace of host {name}: {error}")))?;
        let namespace = process::pid_namespace(init)
            .ok_or_else(|| Unavailable::because(format!("host {name} has no pid namespace")))?;
        let watched = Watched::new(name, init, namespace, pinned);
        Ok(Host { held, watched: Arc::new(watched), profiles: profiles.to_vec() })
    }

    /// Its name, which is its hostname too.
    pub fn name(&self) -> &str {
        self.watched.name()
    }

    /// What is wrong with it.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Its PID 1, as the test sees it.
    pub fn init(&self) -> i32 {
        self.watched.init()
    }

    /// For the check for leftovers.
    pub fn watched(&self) -> &Arc<Watched> {
        &self.watched
    }

    /// A command that will run in this host as root, in `/`, with root's environment. The process that the test starts is `nsenter`, which stays
    /// outside, waits, and ends as the command ended; the command itself is its child.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(find_program("nsenter").unwrap_or_else(|| "nsenter".into()));
        command
            .args(["--mount", "--uts", "--net", "--pid", "--target", &self.init().to_string(), "--"])
            .arg(program)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("USER", "root")
            .env("LOGNAME", "root")
            .env("LANG", "C.UTF-8");
        // `cargo xtask test` looks for this mark of its run afterwards.
        if let Some(run) = std::env::var_os("OFFSHOOT_TEST_RUN") {
            command.env("OFFSHOOT_TEST_RUN", run);
        }
        command
    }

    /// The same as that account, with its own groups, home and shell in an otherwise empty environment, as after a login.
    pub fn command_as(&self, account: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.args(as_account(account)).arg(program);
        command
    }

    /// The same on a terminal of its own, for [`crate::Terminal`].
    pub fn on_terminal(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command(fixture_program());
        command.arg("terminal").arg(program);
        command
    }

    /// The same as an account and on a terminal.
    pub fn on_terminal_as(&self, account: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.on_terminal("setpriv");
        command.args(as_account(account)).arg(program);
        command
    }

    /// The process in the host that a command of [`Host::command`] became, once it has; waits a moment for it.
    pub fn inside(&self, nsenter: i32) -> Option<Process> {
        let mut found = None;
        bounded::eventually(Duration::from_secs(5), || {
            found = process::children(nsenter)
                .into_iter()
                .find(|child| child.comm != "nsenter" && self.watched.contains(child.pid));
            found.is_some()
        });
        found
    }

    /// Takes /proc away in the host.
    pub(crate) fn unmount_proc(&self) -> Result<(), Unavailable> {
        let done = bounded::run(self.command("umount").args(["--lazy", "/proc"]), None, Duration::from_secs(10));
        if done.code == Some(0) {
            Ok(())
        } else {
            Err(Unavailable::because(format!("umount /proc: {}", done.err().trim())))
        }
    }

    /// Whether something listens on a TCP port of this host's network; nothing is connected for that.
    pub fn listens(&self, port: u16) -> bool {
        listens(&format!("/proc/{}/net/tcp", self.held.pid()), None, port)
    }

    /// Waits, at most `within`, until something listens on that address.
    pub fn await_listener(&self, address: Ipv4Addr, port: u16, within: Duration) -> bool {
        let table = format!("/proc/{}/net/tcp", self.held.pid());
        bounded::eventually(within, || {
            thread::sleep(TICK);
            listens(&table, Some(address), port)
        })
    }
}

/// What setpriv takes for an account.
fn as_account(account: &str) -> [&str; 7] {
    ["--reuid", account, "--regid", account, "--init-groups", "--reset-env", "--"]
}

/// Reads a table of TCP sockets for a listener.
pub(crate) fn listens(table: &str, address: Option<Ipv4Addr>, port: u16) -> bool {
    let port = format!("{port:04X}");
    let address = address.map(|address| format!("{:08X}", u32::from_ne_bytes(address.octets())));
    fs::read_to_string(table).unwrap_or_default().lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        let (host, local_port) = local.split_once(':').unwrap_or_default();
        // 0A is TCP_LISTEN.
        state == "0A"
            && local_port == port
            && address.as_ref().is_none_or(|wanted| host == wanted || host == "00000000")
    })
}

/// Whether a host with these profiles can be had where hosts can.
///
/// # Errors
///
/// What is missing.
pub fn available(profiles: &[Profile]) -> Result<(), Unavailable> {
    if profiles.contains(&Profile::Busybox) {
        static_busybox()?;
    }
    if profiles.contains(&Profile::Accounts) {
        for program in ["sudo", "chpasswd", "setsid", "setpriv"] {
            if find_program(program).is_none() {
                return Err(Unavailable::because(format!("{program} is not installed")));
            }
        }
        if !Path::new("/etc/pam.d/sshd").exists() || !Path::new("/etc/sudoers.d").is_dir() {
            return Err(Unavailable::because("sshd's PAM configuration or /etc/sudoers.d is missing"));
        }
    }
    if profiles.contains(&Profile::SudoRs) && !sudo_rs().is_file() {
        return Err(Unavailable::because("sudo-rs has not been built, which cargo xtask test --all does"));
    }
    if profiles.contains(&Profile::NoMemfd) && find_program("perl").is_none() {
        return Err(Unavailable::because("perl, which sets the seccomp filter, is not installed"));
    }
    machine(profiles).map_or(Ok(()), qemu)
}

/// The machine that a host with these profiles is.
fn machine(profiles: &[Profile]) -> Option<&'static str> {
    profiles.iter().find_map(|profile| match profile {
        Profile::Foreign(machine) => Some(*machine),
        _ => None,
    })
}

/// Whether a login can be one to such a machine: tried as it will be.
fn qemu(machine: &str) -> Result<(), Unavailable> {
    let qemu = format!("qemu-{}-static", foreign(machine).unwrap_or(machine));
    if find_program(&qemu).is_none() {
        return Err(Unavailable::because(format!("{qemu} is not installed")));
    }
    let mut command = Command::new("sh");
    command.arg(scripts().join("foreign.sh")).arg(machine).env("SSH_ORIGINAL_COMMAND", "echo ready");
    let tried = bounded::run(&mut command, None, Duration::from_secs(10));
    if tried.code == Some(0) && tried.out() == "ready\n" {
        Ok(())
    } else {
        let reason = tried.err().trim().to_string();
        Err(Unavailable::because(format!("no binfmt_misc in a user namespace (Linux 6.7): {reason}")))
    }
}

fn static_busybox() -> Result<(), Unavailable> {
    let busybox = find_program("busybox").ok_or_else(|| Unavailable::because("busybox is not installed"))?;
    // A dynamic executable names its loader, which a root of busybox alone does not have.
    let image = fs::read(&busybox).map_err(|error| Unavailable::because(format!("{}: {error}", busybox.display())))?;
    if image
        .windows(11)
        .take(8192)
        .any(|window| window == b"/lib/ld-lin" || window == b"/lib64/ld-l" || window == b"/lib/ld-mus")
    {
        return Err(Unavailable::because("busybox is not static"));
    }
    Ok(())
}
