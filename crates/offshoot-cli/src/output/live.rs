//! Live lines: `target: line`, as they come.
//!
//! A target's output goes to our stdout, its error output to our stderr, so `2>/dev/null` means what it always means.
//! On a terminal the lines are aligned. Everything foreign is escaped.

use std::io;

use offshoot::escape::{escape_into, escaped};

use super::lines::{LineEnd, Lines};
use super::report::fault_block;
use super::{Console, Outcome, Palette, Printer, Stream, TargetPrinter, Verdict, summary};
use crate::fault::Fault;

/// What is put behind a piece of a line that goes on.
const CUT_MARK: &str = " [...]";
/// Names longer than this do not widen the column for all.
const COLUMN_MAX: usize = 32;

/// See the module.
pub(crate) struct Live<'a> {
    pub(crate) console: &'a Console,
    pub(crate) names: &'a [String],
    /// The colours of stdout and of stderr.
    pub(crate) palettes: [Palette; 2],
    /// Whether stdout and stderr are terminals: then the lines are aligned.
    pub(crate) aligned: [bool; 2],
    /// Whether to leave the summary out.
    pub(crate) quiet: bool,
}

impl Live<'_> {
    fn prefixes(&self, target: usize) -> [Vec<u8>; 2] {
        let name = escaped(self.names[target].as_bytes()).to_string();
        let width = || self.names.iter().map(|name| name.chars().count()).filter(|&n| n <= COLUMN_MAX).max();
        [Stream::Stdout, Stream::Stderr].map(|stream| {
            let (at, palette) = (stream as usize, &self.palettes[stream as usize]);
            let style = if stream == Stream::Stdout { palette.name } else { palette.error_name };
            let pad = if self.aligned[at] { width().unwrap_or(0).saturating_sub(name.chars().count()) } else { 0 };
            format!("{style}{name}:{style:#} {:pad$}", "").into_bytes()
        })
    }
}

impl Printer for Live<'_> {
    fn begin<'a>(&'a self, target: usize, _path: &str) -> io::Result<Box<dyn TargetPrinter + 'a>> {
        Ok(Box::new(LiveTarget {
            live: self,
            target,
            prefixes: self.prefixes(target),
            lines: Default::default(),
            text: Vec::new(),
        }))
    }

    fn failed(&self, targets: &[usize], fault: &Fault) -> io::Result<()> {
        let block = fault_block(fault, self.names, targets, &self.palettes[1]);
        self.console.write(Stream::Stderr, block.as_bytes())
    }

    fn finish(&self, verdict: &Verdict) -> io::Result<()> {
        match summary(verdict, self.names) {
            Some(line) if !self.quiet => self.console.write(Stream::Stderr, line.as_bytes()),
            _ => Ok(()),
        }
    }
}

struct LiveTarget<'a> {
    live: &'a Live<'a>,
    target: usize,
    prefixes: [Vec<u8>; 2],
    lines: [Lines; 2],
    text: Vec<u8>,
}

impl LiveTarget<'_> {
    fn flush(&mut self, stream: Stream) -> io::Result<()> {
        let result = self.live.console.write(stream, &self.text);
        self.text.clear();
        result
    }
}

impl TargetPrinter for LiveTarget<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let (prefix, text) = (&self.prefixes[stream as usize], &mut self.text);
        self.lines[stream as usize].push(bytes, |line, end| write_line(prefix, line, end, text));
        self.flush(stream)
    }

    fn end(mut self: Box<Self>, outcome: &Outcome) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (prefix, text) = (&self.prefixes[stream as usize], &mut self.text);
            self.lines[stream as usize].finish(|line, end| write_line(prefix, line, end, text));
            self.flush(stream)?;
        }
        match outcome {
            Outcome::Failed(fault) if !fault.ours => self.live.failed(&[self.target], fault),
            _ => Ok(()),
        }
    }
}

/// Appends one line as it is shown.
fn write_line(prefix: &[u8], line: &[u8], end: LineEnd, text: &mut Vec<u8>) {
    text.extend_from_slice(prefix);
    shown_line(line, end, text);
}

/// Appends a line without prefix: escaped, with its mark when it goes on, and a newline.
pub(super) fn shown_line(line: &[u8], end: LineEnd, text: &mut Vec<u8>) {
    // A line that ends in CR LF is a line of a system that writes it so, not one that moves the cursor.
    let line = if end == LineEnd::Newline { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    escape_into(line, text);
    if end == LineEnd::Cut {
        text.extend_from_slice(CUT_MARK.as_bytes());
    }
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::super::console::testing::console;
    use super::*;
    use std::time::Duration;

    fn ended(status: i32) -> Outcome {
        Outcome::Ended { end: End::Status(status), timed_out: false, took: Duration::ZERO }
    }

    #[test]
    fn lines_carry_their_targets_name_and_streams_stay_apart() {
        let (console, stdout, stderr) = console();
        let names = ["web1".to_owned(), "jump/db".to_owned()];
        let live =
            Live { console: &console, names: &names, palettes: Default::default(), aligned: [false; 2], quiet: false };
        let mut web = live.begin(0, "ssh:web1").expect("written");
        let mut db = live.begin(1, "ssh:jump -> ssh:db").expect("written");
        web.output(Stream::Stdout, b"one\ntw").expect("written");
        db.output(Stream::Stderr, b"oops\n").expect("written");
        web.output(Stream::Stdout, b"o\nend").expect("written");
        web.end(&ended(0)).expect("written");
        db.end(&ended(3)).expect("written");
        assert_eq!(stdout.text(), "web1: one\nweb1: two\nweb1: end\n");
        assert_eq!(stderr.text(), "jump/db: oops\n");
    }

    #[test]
    fn on_a_terminal_lines_are_aligned_and_coloured() {
        let (console, stdout, _) = console();
        let names = ["a".to_owned(), "web1".to_owned(), "x".repeat(40)];
        let palettes = [Palette::new(true), Palette::new(false)];
        let live = Live { console: &console, names: &names, palettes, aligned: [true; 2], quiet: false };
        live.begin(0, "").expect("written").output(Stream::Stdout, b"x\n").expect("written");
        assert_eq!(stdout.text(), "\u{1b}[36ma:\u{1b}[0m    x\n");
    }

    #[test]
    fn s8_no_control_character_of_a_target_or_a_name_reaches_the_terminal() {
        let (console, stdout, stderr) = console();
        let names = ["evil\u{1b}[2J".to_owned()];
        let live =
            Live { console: &console, names: &names, palettes: Default::default(), aligned: [false; 2], quiet: false };
        let all: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        let mut target = live.begin(0, "").expect("written");
        target.output(Stream::Stdout, &all).expect("written");
        target.output(Stream::Stderr, "\u{202e}\u{9b}\r\n".as_bytes()).expect("written");
        target.end(&ended(0)).expect("written");
        for text in [stdout.text(), stderr.text()] {
            assert!(!text.contains(|c| offshoot::escape::is_dangerous(c) && c != '\n'), "{text:?}");
        }
        assert_eq!(stderr.text(), "evil\\x1b[2J: \\xe2\\x80\\xae\\xc2\\x9b\n");
    }

    #[test]
    fn a_line_that_goes_on_is_marked() {
        let (console, stdout, _) = console();
        let names = ["a".to_owned()];
        let live =
            Live { console: &console, names: &names, palettes: Default::default(), aligned: [false; 2], quiet: false };
        let mut target = live.begin(0, "").expect("written");
        target.output(Stream::Stdout, &vec![b'y'; super::super::lines::LINE_MAX + 1]).expect("written");
        target.end(&ended(0)).expect("written");
        assert!(stdout.text().ends_with("y [...]\na: y\n"));
    }
}
