//! A link that misbehaves by plan: slow, cut, silent in one direction, damaged.
//!
//! Owns the plan and the pump between two byte streams; must not know what the bytes mean, nor where the streams come
//! from. Also compiled into the end-to-end tests' fixture program, so it depends on nothing.
//!
//! A plan is a list of faults, `DIRECTION WHEN : WHAT`, joined by commas: `up@5000:flip,down+200:hole`. *Down* is away
//! from the master, *up* is towards it, *both* is both. A fault begins at a byte (`@5000` is the byte with that number,
//! counted from 0), at a time (`+200` milliseconds from the start), or when whoever runs the plan says so (`!`); with none
//! of them it holds from the beginning.

use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Everything comes later by this much, in order: `delay=MILLISECONDS`.
    Delay(Duration),
    /// No more bytes per second than this: `rate=BYTES`.
    Rate(u64),
    /// Nothing is taken any more, so that the writer blocks: `stall`.
    Stall,
    /// All is taken, the end too, and nothing comes out: `hole`.
    Hole,
    /// The reader sees the end, and the writer notices nothing: `close`.
    Close,
    /// Both directions end at once: `cut`.
    Cut,
    /// One bit of the next byte is another, once: `flip`.
    Flip,
    /// Each byte comes alone: `split`.
    Split,
    /// The next bytes, as many as came together, come twice, once: `double`.
    Double,
}

/// When a fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Byte(u64),
    After(Duration),
    Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault {
    when: When,
    what: What,
    done: bool,
}

/// What a link does wrong in each direction, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    down: Vec<Fault>,
    up: Vec<Fault>,
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for fault in text.split(',').filter(|fault| !fault.is_empty()) {
            let bad = || format!("{fault:?} is no fault: expected DIRECTION[@BYTE|+MILLISECONDS|!]:WHAT");
            let (place, what) = fault.split_once(':').ok_or_else(bad)?;
            let at = place.find(['@', '+', '!']).unwrap_or(place.len());
            let (direction, when) = place.split_at(at);
            let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
            let when = match when.split_at_checked(1) {
                Some(("@", byte)) => When::Byte(number(byte)?),
                Some(("+", time)) => When::After(Duration::from_millis(number(time)?)),
                Some(("!", "")) => When::Told,
                Some(("!", _)) => return Err(bad()),
                _ => When::Byte(0),
            };
            let what = match what.split_once('=').unwrap_or((what, "")) {
                ("delay", time) => What::Delay(Duration::from_millis(number(time)?)),
                ("rate", bytes) => What::Rate(number(bytes)?.max(1)),
                ("stall", "") => What::Stall,
                ("hole", "") => What::Hole,
                ("close", "") => What::Close,
                ("cut", "") => What::Cut,
                ("flip", "") => What::Flip,
                ("split", "") => What::Split,
                ("double", "") => What::Double,
                _ => return Err(bad()),
            };
            let fault = Fault { when, what, done: false };
            if !["down", "up", "both"].contains(&direction) {
                return Err(bad());
            }
            if direction != "up" {
                plan.down.push(fault);
            }
            if direction != "down" {
                plan.up.push(fault);
            }
        }
        Ok(plan)
    }
}

/// One end of a link, from both sides of which it is read and written.
pub(crate) struct End {
    /// Where its bytes come from.
    pub(crate) read: Box<dyn Read + Send>,
    /// Where it is written; closed by being dropped.
    pub(crate) write: Box<dyn Write + Send>,
}

type Writer = Arc<Mutex<Option<Box<dyn Write + Send>>>>;

/// What is on its way out.
enum Held {
    Bytes(Vec<u8>),
    Rate(u64),
    Split,
    End,
}

/// Pumps between the end towards the master and the other one, on threads that live until their stream ends or, under
/// a fault that keeps it, as long as the process. `told` begins what is to begin when it is said; `cut` is called for
/// [`What::Cut`]. What is returned gives an error from receiving once both directions have ended.
pub(crate) fn run(
    plan: Plan,
    master: End,
    other: End,
    told: &Arc<AtomicBool>,
    cut: impl Fn() + Send + Sync + 'static,
) -> mpsc::Receiver<()> {
    let cut: Arc<dyn Fn() + Send + Sync> = Arc::new(cut);
    let (open, ended) = mpsc::channel();
    for (faults, read, write) in [(plan.down, master.read, other.write), (plan.up, other.read, master.write)] {
        let (cut, told, open) = (Arc::clone(&cut), Arc::clone(told), open.clone());
        thread::spawn(move || {
            Way { faults, passed: 0, started: Instant::now(), told, cut }.pump(read, write);
            drop(open);
        });
    }
    ended
}

/// One direction.
struct Way {
    faults: Vec<Fault>,
    passed: u64,
    started: Instant,
    told: Arc<AtomicBool>,
    cut: Arc<dyn Fn() + Send + Sync>,
}

impl Way {
    fn pump(mut self, mut read: Box<dyn Read + Send>, write: Box<dyn Write + Send>) {
        let write: Writer = Arc::new(Mutex::new(Some(write)));
        self.at_their_times(&write);
        let (hold, held) = mpsc::sync_channel(1024);
        let theirs = Arc::clone(&write);
        let writer = thread::spawn(move || write_out(&held, &theirs));
        let mut buffer = vec![0; 16 * 1024];
        // An error is the end, too: this is how a process that was killed leaves a socket.
        while let Ok(count @ 1..) = read.read(&mut buffer) {
            let mut rest = &mut buffer[..count];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at_mut(self.until_next(rest.len()));
                rest = more;
                if !self.pass(piece, &write, &hold) {
                    return;
                }
            }
        }
        if self.holds(What::Hole) {
            forever();
        }
        let _ = hold.send((Instant::now() + self.delay(), Held::End));
        drop(hold);
        let _ = writer.join();
    }

    /// Faults that begin at a time and need no byte to show.
    fn at_their_times(&self, write: &Writer) {
        for fault in self.faults.clone() {
            let (When::After(_) | When::Told, What::Close | What::Cut) = (fault.when, fault.what) else { continue };
            let (write, cut) = (Arc::clone(write), Arc::clone(&self.cut));
            let (told, started) = (Arc::clone(&self.told), self.started);
            thread::spawn(move || {
                match fault.when {
                    When::After(time) => thread::sleep(time.saturating_sub(started.elapsed())),
                    _ => {
                        while !told.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_millis(2));
                        }
                    }
                }
                write.lock().unwrap_or_else(PoisonError::into_inner).take();
                if fault.what == What::Cut {
                    cut();
                }
            });
        }
    }

    /// How many of the next bytes lie before the next fault.
    fn until_next(&self, count: usize) -> usize {
        let next = self.faults.iter().filter_map(|fault| match fault.when {
            When::Byte(at) => at.checked_sub(self.passed).filter(|left| *left > 0),
            When::After(_) | When::Told => None,
        });
        next.min().map_or(count, |left| count.min(usize::try_from(left).unwrap_or(count)))
    }

    fn begun(&self, fault: &Fault) -> bool {
        match fault.when {
            When::Byte(at) => self.passed >= at,
            When::After(time) => self.started.elapsed() >= time,
            When::Told => self.told.load(Ordering::Relaxed),
        }
    }

    fn holds(&self, what: What) -> bool {
        self.faults.iter().any(|fault| fault.what == what && self.begun(fault))
    }

    /// Whether this fault is to happen now; not again.
    fn once(&mut self, what: What) -> bool {
        let now = self.faults.iter().position(|fault| fault.what == what && !fault.done && self.begun(fault));
        now.is_some_and(|index| {
            self.faults[index].done = true;
            true
        })
    }

    fn delay(&self) -> Duration {
        let of = |fault: &Fault| match fault.what {
            What::Delay(by) if self.begun(fault) => Some(by),
            _ => None,
        };
        self.faults.iter().filter_map(of).max().unwrap_or_default()
    }

    /// Passes bytes on; `false` when nothing more is to be read.
    fn pass(&mut self, piece: &mut [u8], write: &Writer, hold: &mpsc::SyncSender<(Instant, Held)>) -> bool {
        if self.holds(What::Cut) {
            (self.cut)();
            return false;
        }
        if self.holds(What::Stall) {
            forever();
        }
        if self.holds(What::Close) {
            write.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let swallowed = self.holds(What::Close) || self.holds(What::Hole);
        if !swallowed {
            if self.once(What::Flip) {
                piece[0] ^= 0x20;
            }
            let times = 1 + usize::from(self.once(What::Double));
            let due = Instant::now() + self.delay();
            let rates: Vec<u64> = self
                .faults
                .iter()
                .filter(|fault| self.begun(fault))
                .filter_map(|fault| if let What::Rate(rate) = fault.what { Some(rate) } else { None })
                .collect();
            let manner = rates.into_iter().map(Held::Rate).chain(self.holds(What::Split).then_some(Held::Split));
            let bytes = (0..times).map(|_| Held::Bytes(piece.to_vec()));
            for held in manner.chain(bytes) {
                if hold.send((due, held)).is_err() {
                    // The reader has gone: read on, as a network does.
                    break;
                }
            }
        }
        self.passed += piece.len() as u64;
        true
    }
}

fn write_out(held: &mpsc::Receiver<(Instant, Held)>, write: &Writer) {
    let (mut rate, mut split) = (None, false);
    for (due, what) in held {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let bytes = match what {
            Held::Bytes(bytes) => bytes,
            Held::Rate(limit) => {
                rate = Some(limit);
                continue;
            }
            Held::Split => {
                split = true;
                continue;
            }
            Held::End => break,
        };
        let step = if split { 1 } else { rate.map_or(bytes.len(), |rate| (rate / 20).clamp(1, 16 * 1024) as usize) };
        for part in bytes.chunks(step) {
            if let Some(rate) = rate {
                thread::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64));
            }
            let mut write = write.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(to) = write.as_mut() else { return };
            if to.write_all(part).and_then(|()| to.flush()).is_err() {
                write.take();
                return;
            }
        }
    }
    write.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Until the process ends.
fn forever() -> ! {
    loop {
        thread::park();
    }
}
