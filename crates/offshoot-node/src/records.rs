//! This process's own log records, on their way to the root.
//!
//! Owns the logger of agents and workers. Records are made on any thread, also while the node's lock is held, so they
//! wait in a queue of their own; the broker hands them to the core. What finds no room is dropped: logs never stop work.
//! The number that each record carries counts the dropped ones too.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use log::{LevelFilter, Log, Metadata, Record};
use offshoot_mux::Waker;
use offshoot_route::{Node, Time};
use offshoot_wire::{Limits, LogRecord, encode};

/// How many bytes of records wait here: as much as the core holds for the link.
const WAITING: usize = 256 * 1024;

/// What a record costs beside its bytes, as the core counts it.
const COST: usize = 64;

/// The longest text: a record with long names still fits [`Limits::LOG`].
const TEXT: usize = Limits::LOG - 1024;

/// How often is looked whether the core has room for what waits.
const AGAIN: Duration = Duration::from_millis(20);

/// How long after a storm its last number is told, for whoever counts what was lost.
const CALM: Duration = Duration::from_millis(300);

/// So many records within that time are a storm: some may be lost on the way.
const STORM: u32 = 64;

/// The queue. There is one, as there is one logger in a process.
static RECORDS: Records = Records { some: AtomicBool::new(false), queue: Mutex::new(Queue::NEW) };

struct Records {
    /// Whether anything waits.
    some: AtomicBool,
    queue: Mutex<Queue>,
}

struct Queue {
    bodies: VecDeque<Bytes>,
    bytes: usize,
    /// The number of the last record.
    seq: u64,
    /// Records since the last one that only counts.
    uncounted: u32,
    lost: bool,
    waker: Option<Waker>,
}

impl Queue {
    const NEW: Queue = Queue { bodies: VecDeque::new(), bytes: 0, seq: 0, uncounted: 0, lost: false, waker: None };

    fn push(&mut self, mut record: LogRecord) {
        self.seq += 1;
        record.seq = self.seq;
        let body = encode(&record);
        self.bytes += body.len() + COST;
        self.bodies.push_back(body.into());
    }
}

impl Records {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text of at most so many bytes.
struct Cut(String, usize);

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(self.1 - self.0.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn name(text: &str) -> String {
    let mut name = Cut(String::new(), Limits::NAME);
    // What does not fit is left out.
    let _ = name.write_str(text);
    name.0
}

impl Log for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        {
            let mut queue = self.lock();
            if queue.bytes >= WAITING {
                queue.seq += 1;
                queue.lost = true;
                return;
            }
        }
        // Formatting runs the user's code: not under the lock, since it may log too.
        let mut text = Cut(String::new(), TEXT);
        if text.write_fmt(*record.args()).is_err() {
            text.0.push('…');
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = LogRecord {
            seq: 0,
            level: record.level() as u8,
            unix_us: since.as_micros() as u64,
            module: name(record.target()),
            thread: offshoot_mux::thread::with_name(name),
            text: text.0,
        };
        let mut queue = self.lock();
        queue.push(record);
        queue.uncounted = queue.uncounted.saturating_add(1);
        if !self.some.swap(true, Ordering::AcqRel)
            && let Some(waker) = &queue.waker
        {
            waker.wake();
        }
    }

    fn flush(&self) {}
}

/// Makes this process's log go to the root from now on, down to `level`.
pub(crate) fn start(waker: Waker, level: u8) {
    RECORDS.lock().waker = Some(waker);
    // There is none before: this runs before any code of the user's.
    let _ = log::set_logger(&RECORDS);
    set_level(level);
}

/// Records less serious than `level` are not made.
pub(crate) fn set_level(level: u8) {
    log::set_max_level(match level {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    });
}

/// Whether anything waits for [`hand_over`].
pub(crate) fn any() -> bool {
    RECORDS.some.load(Ordering::Relaxed)
}

/// Hands the core as much as it has room for. Yields when to come again, if that is to be.
pub(crate) fn hand_over(core: &mut Node, now: Time) -> Option<Duration> {
    let mut queue = RECORDS.lock();
    while let Some(body) = queue.bodies.front() {
        let cost = body.len() + COST;
        if core.log_room() < cost {
            return Some(AGAIN);
        }
        queue.bytes -= cost;
        if let Some(body) = queue.bodies.pop_front() {
            core.log(body, now);
        }
    }
    RECORDS.some.store(false, Ordering::Release);
    (queue.lost || queue.uncounted >= STORM).then_some(CALM)
}

/// Tells how many records there were so far, after a storm that is over. Yields as [`hand_over`].
pub(crate) fn count(core: &mut Node, now: Time) -> Option<Duration> {
    {
        let mut queue = RECORDS.lock();
        if queue.bodies.is_empty() && (queue.lost || queue.uncounted >= STORM) {
            (queue.lost, queue.uncounted) = (false, 0);
            let (module, thread, text) = (String::new(), String::new(), String::new());
            queue.push(LogRecord { seq: 0, level: 0, unix_us: 0, module, thread, text });
        }
    }
    hand_over(core, now)
}
