//! The program as it is started: the limit's verbs, and the sweeper.

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_offshoot-bench"))
}

/// The program with remote functions.
const CALLS: &str = env!("CARGO_BIN_EXE_offshoot-bench-calls");

/// The object that a verb prints; the first, where it holds.
fn measure(words: &[&str]) -> Value {
    measure_by(program(), words)
}

fn measure_by(mut program: Command, words: &[&str]) -> Value {
    let output = program.args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let first = output.stdout.split(|b| *b == b'\n').next().unwrap_or_default();
    serde_json::from_slice(first).unwrap_or_else(|e| panic!("{words:?} printed no object: {e}"))
}

fn positive(line: &Value, names: &[&str]) {
    for name in names {
        assert!(line[name].as_f64().is_some_and(|v| v > 0.0), "{name} in {line}");
    }
}

#[test]
fn the_limit_answers_each_verb_of_the_contract() {
    positive(&measure(&["limit", "connect", "local"]), &["connect_s", "first_call_s", "shutdown_s", "total_s"]);
    positive(
        &measure(&["limit", "connect_warm", "local", "3"]),
        &["first_s", "next_p50_s", "next_min_s", "next_max_s"],
    );
    let latency = measure(&["limit", "latency", "local", "100", "20"]);
    positive(&latency, &["p50_us", "p99_us", "min_us", "max_us", "mean_us", "switches_per_call"]);
    assert_eq!(latency["n"], 20);
    positive(&measure(&["limit", "latency", "local4", "65536", "5"]), &["p50_us"]);
    positive(&measure(&["limit", "pipeline", "local2", "3000"]), &["wall_s", "calls_per_s"]);
    for how in ["up", "down"] {
        let bulk = measure(&["limit", "bulk", "local3", how, "1000001"]);
        assert_eq!(bulk["bytes"], 1_000_001);
        positive(&bulk, &["wall_s", "MiB_s"]);
    }
    positive(&measure(&["limit", "fanout", "local", "5"]), &["total_s"]);
    positive(&measure(&["limit", "tree", "local", "2", "2", "1"]), &["total_s"]);
    positive(&measure(&["limit", "scale", "local", "12"]), &["early_p50_s", "late_p50_s", "alone_us", "among_us"]);
}

#[test]
fn offshoot_answers_each_verb_of_the_contract() {
    let phases = ["connect_s", "first_call_s", "shutdown_s", "total_s", "mono_connected", "mono_called"];
    let connect = measure(&["connect", "local2"]);
    positive(&connect, &phases);
    assert!(connect["mono_called"].as_f64() > connect["mono_connected"].as_f64(), "{connect}");
    positive(&measure(&["connect_warm", "local", "3"]), &["first_s", "next_p50_s", "next_min_s", "next_max_s"]);
    let latency = measure(&["latency", "local", "65536", "10"]);
    positive(&latency, &["p50_us", "p99_us", "min_us", "max_us", "mean_us", "switches_per_call"]);
    assert_eq!(latency["n"], 10);
    positive(&measure(&["latency", "local3", "0", "10"]), &["p50_us"]);
    positive(&measure(&["pipeline", "local", "300"]), &["wall_s", "calls_per_s"]);
    for how in ["up", "down"] {
        let bulk = measure(&["bulk", "local2", how, "1000001"]);
        assert_eq!(bulk["bytes"], 1_000_001);
        positive(&bulk, &["wall_s", "MiB_s", "largest_kib"]);
    }
    positive(&measure(&["beside", "local", "1000001"]), &["p99_us", "MiB_s"]);
    positive(&measure(&["fanout", "local", "4"]), &["total_s"]);
    positive(&measure(&["tree", "local", "2", "1", "1"]), &["total_s"]);
    positive(&measure(&["scale", "local", "6"]), &["early_p50_s", "late_p50_s", "alone_us", "among_us"]);
}

#[test]
fn the_program_with_remote_functions_answers_its_verbs() {
    let calls = |words: &[&str]| measure_by(Command::new(CALLS), words);
    let latency = calls(&["call", "local2", "10"]);
    positive(&latency, &["p50_us", "p99_us", "min_us", "max_us", "mean_us", "switches_per_call", "cpu_us_per_call"]);
    assert_eq!(latency["n"], 10);
    positive(&calls(&["call_pipeline", "local", "300"]), &["wall_s", "issue_s", "calls_per_s"]);
    let length = std::fs::metadata(CALLS).unwrap().len();
    let first = calls(&["first", "local", &length.to_string()]);
    positive(&first, &["first_s", "second_s", "MiB_s", "sent_bytes"]);
    assert_eq!(first["image_bytes"], length);
    // A copy of the program needs no image; what goes there is a few frames.
    assert!(first["sent_bytes"].as_u64().is_some_and(|sent| sent < 10_000), "{first}");
    assert!(!Command::new(CALLS).args(["first", "local", "17"]).output().unwrap().status.success());
    assert!(calls(&["latency", "local", "0", "10"])["skip"].is_string());
    positive(&measure(&["limit", "call", "local", "20"]), &["p50_us", "switches_per_call"]);
    positive(&measure(&["limit", "call_pipeline", "local", "300"]), &["calls_per_s"]);
}

#[test]
fn what_an_anchor_cannot_do_is_skipped_by_its_own_words() {
    assert!(measure(&["limit", "modules", "direct", "x"])["skip"].is_string());
    assert!(measure(&["connect", "docker"])["skip"].is_string());
    assert!(measure(&["openssh", "latency", "local", "0", "10"])["skip"].is_string());
}

#[test]
fn a_tree_of_the_limit_ends_when_its_root_is_killed() {
    let mut root = program()
        .args(["limit", "tree", "local", "2", "2", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(root.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("ready"), "{line}");
    let below = below(root.id());
    assert_eq!(below.len(), 6, "2 and 2 below each of these");
    root.kill().unwrap();
    root.wait().unwrap();
    within(Duration::from_secs(5), || {
        below.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists() || zombie(*pid))
    });
}

/// All descendants of a process.
fn below(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = text.split_whitespace().filter_map(|p| p.parse().ok()).collect();
    let further = children.iter().flat_map(|p| below(*p)).collect();
    [children, further].concat()
}

fn zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
}

fn within(limit: Duration, done: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not done in {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Killed at the end whatever the test finds.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_sweeper_ends_what_a_killed_run_leaves_tagged_untagged_below_it_and_adopted() {
    let tag = format!("sweep-test-{}", std::process::id());
    let folder = std::env::temp_dir().join(format!("offshoot-bench-{tag}"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    let mut sweeper = program().arg("sweep").arg(&tag).arg(&folder).stdin(Stdio::piped()).spawn().unwrap();
    let sleep = || {
        let mut c = Command::new("sleep");
        c.arg("60");
        c
    };
    let mut tagged = Sleeper(sleep().env("OFFSHOOT_BENCH_RUN", &tag).spawn().unwrap());
    let mut adopted = Sleeper(sleep().spawn().unwrap());
    let mut other = Sleeper(sleep().spawn().unwrap());
    // Its child wipes the tag from its own environment.
    let script = "env -u OFFSHOOT_BENCH_RUN sleep 60 & wait";
    let mut parent = Sleeper(Command::new("sh").arg("-c").arg(script).env("OFFSHOOT_BENCH_RUN", &tag).spawn().unwrap());
    within(Duration::from_secs(5), || !below(parent.0.id()).is_empty());
    let untagged = below(parent.0.id());
    {
        use std::io::Write as _;
        let mut pipe = sweeper.stdin.take().unwrap();
        writeln!(pipe, "{}", adopted.0.id()).unwrap();
        // Dropped here: what the end of a suite looks like.
    }
    assert!(sweeper.wait().unwrap().success());
    for (name, child) in [("tagged", &mut tagged), ("parent", &mut parent), ("adopted", &mut adopted)] {
        within(Duration::from_secs(2), || zombie(child.0.id()));
        assert!(!child.0.wait().unwrap().success(), "{name} was not killed");
    }
    within(Duration::from_secs(2), || {
        untagged.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists() || zombie(*pid))
    });
    assert!(other.0.try_wait().unwrap().is_none(), "a process of someone else was killed");
    assert!(!folder.exists(), "the scratch folder is left");
}

#[test]
fn a_report_of_results_rewrites_only_the_part_between_the_markers() {
    let folder = std::env::temp_dir().join(format!("offshoot-bench-report-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (results, page) = (folder.join("r.jsonl"), folder.join("page.md"));
    let m = r#"{"p50_us": 9.5, "switches_per_call": 2.0}"#;
    let line =
        format!(r#"{{"run":"r","bench":"latency","variant":"local-0","impl":"limit","rep":0,"load1":0.1,"m":{m}}}"#);
    std::fs::write(&results, line).unwrap();
    std::fs::write(&page, "learned\n<!-- measured:begin -->\nold\n<!-- measured:end -->\nmore\n").unwrap();
    let status =
        program().arg("report").arg(&results).arg("--write").arg(&page).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("learned\n") && text.ends_with("\nmore\n") && !text.contains("old"), "{text}");
    assert!(text.contains("| 9.5 µs |"), "{text}");
    std::fs::remove_dir_all(&folder).unwrap();
}
