//! A content on its way down three hops, in one thread: each link carries it once, however many ask.
//!
//!     cargo run -p offshoot-forward --example three_hops

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use offshoot_forward::{Config, ContentHash, Event, FetchId, Forwarder, Outcome};
use offshoot_wire::Address;

/// What goes over the links of this example: exchanges are numbered by the asker.
enum Message {
    Want(u64, ContentHash),
    Data(u64, Bytes),
    Done(u64, Outcome),
}

fn main() {
    // A chain: /, /0, /0/0, /0/0/0. A link is named by the number of the context at its other end.
    let mut chain: Vec<Forwarder<u64, usize>> = (0..4)
        .map(|depth| {
            let address = Address::from_path(&vec![0; depth]).expect("not that deep");
            let mut forwarder = Forwarder::new(address.clone(), Config::default());
            if let Some(parent) = address.parent() {
                forwarder.add_source(depth - 1, parent);
            }
            forwarder
        })
        .collect();
    let hash = chain[0].register(vec![42; 1 << 20]);
    for _ in 0..1000 {
        chain[3].need(hash);
    }

    let mut fetches: BTreeMap<u64, FetchId> = BTreeMap::new();
    let mut messages: VecDeque<(usize, Message)> = VecDeque::new();
    let mut exchanges = 0;
    loop {
        for (at, forwarder) in chain.iter_mut().enumerate() {
            while let Some(event) = forwarder.poll_event() {
                match event {
                    Event::Ask { fetch, link, hash } => {
                        exchanges += 1;
                        fetches.insert(exchanges, fetch);
                        messages.push_back((link, Message::Want(exchanges, hash)));
                    }
                    // Here credit is endless.
                    Event::Send { exchange } => {
                        while let Some(bytes) = forwarder.next(exchange) {
                            forwarder.sent(exchange, bytes.len());
                            messages.push_back((at + 1, Message::Data(exchange, bytes)));
                        }
                    }
                    Event::End { exchange, outcome } => messages.push_back((at + 1, Message::Done(exchange, outcome))),
                    Event::Ready { content, .. } => println!("{at}: {content:?} is ready"),
                    Event::Stored { .. } => {}
                    other => println!("{at}: {other:?}"),
                }
            }
        }
        let Some((to, message)) = messages.pop_front() else { break };
        match message {
            Message::Want(exchange, hash) => chain[to].serve(exchange, to + 1, hash),
            Message::Data(exchange, bytes) => chain[to].arrived(fetches[&exchange], bytes),
            Message::Done(exchange, outcome) => chain[to].finished(fetches[&exchange], outcome),
        }
    }
    for (at, forwarder) in chain.iter().enumerate().take(3) {
        println!("{at} to {}: {:?}", at + 1, forwarder.link_stats(at + 1));
    }
}
