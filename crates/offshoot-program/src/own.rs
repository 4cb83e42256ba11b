//! The executable that this process runs, whatever becomes of its name, with what is appended to it.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use offshoot_image::elf::Elf;
use offshoot_image::onefile::{OneFile, PART_MAX};

/// The own executable. Read once: it does not change while it runs.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) file: Arc<File>,
    /// The length of the executable without what is appended, in bytes.
    pub(crate) len: u64,
    pub(crate) elf: Option<Elf>,
    /// What is appended; an error when it is damaged.
    pub(crate) appended: Result<Option<OneFile>, String>,
}

/// How much of an executable is read for its headers: they lie at its beginning, and 64 KiB is far more than they take.
const HEADERS: u64 = 64 << 10;

impl Own {
    /// Opens it.
    ///
    /// # Errors
    /// When there is no `/proc`, or it cannot be read.
    pub(crate) fn program() -> Result<&'static Own, &'static str> {
        static OWN: OnceLock<Result<Own, String>> = OnceLock::new();
        let own = OWN.get_or_init(|| File::open("/proc/self/exe").and_then(Own::of).map_err(|error| error.to_string()));
        own.as_ref().map_err(String::as_str)
    }

    pub(crate) fn of(file: File) -> io::Result<Own> {
        let whole = file.metadata()?.len();
        let elf = headers(&file)?;
        let appended = OneFile::open(file.try_clone()?).map_err(|error| error.to_string());
        let len = match &appended {
            Ok(Some(one)) => one.executable(),
            _ => whole,
        };
        Ok(Own { file: Arc::new(file), len, elf, appended })
    }

    /// What is appended, when it can be used.
    pub(crate) fn one_file(&self) -> Option<&OneFile> {
        self.appended.as_ref().ok()?.as_ref()
    }

    /// Its name as a file, when it has one; that which it had, when it was removed or replaced since.
    pub(crate) fn path() -> Option<PathBuf> {
        let path = std::env::current_exe().ok()?;
        Some(if path.exists() { path } else { undeleted(path) })
    }
}

/// A path without what the kernel puts behind that of a file which is not there any more.
fn undeleted(path: PathBuf) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(before) => OsString::from_vec(before.to_vec()).into(),
        None => path,
    }
}

/// What an executable says of itself: in its headers, and in its list of libraries, which a static one that can lie anywhere
/// in memory has as well, empty, and far behind.
fn headers(file: &File) -> io::Result<Option<Elf>> {
    use std::io::Read as _;
    use std::os::unix::fs::FileExt as _;

    struct At<'a>(&'a File, u64);
    impl io::Read for At<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.read_at(buffer, self.1)?;
            self.1 += n as u64;
            Ok(n)
        }
    }
    let mut bytes = Vec::new();
    At(file, 0).take(HEADERS).read_to_end(&mut bytes)?;
    if let Some(list) = Elf::libraries(&bytes).filter(|list| list.end > bytes.len() && list.end as u64 <= PART_MAX) {
        // What lies between is not read, and the system gives no memory for it.
        let mut whole = vec![0; list.end];
        whole[..bytes.len()].copy_from_slice(&bytes);
        At(file, list.start as u64).read_exact(&mut whole[list])?;
        bytes = whole;
    }
    Ok(Elf::parse(&bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_removed_or_replaced_keeps_its_name() {
        for (is, was) in [("/a/b (deleted)", "/a/b"), ("/a/b", "/a/b"), ("/a (deleted)/b", "/a (deleted)/b")] {
            assert_eq!(undeleted(is.into()), PathBuf::from(was));
        }
    }
}
