//! Where the command takes secrets from when a login asks. The login is a stand-in for ssh, found first in `PATH`: it asks on
//! its terminal, keeps what it is told, and refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Runs the command with a shell script for ssh; `{}` in an argument stands for the folder in which `told` will be.
fn offshoot(arguments: &[&str], script: &str, around: &str) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let ssh = folder.path().join("ssh");
    let told = folder.path().join("told");
    fs::write(&ssh, format!("#!/bin/sh\ntold='{}'\n{script}", told.display())).expect("written");
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a path"));
    // A shell around it opens descriptors for it.
    let output = Command::new("sh")
        .args(["-c", around, "sh", env!("CARGO_BIN_EXE_offshoot")])
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("started");
    (output, read(&told))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Asks for a password as ssh does, and refuses it.
const ASKS: &str = "stty -echo </dev/tty\nprintf \"\\rann@web1's password: \" >/dev/tty\nread -r reply </dev/tty\n\
                    echo \"$reply\" >>\"$told\"\nsleep 0.2\necho 'ann@web1: Permission denied (password).' >&2\nexit 255\n";

/// Refuses to ask, as ssh does when it is told to.
const REFUSES: &str =
    "case \"$*\" in *BatchMode=yes*) echo 'ann@web1: Permission denied (password).' >&2; exit 255;; esac\n";

#[test]
fn a_password_comes_from_a_descriptor_or_a_command_and_is_tried_once() {
    for (arguments, around) in [
        (&["exec", "ann@web1", "--password-fd", "7", "--", "true"][..], "exec \"$@\" 7<<'EOF'\nhun ter2\nEOF"),
        // Somebody has read the line before.
        (
            &["exec", "ann@web1", "--password-fd", "7", "--", "true"],
            "f=$(mktemp); printf 'ann\\nhun ter2\\n' >\"$f\"; exec 7<\"$f\"; rm \"$f\"; read -r user <&7; exec \"$@\"",
        ),
        (&["exec", "ann@web1", "--password-command", "echo hun ter2; echo more", "--", "true"], "exec \"$@\""),
    ] {
        let (output, told) = offshoot(arguments, ASKS, around);
        let stderr = text(&output.stderr);
        assert_eq!(told, "hun ter2\n", "{stderr}");
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("the password is wrong"), "{stderr}");
        assert!(!stderr.contains("hun ter2"), "{stderr}");
    }
}

#[test]
fn without_anybody_to_ask_a_login_that_wants_a_password_says_how_to_give_it() {
    let arguments = ["exec", "ann@web1", "--no-ask", "--", "true"];
    let (output, told) = offshoot(&arguments, &format!("{REFUSES}{ASKS}"), "exec \"$@\"");
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), told.as_str()), (Some(125), ""), "{stderr}");
    assert!(stderr.contains("the login wants a password"), "{stderr}");
    for option in ["--password-fd", "--password-command"] {
        assert!(stderr.contains(option), "{stderr}");
    }
}

#[test]
fn a_command_that_fails_and_a_descriptor_that_is_not_open_are_told() {
    let arguments = ["exec", "ann@web1", "--password-command", "exit 3", "--", "true"];
    let (output, told) = offshoot(&arguments, ASKS, "exec \"$@\"");
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), told.as_str()), (Some(125), ""), "{stderr}");
    assert!(stderr.contains("--password-command") && stderr.contains("exit status: 3"), "{stderr}");
    let (output, _) = offshoot(&["exec", "web1", "--password-fd", "77", "--", "true"], ASKS, "exec \"$@\" 77<&-");
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(125) && stderr.contains("descriptor 77 cannot be read"), "{stderr}");
}

#[test]
fn an_account_of_several_targets_is_asked_for_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = folder.path().join("asked");
    let command = format!("echo \"$OFFSHOOT_ASKS $OFFSHOOT_ACCOUNT\" >>'{}'; echo x", asked.display());
    // Two names, behind which ssh finds the same account.
    let arguments = ["exec", "web1,web1.example.org", "--password-command", &command, "--", "true"];
    let (_, told) = offshoot(&arguments, ASKS, "exec \"$@\"");
    assert_eq!(told, "x\nx\n");
    assert_eq!(read(&asked), "password ann@web1\n");
}

#[test]
fn a_command_that_is_asked_for_a_password_ends_with_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ssh, pid) = (folder.path().join("ssh"), folder.path().join("pid"));
    fs::write(&ssh, format!("#!/bin/sh\ntold=/dev/null\n{ASKS}")).expect("written");
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a path"));
    let command = format!("echo $$ >'{0}.new'; mv '{0}.new' '{0}'; sleep 60; true", pid.display());
    let mut run = Command::new(env!("CARGO_BIN_EXE_offshoot"))
        .args(["exec", "dmw@web1", "--password-command", &command, "--", "true"])
        .env("PATH", path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let until = Instant::now() + Duration::from_secs(30);
    while !pid.exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let pid = read(&pid);
    // To the one process: keys reach the command by themselves.
    let signalled = Command::new("kill").args(["-TERM", &run.id().to_string()]).status().expect("started");
    assert!(signalled.success(), "it had ended");
    assert_eq!(run.wait().expect("ended").code(), Some(143));
    assert!(!Path::new("/proc").join(pid.trim()).exists() && !pid.is_empty(), "the command is left");
}
