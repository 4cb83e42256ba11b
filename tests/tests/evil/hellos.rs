//! S24: the hello comes first, and anything but a good one ends the connect alone.

use std::time::{Duration, Instant};

use offshoot_connect::methods::Local;
use offshoot_node::{Context, Error};
use offshoot_wire::{ChildHello, ConnectStage, FailureKind, HELLO_MAGIC, Hello};

use crate::case::{Expect, cases};
use crate::link::{Link, bytes_of};
use crate::stage::{PATIENCE, Place, Stage, child_hello};

/// A hello with everything in its place, to be spoilt.
fn good(link: &mut Link) -> Vec<u8> {
    put(&child_hello(link.parent_hello().nonce))
}

fn put(hello: &ChildHello) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.put(&mut bytes);
    bytes
}

/// With deadlines that a test can wait for.
fn quick() -> Local {
    Local::new().connect_timeout(Duration::from_millis(1500)).stage_timeout(Duration::from_millis(500))
}

fn connect(place: Place, method: Local, say: fn(&mut Link)) -> (Stage, Link, Result<Context, Error>) {
    let mut stage = Stage::new(place);
    let (mut link, connect) = stage.raw_evil(method);
    say(&mut link);
    let started = Instant::now();
    let result = connect.join().expect("no panic");
    assert!(started.elapsed() < PATIENCE, "it took {:?}", started.elapsed());
    (stage, link, result)
}

fn fails(place: Place, method: Local, text: &str, say: fn(&mut Link)) {
    let (stage, link, result) = connect(place, method, say);
    let error = result.expect_err("it said no good hello");
    let hello = ConnectStage::Hello;
    let right =
        matches!(error.kind(), FailureKind::Connect(stage) | FailureKind::StageTimeout(stage) if *stage == hello);
    assert!(right, "{:?}", error.kind());
    assert!(error.message().contains(text), "expected {text:?}, got {:?}", error.message());
    // Nothing that it says afterwards is heard, and its address is not given again.
    let mut link = link;
    link.raw(&put(&child_hello([0; 16])));
    drop(link.close());
    stage.finish();
}

macro_rules! bad {
    ($($name:ident: $text:expr, $say:expr;)*) => {
        $(mod $name {
            #[allow(unused_imports, reason = "each case needs a few of what all need together")]
            use super::*;

            #[test]
            fn below_the_master() {
                crate::stage::alone(|| fails(Place::BelowTheMaster, quick(), $text, $say));
            }

            #[test]
            fn below_an_agent() {
                crate::stage::alone(|| fails(Place::BelowAnAgent, quick(), $text, $say));
            }
        })*
    };
}

bad! {
    s24_text_instead_of_a_hello: "expected a hello", |link| link.raw(b"Welcome to evil!\n");
    s24_a_frame_instead_of_a_hello: "expected a hello", |link| {
        link.raw(&bytes_of(&offshoot_wire::Frame::link(offshoot_wire::FrameKind::Pong, vec![1].into())));
    };
    s24_a_magic_with_one_wrong_byte: "expected a hello", |link| {
        let mut bytes = good(link);
        bytes[7] ^= 1;
        link.raw(&bytes);
    };
    s24_only_newer_versions: "no common protocol version", |link| {
        let mut bytes = good(link);
        bytes[8..12].copy_from_slice(&[2, 0, 9, 0]);
        link.raw(&bytes);
    };
    s24_only_version_zero: "no common protocol version", |link| {
        let mut bytes = good(link);
        bytes[8..12].fill(0);
        link.raw(&bytes);
    };
    s24_versions_from_high_to_low: "no common protocol version", |link| {
        let mut bytes = good(link);
        bytes[8..12].copy_from_slice(&[9, 0, 1, 0]);
        link.raw(&bytes);
    };
    s24_the_nonce_of_another_connect: "answers another connect", |link| {
        let mut nonce = link.parent_hello().nonce;
        nonce[15] ^= 1;
        link.raw(&put(&child_hello(nonce)));
    };
    s24_no_nonce: "answers another connect", |link| link.raw(&put(&child_hello([0; 16])));
    s12_a_hello_longer_than_any: "a hello of 4097 bytes", |link| {
        let mut bytes = good(link);
        bytes[12..16].copy_from_slice(&4097u32.to_le_bytes());
        link.raw(&bytes);
    };
    s12_a_hello_of_4_gib: "a hello of 4294967295 bytes", |link| {
        let mut bytes = good(link);
        bytes[12..16].fill(0xff);
        link.raw(&bytes);
    };
    s24_a_body_that_is_none: "malformed hello", |link| {
        let mut bytes = good(link);
        bytes[16..].fill(0xff);
        link.raw(&bytes);
    };
    s24_a_body_with_more_behind_it: "malformed hello", |link| {
        let mut bytes = good(link);
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) + 1;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes.push(0);
        link.raw(&bytes);
    };
    s24_frames_too_small_to_be_of_use: "out of bounds: frame size", |link| {
        let nonce = link.parent_hello().nonce;
        link.raw(&put(&ChildHello { frame: 511, ..child_hello(nonce) }));
    };
    s24_frames_larger_than_any: "out of bounds: frame size", |link| {
        let nonce = link.parent_hello().nonce;
        link.raw(&put(&ChildHello { frame: u32::MAX, ..child_hello(nonce) }));
    };
    s12_a_host_with_a_name_longer_than_any: "out of bounds: host", |link| {
        let nonce = link.parent_hello().nonce;
        link.raw(&put(&ChildHello { host: "h".repeat(256), ..child_hello(nonce) }));
    };
    s24_an_end_before_a_byte: "", |link| link.close_both();
    s24_an_end_in_the_magic: "", |link| {
        link.raw(&HELLO_MAGIC[..5]);
        link.close_both();
    };
    s24_an_end_in_the_body: "", |link| {
        let bytes = good(link);
        link.raw(&bytes[..bytes.len() - 1]);
        link.close_both();
    };
    s24_silence: "nothing came for", |_| {};
    s24_silence_in_the_middle: "nothing came for", |link| {
        let bytes = good(link);
        link.raw(&bytes[..20]);
    };
    s24_a_hello_that_never_ends: "took longer than", |link| {
        let bytes = good(link);
        link.raw(&bytes[..20]);
        // Never silent for long, and never done: the whole connect has its deadline.
        for byte in &bytes[20..40] {
            std::thread::sleep(Duration::from_millis(100));
            link.raw(&[*byte]);
        }
    };
}

fn comes_up(place: Place, say: fn(&mut Link)) {
    let (stage, mut link, result) = connect(place, Local::new(), say);
    let context = result.expect("its hello was good");
    let pending = stage.pending(&context);
    let number = link.request().0.exchange;
    let me = link.me();
    let root = offshoot_wire::Address::ROOT;
    link.send(&crate::case::answer(offshoot_wire::FrameKind::Reply, &me, &root, number, &b"genuine"[..]));
    assert_eq!(&pending.wait_timeout(PATIENCE).expect("it answered")[..], b"genuine");
    drop(context);
    drop(link.close());
    stage.finish();
}

macro_rules! good {
    ($($name:ident: $say:expr;)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn below_the_master() {
                crate::stage::alone(|| comes_up(Place::BelowTheMaster, $say));
            }

            #[test]
            fn below_an_agent() {
                crate::stage::alone(|| comes_up(Place::BelowAnAgent, $say));
            }
        })*
    };
}

good! {
    s24_a_hello_byte_by_byte_is_a_hello: |link| {
        for byte in good(link) {
            link.raw(&[byte]);
        }
    };
    s24_a_hello_for_more_versions_than_ours_is_a_hello: |link| {
        let mut bytes = good(link);
        bytes[10..12].fill(0xff);
        link.raw(&bytes);
    };
    s24_frames_in_one_piece_with_the_hello_are_heard_and_harmless: |link| {
        let mut bytes = good(link);
        let me = link.me();
        let root = offshoot_wire::Address::ROOT;
        for number in 0..100 {
            crate::case::answer(offshoot_wire::FrameKind::Reply, &me, &root, number, &b"early"[..]).encode(&mut bytes);
        }
        link.raw(&bytes);
    };
    s8_a_host_and_a_user_that_would_move_a_terminal_are_data: |link| {
        let nonce = link.parent_hello().nonce;
        let nasty = "\x1b[2J\u{202e}\r\n".to_owned();
        link.raw(&put(&ChildHello { host: nasty.clone(), user: nasty, ..child_hello(nonce) }));
    };
}

cases! {
    s24_a_second_hello_is_no_frame: Expect::Cut("got \""), |scene| {
        let bytes = good(&mut scene.link);
        scene.link.raw(&bytes);
    };
    s24_a_second_hello_of_a_parent_is_no_frame: Expect::Cut("got \""), |scene| {
        let hello = scene.link.parent_hello();
        scene.link.send_hello(&hello);
    };
}
