//! A relay for TCP on loopback that gives a path a round-trip time or a rate, and counts its bytes.
//!
//! Owns its listener and threads: one accepts, and each connection has a reader and a writer for each direction. Every chunk is
//! delivered half a round trip after it came, or when a link of that rate would have, and a new connection starts one round trip late, as a
//! handshake would. Holds at most 64 chunks of 64 KiB for each direction of a connection, of 8 KiB where there is a rate.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running relay; ends when dropped.
pub(crate) struct Delay {
    port: u16,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// What a path is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    pub(crate) round_trip: Duration,
    /// Bytes a second, in each direction of a connection.
    pub(crate) rate: Option<u64>,
}

#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
}

impl Delay {
    /// Listens on a free port of loopback and passes each connection on to `target`.
    pub(crate) fn start(target: u16, path: Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (count, stopped) = (counts.clone(), stop.clone());
        let accepting = std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let count = count.clone();
                // Detached: it ends when either end of the connection does.
                std::thread::spawn(move || serve(near, target, path, &count));
            }
        });
        Ok(Self { port, counts, stop, accepting: Some(accepting) })
    }

    /// The port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Bytes towards the target and back so far.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.counts.up.load(Ordering::Acquire), self.counts.down.load(Ordering::Acquire))
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes `accept`; when that fails the listener is gone already.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(near: TcpStream, target: u16, path: Path, counts: &Arc<Counts>) {
    std::thread::sleep(path.round_trip);
    let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
        return;
    };
    let pair = |from: &TcpStream, to: &TcpStream| Some((from.try_clone().ok()?, to.try_clone().ok()?));
    let (Some(up), Some(down)) = (pair(&near, &far), pair(&far, &near)) else {
        return;
    };
    for end in [&near, &far] {
        // Only a delay of the measurement itself would follow from a failure.
        let _ = end.set_nodelay(true);
    }
    let count = counts.clone();
    let upwards = std::thread::spawn(move || pump(up, path, &count.up));
    pump(down, path, &counts.down);
    // The server has ended: nothing that still comes from the client can matter.
    let _ = near.shutdown(Shutdown::Both);
    let _ = upwards.join();
}

fn pump((mut from, mut to): (TcpStream, TcpStream), path: Path, count: &AtomicU64) {
    let (queue, due) = sync_channel::<(Instant, Vec<u8>)>(64);
    let writing = std::thread::spawn(move || {
        // When the link has sent what came before. By the clock of the link: a sleep that is too long costs nothing.
        let mut free = Instant::now();
        for (came, chunk) in due {
            let takes =
                path.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(chunk.len() as f64 / rate as f64));
            free = free.max(came) + takes;
            let at = free + path.round_trip / 2;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                return;
            }
        }
        // The other side may be gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; if path.rate.is_some() { 8 * 1024 } else { 64 * 1024 }];
    while let Ok(n) = from.read(&mut buffer) {
        if n == 0 {
            break;
        }
        count.fetch_add(n as u64, Ordering::AcqRel);
        if queue.send((Instant::now(), buffer[..n].to_vec())).is_err() {
            break;
        }
    }
    drop(queue);
    let _ = writing.join();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_through_the_relay_takes_its_time_and_is_counted() {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = echo.local_addr().unwrap().port();
        let echoing = std::thread::spawn(move || {
            let (mut s, _) = echo.accept().unwrap();
            let mut b = [0; 3];
            s.read_exact(&mut b).unwrap();
            s.write_all(&b).unwrap();
        });
        let relay = Delay::start(target, Path { round_trip: Duration::from_millis(40), rate: None }).unwrap();
        let mut s = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        let start = Instant::now();
        s.write_all(b"abc").unwrap();
        let mut all = Vec::new();
        s.read_to_end(&mut all).unwrap();
        let took = start.elapsed();
        assert_eq!(all, b"abc");
        assert!(took >= Duration::from_millis(80), "handshake and echo took {took:?}");
        assert_eq!(relay.bytes(), (3, 3));
        echoing.join().unwrap();
    }

    #[test]
    fn a_rate_is_kept_over_many_chunks() {
        let sink = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = sink.local_addr().unwrap().port();
        let sinking = std::thread::spawn(move || {
            let (mut s, _) = sink.accept().unwrap();
            std::io::copy(&mut s, &mut std::io::sink()).unwrap();
            s.write_all(&[1]).unwrap();
        });
        let relay = Delay::start(target, Path { rate: Some(4 << 20), ..Path::default() }).unwrap();
        let mut s = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
        let start = Instant::now();
        s.write_all(&vec![7; 1 << 20]).unwrap();
        s.shutdown(Shutdown::Write).unwrap();
        s.read_exact(&mut [0]).unwrap();
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(250), "a quarter of a second's bytes took {took:?}");
        assert!(took < Duration::from_secs(3), "a quarter of a second's bytes took {took:?}");
        sinking.join().unwrap();
    }
}
