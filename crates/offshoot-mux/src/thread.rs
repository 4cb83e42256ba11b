//! Starting threads that nobody waits for.
//!
//! All by one function: std's own is compiled anew for each closure, half a kilobyte every time.

use std::io;

/// Starts a thread of this name (15 bytes of it show) that runs `work` and is not waited for.
///
/// # Errors
///
/// The system's, when there is no thread or memory to be had.
pub fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(name, None, Box::new(work))
}

/// As [`start`], with a stack of so many bytes instead of the system's usual size.
///
/// # Errors
///
/// As [`start`].
pub fn start_with_stack(name: &'static str, bytes: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(name, Some(bytes), Box::new(work))
}

#[cfg(offshoot_main)]
use crate::sys::thread::spawn;

#[cfg(not(offshoot_main))]
#[inline(never)]
fn spawn(name: &'static str, stack: Option<usize>, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mut builder = std::thread::Builder::new().name(name.to_owned());
    if let Some(bytes) = stack {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(work).map(drop)
}

/// Gives the calling thread's name to `read`; empty when it has none.
#[cfg(offshoot_main)]
pub fn with_name<T>(read: impl FnOnce(&str) -> T) -> T {
    read(crate::sys::thread::name())
}

/// Gives the calling thread's name to `read`; empty when it has none.
#[cfg(not(offshoot_main))]
pub fn with_name<T>(read: impl FnOnce(&str) -> T) -> T {
    read(std::thread::current().name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_by_its_name() {
        let (tell, told) = std::sync::mpsc::channel();
        let name = || with_name(str::to_owned);
        let other = tell.clone();
        start("one", move || tell.send(name()).unwrap()).unwrap();
        start_with_stack("two", 64 * 1024, move || other.send(name()).unwrap()).unwrap();
        let mut names = [told.recv().unwrap(), told.recv().unwrap()];
        names.sort();
        assert_eq!(names, ["one", "two"]);
    }
}
