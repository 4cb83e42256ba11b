//! How much lies in a folder of every host: asked of all at once, told as the answers come, and summed up.
//!
//! ```text
//! cargo run --example disk_usage -- /usr/share                    # three contexts on this machine
//! cargo offshoot run --example disk_usage -- /var jump/web1 jump/web2 jump/web3/sudo:root
//! ```
//!
//! What several hosts have in common, such as `jump`, is logged in to once.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use offshoot::prelude::*;

/// How many bytes lie in a folder and below. An ordinary function: `usage("/tmp".into())` runs here.
#[offshoot::remote]
fn usage(folder: PathBuf) -> io::Result<u64> {
    sum(&folder)
}

fn sum(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        // What may not be looked into counts for nothing, as with `du`.
        bytes += if about.is_dir() { sum(&entry.path()).unwrap_or(0) } else { about.len() };
    }
    Ok(bytes)
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let mut hosts: Vec<String> = arguments.collect();
    if hosts.is_empty() {
        // Three on this machine: each `local` after the first is another context.
        hosts = ["local", "local/local", "local/local/local"].map(String::from).into();
    }
    let mut tree = HashMap::from([(String::new(), master.context().clone())]);
    let contexts = hosts.iter().map(|host| reach(&mut tree, host)).collect::<Result<Vec<_>, _>>()?;

    for which in ["first", "second"] {
        let (began, mut total) = (Instant::now(), 0);
        for done in Select::new(contexts.iter().map(|context| usage::start(context, folder.clone()))) {
            let host = &hosts[done.index()];
            match done.result() {
                Ok(Ok(bytes)) => {
                    println!("{host}: {bytes} bytes in {}", folder.display());
                    total += bytes;
                }
                // The function's own error, and an error on the way: the others go on.
                Ok(Err(error)) => println!("{host}: {error}"),
                Err(error) => println!("{host}: {error}\n  {}", error.hint()),
            }
        }
        let took = began.elapsed().as_secs_f64() * 1e3;
        println!("total: {total} bytes on {} hosts ({which} round: {took:.1} ms)", hosts.len());
    }
    let mut ways: Vec<&String> = tree.keys().filter(|way| !way.is_empty()).collect();
    ways.sort();
    for way in ways {
        let (received, sent) = tree[way].info()?.link_bytes;
        println!("link to {way}: {received} bytes down, {sent} bytes up");
    }
    Ok(())
}

/// The context at the end of a path of hops; each part of the way is connected once.
fn reach(tree: &mut HashMap<String, Context>, way: &str) -> Result<Context, offshoot::Error> {
    if let Some(context) = tree.get(way) {
        return Ok(context.clone());
    }
    let (before, hop) = way.rsplit_once('/').unwrap_or(("", way));
    let from = reach(tree, before)?;
    let context = match hop.split_once(':') {
        Some(("sudo", user)) => from.sudo(user).connect()?,
        _ if hop == "local" => from.local().connect()?,
        _ => from.ssh(hop).connect()?,
    };
    tree.insert(way.to_owned(), context.clone());
    Ok(context)
}
