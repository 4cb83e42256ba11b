//! What a started program begins with.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use offshoot_mux::fallback::{FORK, NO_CLOSE_RANGE, NO_EXECVEAT, NO_MFD_EXEC, NO_PIDFD, NO_PROC};
use offshoot_mux::{Limit, Signals, Spawn, Stdio, image, io, process, tree, tty};

use crate::harness::{Check, NOT_RUN};

pub(crate) const CHECKS: &[Check] = &[
    (
        "a_child_sees_exactly_the_three_descriptors_and_those_passed",
        descriptors,
        &[NO_CLOSE_RANGE, NO_CLOSE_RANGE | NO_PROC, FORK, FORK | NO_PIDFD],
    ),
    ("a_child_begins_with_default_signals_and_none_blocked", signals, &[FORK]),
    ("a_program_that_cannot_start_is_an_error_with_its_errno_and_no_child", errors, &[FORK, NO_PIDFD]),
    ("a_program_is_found_by_the_childs_own_path", lookup, &[]),
    ("the_environment_is_inherited_changed_or_replaced", environment, &[]),
    ("descriptors_can_change_places", places, &[FORK]),
    ("a_process_with_no_standard_descriptors_can_start_programs", closed, &[FORK]),
    ("a_process_with_many_descriptors_starts_programs_as_others_do", crowd, &[]),
    ("a_terminal_is_given_to_a_session_of_its_own", terminal, &[FORK]),
    ("a_raised_descriptor_limit_is_not_inherited", raised, &[FORK]),
    ("limits_priority_mask_and_folder_are_the_childs_alone", limits, &[FORK]),
    (
        "a_sealed_image_in_memory_runs_and_cannot_be_changed",
        sealed_image,
        &[NO_EXECVEAT, NO_EXECVEAT | NO_MFD_EXEC | FORK],
    ),
    ("many_threads_start_programs_at_once", threads, &[FORK, NO_PIDFD]),
    ("starting_costs_the_same_in_a_large_process", large, &[]),
    ("a_child_that_is_stopped_before_its_exec_goes_on_by_itself", stopped, &[FORK]),
];

fn raised() {
    let soft = || output(Spawn::new("sh").args(["-c", "ulimit -Sn"]));
    let hard = output(Spawn::new("sh").args(["-c", "ulimit -Hn"]));
    // The program that runs this check begins with whatever limit the machine gives; give it a low one first.
    let again = Spawn::new(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
    if soft() != "200\n" {
        let hard: u64 = hard.trim().parse().unwrap_or(u64::MAX);
        let child = again.limit(Limit::OpenFiles, 200, hard).start().unwrap();
        assert!(child.wait(None).unwrap().unwrap().success());
        return;
    }
    let now = offshoot_mux::process::raise_descriptor_limit().unwrap();
    assert!(now > 200, "the hard limit is {now}");
    let many: Vec<_> = (0..300).map(|_| io::null().unwrap()).collect();
    assert_eq!(soft(), "200\n");
    assert_eq!(output(Spawn::new("sh").args(["-c", "ulimit -Sn"]).limit(Limit::OpenFiles, 250, 300)), "250\n");
    drop(many);
}

/// Runs to the end and answers what it wrote.
fn output(spawn: Spawn<'_>) -> String {
    let (read, write) = io::pipe().unwrap();
    let child = spawn.stdout(write).start().unwrap();
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    let status = child.wait(Some(Instant::now() + Duration::from_secs(20))).unwrap().unwrap();
    assert!(status.success(), "{status}: {text}");
    text
}

fn sh(script: &str) -> Spawn<'static> {
    Spawn::new("/bin/sh").args(["-c", script]).stdin(Stdio::Null)
}

fn descriptors() {
    let leaked: Vec<OwnedFd> = (0..100)
        .map(|_| {
            let fd = io::null().unwrap();
            io::set_cloexec(&fd, false).unwrap();
            fd
        })
        .collect();
    // The reader has one more: the folder that it reads.
    assert_eq!(output(Spawn::new("ls").arg("/proc/self/fd")), "0\n1\n2\n3\n");
    assert_eq!(
        output(Spawn::new("ls").arg("/proc/self/fd").pass(leaked[50].as_fd()).pass(Stdio::Null)),
        "0\n1\n2\n3\n4\n5\n"
    );
    let (read, write) = io::pipe().unwrap();
    let child = sh("echo passed >&4").pass(Stdio::Null).pass(write).start().unwrap();
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "passed\n");
    child.wait(None).unwrap();
}

fn signals() {
    let taken = Signals::new(&[libc::SIGTERM, libc::SIGUSR1, libc::SIGCHLD]).unwrap();
    offshoot_mux::ignore_sigpipe();
    let status = output(Spawn::new("cat").arg("/proc/self/status"));
    for field in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        assert!(line.trim_start_matches(field).trim_matches(|c| ":\t0".contains(c)).is_empty(), "{line}");
    }
    // Ours are as they were.
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    // Whoever started the tests may ignore more.
    let set = |field: &str| {
        let line = ours.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!((set("SigIgn:") & 0x1000, set("SigBlk:")), (0x1000, 0x14200), "{ours}");
    drop(taken);
}

fn errors() {
    let code = |spawn: Spawn<'_>| spawn.start().unwrap_err().raw_os_error();
    assert_eq!(code(Spawn::new("/nonexistent/program")), Some(libc::ENOENT));
    assert_eq!(code(Spawn::new("no-such-program-anywhere").env("PATH", "/usr/bin:/bin")), Some(libc::ENOENT));
    assert_eq!(code(Spawn::new("")), Some(libc::ENOENT));
    assert_eq!(code(Spawn::new("/etc/passwd")), Some(libc::EACCES));
    let folder = Spawn::new("true").cwd("/nonexistent").start().unwrap_err();
    assert_eq!(folder.raw_os_error(), Some(libc::ENOENT));
    assert_eq!(folder.to_string(), "cannot enter the working directory: No such file or directory (os error 2)");
    assert_eq!(std::io::Error::from(folder).raw_os_error(), Some(libc::ENOENT));
    let null = io::null().unwrap();
    assert_eq!(code(Spawn::new("true").controlling_terminal(null.as_fd())), Some(libc::ENOTTY));
    for malformed in
        [Spawn::new("a\0b"), Spawn::new("a").arg("\0"), Spawn::new("a").env("A=B", ""), Spawn::new("a").env("", "")]
    {
        assert_eq!(malformed.start().unwrap_err().io().kind(), std::io::ErrorKind::InvalidInput);
    }
    let text = image::memfd("text").unwrap();
    io::write_all(&text, b"no program", None).unwrap();
    assert_eq!(code(Spawn::image(text.as_fd(), "text")), Some(libc::ENOEXEC));
}

fn lookup() {
    let folder = scratch("lookup");
    let program = folder.join("whoever");
    std::fs::write(&program, "#!/bin/sh\necho here $0\n").unwrap();
    assert_eq!(
        Spawn::new("whoever")
            .env("PATH", format!("/nonexistent:{}", folder.display()))
            .start()
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EACCES),
        "found, but not to be executed"
    );
    set_mode(&program, 0o755);
    let path = format!("{}:/usr/bin:/bin", folder.display());
    assert_eq!(output(Spawn::new("whoever").env("PATH", &path)), format!("here {}\n", program.display()));
    assert_eq!(output(Spawn::new("./whoever").cwd(&folder)), "here ./whoever\n");
    assert_eq!(output(Spawn::new("whoever").env("PATH", ":/bin").cwd(&folder)), "here ./whoever\n");
    assert_eq!(output(sh("echo $0").argv0("login")), "login\n");
    std::fs::remove_dir_all(folder).unwrap();
}

fn environment() {
    assert!(output(Spawn::new("env")).lines().any(|line| line.starts_with("PATH=")));
    assert!(!output(Spawn::new("/usr/bin/env").env_remove("PATH")).lines().any(|line| line.starts_with("PATH=")));
    let exact =
        Spawn::new("/usr/bin/env").env("B", "1").env_clear().env("A", "x=y").env("B", "2").env("C", "").env_remove("C");
    assert_eq!(output(exact), "A=x=y\nB=2\n");
    assert_eq!(output(Spawn::new("env").env_clear()), "", "found by the default path");
}

fn places() {
    let (read, write) = io::pipe().unwrap();
    let (back, answer) = io::pipe().unwrap();
    let script = "read line; echo out $line; echo err >&2";
    // 0 from a pipe, 1 to a pipe, 2 the same as our 1: each source number is another's target.
    let child = sh(script).stdin(read).stdout(answer.as_fd()).stderr(answer.as_fd()).start().unwrap();
    io::write_all(&write, b"hello\n", None).unwrap();
    drop(answer);
    let mut text = String::new();
    std::fs::File::from(back).read_to_string(&mut text).unwrap();
    assert_eq!(text, "out hello\nerr\n");
    child.wait(None).unwrap();
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let list = output(
        Spawn::new("readlink").args(["/proc/self/fd/0", "/proc/self/fd/2"]).stdin(stdout.as_fd()).stderr(stdin.as_fd()),
    );
    let links: Vec<&str> = list.lines().collect();
    assert!(links[0].starts_with("pipe:") && links[1] == "/dev/null", "{list}");
}

fn closed() {
    let kept: Vec<OwnedFd> = [0, 1, 2]
        .map(|_| ())
        .iter()
        .zip([std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()])
        .map(|(_, fd)| io::dup_cloexec(fd).unwrap())
        .collect();
    // A process as a careless starter leaves it; its next descriptors are 0, 1 and 2.
    let script = "exec \"$0\" role:no-stdio <&- >&- 2>&-";
    let status = sh(script).arg(std::env::current_exe().unwrap()).start().unwrap().wait(None).unwrap().unwrap();
    assert!(status.success(), "{status}");
    drop(kept);
}

/// In a process without 0, 1 and 2.
pub(crate) fn without_stdio() -> bool {
    let (read, write) = io::pipe().unwrap();
    let started = Spawn::new("/bin/sh")
        .args(["-c", "echo x; test -e /dev/fd/2 && exit 3"])
        .stdin(Stdio::Null)
        .stdout(write)
        .stderr(Stdio::Null)
        .start();
    let mut buffer = [0; 8];
    let got = io::read(&read, &mut buffer).unwrap();
    &buffer[..got] == b"x\n" && started.unwrap().wait(None).unwrap().unwrap().code() == Some(3)
}

fn terminal() {
    let pty = tty::Pty::open().unwrap();
    assert!(pty.slave_path().starts_with("/dev/"));
    tty::set_raw(&pty).unwrap();
    let slave = pty.open_slave().unwrap();
    let (read, write) = io::pipe().unwrap();
    // stdio are pipes, and yet there is a terminal to ask on.
    let script = "echo prompt >/dev/tty; read answer </dev/tty; echo $answer; ps -o sid= -p $$ | tr -d ' '; ls /proc/self/fd | wc -l";
    let child = sh(script).stdout(write).controlling_terminal(slave.as_fd()).start().unwrap();
    let mut buffer = [0; 64];
    let got = io::read(&pty, &mut buffer).unwrap();
    assert_eq!(&buffer[..got], b"prompt\n");
    io::write_all(&pty, b"secret\n", None).unwrap();
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("secret\n{}\n4\n", child.pid()));
    assert!(child.wait(None).unwrap().unwrap().success());
    let group = output(Spawn::new("sh").args(["-c", "ps -o pgid= -p $$ | tr -d ' '; echo $$"]).group());
    let lines: Vec<&str> = group.lines().collect();
    assert_eq!(lines[0], lines[1]);
}

fn limits() {
    let own = || output(sh("nice")).trim().parse::<i32>().unwrap();
    let before = own();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; umask; pwd";
    let text = output(sh(script).limit(Limit::OpenFiles, 100, 200).limit(Limit::Core, 0, 0).umask(0o77).cwd("/usr"));
    assert_eq!(text, "100\n200\n0\n0077\n/usr\n");
    // What is less polite than this process cannot be had by everybody, so it is added.
    let renice = format!("renice -n {} -p {} > /dev/null", (before + 5).min(19), std::process::id());
    assert_eq!(output(sh(&renice)), "");
    assert_eq!(own(), (before + 5).min(19));
    for more in [7, i32::MAX] {
        assert_eq!(output(sh("nice").nice(more)).trim(), own().saturating_add(more).min(19).to_string());
    }
    assert_ne!(output(sh("umask; pwd")), "0077\n/usr\n");
}

fn sealed_image() {
    let program = image::memfd("program").unwrap();
    io::write_all(&program, &std::fs::read("/bin/echo").unwrap(), None).unwrap();
    image::seal(&program).unwrap();
    assert_eq!(io::write(&program, b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(output(Spawn::image(program.as_fd(), "anything").args(["one", "two"])), "one two\n");
    // exec in place, in a process of its own.
    let exe = std::env::current_exe().unwrap();
    assert_eq!(output(Spawn::new(exe).arg("role:exec-memfd")), "replaced\n");
}

/// Becomes `echo`.
pub(crate) fn exec_memfd() {
    let program = image::memfd("program").unwrap();
    io::write_all(&program, &std::fs::read("/bin/echo").unwrap(), None).unwrap();
    let never = image::exec_fd(&program, ["echo", "replaced"], [] as [&str; 0]);
    eprintln!("{never:?}");
}

fn threads() {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..25 {
                    let text = format!("{thread} {round}");
                    assert_eq!(output(Spawn::new("echo").arg(&text)), text + "\n");
                }
            });
        }
    });
}

fn large() {
    let least = || {
        let times = (0..21).map(|_| {
            let began = Instant::now();
            let child = Spawn::new("/bin/true").start().unwrap();
            let took = began.elapsed();
            child.wait(None).unwrap();
            took
        });
        // What other programs take from it varies; what it costs does not.
        times.min().unwrap()
    };
    let small = least();
    let mut memory = vec![0u8; 400 << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    let large = least();
    drop(memory);
    // A fork copies 800 KiB of page tables here, and then every page that is written: 3 ms and more.
    if small > Duration::from_millis(3) {
        println!("{NOT_RUN}the machine is too busy to tell ({small:?})");
    } else {
        assert!(large < small + Duration::from_millis(2), "{small:?} became {large:?}");
    }
}

fn crowd() {
    let most = process::raise_descriptor_limit().unwrap();
    let streams = || [0, 1, 2].map(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap());
    let ours = streams();
    let least = |passed: usize| {
        let times = (0..21).map(|_| {
            let spawn = (0..passed).fold(Spawn::new("/bin/true"), |spawn, _| spawn.pass(Stdio::Null));
            let began = Instant::now();
            let child = spawn.start().unwrap();
            let took = began.elapsed();
            child.wait(None).unwrap();
            took
        });
        times.min().unwrap()
    };
    let mut crowd: Vec<OwnedFd> = (0..300).map(|_| io::null().unwrap()).collect();
    crowd.iter().for_each(|fd| io::set_cloexec(fd, false).unwrap());
    // While there is one, what the others need has low numbers that are kept.
    let first = Spawn::new("sleep").arg("1000").start().unwrap();
    for force in [FORK, NO_CLOSE_RANGE, 0] {
        offshoot_mux::fallback::force(force);
        descriptors();
        places();
        errors();
        terminal();
        sealed_image();
        threads();
        let more = (0..9).fold(Spawn::new("ls").arg("/proc/self/fd"), |spawn, _| spawn.pass(crowd[299].as_fd()));
        assert_eq!(output(more).lines().count(), 13, "more than there is room for below");
        // The ends of what was passed are seen: nothing of it is kept.
        let (read, write): (Vec<_>, Vec<_>) = (0..3).map(|_| io::pipe().unwrap()).unzip();
        let all = write.into_iter().fold(Spawn::new("true"), Spawn::pass);
        assert!(all.start().unwrap().wait(None).unwrap().unwrap().success());
        for end in read {
            assert_eq!(io::read(&end, &mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(streams(), ours);
    }

    if most >= 16_000 {
        crowd.extend((0..15_000).map(|_| io::null().unwrap()));
        // With more than there is room for below all are copied and closed.
        let (cut, copied) = (least(0), least(9));
        assert!(cut < copied / 2, "{cut:?}, and {copied:?} when all are copied");
    } else {
        println!("{NOT_RUN}this process may have {most} descriptors, and 16,000 would show what many of them cost");
    }
    drop(first);
}

pub(crate) fn scratch(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("offshoot-mux-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn stopped() {
    // So many folders without such a program that the child looks for it for a while.
    let path = "x:".repeat(50_000) + "/bin:/usr/bin";
    let (commands, write) = io::pipe().unwrap();
    let kill = sh("while read what pid; do kill -$what $pid; done").stdin(commands).start().unwrap();
    let send = |what: &str, pid: u32| io::write_all(&write, format!("{what} {pid}\n").as_bytes(), None).unwrap();
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let (mut hits, mut longest) = (0, Duration::ZERO);
    for _ in 0..30 {
        if hits == 3 {
            break;
        }
        let (tell, told) = std::sync::mpsc::channel();
        let path = path.clone();
        let starter = std::thread::spawn(move || {
            let child = Spawn::new("true").env("PATH", path).stdin(Stdio::Null).start().unwrap();
            tell.send(()).unwrap();
            child.wait(None).unwrap();
        });
        // Its timer is the first thing that it sees to; some microseconds before that nothing can be done for it.
        let is_timed = |pid: &u32| std::fs::read(format!("/proc/{pid}/timers")).is_ok_and(|timers| !timers.is_empty());
        let mut pid = None;
        while pid.is_none() && !starter.is_finished() {
            let children = tree::descendants(process::id());
            pid = children.iter().map(|found| found.pid).find(|pid| *pid != kill.pid() && is_timed(pid));
        }
        let began = Instant::now();
        if let Some(pid) = pid {
            send("STOP", pid);
            let is_stopped = || tree::Proc::of(pid).is_none_or(|found| found.state == 'T');
            while !is_stopped() && told.try_recv().is_err() {}
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            hits += u32::from(exe == Some(own.clone()) && tree::Proc::of(pid).is_some_and(|found| found.state == 'T'));
            let in_time = told.recv_timeout(Duration::from_secs(6));
            longest = longest.max(began.elapsed());
            // One that was stopped behind its exec is the program's, and stays so.
            send("CONT", pid);
            assert!(
                in_time != Err(std::sync::mpsc::RecvTimeoutError::Timeout) || exe != Some(own.clone()),
                "it is not started after {:?}",
                began.elapsed()
            );
        }
        starter.join().unwrap();
    }
    println!("{hits} were stopped in time, and started after {longest:?} at most");
    drop(write);
    kill.wait(None).unwrap();
    let probe = process::Rouse::new().unwrap();
    probe.set(Duration::from_secs(100));
    if std::fs::read("/proc/self/timers").is_ok_and(|timers| !timers.is_empty()) {
        assert!(hits > 0, "no child was stopped before its exec, or none had a timer");
    } else if hits == 0 {
        println!("{NOT_RUN}the kernel does not list the timers of a process");
    }
}
