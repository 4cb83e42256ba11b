//! What a host holds that a test must not leave: its processes, its zombies, its files.
//!
//! Shared between the host and the tag of the test, which asks at the end. Must not know how a host is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::process::{self, Process};

/// What the check for leftovers needs to know of a host; shared between the host and the tag.
#[derive(Debug)]
pub struct Watched {
    name: String,
    /// PID 1 of the host, as the test sees it.
    init: i32,
    namespace: u64,
    /// Kept open: else the number would name another test's host as soon as this one has ended.
    _pinned: fs::File,
    fixtures: Mutex<BTreeSet<i32>>,
    files: Mutex<BTreeMap<PathBuf, (u64, i64, i64)>>,
}

/// What sshd, PAM, sudo and fish write of their own accord, whoever logs in.
const WRITTEN_BY_LOGINS: [&str; 17] = [
    "run/upper/var/log/lastlog",
    "run/upper/var/log/wtmp",
    "run/upper/var/log/btmp",
    "run/upper/var/log/faillog",
    "run/upper/var/log/sudo-io",
    "run/upper/var/log/sudo.log",
    "run/upper/var/log/refused",
    "run/upper/var/lib/sudo",
    "run/sudo",
    "run/sudo-rs",
    "run/motd.dynamic",
    // What asks on a terminal writes to it; that is a change of the device's file.
    "dev/tty",
    "run/utmp",
    "home/u-fish",
    // What a command forced by our own configuration was told, and a start file of our own.
    "home/p-forced/got",
    "home/p-noisy/got",
    // Whom our own program was asked for.
    "dev/shm/asked",
];

impl Watched {
    /// What lies in the host now is not left by the test.
    pub(crate) fn new(name: &str, init: i32, namespace: u64, pinned: fs::File) -> Watched {
        let watched = Watched {
            name: name.to_string(),
            init,
            namespace,
            _pinned: pinned,
            fixtures: Mutex::default(),
            files: Mutex::default(),
        };
        watched.accept_files();
        watched
    }

    /// PID 1 of the host, as the test sees it.
    pub(crate) fn init(&self) -> i32 {
        self.init
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says that a process belongs to the fixture: its sshd, a server.
    pub fn exempt(&self, pid: i32) {
        self.fixtures.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    /// Whether that pid is one of this host's.
    pub fn contains(&self, pid: i32) -> bool {
        process::pid_namespace(pid) == Some(self.namespace)
    }

    /// Whether a process lives in this host and is not one of the fixture's own.
    pub fn owns(&self, process: &Process) -> bool {
        process.pid != self.init
            && self.contains(process.pid)
            && !self.fixtures.lock().unwrap_or_else(PoisonError::into_inner).contains(&process.pid)
    }

    fn listing(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        // What the host sees of the machine's own folders, read-only: other tests may build there meanwhile.
        let programs = crate::product::programs_folder();
        let programs: Vec<&Path> =
            programs.split(':').map(|folder| Path::new(folder.trim_start_matches('/'))).collect();
        let mut found = BTreeMap::new();
        // `run/upper` is the copy-on-write layer: whatever was created, changed or removed in any folder that is not a mount of its own.
        let mut folders: Vec<PathBuf> = ["run", "tmp", "var/tmp", "home", "root", "dev", "srv/busybox/tmp"]
            .iter()
            .map(|place| root.join(place))
            .collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(metadata) = fs::symlink_metadata(&path) else {
                    continue;
                };
                let inside = path.strip_prefix(&root).unwrap_or(&path).to_path_buf();
                if inside.starts_with("run/fixture")
                    || inside.starts_with("dev/pts")
                    || programs.iter().any(|folder| inside.starts_with(folder))
                    || WRITTEN_BY_LOGINS.iter().any(|known| inside.starts_with(known))
                {
                    continue;
                }
                if metadata.is_dir() {
                    // A folder of the machine gets into the copy-on-write layer when anything in it was touched; only new folders are news.
                    let known = inside.strip_prefix("run/upper").is_ok_and(|below| Path::new("/").join(below).is_dir());
                    if !known {
                        found.insert(inside, (0, 0, 0));
                    }
                    folders.push(path);
                } else {
                    found.insert(inside, (metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
                }
            }
        }
        found
    }

    /// Takes what lies in the host now as not left by the test.
    pub fn accept_files(&self) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = self.listing();
    }

    /// What has been created or changed in the host since then, by its path; `run/upper/X` is `/X`.
    pub fn new_files(&self) -> Vec<String> {
        let accepted = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<String> = self
            .listing()
            .into_iter()
            .filter(|(path, what)| accepted.get(path) != Some(what))
            .map(|(path, (length, ..))| {
                format!("{}:/{} ({length} bytes)", self.name, path.display().to_string().replace("run/upper/", ""))
            })
            .collect();
        new.sort();
        new
    }
}
