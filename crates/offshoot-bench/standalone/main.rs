//! The root of the physical-limit program when it is compiled on its own; `floor_build` says why. Not part of this crate.
mod floor;
mod proc;

fn main() -> std::process::ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((first, verb)) if first == "limit" => floor::run(verb),
        _ => std::process::ExitCode::from(2),
    }
}
