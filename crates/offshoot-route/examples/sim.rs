//! Runs the simulation of whole trees outside the tests.
//!
//!     cargo run -p offshoot-route --example sim -- [--seeds N] [--seed S] [--nodes N]

#[path = "../tests/sim/mod.rs"]
mod sim;

use sim::{Outcome, Setting, run};

fn main() {
    let (mut first, mut count, mut nodes) = (0, None, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().and_then(|text| text.parse::<u64>().ok());
        match (flag.as_str(), value) {
            ("--seeds", Some(value)) => count = Some(value),
            ("--seed", Some(value)) => first = value,
            ("--nodes", Some(value)) => nodes = Some(value as usize),
            _ => {
                eprintln!("usage: sim [--seeds N] [--seed S] [--nodes N]");
                std::process::exit(2);
            }
        }
    }
    let start = std::time::Instant::now();
    let mut total = Outcome::default();
    for seed in first..first + count.unwrap_or(1) {
        let setting = nodes.map_or_else(|| Setting::small(seed), |nodes| Setting::large(seed, nodes));
        total.add(&run(setting));
    }
    println!("{total:?}\n{:.1} s", start.elapsed().as_secs_f64());
}
