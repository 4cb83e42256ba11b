//! The process itself, and the roles that other checks start it in.

use std::io::Read;
use std::time::Duration;

use offshoot_mux::fallback::{NO_OPENAT2, NO_PIDFD};
use offshoot_mux::process::{self, Fork};
use offshoot_mux::{Spawn, io};

use crate::harness::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("a_single_threaded_process_forks_and_one_with_threads_is_refused", fork, &[NO_PIDFD]),
    ("a_process_is_shown_under_its_new_name", name, &[]),
    ("a_child_dies_with_the_thread_that_started_it", death_signal, &[]),
    ("descriptors_are_closed_but_those_listed", close, &[]),
    ("nothing_outside_a_folder_is_opened_beneath_it", beneath, &[NO_OPENAT2]),
    ("a_process_knows_its_user_host_and_time", facts, &[]),
];

pub(crate) fn role(name: &str) {
    let ok = match name {
        "role:no-stdio" => crate::starting::without_stdio(),
        "role:exec-memfd" => {
            crate::starting::exec_memfd();
            false
        }
        "role:run" => {
            crate::ending::run();
            true
        }
        "role:bomb" => {
            crate::ending::explode();
            true
        }
        "role:denied" => crate::ending::denied_role(),
        "role:name" => name_role(),
        "role:close" => close_role(),
        _ => false,
    };
    std::process::exit(i32::from(!ok));
}

fn fork() {
    let earlier = Spawn::new("sleep").arg("1000").start().unwrap();
    match process::fork_single_threaded().unwrap() {
        Fork::Child => {
            // What was the parent's child is not ours: dropping the copy must not kill it.
            drop(earlier);
            std::process::exit(42);
        }
        Fork::Parent(child) => {
            assert_eq!(child.wait(None).unwrap().unwrap().code(), Some(42));
            assert!(earlier.try_wait().unwrap().is_none());
        }
    }
    let (wait, go) = io::pipe().unwrap();
    let thread = std::thread::spawn(move || io::read(&wait, &mut [0]).unwrap());
    assert_eq!(process::fork_single_threaded().unwrap_err().kind(), std::io::ErrorKind::Unsupported);
    drop(go);
    thread.join().unwrap();
}

fn name() {
    let exe = std::env::current_exe().unwrap();
    let status =
        Spawn::new(&exe).argv0("a-name-with-some-room-in-it").arg("role:name").start().unwrap().wait(None).unwrap();
    assert!(status.unwrap().success());
}

fn name_role() -> bool {
    let environment = std::fs::read("/proc/self/environ").unwrap();
    let room = std::fs::read("/proc/self/cmdline").unwrap().len();
    let shown = process::set_process_name("offshoot:ann@host:7").unwrap();
    assert_eq!(shown, "offshoot:ann@host:7".len());
    let cmdline = std::fs::read("/proc/self/cmdline").unwrap();
    assert!(cmdline.starts_with(b"offshoot:ann@host:7\0"), "{}", String::from_utf8_lossy(&cmdline));
    assert_eq!(std::fs::read("/proc/self/comm").unwrap(), b"offshoot:ann@ho\n");
    // Longer than there is room.
    let long = "x".repeat(4000);
    assert_eq!(process::set_process_name(&long).unwrap(), room - 1);
    assert_eq!(std::fs::read("/proc/self/environ").unwrap(), environment, "the environment behind it is whole");
    true
}

fn death_signal() {
    let starter = std::thread::spawn(|| Spawn::new("sleep").arg("1000").death_signal(libc::SIGKILL).start().unwrap());
    let child = starter.join().unwrap();
    let status = child.wait(Some(std::time::Instant::now() + Duration::from_secs(20))).unwrap().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
}

fn close() {
    let exe = std::env::current_exe().unwrap();
    for force in ["0", "closerange", "all"] {
        let (read, write) = io::pipe().unwrap();
        let spawn = Spawn::new(&exe).arg("role:close").env("FORCE", force).stdout(write);
        let status =
            (0..20).fold(spawn, |spawn, _| spawn.pass(offshoot_mux::Stdio::Null)).start().unwrap().wait(None).unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(status.unwrap().success(), "{force}: {text}");
    }
}

fn close_role() -> bool {
    use offshoot_mux::fallback;
    use std::os::fd::{AsFd, AsRawFd};
    fallback::force(match std::env::var("FORCE").as_deref() {
        Ok("closerange") => fallback::NO_CLOSE_RANGE,
        Ok("all") => fallback::NO_CLOSE_RANGE | fallback::NO_PROC,
        _ => 0,
    });
    let keep = io::null().unwrap();
    let low = io::socketpair().unwrap();
    io::close_all_but(&[keep.as_fd(), std::io::stdout().as_fd()]);
    fallback::force(0);
    let mut open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter(|entry| !std::fs::read_link(entry.path()).is_ok_and(|to| to.starts_with("/proc")))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    open.sort_unstable();
    println!("{open:?}");
    // These two are closed already.
    std::mem::forget(low);
    open == [0, 1, 2, keep.as_raw_fd()]
}

fn facts() {
    assert_eq!(process::id(), std::process::id());
    assert_eq!(process::parent_id(), std::os::unix::process::parent_id());
    assert!(!process::hostname().is_empty() && !process::user_name().is_empty());
    assert!(process::home().is_absolute());
    if process::effective_uid() == 0 {
        assert_eq!(process::account(0).unwrap().name, "root");
    }
    let before = process::monotonic();
    std::thread::sleep(Duration::from_millis(2));
    assert!(process::monotonic() - before >= Duration::from_millis(2));
    let mask = process::umask(0o22);
    assert_eq!(process::umask(mask), 0o22);
    process::set_dumpable(false).unwrap();
    process::set_dumpable(true).unwrap();
    process::set_parent_death_signal(libc::SIGTERM).unwrap();
    process::set_parent_death_signal(0).unwrap();
}

fn beneath() {
    let folder = crate::starting::scratch("beneath");
    let inside = folder.join("inside");
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(folder.join("secret"), "x").unwrap();
    std::fs::write(inside.join("sub/file"), "content").unwrap();
    for (link, to) in [("out", "../secret"), ("abs", "/etc/passwd"), ("up", "..")] {
        std::os::unix::fs::symlink(to, inside.join(link)).unwrap();
    }
    let root = std::fs::File::open(&inside).unwrap();
    let open = |path: &str, flags: i32| io::open_beneath(&root, path, flags, 0o600);
    let mut text = String::new();
    std::fs::File::from(open("./sub//file", libc::O_RDONLY).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    let outside =
        ["../secret", "out", "abs", "up/secret", "/etc/passwd", "sub/../../secret", "/proc/self/root/etc/passwd", ".."];
    for path in outside {
        assert!(open(path, libc::O_RDONLY).is_err(), "{path}");
        assert!(open(path, libc::O_WRONLY | libc::O_CREAT).is_err(), "{path}");
    }
    drop(open("new", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL).unwrap());
    assert!(inside.join("new").exists());
    drop(open(".", libc::O_RDONLY | libc::O_DIRECTORY).unwrap());
    drop(root);
    std::fs::remove_dir_all(folder).unwrap();
    let (ours, _theirs) = io::socketpair().unwrap();
    let peer = io::peer(&ours).unwrap();
    assert_eq!((peer.pid, peer.uid), (process::id(), process::effective_uid()));
}
