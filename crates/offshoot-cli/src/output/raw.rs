//! Raw output: bytes as they are, without names (`--raw`).
//!
//! One target's bytes pass untouched. With several, whole lines alternate, so that no line is torn; the last line of a
//! target may then lack its newline, as the target left it.

use std::io;

use super::lines::{LineEnd, Lines};
use super::{Console, Outcome, Palette, Printer, Stream, TargetPrinter, Verdict, fault_block, summary};
use crate::fault::Fault;

/// See the module.
pub(crate) struct Raw<'a> {
    pub(crate) console: &'a Console,
    pub(crate) names: &'a [String],
    /// The colours of stderr, for our own reports.
    pub(crate) palette: Palette,
    pub(crate) quiet: bool,
}

impl Printer for Raw<'_> {
    fn begin<'a>(&'a self, target: usize, _path: &str) -> io::Result<Box<dyn TargetPrinter + 'a>> {
        let lines = if self.names.len() > 1 { Some(Default::default()) } else { None };
        Ok(Box::new(RawTarget { raw: self, target, lines }))
    }

    fn failed(&self, targets: &[usize], fault: &Fault) -> io::Result<()> {
        let block = fault_block(fault, self.names, targets, &self.palette);
        self.console.write(Stream::Stderr, block.as_bytes())
    }

    fn finish(&self, verdict: &Verdict) -> io::Result<()> {
        match summary(verdict, self.names) {
            Some(line) if !self.quiet => self.console.write(Stream::Stderr, line.as_bytes()),
            _ => Ok(()),
        }
    }
}

struct RawTarget<'a> {
    raw: &'a Raw<'a>,
    target: usize,
    /// `None` when there is but one target.
    lines: Option<[Lines; 2]>,
}

impl TargetPrinter for RawTarget<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let Some(lines) = &mut self.lines else { return self.raw.console.write(stream, bytes) };
        let mut text = Vec::with_capacity(bytes.len());
        lines[stream as usize].push(bytes, |line, end| append(line, end, &mut text));
        self.raw.console.write(stream, &text)
    }

    fn end(mut self: Box<Self>, outcome: &Outcome) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut text = Vec::new();
            if let Some(lines) = &mut self.lines {
                lines[stream as usize].finish(|line, end| append(line, end, &mut text));
            }
            self.raw.console.write(stream, &text)?;
        }
        match outcome {
            Outcome::Failed(fault) if !fault.ours => self.raw.failed(&[self.target], fault),
            _ => Ok(()),
        }
    }
}

fn append(line: &[u8], end: LineEnd, text: &mut Vec<u8>) {
    text.extend_from_slice(line);
    if end == LineEnd::Newline {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::testing::console;
    use super::*;

    #[test]
    fn one_targets_bytes_pass_untouched_and_at_once() {
        let (console, stdout, stderr) = console();
        let names = ["a".to_owned()];
        let raw = Raw { console: &console, names: &names, palette: Palette::default(), quiet: false };
        let mut target = raw.begin(0, "").expect("written");
        target.output(Stream::Stdout, b"\x1b[31m\xff no newline").expect("written");
        target.output(Stream::Stderr, b"\0").expect("written");
        assert_eq!(stdout.bytes(), b"\x1b[31m\xff no newline");
        assert_eq!(stderr.bytes(), b"\0");
    }

    #[test]
    fn several_targets_alternate_by_whole_lines() {
        let (console, stdout, _) = console();
        let names = ["a".to_owned(), "b".to_owned()];
        let raw = Raw { console: &console, names: &names, palette: Palette::default(), quiet: false };
        let mut a = raw.begin(0, "").expect("written");
        let mut b = raw.begin(1, "").expect("written");
        a.output(Stream::Stdout, b"a1 ").expect("written");
        b.output(Stream::Stdout, b"b1\n").expect("written");
        a.output(Stream::Stdout, b"a2\n").expect("written");
        assert_eq!(stdout.bytes(), b"b1\na1 a2\n");
    }
}
