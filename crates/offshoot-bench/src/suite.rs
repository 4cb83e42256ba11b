//! The runner: for each measurement and repetition, every anchor in turn, in rotated order, each in a fresh process.
//!
//! Owns the run: sshd, relays, scratch folder, result lines. One thread but for the relays. Whatever an anchor leaves behind is
//! reported with its result, and killed before the next one starts.

use crate::anchor::{Programs, Run, Who};
use crate::calls_image;
use crate::contract;
use crate::delay::{Delay, Path as Way};
use crate::floor_build;
use crate::peers::{EXECNET, MITOGEN, Peers};
use crate::rows::{How, MEASUREMENTS, Measurement, Word};
use crate::sshd::Sshd;
use crate::sweep::Scratch;
use crate::watch::{Watch, contexts};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the command line asks for.
pub(crate) struct Options {
    /// Measurements by `bench` or `bench/variant`; all when empty.
    pub(crate) only: Vec<String>,
    /// Instead of each measurement's own number.
    pub(crate) repetitions: Option<u32>,
    pub(crate) who: Vec<Who>,
    pub(crate) quick: bool,
    /// Result lines are appended here.
    pub(crate) out: Option<PathBuf>,
    pub(crate) cache: PathBuf,
}

/// How long what an anchor started may take to end after it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the suite and returns its result lines.
pub(crate) fn run(options: &Options) -> Result<Vec<Value>> {
    let chosen = choose(&options.only)?;
    let mut suite = Suite::prepare(options)?;
    suite.environment();
    for measurement in chosen {
        suite.measure(measurement)?;
    }
    Ok(suite.lines)
}

fn choose(only: &[String]) -> Result<Vec<&'static Measurement>> {
    let full = |m: &Measurement| format!("{}/{}", m.bench, m.variant);
    if let Some(unknown) = only.iter().find(|o| !MEASUREMENTS.iter().any(|m| m.bench == o.as_str() || full(m) == **o)) {
        let names: Vec<String> = MEASUREMENTS.iter().map(full).collect();
        bail!("no measurement {unknown:?}; there are: {}", names.join(" "));
    }
    Ok(MEASUREMENTS.iter().filter(|m| only.is_empty() || only.iter().any(|o| m.bench == o || full(m) == *o)).collect())
}

struct Suite<'a> {
    options: &'a Options,
    programs: Programs,
    // Before the scratch folder: fields are dropped in this order, and sshd's files lie in that folder.
    // None where none can be started: what needs it is not measured.
    sshd: Option<Sshd>,
    scratch: Scratch,
    run: String,
    out: Option<File>,
    /// The CPU for pinned runs, and all that this process may use.
    pin: usize,
    cpus: CpuSet,
    lines: Vec<Value>,
}

impl<'a> Suite<'a> {
    fn prepare(options: &'a Options) -> Result<Self> {
        allow_descriptors();
        std::fs::create_dir_all(&options.cache)?;
        let mut scratch = Scratch::new()?;
        let floor = floor_build::build(&options.cache)
            .inspect_err(|e| eprintln!("the limit runs from this program, its processes start slower: {e:#}"))
            .ok();
        let wanted = options.who.iter().any(|w| matches!(w, Who::Mitogen | Who::Execnet));
        let peers = if wanted {
            Peers::prepare(&options.cache, scratch.folder())
                .inspect_err(|e| eprintln!("Mitogen and execnet are not measured: {e:#}"))
                .ok()
        } else {
            None
        };
        let sshd = Sshd::start(&mut scratch).inspect_err(|e| eprintln!("nothing over ssh is measured: {e:#}")).ok();
        let out = match &options.out {
            Some(path) => Some(
                File::options()
                    .append(true)
                    .create(true)
                    .open(path)
                    .with_context(|| format!("cannot open {}", path.display()))?,
            ),
            None => None,
        };
        let cpus = sched_getaffinity(None)?;
        let pin = (0..CpuSet::MAX_CPU).rev().find(|&c| cpus.is_set(c)).context("no CPU to run on")?;
        let own = std::env::current_exe()?;
        let calls = calls_image::beside(&own).inspect_err(|e| eprintln!("typed calls are not measured: {e:#}")).ok();
        let image = calls_image::image(&own, scratch.folder())
            .inspect_err(|e| eprintln!("no image's way is measured: {e:#}"))
            .ok();
        let programs = Programs { own, floor, calls, image, peers };
        Ok(Self { options, programs, sshd, scratch, run: date(), out, pin, cpus, lines: Vec::new() })
    }

    fn environment(&mut self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo")
            .lines()
            .find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, v)| v.to_owned()))
            .unwrap_or_default();
        let python = self.programs.peers.as_ref().map(|p| said(Command::new(&p.master).arg("-V")));
        let facts = json!({
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "cpu": cpu,
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "ssh": said(Command::new("ssh").arg("-V")),
            "python": python,
            "mitogen": MITOGEN,
            "execnet": EXECNET,
            "revision": said(Command::new("git").args(["describe", "--always", "--dirty"])),
            "debug_build": cfg!(debug_assertions),
            "quick": self.options.quick,
            "limit": if self.programs.floor.is_some() { "static program" } else { "this program" },
        });
        self.put("environment", "-", None, 0, facts);
    }

    fn put(&mut self, bench: &str, variant: &str, who: Option<Who>, repetition: u32, m: Value) {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: f64 = load.split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0);
        let line = json!({
            "run": self.run, "bench": bench, "variant": variant, "impl": who.map_or("-", Who::name), "rep": repetition,
            "load1": load, "m": m,
        });
        if let Some(out) = &mut self.out
            && let Err(e) = writeln!(out, "{line}")
        {
            eprintln!("cannot write the result: {e}");
        }
        eprintln!("{bench} {variant} {} {repetition}: {}", who.map_or("-", Who::name), line["m"]);
        self.lines.push(line);
    }

    fn measure(&mut self, measurement: &Measurement) -> Result<()> {
        if measurement.over_ssh() && self.sshd.is_none() {
            return Ok(());
        }
        let mut who: Vec<Who> = measurement.who.iter().copied().filter(|w| self.options.who.contains(w)).collect();
        let repetitions =
            self.options.repetitions.unwrap_or(if self.options.quick { 1 } else { measurement.repetitions });
        let mut out_of_it: HashSet<Who> = HashSet::new();
        for repetition in 0..repetitions {
            for &one in &who {
                let program = measurement.program();
                let Some(anchor) = self.programs.command(one, program).filter(|_| !out_of_it.contains(&one)) else {
                    continue;
                };
                let mut result = self.once(measurement, anchor)?;
                let left = self.scratch.settle(&self.servers(), PATIENCE);
                if result.get("skip").is_some() {
                    out_of_it.insert(one);
                    continue;
                }
                if result.get("error").is_some() {
                    out_of_it.insert(one);
                }
                derive(&mut result, left);
                self.put(measurement.bench, measurement.variant, Some(one), repetition, result);
            }
            let first = 1.min(who.len());
            who.rotate_left(first);
        }
        Ok(())
    }

    fn once(&self, measurement: &Measurement, anchor: Vec<OsString>) -> Result<Value> {
        let words: Vec<OsString> = measurement
            .words
            .iter()
            .map(|w| match *w {
                Word::Is(text) => text.into(),
                Word::Count(full, quick) => if self.options.quick { quick } else { full }.to_string().into(),
            })
            .collect();
        let mut run = Run {
            argv: [anchor.clone(), words.clone()].concat(),
            env: vec![("BENCH_STATE", self.scratch.folder().into())],
            tag: self.scratch.tag(),
            deadline: Duration::from_secs(if self.options.quick {
                measurement.deadline.min(20)
            } else {
                measurement.deadline
            }),
        };
        if let Some(sshd) = &self.sshd {
            run.env.push(("BENCH_SSH_CONFIG", sshd.config().into_os_string()));
        }
        if let Some(peers) = &self.programs.peers {
            run.env.push(("BENCH_PY", peers.child.clone().into_os_string()));
        }
        Ok(match measurement.how {
            How::Once => run.once(),
            How::Pinned => {
                self.pinned(&mut run);
                let result = run.once();
                self.unpin();
                result
            }
            How::Delayed(milliseconds) => {
                self.relayed(run, Way { round_trip: Duration::from_millis(milliseconds), rate: None })?
            }
            How::Throttled(rate) => self.relayed(run, Way { rate: Some(rate), ..Way::default() })?,
            How::Counted => self.counted(&mut run)?,
            How::Traced => self.traced(&mut run, &words)?,
            How::Held => self.watch(&run).held(contexts(&words)),
            How::Idle => self.watch(&run).idle(self.options.quick),
            How::Killed => self.watch(&run).killed(self.options.quick),
        })
    }

    /// What runs all the time, and may have children of a measurement.
    fn servers(&self) -> Vec<u32> {
        self.sshd.iter().map(Sshd::pid).collect()
    }

    fn watch<'r>(&self, run: &'r Run<'r>) -> Watch<'r> {
        Watch { run, servers: self.servers() }
    }

    fn pinned(&self, run: &mut Run<'_>) {
        let before = ["pin".into(), self.pin.to_string().into()];
        run.argv = [&[OsString::from(&self.programs.own)], &before[..], &run.argv].concat();
        let mut one = CpuSet::new();
        one.set(self.pin);
        self.bind_sshd(&one);
    }

    fn unpin(&self) {
        self.bind_sshd(&self.cpus);
    }

    /// What sshd starts from now on inherits this.
    fn bind_sshd(&self, cpus: &CpuSet) {
        let pid = self.sshd.as_ref().and_then(|s| Pid::from_raw(i32::try_from(s.pid()).ok()?));
        if let Some(pid) = pid
            && let Err(e) = sched_setaffinity(Some(pid), cpus)
        {
            eprintln!("cannot bind the sshd to a CPU: {e}");
        }
    }

    fn relayed(&self, mut run: Run<'_>, way: Way) -> Result<Value> {
        let sshd = self.sshd.as_ref().context("a relay needs the sshd")?;
        let relay = Delay::start(sshd.port(), way)?;
        let config = sshd.write_client_config("ssh_config_relayed", relay.port())?;
        // The last of a name is what counts.
        run.env.push(("BENCH_SSH_CONFIG", config.into_os_string()));
        let mut result = run.once();
        let (up, down) = relay.bytes();
        add(&mut result, "tcp_up", up.into());
        add(&mut result, "tcp_down", down.into());
        Ok(result)
    }

    fn counted(&self, run: &mut Run<'_>) -> Result<Value> {
        let folder = self.scratch.folder().join("shim");
        std::fs::create_dir_all(&folder)?;
        let (shim, log) = (folder.join("ssh"), folder.join("log"));
        if !shim.exists() {
            std::os::unix::fs::symlink(&self.programs.own, &shim)?;
        }
        let _ = std::fs::remove_file(&log); // absent the first time
        let path = std::env::var_os("PATH").unwrap_or_default();
        let real =
            std::env::split_paths(&path).map(|p| p.join("ssh")).find(|p| p.is_file()).context("no ssh in PATH")?;
        let with_shim = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path)))?;
        run.env.extend([
            ("BENCH_REAL_SSH", real.into_os_string()),
            ("BENCH_SHIM_LOG", log.clone().into_os_string()),
            ("BENCH_SSH_PATH", shim.into_os_string()),
            ("PATH", with_shim),
        ]);
        let mut result = run.once();
        self.scratch.settle(&self.servers(), PATIENCE);
        let Some(connected) = result.get("mono_connected").and_then(Value::as_f64) else {
            return Ok(result);
        };
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let Some(line) = text.lines().next().and_then(|l| serde_json::from_str::<Value>(l).ok()) else {
            return Ok(json!({ "error": "the counting ssh was not used" }));
        };
        let called = result.get("mono_called").and_then(Value::as_f64).unwrap_or(connected);
        let (up, down) = (events(&line["up"]), events(&line["down"]));
        for (events, until, after) in [(&up, "up_bytes", "calls_up_bytes"), (&down, "down_bytes", "calls_down_bytes")] {
            add(&mut result, until, bytes(events, f64::MIN..connected).into());
            add(&mut result, after, bytes(events, connected..called).into());
        }
        add(&mut result, "round_trips", round_trips(&up, &down, connected..called).into());
        for name in ["command_bytes", "argv_bytes"] {
            add(&mut result, name, line[name].clone());
        }
        Ok(result)
    }

    /// The difference of two counts: what starting and ending cost is in both.
    fn traced(&self, run: &mut Run<'_>, words: &[OsString]) -> Result<Value> {
        let count: u64 =
            words.last().and_then(|w| w.to_str()?.parse().ok()).context("a traced measurement ends in a count")?;
        let anchor = run.argv[..run.argv.len() - words.len()].to_vec();
        let log = self.scratch.folder().join("strace");
        let mut totals = Vec::new();
        for n in [count, 6 * count] {
            let mut argv: Vec<OsString> = ["strace", "-f", "-c", "-o"].map(OsString::from).to_vec();
            argv.push(log.clone().into_os_string());
            argv.extend(anchor.iter().chain(&words[..words.len() - 1]).cloned());
            argv.push(n.to_string().into());
            run.argv = argv;
            self.pinned(run);
            let result = run.once();
            self.unpin();
            if result.get("error").or_else(|| result.get("skip")).is_some() {
                return Ok(result);
            }
            self.scratch.settle(&self.servers(), PATIENCE);
            totals.push(
                traced_total(&std::fs::read_to_string(&log).unwrap_or_default()).context("strace printed no total")?,
            );
        }
        Ok(json!({ "syscalls_per_call": (totals[1] as f64 - totals[0] as f64) / (5 * count) as f64 }))
    }
}

/// The transfers of the counting ssh: when, and how many bytes.
fn events(list: &Value) -> Vec<(f64, u64)> {
    let event = |event: &Value| Some((event[0].as_f64()?, event[1].as_u64()?));
    list.as_array().into_iter().flatten().filter_map(event).collect()
}

fn bytes(events: &[(f64, u64)], within: Range<f64>) -> u64 {
    events.iter().filter(|(at, _)| within.contains(at)).map(|(_, bytes)| bytes).sum()
}

/// How often bytes came down behind others that went up.
fn round_trips(up: &[(f64, u64)], down: &[(f64, u64)], within: Range<f64>) -> u64 {
    let mut all: Vec<(f64, bool)> = up.iter().map(|(at, _)| (*at, true)).collect();
    all.extend(down.iter().map(|(at, _)| (*at, false)));
    all.retain(|(at, _)| within.contains(at));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.windows(2).filter(|pair| pair[0].1 && !pair[1].1).count() as u64
}

/// Adds a field to a result.
pub(crate) fn add(result: &mut Value, name: &str, value: Value) {
    if let Some(fields) = result.as_object_mut() {
        fields.insert(name.into(), value);
    }
}

/// Fields that the report wants and no anchor prints.
fn derive(result: &mut Value, left: usize) {
    let fields: &Map<String, Value> = match result.as_object() {
        Some(fields) => fields,
        None => return,
    };
    let field = |name: &str| fields.get(name).and_then(Value::as_f64);
    let called = match (field("connect_s"), field("first_call_s")) {
        (Some(connect), Some(call)) => Some(connect + call),
        _ => field("total_s"),
    };
    let ratio = |over: &str, under: &str| Some(field(over)? / field(under).filter(|u| *u > 0.0)?);
    let more = [
        ("called_s", called),
        ("late_over_early", ratio("late_p50_s", "early_p50_s")),
        ("among_over_alone", ratio("among_us", "alone_us")),
        ("left_behind", (left > 0).then_some(left as f64)),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            add(result, name, value.into());
        }
    }
}

/// The number of calls in the `total` line of `strace -c`.
fn traced_total(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|l| l.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// As many descriptors as may be had: the anchors with 2,000 links inherit it.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        eprintln!("cannot raise the limit of open files: {e}");
    }
}

fn date() -> String {
    let text = said(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]));
    if text.is_empty() { "unknown".into() } else { text }
}

/// The first line that a command prints, on either stream; empty when it cannot be run.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.stdin(std::process::Stdio::null()).output() else {
        return String::new();
    };
    if !output.status.success() {
        return String::new();
    }
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).lines().next().unwrap_or("").trim().to_owned()
}

/// Binds this process to a CPU and becomes the command.
pub(crate) fn pin(cpu: &str, command: &[OsString]) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let cpu = contract::number(cpu)?;
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).with_context(|| format!("cannot run on CPU {cpu}"))?;
    let (program, args) = command.split_first().context("no command")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot run {}", Path::new(program).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_found_with_and_without_errors() {
        let with = "100.00    0.012345           3      4110        17 total\n";
        let without = "100.00    0.000000           0       123           total\n";
        assert_eq!((traced_total(with), traced_total(without), traced_total("x")), (Some(4110), Some(123), None));
    }

    #[test]
    fn a_round_trip_is_bytes_down_behind_bytes_up() {
        let up = [(1.0, 10), (1.5, 20), (3.0, 30), (9.0, 1)];
        let down = [(0.5, 7), (2.0, 5), (2.1, 5), (4.0, 5), (9.5, 1)];
        assert_eq!(round_trips(&up, &down, 0.0..5.0), 2);
        assert_eq!((bytes(&up, 0.0..5.0), bytes(&down, 1.0..5.0)), (60, 15));
        assert_eq!(round_trips(&up, &[], 0.0..5.0), 0);
    }

    #[test]
    fn an_unknown_measurement_is_refused_and_a_known_one_chosen() {
        assert!(choose(&["nonsense".into()]).is_err());
        assert_eq!(choose(&["latency/local-0".into()]).unwrap().len(), 1);
        assert!(choose(&["latency".into()]).unwrap().len() > 3);
        assert_eq!(choose(&[]).unwrap().len(), MEASUREMENTS.len());
    }

    #[test]
    fn a_limit_without_phases_is_called_when_it_is_done() {
        let mut one = json!({ "total_s": 2.0 });
        derive(&mut one, 0);
        assert_eq!(one["called_s"], 2.0);
        let mut two = json!({ "total_s": 2.0, "connect_s": 1.0, "first_call_s": 0.5 });
        derive(&mut two, 3);
        assert_eq!((two["called_s"].as_f64(), two["left_behind"].as_f64()), (Some(1.5), Some(3.0)));
    }
}
