//! The end of children, and whose they are.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use offshoot_mux::fallback::{FORK, NO_PIDFD, NO_PROC_CHILDREN, NO_SIGNALFD};
use offshoot_mux::{Events, Interest, Poller, Reaper, Signals, Spawn, Stdio, Token, process, tree};
use std::os::fd::AsFd;

use crate::harness::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("a_childs_end_is_an_event_of_the_poller", event, &[NO_PIDFD]),
    ("a_status_is_told_again_and_again", status, &[NO_PIDFD]),
    ("a_wait_ends_at_its_deadline", deadline, &[NO_PIDFD]),
    ("a_signal_reaches_the_child_or_nobody", signal, &[NO_PIDFD]),
    ("a_dropped_child_is_killed_and_reaped", dropped, &[NO_PIDFD, FORK]),
    ("a_child_reaped_by_others_is_an_error_not_a_hang", stolen, &[NO_PIDFD]),
    ("orphans_are_reaped_and_no_owned_child_is", orphans, &[NO_PIDFD, NO_PROC_CHILDREN]),
    ("signals_come_through_the_poller", signals, &[NO_SIGNALFD]),
];

const LONG: Duration = Duration::from_secs(20);

fn sleeper() -> Spawn<'static> {
    Spawn::new("sleep").arg("1000").stdin(Stdio::Null)
}

fn event() {
    let mut poller = Poller::new().unwrap();
    let mut events = Events::with_capacity(4);
    let child = sleeper().start().unwrap();
    poller.registry().add(child.exit_fd().unwrap(), Token(5), Interest::Read).unwrap();
    poller.wait(&mut events, Some(Duration::from_millis(20))).unwrap();
    assert_eq!(events.iter().count(), 0);
    child.signal(libc::SIGTERM).unwrap();
    while events.iter().count() == 0 {
        poller.wait(&mut events, Some(LONG)).unwrap();
    }
    assert!(events.iter().all(|event| event.token == Token(5) && (event.readable || event.read_closed)));
    assert_eq!(child.try_wait().unwrap().unwrap().signal(), Some(libc::SIGTERM));
    poller.registry().remove(child.exit_fd().unwrap()).unwrap();
}

fn status() {
    let child = Spawn::new("sh").args(["-c", "exit 7"]).start().unwrap();
    for _ in 0..2 {
        assert_eq!(child.wait(None).unwrap().unwrap().code(), Some(7));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(7));
    }
}

fn deadline() {
    let child = sleeper().start().unwrap();
    let began = Instant::now();
    assert!(child.wait(Some(began + Duration::from_millis(50))).unwrap().is_none());
    assert!(began.elapsed() >= Duration::from_millis(50) && began.elapsed() < LONG);
    assert!(child.wait(Some(began)).unwrap().is_none());
    let pid = child.pid();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
    });
    assert_eq!(child.wait(Some(Instant::now() + LONG)).unwrap().unwrap().signal(), Some(libc::SIGTERM));
    killer.join().unwrap();
}

fn signal() {
    let child = Spawn::new("sh").args(["-c", "sleep 1000 & wait"]).group().start().unwrap();
    while tree::descendants(child.pid()).is_empty() {
        std::thread::yield_now();
    }
    let grandchild = tree::descendants(child.pid())[0];
    child.signal(libc::SIGSTOP).unwrap();
    child.signal(libc::SIGCONT).unwrap();
    child.signal_group(libc::SIGKILL).unwrap();
    assert_eq!(child.wait(None).unwrap().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(child.signal(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert_eq!(child.signal_group(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    let began = Instant::now();
    while grandchild.lives() {
        assert!(began.elapsed() < LONG, "the group was signalled");
    }
    let alone = sleeper().start().unwrap();
    assert_eq!(alone.signal_group(libc::SIGKILL).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

fn dropped() {
    let child = sleeper().start().unwrap();
    let process = tree::Proc::of(child.pid()).unwrap();
    drop(child);
    assert!(!process.lives());
    let left = tree::Proc::of(sleeper().start().unwrap().leave()).unwrap();
    assert!(left.lives());
    std::process::Command::new("kill").arg(left.pid.to_string()).status().unwrap();
    let began = Instant::now();
    while !Reaper.reap().childless {
        assert!(began.elapsed() < LONG);
    }
}

fn stolen() {
    let child = Spawn::new("true").start().unwrap();
    let other = child.pid();
    // As foreign code would that waits for any child.
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    assert_eq!(unsafe { libc::waitpid(-1, &mut status, 0) }, other as i32);
    assert_eq!(child.wait(None).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    assert_eq!(child.signal(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
}

fn orphans() {
    process::set_child_subreaper().unwrap();
    // Each ends at once and leaves an orphan that ends a little later.
    let parents: Vec<_> = (0..10)
        .map(|_| Spawn::new("sh").args(["-c", "(sleep 0.05; exit 3) & exit 5"]).stdin(Stdio::Null).start().unwrap())
        .collect();
    let began = Instant::now();
    let mut count = 0;
    // Ours end first, and are not waited for: the reaper must look behind them.
    while count < 10 {
        let reaped = Reaper.reap();
        count += reaped.count;
        assert!(!reaped.childless);
        assert!(began.elapsed() < LONG, "{count} orphans reaped");
        std::thread::sleep(Duration::from_millis(1));
    }
    for parent in &parents {
        assert_eq!(parent.wait(None).unwrap().unwrap().code(), Some(5));
    }
    assert_eq!(Reaper.reap(), offshoot_mux::Reaped { count: 0, childless: true });
}

fn signals() {
    let taken = Signals::new(&[libc::SIGTERM, libc::SIGCHLD, libc::SIGWINCH]).unwrap();
    let mut poller = Poller::new().unwrap();
    let mut events = Events::with_capacity(4);
    poller.registry().add(taken.as_fd(), Token(1), Interest::Read).unwrap();
    let kill = |signal: &str| {
        let child = Spawn::new("kill").args([signal, &process::id().to_string()]).start().unwrap();
        child.wait(None).unwrap();
    };
    kill("-TERM");
    kill("-WINCH");
    let mut got = Vec::new();
    let began = Instant::now();
    while got.len() < 3 {
        poller.wait(&mut events, Some(LONG)).unwrap();
        for signal in taken.read() {
            if !got.contains(&signal) {
                got.push(signal);
            }
        }
        assert!(began.elapsed() < LONG, "{got:?}");
    }
    got.sort_unstable();
    assert_eq!(got, [libc::SIGTERM, libc::SIGCHLD, libc::SIGWINCH]);
    assert_eq!(taken.read().filter(|signal| *signal != libc::SIGCHLD).count(), 0);
    assert!(Signals::new(&[1000]).is_err());
    poller.registry().remove(taken.as_fd()).unwrap();
    drop(taken);
    // The default again: it would end this process.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.lines().any(|line| line.starts_with("SigBlk") && line.ends_with("0000")), "{status}");
}
