//! Terminals: opening pseudo-terminals, their settings.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::check;

/// A new pseudo-terminal: the master, ready to be used, and the path of its slave.
pub(crate) fn open() -> io::Result<(OwnedFd, PathBuf)> {
    // SAFETY: takes flags.
    let raw = check(unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let master = unsafe { super::fd::own(raw) };
    // What libc's grantpt, unlockpt and ptsname_r come to on any Linux with devpts; musl's ptsname_r would bring printf
    // with floating point, a fortieth of the agent.
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads a live int.
    check(unsafe { libc::ioctl(raw, libc::TIOCSPTLCK as _, &unlocked) })?;
    let mut number: libc::c_uint = 0;
    // SAFETY: the request writes a live unsigned int.
    check(unsafe { libc::ioctl(raw, libc::TIOCGPTN as _, &mut number) })?;
    Ok((master, PathBuf::from(format!("/dev/pts/{number}"))))
}

/// Opens the slave through its master, for where its path is not mounted. Linux 4.13.
pub(crate) fn open_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the request takes flags.
    let raw = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { super::fd::own(raw) })
}

#[derive(Clone)]
pub(crate) struct Settings(libc::termios);

impl Settings {
    pub(crate) fn of(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: all zeros is a valid termios, overwritten by the call.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live termios.
        check(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &mut settings) })?;
        Ok(Settings(settings))
    }

    pub(crate) fn apply(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        // At once: waiting for output to drain can take for ever on a terminal that somebody has stopped.
        // SAFETY: the pointer is to a live termios.
        check(unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, &self.0) })?;
        Ok(())
    }

    pub(crate) fn echo(&self) -> bool {
        self.0.c_lflag & libc::ECHO != 0
    }

    pub(crate) fn set_echo(&mut self, on: bool) {
        if on {
            self.0.c_lflag |= libc::ECHO;
        } else {
            self.0.c_lflag &= !libc::ECHO;
        }
    }

    /// The character that ends the input, when it is typed where a line begins; `None` when it is switched off.
    pub(crate) fn end_of_input(&self) -> Option<u8> {
        Some(self.0.c_cc[libc::VEOF]).filter(|byte| *byte != libc::_POSIX_VDISABLE)
    }

    pub(crate) fn make_raw(&mut self) {
        // SAFETY: the pointer is to a live termios.
        unsafe { libc::cfmakeraw(&mut self.0) };
    }

    /// 8 bits, no parity, one stop bit, modem lines ignored, this speed (a `B` constant of libc) in both directions.
    pub(crate) fn make_line(&mut self, speed: libc::speed_t, rtscts: bool, xonxoff: bool) -> io::Result<()> {
        self.make_raw();
        self.0.c_cflag |= libc::CLOCAL | libc::CREAD;
        self.0.c_cflag &= !(libc::CSTOPB | libc::PARENB);
        let (hard, soft) = (libc::CRTSCTS, libc::IXON | libc::IXOFF);
        self.0.c_cflag = if rtscts { self.0.c_cflag | hard } else { self.0.c_cflag & !hard };
        self.0.c_iflag = if xonxoff { self.0.c_iflag | soft } else { self.0.c_iflag & !soft };
        // SAFETY: the pointer is to a live termios; a speed that is none is refused.
        check(unsafe { libc::cfsetispeed(&mut self.0, speed) })?;
        // SAFETY: as above.
        check(unsafe { libc::cfsetospeed(&mut self.0, speed) })?;
        Ok(())
    }
}

/// The process group in the foreground, asked from the master's side; 0 when there is none.
pub(crate) fn foreground(master: BorrowedFd<'_>) -> io::Result<libc::pid_t> {
    let mut group: libc::pid_t = 0;
    // SAFETY: the pointer is to a live process number.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPGRP as _, &mut group) })?;
    Ok(group)
}

pub(crate) fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    // SAFETY: all zeros is a valid winsize.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

pub(crate) fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a live winsize, which the call only reads.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &size) })?;
    Ok(())
}
