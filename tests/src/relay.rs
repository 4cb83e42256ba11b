//! A TCP relay that makes a link slow, or cuts it: kernels without netem are common.
//!
//! Delay is per direction and keeps throughput: what has been read is held until it is due, up to 16 MiB. A cut link passes nothing and closes nothing,
//! as a network that drops packets; mending it lets go what was held.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::not_run::Unavailable;
use crate::servers::start_listening;

/// What can be changed while a relay runs.
#[derive(Debug, Default)]
pub struct Knobs {
    delay: AtomicU64,
    cut: AtomicBool,
}

impl Knobs {
    /// Sets the one-way delay of what is read from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.delay.store(delay.as_micros().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Stops (true) or resumes (false) passing bytes.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Obeys lines of text until they end: `delay MILLISECONDS`, `cut`, `mend`.
    pub fn obey(&self, lines: impl BufRead) {
        for line in lines.lines().map_while(Result::ok) {
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("delay", milliseconds) => self.set_delay(Duration::from_millis(milliseconds.parse().unwrap_or(0))),
                ("cut", _) => self.set_cut(true),
                ("mend", _) => self.set_cut(false),
                _ => (),
            }
        }
    }
}

/// Relays for ever, each connection to `target`.
///
/// # Errors
///
/// When the listener fails.
pub fn serve(listener: &TcpListener, target: SocketAddr, knobs: &Arc<Knobs>) -> io::Result<()> {
    loop {
        let (near, _) = listener.accept()?;
        let knobs = knobs.clone();
        thread::spawn(move || {
            let Ok(far) = TcpStream::connect(target) else {
                return;
            };
            for stream in [&near, &far] {
                let _ = stream.set_nodelay(true);
            }
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                let other = knobs.clone();
                thread::spawn(move || pump(near_too, far_too, &other));
                pump(far, near, &knobs);
            }
        });
    }
}

const CHUNK: usize = 16 * 1024;
const CHUNKS: usize = 1024;

fn pump(mut from: TcpStream, mut to: TcpStream, knobs: &Arc<Knobs>) {
    let (hold, held) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS);
    let reader_knobs = knobs.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let due = Instant::now() + Duration::from_micros(reader_knobs.delay.load(Ordering::Relaxed));
            if hold.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    let wait_while_cut = || {
        while knobs.cut.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
    };
    for (due, bytes) in held {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        wait_while_cut();
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    wait_while_cut();
    let _ = to.shutdown(Shutdown::Write);
}

/// A relay's process; ends with this value.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    stdin: ChildStdin,
    port: u16,
}

impl Relay {
    /// Starts one by `command`, which runs the fixture program where it is wanted. `delay` is one way.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(mut command: Command, target: SocketAddr, delay: Duration) -> Result<Relay, Unavailable> {
        let (mut child, port) =
            start_listening(command.args(["relay", &target.to_string(), &delay.as_millis().to_string()]))?;
        let stdin = child.stdin.take().expect("stdin is on a pipe");
        Ok(Relay { child, stdin, port })
    }

    /// Its port on 127.0.0.1 of the network where it runs.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the relay reads its input as long as it lives");
    }

    /// Changes the one-way delay.
    pub fn set_delay(&mut self, delay: Duration) {
        self.tell(&format!("delay {}", delay.as_millis()));
    }

    /// Passes nothing from now on.
    pub fn cut(&mut self) {
        self.tell("cut");
    }

    /// Passes again.
    pub fn mend(&mut self) {
        self.tell("mend");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::listen;

    /// A relay in front of an echo server: the connection, and the knobs.
    fn echo() -> (TcpStream, Arc<Knobs>) {
        let (echo, echo_port) = listen().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = echo.accept().unwrap();
            let mut back = stream.try_clone().unwrap();
            let _ = io::copy(&mut stream, &mut back);
            let _ = back.shutdown(Shutdown::Write);
        });
        let (listener, port) = listen().unwrap();
        let knobs = Arc::new(Knobs::default());
        let inner = knobs.clone();
        thread::spawn(move || serve(&listener, ([127, 0, 0, 1], echo_port).into(), &inner));
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (stream, knobs)
    }

    #[test]
    fn a_round_trip_takes_twice_the_delay_and_changes_no_byte() {
        let (mut stream, knobs) = echo();
        knobs.set_delay(Duration::from_millis(50));
        let started = Instant::now();
        stream.write_all(b"ping").unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        let took = started.elapsed();
        assert_eq!(&back, b"ping");
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");

        knobs.set_delay(Duration::from_millis(5));
        let sent: Vec<u8> = (0..3_000_000_u32).map(|index| (index.wrapping_mul(7919) >> 5) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut came = Vec::new();
        stream.read_to_end(&mut came).unwrap();
        assert!(came == sent, "{} of {} bytes came back, or they differ", came.len(), sent.len());
    }

    #[test]
    fn a_cut_link_passes_nothing_until_it_is_mended() {
        let (mut stream, knobs) = echo();
        knobs.obey(&b"delay 1\ncut\n"[..]);
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.write_all(b"ping").unwrap();
        assert!(stream.read(&mut [0; 4]).is_err());
        knobs.obey(&b"mend\n"[..]);
        let mut back = [0; 4];
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }
}
