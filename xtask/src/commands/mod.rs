//! The commands, one per file: each has its arguments and one `run`.

pub mod agents;
pub mod bench;
pub mod fleet;
pub mod fuzz;
pub mod image;
pub mod loom;
pub mod mutants;
pub mod release_check;
pub mod sim;
pub mod soak;
pub mod test;
pub mod tidy;
