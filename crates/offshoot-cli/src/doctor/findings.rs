//! What to think of what a target has: what would fail, why, and what to do.

use super::facts::{Facts, Use};

/// Something worth knowing about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Whether something will fail, not only may.
    pub(crate) serious: bool,
    /// One sentence, lower case, without a full stop. May hold foreign text.
    pub(crate) what: String,
    pub(crate) hint: &'static str,
}

/// Contexts below a host cost four descriptors each; fewer than this would hold back a few dozen of them.
const FILES_FEW: u64 = 256;
/// An agent is two processes, and each of its connects a tool and a thread.
const PROCESSES_FEW: u64 = 32;
/// An agent takes a few MiB, with its buffers at work some ten more.
const MEMORY_FEW_KIB: u64 = 64 * 1024;
/// What the loader needs of a folder, generously.
const FOLDER_FEW_KIB: u64 = 8;

/// What is to be said of a target, the serious first.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |serious, what: String, hint| found.push(Finding { serious, what, hint });
    if !facts.is_whole() {
        say(true, "the target did not answer all questions".into(), "what is shown is what it told; -v says more");
    }
    let interpreter = facts.text("perl").or(facts.text("python3"));
    let refused = facts.refuses_memory();
    let runs = facts.folders.iter().filter(|folder| folder.what == Use::Runs);
    let roomy = runs.filter(|folder| folder.free_kib.is_none_or(|free| free >= FOLDER_FEW_KIB)).count();
    match (interpreter.is_some() && !refused, roomy) {
        (false, 0) if !facts.folders.is_empty() => say(
            true,
            "no way to start an agent is left: no perl or python3 that gets a file in memory, and no folder with room where programs may run".into(),
            "a folder of a few KiB is enough: mount one without noexec, or install perl",
        ),
        (false, 1) => say(
            false,
            "one folder alone lets an agent start here: without it there is no other way".into(),
            "perl or python3 would be a second way",
        ),
        _ => {}
    }
    if refused {
        say(
            false,
            "files in memory are refused: the agent runs from an unlinked file".into(),
            "it works as it is, while one folder allows it",
        );
    }
    if facts.text("proc") == Some("no") {
        say(
            false,
            "/proc is not mounted: what leaves its session and clears its environment may be left behind".into(),
            "mount /proc there",
        );
    }
    if facts.text("terminals") == Some("no") {
        say(true, "there are no pseudo-terminals: `offshoot shell` will fail".into(), "mount devpts on /dev/pts there");
    }
    if let Some(hard) = facts.hard("files").filter(|hard| *hard < FILES_FEW) {
        let what = format!("at most {hard} descriptors: about {} contexts or commands at once", hard / 4);
        say(false, what, "raise the hard limit of this login: ulimit -Hn, limits.conf");
    }
    let left = |most: Option<u64>, now: Option<u64>| Some(most?.saturating_sub(now?));
    let group = left(facts.number("group_max"), facts.number("group_now"));
    if let Some(left) = group.filter(|left| *left < PROCESSES_FEW) {
        say(
            false,
            format!("{left} more processes are allowed by the control group"),
            "raise pids.max of its control group: TasksMax of the unit, --pids-limit of the container",
        );
    }
    if let Some(hard) = facts.hard("processes").filter(|hard| *hard < PROCESSES_FEW) {
        say(false, format!("at most {hard} processes of this user"), "raise the hard limit of this login: ulimit -Hu");
    }
    if let Some(free) = facts.number("memory").filter(|free| *free < MEMORY_FEW_KIB) {
        say(false, format!("{} MiB of memory are available", free / 1024), "programs there may be ended for it");
    }
    for folder in facts.folders.iter().filter(|folder| folder.free_kib == Some(0)) {
        say(false, format!("no space is left in {}", folder.path), "programs that write there will fail");
    }
    if facts.is_whole() && !facts.text("tools").is_some_and(|tools| tools.split(' ').any(|tool| tool == "ssh")) {
        say(
            false,
            "there is no ssh: no hop behind this one can be reached by it".into(),
            "install an ssh client there",
        );
    }
    found.sort_by_key(|finding| !finding.serious);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "image=/memfd:offshoot (deleted)\nperl=5.36.0\nproc=yes\nterminals=yes\nfiles=1024 1048576\n\
        processes=100 unlimited\nmemory=4000000\ntools=ssh sudo\nfolder=runs 900 /tmp\nfolder=noexec 900 /run\nend=end\n";

    /// What is said when these lines are other than on a target where all is well.
    fn said(changes: &[(&str, &str)]) -> Vec<(bool, String)> {
        let changed = |line: &str| changes.iter().any(|(begin, _)| line.starts_with(begin));
        let kept: String = GOOD.lines().filter(|line| !changed(line)).map(|line| format!("{line}\n")).collect();
        let new: String = changes.iter().map(|(_, line)| format!("{line}\n")).collect();
        let found = findings(&Facts::read((kept + &new).as_bytes()));
        assert!(found.iter().all(|finding| !finding.hint.is_empty()));
        found.into_iter().map(|finding| (finding.serious, finding.what)).collect()
    }

    #[test]
    fn a_target_where_all_is_well_gets_no_remark() {
        assert_eq!(said(&[]), []);
    }

    #[test]
    fn what_would_fail_is_said_first() {
        let all = said(&[("terminals", "terminals=no"), ("tools", "tools=sudo"), ("proc", "proc=no")]);
        assert_eq!(all.iter().map(|(serious, _)| *serious).collect::<Vec<_>>(), [true, false, false]);
        for (changes, part) in [
            (&[("perl", ""), ("folder", "folder=noexec 1 /tmp")][..], "no way to start an agent"),
            (&[("image", "image=/tmp/.x (deleted)"), ("folder", "folder=runs 2 /tmp")], "no way to start an agent"),
            (&[("perl", "")], "one folder alone"),
            (&[("image", "image=/dev/shm/.oX (deleted)")], "files in memory are refused"),
            (&[("proc", "proc=no")], "/proc is not mounted"),
            (&[("files", "files=64 64")], "at most 64 descriptors"),
            (&[("x", "group_max=20"), ("y", "group_now=15")], "5 more processes"),
            (&[("processes", "processes=9 9")], "at most 9 processes"),
            (&[("memory", "memory=2048")], "2 MiB of memory"),
            (&[("x", "folder=runs 0 /full")], "no space is left in /full"),
            (&[("end", "")], "did not answer all"),
        ] {
            let all = said(changes);
            assert!(all.iter().any(|(_, what)| what.contains(part)), "{changes:?}: {all:?}");
        }
    }

    #[test]
    fn limits_that_are_none_are_no_matter() {
        assert_eq!(said(&[("x", "group_max=max"), ("y", "group_now=7"), ("files", "files=unlimited unlimited")]), []);
    }
}
