//! Builds the loader for the triples that are named, or for this machine's, and prints the sizes of its stages.
//!
//! ```text
//! cargo run -p offshoot-loader --example sizes -- x86_64-unknown-linux-musl aarch64-unknown-linux-musl
//! ```

use offshoot_loader::build::{Options, build};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut triples: Vec<String> = std::env::args().skip(1).collect();
    if triples.is_empty() {
        triples.push(format!("{}-unknown-linux-musl", std::env::consts::ARCH));
    }
    let options = Options::new(std::env::temp_dir().join("offshoot-loader-sizes"));
    println!("{:36} {:>8} {:>8}", "triple", "stage 0", "stage 1");
    for triple in triples {
        let loader = build(&triple, &options)?;
        println!("{triple:36} {:8} {:8}", loader.stage0.len(), loader.stage1.len());
    }
    Ok(())
}
