//! What `offshoot-connect`, the loader and the command line are given from outside.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lzma_rust2::LzmaReader;
use offshoot_connect::Target;
use offshoot_connect::bootstrap::{Bootstrap, Event, Exit, Hold, Options};
use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_connect::methods::Method;
use offshoot_loader::unpack::PROBABILITIES;
use offshoot_wire::escape::is_dangerous;
use offshoot_wire::{HELLO_MAGIC, Limits, Start};
use sha2::{Digest, Sha256};

use crate::feed::Feed;
use crate::nodeset::{NodeSet, fold};

const NONCE: [u8; 16] = [7; 16];

fn bundle_of(triple: &str) -> Bundle {
    let agent = Packed { bytes: Bytes::from_static(b"packed"), properties: 0, filter: 0, len: 9, sha256: [3; 32] };
    Bundle::new(triple, &b"stage zero"[..], &b"stage one"[..], agent).expect("parts within their limits")
}

/// What a login prints, to the machine that looks for marker, facts, the loader's report and the hello (S23).
///
/// The words that the other end would have to guess are at hand as single bytes, so that every stage is reached.
pub(crate) fn bootstrap(data: &[u8]) {
    let mut feed = Feed::new(data);
    let mut options = Options::new(NONCE);
    options.hold = [Hold::No, Hold::UntilMarker, Hold::UntilReady][feed.below(3)];
    options.preamble = vec![1; 100];
    if feed.chance() {
        options.assume = Some(bundle_of("x86_64-unknown-linux-musl"));
    }
    let provides = feed.byte();
    let mut now = Instant::now();
    let mut machine = Bootstrap::new(options, now).expect("the options are good");
    // The nonce as the target sees it: the probe has it with a backslash in it.
    let probe = machine.probe_script();
    let nonce = probe.split_once("echo M").map_or("", |(_, rest)| rest.split(' ').next().unwrap_or(""));
    let nonce = nonce.replace('\\', "");
    let place = format!("!{} 126 /tmp: sh: 1: /tmp/.o{nonce}: Permission denied", &nonce[..6]);
    let end = format!("!{}.", &nonce[..6]);
    let words: [&[u8]; 16] = [
        b"M",
        nonce.as_bytes(),
        b" ",
        b"Linux x86_64 .",
        b"\n",
        b"R",
        b"!L",
        b"Z012",
        &HELLO_MAGIC,
        b"0 Linux aarch64 .\r",
        b"!A",
        b"!N",
        place.as_bytes(),
        end.as_bytes(),
        b" armv7l .",
        b"\0\x1b[31m\xff",
    ];
    let (mut started, mut failed, mut sent) = (None, false, 0usize);
    let mut said: Vec<u8> = Vec::new();
    while !feed.is_over() && started.is_none() && !failed {
        let piece = match feed.byte() {
            choice @ 0..=99 => words[usize::from(choice) % words.len()].to_vec(),
            100..=119 => vec![feed.byte(); 1 + 300 * feed.below(256)],
            120..=139 => {
                now += Duration::from_millis(feed.number() % 20_000);
                machine.handle_timeout(now);
                Vec::new()
            }
            140..=143 => {
                machine.handle_eof(Exit::Code(i32::from(feed.byte())));
                Vec::new()
            }
            _ => feed.bytes(255).to_vec(),
        };
        said.extend_from_slice(&piece);
        let done = machine.poll_event();
        assert!(done.is_none() || piece.is_empty(), "an event without a cause");
        if done.is_none() {
            machine.handle_bytes(&piece, now);
        }
        let mut next = done.or_else(|| machine.poll_event());
        while let Some(event) = next {
            match event {
                Event::NeedBundle { triple, .. } => match provides % 3 {
                    0 => machine.provide(&bundle_of(triple), now),
                    1 => machine.provide(&bundle_of("riscv64gc-unknown-linux-musl"), now),
                    _ => machine.provide_error("none"),
                },
                Event::Started { rest } => {
                    assert!(rest.starts_with(&HELLO_MAGIC), "started without a hello");
                    assert!(said.ends_with(&rest), "bytes were lost or made up");
                    started = Some(rest);
                }
                Event::Failed(error) => {
                    failed = true;
                    // It goes into a message: bounded, and without a byte that a terminal acts upon.
                    let text = error.to_string();
                    assert!(!text.chars().any(|c| is_dangerous(c) && c != '\n'), "{text:?}");
                }
            }
            assert!(started.is_none() || !failed, "started and failed");
            next = machine.poll_event();
        }
        while let Some(piece) = machine.poll_output(now) {
            sent += piece.len();
            assert!(sent < 64 * 1024, "more is sent than there is");
        }
    }
    if started.is_some() || failed {
        machine.handle_bytes(b"more", now);
        machine.handle_eof(Exit::Code(0));
        assert_eq!(machine.poll_event(), None, "an event after the end");
    }
}

/// Bundle files: what is accepted is written back as it was, and the agent inside is checked before it is used (S11).
pub(crate) fn bundle(data: &[u8]) {
    let Some((&choice, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if choice & 1 == 1 {
        // The seal, which nobody guesses, and the format's mark.
        file.splice(0..file.len().min(8), *b"offshob\x02");
        let seal = Sha256::digest(&file);
        file.extend(seal);
    }
    let Ok(bundle) = Bundle::decode(Bytes::from(file.clone())) else { return };
    assert_eq!(bundle.encode(), file, "one bundle has two files");
    assert!(bundle.triple().bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)));
    let packed = bundle.agent();
    if packed.len <= 1 << 20
        && let Ok(agent) = bundle.unpack()
    {
        assert_eq!(agent.len(), packed.len as usize);
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&agent)), packed.sha256);
    }
    assert!(bundle.payload_after_line().len() < file.len());
}

/// The loader's decoder against another one: what the other takes whole, ours decodes to the same; and whatever comes, it
/// asks for no more bytes than it says.
pub(crate) fn unpack(data: &[u8]) {
    let mut feed = Feed::new(data);
    let (properties, filter) = (feed.byte(), feed.byte() % 8);
    let len = usize::from(feed.byte()) << feed.below(6);
    let bytes = feed.rest();
    let mut calls = 0;
    let mut rest = bytes.iter();
    let next = || {
        calls += 1;
        rest.next().copied().unwrap_or(0xa5)
    };
    let mut probabilities = Box::new([0; PROBABILITIES]);
    let mut ours = vec![0xaa; len];
    let mut between = vec![0x55; offshoot_loader::unpack::room_between(len)];
    let result = offshoot_loader::unpack::unpack(properties, filter, next, &mut probabilities, &mut between, &mut ours);
    assert!(calls <= 5 + 50 * between.len(), "{calls} bytes were asked for, for {len}");
    let whole = offshoot_loader::unpack::unpacked(properties, filter, bytes, len);
    if let Ok(agent) = whole {
        assert_eq!((result, &agent), (Ok(()), &ours), "two ways to unpack differ");
    }
    let (lc, lp, pb) = (u32::from(properties & 7), u32::from(properties >> 3 & 7), u32::from(properties >> 6));
    if filter == 0
        && lc + lp <= 4
        && let Ok(reader) = LzmaReader::new(bytes, len as u64, lc, lp, pb, 1 << 16, None)
    {
        let mut theirs = Vec::new();
        if reader.take(1 << 16).read_to_end(&mut theirs).is_ok() && theirs.len() == len {
            assert_eq!((result, theirs), (Ok(()), ours), "unpacked to something else");
        }
    }
}

/// Each filter is its own mirror: any bytes come back.
pub(crate) fn filters(data: &[u8]) {
    let Some((&filter, data)) = data.split_first() else { return };
    let filter = filter % 8;
    if let Some(wide) = offshoot_loader::filter::splits(filter) {
        let (start, end) = (data.len() / 8, data.len() - data.len() / 16);
        let split = offshoot_loader::split::split(data, start..end, wide);
        let mut joined = vec![0xaa; data.len()];
        assert!(offshoot_loader::split::join(&split, &mut joined, wide).is_some(), "filter {filter} is no mirror");
        assert_eq!(joined, data, "filter {filter} lost something");
        // What was never split.
        let mut other = vec![0; data.len().saturating_sub(offshoot_loader::split::HEAD)];
        let _ = offshoot_loader::split::join(data, &mut other, wide);
        return;
    }
    let mut there = data.to_vec();
    let known = offshoot_loader::filter::apply(filter, &mut there);
    assert_eq!(known, matches!(filter, 0 | 2..=4));
    assert_eq!(there.len(), data.len());
    assert_eq!(offshoot_loader::filter::undo(filter, &mut there), known);
    assert_eq!(there, data, "filter {filter} lost something");
    let mut back = data.to_vec();
    offshoot_loader::filter::undo(filter, &mut back);
    offshoot_loader::filter::apply(filter, &mut back);
    assert_eq!(back, data, "filter {filter} lost something the other way");
}

/// Target paths of the command line, and the arguments that come of them (S17).
pub(crate) fn target_paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Target::parse(text) {
        Ok(target) => {
            assert!((1..=Limits::DEPTH).contains(&target.hops().len()));
            let shown = target.to_string();
            assert_eq!(Target::parse(&shown).as_ref(), Ok(&target), "{shown:?}");
            for hop in target.hops() {
                let Ok(recipe) = hop.recipe() else { continue };
                let Start::Shell { argv, .. } = &recipe.start else { continue };
                assert!(argv.iter().all(|arg| !arg.contains('\0')));
                if recipe.method != "ssh" {
                    // The user to become is an argument, and no option.
                    assert!(!recipe.target.starts_with('-') && argv.contains(&recipe.target), "{argv:?}");
                    continue;
                }
                // Behind `--` stand the host and the probe, and the host is no option even there.
                let at = argv.iter().position(|arg| arg == "--").expect("the host is set apart");
                assert_eq!(at + 3, argv.len(), "{argv:?}");
                assert!(!argv[at + 1].starts_with('-') && !argv[at + 1].is_empty(), "{argv:?}");
            }
        }
        Err(error) => {
            assert!(error.span.0 <= error.span.1 && error.span.1 <= text.len());
            let _hop = error.hop();
            let message = error.to_string();
            assert!(!message.chars().any(is_dangerous), "{message:?}");
        }
    }
}

/// Node sets: bounded, each name once, and what is folded stands for the same names.
pub(crate) fn node_sets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut set = NodeSet::default();
    let good = set.add(text).is_ok();
    let names = set.into_names();
    assert!(names.len() <= crate::nodeset::LIMIT);
    if !good || names.len() > 2000 {
        return;
    }
    let folded = fold(&names);
    let mut again = NodeSet::default();
    again.add(&folded).unwrap_or_else(|error| panic!("{folded:?} stands for nothing: {error}"));
    let (mut before, mut after) = (names, again.into_names());
    before.sort();
    after.sort();
    assert_eq!(before, after, "{folded:?}");
}
