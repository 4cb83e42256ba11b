//! S12, S13: a child that sends as much as its link takes. Its honest sibling is answered in time, and the memory of who
//! must bear it stays in bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_node::{Context, Pending};
use offshoot_wire::{
    Address, Credit, Failure, FailureKind, Frame, FrameKind, Gone, GrantLink, ImageSpec, LostReason, PayloadSpec, Ping,
    Verb, encode,
};

use crate::case::{Scene, answer, request};
use crate::stage::{PATIENCE, Place, alone, memory};

/// For how long a flood is borne.
pub(crate) const LASTS: Duration = Duration::from_millis(400);

/// The promise is 5 × idle + 50 ms; asserted is three times that, since a test's machine does other things too.
pub(crate) fn bound(idle: Duration) -> Duration {
    3 * (5 * idle + Duration::from_millis(50))
}

/// What may wait for a link is 4 MiB in each direction, and a child has one link. Beside that: the buffers of the
/// descriptors, what the allocator keeps, and what a debug build needs for its threads. Three times the promise.
pub(crate) const GROWTH: u64 = 3 * 2 * (4 << 20);

/// The 99th percentile of a context's answer, calling one after the other: of so many that one stall is not it.
pub(crate) fn p99(context: &Context, lasts: Duration) -> Duration {
    let (until, mut times) = (Instant::now() + lasts, Vec::new());
    while Instant::now() < until || times.len() < 300 {
        let began = Instant::now();
        let echo = context.start_echo(b"honest").expect("it is up");
        assert_eq!(&echo.wait_timeout(PATIENCE).expect("the honest sibling answers")[..], b"honest");
        times.push(began.elapsed());
    }
    times.sort();
    times[times.len() * 99 / 100]
}

/// What repeats: a piece of many frames, made anew by each round's number.
pub(crate) type Piece = fn(&Scene, u64) -> Vec<u8>;

/// How many frames a piece has.
const FRAMES: u64 = 200;

pub(crate) fn frames(round: u64, mut frame: impl FnMut(u64) -> Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in round * FRAMES..(round + 1) * FRAMES {
        frame(number).encode(&mut bytes);
    }
    bytes
}

/// Writes pieces until the link is closed or it is told to stop; how many bytes were taken.
fn pour(scene: &Scene, piece: Piece, stop: &Arc<AtomicBool>) -> (JoinHandle<()>, Arc<AtomicU64>) {
    let write = scene.link.writer();
    // Made beforehand: the flood must cost its maker little.
    let pieces: Vec<Vec<u8>> = (0..50).map(|round| piece(scene, round)).collect();
    let (stop, poured) = (stop.clone(), Arc::new(AtomicU64::new(0)));
    let count = poured.clone();
    let thread = std::thread::spawn(move || {
        for piece in pieces.iter().cycle() {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match offshoot_mux::io::write(&write, rest) {
                    Ok(taken) => {
                        count.fetch_add(taken as u64, Ordering::Relaxed);
                        rest = &rest[taken..];
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    Err(_) => return,
                }
            }
        }
    });
    (thread, poured)
}

/// A flood by a child that reads nothing of what comes back, which may cost so many bytes of memory.
pub(crate) fn flood(place: Place, prepare: fn(&mut Scene), piece: Piece, growth: u64) {
    let mut scene = Scene::new(place);
    prepare(&mut scene);
    let idle = p99(&scene.stage.sibling, LASTS / 2);
    // The flood's own memory is allocated before the first look.
    let stop = Arc::new(AtomicBool::new(false));
    let agents: Vec<i32> = scene.stage.director.processes().iter().map(|process| process.pid).collect();
    let total = |agents: &[i32]| memory("self") + agents.iter().map(memory).sum::<u64>();
    let (thread, poured) = pour(&scene, piece, &stop);
    let before = total(&agents);
    let busy = p99(&scene.stage.sibling, LASTS);
    let after = total(&agents);
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("no panic");
    let bytes = poured.load(Ordering::Relaxed);
    assert!(bytes > 0, "nothing was poured");
    assert!(busy <= bound(idle), "p99 {busy:?} beside the flood, {idle:?} idle, {bytes} bytes poured");
    assert!(after <= before + growth, "{} KiB more after {bytes} bytes", (after - before) >> 10);
    println!(
        "p99 idle {idle:?}, beside {} KiB of flood {busy:?}, {} KiB more memory",
        bytes >> 10,
        after.saturating_sub(before) >> 10
    );
    let Scene { stage, link, evil, .. } = scene;
    drop(evil);
    drop(link.close());
    stage.finish();
}

macro_rules! floods {
    ($($name:ident: $prepare:expr, $piece:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn below_the_master() {
                alone(|| flood(Place::BelowTheMaster, $prepare, $piece, GROWTH));
            }

            #[test]
            fn below_an_agent() {
                alone(|| flood(Place::BelowAnAgent, $prepare, $piece, GROWTH));
            }
        })*
    };
}

floods! {
    s13_pings: |_| {}, |_, round| {
        frames(round, |seq| Frame::link(FrameKind::Ping, encode(&Ping { seq }).into()))
    };
    s13_log_records: |_| {}, |scene, round| {
        let body = Bytes::from(vec![b'x'; 1000]);
        frames(round, |_| Frame::routed(FrameKind::Log, Address::ROOT, scene.me.clone(), 0).with_body(body.clone()))
    };
    s13_forged_failures: |_| {}, |scene, round| {
        let body = encode(&Failure::new(FailureKind::Cancelled, "forged"));
        frames(round, |number| answer(FrameKind::Failure, &scene.me, &Address::ROOT, number << 14, body.clone()))
    };
    s4_forged_replies_of_64_kib: |_| {}, |scene, round| {
        let body = Bytes::from(vec![7; 65_000]);
        let mut bytes = Vec::new();
        for number in 0..4 {
            answer(FrameKind::Reply, &scene.me, &Address::ROOT, round * 4 + number, body.clone()).encode(&mut bytes);
        }
        bytes
    };
    s13_forged_data: |_| {}, |scene, round| {
        frames(round, |number| answer(FrameKind::Data, &scene.me, &Address::ROOT, number << 16, &b"\x01forged"[..]))
    };
    s13_requests_without_a_right: |_| {}, |scene, round| {
        frames(round, |number| request(&scene.me, &scene.sibling, number, 3, true, None, b"body"))
    };
    s13_requests_by_forged_grants: |_| {}, |scene, round| {
        let link = GrantLink {
            holder: scene.me.clone(),
            verbs: Verb::ALL.into_iter().collect(),
            handle: None,
            expires_ms: u64::MAX,
        };
        let grant = offshoot_wire::Grant {
            target: scene.sibling.clone(),
            number: 1 << 63,
            links: vec![link; 16],
            seal: [7; 32],
        };
        frames(round, |number| request(&scene.me, &scene.sibling, number, 3, true, Some(grant.clone()), b"body"))
    };
    s2_requests_to_contexts_that_never_were: |_| {}, |scene, round| {
        frames(round, |number| {
            let dst = scene.parent.child(1000 + number as u32).expect("not deep");
            request(&scene.me, &dst, number, 3, true, None, b"body")
        })
    };
    s2_requests_for_agents: |_| {}, |scene, round| {
        frames(round, |number| {
            let body = encode(&PayloadSpec { triple: format!("triple-{number}"), program: None });
            request(&scene.me, &scene.parent, number, Verb::Payload.number(), false, None, &body)
        })
    };
    s2_requests_for_images: |_| {}, |scene, round| {
        frames(round, |number| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            let body = encode(&ImageSpec { hash, keep: false });
            request(&scene.me, &scene.parent, number, Verb::Image.number(), false, None, &body)
        })
    };
    s2_requests_from_made_up_contexts_below_it: |_| {}, |scene, round| {
        frames(round, |number| {
            let src = scene.me.child(number as u32).expect("not deep");
            request(&src, &scene.parent, number, Verb::Payload.number(), false, None, b"body")
        })
    };
    r3_losses: |_| {}, |scene, round| {
        frames(round, |number| {
            let prefix = scene.me.child(number as u32).expect("not deep");
            Frame::link(FrameKind::Gone, encode(&Gone { prefix, reason: LostReason::LinkEnd }).into())
        })
    };
    s12_losses_with_long_texts: |_| {}, |scene, round| {
        frames(round, |number| {
            let prefix = scene.me.child(1).and_then(|child| child.child(number as u32)).expect("not deep");
            let reason = LostReason::Violation("x".repeat(offshoot_wire::Limits::MESSAGE));
            Frame::link(FrameKind::Gone, encode(&Gone { prefix, reason }).into())
        })
    };
    s13_credit_of_a_byte_each: |scene| scene.owed = scene.process(), |scene, round| {
        frames(round, |total| {
            answer(FrameKind::Credit, &scene.me, &Address::ROOT, scene.owed, encode(&Credit { channel: 0, total }))
        })
    };
    s13_stops_again_and_again: |scene| scene.owed = scene.process(), |scene, round| {
        frames(round, |_| answer(FrameKind::Stop, &scene.me, &Address::ROOT, scene.owed, vec![0]))
    };
}

/// A child that reads nothing: what is asked of it waits within its bound, and nobody else waits for it.
fn never_reads(place: Place) {
    let scene = Scene::new(place);
    let idle = p99(&scene.stage.sibling, LASTS / 2);
    let before = memory("self");
    let body = vec![7; 60_000];
    let evil = scene.evil.clone();
    let (waiting, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (most, told) = (waiting.clone(), stop.clone());
    let asker = std::thread::spawn(move || {
        let mut calls: Vec<Pending<Bytes>> = Vec::new();
        while !told.load(Ordering::Relaxed) {
            // Waits when there is no room here, and ends when the link does. Where there is none further down it is
            // answered at once: such a call is over.
            match evil.start_echo(&body) {
                Ok(call) => calls.push(call),
                Err(_) => break,
            }
            if calls.len().is_multiple_of(50) {
                calls.retain(|call| !call.is_done());
                std::thread::sleep(Duration::from_millis(1));
            }
            most.fetch_max((calls.len() * body.len()) as u64, Ordering::Relaxed);
        }
        for call in calls {
            call.wait().expect_err("it was never read");
        }
    });
    let busy = p99(&scene.stage.sibling, LASTS);
    let grown = memory("self").saturating_sub(before);
    let waiting = waiting.load(Ordering::Relaxed);
    // 4 MiB for each link on the way, what lies in the descriptors, and 50 calls that may be over.
    assert!(waiting < 4 * (4 << 20), "{waiting} bytes wait for a context that reads nothing");
    assert!(busy <= bound(idle), "p99 {busy:?} beside it, {idle:?} idle");
    assert!(grown <= GROWTH, "{} KiB more for {waiting} bytes", grown >> 10);
    stop.store(true, Ordering::Relaxed);
    let Scene { stage, link, evil, .. } = scene;
    drop(link.close());
    asker.join().expect("no panic");
    drop(evil);
    stage.finish();
}

#[test]
fn s12_a_child_of_the_master_that_never_reads_holds_a_bounded_memory_and_nobody_up() {
    alone(|| never_reads(Place::BelowTheMaster));
}

#[test]
fn s12_a_child_of_an_agent_that_never_reads_holds_a_bounded_memory_and_nobody_up() {
    alone(|| never_reads(Place::BelowAnAgent));
}

/// How many bytes the processes of a tree have written in all.
fn written(scene: &Scene) -> u64 {
    let of = |pid: i32| {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap_or(0)
    };
    scene.stage.director.processes().iter().map(|process| of(process.pid)).sum()
}

/// A child whose process writes error output without end: nobody waits for whoever must read it.
fn error_output(place: Place) {
    let mut scene = Scene::new(place);
    let idle = p99(&scene.stage.sibling, LASTS / 2);
    let before = written(&scene);
    scene.link.flood_error_output();
    let busy = p99(&scene.stage.sibling, LASTS);
    let noise = written(&scene) - before;
    assert!(noise > 1 << 20, "only {noise} bytes of noise were taken");
    assert!(busy <= bound(idle), "p99 {busy:?} beside the noise, {idle:?} idle");
    println!("p99 idle {idle:?}, beside {} KiB of noise {busy:?}", noise >> 10);
    let Scene { stage, link, evil, .. } = scene;
    drop(evil);
    drop(link.close());
    stage.finish();
}

#[test]
fn s13_error_output_without_end_below_the_master() {
    alone(|| error_output(Place::BelowTheMaster));
}

#[test]
fn s13_error_output_without_end_below_an_agent() {
    alone(|| error_output(Place::BelowAnAgent));
}

/// A process' output that comes as fast as the link takes it, and that nobody reads: it stops at the window.
fn unread(place: Place) {
    let mut scene = Scene::new(place);
    let number = scene.process();
    let before = memory("self");
    let body = Bytes::from([vec![1], vec![7; 16_000]].concat());
    let frame = crate::link::bytes_of(&answer(FrameKind::Data, &scene.me, &Address::ROOT, number, body));
    // Eight frames are within the first window of 128 KiB; more is a violation, since no credit came.
    for _ in 0..8 {
        scene.link.raw(&frame);
    }
    assert!(scene.link.is_alive());
    let credits = scene.link.kept().iter().filter(|(header, _)| header.kind == FrameKind::Credit).count();
    assert_eq!(credits, 0, "credit was given though nobody reads");
    assert!(memory("self") < before + GROWTH);
    let Scene { stage, link, evil, .. } = scene;
    drop(evil);
    drop(link.close());
    stage.finish();
}

#[test]
fn s12_output_that_nobody_reads_stops_at_its_window_below_the_master() {
    alone(|| unread(Place::BelowTheMaster));
}

#[test]
fn s12_output_that_nobody_reads_stops_at_its_window_below_an_agent() {
    alone(|| unread(Place::BelowAnAgent));
}
