//! What the attributes `remote` and `main` expand to. For them alone: it changes as they do.

pub use linkme;
pub use offshoot_node::Invocation;
use offshoot_node::handover::{self, Packed};
use offshoot_wire::{EncodeError, Failure, FailureKind, Ran};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::registry::{FUNCTIONS, Function};
pub use crate::thrown::{ShowsError, ShowsSendError, StdError, Thrown};
use crate::{Call, Master};

/// What can be an argument or the value of a remote function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to or from a remote function",
    label = "this type has no form on the wire",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or take and return something that has them",
    note = "a file travels as `offshoot::RemoteFile`, a stream as an end of `offshoot::pipe()`; an error as `io::Error`, `anyhow::Error` or `Box<dyn Error>`"
)]
pub trait Travels: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Travels for T {}

/// Compiles when a type can be an argument or the value of a remote function.
pub const fn travels<T: Travels>() {}

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
        Failure::new(kind, format!("what the function returned cannot be sent: {error}"))
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
