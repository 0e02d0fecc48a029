//! From a layer's directory in overlay form to a tar, the same for the same layer: names in order of
//! their bytes, no clock.
//!
//! | in the layer | in the tar |
//! |---|---|
//! | whiteout of `x` | empty file `.wh.x` |
//! | opaque directory | empty file `.wh..wh..opq` behind it |
//! | further name of a file | hard link to the first |
//! | holes | zeros |
//! | name, link or time that a header cannot hold, extended attributes | PAX records |

use super::error::UnpackError;
use super::make::may_have;
use super::tree;
use super::unpack::BUFFER;
use crate::sys::{beneath, file};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::{EntryType, Header};

/// Names in one directory, and the deepest path: more than any layer has.
const NAMES_MAX: usize = 2_000_000;
const DEPTH_MAX: usize = 300;
/// Longest name and link in a header.
const FIELD: usize = 100;
/// Largest size in a header of POSIX.
const SIZE_MAX: u64 = 0o777_7777_7777;
/// What ends an archive.
const END: [u8; 1024] = [0; 1024];

/// Writes the layer at `dir`, which nobody changes, to `to`.
pub(super) fn pack(dir: &Path, to: &mut dyn Write) -> Result<(), UnpackError> {
    let root = File::open(dir).map_err(UnpackError::refused(b".", "cannot be read"))?;
    let (path, links) = (Vec::new(), BTreeMap::new());
    let mut job = Job { to, path, links, buffer: vec![0; BUFFER] };
    let mut levels = vec![job.enter(root)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.next() else {
            levels.pop();
            job.path.pop();
            continue;
        };
        job.path.push(name);
        match job.entry(&level.dir)? {
            Some(below) => levels.push(below),
            None => drop(job.path.pop()),
        }
        if levels.len() > DEPTH_MAX {
            return Err(UnpackError::entry(&job.name(), "lies deeper than any layer is"));
        }
    }
    job.write(&END)
}

/// A directory that is being packed.
struct Level {
    dir: File,
    names: std::vec::IntoIter<Vec<u8>>,
}

/// One packing.
struct Job<'a> {
    to: &'a mut dyn Write,
    /// Components of what is being packed.
    path: Vec<Vec<u8>>,
    /// The first name of files that have several.
    links: BTreeMap<u64, Vec<u8>>,
    buffer: Vec<u8>,
}

/// Extended attributes: name and value.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// What a header says beside the name.
struct Said<'a> {
    kind: EntryType,
    link: &'a [u8],
    size: u64,
    /// Owner, mode and time; `None`: root's, nobody's to read, 1970.
    meta: Option<&'a Metadata>,
    xattrs: Attributes,
}

impl<'a> Said<'a> {
    fn new(kind: EntryType, meta: Option<&'a Metadata>) -> Said<'a> {
        Said { kind, link: b"", size: 0, meta, xattrs: Vec::new() }
    }
}

impl Job<'_> {
    fn name(&self) -> Vec<u8> {
        self.path.join(&b'/')
    }

    fn refused(&self, why: &'static str) -> impl FnOnce(std::io::Error) -> UnpackError + use<> {
        UnpackError::refused(&self.name(), why)
    }

    /// Packs one entry; a directory is only begun.
    fn entry(&mut self, dir: &File) -> Result<Option<Level>, UnpackError> {
        let name = self.path.last().expect("pushed by the walk").clone();
        let held = file::open_node(dir.as_fd(), &name).map(File::from);
        let held = held.map_err(self.refused("cannot be read"))?;
        let meta = held.metadata().map_err(self.refused("cannot be read"))?;
        if name.starts_with(b".wh.") {
            return Err(UnpackError::entry(&self.name(), "has a name that hides others"));
        }
        if meta.is_dir() {
            let below = file::open_dir(dir.as_fd(), &name).map(File::from);
            return self.enter(below.map_err(self.refused("cannot be read"))?).map(Some);
        }
        let path = self.name();
        if tree::is_whiteout(&meta) {
            return self.mark(&[b".wh.", &name[..]].concat()).map(|()| None);
        }
        if let Some(first) = self.links.get(&meta.ino()).cloned() {
            let link = Said { link: &first, ..Said::new(EntryType::Link, Some(&meta)) };
            return self.header(&path, link).map(|()| None);
        }
        if meta.is_file() {
            self.file(dir, &name, &meta)?;
        } else if meta.is_symlink() {
            let target =
                beneath::read_link(held.as_fd()).map_err(self.refused("cannot be read"))?;
            let said = Said::new(EntryType::Symlink, Some(&meta));
            self.header(&path, Said { link: target.as_bytes(), ..said })?;
        } else if meta.file_type().is_fifo() {
            self.header(&path, Said::new(EntryType::Fifo, Some(&meta)))?;
        } else {
            return Err(UnpackError::entry(&path, "is of a kind that no layer has"));
        }
        if meta.nlink() > 1 && !meta.is_symlink() {
            self.links.insert(meta.ino(), path);
        }
        Ok(None)
    }

    /// Packs a directory itself, and lists it.
    fn enter(&mut self, dir: File) -> Result<Level, UnpackError> {
        let meta = dir.metadata().map_err(self.refused("cannot be read"))?;
        let path = match self.path.is_empty() {
            true => b"./".to_vec(),
            false => [&self.name()[..], b"/"].concat(),
        };
        let xattrs = self.attributes(&dir)?;
        self.header(&path, Said { xattrs, ..Said::new(EntryType::Directory, Some(&meta)) })?;
        let mark =
            file::xattr(dir.as_fd(), tree::OPAQUE).map_err(self.refused("cannot be read"))?;
        if mark.as_deref() == Some(b"y") {
            self.path.push(Vec::new());
            self.mark(b".wh..wh..opq")?;
            self.path.pop();
        }
        let names = beneath::names_at_most(dir.as_fd(), NAMES_MAX);
        let names = names.map_err(self.refused("cannot be listed"))?;
        let mut names: Vec<Vec<u8>> = names.into_iter().map(OsStringExt::into_vec).collect();
        names.sort_unstable();
        Ok(Level { dir, names: names.into_iter() })
    }

    /// An empty file that says something about the layers below, in the place of the last component.
    fn mark(&mut self, name: &[u8]) -> Result<(), UnpackError> {
        let mut path = self.path.clone();
        path.pop();
        path.push(name.to_vec());
        self.header(&path.join(&b'/'), Said::new(EntryType::Regular, None))
    }

    fn file(&mut self, dir: &File, name: &[u8], meta: &Metadata) -> Result<(), UnpackError> {
        let from = file::open_to_read(dir.as_fd(), name).map_err(self.refused("cannot be read"))?;
        let xattrs = self.attributes(&from)?;
        let said = Said { size: meta.len(), xattrs, ..Said::new(EntryType::Regular, Some(meta)) };
        self.header(&self.name(), said)?;
        let mut left = meta.len();
        let mut from = from.take(left);
        while left > 0 {
            let read = from.read(&mut self.buffer).map_err(self.refused("cannot be read"))?;
            if read == 0 {
                return Err(UnpackError::entry(&self.name(), "is shorter than it was"));
            }
            left -= read as u64;
            let written = self.to.write_all(&self.buffer[..read]);
            written.map_err(self.refused("cannot be written"))?;
        }
        self.pad(meta.len())
    }

    /// The extended attributes that a layer's file may have, by name.
    fn attributes(&self, file: &File) -> Result<Attributes, UnpackError> {
        let unread = || self.refused("has extended attributes that cannot be read");
        let mut names = file::xattr_names(file.as_fd()).map_err(unread())?;
        names.sort_unstable();
        let mut all = Vec::new();
        for name in names {
            let Ok(text) = CString::new(name.clone()) else { continue };
            let Some(value) = file::xattr(file.as_fd(), &text).map_err(unread())? else { continue };
            // A PAX record's key ends at the first of these.
            if may_have(&name, &value, true) && !name.contains(&b'=') {
                all.push((name, value));
            }
        }
        Ok(all)
    }

    fn header(&mut self, path: &[u8], said: Said<'_>) -> Result<(), UnpackError> {
        let records = records(path, &said);
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            fill(&mut header, b"././@PaxHeader", b"", EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            self.write(header.as_bytes())?;
            self.write(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = Header::new_ustar();
        fill(&mut header, path, said.link, said.kind);
        header.set_size(said.size);
        if let Some(meta) = said.meta {
            header.set_mode(meta.mode() & 0o7777);
            header.set_uid(meta.uid().into());
            header.set_gid(meta.gid().into());
            header.set_mtime(meta.mtime().max(0) as u64);
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        self.to.write_all(bytes).map_err(self.refused("cannot be written"))
    }

    /// What is missing to a whole block behind `len` bytes.
    fn pad(&mut self, len: u64) -> Result<(), UnpackError> {
        let rest = (len % 512) as usize;
        if rest == 0 { Ok(()) } else { self.write(&END[..512 - rest]) }
    }
}

/// Name, link and kind, as far as they fit, and nothing else.
fn fill(header: &mut Header, path: &[u8], link: &[u8], kind: EntryType) {
    header.set_entry_type(kind);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    if let Some(ustar) = header.as_ustar_mut() {
        let (path, link) = (&path[..path.len().min(FIELD)], &link[..link.len().min(FIELD)]);
        ustar.name[..path.len()].copy_from_slice(path);
        ustar.linkname[..link.len()].copy_from_slice(link);
    }
}

/// What the header cannot hold.
fn records(path: &[u8], said: &Said<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if path.len() > FIELD {
        out.extend(record(b"path", path));
    }
    if said.link.len() > FIELD {
        out.extend(record(b"linkpath", said.link));
    }
    if said.size > SIZE_MAX {
        out.extend(record(b"size", said.size.to_string().as_bytes()));
    }
    if let Some(meta) = said.meta
        && meta.mtime_nsec() != 0
    {
        let time = format!("{}.{:09}", meta.mtime().max(0), meta.mtime_nsec());
        out.extend(record(b"mtime", time.as_bytes()));
    }
    for (name, value) in &said.xattrs {
        out.extend(record(&[b"SCHILY.xattr.", &name[..]].concat(), value));
    }
    out
}

/// `LENGTH KEY=VALUE\n`, the length its own digits included.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn records_count_their_own_length() {
        assert_eq!(record(b"a", b"b"), b"6 a=b\n");
        for length in [0, 91, 92, 93, 94, 95, 989, 990, 991, 992] {
            let record = record(b"path", &vec![b'x'; length]);
            let text = String::from_utf8(record).expect("text");
            let said = text.split(' ').next().expect("a length");
            assert_eq!(said.parse(), Ok(text.len()), "{length}");
        }
    }

    #[test]
    fn a_tree_is_packed_in_order_and_twice_the_same() {
        let dir = std::env::temp_dir().join(format!("pack-{}", std::process::id()));
        let long = "l".repeat(120);
        fs::create_dir_all(dir.join("z/sub")).expect("directory");
        fs::write(dir.join("z/b"), "two").expect("file");
        fs::write(dir.join(&long), vec![7; 1000]).expect("file");
        fs::hard_link(dir.join("z/b"), dir.join("z/sub/again")).expect("link");
        symlink("../elsewhere", dir.join("a")).expect("link");
        let packed = || {
            let mut out = Vec::new();
            pack(&dir, &mut out).expect("packed");
            out
        };
        let (first, second) = (packed(), packed());
        fs::remove_dir_all(&dir).expect("clean");
        assert!(first == second && first.len() % 512 == 0);
        let mut archive = tar::Archive::new(&first[..]);
        let entries = archive.entries().expect("entries").map(|entry| {
            let mut entry = entry.expect("an entry");
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let link = entry.link_name_bytes().map(|it| String::from_utf8_lossy(&it).into_owned());
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("data");
            (path, link, data.len())
        });
        let expected = [
            ("./", None, 0),
            ("a", Some("../elsewhere"), 0),
            (&long, None, 1000),
            ("z/", None, 0),
            ("z/b", None, 3),
            ("z/sub/", None, 0),
            ("z/sub/again", Some("z/b"), 0),
        ];
        let expected = expected.map(|(path, link, len): (&str, Option<&str>, _)| {
            (path.to_owned(), link.map(str::to_owned), len)
        });
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_name_that_means_something_else_in_archives_is_refused() {
        let dir = std::env::temp_dir().join(format!("pack-wh-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("directory");
        fs::write(dir.join(".wh.a"), "").expect("file");
        let packed = pack(&dir, &mut Vec::new());
        fs::remove_dir_all(&dir).expect("clean");
        assert!(packed.expect_err("refused").to_string().contains("hides others"));
    }
}
