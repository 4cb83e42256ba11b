//! What a frame may allocate, counted: the hot path of a call, and hostile frames (S7).

// Each test file uses its part of the lab.
#[allow(dead_code)]
mod lab;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use lab::Lab;
use offshoot_route::Event;
use offshoot_wire::{Address, Frame, FrameKind, Verb};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_call_costs_at_most_four_allocations_on_both_sides_together() {
    let mut lab = Lab::new();
    let child = lab.add(0);
    let (address, now) = (lab.address(child), lab.now);
    let (down, up) = (lab.link(0, child), lab.link(child, 0));
    let body = Bytes::from_static(b"twenty-four bytes of it.");
    let mut out = Vec::with_capacity(4096);
    let (mut to_child, mut to_parent) = (BytesMut::with_capacity(1 << 20), BytesMut::with_capacity(1 << 20));
    let mut call = |lab: &mut Lab| {
        lab.nodes[0].request(&address, Verb::Echo, body.clone(), None, now).expect("room");
        out.clear();
        lab.nodes[0].poll_transmit(down, 64 * 1024, &mut out, now);
        to_child.extend_from_slice(&out);
        lab.nodes[child].handle_bytes(up, &mut to_child, now);
        while let Some(event) = lab.nodes[child].poll_event() {
            if let Event::Request { id, .. } = event {
                lab.nodes[child].reply(id, body.clone(), now);
            }
        }
        out.clear();
        lab.nodes[child].poll_transmit(up, 64 * 1024, &mut out, now);
        to_parent.extend_from_slice(&out);
        lab.nodes[0].handle_bytes(down, &mut to_parent, now);
        let done = std::iter::from_fn(|| lab.nodes[0].poll_event()).filter(|event| matches!(event, Event::Done { .. }));
        assert_eq!(done.count(), 1);
        while lab.nodes[0].poll_ready_link().is_some() || lab.nodes[child].poll_ready_link().is_some() {}
    };
    for _ in 0..100 {
        call(&mut lab);
    }
    let before = COUNT.get();
    for _ in 0..1000 {
        call(&mut lab);
    }
    let each = (COUNT.get() - before) as f64 / 1000.0;
    assert!(each <= 4.1, "{each} allocations a call");
}

#[test]
fn s7_a_frame_allocates_no_more_than_four_times_its_bytes_and_64_kib() {
    let kinds = FrameKind::ALL;
    for seed in 0..4000u64 {
        let mut lab = Lab::new();
        let evil = lab.evil(0);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        // Bodies that begin with lengths as large as they get.
        let mut body: Vec<u8> =
            (0..chance() % 200).map(|_| if chance() % 3 == 0 { 0xff } else { chance() as u8 }).collect();
        if chance() % 2 == 0 {
            body.splice(0..0, [1, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        }
        let kind = kinds[chance() as usize % kinds.len()];
        let mut frame = Frame::routed(kind, Address::ROOT, evil.address.clone(), chance() % 4).with_body(body.into());
        frame.header.answer |= chance() % 2 == 0 && kind.is_routed();
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let (length, now) = (bytes.len(), lab.now);
        let mut buffer = BytesMut::from(&bytes[..]);
        let before = BYTES.get();
        lab.nodes[0].handle_bytes(evil.link, &mut buffer, now);
        let took = BYTES.get() - before;
        assert!(took <= 4 * length + 64 * 1024, "{took} bytes allocated for {length} of {kind:?}, seed {seed}");
    }
}
