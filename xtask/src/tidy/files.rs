//! What holds for every file: no paths of one machine, one minimum Rust version, mutants that name their test.

use super::{File, Finding, Tree};
use crate::commands::mutants;

/// Example names that documentation and tests may use under `/home`.
const EXAMPLE_HOMES: &[&str] = &["user", "alice", "bob", "me", "you", "deploy", "ann"];

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) {
    let version = minimum(tree);
    for file in &tree.files {
        machine_paths(file, findings);
        if let Some(version) = &version {
            same_minimum(file, version, findings);
        }
        if file.path.starts_with("tests/mutants") && file.extension() == "patch" {
            mutant(file, findings);
        }
    }
    if let Some(version) = version {
        stated(tree, &version, findings);
    }
}

/// Paths that only exist on the machine of whoever wrote the line.
fn machine_paths(file: &File, findings: &mut Vec<Finding>) {
    // What installs things has to name places.
    if file.path.starts_with(".ci") {
        return;
    }
    // The fixtures lay out whole hosts of their own, with the homes of their users.
    let fixture = file.path.starts_with("tests");
    let mut roots = vec![["/wo", "rk/"].concat()];
    if !fixture {
        roots.push(["/ro", "ot/"].concat());
    }
    for (index, line) in file.text.lines().enumerate() {
        let hit = roots
            .iter()
            .find_map(|root| at_boundary(line, root).map(|_| root.clone()))
            .or_else(|| home(line).filter(|_| !fixture));
        if let Some(path) = hit {
            findings.push(Finding::new(
                &file.path,
                index + 1,
                format!("`{path}` is a path of one machine"),
                "take the place from an argument, the environment or a temporary folder",
            ));
        }
    }
}

/// Where `path` begins a path: not in the middle of a longer one.
fn at_boundary<'a>(line: &'a str, path: &str) -> Option<&'a str> {
    line.match_indices(path).find_map(|(at, _)| {
        let before = line[..at].chars().next_back();
        let begins = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_' && c != '.' && c != '}');
        begins.then(|| &line[at + path.len()..])
    })
}

fn home(line: &str) -> Option<String> {
    let root = ["/ho", "me/"].concat();
    let name: String =
        at_boundary(line, &root)?.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let example = EXAMPLE_HOMES.contains(&name.as_str()) || name.starts_with("u-");
    (begins && !example).then(|| format!("{root}{name}"))
}

fn minimum(tree: &Tree<'_>) -> Option<String> {
    tree.workspace.members.iter().find_map(|p| p.rust_version.clone())
}

/// `Rust 1.88`, `rustc 1.88`, `MSRV: "1.88"` in prose and workflows agree with the manifest. The table of sizes says
/// which compiler made it, which is another thing.
fn same_minimum(file: &File, version: &str, findings: &mut Vec<Finding>) {
    let prose = ["md", "yml", "yaml"].contains(&file.extension());
    if !prose || file.path.ends_with("docs/sizes.md") || file.path.ends_with("docs/performance.md") {
        return;
    }
    for (index, line) in file.text.lines().enumerate() {
        for found in versions(line) {
            if found != version {
                findings.push(Finding::new(
                    &file.path,
                    index + 1,
                    format!("states Rust {found} where Cargo.toml says {version}"),
                    "state one minimum Rust version everywhere",
                ));
            }
        }
    }
}

fn versions(line: &str) -> Vec<String> {
    let lower = line.to_lowercase();
    let mut found = Vec::new();
    for word in ["rust ", "rustc ", "msrv ", "msrv: ", "rust-version = ", "rust version "] {
        for (at, _) in lower.match_indices(word) {
            let number: String = lower[at + word.len()..]
                .trim_start_matches(['"', '\'', ' ', '*', '`'])
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect();
            let number = number.trim_end_matches('.');
            if number.starts_with("1.") {
                found.push(number.to_string());
            }
        }
    }
    found
}

/// The pages that must state the minimum.
fn stated(tree: &Tree<'_>, version: &str, findings: &mut Vec<Finding>) {
    for path in ["README.md", "CONTRIBUTING.md", ".github/workflows/ci.yml"] {
        let states = tree
            .files
            .iter()
            .find(|f| f.path.as_os_str() == path)
            .is_some_and(|f| f.text.lines().any(|l| versions(l).iter().any(|v| v == version)));
        if !states {
            findings.push(Finding::new(
                path,
                0,
                "the minimum Rust version is not stated",
                format!("state it as `Rust {version}` (or `MSRV: \"{version}\"` in the workflow)"),
            ));
        }
    }
}

fn mutant(file: &File, findings: &mut Vec<Finding>) {
    if let Err(error) = mutants::Header::parse(&file.text) {
        findings.push(Finding::new(&file.path, 1, error.to_string(), "see tests/mutants/README.md for the header"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_of_somebody_is_found_and_an_example_is_not() {
        assert!(home(&format!("cd {}/carol", ["/ho", "me"].concat())).is_some());
        assert!(home("cd /home/alice/x").is_none());
        assert!(home("the folder /home/ itself").is_none());
    }

    #[test]
    fn a_path_in_the_middle_of_another_is_not_of_the_machine() {
        let root = ["/wo", "rk/"].concat();
        assert!(at_boundary(&format!("at {root}x"), &root).is_some());
        assert!(at_boundary(&format!("docs{root}x"), &root).is_none());
    }

    #[test]
    fn versions_are_read_from_prose_and_workflows() {
        assert_eq!(versions("needs Rust 1.88 or later."), ["1.88"]);
        assert_eq!(versions("  MSRV: \"1.88\""), ["1.88"]);
        assert_eq!(versions("Rust 2 is not out"), Vec::<String>::new());
    }
}
