//! Every interleaving of the wake-up flag, of the leader/follower boundary and of a crew of threads behind it, on a model
//! of the kernel.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p offshoot-mux --release --test loom --target-dir target/loom`
#![cfg(loom)]

use std::sync::Arc as StdArc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use offshoot_mux::crew::Crew;
use offshoot_mux::lead::{Baton, Slot, Turn};
use offshoot_mux::{WakeFd, WakeFlag};

/// The largest preemption count tried: two catch nearly every known mistake of this kind, three are affordable here.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// An eventfd that a poll waits for.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<usize>,
    changed: Condvar,
}

impl Doorbell {
    fn new() -> Self {
        Doorbell { rung: Mutex::new(0), changed: Condvar::new() }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn poll(&self) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = 0;
    }
}

#[test]
fn a_sleeper_misses_no_work_of_two_wakers() {
    model(|| {
        let shared = Arc::new((WakeFlag::new(), Doorbell::new(), AtomicUsize::new(0)));
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (flag, bell, work) = &*shared;
                    work.fetch_add(1, Ordering::Relaxed);
                    if flag.notify() {
                        bell.ring();
                    }
                })
            })
            .collect();
        let (flag, bell, work) = &*shared;
        // A lost wake-up shows as a deadlock here.
        while work.load(Ordering::Relaxed) < 2 {
            if flag.begin_sleep() {
                bell.poll();
            }
            flag.end_sleep();
        }
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
    });
}

#[test]
fn a_bell_rings_at_most_once_per_sleep() {
    model(|| {
        let shared = Arc::new((WakeFlag::new(), AtomicUsize::new(0)));
        assert!(shared.0.begin_sleep());
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    if shared.0.notify() {
                        shared.1.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        assert_eq!(shared.1.load(Ordering::Relaxed), 1);
        assert!(shared.0.end_sleep());
    });
}

/// The kernel's side of one link: bytes (numbers of slots answered), the broker's edge-triggered interest, the bells of
/// the callers.
struct Kernel {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    bytes: Vec<usize>,
    armed: bool,
    edge: bool,
    over: bool,
    rung: [bool; 2],
}

impl Kernel {
    fn new() -> Self {
        let state = State { bytes: Vec::new(), armed: true, edge: false, over: false, rung: [false; 2] };
        Kernel { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn deliver(&self, slot: usize) {
        self.change(|state| {
            state.bytes.push(slot);
            state.edge |= state.armed;
        });
    }

    fn suspend(&self) {
        self.change(|state| state.armed = false);
    }

    fn resume(&self) {
        self.change(|state| {
            state.armed = true;
            state.edge |= !state.bytes.is_empty();
        });
    }

    /// `poll(2)` of a caller: whether the link is readable.
    fn poll(&self, caller: usize) -> bool {
        let mut state = self.state.lock().unwrap();
        while state.bytes.is_empty() && !state.rung[caller] {
            state = self.changed.wait(state).unwrap();
        }
        state.rung[caller] = false;
        !state.bytes.is_empty()
    }

    /// `epoll_wait` of the broker: `false` when the test is over.
    fn next_edge(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while !state.edge && !state.over {
            state = self.changed.wait(state).unwrap();
        }
        std::mem::take(&mut state.edge)
    }

    fn read(&self) -> Option<usize> {
        self.state.lock().unwrap().bytes.pop()
    }
}

struct Link {
    kernel: StdArc<Kernel>,
    baton: Baton,
    slots: Vec<Slot<usize>>,
    reading: AtomicBool,
}

impl Link {
    fn new(slots: usize) -> StdArc<Self> {
        StdArc::new(Link {
            kernel: StdArc::new(Kernel::new()),
            baton: Baton::new(),
            slots: (0..slots).map(|_| Slot::new()).collect(),
            reading: AtomicBool::new(false),
        })
    }

    fn read(&self) {
        assert!(!self.reading.swap(true, Ordering::SeqCst), "two readers");
        while let Some(slot) = self.kernel.read() {
            assert!(self.slots[slot].complete(slot), "completed twice");
        }
        self.reading.store(false, Ordering::SeqCst);
    }

    fn broker(&self) {
        while self.kernel.next_edge() {
            if let Turn::Read(_turn) = self.baton.turn() {
                self.read();
            }
        }
    }

    fn wake_fd(&self, caller: usize) -> Arc<WakeFd> {
        let kernel = StdArc::clone(&self.kernel);
        Arc::new(WakeFd::with_bell(offshoot_mux::Bell(Box::new(move || {
            kernel.change(|state| state.rung[caller] = true);
        }))))
    }

    /// A call whose request is on its way: as the documentation of `lead` has it.
    fn call(&self, caller: usize) -> usize {
        let wake = self.wake_fd(caller);
        wake.acknowledge();
        if let Some(lead) = self.baton.try_lead(&wake, || self.kernel.resume()) {
            self.kernel.suspend();
            self.slots[caller].attach(&wake);
            while !self.slots[caller].is_done() && !lead.is_closed() {
                let readable = wake.flag().begin_sleep() && self.kernel.poll(caller);
                wake.flag().end_sleep();
                if readable {
                    self.read();
                }
            }
        }
        self.slots[caller].wait(None).unwrap()
    }
}

#[test]
fn one_caller_and_the_broker_share_a_link() {
    model(|| {
        let link = Link::new(1);
        let broker = {
            let link = StdArc::clone(&link);
            thread::spawn(move || link.broker())
        };
        let caller = {
            let link = StdArc::clone(&link);
            thread::spawn(move || assert_eq!(link.call(0), 0))
        };
        link.kernel.deliver(0);
        caller.join().unwrap();
        link.kernel.change(|state| state.over = true);
        broker.join().unwrap();
    });
}

#[test]
fn two_callers_and_the_broker_share_a_link() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let link = Link::new(2);
        let broker = {
            let link = StdArc::clone(&link);
            thread::spawn(move || link.broker())
        };
        let other = {
            let link = StdArc::clone(&link);
            thread::spawn(move || assert_eq!(link.call(1), 1))
        };
        link.kernel.deliver(1);
        link.kernel.deliver(0);
        assert_eq!(link.call(0), 0);
        other.join().unwrap();
        link.kernel.change(|state| state.over = true);
        broker.join().unwrap();
    });
}

#[test]
fn bytes_that_arrive_while_a_leader_lets_go_reach_the_broker() {
    model(|| {
        // The leader's own slot is completed by another thread; the answer to slot 1 comes at any moment.
        let link = Link::new(2);
        let leader = {
            let link = StdArc::clone(&link);
            thread::spawn(move || assert_eq!(link.call(0), 7))
        };
        let broker = {
            let link = StdArc::clone(&link);
            thread::spawn(move || {
                assert!(link.slots[0].complete(7));
                link.broker();
            })
        };
        link.kernel.deliver(1);
        assert_eq!(link.slots[1].wait(None), Some(1));
        leader.join().unwrap();
        link.kernel.change(|state| state.over = true);
        broker.join().unwrap();
    });
}

#[test]
fn closing_a_led_link_ends_the_leader() {
    model(|| {
        let link = Link::new(1);
        let leader = {
            let link = StdArc::clone(&link);
            thread::spawn(move || link.call(0))
        };
        link.baton.close();
        // As a node does: the link's end completes what waits for it.
        link.slots[0].complete(9);
        assert_eq!(leader.join().unwrap(), 9);
        assert!(matches!(link.baton.turn(), Turn::Closed));
        assert!(link.baton.try_lead(&link.wake_fd(0), || ()).is_none());
    });
}

#[test]
fn a_leader_leaves_a_closed_link_before_its_slot_is_done() {
    model(|| {
        let link = Link::new(1);
        let wake = link.wake_fd(0);
        let closer = {
            let link = StdArc::clone(&link);
            thread::spawn(move || link.baton.close())
        };
        wake.acknowledge();
        if let Some(lead) = link.baton.try_lead(&wake, || link.kernel.resume()) {
            while !lead.is_closed() {
                if wake.flag().begin_sleep() {
                    link.kernel.poll(0);
                }
                wake.flag().end_sleep();
            }
        }
        closer.join().unwrap();
    });
}

#[test]
fn a_value_is_either_taken_or_refused() {
    model(|| {
        let slot = Arc::new(Slot::new());
        let completer = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.complete(1))
        };
        let taken = slot.close();
        assert_eq!(completer.join().unwrap(), taken.is_some());
    });
}

#[test]
fn two_completers_complete_once() {
    model(|| {
        let slot = Arc::new(Slot::new());
        let completers: Vec<_> = (0..2)
            .map(|number| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || slot.complete(number))
            })
            .collect();
        let value: usize = slot.wait(None).unwrap();
        for (number, completer) in completers.into_iter().enumerate() {
            assert_eq!(completer.join().unwrap(), number == value);
        }
    });
}

/// What ends a thread of a crew.
const STOP: usize = usize::MAX;

/// A node whose threads run what comes by its link, as the documentation of `crew` has it.
struct Worker {
    link: StdArc<Link>,
    crew: Crew<usize>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    /// How often each job was run, and whether the test is told.
    ran: Mutex<Vec<usize>>,
    all: Condvar,
}

impl Worker {
    fn new(threads: usize, jobs: usize) -> StdArc<Self> {
        StdArc::new(Worker {
            link: Link::new(0),
            crew: Crew::new(threads),
            threads: Mutex::new(Vec::new()),
            ran: Mutex::new(vec![0; jobs]),
            all: Condvar::new(),
        })
    }

    /// Brings what came by the link. Called by whoever may read it, as under a node's lock.
    fn read(self: &StdArc<Self>) {
        assert!(!self.link.reading.swap(true, Ordering::SeqCst), "two readers");
        while let Some(job) = self.link.kernel.read() {
            self.push(job);
        }
        self.link.reading.store(false, Ordering::SeqCst);
    }

    fn push(self: &StdArc<Self>, job: usize) {
        self.crew.push(job, || self.start()).unwrap();
    }

    fn start(self: &StdArc<Self>) -> std::io::Result<()> {
        let worker = StdArc::clone(self);
        let mut threads = self.threads.lock().unwrap();
        let number = threads.len();
        threads.push(thread::spawn(move || worker.serve(number)));
        Ok(())
    }

    fn serve(self: &StdArc<Self>, number: usize) {
        self.crew.arrive();
        let wake = self.link.wake_fd(number);
        loop {
            let job = self.next(number, &wake);
            if job == STOP {
                return;
            }
            let mut ran = self.ran.lock().unwrap();
            ran[job] += 1;
            self.all.notify_all();
        }
    }

    fn next(self: &StdArc<Self>, number: usize, wake: &Arc<WakeFd>) -> usize {
        if self.crew.is_quiet() {
            let ticket = Arc::new(Slot::new());
            if let Some(job) = self.lead(number, wake, &ticket).or_else(|| self.crew.let_go(&ticket)) {
                return job;
            }
        }
        // The model knows no time: it waits until there is one.
        let far = std::time::Instant::now() + std::time::Duration::from_secs(3600);
        self.crew.next(far, || self.start()).unwrap()
    }

    fn lead(self: &StdArc<Self>, number: usize, wake: &Arc<WakeFd>, ticket: &Arc<Slot<()>>) -> Option<usize> {
        let kernel = &self.link.kernel;
        wake.acknowledge();
        let lead = self.link.baton.try_lead(wake, || kernel.resume())?;
        kernel.suspend();
        if !self.crew.lead(ticket) || !ticket.attach(wake) {
            return None;
        }
        loop {
            let readable = wake.flag().begin_sleep() && kernel.poll(number);
            wake.flag().end_sleep();
            if readable {
                self.read();
            }
            let job = self.crew.take(ticket);
            if job.is_some() || ticket.is_done() || lead.is_closed() {
                return job;
            }
        }
    }

    /// The broker, until the test is over.
    fn broker(self: &StdArc<Self>) {
        while self.link.kernel.next_edge() {
            if let Turn::Read(_turn) = self.link.baton.turn() {
                self.read();
            }
        }
    }

    /// Each job once, and every thread ends.
    fn finish(self: &StdArc<Self>, broker: thread::JoinHandle<()>) {
        let mut ran = self.ran.lock().unwrap();
        while ran.contains(&0) {
            ran = self.all.wait(ran).unwrap();
        }
        drop(ran);
        self.link.kernel.change(|state| state.over = true);
        broker.join().unwrap();
        self.crew.set_limit(0);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap());
        for _ in &threads {
            self.push(STOP);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(self.ran.lock().unwrap().iter().all(|times| *times == 1), "a job was run twice");
    }
}

/// Jobs come by the link of a worker with at most so many threads, at any moment.
fn a_worker_runs(threads: usize, jobs: usize) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let worker = Worker::new(threads, jobs);
        let broker = {
            let worker = StdArc::clone(&worker);
            thread::spawn(move || worker.broker())
        };
        for job in 0..jobs {
            worker.link.kernel.deliver(job);
        }
        worker.finish(broker);
    });
}

#[test]
fn one_thread_runs_each_job_that_comes_and_reads_the_link_meanwhile() {
    a_worker_runs(1, 3);
}

#[test]
fn two_threads_run_each_job_that_comes_and_one_reads_the_link_meanwhile() {
    a_worker_runs(2, 2);
}

#[test]
fn a_job_from_another_thread_reaches_the_one_that_reads() {
    model(|| {
        let worker = Worker::new(1, 2);
        let broker = {
            let worker = StdArc::clone(&worker);
            thread::spawn(move || worker.broker())
        };
        worker.link.kernel.deliver(0);
        // From a function, or from the broker's timer: by no link.
        worker.push(1);
        worker.finish(broker);
    });
}
