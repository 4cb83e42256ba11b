//! The measuring driver.
fn main() {}
