//! Bad input and bad surroundings: a clear error in three parts, the right exit code, and nothing hangs.

use std::time::Duration;

use offshoot_tests::expect::code;
use offshoot_tests::servers::{Server, Temper};
use offshoot_tests::{Finished, Fleet, Offshoot, Peer, Tag, bounded, host, or_not_run, sshd};

const GONE: Duration = Duration::from_secs(6);

/// What an error may take that nothing has to be waited for: five seconds, three times.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_target_that_cannot_be_read_is_named_in_the_error() {
    let tag = Tag::new("syntax");
    for target in [
        "",
        "/",
        "h1//h2",
        "h1/",
        "/h1",
        "user@",
        "h1:notaport",
        "h1:99999",
        "web[01-",
        "web[5-1]",
        "-oProxyCommand=id",
        "nosuchmethod:x",
        "h1/nosuchmethod:x",
        "local:oops:x",
    ] {
        let done = Offshoot::new(&tag, &["exec", "--", target, "true"]).run();
        assert_ne!(done.code, Some(0), "{target:?} was taken\n{done}");
        let done =
            Offshoot::new(&tag, &["exec", "-t", "5", target, "--", "true"]).deadline(Duration::from_secs(20)).run();
        if target.starts_with('-') {
            // Read as an option, as any command line would: it must not become one of ssh's.
            assert!(done.code.is_some_and(|code| code != 0) && !done.out().contains("uid="), "{done}");
        } else {
            done.expect_error(code::OURS, &[]);
            assert!(target.is_empty() || done.err().contains(target), "{target:?} is not named\n{done}");
        }
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn nothing_runs_anywhere_when_one_target_cannot_be_read() {
    let tag = Tag::new("all");
    let done = Offshoot::new(&tag, &["exec", "local,h1//h2", "--", "echo", "ran"]).run();
    done.expect_error(code::OURS, &["h1//h2"]);
    assert!(!done.out().contains("ran"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn wrong_usage_is_code_125_and_help_is_0() {
    let tag = Tag::new("usage");
    for arguments in [
        &["exec", "--no-such-option", "local", "--", "true"][..],
        &["no-such-subcommand"],
        &["exec", "local"],
        &["exec"],
        &["run", "/nonexistent/script", "local"],
        &["exec", "-f", "0", "local", "--", "true"],
        &["exec", "-u", "soon", "local", "--", "true"],
    ] {
        let done = Offshoot::new(&tag, arguments).run();
        done.expect_code(code::OURS).expect_harmless();
        assert!(done.err().contains("error"), "{done}");
    }
    for arguments in [&["--help"][..], &["exec", "--help"], &["--version"]] {
        Offshoot::new(&tag, arguments).run().expect_code(0);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_file_of_hosts_that_is_missing_or_broken_is_an_error() {
    let tag = Tag::new("hostfile");
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, b"local\n# comment\nh1//h2\n\xff\xfe\n").unwrap();
    Offshoot::new(&tag, &["exec", "@/nonexistent/hosts", "--", "true"])
        .run()
        .expect_error(code::OURS, &["/nonexistent/hosts"]);
    Offshoot::new(&tag, &["exec", &format!("@{}", broken.display()), "--", "true"])
        .run()
        .expect_error(code::OURS, &["broken"]);
    let good = folder.path().join("good");
    std::fs::write(&good, "# comment\nlocal\n\nlocal/local\n").unwrap();
    let done = Offshoot::new(&tag, &["exec", &format!("@{}", good.display()), "--", "echo", "ran"]).run();
    done.expect_code(0).expect_lines("local", &["ran"]).expect_lines("local/local", &["ran"]);
    tag.assert_nothing_left(GONE);
}

/// Runs against a port of this machine, with a configuration of its own, and five seconds to connect.
fn against(tag: &Tag, port: u16) -> Finished {
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    let config = folder.path().join("ssh_config");
    let text = format!(
        "Host odd\n  HostName 127.0.0.1\n  Port {port}\nHost *\n  UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  IdentityAgent none\n  IdentityFile /dev/null\n"
    );
    std::fs::write(&config, text).unwrap();
    Offshoot::new(tag, &["exec", "-F", config.to_str().unwrap(), "-t", "5", "odd", "--", "true"])
        .deadline(Duration::from_secs(25))
        .run()
}

#[test]
fn a_name_that_does_not_resolve_is_an_error() {
    let name = "a_name_that_does_not_resolve_is_an_error";
    if bounded::find_program("ssh").is_none() {
        offshoot_tests::not_run!(name, "ssh is not installed");
    }
    let tag = Tag::new("resolve");
    let done = Offshoot::new(&tag, &["exec", "-t", "10", "no-such-host.invalid", "--", "true"])
        .deadline(Duration::from_secs(30))
        .run();
    done.expect_error(code::OURS, &["no-such-host.invalid", "resol"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_closed_port_is_an_error_at_once() {
    let name = "a_closed_port_is_an_error_at_once";
    if bounded::find_program("ssh").is_none() {
        offshoot_tests::not_run!(name, "ssh is not installed");
    }
    let tag = Tag::new("closed");
    let done = against(&tag, sshd::free_port());
    done.expect_error(code::OURS, &["odd", "refused"]);
    assert!(done.elapsed < Duration::from_secs(4), "a refusal was waited for\n{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn servers_that_are_silent_or_talk_garbage_are_errors_within_the_deadline() {
    let name = "servers_that_are_silent_or_talk_garbage_are_errors_within_the_deadline";
    if bounded::find_program("ssh").is_none() {
        offshoot_tests::not_run!(name, "ssh is not installed");
    }
    let tag = Tag::new("garbage");
    for temper in [Temper::Silent, Temper::Garbage, Temper::HangsUp, Temper::FalseSsh] {
        let server = Server::on_machine(temper).unwrap();
        let done = against(&tag, server.port());
        done.expect_error(code::OURS, &["odd"]);
        assert!(done.elapsed < Duration::from_secs(15), "{temper:?} took three times the deadline\n{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn one_bad_host_spoils_nothing_for_the_others() {
    let name = "one_bad_host_spoils_nothing_for_the_others";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("others");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let _silent = fleet.server("silent", Temper::Silent).unwrap();
    let done = fleet
        .offshoot(&tag, &["exec", "-t", "5", "h1,silent,h1/silent,h2", "--", "echo", "ran"])
        .deadline(Duration::from_secs(30))
        .run();
    done.expect_error(code::OURS, &["silent"]);
    done.expect_lines("h1", &["ran"]).expect_lines("h2", &["ran"]);
    tag.assert_nothing_left(Duration::from_secs(12));
}

#[test]
fn a_missing_agent_is_an_error_that_names_the_command_that_builds_it() {
    let name = "a_missing_agent_is_an_error_that_names_the_command_that_builds_it";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("noagent");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    // The build folder is seen under its own path in the host: hide the agents in it there, and run the program from where nothing lies beside it.
    let agents = host::build_folder().with_file_name("agents");
    let elsewhere = fleet.shared().join("offshoot");
    std::fs::copy(offshoot_tests::product::binary(), &elsewhere).unwrap();
    fleet.on("control", &format!("[ ! -d {0} ] || mount -t tmpfs tmpfs {0}", agents.display())).expect_code(0);
    let mut command = fleet.command(fleet.shared_as_seen().join("offshoot"));
    command.args(["exec", "-F"]).arg(fleet.config()).args(["h1", "--", "true"]);
    let done = bounded::Gathered::start(&mut command, None).finish(Duration::from_secs(40), || tag.kill_everything());
    done.expect_error(code::OURS, &["h1", "agent", std::env::consts::ARCH, "cargo xtask agents"]);
    std::fs::remove_file(elsewhere).unwrap();
    tag.assert_nothing_left(GONE);
}

#[test]
fn too_few_descriptors_here_are_an_error_and_not_a_hang() {
    let tag = Tag::new("fewhere");
    let targets: Vec<String> = (1..=24).map(|depth| vec!["local"; depth].join("/")).collect();
    // What 24 contexts on top of each other need is more than the least of these leave room for, and less than the last.
    for (limit, enough) in [("8", false), ("12", false), ("20", false), ("4096", true)] {
        let mut command = tag.command("sh");
        command
            .args(["-c", "ulimit -n $1; shift; exec \"$0\" \"$@\""])
            .arg(offshoot_tests::product::binary())
            .arg(limit);
        command.args(["exec", "-f", "64", &targets.join(","), "--", "true"]);
        let done =
            bounded::Gathered::start(&mut command, None).finish(Duration::from_secs(60), || tag.kill_everything());
        assert!(!done.overdue, "{limit} descriptors: it hangs\n{done}");
        if enough {
            done.expect_code(0);
        } else {
            done.expect_error(code::OURS, &["cannot connect", "out of file descriptors", "ulimit -n"]);
            assert!(done.elapsed < SOON, "{limit} descriptors\n{done}");
        }
    }
    tag.assert_nothing_left(Duration::from_secs(3 * 48));
}

#[test]
fn too_few_descriptors_or_processes_there_are_an_error_and_not_a_hang() {
    let name = "too_few_descriptors_or_processes_there_are_an_error_and_not_a_hang";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("fewthere");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let host = fleet.host("h1").map(|host| host.watched().clone());
    // The least of them end the login or what starts the agent. With a few processes more the command meets the limit itself.
    let limits: [(&str, Option<&[&str]>); 8] = [
        ("-n 4", Some(&["cannot log in", "failed"])),
        ("-n 6", Some(&["cannot start an agent", "starting the agent"])),
        ("-n 10", Some(&["cannot start an agent", "starting the agent"])),
        ("-u 1", Some(&["out of processes", "cannot fork", "ulimit -u"])),
        ("-u 2", Some(&["out of processes", "cannot fork", "ulimit -u"])),
        ("-u 3", None),
        ("-u 4", None),
        ("-u 6", None),
    ];
    for (limit, expected) in limits {
        fleet.on("h1", &format!("echo 'ulimit {limit}' > /home/u-bash/.bashrc")).expect_code(0);
        if let Some(host) = &host {
            host.accept_files();
        }
        let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait; echo ran";
        let done = fleet
            .offshoot(&tag, &["exec", "-t", "10", "u-bash@h1", "--", "sh", "-c", script])
            .deadline(Duration::from_secs(40))
            .run();
        assert!(!done.overdue && done.elapsed < SOON, "ulimit {limit}: it hangs\n{done}");
        done.expect_harmless();
        assert!(!done.out().contains("ran"), "ulimit {limit} was not felt\n{done}");
        if let Some(said) = expected {
            done.expect_error(code::OURS, said).expect_error(code::OURS, &["h1"]);
        } else if done.code == Some(code::OURS) {
            done.expect_error(code::OURS, &["h1", "out of processes", "ulimit -u"]);
        } else {
            // The shell's own word for it, and its exit code.
            assert!(done.code == Some(2) && done.err().contains("Cannot fork"), "ulimit {limit}\n{done}");
        }
    }
    tag.assert_nothing_left(Duration::from_secs(6));
}
