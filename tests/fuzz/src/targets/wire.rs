//! Decoders of `offshoot-wire`: frames, values, hellos, escaping.

use std::collections::BTreeMap;
use std::fmt::Debug;

use offshoot_wire::escape::{escape_into, escaped, is_dangerous, quoted};
use offshoot_wire::{
    Ack, Address, Bye, Carried, ChannelEnd, ChildHello, CommandSpec, ConnectReply, ConnectSpec, ContentRef, Credit,
    Decode, EnvChange, ExecControl, ExecReply, Failure, Frame, Gone, Grant, HELLO_MAGIC, Hello, Limits, NodeInfo,
    ParentHello, PayloadSpec, Ping, Recipe, RequestHead, ShutdownNotice, StreamSpec, decode, decode_untrusted, encode,
    parse_chunk, parse_frame, parse_hello,
};
use serde::{Deserialize, Serialize};

use crate::feed::Feed;

/// A stream of frames: whatever is accepted is written back as the same bytes, and a cut frame is never a frame.
pub(crate) fn frames(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else { return };
    let frame = [Limits::FRAME, Limits::FRAME_MIN, 1024][usize::from(choice) % 3];
    let limits = Limits { frame, ..Limits::default() };
    while let Ok(Some(parsed)) = parse_frame(rest, &limits) {
        assert!(
            parsed.length <= rest.len() && parsed.length <= frame as usize + 4,
            "a frame beyond its bytes or limit"
        );
        let body = rest[parsed.body.clone()].to_vec();
        assert_eq!(parsed.body.end, parsed.length);
        let mut again = Vec::new();
        Frame { header: parsed.header.clone(), body: body.clone().into() }.encode(&mut again);
        assert_eq!(again, rest[..parsed.length], "one head has two encodings");
        for cut in [parsed.length - 1, parsed.length / 2, 3] {
            let cut = parse_frame(&rest[..cut.min(parsed.length - 1)], &limits);
            assert_eq!(cut, Ok(None), "a cut frame was taken or refused");
        }
        if let Some((channel, data)) = parse_chunk(&body) {
            assert!(channel < Limits::CHANNELS && data.len() + 1 == body.len());
        }
        rest = &rest[parsed.length..];
    }
}

fn value<T: Decode + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = decode::<T>(bytes) else { return };
    let again = encode(&value);
    assert!(again.len() <= bytes.len(), "the canonical form is longer than another");
    assert_eq!(decode::<T>(&again).as_ref(), Ok(&value), "a value does not come back");
}

/// Every body of a frame and of a verb.
pub(crate) fn values(data: &[u8]) {
    let Some((&which, bytes)) = data.split_first() else { return };
    match which % 26 {
        0 => value::<Ack>(bytes),
        1 => value::<Address>(bytes),
        2 => value::<Bye>(bytes),
        3 => value::<ChannelEnd>(bytes),
        4 => value::<ChildHello>(bytes),
        5 => value::<CommandSpec>(bytes),
        6 => value::<ConnectReply>(bytes),
        7 => value::<ConnectSpec>(bytes),
        8 => value::<Credit>(bytes),
        9 => value::<EnvChange>(bytes),
        10 => value::<ExecControl>(bytes),
        11 => value::<ExecReply>(bytes),
        12 => value::<Failure>(bytes),
        13 => value::<Gone>(bytes),
        14 => value::<Grant>(bytes),
        15 => value::<NodeInfo>(bytes),
        16 => value::<ParentHello>(bytes),
        17 => value::<ContentRef>(bytes),
        18 => value::<PayloadSpec>(bytes),
        19 => value::<Ping>(bytes),
        20 => value::<Recipe>(bytes),
        21 => value::<RequestHead>(bytes),
        22 => value::<ShutdownNotice>(bytes),
        23 => value::<Carried>(bytes),
        24 => value::<StreamSpec>(bytes),
        _ => head(bytes),
    }
}

/// What a relay reads of a request agrees with what its target reads.
fn head(bytes: &[u8]) {
    let Ok((head, rest)) = RequestHead::split(bytes) else { return };
    let peeked = RequestHead::peek(bytes);
    assert_eq!(peeked, Ok((head.verb, head.window, head.grant.is_some())), "a relay reads another request");
    assert!(rest.len() < bytes.len());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Round(f32),
    Line(i8, i64, u128),
    Named { name: String, of: Option<Box<Shape>> },
    Many(Vec<Shape>),
    Empty(Vec<()>),
    Table(BTreeMap<String, Vec<u16>>),
    Letter(char, bool, [u8; 3]),
}

/// Types of users, through the limiting decoder (S7).
pub(crate) fn untrusted(data: &[u8]) {
    let Ok(shape) = decode_untrusted::<Shape>(data) else { return };
    let again = encode(&shape);
    let back = decode_untrusted::<Shape>(&again).expect("what was decoded once is within the limits");
    // Not by `==`: a float that is no number equals nothing.
    assert_eq!(encode(&back), again, "a value does not come back");
}

/// Hellos of both roles: the same verdict however the bytes are cut, and no verdict without the magic.
pub(crate) fn hello(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let mut whole = Vec::new();
    if choice & 1 == 0 {
        whole.extend(HELLO_MAGIC);
    }
    if choice & 2 == 0 {
        whole.extend([1, 0, 1, 0]);
        let body = &rest[..rest.len().min(Limits::HELLO as usize)];
        whole.extend((body.len() as u32).to_le_bytes());
    }
    whole.extend(rest);
    if choice & 4 == 0 { one::<ChildHello>(&whole) } else { one::<ParentHello>(&whole) }
}

fn one<T: Hello + PartialEq + Debug>(whole: &[u8]) {
    let at_once = parse_hello::<T>(whole);
    let mut verdict = None;
    for cut in 0..=whole.len() {
        match parse_hello::<T>(&whole[..cut]) {
            Ok(None) => assert!(verdict.is_none(), "a verdict was taken back"),
            other => {
                if verdict.is_none() {
                    verdict = Some(other);
                }
            }
        }
    }
    match (&at_once, verdict) {
        (Ok(None), verdict) => assert!(verdict.is_none()),
        (at_once, verdict) => assert_eq!(Some(at_once), verdict.as_ref(), "the verdict depends on the cut"),
    }
    if let Ok(Some(parsed)) = at_once {
        assert_eq!(parsed.version, 1);
        assert!(parsed.length <= whole.len() && parsed.length <= 16 + Limits::HELLO as usize);
        let mut again = Vec::new();
        parsed.hello.put(&mut again);
        let back = parse_hello::<T>(&again).expect("well formed").expect("whole");
        assert_eq!(back.hello, parsed.hello);
    }
}

/// Escaping: nothing dangerous is left, one record is one line, and the two ways to escape agree (S8).
pub(crate) fn escape(data: &[u8]) {
    let text = escaped(data).to_string();
    assert!(!text.chars().any(is_dangerous), "{text:?}");
    let quote = quoted(data).to_string();
    assert!(!quote.chars().any(|c| is_dangerous(c) || c == '\t'), "{quote:?}");
    assert!(quote.len() >= 2 && quote.starts_with('"') && quote.ends_with('"'));
    let mut into = Vec::new();
    escape_into(data, &mut into);
    assert_eq!(into, text.as_bytes());
    assert!(text.len() <= 4 * data.len());
    // Cut anywhere, each part is as harmless.
    let mut feed = Feed::new(data);
    let at = feed.below(256).min(data.len());
    let (left, right) = data.split_at(at);
    assert!(!format!("{}{}", escaped(left), escaped(right)).chars().any(is_dangerous));
}
