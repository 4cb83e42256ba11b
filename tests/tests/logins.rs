//! Logins as they are: every shell, noise, slow start files, no home; and targets on which little works.

use std::time::Duration;

use offshoot_tests::bounded::find_program;
use offshoot_tests::expect::code;
use offshoot_tests::{Fleet, Peer, Profile, Tag, host, not_run, or_not_run};

const GONE: Duration = Duration::from_secs(12);

/// Runs on `target` and on a host behind it, so that agents that bootstrap agents are met as well.
fn works(fleet: &Fleet, tag: &Tag, target: &str, id: &str) {
    let done =
        fleet.offshoot(tag, &["exec", target, "--", "sh", "-c", "id -un; cat; exit 3"]).stdin("through stdin\n").run();
    done.expect_code(3).expect_lines(target, &[id, "through stdin"]);
}

#[test]
fn every_login_shell_will_do() {
    let name = "every_login_shell_will_do";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("shells");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    for shell in ["bash", "dash", "zsh", "fish", "tcsh", "ash", "ksh", "mksh"] {
        if find_program(if shell == "ash" { "busybox" } else { shell }).is_none() {
            not_run::report(&format!("{name}::{shell}"), "the shell is not installed");
            continue;
        }
        works(&fleet, &tag, &format!("u-{shell}@h1"), &format!("u-{shell}"));
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn noise_from_start_files_is_tolerated() {
    let name = "noise_from_start_files_is_tolerated";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("noisy");
    let fleet =
        or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2").sshd("Banner /run/fixture/banner")]));
    std::fs::write(fleet.shared().join("banner"), "\x1b[31m*** authorised use only ***\x07\nsecond line\n").unwrap();
    for account in ["u-noisy", "u-slow", "u-nohome"] {
        works(&fleet, &tag, &format!("{account}@h1"), account);
    }
    works(&fleet, &tag, "h2", "root");
    works(&fleet, &tag, "u-noisy@h1/h2", "root");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_login_that_runs_something_else_is_an_error_that_shows_what_it_said() {
    let name = "a_login_that_runs_something_else_is_an_error_that_shows_what_it_said";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("forced");
    let peers = [
        Peer::new("h1"),
        Peer::new("forced").sshd("ForceCommand echo forced: only this"),
        Peer::new("hangs").sshd("ForceCommand sleep 10"),
    ];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    fleet.offshoot(&tag, &["exec", "forced", "--", "true"]).run().expect_error(code::OURS, &["forced", "only this"]);
    fleet
        .offshoot(&tag, &["exec", "u-nologin@h1", "--", "true"])
        .run()
        .expect_error(code::OURS, &["h1", "not available"]);
    fleet.offshoot(&tag, &["exec", "u-rbash@h1", "--", "true"]).run().expect_error(code::OURS, &["h1", "restricted"]);
    let hung =
        fleet.offshoot(&tag, &["exec", "-t", "3", "hangs", "--", "true"]).deadline(Duration::from_secs(20)).run();
    hung.expect_error(code::OURS, &["hangs"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_root_of_busybox_alone_is_enough() {
    let name = "a_root_of_busybox_alone_is_enough";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("busybox");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").profile(Profile::Busybox), Peer::new("h2")]));
    works(&fleet, &tag, "busybox@h1", "busybox");
    works(&fleet, &tag, "h2/busybox@h1", "busybox");
    let done = fleet
        .offshoot(
            &tag,
            &[
                "exec",
                "busybox@h1",
                "--",
                "/bin/sh",
                "-c",
                "ls -a / /tmp /home/busybox | grep -i offshoot; ls /proc/self/fd | wc -l",
            ],
        )
        .run();
    done.expect_code(0).expect_lines("busybox@h1", &["4"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_root_of_busybox_alone_that_allows_no_execution_is_a_clear_error() {
    let name = "a_root_of_busybox_alone_that_allows_no_execution_is_a_clear_error";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("noexec");
    let peer = Peer::new("h1").profile(Profile::Busybox).profile(Profile::NoExec).profile(Profile::ReadOnly);
    let fleet = or_not_run!(name, Fleet::start(&tag, &[peer]));
    let done = fleet.offshoot(&tag, &["exec", "busybox@h1", "--", "true"]).run();
    // It lists what was tried.
    done.expect_error(code::OURS, &["h1", "/dev/shm", "/tmp"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_crippled_host_will_do_as_long_as_anything_can_be_executed() {
    let name = "a_crippled_host_will_do_as_long_as_anything_can_be_executed";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("crippled");
    let none = Profile::NoInterpreters;
    let peers = [
        Peer::new("ro").profile(Profile::ReadOnly),
        Peer::new("ro-bare").profile(Profile::ReadOnly).profile(none),
        Peer::new("noexec").profile(Profile::ReadOnly).profile(Profile::NoExec),
        Peer::new("full").profile(Profile::FullDisk),
        Peer::new("noproc").profile(Profile::NoProc),
        Peer::new("noproc-bare").profile(Profile::NoProc).profile(none),
        Peer::new("nomemfd").profile(Profile::NoMemfd),
        Peer::new("nomemfd-bare").profile(Profile::NoMemfd).profile(none),
    ];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    let interpreted = find_program("perl").is_some() || find_program("python3").is_some();
    for peer in ["ro", "ro-bare", "noexec", "full", "noproc", "noproc-bare", "nomemfd", "nomemfd-bare"] {
        if ["noexec", "full"].contains(&peer) && !interpreted {
            not_run::report(&format!("{name}::{peer}"), "neither perl nor python3 is installed");
            continue;
        }
        works(&fleet, &tag, peer, "root");
        // A worker is started from the program's image, which its agent puts somewhere by itself.
        let called = or_not_run!(name, fleet.calls(&tag, &["chain", peer])).run();
        called.expect_code(0);
        let line = format!(" in ssh:{peer} -> worker, after ");
        assert_eq!(called.out().matches(&line).count(), 2, "{called}");
    }
    // As an account that may write less.
    for target in ["u-dash@ro", "u-dash@noproc"] {
        works(&fleet, &tag, target, "u-dash");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_host_where_nothing_can_be_executed_is_an_error_that_lists_what_was_tried() {
    let name = "a_host_where_nothing_can_be_executed_is_an_error_that_lists_what_was_tried";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("locked");
    let locked = |name: &str| Peer::new(name).profile(Profile::NoInterpreters);
    let peers = [
        locked("noexec").profile(Profile::ReadOnly).profile(Profile::NoExec),
        locked("full").profile(Profile::FullDisk),
        // An interpreter is of no use where it gets no file in memory, or none that it may execute.
        Peer::new("refused").profile(Profile::NoMemfd).profile(Profile::ReadOnly).profile(Profile::NoExec),
        Peer::new("forbidden").profile(Profile::ReadOnly).profile(Profile::NoExec),
        Peer::new("h1"),
    ];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    let set = fleet.on("forbidden", "echo 2 >/proc/sys/vm/memfd_noexec && cat /proc/sys/vm/memfd_noexec");
    let mut cases = vec![
        ("noexec", "permission denied"),
        ("full", "/run"),
        ("h1/noexec", "permission denied"),
        ("refused", "permission denied"),
    ];
    if set.out() == "2\n" {
        cases.push(("forbidden", "permission denied"));
    } else {
        not_run::report(&format!("{name}::forbidden"), "vm.memfd_noexec cannot be set in a pid namespace");
    }
    for (target, seen) in cases {
        let done = fleet.offshoot(&tag, &["exec", target, "--", "true"]).run();
        done.expect_error(code::OURS, &[target.rsplit('/').next().unwrap_or(target), "/dev/shm", "/tmp", seen]);
    }
    tag.assert_nothing_left(GONE);
}
