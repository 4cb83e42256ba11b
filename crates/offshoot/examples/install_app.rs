//! Installs our application on other machines: one file, which brings everything along, the application too.
//!
//! ```text
//! cargo run --example install_app -- FOLDER                       # on this machine
//! cargo offshoot run -p offshoot --example install_app -- FOLDER web1 web2/sudo:root
//! ```
//!
//! A host is a path of hops: `web1`, `jump/web1`, `web1/sudo:root`, `local`.

use std::error::Error;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use offshoot::prelude::*;

/// The application: part of the program, and so of the images that run elsewhere.
const APP: &str = "#!/bin/sh\necho \"the application runs as $(id -un) in $(pwd)\"\n";

/// An ordinary function: it puts the application into a folder of the machine that it runs on, and tries it there.
#[offshoot::remote]
fn install_app(into: PathBuf) -> io::Result<String> {
    let bin = into.join("bin");
    std::fs::create_dir_all(&bin)?;
    let app = bin.join("app");
    // In its place only when it is whole.
    let beside = bin.join(format!(".app-{}", std::process::id()));
    std::fs::write(&beside, APP)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&beside, &app)?;
    let tried = Command::new(&app).current_dir(&into).output()?;
    Ok(String::from_utf8_lossy(&tried.stdout).trim_end().to_owned())
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(into) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: install_app FOLDER [HOST…]");
        std::process::exit(2);
    };
    let mut hosts: Vec<String> = arguments.collect();
    if hosts.is_empty() {
        hosts.push("local".into());
    }
    for host in &hosts {
        let context = host.split('/').try_fold(master.context().clone(), |from, hop| step(&from, hop))?;
        let came = || Ok::<_, offshoot::Error>(context.info()?.link_bytes.0);
        // The first call brings the program there, the second one only the call.
        for which in ["first call", "second call"] {
            let (before, began) = (came()?, Instant::now());
            let said = install_app::on(&context, into.clone())??;
            let took = began.elapsed().as_secs_f64() * 1e3;
            println!("{host}: {said} ({which}: {took:.1} ms, {} bytes over its link)", came()? - before);
        }
        let (received, sent) = context.info()?.link_bytes;
        println!("{host}: {received} bytes came to it over its link, {sent} went back");
    }
    Ok(())
}

/// One hop further.
fn step(from: &Context, hop: &str) -> Result<Context, offshoot::Error> {
    match hop.split_once(':') {
        Some(("sudo", user)) => from.sudo(user).connect(),
        _ if hop == "local" => from.local().connect(),
        _ => from.ssh(hop).connect(),
    }
}
