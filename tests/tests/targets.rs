//! Targets on which something is missing, forbidden or set to an odd value: each connects, or fails in time with an error that says what and what next.

use std::time::Duration;

use offshoot_tests::bounded::{self, Finished};
use offshoot_tests::expect::code;
use offshoot_tests::{Fleet, Peer, Profile, Tag, host, or_not_run};

const GONE: Duration = Duration::from_secs(12);

/// Three times what a connect may take in all.
const PATIENCE: Duration = Duration::from_secs(90);

/// What an error may take that nothing has to be waited for: five seconds, three times.
const SOON: Duration = Duration::from_secs(15);

/// The one error of a run with `--json`, that came soon, without a panic or a crash, and says what to do.
#[track_caller]
fn told(done: &Finished, how: &str, expected: i32) -> serde_json::Value {
    assert!(done.code == Some(expected) && done.elapsed < SOON, "{how}\n{done}");
    let records = done.out();
    let errors: Vec<serde_json::Value> = records
        .lines()
        .map(|line| serde_json::from_str(line).expect("one record a line"))
        .filter(|record: &serde_json::Value| record["type"] == "error")
        .collect();
    let [error] = &errors[..] else { panic!("{how}: one error is expected\n{done}") };
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{how}\n{done}");
    let crashed = done.err().contains("panicked") || error["reason"].to_string().contains("signal");
    assert!(!crashed, "{how}\n{done}");
    done.expect_harmless();
    error.clone()
}

/// Something that tells whether input, output and exit codes pass.
const SCRIPT: &str = "cat; (exit 4); echo $?; exit 3";

/// Runs something that tells whether input, output and exit codes pass.
fn attempt(fleet: &Fleet, tag: &Tag, target: &str) -> Finished {
    fleet.offshoot(tag, &["exec", target, "--", "sh", "-c", SCRIPT]).stdin("through stdin\n").deadline(PATIENCE).run()
}

#[track_caller]
fn works(done: &Finished, target: &str) {
    done.expect_code(3).expect_lines(target, &["through stdin", "4"]);
}

#[test]
fn limits_and_leftovers_of_the_login_are_no_obstacle() {
    let name = "limits_and_leftovers_of_the_login_are_no_obstacle";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("twists");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").twisted(), Peer::new("h2")]));
    let twists = [
        ("nofile", "ulimit -n 32"),
        ("address-space", "ulimit -v 60000"),
        ("stack", "ulimit -s 256"),
        ("core", "ulimit -c unlimited"),
        ("umask", "umask 777"),
        ("no-errors", "exec 2>&-"),
        ("no-children", "trap '' CHLD PIPE HUP TERM INT"),
        ("unset-path", "unset PATH HOME USER SHELL"),
        ("removed-folder", "mkdir /tmp/gone && cd /tmp/gone && rmdir /tmp/gone"),
        ("nice", "renice 19 $$ >/dev/null"),
        ("loud", "seq 9999; printf 'no newline'"),
    ];
    for (target, how) in twists {
        fleet.twist("h1", target, "u-bash", how);
    }
    std::thread::scope(|scope| {
        for half in twists.chunks(twists.len() / 2) {
            let (fleet, tag) = (&fleet, &tag);
            scope.spawn(move || {
                for (target, how) in half {
                    let done = attempt(fleet, tag, target);
                    assert!(done.code == Some(3), "{how}\n{done}");
                    works(&done, target);
                }
            });
        }
    });
    // What an agent inherited so must not show behind it either.
    let done = attempt(&fleet, &tag, "nofile/h2");
    works(&done, "nofile/h2");
    tag.assert_nothing_left(GONE);
}

#[test]
fn limits_that_leave_no_room_are_an_error_that_names_them() {
    let name = "limits_that_leave_no_room_are_an_error_that_names_them";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("limits");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").twisted()]));
    let limits: [(&str, &str, &str, &[&str]); 4] = [
        ("nofile-least", "ulimit -n 8", "connect", &["starting the agent", "such as `ulimit -n`"]),
        ("nproc", "ulimit -u 1", "exhausted", &["out of processes", "cannot fork", "ulimit -u"]),
        (
            "fsize",
            "ulimit -f 0",
            "no-exec",
            &["nothing can be executed", "/dev/shm", "/tmp", "file size limit exceeded"],
        ),
        // Which process is killed for it, the shell or what sshd runs it in, and when, differs.
        ("cpu", "ulimit -t 0", "connect", &["hint"]),
    ];
    let json =
        |target: &str| fleet.offshoot(&tag, &["exec", "--json", target, "--", "sh", "-c", SCRIPT]).stdin("in").run();
    for (target, how, kind, said) in limits {
        fleet.twist("h1", target, "u-bash", how);
        let done = attempt(&fleet, &tag, target);
        assert!(done.code == Some(code::OURS) && done.elapsed < SOON, "{how}\n{done}");
        done.expect_error(code::OURS, said).expect_error(code::OURS, &[target]);
        let done = json(target);
        let error = told(&done, how, code::OURS);
        assert!(error["kind"] == kind && error["target"] == target && error["ran"] == "no", "{how}\n{done}");
        let watched = fleet.host("h1").expect("a host of its own").watched();
        if target == "cpu" {
            // A shell that is killed for its time cannot remove the file that it has just written.
            fleet.on("h1", "rm -f /dev/shm/.o* /tmp/.o* /var/tmp/.o* /home/u-bash/.o* /run/user/*/.o*").expect_code(0);
        }
        assert!(bounded::eventually(GONE, || watched.new_files().is_empty()), "{how}: {:?}", watched.new_files());
    }
    // With a few more an agent starts and a program does not, which is said as what it is; with more all is well. Where that
    // begins depends on what the login leaves open, and on what the agent then does without.
    let mut before = "connect";
    let mut refused = 0;
    for limit in 9..=20 {
        let (target, how) = (format!("nofile-{limit}"), format!("ulimit -n {limit}"));
        fleet.twist("h1", &target, "u-bash", &how);
        let done = json(&target);
        let now = match done.code {
            Some(code::LINK_LOST) => {
                let error = told(&done, &how, code::LINK_LOST);
                let reason = error["reason"].to_string();
                let asked = error["kind"] == "peer-lost" && reason.contains("exited");
                // It may have ended before the program was asked for, and is known not to have run it.
                let gone =
                    error["kind"] == "no-route" && reason.contains("it was alive before") && error["ran"] == "no";
                assert!(asked || gone, "{how}\n{done}");
                "connect"
            }
            Some(code::OURS) => {
                let error = told(&done, &how, code::OURS);
                let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                if error["kind"] == "exhausted" {
                    refused += 1;
                    assert!(error["ran"] == "no" && text("message").contains("cannot run"), "{how}\n{done}");
                    assert!(
                        text("reason").starts_with("out of file descriptors: ") && text("hint").contains("ulimit -n"),
                        "{how}\n{done}"
                    );
                    "exhausted"
                } else {
                    assert!(error["kind"] == "connect" && text("stage") == "starting the agent", "{how}\n{done}");
                    "connect"
                }
            }
            _ => {
                assert!(done.code == Some(3) && !done.out().contains("\"error\""), "{how}\n{done}");
                "well"
            }
        };
        // More of them is never worse.
        let order = ["connect", "exhausted", "well"];
        let rank = |name: &str| order.iter().position(|known| *known == name);
        assert!(rank(now) >= rank(before), "{how}: {now} behind {before}\n{done}");
        before = now;
    }
    assert!(refused > 0 && before != "connect", "{refused} limits left room for an agent alone; the last: {before}");
    fleet.twist("h1", "no-path", "u-bash", "PATH=/nonexistent");
    let done = fleet.offshoot(&tag, &["exec", "no-path", "--", "cat"]).run();
    done.expect_error(code::NOT_FOUND, &["no-path", "path"]);
    fleet.offshoot(&tag, &["exec", "no-path", "--", "/bin/cat"]).run().expect_code(0);
    tag.assert_nothing_left(GONE);
}

#[test]
fn accounts_that_are_over_or_must_change_their_password_are_an_error() {
    let name = "accounts_that_are_over_or_must_change_their_password_are_an_error";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("over");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").profile(Profile::Accounts).sshd("UsePAM yes")]));
    for (account, said) in [
        ("p-stale", "password has expired"),
        ("p-ended", "the account is over"),
        ("p-nologin", "account is currently not available"),
    ] {
        let done = fleet.offshoot(&tag, &["exec", &format!("{account}@h1"), "--", "true"]).run();
        done.expect_error(code::OURS, &[account, said]);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_server_that_takes_one_session_for_a_connection_will_do() {
    let name = "a_server_that_takes_one_session_for_a_connection_will_do";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("sessions");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1").sshd("MaxSessions 1"), Peer::new("h2")]));
    for target in ["h1", "h1/h2", "h2/h1"] {
        works(&attempt(&fleet, &tag, target), target);
    }
    // A user who shares connections: the one that is open has its one session taken.
    let seen = fleet.shared_as_seen().display().to_string();
    let address = fleet.sshd("h1").address().0;
    let socket = "/root/.ssh/shared-%C";
    fleet
        .add_to_config(&format!(
            "Host shared\n  HostName {address}\n  HostKeyAlias h1\n  ControlMaster auto\n  ControlPath {socket}\n  IdentityFile {seen}/id"
        ))
        .unwrap();
    let first = offshoot_tests::bounded::Gathered::start_open(&mut fleet.ssh(&["shared", "echo up; cat"]));
    assert!(offshoot_tests::bounded::eventually(Duration::from_secs(20), || first.stdout_so_far() == b"up\n"));
    works(&attempt(&fleet, &tag, "shared"), "shared");
    offshoot_tests::bounded::run(&mut fleet.ssh(&["-O", "exit", "shared"]), None, Duration::from_secs(20))
        .expect_code(0);
    first.finish(Duration::from_secs(20), || ()).expect_code(255);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_kernel_that_wants_memfds_marked_or_not_executable_will_do() {
    let name = "a_kernel_that_wants_memfds_marked_or_not_executable_will_do";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("memfd");
    let peers = [Peer::new("marked"), Peer::new("forbidden"), Peer::new("bare").profile(Profile::NoInterpreters)];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    for (host, level) in [("marked", "1"), ("forbidden", "2"), ("bare", "2")] {
        let set = fleet.on(host, &format!("echo {level} > /proc/sys/vm/memfd_noexec && cat /proc/sys/vm/memfd_noexec"));
        if set.out().trim() != level {
            tag.assert_nothing_left(GONE);
            offshoot_tests::not_run!(name, format!("vm.memfd_noexec cannot be set in a pid namespace: {}", set.err()));
        }
        works(&attempt(&fleet, &tag, host), host);
        // From there an agent is started by the agent itself.
        let further = format!("{host}/local");
        works(&attempt(&fleet, &tag, &further), &further);
    }
    assert_eq!(
        std::fs::read_to_string("/proc/sys/vm/memfd_noexec").unwrap().trim(),
        "0",
        "the machine itself is changed"
    );
    tag.assert_nothing_left(GONE);
}
