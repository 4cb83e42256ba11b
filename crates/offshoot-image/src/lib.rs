//! What an executable is as a *program image*, by its bytes alone.
//!
//! Owns three questions. For which machine is it, and does it run on any Linux there: [`elf`]. Of which build is it:
//! [`stamp`]. What is appended to it: [`onefile`], the agents and images that make one executable a program for many
//! machines. Must not know where files lie, nor what runs in an image. Pure data, on any thread; whoever builds images
//! and the program that looks for them share it, so that they cannot disagree.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod elf;
pub mod onefile;
pub mod stamp;
