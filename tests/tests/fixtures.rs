//! The fixtures themselves, with plain ssh: what they claim must hold before a test of the product may lean on it.

use std::time::{Duration, Instant};

use offshoot_tests::bounded::{self, run};
use offshoot_tests::process::Signal;
use offshoot_tests::servers::Temper;
use offshoot_tests::{Fleet, Peer, Profile, Tag, host, or_not_run};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn three_hosts_answer_and_reach_each_other_with_the_same_config() {
    let name = "three_hosts_answer_and_reach_each_other_with_the_same_config";
    let tag = Tag::new(name);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2"), Peer::new("h3")]));
    for host in ["h1", "h2", "h3"] {
        let done = run(&mut fleet.ssh(&[host, "uname -n; echo $OFFSHOOT_TEST; exit 3"]), None, SOON);
        assert!(done.code == Some(3), "{done}\n{}", fleet.logs());
        if fleet.has_hosts() {
            assert_eq!(done.out(), format!("{host}\n{}\n", tag.name()), "{}", fleet.logs());
        }
    }
    let nested = format!("ssh -F {0} h2 ssh -F {0} h3 uname -n", fleet.config().display());
    let done = run(&mut fleet.ssh(&["h1", &nested]), None, SOON);
    done.expect_code(0);
    if fleet.has_hosts() {
        assert_eq!(done.out(), "h3\n");
    }
    tag.assert_nothing_left(SOON);
}

#[test]
fn a_process_or_file_left_in_a_host_is_found_even_with_an_empty_environment() {
    let name = "a_process_or_file_left_in_a_host_is_found_even_with_an_empty_environment";
    or_not_run!(name, host::allowed());
    let tag = Tag::new(name);
    let fleet = Fleet::start(&tag, &[Peer::new("h1")]).unwrap();
    run(&mut fleet.ssh(&["h1", "env -i setsid sleep 60 >/dev/null 2>&1 </dev/null & exit 0"]), None, SOON)
        .expect_code(0);
    assert!(bounded::eventually(SOON, || tag.processes().iter().filter(|process| process.comm == "sleep").count() == 1));
    assert!(
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tag.assert_nothing_left(Duration::from_millis(100))))
            .is_err()
    );
    for place in ["/tmp/left", "/dev/shm/left", "/root/left", "/usr/bin/left", "/run/left"] {
        fleet.on("h1", &format!("echo x > {place}")).expect_code(0);
        let files = tag.new_files();
        assert!(files.len() == 1 && files[0].starts_with(&format!("h1:{place}")), "{files:?}");
        fleet.on("h1", &format!("rm {place}"));
        // The overlay keeps a mark of nothing in the upper layer for a file that it never had below.
        assert!(tag.new_files().is_empty(), "{:?}", tag.new_files());
    }
    tag.assert_nothing_left(SOON);
}

#[test]
fn a_zombie_in_a_host_is_found() {
    let name = "a_zombie_in_a_host_is_found";
    or_not_run!(name, host::allowed());
    let tag = Tag::new(name);
    let fleet = Fleet::start(&tag, &[Peer::new("h1")]).unwrap();
    // exec keeps the shell's child, which the new program does not know of, and so never waits for.
    let mut command = fleet.command("sh");
    let parent = bounded::Gathered::start(command.args(["-c", "sleep 0.1 & exec sleep 60"]), None);
    assert!(bounded::eventually(SOON, || !tag.zombies().is_empty()), "no zombie seen");
    drop(parent);
    for process in tag.processes() {
        process.signal(Signal::KILL);
    }
    tag.assert_nothing_left(SOON);
}

#[test]
fn every_account_logs_in_with_its_own_shell() {
    let name = "every_account_logs_in_with_its_own_shell";
    or_not_run!(name, host::allowed());
    let tag = Tag::new(name);
    let fleet = Fleet::start(&tag, &[Peer::new("h1").profile(Profile::Busybox)]).unwrap();
    for shell in ["bash", "dash", "zsh", "fish", "tcsh", "ash", "ksh", "mksh"] {
        let program = if shell == "ash" { "busybox" } else { shell };
        if bounded::find_program(program).is_none() {
            offshoot_tests::not_run::report(&format!("{name}::{shell}"), "the shell is not installed");
            continue;
        }
        let done = run(
            &mut fleet
                .ssh(&[&format!("u-{shell}@h1"), "echo $SHELL; exec /bin/sh -c 'readlink /proc/$PPID/exe; id -un'"]),
            None,
            SOON,
        );
        done.expect_code(0);
        assert!(done.out().lines().next().unwrap_or_default().ends_with(shell), "{done}");
        assert!(done.out().ends_with(&format!("u-{shell}\n")), "{done}");
    }
    let noisy = run(&mut fleet.ssh(&["u-noisy@h1", "true"]), None, SOON);
    assert!(noisy.out().contains("noise from .bashrc") && noisy.err().contains("noise on stderr"), "{noisy}");
    let nologin = run(&mut fleet.ssh(&["u-nologin@h1", "true"]), None, SOON);
    nologin.expect_code(1);
    assert!(nologin.out().contains("not available"), "{nologin}");
    let nohome = run(&mut fleet.ssh(&["u-nohome@h1", "true"]), None, SOON);
    assert!(nohome.err().contains("Could not chdir"), "{nohome}");
    let restricted = run(&mut fleet.ssh(&["u-rbash@h1", "exec /bin/sh -c true"]), None, SOON);
    assert!(restricted.err().contains("restricted"), "{restricted}");
    let slow = run(&mut fleet.ssh(&["u-slow@h1", "true"]), None, SOON);
    assert!(slow.elapsed >= Duration::from_secs(2), "{slow}");
    let alone = run(
        &mut fleet.ssh(&["busybox@h1", "ls /bin | grep -c . ; readlink /bin/ls; ls / ; python3 -V; perl -v"]),
        None,
        SOON,
    );
    alone.expect_code(127);
    assert!(alone.out().contains("busybox\n") && !alone.out().contains("usr\n"), "{alone}");
    tag.assert_nothing_left(SOON);
}

/// A shell script that says which folders are writable and executable, by running a copy of true there.
const PROBE: &str = "for d in /tmp /var/tmp /run /home /dev /dev/shm /root /usr/bin; do cp /bin/true $d/probe 2>/dev/null && $d/probe 2>/dev/null && echo ok $d; rm -f $d/probe 2>/dev/null; done; echo end";

#[test]
fn profiles_are_what_they_say() {
    let name = "profiles_are_what_they_say";
    or_not_run!(name, host::allowed());
    let tag = Tag::new(name);
    let fleet = or_not_run!(
        name,
        Fleet::start(
            &tag,
            &[
                Peer::new("plain"),
                Peer::new("ro").profile(Profile::ReadOnly),
                Peer::new("locked")
                    .profile(Profile::ReadOnly)
                    .profile(Profile::NoExec)
                    .profile(Profile::NoInterpreters),
                Peer::new("full").profile(Profile::FullDisk),
                Peer::new("noproc").profile(Profile::NoProc),
                Peer::new("nomemfd").profile(Profile::NoMemfd),
            ],
        )
    );
    let probe = |host: &str| run(&mut fleet.ssh(&[host, PROBE]), None, SOON).expect_code(0).out();
    assert_eq!(
        probe("plain"),
        "ok /tmp\nok /var/tmp\nok /run\nok /home\nok /dev\nok /dev/shm\nok /root\nok /usr/bin\nend\n"
    );
    assert_eq!(probe("ro"), "ok /tmp\nok /var/tmp\nok /run\nok /home\nok /dev\nok /dev/shm\nok /root\nend\n");
    assert_eq!(probe("locked"), "end\n");
    assert_eq!(probe("full"), "end\n");
    let no_space = run(
        &mut fleet.ssh(&["full", "LC_ALL=C; export LC_ALL; for d in /tmp /dev/shm /root /run; do echo x > $d/f; done"]),
        None,
        SOON,
    );
    assert_eq!(no_space.err().matches("No space left on device").count(), 4, "{no_space}");
    fleet.on("full", "rm -f /tmp/f /dev/shm/f /root/f /run/f");
    run(&mut fleet.ssh(&["locked", "command -v perl python3 python"]), None, SOON).expect_code(1);
    run(&mut fleet.ssh(&["noproc", "ls /proc | grep -c ."]), None, SOON).expect_code(1);
    let memfd = "perl -e 'exit(syscall(319, $n = \"x\", 0) < 0 ? $! + 0 : 200)'";
    if cfg!(target_arch = "x86_64") {
        run(&mut fleet.ssh(&["nomemfd", memfd]), None, SOON).expect_code(1);
        run(&mut fleet.ssh(&["plain", memfd]), None, SOON).expect_code(200);
    }
    tag.assert_nothing_left(SOON);
}

#[test]
fn a_relay_slows_ssh_down_and_cuts_it() {
    let name = "a_relay_slows_ssh_down_and_cuts_it";
    let tag = Tag::new(name);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let mut relay = fleet.relay("h1", "far", Duration::from_millis(100)).unwrap();
    let near = run(&mut fleet.ssh(&["h1", "true"]), None, SOON);
    let far = run(&mut fleet.ssh(&["far", "true"]), None, SOON);
    near.expect_code(0);
    far.expect_code(0);
    // A login takes several round trips, each 200 ms longer now.
    assert!(far.elapsed > near.elapsed + Duration::from_secs(1), "{:?} and {:?}", near.elapsed, far.elapsed);
    relay.set_delay(Duration::ZERO);
    relay.cut();
    let started = Instant::now();
    let cut = run(&mut fleet.ssh(&["-o", "ConnectTimeout=1", "far", "true"]), None, SOON);
    cut.expect_code(255);
    assert!(started.elapsed() >= Duration::from_secs(1));
    relay.mend();
    run(&mut fleet.ssh(&["far", "true"]), None, SOON).expect_code(0);
    tag.assert_nothing_left(SOON);
}

#[test]
fn servers_that_are_no_sshd_end_ssh_with_255() {
    let name = "servers_that_are_no_sshd_end_ssh_with_255";
    let tag = Tag::new(name);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[]));
    let servers: Vec<_> = [Temper::Silent, Temper::HangsUp, Temper::FalseSsh]
        .map(|temper| (temper.name(), fleet.server(temper.name(), temper).unwrap()))
        .into();
    for (alias, _) in &servers {
        run(&mut fleet.ssh(&["-o", "ConnectTimeout=1", alias, "true"]), None, SOON).expect_code(255);
    }
    tag.assert_nothing_left(SOON);
}

#[test]
fn a_fleet_that_is_dropped_takes_everything_along() {
    let name = "a_fleet_that_is_dropped_takes_everything_along";
    let tag = Tag::new(name);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let mut session = bounded::Gathered::start(&mut fleet.ssh(&["h1", "echo up; setsid sleep 60"]), None);
    assert!(bounded::eventually(SOON, || tag.processes().iter().any(|process| process.comm == "sleep")));
    let all = tag.processes();
    let shared = fleet.shared().to_path_buf();
    drop(fleet);
    assert!(bounded::eventually(SOON, || !session.is_running()));
    assert!(!shared.exists());
    let left = offshoot_tests::tree::survivors(&all, Duration::from_secs(5));
    tag.assert_nothing_left(Duration::from_secs(5));
    assert!(left.is_empty(), "{left:?}");
}
