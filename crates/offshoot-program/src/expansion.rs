//! What the attributes `remote` and `main` expand to. For them alone: it changes as they do.

pub use linkme;
use offshoot_wire::{EncodeError, Failure, FailureKind, Ran, decode_untrusted, encode_value};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::registry::{FUNCTIONS, Function};
pub use crate::thrown::{ShowsError, ShowsSendError, StdError, Thrown};
use crate::{Call, Master};

/// A call of a function by its registered name.
pub fn call<A: Serialize, T: DeserializeOwned>(function: &'static str, args: &A) -> Call<T> {
    Call::new(function, encode_value(args))
}

/// The arguments of a function, as they came.
///
/// # Errors
/// When they are not those of this function.
pub fn arguments<A: DeserializeOwned>(args: &[u8]) -> Result<A, Failure> {
    decode_untrusted(args)
        .map_err(|error| Failure::new(FailureKind::Malformed, format!("the arguments cannot be decoded: {error}")))
}

/// What a function returned, as it goes back.
///
/// # Errors
/// When it has no form on the wire.
pub fn value<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    encode_value(value).map_err(|error| {
        let kind = match error {
            EncodeError::NoForm => FailureKind::Unsupported,
            EncodeError::TooLong => FailureKind::TooLarge,
        };
        Failure::new(kind, format!("what the function returned cannot be sent: {error}")).ran(Ran::Executed)
    })
}

/// The master of a program whose `main` is marked. Where there is none to be had the program ends with status 125 and
/// the reason.
pub fn master() -> Master {
    Master::new().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        std::process::exit(125);
    })
}
