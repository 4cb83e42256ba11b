//! The attributes of offshoot programs; the crate `offshoot` re-exports them, and its names are what they expand to.
//!
//! Owns the checks of what can be remote. Must not know how a call travels: what it expands to is written by hand in
//! `offshoot-program`, and here it is only filled in.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod entry;
mod remote;
#[cfg(test)]
mod tests;

use proc_macro::TokenStream;

/// Makes a function callable in other contexts.
///
/// The function stays as it is. Beside it comes a type of the same name, which is there for these alone:
///
/// - `name::on(&context, args…)` runs it there and waits: `Result<T, offshoot::Error>`, where `T` is what the function
///   returns;
/// - `name::start(&context, args…)` does not wait: an `offshoot::PendingCall<T>`;
/// - `name::call(args…)` is an `offshoot::Call<T>`, to give it a timeout first.
///
/// Arguments and results travel by value: anything that serde serializes and deserializes, in a form without names. So no field may be
/// left out by `#[serde(skip_serializing_if = "…")]`, and `flatten`, `untagged` and `tag` do not work: use
/// `#[serde(skip)]`, or types without these. By reference travel
/// `offshoot::Context`, the ends of an `offshoot::channel` (`Sender`, `Receiver`), those of an `offshoot::pipe` (`PipeWriter`,
/// `PipeReader`) and an `offshoot::RemoteFile`, which bring the right to use them along. A function that returns an error which serde does not know has it
/// turned into `offshoot::RemoteError`, with its message, its chain and its kind: that of `io::Result`, `anyhow::Result`, and
/// any other `Result` with one parameter; `io::Error`, `anyhow::Error`, `offshoot::Error` and `Box<dyn Error>` of one with
/// two. Any other error type travels as itself.
///
/// A first argument `&Here` is not passed by the caller: through it the function sees its own context, and whether
/// anyone still waits.
///
/// Where the crate is known by another path than `::offshoot`, the attribute is told: `#[offshoot::remote(crate = my::offshoot)]`.
///
/// It is for free, non-generic functions, of a module or within another function; anything else is a compile error. In an
/// `impl` or a `trait` that error is mostly the compiler's own, which says that an enum cannot be there: put the function beside
/// it. The expansion places a static by link section. A crate that forbids `unsafe_code` can use it: none is in its own code.
///
/// A call names its function by path, version of the package, and whether it belongs to the program or a library. When two
/// functions of a program are alike in all of these, such as two of one name within two functions of a module, neither is run:
/// their calls end with an error that tells both places.
#[proc_macro_attribute]
pub fn remote(attribute: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}

/// The `main` of a program with remote functions: a process that is started as an agent or a worker becomes one, and any
/// other runs this function, with a master when it takes `&Master`.
///
/// Where the crate is known by another path than `::offshoot`: `#[my::offshoot::main(crate = my::offshoot)]`.
///
/// It is short for `offshoot::init()` first thing in `main`, and `Master::new()`. When there is no master to be had,
/// the program ends with status 125 and the reason.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    entry::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}
