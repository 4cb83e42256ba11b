//! The main job: commands on real sshds, side by side and behind each other.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use offshoot_tests::expect::code;
use offshoot_tests::process::Signal;
use offshoot_tests::{Fleet, Peer, Tag, host, or_not_run};
use sha2::{Digest, Sha256};

/// Three times what is promised for three hops: two seconds, and two for each further hop.
const GONE: Duration = Duration::from_secs(18);

/// Hops beyond the first use the accounts' own ssh configuration there, so most tests need hosts of their own.
fn three() -> [Peer; 3] {
    ["h1", "h2", "h3"].map(Peer::new)
}

#[test]
fn a_command_runs_on_three_hosts_side_by_side() {
    let name = "a_command_runs_on_three_hosts_side_by_side";
    let tag = Tag::new("side");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    let done = fleet.offshoot(&tag, &["exec", "h1,h2,h3", "--", "uname", "-a"]).run();
    done.expect_code(0);
    for host in ["h1", "h2", "h3"] {
        let lines = done.lines_from(host);
        assert!(lines.len() == 1 && lines[0].starts_with("Linux "), "{done}");
        assert!(!fleet.has_hosts() || lines[0].contains(&format!(" {host} ")), "{done}");
    }
    // A node set, several arguments, and the same host twice.
    let done = fleet.offshoot(&tag, &["exec", "h[1-2]", "h3", "h1", "--", "echo", "here"]).run();
    done.expect_code(0);
    for host in ["h1", "h2", "h3"] {
        done.expect_lines(host, &["here"]);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_command_runs_behind_two_hops() {
    let name = "a_command_runs_behind_two_hops";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("hops");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    let done = fleet.offshoot(&tag, &["exec", "h1/h2/h3", "--", "id"]).run();
    done.expect_code(0);
    let expected = fleet.on("h3", "id").out();
    done.expect_lines("h1/h2/h3", &[expected.trim()]);

    // Shared prefixes are connected once: h1 and h1/h2 have an agent each, not two and one.
    let mut running = fleet
        .offshoot(&tag, &["exec", "h1,h1/h2,h1/h2/h3", "--", "sh", "-c", "uname -n; echo up >&2; sleep 600"])
        .start();
    running.await_agents(3, Duration::from_secs(30));
    for host in ["h1", "h2", "h3"] {
        running.await_output(&format!(": {host}\n"), Duration::from_secs(30));
    }
    running.await_agents(3, Duration::ZERO);
    running.master().signal(Signal::INT);
    running.finish_within(Duration::from_secs(21)).expect_code(code::INTERRUPTED);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_exit_code_is_the_commands_own_and_the_largest_of_many() {
    let name = "the_exit_code_is_the_commands_own_and_the_largest_of_many";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("sshcodes");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exec no-such-command-at-all", 127),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        fleet.offshoot(&tag, &["exec", "h1/h2", "--", "sh", "-c", script]).run().expect_code(expected);
    }
    fleet.offshoot(&tag, &["exec", "h1", "--", "no-such-command-at-all"]).run().expect_code(code::NOT_FOUND);
    fleet.offshoot(&tag, &["exec", "h1", "--", "/etc/passwd"]).run().expect_code(code::NOT_EXECUTABLE);
    if fleet.has_hosts() {
        let done =
            fleet.offshoot(&tag, &["exec", "h1,h2,h3", "--", "sh", "-c", "n=$(uname -n); exit $((6 - ${n#h}))"]).run();
        done.expect_code(5);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn arguments_arrive_as_they_are() {
    let name = "arguments_arrive_as_they_are";
    let tag = Tag::new("arguments");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let words = ["", " ", "a b", "it's", "\"quoted\"", "$HOME", "`id`", "*", "\\", "-n", "!x", "ünï", "a;b&c|d", "#"];
    let mut arguments = vec!["exec", "h1", "--", "sh", "-c", "for a; do printf '<%s>\\n' \"$a\"; done", "sh"];
    arguments.extend(words);
    let done = fleet.offshoot(&tag, &arguments).run();
    let expected: Vec<String> = words.iter().map(|word| format!("<{word}>")).collect();
    done.expect_code(0).expect_lines("h1", &expected.iter().map(String::as_str).collect::<Vec<_>>());
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_script_on_stdin_runs_on_every_host() {
    let name = "a_script_on_stdin_runs_on_every_host";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("sshscript");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    let done = fleet
        .offshoot(&tag, &["exec", "h1,h1/h2,h3", "--", "sh"])
        .stdin("set -e\nx=$(cat <<END\nsome text\nEND\n)\necho \"$x\"\nexit 6\n")
        .run();
    done.expect_code(6);
    for target in ["h1", "h1/h2", "h3"] {
        done.expect_lines(target, &["some text"]);
    }
    tag.assert_nothing_left(GONE);
}

/// What does not compress and cannot be produced by accident.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_hundred_mebibytes_go_out_and_in_unchanged() {
    let name = "a_hundred_mebibytes_go_out_and_in_unchanged";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("bulk");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let bytes = noise(100 << 20);
    let expected = hash(&bytes);
    File::create(fleet.shared().join("bulk")).unwrap().write_all(&bytes).unwrap();
    let path = fleet.shared_as_seen().join("bulk");

    let out = fleet
        .offshoot(&tag, &["exec", "--raw", "-n", "h1/h2", "--", "cat", path.to_str().unwrap()])
        .deadline(Duration::from_secs(180))
        .run();
    out.expect_code(0);
    assert_eq!((out.stdout.len(), hash(&out.stdout)), (bytes.len(), expected.clone()), "what came out differs");
    println!("100 MiB out behind two hops: {:?}", out.elapsed);

    let input = fleet
        .offshoot(&tag, &["exec", "h1/h2", "--", "sha256sum"])
        .stdin(bytes)
        .deadline(Duration::from_secs(180))
        .run();
    input.expect_code(0).expect_lines("h1/h2", &[&format!("{expected}  -")]);
    println!("100 MiB in behind two hops: {:?}", input.elapsed);
    fs::remove_file(fleet.shared().join("bulk")).unwrap();
    tag.assert_nothing_left(GONE);
}

#[test]
fn grouped_output_is_not_torn_apart_and_names_everyone() {
    let name = "grouped_output_is_not_torn_apart_and_names_everyone";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("grouped");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    let done =
        fleet.offshoot(&tag, &["exec", "-b", "h1,h2,h1/h3", "--", "sh", "-c", "echo a; sleep 0.2; echo b"]).run();
    done.expect_code(0);
    // All said the same, so once is enough, however it is headed.
    let out = done.out();
    let lines: Vec<&str> = out.lines().filter(|line| ["a", "b"].contains(line)).collect();
    assert!(!lines.is_empty() && lines.chunks(2).all(|pair| pair == ["a", "b"]), "{done}");
    assert!(done.out().contains("h1/h3"), "{done}");
    if fleet.has_hosts() {
        let done = fleet.offshoot(&tag, &["exec", "-b", "h1,h2,h1/h3", "--", "uname", "-n"]).run();
        done.expect_code(0);
        for host in ["h1", "h2", "h3"] {
            assert!(done.out().lines().any(|line| line == host), "{host} did not say its name\n{done}");
        }
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_slow_link_only_makes_things_slower() {
    let name = "a_slow_link_only_makes_things_slower";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("slow");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let _relay = fleet.relay("h1", "far", Duration::from_millis(100)).unwrap();
    let done =
        fleet.offshoot(&tag, &["exec", "far,far/h2", "--", "sh", "-c", "cat; exit 2"]).stdin("over there\n").run();
    done.expect_code(2).expect_lines("far", &["over there"]).expect_lines("far/h2", &["over there"]);
    println!("two hops, the first with a round trip of 200 ms: {:?}", done.elapsed);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_users_own_ssh_configuration_applies_and_cannot_break_the_link() {
    let name = "the_users_own_ssh_configuration_applies_and_cannot_break_the_link";
    let tag = Tag::new("config");
    let fleet = or_not_run!(name, Fleet::start(&tag, &three()));
    // Everything in an ssh_config that gets in the way of a program, on one alias; and a jump host, which must work.
    fleet
        .add_to_config(
            "Host odd\n  HostKeyAlias h1\n  RequestTTY force\n  RemoteCommand echo hijacked\n  PermitLocalCommand yes\n  LocalCommand echo local\n  ForwardAgent yes\n  ForwardX11 yes\n  LocalForward 127.0.0.1:2299 127.0.0.1:22\n  ExitOnForwardFailure yes\n  ControlMaster auto\n  ControlPath /tmp/%C\n  ControlPersist 60\n  LogLevel DEBUG",
        )
        .unwrap();
    let (address, port) = fleet.sshd("h1").address();
    fleet.add_to_config(&format!("Host odd\n  HostName {address}\n  Port {port}")).unwrap();
    let (address, port) = fleet.sshd("h2").address();
    fleet
        .add_to_config(&format!("Host jumped\n  HostName {address}\n  Port {port}\n  HostKeyAlias h2\n  ProxyJump h1"))
        .unwrap();
    let done = fleet.offshoot(&tag, &["exec", "odd,jumped", "--", "sh", "-c", "uname -n; tty; true"]).run();
    done.expect_code(0);
    if fleet.has_hosts() {
        done.expect_lines("odd", &["h1", "not a tty"]).expect_lines("jumped", &["h2", "not a tty"]);
    }
    assert!(!done.out().contains("hijacked"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn host_keys_are_checked() {
    let name = "host_keys_are_checked";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("hostkeys");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let (address, port) = fleet.sshd("h1").address();
    fleet
        .add_to_config(&format!("Host unknown\n  HostName {address}\n  Port {port}\n  HostKeyAlias never-seen"))
        .unwrap();
    // Known under another host's key: changed.
    fleet.add_to_config(&format!("Host changed\n  HostName {address}\n  Port {port}\n  HostKeyAlias h2")).unwrap();
    fleet
        .add_to_config(&format!(
            "Host asks\n  HostName {address}\n  Port {port}\n  HostKeyAlias never-seen\n  StrictHostKeyChecking ask"
        ))
        .unwrap();
    fleet
        .offshoot(&tag, &["exec", "unknown", "--", "echo", "ran"])
        .run()
        .expect_error(code::OURS, &["host key", "unknown"]);
    fleet.offshoot(&tag, &["exec", "asks", "--", "echo", "ran"]).run().expect_error(code::OURS, &["host key"]);
    let changed = fleet.offshoot(&tag, &["exec", "changed", "--", "echo", "ran"]).run();
    changed.expect_error(code::OURS, &["host key", "changed"]);
    assert!(!changed.out().contains("ran"));
    // The same behind a hop says where.
    fleet
        .offshoot(&tag, &["exec", "h2/changed", "--", "echo", "ran"])
        .run()
        .expect_error(code::OURS, &["host key", "h2", "changed"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_login_that_is_refused_says_so_and_where() {
    let name = "a_login_that_is_refused_says_so_and_where";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("refused");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let done = fleet.offshoot(&tag, &["exec", "h1/nobody-here@h2", "--", "true"]).run();
    done.expect_error(code::OURS, &["h1", "h2", "denied"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_password_that_would_be_asked_for_ends_with_an_error() {
    let name = "a_password_that_would_be_asked_for_ends_with_an_error";
    let tag = Tag::new("password");
    let fleet = or_not_run!(
        name,
        Fleet::start(&tag, &[Peer::new("h1").sshd("PasswordAuthentication yes").sshd("PubkeyAuthentication no")])
    );
    let done = fleet.offshoot(&tag, &["exec", "h1", "--", "true"]).run();
    done.expect_error(code::OURS, &["h1", "password"]);
    tag.assert_nothing_left(GONE);
}
