//! The command as a user meets it: the binary is run, with targets on this machine alone.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn offshoot(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(arguments)
        .env_remove("OFFSHOOT_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    // A command that does not read its stdin may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(stdin);
    child.wait_with_output().expect("ended")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn check(arguments: &[&str], code: i32, out: &str, err: &str) {
    let output = offshoot(arguments, b"");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stdout}\n{stderr}");
    assert!(stdout.contains(out), "{arguments:?}: expected {out:?} on stdout, got {stdout:?}");
    assert!(stderr.contains(err), "{arguments:?}: expected {err:?} on stderr, got {stderr:?}");
}

#[test]
fn help_and_version_are_no_failures() {
    check(&["--help"], 0, "A TARGET is a path of hops", "");
    check(&["exec", "--help"], 0, "Usage: offshoot exec [OPTIONS] TARGET... -- CMD [ARG]...", "");
    check(&["run", "--help"], 0, "SCRIPT TARGET...", "");
    check(&["tree", "--help"], 0, "--fanout", "");
    check(&["--version"], 0, env!("CARGO_PKG_VERSION"), "");
    check(&["completions", "bash"], 0, "_offshoot", "");
    check(&["man"], 0, ".TH offshoot", "");
    check(&["man", "exec"], 0, ".TH offshoot-exec", "");
    check(&["man", "exec"], 0, "fanout", "");
    check(&["man", "no-such-command"], 125, "", "no command `no-such-command`");
}

#[test]
fn wrong_usage_is_ours_and_nothing_runs() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["exec"],
        &["exec", "local"],
        &["exec", "--", "true"],
        &["exec", "local", "-f", "0", "--", "true"],
        &["exec", "local", "-t", "0", "--", "true"],
        &["exec", "local", "-u", "soon", "--", "true"],
        &["exec", "local", "-b", "--json", "--", "true"],
        &["exec", "local", "--agents", "/does/not/exist", "--", "true"],
        &["exec", "local", "-F", "/does/not/exist", "--", "true"],
        &["exec", "local", "--", ""],
        &["run", "/does/not/exist", "local"],
    ] {
        let output = offshoot(arguments, b"");
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    check(&["exec", "local", "uptime"], 125, "", "tip: the command comes behind `--`");
}

#[test]
fn bad_targets_are_named_with_a_hint() {
    for (target, part) in [
        ("web[3-1]", "the range 3-1 runs backwards"),
        ("web[1-999999]", "more than 100000 names"),
        ("a//b", "hop 2"),
        ("docker:db", "method docker is not available"),
        ("@/does/not/exist", "cannot open the list"),
    ] {
        check(&["exec", target, "--", "true"], 125, "", part);
        check(&["exec", target, "--", "true"], 125, "", "\n  hint      ");
    }
    check(&["exec", "local", "-x", "local", "--", "true"], 125, "", "no target is left");
}

#[test]
fn a_command_runs_with_its_own_exit_code_and_every_form_of_output() {
    let script = "echo out; echo err >&2; exit 3";
    check(&["exec", "local", "--", "sh", "-c", script], 3, "local: out\n", "local: err\n");
    check(&["exec", "local", "--raw", "--", "sh", "-c", script], 3, "out\n", "err\n");
    check(&["exec", "local,local/local", "-b", "--", "echo", "x"], 0, "\nlocal,local/local (2)\n", "");
    check(
        &["exec", "local", "--json", "--", "sh", "-c", script],
        3,
        r#""type":"exit","target":"local","status":3"#,
        "",
    );
    check(&["exec", "local", "--color", "always", "--", "echo", "x"], 0, "\u{1b}[36mlocal:\u{1b}[0m x\n", "");
    check(
        &["exec", "local", "--", "offshoot-no-such-command"],
        127,
        "",
        "cannot run `offshoot-no-such-command` on local",
    );
    check(&["exec", "local", "--", "sh", "-c", "kill -9 $$"], 137, "", "");
    check(&["exec", "local", "-u", "100ms", "--", "sleep", "60"], 124, "", "");
}

#[test]
fn stdin_is_the_commands_unless_it_has_the_targets() {
    let output = offshoot(&["exec", "local,local/local", "--", "wc", "-c"], &[b'x'; 100_000]);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["local/local: 100000", "local: 100000"]);
    let output = offshoot(&["exec", "-", "--", "wc", "-c"], b"# here\nlocal\n");
    assert_eq!(text(&output.stdout), "local: 0\n");
    let output = offshoot(&["run", "-", "local", "--", "arg"], b"echo \"$0 $1\"; exit 5");
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("local: stdin arg\n", Some(5)));
}

#[test]
fn an_output_that_cannot_be_written_is_an_error_and_a_reader_that_left_is_not() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opened");
    let output = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["exec", "local", "-n", "--", "echo", "x"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("ended");
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("cannot write the output: No space left"), "{}", text(&output.stderr));

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["exec", "local", "-n", "--", "yes"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("ended");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));
}
