//! The sans-IO core of an offshoot node: links, addresses, authority, grants, requests, streams and the send scheduler.
//!
//! Bytes and the time go in ([`Node::handle_bytes`], [`Node::handle_timeout`]); bytes, events and the next deadline come
//! out ([`Node::poll_transmit`], [`Node::poll_event`], [`Node::poll_timeout`]). There are no sockets, files, threads or
//! clocks here (R1), so that a tree of thousands of nodes runs in one test thread, deterministically. The crate must not
//! know how a link is made, what a verb does, or what the bytes of a stream mean.
//!
//! # How it works
//!
//! - **Links** lead to the parent and to children. An address is delegated when a child is reserved and never given out
//!   again (R3). A frame's source is checked against the link it came from; the mark of full authority is believed from
//!   the parent only (R2).
//! - **Exchanges**: a request, its channels and its answer. Every context on the path keeps one entry for each, the relays
//!   too. So each context passes only what belongs to a request that it passed, from the side that may say it, within the
//!   credit that it saw given; a hostile context meets these checks at its own parent, before anyone else's link is hurt.
//!   A request from below needs a grant to pass a context at all; its target checks the grant.
//! - **Fault or blame**: what a neighbour itself did wrong ends its link, with the reason. What a context behind an honest
//!   relay may have done ends the exchange, or is dropped and counted ([`LinkStats::strays`]).
//! - **Sending**: the link's own frames first (heartbeats, acknowledgements, refusals, credit, cancels and failures), then
//!   calls before bulk, then logs. In each of these lanes the links that frames came in on share evenly, and the
//!   exchanges of one link share its part, both by deficit round robin. Bulk in flight stays under what rate and round
//!   trip allow ([`Config::bulk_gain`]); calls do not count.
//! - **Losing**: when a link ends, requests that have not left fail as not sent, others as perhaps executed, each once. A
//!   notice goes up to the root behind everything that the lost contexts had sent, so that an answer that made it in time
//!   counts.
//!
//! # Limits
//!
//! Everything is bounded; [`Config`] says by what, why, at what cost, and what happens at the bound. Stream data that is
//! on its way to this context, or that its application was handed and has not consumed, is at most
//! [`WINDOW_SUM`](offshoot_wire::Limits::WINDOW_SUM) and the floor of each channel on top. Times are whatever
//! the caller passes, and must not go backwards. A [`Node`] is `Send` and has no interior mutability: it is driven by
//! whoever holds it.
//!
//! # Example
//!
//! `examples/two_nodes.rs` joins a parent and a child by two byte buffers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// A `Failure` is a value of the protocol, 144 bytes. It is rare, and boxing it would put an allocation and a second form
// of it into every signature.
#![allow(clippy::result_large_err)]

mod bucket;
mod config;
mod event;
mod exchange;
mod hash;
mod link;
mod names;
mod node;
mod outbox;
mod peers;
mod policy;
mod seal;
mod slab;
mod time;

pub use bucket::Rate;
pub use config::Config;
pub use event::{Census, Event, ExchangeId, LinkId, LinkStats, Transmit};
pub use node::Node;
pub use policy::{Channels, permits};
pub use seal::{NarrowError, child_key, key_below, narrow};
pub use time::Time;
