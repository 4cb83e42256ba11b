//! Forwarding of program images, agents and files down a tree of contexts, by content hash, without IO.
//!
//! A [`Forwarder`] is the part of one context that knows which contents it has, which are coming, and who waits for
//! them. It owns that and the cache. It must not know where bytes come from or go to: it has no sockets, files, threads
//! or clock, and names links and exchanges by whatever its owner names them. It is driven by one owner at a time, under
//! that owner's lock.
//!
//! # How it works
//!
//! - **A content is named by its SHA-256** ([`ContentHash`]). Whoever receives one checks it before use (S11): a relay
//!   can cache but cannot alter. The root serves only what its owner [registered](Forwarder::register) or
//!   [promised](Forwarder::promise); all others serve what came from above.
//! - **Wants go up, contents come down.** A context asks a source above it, once, however many wait for the content
//!   here: threads of its own ([`Forwarder::need`]) and the contexts below ([`Forwarder::serve`]). So a link carries a
//!   content once. Who joins late gets what is there already, from the beginning.
//! - **Cut-through**: what arrives is handed on before the rest is there. The word that it is whole comes last, when the
//!   hash has been checked here; who sent something else is named to everyone who waits.
//! - **Credit is the streams' business.** The owner asks for bytes ([`Forwarder::next`]) when there is credit, says
//!   what was sent ([`Forwarder::sent`]), and gives credit for what has been stored ([`Event::Stored`]).
//!
//! # The stream
//!
//! The answering side of an exchange writes the content's length, eight bytes in little-endian, and then the content.
//! The exchange ends with an [`Outcome`].
//!
//! # Limits
//!
//! What is kept and what is coming, by announced length, stays under [`Config::budget`]; what is not in use is evicted,
//! least recently used first. A content that finds no room waits for it in its stream's window. Contents of more
//! than [`Config::largest`] are refused: what is that large is a plain stream's business. Each link may have
//! [`Config::serving`] exchanges open. Every wait is the waiter's to bound: a source that sends nothing holds nobody
//! who [gives up](Forwarder::give_up), and what nobody waits for is dropped.
//!
//! # Example
//!
//! ```
//! use offshoot_forward::{Config, Event, Forwarder};
//! use offshoot_wire::Address;
//!
//! let mut root: Forwarder<u32, u8> = Forwarder::new(Address::ROOT, Config::default());
//! let hash = root.register(&b"an image"[..]);
//! root.serve(7, 1, hash);                     // exchange 7, by link 1, wants it
//! assert_eq!(root.poll_event(), Some(Event::Send { exchange: 7 }));
//! let mut stream = Vec::new();
//! while let Some(bytes) = root.next(7) {
//!     root.sent(7, bytes.len());
//!     stream.extend_from_slice(&bytes);
//! }
//! assert_eq!(&stream[8..], b"an image");
//! assert_eq!(root.poll_event(), Some(Event::End { exchange: 7, outcome: Ok(()) }));
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod content;
mod event;
mod forwarder;
mod hash;
mod sorted;

pub use config::{Config, LinkStats, Stats};
pub use content::Content;
pub use event::{Event, FetchId, Outcome, Refusal};
pub use forwarder::Forwarder;
pub use hash::ContentHash;
