//! Everything that is done to the project rather than by it.
fn main() {}
