//! S12, S13: a hostile context that is believed to have started a worker, which is attended; and an image that is asked for
//! without end. What it may send it sends as fast as it may: nobody waits for who must read it, and memory stays in bounds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_node::Context;
use offshoot_wire::{
    Address, ConnectReply, Credit, Frame, FrameHeader, FrameKind, ImageSpec, PayloadSpec, Verb, channel, decode, encode,
};
use sha2::{Digest, Sha256};

use crate::case::{Scene, answer, request};
use crate::floods::{GROWTH, LASTS, bound, flood, frames, p99};
use crate::link::{Came, Link, bytes_of};
use crate::stage::{IDENTITY, PROGRAM, Place, Stage, alone, child_hello, memory};

/// A worker that is none.
struct Attended {
    scene: Scene,
    /// What it is called by, below the hostile context.
    worker: Address,
    /// The exchange by which it is attended.
    exchange: u64,
    handle: Context,
}

impl Attended {
    fn new(place: Place) -> Attended {
        let mut scene = Scene::new(place);
        let evil = scene.evil.clone();
        let starting = std::thread::spawn(move || evil.new_worker(IDENTITY));
        let me = scene.me.clone();
        let worker = me.child(0).expect("not deep");
        // On this machine it is asked without an image first, elsewhere with one.
        let (header, _) = scene.link.request();
        let hello = child_hello([0; 16]);
        let reply = ConnectReply { address: worker.clone(), name: "worker".into(), hello, stages: Vec::new() };
        scene.link.send(&answer(FrameKind::Reply, &me, &Address::ROOT, header.exchange, encode(&reply)));
        let (header, body) = scene.link.request();
        assert_eq!((u16::from(body[0]), &header.dst), (Verb::Attend.number(), &worker), "{body:?}");
        let handle = starting.join().expect("no panic").expect("it is believed");
        Attended { scene, worker, exchange: header.exchange, handle }
    }

    fn answer(&self, kind: FrameKind, body: impl Into<Bytes>) -> Frame {
        answer(kind, &self.worker, &Address::ROOT, self.exchange, body)
    }

    fn finish(self) {
        let Scene { stage, link, evil, .. } = self.scene;
        drop((evil, self.handle));
        drop(link.close());
        stage.finish();
    }
}

/// Output as fast as there is credit for it, in frames of this content.
fn output(place: Place, piece: &[u8]) {
    let mut attended = Attended::new(place);
    let sibling = attended.scene.stage.sibling.clone();
    let idle = p99(&sibling, LASTS / 2);
    let agents: Vec<i32> = attended.scene.stage.director.processes().iter().map(|process| process.pid).collect();
    let total = || memory("self") + agents.iter().map(memory).sum::<u64>();
    let before = total();
    let calling = std::thread::spawn(move || p99(&sibling, 4 * LASTS));
    // The window that the request gave is at least this; what more there is comes as credit.
    let (mut granted, mut sent, mut most) = (16 * 1024u64, 0u64, before);
    let until = Instant::now() + 4 * LASTS;
    while Instant::now() < until {
        let mut bytes = Vec::new();
        while sent + piece.len() as u64 <= granted && bytes.len() < 64 * 1024 {
            attended.answer(FrameKind::Data, [&[channel::STDOUT][..], piece].concat()).encode(&mut bytes);
            sent += piece.len() as u64;
        }
        attended.scene.link.raw(&bytes);
        let wait = if bytes.is_empty() { Duration::from_millis(20) } else { Duration::from_millis(1) };
        match attended.scene.link.next(wait) {
            Came::Frame(header, body) if header.kind == FrameKind::Credit && header.exchange == attended.exchange => {
                let credit: Credit = decode(&body).expect("a credit");
                granted = granted.max(if credit.channel == channel::STDOUT { credit.total } else { 0 });
            }
            Came::Frame(..) | Came::Nothing => {}
            Came::End => panic!("it was cut off for what it was granted"),
        }
        most = most.max(total());
    }
    let busy = calling.join().expect("no panic");
    assert!(sent > 32 << 10, "only {sent} bytes were taken, no more than it may at once");
    assert!(busy <= bound(idle), "p99 {busy:?} beside the flood, {idle:?} idle, {sent} bytes of output");
    assert!(most <= before + GROWTH, "{} KiB more for {sent} bytes", (most - before) >> 10);
    println!(
        "p99 idle {idle:?}, beside {} KiB of output {busy:?}, {} KiB more memory",
        sent >> 10,
        (most - before) >> 10
    );
    attended.finish();
}

#[test]
fn s13_output_of_a_worker_in_large_pieces_below_the_master() {
    alone(|| output(Place::BelowTheMaster, &[b'x'; 16_000]));
}

#[test]
fn s13_output_of_a_worker_in_large_pieces_below_an_agent() {
    alone(|| output(Place::BelowAnAgent, &[b'x'; 16_000]));
}

#[test]
fn s13_output_of_a_worker_that_is_empty_lines_below_the_master() {
    alone(|| output(Place::BelowTheMaster, &[b'\n'; 4_000]));
}

#[test]
fn s12_output_of_a_worker_in_frames_of_few_bytes_below_the_master() {
    alone(|| output(Place::BelowTheMaster, b"few byte"));
}

#[test]
fn s12_output_of_a_worker_in_frames_of_few_bytes_below_an_agent() {
    alone(|| output(Place::BelowAnAgent, b"few byte"));
}

/// That a worker is about to end is told by a byte: as often as it likes, for whatever it is worth.
#[test]
fn s13_a_worker_that_goes_on_saying_that_it_ends() {
    alone(|| {
        let mut attended = Attended::new(Place::BelowTheMaster);
        let before = memory("self");
        for _ in 0..10_000 {
            let frame = attended.answer(FrameKind::Data, vec![channel::QUESTION, 0]);
            attended.scene.link.raw(&bytes_of(&frame));
        }
        assert!(attended.scene.link.is_alive(), "it was granted this much");
        assert!(memory("self") < before + GROWTH);
        attended.finish();
    });
}

/// Whose worker it is cannot be told by who sends it on: what is over is its attendance, and with it all that it may send.
#[test]
fn s14_output_of_a_worker_beyond_its_credit_ends_its_attendance() {
    alone(|| {
        let mut attended = Attended::new(Place::BelowTheMaster);
        let before = memory("self");
        let frame = attended.answer(FrameKind::Data, [&[channel::STDERR][..], &[b'x'; 60_000]].concat());
        for _ in 0..200 {
            attended.scene.link.raw(&bytes_of(&frame));
        }
        let number = attended.exchange;
        let is_it = |header: &FrameHeader| header.kind == FrameKind::Cancel && header.exchange == number;
        attended.scene.link.await_frame("a cancel", is_it);
        assert!(attended.scene.link.is_alive(), "a context between cannot be blamed for it");
        assert!(memory("self") < before + GROWTH);
        attended.finish();
    });
}

fn hash() -> [u8; 32] {
    static HASH: OnceLock<[u8; 32]> = OnceLock::new();
    *HASH.get_or_init(|| Sha256::digest(std::fs::read(PROGRAM).expect("it was built")).into())
}

/// Has the image registered, by a worker that is started from it.
fn served(scene: &mut Scene) {
    let Stage { sibling, expected_starts, .. } = &mut scene.stage;
    *expected_starts += 1;
    let worker = sibling.new_worker(IDENTITY).expect("a worker, and its image registered");
    assert_eq!(&worker.echo(b"up").expect("it is")[..], b"up");
}

/// An image that is there, and that contexts above hold or can read, asked for again and again by who reads nothing of it.
fn images(place: Place) {
    let image = std::fs::metadata(PROGRAM).expect("it was built").len();
    let piece = |scene: &Scene, round: u64| {
        frames(round, |number| {
            let body = encode(&ImageSpec { hash: hash(), keep: false });
            request(&scene.me, &scene.parent, number, Verb::Image.number(), false, None, &body)
        })
    };
    // Who serves it holds it once while it is on its way, however many want it.
    flood(place, served, piece, GROWTH + 2 * image);
}

#[test]
fn s12_an_image_that_is_asked_for_without_end_below_the_master() {
    alone(|| images(Place::BelowTheMaster));
}

#[test]
fn s12_an_image_that_is_asked_for_without_end_below_an_agent() {
    alone(|| images(Place::BelowAnAgent));
}

/// Threads of this process that read an image.
fn readers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok);
    // One may end meanwhile.
    tasks.filter(|task| std::fs::read(task.path().join("comm")).is_ok_and(|name| name == b"offshoot-image\n")).count()
}

/// Each time it begins anew: what nobody wants any more is read no further, and few are read at once.
#[test]
fn s12_an_image_that_is_asked_for_and_given_up_without_end() {
    alone(|| {
        let mut scene = Scene::new(Place::BelowTheMaster);
        served(&mut scene);
        let asked = encode(&ImageSpec { hash: hash(), keep: false });
        let (mut most, mut number) = (0, 0);
        let until = Instant::now() + LASTS;
        while Instant::now() < until {
            let mut bytes = Vec::new();
            for _ in 0..50 {
                number += 1;
                let (me, parent) = (scene.me.clone(), scene.parent.clone());
                bytes.extend(bytes_of(&request(&me, &parent, number, Verb::Image.number(), false, None, &asked)));
                bytes.extend(bytes_of(&Frame::routed(FrameKind::Cancel, parent, me, number)));
            }
            scene.link.raw(&bytes);
            while !matches!(scene.link.next(Duration::from_millis(1)), Came::Nothing) {}
            most = most.max(readers());
        }
        assert!(most > 0, "it is read");
        // At most 16 read at once; one that has read enough makes room for the next before its thread is gone.
        assert!(most <= 3 * 16, "{most} threads read it, for {number} requests");
        assert!(scene.link.is_alive(), "it may give up what it asked for");
        let Scene { stage, link, evil, .. } = scene;
        drop(evil);
        drop(link.close());
        stage.finish();
    });
}

/// How a name is answered that is asked for by a child.
fn named(link: &mut Link, parent: &Address, number: u64, triple: &str) -> FrameKind {
    let body = encode(&PayloadSpec { triple: triple.into(), program: Some(IDENTITY) });
    let me = link.me();
    link.send(&request(&me, parent, number, Verb::Payload.number(), false, None, &body));
    link.await_frame("an answer", |header| header.exchange == number && header.answer).0.kind
}

/// A program for this machine is one for any triple of it, so that many are known. Nobody keeps others from theirs by that.
#[test]
fn s2_more_names_of_images_than_are_kept() {
    alone(|| {
        let mut scene = Scene::new(Place::BelowTheMaster);
        let (mut other, context) = scene.stage.evil();
        let parent = scene.parent.clone();
        for number in 0..100 {
            let kind = named(&mut scene.link, &parent, 10 + number, &format!("x86_64-a{number}-linux-x"));
            assert_eq!(kind, FrameKind::Reply, "name {number}");
        }
        assert_eq!(named(&mut other, &parent, 5, "x86_64-unknown-linux-musl"), FrameKind::Reply);
        let Scene { stage, link, evil, .. } = scene;
        drop((evil, context));
        drop((link.close(), other.close()));
        stage.finish();
    });
}
