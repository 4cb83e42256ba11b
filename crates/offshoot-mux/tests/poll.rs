//! The poller, its waker and the boundary between a leading caller and the broker, on real descriptors.
#![cfg(not(loom))]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use offshoot_mux::lead::{Baton, Slot, Turn};
use offshoot_mux::{Events, Interest, Poller, Token, WakeFd, io, wait_readable};

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

fn wait(poller: &mut Poller, timeout: Duration) -> Vec<offshoot_mux::Event> {
    let mut events = Events::with_capacity(16);
    poller.wait(&mut events, Some(timeout)).unwrap();
    events.iter().collect()
}

#[test]
fn readiness_is_told_once_and_again_after_resume() {
    let mut poller = Poller::new().unwrap();
    let registry = poller.registry();
    let (ours, theirs) = io::socketpair().unwrap();
    io::set_nonblocking(&ours, true).unwrap();
    registry.add(ours.as_fd(), Token(1), Interest::Read).unwrap();
    io::write(&theirs, b"x").unwrap();
    assert!(wait(&mut poller, LONG)[0].readable);
    assert!(wait(&mut poller, SOON).is_empty(), "edge-triggered");

    registry.suspend(ours.as_fd(), Token(1)).unwrap();
    io::write(&theirs, b"y").unwrap();
    assert!(wait(&mut poller, SOON).is_empty(), "suspended");
    registry.resume(ours.as_fd(), Token(1), Interest::Read).unwrap();
    let events = wait(&mut poller, LONG);
    assert!(events[0].token == Token(1) && events[0].readable, "bytes that came meanwhile are told");

    registry.remove(ours.as_fd()).unwrap();
    io::write(&theirs, b"z").unwrap();
    assert!(wait(&mut poller, SOON).is_empty());
    assert_eq!(registry.remove(ours.as_fd()).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_hang_up_is_told_even_while_suspended_but_only_once() {
    let mut poller = Poller::new().unwrap();
    let registry = poller.registry();
    let (ours, theirs) = io::socketpair().unwrap();
    registry.add(ours.as_fd(), Token(1), Interest::Read).unwrap();
    registry.suspend(ours.as_fd(), Token(1)).unwrap();
    drop(theirs);
    wait(&mut poller, SOON);
    assert!(wait(&mut poller, SOON).is_empty(), "a suspended link must not make the broker spin");
    registry.resume(ours.as_fd(), Token(1), Interest::Read).unwrap();
    assert!(wait(&mut poller, LONG)[0].read_closed);
}

#[test]
fn the_pollers_own_token_is_refused() {
    let poller = Poller::new().unwrap();
    let (ours, _theirs) = io::socketpair().unwrap();
    assert!(poller.registry().add(ours.as_fd(), Token::MAX, Interest::Read).is_err());
}

#[test]
fn a_wake_ends_the_wait_before_and_during_it() {
    let mut poller = Poller::new().unwrap();
    let mut events = Events::with_capacity(4);
    let waker = poller.waker();
    waker.wake();
    waker.wake();
    poller.wait(&mut events, Some(LONG)).unwrap();
    assert!(events.woken());
    let began = Instant::now();
    poller.wait(&mut events, Some(SOON)).unwrap();
    assert!(!events.woken() && began.elapsed() >= SOON);

    let other = thread::spawn(move || {
        thread::sleep(SOON);
        waker.wake();
    });
    let began = Instant::now();
    while !events.woken() {
        poller.wait(&mut events, Some(LONG)).unwrap();
    }
    assert!(began.elapsed() < LONG);
    assert_eq!(events.iter().count(), 0, "the waker's own event is not the user's");
    other.join().unwrap();
}

#[test]
fn many_wakers_lose_no_work() {
    let mut poller = Poller::new().unwrap();
    let mut events = Events::with_capacity(4);
    let work = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (waker, work) = (poller.waker(), Arc::clone(&work));
            thread::spawn(move || {
                for _ in 0..20_000 {
                    work.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            })
        })
        .collect();
    let began = Instant::now();
    while work.load(Ordering::Relaxed) < 80_000 {
        poller.wait(&mut events, Some(LONG)).unwrap();
        assert!(began.elapsed() < LONG, "a wake-up was lost");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_wake_fd_ends_the_owners_poll_and_leaves_nothing_behind() {
    let wake = Arc::new(WakeFd::new().unwrap());
    wake.wake();
    assert!(wake.wait(&[], Some(LONG)).unwrap().woken());
    assert!(!wake.wait(&[], Some(SOON)).unwrap().woken());
    wake.wake();
    wake.acknowledge();
    assert!(!wake.wait(&[], Some(SOON)).unwrap().woken());
    let (ours, theirs) = io::pipe().unwrap();
    io::write(&theirs, b"x").unwrap();
    let ready = wake.wait(&[ours.as_fd()], Some(LONG)).unwrap();
    assert!(ready.has(0) && !ready.has(1) && !ready.woken());
    assert!(wait_readable(&[ours.as_fd()], Some(LONG)).unwrap().has(0));
    let many = vec![ours.as_fd(); 64];
    assert!(wait_readable(&many, None).is_err());
    assert!(wait_readable(&many[..63], None).unwrap().has(62));
}

#[test]
fn a_slot_is_completed_once_and_taken_once() {
    let slot = Slot::new();
    assert!(slot.wait(Some(Instant::now() + SOON)).is_none());
    assert!(slot.complete(1));
    assert!(!slot.complete(2));
    assert!(slot.is_done());
    assert_eq!(slot.wait(None), Some(1));
    assert_eq!(slot.try_take(), None);
    let given_up = Slot::new();
    assert_eq!(given_up.close(), None);
    assert!(!given_up.complete(1), "the completer learns that nobody waits");
}

/// Callers ask an echo over one link, reading it themselves when they can; the broker thread reads it otherwise.
#[test]
fn leading_callers_and_the_broker_lose_no_answer() {
    const CALLERS: usize = 4;
    const CALLS: usize = 2500;
    struct Link {
        fd: std::os::fd::OwnedFd,
        baton: Baton,
        slots: Vec<Slot<()>>,
        led: AtomicU64,
        turns: AtomicU64,
        reading: AtomicBool,
    }
    /// A frame is two bytes: the number of the slot.
    fn read(link: &Link) {
        assert!(!link.reading.swap(true, Ordering::SeqCst), "two readers");
        let mut buffer = [0; 2];
        while let Ok(2) = io::read(&link.fd, &mut buffer) {
            link.slots[usize::from(u16::from_be_bytes(buffer))].complete(());
        }
        link.reading.store(false, Ordering::SeqCst);
    }
    let (ours, theirs) = io::socketpair().unwrap();
    io::set_nonblocking(&ours, true).unwrap();
    let far = thread::spawn(move || {
        let mut buffer = [0; 256];
        loop {
            // Frames must leave whole: the stream keeps pairs together, since all writes are of two bytes.
            match io::read(&theirs, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(n) => io::write_all(&theirs, &buffer[..n], None).unwrap(),
            }
        }
    });
    let mut poller = Poller::new().unwrap();
    let registry = poller.registry();
    registry.add(ours.as_fd(), Token(0), Interest::Read).unwrap();
    let waker = poller.waker();
    let link = Arc::new(Link {
        fd: ours,
        baton: Baton::new(),
        slots: (0..CALLERS * CALLS).map(|_| Slot::new()).collect(),
        led: AtomicU64::new(0),
        turns: AtomicU64::new(0),
        reading: AtomicBool::new(false),
    });
    let over = Arc::new(AtomicBool::new(false));
    let broker = {
        let (link, over) = (Arc::clone(&link), Arc::clone(&over));
        thread::spawn(move || {
            let mut events = Events::with_capacity(8);
            while !over.load(Ordering::SeqCst) {
                poller.wait(&mut events, Some(LONG)).unwrap();
                for _ in events.iter() {
                    if let Turn::Read(_turn) = link.baton.turn() {
                        link.turns.fetch_add(1, Ordering::Relaxed);
                        read(&link);
                    }
                }
            }
        })
    };
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (link, registry) = (Arc::clone(&link), registry.clone());
            thread::spawn(move || {
                let wake = Arc::new(WakeFd::new().unwrap());
                for call in 0..CALLS {
                    wake.acknowledge();
                    let number = caller * CALLS + call;
                    let slot = &link.slots[number];
                    assert_eq!(io::write(&link.fd, &(number as u16).to_be_bytes()).unwrap(), 2);
                    if let Some(lead) = registry.lead(&link.baton, &wake, link.fd.as_fd(), Token(0), Interest::Read) {
                        link.led.fetch_add(1, Ordering::Relaxed);
                        slot.attach(&wake);
                        while !slot.is_done() && !lead.is_closed() {
                            if wake.wait(&[link.fd.as_fd()], Some(LONG)).unwrap().has(0) {
                                read(&link);
                            }
                        }
                    }
                    assert!(slot.wait(Some(Instant::now() + LONG)).is_some(), "an answer was lost");
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    over.store(true, Ordering::SeqCst);
    waker.wake();
    broker.join().unwrap();
    println!("led {} turns {}", link.led.load(Ordering::Relaxed), link.turns.load(Ordering::Relaxed));
    assert!(link.led.load(Ordering::Relaxed) > 0);
    drop(registry);
    drop(link);
    far.join().unwrap();
}

#[test]
fn closing_a_link_wakes_the_caller_that_leads_it() {
    let baton = Arc::new(Baton::new());
    let wake = Arc::new(WakeFd::new().unwrap());
    let mut rearmed = false;
    let lead = baton.try_lead(&wake, || rearmed = true).unwrap();
    assert!(matches!(baton.turn(), Turn::Led));
    assert!(baton.try_lead(&wake, || ()).is_none());
    let closer = {
        let baton = Arc::clone(&baton);
        thread::spawn(move || {
            thread::sleep(SOON);
            baton.close();
        })
    };
    let began = Instant::now();
    while !lead.is_closed() {
        wake.wait(&[], Some(LONG)).unwrap();
    }
    assert!(began.elapsed() < LONG);
    drop(lead);
    closer.join().unwrap();
    assert!(!rearmed && matches!(baton.turn(), Turn::Closed));
}
