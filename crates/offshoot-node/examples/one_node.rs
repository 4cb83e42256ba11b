//! One node without the layers above: the root of a tree in this process, this very program as its context, and a
//! program run there.
//!
//! ```text
//! cargo run -p offshoot-node --example one_node
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use offshoot_connect::methods::Local;
use offshoot_node::{Error, Event, Options, OwnImage, Root, agent};

fn main() -> ExitCode {
    // A local context is a copy of this program: it must become the agent before it does anything else.
    if agent::is_wanted() {
        return agent::run().into();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    // Local contexts need no agent for another machine: this program is all that they are started from.
    let root = Root::start(Options::new(Arc::new(OwnImage::new())))?;
    let context = root.context().connect(Local::new())?;
    println!("{} is process {}", context.address(), context.info()?.hello.pid);

    let mut process = context.command("sh").args(["-c", "echo one; echo two >&2; exit 3"]).spawn()?;
    let status = loop {
        match process.event()? {
            Event::Stdout(bytes) => print!("out: {}", bytes.escape_ascii()),
            Event::Stderr(bytes) => print!("err: {}", bytes.escape_ascii()),
            Event::Exit(status) => break status,
        }
        println!();
    };
    println!("it ended: {status}");
    root.shutdown(Duration::from_secs(1));
    Ok(())
}
