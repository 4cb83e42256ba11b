//! What comes home: the log records of all contexts below the root, and the output of the workers that this process
//! started, into this process's `log`.
//!
//! Owns the inbox and the one thread that empties it; that thread calls the user's logger, which may take its time, so
//! nothing of the node is locked meanwhile. Records that find no room are dropped and counted. Output is never dropped:
//! credit for it is given when the logger has taken it. Who said something is set here, by the address that it came from,
//! and what was said is escaped (S8). Only a root and a worker have this: the stock agent does not link it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use log::kv::{Key, Source, Value, VisitSource};
use log::{Level, Record};
use offshoot_route::ExchangeId;
use offshoot_wire::escape::escaped;
use offshoot_wire::{Address, LogRecord, channel, decode};

use crate::ids::IdMap;
use crate::pieces;
use crate::shared::Shared;

/// How many bytes of records wait for the logger.
const RECORDS: usize = 1024 * 1024;

/// The longest line of output; longer ones go on in the next record. Escaped it is four times that at most.
const LINE: usize = 8 * 1024;

/// Of how many contexts that are gone the names are kept: their last records may come behind the news of their end.
const GONE: usize = 1024;

/// How many news of ends wait for the logger. What is lost below a child is up to that child: beyond this number the names
/// of all that is below those children are forgotten instead.
const NEWS: usize = 4096;

/// How many senders are told apart that this process did not connect itself. A hostile context can make up as many
/// addresses below its own as it likes.
const STRANGERS: usize = 4096;

/// How often it is told at most, of one context, that records of it were lost.
const LOSSES: Duration = Duration::from_secs(1);

/// How long the end of a tree waits for the logger.
const LAST: Duration = Duration::from_secs(2);

enum Item {
    /// A context was connected, or a worker started: the name under which it speaks.
    Name(Address, String),
    /// A context is gone, with all below it.
    Gone(Address),
    /// More was lost below a child than is kept apart.
    Forget(Address),
    Record(Address, Bytes),
    /// What this process has to say itself, for which its lock is held: the level, the target, the text.
    Said(Level, &'static str, String),
    /// Output of the worker that is attended by this exchange.
    Output(ExchangeId, u8, Bytes),
    /// The end of one of its channels, or of all.
    End(ExchangeId, Option<u8>),
    /// A worker is attended.
    Attended(ExchangeId, String),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Bytes of records among them.
    records: usize,
    /// How many of them are news of ends.
    news: usize,
    /// How many were taken from it.
    taken: usize,
    /// Where the last output of a worker's channel stands, counted from the first item that ever came.
    last: HashMap<(ExchangeId, u8), usize>,
    running: bool,
    closed: bool,
}

#[derive(Default)]
struct Inbox {
    queue: Mutex<Queue>,
    came: Condvar,
    ended: Condvar,
}

impl Queue {
    /// Puts one mark for each child in the place of all news of ends.
    fn forget(&mut self) {
        let mut below = BTreeSet::new();
        self.items.retain(|item| match item {
            Item::Gone(prefix) | Item::Forget(prefix) => {
                below.extend(prefix.path().first().and_then(|index| Address::ROOT.child(*index).ok()));
                false
            }
            _ => true,
        });
        self.items.extend(below.into_iter().map(Item::Forget));
        self.news = 0;
        // They stand elsewhere now.
        self.last.clear();
    }

    /// Puts output behind what waits of the same channel; `false` when it is to wait by itself, as the next item.
    fn join(&mut self, id: ExchangeId, channel: u8, data: &[u8]) -> bool {
        if self.items.len() < pieces::APART || !self.running {
            // From here on what is known as the last is no longer.
            self.last.clear();
            return false;
        }
        let last = self.last.entry((id, channel)).or_insert(usize::MAX);
        let item = last.checked_sub(self.taken).and_then(|place| self.items.get_mut(place));
        if let Some(Item::Output(_, _, waiting)) = item
            && pieces::join(waiting, data)
        {
            return true;
        }
        *last = self.taken + self.items.len();
        false
    }
}

impl Item {
    /// What it counts among the records that wait.
    fn cost(&self) -> usize {
        match self {
            Item::Record(_, body) => body.len() + 64,
            Item::Said(_, _, text) => text.len() + 64,
            _ => 0,
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node does with what comes home. A trait, so that what does not construct it does not link it.
pub(crate) trait Homecoming: Send {
    /// Down to which level records are wanted, where this process decides that.
    fn level(&self) -> Option<u8>;
    fn name(&mut self, address: &Address, path: &str);
    fn gone(&mut self, prefix: &Address);
    fn record(&mut self, from: Address, body: Bytes);
    fn said(&mut self, level: Level, target: &'static str, text: String);
    fn attended(&mut self, id: ExchangeId, worker: &Address, path: &str);
    fn attends(&self, id: ExchangeId) -> bool;
    /// The worker that is attended by this exchange.
    fn worker(&self, id: ExchangeId) -> Option<Address>;
    fn output(&mut self, id: ExchangeId, channel: u8, data: Bytes);
    fn ended(&mut self, id: ExchangeId, channel: Option<u8>);
}

/// Brings logs and output into this process's `log`.
pub(crate) struct Home {
    inbox: Arc<Inbox>,
    shared: Weak<Shared>,
    root: bool,
    /// The exchanges by which workers are attended.
    workers: IdMap<ExchangeId, Address>,
}

/// The end of it: waits until the logger has all that came.
pub(crate) struct Closing(Arc<Inbox>);

impl Home {
    pub(crate) fn new(shared: &Arc<Shared>, root: bool) -> (Home, Closing) {
        let inbox = Arc::new(Inbox::default());
        let closing = Closing(Arc::clone(&inbox));
        (Home { inbox, shared: Arc::downgrade(shared), root, workers: IdMap::default() }, closing)
    }

    fn push(&self, item: Item) {
        let mut queue = self.inbox.lock();
        match &item {
            Item::Output(id, channel, data) if queue.join(*id, *channel, data) => return,
            Item::End(id, None) => queue.last.retain(|(of, _), _| of != id),
            _ => {}
        }
        let cost = item.cost();
        if cost > 0 && queue.records >= RECORDS {
            return;
        }
        queue.records += cost;
        if matches!(item, Item::Gone(_)) {
            queue.news += 1;
        }
        let news = matches!(item, Item::Name(..) | Item::Gone(_)) && queue.items.len() < GONE;
        queue.items.push_back(item);
        if queue.news > NEWS {
            queue.forget();
        }
        if queue.running {
            self.inbox.came.notify_one();
        } else if !queue.closed && !news {
            let (inbox, shared) = (Arc::clone(&self.inbox), Weak::clone(&self.shared));
            let thread = std::thread::Builder::new().name("offshoot-log".into());
            // Without a thread it waits for the next one that can be had: what comes asks again.
            queue.running = thread.spawn(move || serve(&inbox, &shared)).is_ok();
        }
    }
}

impl Homecoming for Home {
    fn level(&self) -> Option<u8> {
        self.root.then(|| log::max_level() as u8)
    }

    fn name(&mut self, address: &Address, path: &str) {
        if self.root {
            self.push(Item::Name(address.clone(), speaker(path)));
        }
    }

    fn gone(&mut self, prefix: &Address) {
        if self.root {
            self.push(Item::Gone(prefix.clone()));
        }
    }

    fn record(&mut self, from: Address, body: Bytes) {
        self.push(Item::Record(from, body));
    }

    fn said(&mut self, level: Level, target: &'static str, text: String) {
        self.push(Item::Said(level, target, text));
    }

    fn attended(&mut self, id: ExchangeId, worker: &Address, path: &str) {
        self.workers.insert(id, worker.clone());
        self.push(Item::Attended(id, speaker(path)));
    }

    fn attends(&self, id: ExchangeId) -> bool {
        self.workers.contains_key(&id)
    }

    fn worker(&self, id: ExchangeId) -> Option<Address> {
        self.workers.get(&id).cloned()
    }

    fn output(&mut self, id: ExchangeId, channel: u8, data: Bytes) {
        self.push(Item::Output(id, channel, data));
    }

    fn ended(&mut self, id: ExchangeId, channel: Option<u8>) {
        if channel.is_none() {
            self.workers.remove(&id);
        }
        self.push(Item::End(id, channel));
    }
}

impl Closing {
    /// Waits until all that came has been logged, for two seconds at most: a logger may be stuck.
    pub(crate) fn close(self) {
        let end = Instant::now() + LAST;
        let mut queue = self.0.lock();
        queue.closed = true;
        self.0.came.notify_all();
        while queue.running {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.0.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// How a context is called in the log: its path, which its users chose, shown on one line.
fn speaker(path: &str) -> String {
    escaped(path.replace(" -> ", "/").as_bytes()).to_string()
}

/// The thread: takes what came and logs it, until the node has ended.
fn serve(inbox: &Inbox, shared: &Weak<Shared>) {
    let mut desk = Desk::default();
    loop {
        let mut queue = inbox.lock();
        while queue.items.is_empty() && !queue.closed {
            queue = inbox.came.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.items.is_empty() {
            queue.running = false;
            inbox.ended.notify_all();
            return;
        }
        let item = queue.items.pop_front();
        queue.taken += 1;
        queue.records -= item.as_ref().map_or(0, Item::cost);
        if let Some(Item::Gone(_)) = &item {
            queue.news -= 1;
        }
        drop(queue);
        let Some(item) = item else { continue };
        let read = match &item {
            Item::Output(id, number, data) => Some((*id, *number, data.len())),
            _ => None,
        };
        desk.take(item);
        if let (Some((id, number, length)), Some(shared)) = (read, shared.upgrade()) {
            shared.with(|state, now| state.core.consumed(id, number, length, now));
        }
    }
}

struct Speaker {
    name: String,
    /// The number of its last record.
    seq: u64,
    missing: u64,
    told: Option<Instant>,
}

/// What the thread knows.
#[derive(Default)]
struct Desk {
    speakers: BTreeMap<Address, Speaker>,
    strangers: usize,
    gone: VecDeque<Address>,
    /// Some of those who speak were forgotten while they may have lived: whoever comes anew may have spoken before.
    forgot: bool,
    workers: HashMap<ExchangeId, Worker>,
}

struct Worker {
    name: String,
    /// What came of a line that has not ended, of stdout and of stderr.
    lines: [Vec<u8>; 2],
}

const STREAMS: [&str; 2] = ["stdout", "stderr"];

impl Desk {
    fn take(&mut self, item: Item) {
        match item {
            // Its records may have come before its name.
            Item::Name(address, name) => match self.speakers.entry(address) {
                Entry::Occupied(mut known) => known.get_mut().name = name,
                Entry::Vacant(new) => drop(new.insert(Speaker { name, seq: 0, missing: 0, told: None })),
            },
            Item::Gone(prefix) => self.gone(prefix),
            Item::Forget(child) => {
                self.forgot = true;
                self.speakers.retain(|address, _| !address.is_below(&child));
                self.strangers = self.strangers.min(self.speakers.len());
            }
            Item::Record(from, body) => self.record(&from, &body),
            Item::Said(level, target, text) => {
                let log = || log::log!(target: target, level, "{text}");
                let _ = catch_unwind(AssertUnwindSafe(log));
            }
            Item::Attended(id, name) => drop(self.workers.insert(id, Worker { name, lines: Default::default() })),
            Item::Output(id, number, data) => {
                let index = usize::from(number == channel::STDERR);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.write(index, &data);
                }
            }
            Item::End(id, number) => {
                let Some(worker) = self.workers.get_mut(&id) else { return };
                let over = |index: usize| number.is_none_or(|number| (number == channel::STDERR) == (index == 1));
                (0..2).filter(|index| over(*index)).for_each(|index| worker.flush(index));
                if number.is_none() {
                    self.workers.remove(&id);
                }
            }
        }
    }

    fn gone(&mut self, prefix: Address) {
        self.gone.push_back(prefix);
        if self.gone.len() > GONE
            && let Some(prefix) = self.gone.pop_front()
        {
            self.speakers.retain(|address, _| !address.is_under(&prefix));
            self.strangers = self.strangers.min(self.speakers.len());
        }
    }

    fn record(&mut self, from: &Address, body: &[u8]) {
        let Ok(record) = decode::<LogRecord>(body) else { return };
        if !self.speakers.contains_key(from) {
            if self.strangers >= STRANGERS {
                return;
            }
            self.strangers += 1;
            let name = self.stranger(from);
            let seq = if self.forgot { record.seq.saturating_sub(1) } else { 0 };
            self.speakers.insert(from.clone(), Speaker { name, seq, missing: 0, told: None });
        }
        let Some(speaker) = self.speakers.get_mut(from) else { return };
        speaker.missing = speaker.missing.saturating_add(record.seq.saturating_sub(speaker.seq.saturating_add(1)));
        speaker.seq = speaker.seq.max(record.seq);
        let level = match record.level {
            1 => Some(Level::Error),
            2 => Some(Level::Warn),
            3 => Some(Level::Info),
            4 => Some(Level::Debug),
            5 => Some(Level::Trace),
            _ => None,
        };
        let due = speaker.told.is_none_or(|told| told.elapsed() >= LOSSES) || level.is_none();
        if speaker.missing > 0 && due {
            speaker.told = Some(Instant::now());
            let missing = std::mem::take(&mut speaker.missing);
            let text = format!("{missing} lines dropped");
            emit(&speaker.name, Level::Warn, "log", &text, None);
        }
        let Some(level) = level else { return };
        let module = escaped(record.module.as_bytes()).to_string();
        let text = escaped(record.text.as_bytes()).to_string();
        let thread = escaped(record.thread.as_bytes()).to_string();
        emit(&speaker.name, level, &module, &text, Some((record.unix_us, &thread)));
    }

    /// The name of a context that another one connected: that of the next above that is known, and its address.
    fn stranger(&self, address: &Address) -> String {
        let mut above = address.parent();
        while let Some(at) = above {
            if let Some(known) = self.speakers.get(&at) {
                return format!("{}+{address}", known.name);
            }
            above = at.parent();
        }
        address.to_string()
    }
}

impl Worker {
    fn write(&mut self, index: usize, mut data: &[u8]) {
        while let Some(at) = data.iter().position(|byte| *byte == b'\n') {
            self.append(index, &data[..at]);
            self.end_line(index);
            data = &data[at + 1..];
        }
        self.append(index, data);
    }

    fn append(&mut self, index: usize, mut part: &[u8]) {
        while self.lines[index].len() + part.len() > LINE {
            let (now, later) = part.split_at(LINE - self.lines[index].len());
            self.lines[index].extend_from_slice(now);
            self.end_line(index);
            part = later;
        }
        self.lines[index].extend_from_slice(part);
    }

    fn end_line(&mut self, index: usize) {
        let line = std::mem::take(&mut self.lines[index]);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        emit(&self.name, Level::Info, STREAMS[index], &escaped(line).to_string(), None);
    }

    fn flush(&mut self, index: usize) {
        if !self.lines[index].is_empty() {
            self.end_line(index);
        }
    }
}

/// The time and the thread of a record, for loggers that show such values: `time` in seconds since 1970, `thread`.
struct Origin<'a>(Option<(u64, &'a str)>);

impl Source for Origin<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), log::kv::Error> {
        let Some((unix_us, thread)) = self.0 else { return Ok(()) };
        visitor.visit_pair(Key::from("time"), Value::from(unix_us as f64 / 1e6))?;
        visitor.visit_pair(Key::from("thread"), Value::from(thread))
    }
}

fn emit(speaker: &str, level: Level, module: &str, text: &str, origin: Option<(u64, &str)>) {
    if level > log::max_level() {
        return;
    }
    // What is made here is as old as it is.
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_micros() as u64;
    let origin = Origin(Some(origin.unwrap_or((now, ""))));
    let target = format!("ctx.{speaker}::{module}");
    let log = || {
        log::logger().log(
            &Record::builder()
                .target(&target)
                .level(level)
                .module_path(Some(module))
                .key_values(&origin)
                .args(format_args!("{text}"))
                .build(),
        );
    };
    // A logger is the user's: its panic, which its hook has reported, costs that record alone, and not what came with it.
    let _ = catch_unwind(AssertUnwindSafe(log));
}

#[cfg(test)]
mod tests {
    use offshoot_route::{Node, Time};
    use offshoot_wire::Verb;

    use super::*;

    #[test]
    fn s12_losses_that_nobody_has_time_to_hear_of_are_kept_as_one_for_each_child() {
        let inbox = Arc::new(Inbox::default());
        // The logger is stuck.
        inbox.lock().running = true;
        let mut home = Home { inbox: Arc::clone(&inbox), shared: Weak::new(), root: true, workers: IdMap::default() };
        let address = |text: &str| text.parse::<Address>().expect("an address");
        for named in ["/0", "/0/7", "/1", "/1/3", "/1/3/4", "/2/5"] {
            home.name(&address(named), named);
        }
        home.gone(&address("/2/5"));
        for index in 0..50_000 {
            home.gone(&address("/1").child(index + 10).expect("not deep"));
            assert!(inbox.lock().items.len() <= 2 * NEWS, "{index} losses are kept");
        }
        let mut desk = Desk::default();
        let items = std::mem::take(&mut inbox.lock().items);
        items.into_iter().for_each(|item| desk.take(item));
        let left: Vec<String> = desk.speakers.keys().map(Address::to_string).collect();
        assert_eq!(left, ["/0", "/0/7", "/1"], "who is below a child that says too much, or is gone, is forgotten");
        // Who was forgotten and speaks again has lost nothing for all that is known.
        desk.take(record(&address("/1/3"), 500));
        assert_eq!(desk.speakers[&address("/1/3")].missing, 0);
    }

    /// A home whose logger is the test, and exchanges by which workers are attended.
    fn stuck(workers: usize) -> (Home, Vec<ExchangeId>) {
        let inbox = Arc::new(Inbox::default());
        inbox.lock().running = true;
        let mut core = Node::root(offshoot_route::Config::default(), [0; 16], [0; 32], Time::from_micros(0));
        let (_, child, _) = core.reserve_child(Time::from_micros(0)).expect("room for a child");
        let mut ask = || core.request(&child, Verb::Attend, Bytes::new(), None, Time::from_micros(0)).expect("room");
        let ids = (0..workers).map(|_| ask()).collect();
        (Home { inbox, shared: Weak::new(), root: true, workers: IdMap::default() }, ids)
    }

    fn take(home: &Home, count: usize, taken: &mut HashMap<(ExchangeId, u8), Vec<u8>>) {
        let mut queue = home.inbox.lock();
        for _ in 0..count.min(queue.items.len()) {
            queue.taken += 1;
            if let Some(Item::Output(id, channel, data)) = queue.items.pop_front() {
                taken.entry((id, channel)).or_default().extend_from_slice(&data);
            }
        }
    }

    #[test]
    fn s12_output_byte_by_byte_for_a_logger_that_is_stuck_takes_no_place_for_each() {
        let (mut home, ids) = stuck(50);
        let (mut taken, mut said) = (HashMap::new(), HashMap::<_, Vec<u8>>::new());
        for at in 0..200_000usize {
            let (id, channel, byte) = (ids[at % 50], 1 + (at % 7 % 2) as u8, (at % 251) as u8);
            home.output(id, channel, Bytes::copy_from_slice(&[byte]));
            said.entry((id, channel)).or_default().push(byte);
            if at % 1000 == 0 {
                // Something else in between, and the logger takes one.
                home.name(&Address::ROOT, "x");
                take(&home, 1, &mut taken);
            }
        }
        home.ended(ids[3], None);
        let items = home.inbox.lock().items.len();
        let places = home.inbox.lock().last.len();
        assert!(items <= pieces::APART + 1000, "{items} items");
        assert_eq!(places, 98, "the places of an exchange that has ended are kept");
        take(&home, items, &mut taken);
        assert!(taken == said, "what was said is not what came");
    }

    #[test]
    fn output_keeps_its_order_for_a_logger_that_is_now_early_and_now_late() {
        let (mut home, ids) = stuck(3);
        let (mut taken, mut said) = (HashMap::new(), HashMap::<_, Vec<u8>>::new());
        let mut random = 1u32;
        let mut next = |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % below
        };
        let (mut joined, mut apart) = (0, 0);
        for byte in 0..100_000u32 {
            let (id, channel) = (ids[next(3) as usize], 1 + next(2) as u8);
            let before = home.inbox.lock().items.len();
            home.output(id, channel, Bytes::copy_from_slice(&byte.to_le_bytes()));
            said.entry((id, channel)).or_default().extend_from_slice(&byte.to_le_bytes());
            let waiting = home.inbox.lock().items.len();
            *(if waiting == before { &mut joined } else { &mut apart }) += 1;
            // Around the number from which on pieces are joined.
            if waiting >= pieces::APART && next(4) == 0 {
                take(&home, 1 + next(3) as usize, &mut taken);
            }
        }
        assert!(joined > 10_000 && apart > 10_000, "{joined} joined, {apart} apart");
        take(&home, usize::MAX, &mut taken);
        assert!(taken == said, "the order is lost");
    }

    #[test]
    fn records_that_come_before_the_name_of_their_context_are_not_missing() {
        let (mut desk, address) = (Desk::default(), Address::ROOT.child(3).expect("not deep"));
        for seq in [1, 2, 3] {
            desk.take(record(&address, seq));
        }
        desk.take(Item::Name(address.clone(), "web1".into()));
        for (seq, missing) in [(4, 0), (5, 0), (8, 2)] {
            // As if it had been told just now: what is missing is kept, and not told.
            desk.speakers.get_mut(&address).expect("known").told = Some(Instant::now());
            desk.take(record(&address, seq));
            assert_eq!(desk.speakers[&address].missing, missing, "at record {seq}");
        }
        assert_eq!(desk.speakers[&address].name, "web1");
    }

    fn record(from: &Address, seq: u64) -> Item {
        let (thread, module, text) = ("t".into(), "m".into(), "x".into());
        let record = LogRecord { seq, level: 3, unix_us: 0, thread, module, text };
        Item::Record(from.clone(), offshoot_wire::encode(&record).into())
    }
}
