//! What each test of the engine begins and ends with.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use offshoot_connect::bundle::{Bundle, Packed};
use offshoot_connect::{Asker, Cancel, Connected, Connecting, Image, LocalImage, Payloads, connect};
use offshoot_wire::{ChildHello, ConnectStage, Failure, FailureKind, Hello, Limits, Recipe};

pub(crate) const NONCE: [u8; 16] = *b"0123456789abcdef";

/// One at a time: a test counts the descriptors of the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// A test's turn. At its end nothing of it may be left.
pub(crate) struct Test {
    tag: String,
    descriptors: usize,
    /// When it began, in the kernel's ticks.
    began: u64,
    _turn: MutexGuard<'static, ()>,
}

impl Test {
    pub(crate) fn begin(name: &str) -> Test {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let tag = format!("connect-test-{}-{name}", std::process::id());
        Test { tag, descriptors: descriptors(), began: now_in_ticks(), _turn: turn }
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    pub(crate) fn connecting<'a>(&'a self, recipe: &'a Recipe) -> Run<'a> {
        Run {
            test: self,
            recipe,
            image: None,
            payloads: &Empty,
            cancel: Cancel::new(),
            asker: None,
            behind: None,
            preamble: b"preamble".to_vec(),
            nonce: NONCE,
        }
    }

    /// No process carries the tag any more.
    pub(crate) fn assert_nothing_left(&self, limit: Duration) {
        let until = Instant::now() + limit;
        loop {
            let left = with_tag(&format!("OFFSHOOT_TREE={}", self.tag), self.began);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left behind: {left:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_nothing_left(Duration::from_secs(2));
            let links = std::fs::read_dir("/proc/self/fd").expect("a list").flatten();
            let links: Vec<_> = links.map(|entry| std::fs::read_link(entry.path()).unwrap_or_default()).collect();
            assert_eq!(descriptors(), self.descriptors, "descriptors were left open, or are gone: {links:?}");
        }
    }
}

/// A connect to be run.
pub(crate) struct Run<'a> {
    test: &'a Test,
    recipe: &'a Recipe,
    image: Option<&'a dyn LocalImage>,
    payloads: &'a dyn Payloads,
    cancel: Cancel,
    asker: Option<&'a dyn Asker>,
    behind: Option<&'a str>,
    preamble: Vec<u8>,
    nonce: [u8; 16],
}

impl<'a> Run<'a> {
    pub(crate) fn image(mut self, image: &'a dyn LocalImage) -> Self {
        self.image = Some(image);
        self
    }

    pub(crate) fn payloads(mut self, payloads: &'a dyn Payloads) -> Self {
        self.payloads = payloads;
        self
    }

    pub(crate) fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    pub(crate) fn asker(mut self, asker: &'a dyn Asker) -> Self {
        self.asker = Some(asker);
        self
    }

    pub(crate) fn behind(mut self, behind: &'a str) -> Self {
        self.behind = Some(behind);
        self
    }

    pub(crate) fn preamble(mut self, preamble: Vec<u8>) -> Self {
        self.preamble = preamble;
        self
    }

    pub(crate) fn nonce(mut self, nonce: [u8; 16]) -> Self {
        self.nonce = nonce;
        self
    }

    pub(crate) fn connect(self) -> Result<Connected, Failure> {
        connect(Connecting {
            recipe: self.recipe,
            nonce: self.nonce,
            preamble: self.preamble,
            tree_tag: ("OFFSHOOT_TREE", self.test.tag.clone()),
            context_tag: ("OFFSHOOT_JOB", format!("{}/0", self.test.tag)),
            process_name: "offshoot:test",
            image: self.image.unwrap_or(&Script::missing()),
            payloads: self.payloads,
            cancel: &self.cancel,
            asker: self.asker,
            behind: self.behind,
        })
    }

    pub(crate) fn succeed(self) -> Link {
        match self.connect() {
            Ok(connected) => Link(connected),
            Err(failure) => panic!("{failure:?}: {}", String::from_utf8_lossy(&failure.seen)),
        }
    }

    /// The failure that it ends with; it always tells how long each stage took, up to the one that failed.
    pub(crate) fn fail(self) -> Failure {
        let (test, began) = (self.test, Instant::now());
        let failure = match self.connect() {
            Ok(connected) => panic!("it connected: {connected:?}"),
            Err(failure) => failure,
        };
        let took = began.elapsed();
        test.assert_nothing_left(Duration::from_secs(2));
        let (stages, ends): (Vec<_>, Vec<_>) = failure.stages.iter().copied().unzip();
        assert_eq!(stages.first(), Some(&ConnectStage::Start), "{failure:?}");
        assert!(ends.is_sorted() && ends.iter().all(|end| u128::from(*end) <= took.as_micros()), "{took:?}: {ends:?}");
        if let FailureKind::Connect(stage) | FailureKind::StageTimeout(stage) = failure.kind {
            // What a tool says of its start may come later.
            assert!(stages.last() == Some(&stage) || stage == ConnectStage::Start, "{failure:?}");
        }
        failure
    }
}

/// A connect's result; the tool's whole group ends with it.
pub(crate) struct Link(pub(crate) Connected);

impl std::ops::Deref for Link {
    type Target = Connected;

    fn deref(&self) -> &Connected {
        &self.0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.child.signal_group(9).expect("not reaped yet");
    }
}

/// Agents that nobody runs: the tests' tools put something else behind the marker.
struct Empty;

impl Payloads for Empty {
    fn bundle(&self, triple: &str, _: Instant, _: &Cancel) -> Result<Bundle, Failure> {
        let agent = Packed { bytes: vec![3].into(), properties: 0, filter: 0, len: 4, sha256: [5; 32] };
        Ok(Bundle::new(triple, vec![1], vec![2], agent).expect("within the limits"))
    }
}

/// A script that stands for an image.
pub(crate) struct Script {
    path: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Script {
    pub(crate) fn new(text: &str) -> Script {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("agent");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("set");
        Script { path, _folder: Some(folder) }
    }

    pub(crate) fn at(path: impl AsRef<Path>) -> Script {
        Script { path: path.as_ref().to_owned(), _folder: None }
    }

    fn missing() -> Script {
        Script::at("/nonexistent")
    }
}

impl LocalImage for Script {
    fn image(&self) -> Result<Image<'_>, Failure> {
        Ok(Image::Path(&self.path))
    }
}

/// A child's hello with this nonce.
pub(crate) fn hello(nonce: [u8; 16]) -> Vec<u8> {
    let hello = ChildHello {
        nonce,
        frame: Limits::FRAME,
        triple: "x86_64-unknown-linux-musl".into(),
        version: "0.1.0".into(),
        host: "there".into(),
        user: "ann".into(),
        uid: 1000,
        pid: 4711,
    };
    let mut bytes = Vec::new();
    hello.put(&mut bytes);
    bytes
}

/// Bytes as a shell's `printf` takes them.
pub(crate) fn octal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count()
}

/// When a process was started, in ticks since the boot; `None` when it is gone.
fn started(process: &Path) -> Option<u64> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // Behind the name, which may hold anything: the state is the third field, the start the 22nd.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Now, by a process that was started now.
fn now_in_ticks() -> u64 {
    let mut child = std::process::Command::new("true").spawn().expect("a process");
    let now = started(&PathBuf::from(format!("/proc/{}", child.id()))).expect("its start");
    child.wait().expect("its end");
    now
}

/// The processes that carry this variable, but zombies, and but those that are older: to read the environment of a busy
/// compiler takes long.
fn with_tag(tag: &str, since: u64) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("a list").flatten() {
        let path = entry.path();
        let carries = |bytes: Vec<u8>| bytes.split(|b| *b == 0).any(|entry| entry == tag.as_bytes());
        if started(&path).is_some_and(|start| start >= since) && std::fs::read(path.join("environ")).is_ok_and(carries)
        {
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            found.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}
