//! The stage of a case: a tree of real processes in which one context is the test itself.
//!
//! Owns the start of the tree, the hand-over of the evil context's link, and what is looked at afterwards. One case at a
//! time uses the process, so that descriptors, memory and times are those of the case.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use offshoot_connect::methods::Local;
use offshoot_connect::{Image, LocalImage};
use offshoot_node::{Context, Error, Images, Options, Pending, Process, Root, Stdio};
use offshoot_tests::{bounded, process};
use offshoot_wire::{ChildHello, ContentRef, Failure, Limits, Packing};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use sha2::{Digest, Sha256};

use crate::link::Link;
use crate::records;
use crate::relay::Harm;

/// The program of all contexts.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_offshoot-evil");

/// How long anything may take that takes milliseconds: two cores, and other tests beside this one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// An agent or a worker.
    #[default]
    Honest,
    /// Its link is the test's.
    Evil,
    /// It stands before an agent, and does this.
    Relay(Harm),
}

/// Decides what a process is that was started from [`PROGRAM`], and receives the links of the evil ones.
pub(crate) struct Director {
    pub(crate) name: String,
    next: Arc<Mutex<VecDeque<Role>>>,
    starts: Arc<AtomicUsize>,
    links: Receiver<Link>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Director {
    pub(crate) fn new() -> Director {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("offshoot:evil-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let listener = UnixListener::bind_addr(&address).expect("a name of its own");
        let next = Arc::new(Mutex::new(VecDeque::new()));
        let (starts, ending) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (send, links) = channel();
        let thread = std::thread::spawn({
            let (next, starts, ending) = (next.clone(), starts.clone(), ending.clone());
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ending.load(Ordering::SeqCst) {
                        return;
                    }
                    starts.fetch_add(1, Ordering::SeqCst);
                    let role = next.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or_default();
                    // An error means that the process has ended again: whoever waits for it says so.
                    let _ = direct(stream, role, &send);
                }
            }
        });
        Director { name, next, starts, links, ending, thread: Some(thread) }
    }

    /// The next process to start, of those that were not decided on yet, is evil.
    pub(crate) fn evil_is_next(&self) {
        self.next_is(Role::Evil);
    }

    /// The next process to start, of those that were not decided on yet, is this.
    pub(crate) fn next_is(&self, role: Role) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).push_back(role);
    }

    /// The link of the evil context that was started.
    pub(crate) fn link(&self) -> Link {
        self.links.recv_timeout(PATIENCE).expect("an evil context is started")
    }

    /// How many contexts were started.
    pub(crate) fn starts(&self) -> usize {
        self.starts.load(Ordering::SeqCst)
    }

    /// The processes that live, by their name.
    pub(crate) fn processes(&self) -> Vec<process::Process> {
        process::all().into_iter().filter(|found| found.cmdline.first() == Some(&self.name)).collect()
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let address = SocketAddr::from_abstract_name(&self.name).expect("a short name");
        drop(UnixStream::connect_addr(&address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn direct(mut stream: UnixStream, role: Role, links: &Sender<Link>) -> io::Result<()> {
    match role {
        Role::Honest => stream.write_all(b"h")?,
        Role::Evil => stream.write_all(b"e")?,
        Role::Relay(harm) => stream.write_all(&[b'r', harm.byte()])?,
    }
    if role == Role::Evil {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut received, RecvFlags::CMSG_CLOEXEC)?;
        let link: Option<[OwnedFd; 2]> = received.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => Some([fds.next()?, fds.next()?]),
            _ => None,
        });
        let link = link.ok_or_else(|| io::Error::other("no link came"))?;
        let _ = links.send(Link::below(link, stream));
    }
    Ok(())
}

struct Program(PathBuf);

impl LocalImage for Program {
    fn image(&self) -> Result<Image<'_>, Failure> {
        Ok(Image::Path(&self.0))
    }
}

/// Where the evil context sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A child of the master.
    BelowTheMaster,
    /// A child of an honest agent.
    BelowAnAgent,
}

/// A tree: the master in this process, an honest context, perhaps an honest agent between, and the evil context.
pub(crate) struct Stage {
    pub(crate) root: Option<Root>,
    /// The parent of the evil context and of its honest sibling.
    pub(crate) above: Context,
    pub(crate) sibling: Context,
    pub(crate) director: Director,
    folder: tempfile::TempDir,
    cat: Option<Process>,
    pub(crate) expected_starts: usize,
}

impl Images for Program {
    fn image(&self, _: &[u8; 32], _: &str, _: bool) -> Result<offshoot_node::Image, Failure> {
        let bytes = std::fs::read(&self.0).expect("it was built");
        let content =
            ContentRef { hash: Sha256::digest(&bytes).into(), length: bytes.len() as u64, packing: Packing::Stored };
        let file = Arc::new(std::fs::File::open(&self.0).expect("it was built"));
        Ok(offshoot_node::Image::new(content, file, 0))
    }
}

/// The identity of the program, as its workers state it.
pub(crate) const IDENTITY: [u8; 32] = [1; 32];

pub(crate) fn options(director: &Director) -> Options {
    let mut options = Options::new(Arc::new(Program(PROGRAM.into())));
    options.images = Some(Arc::new(Program(PROGRAM.into())));
    options.process_name = director.name.clone();
    options
}

impl Stage {
    pub(crate) fn new(place: Place) -> Stage {
        let director = Director::new();
        let root = Root::start(options(&director)).expect("a tree");
        let above = match place {
            Place::BelowTheMaster => root.context(),
            Place::BelowAnAgent => root.context().local().connect().expect("an honest agent"),
        };
        let sibling = above.local().connect().expect("an honest sibling");
        let expected_starts = if place == Place::BelowAnAgent { 2 } else { 1 };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cat = sibling.command("cat").stdin(Stdio::Piped).stdout(Stdio::Piped).spawn().expect("cat runs");
        let (cat, root) = (Some(cat), Some(root));
        Stage { root, above, sibling, director, folder, cat, expected_starts }
    }

    /// Starts an evil context and leaves its hello to the test. The connect goes on on a thread.
    pub(crate) fn raw_evil(&mut self, method: Local) -> (Link, JoinHandle<Result<Context, Error>>) {
        self.expected_starts += 1;
        self.director.evil_is_next();
        let above = self.above.clone();
        let connect = std::thread::spawn(move || above.connect(method));
        (self.director.link(), connect)
    }

    /// Starts an evil context that completes the hello.
    pub(crate) fn evil(&mut self) -> (Link, Context) {
        let (mut link, connect) = self.raw_evil(Local::new());
        let nonce = link.parent_hello().nonce;
        link.send_hello(&child_hello(nonce));
        let context = connect.join().expect("no panic").expect("the evil context joins the tree");
        (link, context)
    }

    /// A call to a context that does not answer by itself.
    pub(crate) fn pending(&self, context: &Context) -> Pending<Bytes> {
        context.start_echo(b"wait").expect("it is up")
    }

    /// A case has had an honest context started.
    pub(crate) fn started_one_more(&mut self) {
        self.expected_starts += 1;
    }

    /// A file that nobody may make: what evil contexts ask to be run would make it.
    pub(crate) fn canary(&self) -> PathBuf {
        self.folder.path().join("canary")
    }

    /// Asserts what must hold after every case: the honest contexts go on, nothing was run or started, and when the tree
    /// has ended no process, file or descriptor is left.
    pub(crate) fn finish(mut self) {
        let echo = self.sibling.start_echo(b"honest").expect("the sibling is up");
        assert_eq!(&echo.wait_timeout(PATIENCE).expect("the honest sibling answers")[..], b"honest");
        let mut cat = self.cat.take().expect("it runs");
        let mut input = cat.stdin.take().expect("a pipe");
        input.write_all(b"still here\n").expect("the sibling's process reads");
        drop(input);
        let output = cat.output().expect("the sibling's process ends");
        assert_eq!(output.stdout, b"still here\n");
        assert_eq!(self.director.starts(), self.expected_starts, "a context was started that nobody may start");
        assert!(!self.canary().exists(), "something was run");
        let started = Instant::now();
        if let Some(root) = self.root.take() {
            root.shutdown(Duration::ZERO);
        }
        let Stage { director, above, sibling, folder, .. } = self;
        drop((above, sibling, folder));
        let left = || director.processes();
        assert!(
            bounded::eventually(PATIENCE, || left().is_empty()),
            "left after {:?}: {:?}",
            started.elapsed(),
            left()
        );
    }
}

/// Runs a case alone in this process and on a thread of its own, so that what a thread keeps for its life is gone too
/// when the descriptors are counted.
#[track_caller]
pub(crate) fn alone(case: impl FnOnce() + Send + 'static) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    records::clear();
    let before = descriptors();
    if let Err(panic) = std::thread::spawn(case).join() {
        std::panic::resume_unwind(panic);
    }
    let now = || descriptors();
    assert!(bounded::eventually(PATIENCE, || now() <= before), "descriptors: {before} before, {} after", now());
}

/// A hello as an agent would send it.
pub(crate) fn child_hello(nonce: [u8; 16]) -> ChildHello {
    ChildHello {
        nonce,
        frame: Limits::FRAME,
        triple: "evil-unknown-linux-gnu".into(),
        version: "0.1.0".into(),
        host: "evil".into(),
        user: "evil".into(),
        uid: 0,
        pid: 1,
    }
}

/// How many descriptors this process has open. Threads that end keep theirs a moment longer.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// How much memory a process has in use, in bytes.
pub(crate) fn memory(pid: impl std::fmt::Display) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
