//! The program that fixtures run in namespaces of their own: PID 1 of a host, servers, and a terminal. Every form of it ends when its standard input does, that is,
//! when the test process has ended for whatever reason.

#![forbid(unsafe_code)]

#[path = "../../../crates/offshoot-program/tests/local/chaos.rs"]
mod chaos;

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use offshoot_tests::meter;
use offshoot_tests::relay::{self, Knobs};
use offshoot_tests::servers::{self, Temper};
use offshoot_tests::terminal;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let special = match &words[..] {
        ["terminal", program @ ..] => Some(terminal::serve(program)),
        ["meter", setting @ ..] => Some(meter::serve(setting)),
        _ => None,
    };
    if let Some(outcome) = special {
        return match outcome {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                eprintln!("offshoot-fixture: {error}");
                ExitCode::from(125)
            }
        };
    }
    let outcome = match words[..] {
        ["init"] => init(),
        ["hold"] => hold(),
        ["serve", temper] => Temper::named(temper).map_or_else(|| Err(io::Error::other("unknown temper")), serve),
        ["relay", target, delay] => relay(target, delay),
        ["chaos", target, plan] => chaos(target, plan),
        _ => Err(io::Error::other(
            "usage: offshoot-fixture init | hold | serve TEMPER | relay ADDRESS:PORT MILLISECONDS | chaos ADDRESS:PORT PLAN | terminal PROGRAM ARGUMENTS… | meter SETTING…",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("offshoot-fixture: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn end_with_stdin() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
}

/// Reaps whatever is orphaned in this pid namespace; when this process ends, the kernel kills all that is in it.
fn init() -> io::Result<()> {
    end_with_stdin();
    say("ready")?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) => (),
            // No child now; one may be orphaned to us any time.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn hold() -> io::Result<()> {
    say("ready")?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn serve(temper: Temper) -> io::Result<()> {
    let (listener, port) = servers::listen()?;
    end_with_stdin();
    say(&port.to_string())?;
    servers::serve(&listener, temper)
}

fn relay(target: &str, delay: &str) -> io::Result<()> {
    let target = target.parse().map_err(io::Error::other)?;
    let delay = delay.parse().map_err(io::Error::other)?;
    let knobs = Arc::new(Knobs::default());
    knobs.set_delay(Duration::from_millis(delay));
    let (listener, port) = servers::listen()?;
    say(&port.to_string())?;
    let told = knobs.clone();
    thread::spawn(move || {
        told.obey(io::stdin().lock());
        std::process::exit(0);
    });
    relay::serve(&listener, target, &knobs)
}

/// Relays for ever, each connection by the plan. A line of input begins what is to begin when it is said.
fn chaos(target: &str, plan: &str) -> io::Result<()> {
    /// Ends its direction when dropped.
    struct Ending(TcpStream);

    impl Write for Ending {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Ending {
        fn drop(&mut self) {
            let _ = self.0.shutdown(Shutdown::Write);
        }
    }

    let target: SocketAddr = target.parse().map_err(io::Error::other)?;
    let plan: chaos::Plan = plan.parse().map_err(io::Error::other)?;
    let (listener, port) = servers::listen()?;
    say(&port.to_string())?;
    let told = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&told);
    thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).for_each(|_| begins.store(true, Ordering::Relaxed));
        std::process::exit(0);
    });
    loop {
        let near = listener.accept()?.0;
        let Ok(far) = TcpStream::connect(target) else { continue };
        let end = |stream: &TcpStream| -> io::Result<chaos::End> {
            stream.set_nodelay(true)?;
            Ok(chaos::End { read: Box::new(stream.try_clone()?), write: Box::new(Ending(stream.try_clone()?)) })
        };
        let (master, other) = (end(&near)?, end(&far)?);
        chaos::run(plan.clone(), master, other, &told, move || {
            for stream in [&near, &far] {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }
}
