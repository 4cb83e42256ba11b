//! Starting threads that nobody waits for.
//!
//! All by one function: std's own is compiled anew for each closure, half a kilobyte every time.

use std::io;
use std::thread::Builder;

/// Starts a thread of this name (15 bytes of it show) that runs `work` and is not waited for.
///
/// # Errors
///
/// The system's, when there is no thread or memory to be had.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(Builder::new().name(name.into()), Box::new(work))
}

/// As [`start`], with a stack of so many bytes instead of the system's usual size.
///
/// # Errors
///
/// As [`start`].
pub fn start_with_stack(name: &str, bytes: usize, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(Builder::new().name(name.into()).stack_size(bytes), Box::new(work))
}

#[inline(never)]
fn spawn(builder: Builder, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    builder.spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_by_its_name() {
        let (tell, told) = std::sync::mpsc::channel();
        let name = || std::thread::current().name().map(str::to_owned);
        let other = tell.clone();
        start("one", move || tell.send(name()).unwrap()).unwrap();
        start_with_stack("two", 64 * 1024, move || other.send(name()).unwrap()).unwrap();
        let mut names = [told.recv().unwrap(), told.recv().unwrap()];
        names.sort();
        assert_eq!(names, [Some("one".to_owned()), Some("two".to_owned())]);
    }
}
