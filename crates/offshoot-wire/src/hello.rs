//! The hello: the first bytes of a link, in each direction, before any frame (S24).
//!
//! ```text
//! 8 bytes  HELLO_MAGIC
//! u16 LE   oldest protocol version spoken
//! u16 LE   newest protocol version spoken
//! u32 LE   length of the body
//! rest     body: ParentHello downwards, ChildHello upwards
//! ```
//!
//! The newest version that both speak is used; when there is none the link is closed. A parent that just sent the agent
//! itself need not wait for the answer: its first frames may follow its hello at once.

use serde::Serialize;

use crate::reader::{Decode, Reader, read_fields};
use crate::{Address, DecodeError, Limits, codec};

/// The first bytes of a hello. They begin with NUL and hold bytes that no text has, so that a hello is found behind
/// a login's chatter.
pub const HELLO_MAGIC: [u8; 8] = *b"\0offsh\xf5\n";

/// The oldest protocol version that this crate speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest protocol version that this crate speaks.
pub const PROTOCOL_MAX: u16 = 1;

const HEAD: usize = 16;

/// What a parent tells its new child.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ParentHello {
    /// Chosen for this connect; the child sends it back.
    pub nonce: [u8; 16],
    /// The tree: random, one for all contexts of a tree.
    pub tree: [u8; 16],
    /// The child's address.
    pub address: Address,
    /// The child's sealing key (R4), derived from the parent's.
    pub key: [u8; 32],
    /// The tree's clock when this was sent, in milliseconds since the root started.
    pub tree_ms: u64,
    /// The largest frame the parent takes.
    pub frame: u32,
    /// How often the parent sends a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// After how long without a byte either end counts as lost, in milliseconds.
    pub silence_ms: u32,
    /// The child's own name, `ssh:web1`.
    pub name: String,
    /// The names from the root down to the child, joined with ` -> `; empty for children of the root is not allowed.
    pub path: String,
    /// What the child's process is called in `ps`.
    pub process_name: String,
    /// Down to which level it sends log records, numbered as in [`LogRecord::level`](crate::LogRecord::level).
    pub log: u8,
}

read_fields!(ParentHello {
    nonce,
    tree,
    address,
    key,
    tree_ms,
    frame,
    heartbeat_ms,
    silence_ms,
    name,
    path,
    process_name,
    log,
});

impl std::fmt::Debug for ParentHello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is a secret: never in a log (S19).
        f.debug_struct("ParentHello").field("address", &self.address).field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a child tells its parent about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildHello {
    /// The parent's nonce, sent back.
    pub nonce: [u8; 16],
    /// The largest frame the child takes.
    pub frame: u32,
    /// The triple it was built for.
    pub triple: String,
    /// The version of the agent.
    pub version: String,
    /// The machine's name for itself.
    pub host: String,
    /// The user it runs as.
    pub user: String,
    /// That user's number.
    pub uid: u32,
    /// Its process number on its machine.
    pub pid: u32,
}

read_fields!(ChildHello { nonce, frame, triple, version, host, user, uid, pid });

impl ChildHello {
    /// Within another message, with the same checks as in a hello.
    pub(crate) fn checked(from: &mut Reader<'_>) -> ChildHello {
        let hello = ChildHello::read(from);
        if hello.check().is_err() {
            from.fail("breaks a limit");
        }
        hello
    }
}

/// A hello that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The bytes are no hello.
    #[error("expected a hello, got something else")]
    Magic,
    /// No common protocol version.
    #[error("no common protocol version: expected {PROTOCOL_MIN} to {PROTOCOL_MAX}, got {min} to {max}")]
    Version {
        /// The oldest that the other end speaks.
        min: u16,
        /// The newest that the other end speaks.
        max: u16,
    },
    /// The body is longer than [`Limits::HELLO`].
    #[error("a hello of {0} bytes, expected at most {limit}", limit = Limits::HELLO)]
    TooLong(u32),
    /// The body cannot be decoded.
    #[error("malformed hello: {0}")]
    Body(#[from] DecodeError),
    /// A value in it is out of bounds.
    #[error("hello out of bounds: {0}")]
    Bounds(&'static str),
    /// The nonce is not the one that was sent.
    #[error("the hello answers another connect")]
    Nonce,
}

/// A hello found in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedHello<T> {
    /// What it says.
    pub hello: T,
    /// The protocol version to use from here on.
    pub version: u16,
    /// Its length in bytes.
    pub length: usize,
}

/// The version to use with a peer that speaks `min` to `max`.
///
/// # Errors
/// [`HelloError::Version`] when there is none.
pub fn negotiate(min: u16, max: u16) -> Result<u16, HelloError> {
    let version = max.min(PROTOCOL_MAX);
    if min > max || version < min || version < PROTOCOL_MIN {
        return Err(HelloError::Version { min, max });
    }
    Ok(version)
}

fn put<T: Serialize>(hello: &T, out: &mut Vec<u8>) {
    let body = codec::encode(hello);
    out.extend(HELLO_MAGIC);
    out.extend(PROTOCOL_MIN.to_le_bytes());
    out.extend(PROTOCOL_MAX.to_le_bytes());
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
}

/// What both hellos have in common.
pub trait Hello: Serialize + Decode {
    /// Appends the encoded hello.
    fn put(&self, out: &mut Vec<u8>) {
        put(self, out);
    }

    /// Checks the bounds of what it says.
    ///
    /// # Errors
    /// [`HelloError::Bounds`] naming the value.
    fn check(&self) -> Result<(), HelloError>;
}

fn bounded(name: &str, what: &'static str) -> Result<(), HelloError> {
    if name.len() > Limits::NAME { Err(HelloError::Bounds(what)) } else { Ok(()) }
}

fn frame_bounded(frame: u32) -> Result<(), HelloError> {
    if (Limits::FRAME_MIN..=Limits::FRAME).contains(&frame) { Ok(()) } else { Err(HelloError::Bounds("frame size")) }
}

impl Hello for ParentHello {
    fn check(&self) -> Result<(), HelloError> {
        frame_bounded(self.frame)?;
        if self.heartbeat_ms == 0 || self.silence_ms <= self.heartbeat_ms {
            return Err(HelloError::Bounds("heartbeat"));
        }
        if self.address.depth() == 0 {
            return Err(HelloError::Bounds("address"));
        }
        if self.log > Limits::LOG_LEVEL {
            return Err(HelloError::Bounds("log level"));
        }
        bounded(&self.name, "name")?;
        bounded(&self.process_name, "process name")?;
        if self.path.len() > 2 * 1024 { Err(HelloError::Bounds("path")) } else { Ok(()) }
    }
}

impl Hello for ChildHello {
    fn check(&self) -> Result<(), HelloError> {
        frame_bounded(self.frame)?;
        bounded(&self.triple, "triple")?;
        bounded(&self.version, "version")?;
        bounded(&self.host, "host")?;
        bounded(&self.user, "user")
    }
}

/// Parses the hello at the front of `bytes`. `Ok(None)` when it is not there in full yet.
///
/// # Errors
/// [`HelloError`] as soon as the bytes cannot become an acceptable hello.
pub fn parse_hello<T: Hello>(bytes: &[u8]) -> Result<Option<ParsedHello<T>>, HelloError> {
    let seen = bytes.len().min(HELLO_MAGIC.len());
    if bytes[..seen] != HELLO_MAGIC[..seen] {
        return Err(HelloError::Magic);
    }
    let Some(head) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
    let version = negotiate(u16::from_le_bytes([head[8], head[9]]), u16::from_le_bytes([head[10], head[11]]))?;
    let length = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
    if length > Limits::HELLO {
        return Err(HelloError::TooLong(length));
    }
    let length = HEAD + length as usize;
    let Some(body) = bytes.get(HEAD..length) else { return Ok(None) };
    let hello: T = codec::decode(body)?;
    hello.check()?;
    Ok(Some(ParsedHello { hello, version, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child() -> ChildHello {
        ChildHello {
            nonce: [7; 16],
            frame: Limits::FRAME,
            triple: "x86_64-unknown-linux-musl".into(),
            version: "0.1.0".into(),
            host: "web1".into(),
            user: "dmw".into(),
            uid: 1000,
            pid: 4711,
        }
    }

    #[test]
    fn a_hello_comes_back_and_is_incomplete_at_every_cut() {
        let mut bytes = Vec::new();
        child().put(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(parse_hello::<ChildHello>(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let parsed = parse_hello::<ChildHello>(&bytes).expect("well formed").expect("whole");
        assert_eq!((parsed.hello, parsed.version, parsed.length), (child(), 1, bytes.len()));
    }

    #[test]
    fn s24_versions_without_overlap_fail_closed() {
        let mut bytes = Vec::new();
        child().put(&mut bytes);
        bytes[8..12].copy_from_slice(&[2, 0, 9, 0]);
        assert_eq!(parse_hello::<ChildHello>(&bytes), Err(HelloError::Version { min: 2, max: 9 }));
        bytes[8..12].copy_from_slice(&[0, 0, 0, 0]);
        assert_eq!(parse_hello::<ChildHello>(&bytes), Err(HelloError::Version { min: 0, max: 0 }));
        assert_eq!(negotiate(1, 9), Ok(1));
        assert_eq!(negotiate(9, 1), Err(HelloError::Version { min: 9, max: 1 }));
    }

    #[test]
    fn anything_else_first_is_refused_at_its_first_byte() {
        assert_eq!(parse_hello::<ChildHello>(b"W"), Err(HelloError::Magic));
        assert_eq!(parse_hello::<ChildHello>(b"\0offsX"), Err(HelloError::Magic));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        for (hello, what) in [
            (ChildHello { frame: 511, ..child() }, "frame size"),
            (ChildHello { frame: Limits::FRAME + 1, ..child() }, "frame size"),
            (ChildHello { host: "h".repeat(256), ..child() }, "host"),
        ] {
            let mut bytes = Vec::new();
            hello.put(&mut bytes);
            assert_eq!(parse_hello::<ChildHello>(&bytes), Err(HelloError::Bounds(what)));
        }
    }
}
