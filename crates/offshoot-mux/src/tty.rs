//! Terminals: pseudo-terminals for tools that insist on one, and the settings of real ones. Runs on any thread.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::{
    self,
    tty::{self, Settings},
};

/// A pseudo-terminal, from its master's side.
///
/// While the master is open the slave's side lives; closing it hangs up whoever has the slave as its controlling
/// terminal. Reading the master fails with `EIO` while nobody has the slave open.
///
/// # Examples
///
/// ```
/// use offshoot_mux::{Spawn, io, tty};
/// use std::os::fd::AsFd;
/// let pty = tty::Pty::open()?;
/// tty::set_size(&pty, tty::Size { rows: 24, columns: 80 })?;
/// let slave = pty.open_slave()?;
/// let child = Spawn::new("stty").arg("size").controlling_terminal(slave.as_fd())
///     .stdin(slave.as_fd()).stdout(slave.as_fd()).stderr(slave.as_fd()).start()?;
/// let mut buffer = [0; 16];
/// let got = io::read(&pty, &mut buffer)?;
/// assert_eq!(&buffer[..got], b"24 80\r\n");
/// # child.wait(None)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Pty {
    master: OwnedFd,
    slave: PathBuf,
}

impl Pty {
    /// Opens a new one.
    ///
    /// # Errors
    ///
    /// `NotFound` where no pseudo-terminals are mounted; `ENOSPC` when the system has no more.
    pub fn open() -> io::Result<Self> {
        let (master, slave) = tty::open()?;
        Ok(Pty { master, slave })
    }

    /// The path of the slave, in this process's own file system: in a container's it may be another's, or none.
    pub fn slave_path(&self) -> &Path {
        &self.slave
    }

    /// Opens the slave, without making it anybody's controlling terminal; needs no path where the kernel is 4.13 or
    /// later.
    ///
    /// # Errors
    ///
    /// What `open(2)` reports.
    pub fn open_slave(&self) -> io::Result<OwnedFd> {
        use std::os::unix::fs::OpenOptionsExt;
        tty::open_peer(self.master.as_fd()).or_else(|_| {
            let file =
                std::fs::File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&self.slave)?;
            Ok(file.into())
        })
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}

impl From<Pty> for OwnedFd {
    fn from(pty: Pty) -> Self {
        pty.master
    }
}

/// The size of a terminal in characters; zeros mean unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// The size of a terminal.
///
/// # Errors
///
/// `ENOTTY` when it is none.
pub fn size(terminal: impl AsFd) -> io::Result<Size> {
    let (rows, columns) = tty::size(terminal.as_fd())?;
    Ok(Size { rows, columns })
}

/// Sets the size of a terminal, from either side; its foreground processes get `SIGWINCH`.
///
/// # Errors
///
/// `ENOTTY` when it is none.
pub fn set_size(terminal: impl AsFd, size: Size) -> io::Result<()> {
    tty::set_size(terminal.as_fd(), size.rows, size.columns)
}

/// Whether a terminal repeats what is typed. On a pseudo-terminal's master: whether its slave does, so `false` while a
/// program asks for a password.
///
/// # Errors
///
/// `ENOTTY` when it is none.
pub fn echo(terminal: impl AsFd) -> io::Result<bool> {
    Ok(Settings::of(terminal.as_fd())?.echo())
}

/// The character that ends the input when it is typed where a line begins (Ctrl-D); `None` when it is switched off.
///
/// # Errors
///
/// `ENOTTY` when it is none.
pub fn end_of_input(terminal: impl AsFd) -> io::Result<Option<u8>> {
    Ok(Settings::of(terminal.as_fd())?.end_of_input())
}

/// Sends a signal to the processes in the foreground of a pseudo-terminal, from its master's side: as a key would.
///
/// # Errors
///
/// `ESRCH` when there are none; `EPERM` when none of them may be signalled.
pub fn signal_foreground(master: impl AsFd, signal: i32) -> io::Result<()> {
    match tty::foreground(master.as_fd())? {
        group if group > 1 => sys::pid::signal(-group, signal),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Makes a terminal pass every byte as it is, both ways.
///
/// # Errors
///
/// `ENOTTY` when it is none.
pub fn set_raw(terminal: impl AsFd) -> io::Result<()> {
    let mut settings = Settings::of(terminal.as_fd())?;
    settings.make_raw();
    settings.apply(terminal.as_fd())
}

/// The settings of a terminal as they were, put back when this is dropped.
pub struct Restore<T: AsFd> {
    terminal: T,
    before: Settings,
}

impl<T: AsFd> Restore<T> {
    /// Remembers the settings.
    ///
    /// # Errors
    ///
    /// `ENOTTY` when it is no terminal.
    pub fn new(terminal: T) -> io::Result<Self> {
        let before = Settings::of(terminal.as_fd())?;
        Ok(Restore { terminal, before })
    }

    /// Makes the terminal raw, as [`set_raw`], until the drop.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn raw(terminal: T) -> io::Result<Self> {
        let restore = Self::new(terminal)?;
        set_raw(restore.terminal.as_fd())?;
        Ok(restore)
    }

    /// Stops the terminal from repeating what is typed, until the drop: for a password.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn silent(terminal: T) -> io::Result<Self> {
        let restore = Self::new(terminal)?;
        let mut settings = restore.before.clone();
        settings.set_echo(false);
        settings.apply(restore.terminal.as_fd())?;
        Ok(restore)
    }

    /// Puts the settings back now; they are again at the drop.
    pub fn put_back(&self) {
        // The terminal was one before; if it has gone there is nothing to restore.
        let _ = self.before.apply(self.terminal.as_fd());
    }
}

impl<T: AsFd> fmt::Debug for Restore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restore")
    }
}

impl<T: AsFd> Drop for Restore<T> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// How a serial line keeps its sender from being too fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlowControl {
    /// Not at all.
    #[default]
    None,
    /// By the lines RTS and CTS.
    Hardware,
    /// By the characters XON and XOFF, which then are no data.
    Software,
}

/// Makes a serial device raw, 8 bits without parity, with this speed in bits per second.
///
/// # Errors
///
/// `InvalidInput` for a speed that is not one of the usual (300 to 4,000,000); `ENOTTY` when it is no terminal.
pub fn set_serial(device: impl AsFd, speed: u32, flow: FlowControl) -> io::Result<()> {
    let speed = match speed {
        300 => libc::B300,
        600 => libc::B600,
        1200 => libc::B1200,
        2400 => libc::B2400,
        4800 => libc::B4800,
        9600 => libc::B9600,
        19_200 => libc::B19200,
        38_400 => libc::B38400,
        57_600 => libc::B57600,
        115_200 => libc::B115200,
        230_400 => libc::B230400,
        460_800 => libc::B460800,
        500_000 => libc::B500000,
        921_600 => libc::B921600,
        1_000_000 => libc::B1000000,
        1_500_000 => libc::B1500000,
        2_000_000 => libc::B2000000,
        3_000_000 => libc::B3000000,
        4_000_000 => libc::B4000000,
        _ => return Err(io::Error::new(ErrorKind::InvalidInput, "not a speed of serial lines")),
    };
    let mut settings = Settings::of(device.as_fd())?;
    settings.make_line(speed, flow == FlowControl::Hardware, flow == FlowControl::Software)?;
    settings.apply(device.as_fd())
}
