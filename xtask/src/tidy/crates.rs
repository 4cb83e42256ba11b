//! What every crate of the workspace states about itself.

use super::{Finding, Tree};
use crate::source::{Source, words};
use crate::workspace::{Package, Target};

/// The targets where some `unsafe` is allowed, and the attribute that they carry instead: the one crate that has it, programs with remote
/// functions, whose registry is put together by the linker, and the tests' tracer.
const UNSAFE_TARGETS: &[(&str, &str)] = &[
    ("offshoot_mux", "#![deny(unsafe_code)]"),
    ("offshoot-bench-calls", "#![deny(unsafe_code)]"),
    ("offshoot-short", "#![deny(unsafe_code)]"),
    ("offshoot-soak", "#![deny(unsafe_code)]"),
];

/// The freestanding loader: its binaries are system calls and little else.
const LOADER: &str = "offshoot-loader";

/// Licences that the project's own MIT OR Apache-2.0 goes together with.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "0BSD",
    "Unlicense",
    "BSL-1.0",
    "MIT-0",
    "CDLA-Permissive-2.0",
];

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) {
    let version = workspace_version(tree);
    let lints = workspace_lints(tree);
    for package in &tree.workspace.members {
        let manifest = tree.workspace.relative(&package.manifest_path);
        let mut found = |what: String, fix: &str| {
            findings.push(Finding::new(manifest, 0, what, fix));
        };
        if package.is_published() {
            if !package.folder().join("README.md").is_file() {
                found(format!("{} has no README.md", package.name), "add a paragraph and an example");
            }
            if package.description.as_deref().unwrap_or("").is_empty() {
                found(format!("{} has no description", package.name), "add `description = \"…\"`");
            }
            if package.license.is_none() {
                found(format!("{} states no licence", package.name), "add `license.workspace = true`");
            }
        }
        if package.rust_version.is_none() || package.rust_version != version {
            found(
                format!("{} does not state the workspace's minimum Rust version", package.name),
                "add `rust-version.workspace = true`",
            );
        }
        let text = std::fs::read_to_string(&package.manifest_path).unwrap_or_default();
        if !takes_lints(&text, &lints) {
            found(
                format!("{} does not take the workspace's lints", package.name),
                "add `[lints]` with `workspace = true`, or name each of them with the same level",
            );
        }
        roots(tree, package, findings);
    }
    denied(&lints, findings);
    for package in &tree.workspace.foreign {
        let licence = package.license.as_deref().unwrap_or("");
        if !acceptable(licence) {
            findings.push(Finding::new(
                "Cargo.lock",
                0,
                format!("{} {} is under {licence:?}", package.name, package.version),
                "use another crate, or add the licence to LICENCES in xtask/src/tidy/crates.rs with the reason",
            ));
        }
    }
}

/// Whether an SPDX expression can be met with the licences above: every part of an `AND`, one part of an `OR`.
fn acceptable(expression: &str) -> bool {
    let known = |part: &str| {
        let id = part.trim().split(" WITH ").next().unwrap_or("").trim();
        LICENCES.contains(&id)
    };
    expression.split(" AND ").all(|all| {
        let all = all.trim().trim_start_matches('(').trim_end_matches(')');
        all.split(" OR ").flat_map(|part| part.split('/')).any(known)
    })
}

fn workspace_version(tree: &Tree<'_>) -> Option<String> {
    let root = tree.files.iter().find(|f| f.path.as_os_str() == "Cargo.toml")?;
    let line = root.text.lines().find(|l| l.starts_with("rust-version"))?;
    line.split('"').nth(1).map(str::to_string)
}

/// The lines of the root manifest's tables `[workspace.lints.…]`.
fn workspace_lints(tree: &Tree<'_>) -> Vec<String> {
    let Some(root) = tree.files.iter().find(|f| f.path.as_os_str() == "Cargo.toml") else {
        return Vec::new();
    };
    let mut inside = false;
    let mut lints = Vec::new();
    for line in root.text.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[workspace.lints.");
        } else if inside && line.contains('=') {
            lints.push(line.trim().to_string());
        }
    }
    lints
}

/// Whether a manifest takes the lints as they are, or repeats each in a table of its own (`clippy.dbg_macro = "deny"`),
/// as one must to add to them.
fn takes_lints(manifest: &str, lints: &[String]) -> bool {
    let Some((_, table)) = manifest.split_once("\n[lints]\n") else {
        return false;
    };
    let table = table.split("\n[").next().unwrap_or("");
    let repeats = |lint: &String| table.lines().any(|line| line.trim().ends_with(lint.as_str()));
    table.lines().any(|line| line == "workspace = true") || lints.iter().all(repeats)
}

fn denied(lints: &[String], findings: &mut Vec<Finding>) {
    for lint in ["incompatible_msrv", "undocumented_unsafe_blocks"] {
        let line = format!("{lint} = \"deny\"");
        if !lints.contains(&line) {
            findings.push(Finding::new(
                "Cargo.toml",
                0,
                format!("clippy's {lint} is not denied"),
                format!("add `{line}` under `[workspace.lints.clippy]`"),
            ));
        }
    }
}

/// The inner attributes of each library and binary.
fn roots(tree: &Tree<'_>, package: &Package, findings: &mut Vec<Finding>) {
    let library = |t: &Target| t.kind.iter().any(|k| k == "lib" || k == "proc-macro");
    for target in &package.targets {
        let is_library = library(target);
        if !is_library && !target.kind.iter().any(|k| k == "bin") {
            continue;
        }
        let path = tree.workspace.relative(&target.src_path);
        let Some(source) = source(tree, target) else {
            continue;
        };
        let wanted = UNSAFE_TARGETS
            .iter()
            .find(|(name, _)| *name == target.name)
            .map_or("#![forbid(unsafe_code)]", |(_, attribute)| attribute);
        if package.name != LOADER && !has(&source.code, wanted) {
            findings.push(Finding::new(
                path,
                1,
                format!("{} lacks `{wanted}`", target.name),
                "add the attribute below the crate's documentation",
            ));
        }
        let documented =
            ["deny", "forbid"].iter().any(|level| has(&source.code, &format!("#![{level}(missing_docs)]")));
        if is_library && package.is_published() && !documented {
            findings.push(Finding::new(
                path,
                1,
                format!("{} lacks `#![deny(missing_docs)]`", target.name),
                "add the attribute below the crate's documentation",
            ));
        }
    }
}

fn source<'a>(tree: &'a Tree<'_>, target: &Target) -> Option<&'a Source> {
    let path = tree.workspace.relative(&target.src_path);
    tree.rust.iter().find(|f| f.path == path).map(|f| &f.source)
}

/// Whether the attribute is there, alone or in a list: `#![deny(missing_docs, unsafe_code)]`.
fn has(code: &str, attribute: &str) -> bool {
    let Some((level, lint)) =
        attribute.strip_prefix("#![").and_then(|a| a.strip_suffix(")]")).and_then(|a| a.split_once('('))
    else {
        return false;
    };
    let opening = format!("#![{level}(");
    code.split(&opening).skip(1).any(|rest| {
        let list = rest.split(')').next().unwrap_or("");
        words(list, lint).next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::{acceptable, has, takes_lints};

    #[test]
    fn a_licence_expression_needs_one_known_part_of_each_or() {
        assert!(acceptable("MIT OR Apache-2.0"));
        assert!(acceptable("MIT/Apache-2.0"));
        assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(acceptable("Apache-2.0 WITH LLVM-exception"));
        assert!(!acceptable("GPL-3.0"));
        assert!(!acceptable("MIT AND GPL-3.0"));
        assert!(!acceptable(""));
    }

    #[test]
    fn lints_are_taken_whole_or_one_by_one() {
        let lints = ["a = \"deny\"".to_string(), "b = \"warn\"".to_string()];
        assert!(takes_lints("x\n[lints]\nworkspace = true\n", &lints));
        assert!(takes_lints("x\n[lints]\nclippy.a = \"deny\"\nrust.b = \"warn\"\nrust.c = 1\n", &lints));
        assert!(!takes_lints("x\n[lints]\nclippy.a = \"deny\"\n[x]\nrust.b = \"warn\"\n", &lints));
        assert!(!takes_lints("x\n", &lints));
    }

    #[test]
    fn an_attribute_is_found_alone_and_in_a_list() {
        assert!(has("#![deny(missing_docs)]", "#![deny(missing_docs)]"));
        assert!(has("#![deny(a, missing_docs)]", "#![deny(missing_docs)]"));
        assert!(!has("#![deny(missing_docs_in_x)]", "#![deny(missing_docs)]"));
        assert!(!has("#![warn(missing_docs)]", "#![deny(missing_docs)]"));
    }
}
