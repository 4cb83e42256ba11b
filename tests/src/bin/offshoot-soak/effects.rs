//! What programs in the tree did, beside what was said of them.
//!
//! Each program appends one line with its number to a file; what an operation ended with is a claim of how often that line may be there. Claims are checked
//! when no operation of their file is open any more and stragglers have had their time, so that a long run keeps only the last minute.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use offshoot::Ran;

/// How long one file is used.
const EPOCH: Duration = Duration::from_secs(10);
/// How long after the last operation its file is looked at: everything below a loss is gone by then.
const STRAGGLERS: Duration = Duration::from_secs(30);

/// How often a program ran, by what its caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It was not sent.
    Never,
    /// It ended well, or was said to have run.
    Once,
    /// It may have run, or was ended by a signal.
    AtMostOnce,
}

impl Claim {
    /// What a failure says of whether the work ran.
    pub(crate) fn of(ran: Ran) -> Claim {
        match ran {
            Ran::NotSent => Claim::Never,
            Ran::MaybeExecuted => Claim::AtMostOnce,
            Ran::Executed => Claim::Once,
        }
    }

    fn allows(self, times: u32) -> bool {
        match self {
            Claim::Never => times == 0,
            Claim::Once => times == 1,
            Claim::AtMostOnce => times <= 1,
        }
    }
}

/// One program to be: its number, and the file that it appends to.
#[derive(Debug)]
pub(crate) struct Ticket {
    epoch: u64,
    pub(crate) id: u64,
    pub(crate) file: PathBuf,
}

#[derive(Default)]
struct Epoch {
    open: u32,
    last: Option<Instant>,
    claims: HashMap<u64, Claim>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    epochs: BTreeMap<u64, Epoch>,
    checked: Vec<u64>,
    counts: [u64; 3],
}

/// All programs of a run.
pub(crate) struct Effects {
    folder: PathBuf,
    began: Instant,
    inner: Mutex<Inner>,
}

impl Effects {
    pub(crate) fn new(folder: &Path) -> Effects {
        Effects { folder: folder.to_path_buf(), began: Instant::now(), inner: Mutex::default() }
    }

    /// Where what its programs leave lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("effects.{epoch}"))
    }

    pub(crate) fn begin(&self) -> Ticket {
        let epoch = self.began.elapsed().as_secs() / EPOCH.as_secs();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.next += 1;
        inner.epochs.entry(epoch).or_default().open += 1;
        Ticket { epoch, id: inner.next, file: self.file(epoch) }
    }

    pub(crate) fn end(&self, ticket: &Ticket, claim: Claim) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = inner.epochs.entry(ticket.epoch).or_default();
        epoch.open = epoch.open.saturating_sub(1);
        epoch.last = Some(Instant::now());
        epoch.claims.insert(ticket.id, claim);
    }

    /// Checks what is old enough, or all, and forgets it. What does not agree, one sentence each.
    pub(crate) fn check(&self, all: bool) -> Vec<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let current = self.began.elapsed().as_secs() / EPOCH.as_secs();
        let is_ripe = |number: u64, epoch: &Epoch| {
            let old = epoch.last.is_none_or(|last| now.saturating_duration_since(last) >= STRAGGLERS);
            all || number < current && epoch.open == 0 && old
        };
        let ripe: Vec<u64> =
            inner.epochs.iter().filter(|(number, epoch)| is_ripe(**number, epoch)).map(|(number, _)| *number).collect();
        let mut findings = Vec::new();
        for number in ripe {
            let epoch = inner.epochs.remove(&number).unwrap_or_default();
            let text = fs::read_to_string(self.file(number)).unwrap_or_default();
            findings.extend(disagreements(&epoch.claims, &text));
            for claim in epoch.claims.values() {
                inner.counts[*claim as usize] += 1;
            }
            // Absent when none of its programs ran.
            let _ = fs::remove_file(self.file(number));
            inner.checked.push(number);
        }
        if all {
            let late = inner.checked.iter().filter(|number| self.file(**number).exists());
            findings
                .extend(late.map(|number| format!("a program of epoch {number} ran long after its caller was told")));
        }
        findings
    }

    /// How many claims of each kind were checked: never, once, at most once.
    pub(crate) fn counts(&self) -> [u64; 3] {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).counts
    }
}

fn disagreements(claims: &HashMap<u64, Claim>, text: &str) -> Vec<String> {
    let mut times: HashMap<u64, u32> = HashMap::new();
    let mut findings = Vec::new();
    for line in text.lines() {
        match line.parse() {
            Ok(id) => *times.entry(id).or_default() += 1,
            Err(_) => findings.push(format!("a program wrote {line:?}, which is no number")),
        }
    }
    for (id, claim) in claims {
        let ran = times.remove(id).unwrap_or(0);
        if !claim.allows(ran) {
            findings.push(format!("program {id} ran {ran} times and was said to have run {claim:?}"));
        }
    }
    findings.extend(times.into_keys().map(|id| format!("program {id} ran and nobody had asked for it")));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_and_what_happened_must_agree() {
        let claims =
            HashMap::from([(1, Claim::Never), (2, Claim::Once), (3, Claim::AtMostOnce), (4, Claim::AtMostOnce)]);
        assert_eq!(disagreements(&claims, "2\n3\n"), Vec::<String>::new());
        for (text, said) in [
            ("1\n2\n", "program 1 ran 1 times and was said to have run Never"),
            ("3\n", "program 2 ran 0 times and was said to have run Once"),
            ("2\n2\n", "program 2 ran 2 times and was said to have run Once"),
            ("2\n4\n4\n", "program 4 ran 2 times and was said to have run AtMostOnce"),
            ("2\n9\n", "program 9 ran and nobody had asked for it"),
            ("2\nx\n", "a program wrote \"x\", which is no number"),
        ] {
            assert_eq!(disagreements(&claims, text), [said]);
        }
    }

    #[test]
    fn a_program_that_runs_after_the_check_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let effects = Effects::new(folder.path());
        let ticket = effects.begin();
        effects.end(&ticket, Claim::AtMostOnce);
        assert_eq!(effects.check(false), Vec::<String>::new(), "too early to say");
        assert_eq!(effects.check(true), Vec::<String>::new());
        assert_eq!(effects.counts(), [0, 0, 1]);
        fs::write(&ticket.file, "1\n").unwrap();
        assert_eq!(effects.check(true).len(), 1);
    }
}
