//! Any order of any calls: nothing panics, nothing exceeds its bound, each exchange and each need ends once, and at the end
//! nothing is left.

use std::collections::BTreeMap;

use bytes::Bytes;
use offshoot_forward::{Config, ContentHash, Event, FetchId, Forwarder, Refusal};
use offshoot_wire::Address;
use proptest::prelude::*;

const BUDGET: u64 = 30_000;

fn content(number: u8) -> Vec<u8> {
    vec![number; [0, 10, 5000, 12_000, 29_000, 40_000][usize::from(number) % 6]]
}

#[derive(Clone, Debug)]
enum Call {
    Need(u8),
    Release(u8),
    Serve(u8, u8),
    GiveUp(u8),
    /// Bytes for one of the fetches: right ones, or others.
    Arrive(u8, u16, bool),
    Finish(u8, bool),
    Load(u8, bool),
    Send(u8, u16),
    Register(u8),
    Promise(u8),
    Withdraw(u8),
    LinkGone(u8),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => any::<u8>().prop_map(Call::Need),
        2 => any::<u8>().prop_map(Call::Release),
        4 => any::<(u8, u8)>().prop_map(|(a, b)| Call::Serve(a, b)),
        2 => any::<u8>().prop_map(Call::GiveUp),
        8 => any::<(u8, u16, bool)>().prop_map(|(a, b, c)| Call::Arrive(a, b, c || a % 4 > 0)),
        4 => any::<(u8, bool)>().prop_map(|(a, b)| Call::Finish(a, b)),
        2 => any::<(u8, bool)>().prop_map(|(a, b)| Call::Load(a, b)),
        6 => any::<(u8, u16)>().prop_map(|(a, b)| Call::Send(a, b)),
        1 => any::<u8>().prop_map(Call::Register),
        1 => any::<u8>().prop_map(Call::Promise),
        1 => any::<u8>().prop_map(Call::Withdraw),
        1 => any::<u8>().prop_map(Call::LinkGone),
    ]
}

#[derive(Default)]
struct Owner {
    fetches: Vec<(FetchId, ContentHash, usize)>,
    /// The exchanges that are open, by their links.
    served: BTreeMap<u32, u8>,
    /// How many needs wait for a content, and how many have it.
    waiting: BTreeMap<ContentHash, u32>,
    held: BTreeMap<ContentHash, u32>,
    next: u32,
}

fn pick<T: Clone>(of: &[T], by: u8) -> Option<T> {
    (!of.is_empty()).then(|| of[usize::from(by) % of.len()].clone())
}

impl Owner {
    fn poll(&mut self, forwarder: &mut Forwarder<u32, u8>) {
        while let Some(event) = forwarder.poll_event() {
            match event {
                Event::Ask { fetch, hash, .. } | Event::Load { fetch, hash } => self.fetches.push((fetch, hash, 0)),
                Event::Drop { fetch } => self.fetches.retain(|(of, ..)| *of != fetch),
                Event::End { exchange, .. } => {
                    assert!(self.served.remove(&exchange).is_some(), "exchange {exchange} ended, and it was over");
                }
                Event::Failed { hash, .. } => {
                    assert!(self.waiting.remove(&hash).is_some(), "nobody waits for {hash:?}")
                }
                Event::Ready { hash, content } => {
                    assert_eq!(ContentHash::of(&content.to_bytes()), hash);
                    let count = self.waiting.remove(&hash).expect("nobody waits for what is ready");
                    *self.held.entry(hash).or_default() += count;
                }
                Event::Stored { .. } | Event::Send { .. } | Event::Damaged { .. } => {}
            }
        }
    }

    /// Ends what is on its way, in one way or another, takes what is served, and releases what it holds, until nothing
    /// more happens.
    fn settle(&mut self, forwarder: &mut Forwarder<u32, u8>, well: bool) {
        for round in 0.. {
            assert!(round < 100, "it does not come to rest");
            for (hash, count) in std::mem::take(&mut self.held) {
                (0..count).for_each(|_| forwarder.release(&hash));
            }
            let fetches = std::mem::take(&mut self.fetches);
            let open = self.served.len();
            for (fetch, ..) in &fetches {
                forwarder.finished(*fetch, if well { Ok(()) } else { Err(Refusal::Lost) });
            }
            for exchange in self.served.keys() {
                while let Some(bytes) = forwarder.next(*exchange) {
                    forwarder.sent(*exchange, bytes.len());
                }
            }
            self.poll(forwarder);
            if fetches.is_empty() && self.served.len() == open && self.held.is_empty() && self.fetches.is_empty() {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_any_calls_keeps_the_bounds_and_leaves_nothing(
        calls in proptest::collection::vec(call(), 1..200),
        well in any::<bool>(),
    ) {
        let config = Config::with(|config| { config.budget = BUDGET; config.serving = 5; });
        let mut forwarder: Forwarder<u32, u8> = Forwarder::new(Address::ROOT.child(1).unwrap(), config);
        forwarder.add_source(100, Address::ROOT);
        forwarder.add_source(101, Address::ROOT);
        let hashes: Vec<ContentHash> = (0..6).map(|number| ContentHash::of(&content(number))).collect();
        let of = |number: u8| hashes[usize::from(number) % 6];
        let mut owner = Owner::default();
        for call in calls {
            match call {
                Call::Need(number) => {
                    *owner.waiting.entry(of(number)).or_default() += 1;
                    forwarder.need(of(number));
                }
                Call::Release(number) => {
                    // As the forwarder counts: those who wait first.
                    let of = of(number);
                    let counts = if owner.waiting.contains_key(&of) { &mut owner.waiting } else { &mut owner.held };
                    if let Some(count) = counts.get_mut(&of) {
                        *count -= 1;
                        if *count == 0 {
                            counts.remove(&of);
                        }
                        forwarder.release(&of);
                    }
                }
                Call::Serve(number, link) => {
                    owner.next += 1;
                    owner.served.insert(owner.next, link % 3);
                    forwarder.serve(owner.next, link % 3, of(number));
                }
                Call::GiveUp(by) => {
                    let all: Vec<u32> = owner.served.keys().copied().collect();
                    if let Some(exchange) = pick(&all, by) {
                        owner.served.remove(&exchange);
                        forwarder.give_up(exchange);
                    }
                }
                Call::Arrive(by, most, right) => {
                    if !owner.fetches.is_empty() {
                        let index = usize::from(by) % owner.fetches.len();
                        let (fetch, hash, at) = &mut owner.fetches[index];
                        let number = hashes.iter().position(|of| of == hash).unwrap_or(0) as u8;
                        let content = content(number);
                        let mut stream = (content.len() as u64).to_le_bytes().to_vec();
                        stream.extend_from_slice(&content);
                        let end = stream.len().min(*at + usize::from(most));
                        let mut bytes = stream[*at..end].to_vec();
                        *at = end;
                        if !right {
                            bytes.push(7);
                        }
                        forwarder.arrived(*fetch, Bytes::from(bytes));
                    }
                }
                Call::Finish(by, well) => {
                    if let Some((fetch, ..)) = pick(&owner.fetches, by) {
                        owner.fetches.retain(|(of, ..)| *of != fetch);
                        forwarder.finished(fetch, if well { Ok(()) } else { Err(Refusal::Lost) });
                    }
                }
                Call::Load(by, well) => {
                    if let Some((fetch, hash, _)) = pick(&owner.fetches, by) {
                        let number = hashes.iter().position(|of| *of == hash).unwrap_or(0) as u8;
                        owner.fetches.retain(|(of, ..)| *of != fetch);
                        if well {
                            forwarder.arrived(fetch, content(number).into());
                        }
                        forwarder.finished(fetch, if well { Ok(()) } else { Err(Refusal::Lost) });
                    }
                }
                Call::Send(by, most) => {
                    let all: Vec<u32> = owner.served.keys().copied().collect();
                    if let Some(exchange) = pick(&all, by)
                        && let Some(bytes) = forwarder.next(exchange)
                    {
                        forwarder.sent(exchange, bytes.len().min(usize::from(most)));
                    }
                }
                Call::Register(number) => {
                    forwarder.register(content(number % 6));
                }
                Call::Promise(number) => {
                    let _ = forwarder.promise(of(number), content(number % 6).len() as u64);
                }
                Call::Withdraw(number) => forwarder.withdraw(&of(number)),
                Call::LinkGone(link) => {
                    let gone = if link % 8 == 0 { 101 } else { link % 3 };
                    owner.served.retain(|_, link| *link != gone);
                    forwarder.link_gone(gone);
                }
            }
            owner.poll(&mut forwarder);
            let stats = forwarder.stats();
            prop_assert!(stats.kept <= BUDGET, "{:?}", stats);
            prop_assert!((0..3).all(|link| forwarder.link_stats(link).open <= 5));
        }
        owner.settle(&mut forwarder, well);
        prop_assert!(owner.served.is_empty(), "exchanges without an end: {:?}", owner.served);
        prop_assert!(owner.waiting.is_empty(), "needs without an end: {:?}", owner.waiting);
        // One more than are due does no harm.
        for hash in &hashes {
            for _ in 0..201 {
                forwarder.release(hash);
            }
            forwarder.withdraw(hash);
        }
        owner.poll(&mut forwarder);
        let stats = forwarder.stats();
        prop_assert_eq!((stats.serving, stats.coming, stats.waiting), (0, 0, 0));
        prop_assert_eq!((stats.contents, stats.kept), (0, 0));
    }
}
