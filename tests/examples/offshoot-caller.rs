//! A user's program that runs functions of its own in two contexts of this machine, one below the other: for tests that
//! harm it. It takes a line from its input, and writes its first argument when the functions have seen all of it. With
//! the arguments `log` and a logger it shows what it and they log instead: `ours` is that of `offshoot::log::init`, `own`
//! one that was there before.

#![deny(unsafe_code)]

use std::process::ExitCode;

use offshoot::prelude::*;

/// How much a function over there got of what was sent.
#[offshoot::remote]
fn length(text: String) -> std::io::Result<usize> {
    Ok(text.len())
}

/// Calls side by side, from a function over there, in a context of its own.
#[offshoot::remote]
fn further(here: &Here, texts: Vec<String>) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let below = here.local().connect()?;
    let calls = texts.into_iter().map(|text| length::start(&below, text));
    let mut sum = 0;
    for done in Select::new(calls) {
        sum += done.into_result()?.unwrap_or(0);
    }
    below.shutdown()?;
    Ok(sum)
}

#[offshoot::remote]
fn say(text: String) {
    log::warn!("{text}, a warning");
    log::debug!("{text}, in detail");
    println!("{text}, printed");
}

/// A logger as users have them.
struct Own;

impl log::Log for Own {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("own logger: {} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

fn show_log(logger: &str) -> Result<(), Box<dyn std::error::Error>> {
    if logger == "own" {
        log::set_logger(&Own)?;
        log::set_max_level(log::LevelFilter::Warn);
    }
    offshoot::log::init();
    offshoot::log::init();
    log::warn!("here \x1b[31m\nand \u{202e}below");
    log::debug!("here, in detail");
    let master = Master::new()?;
    let context = master.local().connect()?;
    let below = context.local().connect()?;
    say::on(&context, "there".into())?;
    say::on(&below, "further \x1b]0;t\x07".into())?;
    master.shutdown();
    Ok(())
}

fn run(word: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let line = line.trim_end().to_owned();
    let master = Master::new()?;
    let context = master.local().connect()?;
    let (one, three) = (length::on(&context, line.clone())??, further::on(&context, vec![line.clone(); 3])??);
    master.shutdown();
    if line.is_empty() || (one, three) != (line.len(), 3 * line.len()) {
        return Err(format!("{} bytes arrived as {one} and {three}", line.len()).into());
    }
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{word}")?;
    Ok(())
}

fn main() -> ExitCode {
    offshoot::init();
    let word = std::env::args().nth(1).unwrap_or_default();
    let logger = std::env::args().nth(2).filter(|_| word == "log");
    match logger.map_or_else(|| run(&word), |logger| show_log(&logger)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // It may be stderr that cannot be written.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(125)
        }
    }
}
