//! The closed set of requests (R9).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a request asks for. Numbers are the wire form and never change meaning.
///
/// An unknown number ends that request with an error; it is never looked up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Verb {
    /// Answers with the bytes it was sent: the built-in no-op call.
    Echo = 1,
    /// Answers with a [`NodeInfo`](crate::NodeInfo).
    Info = 2,
    /// Starts a process; see [`CommandSpec`](crate::CommandSpec).
    Exec = 3,
    /// Starts a child context; see [`ConnectSpec`](crate::ConnectSpec).
    Connect = 4,
    /// Works on files. Reserved: answered as unsupported until the file service stands.
    Files = 5,
    /// Calls one of the user's functions, in a worker; see [`CallSpec`](crate::CallSpec).
    Call = 6,
    /// Ends the context and all below it.
    Shutdown = 7,
    /// Leaves the tree and lives on. Reserved.
    Detach = 8,
    /// Joins a listening tree. Reserved.
    Attach = 9,
    /// Asks the parent which content starts a target of some triple; see [`PayloadSpec`](crate::PayloadSpec).
    Payload = 10,
    /// Asks the parent for a content by its hash, an agent or an image of a program; see
    /// [`ImageSpec`](crate::ImageSpec).
    Image = 11,
    /// Looks after a worker for as long as the exchange is open: sets its limits, and streams what it and what it starts
    /// write to stdout and stderr; see [`AttendSpec`](crate::AttendSpec). A worker that is no longer attended ends.
    Attend = 12,
    /// Reads or writes a stream of messages or bytes that the asked process has handed over; see
    /// [`StreamSpec`](crate::StreamSpec).
    Stream = 13,
}

impl Verb {
    /// Every verb, in the order of the numbers.
    pub const ALL: [Verb; 13] = [
        Verb::Echo,
        Verb::Info,
        Verb::Exec,
        Verb::Connect,
        Verb::Files,
        Verb::Call,
        Verb::Shutdown,
        Verb::Detach,
        Verb::Attach,
        Verb::Payload,
        Verb::Image,
        Verb::Attend,
        Verb::Stream,
    ];

    /// The wire number.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The verb of a wire number; `None` when there is none.
    pub fn from_number(number: u16) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.number() == number)
    }
}

impl Serialize for Verb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.number().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Verb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Verb, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Verb::from_number(number).ok_or_else(|| serde::de::Error::custom("unknown verb"))
    }
}
