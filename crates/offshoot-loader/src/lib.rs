//! The few KiB that put an offshoot agent into RAM on a target.
//!
//! Two static executables without an operating system's library, for Linux:
//!
//! - *stage 0* (about 1 KB) is what the start line carries as text. It reads stage 1 from its input and runs it.
//! - *stage 1* (about 6 KiB) reads the header and the packed agent, unpacks it as it comes, checks its SHA-256 and runs it.
//!
//! Both read exactly their bytes from descriptor 0, so that what follows is the agent's. Both are called
//! `PATH NAME [ARG…]`: `NAME [ARG…]` becomes the agent's argument list; when `PATH` begins with `/` it is the loader's own
//! file, which is unlinked first, and where a file is made if the system refuses to run anything from memory. Called
//! `PATH t` both exit with 0 at once: that they can is the test of a place.
//!
//! A failure is the line `!L<letter><errno, three digits>` on descriptor 1 and the letter's number as exit status:
//!
//! | letter | what failed |
//! |---|---|
//! | `r`, `R` | reading stage 1; reading header or agent; errno 000 is an early end |
//! | `M` | the header is not one |
//! | `A` | memory for the agent |
//! | `Z` | the packed agent is damaged, or packed for another machine |
//! | `H` | the agent's hash is another |
//! | `x`, `X` | starting stage 1; starting the agent |
//!
//! Built for the host this crate is the decoder and the hash, plain safe code that is tested there,
//! [`build`](mod@build), which builds the two executables, and, with the feature `pack`, the encoder. All else is compiled only by that function, which says so by
//! the cfg `offshoot_stage`; a feature alone would be switched on by `--all-features`.

#![cfg_attr(offshoot_stage, no_std)]
#![deny(missing_docs)]
#![allow(unexpected_cfgs, reason = "offshoot_stage is given by `build` alone, offshoot_agent by the agent's recipes")]

#[cfg(not(offshoot_stage))]
pub mod build;
pub mod filter;
pub mod lzma;
#[cfg(feature = "pack")]
pub mod pack;
pub mod sha256;
pub mod split;
pub mod unpack;

#[cfg(offshoot_stage)]
pub mod memory;
#[cfg(offshoot_stage)]
pub mod place;
#[cfg(offshoot_stage)]
pub mod start;
#[cfg(offshoot_stage)]
pub mod sys;
