//! The wire protocol of offshoot: what two contexts say to each other, and how it is laid out in bytes.
//!
//! This crate owns addresses, frames, the closed set of verbs, the hello, failures, grants (as data), recipes (as
//! data), and the limits of all of them. It is the only crate that names the payload codec. It knows nothing of IO,
//! time, threads or routing; everything in it is a plain value, `Send + Sync` where its parts are.
//!
//! The byte layout is documented, with golden vectors, in `docs/wire.md`; a test holds that page and this crate
//! together.
//!
//! # Example
//!
//! ```
//! use offshoot_wire::{Address, Frame, FrameKind, parse_frame, Limits};
//!
//! let frame = Frame::routed(FrameKind::Reply, Address::ROOT, Address::from_path(&[3, 1]).unwrap(), 7)
//!     .with_body(b"hello".to_vec().into());
//! let mut bytes = Vec::new();
//! frame.encode(&mut bytes);
//! let parsed = parse_frame(&bytes, &Limits::default()).unwrap().expect("a whole frame");
//! assert_eq!(parsed.length, bytes.len());
//! assert_eq!(parsed.header.exchange, 7);
//! assert_eq!(&bytes[parsed.body], b"hello");
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod address;
mod bounds;
mod call;
mod codec;
mod content;
pub mod escape;
mod failure;
mod frame;
mod grant;
mod handover;
mod hello;
mod limits;
mod log;
mod message;
mod question;
mod reader;
mod recipe;
mod secret;
mod untrusted;
mod varint;
mod verb;

pub use address::{Address, AddressError};
pub use call::{AttendSpec, CallReply, CallSpec, ChainLink};
pub use codec::{DecodeError, EncodeError, decode, encode, encode_into, encode_value, encode_value_into};
pub use content::{ContentRef, ContentStats, ImageSpec, Packing, PayloadSpec};
pub use failure::{
    AuthFailure, ConnectStage, Failure, FailureKind, HostKeyFailure, LostReason, Ran, RemoteFailure, Report, Resource,
};
pub use frame::{Frame, FrameError, FrameHeader, FrameKind, ParsedFrame, chunk_header, parse_chunk, parse_frame};
pub use grant::{Authority, Grant, GrantLink, VerbSet};
pub use handover::{Carried, StreamSpec, carried};
pub use hello::{
    ChildHello, HELLO_MAGIC, Hello, HelloError, PROTOCOL_MAX, PROTOCOL_MIN, ParentHello, ParsedHello, negotiate,
    parse_hello,
};
pub use limits::Limits;
pub use log::LogRecord;
pub use message::{
    Ack, Bye, ChannelEnd, CommandSpec, ConnectReply, ConnectSpec, Credit, EndReason, EnvChange, ExecControl, ExecReply,
    Gone, NodeInfo, Ping, ProcessExit, RequestHead, ShutdownNotice, StderrMode, Terminal, TerminalSize, channel,
};
pub use question::{Answer, AnswerBytes, Asks, Question};
pub use reader::Decode;
pub use recipe::{Hint, Meaning, Prompt, Prompts, Recipe, Start};
pub use secret::Secret;
pub use untrusted::decode_untrusted;
pub use verb::Verb;
