//! Runs as processes of their own, and the check that nothing of them is left.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
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

fn start(tag: &Tag, options: &Options, folder: &Path) -> std::io::Result<std::process::Child> {
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
        .args(["--long-stops", &options.long_stops.to_string(), "--threads", &options.threads.to_string()])
        .arg("--folder")
        .arg(folder)
        .stdin(Stdio::null())
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
    let mut child = start(&tag, options, folder.path()).expect("this program can be started");
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

/// Masters that are killed, one after the other, for as long as the run shall last.
pub(crate) fn masters(options: &Options) -> bool {
    let mut rng = Rng::of(options.seed, 9);
    let until = Instant::now() + options.length;
    let (mut rounds, mut longest, mut ran, mut well) = (0_u64, Duration::ZERO, 0, true);
    println!("seed {}", options.seed);
    while Instant::now() < until && well {
        let tag = Tag::new("masters");
        let folder = tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
        let sshd_folder =
            tempfile::Builder::new().prefix("soak-").tempdir().expect("the machine has a temporary folder");
        let (sshd, login) = sshd(&tag, options, sshd_folder.path());
        let seed = rng.next() % 1_000_000_000;
        let inner = Options { seed, login, length: Duration::from_secs(600), ..options.clone() };
        let mut child = start(&tag, &inner, folder.path()).expect("this program can be started");
        std::thread::sleep(Duration::from_millis(rng.between(50, 4000)));
        let master = Process::read(child.id() as i32);
        // As often as not it is stopped first, and killed while it is.
        if let Some(master) = master.filter(|_| rng.chance(30)) {
            master.signal(Signal::STOP);
            std::thread::sleep(Duration::from_millis(rng.between(1, 300)));
        }
        let _ = child.kill();
        let _ = child.wait();
        // Nobody is left to let those go on that the run had stopped: they do by themselves.
        longest = longest.max(tag.assert_nothing_left(GONE + SILENT));
        drop(sshd);
        let twice = twice(folder.path(), &mut ran);
        if !twice.is_empty() {
            println!("FINDING (seed {}): programs {twice:?} ran more than once", inner.seed);
            well = false;
        }
        rounds += 1;
    }
    println!(
        "masters     {rounds} killed, {ran} programs had run, all gone {} ms after a kill at most",
        longest.as_millis()
    );
    println!("{}: seed {}, {rounds} kills", if well { "well" } else { "NOT WELL" }, options.seed);
    well
}

/// The programs that ran more than once, of all that left their number.
fn twice(folder: &Path, ran: &mut u64) -> Vec<String> {
    let mut times: HashMap<String, u32> = HashMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        for line in fs::read_to_string(entry.path()).unwrap_or_default().lines() {
            *times.entry(line.to_string()).or_default() += 1;
            *ran += 1;
        }
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
        let mut ran = 0;
        assert_eq!(twice(folder.path(), &mut ran), ["2"]);
        assert_eq!(ran, 4);
    }
}
