//! Runs the engine against a shell on this machine, and prints what the agent says of itself and how long each stage
//! took: `cargo run -p offshoot-connect --example connect_shell -- BUNDLE [TARGET]`. With a target it logs in there by ssh instead.
//!
//! The bundle is a file that `cargo xtask agents` writes.

use std::error::Error;
use std::time::Instant;

use offshoot_connect::bundle::Bundle;
use offshoot_connect::methods::{Method, Ssh};
use offshoot_connect::{Cancel, Connecting, Image, LocalImage, Payloads, connect};
use offshoot_wire::escape::escaped;
use offshoot_wire::{Address, Failure, FailureKind, Hello, Limits, ParentHello, Recipe, Start};

/// One agent, for one triple.
struct One(Bundle);

impl Payloads for One {
    fn bundle(&self, triple: &str, _deadline: Instant, _cancel: &Cancel) -> Result<Bundle, Failure> {
        if triple == self.0.triple() {
            return Ok(self.0.clone());
        }
        Err(Failure::new(FailureKind::NoAgent(triple.to_owned()), format!("the bundle is for {}", self.0.triple())))
    }
}

impl LocalImage for One {
    fn image(&self) -> Result<Image<'_>, Failure> {
        Err(Failure::new(FailureKind::Unsupported, "this example starts no local contexts"))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: connect_shell BUNDLE [TARGET]")?;
    let recipe = match args.next() {
        Some(target) => Ssh::to(target).recipe()?,
        None => {
            let argv = ["sh", "-c", Start::PROBE].map(str::to_owned).to_vec();
            Recipe::new("sh", "", Start::Shell { argv, env: Vec::new() })
        }
    };
    let payloads = One(Bundle::decode(std::fs::read(file)?)?);

    // An example's nonce; a program takes random bytes from the operating system.
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let limits = Limits::default();
    let hello = ParentHello {
        nonce,
        tree: nonce,
        address: Address::from_path(&[1])?,
        key: [0; 32],
        tree_ms: 0,
        frame: limits.frame,
        heartbeat_ms: limits.heartbeat.as_millis() as u32,
        silence_ms: limits.silence.as_millis() as u32,
        name: recipe.default_name(),
        path: recipe.default_name(),
        process_name: "offshoot:example".to_owned(),
        log: 0,
    };
    let mut preamble = Vec::new();
    hello.put(&mut preamble);

    let connected = connect(Connecting {
        recipe: &recipe,
        nonce,
        preamble,
        tree_tag: ("OFFSHOOT_TREE", format!("example-{}", std::process::id())),
        context_tag: ("OFFSHOOT_JOB", format!("example-{}/0", std::process::id())),
        process_name: "offshoot:example",
        image: &payloads,
        payloads: &payloads,
        cancel: &Cancel::new(),
        asker: None,
        behind: None,
    });
    match connected {
        Ok(connected) => {
            println!("{:#?}", connected.hello);
            for (stage, end) in connected.stages {
                println!("{:9.2} ms  {stage}", f64::from(end) / 1000.0);
            }
            Ok(())
        }
        Err(failure) => {
            eprintln!("received  {}", escaped(&failure.seen));
            eprintln!("hint      {}", failure.hint);
            Err(failure.message.clone().into())
        }
    }
}
