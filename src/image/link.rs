//! Hard links: further names for what is in the archive, or for files of the layers below.

use super::archive::Entry;
use super::error::UnpackError;
use super::implied::{self, Says};
use super::unpack::Job;
use super::{lower, name, tree};
use crate::sys::file;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

impl Job<'_> {
    /// A further name for what is in this archive, or for a file of a layer below. Owner, mode and
    /// time are those that it has already.
    pub(super) fn hard_link(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let no = |why: &str| UnpackError::entry(&entry.path, format!("is a hard link {why}"));
        let refused = || UnpackError::refused(&entry.path, "cannot be linked");
        let target =
            name::components(&entry.link).map_err(|why| no(&format!("to a name that {why}")))?;
        let (last, before) = target.split_last().ok_or_else(|| no("to the root"))?;
        if target == [above, &[name]].concat() {
            return Err(no("to itself"));
        }
        let found = self.tree.find(before).and_then(|dir| file::open_node(dir.as_fd(), last));
        let Ok(node) = found.map(File::from) else {
            return self.lower_link(above, name, entry, &target.join(&b'/'));
        };
        let meta = node.metadata().map_err(refused())?;
        if meta.is_dir() || tree::is_whiteout(&meta) {
            return Err(no("to something that is no file"));
        }
        self.link(above, name, entry, &node)?;
        match self.summary.links.target(meta.ino()).map(Vec::from) {
            Some(target) => self.await_below(above, name, entry, &target),
            None => Ok(()),
        }
    }

    /// A name for a file that must be in a layer below: an empty one keeps its place until then.
    fn lower_link(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be linked");
        let says = implied::says(self.tree.root(), target).map_err(refused())?;
        if !self.options.lower_links || !matches!(says, (Says::Nothing, false)) {
            return Err(lower::link_error(&entry.path, target, "is not in the archive before it"));
        }
        match self.summary.links.find(self.tree.root(), target).map_err(refused())? {
            Some(node) => self.link(above, name, entry, &node)?,
            None => {
                self.place(above, name, entry, |dir| file::create_file(dir.as_fd(), name))?;
            }
        }
        self.await_below(above, name, entry, target)
    }

    /// Notes that what is now at `name` is to become the file `target` of the layers below.
    fn await_below(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be linked");
        let mut path = self.tree.real_path(above, &entry.path)?;
        path.extend(name);
        let parent = self.tree.parent(above, &entry.path)?;
        let meta = tree::look(parent, name).map_err(refused())?;
        let inode = meta.map(|meta| meta.ino()).unwrap_or_default();
        self.summary.links.add(target, path, inode).map_err(|err| err.at(&entry.path))
    }

    /// Gives an open node the name `name`, in the place of whatever has it.
    fn link(
        &mut self,
        above: &[&[u8]],
        name: &[u8],
        entry: &Entry,
        node: &File,
    ) -> Result<(), UnpackError> {
        let refused = || UnpackError::refused(&entry.path, "cannot be linked");
        let parent = self.tree.parent(above, &entry.path)?;
        let linked = match file::link(node.as_fd(), parent.as_fd(), name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let there = tree::look(parent, name).map_err(refused())?;
                if there.is_some_and(|there| same(&there, node).unwrap_or(false)) {
                    return Ok(());
                }
                tree::clear(parent, name, false).map_err(refused())?;
                file::link(node.as_fd(), parent.as_fd(), name)
            }
            other => other,
        };
        linked.map_err(refused())
    }
}

/// Whether `dir` is the inode with `meta`.
fn same(meta: &Metadata, dir: &File) -> io::Result<bool> {
    let other = dir.metadata()?;
    Ok((meta.dev(), meta.ino()) == (other.dev(), other.ino()))
}
