//! The bundle: all that is sent to a target of one triple, as one value and as one file.
//!
//! Owns the file format `offshoot-agent-<triple>.bundle` and the layout of the payload that the loader reads. Knows
//! nothing of how a target is reached. Pure data, on any thread.
//!
//! ```text
//! file                                       payload, after the start line
//!  8 bytes  MAGIC                             stage 1, raw
//!  u32 LE   length of the triple              4 bytes  "OFS1"
//!  u32 LE   length of stage 0                 u32 LE   length of the deflated agent
//!  u32 LE   length of stage 1                 u32 LE   length of the agent
//!  u32 LE   length of the deflated agent      32 bytes SHA-256 of the agent
//!  u32 LE   length of the agent               rest     the deflated agent
//!  32 bytes SHA-256 of the agent
//!  rest     triple, stage 0, stage 1, deflated agent
//!  32 bytes SHA-256 of all before
//! ```

use std::fmt;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The first bytes of a bundle file; the last is the format's version.
const MAGIC: [u8; 8] = *b"offshob\x01";
const HEAD: usize = 8 + 5 * 4 + 32;
const SEAL: usize = 32;

/// What stage 1 expects first, so that a mangled stream is told at once from a slow one.
const PAYLOAD_MAGIC: [u8; 4] = *b"OFS1";
const PAYLOAD_HEAD: usize = 4 + 4 + 4 + 32;

/// The longest triple, in bytes.
pub const TRIPLE_MAX: usize = 64;
/// The longest stage 0: written as escapes it must leave room in a terminal's line of 4,095 bytes.
pub const STAGE0_MAX: usize = 1536;
/// The longest stage 1: stage 0's buffer for it.
pub const STAGE1_MAX: usize = 8192;
/// The longest deflated agent, 64 MiB: user programs serve as their own agent.
pub const DEFLATED_MAX: usize = 64 << 20;
/// The longest agent, 256 MiB; what [`Bundle::inflate`] allocates at most.
pub const AGENT_MAX: usize = 256 << 20;

/// Loader and agent for one triple. Cheap to clone: the parts are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    triple: String,
    stage0: Bytes,
    stage1: Bytes,
    deflated: Bytes,
    agent_len: u32,
    sha256: [u8; 32],
}

/// Why bytes are not a bundle, or a bundle not an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A part is empty or over its limit.
    #[error("the {0} of an agent bundle is empty or too long")]
    Part(&'static str),
    /// The triple is not made of letters, digits, `_`, `.` and `-`.
    #[error("the triple of an agent bundle has other characters than letters, digits, _ . and -")]
    Triple,
    /// The bytes changed since the bundle was written.
    #[error("the agent bundle is damaged")]
    Damaged,
    /// The agent does not inflate to what the header says.
    #[error("the agent in the bundle does not inflate to its length")]
    Inflate,
    /// The inflated agent has another hash than the header says.
    #[error("the agent in the bundle has another hash than stated")]
    Hash,
}

impl Bundle {
    /// Puts a bundle together from its parts; `deflated` is a raw deflate stream (RFC 1951) of the agent.
    ///
    /// # Errors
    ///
    /// [`BundleError::Part`] or [`BundleError::Triple`] when a part is empty or over its limit. The stream itself is
    /// not looked at: see [`Bundle::inflate`].
    pub fn new(
        triple: impl Into<String>,
        stage0: impl Into<Bytes>,
        stage1: impl Into<Bytes>,
        deflated: impl Into<Bytes>,
        agent_len: u32,
        sha256: [u8; 32],
    ) -> Result<Bundle, BundleError> {
        let bundle = Bundle {
            triple: triple.into(),
            stage0: stage0.into(),
            stage1: stage1.into(),
            deflated: deflated.into(),
            agent_len,
            sha256,
        };
        let parts = [
            ("triple", bundle.triple.len(), TRIPLE_MAX),
            ("stage 0", bundle.stage0.len(), STAGE0_MAX),
            ("stage 1", bundle.stage1.len(), STAGE1_MAX),
            ("deflated agent", bundle.deflated.len(), DEFLATED_MAX),
            ("agent", agent_len as usize, AGENT_MAX),
        ];
        for (name, len, max) in parts {
            if len == 0 || len > max {
                return Err(BundleError::Part(name));
            }
        }
        if !bundle.triple.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            return Err(BundleError::Triple);
        }
        Ok(bundle)
    }

    /// Compresses `agent` as well as deflate can (about 1 s for 300 KiB in an optimized build) and makes a bundle of it.
    ///
    /// # Errors
    ///
    /// As [`Bundle::new`].
    #[cfg(feature = "pack")]
    pub fn pack(
        triple: impl Into<String>,
        stage0: impl Into<Bytes>,
        stage1: impl Into<Bytes>,
        agent: &[u8],
    ) -> Result<Bundle, BundleError> {
        let mut deflated = Vec::new();
        zopfli::compress(zopfli::Options::default(), zopfli::Format::Deflate, agent, &mut deflated)
            .map_err(|_| BundleError::Part("agent"))?;
        let len = u32::try_from(agent.len()).map_err(|_| BundleError::Part("agent"))?;
        Bundle::new(triple, stage0, stage1, deflated, len, Sha256::digest(agent).into())
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

    /// The agent as a raw deflate stream.
    pub fn deflated(&self) -> &Bytes {
        &self.deflated
    }

    /// The agent's length in bytes, inflated.
    pub fn agent_len(&self) -> u32 {
        self.agent_len
    }

    /// The SHA-256 of the inflated agent.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// What follows the start line: stage 1, header, deflated agent. A copy of them, made anew by each call.
    pub fn payload_after_line(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.stage1.len() + PAYLOAD_HEAD + self.deflated.len());
        out.extend_from_slice(&self.stage1);
        out.extend_from_slice(&PAYLOAD_MAGIC);
        out.extend_from_slice(&(self.deflated.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.agent_len.to_le_bytes());
        out.extend_from_slice(&self.sha256);
        out.extend_from_slice(&self.deflated);
        out.freeze()
    }

    /// The agent's executable, checked against its hash. Allocates [`Bundle::agent_len`] bytes.
    ///
    /// # Errors
    ///
    /// [`BundleError::Inflate`] or [`BundleError::Hash`] when the bundle's agent is not what its header says.
    pub fn inflate(&self) -> Result<Vec<u8>, BundleError> {
        let len = self.agent_len as usize;
        let agent = miniz_oxide::inflate::decompress_to_vec_with_limit(&self.deflated, len)
            .map_err(|_| BundleError::Inflate)?;
        if agent.len() != len {
            return Err(BundleError::Inflate);
        }
        if <[u8; 32]>::from(Sha256::digest(&agent)) != self.sha256 {
            return Err(BundleError::Hash);
        }
        Ok(agent)
    }

    /// The bundle as the bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let parts = [self.triple.as_bytes(), &self.stage0, &self.stage1, &self.deflated];
        let mut out = Vec::with_capacity(HEAD + parts.iter().map(|p| p.len()).sum::<usize>() + SEAL);
        out.extend(MAGIC);
        for part in parts {
            out.extend((part.len() as u32).to_le_bytes());
        }
        out.extend(self.agent_len.to_le_bytes());
        out.extend(self.sha256);
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
        let agent_len = number(4) as u32;
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
        let [triple, stage0, stage1, deflated] = lens.map(|len| file.split_to(len));
        let triple = String::from_utf8(triple.to_vec()).map_err(|_| BundleError::Triple)?;
        Bundle::new(triple, stage0, stage1, deflated, agent_len, sha256)
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("triple", &self.triple)
            .field("stage0", &self.stage0.len())
            .field("stage1", &self.stage1.len())
            .field("deflated", &self.deflated.len())
            .field("agent_len", &self.agent_len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Bundle {
        let agent: Vec<u8> = (0..2_000u32).map(|n| ((n * n) >> 7) as u8).collect();
        let deflated = miniz_oxide::deflate::compress_to_vec(&agent, 9);
        Bundle::new(
            "x86_64-unknown-linux-musl",
            vec![1; 70],
            vec![2; 350],
            deflated,
            agent.len() as u32,
            Sha256::digest(&agent).into(),
        )
        .unwrap()
    }

    #[test]
    fn a_file_decodes_to_what_was_encoded() {
        let bundle = sample();
        let back = Bundle::decode(bundle.encode()).unwrap();
        assert_eq!(back, bundle);
        assert_eq!(back.inflate().unwrap().len(), 2_000);
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
        let good = sample();
        let with =
            |deflated: Bytes, len, sha| Bundle::new("t", vec![1], vec![1], deflated, len, sha).unwrap().inflate();
        let (deflated, len, sha) = (good.deflated().clone(), good.agent_len(), *good.sha256());
        assert_eq!(with(deflated.clone(), len, [7; 32]), Err(BundleError::Hash));
        assert_eq!(with(deflated.clone(), len - 1, sha), Err(BundleError::Inflate));
        assert_eq!(with(deflated.clone(), len + 1, sha), Err(BundleError::Inflate));
        assert_eq!(with(deflated.slice(..deflated.len() - 9), len, sha), Err(BundleError::Inflate));
    }

    #[test]
    fn parts_over_their_limit_are_refused() {
        let make = |triple: &str, stage0, stage1, len| {
            Bundle::new(triple, vec![0; stage0], vec![0; stage1], vec![0], len, [0; 32]).map(drop)
        };
        assert_eq!(make("t", 1, 1, 1), Ok(()));
        assert_eq!(make("", 1, 1, 1), Err(BundleError::Part("triple")));
        assert_eq!(make("t", STAGE0_MAX + 1, 1, 1), Err(BundleError::Part("stage 0")));
        assert_eq!(make("t", 1, STAGE1_MAX + 1, 1), Err(BundleError::Part("stage 1")));
        assert_eq!(make("t", 1, 1, AGENT_MAX as u32 + 1), Err(BundleError::Part("agent")));
        assert_eq!(make("a;b", 1, 1, 1), Err(BundleError::Triple));
    }

    #[cfg(feature = "pack")]
    #[test]
    fn a_packed_agent_inflates_again() {
        let agent: Vec<u8> = (0..5_000u32).map(|n| (n % 251) as u8).collect();
        assert_eq!(Bundle::pack("t", vec![1], vec![2], &agent).unwrap().inflate().unwrap(), agent);
    }
}
