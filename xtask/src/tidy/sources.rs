//! What may stand in which source file: unsafe code, connection tools, the sans-IO crates' abstinence.

use std::path::Path;

use super::{Finding, RustFile, Tree};
use crate::source::{line_of, words};

/// Where unsafe code may stand.
const UNSAFE: &[&str] = &["crates/offshoot-mux/src/sys", "crates/offshoot-loader"];

/// Programs that make a connection: only `offshoot-connect` starts them.
const TOOLS: &[&str] = &[
    "ssh",
    "sudo",
    "su",
    "doas",
    "docker",
    "podman",
    "kubectl",
    "lxc",
    "lxc-attach",
    "incus",
    "machinectl",
    "systemd-run",
    "systemd-nspawn",
    "nsenter",
    "chroot",
    "jexec",
    "telnet",
    "ipmitool",
];

/// The calls that start a program by name.
const STARTS: &[&str] = &["Command::new(", "Spawn::new("];

/// Crates whose product is to start tools beside us: the bench's peers, the fixtures, our own commands.
const MAY_START: &[&str] = &["crates/offshoot-connect", "crates/offshoot-bench", "tests", "xtask"];

/// What is sans-IO: no sockets, files, threads or clock.
const SANS_IO: &[&str] = &[
    "crates/offshoot-wire/src",
    "crates/offshoot-route/src",
    "crates/offshoot-forward/src",
    "crates/offshoot-connect/src/bootstrap",
];

/// The words that give IO away.
const IO: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::os",
    "Instant::now",
    "SystemTime",
    "File::open",
    "TcpStream",
    "UnixStream",
];

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) {
    for file in &tree.rust {
        no_unsafe(file, findings);
        no_tools(file, findings);
        no_io(file, findings);
        length(file, findings);
    }
}

fn within(path: &Path, folders: &[&str]) -> bool {
    folders.iter().any(|folder| path.starts_with(folder) || path == Path::new(&format!("{folder}.rs")))
}

/// Files that hold nothing but tests.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "benches" || part == "examples")
}

fn no_unsafe(file: &RustFile, findings: &mut Vec<Finding>) {
    // A test may count allocations, which takes an allocator of its own; clippy wants the reason beside each block.
    if within(&file.path, UNSAFE) || is_test(&file.path) {
        return;
    }
    for at in words(&file.source.code, "unsafe") {
        findings.push(Finding::new(
            &file.path,
            line_of(&file.source.code, at),
            "unsafe code outside of offshoot-mux's sys module and the loader",
            "call a safe function of offshoot_mux::sys, or add one there",
        ));
    }
}

fn no_tools(file: &RustFile, findings: &mut Vec<Finding>) {
    if within(&file.path, MAY_START) || is_test(&file.path) {
        return;
    }
    let text = &file.source.uncommented;
    for start in STARTS {
        for (at, _) in text.match_indices(start) {
            let argument = text[at + start.len()..].trim_start();
            let Some(name) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            if TOOLS.contains(&name.rsplit('/').next().unwrap_or(name)) {
                findings.push(Finding::new(
                    &file.path,
                    line_of(text, at),
                    format!("starts the connection tool `{name}`"),
                    "make it a method of offshoot-connect, the only crate that starts connection tools",
                ));
            }
        }
    }
}

fn no_io(file: &RustFile, findings: &mut Vec<Finding>) {
    if !within(&file.path, SANS_IO) || is_test(&file.path) {
        return;
    }
    let code = file.source.code_without_tests();
    for word in IO {
        for at in words(code, word) {
            findings.push(Finding::new(
                &file.path,
                line_of(code, at),
                format!("`{word}` in sans-IO code (R1)"),
                "take bytes and `now` as arguments, and give bytes and deadlines back",
            ));
        }
    }
}

/// A file is one idea: over 500 lines it rarely is, over 700 never.
fn length(file: &RustFile, findings: &mut Vec<Finding>) {
    let lines = file.source.text.lines().count();
    if lines > 500 {
        let mut finding = Finding::new(
            &file.path,
            lines,
            format!("{lines} lines; a file is one idea, seldom over 500 lines, never over 700"),
            "split it where its second idea begins",
        );
        finding.warning = lines <= 700;
        findings.push(finding);
    }
}
