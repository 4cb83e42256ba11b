//! In place of `seats` where nothing is kept: a child copies the table of descriptors, and closes nearly all of it.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;

pub(crate) struct Seated(Infallible);

impl Seated {
    pub(crate) fn end(&self) -> End {
        match self.0 {}
    }
}

#[derive(Clone, Copy)]
pub(crate) struct End(Infallible);

impl End {
    pub(crate) fn cut(self) -> bool {
        match self.0 {}
    }
}

pub(crate) fn take<'a>(_: impl Iterator<Item = &'a mut RawFd>) -> io::Result<Option<Seated>> {
    Ok(None)
}

pub(crate) fn give_back() {}
