//! Tells the crate the triple it is built for: an agent says it in its hello, and images are found by it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Cargo sets it for every build script.
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=OFFSHOOT_TARGET={target}");
}
