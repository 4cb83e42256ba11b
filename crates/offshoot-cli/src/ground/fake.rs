//! A ground for tests: contexts are names, commands are real processes of this machine.
//!
//! A hop called `refused…` fails to connect; one called `hangs` connects when the ground is shut down.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::*;
use crate::exit;

#[derive(Clone, Default)]
pub(crate) struct Fake {
    path: Vec<String>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    down: Mutex<bool>,
    changed: Condvar,
    running: Mutex<Vec<u32>>,
    pub(crate) closed: Mutex<Vec<String>>,
}

impl Fake {
    pub(crate) fn shutdown(&self) {
        *self.shared.down.lock().expect("not poisoned") = true;
        self.shared.changed.notify_all();
        for pid in self.shared.running.lock().expect("not poisoned").drain(..) {
            let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }

    fn is_down(&self) -> bool {
        *self.shared.down.lock().expect("not poisoned")
    }

    fn lost(&self, what: &str) -> Box<Fault> {
        Box::new(Fault {
            kind: "fake",
            what: what.into(),
            brief: what.into(),
            path: self.path(),
            code: exit::OURS,
            ..Fault::default()
        })
    }
}

impl Ground for Fake {
    type Hop = String;
    type Process = FakeProcess;

    fn connect(&self, hop: &String) -> Result<Fake, Box<Fault>> {
        let mut below = self.clone();
        below.path.push(hop.clone());
        if hop == "hangs" {
            let down = self.shared.down.lock().expect("not poisoned");
            drop(self.shared.changed.wait_while(down, |down| !*down));
        }
        if hop.starts_with("refused") || self.is_down() {
            return Err(below.lost("connection refused"));
        }
        Ok(below)
    }

    fn path(&self) -> String {
        self.path.join(" -> ")
    }

    fn start(&self, job: &Job, fed: bool) -> Result<FakeProcess, Box<Fault>> {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(&job.program);
        command.args(&job.args).env("FAKE_PATH", self.path()).process_group(0);
        command.stdin(if fed { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            let code = if error.kind() == io::ErrorKind::NotFound { exit::NOT_FOUND } else { exit::NOT_EXECUTABLE };
            Box::new(Fault { code, ..*self.lost("cannot run it") })
        })?;
        self.shared.running.lock().expect("not poisoned").push(child.id());
        let (sender, events) = sync_channel(2);
        let streams: [(Stream, Box<dyn Read + Send>); 2] = [
            (Stream::Stdout, Box::new(child.stdout.take().expect("piped"))),
            (Stream::Stderr, Box::new(child.stderr.take().expect("piped"))),
        ];
        for (stream, mut source) in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut piece = vec![0; 16 * 1024];
                while let Ok(length @ 1..) = source.read(&mut piece) {
                    if sender.send((stream, Bytes::copy_from_slice(&piece[..length]))).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(FakeProcess { stdin: child.stdin.take(), child, events, ground: self.clone() })
    }

    fn facts(&self) -> Result<Facts, Box<Fault>> {
        Ok(Facts { name: self.path(), pid: 1, ..Facts::default() })
    }

    fn close(&self) {
        self.shared.closed.lock().expect("not poisoned").push(self.path());
    }
}

pub(crate) struct FakeProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<(Stream, Bytes)>,
    ground: Fake,
}

impl Running for FakeProcess {
    fn stdin(&mut self) -> Option<Box<dyn Stdin>> {
        struct Pipe(ChildStdin);
        impl Stdin for Pipe {
            fn write(&mut self, bytes: Bytes) -> io::Result<()> {
                self.0.write_all(&bytes)
            }
        }
        self.stdin.take().map(|pipe| Box::new(Pipe(pipe)) as Box<dyn Stdin>)
    }

    fn event(&mut self) -> Result<Event, Box<Fault>> {
        use std::os::unix::process::ExitStatusExt as _;
        if let Ok((stream, bytes)) = self.events.recv() {
            return Ok(Event::Output(stream, bytes));
        }
        let status = self.child.wait().expect("a child");
        if self.ground.is_down() {
            return Err(self.ground.lost("lost the link"));
        }
        let end = status.signal().map_or_else(|| End::Status(status.code().expect("a code")), End::Signal);
        Ok(Event::End(end, false))
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
