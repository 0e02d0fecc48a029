//! The files and directories of one group: read, written, made and removed with the path in every
//! error. A group that is gone has no files, no processes and no nested groups.

use super::CgroupError;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Nested groups that are looked at in one group. Only root can make any, and an app is not root.
const NESTED_MAX: usize = 4096;

/// What removing a tree of groups came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing of it is left.
    Gone,
    /// Some process still lives in it.
    Busy,
}

/// The text of `dir/file`.
pub fn read(dir: &Path, file: &str) -> Result<String, CgroupError> {
    let path = dir.join(file);
    fs::read_to_string(&path).map_err(|source| CgroupError::refused("read", path, source))
}

/// The one number in `dir/file`.
pub fn number(dir: &Path, file: &str) -> Result<u64, CgroupError> {
    let text = read(dir, file)?;
    text.trim().parse().map_err(|_| CgroupError::Garbled { path: dir.join(file) })
}

/// The limit in `dir/file`, where "none" is called `max`.
pub fn limit(dir: &Path, file: &str) -> Result<Option<u64>, CgroupError> {
    let text = read(dir, file)?;
    super::recipe::parse_max(&text).ok_or_else(|| CgroupError::Garbled { path: dir.join(file) })
}

/// `None` in place of the error when this kernel has no such file, or the group is gone.
pub fn if_there<T>(read: Result<T, CgroupError>) -> Result<Option<T>, CgroupError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.is_not_found() => Ok(None),
        Err(err) => Err(err),
    }
}

/// The number after `key` in `dir/file`.
pub fn field(dir: &Path, file: &str, key: &str) -> Result<u64, CgroupError> {
    let text = read(dir, file)?;
    super::recipe::field(&text, key).ok_or_else(|| CgroupError::Garbled { path: dir.join(file) })
}

/// Writes `text` to `dir/file` in one piece.
pub fn write(dir: &Path, file: &str, text: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    put(&path, text).map_err(|source| CgroupError::Write { text: text.to_owned(), path, source })
}

/// Like [`write()`]; `false` when this kernel has no such file.
pub fn write_if_there(dir: &Path, file: &str, text: &str) -> Result<bool, CgroupError> {
    Ok(if_there(write(dir, file, text))?.is_some())
}

/// One write(2), never creating the file: the kernel takes a limit only as a whole.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let written = fs::OpenOptions::new().write(true).open(path)?.write(text.as_bytes())?;
    if written == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// `dir/cgroup.procs` open for writing: whoever writes `0` to it joins the group.
pub fn door(dir: &Path) -> Result<OwnedFd, CgroupError> {
    let path = dir.join("cgroup.procs");
    let opened = fs::OpenOptions::new().write(true).open(&path);
    opened.map(OwnedFd::from).map_err(|source| CgroupError::refused("open", path, source))
}

/// Whether `dir` is there; `is_not_found` when not.
pub fn look_for(dir: &Path) -> Result<(), CgroupError> {
    let found = fs::symlink_metadata(dir);
    found.map(drop).map_err(|source| CgroupError::refused("find", dir.into(), source))
}

/// Makes `dir` and what is missing above it.
pub fn make_all(dir: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(dir).map_err(|source| CgroupError::refused("make", dir.into(), source))
}

/// Makes `dir` new. An empty one that a crash left is replaced, so that every count starts at
/// zero; one with processes in it is refused.
pub fn make_new(dir: &Path) -> Result<(), CgroupError> {
    let refused = |source| CgroupError::refused("make", dir.into(), source);
    match fs::create_dir(dir) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
            if remove_tree(dir)? == Removed::Busy {
                return Err(refused(err));
            }
            fs::create_dir(dir).map_err(refused)
        }
        other => other.map_err(refused),
    }
}

/// `dir` and every group nested in it, outer ones first; empty when `dir` is gone.
pub fn tree(dir: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Some(names) = nested(&dir)? else { continue };
        open.extend(names.into_iter().map(|name| dir.join(name)));
        found.push(dir);
        if found.len() + open.len() > NESTED_MAX {
            break;
        }
    }
    Ok(found)
}

/// Names of the groups right below `dir`; `None` when `dir` is gone.
pub fn nested(dir: &Path) -> Result<Option<Vec<String>>, CgroupError> {
    let refused = |source| CgroupError::refused("list", dir.into(), source);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if is_gone(&err) => return Ok(None),
        Err(err) => return Err(refused(err)),
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                names.extend(entry.file_name().into_string());
            }
            Ok(_) => {}
            Err(err) if is_gone(&err) => return Ok(None),
            Err(err) => return Err(refused(err)),
        }
    }
    Ok(Some(names))
}

/// Pids of all processes in `dir` and the groups nested in it.
pub fn pids(dir: &Path) -> Result<BTreeSet<i32>, CgroupError> {
    let mut found = BTreeSet::new();
    for dir in tree(dir)? {
        let Some(text) = if_there(read(&dir, "cgroup.procs"))? else { continue };
        // 0 stands for a process of a pid namespace that is not ours to see.
        found
            .extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0));
    }
    Ok(found)
}

/// Removes `dir` and the groups nested in it, as far as they are empty.
pub fn remove_tree(dir: &Path) -> Result<Removed, CgroupError> {
    for dir in tree(dir)?.into_iter().rev() {
        match fs::remove_dir(&dir) {
            Ok(()) => {}
            Err(err) if is_gone(&err) => {}
            Err(err) if is_in_use(&err) => return Ok(Removed::Busy),
            Err(err) => return Err(CgroupError::refused("remove", dir, err)),
        }
    }
    Ok(Removed::Gone)
}

/// A group that has processes, or groups in it, is not removed.
pub fn is_in_use(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty)
}

/// A group may vanish at any time: `ENOENT` for its path, `ENODEV` for its open files.
pub fn is_gone(err: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    err.kind() == io::ErrorKind::NotFound || err.raw_os_error() == Some(ENODEV)
}
