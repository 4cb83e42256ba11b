//! Echoes lines between a link, a child process and a timer, on one thread: `cargo run -p offshoot-mux --example echo`.
//!
//! A child (`cat`) sits on the far end of a socketpair. Each second, as each tick of the timer, a line goes out; what
//! comes back is printed; after three lines the link is closed, the child ends, and its end is the last event.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use offshoot_mux::{Events, Interest, OutQueue, Poller, Spawn, Stdio, Timers, Token, io as fd};

const LINK: Token = Token(0);
const CHILD: Token = Token(1);

fn main() -> io::Result<()> {
    let mut poller = Poller::new()?;
    let registry = poller.registry();
    let (ours, theirs) = fd::socketpair()?;
    fd::set_nonblocking(&ours, true)?;

    // The child has the other end as its input and output, and nothing else of ours.
    let child = Spawn::new("cat").stdin(theirs.as_fd()).stdout(theirs.as_fd()).stderr(Stdio::Inherit).start()?;
    drop(theirs);
    registry.add(child.exit_fd()?, CHILD, Interest::Read)?;
    registry.add(ours.as_fd(), LINK, Interest::Both)?;
    let mut link = Some(ours);

    let mut out = OutQueue::new(64 * 1024);
    let mut timers = Timers::new();
    timers.insert(Instant::now(), 1);
    let mut events = Events::with_capacity(16);
    loop {
        let wait = timers.next().map(|at| at.saturating_duration_since(Instant::now()));
        poller.wait(&mut events, wait)?;
        while let Some(number) = timers.pop_expired(Instant::now()) {
            // Three short lines always fit.
            out.push_small(format!("line {number}\n").as_bytes()).map_err(io::Error::other)?;
            if number < 3 {
                timers.insert(Instant::now() + Duration::from_secs(1), number + 1);
            }
        }
        if let Some(link) = &link {
            out.write_to(link, 64 * 1024)?;
        }
        for event in events.iter() {
            if event.token == CHILD
                && let Some(status) = child.try_wait()?
            {
                println!("the child has ended: {status}");
                return Ok(());
            }
            if event.token == LINK
                && event.readable
                && let Some(open) = &link
            {
                // Edge-triggered: read until there is no more.
                let mut buffer = [0; 1024];
                while let Ok(len @ 1..) = fd::read(open, &mut buffer) {
                    print!("{}", String::from_utf8_lossy(&buffer[..len]));
                    if buffer[..len].ends_with(b"line 3\n") {
                        registry.remove(open.as_fd())?;
                        link = None;
                        break;
                    }
                }
            }
        }
    }
}
