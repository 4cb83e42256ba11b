//! `offshoot doctor`: what it says of a target is true, harmless, and leaves nothing.

use std::time::Duration;

use offshoot_tests::bounded::{Finished, find_program};
use offshoot_tests::expect::code;
use offshoot_tests::servers::Temper;
use offshoot_tests::{Fleet, Offshoot, Peer, Profile, Tag, host, not_run, or_not_run};
use serde_json::Value;

const GONE: Duration = Duration::from_secs(12);

#[track_caller]
fn records(done: &Finished) -> Vec<Value> {
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{done}"));
    done.out().lines().map(read).collect()
}

fn stages(hop: &Value) -> Vec<&str> {
    let stages = hop["stages"].as_array().expect("stages");
    stages.iter().map(|stage| stage["stage"].as_str().expect("a name")).collect()
}

fn times(hop: &Value) -> Vec<f64> {
    let stages = hop["stages"].as_array().expect("stages");
    stages.iter().map(|stage| stage["seconds"].as_f64().unwrap_or_else(|| panic!("no time in {stage}"))).collect()
}

#[test]
fn each_hop_is_told_with_its_stages_and_what_is_there() {
    let tag = Tag::new("doctor");
    let done = Offshoot::new(&tag, &["doctor", "--json", "local/local"]).run();
    done.expect_code(0).expect_harmless();
    let hops = records(&done);
    assert_eq!(hops.len(), 2, "{done}");
    for (hop, path) in hops.iter().zip(["local", "local -> local"]) {
        assert_eq!((&hop["type"], &hop["path"], &hop["reached"]), (&"hop".into(), &path.into(), &true.into()));
        assert_eq!(stages(hop), ["starting the connection tool", "greeting the agent", "first call"]);
        for stage in hop["stages"].as_array().expect("stages") {
            let seconds = stage["seconds"].as_f64().expect("a time");
            assert!(seconds > 0.0 && seconds < 30.0, "{stage}");
        }
        let kernel = std::process::Command::new("uname").arg("-srm").output().expect("uname").stdout;
        assert_eq!(hop["facts"]["kernel"].as_str(), std::str::from_utf8(&kernel).ok().map(str::trim), "{hop}");
        assert!(hop["agent"]["triple"].as_str().is_some_and(|triple| triple.contains("-linux-")), "{hop}");
    }
    let text = Offshoot::new(&tag, &["doctor", "local"]).run();
    text.expect_code(0).expect_harmless();
    for part in ["greeting the agent", "first call", " ms", "account", "system    Linux ", "descriptors", "starts by"] {
        assert!(text.out().contains(part), "{part:?} is missing\n{text}");
    }
    Offshoot::new(&tag, &["doctor", "local,local/local"]).run().expect_error(code::OURS, &["one target at a time"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_login_behind_a_host_is_told_by_that_host_with_all_its_stages() {
    let name = "a_login_behind_a_host_is_told_by_that_host_with_all_its_stages";
    let tag = Tag::new("doctorssh");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let done = fleet.offshoot(&tag, &["doctor", "--json", "h1/h2"]).run();
    done.expect_code(0).expect_harmless();
    let hops = records(&done);
    assert_eq!(hops.iter().map(|hop| hop["hop"].as_str()).collect::<Vec<_>>(), [Some("h1"), Some("h2")]);
    let mut whole = 0.0;
    for hop in &hops {
        let told = stages(hop);
        for stage in ["starting the connection tool", "logging in", "starting the agent", "first call"] {
            assert!(told.contains(&stage), "{stage:?} is missing in {told:?}\n{done}");
        }
        assert!(hop["agent"]["sent"].as_u64().is_some_and(|sent| sent > 10_000), "{hop}");
        assert!(hop["facts"]["image"].as_str().is_some_and(|image| image.contains("memfd")), "{hop}");
        assert!(hop["folders"].as_array().is_some_and(|folders| !folders.is_empty()), "{hop}");
        let seconds = times(hop);
        assert!(seconds.iter().all(|time| *time > 0.0), "{seconds:?} in {hop}");
        whole += seconds.iter().sum::<f64>();
    }
    // One comes after the other.
    assert!(whole < done.elapsed.as_secs_f64(), "{whole} s\n{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn what_a_damaged_target_lacks_is_said_with_what_to_do() {
    let name = "what_a_damaged_target_lacks_is_said_with_what_to_do";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("doctorlacks");
    let peers = [
        Peer::new("noproc").profile(Profile::NoProc),
        Peer::new("nomemfd").profile(Profile::NoMemfd),
        Peer::new("bare").profile(Profile::NoInterpreters),
        Peer::new("nomemfd-bare").profile(Profile::NoMemfd).profile(Profile::NoInterpreters),
        Peer::new("noexec").profile(Profile::ReadOnly).profile(Profile::NoExec),
        Peer::new("full").profile(Profile::FullDisk),
        Peer::new("limited").twisted(),
    ];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    fleet.twist("limited", "few-files", "u-dash", "ulimit -n 64");
    // An account that nothing else runs as: its processes on all of this machine count. It has a few for a question, and none to spare.
    let alone = 100_000 + std::process::id();
    let few = format!(
        "ulimit -u 24; export HOME=/tmp; exec setpriv --reuid {alone} --regid {alone} --clear-groups -- /bin/sh -c \\\"$SSH_ORIGINAL_COMMAND\\\""
    );
    fleet.twist("limited", "few-processes", "root", &few);
    // With perl or python3 a login needs no file, and no place for one.
    let interpreted = find_program("perl").is_some() || find_program("python3").is_some();
    let cases: [(&str, &[&str]); 8] = [
        ("noproc", &["/proc is not mounted"]),
        ("nomemfd", &["files in memory are refused"]),
        ("bare", &["starts by a file in /"]),
        ("nomemfd-bare", &["files in memory are refused", "starts by a file in /"]),
        ("noexec", &["/dev/shm         written, not run", "/tmp             written, not run", "runs from memory"]),
        ("full", &["no space is left in /tmp", "no space is left in /dev/shm", "runs from memory"]),
        ("few-files", &["at most 64 descriptors", "ulimit -Hn"]),
        ("few-processes", &["at most 24 processes of this user", "ulimit -Hu"]),
    ];
    for (target, parts) in cases {
        if ["noexec", "full"].contains(&target) && !interpreted {
            not_run::report(&format!("{name}::{target}"), "neither perl nor python3 is installed");
            continue;
        }
        let done = fleet.offshoot(&tag, &["doctor", target]).run();
        done.expect_code(0).expect_harmless();
        for part in parts {
            assert!(done.out().contains(part), "{part:?} is missing on {target}\n{done}");
        }
        assert!(!done.out().contains("did not answer"), "{target}\n{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_target_where_nothing_starts_is_told_by_its_stage_with_why_and_what_to_do() {
    let name = "a_target_where_nothing_starts_is_told_by_its_stage_with_why_and_what_to_do";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("doctornothing");
    let locked = Peer::new("locked").profile(Profile::NoInterpreters);
    let peers = [locked.profile(Profile::ReadOnly).profile(Profile::NoExec), Peer::new("limited").twisted()];
    let fleet = or_not_run!(name, Fleet::start(&tag, &peers));
    fleet.twist("limited", "no-files", "u-bash", "ulimit -n 8");
    fleet.twist("limited", "no-processes", "u-bash", "ulimit -u 1");
    fleet.twist("limited", "no-room", "u-bash", "ulimit -f 0");
    let cases: [(&str, &[&str]); 4] = [
        ("locked", &["no place can run an agent", "nothing can be executed", "/dev/shm", "/tmp", "Permission denied"]),
        ("no-files", &["status 126", "ulimit -n"]),
        ("no-processes", &["Cannot fork", "ulimit -u"]),
        ("no-room", &["nothing can be executed", "/dev/shm", "/tmp"]),
    ];
    for (target, parts) in cases {
        let done = fleet.offshoot(&tag, &["doctor", target]).run();
        done.expect_code(code::OURS).expect_harmless();
        for part in parts.iter().chain(&["logging in ", "error: ", target, "  hint  "]) {
            assert!(done.out().contains(part), "{part:?} is missing on {target}\n{done}");
        }
        // The stage that failed is the last one.
        let timed = |line: &&str| line.ends_with(" ms") || line.ends_with(" s");
        let out = done.out();
        let stages: Vec<&str> = out.lines().skip(1).take_while(timed).collect();
        assert!(stages.len() >= 2, "a stage has no time: {stages:?}\n{done}");
        let failed = stages.iter().position(|line| line.starts_with("  ✗ ") || line.starts_with("  NO"));
        assert_eq!(failed, Some(stages.len() - 1), "{stages:?}\n{done}");
        assert!(!done.out().contains("panicked"), "{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_shell_opens_behind_hosts_that_have_none_of_ours() {
    let name = "a_shell_opens_behind_hosts_that_have_none_of_ours";
    let tag = Tag::new("shellssh");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let mut terminal =
        fleet.offshoot_on_terminal(&tag, &["shell", "h1/h2", "--", "sh", "-c", "echo ready; exec sh -i"]);
    terminal.await_text("ready", Duration::from_secs(30));
    terminal.type_line("stty size | tr ' ' x; tty | cut -c1-9; exit 6");
    terminal.await_text("24x80", Duration::from_secs(20));
    terminal.await_text("/dev/pts/", Duration::from_secs(20));
    let done = terminal.finish(Duration::from_secs(20));
    done.expect_code(6);
    assert!(done.restored_terminal(), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_target_that_is_not_reached_is_told_by_the_stage_that_failed() {
    let name = "a_target_that_is_not_reached_is_told_by_the_stage_that_failed";
    let tag = Tag::new("doctorno");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1")]));
    let _mute = or_not_run!(name, fleet.server("mute", Temper::Silent));
    let done = fleet.offshoot(&tag, &["doctor", "-t", "3", "mute"]).run();
    done.expect_code(code::OURS).expect_harmless();
    for part in ["starting the connection tool ", "logging in ", "error: ", "  hint  "] {
        assert!(done.out().contains(part), "{part:?} is missing\n{done}");
    }
    let timed = |line: &&str| line.ends_with(" ms") || line.ends_with(" s");
    assert_eq!(done.out().lines().skip(1).take_while(timed).count(), 2, "a stage has no time\n{done}");
    let json = fleet.offshoot(&tag, &["doctor", "--json", "-t", "3", "mute"]).run();
    json.expect_code(code::OURS);
    let all = records(&json);
    assert_eq!((&all[0]["reached"], &all[1]["type"]), (&false.into(), &"error".into()), "{json}");
    assert_eq!(stages(&all[0]), ["starting the connection tool", "logging in"], "{json}");
    // The tool starts at once, and gives up a second before the time that the stage has.
    let seconds = times(&all[0]);
    assert!(seconds[0] < 3.0 && (1.5..30.0).contains(&seconds[1]), "{seconds:?}\n{json}");
    assert_eq!(all[0]["stages"][0]["failed"], false, "{json}");
    assert_eq!(all[0]["stages"][1]["failed"], true, "{json}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_login_that_a_host_is_refused_is_told_by_that_host_with_the_time_of_each_stage() {
    let name = "a_login_that_a_host_is_refused_is_told_by_that_host_with_the_time_of_each_stage";
    let tag = Tag::new("doctorrefused");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), Peer::new("h2")]));
    let done = fleet.offshoot(&tag, &["doctor", "--json", "h1/nosuchuser@h2"]).run();
    done.expect_code(code::OURS);
    let all = records(&done);
    let told: Vec<_> = all.iter().map(|record| (record["type"].as_str(), record["reached"].as_bool())).collect();
    assert_eq!(told, [(Some("hop"), Some(true)), (Some("hop"), Some(false)), (Some("error"), None)], "{done}");
    assert_eq!(stages(&all[1]), ["starting the connection tool", "logging in"], "{done}");
    let seconds = times(&all[1]);
    assert!(seconds.iter().all(|time| *time > 0.0 && *time < 30.0), "{done}");
    assert!(seconds[1] > seconds[0], "a login takes longer than the start of its tool: {seconds:?}\n{done}");
    assert_eq!((&all[1]["stages"][1]["failed"], &all[2]["kind"]), (&true.into(), &"auth".into()), "{done}");
    tag.assert_nothing_left(GONE);
}
