//! This process: its attributes, and what it knows of its surroundings.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

use crate::sys::{self, facts};
use crate::{Child, child};

/// What [`fork_single_threaded`] returns, twice.
#[derive(Debug)]
pub enum Fork {
    /// In the process that called: the new one. Dropping it kills the new process.
    Parent(Child),
    /// In the new process.
    Child,
}

/// Forks a process that has no thread but the caller.
///
/// For the small agent, which becomes supervisor and agent so: it copies the page tables, which takes 20 ms and more in
/// a large process.
///
/// # Errors
///
/// `Unsupported` when there are other threads; any when the system does not say (neither `unshare` nor `/proc`); what
/// `fork(2)` reports.
pub fn fork_single_threaded() -> io::Result<Fork> {
    let pid = facts::fork_alone()?;
    if pid == 0 {
        child::forget_all();
        return Ok(Fork::Child);
    }
    Ok(Fork::Parent(child::register(false, || Ok(pid))?))
}

/// Makes this process the parent of all orphans among its descendants, so that none escapes it.
///
/// # Errors
///
/// `EINVAL` before Linux 3.4.
pub fn set_child_subreaper() -> io::Result<()> {
    facts::set_child_subreaper()
}

/// Has the kernel send a signal to this process when the *thread* that made it ends; zero takes it back. Check
/// [`parent_id`] afterwards: the parent may have ended before. Lost at a set-user-id exec and in forked children.
///
/// # Errors
///
/// `EINVAL` for what is no signal.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    facts::set_parent_death_signal(signal)
}

/// Sends a signal to this process's parent, if that is still the process with this number.
///
/// # Errors
///
/// `ESRCH` when the parent is another by now; `EPERM` when it has become another user.
pub fn signal_parent(parent: u32, signal: i32) -> io::Result<()> {
    // A descriptor first: should the parent end behind the check, its number may become another's.
    let process = sys::pid::open(parent as i32);
    if parent_id() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    match process {
        Ok(process) => sys::pid::signal_fd(process.as_fd(), signal),
        Err(_) => sys::pid::signal(parent as i32, signal),
    }
}

/// Continues this process should somebody stop it: by a timer in the kernel, which runs on meanwhile. So a process on
/// which others depend comes back with nobody's help, when nobody is left who could.
///
/// Belongs to the process that made it: a fork has none.
///
/// # Examples
///
/// ```
/// use offshoot_mux::process::Rouse;
/// use std::time::Duration;
/// let rouse = Rouse::new()?;
/// // Each time it sees that it lives:
/// rouse.set(Duration::from_secs(16));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Rouse(i32);

impl Rouse {
    /// A timer that is not set.
    ///
    /// # Errors
    ///
    /// `ENOSYS` where the kernel was built without timers, `EAGAIN` when the user has no more.
    pub fn new() -> io::Result<Rouse> {
        sys::rouse::create().map(Rouse)
    }

    /// If this process is stopped when so much time has passed, it is continued then. Replaces what was set before.
    pub fn set(&self, after: Duration) {
        // The timer is ours and the time is one: nothing is left that could be wrong.
        let _ = sys::rouse::set(self.0, after, Duration::ZERO);
    }
}

impl Drop for Rouse {
    fn drop(&mut self) {
        sys::rouse::delete(self.0);
    }
}

/// Whether this process can be traced and its memory dumped by others of its user. No boundary against them.
///
/// # Errors
///
/// None on any kernel in use.
pub fn set_dumpable(on: bool) -> io::Result<()> {
    facts::set_dumpable(on)
}

/// Names this process for `ps` and `top`: the command name (15 bytes of it), and the argument list as far as its memory
/// reaches. Answers how many bytes of the name that list now shows.
///
/// `std::env::args` gives the new name afterwards: read the arguments before.
///
/// # Errors
///
/// `Unsupported` when there are other threads; any where `/proc` is missing. The command name is set all the same.
pub fn set_process_name(name: impl AsRef<OsStr>) -> io::Result<usize> {
    let name = name.as_ref().as_bytes();
    facts::set_comm(name)?;
    facts::overwrite_arguments(name)
}

/// The argument at this place, the program's own name at 0. In a program of ours that `main_of` made, `std::env::args`
/// knows none.
pub fn argument(place: usize) -> Option<std::ffi::OsString> {
    #[cfg(offshoot_main)]
    return crate::sys::thread::argument(place);
    #[cfg(not(offshoot_main))]
    std::env::args_os().nth(place)
}

/// The soft limit of descriptors before it was raised.
static FORMER_LIMIT: OnceLock<u64> = OnceLock::new();

/// Raises this process's soft limit of descriptors to its hard one, and answers that. What
/// [`Spawn`](crate::Spawn) starts gets the former limit back: a program that uses `select(2)` breaks beyond 1024.
///
/// For programs of ours, early in `main`: a context costs four descriptors, and many systems begin with 1024.
///
/// # Errors
///
/// What `setrlimit(2)` reports.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = facts::descriptor_limit()?;
    if soft < hard {
        facts::set_descriptor_limit(hard, hard)?;
        FORMER_LIMIT.get_or_init(|| soft);
    }
    Ok(hard)
}

/// Bounds the address space of this process and of what it starts, in bytes: what is allocated beyond that fails.
///
/// # Errors
///
/// What `setrlimit(2)` reports: the hard limit may be lower already.
pub fn limit_memory(bytes: u64) -> io::Result<()> {
    facts::limit_memory(bytes)
}

/// The soft and hard limits for a child, when this process's own were raised.
pub(crate) fn former_descriptor_limit() -> Option<(u64, u64)> {
    let former = *FORMER_LIMIT.get()?;
    let (_, hard) = facts::descriptor_limit().ok()?;
    Some((former.min(hard), hard))
}

/// Sets the bits that new files of this process do not get, and answers the former.
pub fn umask(bits: u32) -> u32 {
    facts::umask(bits)
}

/// Makes this process the leader of a new session, without a terminal.
///
/// # Errors
///
/// `EPERM` when it leads a process group.
pub fn setsid() -> io::Result<()> {
    facts::setsid()
}

/// The process id of this process. Unlike `std::process::id` it says so in name: see [`parent_id`].
pub fn id() -> u32 {
    sys::pid::own() as u32
}

/// The process id of the parent at this moment; 1 or a subreaper's when that has ended, 0 for one outside the namespace.
pub fn parent_id() -> u32 {
    sys::pid::parent() as u32
}

/// The real user id.
pub fn uid() -> u32 {
    facts::uid()
}

/// The effective user id.
pub fn effective_uid() -> u32 {
    facts::euid()
}

/// Time since some moment before, the same for all processes of this host, that no clock change touches.
pub fn monotonic() -> Duration {
    facts::monotonic()
}

/// The host's name; `localhost` when it has none.
pub fn hostname() -> String {
    match facts::hostname() {
        Ok(name) if !name.is_empty() => String::from_utf8_lossy(&name).into_owned(),
        _ => "localhost".into(),
    }
}

/// What the system's list of users says about one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The home folder.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// The entry of a user in `/etc/passwd`. Users that only a directory service knows are not found: asking that needs the
/// C library's plug-ins, which a static program does not have.
pub fn account(uid: u32) -> Option<Account> {
    account_in(&fs::read("/etc/passwd").ok()?, uid)
}

fn account_in(passwd: &[u8], uid: u32) -> Option<Account> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let number = fields.nth(1)?;
        if std::str::from_utf8(number).ok()?.parse() != Ok(uid) {
            return None;
        }
        let path = |field: Option<&[u8]>| field.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        let home = path(fields.nth(2))?;
        let shell = path(fields.next()).filter(|shell| !shell.as_os_str().is_empty());
        let shell = shell.unwrap_or_else(|| PathBuf::from("/bin/sh"));
        Some(Account { name: String::from_utf8_lossy(name).into_owned(), home, shell })
    })
}

/// The name of the effective user: from `/etc/passwd`, else from the environment, else its number.
pub fn user_name() -> String {
    let uid = effective_uid();
    let from_env =
        || ["LOGNAME", "USER"].into_iter().find_map(|key| env::var(key).ok().filter(|name| !name.is_empty()));
    account(uid).map(|account| account.name).or_else(from_env).unwrap_or_else(|| uid.to_string())
}

/// The home folder of the effective user: from `/etc/passwd`, else from the environment, else the root.
pub fn home() -> PathBuf {
    let from_env = || env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    account(effective_uid()).map(|account| account.home).or_else(from_env).unwrap_or_else(|| PathBuf::from("/"))
}

#[cfg(test)]
mod tests {
    use super::{Account, account_in};

    #[test]
    fn an_account_is_found_by_its_number_whatever_the_other_lines_are() {
        let passwd =
            b"# comment\n\n+::::::\nroot:x:0:0:root:/root:/bin/bash\nshort:x:7\nann:x:1000:1000:Ann,,,:/home/ann:\n";
        assert_eq!(account_in(passwd, 0).unwrap().name, "root");
        assert_eq!(account_in(passwd, 7), None);
        let ann = Account { name: "ann".into(), home: "/home/ann".into(), shell: "/bin/sh".into() };
        assert_eq!(account_in(passwd, 1000), Some(ann));
        assert_eq!(account_in(passwd, 1), None);
    }
}
