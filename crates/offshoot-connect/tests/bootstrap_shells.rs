//! The bootstrap in real shells: each as a login shell and as the target's `sh`, on each rung of the ladder.
//!
//! Interpreters are hidden from the ladder in a mount namespace of the test's own, which takes root; without it those
//! rows are printed as not run, as are shells that are not installed.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod bootstrap_peer;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use bootstrap_peer::{Agent, bundle, left_behind, nonce_text, options, run, run_until_echo, scratch};
use offshoot_connect::bootstrap::{Bootstrap, BootstrapError, ErrorKind, Event, Hold, Near, Options};
use offshoot_mux::{image, tree};
use tempfile::TempDir;

/// What is hidden so that only this way is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    Perl,
    Python,
    File,
}

const RUNGS: [Rung; 3] = [Rung::Perl, Rung::Python, Rung::File];

impl Rung {
    fn hidden(self) -> &'static str {
        match self {
            Rung::Perl => "",
            Rung::Python => "mount --bind /dev/null /usr/bin/perl;",
            Rung::File => {
                "mount --bind /dev/null /usr/bin/perl;mount --bind /dev/null $(readlink -f /usr/bin/python3);"
            }
        }
    }
}

/// Whether a mount namespace can be had.
fn can_hide() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let status = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    })
}

/// A shell, and the folder that is only for it.
struct Shell {
    path: PathBuf,
    _folder: Option<TempDir>,
}

/// A shell by the name that it is called by; busybox is a shell when it is called ash. The link to it does not lie with
/// what is built: a shell that a target is told to use has no spaces in its path, as the user's folders may.
fn shell(name: &str) -> Option<Shell> {
    let find = |name: &str| {
        ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|path| path.exists())
    };
    if name != "ash" {
        return Some(Shell { path: find(name)?, _folder: None });
    }
    let busybox = find("busybox")?;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    symlink(busybox, &path).unwrap();
    Some(Shell { path, _folder: Some(folder) })
}

/// Gives `command_line` to the login shell `login`, in an environment like that of a login.
fn log_in(login: &Path, command_line: &str, rung: Rung) -> Command {
    let mut command;
    if rung == Rung::Perl {
        command = Command::new(login);
    } else {
        command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{} exec \"$0\" \"$@\"", rung.hidden())).arg(login);
    }
    command
        .args(["-c", command_line])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        // A variable of the user's by a name of ours must not carry the start line to the agent.
        .env("_o", "the user's")
        .env("ODD", "a=b 'c' \"d\" $e \\ é")
        .current_dir("/usr");
    command
}

fn bootstrap(options: Options) -> (Bootstrap, String) {
    let bootstrap = Bootstrap::new(options, Instant::now()).unwrap();
    let command = bootstrap.probe_command();
    (bootstrap, command)
}

fn check(agent: &Result<Agent, BootstrapError>, what: &str) {
    let agent = agent.as_ref().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(agent.field("args"), "[\"offshoot:a test\", \"it's\", \"\"]", "{what}");
    assert_eq!(agent.field("cwd"), "/usr", "{what}");
    assert_eq!(agent.field("memfds"), "0", "{what}");
    assert!(agent.has_env("OFFSHOOT_TREE=0123456789abcdef"), "{what}: {}", agent.line);
    assert!(agent.has_env("PATH=/usr/local/bin:/usr/bin:/bin"), "{what}: {}", agent.line);
    assert!(agent.has_env("LC_ALL=C.UTF-8"), "{what}: {}", agent.line);
    assert!(agent.has_env("HOME=/root"), "{what}: {}", agent.line);
    assert!(agent.line.contains("ODD=a=b 'c' \\\"d\\\" $e \\\\ é"), "{what}: {}", agent.line);
    for ours in ["_o=", "_m=", "_c=", "_l=", "_f=", "_d=", "_n="] {
        assert!(!agent.line.contains(&format!("\"{ours}")), "{what}: {}", agent.line);
    }
}

fn try_shells(names: &[&str], each: impl Fn(&Path, Rung, &str)) {
    for name in names {
        let Some(shell) = shell(name) else {
            println!("not run: {name} is not installed");
            continue;
        };
        for rung in RUNGS {
            if rung != Rung::Perl && !can_hide() {
                println!("not run: {name} with {rung:?}: no mount namespace can be made");
                continue;
            }
            each(&shell.path, rung, &format!("{name} with {rung:?}"));
        }
    }
}

#[test]
fn every_login_shell_reaches_the_agent_on_every_rung() {
    try_shells(&["bash", "dash", "ksh", "mksh", "zsh", "tcsh", "fish", "ash"], |login, rung, what| {
        let (bootstrap, command) = bootstrap(options());
        assert!(command.len() < 200, "{command}");
        let ran = run(&mut log_in(login, &command, rung), bootstrap, usize::MAX);
        check(&ran.agent, what);
        println!("{what}: {} ms", ran.took.as_millis());
        assert_eq!(left_behind(&nonce_text(&command)), Vec::<PathBuf>::new(), "{what}");
    });
}

#[test]
fn every_shell_as_the_targets_sh_reaches_the_agent_on_every_rung() {
    let login = shell("bash").expect("bash").path;
    try_shells(&["bash", "dash", "ksh", "mksh", "zsh", "ash"], |sh, rung, what| {
        let shell = sh.to_str().unwrap().to_owned();
        let (bootstrap, command) = bootstrap(Options { shell, ..options() });
        let ran = run(&mut log_in(&login, &command, rung), bootstrap, usize::MAX);
        check(&ran.agent, what);
        println!("{what}: {} ms", ran.took.as_millis());
        assert_eq!(left_behind(&nonce_text(&command)), Vec::<PathBuf>::new(), "{what}");
    });
}

/// A file that this process holds open, as the bootstrap of a shell of root is told of it.
fn near(file: &impl AsRawFd) -> Near {
    let own = tree::Proc::of(std::process::id()).expect("a system with /proc");
    Near { process: own.pid, started: own.start_time, file: file.as_raw_fd(), args: ["offshoot-agent", "apart"] }
}

/// A shell as it is when it is called `sh`.
fn as_sh(name: &str, shell: &Shell) -> Command {
    let mut command = Command::new(&shell.path);
    if name == "zsh" {
        command.args(["--emulate", "sh"]);
    }
    command
}

fn in_memory(bytes: &[u8]) -> fs::File {
    let mut file = fs::File::from(image::memfd("near").expect("a file in memory"));
    file.write_all(bytes).unwrap();
    image::seal(&file).unwrap();
    file
}

#[test]
fn a_shell_of_root_runs_the_image_that_is_open_here_and_nothing_is_sent() {
    let image = in_memory(&bootstrap_peer::agent());
    for name in ["bash", "dash", "ksh", "mksh", "zsh", "ash"] {
        let Some(sh) = shell(name) else {
            println!("not run: near_{name}: not installed");
            continue;
        };
        let bootstrap = Bootstrap::new(Options { near: Some(near(&image)), ..options() }, Instant::now()).unwrap();
        let plain = Bootstrap::new(options(), Instant::now()).unwrap();
        for (what, mut bootstrap) in [("near", bootstrap), ("plain", plain)] {
            let script = bootstrap.root_script(&[("ODD".into(), "of the tool".into())]);
            // Shown by `ps` and in sudo's log; and how much of it there is without the image.
            println!("{name}: {what}: {} bytes", script.len());
            bootstrap.restart_clock(Instant::now());
            let mut command = as_sh(name, &sh);
            command.args(["-c", &script]).env("OFFSHOOT_TREE", "another");
            let agent =
                run(&mut command, bootstrap, usize::MAX).agent.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (exe, args) = match what {
                "near" => {
                    ("/memfd:near (deleted)", r#"["/proc/self/fd/1", "offshoot-agent", "apart", "offshoot:a test"]"#)
                }
                _ => ("/memfd:offshoot:a test (deleted)", r#"["offshoot:a test", "it's", ""]"#),
            };
            assert_eq!((agent.field("exe"), agent.field("args")), (exe, args), "{name}: {what}");
            assert_eq!(agent.field("memfds"), "0", "{name}: {what}");
            assert!(agent.has_env("OFFSHOOT_TREE=0123456789abcdef"), "{name}: {what}: {}", agent.line);
            assert!(!agent.line.contains("of the tool"), "{name}: {what}: {}", agent.line);
        }
    }
}

#[test]
fn where_the_image_is_not_what_is_meant_or_does_not_run_the_agent_is_sent() {
    let image = in_memory(&bootstrap_peer::agent());
    let right = near(&image);
    let broken = in_memory(b"\x7fELF and no more");
    let refuses = in_memory(b"#!/bin/false\n");
    let mut plain = tempfile::tempfile().unwrap();
    plain.write_all(&bootstrap_peer::agent()).unwrap();
    let others = [
        // As if another process had our number by now, or there were none.
        ("another process", Near { started: right.started + 1, ..right.clone() }),
        ("no process", Near { process: u32::MAX, ..right.clone() }),
        ("no file", Near { file: 999_999, ..right.clone() }),
        ("not to be executed", near(&plain)),
        ("no executable", near(&broken)),
        ("refuses", near(&refuses)),
    ];
    for name in ["bash", "dash", "ksh", "mksh", "zsh", "ash"] {
        let Some(sh) = shell(name) else {
            println!("not run: not_near_{name}: not installed");
            continue;
        };
        for (what, near) in &others {
            let bootstrap = Bootstrap::new(Options { near: Some(near.clone()), ..options() }, Instant::now()).unwrap();
            let script = bootstrap.root_script(&[]);
            let agent = run(as_sh(name, &sh).args(["-c", &script]), bootstrap, usize::MAX).agent;
            let agent = agent.unwrap_or_else(|error| panic!("{name}: {what}: {error}"));
            assert_eq!(agent.field("args"), r#"["offshoot:a test", "it's", ""]"#, "{name}: {what}");
            assert_eq!(agent.field("memfds"), "0", "{name}: {what}: what was tried is still open");
        }
    }
}

#[test]
fn a_target_that_is_sent_nothing_cannot_have_it_both_ways() {
    // Who claims to be near where nothing is, is a machine that nobody knows.
    let (mut bootstrap, command) = bootstrap(options());
    bootstrap.handle_bytes(format!("M{} Linux here .\n", nonce_text(&command)).as_bytes(), Instant::now());
    let Some(Event::Failed(error)) = bootstrap.poll_event() else { panic!("a failure") };
    assert_eq!(error.kind, ErrorKind::Machine { machine: "here".into() });
    assert!(!bootstrap.has_output());
}

#[test]
fn the_real_start_line_leaves_room_in_a_terminals_line() {
    let (mut bootstrap, command) = bootstrap(options());
    let now = Instant::now();
    bootstrap.handle_bytes(format!("M{} Linux x86_64 .\n", nonce_text(&command)).as_bytes(), now);
    bootstrap.provide(bundle(), now);
    let first = bootstrap.poll_output(now).unwrap();
    let len = first.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    println!("the start line has {len} bytes, the probe {}", command.len());
    assert!(len < 3_750, "{len} bytes");
}

#[test]
fn everything_at_once_works_in_every_shell() {
    try_shells(&["bash", "dash", "ksh", "mksh", "zsh", "ash"], |sh, rung, what| {
        let shell = sh.to_str().unwrap().to_owned();
        let assume = Some(bundle().clone());
        let (bootstrap, command) = bootstrap(Options { shell, assume, hold: Hold::No, ..options() });
        assert!(bootstrap.has_output(), "nothing is waited for");
        let ran = run(&mut log_in(Path::new("/bin/sh"), &command, rung), bootstrap, usize::MAX);
        check(&ran.agent, what);
    });
}

#[test]
fn answers_may_come_in_any_pieces() {
    for piece in [1, 2, 3, 7, 64] {
        let (bootstrap, command) = bootstrap(options());
        check(&run(&mut log_in(Path::new("/bin/sh"), &command, Rung::Perl), bootstrap, piece).agent, "pieces");
    }
}

#[test]
fn the_agent_has_the_logins_umask_and_signals() {
    for rung in RUNGS {
        if rung != Rung::Perl && !can_hide() {
            println!("not run: {rung:?}: no mount namespace can be made");
            continue;
        }
        let (bootstrap, command) = bootstrap(options());
        let mut login = log_in(Path::new("/bin/sh"), &format!("umask 0027; {command}"), rung);
        let agent = run(&mut login, bootstrap, usize::MAX).agent.unwrap();
        assert_eq!(agent.field("umask"), "0027", "{rung:?}");
        // As in this process, to which the same happened: Rust programs ignore SIGPIPE. Signals from 32 on are the C
        // library's own affair.
        let plain = |mask: &str| u64::from_str_radix(mask.trim(), 16).unwrap() & 0x7fff_ffff;
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        assert_eq!(plain(agent.field("ignored")), plain(own), "{rung:?}");
    }
}

#[test]
fn chatter_before_the_marker_is_tolerated() {
    let (bootstrap, command) = bootstrap(options());
    let noise = "i=0; while [ $i -lt 500 ]; do echo '\u{1b}[31mWelcome to Linux x86_64 . M!L!N'; i=$((i+1)); done;";
    let login = format!("{noise} printf '!L!L12'; echo '!LQ123'; {command}");
    check(&run(&mut log_in(Path::new("/bin/sh"), &login, Rung::Perl), bootstrap, 100).agent, "noise");
}

#[test]
fn a_login_that_never_runs_the_command_is_told_by_what_it_printed() {
    let (bootstrap, command) = bootstrap(options());
    let login = format!("echo 'This account is currently not available.'; exit 1; {command}");
    let error = run(&mut log_in(Path::new("/bin/sh"), &login, Rung::Perl), bootstrap, 100).agent.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Ended);
    assert_eq!(
        error.to_string(),
        "waiting for the start marker: the connection ended (exit status 1); received \
         \"This account is currently not available.\\n\""
    );
    assert!(!error.hint.is_empty());
}

#[test]
fn a_terminal_in_the_path_is_made_transparent_first() {
    let Some(Shell { path: script, .. }) = shell("script") else {
        println!("not run: script(1) is not installed");
        return;
    };
    // bash on a terminal reads ahead: what came with the line would be lost.
    for name in ["bash", "dash", "ksh", "mksh", "zsh", "ash"] {
        let Some(found) = shell(name) else { continue };
        let shell = found.path.to_str().unwrap().to_owned();
        let (bootstrap, command) = bootstrap(Options { shell, hold: Hold::UntilReady, ..options() });
        let mut terminal = Command::new(&script);
        terminal.args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"]);
        terminal.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/root").env("SHELL", "/bin/sh");
        terminal.env("LC_ALL", "C.UTF-8").env("ODD", "a=b 'c' \"d\" $e \\ é").current_dir("/usr");
        let ran = run_until_echo(&mut terminal, bootstrap, 100);
        check(&ran.agent, name);
        println!("{name} on a terminal: {} ms", ran.took.as_millis());
    }
}

#[test]
fn a_missing_shell_is_told() {
    let (bootstrap, command) = bootstrap(Options { shell: "/no/such/sh".into(), ..options() });
    let error = run(&mut log_in(Path::new("/bin/sh"), &command, Rung::Perl), bootstrap, 100).agent.unwrap_err();
    assert!(error.hint.contains("no shell"), "{error:?}");
}

#[test]
fn another_machine_than_assumed_is_noticed_before_anything_runs() {
    // The target's own check: the fake uname is found by the start line, the probe's answer is cut off.
    let bin = scratch().join("other-machine");
    fs::create_dir_all(&bin).unwrap();
    let uname = bin.join("uname");
    fs::write(&uname, "#!/bin/sh\necho Linux mips\n").unwrap();
    fs::set_permissions(&uname, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if !can_hide() {
        println!("not run: no mount namespace can be made");
        return;
    }
    let (bootstrap, command) = bootstrap(Options { assume: Some(bundle().clone()), hold: Hold::No, ..options() });
    let hide = format!("mount --bind '{}' /usr/bin/uname; exec /bin/sh -c \"$0\"", uname.display());
    let mut login = Command::new("unshare");
    login.args(["-m", "--propagation", "private", "sh", "-c", &hide, &command]);
    let error = run(&mut login, bootstrap, usize::MAX).agent.unwrap_err();
    assert!(
        matches!(&error.kind, ErrorKind::OtherMachine { got, .. } | ErrorKind::Machine { machine: got } if got.contains("mips")),
        "{error:?}"
    );
}

#[test]
fn a_start_line_that_was_cut_is_not_run() {
    let bootstrap = Bootstrap::new(options(), Instant::now()).unwrap();
    for name in ["sh", "dash", "bash", "ash", "ksh", "mksh", "zsh"] {
        let Some(shell) = shell(name) else {
            println!("not run: cut_line_{name}: not installed");
            continue;
        };
        for cut in ["set", "echo run", "echo run;"] {
            let mut child = Command::new(&shell.path)
                .args(["-c", &bootstrap.probe_script()])
                .env("A_SECRET_OF_THE_LOGIN", "s3cr3t")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(cut.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            // The marker with the facts, and nothing behind it.
            assert_eq!(said.lines().count(), 1, "{name} after {cut:?}: {said}");
        }
    }
}
