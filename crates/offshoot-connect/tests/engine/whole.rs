//! The whole way: a real shell, the real loader, and a small static program as the agent, behind pipes and behind ssh.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_connect::methods::Method;
use offshoot_connect::{Cancel, LinkIo, Payloads};
use offshoot_mux::{io as fd, wait_readable};
use offshoot_wire::{ConnectStage, Failure, FailureKind, Recipe, Start};
use sha2::{Digest, Sha256};

use crate::fixture::{Link, NONCE, Test, hello};
use crate::sshd::Sshd;

const TRIPLE: &str = "x86_64-unknown-linux-musl";

/// Says the hello that the tests expect, then tells about itself, then sends back what it gets. Of what is named behind `tell` it
/// tells the value: a variable, or with a colon a line of its status.
const AGENT: &str = r#"
use std::io::{Read, Write};
fn main() {
    let mut out = std::io::stdout();
    out.write_all(&HELLO).unwrap();
    let arg = std::env::args().nth(1).unwrap_or_default();
    let tag = std::env::var("OFFSHOOT_TREE").unwrap_or_default();
    writeln!(out, "{arg} {tag}").unwrap();
    let mut bytes = [0; 65536];
    while let Ok(n @ 1..) = std::io::stdin().read(&mut bytes) {
        if let Some(names) = std::str::from_utf8(&bytes[..n]).ok().and_then(|text| text.strip_prefix("tell ")) {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            for name in names.split_whitespace() {
                let of_status = || status.lines().find_map(|line| line.strip_prefix(name)).and_then(|ids| ids.split_whitespace().next());
                let value = if name.ends_with(':') { of_status().map(str::to_owned) } else { std::env::var(name).ok() };
                writeln!(out, "{name}={}", value.as_deref().unwrap_or("nothing")).unwrap();
            }
            writeln!(out, "told").and_then(|()| out.flush()).unwrap();
            continue;
        }
        out.write_all(&bytes[..n]).and_then(|()| out.flush()).unwrap();
    }
}
"#;

pub(crate) struct Agents(Bundle);

impl Payloads for Agents {
    fn bundle(&self, triple: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
        if triple == TRIPLE {
            return Ok(self.0.clone());
        }
        Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), "no agent at hand"))
    }

    fn at_hand(&self, triple: Option<&str>) -> Option<Bundle> {
        triple.filter(|triple| *triple == TRIPLE).map(|_| self.0.clone())
    }
}

/// Loader and agent, built once; `Err` says why not here.
pub(crate) fn agents() -> Result<&'static Agents, &'static str> {
    static AGENTS: OnceLock<Result<Agents, String>> = OnceLock::new();
    let agents = AGENTS.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
        let options = offshoot_loader::build::Options::new(folder.path().join("loader"));
        let loader = offshoot_loader::build::build(TRIPLE, &options).map_err(|error| error.to_string())?;
        let source = folder.path().join("agent.rs");
        std::fs::write(&source, AGENT.replace("HELLO", &format!("{:?}", hello(NONCE)))).map_err(|e| e.to_string())?;
        let binary = folder.path().join("agent");
        let status = Command::new("rustc")
            .args(["-Copt-level=s", "-Cstrip=symbols", "-Clinker=rust-lld", "--target", TRIPLE, "-o"])
            .args([&binary, &source])
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("rustc has no target {TRIPLE}"));
        }
        let agent = std::fs::read(binary).map_err(|error| error.to_string())?;
        let packed = offshoot_loader::pack::pack(&agent).map_err(|error| error.to_string())?;
        let packed = Packed {
            bytes: packed.bytes.into(),
            properties: packed.properties,
            filter: packed.filter,
            len: agent.len() as u32,
            sha256: Sha256::digest(&agent).into(),
        };
        Bundle::new(TRIPLE, loader.stage0, loader.stage1, packed).map(Agents).map_err(|error| error.to_string())
    });
    agents.as_ref().map_err(String::as_str)
}

fn shell() -> Recipe {
    let argv = ["sh", "-c", Start::PROBE].map(str::to_owned).to_vec();
    Recipe::new("sh", "", Start::Shell { argv, env: Vec::new() })
}

/// Reads until so many bytes came behind what the connect has received.
fn receive(link: &Link, already: &[u8], count: usize) -> Vec<u8> {
    let LinkIo { read, .. } = &link.link;
    let mut bytes = already.to_vec();
    let mut buffer = vec![0; 1 << 16];
    let until = Instant::now() + Duration::from_secs(20);
    while bytes.len() < count {
        assert!(Instant::now() < until, "only {} of {count}: {}", bytes.len(), String::from_utf8_lossy(&bytes));
        wait_readable(&[read.as_fd()], Some(Duration::from_secs(1))).expect("a wait");
        match fd::read(read, &mut buffer) {
            Ok(0) => panic!("the link ended: {}", String::from_utf8_lossy(&bytes)),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    bytes
}

/// What the agent tells of these names, as the [`AGENT`] takes them: its preamble was `tell` and the names.
pub(crate) fn told(link: &Link) -> Vec<String> {
    let mut bytes = link.received.clone();
    while !bytes.ends_with(b"told\n") {
        bytes = receive(link, &bytes, bytes.len() + 1);
    }
    let text = bytes.strip_prefix(&hello(NONCE)[..]).expect("the hello first");
    // Its first line is about its own name.
    let mut told: Vec<String> = std::str::from_utf8(text).expect("text").lines().skip(1).map(str::to_owned).collect();
    assert_eq!(told.pop().as_deref(), Some("told"));
    told
}

/// What every link must do: the agent knows what it is, gets the preamble and then all bytes as they are.
fn check(test: &Test, link: &Link) {
    let head = [hello(NONCE), format!("offshoot-agent {}\npreamble", test.tag()).into_bytes()].concat();
    let got = receive(link, &link.received, head.len());
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&head));
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let LinkIo { write, .. } = &link.link;
    std::thread::scope(|scope| {
        scope.spawn(|| fd::write_all(write, &bytes, Some(Instant::now() + Duration::from_secs(20))).expect("written"));
        assert!(receive(link, &[], bytes.len()) == bytes, "the bytes changed on the way");
    });
}

#[test]
fn an_agent_starts_behind_a_shell_in_two_round_trips_or_in_one() {
    // First of all: what building the agents opens and closes is else counted by another test.
    let test = Test::begin("whole");
    let agents = match agents() {
        Ok(agents) => agents,
        Err(reason) => {
            println!("not run: an_agent_starts_behind_a_shell_in_two_round_trips_or_in_one: {reason}");
            return;
        }
    };
    let mut recipe = shell();
    let link = test.connecting(&recipe).payloads(agents).succeed();
    check(&test, &link);
    let stages: Vec<_> = link.stages.iter().map(|(stage, _)| *stage).collect();
    assert!(stages.contains(&ConnectStage::Payload), "{stages:?}");
    drop(link);
    test.assert_nothing_left(Duration::from_secs(2));

    recipe.triple = Some(TRIPLE.to_owned());
    let link = test.connecting(&recipe).payloads(agents).succeed();
    check(&test, &link);
    let stages: Vec<_> = link.stages.iter().map(|(stage, _)| *stage).collect();
    assert!(!stages.contains(&ConnectStage::Payload), "{stages:?}");
    drop(link);
    test.assert_nothing_left(Duration::from_secs(2));
}

#[test]
fn an_agent_starts_behind_ssh_and_ends_with_it() {
    let test = Test::begin("whole-ssh");
    let sshd = match agents() {
        Ok(_) => Sshd::start(&["PermitRootLogin=yes"]),
        Err(reason) => Err(reason.to_owned()),
    };
    let sshd = match sshd {
        Ok(sshd) => sshd,
        Err(reason) => {
            println!("not run: an_agent_starts_behind_ssh_and_ends_with_it: {reason}");
            return;
        }
    };
    let agents = agents().expect("built above");
    for triple in [None, Some(TRIPLE)] {
        let ssh = sshd.login("user", "known");
        let ssh = triple.map_or(ssh.clone(), |triple| ssh.triple(triple));
        let recipe = ssh.recipe().expect("a recipe");
        let link = test.connecting(&recipe).payloads(agents).succeed();
        check(&test, &link);
        drop(link);
        test.assert_nothing_left(Duration::from_secs(5));
    }
}
