//! The bundle: all that is sent to a target of one triple, as one value and as one file.
//!
//! Owns the file format `offshoot-agent-<triple>.bundle` and the layout of the payload that the loader reads. Knows
//! nothing of how a target is reached. Pure data, on any thread.
//!
//! ```text
//! file                                       payload, after the start line
//!  8 bytes  MAGIC                             stage 1, raw
//!  u32 LE   length of the triple              4 bytes  "OFS2"
//!  u32 LE   length of stage 0                 u32 LE   length of the packed agent
//!  u32 LE   length of stage 1                 u32 LE   length of the agent
//!  u32 LE   length of the packed agent        4 bytes  how it is packed: LZMA's properties, filter, 0, 0
//!  u32 LE   length of the agent               32 bytes SHA-256 of the agent
//!  4 bytes  how it is packed                  rest     the packed agent
//!  32 bytes SHA-256 of the agent
//!  rest     triple, stage 0, stage 1, packed agent
//!  32 bytes SHA-256 of all before
//! ```
//!
//! How an agent is packed is `offshoot-loader`'s business, whose stage 1 unpacks it.

use std::fmt;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The first bytes of a bundle file; the last is the format's version.
const MAGIC: [u8; 8] = *b"offshob\x02";
const HEAD: usize = 8 + 6 * 4 + 32;
const SEAL: usize = 32;

/// What stage 1 expects first, so that a mangled stream is told at once from a slow one.
const PAYLOAD_MAGIC: [u8; 4] = *b"OFS2";
const PAYLOAD_HEAD: usize = 4 + 4 + 4 + 4 + 32;

/// The longest triple, in bytes.
pub const TRIPLE_MAX: usize = 64;
/// The longest stage 0: written as escapes it must leave room in a terminal's line of 4,095 bytes.
pub const STAGE0_MAX: usize = 1536;
/// The longest stage 1: stage 0's buffer for it.
pub const STAGE1_MAX: usize = 8192;
/// The longest packed agent, 64 MiB: user programs serve as their own agent.
pub const PACKED_MAX: usize = 64 << 20;
/// The longest agent, 256 MiB; what [`Bundle::unpack`] allocates at most.
pub const AGENT_MAX: usize = 256 << 20;

/// An agent as it travels. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    /// The packed bytes; `offshoot_loader::unpack` says what they are, and what the next two mean.
    pub bytes: Bytes,
    /// LZMA's properties.
    pub properties: u8,
    /// The filter that the agent went through first.
    pub filter: u8,
    /// The agent's length in bytes.
    pub len: u32,
    /// The agent's SHA-256.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Packed {
    /// Without its bytes, which are many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Packed {
    /// Packs `agent` as small as can be: half a second for 400 KiB in an optimized build.
    ///
    /// # Errors
    ///
    /// [`BundleError::Part`] when it is longer than lengths can say.
    #[cfg(feature = "pack")]
    pub fn of(agent: &[u8]) -> Result<Packed, BundleError> {
        let len = u32::try_from(agent.len()).map_err(|_| BundleError::Part("agent"))?;
        let packed = offshoot_loader::pack::pack(agent).map_err(|_| BundleError::Part("agent"))?;
        let (properties, filter) = (packed.properties, packed.filter);
        Ok(Packed { bytes: packed.bytes.into(), properties, filter, len, sha256: Sha256::digest(agent).into() })
    }

    fn how(&self) -> [u8; 4] {
        [self.properties, self.filter, 0, 0]
    }
}

/// Loader and agent for one triple. Cheap to clone: the parts are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    triple: String,
    stage0: Bytes,
    stage1: Bytes,
    agent: Packed,
}

/// Why bytes are not a bundle, or a bundle not an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file does not begin as a bundle of this version.
    #[error("not an agent bundle of this version")]
    Magic,
    /// The file is shorter or longer than its lengths say.
    #[error("an agent bundle of {expected} bytes was expected, got {got}")]
    Length {
        /// What the lengths say.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A part is empty or over its limit, or the triple not made of letters, digits, `_`, `.` and `-`.
    #[error("the {0} of an agent bundle is empty, too long or malformed")]
    Part(&'static str),
    /// The bytes changed since the bundle was written.
    #[error("the agent bundle is damaged")]
    Damaged,
    /// The agent does not unpack to what the header says.
    #[error("the agent in the bundle does not unpack")]
    Unpack,
    /// The unpacked agent has another hash than the header says.
    #[error("the agent in the bundle has another hash")]
    Hash,
}

impl Bundle {
    /// Puts a bundle together from its parts.
    ///
    /// # Errors
    ///
    /// [`BundleError::Part`] when a part is empty or over its limit, or the triple malformed. The packed bytes
    /// themselves are not looked at: see [`Bundle::unpack`].
    pub fn new(
        triple: impl Into<String>,
        stage0: impl Into<Bytes>,
        stage1: impl Into<Bytes>,
        agent: Packed,
    ) -> Result<Bundle, BundleError> {
        let bundle = Bundle { triple: triple.into(), stage0: stage0.into(), stage1: stage1.into(), agent };
        let parts = [
            ("triple", bundle.triple.len(), TRIPLE_MAX),
            ("stage 0", bundle.stage0.len(), STAGE0_MAX),
            ("stage 1", bundle.stage1.len(), STAGE1_MAX),
            ("packed agent", bundle.agent.bytes.len(), PACKED_MAX),
            ("agent", bundle.agent.len as usize, AGENT_MAX),
        ];
        for (name, len, max) in parts {
            if len == 0 || len > max {
                return Err(BundleError::Part(name));
            }
        }
        if !bundle.triple.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            return Err(BundleError::Part("triple"));
        }
        Ok(bundle)
    }

    /// The triple that the agent was built for.
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// The small loader: what the start line carries as text.
    pub fn stage0(&self) -> &Bytes {
        &self.stage0
    }

    /// The loader proper: the first bytes behind the start line.
    pub fn stage1(&self) -> &Bytes {
        &self.stage1
    }

    /// The agent as it travels.
    pub fn agent(&self) -> &Packed {
        &self.agent
    }

    /// What follows the start line: stage 1, header, packed agent. A copy of them, made anew by each call.
    pub fn payload_after_line(&self) -> Bytes {
        let Packed { bytes, len, sha256, .. } = &self.agent;
        let mut out = BytesMut::with_capacity(self.stage1.len() + PAYLOAD_HEAD + bytes.len());
        out.extend_from_slice(&self.stage1);
        out.extend_from_slice(&PAYLOAD_MAGIC);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.agent.how());
        out.extend_from_slice(sha256);
        out.extend_from_slice(bytes);
        out.freeze()
    }

    /// The agent's executable, checked against its hash. Allocates its length.
    ///
    /// # Errors
    ///
    /// [`BundleError::Unpack`] or [`BundleError::Hash`] when the bundle's agent is not what its header says.
    pub fn unpack(&self) -> Result<Vec<u8>, BundleError> {
        let Packed { bytes, properties, filter, len, sha256 } = &self.agent;
        let agent = offshoot_loader::unpack::unpacked(*properties, *filter, bytes, *len as usize)
            .map_err(|_| BundleError::Unpack)?;
        if <[u8; 32]>::from(Sha256::digest(&agent)) != *sha256 {
            return Err(BundleError::Hash);
        }
        Ok(agent)
    }

    /// The bundle as the bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let parts = [self.triple.as_bytes(), &self.stage0, &self.stage1, &self.agent.bytes];
        let mut out = Vec::with_capacity(HEAD + parts.iter().map(|p| p.len()).sum::<usize>() + SEAL);
        out.extend(MAGIC);
        for part in parts {
            out.extend((part.len() as u32).to_le_bytes());
        }
        out.extend(self.agent.len.to_le_bytes());
        out.extend(self.agent.how());
        out.extend(self.agent.sha256);
        for part in parts {
            out.extend(part);
        }
        let seal = Sha256::digest(&out);
        out.extend(seal);
        out
    }

    /// The bundle that `file` holds; its parts share `file`'s memory.
    ///
    /// # Errors
    ///
    /// [`BundleError`] when anything about the file is not as [`Bundle::encode`] writes it. Nothing is allocated by the
    /// lengths in the file.
    pub fn decode(file: impl Into<Bytes>) -> Result<Bundle, BundleError> {
        let mut file: Bytes = file.into();
        let got = file.len();
        if got < HEAD + SEAL {
            return Err(if file.starts_with(&MAGIC) {
                BundleError::Length { expected: HEAD + SEAL, got }
            } else {
                BundleError::Magic
            });
        }
        if !file.starts_with(&MAGIC) {
            return Err(BundleError::Magic);
        }
        let number = |at: usize| {
            let at = 8 + 4 * at;
            u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]) as usize
        };
        let lens = [number(0), number(1), number(2), number(3)];
        let len = number(4) as u32;
        let [properties, filter, 0, 0] = (number(5) as u32).to_le_bytes() else { return Err(BundleError::Magic) };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(&file[HEAD - 32..HEAD]);
        let expected = lens.iter().fold(HEAD + SEAL, |sum, len| sum.saturating_add(*len));
        if expected != got {
            return Err(BundleError::Length { expected, got });
        }
        if Sha256::digest(&file[..got - SEAL])[..] != file[got - SEAL..] {
            return Err(BundleError::Damaged);
        }
        let _head = file.split_to(HEAD);
        let [triple, stage0, stage1, bytes] = lens.map(|len| file.split_to(len));
        let triple = String::from_utf8(triple.to_vec()).map_err(|_| BundleError::Part("triple"))?;
        Bundle::new(triple, stage0, stage1, Packed { bytes, properties, filter, len, sha256 })
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("triple", &self.triple)
            .field("stage0", &self.stage0.len())
            .field("stage1", &self.stage1.len())
            .field("packed", &self.agent.bytes.len())
            .field("agent", &self.agent.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bundle {
        let agent: Vec<u8> = (0..2_000u32).map(|n| ((n * n) >> 7) as u8).collect();
        let packed = offshoot_loader::pack::pack(&agent).unwrap();
        let agent = Packed {
            bytes: packed.bytes.into(),
            properties: packed.properties,
            filter: packed.filter,
            len: agent.len() as u32,
            sha256: Sha256::digest(&agent).into(),
        };
        Bundle::new("x86_64-unknown-linux-musl", vec![1; 70], vec![2; 350], agent).unwrap()
    }

    #[test]
    fn a_file_decodes_to_what_was_encoded() {
        let bundle = sample();
        let back = Bundle::decode(bundle.encode()).unwrap();
        assert_eq!(back, bundle);
        assert_eq!(back.unpack().unwrap().len(), 2_000);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_refused() {
        let file = sample().encode();
        for len in 0..file.len() {
            assert!(Bundle::decode(file[..len].to_vec()).is_err(), "cut at {len}");
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 0x20;
            assert!(Bundle::decode(bad).is_err(), "flipped at {at}");
        }
        let mut long = file;
        long.push(0);
        assert!(matches!(Bundle::decode(long), Err(BundleError::Length { .. })));
    }

    #[test]
    fn an_agent_that_is_not_what_the_header_says_is_refused() {
        let good = sample().agent().clone();
        let with = |change: &dyn Fn(&mut Packed)| {
            let mut agent = good.clone();
            change(&mut agent);
            Bundle::new("t", vec![1], vec![1], agent).unwrap().unpack()
        };
        assert_eq!(with(&|_| {}).map(|agent| agent.len()), Ok(2_000));
        assert_eq!(with(&|agent| agent.sha256 = [7; 32]), Err(BundleError::Hash));
        assert!(matches!(with(&|agent| agent.len -= 1), Err(BundleError::Unpack | BundleError::Hash)));
        assert!(matches!(with(&|agent| agent.len += 1), Err(BundleError::Unpack | BundleError::Hash)));
        assert_eq!(with(&|agent| agent.bytes.truncate(agent.bytes.len() - 9)), Err(BundleError::Unpack));
        assert_eq!(with(&|agent| agent.bytes = [&agent.bytes[..], &[0; 9]].concat().into()), Err(BundleError::Unpack));
        assert_eq!(with(&|agent| agent.filter = 99), Err(BundleError::Unpack));
        assert_eq!(with(&|agent| agent.properties = 7 | 7 << 3), Err(BundleError::Unpack));
    }

    #[test]
    fn parts_over_their_limit_are_refused() {
        let make = |triple: &str, stage0, stage1, len| {
            let agent = Packed { bytes: vec![0].into(), properties: 0, filter: 0, len, sha256: [0; 32] };
            Bundle::new(triple, vec![0; stage0], vec![0; stage1], agent).map(drop)
        };
        assert_eq!(make("t", 1, 1, 1), Ok(()));
        assert_eq!(make("", 1, 1, 1), Err(BundleError::Part("triple")));
        assert_eq!(make("t", STAGE0_MAX + 1, 1, 1), Err(BundleError::Part("stage 0")));
        assert_eq!(make("t", 1, STAGE1_MAX + 1, 1), Err(BundleError::Part("stage 1")));
        assert_eq!(make("t", 1, 1, AGENT_MAX as u32 + 1), Err(BundleError::Part("agent")));
        assert_eq!(make("a;b", 1, 1, 1), Err(BundleError::Part("triple")));
    }

    #[cfg(feature = "pack")]
    #[test]
    fn a_packed_agent_unpacks_again() {
        let agent: Vec<u8> = (0..5_000u32).map(|n| (n % 251) as u8).collect();
        let bundle = Bundle::new("t", vec![1], vec![2], Packed::of(&agent).unwrap()).unwrap();
        assert_eq!(bundle.unpack().unwrap(), agent);
    }
}
