//! Whose files are taken that nobody named.
//!
//! Owns the rule: what is found beside the program or in its build folder is run, also on other hosts, so it must be from
//! somebody who could have changed the program itself: its owner, root, or who runs it. A program in `/tmp/x/bin` would
//! else run what anybody left in `/tmp/agents`. On any thread.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::own::Own;

/// Others may write it.
const OTHERS: u32 = 0o002;
/// Its group may write it.
const GROUP: u32 = 0o020;
/// Only their owners remove and rename what is in it.
const STICKY: u32 = 0o1000;

/// Whether what is in a folder may be looked at. One that is not there may.
///
/// # Errors
/// Why not, as the rest of a sentence about it.
pub(crate) fn folder(path: &Path) -> Result<(), String> {
    // Who may write there may replace the program; and in `/tmp` each file is judged for itself.
    if Own::path().is_some_and(|program| program.parent() == Some(path)) {
        return Ok(());
    }
    let (Ok(link), Ok(about)) = (fs::symlink_metadata(path), fs::metadata(path)) else { return Ok(()) };
    self::link(&link)?;
    owner(&about)?;
    if about.mode() & STICKY == 0 { writers(&about) } else { Ok(()) }
}

/// Whether a file may be taken.
///
/// # Errors
/// As for [`folder`].
pub(crate) fn file(about: &Metadata) -> Result<(), String> {
    owner(about)?;
    writers(about)
}

/// Whether a symbolic link may be followed: who owns it may turn it elsewhere.
///
/// # Errors
/// As for [`folder`].
pub(crate) fn link(about: &Metadata) -> Result<(), String> {
    owner(about)
}

fn owner(about: &Metadata) -> Result<(), String> {
    let program = Own::program().ok().and_then(|own| own.file.metadata().ok()).map(|about| about.uid());
    let uid = about.uid();
    if uid == 0 || uid == offshoot_mux::process::effective_uid() || Some(uid) == program {
        return Ok(());
    }
    Err(format!("belongs to user {uid}, who is neither root, nor you, nor the owner of this program"))
}

fn writers(about: &Metadata) -> Result<(), String> {
    if about.mode() & OTHERS != 0 {
        return Err("may be written by every user".into());
    }
    // The group of the owner's number is the owner's alone, by custom.
    if about.mode() & GROUP != 0 && about.gid() != about.uid() {
        return Err(format!("may be written by group {}", about.gid()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn given(path: &Path, mode: u32, owner: Option<u32>) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
        std::os::unix::fs::chown(path, owner, owner).expect("we are root, or it is ours");
    }

    #[test]
    fn s11_what_others_may_write_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let ours = fs::metadata(folder.path()).expect("a folder").uid();
        let (inner, inside) = (folder.path().join("agents"), folder.path().join("file"));
        fs::create_dir(&inner).expect("made");
        fs::write(&inside, "").expect("written");
        let judged = |mode, owner| {
            given(&inner, mode, owner);
            given(&inside, mode & !STICKY, owner);
            (super::folder(&inner).err(), file(&fs::metadata(&inside).expect("a file")).err())
        };
        assert_eq!(judged(0o755, None), (None, None));
        let every = Some("may be written by every user".to_owned());
        assert_eq!(judged(0o777, None), (every.clone(), every.clone()));
        // A folder such as /tmp: each file is judged for itself.
        assert_eq!(judged(0o1777, None), (None, every));
        if ours != 0 {
            println!("not run: files of other users: only root can make them");
            return;
        }
        let (folder, file) = judged(0o755, Some(65534));
        assert!(folder.is_some_and(|why| why.contains("belongs to user 65534")) && file.is_some());
        given(&inside, 0o664, None);
        std::os::unix::fs::chown(&inside, Some(0), Some(65534)).expect("we are root");
        let why = super::file(&fs::metadata(&inside).expect("a file")).expect_err("a foreign group");
        assert_eq!(why, "may be written by group 65534");
        // A link of another user to a folder of ours.
        given(&inner, 0o755, Some(0));
        let link = inner.with_file_name("link");
        std::os::unix::fs::symlink(&inner, &link).expect("a link");
        assert_eq!(super::folder(&link), Ok(()));
        std::os::unix::fs::lchown(&link, Some(65534), None).expect("we are root");
        assert!(super::folder(&link).is_err());
    }
}
