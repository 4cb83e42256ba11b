//! Secrets: what is typed where nobody may look.

use std::fmt;
use std::sync::Arc;

use serde::Serializer;
use zeroize::{Zeroize, Zeroizing};

use crate::{Limits, bounds};

/// A password, a passphrase, or another text that is shown nowhere.
///
/// Its memory is wiped when the last clone is dropped. `Debug` prints nothing of it, and it is not `Serialize`: it
/// travels in one message alone, an [`Answer`](crate::Answer).
///
/// # Examples
///
/// ```
/// use offshoot_wire::Secret;
/// let secret = Secret::from("correct horse");
/// assert_eq!(format!("{secret:?}"), "Secret");
/// assert!(secret.is_typable());
/// ```
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<Vec<u8>>>);

impl Secret {
    /// Takes the bytes over: they are wiped with it.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Arc::new(Zeroizing::new(bytes)))
    }

    /// The bytes, to be sent and nothing else.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it can be typed on a terminal: at most [`Limits::SECRET`] bytes, no control characters, which a terminal
    /// would act upon instead of passing them on.
    pub fn is_typable(&self) -> bool {
        self.0.len() <= Limits::SECRET && !self.0.iter().any(u8::is_ascii_control)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }
}

/// In a time that tells only of the lengths.
impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        let bytes = self.0.iter().zip(other.0.iter());
        self.0.len() == other.0.len() && bytes.fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The field of the one message that holds a secret.
pub(crate) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    bounds::maybe_piece(secret.as_ref().map(Secret::bytes), serializer)
}

/// Wipes bytes that held a secret.
pub(crate) fn wipe(bytes: &mut Vec<u8>) {
    bytes.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Answer;

    #[test]
    fn s19_nothing_of_a_secret_is_printed() {
        let secret = Secret::from("hunter2");
        let answer = Answer { secret: Some(secret.clone()) };
        assert_eq!(format!("{secret:?} {answer:?}"), "Secret Answer { secret: Some(Secret) }");
    }

    #[test]
    fn what_a_terminal_would_act_upon_cannot_be_typed() {
        assert!(Secret::from("gr\u{fc}\u{df} gott").is_typable());
        for bad in ["a\nb", "\u{3}", "a\u{7f}", "\0"] {
            assert!(!Secret::from(bad).is_typable(), "{bad:?}");
        }
        assert!(!Secret::from("x".repeat(Limits::SECRET + 1)).is_typable());
    }
}
