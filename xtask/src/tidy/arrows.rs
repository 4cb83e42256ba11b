//! Which crate may need which: the table of `docs/architecture.md`.

use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

use super::{Finding, Tree};
use crate::workspace::{Package, cargo};

/// A crate and the crates of ours that it may name as normal or build dependencies. Ground floor first; a crate's
/// "must not know" is what is missing here.
const ARROWS: &[(&str, &[&str])] = &[
    ("offshoot-loader", &[]),
    ("offshoot-wire", &[]),
    ("offshoot-route", &["offshoot-wire"]),
    ("offshoot-forward", &["offshoot-wire", "offshoot-route"]),
    ("offshoot-mux", &[]),
    ("offshoot-connect", &["offshoot-loader", "offshoot-wire", "offshoot-mux"]),
    ("offshoot-node", &["offshoot-wire", "offshoot-route", "offshoot-forward", "offshoot-mux", "offshoot-connect"]),
    ("offshoot-agent", &["offshoot-wire", "offshoot-mux", "offshoot-connect", "offshoot-node"]),
    ("offshoot-macros", &[]),
    ("offshoot-image", &["offshoot-loader"]),
    (
        "offshoot-program",
        &[
            "offshoot-wire",
            "offshoot-route",
            "offshoot-forward",
            "offshoot-mux",
            "offshoot-connect",
            "offshoot-node",
            "offshoot-macros",
            "offshoot-image",
        ],
    ),
    ("offshoot", &["offshoot-wire", "offshoot-connect", "offshoot-node", "offshoot-macros", "offshoot-program"]),
    // The loop crate for its own terminal and process: raw mode, signals, the fork that Ctrl-Z needs.
    ("offshoot-cli", &["offshoot", "offshoot-mux"]),
    ("offshoot-build", &["offshoot-loader", "offshoot-connect", "offshoot-image"]),
    ("cargo-offshoot", &["offshoot-build"]),
    ("offshoot-bench", &["offshoot"]),
    ("xtask", &["offshoot-build"]),
];

/// Packages of tests alone, which may reach for anything.
const UNBOUND: &[&str] = &["offshoot-tests", "offshoot-fuzz"];

/// Dev-dependencies that go against an arrow, by name.
const DEV_EXCEPTIONS: &[(&str, &str)] = &[
    // What remote functions leave behind is looked for below the test's own process.
    ("offshoot", "offshoot-mux"),
];

/// A crate from elsewhere, and the only crate of ours that may name it.
const ONLY: &[(&str, &str)] = &[("postcard", "offshoot-wire"), ("mio", "offshoot-mux")];

/// The crates that end up in the agent.
const AGENT_TREES: &[&str] = &[
    "offshoot-wire",
    "offshoot-route",
    "offshoot-forward",
    "offshoot-mux",
    "offshoot-connect",
    "offshoot-node",
    "offshoot-agent",
];

/// What the agent is too small for, or what builds C code.
const NOT_IN_AGENT: &[&str] =
    &["anyhow", "clap", "env_logger", "regex", "cc", "cmake", "pkg-config", "bindgen", "zstd-sys"];

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) -> Result<()> {
    for package in &tree.workspace.members {
        if !UNBOUND.contains(&package.name.as_str()) {
            arrows(tree, package, findings);
            only(tree, package, findings);
        }
    }
    for name in AGENT_TREES {
        if let Some(package) = tree.workspace.member(name) {
            agent_tree(tree, package, findings)?;
        }
    }
    Ok(())
}

fn manifest(tree: &Tree<'_>, package: &Package) -> PathBuf {
    tree.workspace.relative(&package.manifest_path).to_path_buf()
}

/// The line of the manifest that names the dependency; 0 when it is not found.
fn line(package: &Package, dependency: &str) -> usize {
    let text = std::fs::read_to_string(&package.manifest_path).unwrap_or_default();
    text.lines()
        .position(|line| {
            line.trim_start().strip_prefix(dependency).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
        })
        .map_or(0, |index| index + 1)
}

fn arrows(tree: &Tree<'_>, package: &Package, findings: &mut Vec<Finding>) {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        findings.push(Finding::new(
            manifest(tree, package),
            0,
            format!("{} is not in the table of crates", package.name),
            "add it to docs/architecture.md and to ARROWS in xtask/src/tidy/arrows.rs, with what it may know",
        ));
        return;
    };
    for dependency in &package.dependencies {
        let dev = dependency.kind.as_deref() == Some("dev");
        let pair = (package.name.as_str(), dependency.name.as_str());
        let fine = tree.workspace.member(&dependency.name).is_none()
            || allowed.contains(&dependency.name.as_str())
            || (dev && (dependency.name == package.name || DEV_EXCEPTIONS.contains(&pair)));
        if !fine {
            findings.push(Finding::new(
                manifest(tree, package),
                line(package, &dependency.name),
                format!("{} must not know {}", package.name, dependency.name),
                "move the code to the crate that may know both; the table is in docs/architecture.md",
            ));
        }
    }
}

fn only(tree: &Tree<'_>, package: &Package, findings: &mut Vec<Finding>) {
    for (foreign, owner) in ONLY {
        let named = package.dependencies.iter().any(|d| d.name == *foreign && d.kind.as_deref() != Some("dev"));
        if named && package.name != *owner {
            findings.push(Finding::new(
                manifest(tree, package),
                line(package, foreign),
                format!("{} names {foreign}, which only {owner} may", package.name),
                format!("use what {owner} offers, or add what is missing there"),
            ));
        }
    }
}

/// What is linked into the agent, or runs to build it, as cargo resolves it for this crate alone: `cargo metadata`
/// would mix in the features that other members ask for.
fn agent_tree(tree: &Tree<'_>, package: &Package, findings: &mut Vec<Finding>) -> Result<()> {
    let output = Command::new(cargo())
        .args(["tree", "--package", &package.name, "--edges", "normal,build"])
        .args(["--target", "x86_64-unknown-linux-musl", "--prefix", "none", "--format", "{p}"])
        .current_dir(&tree.workspace.root)
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo tree failed\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let links = tree.workspace.foreign.iter().find(|p| p.name == name).and_then(|p| p.links.as_deref());
        let reason = if NOT_IN_AGENT.contains(&name) {
            format!("the agent's crate {} brings in {name}", package.name)
        } else if let Some(library) = links {
            format!("{} brings in {name}, which links the native library {library}", package.name)
        } else {
            continue;
        };
        findings.push(Finding::new(
            manifest(tree, package),
            line(package, name),
            reason,
            format!(
                "do without it, or put it behind a feature that the agent does not ask for; \
                 `cargo tree -p {} -i {name} -e normal,build` shows the way in",
                package.name
            ),
        ));
    }
    Ok(())
}
