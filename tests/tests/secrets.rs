//! S19: a secret is in no argument list, environment, file, log, error text or core dump, and it stays in no memory that is done with it.

use std::time::Duration;

use offshoot_tests::bounded::{self, Finished, Gathered, find_program};
use offshoot_tests::expect::code;
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::sampler::{self, Sampler};
use offshoot_tests::{Fleet, Peer, Tag, Unavailable, bed, host, not_run, or_not_run, product};

const SOON: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(12);

/// Makes whoever crashes in that host leave a core in its working folder.
fn let_cores_be(fleet: &Fleet, host: &str) -> Result<(), Unavailable> {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || pattern.contains('/') {
        return Err(Unavailable::because(format!("cores go to {} here", pattern.trim())));
    }
    let tried = fleet.on(
        host,
        "cd /tmp && ulimit -c unlimited && { SECRET=in-a-core sh -c 'kill -ABRT $$'; grep -l in-a-core core*; rm -f core*; }",
    );
    if tried.code == Some(0) && tried.out().contains("core") {
        Ok(())
    } else {
        Err(Unavailable::because(format!("a process that crashes leaves no core here: {}", tried.err())))
    }
}

/// The cores that lie in a host.
fn cores(fleet: &Fleet, host: &str) -> Vec<String> {
    let found = fleet.on(host, "ls -d /core* /tmp/core* /root/core* /home/*/core* 2>/dev/null");
    found.out().lines().map(str::to_string).collect()
}

#[test]
fn an_agent_that_crashes_leaves_no_core() {
    let name = "an_agent_that_crashes_leaves_no_core";
    or_not_run!(name, host::allowed());
    let tag = Tag::new("core");
    let peer =
        Peer::new("h1").sshd("ForceCommand ulimit -c unlimited; cd /tmp; exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"");
    let fleet = or_not_run!(name, Fleet::start(&tag, &[peer]));
    if let Err(reason) = let_cores_be(&fleet, "h1") {
        tag.assert_nothing_left(GONE);
        not_run!(name, reason);
    }
    for which in ["agent", "supervisor"] {
        let mut running = fleet.offshoot(&tag, &["exec", "h1", "--", "sh", "-c", "echo up; sleep 60"]).start();
        running.await_output("up", SOON);
        let tree = running.await_agents(1, SOON);
        let victim = if which == "agent" { &tree.agents[0] } else { &tree.supervisors[0] };
        assert!(victim.signal(Signal::ABORT), "{tree}");
        let done = running.finish_within(SOON);
        assert!(!done.overdue && done.code != Some(0), "{done}");
        assert!(bounded::eventually(SOON, || tag.processes().is_empty()));
        assert_eq!(cores(&fleet, "h1"), Vec::<String>::new(), "the {which} has left a core");
    }
    tag.assert_nothing_left(GONE);
}

/// Who of these holds the secret in its memory, and where.
fn memories<'a>(processes: impl IntoIterator<Item = &'a Process>, secret: &str) -> Vec<String> {
    processes
        .into_iter()
        .filter_map(|process| {
            let found = sampler::memory_with(process.pid, secret.as_bytes()).unwrap_or_default();
            (!found.is_empty()).then(|| format!("{process}: {found:?}"))
        })
        .collect()
}

/// The files of a host, and what sudo packs for its log of a session, that hold the text of the file `secret`, or have it in their name. What is mounted there
/// from outside is not the host's own.
fn files_with_the_secret(fleet: &Fleet, host: &str) -> Vec<String> {
    let script = "cd /; set -- run/upper run home root tmp var/tmp dev dev/shm
        find \"$@\" -xdev | grep -aF -f /run/fixture/secret
        find \"$@\" -xdev -type f -exec grep -laF -f /run/fixture/secret {} +
        find run/upper/var/log/sudo-io -xdev -type f 2>/dev/null | while read -r file; do
            zcat -f \"$file\" | grep -qaF -f /run/fixture/secret && echo \"$file\"
        done";
    let found = fleet.on(host, script);
    assert_eq!(found.err(), "", "not all of {host} could be looked at");
    let mut files: Vec<String> = found.out().lines().map(str::to_string).collect();
    files.sort();
    files
}

/// Each way to give a password, and each method that asks for one, side by side: what was said, and what it ended with.
fn every_way_to_give_one(fleet: &Fleet, tag: &Tag) {
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    let mut answers = vec![
        ("p-both@h1", word("h1", "p-both")),
        ("*/id_phrase", bed::passphrase(fleet)),
        ("*sudo-none@h1 -> su:goal", word("h1", "goal")),
        ("p-word@h2", word("h2", "p-word")),
        ("doas-pw@h1", word("h1", "doas-pw")),
    ];
    // One that its tool refuses.
    answers.extend(["sudo-once", "*sudo-none@h1 -> su:root"].map(|account| (account, word("h1", "nobody") + " wrong")));
    answers.extend([("sudo-log", word("h1", "sudo-log"))]);
    bed::answer(fleet, &answers).unwrap();
    std::fs::write(fleet.shared().join("word"), word("h1", "p-word") + "\n").unwrap();
    let given = ["--password-command", bed::ANSWER];
    let run = |words: &[&str], account: &str, expected: i32| {
        let (subcommand, rest) = words.split_first().expect("a subcommand");
        let words = [&[*subcommand], &given[..], rest].concat();
        let done = fleet.offshoot(tag, &words).env("OFFSHOOT_LOG", "trace").run();
        assert!(done.code == Some(expected) && done.out().contains(account), "{words:?}\n{done}");
        done
    };
    let by_command = |words: &[&str], account: &str, expected| keeps_it(fleet, &run(words, account, expected));
    let typed = |target: &str, line: &str, expected: i32| {
        let mut terminal = fleet.offshoot_on_terminal(tag, &["exec", target, "--", "id", "-un"]);
        terminal.await_text("password of ", SOON);
        terminal.await_text(": ", SOON);
        terminal.type_line(line);
        let done = terminal.finish(SOON);
        assert!(done.code == Some(expected) && done.restored_terminal(), "{target}\n{done}");
        keeps_it(fleet, &done);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            by_command(&["doctor", "both"], "greeting the agent", 0);
            by_command(&["exec", "sudo-none@h1/su:goal", "--", "id", "-un"], "goal", 0);
            by_command(&["exec", "sudo-none@h1/su:root", "--", "id", "-un"], "", code::OURS);
            by_command(&["tree", "p-word@h2"], "p-word@h2", 0);
        });
        scope.spawn(|| {
            by_command(&["exec", "sudo-log@h1/sudo:goal", "--", "id", "-un"], "goal", 0);
            by_command(&["exec", "sudo-once@h1/sudo:root", "--", "id", "-un"], "", code::OURS);
            if find_program("doas").is_some() {
                by_command(&["exec", "doas-pw@h1/doas:root", "--", "id", "-un"], "root", 0);
            } else {
                not_run::report("passwords_for_four_hops_leave_no_trace_anywhere::doas", "doas is not installed");
            }
        });
        typed("p-keyboard@h1", &word("h1", "p-keyboard"), 0);
        typed("p-strange@h1", &(word("h1", "p-strange") + " wrong"), code::OURS);
        let offshoot = product::binary().display();
        let script = format!("exec {offshoot} exec --password-fd 3 p-word@h1 -- id -un 3</run/fixture/word");
        let done = bounded::run(fleet.command("sh").args(["-c", &script]).env("OFFSHOOT_LOG", "trace"), None, SOON);
        done.expect_code(0).expect_lines("p-word@h1", &["p-word"]);
        keeps_it(fleet, &done);
    });
}

/// Asserts that the secret is in nothing that a run has said.
#[track_caller]
fn keeps_it(fleet: &Fleet, done: &Finished) {
    let secret = fleet.accounts().secret();
    assert!(!done.err().contains(secret) && !done.out().contains(secret), "{done}");
}

#[test]
fn passwords_for_four_hops_leave_no_trace_anywhere() {
    let name = "passwords_for_four_hops_leave_no_trace_anywhere";
    let tag = Tag::new("traces");
    let fleet = or_not_run!(name, bed::start(&tag));
    let word = |host: &str, account: &str| fleet.accounts().password(host, account);
    bed::answer(
        &fleet,
        &[
            ("p-word@h1", word("h1", "p-word")),
            ("*sudo-pw*", word("h2", "sudo-pw")),
            ("p-noisy@h1", word("h1", "p-noisy")),
        ],
    )
    .unwrap();
    let secret = fleet.accounts().secret();
    let sampler = Sampler::start(secret);
    let hops = ["p-word@h1", "sudo-pw@h2", "sudo:goal", "p-noisy@h1"];
    let mut arguments = vec![bed::ANSWER];
    arguments.extend(hops);
    let until_looked =
        "id -un; n=0; until [ -e /run/fixture/looked ] || [ $((n+=1)) -gt 400 ]; do sleep 0.05; done; exit 3";
    arguments.extend(["--", "sh", "-c", until_looked]);
    let running = fleet.example(&tag, "passwords", &arguments).env("OFFSHOOT_LOG", "trace").start();
    let tree = running.await_agents(4, Duration::from_secs(30));
    // Passwords have crossed the first three agents, whose buffers are not wiped; the rest has never had one.
    let memories = memories(tree.supervisors.iter().chain(&tree.agents[3..]), secret);
    // Nor can an account look into its own agent. The one of p-word is the first.
    let look = fleet.host("h1").map(|h1| {
        let script = "for p in /proc/[0-9]*; do case $(cat $p/comm) in offshoot:*) echo seen; cat $p/environ && echo read; esac; done; cat /proc/$$/environ && echo own";
        bounded::run(h1.command_as("p-word", "sh").args(["-c", script]), None, SOON)
    });
    std::fs::write(fleet.shared().join("looked"), "").unwrap();
    let done = running.finish();
    done.expect_code(3);
    assert_eq!(done.out(), "p-noisy\n");
    assert_eq!(memories, Vec::<String>::new());
    keeps_it(&fleet, &done);
    // The command says all it can, and a second time with a wrong password.
    let target = hops.join("/");
    let exec = ["exec", "--json", "--password-command", bed::ANSWER, &target, "--", "id", "-un"];
    let told = fleet.offshoot(&tag, &exec).env("OFFSHOOT_LOG", "trace").run();
    told.expect_code(0);
    bed::answer(&fleet, &[("*", format!("{secret} is wrong"))]).unwrap();
    let wrong = fleet.offshoot(&tag, &exec).env("OFFSHOOT_LOG", "trace").run();
    wrong.expect_code(code::OURS);
    for done in [&told, &wrong] {
        assert!(!done.stderr.is_empty(), "nothing is logged\n{done}");
        keeps_it(&fleet, done);
    }
    let look = look.expect("the bed has hosts");
    assert!(look.out().contains("seen\n") && look.out().contains("own\n") && !look.out().contains("read\n"), "{look}");
    let asked = ["p-word@h1", "sudo-pw", "p-noisy@h1"];
    assert_eq!(bed::asked(&fleet), [&asked[..], &asked, &asked[..1]].concat());
    every_way_to_give_one(&fleet, &tag);
    let seen = sampler.finish();
    assert_eq!(seen.found.into_iter().collect::<Vec<_>>(), Vec::<String>::new());
    let doas = find_program("doas").map(|_| "doas");
    for expected in ["ssh", "sudo", "su", "passwords", "offshoot"].into_iter().chain(doas) {
        assert!(seen.names.contains(expected), "{expected} was not looked at: {:?}", seen.names);
    }
    assert!(seen.rounds > 20, "{} rounds", seen.rounds);
    assert!(!fleet.logs().contains(secret), "{}", fleet.logs());
    assert!(fleet.on("h1", "cat /home/p-noisy/got").out().lines().all(|line| line == "got:"));
    tag.assert_nothing_left(GONE);
    // The looking finds what is there, and nothing else is.
    std::fs::write(fleet.shared().join("secret"), format!("{secret}\n")).unwrap();
    let plant = "cp /run/fixture/secret /home/goal/planted; cd /var/log/sudo-io; gzip -c /run/fixture/secret >planted";
    fleet.on("h1", plant).expect_code(0);
    let planted = ["home/goal/planted", "run/upper/var/log/sudo-io/planted"];
    assert_eq!(files_with_the_secret(&fleet, "h1"), planted);
    fleet.on("h1", "rm /home/goal/planted /var/log/sudo-io/planted").expect_code(0);
    for host in ["control", "h2"] {
        assert_eq!(files_with_the_secret(&fleet, host), [""; 0], "{host}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_master_that_crashes_leaves_no_core_once_it_knows_a_secret() {
    let name = "a_master_that_crashes_leaves_no_core_once_it_knows_a_secret";
    let tag = Tag::new("master-core");
    let fleet = or_not_run!(name, bed::start(&tag));
    if let Err(reason) = let_cores_be(&fleet, "control") {
        tag.assert_nothing_left(GONE);
        not_run!(name, reason);
    }
    bed::answer(&fleet, &[("p-word@h1", fleet.accounts().password("h1", "p-word"))]).unwrap();
    product::agents();
    let offshoot = product::binary().display();
    // Without a secret there is one: a program that is debugged wants it.
    for (target, expected) in [("root@h1", true), ("p-word@h1", false)] {
        let script = format!(
            "ulimit -c unlimited; cd /tmp; exec {offshoot} exec --password-command {} {target} -- sh -c 'echo up; sleep 60'",
            bed::ANSWER
        );
        let mut running = Gathered::start(fleet.command("sh").args(["-c", &script]), None);
        let up = || running.stdout_so_far().ends_with(b"up\n");
        assert!(bounded::eventually(SOON, up), "{}", running.stderr_so_far().escape_ascii());
        let master = process::descendants(running.pid())
            .into_iter()
            .find(|process| process.cmdline.first().is_some_and(|name| *name == product::binary().to_string_lossy()))
            .expect("the master runs");
        assert!(master.signal(Signal::ABORT));
        assert!(bounded::eventually(SOON, || !running.is_running()));
        let found = cores(&fleet, "control");
        assert_eq!(!found.is_empty(), expected, "{target}: {found:?}");
        fleet.on("control", "rm -f /tmp/core*");
    }
    tag.assert_nothing_left(GONE);
}
