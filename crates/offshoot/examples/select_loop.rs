//! A loop around everything that is under way: each context is asked again as soon as it has answered, and the loop does
//! something of its own in between.
//!
//! ```text
//! cargo run --example select_loop -- 2                            # for 2 s, three contexts on this machine
//! cargo offshoot run -p offshoot --example select_loop -- 60 web1 web2 web3
//! ```

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use offshoot::prelude::*;

/// The load of the machine that it runs on, looked at `pause` later.
#[offshoot::remote]
fn load(here: &Here, pause: Duration) -> io::Result<f64> {
    // In steps, so that nobody waits for it when nobody waits any more.
    let until = Instant::now() + pause;
    while Instant::now() < until && !here.is_cancelled() {
        std::thread::sleep(Duration::from_millis(10).min(pause));
    }
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{first:?}: {error}")))
}

#[offshoot::main]
fn main(master: &Master) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let lasts = Duration::from_secs_f64(arguments.next().map_or(Ok(2.0), |number| number.parse())?);
    let hosts: Vec<String> = arguments.collect();
    let contexts: Vec<Context> = match hosts.is_empty() {
        true => master.connect_all(vec![Local::new(); 3]).into_iter().collect::<Result<_, _>>()?,
        false => master.connect_all(hosts.iter().map(Ssh::to)).into_iter().collect::<Result<_, _>>()?,
    };
    // The first answers soonest, the last latest: nobody waits for another.
    let pause = |index: usize| Duration::from_millis(40 * (1 + index as u64));
    let ask = |index: usize| load::start(&contexts[index], pause(index));
    let mut select = Select::new((0..contexts.len()).map(ask));
    // Which context the call of a number was for: numbers go on as calls are added.
    let mut asked: Vec<usize> = (0..contexts.len()).collect();
    let mut answers = vec![(0_u32, 0.0_f64); contexts.len()];
    let (until, mut idle) = (Instant::now() + lasts, 0_u32);
    while Instant::now() < until {
        let Some(done) = select.next_timeout(Duration::from_millis(25)) else {
            // Nothing has ended: time for something else.
            idle += 1;
            continue;
        };
        let index = asked[done.index()];
        match done.result() {
            Ok(Ok(load)) => {
                answers[index] = (answers[index].0 + 1, answers[index].1.max(*load));
                select.add(ask(index));
                asked.push(index);
            }
            // It is not asked again; the loop goes on with the others, and ends when none is left.
            Ok(Err(error)) => println!("{}: {error}", contexts[index].path()),
            Err(error) => println!("{}: {error}", contexts[index].path()),
        }
        if select.is_empty() {
            break;
        }
    }
    for (context, (count, highest)) in contexts.iter().zip(&answers) {
        println!("{}: {count} answers, the highest load {highest}", context.path());
    }
    println!("{idle} times nothing was to be done; {} calls are dropped, which cancels them", select.len());
    Ok(())
}
