//! What the threads of a run do with the tree: calls, programs, streams, connects, shutdowns, and waits for what does not end.

use std::io::Write;
use std::time::{Duration, Instant};

use offshoot::FailureKind;
use offshoot::methods::Ssh;
use offshoot::{Context, Error, Event, Stdio};

use crate::effects::Claim;
use crate::functions;
use crate::judge::{Blow, Fault, Kind, Part};
use crate::killer::DEEPEST;
use crate::nodes::shown;
use crate::rng::Rng;
use crate::run::Run;
use crate::ssh::{HOST, Login};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A thread that does one short thing after the other.
pub(crate) fn busy(run: &Run<'_>, mut rng: Rng) {
    let mut wanted = rng.between(run.options.contexts.0, run.options.contexts.1);
    while !run.is_over() {
        if rng.chance(1) {
            wanted = rng.between(run.options.contexts.0, run.options.contexts.1);
        }
        if (run.nodes.count() as u64) < wanted && rng.chance(40) {
            connect(run, &mut rng);
        } else if let Some(context) = run.nodes.any(&mut rng, DEEPEST) {
            match rng.between(0, 99) {
                0..=29 => echo(run, &mut rng, &context),
                30..=39 => burst(run, &mut rng, &context),
                40..=59 => program(run, &mut rng, &context),
                60..=64 => dropped(run, &mut rng, &context),
                65..=76 => numbers(run, &mut rng, &context),
                77..=88 => through(run, &mut rng, &context),
                89..=93 => functions::call(run, &mut rng, &context),
                94..=98 => functions::effect(run, &mut rng, &context),
                _ if run.nodes.is_spared(context.address().path()) => {}
                _ => shutdown(run, &context),
            }
        }
        // Room for others on this machine.
        std::thread::sleep(Duration::from_millis(rng.between(0, 20)));
    }
}

/// All that is done in a context, once.
pub(crate) fn each(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    echo(run, rng, context);
    burst(run, rng, context);
    program(run, rng, context);
    dropped(run, rng, context);
    numbers(run, rng, context);
    through(run, rng, context);
    functions::effect(run, rng, context);
    functions::call(run, rng, context);
    if context.address().path().len() < DEEPEST {
        for login in [None, run.options.login.as_ref()] {
            if let Some(below) = connect_below(run, context, login) {
                shutdown(run, &below);
            }
        }
    }
}

/// A thread that waits for what ends with its context alone.
pub(crate) fn waiting(run: &Run<'_>, mut rng: Rng) {
    while !run.is_over() {
        match run.nodes.any(&mut rng, DEEPEST) {
            Some(context) if rng.chance(25) => functions::hold(run, &mut rng, &context, run.effects.folder()),
            Some(context) => hold(run, &mut rng, &context),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn at(context: &Context) -> Vec<u32> {
    context.address().path().to_vec()
}

fn wrong(run: &Run<'_>, context: &Context, what: &str) {
    run.history.find(&shown(context.address().path()), what);
}

/// Connects one more, below any or the root.
pub(crate) fn connect(run: &Run<'_>, rng: &mut Rng) {
    let root = run.master.context().clone();
    let above = if rng.chance(15) { root } else { run.nodes.any(rng, DEEPEST - 1).unwrap_or(root) };
    let ssh = run.options.login.as_ref().filter(|_| rng.chance(run.options.ssh));
    connect_below(run, &above, ssh);
}

fn connect_below(run: &Run<'_>, above: &Context, ssh: Option<&Login>) -> Option<Context> {
    let begun = run.begin(Kind::Connect, "connect", &at(above));
    let since = Instant::now();
    let connected = match ssh {
        Some(login) => above.connect(Ssh::to(HOST).config(&login.config)).inspect(|_| run.counts.logged_in()),
        None => above.local().connect(),
    };
    match connected {
        Ok(context) => {
            run.nodes.add(context.clone(), since, ssh);
            run.end(begun, Ok(&format!("is {}", shown(context.address().path()))));
            Some(context)
        }
        Err(error) => {
            run.end(begun, Err(&error));
            None
        }
    }
}

fn echo(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let length = if rng.chance(90) { rng.between(1, 200) } else { rng.between(1000, 50_000) };
    let bytes = rng.bytes(length as usize);
    let begun = run.begin(Kind::Call, "echo", &at(context));
    let answer = context.echo(&bytes);
    if answer.as_ref().is_ok_and(|answer| answer != &bytes[..]) {
        wrong(run, context, "an echo came back with other bytes");
    }
    run.end(begun, answer.as_ref().map(|_| "the same bytes"));
}

/// Many calls under way at once.
fn burst(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let calls = (0..rng.between(4, 24)).map(|_| {
        let bytes = rng.bytes(24);
        let begun = run.begin(Kind::Call, "echo of many", &at(context));
        (begun, context.start_echo(&bytes), bytes)
    });
    let calls: Vec<_> = calls.collect();
    for (begun, pending, bytes) in calls {
        let answer = pending.and_then(|pending| pending.wait());
        if answer.as_ref().is_ok_and(|answer| answer != &bytes[..]) {
            wrong(run, context, "one of many echoes came back with other bytes");
        }
        run.end(begun, answer.as_ref().map(|_| "the same bytes"));
    }
}

/// A program with a side effect, once.
fn program(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let ticket = run.effects.begin();
    let wait = if rng.chance(50) { String::new() } else { format!("sleep 0.{:02}; ", rng.between(1, 30)) };
    let begun = run.begin(Kind::Work, &format!("program {}", ticket.id), &at(context));
    let script = format!("{wait}echo {} >>\"$0\"", ticket.id);
    let result = context.command("sh").args(["-c", &script]).arg(&ticket.file).output();
    let (claim, said) = match &result {
        Ok(finished) if finished.status.success() => (Claim::Once, "exit 0".to_string()),
        Ok(finished) => {
            let ours = finished.status.signal().is_some_and(|signal| [SIGTERM, SIGKILL].contains(&signal));
            if !ours {
                wrong(
                    run,
                    context,
                    &format!("program {} ended with {}: {:?}", ticket.id, finished.status, finished.stderr),
                );
            }
            (Claim::AtMostOnce, finished.status.to_string())
        }
        Err(error) => (Claim::of(error.ran()), String::new()),
    };
    run.effects.end(&ticket, claim);
    let lost = result.as_ref().is_ok_and(|finished| !finished.status.success());
    ended(run, context, lost);
    run.end(begun, result.as_ref().map(|_| &said[..]));
}

/// A program that a signal ended: somebody must have been hit.
fn ended(run: &Run<'_>, context: &Context, by_signal: bool) {
    let address = context.address().path();
    let hit =
        || run.nodes.concerning(address).iter().any(|fault| fault.is_lethal() && address.starts_with(&fault.address));
    if by_signal && !hit() {
        wrong(run, context, "a program was ended by a signal, and nothing on its way was hit");
    }
}

/// A program that nobody waits for: dropping it ends it.
fn dropped(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let ticket = run.effects.begin();
    let begun = run.begin(Kind::Work, &format!("program {} to be dropped", ticket.id), &at(context));
    let script = format!("echo {} >>\"$0\"; sleep 600", ticket.id);
    let process = context.command("sh").args(["-c", &script]).arg(&ticket.file).spawn();
    std::thread::sleep(Duration::from_millis(rng.between(0, 30)));
    let claim = process.as_ref().map_or_else(|error| Claim::of(error.ran()), |_| Claim::AtMostOnce);
    let result = process.as_ref().map(|_| "dropped").map_err(Clone::clone);
    drop(process);
    run.effects.end(&ticket, claim);
    run.end(begun, result.as_ref().copied());
}

/// A stream of numbers from a program, each checked.
fn numbers(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let last = rng.between(1, 40_000);
    let begun = run.begin(Kind::Work, &format!("seq {last}"), &at(context));
    let mut expected = (1..=last).flat_map(|number| format!("{number}\n").into_bytes());
    let mut count = 0;
    let result = context.command("seq").args(["1", &last.to_string()]).spawn().and_then(|mut process| {
        loop {
            match process.event()? {
                Event::Stdout(data) => {
                    count += data.len() as u64;
                    if !data.iter().all(|byte| expected.next() == Some(*byte)) {
                        wrong(run, context, &format!("of seq {last} byte {count} or one of the chunk before is wrong"));
                        return Ok(None);
                    }
                }
                Event::Stderr(data) => wrong(run, context, &format!("seq says {data:?}")),
                Event::Exit(status) => return Ok(Some(status)),
            }
        }
    });
    finish(run, context, begun, result, expected.next().is_none(), count);
}

/// The byte at a place of a stream.
fn byte(seed: u64, place: u64) -> u8 {
    ((place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed) >> 29) as u8
}

/// A stream into a program and out of it again.
fn through(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let (seed, length) = (rng.next(), rng.between(1, 400_000));
    let begun = run.begin(Kind::Work, &format!("{length} bytes through cat"), &at(context));
    let mut count = 0;
    let result = context.command("cat").stdin(Stdio::Piped).spawn().and_then(|mut process| {
        let stdin = process.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(mut stdin) = stdin else { return };
                let mut place = 0;
                while place < length {
                    let next = (place + 9000).min(length);
                    let chunk: Vec<u8> = (place..next).map(|place| byte(seed, place)).collect();
                    // Whoever reads is told why.
                    if stdin.write_all(&chunk).is_err() {
                        return;
                    }
                    place = next;
                }
                stdin.finish();
            });
            loop {
                match process.event()? {
                    Event::Stdout(data) => {
                        if !data.iter().zip(count..).all(|(got, place)| *got == byte(seed, place)) {
                            wrong(run, context, &format!("of {length} bytes through cat one behind {count} is wrong"));
                            return Ok(None);
                        }
                        count += data.len() as u64;
                    }
                    Event::Stderr(data) => wrong(run, context, &format!("cat says {data:?}")),
                    Event::Exit(status) => return Ok(Some(status)),
                }
            }
        })
    });
    finish(run, context, begun, result, count == length, count);
}

/// The end of a stream: a program that ended well has given all.
fn finish(
    run: &Run<'_>,
    context: &Context,
    begun: crate::run::Begun,
    result: Result<Option<offshoot::ExitStatus>, Error>,
    complete: bool,
    count: u64,
) {
    run.counts.compared(count);
    if let Ok(Some(status)) = &result {
        if status.success() && !complete {
            wrong(run, context, &format!("a stream ended well after {count} bytes, and that was not all"));
        }
        ended(run, context, !status.success());
    }
    let said = format!("{count} bytes, {result:?}");
    run.end(begun, result.as_ref().map(|_| &said[..]));
}

/// Waits for the end of a program that has none; after a while ends it.
fn hold(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    let begun = run.begin(Kind::Hold, "hold", &at(context));
    let patience = Instant::now() + Duration::from_secs(rng.between(1, 12));
    let mut killed = None;
    let result =
        context.command("sleep").arg("600").stdout(Stdio::Null).stderr(Stdio::Null).spawn().and_then(|mut process| {
            loop {
                let until =
                    if run.is_over() { Instant::now() } else { patience.min(Instant::now() + Duration::from_secs(1)) };
                let event = match killed {
                    None => process.event_before(until),
                    Some(_) => process.event(),
                };
                match event {
                    Err(error) if *error.kind() == FailureKind::Timeout && killed.is_none() => {
                        run.look_at(&begun);
                        if Instant::now() >= patience || run.is_over() {
                            killed = Some(Instant::now());
                            process.kill()?;
                        }
                    }
                    Err(error) => return Err(error),
                    Ok(Event::Exit(status)) => return Ok(status),
                    Ok(_) => wrong(run, context, "sleep has something to say"),
                }
            }
        });
    if let (Ok(status), None) = (&result, killed) {
        ended(run, context, true);
        if status.success() {
            wrong(run, context, "sleep 600 was over before");
        }
    }
    match killed {
        // It ended because it was asked to: its time counts from there, as for any other program.
        Some(since) => run.end_since(begun, Kind::Work, since, result.as_ref().map(|_| "killed")),
        None => run.end(begun, result.as_ref().map(|_| "ended with its context")),
    }
}

fn shutdown(run: &Run<'_>, context: &Context) {
    let address = at(context);
    let begun = run.begin(Kind::Shutdown, "shutdown", &address);
    let now = Instant::now();
    let fault = Fault {
        at: now,
        until: now,
        address: address.clone(),
        part: Part::Agent,
        blow: Blow::Shutdown,
        login: false,
        process: (0, 0),
    };
    run.nodes.hit(fault);
    run.history.note(&format!("FAULT shutdown of {}", shown(&address)));
    run.counts.fault(Blow::Shutdown);
    let result = context.shutdown();
    run.nodes.forget(&address);
    run.end(begun, result.as_ref().map(|()| "gone"));
    if result.is_ok() && context.echo(b"").is_ok() {
        wrong(run, context, "a context answers after its shutdown has returned");
    }
}
