//! Runs as processes of their own, and the check that nothing of them is left.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use offshoot_tests::bounded::eventually;
use offshoot_tests::process::{Process, Signal};
use offshoot_tests::sshd::Sshd;
use offshoot_tests::tag::Tag;

use crate::killer::DEEPEST;
use crate::rng::Rng;
use crate::run::Options;
use crate::ssh::{self, Login};

/// What a run takes beside its length: growing, emptying, the checks.
const AROUND: Duration = Duration::from_secs(300);
/// In how long all below a killed master is gone: two seconds, and two for each further hop, three times.
const GONE: Duration = Duration::from_secs(3 * 2 * DEEPEST as u64);

/// In how long what is stopped goes on and ends when nobody above does anything about it, three times.
const SILENT: Duration = Duration::from_secs(3 * 17);

/// In how long a master that goes on has a program run again: one that waits for what was stopped beside it, three times.
const AGAIN: Duration = Duration::from_secs(3 * 15);

/// What befalls a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is killed as it works.
    Killed,
    /// It is stopped, and killed while it is.
    StoppedAndKilled,
    /// It is ended by SIGSEGV.
    Segfaulted,
    /// It is stopped, for less than a silence, and must go on; then it is killed.
    Continued,
}

impl Fate {
    fn of(percent: u64) -> Fate {
        match percent {
            0..=39 => Fate::Killed,
            40..=59 => Fate::StoppedAndKilled,
            60..=79 => Fate::Segfaulted,
            _ => Fate::Continued,
        }
    }
}

fn start(tag: &Tag, options: &Options, folder: &Path, stdout: Stdio) -> std::io::Result<Child> {
    let pair = |(low, high): (u64, u64)| format!("{low}-{high}");
    let login = options
        .login
        .as_ref()
        .map(|login| ["--login".into(), login.config.clone(), "--sshd".into(), login.sshd.to_string()]);
    tag.command(std::env::current_exe()?)
        .arg("run")
        .args(login.into_iter().flatten())
        .args(["--ssh", &options.ssh.to_string()])
        .args(["--seconds", &options.length.as_secs().to_string(), "--seed", &options.seed.to_string()])
        .args(["--every", &pair(options.every), "--contexts", &pair(options.contexts)])
        .args(["--spared", &options.spared.to_string()])
        .args(["--long-stops", &options.long_stops.to_string(), "--threads", &options.threads.to_string()])
        .arg("--folder")
        .arg(folder)
        // What glibc keeps for each thread apart would hide what is kept for each operation.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .stdout(stdout)
        .spawn()
}

/// An sshd for a run, where there can be one and it is wanted.
fn sshd(tag: &Tag, options: &Options, folder: &Path) -> (Option<Sshd>, Option<Login>) {
    if options.ssh == 0 {
        return (None, None);
    }
    match ssh::start(tag, folder) {
        Ok((sshd, login)) => (Some(sshd), Some(login)),
        Err(missing) => {
            println!("not run: contexts behind ssh: {missing}");
            (None, None)
        }
    }
}

/// One run to its end.
pub(crate) fn soak(options: &Options) -> bool {
    let tag = Tag::new("soak");
    let folder = tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
    let sshd_folder = tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
    let (sshd, login) = sshd(&tag, options, sshd_folder.path());
    let options = &Options { login, ..options.clone() };
    let mut child = start(&tag, options, folder.path(), Stdio::inherit()).expect("this program can be started");
    let mut status = None;
    let ended = eventually(options.length + AROUND, || {
        status = child.try_wait().unwrap_or(None);
        status.is_some()
    });
    if !ended {
        println!("NOT WELL: the run does not end");
        let _ = child.kill();
        let _ = child.wait();
    }
    let took = tag.assert_nothing_left(GONE);
    drop(sshd);
    println!("nothing is left {} ms after the end", took.as_millis());
    ended && status.is_some_and(|status| status.success())
}

/// Has it befall the master; what is wrong with how it took it.
fn befall(fate: Fate, child: &mut Child, rng: &mut Rng, folder: &Path, threads: u64) -> Option<String> {
    let master = Process::read(child.id() as i32)?;
    let mut wrong = None;
    match fate {
        Fate::Killed => {}
        Fate::StoppedAndKilled => {
            master.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(rng.between(1, 300)));
        }
        Fate::Segfaulted => {
            // A Rust program looks at the first, finds that its stack has not run over, and leaves the next to the system.
            let gone = eventually(Duration::from_secs(30), || {
                master.signal(Signal::SEGV);
                child.try_wait().is_ok_and(|status| status.is_some())
            });
            if !gone {
                wrong = Some("a master goes on after SIGSEGV".to_string());
            }
        }
        Fate::Continued => {
            if !eventually(AGAIN, || last_ran(folder) > 0) {
                wrong = Some("no program had run in a new tree".to_string());
            }
            master.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(rng.between(500, 4000)));
            // What it had asked for goes on without it: one program of each thread.
            let before = last_ran(folder);
            master.signal(Signal::CONT);
            let since = Instant::now();
            if wrong.is_none() && !eventually(AGAIN, || last_ran(folder) > before + threads) {
                wrong = Some(format!(
                    "a master that was stopped and continued has no program run in {:?}",
                    since.elapsed()
                ));
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    wrong
}

/// Masters to which something befalls, one after the other, for as long as the run shall last.
pub(crate) fn masters(options: &Options) -> bool {
    let mut rng = Rng::of(options.seed, 9);
    let until = Instant::now() + options.length;
    let (mut rounds, mut longest, mut ran, mut well) = (0_u64, Duration::ZERO, 0, true);
    let (mut segfaulted, mut continued) = (0_u64, 0_u64);
    println!("seed {}", options.seed);
    while Instant::now() < until && well {
        let tag = Tag::new("masters");
        let folder = tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
        let sshd_folder =
            tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
        let (sshd, login) = sshd(&tag, options, sshd_folder.path());
        let seed = rng.next() % 1_000_000_000;
        let inner = Options { seed, login, length: Duration::from_secs(600), spared: 0, ..options.clone() };
        let said = sshd_folder.path().join("said");
        let stdout = fs::File::create(&said).expect("a file can be made in an own folder");
        let mut child = start(&tag, &inner, folder.path(), stdout.into()).expect("this program can be started");
        std::thread::sleep(Duration::from_millis(rng.between(50, 4000)));
        let fate = Fate::of(rng.between(0, 99));
        segfaulted += u64::from(fate == Fate::Segfaulted);
        continued += u64::from(fate == Fate::Continued);
        let wrong = befall(fate, &mut child, &mut rng, folder.path(), options.threads);
        if let Some(login) = &inner.login {
            ssh::let_go(login);
        }
        // Nobody is left to let those of ours go on that the run had stopped: they do by themselves.
        longest = longest.max(tag.assert_nothing_left(GONE + SILENT));
        drop(sshd);
        let twice = twice(folder.path(), &mut ran);
        if !twice.is_empty() {
            println!("FINDING (seed {}): programs {twice:?} ran more than once", inner.seed);
            well = false;
        }
        // What it found itself, as that an operation was lost though it was the master alone that stood still.
        let said = fs::read_to_string(&said).unwrap_or_default();
        let found = said.split_once("FINDING").map(|(_, found)| format!("it says: FINDING{found}"));
        for what in wrong.into_iter().chain(found) {
            println!("FINDING (seed {}, {fate:?}): {what}", inner.seed);
            well = false;
        }
        rounds += 1;
    }
    println!(
        "masters     {rounds} killed, {segfaulted} of them by SEGV and {continued} when they had gone on after a stop, {ran} programs had run, \
         all gone {} ms after a kill at most",
        longest.as_millis()
    );
    println!("{}: seed {}, {rounds} kills", if well { "well" } else { "NOT WELL" }, options.seed);
    well
}

/// The lines of all files of effects.
fn lines(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let effects = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("effects."));
    let texts = effects.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts.flat_map(|text| text.lines().map(str::to_string).collect::<Vec<_>>()).collect()
}

/// The highest number that a program has left: they are given in the order in which programs begin.
fn last_ran(folder: &Path) -> u64 {
    lines(folder).iter().filter_map(|line| line.parse().ok()).max().unwrap_or(0)
}

/// The programs that ran more than once, of all that left their number.
fn twice(folder: &Path, ran: &mut u64) -> Vec<String> {
    let mut times: HashMap<String, u32> = HashMap::new();
    for line in lines(folder) {
        *times.entry(line).or_default() += 1;
        *ran += 1;
    }
    times.into_iter().filter(|(_, times)| *times > 1).map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ran_twice_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("effects.0"), "1\n2\n").unwrap();
        fs::write(folder.path().join("effects.1"), "3\n2\n").unwrap();
        fs::write(folder.path().join("seat.1"), "3\n").unwrap();
        let mut ran = 0;
        assert_eq!(twice(folder.path(), &mut ran), ["2"]);
        assert_eq!(ran, 4);
        assert_eq!(last_ran(folder.path()), 3);
        assert_eq!(last_ran(&folder.path().join("none")), 0);
    }

    #[test]
    fn each_fate_befalls_some_masters() {
        let of = |fate| (0..100).filter(|percent| Fate::of(*percent) == fate).count();
        assert_eq!(
            [of(Fate::Killed), of(Fate::StoppedAndKilled), of(Fate::Segfaulted), of(Fate::Continued)],
            [40, 20, 20, 20]
        );
    }
}
