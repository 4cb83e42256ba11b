//! The compact agent: what is bootstrapped onto a target. No code of the user's runs in it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "--hello") {
        println!("offshoot-agent {} {}", offshoot_node::VERSION, offshoot_node::TRIPLE);
        return ExitCode::SUCCESS;
    }
    ExitCode::from(offshoot_node::agent::run())
}
