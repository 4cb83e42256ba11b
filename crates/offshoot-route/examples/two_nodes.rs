//! A parent and a child in one thread, joined by two byte buffers: a call, a stream with credit, and a loss.
//!
//!     cargo run -p offshoot-route --example two_nodes

use bytes::{Bytes, BytesMut};
use offshoot_route::{Config, Event, LinkId, Node, Time};
use offshoot_wire::{ChildHello, EndReason, Limits, LostReason, Verb, channel};

/// Carries everything that waits on one link to the node at its other end.
fn carry(from: &mut Node, out: LinkId, to: &mut Node, into: LinkId, now: Time) {
    let mut bytes = Vec::new();
    while from.poll_transmit(out, 64 * 1024, &mut bytes, now) {}
    to.handle_bytes(into, &mut BytesMut::from(&bytes[..]), now);
}

fn main() {
    let now = Time::ZERO;
    let mut parent = Node::root(Config::default(), [7; 16], [1; 32], now);

    // The parent gives an address; how the bytes of the hellos travel is the owner's business.
    let (link, address, _key) = parent.reserve_child(now).expect("there is room for one");
    let (name, path) = (String::from("local"), String::from("local"));
    let hello = parent.parent_hello(link, [9; 16], name, path, "example".into(), now).expect("the link waits for it");
    let (mut child, up) = Node::child(Config::default(), &hello, now);
    let answer = ChildHello {
        nonce: hello.nonce,
        frame: Limits::FRAME,
        triple: "any".into(),
        version: "0".into(),
        host: "here".into(),
        user: "me".into(),
        uid: 0,
        pid: 1,
    };
    parent.child_up(link, &answer, now).expect("the link waits for a child");

    // The parent asks; the child serves, sends some output, and answers.
    let asked = parent.request(&address, Verb::Exec, Bytes::from_static(b"uname"), None, now).expect("it is alive");
    carry(&mut parent, link, &mut child, up, now);
    while let Some(event) = child.poll_event() {
        println!("{address} sees {event:?}");
        if let Event::Request { id, .. } = event {
            let taken = child.send(id, channel::STDOUT, Bytes::from_static(b"offshoot\n"), now);
            println!("{address} sent {taken} bytes and may send {} more", child.writable(id, channel::STDOUT));
            child.finish(id, channel::STDOUT, EndReason::Done, now);
            child.reply(id, Bytes::from_static(b"exit 0"), now);
        }
    }
    carry(&mut child, up, &mut parent, link, now);
    while let Some(event) = parent.poll_event() {
        println!("/ sees {event:?}");
        if let Event::Data { id, channel, data } = event {
            assert_eq!(id, asked);
            parent.consumed(id, channel, data.len(), now);
        }
    }

    // The link ends under a second call.
    parent.request(&address, Verb::Echo, Bytes::from_static(b"?"), None, now).expect("it is alive still");
    parent.link_down(link, LostReason::LinkEnd, now);
    while let Some(event) = parent.poll_event() {
        println!("/ sees {event:?}");
    }
    assert!(parent.request(&address, Verb::Echo, Bytes::new(), None, now).is_err());
}
