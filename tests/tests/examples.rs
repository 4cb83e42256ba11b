//! The examples, as their first lines say to run them: on this machine, without any server; and one on hosts, as its are meant to be.

use std::time::Duration;

use offshoot_build::toolchain::Found;
use offshoot_build::triples::Triple;
use offshoot_tests::bounded::{self, Finished, find_program};
use offshoot_tests::{Fleet, Peer, Tag, bed, host, not_run, or_not_run, product};

/// Three times the two seconds in which everything must be gone after a normal end.
const GONE: Duration = Duration::from_secs(6);

/// The same with hosts, a second each for their shells.
const GONE_ON_HOSTS: Duration = Duration::from_secs(12);

/// Runs an example in an empty folder.
fn run(tag: &Tag, name: &str, arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = tag.command(product::example(name));
    command.args(arguments).current_dir(folder.path());
    let done = bounded::run(&mut command, None, Duration::from_secs(120));
    done.expect_code(0);
    done
}

#[test]
fn install_app_puts_the_application_into_a_folder_and_runs_it_there() {
    let tag = Tag::new("install");
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("deep/er");
    let done = run(&tag, "install_app", &[&into.display().to_string(), "local", "local/local"]);
    for host in ["local", "local/local"] {
        let line = format!("{host}: the application runs as ");
        assert_eq!(done.out().lines().filter(|l| l.starts_with(&line)).count(), 2, "{done}");
    }
    assert!(done.out().contains(&format!(" in {} (first call", into.display())), "{done}");
    let files: Vec<_> = std::fs::read_dir(into.join("bin")).expect("the folder").flatten().collect();
    assert_eq!(files.len(), 1, "nothing but the application: {files:?}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn disk_usage_sums_what_every_context_found_and_tells_the_errors_of_the_others() {
    let tag = Tag::new("usage");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("sub")).expect("a folder");
    for (name, bytes) in [("one", 1_000), ("sub/two", 234)] {
        std::fs::write(folder.path().join(name), vec![b'x'; bytes]).expect("a file");
    }
    let place = folder.path().display().to_string();
    let hosts = ["local", "local/local", "local/local/local"];
    let done = run(&tag, "disk_usage", &[&[place.as_str()], &hosts[..]].concat());
    for host in hosts {
        let line = format!("{host}: 1234 bytes in 2 files of {place} ({})", std::env::consts::ARCH);
        assert_eq!(done.out().lines().filter(|l| *l == line).count(), 2, "{done}");
    }
    assert!(done.out().contains("total: 3702 bytes of 3 folders (second round"), "{done}");
    assert_eq!(done.out().matches("link to local").count(), 3, "{done}");
    let done = run(&tag, "disk_usage", &["/does/not/exist", "local"]);
    assert!(done.out().contains("local: /does/not/exist: No such file or directory"), "{done}");
    assert!(done.out().contains("total: 0 bytes of 1 folders"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn disk_usage_alone_asks_three_contexts_for_a_folder_each() {
    let tag = Tag::new("alone");
    let done = run(&tag, "disk_usage", &[]);
    let out = done.out();
    let lines: Vec<&str> = out.lines().collect();
    let rounds: Vec<&[&str]> = lines.split(|line| line.starts_with("total: ")).take(2).collect();
    for round in rounds {
        let told = round.iter().filter_map(|line| line.split_once(" files of ")?.1.split_once(' '));
        let mut folders: Vec<&str> = told.map(|(folder, _)| folder).collect();
        folders.sort_unstable();
        assert_eq!(folders, ["/etc", "/usr/bin", "/usr/share"], "{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn billing_runs_at_the_end_of_a_chain_of_contexts() {
    let tag = Tag::new("billing");
    let done = run(&tag, "billing", &[]);
    assert!(done.out().contains("3 customers, 4590 in all, billed by "), "{done}");
    assert!(done.out().trim_end().ends_with("local -> local -> local -> local -> worker"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn billing_runs_behind_two_logins_and_sudo_at_the_end_of_whatever_way_is_there() {
    let name = "billing_runs_behind_two_logins_and_sudo_at_the_end_of_whatever_way_is_there";
    or_not_run!(name, host::allowed());
    let own = Triple::of_this_machine().expect("this machine is known");
    if Found::look(own).expect("a compiler").best_for_images().is_none() {
        not_run!(name, format!("no image can be built for {}; `cargo offshoot triples` says why", own.name));
    }
    let tag = Tag::new("bills");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[Peer::new("h1"), bed::peer("h2")]));
    let file = product::one_file("billing", &[]);
    // Root is not asked for a password; the last one is a login from the account that sudo led to.
    let mut ends = vec![("su:goal", "goal"), ("sudo:goal", "goal"), ("local", "root"), ("h1", "root")];
    if find_program("doas").is_some() {
        // By the rules of the host.
        fleet.on("h2", "echo 'permit nopass root as goal' >>/etc/doas.conf").expect_code(0);
        fleet.host("h2").expect("a host").watched().accept_files();
        ends.push(("doas:goal", "goal"));
    }
    for (end, user) in ends {
        let hops = ["h1", "sudo-nopass@h2", "sudo:root", end];
        let done = fleet.one_file(&tag, &file, &hops).expect("a copy").run();
        done.expect_code(0);
        let last = if end == "h1" { "ssh:h1" } else { end };
        let way = ["ssh:h1", "ssh:sudo-nopass@h2", "sudo:root", last];
        let mut expected: Vec<String> =
            (1..=way.len()).map(|hops| format!("at {}", way[..hops].join(" -> "))).collect();
        expected.push(format!("3 customers, 4590 in all, billed by {user} on {} -> worker", way.join(" -> ")));
        assert_eq!(done.out().lines().collect::<Vec<_>>(), expected, "{done}");
    }
    // What stands in the way is told, with the way: sudo lets this account do nothing.
    let done = fleet.one_file(&tag, &file, &["h1", "sudo-none@h2", "sudo:root", "local"]).expect("a copy").run();
    assert!(done.code != Some(0) && done.err().contains("sudo:root") && !done.out().contains("billed"), "{done}");
    std::fs::remove_file(file).expect("removed");
    tag.assert_nothing_left(GONE_ON_HOSTS);
}

#[test]
fn ping_pong_throws_the_ball_from_one_to_the_other() {
    let tag = Tag::new("ball");
    let done = run(&tag, "ping_pong", &["200"]);
    assert!(done.out().starts_with("202 throws, "), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn select_loop_asks_again_whoever_has_answered() {
    let tag = Tag::new("select");
    let done = run(&tag, "select_loop", &["2"]);
    let counts: Vec<u32> = done
        .out()
        .lines()
        .filter_map(|line| line.strip_prefix("local: ")?.split_once(" answers")?.0.parse().ok())
        .collect();
    // The first one answers three times as often as the last; asked one after the other, all would be alike.
    assert!(counts.len() == 3 && counts[2] > 1 && counts[0] > counts[2], "{counts:?}\n{done}");
    assert!(done.out().contains("; 3 calls are dropped"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_basics_are_what_they_say() {
    let tag = Tag::new("basics");
    let done = run(&tag, "the_basics", &[]);
    for part in ["hello from process ", "its own error, as it travels", "attempt to divide by zero", "it goes on: 25"] {
        assert!(done.out().contains(part), "{part:?} is missing\n{done}");
    }
    tag.assert_nothing_left(GONE);
}
