//! `tar-out PATH`: a file or tree as a tar stream on stdout, named as Garden's clients expect.
//!
//! `/a/b` gives `b/` and what is in it; `/a/b/` gives `./` and that; a file or link gives one entry
//! with its own name. What is not absolute lies in the working directory.

use super::error::LifecycleError;
use super::pack::Packer;
use super::walk::Item;
use crate::sys::beneath::{self, Links};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The role: exit 0, or 1 with a line that says why. Nothing is written before the source is found.
pub(super) fn run(args: &[OsString]) -> Result<(), u8> {
    let [path] = args else {
        complain!("usage: tar-out PATH > ARCHIVE");
        return Err(1);
    };
    let path = if path.is_empty() { Path::new(".") } else { Path::new(path) };
    let out = io::stdout().as_fd().try_clone_to_owned();
    let out = out.map_err(|source| LifecycleError::Stream { doing: "write", source });
    out.and_then(|out| pack(path, File::from(out))).map_err(|err| {
        complain!("tar-out: {}", crate::log::chain(&err));
        1
    })
}

fn pack(path: &Path, out: File) -> Result<(), LifecycleError> {
    let open = LifecycleError::file("open", path);
    let packer = match named(path) {
        None => {
            let held = File::open(path).map_err(open)?;
            let name = Path::new(".");
            let item = look(name, path, held)?;
            if !item.meta.is_dir() {
                return Err(LifecycleError::file("open", path)(
                    io::ErrorKind::NotADirectory.into(),
                ));
            }
            let mut packer = Packer::like_tar(out);
            packer.item(name, &item, || unreachable!("it is a directory"))?;
            packer.tree(path, name, &kernels_own(path))?;
            packer
        }
        Some((parent, name)) => {
            let parent = beneath::open_place(&parent).map_err(open)?;
            let held = beneath::hold(parent.as_fd(), &name, Links::Refused);
            let held = held.map_err(LifecycleError::file("open", path))?;
            let item = look(&name, path, held.into())?;
            let mut packer = Packer::like_tar(out);
            packer.item(&name, &item, || {
                beneath::open_file(parent.as_fd(), &name, Links::Refused)
                    .map_err(LifecycleError::file("open", path))
            })?;
            if item.meta.is_dir() {
                packer.tree(path, &name, &[])?;
            }
            packer
        }
    };
    packer.finish().map(drop)
}

/// What of the root is the kernel's own: its files cannot be packed, and belong to nobody's tar.
fn kernels_own(path: &Path) -> Vec<String> {
    let kernels = ["proc", "sys"].map(String::from);
    if path == Path::new("/") { kernels.into() } else { Vec::new() }
}

/// Where the last part of `path` is, and that part; `None`: what is in `path` is wanted, without a
/// name of its own.
fn named(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"." {
        return None;
    }
    let name = PathBuf::from(path.file_name()?);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Some((parent.unwrap_or(Path::new(".")).to_owned(), name))
}

fn look(name: &Path, here: &Path, held: File) -> Result<Item, LifecycleError> {
    let meta = held.metadata().map_err(LifecycleError::file("look at", here))?;
    Ok(Item { path: name.to_owned(), here: here.to_owned(), held, meta })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_part_names_the_archive_unless_what_is_in_it_is_wanted() {
        for (path, expected) in [
            ("/a/b", Some(("/a", "b"))),
            ("b", Some((".", "b"))),
            ("./b", Some((".", "b"))),
            ("/b", Some(("/", "b"))),
            ("../b", Some(("..", "b"))),
            ("/a/b/", None),
            ("/a/b/.", None),
            ("/a/..", None),
            ("..", None),
            (".", None),
            ("/", None),
        ] {
            let expected = expected.map(|(dir, name)| (dir.into(), name.into()));
            assert_eq!(named(Path::new(path)), expected, "{path}");
        }
    }
}
