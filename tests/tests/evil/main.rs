//! Hostile contexts against real ones: processes, sockets, and on one end of a link the test, which completes the hello
//! and then says whatever it likes.
//!
//! A case is one thing that a hostile context does, and what must come of it: it is *cut off*, with the reason told to
//! whoever waits for it; or it is *passed over*, and the link goes on. After each the honest contexts beside it answer and
//! their processes run on, nothing was run or started for it, and no process, file or descriptor is left. Cases of a
//! hostile child run twice, below the master and below an agent; in those of a hostile parent the test is the parent of a
//! real agent. The rules' numbers are those of `docs/security.md`.

#![forbid(unsafe_code)]

mod above;
mod addresses;
mod ahead;
mod attended;
mod authority;
mod between;
mod calls;
mod case;
mod damaged;
mod exchanges;
mod floods;
mod grants;
mod handover;
mod hellos;
mod lateral;
mod link;
mod payloads;
mod records;
mod relay;
mod relayed;
mod stage;
mod workers;
