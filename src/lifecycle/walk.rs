//! A directory tree, file by file: no link is followed, nothing outside is ever opened.

use super::error::LifecycleError;
use crate::sys::beneath::{self, Links};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most names that a [`Survey`] keeps of what is left out.
const NAMES_MAX: usize = 5;

/// The walk: by name, a directory before what is in it.
pub(super) struct Walk<'a> {
    dir: &'a Path,
    root: File,
    /// What is still to be visited, the next one last.
    todo: Vec<PathBuf>,
}

/// One thing on the way, held but not open.
pub(super) struct Item {
    /// Its path within the tree.
    pub path: PathBuf,
    /// Its path on the box, for messages.
    pub here: PathBuf,
    /// Itself, by `O_PATH`.
    pub held: File,
    /// What it is.
    pub meta: Metadata,
}

impl<'a> Walk<'a> {
    /// Begins at what is in `dir`; `exclude` names are left out at its top.
    pub(super) fn begin(dir: &'a Path, exclude: &[String]) -> Result<Walk<'a>, LifecycleError> {
        let root = File::open(dir).map_err(LifecycleError::file("open", dir))?;
        let mut todo = children(&root, Path::new("")).map_err(LifecycleError::file("list", dir))?;
        todo.retain(|path| !exclude.iter().any(|name| path.as_os_str() == name.as_str()));
        Ok(Walk { dir, root, todo })
    }

    /// The next one; `Changed` when it went away since its directory was listed.
    pub(super) fn step(&mut self) -> Result<Option<Item>, LifecycleError> {
        let Some(path) = self.todo.pop() else { return Ok(None) };
        let here = self.dir.join(&path);
        let fail = |doing| gone_or(doing, &here);
        let held = beneath::hold(self.root.as_fd(), &path, Links::Refused);
        let held = File::from(held.map_err(fail("open"))?);
        let meta = held.metadata().map_err(fail("look at"))?;
        if meta.is_dir() {
            self.todo.extend(children(&self.root, &path).map_err(fail("list"))?);
        }
        Ok(Some(Item { path, here, held, meta }))
    }

    /// Opens a regular file that the walk has come to.
    pub(super) fn open(&self, item: &Item) -> Result<File, LifecycleError> {
        beneath::open_file(self.root.as_fd(), &item.path, Links::Refused)
            .map_err(gone_or("open", &item.here))
    }
}

/// What a tree holds, by what its files say of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Bytes of all files. Those with holes count in full, as they are full once copied; several
    /// names of one file count once.
    pub bytes: u64,
    /// Sockets, fifos and devices, which are left out of every copy: how many.
    pub left_out: usize,
    /// The first of them, within the tree.
    pub names: Vec<PathBuf>,
}

/// Looks at the tree in `dir` without opening a file; `exclude` names are left out at its top.
///
/// Errors: `Closed` for what its own owner may not read: who owns the copy could not use it.
pub fn survey(dir: &Path, exclude: &[String]) -> Result<Survey, LifecycleError> {
    let mut walk = Walk::begin(dir, exclude)?;
    let mut found = Survey::default();
    let mut several = HashSet::new();
    while let Some(Item { path, here, meta, .. }) = walk.step()? {
        let mode = meta.mode() & 0o7777;
        let needed = if meta.is_dir() { 0o500 } else { 0o400 };
        if meta.is_dir() || meta.is_file() {
            if mode & needed != needed {
                return Err(LifecycleError::Closed { path: here, mode });
            }
            let counted = meta.nlink() > 1 && !several.insert((meta.dev(), meta.ino()));
            if meta.is_file() && !counted {
                found.bytes = found.bytes.saturating_add(meta.len());
            }
        } else if !meta.is_symlink() {
            found.left_out += 1;
            if found.names.len() < NAMES_MAX {
                found.names.push(path);
            }
        }
    }
    Ok(found)
}

/// What went away between being listed and being opened has changed under our hands.
fn gone_or(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LifecycleError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => LifecycleError::Changed { path: path.to_owned() },
        _ => LifecycleError::File { doing, path: path.to_owned(), source },
    }
}

/// The paths of what is in `path`, last name first, as a stack wants them.
fn children(root: &File, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names: Vec<OsString> = if path.as_os_str().is_empty() {
        beneath::names(root.as_fd())?
    } else {
        beneath::names(beneath::open_dir(root.as_fd(), path, Links::Refused)?.as_fd())?
    };
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| path.join(name)).collect())
}
