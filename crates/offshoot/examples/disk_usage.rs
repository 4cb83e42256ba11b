//! How much lies in a folder of every host: asked of all at once, told as the answers come, and summed up.
//!
//! ```text
//! cargo run --example disk_usage                                  # three contexts of this machine, a folder each
//! cargo run --example disk_usage -- /usr/share                    # one, and this folder
//! cargo offshoot run -p offshoot --example disk_usage -- /var jump/web1 jump/web2 jump/web3/sudo:root
//! ```
//!
//! What several hosts have in common, such as `jump`, is logged in to once.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use offshoot::prelude::*;
use serde::{Deserialize, Serialize};

/// What lies in a folder, and on what kind of machine.
#[derive(Serialize, Deserialize)]
struct Usage {
    bytes: u64,
    files: u64,
    machine: String,
}

/// How much lies in a folder and below. An ordinary function: `usage("/tmp".into())` runs here.
#[offshoot::remote]
fn usage(folder: PathBuf) -> io::Result<Usage> {
    let mut usage = Usage { bytes: 0, files: 0, machine: std::env::consts::ARCH.into() };
    add(&mut usage, &folder)?;
    Ok(usage)
}

fn add(usage: &mut Usage, folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        // What may not be looked into, or is gone by now, counts for nothing, as with `du`.
        let Ok((path, about)) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) else { continue };
        if about.is_dir() {
            let _ = add(usage, &path);
        } else {
            usage.bytes += about.len();
            usage.files += 1;
        }
    }
    Ok(())
}

/// Whom to ask, and for which folder.
fn questions(mut arguments: impl Iterator<Item = String>) -> Vec<(String, PathBuf)> {
    let ask = |host: &str, folder: &str| (host.to_owned(), PathBuf::from(folder));
    let Some(folder) = arguments.next() else {
        // Each `local` after the first is one more context.
        return vec![ask("local", "/etc"), ask("local/local", "/usr/bin"), ask("local/local/local", "/usr/share")];
    };
    let hosts: Vec<String> = arguments.collect();
    if hosts.is_empty() {
        return vec![ask("local", &folder)];
    }
    hosts.iter().map(|host| ask(host, &folder)).collect()
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let questions = questions(std::env::args().skip(1));
    let mut tree = HashMap::from([(String::new(), master.context().clone())]);
    let contexts = questions.iter().map(|(host, _)| reach(&mut tree, host)).collect::<Result<Vec<_>, _>>()?;

    // The first round brings the program there, the second only the question.
    for which in ["first", "second"] {
        let (began, mut total) = (Instant::now(), 0);
        let asked = contexts.iter().zip(&questions).map(|(context, (_, folder))| usage::start(context, folder.clone()));
        for done in Select::new(asked) {
            let (host, folder) = &questions[done.index()];
            match done.result() {
                Ok(Ok(Usage { bytes, files, machine })) => {
                    println!("{host}: {} in {files} files of {} ({machine})", size(*bytes), folder.display());
                    total += bytes;
                }
                // The function's own error, and an error on the way: the others go on.
                Ok(Err(error)) => println!("{host}: {}: {error}", folder.display()),
                Err(error) => println!("{host}: {error}\n  {}", error.hint()),
            }
        }
        let took = began.elapsed().as_secs_f64() * 1e3;
        println!("total: {} of {} folders ({which} round: {took:.1} ms)", size(total), questions.len());
    }
    let mut ways: Vec<&String> = tree.keys().filter(|way| !way.is_empty()).collect();
    ways.sort();
    for way in ways {
        let (received, sent) = tree[way].info()?.link_bytes;
        println!("link to {way}: {received} bytes down, {sent} bytes up");
    }
    Ok(())
}

/// `1234 bytes`, `5.7 MiB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
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
