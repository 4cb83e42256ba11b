//! Prints what a target path compiles to, hop by hop: `cargo run -p offshoot-connect --example recipe -- jump/ann@web1:2222/local`

use std::process::ExitCode;

use offshoot_connect::Target;
use offshoot_connect::methods::Method;
use offshoot_wire::Start;

fn main() -> ExitCode {
    let Some(text) = std::env::args().nth(1) else {
        eprintln!("usage: recipe TARGET");
        return ExitCode::from(2);
    };
    let target: Target = match text.parse() {
        Ok(target) => target,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for hop in target.hops() {
        let recipe = match hop.recipe() {
            Ok(recipe) => recipe,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
        println!("{}", recipe.default_name());
        match recipe.start {
            Start::Worker { .. } => println!("  a worker, from an image of the program"),
            Start::Local => println!("  a copy of the image that runs there"),
            Start::Shell { argv, env } => {
                for (key, value) in env {
                    println!("  {key}={value}");
                }
                for arg in argv {
                    println!("  {}", if arg == Start::PROBE { "(the probe)" } else { &arg });
                }
            }
        }
        println!("  {} ms in all, {} ms for a silent stage", recipe.deadline_ms, recipe.stage_ms);
    }
    ExitCode::SUCCESS
}
