//! The evil end of a link: says anything, in any order, and reads what comes back.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use offshoot_mux::{io as fd, wait_readable};
use offshoot_wire::{
    Address, Bye, ChildHello, Failure, FailureKind, Frame, FrameHeader, FrameKind, Hello, Limits, LostReason,
    ParentHello, Ping, decode, encode, parse_frame, parse_hello,
};

use crate::stage::PATIENCE;

/// What came on a link.
#[derive(Clone, Debug)]
pub(crate) enum Came {
    Frame(FrameHeader, Bytes),
    /// The other end closed.
    End,
    /// Nothing, for as long as was waited.
    Nothing,
}

/// One end of a link, in the test's hands.
pub(crate) struct Link {
    /// Where it reads and where it writes, until it is closed.
    read: Option<OwnedFd>,
    write: Option<OwnedFd>,
    /// The connection that keeps the evil context's process alive.
    process: Option<UnixStream>,
    input: BytesMut,
    pub(crate) hello: Option<ParentHello>,
    pings: u64,
    /// Frames that were read while something else was waited for.
    kept: Vec<(FrameHeader, Bytes)>,
}

impl Link {
    pub(crate) fn below(ends: [OwnedFd; 2], process: UnixStream) -> Link {
        Link { process: Some(process), ..Link::above(ends) }
    }

    /// What it reads, and what it writes.
    pub(crate) fn above([read, write]: [OwnedFd; 2]) -> Link {
        fd::set_nonblocking(&write, true).expect("a pipe");
        // As much as a node reads at once: else the credit for some of it may be there before the rest is.
        fd::set_pipe_size(&write, 1 << 20).expect("a pipe");
        let (input, kept) = (BytesMut::new(), Vec::new());
        Link { read: Some(read), write: Some(write), process: None, input, hello: None, pings: 1 << 40, kept }
    }

    /// Reads once; whether more may come.
    fn fill(&mut self, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let Some(read) = &self.read else { return Ok(false) };
        if wait_readable(&[read.as_fd()], Some(left))?.is_empty() {
            return Ok(true);
        }
        let mut buffer = [0; 64 * 1024];
        match fd::read(read, &mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// The hello of the parent, which has sent it before this process was started.
    pub(crate) fn parent_hello(&mut self) -> ParentHello {
        let until = Instant::now() + PATIENCE;
        while self.hello.is_none() {
            if let Some(parsed) = parse_hello::<ParentHello>(&self.input).expect("a hello") {
                let _ = self.input.split_to(parsed.length);
                self.hello = Some(parsed.hello);
            } else {
                assert!(self.fill(until).expect("a socket") && Instant::now() < until, "no hello from the parent");
            }
        }
        self.hello.clone().expect("just read")
    }

    /// The hello of the child.
    pub(crate) fn child_hello(&mut self) -> ChildHello {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(parsed) = parse_hello::<ChildHello>(&self.input).expect("a hello") {
                let _ = self.input.split_to(parsed.length);
                return parsed.hello;
            }
            assert!(self.fill(until).expect("a socket") && Instant::now() < until, "no hello from the child");
        }
    }

    pub(crate) fn send_hello(&mut self, hello: &impl Hello) {
        let mut bytes = Vec::new();
        hello.put(&mut bytes);
        self.raw(&bytes);
    }

    /// Has the evil process write error output without end.
    pub(crate) fn flood_error_output(&mut self) {
        self.process.as_mut().expect("it is a child").write_all(b"f").expect("it lives");
    }

    /// The address that the parent gave.
    pub(crate) fn me(&mut self) -> Address {
        self.parent_hello().address
    }

    /// Sends bytes. That the other end has closed meanwhile is no error: it may be what is looked for.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes);
    }

    /// As `raw`; whether they were taken within a moment.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        let until = Instant::now() + Duration::from_secs(2);
        self.write.as_ref().is_some_and(|write| fd::write_all(write, bytes, Some(until)).is_ok())
    }

    /// Closes what it writes.
    pub(crate) fn end_writing(&mut self) {
        self.write = None;
    }

    /// Closes both directions.
    pub(crate) fn close_both(&mut self) {
        (self.read, self.write) = (None, None);
    }

    /// One more descriptor of what it writes, which says so when there is no room.
    pub(crate) fn writer(&self) -> OwnedFd {
        self.write.as_ref().expect("it is open").try_clone().expect("a descriptor")
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.raw(&bytes_of(frame));
    }

    /// What comes next.
    pub(crate) fn next(&mut self, within: Duration) -> Came {
        let until = Instant::now() + within;
        loop {
            match parse_frame(&self.input, &Limits::default()).expect("a node sends frames") {
                Some(frame) => {
                    let whole = self.input.split_to(frame.length).freeze();
                    return Came::Frame(frame.header, whole.slice(frame.body));
                }
                None if Instant::now() >= until => return Came::Nothing,
                None => {
                    if !self.fill(until).expect("a socket") {
                        return Came::End;
                    }
                }
            }
        }
    }

    /// The first frame that is `wanted`, of those kept and those to come.
    #[track_caller]
    pub(crate) fn await_frame(&mut self, what: &str, wanted: impl Fn(&FrameHeader) -> bool) -> (FrameHeader, Bytes) {
        if let Some(at) = self.kept.iter().position(|(header, _)| wanted(header)) {
            return self.kept.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Came::Frame(header, body) if wanted(&header) => return (header, body),
                Came::Frame(header, body) => self.keep(header, body),
                other => panic!("waited for {what}, came: {other:?}; before: {:?}", self.kept),
            }
        }
    }

    fn keep(&mut self, header: FrameHeader, body: Bytes) {
        if header.kind == FrameKind::Bye {
            panic!("cut off: {:?}", decode::<Bye>(&body));
        }
        if header.kind.is_routed() || header.kind == FrameKind::Gone {
            self.kept.push((header, body));
        }
    }

    /// A request that came, by the exchange's number.
    #[track_caller]
    pub(crate) fn request(&mut self) -> (FrameHeader, Bytes) {
        self.await_frame("a request", |header| header.kind == FrameKind::Request)
    }

    /// Asks whether the other end has handled all that was sent: it answers in order. Whether it still does.
    #[track_caller]
    pub(crate) fn is_alive(&mut self) -> bool {
        self.pings += 1;
        let seq = self.pings;
        self.send(&Frame::link(FrameKind::Ping, encode(&Ping { seq }).into()));
        let until = Instant::now() + PATIENCE;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                // A node answers the last of several pings alone: any later one does too.
                Came::Frame(header, body) if header.kind == FrameKind::Pong => {
                    if decode::<Ping>(&body).is_ok_and(|ping| ping.seq == seq) {
                        return true;
                    }
                }
                Came::Frame(header, _) if header.kind == FrameKind::Bye => return false,
                Came::Frame(header, body) => self.keep(header, body),
                Came::End => return false,
                Came::Nothing => panic!("neither an answer nor an end"),
            }
        }
    }

    /// The failure that answers a request of ours.
    #[track_caller]
    pub(crate) fn failure(&mut self, number: u64) -> Failure {
        let (_, body) =
            self.await_frame("a failure", |header| header.kind == FrameKind::Failure && header.exchange == number);
        decode(&body).expect("a failure")
    }

    /// Asserts that a request of ours was refused.
    #[track_caller]
    pub(crate) fn refused(&mut self, number: u64, kind: &FailureKind) {
        let failure = self.failure(number);
        assert_eq!(&failure.kind, kind, "{failure:?}");
    }

    /// Reads to the end: the reason that the other end gave, if it gave one.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<LostReason> {
        let until = Instant::now() + PATIENCE;
        let mut reason = None;
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Came::Frame(header, body) if header.kind == FrameKind::Bye => {
                    reason = decode::<Bye>(&body).ok().map(|bye| bye.reason);
                }
                Came::Frame(..) => {}
                Came::End => return reason,
                Came::Nothing => panic!("the link is still open"),
            }
        }
    }

    /// What was read and kept.
    pub(crate) fn kept(&self) -> &[(FrameHeader, Bytes)] {
        &self.kept
    }

    /// The process goes on without its link.
    pub(crate) fn close(self) -> Option<UnixStream> {
        self.process
    }
}

pub(crate) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}
