//! The compact agent: what is bootstrapped onto a target. No code of the user's runs in it.
#![forbid(unsafe_code)]
#![cfg_attr(offshoot_main, no_main)]

fn run() -> u8 {
    if offshoot_mux::process::argument(1).is_some_and(|argument| argument == "--hello") {
        println!("offshoot-agent {} {}", offshoot_node::VERSION, offshoot_node::TRIPLE);
        return 0;
    }
    offshoot_node::agent::run()
}

#[cfg(offshoot_main)]
offshoot_mux::main_of!(run);

#[cfg(not(offshoot_main))]
fn main() -> std::process::ExitCode {
    run().into()
}
