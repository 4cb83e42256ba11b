//! The program that the contexts of the evil-agent tests are started from: an honest agent, an honest worker with some
//! functions, a process that hands its link to the test, which then says on it whatever it likes, or a relay in front of an
//! honest agent, which alters what passes.
//!
//! Which of these it is, the test decides at each start, at every depth of its tree: this process is named after an
//! abstract unix socket of the test's and asks there. Where nobody listens it is an honest agent. Runs on one thread,
//! which an honest agent needs for its fork; a relay has one for each direction.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use offshoot_connect::APART;
use offshoot_node::agent::{self, Program};
use offshoot_node::{Calls, Invocation};
use offshoot_wire::{Failure, FailureKind};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

#[path = "../../tests/evil/relay.rs"]
mod relay;

fn main() -> ExitCode {
    let ended = |what: &str, outcome: io::Result<()>| match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offshoot-evil: {what}: {error}");
            ExitCode::FAILURE
        }
    };
    match director() {
        Ok(Some(Role::Evil(director))) => ended("the link cannot be handed over", hand_over(director)),
        Ok(Some(Role::Relay(harm))) => ended("the relay", relay::run(harm)),
        Ok(None) if std::env::args().nth(1).as_deref() == Some("offshoot-worker") => {
            ExitCode::from(agent::run_program(&Program { identity: || Ok([1; 32]), calls: Arc::new(Functions) }))
        }
        Ok(None) => ExitCode::from(agent::run()),
        Err(error) => {
            eprintln!("offshoot-evil: the test has gone while it was asked: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What an honest worker can be asked for.
struct Functions;

impl Calls for Functions {
    fn call(&self, call: &Invocation) -> Result<Vec<u8>, Failure> {
        match call.function.as_str() {
            "echo" => Ok(call.args.to_vec()),
            "large" => Ok(vec![b'v'; 8 << 20]),
            "never" => loop {
                std::thread::sleep(Duration::from_secs(600));
            },
            name => Err(Failure::new(FailureKind::Unsupported, format!("no function {name:?}"))),
        }
    }
}

/// What this process is to be instead of honest.
enum Role {
    /// The connection to the test, which is to get the link.
    Evil(UnixStream),
    /// A relay that does this.
    Relay(relay::Harm),
}

fn director() -> io::Result<Option<Role>> {
    let name = std::env::args_os().next().unwrap_or_default().into_vec();
    let Ok(address) = SocketAddr::from_abstract_name(name) else { return Ok(None) };
    let Ok(mut director) = UnixStream::connect_addr(&address) else { return Ok(None) };
    let mut role = [0];
    director.read_exact(&mut role)?;
    match role {
        [b'e'] => Ok(Some(Role::Evil(director))),
        [b'r'] => {
            let mut harm = [0];
            director.read_exact(&mut harm)?;
            let harm = relay::Harm::from_byte(harm[0]).ok_or_else(|| io::Error::other("no such harm"))?;
            Ok(Some(Role::Relay(harm)))
        }
        _ => Ok(None),
    }
}

/// Gives the link's two descriptors to the test, and lives until the test lets go.
fn hand_over(mut director: UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    let write = offshoot_mux::io::take_passed(APART)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let link = [stdin.as_fd(), write.as_fd()];
    let fits = message.push(SendAncillaryMessage::ScmRights(&link));
    debug_assert!(fits, "two descriptors fit the space for two");
    sendmsg(&director, &[IoSlice::new(b"l")], &mut message, SendFlags::empty())?;
    drop(write);
    // The link ends when the test closes it, and not when this process does.
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut word = [0];
    if director.read(&mut word)? == 0 {
        return Ok(());
    }
    // Told to: error output as fast as it is taken, until the test lets go.
    director.set_nonblocking(true)?;
    let noise = [b'!'; 64 * 1024];
    for _ in 0..4 {
        // By descriptors of their own: the handle of the standard library has a lock.
        let mut errors = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
        std::thread::spawn(move || while errors.write_all(&noise).is_ok() {});
    }
    loop {
        std::thread::sleep(Duration::from_millis(10));
        match director.read(&mut word) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}
