//! The project's own commands: agents per triple, tests, tidy, mutants, loom, bench, simulation, release.
//!
//! A library with a thin binary, so that the tests can call what the commands do. Nothing published depends on it.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod commands;
pub mod source;
pub mod tidy;
pub mod workspace;

pub use offshoot_build::run;
