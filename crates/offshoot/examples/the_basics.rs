//! The basics of remote functions, on this machine alone: an ordinary function that runs in other contexts.
//!
//! ```text
//! cargo run --example the_basics
//! ```

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use offshoot::prelude::*;

/// How many bytes lie in a folder, itself and all below. An ordinary function: `usage(".".into())` runs here.
#[offshoot::remote]
fn usage(folder: PathBuf) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { usage(entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

/// Who runs this; `Here` is where.
#[offshoot::remote]
fn who(here: &Here, greeting: String) -> String {
    format!("{greeting} from process {} in the context {}", std::process::id(), here.context())
}

#[offshoot::remote]
fn careless(divisor: u32) -> u32 {
    100 / divisor
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn std::error::Error>> {
    // Three contexts, each with a process of its own for the functions.
    let contexts: Vec<Context> = master.connect_all(vec![Local::new(); 3]).into_iter().collect::<Result<_, _>>()?;

    for context in &contexts {
        println!("{}", who::on(context, "hello".into())?);
    }

    // There: the outer `?` is ours, the inner one the function's own.
    println!("here: {} bytes in /etc", usage::on(&contexts[0], "/etc".into())??);
    match usage::on(&contexts[0], "/does/not/exist".into())? {
        Ok(bytes) => println!("{bytes} bytes"),
        Err(error) => println!("its own error, as it travels: {error}"),
    }

    // Side by side, as they finish.
    for done in Select::new(contexts.iter().map(|context| usage::start(context, "/etc".into()))) {
        println!("{:10} {:?}", done.context(), done.result());
    }

    // A panic is an error of the call; its context goes on.
    if let Err(error) = careless::call(0).timeout(Duration::from_secs(10)).on(&contexts[1]) {
        println!("{error}");
    }
    println!("and it goes on: {}", careless::on(&contexts[1], 4)?);
    Ok(())
}
