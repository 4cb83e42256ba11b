//! What every anchor prints: one JSON object per line, times in seconds.
//!
//! Owns the shapes that the anchors share. Must not know which program is measured.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::io::Read as _;
use std::time::Duration;

/// A way to the measured context: `local`, `sudo`, `ssh3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant<'a> {
    pub(crate) kind: &'a str,
    pub(crate) hops: usize,
}

impl<'a> Variant<'a> {
    /// Splits a kind and its number of hops; no number is one hop.
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let kind = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let count = &text[kind.len()..];
        let hops = if count.is_empty() { 1 } else { number(count)? };
        if kind.is_empty() || hops == 0 {
            bail!("not a variant: {text:?}");
        }
        Ok(Self { kind, hops })
    }
}

/// Reads a count from an argument.
pub(crate) fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("not a number: {text:?}"))
}

/// Prints one line.
pub(crate) fn emit(line: &Value) {
    println!("{line}");
}

/// Says that this anchor has no such measurement.
pub(crate) fn skip(reason: &str) {
    emit(&json!({ "skip": reason }));
}

/// The host alias of a hop, counted from 1.
pub(crate) fn host(hop: usize) -> String {
    if hop == 1 { "bench".into() } else { format!("bench{hop}") }
}

/// Percentiles of single calls, in microseconds.
pub(crate) fn latency(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let n = times.len();
    let at = |q: f64| {
        let i = ((n as f64 * q) as usize).min(n.saturating_sub(1));
        times.get(i).map_or(0.0, |t| t.as_secs_f64() * 1e6)
    };
    let mean = times.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e6 / (n.max(1) as f64);
    json!({ "n": n, "p50_us": at(0.5), "p99_us": at(0.99), "min_us": at(0.0), "max_us": at(1.0), "mean_us": mean })
}

/// Bytes, seconds and rate of a transfer.
pub(crate) fn transfer(bytes: usize, wall: Duration) -> Value {
    let seconds = wall.as_secs_f64();
    json!({ "bytes": bytes, "wall_s": seconds, "MiB_s": bytes as f64 / seconds / 1_048_576.0 })
}

/// Median of seconds; zero of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => values[n / 2],
        _ => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Waits until the runner writes a line, or ends.
pub(crate) fn hold() {
    // Both a line and the end mean: go on and shut down.
    let _ = std::io::stdin().read(&mut [0]);
}

/// CLOCK_MONOTONIC in seconds, comparable between processes.
pub(crate) fn monotonic() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_a_kind_and_hops() {
        assert_eq!(Variant::parse("ssh3").unwrap(), Variant { kind: "ssh", hops: 3 });
        assert_eq!(Variant::parse("local").unwrap(), Variant { kind: "local", hops: 1 });
        assert!(Variant::parse("3").is_err());
        assert!(Variant::parse("local0").is_err());
    }

    #[test]
    fn percentiles_of_a_hundred_calls() {
        let v = latency((1..=100).rev().map(Duration::from_micros).collect());
        assert_eq!((v["n"].as_u64(), v["min_us"].as_f64().map(f64::round)), (Some(100), Some(1.0)));
        assert_eq!(v["p50_us"].as_f64().map(f64::round), Some(51.0));
        assert_eq!(v["p99_us"].as_f64().map(f64::round), Some(100.0));
    }

    #[test]
    fn a_median_of_an_even_count_lies_between() {
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
