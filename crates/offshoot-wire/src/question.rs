//! What a connection tool asks while it logs in, and the answer.
//!
//! The context that runs the tool passes each question to the one that asked for the connect, on the channel
//! [`channel::QUESTION`](crate::channel::QUESTION) of that exchange; one answer comes back on
//! [`channel::CONTROL`](crate::channel::CONTROL). So a secret leaves its owner only when its prompt has been seen.

use serde::Serialize;

use crate::reader::{Reader, read_fields, read_variants};
use crate::{Secret, codec, secret};

/// What kind of answer a question wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Asks {
    /// The password of an account.
    Password,
    /// The passphrase of a key, or the PIN of a token.
    Passphrase,
    /// Whether a host key is to be trusted: `yes`, or its fingerprint.
    HostKey,
    /// Anything else: a one-time code, a choice.
    Other,
}

read_variants!(Asks { Password, Passphrase, HostKey, Other });

/// A question of a connection tool. Everything in it comes from where the tool runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// What it wants.
    pub asks: Asks,
    /// Whose secret: a user, `user@host` or a key file, as the tool names it; empty when it does not.
    pub account: String,
    /// The tool's words, in one line or several; escaped where they were read, and to be escaped again where they are
    /// shown.
    pub text: String,
    /// Whether the terminal that it is asked on shows what is typed: then the answer is no secret to the tool.
    pub shown: bool,
}

read_fields!(Question { asks, account = Reader::message, text = Reader::message, shown });

/// The answer to the last [`Question`].
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What to type; `None` when nobody can or wants to answer.
    #[serde(serialize_with = "secret::serialize")]
    pub secret: Option<Secret>,
}

read_fields!(Answer { secret = Reader::maybe_secret });

impl Answer {
    /// The answer as bytes for the wire, which are wiped when they are dropped.
    pub fn encode(&self) -> AnswerBytes {
        // As large as it can become, so that no copy is left behind by growing.
        let mut bytes = Vec::with_capacity(crate::Limits::SECRET + 16);
        codec::encode_into(self, &mut bytes);
        AnswerBytes(bytes)
    }
}

/// An encoded [`Answer`].
pub struct AnswerBytes(Vec<u8>);

impl AsRef<[u8]> for AnswerBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for AnswerBytes {
    fn drop(&mut self) {
        secret::wipe(&mut self.0);
    }
}

impl std::fmt::Debug for AnswerBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerBytes")
    }
}
