//! Files that show up inside, of the box or of the container itself, and what of the inside is hidden or read-only.

use super::proto::{Bind, Origin};
use super::root::{PLAIN, Root, WITHIN, make_dirs, make_for, open_again};
use super::{Doing, InitError};
use crate::sys::at::{self, Kind, Open, Resolve};
use crate::sys::mount::{self, Attr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

/// Mounts one bind of the plan. Its target is made when missing, within the root; a target in
/// /proc or /sys is refused, whichever way it is reached.
pub fn bind(root: &Root<'_>, wanted: &Bind) -> Result<(), InitError> {
    let doing = || format!("mount {} at {}", wanted.from.display(), wanted.to);
    let refuse = |why: &str| Err(InitError::refuse(doing(), why));
    let to = Path::new(&wanted.to);
    if !is_inside(to) {
        return refuse("the path inside must be absolute, without `..`, and not the root");
    }
    if !wanted.from.is_absolute() {
        return refuse("the source must be an absolute path");
    }
    let (source, place) = match wanted.origin {
        Origin::Host => (mount::copy(at::HERE, &wanted.from, true), "on the box"),
        Origin::Real => (copy_real(&wanted.from), "on the box"),
        Origin::Container => (copy_inside(root, &wanted.from), "in the container"),
    };
    let source = match source {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let from = wanted.from.display();
            return refuse(&format!("the source {from} is not {place}; make it first"));
        }
        Err(err) if at::is_link(&err) => {
            let from = wanted.from.display();
            return refuse(&format!("a link is on the way to the source {from}; remove it"));
        }
        other => other.doing(doing)?,
    };
    let is_dir = at::stat(&source).doing(doing)?.kind == Kind::Directory;
    let mut attr = Attr::NO_SUID.and(Attr::NO_DEV);
    if wanted.read_only {
        attr = attr.and(Attr::READ_ONLY);
    }
    let map = root.user.filter(|_| wanted.mapped && wanted.origin != Origin::Container);
    mount::restrict(&source, attr, map, true).doing(doing)?;
    if wanted.ours {
        mount::replace(&source, attr, Attr::NO_EXEC, None).doing(doing)?;
    }
    let owner = (root.ids.root(), root.ids.root());
    let target = match is_dir {
        true => make_dirs(&root.dir, to, owner, WITHIN).doing(doing)?,
        false => make_file(root, to).doing(doing)?,
    };
    if mount::is_kernel_made(&target).doing(doing)? {
        return refuse("the path inside leads into /proc or /sys");
    }
    mount::attach(source, target).doing(doing)
}

/// Makes a directory that the image wants to be there, 0755 and the container's root's, unless it is.
pub fn make_volume(root: &Root<'_>, path: &str) -> Result<(), InitError> {
    let doing = || format!("make the directory {path}, a volume of the image");
    let refuse = |why: &str| Err(InitError::refuse(doing(), why));
    // As `/data/`, which is the same.
    let path = Path::new(path);
    if !is_inside(path) {
        return refuse("the path inside must be absolute, without `..`, and not the root");
    }
    let base = root.ids.root();
    match make_dirs(&root.dir, path, (base, base), WITHIN) {
        Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
            refuse("a file is in the way; use an image without it")
        }
        made => made.map(drop).doing(doing),
    }
}

/// An absolute path of something below the root, without `..`.
fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && path.file_name().is_some()
}

/// A copy of the mount at `path` of the box, with what is mounted below it, without following any link.
fn copy_real(path: &Path) -> io::Result<OwnedFd> {
    let how = Resolve::RESOLVE_NO_SYMLINKS;
    let source = at::open(at::HERE, path, Open::O_PATH, 0, how)?;
    mount::copy(source.as_fd(), Path::new(""), true)
}

/// A copy of the mount at `path` of the container's root, without what is mounted below: that might
/// be /proc and /sys, which are not masked yet, and would never be in a second place.
fn copy_inside(root: &Root<'_>, path: &Path) -> io::Result<OwnedFd> {
    let source = open_again(root.dir.as_fd(), path, Open::O_PATH, WITHIN)?;
    if mount::is_kernel_made(&source)? {
        let why = "the source leads into /proc or /sys";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    mount::copy(source.as_fd(), Path::new(""), false)
}

/// Opens the target of a file bind: a regular file, empty when it is new. A link of that name is
/// not followed but replaced.
fn make_file(root: &Root<'_>, path: &Path) -> io::Result<OwnedFd> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let parent = path.parent().ok_or_else(|| bad("the path has no parent"))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| bad("the path is not UTF-8"))?;
    let base = root.ids.root();
    let dir = make_dirs(&root.dir, parent, (base, base), WITHIN)?;
    if mount::is_kernel_made(&dir)? {
        return Err(bad("the path inside leads into /proc or /sys"));
    }
    match at::stat_entry(&dir, name) {
        Ok(found) if found.kind == Kind::File => {}
        Ok(found) if found.kind == Kind::Directory => {
            return Err(bad("a directory is in the way of a file"));
        }
        Ok(_) => at::remove(&dir, name)?,
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    let flags = Open::O_PATH | Open::O_NOFOLLOW;
    match at::open(&dir, name, flags, 0, PLAIN) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let flags = Open::O_WRONLY | Open::O_CREAT | Open::O_EXCL | Open::O_NOFOLLOW;
    let made = make_for((base, base), || at::open(&dir, name, flags, 0o644, PLAIN))?;
    at::set_owner(&made, base, base)?;
    Ok(made)
}

/// Makes a path of the inside read-only, with everything mounted below it. Not there: done.
pub fn make_read_only(root: &Root<'_>, path: &str) -> Result<(), InitError> {
    let doing = || format!("make {path} read-only");
    let Some(target) = existing(root, path).doing(doing)? else { return Ok(()) };
    let copy = mount::copy(target.as_fd(), Path::new(""), true).doing(doing)?;
    mount::restrict(&copy, Attr::READ_ONLY, None, true).doing(doing)?;
    mount::attach(copy, target).doing(doing)
}

/// Hides a path of the inside: a directory behind an empty one, a file behind the null device of the
/// /dev that the caller has made. Not there: done.
pub fn mask(root: &Root<'_>, path: &str) -> Result<(), InitError> {
    let doing = || format!("mask {path}");
    let Some(target) = existing(root, path).doing(doing)? else { return Ok(()) };
    let attr = Attr::READ_ONLY.and(Attr::NO_SUID).and(Attr::NO_EXEC);
    let (cover, attr) = match at::stat(&target).doing(doing)?.kind {
        Kind::Directory => {
            (mount::copy(root.scratch.as_fd(), Path::new("empty"), false), attr.and(Attr::NO_DEV))
        }
        _ => (copy_of(root, "/dev/null"), attr),
    };
    let cover = cover.doing(doing)?;
    mount::restrict(&cover, attr, None, false).doing(doing)?;
    mount::attach(cover, target).doing(doing)
}

/// A copy of the mount at `path` of the inside, without following any link.
fn copy_of(root: &Root<'_>, path: &str) -> io::Result<OwnedFd> {
    let file = at::open(&root.dir, path, Open::O_PATH | Open::O_NOFOLLOW, 0, PLAIN)?;
    match at::stat(&file)?.kind {
        Kind::Characters(1, 3) => mount::copy(file.as_fd(), Path::new(""), false),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not the null device")),
    }
}

/// Opens `path` of the inside without following any link; `None` when it is not there. A link on
/// the way is an error: what it leads to would stay open under its own name.
fn existing(root: &Root<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = Open::O_PATH | Open::O_NOFOLLOW;
    match at::open(&root.dir, path, flags, 0, PLAIN) {
        Ok(found) if at::stat(&found)?.kind == Kind::Link => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"))
        }
        Ok(found) => Ok(Some(found)),
        Err(err) => match err.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(err),
        },
    }
}
