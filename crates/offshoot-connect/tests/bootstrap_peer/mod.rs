//! A target for bootstrap tests: a shell behind pipes, the real loader, and a small static program as the agent.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use offshoot_connect::bootstrap::{Bootstrap, BootstrapError, Event, Exit, Options};
use offshoot_connect::bundle::{Bundle, Packed};
use sha2::{Digest, Sha256};

pub const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// The hello, a line about itself, then its input back, until that ends. As the real one it does nothing when it is only
/// tried, and writes to descriptor 3 where its second argument says so.
const AGENT: &str = r#"
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
fn main() {
    let second = std::env::args().nth(2).unwrap_or_default();
    if second == "t" {
        return;
    }
    let number = if second == "apart" { 3 } else { 1 };
    let mut out = unsafe { std::fs::File::from_raw_fd(number) };
    out.write_all(b"\0offsh\xf5\n").unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map_or("-", |line| line.trim()).to_owned()
    };
    let links = (3..300).filter_map(|n| std::fs::read_link(format!("/proc/self/fd/{n}")).ok());
    let foreign = links.filter(|to| to.to_string_lossy().contains("memfd:")).count();
    let mut env: Vec<String> = std::env::vars_os().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect();
    env.sort();
    let exe = std::fs::read_link("/proc/self/exe").map_or("-".into(), |path| path.display().to_string());
    writeln!(
        out,
        "args={:?}|cwd={}|umask={}|ignored={}|memfds={foreign}|exe={exe}|env={env:?}",
        std::env::args().collect::<Vec<_>>(),
        std::env::current_dir().map_or("-".into(), |path| path.display().to_string()),
        field("Umask:"),
        field("SigIgn:"),
    )
    .unwrap();
    let mut bytes = [0; 65536];
    loop {
        match std::io::stdin().read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(n) => out.write_all(&bytes[..n]).and_then(|()| out.flush()).unwrap(),
        }
    }
}
"#;

pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Loader and test agent, built once for each test binary.
pub fn bundle() -> &'static Bundle {
    static BUNDLE: OnceLock<Bundle> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let options = offshoot_loader::build::Options::new(scratch().join("stages"));
        let loader = offshoot_loader::build::build(TRIPLE, &options).unwrap_or_else(|error| panic!("{error}"));
        bundle_of(&loader.stage0, &loader.stage1, &agent())
    })
}

pub fn bundle_of(stage0: &[u8], stage1: &[u8], agent: &[u8]) -> Bundle {
    Bundle::new(TRIPLE, stage0.to_vec(), stage1.to_vec(), packed(agent)).unwrap()
}

pub fn packed(agent: &[u8]) -> Packed {
    let packed = offshoot_loader::pack::pack(agent).unwrap();
    let sha256 = Sha256::digest(agent).into();
    let (properties, filter) = (packed.properties, packed.filter);
    Packed { bytes: packed.bytes.into(), properties, filter, len: agent.len() as u32, sha256 }
}

/// The test agent, built once for all test processes. They run side by side: each builds in a folder of its own, and what
/// another one finds is whole or not there.
pub fn agent() -> Vec<u8> {
    let hash = Sha256::digest(AGENT);
    let built = scratch().join(format!("bootstrapped-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
    if let Ok(agent) = fs::read(&built) {
        return agent;
    }
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let (source, binary) = (folder.path().join("agent.rs"), folder.path().join("agent"));
    fs::write(&source, AGENT).unwrap();
    let status = Command::new("rustc")
        .args(["-Copt-level=s", "-Cstrip=symbols", "-Clinker=rust-lld", "--target", TRIPLE, "-o"])
        .args([&binary, &source])
        .status()
        .unwrap();
    assert!(status.success());
    let agent = fs::read(&binary).unwrap();
    fs::rename(binary, built).unwrap();
    agent
}

/// A nonce of this test process.
pub fn nonce() -> [u8; 16] {
    let mut nonce = [0; 16];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut nonce).unwrap();
    nonce
}

pub const PREAMBLE: &[u8] = b"\0\x01PREAMBLE\xff";

pub fn options() -> Options {
    Options {
        tree_tag: Some(("OFFSHOOT_TREE".into(), "0123456789abcdef".into())),
        process_name: "offshoot:a test".into(),
        args: vec!["it's".into(), "".into()],
        preamble: PREAMBLE.to_vec(),
        stage_timeout: Duration::from_secs(20),
        ..Options::new(nonce())
    }
}

/// What came of a bootstrap over a process's pipes.
pub struct Ran {
    /// What the agent said about itself.
    pub agent: Result<Agent, BootstrapError>,
    /// The places, from the agent's point of view.
    pub took: Duration,
}

/// What the agent said.
#[derive(Debug)]
pub struct Agent {
    pub line: String,
}

impl Agent {
    pub fn field(&self, name: &str) -> &str {
        self.line.split('|').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap_or("missing")
    }

    /// Whether the environment has `KEY=VALUE`.
    pub fn has_env(&self, entry: &str) -> bool {
        self.field("env").contains(&format!("\"{entry}\""))
    }
}

/// Kills and reaps what a failed test would leave.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn reader(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 8192];
        while let Ok(n) = from.read(&mut bytes) {
            if n == 0 || send.send(bytes[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

/// Runs `bootstrap` over the pipes of `command`, with received bytes in pieces of `piece`, and ends the agent by the end
/// of its input.
pub fn run(command: &mut Command, bootstrap: Bootstrap, piece: usize) -> Ran {
    run_and(command, bootstrap, piece, true)
}

/// The same where the end of the input does not reach the agent: it is killed with its tool.
pub fn run_until_echo(command: &mut Command, bootstrap: Bootstrap, piece: usize) -> Ran {
    run_and(command, bootstrap, piece, false)
}

fn run_and(command: &mut Command, mut bootstrap: Bootstrap, piece: usize, to_end: bool) -> Ran {
    let began = Instant::now();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Guard(child);
    let mut stdin = child.0.stdin.take().unwrap();
    let stdout = reader(child.0.stdout.take().unwrap());
    let stderr = reader(child.0.stderr.take().unwrap());
    let mut said = Vec::new();
    let mut pending: VecDeque<u8> = VecDeque::new();
    let agent = loop {
        while let Some(bytes) = bootstrap.poll_output(Instant::now()) {
            // A target that gave up does not read.
            let _ = stdin.write_all(&bytes);
        }
        match bootstrap.poll_event() {
            Some(Event::NeedBundle { triple, .. }) => {
                assert_eq!(triple, TRIPLE);
                bootstrap.provide(bundle(), Instant::now());
                continue;
            }
            Some(Event::Started { rest }) => {
                said.extend(rest);
                said.extend(pending);
                break Ok(());
            }
            Some(Event::Failed(error)) => break Err(error),
            None => {}
        }
        if !pending.is_empty() {
            let piece: Vec<u8> = pending.drain(..piece.min(pending.len())).collect();
            bootstrap.handle_bytes(&piece, Instant::now());
            continue;
        }
        let wait = bootstrap.poll_timeout().map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        match stdout.recv_timeout(wait) {
            Ok(bytes) => pending.extend(bytes),
            Err(RecvTimeoutError::Timeout) => bootstrap.handle_timeout(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.0.wait().unwrap();
                bootstrap.handle_eof(match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                });
            }
        }
    };
    let took = began.elapsed();
    let agent = agent.map(|()| {
        // What the agent echoes is what it got: the preamble and nothing before it.
        stdin.write_all(b"MORE").unwrap();
        let expected = [PREAMBLE, b"MORE"].concat();
        let whole = |said: &[u8]| {
            let said = said.strip_prefix(b"\0offsh\xf5\n").expect("the hello's magic");
            let end = said.iter().position(|byte| *byte == b'\n');
            end.map(|end| (said[..end].to_vec(), said[end + 1..].to_vec()))
        };
        let mut stdin = Some(stdin);
        if to_end {
            stdin = None;
        }
        while to_end || whole(&said).is_none_or(|(_, echo)| echo.len() < expected.len()) {
            let Ok(bytes) = stdout.recv_timeout(Duration::from_secs(20)) else { break };
            said.extend(bytes);
        }
        drop(stdin);
        let (line, echo) = whole(&said).expect("a line");
        assert_eq!(echo, expected, "the agent got other bytes than its own");
        if to_end {
            assert!(child.0.wait().unwrap().success());
        }
        Agent { line: String::from_utf8(line).unwrap() }
    });
    drop(stderr);
    Ran { agent, took }
}

/// The files of a bootstrap that are left in the places where one could be.
pub fn left_behind(nonce_text: &str) -> Vec<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    ["/dev/shm", "/run", "/run/user/0", "/tmp", "/var/tmp", "/dev", "/", &home, "."]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains(nonce_text))
        .collect()
}

/// The text of the nonce, as it stands in file names.
pub fn nonce_text(command: &str) -> String {
    let after = command.split("echo M").nth(1).expect("a marker");
    after.split(' ').next().expect("a word").replace('\\', "")
}
