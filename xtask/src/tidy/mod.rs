//! The rules of the workspace that no compiler checks.
//!
//! A library function, so that it runs inside the tests too. Each rule is one function from the workspace to
//! findings; [`check`] runs them all. Reads files and asks cargo and git, changes nothing.

mod arrows;
mod attributes;
mod crates;
mod files;
mod named;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::source::Source;
use crate::workspace::Workspace;

/// Something that a rule does not allow.
#[derive(Debug)]
pub struct Finding {
    /// The file, from the root of the workspace.
    pub file: PathBuf,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub fix: String,
    /// A warning is printed and fails nothing.
    pub warning: bool,
}

impl Finding {
    fn new(file: impl Into<PathBuf>, line: usize, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { file: file.into(), line, what: what.into(), fix: fix.into(), warning: false }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.warning { "warning" } else { "error" };
        write!(f, "{}:{}: {level}: {}", self.file.display(), self.line, self.what)?;
        write!(f, "\n  fix: {}", self.fix)
    }
}

/// What a run of all rules saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Errors and warnings, by file and line.
    pub findings: Vec<Finding>,
    /// How many files were read.
    pub files: usize,
}

impl Report {
    /// How many findings fail the check.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|f| !f.warning).count()
    }
}

/// A file of the project and its text.
struct File {
    /// From the root of the workspace.
    path: PathBuf,
    text: String,
}

impl File {
    fn extension(&self) -> &str {
        self.path.extension().and_then(|e| e.to_str()).unwrap_or("")
    }
}

/// A Rust file of the project.
struct RustFile {
    path: PathBuf,
    source: Source,
}

/// Everything that the rules look at, read once.
struct Tree<'a> {
    workspace: &'a Workspace,
    files: Vec<File>,
    rust: Vec<RustFile>,
}

/// Files larger than this are data, not text to check: 2 MiB.
const LARGEST_FILE: u64 = 2 << 20;

/// Runs every rule over the workspace.
///
/// # Errors
///
/// When a file or cargo's answer cannot be read. What the rules find is in the report.
pub fn check(workspace: &Workspace) -> Result<Report> {
    let files = read(&workspace.root)?;
    let rust = files
        .iter()
        .filter(|file| file.extension() == "rs")
        .map(|file| RustFile { path: file.path.clone(), source: Source::new(file.text.clone()) })
        .collect();
    let tree = Tree { workspace, files, rust };
    let mut findings = Vec::new();
    arrows::check(&tree, &mut findings)?;
    crates::check(&tree, &mut findings);
    sources::check(&tree, &mut findings);
    attributes::check(&tree, &mut findings);
    files::check(&tree, &mut findings);
    named::check(&tree, &mut findings);
    findings.sort_by(|a, b| (&a.file, a.line, &a.what).cmp(&(&b.file, b.line, &b.what)));
    Ok(Report { findings, files: tree.files.len() })
}

/// The text files that git tracks or would track.
fn read(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in listed(root)? {
        let full = root.join(&path);
        let Ok(meta) = full.symlink_metadata() else {
            continue;
        };
        if !meta.is_file() || meta.len() > LARGEST_FILE {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {}", path.display()))?;
        if !bytes.contains(&0)
            && let Ok(text) = String::from_utf8(bytes)
        {
            files.push(File { path, text });
        }
    }
    Ok(files)
}

fn listed(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    anyhow::ensure!(
        output.status.success(),
        "git ls-files failed\n{}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    let text = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    Ok(text.split_terminator('\0').map(PathBuf::from).collect())
}
