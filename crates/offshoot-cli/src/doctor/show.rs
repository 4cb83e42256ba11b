//! The doctor's report: for people in columns, for programs as JSON Lines. Whatever came from a target is escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use offshoot::escape::escaped;
use serde::Serialize;

use super::{Agent, Hop};
use crate::options::Look;
use crate::output::fault_block;

/// The report of one hop.
pub(crate) fn draw(hop: &Hop, look: &Look) -> String {
    let palette = &look.palettes[0];
    let mut text = format!("{0}{1}{0:#}\n", palette.name, escaped(hop.path.as_bytes()));
    let (good, bad, remark) = if look.unicode { ("✓", "✗", "!") } else { ("ok", "NO", "!") };
    let width = hop.stages.iter().map(|stage| stage.name.chars().count()).max().unwrap_or(0);
    for stage in &hop.stages {
        let (mark, style) = if stage.failed { (bad, palette.error) } else { (good, Default::default()) };
        let took = stage.took.map(|took| format!("{:>10}", duration(took))).unwrap_or_default();
        let line = format!("  {style}{mark:<2}{style:#} {:<width$}{took}", escaped(stage.name.as_bytes()).to_string());
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let rows = rows(hop);
    for (name, value) in &rows {
        let _ = writeln!(text, "     {0}{name:<9}{0:#} {1}", palette.faint, escaped(value.as_bytes()));
    }
    for finding in &hop.findings {
        let (mark, style) = if finding.serious { (bad, palette.error) } else { (remark, palette.error_name) };
        let _ = writeln!(text, "  {style}{mark:<2}{style:#} {}", escaped(finding.what.as_bytes()));
        let _ = writeln!(text, "     {0}hint{0:#}      {1}", palette.faint, finding.hint);
    }
    if let Some(fault) = &hop.fault {
        text += &fault_block(fault, &[], &[], palette);
    } else if hop.findings.is_empty() {
        let _ = writeln!(text, "  {good:<2} nothing stands in the way");
    }
    text
}

/// What is known of a hop, as names and values.
fn rows(hop: &Hop) -> Vec<(&'static str, String)> {
    let facts = &hop.facts;
    let mut rows = Vec::new();
    if let Some(Agent { user, uid, host, .. }) = &hop.agent {
        let umask = facts.text("umask").map(|umask| format!(", umask {umask}")).unwrap_or_default();
        let home = facts.text("home").map(|home| format!(", home {home}")).unwrap_or_default();
        rows.push(("account", format!("{user} ({uid}) on {host}{home}{umask}")));
    }
    if let Some(kernel) = facts.text("kernel") {
        let distribution = facts.text("distribution").map(|name| format!(", {name}")).unwrap_or_default();
        rows.push(("system", format!("{kernel}{distribution}")));
    }
    if let Some(Agent { triple, version, pid, at_hand, .. }) = &hop.agent {
        let runs = match (facts.in_memory(), facts.text("image")) {
            (Some(true), _) => ", runs from memory".to_owned(),
            (Some(false), Some(image)) => format!(", runs from {image}"),
            _ => String::new(),
        };
        rows.push(("agent", format!("{triple} {version}, pid {pid}{runs}")));
        if let Some((sent, from)) = at_hand {
            rows.push(("at hand", format!("{} as it travels, from {from}", kib(sent.div_ceil(1024)))));
        }
    }
    if facts.is_whole() {
        rows.push(("starts by", facts.ways().join(", else ")));
    }
    for folder in &facts.folders {
        let free = folder.free_kib.map(|free| format!(", {} free", kib(free))).unwrap_or_default();
        let what = match folder.what {
            super::facts::Use::Runs => "programs run",
            super::facts::Use::NoExec => "written, not run",
            super::facts::Use::Closed => "not written",
        };
        rows.push(("folder", format!("{:<16} {what}{free}", folder.path)));
    }
    if let Some(limits) = limits(hop) {
        rows.push(("limits", limits));
    }
    let load = facts.text("load").and_then(|load| load.split(' ').next()).map(|load| format!("load {load}"));
    let memory = facts.number("memory").map(|free| format!("{} of memory available", kib(free)));
    let state: Vec<String> = [load, memory].into_iter().flatten().collect();
    if !state.is_empty() {
        rows.push(("state", state.join(", ")));
    }
    if let Some(tools) = facts.text("tools") {
        rows.push(("tools", tools.to_owned()));
    }
    rows
}

fn limits(hop: &Hop) -> Option<String> {
    let facts = &hop.facts;
    let pair = |name: &str| facts.text(name).map(|pair| pair.replacen(' ', " of ", 1));
    let files = pair("files").map(|files| format!("descriptors {files}"));
    let processes = facts.text("processes").and_then(|pair| pair.split(' ').next());
    let processes = processes.map(|most| match facts.text("running") {
        Some(running) => format!("processes {most} ({running} run)"),
        None => format!("processes {most}"),
    });
    let group = facts.text("group_max").map(|most| format!("control group {most}"));
    let all: Vec<String> = [files, processes, group].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn duration(took: Duration) -> String {
    match took.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

/// `312 KiB`, `1.5 MiB`.
fn kib(count: u64) -> String {
    match count {
        0..1024 => format!("{count} KiB"),
        1024..1_048_576 => format!("{:.1} MiB", count as f64 / 1024.0),
        _ => format!("{:.1} GiB", count as f64 / 1_048_576.0),
    }
}

/// One hop as a record; its fields are only ever added to.
#[derive(Serialize)]
struct Record<'a> {
    r#type: &'static str,
    hop: &'a str,
    path: &'a str,
    reached: bool,
    stages: Vec<StageRecord<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentRecord<'a>>,
    facts: BTreeMap<&'a str, &'a str>,
    folders: Vec<FolderRecord<'a>>,
    findings: Vec<FindingRecord<'a>>,
}

#[derive(Serialize)]
struct StageRecord<'a> {
    stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    failed: bool,
}

#[derive(Serialize)]
struct AgentRecord<'a> {
    user: &'a str,
    uid: u32,
    host: &'a str,
    pid: u32,
    triple: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
}

#[derive(Serialize)]
struct FolderRecord<'a> {
    path: &'a str,
    r#use: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_kib: Option<u64>,
}

#[derive(Serialize)]
struct FindingRecord<'a> {
    serious: bool,
    message: &'a str,
    hint: &'a str,
}

/// The record of one hop. Its fault, if it has one, is a record of its own.
pub(crate) fn append_record(hop: &Hop, text: &mut Vec<u8>) -> std::io::Result<()> {
    let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
    let record = Record {
        r#type: "hop",
        hop: &hop.name,
        path: &hop.path,
        reached: hop.agent.is_some(),
        stages: hop
            .stages
            .iter()
            .map(|stage| StageRecord { stage: &stage.name, seconds: stage.took.map(seconds), failed: stage.failed })
            .collect(),
        agent: hop.agent.as_ref().map(|agent| AgentRecord {
            user: &agent.user,
            uid: agent.uid,
            host: &agent.host,
            pid: agent.pid,
            triple: &agent.triple,
            version: &agent.version,
            sent: agent.at_hand.as_ref().map(|(sent, _)| *sent),
            from: agent.at_hand.as_ref().map(|(_, from)| from.as_str()),
        }),
        facts: hop.facts.all().collect(),
        folders: hop
            .facts
            .folders
            .iter()
            .map(|folder| FolderRecord { path: &folder.path, r#use: folder.what.word(), free_kib: folder.free_kib })
            .collect(),
        findings: hop
            .findings
            .iter()
            .map(|finding| FindingRecord { serious: finding.serious, message: &finding.what, hint: finding.hint })
            .collect(),
    };
    crate::output::append_record(&record, text)
}

#[cfg(test)]
mod tests {
    use super::super::facts::Facts;
    use super::super::{Stage, findings};
    use super::*;
    use crate::fault::Fault;

    fn look(unicode: bool) -> Look {
        Look { terminals: [false; 2], palettes: Default::default(), unicode, quiet: false }
    }

    fn hop() -> Hop {
        let stage = |name: &str, us| Stage { name: name.into(), took: Some(Duration::from_micros(us)), failed: false };
        let facts = Facts::read(
            b"kernel=Linux 6.1 x86_64\ndistribution=Debian \x1b[31m\nhome=/root\numask=0022\nperl=5.36.0\nproc=yes\n\
              terminals=yes\nimage=/memfd:o (deleted)\nfiles=1024 4096\nprocesses=100 200\nrunning=12\n\
              memory=2097152\nload=0.5 0.1 0.0 1/100 7\ntools=ssh sudo\nfolder=runs 2048 /tmp\nfolder=noexec 9 /run\nend=end\n",
        );
        let agent = Agent {
            user: "ann\u{202e}".into(),
            uid: 1000,
            host: "web1".into(),
            pid: 7,
            triple: "x86_64-unknown-linux-musl".into(),
            version: "0.1.0".into(),
            at_hand: Some((200_000, "/a/b (beside)".into())),
        };
        Hop {
            name: "web1".into(),
            path: "ssh:web1".into(),
            stages: vec![stage("starting the connection tool", 1200), stage("logging in", 12_340_000)],
            findings: findings::findings(&facts),
            agent: Some(agent),
            facts,
            fault: None,
        }
    }

    #[test]
    fn the_report_is_in_columns_and_escaped() {
        let expected = concat!(
            "ssh:web1\n",
            "  ✓  starting the connection tool    1.2 ms\n",
            "  ✓  logging in                      12.3 s\n",
            "     account   ann\\xe2\\x80\\xae (1000) on web1, home /root, umask 0022\n",
            "     system    Linux 6.1 x86_64, Debian \\x1b[31m\n",
            "     agent     x86_64-unknown-linux-musl 0.1.0, pid 7, runs from memory\n",
            "     at hand   196 KiB as it travels, from /a/b (beside)\n",
            "     starts by perl 5.36.0, else a file in /tmp\n",
            "     folder    /tmp             programs run, 2.0 MiB free\n",
            "     folder    /run             written, not run, 9 KiB free\n",
            "     limits    descriptors 1024 of 4096, processes 100 (12 run)\n",
            "     state     load 0.5, 2.0 GiB of memory available\n",
            "     tools     ssh sudo\n",
            "  ✓  nothing stands in the way\n",
        );
        assert_eq!(draw(&hop(), &look(true)), expected);
        assert!(draw(&hop(), &look(false)).is_ascii());
    }

    #[test]
    fn a_hop_that_was_not_reached_shows_the_stage_that_failed_and_the_error() {
        let stage = |name: &str, failed: bool| Stage {
            name: name.into(),
            took: failed.then_some(Duration::from_secs(2)),
            failed,
        };
        let fault =
            Fault { what: "cannot log in".into(), path: "ssh:x".into(), hint: "try".into(), ..Fault::default() };
        let hop = Hop {
            name: "x".into(),
            path: "ssh:x".into(),
            stages: vec![stage("starting the connection tool", false), stage("logging in", true)],
            fault: Some(Box::new(fault)),
            ..Hop::default()
        };
        let expected = concat!(
            "ssh:x\n",
            "  ok starting the connection tool\n",
            "  NO logging in                      2.00 s\n",
            "error: cannot log in on ssh:x\n",
            "  hint      try\n",
        );
        assert_eq!(draw(&hop, &look(false)), expected);
    }

    #[test]
    fn a_record_is_one_line_of_harmless_json() {
        let mut text = Vec::new();
        append_record(&hop(), &mut text).expect("a record");
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains(|c| offshoot::escape::is_dangerous(c) && c != '\n'), "{text:?}");
        let record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(record["stages"][1]["seconds"], 12.34);
        assert_eq!((&record["agent"]["sent"], &record["facts"]["perl"]), (&200_000.into(), &"5.36.0".into()));
        assert_eq!((&record["folders"][1]["use"], &record["reached"]), (&"noexec".into(), &true.into()));
    }
}
