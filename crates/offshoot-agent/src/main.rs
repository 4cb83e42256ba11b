//! The compact agent: supervisor and node.
fn main() {}
