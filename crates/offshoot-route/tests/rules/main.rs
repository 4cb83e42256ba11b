//! The rules of trust and failure, each a test under its name.

// As in the crate: a `Failure` is a value of the protocol, and large.
#![allow(clippy::result_large_err)]

mod authority;
mod bounds;
mod floods;
#[path = "../lab/mod.rs"]
mod lab;
mod losses;
mod sending;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lab::{Lab, child_hello, frames, reply_side, request};
use offshoot_route::{Config, Event, ExchangeId, Node, Rate, Time, narrow};
use offshoot_wire::{
    Ack, Address, Authority, ChannelEnd, Credit, EndReason, Failure, FailureKind, Frame, FrameKind, Gone, Grant,
    GrantLink, Limits, LostReason, Ping, Ran, RequestHead, ShutdownNotice, Verb, VerbSet, channel, encode,
};

const HOUR: Duration = Duration::from_secs(3600);

fn verbs(verb: Verb) -> VerbSet {
    VerbSet::NONE.with(verb)
}

fn kinds(done: &[(ExchangeId, Result<Bytes, Failure>)]) -> Vec<(&FailureKind, Ran)> {
    done.iter().filter_map(|(_, result)| result.as_ref().err()).map(|failure| (&failure.kind, failure.ran)).collect()
}

/// A chain of contexts below the root, a sibling subtree with the holder, and a way to show a grant to the target.
fn deep(depth: usize) -> (Lab, usize, usize) {
    let mut lab = Lab::new();
    let (mut target, mut holder) = (0, 0);
    for _ in 0..depth {
        target = lab.add(target);
        holder = lab.add(holder);
    }
    (lab, target, holder)
}
