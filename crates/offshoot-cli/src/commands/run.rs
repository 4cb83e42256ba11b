//! `offshoot run`: a local script, interpreted on the targets, nothing copied.
//!
//! The script travels as stdin, so it is in no argument list there, and in no file. What it starts must not read the
//! rest of it as input, so it is moved out of the way first:
//!
//! - a shell takes in all of it, gets an empty stdin, and evaluates it. Nothing but the shell is needed;
//! - any other interpreter finds it behind descriptor 3, named `/dev/fd/3`, and an empty stdin.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Context as _, bail};
use offshoot::escape::escaped;

use super::exec::timeout;
use super::run_job;
use crate::args::{GlobalArgs, RunArgs};
use crate::ground::Job;
use crate::job::Input;
use crate::options::{Form, Look, Reach};

/// The largest script, in bytes. It is kept in memory here, and by a shell there.
const SCRIPT_MAX: u64 = 16 * 1024 * 1024;
/// The longest `#!` line, as Linux has it.
const SHEBANG_MAX: usize = 256;
/// The shells that evaluate a script given to `-c`, by their usual names.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "zsh"];

/// What the shell does: `x` keeps newlines at the script's end, which `$(…)` would eat. No newline is added in front, so
/// that the shell counts lines as in the file.
const EVALUATE: &str = r#"offshoot_script=$(cat && echo x) || exit 125; exec </dev/null; eval "unset offshoot_script;${offshoot_script%x}""#;
/// What starts another interpreter: `$0` and the arguments are its command line.
const START: &str = r#"exec 3<&0 </dev/null; exec "$0" "$@""#;

/// Runs the script and returns what to exit with.
///
/// # Errors
/// What is wrong before anything runs, and what breaks our own output.
pub(crate) fn run(args: RunArgs, global: &GlobalArgs) -> anyhow::Result<u8> {
    let RunArgs { script: path, targets, args: words, output, reach: reach_args } = args;
    let reach = Reach::new(&reach_args, global)?;
    let from_stdin = path.as_os_str() == "-";
    let script = read(&path, from_stdin)?;
    let mut job = job(&path, &script, words)?;
    job.timeout = timeout(&output);
    run_job(&targets, &reach_args, &reach, Form::of(&output), &Look::new(global), &job, |read_stdin| {
        if from_stdin && read_stdin {
            bail!("stdin cannot be both the script and the list of targets");
        }
        Ok(Input::Source(Box::new(Cursor::new(script))))
    })
}

fn read(path: &Path, from_stdin: bool) -> anyhow::Result<Vec<u8>> {
    let name = || format!("the script {}", escaped(path.as_os_str().as_bytes()));
    let mut source: Box<dyn Read> = if from_stdin {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open {}", name()))?)
    };
    let mut script = Vec::new();
    source.as_mut().take(SCRIPT_MAX + 1).read_to_end(&mut script).with_context(|| format!("cannot read {}", name()))?;
    if script.len() as u64 > SCRIPT_MAX {
        bail!("{} is larger than {} MiB", name(), SCRIPT_MAX >> 20);
    }
    if script.contains(&0) {
        bail!("{} holds NUL bytes: it is a program, not a script", name());
    }
    Ok(script)
}

/// The command that interprets a script which it finds on its stdin.
fn job(path: &Path, script: &[u8], words: Vec<OsString>) -> anyhow::Result<Job> {
    let interpreter = interpreter(script)?;
    // `/bin/bash -e` is a shell with an option, `/usr/bin/env bash` a shell behind another word. Either way `-c` can
    // follow.
    let named = if is(&interpreter[0], &["env"]) { interpreter.get(1) } else { interpreter.first() };
    let (program, mut args) = if named.is_some_and(|word| is(word, SHELLS)) {
        let mut args = interpreter[1..].to_vec();
        // It ends the options, and one more comes.
        args.pop_if(|word| *word == "-" || *word == "--");
        let name = if path.as_os_str() == "-" { OsString::from("stdin") } else { path.as_os_str().to_owned() };
        args.extend(["-c".into(), EVALUATE.into(), name]);
        (interpreter[0].clone(), args)
    } else {
        let mut args: Vec<OsString> = vec!["-c".into(), START.into()];
        args.extend(interpreter);
        args.push("/dev/fd/3".into());
        ("sh".into(), args)
    };
    args.extend(words);
    Ok(Job { program, args, timeout: None })
}

/// The words of the `#!` line as the kernel reads it: a path and at most one argument. `sh` when there is none.
fn interpreter(script: &[u8]) -> anyhow::Result<Vec<OsString>> {
    let Some(line) = script.strip_prefix(b"#!") else { return Ok(vec!["sh".into()]) };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
    if line.len() > SHEBANG_MAX {
        bail!("the #! line is longer than {SHEBANG_MAX} bytes");
    }
    if line.is_empty() {
        bail!("the #! line names no interpreter");
    }
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (path, rest) = line.split_at(end);
    let words = [path, rest.trim_ascii()].into_iter().filter(|word| !word.is_empty());
    Ok(words.map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// Whether a program, by its name without folders, is one of these.
fn is(program: &OsString, names: &[&str]) -> bool {
    Path::new(program).file_name().is_some_and(|name| names.iter().any(|known| name == *known))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs a script as a target would.
    fn output(script: &str, words: &[&str]) -> String {
        let words = words.iter().map(OsString::from).collect();
        let job = job(Path::new("the-script"), script.as_bytes(), words).expect("a script");
        let mut child = Command::new(job.program)
            .args(job.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("started");
        let written = child.stdin.take().expect("piped").write_all(script.as_bytes());
        let output = child.wait_with_output().expect("ended");
        written.expect("the script was read");
        String::from_utf8(output.stdout).expect("text") + &format!("[{}]", output.status.code().expect("a status"))
    }

    #[test]
    fn a_script_gets_its_name_and_arguments_and_its_status_comes_back() {
        assert_eq!(output("echo \"$0:$#:$2\"\nexit 3\n", &["a b", "c d"]), "the-script:2:c d\n[3]");
        assert_eq!(output("#!/bin/sh -e\nfalse\necho no\n", &[]), "[1]");
        assert_eq!(output("#!/usr/bin/env bash\nx=(1 2); echo ${#x[@]}", &[]), "2\n[0]");
        assert_eq!(output("#!/bin/sh -\necho \"$0:$*\"", &["a"]), "the-script:a\n[0]");
        assert_eq!(output("#!/bin/bash --\necho \"$0:$*\"", &["-", "--"]), "the-script:- --\n[0]");
    }

    #[test]
    fn what_a_script_starts_does_not_eat_the_rest_of_it() {
        assert_eq!(output("cat\nread line\necho \"got:$line\"\n", &[]), "got:\n[0]");
        assert_eq!(output("#!/usr/bin/perl\nsystem('cat'); print 'still here'", &[]), "still here[0]");
    }

    #[test]
    fn other_interpreters_read_it_by_name() {
        assert_eq!(output("#!/usr/bin/env perl\nprint \"@ARGV\\n\"; exit 4", &["x", "y"]), "x y\n[4]");
        assert_eq!(output("#!/usr/bin/awk -f\nBEGIN { print \"awk\" }", &[]), "awk\n[0]");
    }

    #[test]
    fn a_script_as_long_as_no_pipe_comes_whole() {
        let script = format!(": {}\necho end", "x".repeat(300_000));
        assert_eq!(output(&script, &[]), "end\n[0]");
    }

    #[test]
    fn lines_are_counted_as_in_the_file() {
        assert_eq!(output("#!/bin/bash\n\necho $LINENO\n", &[]), "3\n[0]");
    }

    #[test]
    fn interpreter_lines_are_read_as_the_kernel_does() {
        let words = |script: &str| interpreter(script.as_bytes()).map(|words| words.join(&OsString::from("|")));
        assert_eq!(words("echo").expect("sh"), "sh");
        assert_eq!(words("#! /bin/sh\r\n").expect("sh"), "/bin/sh");
        assert_eq!(words("#!/usr/bin/env  -S python3 -u \nx").expect("env"), "/usr/bin/env|-S python3 -u");
        assert!(words("#!\n").is_err());
        assert!(words(&format!("#!/{}", "x".repeat(300))).is_err());
    }

    #[test]
    fn the_page_for_users_says_how_large_a_script_may_be() {
        crate::usage::assert_says("a script for `offshoot run`", &crate::usage::size(SCRIPT_MAX));
    }
}
