//! Starting programs. Owns what a child begins with; must not know why it is started. Runs on any thread.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use libc::c_char;

use crate::sys::seats::{self, Seated};
use crate::sys::start::{self, Plan, Step};
use crate::{Child, child, fallback, sys};

/// Where a child's descriptor comes from.
#[derive(Debug)]
pub enum Stdio<'a> {
    /// The same as the parent's.
    Inherit,
    /// The null device.
    Null,
    /// A descriptor that stays open in the parent.
    Borrowed(BorrowedFd<'a>),
    /// A descriptor that the parent has no further use for: closed when the child has started or failed to.
    Owned(OwnedFd),
}

impl<'a> From<BorrowedFd<'a>> for Stdio<'a> {
    fn from(fd: BorrowedFd<'a>) -> Self {
        Stdio::Borrowed(fd)
    }
}

impl From<OwnedFd> for Stdio<'_> {
    fn from(fd: OwnedFd) -> Self {
        Stdio::Owned(fd)
    }
}

/// A limit of a process, as `setrlimit(2)` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// Seconds of processor time.
    Cpu,
    /// Bytes of a file written.
    FileSize,
    /// Bytes of data.
    Data,
    /// Bytes of stack.
    Stack,
    /// Bytes of a core dump.
    Core,
    /// One more than the highest descriptor.
    OpenFiles,
    /// Bytes of address space.
    AddressSpace,
    /// Processes and threads of the user.
    Processes,
}

impl Limit {
    fn number(self) -> libc::c_int {
        let number = match self {
            Limit::Cpu => libc::RLIMIT_CPU,
            Limit::FileSize => libc::RLIMIT_FSIZE,
            Limit::Data => libc::RLIMIT_DATA,
            Limit::Stack => libc::RLIMIT_STACK,
            Limit::Core => libc::RLIMIT_CORE,
            Limit::OpenFiles => libc::RLIMIT_NOFILE,
            Limit::AddressSpace => libc::RLIMIT_AS,
            Limit::Processes => libc::RLIMIT_NPROC,
        };
        number as libc::c_int
    }
}

/// Why a program did not start.
#[derive(Debug)]
pub struct SpawnError {
    step: &'static str,
    source: io::Error,
}

impl SpawnError {
    fn new(step: &'static str, source: io::Error) -> Self {
        SpawnError { step, source }
    }

    /// The error of the system call that failed.
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// The errno of the system call that failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<SpawnError> for io::Error {
    /// Keeps the errno and drops the step.
    fn from(error: SpawnError) -> Self {
        error.source
    }
}

#[derive(Debug)]
enum Program<'a> {
    Named(OsString),
    Open(BorrowedFd<'a>),
}

/// A program to be started, in the manner of `std::process::Command`.
///
/// The child begins with exactly the descriptors 0, 1, 2 (and those of [`pass`](Self::pass)), every signal at its
/// default and none blocked, whatever the parent's are. The cost does not depend on the parent's memory.
///
/// # Examples
///
/// ```
/// use offshoot_mux::{Spawn, Stdio, io};
/// let (read, write) = io::pipe()?;
/// let child = Spawn::new("sh").args(["-c", "echo $WHAT; exit 3"]).env("WHAT", "hello").stdout(write).start()?;
/// let mut buffer = [0; 16];
/// assert_eq!(io::read(&read, &mut buffer)?, 6);
/// assert_eq!(child.wait(None)?.and_then(|status| status.code()), Some(3));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Implementation notes
///
/// The kernel's side is that of `posix_spawn` (a clone that shares memory until exec), in `sys::start`, which also says
/// why not libc's own function.
#[derive(Debug)]
#[must_use = "nothing runs until `start` is called"]
pub struct Spawn<'a> {
    program: Program<'a>,
    argv0: Option<OsString>,
    args: Vec<OsString>,
    clear: bool,
    env: Vec<(OsString, Option<OsString>)>,
    cwd: Option<OsString>,
    stdio: [Stdio<'a>; 3],
    pass: Vec<Stdio<'a>>,
    session: bool,
    group: bool,
    terminal: Option<Stdio<'a>>,
    umask: Option<u32>,
    limits: Vec<(Limit, u64, u64)>,
    nice: Option<i32>,
    death_signal: Option<i32>,
}

impl<'a> Spawn<'a> {
    fn with(program: Program<'a>, argv0: Option<OsString>) -> Self {
        Spawn {
            program,
            argv0,
            args: Vec::new(),
            clear: false,
            env: Vec::new(),
            cwd: None,
            stdio: [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit],
            pass: Vec::new(),
            session: false,
            group: false,
            terminal: None,
            umask: None,
            limits: Vec::new(),
            nice: None,
            death_signal: None,
        }
    }

    /// A program by its path, or, when there is no slash in it, by its name in the `PATH` of the child's environment. A
    /// relative path is looked up from the child's working directory.
    pub fn new(program: impl Into<OsString>) -> Self {
        Spawn::with(Program::Named(program.into()), None)
    }

    /// A program by an open file, such as a sealed memfd. The file needs no path, but must be executable.
    pub fn image(image: BorrowedFd<'a>, argv0: impl Into<OsString>) -> Self {
        Spawn::with(Program::Open(image), Some(argv0.into()))
    }

    /// The child's own name for itself, instead of the program's.
    pub fn argv0(mut self, argv0: impl Into<OsString>) -> Self {
        self.argv0 = Some(argv0.into());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.env.push((key.into(), None));
        self
    }

    /// Begins with an empty environment instead of this process's; what was set so far is kept.
    pub fn env_clear(mut self) -> Self {
        self.clear = true;
        self
    }

    /// The working directory, instead of this process's.
    pub fn cwd(mut self, cwd: impl AsRef<Path>) -> Self {
        self.cwd = Some(cwd.as_ref().as_os_str().to_owned());
        self
    }

    /// Descriptor 0; [`Stdio::Inherit`] when not set.
    pub fn stdin(mut self, stdio: impl Into<Stdio<'a>>) -> Self {
        self.stdio[0] = stdio.into();
        self
    }

    /// Descriptor 1; [`Stdio::Inherit`] when not set.
    pub fn stdout(mut self, stdio: impl Into<Stdio<'a>>) -> Self {
        self.stdio[1] = stdio.into();
        self
    }

    /// Descriptor 2; [`Stdio::Inherit`] when not set.
    pub fn stderr(mut self, stdio: impl Into<Stdio<'a>>) -> Self {
        self.stdio[2] = stdio.into();
        self
    }

    /// One more descriptor: the first call's becomes 3, the next 4, and so on.
    pub fn pass(mut self, stdio: impl Into<Stdio<'a>>) -> Self {
        self.pass.push(stdio.into());
        self
    }

    /// Makes the child the leader of a new session (and so of a new process group), without a terminal.
    pub fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// Makes the child the leader of a new process group.
    pub fn group(mut self) -> Self {
        self.group = true;
        self
    }

    /// Makes the child the leader of a new session whose controlling terminal this is. The terminal must not be another
    /// session's; nothing is opened on it for the child beside.
    pub fn controlling_terminal(mut self, terminal: impl Into<Stdio<'a>>) -> Self {
        self.session = true;
        self.terminal = Some(terminal.into());
        self
    }

    /// The bits that the child's new files do not get.
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = Some(umask);
        self
    }

    /// Sets a limit, soft and hard; `u64::MAX` is none. May be called for several.
    pub fn limit(mut self, limit: Limit, soft: u64, hard: u64) -> Self {
        self.limits.push((limit, soft, hard));
        self
    }

    /// Added to this process's scheduling priority number, which goes from -20 (first) to 19, for the child. What would be
    /// beyond is the end. A negative one is for the privileged; others do not start.
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }

    /// A signal that the kernel sends to the child when the *thread* that starts it ends: start it from one that lives
    /// as long as the process. Lost when the child executes a set-user-id program.
    pub fn death_signal(mut self, signal: i32) -> Self {
        self.death_signal = Some(signal);
        self
    }

    /// Starts the program. It returns when the program has been executed, or when that failed.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] with the errno: `ENOENT` no such program (or working directory: the text says which), `EACCES`,
    /// `ENOEXEC`, `EAGAIN` no more processes, `EMFILE`; `InvalidInput` for a NUL byte in a string or a malformed name
    /// of a variable. No child is left in any of these cases.
    pub fn start(mut self) -> Result<Child, SpawnError> {
        if let Some((soft, hard)) = crate::process::former_descriptor_limit()
            && !self.limits.iter().any(|(limit, ..)| *limit == Limit::OpenFiles)
        {
            self.limits.push((Limit::OpenFiles, soft, hard));
        }
        let input = |source| SpawnError::new("cannot start a program", source);
        let argv0 = match (&self.argv0, &self.program) {
            (Some(argv0), _) | (None, Program::Named(argv0)) => c_string(argv0),
            // `image` sets it.
            (None, Program::Open(_)) => c_string(OsStr::new("")),
        };
        let argv = CStrings::new(
            std::iter::once(argv0)
                .chain(self.args.iter().map(|arg| c_string(arg)))
                .collect::<io::Result<_>>()
                .map_err(input)?,
        );
        let env = self.environment().map_err(input)?;
        let programs = match &self.program {
            Program::Named(name) => candidates(name, &env).map_err(input)?,
            Program::Open(_) => Vec::new(),
        };
        let programs = CStrings::new(programs);
        let env = CStrings::new(
            env.into_iter().map(|(key, value)| join(key, b'=', &value)).collect::<io::Result<_>>().map_err(input)?,
        );
        let cwd = self.cwd.as_deref().map(c_string).transpose().map_err(input)?;

        let open = |source| SpawnError::new("cannot prepare descriptors", source);
        let count = self.stdio.len() + self.pass.len();
        // In the child the report takes the number after the last, and the image the one after that.
        let lowest = (count + 2) as i32;
        let mut copies = Copies { made: Vec::new(), lowest };
        let mut fds = Vec::with_capacity(count);
        for (number, stdio) in self.stdio.iter().chain(&self.pass).enumerate() {
            fds.push(copies.place(stdio, number).map_err(open)?);
        }
        let mut terminal = match &self.terminal {
            Some(terminal) => Some(copies.place(terminal, 0).map_err(open)?),
            None => None,
        };
        let image_path = CString::new(format!("/proc/self/fd/{}", count + 1)).map_err(|error| input(error.into()))?;
        let mut image = match &self.program {
            Program::Open(image) => Some((copies.high(*image).map_err(open)?, image_path.as_ptr())),
            Program::Named(_) => None,
        };
        let (failure, report) = crate::io::pipe().map_err(open)?;
        let mut report_at = copies.high(report.as_fd()).map_err(open)?;
        let image_at = image.as_mut().map(|(image, _)| image);
        let numbers = fds.iter_mut().chain(&mut terminal).chain(image_at).chain([&mut report_at]);
        let seated = seats::take(numbers).map_err(open)?;

        let plan = Plan {
            programs: programs.list(),
            image,
            argv: &argv.pointers,
            envp: &env.pointers,
            fds: &fds,
            report: report_at,
            end: seated.as_ref().map(Seated::end),
            cwd: cwd.as_ref().map(|cwd| cwd.as_ptr()),
            session: self.session,
            group: self.group.then_some(0),
            terminal,
            umask: self.umask.map(|umask| umask as libc::mode_t),
            limits: &self.limits.iter().map(limit).collect::<Vec<_>>(),
            nice: self.nice,
            death_signal: self.death_signal,
        };
        let child =
            child::register(self.session || self.group, || start::start(&plan, fallback::forced(fallback::FORK)))
                .map_err(|source| SpawnError::new("cannot make a process", source))?;
        drop((seated, copies, report));
        let mut message = [0; 5];
        match crate::io::read(&failure, &mut message) {
            Ok(5) => {
                let [step, errno @ ..] = message;
                // It has reported and ends by itself.
                let _ = child.wait(None);
                Err(SpawnError::new(
                    describe(Step::from_byte(step)),
                    io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
                ))
            }
            // Executed, or killed before it could be: its exit status tells.
            _ => Ok(child),
        }
    }

    /// The variables, sorted by name, each once.
    fn environment(&self) -> io::Result<Vec<(OsString, OsString)>> {
        let inherited = (!self.clear).then(std::env::vars_os);
        let inherited = inherited.into_iter().flatten().map(|(key, value)| (key, Some(value)));
        let mut all: Vec<_> = inherited.chain(self.env.iter().cloned()).collect();
        if self.env.iter().any(|(key, _)| key.is_empty() || key.as_bytes().contains(&b'=')) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "malformed name of an environment variable"));
        }
        // Stable, so that the last of a name is the last set.
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut env: Vec<(OsString, Option<OsString>)> = Vec::with_capacity(all.len());
        for (key, value) in all {
            match env.last_mut() {
                Some(last) if last.0 == key => last.1 = value,
                _ => env.push((key, value)),
            }
        }
        Ok(env.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }
}

fn limit((limit, soft, hard): &(Limit, u64, u64)) -> (libc::c_int, libc::rlimit) {
    let value = |value: u64| libc::rlim_t::try_from(value).unwrap_or(libc::RLIM_INFINITY);
    (limit.number(), libc::rlimit { rlim_cur: value(*soft), rlim_max: value(*hard) })
}

fn describe(step: Option<Step>) -> &'static str {
    match step {
        Some(Step::Descriptors) => "cannot place descriptors",
        Some(Step::Session) => "cannot make a session or group",
        Some(Step::Terminal) => "cannot take the controlling terminal",
        Some(Step::Directory) => "cannot enter the working directory",
        Some(Step::Limits) => "cannot set limits",
        Some(Step::Exec) | None => "cannot execute the program",
    }
}

/// Descriptors numbered above all that the child's will be, so that placing one overwrites none that is still needed.
struct Copies {
    made: Vec<OwnedFd>,
    lowest: i32,
}

impl Copies {
    fn place(&mut self, stdio: &Stdio<'_>, number: usize) -> io::Result<i32> {
        match stdio {
            Stdio::Inherit => {
                let copy = sys::fd::dup_number(number as i32, self.lowest)?;
                Ok(self.keep(copy))
            }
            Stdio::Null => {
                let null = crate::io::null()?;
                let number = self.high(null.as_fd())?;
                self.made.push(null);
                Ok(number)
            }
            Stdio::Borrowed(fd) => self.high(*fd),
            Stdio::Owned(fd) => self.high(fd.as_fd()),
        }
    }

    fn high(&mut self, fd: BorrowedFd<'_>) -> io::Result<i32> {
        if fd.as_raw_fd() >= self.lowest {
            return Ok(fd.as_raw_fd());
        }
        let copy = sys::fd::dup_from(fd, self.lowest)?;
        Ok(self.keep(copy))
    }

    fn keep(&mut self, copy: OwnedFd) -> i32 {
        let number = copy.as_raw_fd();
        self.made.push(copy);
        number
    }
}

/// Strings and the null-terminated list of pointers to them.
struct CStrings {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    fn new(strings: Vec<CString>) -> Self {
        // The pointers are into the strings' own memory, which does not move with the list.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        CStrings { _strings: strings, pointers }
    }

    /// The pointers without the null.
    fn list(&self) -> &[*const c_char] {
        &self.pointers[..self._strings.len()]
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

fn join(first: OsString, between: u8, second: &OsStr) -> io::Result<CString> {
    let mut text = first.into_vec();
    text.push(between);
    text.extend_from_slice(second.as_bytes());
    Ok(CString::new(text)?)
}

/// The paths that a name stands for.
fn candidates(name: &OsStr, env: &[(OsString, OsString)]) -> io::Result<Vec<CString>> {
    if name.is_empty() {
        return Ok(Vec::new());
    }
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![c_string(name)?]);
    }
    let path = env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_bytes());
    let folders =
        path.unwrap_or(b"/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin").split(|byte| *byte == b':');
    // An empty entry is the working directory.
    folders
        .map(|folder| if folder.is_empty() { &b"."[..] } else { folder })
        .map(|folder| join(OsStr::from_bytes(folder).to_owned(), b'/', name))
        .collect()
}
