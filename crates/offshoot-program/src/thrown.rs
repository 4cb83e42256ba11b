//! Errors of remote functions whose own type does not travel.

use std::error::Error as StdErrorTrait;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// The longest message that is kept, in bytes.
const MESSAGE: usize = 4096;

/// The longest chain of causes that is kept.
const CHAIN: usize = 16;

/// An error that a remote function returned, as far as it travels: what it was, what it said, and what caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemoteError {
    /// What kind of error it was.
    pub kind: RemoteErrorKind,
    /// What it said; at most 4 KiB. From another machine: escape it before it reaches a terminal.
    pub message: String,
    /// What its causes said, nearest first; at most 16.
    pub chain: Vec<String>,
}

/// The kinds of error that can be told apart without the error's own type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RemoteErrorKind {
    /// An error of the operating system, there; its errno.
    Os(i32),
    /// Any other.
    Other,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message.escape_debug())?;
        self.chain.iter().try_for_each(|cause| write!(f, ": {}", cause.escape_debug()))
    }
}

impl StdErrorTrait for RemoteError {}

impl From<RemoteError> for io::Error {
    /// Of the kind that the errno has here.
    fn from(error: RemoteError) -> io::Error {
        let kind = match error.kind {
            RemoteErrorKind::Os(errno) => io::Error::from_raw_os_error(errno).kind(),
            RemoteErrorKind::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl RemoteError {
    /// An error that says this, for a function that has no error of its own; longer texts than [`RemoteError::message`] may
    /// have are cut.
    pub fn new(kind: RemoteErrorKind, message: impl Into<String>) -> RemoteError {
        RemoteError { kind, message: cut(message.into()), chain: Vec::new() }
    }

    pub(crate) fn of(error: &(dyn StdErrorTrait + 'static)) -> RemoteError {
        let mut causes = std::iter::successors(Some(error), |&error| error.source());
        let errno = causes.clone().find_map(errno);
        RemoteError {
            kind: errno.map_or(RemoteErrorKind::Other, RemoteErrorKind::Os),
            message: causes.next().map_or_else(String::new, text),
            chain: causes.take(CHAIN).map(text).collect(),
        }
    }
}

/// The number, also of one that another wraps, which is no source; and of one that travelled before.
fn errno(error: &(dyn StdErrorTrait + 'static)) -> Option<i32> {
    if let Some(RemoteError { kind: RemoteErrorKind::Os(errno), .. }) = error.downcast_ref() {
        return Some(*errno);
    }
    let error = error.downcast_ref::<io::Error>()?;
    error.raw_os_error().or_else(|| errno(error.get_ref()?))
}

fn text(error: &(dyn StdErrorTrait + 'static)) -> String {
    cut(error.to_string())
}

fn cut(mut text: String) -> String {
    let end = (0..=MESSAGE.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// An error that a function returned. Turned into a [`RemoteError`] by the first of the traits below that fits: the
/// expansion of the attribute, which knows the type, picks it by how many references it takes.
#[derive(Debug)]
pub struct Thrown<E>(pub E);

/// For errors of the standard kind.
pub trait StdError {
    /// As it travels.
    fn remote(&self) -> RemoteError;
}

impl<E: StdErrorTrait + 'static> StdError for &&&Thrown<E> {
    fn remote(&self) -> RemoteError {
        RemoteError::of(&self.0)
    }
}

/// For what holds an error without being one: `anyhow::Error`, `Box<dyn Error>`.
pub trait ShowsError {
    /// As it travels.
    fn remote(&self) -> RemoteError;
}

impl<E: AsRef<dyn StdErrorTrait>> ShowsError for &&Thrown<E> {
    fn remote(&self) -> RemoteError {
        RemoteError::of(self.0.as_ref())
    }
}

/// For `Box<dyn Error + Send + Sync>`.
pub trait ShowsSendError {
    /// As it travels.
    fn remote(&self) -> RemoteError;
}

impl<E: AsRef<dyn StdErrorTrait + Send + Sync>> ShowsSendError for &Thrown<E> {
    fn remote(&self) -> RemoteError {
        RemoteError::of(self.0.as_ref())
    }
}

/// For any other, which cannot be told: so that the compiler says so.
pub trait Untold<E> {
    /// Never called.
    fn remote(&self) -> RemoteError
    where
        E: Told;
}

impl<E> Untold<E> for Thrown<E> {
    fn remote(&self) -> RemoteError
    where
        E: Told,
    {
        RemoteError::new(RemoteErrorKind::Other, String::new())
    }
}

/// What an error must be to be turned into a [`RemoteError`]. Nothing is it that none of the traits above fits.
#[diagnostic::on_unimplemented(
    message = "the error `{Self}` of a remote function cannot be told where it is called from",
    label = "a `Result` with one parameter turns its error into `offshoot::RemoteError`: this one is no `std::error::Error`",
    note = "implement `std::error::Error` for `{Self}`; or, where it is known to serde, write both parameters, `Result<T, {Self}>`: then it travels as itself"
)]
pub trait Told {}

#[cfg(test)]
// As the expansion writes it: the references pick the trait.
#[allow(clippy::needless_borrow)]
mod tests {
    use super::*;

    #[test]
    fn every_common_error_type_keeps_its_message_its_chain_and_its_errno() {
        let lost = || io::Error::from_raw_os_error(2);
        let std = (&&&&Thrown(lost())).remote();
        assert_eq!((std.kind, std.chain.len()), (RemoteErrorKind::Os(2), 0));
        // Also when it goes on from there, as it came or as an error of the function's own.
        assert_eq!((&&&&Thrown(io::Error::from(std.clone()))).remote().kind, RemoteErrorKind::Os(2));
        assert_eq!(RemoteError::of(&std).kind, RemoteErrorKind::Os(2));
        assert_eq!(io::Error::from(std).kind(), io::ErrorKind::NotFound);
        let boxed: Box<dyn StdErrorTrait> = Box::new(io::Error::other(lost()));
        assert_eq!((&&&&Thrown(boxed)).remote().kind, RemoteErrorKind::Os(2));
        let boxed: Box<dyn StdErrorTrait + Send + Sync> = "just text".into();
        let remote = (&&&&Thrown(boxed)).remote();
        assert_eq!((remote.kind, &*remote.message), (RemoteErrorKind::Other, "just text"));
    }

    #[test]
    fn r10_a_message_reaches_no_terminal_raw_and_has_a_bound() {
        let boxed: Box<dyn StdErrorTrait> = "é\u{1b}[2J".repeat(2000).into();
        let remote = (&&&&Thrown(boxed)).remote();
        assert!(remote.message.len() <= MESSAGE);
        assert!(!remote.to_string().contains('\u{1b}'));
    }
}
