//! Commands on trees of local contexts: nothing but the command itself is needed, neither sshd nor root.

use std::fs;
use std::time::Duration;

use offshoot_tests::bounded::eventually;
use offshoot_tests::expect::code;
use offshoot_tests::process::{self, Process, Signal};
use offshoot_tests::{Offshoot, Tag};

/// Three times the two seconds in which everything must be gone after a normal end; nothing should be left then at all.
const GONE: Duration = Duration::from_secs(6);

#[test]
fn a_command_runs_on_every_level_of_a_tree_and_each_line_says_from_where() {
    let tag = Tag::new("levels");
    let done =
        Offshoot::new(&tag, &["exec", "local,local/local,local/local/local", "--", "sh", "-c", "echo one; echo two"])
            .run();
    done.expect_code(0);
    for target in ["local", "local/local", "local/local/local"] {
        done.expect_lines(target, &["one", "two"]);
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_exit_code_is_the_commands_own() {
    let tag = Tag::new("codes");
    for (script, expected) in
        [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    {
        let done = Offshoot::new(&tag, &["exec", "local/local", "--", "sh", "-c", script]).run();
        done.expect_code(expected);
    }
    let missing = Offshoot::new(&tag, &["exec", "local", "--", "offshoot-tests-no-such-command"]).run();
    missing.expect_code(code::NOT_FOUND);
    assert!(missing.err().contains("offshoot-tests-no-such-command"), "{missing}");
    let folder = Offshoot::new(&tag, &["exec", "local", "--", "/etc/passwd"]).run();
    folder.expect_code(code::NOT_EXECUTABLE);
    tag.assert_nothing_left(GONE);
}

#[test]
fn output_and_errors_stay_apart_and_the_last_line_needs_no_newline() {
    let tag = Tag::new("apart");
    let done =
        Offshoot::new(&tag, &["exec", "local/local", "--", "sh", "-c", "echo out; echo err >&2; printf unfinished"])
            .run();
    done.expect_code(0).expect_lines("local/local", &["out", "unfinished"]);
    assert!(done.err().contains("err") && !done.out().contains("err\n"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn output_is_live() {
    let tag = Tag::new("live");
    let mut running =
        Offshoot::new(&tag, &["exec", "local/local", "--", "sh", "-c", "echo first; sleep 20; echo second"]).start();
    running.await_output("first", Duration::from_secs(15));
    assert!(running.is_running());
    running.master().signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(21));
    done.expect_code(code::INTERRUPTED);
    assert!(!done.out().contains("second"), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn stdin_reaches_every_target_unless_it_is_refused() {
    let tag = Tag::new("stdin");
    let both = Offshoot::new(&tag, &["exec", "local,local/local", "--", "cat"]).stdin("alpha\nbeta\n").run();
    both.expect_code(0).expect_lines("local", &["alpha", "beta"]).expect_lines("local/local", &["alpha", "beta"]);
    let script =
        Offshoot::new(&tag, &["exec", "local/local", "--", "sh"]).stdin("x=5\necho $((x + 1))\nexit 4\n").run();
    script.expect_code(4).expect_lines("local/local", &["6"]);
    let refused = Offshoot::new(&tag, &["exec", "-n", "local", "--", "cat"]).stdin("alpha\n").run();
    refused.expect_code(0).expect_lines("local", &[]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_local_script_runs_there_without_being_copied() {
    let tag = Tag::new("script");
    let folder = tempfile::Builder::new().prefix("peers-").tempdir().unwrap();
    let script = folder.path().join("script.sh");
    fs::write(&script, "#!/bin/sh\n# not seen by anyone\necho \"it's $((40 + 2))\"\nexit 5\n").unwrap();
    let done = Offshoot::new(&tag, &["run", script.to_str().unwrap(), "local,local/local"]).run();
    done.expect_code(5).expect_lines("local", &["it's 42"]).expect_lines("local/local", &["it's 42"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_timeout_ends_the_command_and_everything_it_started() {
    let tag = Tag::new("timeout");
    let done =
        Offshoot::new(&tag, &["exec", "-u", "1", "local/local", "--", "sh", "-c", "setsid sleep 600 & sleep 601"])
            .deadline(Duration::from_secs(24))
            .run();
    done.expect_code(code::TIMEOUT);
    assert!(done.elapsed >= Duration::from_secs(1), "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn ctrl_c_shuts_the_tree_down_within_its_promise() {
    let tag = Tag::new("ctrlc");
    let mut running = Offshoot::new(
        &tag,
        &["exec", "local/local/local", "--", "sh", "-c", "trap '' INT TERM; echo up; sleep 600; sleep 600"],
    )
    .start();
    running.await_output("up", Duration::from_secs(15));
    running.master().signal(Signal::INT);
    // The promise is seven seconds.
    let done = running.finish_within(Duration::from_secs(21));
    done.expect_code(code::INTERRUPTED);
    tag.assert_nothing_left(GONE);
}

/// What is to be told of it is told only if that can be done at once.
#[test]
fn a_signal_ends_a_command_though_nobody_reads_what_it_says() {
    let tag = Tag::new("unread");
    let script = "folder=$(mktemp -d); mkfifo $folder/unread; exec 3<>$folder/unread; rm -r $folder
        \"$0\" exec local -- yes >&3 2>&1 3>&- & sleep 2; kill -TERM $!; wait $!; echo \"ended with $?\"";
    let mut command = tag.command("sh");
    command.args(["-c", script]).arg(offshoot_tests::product::binary());
    let done = offshoot_tests::bounded::Gathered::start(&mut command, None)
        .finish(Duration::from_secs(2 + 21), || tag.kill_everything());
    assert_eq!(done.out(), "ended with 143\n", "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let tag = Tag::new("ctrlc2");
    let mut running = Offshoot::new(
        &tag,
        &["exec", "local/local", "--", "sh", "-c", "trap '' INT TERM; echo up; sleep 600; sleep 600"],
    )
    .start();
    running.await_output("up", Duration::from_secs(15));
    let master = running.master();
    master.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    master.signal(Signal::INT);
    let done = running.finish_within(Duration::from_secs(3));
    assert!(!done.overdue, "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn s15_s22_a_command_sees_exactly_three_descriptors_and_default_signals() {
    let tag = Tag::new("clean");
    // One more descriptor and an ignored SIGPIPE, which must reach neither agents nor commands. grep looks at itself: a
    // shell has all signals blocked for a moment while it starts something.
    let mut command = tag.command("sh");
    let script = "trap '' PIPE USR1; exec 9</etc/passwd; exec \"$0\" exec local/local -- sh -c 'ls /proc/$$/fd; grep -E \"Sig(Ign|Blk)\" /proc/self/status; umask; pwd; echo up; sleep 3'";
    command.args(["-c", script]).arg(offshoot_tests::product::binary());
    let running = offshoot_tests::bounded::Gathered::start(&mut command, None);
    assert!(
        eventually(Duration::from_secs(15), || String::from_utf8_lossy(&running.stdout_so_far()).contains(": up")),
        "{}",
        running.stderr_so_far().escape_ascii()
    );
    let tree = offshoot_tests::Tree::of(&tag);
    assert_eq!((tree.agents.len(), tree.supervisors.len()), (2, 2), "{tree}");
    for process in tree.guards() {
        let open = process.descriptors();
        assert!(
            !open.iter().any(|(_, what)| what == "/etc/passwd"),
            "{process} has inherited a file of ours: {open:?}"
        );
    }
    let done = running.finish(Duration::from_secs(30), || tag.kill_everything());
    done.expect_code(0);
    let lines = done.lines_from("local/local");
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".into());
    let umask = std::process::Command::new("sh").args(["-c", "umask"]).output().unwrap();
    let umask = String::from_utf8(umask.stdout).unwrap();
    assert_eq!(
        lines,
        ["0", "1", "2", "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", umask.trim(), &home, "up"],
        "{done}"
    );
    tag.assert_nothing_left(GONE);
}

#[test]
fn orphans_of_a_command_are_reaped_while_the_tree_lives() {
    let tag = Tag::new("orphans");
    let script = "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'sleep 0.1' &); done; echo up; sleep 600";
    let mut running = Offshoot::new(&tag, &["exec", "local/local", "--", "sh", "-c", script]).start();
    running.await_output("up", Duration::from_secs(15));
    let guards: Vec<i32> = running.tree().guards().map(|process| process.pid).collect();
    assert!(!guards.is_empty());
    let zombies = || {
        process::all()
            .into_iter()
            .filter(|process| !process.is_live() && guards.contains(&process.parent))
            .collect::<Vec<Process>>()
    };
    std::thread::sleep(Duration::from_millis(500));
    assert!(eventually(Duration::from_secs(3), || zombies().is_empty()), "{:?}", zombies());
    running.master().signal(Signal::INT);
    running.finish_within(Duration::from_secs(21)).expect_code(code::INTERRUPTED);
    tag.assert_nothing_left(GONE);
}

#[test]
fn the_tree_is_drawn_with_every_context_once() {
    let tag = Tag::new("draw");
    let done = Offshoot::new(&tag, &["tree", "local/local/local"]).run();
    done.expect_code(0).expect_harmless();
    // Three contexts, besides the line of the master.
    assert_eq!(done.out().matches("local").count(), 3, "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn json_is_one_object_a_line_and_tells_output_and_exit_code() {
    let tag = Tag::new("json");
    let done =
        Offshoot::new(&tag, &["exec", "--json", "local,local/local", "--", "sh", "-c", "echo 'some text'; exit 3"])
            .run();
    done.expect_code(3).expect_harmless();
    let records: Vec<serde_json::Value> = done
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}\n{done}")))
        .collect();
    assert!(records.iter().all(serde_json::Value::is_object), "{done}");
    for target in ["local", "local/local"] {
        let of_target: Vec<_> =
            records.iter().filter(|record| record.to_string().contains(&format!("\"{target}\""))).collect();
        assert!(
            of_target.iter().any(|record| record.to_string().contains("some text")),
            "no output of {target}\n{done}"
        );
        let has_code = |record: &&serde_json::Value| {
            record.as_object().is_some_and(|fields| fields.values().any(|value| value.as_i64() == Some(3)))
        };
        assert!(of_target.iter().any(has_code), "no exit code of {target}\n{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn thirty_two_hops_work() {
    let tag = Tag::new("deep");
    let target = vec!["local"; 32].join("/");
    let done = Offshoot::new(&tag, &["exec", &target, "--", "sh", "-c", "echo deep; exit 9"]).run();
    done.expect_code(9).expect_lines(&target, &["deep"]);
    tag.assert_nothing_left(Duration::from_secs(3 * (2 + 2 * 31)));
}

#[test]
fn a_flood_that_nobody_reads_stalls_the_producer_and_ends_with_the_reader() {
    let tag = Tag::new("flood");
    // The reader takes a little and then goes away, as `head` does: the command must end, with all below it.
    let mut command = tag.command("sh");
    command
        .args(["-c", "\"$0\" exec --raw local/local -- yes | head -c 100000 | wc -c"])
        .arg(offshoot_tests::product::binary());
    let done = offshoot_tests::bounded::Gathered::start(&mut command, None)
        .finish(Duration::from_secs(30), || tag.kill_everything());
    assert!(!done.overdue, "{done}");
    assert_eq!(done.out().trim(), "100000", "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn gathered_output_that_finds_no_place_is_an_error_that_says_where() {
    let tag = Tag::new("noplace");
    let script = "head -c 3000000 /dev/zero | tr '\\0' x; sleep 600";
    let command = Offshoot::new(&tag, &["exec", "-b", "local/local", "--", "sh", "-c", script]);
    let done = command.env("TMPDIR", "/nonexistent").run();
    done.expect_error(code::OURS, &["gathered", "/nonexistent", "TMPDIR"]);
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_command_that_is_fed_and_does_not_read_ends_with_the_reader_of_its_output() {
    let tag = Tag::new("fedflood");
    let mut command = tag.command("sh");
    let script =
        "yes | \"$0\" exec --raw local/local -- sh -c 'while echo up; do sleep 1; done; sleep 100' | head -n 1";
    command.args(["-c", script]).arg(offshoot_tests::product::binary());
    let done = offshoot_tests::bounded::Gathered::start(&mut command, None)
        .finish(Duration::from_secs(30), || tag.kill_everything());
    assert!(!done.overdue, "{done}");
    assert_eq!(done.out(), "up\n", "{done}");
    tag.assert_nothing_left(GONE);
}

#[test]
fn behind_the_password_a_descriptor_goes_on_where_it_was() {
    let tag = Tag::new("pwrest");
    // A pipe, and a file, which could be read from its beginning as well.
    for input in ["printf 'word\\nrest\\n' |", "exec <\"$file\";"] {
        let script = format!(
            "file=$(mktemp); printf 'word\\nrest\\n' >\"$file\"; {input} \"$0\" exec --password-fd 0 local -- cat; rm \"$file\""
        );
        let mut command = tag.command("sh");
        command.args(["-c", &script]).arg(offshoot_tests::product::binary());
        let done = offshoot_tests::bounded::Gathered::start(&mut command, None)
            .finish(Duration::from_secs(30), || tag.kill_everything());
        assert_eq!(done.out(), "local: rest\n", "{input}\n{done}");
    }
    tag.assert_nothing_left(GONE);
}

#[test]
fn a_password_from_a_descriptor_is_read_once() {
    let tag = Tag::new("pwfd");
    for flag in ["-n", "-T"] {
        // Whoever reads on, behind the line, waits for the one who holds the other end.
        let script = "exec 3< <(echo word; exec sleep 60); writer=$!; \
                      \"$0\" exec \"$1\" --password-fd 3 local -- echo up; kill $writer";
        let mut command = tag.command("bash");
        command.args(["-c", script]).arg(offshoot_tests::product::binary()).arg(flag);
        let done = offshoot_tests::bounded::Gathered::start(&mut command, None)
            .finish(Duration::from_secs(30), || tag.kill_everything());
        assert!(!done.overdue && done.out().contains("up"), "{done}");
    }
    tag.assert_nothing_left(GONE);
}
