//! What goes down ahead of the request for a login: the context that gets it is the test itself.

use std::sync::Arc;
use std::time::Instant;

use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_connect::methods::{Local, Ssh};
use offshoot_connect::{Cancel, Payloads};
use offshoot_node::{Context, Root};
use offshoot_wire::{Address, Failure, FrameHeader, FrameKind, ImageSpec, Verb, decode, encode};
use sha2::{Digest, Sha256};

use crate::case::{answer, request};
use crate::link::Link;
use crate::stage::{Director, alone, child_hello, options};

/// One agent, for every triple.
struct Agents(Bundle);

impl Payloads for Agents {
    fn bundle(&self, _: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
        Ok(self.0.clone())
    }
}

fn bundle() -> Bundle {
    let agent = Packed { bytes: vec![3; 5000].into(), properties: 0, filter: 0, len: 4, sha256: [5; 32] };
    Bundle::new("evil-unknown-linux-gnu", vec![1], vec![2], agent).expect("within the limits")
}

/// The verb of the next request, its exchange, and what follows its head: the window, in three bytes, and no grant.
fn asked(link: &mut Link) -> (u16, u64, Vec<u8>) {
    let (header, body) = link.request();
    (u16::from(body[0]), header.exchange, body[5..].to_vec())
}

/// Refuses a request, so that whoever waits for it goes on.
fn refuse(link: &mut Link, me: &Address, number: u64) {
    let failure = Failure::new(offshoot_wire::FailureKind::Denied, "not today");
    link.send(&answer(FrameKind::Failure, me, &Address::ROOT, number, encode(&failure)));
}

#[test]
fn the_agent_for_a_login_goes_ahead_of_its_request_by_name_and_comes_once_it_is_asked_for() {
    alone(|| {
        let director = Director::new();
        let mut options = options(&director);
        options.payloads = Some(Arc::new(Agents(bundle())));
        let root = Root::start(options).expect("a tree");
        director.evil_is_next();
        let above = root.context();
        let joining = std::thread::spawn(move || above.connect(Local::new()));
        let mut link = director.link();
        let hello = link.parent_hello();
        link.send_hello(&child_hello(hello.nonce));
        let via: Context = joining.join().expect("no panic").expect("it joins the tree");
        let me = hello.address;
        let connects = |via: &Context, how: fn(Context)| {
            let via = via.clone();
            std::thread::spawn(move || how(via))
        };

        // On the machine of the context itself none is needed.
        let near = connects(&via, |via| drop(via.local().connect()));
        let (verb, number, _) = asked(&mut link);
        assert_eq!(verb, Verb::Connect.number(), "something else comes first");
        refuse(&mut link, &me, number);
        near.join().expect("no panic");

        // Several logins at once have it brought there once.
        let far = connects(&via, |via| drop(via.connect_all([Ssh::to("web1"), Ssh::to("web2")])));
        let (verb, ahead, spec) = asked(&mut link);
        assert_eq!(verb, Verb::Image.number(), "the agent does not go ahead");
        let hash: [u8; 32] = Sha256::digest(bundle().encode()).into();
        assert_eq!(decode::<ImageSpec>(&spec), Ok(ImageSpec { hash, keep: true }));
        for _ in 0..2 {
            let (verb, number, _) = asked(&mut link);
            assert_eq!(verb, Verb::Connect.number(), "the agent comes twice");
            refuse(&mut link, &me, number);
        }
        far.join().expect("no panic");
        assert!(link.is_alive(), "it was cut off");
        let unasked = link.kept().iter().any(|(header, _)| header.kind == FrameKind::Data);
        assert!(!unasked, "bytes of it came before they were asked for");

        // Its bytes come when it asks for them.
        link.send(&request(
            &me,
            &Address::ROOT,
            7,
            Verb::Image.number(),
            false,
            None,
            &encode(&ImageSpec { hash, keep: false }),
        ));
        // Behind its length, which comes first.
        let (expected, mut came) = (bundle().encode(), Vec::new());
        while came.len() < 8 + expected.len() {
            let ours = |header: &FrameHeader| header.kind == FrameKind::Data && header.answer && header.exchange == 7;
            came.extend_from_slice(&link.await_frame("the agent", ours).1[1..]);
        }
        assert!(came[8..] == expected, "other bytes");

        // It was kept, and that is nobody's concern any more.
        link.send(&answer(FrameKind::Reply, &me, &Address::ROOT, ahead, Vec::new()));
        assert!(link.is_alive(), "it was cut off");
        drop(via);
        drop(link.close());
        root.shutdown(std::time::Duration::ZERO);
    });
}
