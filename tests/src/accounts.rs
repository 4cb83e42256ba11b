//! The accounts of hosts with `Profile::Accounts`, and their passwords.
//!
//! What each account is for stands in `peers/accounts.sh`, which makes them. No two passwords are the same, and all of a fleet's hold one random text that
//! is nowhere else in the world: whoever finds it somewhere has found a password.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::not_run::Unavailable;
use crate::sshd::io_error;

/// Accounts for logins by ssh.
const SSH: [&str; 16] = [
    "p-word",
    "p-strange",
    "p-failed",
    "p-keyboard",
    "p-code",
    "p-otp",
    "p-phrase",
    "p-both",
    "p-tries",
    "p-banner",
    "p-noisy",
    "p-forced",
    "p-nologin",
    "p-stale",
    "p-ended",
    "p-slow",
];

/// Accounts for sudo, each with a rule or a setting of its own; and the one that it leads to.
pub const SUDO: [&str; 20] = [
    "sudo-nopass",
    "sudo-pw",
    "sudo-lecture",
    "sudo-tty",
    "sudo-ttypw",
    "sudo-nopty",
    "sudo-log",
    "sudo-stars",
    "sudo-prompt",
    "sudo-override",
    "sudo-one",
    "sudo-none",
    "sudo-target",
    "sudo-once",
    "sudo-insults",
    "sudo-root",
    "sudo-ended",
    "sudo-stale",
    "sudo-keep",
    "goal",
];

/// Accounts for doas.
const DOAS: [&str; 3] = ["doas-pw", "doas-nopass", "doas-none"];

/// The passwords of a fleet.
#[derive(Debug)]
pub struct Accounts {
    secret: String,
}

impl Accounts {
    /// New ones.
    pub(crate) fn new() -> Result<Accounts, Unavailable> {
        let mut bytes = [0; 12];
        let source = Path::new("/dev/urandom");
        fs::File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).map_err(io_error(source))?;
        Ok(Accounts { secret: bytes.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    /// The random part of every password.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The password of an account of a host. Some of its characters are such as a shell or a careless reader would trip over.
    pub fn password(&self, host: &str, account: &str) -> String {
        format!("{} $'\"\\ü {account}@{host}", self.secret)
    }

    /// Writes what `chpasswd` reads; the host is made from it.
    pub(crate) fn write(&self, host: &str, path: &Path) -> Result<(), Unavailable> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(io_error(folder))?;
        }
        let names = ["root"].iter().chain(&SSH).chain(&SUDO).chain(&DOAS);
        let text: String = names.map(|name| format!("{name}:{}\n", self.password(host, name))).collect();
        let mut options = fs::OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(io_error(path))
    }
}
