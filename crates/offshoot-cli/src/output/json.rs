//! JSON Lines (`--json`): one record a line, on stdout, for programs.
//!
//! The records, whose fields are only ever added to:
//!
//! | `type` | fields |
//! |---|---|
//! | `start` | `target`, `path` (the names from the root, joined with ` -> `) |
//! | `stdout`, `stderr` | `target`, `text`, or `base64` when the line is not UTF-8; `partial: true` when no newline followed: the last line of a stream, or a piece of a line longer than 64 KiB |
//! | `exit` | `target`, `status` or `signal`, `timed_out`, `seconds` |
//! | `error` | `target`, `kind`, `message`, `reason`, `path`, `stage`, `ran` (`no`, `maybe`, `yes`), `received`, `hint`, `seconds`; those that are not known are absent |
//! | `done` | `targets`, `failed`, `code` (what we exit with), `interrupted` |
//!
//! Each target ends with exactly one `exit` or `error`, unless the run was interrupted. `received` is escaped as on a
//! terminal. Dangerous characters are written as `\uNNNN`, so even JSON may be looked at on a terminal.

use std::io;

use base64::Engine as _;
use offshoot::escape::{escaped, is_dangerous};
use serde::Serialize;
use serde_json::ser::Formatter;

use super::lines::{LineEnd, Lines};
use super::{Console, End, Outcome, Printer, Stream, TargetPrinter, Verdict};
use crate::fault::Fault;

/// See the module.
pub(crate) struct Json<'a> {
    pub(crate) console: &'a Console,
    pub(crate) names: &'a [String],
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Record<'a> {
    Start { target: &'a str, path: &'a str },
    Stdout(Line<'a>),
    Stderr(Line<'a>),
    Exit(Exit<'a>),
    Error(Box<Error<'a>>),
    Done { targets: usize, failed: usize, code: u8, interrupted: bool },
}

#[derive(Serialize)]
struct Line<'a> {
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Serialize)]
struct Exit<'a> {
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    timed_out: bool,
    seconds: f64,
}

#[derive(Serialize)]
struct Error<'a> {
    target: &'a str,
    kind: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    ran: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    received: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// Compact JSON whose strings hold no dangerous character, newlines of our own excepted.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        // serde_json has escaped what JSON demands; the C0 controls never come here.
        for (at, c) in fragment.char_indices().filter(|(_, c)| is_dangerous(*c)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            plain = at + c.len_utf8();
            write!(writer, "\\u{:04x}", u32::from(c))?;
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

/// Appends a record as one line of harmless JSON.
pub(crate) fn append_record<T: Serialize>(record: &T, text: &mut Vec<u8>) -> io::Result<()> {
    record.serialize(&mut serde_json::Serializer::with_formatter(&mut *text, Safe))?;
    text.push(b'\n');
    Ok(())
}

fn append_line(target: &str, stream: Stream, line: &[u8], end: LineEnd, text: &mut Vec<u8>) {
    let utf8 = std::str::from_utf8(line).ok();
    let base64 = utf8.is_none().then(|| base64::engine::general_purpose::STANDARD.encode(line));
    let line = Line { target, text: utf8, base64, partial: end != LineEnd::Newline };
    let record = if stream == Stream::Stdout { Record::Stdout(line) } else { Record::Stderr(line) };
    // Strings and numbers always serialize, and a Vec takes every byte.
    let _ = append_record(&record, text);
}

impl Json<'_> {
    fn write(&self, record: &Record<'_>) -> io::Result<()> {
        let mut text = Vec::new();
        append_record(record, &mut text)?;
        self.console.write(Stream::Stdout, &text)
    }
}

impl Printer for Json<'_> {
    fn begin<'a>(&'a self, target: usize, path: &str) -> io::Result<Box<dyn TargetPrinter + 'a>> {
        let name = self.names[target].as_str();
        self.write(&Record::Start { target: name, path })?;
        Ok(Box::new(JsonTarget { json: self, target, lines: Default::default() }))
    }

    fn failed(&self, targets: &[usize], fault: &Fault) -> io::Result<()> {
        let mut text = Vec::new();
        for &target in targets {
            let error = Error {
                target: &self.names[target],
                kind: fault.kind,
                message: &fault.what,
                reason: &fault.reason,
                path: &fault.path,
                stage: fault.stage.as_deref(),
                ran: fault.ran.word(),
                received: escaped(&fault.received).to_string(),
                hint: &fault.hint,
                seconds: fault.after.map(|after| after.as_secs_f64()),
            };
            append_record(&Record::Error(Box::new(error)), &mut text)?;
        }
        self.console.write(Stream::Stdout, &text)
    }

    fn finish(&self, verdict: &Verdict) -> io::Result<()> {
        self.write(&Record::Done {
            targets: verdict.targets,
            failed: verdict.failed.len(),
            code: verdict.code,
            interrupted: verdict.interrupted,
        })
    }
}

struct JsonTarget<'a> {
    json: &'a Json<'a>,
    target: usize,
    lines: [Lines; 2],
}

impl TargetPrinter for JsonTarget<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let name = &self.json.names[self.target];
        let mut text = Vec::new();
        self.lines[stream as usize].push(bytes, |line, end| append_line(name, stream, line, end, &mut text));
        self.json.console.write(Stream::Stdout, &text)
    }

    fn end(mut self: Box<Self>, outcome: &Outcome) -> io::Result<()> {
        let name = &self.json.names[self.target];
        let mut text = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.lines[stream as usize].finish(|line, end| append_line(name, stream, line, end, &mut text));
        }
        self.json.console.write(Stream::Stdout, &text)?;
        match outcome {
            Outcome::Ended { end, timed_out, took } => {
                let (status, signal) = match *end {
                    End::Status(status) => (Some(status), None),
                    End::Signal(signal) => (None, Some(signal)),
                };
                let seconds = (took.as_secs_f64() * 1e6).round() / 1e6;
                self.json.write(&Record::Exit(Exit { target: name, status, signal, timed_out: *timed_out, seconds }))
            }
            Outcome::Failed(fault) if fault.ours => Ok(()),
            Outcome::Failed(fault) => self.json.failed(&[self.target], fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::console::testing::console;
    use super::*;
    use crate::fault::Ran;

    #[test]
    fn records_are_stable() {
        let (console, stdout, _) = console();
        let names = ["web1".to_owned()];
        let json = Json { console: &console, names: &names };
        let mut target = json.begin(0, "ssh:web1").expect("written");
        target.output(Stream::Stdout, b"a \"q\"\tb\nno end").expect("written");
        target.output(Stream::Stderr, b"\xff\xfe\n").expect("written");
        let outcome = Outcome::Ended { end: End::Status(3), timed_out: false, took: Duration::from_micros(1_250_000) };
        target.end(&outcome).expect("written");
        let fault = Fault {
            kind: "connect",
            what: "cannot log in".into(),
            path: "ssh:web1".into(),
            stage: Some("logging in".into()),
            received: b"a\x1bb".to_vec(),
            ran: Ran::No,
            hint: "try".into(),
            ..Fault::default()
        };
        json.failed(&[0], &fault).expect("written");
        json.finish(&Verdict { targets: 1, failed: vec![], code: 3, interrupted: false }).expect("written");
        assert_eq!(
            stdout.text(),
            concat!(
                r#"{"type":"start","target":"web1","path":"ssh:web1"}"#,
                "\n",
                r#"{"type":"stdout","target":"web1","text":"a \"q\"\tb"}"#,
                "\n",
                r#"{"type":"stderr","target":"web1","base64":"//4="}"#,
                "\n",
                r#"{"type":"stdout","target":"web1","text":"no end","partial":true}"#,
                "\n",
                r#"{"type":"exit","target":"web1","status":3,"timed_out":false,"seconds":1.25}"#,
                "\n",
                r#"{"type":"error","target":"web1","kind":"connect","message":"cannot log in","path":"ssh:web1","#,
                r#""stage":"logging in","ran":"no","received":"a\\x1bb","hint":"try"}"#,
                "\n",
                r#"{"type":"done","targets":1,"failed":0,"code":3,"interrupted":false}"#,
                "\n",
            )
        );
    }

    #[test]
    fn s8_json_on_a_terminal_is_harmless_and_still_exact() {
        let (console, stdout, _) = console();
        let names = ["a".to_owned()];
        let line = "\u{1b}[2J\u{7f}\u{9b}\u{202e}\r \u{e9}";
        let json = Json { console: &console, names: &names };
        let mut target = json.begin(0, "").expect("written");
        target.output(Stream::Stdout, format!("{line}\n").as_bytes()).expect("written");
        let text = stdout.text();
        assert!(!text.contains(|c| is_dangerous(c) && c != '\n'), "{text:?}");
        let record: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(record["text"], line);
    }
}
