//! The rules of the workspace hold.

use xtask::tidy;
use xtask::workspace::Workspace;

#[test]
fn the_workspace_keeps_its_rules() {
    let workspace = Workspace::load().unwrap();
    let report = tidy::check(&workspace).unwrap();
    assert!(report.files > 0, "no file was read");
    let broken: Vec<String> =
        report.findings.iter().filter(|finding| !finding.warning).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
