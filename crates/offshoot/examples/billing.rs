//! The nightly billing of a machine that only one account of one host behind the bastion may enter: a chain of logins, and a
//! function at its end.
//!
//! ```text
//! cargo run --example billing                                     # on this machine, four contexts deep
//! cargo offshoot run -p offshoot --example billing -- jump web1 sudo:root su:billing
//! ```
//!
//! Each hop is made by the context before it: the ssh of the bastion logs in to the next host, and sudo runs there. The
//! last one may be anything that becomes a context: `ssh`, `sudo:USER`, `su:USER`, `doas:USER`, `local`. Each must do without a
//! password here, as su does for root; `passwords` shows how one is given.

use std::error::Error;
use std::io;

use offshoot::prelude::*;

/// What the bill is made of.
#[offshoot::remote]
fn run_nightly_billing(here: &Here, hours: Vec<u32>, rate: u64) -> io::Result<String> {
    let total: u64 = hours.iter().map(|hours| u64::from(*hours) * rate).sum();
    let user = std::process::Command::new("id").arg("-un").output()?;
    let user = String::from_utf8_lossy(&user.stdout);
    Ok(format!("{} customers, {total} in all, billed by {} on {}", hours.len(), user.trim_end(), here.context()))
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let mut hops: Vec<String> = std::env::args().skip(1).collect();
    if hops.is_empty() {
        hops = vec!["local".into(); 4];
    }
    let mut here = master.context().clone();
    for hop in &hops {
        here = match hop.split_once(':') {
            Some(("sudo", user)) => here.sudo(user).connect()?,
            Some(("su", user)) => here.su(user).connect()?,
            Some(("doas", user)) => here.doas(user).connect()?,
            _ if hop == "local" => here.local().connect()?,
            _ => here.ssh(hop).connect()?,
        };
        println!("at {}", here.path());
    }
    println!("{}", run_nightly_billing::on(&here, vec![8, 3, 40], 90)??);
    Ok(())
}
