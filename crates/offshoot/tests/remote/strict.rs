//! What the attribute expands to has nothing that a strict crate would have to allow: here every warning is an error.
#![deny(
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_docs_in_private_items,
    clippy::missing_inline_in_public_items,
    clippy::module_name_repetitions,
    clippy::multiple_inherent_impl,
    clippy::renamed_function_params,
    clippy::unwrap_used
)]
#![deny(
    elided_lifetimes_in_paths,
    let_underscore_drop,
    missing_copy_implementations,
    missing_debug_implementations,
    nonstandard_style,
    rust_2018_idioms,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unnameable_types,
    unreachable_pub,
    unused,
    unused_import_braces,
    unused_lifetimes,
    unused_macro_rules,
    unused_qualifications,
    unused_results,
    variant_size_differences
)]
#![forbid(unsafe_code)]

use std::io;

use offshoot::Here;

/// The checks.
pub const CHECKS: &[crate::Check] =
    &[("a_crate_that_forbids_what_it_can_has_remote_functions", functions_of_a_strict_crate)];

/// A half.
#[offshoot::remote]
#[must_use]
#[inline]
pub const fn half(number: u32) -> u32 {
    number.wrapping_div(2)
}

/// The same text.
///
/// # Errors
/// When it is empty.
#[offshoot::remote]
#[inline]
pub fn same(_here: &Here, text: String, (_, _unused): (u8, u8)) -> io::Result<String> {
    if text.is_empty() { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(text) }
}

/// Not to be called any more.
#[offshoot::remote]
#[deprecated = "call `half`"]
#[doc(hidden)]
#[must_use]
#[inline]
pub const fn halved(number: u32) -> u32 {
    number.wrapping_div(2)
}

/// As other languages name theirs.
#[offshoot::remote]
#[expect(non_snake_case, reason = "so it is called elsewhere")]
const fn quarterOf(theNumber: u32) -> u32 {
    theNumber.wrapping_div(4)
}

/// Only where there is such a system.
#[offshoot::remote]
#[cfg(target_os = "none")]
fn elsewhere() -> NoSuchType {}

/// Hidden where there is one.
#[offshoot::remote]
#[cfg_attr(unix, doc(hidden), deprecated(note = "on this system"))]
const fn here() {}

/// All of them, with what does not need their contexts.
#[expect(clippy::expect_used, reason = "a check fails by a panic")]
fn functions_of_a_strict_crate() {
    let master = crate::master();
    let context = crate::local(&master);
    assert_eq!(half::on(&context, 42).expect("a value"), 21);
    let same = same::start(&context, "so".into(), (1, 2)).wait().expect("it ran");
    assert_eq!(same.expect("a text"), "so");
    #[expect(deprecated, reason = "what is said of the function holds for its calls")]
    let halved = halved::call(6).on(&context).expect("a value");
    #[expect(deprecated, reason = "also where a condition says it")]
    here::on(&context).expect("it ran");
    assert_eq!((halved, quarterOf::on(&context, 8).expect("a value")), (3, 2));
}
