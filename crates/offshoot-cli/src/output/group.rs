//! Gathered output (`-b`): targets that said the same are shown once, under the set of their names.
//!
//! What a target says is kept until it ends, and what it said is kept once per distinct text: beyond a few hundred KiB
//! per running target, and a few MiB in all, it lies in files that have no name, so neither a flood nor a thousand
//! targets fill the memory. Nor do they fill the disk: beyond [`GATHERED_MAX`] in all, whoever said more than its share
//! of that is ended, which is told, and what it said until then is shown. Whoever said less goes on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use offshoot::escape::escaped;
use sha2::{Digest, Sha256};

use super::lines::{LineEnd, Lines};
use super::live::shown_line;
use super::{Console, Outcome, Palette, Printer, Stream, TargetPrinter, Verdict, fault_block, summary};
use crate::exit;
use crate::fault::{Fault, Ran};
use crate::nodeset::fold;

/// What one stream of a running target holds in memory at most, in bytes.
const RUNNING_MAX: usize = 256 * 1024;
/// What all texts of ended targets hold in memory at most, in bytes.
const ENDED_MAX: u64 = 8 * 1024 * 1024;
/// What all targets may have said before those that said the most are ended, in bytes as shown: more than anybody reads,
/// and less than the temporary folder of a small machine has. As much again may come of those that stay below their
/// share, and a text that is put with those of the ended ones lies in two files for that moment.
const GATHERED_MAX: u64 = 1 << 30;
/// The rule above and below a header.
const RULE: &str = "---------------";

/// See the module.
pub(crate) struct Grouped<'a> {
    console: &'a Console,
    names: &'a [String],
    /// The colours of stdout and stderr.
    palettes: [Palette; 2],
    quiet: bool,
    groups: Mutex<[Groups; 2]>,
    /// [`GATHERED_MAX`], but in tests.
    most: u64,
    /// How many bytes are kept.
    kept: AtomicU64,
}

/// The distinct texts of one stream, in the order in which they were first complete.
#[derive(Default)]
struct Groups {
    by_hash: HashMap<[u8; 32], usize>,
    groups: Vec<Group>,
    in_memory: u64,
    spill: Option<File>,
    spilled: u64,
}

struct Group {
    targets: Vec<usize>,
    text: Text,
}

enum Text {
    Memory(Vec<u8>),
    /// Where it lies in the spill file.
    Spilled {
        start: u64,
        length: u64,
    },
}

impl<'a> Grouped<'a> {
    pub(crate) fn new(console: &'a Console, names: &'a [String], palettes: [Palette; 2], quiet: bool) -> Grouped<'a> {
        Grouped {
            console,
            names,
            palettes,
            quiet,
            groups: Default::default(),
            most: GATHERED_MAX,
            kept: AtomicU64::new(0),
        }
    }

    /// The same, ending the largest targets when all together said so much.
    #[cfg(test)]
    pub(crate) fn at_most(mut self, most: u64) -> Self {
        self.most = most;
        self
    }

    /// What each target may say however much the others do.
    fn share(&self) -> u64 {
        self.most / self.names.len().max(1) as u64
    }

    fn show(&self, stream: Stream, groups: &mut Groups) -> io::Result<()> {
        // By the order in which the targets were given, not by who was fastest.
        groups.groups.iter_mut().for_each(|group| group.targets.sort_unstable());
        groups.groups.sort_by_key(|group| group.targets[0]);
        let style = if stream == Stream::Stdout { self.palettes[0].name } else { self.palettes[1].error_name };
        for group in &groups.groups {
            let names: Vec<&String> = group.targets.iter().map(|&target| &self.names[target]).collect();
            let folded = fold(&names);
            let folded = escaped(folded.as_bytes());
            let count = if names.len() > 1 { format!(" ({})", names.len()) } else { String::new() };
            let head = format!("{style}{RULE}\n{folded}{count}\n{RULE}{style:#}\n");
            self.console.write(stream, head.as_bytes())?;
            match &group.text {
                Text::Memory(text) => self.console.write(stream, text)?,
                Text::Spilled { start, length } => {
                    let spill = groups.spill.as_ref().ok_or(io::ErrorKind::NotFound)?;
                    let (mut at, end) = (*start, start + length);
                    let mut piece = vec![0; 64 * 1024];
                    while at < end {
                        let wanted = piece.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                        spill.read_exact_at(&mut piece[..wanted], at)?;
                        self.console.write(stream, &piece[..wanted])?;
                        at += wanted as u64;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Groups {
    /// Takes what a target said, and returns how many bytes of it need not be kept.
    fn add(&mut self, target: usize, mut gathered: Gathered) -> io::Result<u64> {
        if gathered.length == 0 {
            return Ok(0);
        }
        let hash = gathered.hash.finalize().into();
        if let Some(&index) = self.by_hash.get(&hash) {
            self.groups[index].targets.push(target);
            return Ok(gathered.length);
        }
        gathered.text.rewind()?;
        let text = if self.in_memory + gathered.length <= ENDED_MAX {
            let mut text = Vec::new();
            gathered.text.read_to_end(&mut text)?;
            self.in_memory += gathered.length;
            Text::Memory(text)
        } else {
            let spill = match &mut self.spill {
                Some(spill) => spill,
                empty => empty.insert(tempfile::tempfile().map_err(unkept)?),
            };
            let start = self.spilled;
            self.spilled += io::copy(&mut gathered.text, spill).map_err(unkept)?;
            Text::Spilled { start, length: gathered.length }
        };
        self.by_hash.insert(hash, self.groups.len());
        self.groups.push(Group { targets: vec![target], text });
        Ok(0)
    }
}

impl Printer for Grouped<'_> {
    fn begin<'b>(&'b self, target: usize, path: &str) -> io::Result<Box<dyn TargetPrinter + 'b>> {
        Ok(Box::new(GroupedTarget { grouped: self, target, path: path.to_owned(), gathered: Default::default() }))
    }

    fn failed(&self, targets: &[usize], fault: &Fault) -> io::Result<()> {
        let block = fault_block(fault, self.names, targets, &self.palettes[1]);
        self.console.write(Stream::Stderr, block.as_bytes())
    }

    fn finish(&self, verdict: &Verdict) -> io::Result<()> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(Stream::Stdout, &mut groups[0])?;
        self.show(Stream::Stderr, &mut groups[1])?;
        match summary(verdict, self.names) {
            Some(line) if !self.quiet => self.console.write(Stream::Stderr, line.as_bytes()),
            _ => Ok(()),
        }
    }
}

/// The error of what finds no place on disk.
fn unkept(error: io::Error) -> io::Error {
    let folder = std::env::temp_dir();
    let text = format!("what was gathered cannot be kept in {} (see TMPDIR): {error}", folder.display());
    io::Error::new(error.kind(), text)
}

/// So many bytes, for people.
fn amount(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < MIB { format!("{bytes} bytes") } else { format!("{} MiB", bytes / MIB) }
}

/// What one stream of a running target said so far, as it will be shown.
struct Gathered {
    lines: Lines,
    text: tempfile::SpooledTempFile,
    hash: Sha256,
    length: u64,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered {
            lines: Lines::default(),
            text: tempfile::spooled_tempfile(RUNNING_MAX),
            hash: Sha256::new(),
            length: 0,
        }
    }
}

impl Gathered {
    fn keep(&mut self, text: &[u8]) -> io::Result<()> {
        self.hash.update(text);
        self.length += text.len() as u64;
        self.text.write_all(text).map_err(unkept)
    }
}

struct GroupedTarget<'a> {
    grouped: &'a Grouped<'a>,
    target: usize,
    path: String,
    gathered: [Gathered; 2],
}

impl TargetPrinter for GroupedTarget<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let gathered = &mut self.gathered[stream as usize];
        let mut text = Vec::with_capacity(bytes.len());
        gathered.lines.push(bytes, |line, end| shown_line(line, end, &mut text));
        self.grouped.kept.fetch_add(text.len() as u64, Ordering::Relaxed);
        gathered.keep(&text)
    }

    fn full(&self) -> Option<Box<Fault>> {
        let said: u64 = self.gathered.iter().map(|gathered| gathered.length).sum();
        let Grouped { most, ref kept, .. } = *self.grouped;
        if said <= self.grouped.share() || kept.load(Ordering::Relaxed) <= most {
            return None;
        }
        Some(Box::new(Fault {
            kind: "too-large",
            what: "more output than can be gathered".into(),
            reason: format!(
                "it said {}; all targets together may say {}, and those that said the most are ended",
                amount(said),
                amount(most)
            ),
            path: self.path.clone(),
            ran: Ran::Yes,
            hint: "without -b output is shown as it comes and has no limit; or let the command write to a file there"
                .into(),
            brief: "too much output".into(),
            code: exit::OURS,
            ..Fault::default()
        }))
    }

    fn end(mut self: Box<Self>, outcome: &Outcome) -> io::Result<()> {
        for gathered in &mut self.gathered {
            let mut text = Vec::new();
            gathered.lines.finish(|line, _| shown_line(line, LineEnd::Unterminated, &mut text));
            self.grouped.kept.fetch_add(text.len() as u64, Ordering::Relaxed);
            gathered.keep(&text)?;
        }
        let [stdout, stderr] = self.gathered;
        {
            let mut groups = self.grouped.groups.lock().unwrap_or_else(PoisonError::into_inner);
            let spared = groups[0].add(self.target, stdout)? + groups[1].add(self.target, stderr)?;
            self.grouped.kept.fetch_sub(spared, Ordering::Relaxed);
        }
        match outcome {
            Outcome::Failed(fault) if !fault.ours => self.grouped.failed(&[self.target], fault),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::End;
    use super::super::console::testing::console;
    use super::*;

    fn run(names: &[&str], said: &[(usize, Stream, &[u8])]) -> (String, String) {
        let (console, stdout, stderr) = console();
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let grouped = Grouped::new(&console, &names, Default::default(), false);
        let mut targets: Vec<_> = (0..names.len()).map(|n| grouped.begin(n, "").expect("begun")).collect();
        for (target, stream, bytes) in said {
            targets[*target].output(*stream, bytes).expect("kept");
        }
        // The last begun ends first: the order shown must not depend on it.
        while let Some(target) = targets.pop() {
            let outcome = Outcome::Ended { end: End::Status(0), timed_out: false, took: Duration::ZERO };
            target.end(&outcome).expect("kept");
        }
        grouped.finish(&Verdict::default()).expect("shown");
        (stdout.text(), stderr.text())
    }

    #[test]
    fn what_is_the_same_is_shown_once_under_the_folded_names() {
        let said: Vec<(usize, Stream, &[u8])> = vec![
            (0, Stream::Stdout, b"same\nend"),
            (1, Stream::Stdout, b"other\n"),
            (2, Stream::Stdout, b"sa"),
            (2, Stream::Stdout, b"me\nend\n"),
            (1, Stream::Stderr, b"warn\x07\n"),
        ];
        let (stdout, stderr) = run(&["web1", "db1", "web2", "silent"], &said);
        let rule = RULE;
        assert_eq!(stdout, format!("{rule}\nweb[1-2] (2)\n{rule}\nsame\nend\n{rule}\ndb1\n{rule}\nother\n"));
        assert_eq!(stderr, format!("{rule}\ndb1\n{rule}\nwarn\\x07\n"));
    }

    #[test]
    fn who_says_the_most_is_full_when_all_together_said_too_much_and_nobody_else_is() {
        let (console, stdout, _) = console();
        let names = ["n1".to_owned(), "n2".to_owned(), "n3".to_owned(), "n4".to_owned()];
        let grouped = Grouped::new(&console, &names, Default::default(), false).at_most(4_000);
        let mut targets: Vec<_> = (0..4).map(|n| grouped.begin(n, "a -> b").expect("begun")).collect();
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut say = |target: usize, lines: usize| {
            targets[target].output(Stream::Stdout, &line.repeat(lines)).expect("kept");
            targets[target].full()
        };
        // More than its share, while there is room.
        assert_eq!(say(0, 30), None);
        assert_eq!(say(1, 10), None);
        // From here on there is none, for who said more than its share alone.
        assert_eq!((say(1, 0), say(2, 9)), (None, None));
        let fault = say(0, 1).expect("it is full");
        assert_eq!((fault.path.as_str(), fault.ran, fault.code), ("a -> b", Ran::Yes, exit::OURS));
        assert!(
            fault.reason.starts_with("it said 3100 bytes; all targets together may say 4000 bytes, "),
            "{}",
            fault.reason
        );
        assert_eq!(say(3, 10), None);
        assert!(say(3, 1).is_some());
        // What was the same is kept once: so there is room again.
        targets.truncate(2);
        let ended = || Outcome::Ended { end: End::Status(0), timed_out: false, took: Duration::ZERO };
        let mut twin = grouped.begin(2, "").expect("begun");
        twin.output(Stream::Stdout, &line.repeat(10)).expect("kept");
        let before = grouped.kept.load(Ordering::Relaxed);
        targets.pop().expect("the second").end(&ended()).expect("kept");
        twin.end(&ended()).expect("kept");
        assert_eq!(grouped.kept.load(Ordering::Relaxed), before - 1_000);
        // And all that a full one said is shown.
        targets.pop().expect("the first").end(&Outcome::Failed(fault)).expect("kept");
        grouped.finish(&Verdict::default()).expect("shown");
        assert_eq!(stdout.text().matches("xxx\n").count(), 31 + 10);
    }

    #[test]
    fn texts_beyond_the_bounds_come_back_from_disk_whole() {
        let big = |byte: u8| [vec![byte; 60_000], vec![b'\n']].concat().repeat(100);
        let texts = [big(b'a'), big(b'b'), big(b'a'), big(b'c')];
        let said: Vec<(usize, Stream, &[u8])> =
            texts.iter().enumerate().map(|(n, text)| (n, Stream::Stdout, &text[..])).collect();
        let (stdout, _) = run(&["n1", "n2", "n3", "n4"], &said);
        let rule = RULE;
        let expected = [("n[1,3] (2)", b'a'), ("n2", b'b'), ("n4", b'c')]
            .map(|(name, byte)| format!("{rule}\n{name}\n{rule}\n{}", String::from_utf8(big(byte)).expect("text")))
            .concat();
        assert!(stdout == expected, "{} bytes expected, {} came", expected.len(), stdout.len());
    }

    #[test]
    fn the_page_for_users_says_how_much_is_gathered() {
        crate::usage::assert_says("output that `-b` gathers, of all targets", &crate::usage::size(GATHERED_MAX));
    }
}
