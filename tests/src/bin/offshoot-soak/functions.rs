//! Remote functions as work: their workers are processes to be hit, and an effect is counted as that of a program is.

// The attribute makes a module beside each function, with what this file alone calls.
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use offshoot::prelude::*;
use offshoot::{Error, FailureKind};
use offshoot_tests::process::Process;

use crate::effects::Claim;
use crate::judge::Kind;
use crate::nodes::shown;
use crate::rng::Rng;
use crate::run::Run;

/// Where a function runs: the worker's process, its guard's, the worker's address.
pub(crate) type Seat = (u32, u32, Vec<u32>);

fn seat(here: &Here) -> Seat {
    (std::process::id(), std::os::unix::process::parent_id(), here.address().path().to_vec())
}

/// Does nothing, and says where.
#[offshoot::remote]
fn nothing(here: &Here, number: u64) -> (u64, Seat) {
    (number, seat(here))
}

/// Has an effect: its number in that file, after so many milliseconds.
#[offshoot::remote]
fn leave(here: &Here, number: u64, file: PathBuf, after: u64) -> io::Result<Seat> {
    std::thread::sleep(Duration::from_millis(after));
    OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{number}\n").as_bytes())?;
    Ok(seat(here))
}

/// Says where in that file, and lasts until nobody waits any more.
#[offshoot::remote]
fn stay(here: &Here, file: PathBuf) -> io::Result<()> {
    let (worker, guard, address) = seat(here);
    let address: Vec<String> = address.iter().map(u32::to_string).collect();
    fs::write(file, format!("{worker} {guard} {}\n", address.join(" ")))?;
    while !here.is_cancelled() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What [`stay`] has written; `None` when not all of it is there.
fn sat(text: &str) -> Option<Seat> {
    let mut numbers = text.strip_suffix('\n')?.split(' ').map(str::parse::<u32>);
    let (worker, guard) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((worker, guard, numbers.collect::<Result<_, _>>().ok()?))
}

fn at(context: &Context) -> Vec<u32> {
    context.address().path().to_vec()
}

fn wrong(run: &Run<'_>, context: &Context, what: &str) {
    run.history.find(&shown(context.address().path()), what);
}

/// From now on the killer knows the worker.
fn note(run: &Run<'_>, context: &Context, seat: &Seat) {
    let (worker, guard, address) = seat;
    if address.split_last().is_none_or(|(_, above)| above != context.address().path()) {
        wrong(run, context, &format!("a function ran at {}", shown(address)));
        return;
    }
    let process = |pid: u32| Process::read(i32::try_from(pid).ok()?).filter(offshoot_tests::tree::is_ours);
    // Neither may be gone: what has that number then is another process, or the guard another parent.
    if let (Some(worker), Some(guard)) = (process(*worker), process(*guard))
        && worker.parent == guard.pid
    {
        run.nodes.serves(context.address().path(), address, worker, guard);
    }
}

/// Whether it says that there is no image of this program for a context behind ssh, where a build that is not static cannot go.
fn has_no_image(run: &Run<'_>, context: &Context, error: &Error) -> bool {
    let none = matches!(error.kind(), FailureKind::NoImage(_)) && context.path().contains("ssh:");
    if none && !run.without_image.swap(true, Ordering::Relaxed) {
        println!("not run: functions behind ssh: {error}");
    }
    none
}

/// Whether functions can be asked of it.
fn serves(run: &Run<'_>, context: &Context) -> bool {
    !(run.without_image.load(Ordering::Relaxed) && context.path().contains("ssh:"))
}

/// One that does nothing.
pub(crate) fn call(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    if serves(run, context) && !answers(run, rng, context) {
        next(run, rng, context);
    }
}

/// After one that failed: the context serves the next, unless it is lost itself, or that one's worker is hit as well.
fn next(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    if serves(run, context) && !run.nodes.is_lost(context.address().path()) && answers(run, rng, context) {
        run.counts.served();
    }
}

fn answers(run: &Run<'_>, rng: &mut Rng, context: &Context) -> bool {
    let number = rng.next();
    let begun = run.begin(Kind::Function, "function", &at(context));
    let result = nothing::on(context, number);
    if let Ok((answer, seat)) = &result {
        if *answer != number {
            wrong(run, context, &format!("a function that was given {number} has returned {answer}"));
        }
        note(run, context, seat);
    }
    match &result {
        Err(error) if has_no_image(run, context, error) => run.end(begun, Ok("no image of this build")),
        _ => run.end(begun, result.as_ref().map(|_| "the same number")),
    }
    result.is_ok()
}

/// One with an effect, once.
pub(crate) fn effect(run: &Run<'_>, rng: &mut Rng, context: &Context) {
    if !serves(run, context) {
        return;
    }
    let ticket = run.effects.begin();
    let wait = if rng.chance(50) { 0 } else { rng.between(1, 300) };
    let begun = run.begin(Kind::Function, &format!("effect {}", ticket.id), &at(context));
    let result = leave::on(context, ticket.id, ticket.file.clone(), wait);
    let claim = match &result {
        Ok(Ok(seat)) => {
            note(run, context, seat);
            Claim::Once
        }
        Ok(Err(error)) => {
            wrong(run, context, &format!("effect {} cannot be left: {error}", ticket.id));
            Claim::AtMostOnce
        }
        Err(error) => Claim::of(error.ran()),
    };
    run.effects.end(&ticket, claim);
    match &result {
        Err(error) if has_no_image(run, context, error) => run.end(begun, Ok("no image of this build")),
        _ => run.end(begun, result.as_ref().map(|_| "left")),
    }
    if result.is_err() {
        next(run, rng, context);
    }
}

/// One that does not end before its worker is lost, or a while has passed.
pub(crate) fn hold(run: &Run<'_>, rng: &mut Rng, context: &Context, folder: &Path) {
    if !serves(run, context) {
        return;
    }
    let file = folder.join(format!("seat.{}", rng.next()));
    let mut begun = run.begin(Kind::Function, "function that stays", &at(context));
    let patience = Instant::now() + Duration::from_secs(rng.between(1, 12));
    let mut pending = Some(stay::start(context, file.clone()));
    let mut known = None;
    let look = || sat(&fs::read_to_string(&file).unwrap_or_default());
    // It has ended when it is done; given up when this is over.
    while let Some(call) = &pending
        && !call.is_done()
        && Instant::now() < patience
        && !run.is_over()
    {
        std::thread::sleep(Duration::from_millis(20));
        if known.is_none()
            && let Some(seat) = look()
        {
            // From here on it is as what waits for the end of a context, which is its worker.
            note(run, context, &seat);
            begun = begun.becomes(Kind::Hold, &seat.2);
            known = Some(seat);
        }
        if known.is_some() {
            run.look_at(&begun);
        }
    }
    let is_done = pending.as_ref().is_some_and(offshoot::PendingCall::is_done);
    match pending.take() {
        Some(call) if is_done => {
            let result = call.wait();
            if let Ok(ended) = &result {
                wrong(run, context, &format!("a function that stays has ended: {ended:?}"));
            }
            match &result {
                Err(error) if has_no_image(run, context, error) => run.end(begun, Ok("no image of this build")),
                _ => run.end(begun, result.as_ref().map(|_| "over")),
            }
            if result.is_err() {
                next(run, rng, context);
            }
        }
        // Giving it up waits for nothing.
        call => {
            drop(call);
            run.end_since(begun, Kind::Function, Instant::now(), Ok("given up"));
        }
    }
    // Absent when it has not run.
    let _ = fs::remove_file(&file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_read_when_all_of_it_is_there() {
        assert_eq!(sat("71 70 1 2 9\n"), Some((71, 70, vec![1, 2, 9])));
        assert_eq!(sat("71 70 1 2 9"), None);
        assert_eq!(sat(""), None);
        assert_eq!(sat("71\n"), None);
        assert_eq!(sat("71 x 1\n"), None);
    }
}
