//! The report: result lines in, a Markdown table out, written between two markers of a page whose other text stays.
//!
//! Owns statistics, formatting and the verdict on each aim. Must not know how anything was measured.

use crate::anchor::Who;
use crate::contract::median;
use crate::rows::{Aim, ROWS, Row, Unit};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- measured:begin -->";
const END: &str = "<!-- measured:end -->";

/// Reads result files.
pub(crate) fn read(files: &[impl AsRef<Path>]) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for file in files {
        let file = file.as_ref();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            lines.push(serde_json::from_str(line).with_context(|| format!("{}: not a result line", file.display()))?);
        }
    }
    Ok(lines)
}

/// Puts the measured part into the page, between its markers; a page without markers gets them at its end.
pub(crate) fn write(page: &Path, measured: &str) -> Result<()> {
    let old = match std::fs::read_to_string(page) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => "# Performance\n".into(),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", page.display())),
    };
    let new = replace(&old, measured)?;
    std::fs::write(page, new).with_context(|| format!("cannot write {}", page.display()))
}

fn replace(old: &str, measured: &str) -> Result<String> {
    let block = format!("{BEGIN}\n{}\n{END}", measured.trim());
    match (old.find(BEGIN), old.find(END)) {
        (Some(begin), Some(end)) if begin < end => Ok(format!("{}{block}{}", &old[..begin], &old[end + END.len()..])),
        (None, None) => Ok(format!("{}\n\n{block}\n", old.trim_end())),
        _ => bail!("the page has one marker without the other, or in the wrong order"),
    }
}

/// Results of one anchor for one measurement, by repetition.
type Results<'a> = BTreeMap<(u64, u64), &'a Value>;

struct Table<'a> {
    results: BTreeMap<(&'a str, &'a str, &'a str), Results<'a>>,
}

impl<'a> Table<'a> {
    fn new(lines: &'a [Value]) -> Self {
        let mut results: BTreeMap<_, Results<'a>> = BTreeMap::new();
        let mut runs: Vec<&str> = Vec::new();
        let text = |v: &'a Value| v.as_str().unwrap_or("");
        for line in lines {
            let run = text(&line["run"]);
            if !runs.contains(&run) {
                runs.push(run);
            }
            let number = runs.iter().position(|r| *r == run).unwrap_or(0) as u64;
            let key = (text(&line["bench"]), text(&line["variant"]), text(&line["impl"]));
            results.entry(key).or_default().insert((number, line["rep"].as_u64().unwrap_or(0)), &line["m"]);
        }
        Self { results }
    }

    fn values(&self, place: (&str, &str), who: Who, metric: &str) -> BTreeMap<(u64, u64), f64> {
        let Some(results) = self.results.get(&(place.0, place.1, who.name())) else {
            return BTreeMap::new();
        };
        results.iter().filter_map(|(rep, m)| Some((*rep, m.get(metric)?.as_f64()?))).collect()
    }

    fn never(&self, row: &Row, who: Who) -> bool {
        self.results
            .get(&(row.bench, row.variant, who.name()))
            .is_some_and(|results| results.values().any(|m| m.get("never").is_some()))
    }

    fn failed(&self, row: &Row) -> bool {
        self.results
            .get(&(row.bench, row.variant, Who::Offshoot.name()))
            .is_some_and(|results| results.values().any(|m| m.get("error").is_some()))
    }

    fn cell(&self, row: &Row, who: Who) -> String {
        let values = self.values((row.bench, row.variant), who, row.metric);
        if values.is_empty() {
            return if self.never(row, who) { "never".into() } else { "–".into() };
        }
        let all: Vec<f64> = values.into_values().collect();
        let (min, max) = extremes(&all);
        let mut text = show(row.unit, median(all.clone()));
        if all.len() > 1 {
            let _ = write!(text, " ({}–{})", show_plain(row.unit, min), show_plain(row.unit, max));
        }
        if all.len() > 2 && max > 2.0 * min {
            text.push_str(" NOISY");
        }
        if self.never(row, who) {
            text.push_str(", at times never");
        }
        text
    }

    /// Median over the repetitions of ours to the other's in the same one, since the machine drifts.
    fn ratio(&self, row: &Row, who: Who) -> Option<f64> {
        let ours = self.values((row.bench, row.variant), Who::Offshoot, row.metric);
        let theirs = self.values((row.bench, row.variant), who, row.metric);
        let paired: Vec<f64> =
            ours.iter().filter_map(|(rep, a)| Some(a / theirs.get(rep).filter(|b| **b > 0.0)?)).collect();
        (!paired.is_empty()).then(|| median(paired))
    }

    /// Whether the aim is met, and the number that says so.
    fn verdict(&self, row: &Row) -> Option<(bool, String)> {
        let ours = self.values((row.bench, row.variant), Who::Offshoot, row.metric);
        if ours.is_empty() {
            return self.never(row, Who::Offshoot).then(|| (false, "never".into()));
        }
        let value = median(ours.into_values().collect());
        let met = match row.aim {
            Aim::AtMost(limit) => (value <= limit, String::new()),
            Aim::AtLeast(limit) => (value >= limit, String::new()),
            Aim::Times(factor, who) => {
                let ratio = self.ratio(row, who)?;
                (ratio <= factor, format!(", {}×", digits(ratio)))
            }
            Aim::Share(share, who) => {
                let ratio = self.ratio(row, who)?;
                (ratio >= share, format!(", {}×", digits(ratio)))
            }
            Aim::Plus(more, who) => {
                let base = median(self.values((row.bench, row.variant), who, row.metric).into_values().collect());
                if base <= 0.0 {
                    return None;
                }
                let sign = if value < base { "−" } else { "+" };
                (value <= base + more, format!(", {sign}{}", show(row.unit, (value - base).abs())))
            }
        };
        let never = self.never(row, Who::Offshoot);
        Some((met.0 && !never, met.1))
    }
}

/// The measured part of the page, without markers.
pub(crate) fn render(lines: &[Value]) -> String {
    let table = Table::new(lines);
    let mut out = String::new();
    let mut environments: Vec<String> = Vec::new();
    for (_, facts) in table.results.get(&("environment", "-", "-")).into_iter().flatten() {
        environments.push(environment(facts));
    }
    environments.dedup();
    for environment in environments {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(out, "{environment}\n");
    }
    let runs: Vec<&str> = {
        let mut runs: Vec<&str> = lines.iter().filter_map(|l| l["run"].as_str()).collect();
        runs.dedup();
        runs
    };
    let loads: Vec<f64> = lines.iter().filter_map(|l| l["load1"].as_f64()).collect();
    let (least, most) = extremes(&loads);
    let _ = writeln!(
        out,
        "Measured {}, load average {} to {}. Each cell is the median (least–most) of its repetitions; *×* in the last column is the \
         median ratio within the repetitions. NOISY: most is more than twice the least.\n",
        runs.join(", "),
        digits(least),
        digits(most)
    );
    let _ = writeln!(out, "| what | limit | OpenSSH | execnet | Mitogen | offshoot | aim | met? |");
    let _ = writeln!(out, "|---|--:|--:|--:|--:|--:|---|---|");
    for row in ROWS {
        let cells: Vec<String> = Who::ALL.into_iter().map(|who| table.cell(row, who)).collect();
        if cells.iter().all(|c| c == "–") && !table.failed(row) {
            continue;
        }
        let met = match table.verdict(row) {
            Some((met, why)) => format!("{}{why}", if met { "yes" } else { "**no**" }),
            None if table.failed(row) => "**no**, failed".into(),
            None => "not measured".into(),
        };
        let _ = writeln!(out, "| {} | {} | {} | {met} |", row.title, cells.join(" | "), aim(row));
    }
    let failed = named(lines, "error", |_| String::new());
    if !failed.is_empty() {
        let _ = writeln!(out, "\nFailed: {}.", failed.join("; "));
    }
    let left = named(lines, "left_behind", |n| format!(": {n}"));
    if !left.is_empty() {
        let _ = writeln!(out, "\nProcesses left behind, killed by the runner: {}.", left.join("; "));
    }
    out
}

/// What went wrong, in full: for the terminal, not for the page, since messages name places of this machine.
pub(crate) fn errors(lines: &[Value]) -> Vec<String> {
    named(lines, "error", |text| format!(": {}", text.as_str().unwrap_or("")))
}

/// The results that have a field, by name, and what `say` makes of it.
fn named(lines: &[Value], field: &str, say: impl Fn(&Value) -> String) -> Vec<String> {
    let part = |line: &Value, name: &str| line[name].as_str().unwrap_or("").to_owned();
    let mut all: Vec<String> = lines
        .iter()
        .filter(|l| !l["m"][field].is_null())
        .map(|l| format!("{} {}, {}{}", part(l, "bench"), part(l, "variant"), part(l, "impl"), say(&l["m"][field])))
        .collect();
    all.dedup();
    all
}

fn environment(facts: &Value) -> String {
    let text = |name: &str| facts[name].as_str().unwrap_or("").to_owned();
    let peers = match text("python") {
        python if python.is_empty() => String::new(),
        python => format!("{python}, Mitogen {}, execnet {}", text("mitogen"), text("execnet")),
    };
    let machine = format!("{} × {}", facts["cpus"], text("cpu"));
    let parts = [machine, format!("Linux {}", text("kernel")), text("ssh"), peers];
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    let revision = match text("revision") {
        revision if revision.is_empty() => "unknown".to_owned(),
        revision => revision,
    };
    let mut line = format!("{}; revision {revision}; limit: {}.", parts.join(", "), text("limit"));
    if facts["debug_build"] == true {
        line.push_str(" **A debug build: these numbers say nothing.**");
    }
    if facts["quick"] == true {
        line.push_str(" **A quick run, with tiny counts: these numbers say little.**");
    }
    line
}

/// The aim in words.
fn aim(row: &Row) -> String {
    let name = |who| match who {
        Who::Openssh => "OpenSSH",
        Who::Execnet => "execnet",
        Who::Mitogen => "Mitogen",
        Who::Limit => "limit",
        Who::Offshoot => "offshoot",
    };
    match row.aim {
        Aim::AtMost(v) => format!("≤ {}", show(row.unit, v)),
        Aim::AtLeast(v) => format!("≥ {}", show(row.unit, v)),
        Aim::Times(v, who) => format!("≤ {} × {}", digits(v), name(who)),
        Aim::Share(v, who) => format!("≥ {} × {}", digits(v), name(who)),
        Aim::Plus(v, who) => format!("≤ {} + {}", name(who), show(row.unit, v)),
    }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    let size = value.abs();
    let after = match size {
        s if s >= 100.0 || s == 0.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.after$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The scaled number and its unit.
fn scaled(unit: Unit, value: f64) -> (f64, &'static str) {
    match unit {
        Unit::Seconds => (value * 1e3, " ms"),
        Unit::Micros => (value, " µs"),
        Unit::PerSecond => (value / 1e3, " k/s"),
        Unit::Rate => (value, " MiB/s"),
        Unit::Bytes => (value, " B"),
        Unit::Kib => (value / 1024.0, " MiB"),
        Unit::Number => (value, ""),
    }
}

fn show(unit: Unit, value: f64) -> String {
    let (value, name) = scaled(unit, value);
    format!("{}{name}", digits(value))
}

fn show_plain(unit: Unit, value: f64) -> String {
    digits(scaled(unit, value).0)
}

fn extremes(values: &[f64]) -> (f64, f64) {
    let min = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let max = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
    (min, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(who: &str, rep: u64, p50: f64) -> Value {
        let m = json!({ "p50_us": p50, "switches_per_call": 2.0 });
        json!({ "run": "r", "bench": "latency", "variant": "local-0", "impl": who, "rep": rep, "load1": 0.5, "m": m })
    }

    fn row_of(text: &str) -> String {
        text.lines().find(|l| l.starts_with("| no-op call answered by the agent")).unwrap_or("").to_owned()
    }

    #[test]
    fn prose_around_the_markers_stays() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replace(&page, "new").unwrap(), format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace("text\n", "new").unwrap(), format!("text\n\n{BEGIN}\nnew\n{END}\n"));
        assert!(replace(&format!("x {BEGIN} y"), "new").is_err());
        assert!(replace(&format!("{END} {BEGIN}"), "new").is_err());
    }

    #[test]
    fn an_aim_is_judged_by_the_ratio_within_each_repetition() {
        // The machine was three times slower in the second and third repetition: the medians' ratio would be 3.
        let drifting = [
            line("limit", 0, 10.0),
            line("offshoot", 0, 12.0),
            line("limit", 1, 10.0),
            line("offshoot", 1, 12.0),
            line("limit", 2, 30.0),
            line("offshoot", 2, 36.0),
        ];
        let row = row_of(&render(&drifting));
        assert!(row.ends_with("| ≤ 1.3 × limit | yes, 1.2× |"), "{row}");
        let slow = [line("limit", 0, 10.0), line("offshoot", 0, 14.0)];
        let row = row_of(&render(&slow));
        assert!(row.ends_with("| **no**, 1.4× |"), "{row}");
    }

    #[test]
    fn a_wide_spread_is_marked_and_an_absent_anchor_is_a_dash() {
        let lines = [line("limit", 0, 10.0), line("limit", 1, 11.0), line("limit", 2, 21.0), line("mitogen", 0, 200.0)];
        let row = row_of(&render(&lines));
        assert!(row.contains("| 11 µs (10–21) NOISY | – | – | 200 µs | – |"), "{row}");
        assert!(row.ends_with("| not measured |"), "{row}");
    }

    #[test]
    fn what_never_ends_is_not_met() {
        let m = json!({ "never": 3 });
        let lines =
            [json!({ "run": "r", "bench": "kill", "variant": "local-tree", "impl": "offshoot", "rep": 0, "m": m })];
        let text = render(&lines);
        let row = text.lines().find(|l| l.starts_with("| master killed")).unwrap();
        assert!(row.contains("| never |") && row.contains("**no**"), "{row}");
    }

    #[test]
    fn a_failure_is_named_on_the_page_and_explained_only_on_the_terminal() {
        let m = json!({ "error": "no such file: /a/place/x" });
        let lines = [json!({ "run": "r", "bench": "connect", "variant": "ssh", "impl": "offshoot", "rep": 0, "m": m })];
        let page = render(&lines);
        let row = page.lines().find(|l| l.starts_with("| the same over ssh")).unwrap();
        assert!(row.ends_with("| **no**, failed |"), "{row}");
        assert!(page.contains("Failed: connect ssh, offshoot.") && !page.contains("place"), "{page}");
        assert_eq!(errors(&lines), ["connect ssh, offshoot: no such file: /a/place/x"]);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<String> = [0.0, 0.0124, 0.5, 1.256, 12.34, 123.6, 1234.6].into_iter().map(digits).collect();
        assert_eq!(shown, ["0", "0.012", "0.5", "1.26", "12.3", "124", "1235"]);
        assert_eq!(show(Unit::Seconds, 0.0018), "1.8 ms");
    }
}
