//! A tour on this machine alone: grow a tree of contexts several levels deep, look at it, run commands on all of it side
//! by side with live output, and end it. Needs no server and no set-up:
//!
//! ```text
//! cargo run --example tour
//! ```

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use offshoot::prelude::*;

/// What runs on every context: a few lines over a moment, so that the outputs are seen to interleave.
const SCRIPT: &str = r#"echo "hello from process $$, child of $PPID"; for i in 1 2; do sleep 0.$((RANDOM % 3 + 1)) 2>/dev/null || sleep 1; echo "step $i"; done; exit 3"#;

fn main() -> ExitCode {
    // In a process that is to become an agent this does not return.
    offshoot::init();
    match tour() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if !error.hint().is_empty() {
                eprintln!("  hint      {}", error.hint());
            }
            ExitCode::FAILURE
        }
    }
}

fn tour() -> Result<(), offshoot::Error> {
    let start = Instant::now();
    let master = Master::new()?;

    // Three contexts below the master, two below each of them, and one more below each of those.
    let mut tree: Vec<Context> = Vec::new();
    let mut level = vec![master.context().clone()];
    for width in [3, 2, 1] {
        let mut next = Vec::new();
        for above in &level {
            for context in above.connect_all(vec![Local::new(); width]) {
                next.push(context?);
            }
        }
        tree.extend(next.iter().cloned());
        level = next;
    }
    tree.sort_by(|a, b| a.address().cmp(b.address()));
    println!("grew {} contexts, three levels deep, in {:.1?}:", tree.len(), start.elapsed());

    println!("\n  /            this program, process {}", std::process::id());
    for context in &tree {
        let round_trip = context.ping()?;
        let info = context.info()?;
        let depth = context.address().depth();
        println!(
            "  {:12} {}{} process {}, {:.0?} away",
            context.address().to_string(),
            "   ".repeat(depth - 1),
            if depth == 1 { "──" } else { "└─" },
            info.hello.pid,
            round_trip
        );
    }

    println!("\nrunning a script on all of them, output as it comes:\n");
    let start = Instant::now();
    let (lines, screen) = mpsc::channel();
    thread::scope(|scope| {
        for context in &tree {
            let lines = lines.clone();
            scope.spawn(move || {
                let result = run(context, &lines);
                // The receiver outlives all senders.
                let _ = lines.send(match result {
                    Ok(status) => format!("{:8} ended: {status}", context.address().to_string()),
                    Err(error) => format!("{:8} failed: {error}", context.address().to_string()),
                });
            });
        }
        drop(lines);
        for line in screen {
            println!("  {line}");
        }
    });
    println!("\n{} processes in {:.1?}", tree.len(), start.elapsed());

    let start = Instant::now();
    let contexts = tree.len();
    drop(tree);
    master.shutdown_with_grace(Duration::from_secs(1));
    println!("ended {contexts} contexts in {:.1?}; nothing is left of them", start.elapsed());
    Ok(())
}

fn run(context: &Context, lines: &mpsc::Sender<String>) -> Result<ExitStatus, offshoot::Error> {
    let mut process = context.command("sh").arg("-c").arg(SCRIPT).spawn()?;
    let mut text = String::new();
    loop {
        match process.event()? {
            Event::Stdout(bytes) | Event::Stderr(bytes) => {
                text.push_str(&String::from_utf8_lossy(&bytes));
                while let Some(end) = text.find('\n') {
                    let line: String = text.drain(..=end).collect();
                    let _ = lines.send(format!("{:8} {}", context.address().to_string(), line.trim_end()));
                }
            }
            Event::Exit(status) => return Ok(status),
        }
    }
}
