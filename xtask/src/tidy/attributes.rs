//! Silenced lints, ignored tests, and marks of unfinished work.

use super::{File, Finding, RustFile, Tree};
use crate::source::{line_of, words};

/// Marks of unfinished work, put together here so that this file has none.
fn marks() -> [String; 3] {
    [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat())
}

pub(super) fn check(tree: &Tree<'_>, findings: &mut Vec<Finding>) {
    for file in &tree.rust {
        silenced(file, findings);
        for name in ["todo", "unimplemented", "dbg"] {
            for at in words(&file.source.code, name) {
                if file.source.code[at + name.len()..].starts_with('!') {
                    findings.push(Finding::new(
                        &file.path,
                        line_of(&file.source.code, at),
                        format!("`{name}!` in the code"),
                        "finish it, or leave it out",
                    ));
                }
            }
        }
    }
    for file in &tree.files {
        unfinished(file, findings);
        allowed_in_manifest(file, findings);
    }
}

fn unfinished(file: &File, findings: &mut Vec<Finding>) {
    if !["rs", "sh", "py", "toml", "yml", "yaml", "md"].contains(&file.extension()) {
        return;
    }
    for mark in marks() {
        for at in words(&file.text, &mark) {
            findings.push(Finding::new(
                &file.path,
                line_of(&file.text, at),
                format!("`{mark}`: unfinished"),
                "finish it, or file an issue and leave the mark out",
            ));
        }
    }
}

/// `#[allow(…)]`, `#[expect(…)]` and `#[ignore]`, also inside `cfg_attr`, need their reason beside them.
fn silenced(file: &RustFile, findings: &mut Vec<Finding>) {
    let code = &file.source.code;
    for (at, _) in code.match_indices('#') {
        let rest = code[at + 1..].trim_start_matches('!');
        let Some(body) = rest.strip_prefix('[') else {
            continue;
        };
        let Some(end) = closing(body) else {
            continue;
        };
        let inside = &body[..end];
        let Some(what) = silencer(inside) else {
            continue;
        };
        let start = code.len() - body.len();
        let stated = words(inside, "reason").next().is_some() || (what == "ignore" && inside.contains('='));
        if stated || comment_beside(&file.source.text, at, start + end) {
            continue;
        }
        findings.push(Finding::new(
            &file.path,
            line_of(code, at),
            format!("`{what}` without its reason"),
            "add `reason = \"…\"`, or a comment on the line before",
        ));
    }
}

/// Which silencing attribute the inside of `#[…]` is, if any.
fn silencer(inside: &str) -> Option<&'static str> {
    let conditional = inside.trim_start().starts_with("cfg_attr");
    ["allow", "expect", "ignore"].into_iter().find(|name| {
        if conditional {
            words(inside, name).next().is_some()
        } else {
            words(inside.trim_start(), name).next() == Some(0)
        }
    })
}

/// The place of the `]` that closes an attribute whose `[` came just before.
fn closing(body: &str) -> Option<usize> {
    let mut depth = 1usize;
    for (at, byte) in body.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Whether a plain comment follows on the attribute's last line, or stands on the line before it (other attributes
/// may lie between).
fn comment_beside(text: &str, start: usize, end: usize) -> bool {
    let last_line = text[end..].lines().next().unwrap_or("");
    if last_line.contains("//") {
        return true;
    }
    let above = text[..start].lines().rev().skip(usize::from(!text[..start].ends_with('\n')));
    for line in above.map(str::trim) {
        if line.starts_with("#[") || line.starts_with("#![") {
            continue;
        }
        return line.starts_with("//") && !line.starts_with("///") && !line.starts_with("//!");
    }
    false
}

/// A lint that a manifest allows needs its reason as much as one in the code.
fn allowed_in_manifest(file: &File, findings: &mut Vec<Finding>) {
    if file.path.file_name().is_none_or(|name| name != "Cargo.toml") {
        return;
    }
    let mut before = "";
    for (index, line) in file.text.lines().enumerate() {
        let setting = line.split('#').next().unwrap_or("");
        let allows = setting.contains("= \"allow\"") || setting.contains("level = \"allow\"");
        if allows && !line.contains('#') && !before.starts_with('#') {
            findings.push(Finding::new(
                &file.path,
                index + 1,
                "a lint is allowed without its reason",
                "add a comment on the line before",
            ));
        }
        before = line.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    #[track_caller]
    fn check_silenced(text: &str, expected: usize) {
        let file = RustFile { path: "a.rs".into(), source: Source::new(text.to_string()) };
        let mut findings = Vec::new();
        silenced(&file, &mut findings);
        assert_eq!(findings.len(), expected, "{text}: {findings:?}");
    }

    #[test]
    fn a_silenced_lint_needs_its_reason_beside_it() {
        check_silenced("#[allow(dead_code)]\nfn f() {}", 1);
        check_silenced("#![allow(dead_code)]", 1);
        check_silenced("#[expect(dead_code)]", 1);
        check_silenced("#[cfg_attr(test, allow(dead_code))]", 1);
        check_silenced("/// Documentation is no reason.\n#[allow(dead_code)]", 1);
        check_silenced("// used by the other target\n#[allow(dead_code)]", 0);
        check_silenced("// used there\n#[inline]\n#[allow(dead_code)]", 0);
        check_silenced("    // used there\n    #[allow(dead_code)]", 0);
        check_silenced("#[allow(dead_code)] // used there", 0);
        check_silenced("#[allow(dead_code, reason = \"used there\")]", 0);
        check_silenced("// #[allow(dead_code)]\nlet s = \"#[allow(x)]\";", 0);
        check_silenced("#[deny(warnings)] #[derive(Debug)]", 0);
    }

    #[test]
    fn an_ignored_test_needs_its_reason_beside_it() {
        check_silenced("#[test]\n#[ignore]\nfn f() {}", 1);
        check_silenced("#[test]\n#[ignore = \"needs root\"]\nfn f() {}", 0);
    }
}
