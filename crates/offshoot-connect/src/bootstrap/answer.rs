//! What a target can say once the start line runs: the hello, that it is ready, or why it will not work.

use super::error::{LoaderStep, Place, escape};
use super::scan::Matcher;
use super::{SECRET, script};
use crate::cut::cut;

/// The longest line of facts: `uname -sm` and a few characters.
pub(super) const FACTS_MAX: usize = 256;

/// What a byte completed.
pub(super) enum Found {
    Marker,
    Facts(Vec<u8>),
    Ready,
    Hello,
    Report(Report, Vec<u8>),
}

/// What can come once the start line runs.
#[derive(Debug)]
pub(super) struct Seen {
    hello: Matcher,
    ready: Matcher,
    other_machine: Matcher,
    no_exec: Matcher,
    loader: Matcher,
    /// How a list of places ends.
    list_end: Vec<u8>,
    /// The text behind one of the three before.
    report: Option<(Report, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    OtherMachine,
    NoExec,
    Loader,
}

impl Report {
    /// How the report's text ends, how long it can be, and whether it is then one.
    fn ends(self, text: &[u8], list_end: &[u8]) -> Option<bool> {
        match self {
            Report::OtherMachine if text.ends_with(b" .") => Some(true),
            Report::OtherMachine => (text.len() > FACTS_MAX).then_some(false),
            Report::NoExec => text.ends_with(list_end).then_some(true),
            Report::Loader if text.len() < 4 => None,
            Report::Loader => {
                Some(LoaderStep::from_letter(text[0]).is_some() && text[1..].iter().all(u8::is_ascii_digit))
            }
        }
    }
}

impl Seen {
    /// `ready`: whether the target is to say when the payload may come.
    pub(super) fn new(nonce: &str, hello_magic: &[u8], ready: bool) -> Seen {
        Seen {
            hello: Matcher::new(hello_magic),
            ready: Matcher::new(if ready { format!("R{nonce}") } else { String::new() }),
            other_machine: Matcher::new(format!("!A{nonce} ")),
            no_exec: Matcher::new(format!("!N{nonce}")),
            loader: Matcher::new("!L"),
            list_end: format!("{}.", script::entry(nonce)).into_bytes(),
            report: None,
        }
    }

    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) -> Option<Found> {
        if self.hello.step(byte) {
            return Some(Found::Hello);
        }
        if self.ready.step(byte) {
            // Said once.
            self.ready = Matcher::new(Vec::new());
            return Some(Found::Ready);
        }
        let mut began = None;
        for (matcher, report) in [
            (&mut self.other_machine, Report::OtherMachine),
            (&mut self.no_exec, Report::NoExec),
            (&mut self.loader, Report::Loader),
        ] {
            if matcher.step(byte) {
                began = Some(report);
            }
        }
        let report = match (&mut self.report, began) {
            // What the target says about a place can hold anything, a report of the loader's too.
            (Some((Report::OtherMachine | Report::NoExec, _)), _) | (Some(_), None) => self.report.as_mut()?,
            (_, Some(began)) => {
                self.report = Some((began, Vec::new()));
                return None;
            }
            (None, None) => return None,
        };
        report.1.push(byte);
        let whole = report.0.ends(&report.1, &self.list_end)?;
        let (report, text) = self.report.take()?;
        whole.then_some(Found::Report(report, text))
    }
}

/// The places that a target tried, from its report.
pub(super) fn places(text: &[u8], nonce: &str) -> Vec<Place> {
    let text = String::from_utf8_lossy(text);
    let file = format!(".o{nonce}");
    let place = |entry: &str| {
        let (status, rest) = entry.trim_start().split_once(' ')?;
        let (place, mut said) = cut(rest, ": ").unwrap_or((rest, ""));
        // `sh: 1: /tmp/.oNONCE: Permission denied`: the place is told already.
        while let Some((_, behind)) = cut(said, &file)
            && let Some((secret, behind)) = cut(behind, ": ")
            && secret.len() <= SECRET
        {
            said = behind;
        }
        let said = said.trim();
        Some(Place {
            place: escape(place.as_bytes()),
            status: status.parse().ok()?,
            text: escape(&said.as_bytes()[..said.len().min(200)]),
        })
    };
    let begin = script::entry(nonce);
    let mut places = Vec::new();
    let mut rest = cut(&text, &begin);
    while let Some((_, behind)) = rest {
        rest = cut(behind, &begin);
        places.extend(place(rest.map_or(behind, |(entry, _)| entry)));
    }
    places
}
