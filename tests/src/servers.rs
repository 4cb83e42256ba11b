//! TCP servers that are no sshd: one that says nothing, one that talks garbage, one that hangs up. Each runs in a process of its own, so that it can live
//! in any network namespace.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::host::first_line;
use crate::not_run::Unavailable;

/// How a server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// Accepts, reads, and never says a byte.
    Silent,
    /// Says lines that no protocol knows, with control characters in them, without end.
    Garbage,
    /// Accepts and hangs up at once.
    HangsUp,
    /// Introduces itself as an SSH server and then sends random-looking bytes.
    FalseSsh,
}

impl Temper {
    /// Its name on the command line of the fixture program.
    pub fn name(self) -> &'static str {
        match self {
            Temper::Silent => "silent",
            Temper::Garbage => "garbage",
            Temper::HangsUp => "hangs-up",
            Temper::FalseSsh => "false-ssh",
        }
    }

    /// The temper of that name.
    pub fn named(name: &str) -> Option<Temper> {
        [Temper::Silent, Temper::Garbage, Temper::HangsUp, Temper::FalseSsh]
            .into_iter()
            .find(|temper| temper.name() == name)
    }
}

/// Serves for ever, a thread for each connection.
///
/// # Errors
///
/// When the listener fails.
pub fn serve(listener: &TcpListener, temper: Temper) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || behave(stream, temper));
    }
}

fn behave(mut stream: TcpStream, temper: Temper) {
    let noise: Vec<u8> = (0..4096_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    match temper {
        Temper::HangsUp => {
            let _ = stream.shutdown(Shutdown::Both);
        }
        Temper::Silent => {
            // Read, so that the other side's close is seen and this thread ends.
            while let Ok(1..) = stream.read(&mut [0; 4096]) {}
        }
        Temper::Garbage => {
            while stream.write_all(b"\x1b[31mwhat?\x07 \xff\xfe\x00 never heard of that\r\n").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
        Temper::FalseSsh => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
            while stream.write_all(&noise).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A server's process; ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts one by `command`, which runs the fixture program where it is wanted.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(mut command: Command, temper: Temper) -> Result<Server, Unavailable> {
        let (child, port) = start_listening(command.args(["serve", temper.name()]))?;
        Ok(Server { child, port })
    }

    /// Starts one by a command that says its port.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn listening(mut command: Command) -> Result<Server, Unavailable> {
        let (child, port) = start_listening(&mut command)?;
        Ok(Server { child, port })
    }

    /// Starts one on the machine itself.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn on_machine(temper: Temper) -> Result<Server, Unavailable> {
        Server::start(Command::new(crate::host::fixture_program()), temper)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Begins what its plan has for when it is told.
    ///
    /// # Panics
    ///
    /// When it does not run any more.
    pub fn begin(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("stdin is on a pipe");
        stdin.write_all(b"begin\n").expect("it runs as long as this value");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a fixture process that prints the port it listens on as its first line, and ends with its standard input.
pub(crate) fn start_listening(command: &mut Command) -> Result<(Child, u16), Unavailable> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Unavailable::because(format!("the fixture program: {error}")))?;
    let stdout = child.stdout.take().expect("stdout is on a pipe");
    match first_line(stdout, Duration::from_secs(10)).map(|line| line.parse()) {
        Ok(Ok(port)) => Ok((child, port)),
        other => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Unavailable::because(format!("the fixture program does not listen: {other:?}")))
        }
    }
}

/// A listener on a free port of 127.0.0.1 and that port, for the fixture program.
///
/// # Errors
///
/// What the system says.
pub fn listen() -> std::io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen_in_thread(temper: Temper) -> TcpStream {
        let (listener, port) = listen().unwrap();
        thread::spawn(move || serve(&listener, temper));
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream
    }

    #[test]
    fn the_silent_server_takes_a_connection_and_says_nothing() {
        let mut stream = listen_in_thread(Temper::Silent);
        stream.write_all(b"SSH-2.0-x\r\n").unwrap();
        let error = stream.read(&mut [0; 16]).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    }

    #[test]
    fn the_others_say_garbage_or_nothing_at_all() {
        let mut first = [0; 16];
        assert!(listen_in_thread(Temper::Garbage).read(&mut first).unwrap() > 0 && first[0] == 0x1b);
        assert!(listen_in_thread(Temper::FalseSsh).read(&mut first).unwrap() > 0 && first.starts_with(b"SSH-2.0"));
        assert_eq!(listen_in_thread(Temper::HangsUp).read(&mut first).unwrap(), 0);
    }
}
