//! `cargo xtask mutants`: evidence that the guards guard.
//!
//! Each `tests/mutants/*.patch` puts one known mistake back. It is applied in a scratch worktree of `HEAD`, with a
//! target folder of its own, and the test that it names must fail there. That same test must pass without it, or its
//! failing would say nothing.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::{self, Outcome};
use crate::workspace::Workspace;

/// Puts each known mistake back and expects its test to fail
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Only the patches whose name contains this
    pub(crate) filter: Option<String>,
    /// Only see whether they apply
    #[arg(long)]
    pub(crate) apply: bool,
}

/// How long one build, or one test, may take. A test that hangs on a mistake has caught it.
const LIMIT: Duration = Duration::from_secs(600);

/// What a patch says about itself in the comment lines before its first hunk.
#[derive(Debug)]
pub struct Header {
    /// The package whose test it is.
    pub package: String,
    /// Arguments of `cargo test`: a filter, perhaps after `--test NAME` or `--lib`.
    pub test: Vec<String>,
    /// The mistake, in a sentence.
    pub why: String,
}

impl Header {
    /// Reads the lines `# package:`, `# test:` and `# why:`.
    ///
    /// # Errors
    ///
    /// When one of them is missing or empty.
    pub fn parse(patch: &str) -> Result<Header> {
        let field = |name: &str| {
            patch
                .lines()
                .take_while(|line| !line.starts_with("--- ") && !line.starts_with("diff "))
                .find_map(|line| line.strip_prefix("# ")?.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .filter(|value| !value.is_empty())
                .with_context(|| format!("the patch lacks its line `# {name}: …`"))
        };
        Ok(Header {
            package: field("package")?.to_string(),
            test: field("test")?.split_whitespace().map(str::to_string).collect(),
            why: field("why")?.to_string(),
        })
    }
}

struct Mutant {
    name: String,
    path: PathBuf,
    header: Header,
}

/// The end of all mutants.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those whose test failed, as it must; or those that apply, where that is all that was asked.
    pub good: usize,
    /// Those that survived, did not apply, or did not build.
    pub failed: usize,
}

/// Runs the command.
///
/// # Errors
///
/// When a mistake survives, a patch no longer applies, or git or cargo fail.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let tally = all(&workspace, args)?;
    let good = if args.apply { "apply" } else { "caught" };
    let closing = format!("mutants: {} {good}, {} failed", tally.good, tally.failed);
    ensure!(tally.failed == 0, "{closing}");
    println!("{closing}");
    Ok(())
}

/// Runs every mutant that the arguments choose.
///
/// # Errors
///
/// When the scratch worktree cannot be made or a patch cannot be read. Survivors are counted, not errors.
pub fn all(workspace: &Workspace, args: &Args) -> Result<Tally> {
    let mutants = read(&workspace.root.join("tests/mutants"), args.filter.as_deref())?;
    let mut tally = Tally::default();
    if mutants.is_empty() {
        return Ok(tally);
    }
    let bench = Bench::new(workspace)?;
    for mutant in &mutants {
        let start = Instant::now();
        let verdict = if args.apply {
            bench.apply(mutant, false).and_then(|()| bench.apply(mutant, true)).map(|()| None)
        } else {
            bench.try_one(mutant).map(Some)
        };
        let took = run::duration(start.elapsed());
        match verdict {
            Ok(how) => {
                tally.good += 1;
                if let Some(how) = how {
                    println!("caught    {} ({how}, {took})", mutant.name);
                }
            }
            Err(error) => {
                tally.failed += 1;
                println!("FAILED    {} ({took}): {error:#}", mutant.name);
                println!("          the mistake: {}", mutant.header.why);
            }
        }
    }
    Ok(tally)
}

fn read(folder: &Path, filter: Option<&str>) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".patch") || filter.is_some_and(|part| !name.contains(part)) {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let header = Header::parse(&text).with_context(|| format!("tests/mutants/{name}"))?;
        mutants.push(Mutant { name, path, header });
    }
    // Those of one package one after the other: what it builds is built once.
    mutants.sort_by(|a, b| (&a.header.package, &a.name).cmp(&(&b.header.package, &b.name)));
    Ok(mutants)
}

/// The scratch worktree, removed at the end.
struct Bench {
    tree: PathBuf,
    target: PathBuf,
    passed: RefCell<Vec<(String, Vec<String>)>>,
    guard: Child,
}

/// Removes the worktree when its stdin ends: so also when we are killed or interrupted.
const GUARD: &str = r#"
trap "" INT HUP TERM
read -r _
git worktree remove --force --force "$1" 2>/dev/null
rm -rf "$1"
git worktree prune
"#;

impl Bench {
    fn new(workspace: &Workspace) -> Result<Bench> {
        let home = workspace.target.join("mutants");
        let tree = home.join("tree");
        std::fs::create_dir_all(&home)?;
        // What an earlier run that was killed outright may have left.
        guard(&workspace.root, &tree)?.wait()?;
        let mut guard = guard_until_dropped(&workspace.root, &tree)?;
        let added = run::read(
            Command::new("git")
                .current_dir(&workspace.root)
                .args(["worktree", "add", "--quiet", "--detach"])
                .arg(&tree)
                .arg("HEAD"),
        );
        if let Err(error) = added {
            drop(guard.stdin.take());
            guard.wait()?;
            return Err(error);
        }
        // Deep enough that programs in it do not find the agents that lie in the outer build folder: they have no mistake.
        Ok(Bench { tree, target: home.join("build/target"), passed: RefCell::default(), guard })
    }

    /// How the mistake was caught; an error when it was not.
    fn try_one(&self, mutant: &Mutant) -> Result<&'static str> {
        self.must_pass_without(&mutant.header)?;
        self.apply(mutant, false).context("the patch does not apply; renew it")?;
        let verdict = self.judge(&mutant.header);
        self.apply(mutant, true).context("the patch cannot be taken back")?;
        verdict
    }

    fn apply(&self, mutant: &Mutant, back: bool) -> Result<()> {
        let mut command = Command::new("git");
        command.current_dir(&self.tree).arg("apply");
        if back {
            command.arg("--reverse");
        }
        run::read(command.arg(&mutant.path)).map(drop)
    }

    fn must_pass_without(&self, header: &Header) -> Result<()> {
        let key = (header.package.clone(), header.test.clone());
        if self.passed.borrow().contains(&key) {
            return Ok(());
        }
        self.forget_agents()?;
        let outcome = self.cargo(header, false)?;
        ensure!(outcome.success(), "its test fails without the mistake too:\n{}", tail(&outcome.output));
        ensure!(
            passed(&outcome.output) > 0,
            "`cargo test -p {} {}` runs no test",
            header.package,
            header.test.join(" ")
        );
        self.passed.borrow_mut().push(key);
        Ok(())
    }

    fn judge(&self, header: &Header) -> Result<&'static str> {
        let built = self.cargo(header, true)?;
        if !built.success() {
            bail!("the mistake does not build; renew the patch:\n{}", tail(&built.output));
        }
        self.forget_agents()?;
        let outcome = self.cargo(header, false)?;
        if outcome.timed_out {
            return Ok("its test never ended");
        }
        ensure!(!outcome.status.success(), "the mistake survives its test");
        Ok("its test failed")
    }

    /// Removes the agents that a test had built: of other sources than those that it is to be run with. What they were
    /// built in stays, and is looked at anew by who builds them.
    fn forget_agents(&self) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(self.target.join("agents")) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            if path.is_file() {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn cargo(&self, header: &Header, only_build: bool) -> Result<Outcome> {
        let mut command = run::cargo_in(&self.tree);
        command
            .args(["test", "--quiet", "--package", &header.package])
            .args(&header.test)
            .env("CARGO_TARGET_DIR", &self.target);
        if only_build {
            command.arg("--no-run");
        }
        run::run(&mut command, LIMIT, false)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // A guard that cannot be waited for has ended.
        let _ = self.guard.wait();
    }
}

/// A guard whose stdin is at its end from the start: it cleans up at once.
fn guard(root: &Path, tree: &Path) -> Result<Child> {
    let mut child = guard_until_dropped(root, tree)?;
    drop(child.stdin.take());
    Ok(child)
}

fn guard_until_dropped(root: &Path, tree: &Path) -> Result<Child> {
    Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(tree)
        .current_dir(root)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start sh")
}

/// How many tests passed, over all of cargo's result lines.
fn passed(output: &str) -> u64 {
    super::test::counts::libtest(output).passed
}

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str =
        "# package: offshoot-route\n# test: --test hostile a_child\n# why: tables.\ndiff --git a/x b/x\n";

    #[test]
    fn a_header_names_package_test_and_mistake() {
        let header = Header::parse(PATCH).unwrap();
        assert_eq!(header.package, "offshoot-route");
        assert_eq!(header.test, ["--test", "hostile", "a_child"]);
        assert_eq!(header.why, "tables.");
    }

    #[test]
    fn a_header_without_its_test_is_refused() {
        for missing in ["# package: offshoot-route\n", "# test: --test hostile a_child\n", "# why: tables.\n"] {
            assert!(Header::parse(&PATCH.replace(missing, "")).is_err(), "{missing}");
        }
        let late = format!("diff --git a/x b/x\n{PATCH}");
        assert!(Header::parse(&late).is_err(), "fields after the diff began");
    }
}
