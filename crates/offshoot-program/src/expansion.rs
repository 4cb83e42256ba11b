//! What the attributes `remote` and `main` expand to. For them alone: it changes as they do.

use std::marker::PhantomData;

pub use linkme;
pub use offshoot_node::Invocation;
use offshoot_node::handover::{self, Packed};
use offshoot_wire::{EncodeError, Failure, FailureKind, Ran};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::registry::{FUNCTIONS, Function};
pub use crate::thrown::{ShowsError, ShowsSendError, StdError, Thrown, Untold};
use crate::{Call, Master};

/// What can be an argument or the value of a remote function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to or from a remote function",
    label = "this type has no form on the wire",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or take and return something that has them",
    note = "a file travels as `offshoot::RemoteFile`, a stream as an end of `offshoot::pipe()`",
    note = "the error of a `Result` travels as `offshoot::RemoteError` where the signature says `io::Error`, `anyhow::Error`, `Box<dyn Error>` or `io::Result<T>`, by these names"
)]
pub trait Travels: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Travels for T {}

/// Compiles when a type can be an argument or the value of a remote function.
pub const fn travels<T: Travels>() {}

/// Whether what a function returns is a `Result`: `Probe::<T>::FALLIBLE`, however `T` is called. For a `Result` that is the
/// constant of its own, which goes before that of the trait.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<T>);

impl<T, E> Probe<Result<T, E>> {
    /// It is.
    pub const FALLIBLE: bool = true;
}

/// See [`Probe`].
pub trait NoResult {
    /// It is not.
    const FALLIBLE: bool = false;
}

impl<T> NoResult for Probe<T> {}

/// A call of a function by its registered name.
pub fn call<A: Serialize, T: DeserializeOwned>(function: &'static str, args: &A) -> Call<T> {
    Call::new(function, Packed::new(args))
}

/// The arguments of a function, as they came.
///
/// # Errors
/// When they are not those of this function, or carry what the caller cannot give.
pub fn arguments<A: DeserializeOwned>(call: &Invocation) -> Result<A, Failure> {
    handover::arguments(call)
}

/// What a function returned, as it goes back.
///
/// # Errors
/// When it has no form on the wire, or carries what cannot be handed over.
pub fn value<T: Serialize>(call: &Invocation, value: &T) -> Result<Vec<u8>, Failure> {
    let packed = Packed::new(value).map_err(|error| {
        let kind = match error {
            EncodeError::NoForm => FailureKind::Unsupported,
            EncodeError::TooLong | EncodeError::TooMany => FailureKind::TooLarge,
        };
        Failure::new(kind, format!("what the function returned cannot be sent: {error}")).hint(handover::advice(&error))
    });
    packed.and_then(|packed| packed.for_reply(call)).map_err(|failure| failure.ran(Ran::Executed))
}

/// The master of a program whose `main` is marked. Where there is none to be had the program ends with status 125 and
/// the reason.
pub fn master() -> Master {
    Master::new().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(125);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = std::io::Result<()>;

    mod own {
        pub(super) enum Result<T, E> {
            _Both(T, E),
        }
    }

    #[test]
    fn a_result_is_told_by_its_type_and_not_by_its_name() {
        let results = [Probe::<Outcome>::FALLIBLE, Probe::<Result<u8, String>>::FALLIBLE];
        let others = [Probe::<own::Result<u8, String>>::FALLIBLE, Probe::<Option<u8>>::FALLIBLE, Probe::<()>::FALLIBLE];
        assert_eq!((results, others), ([true; 2], [false; 3]));
    }
}
