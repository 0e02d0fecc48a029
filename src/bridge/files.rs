//! The file server's directories: what containers download of the box itself, and others of it.

pub mod plan;

use crate::lifecycle::archive::{self, ARCHIVES};
use crate::sys::beneath::{self, Links};
use crate::unit::Digest;
use plan::{Asked, Known, Plan};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Digests that are remembered.
const DIGESTS_MAX: usize = 256;

/// What a file is known again by: device, inode, size, time of the last change in nanoseconds.
type Identity = (u64, u64, u64, i128);

/// Directories that are served as one. Clones are the same.
#[derive(Clone)]
pub struct Files {
    dirs: Arc<[PathBuf]>,
    own: Option<Arc<Own>>,
    digests: Arc<Mutex<BTreeMap<Identity, Digest>>>,
}

/// Archives of the box's own programs, which are made when somebody asks for them.
pub struct Own {
    /// Directory of the programs.
    pub programs: PathBuf,
    /// Where the archives are kept; may vanish at any time.
    pub archives: PathBuf,
    /// One makes them at a time.
    pub turn: Mutex<()>,
}

/// A file, and what of it is asked for.
pub struct Found {
    /// At the first byte that is asked for.
    pub file: File,
    /// What is said of it.
    pub known: Known,
    /// What becomes of the request.
    pub plan: Plan,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// The path has a `..`.
    Dots,
    /// It is a directory.
    Directory,
    /// There is none, or it lies elsewhere.
    Missing,
    /// It cannot be read.
    Unreadable(String),
}

impl Files {
    /// Serves `dirs`, which need not be there; what is in an earlier one hides it in a later one.
    /// Behind all of them come the box's own archives.
    pub fn new(dirs: impl Into<Arc<[PathBuf]>>, own: Option<Own>) -> Files {
        Files { dirs: dirs.into(), own: own.map(Arc::new), digests: Arc::default() }
    }

    /// The file at these names below a directory, never outside of it. Blocking.
    pub fn find(&self, names: &[String], asked: &Asked) -> Result<Found, NoFile> {
        if names.iter().flat_map(|name| name.split('/')).any(|part| part == "..") {
            return Err(NoFile::Dots);
        }
        let path: PathBuf = names.iter().filter(|name| !name.is_empty()).collect();
        let opened = self.dirs.iter().map(|dir| open(dir, &path));
        // The first that has it; without any, what the first says.
        let mut file = opened
            .reduce(|found, next| if found.is_ok() { found } else { next.or(found) })
            .unwrap_or(Err(NoFile::Missing))
            .or_else(|err| self.own(names).unwrap_or(Err(err)))?;
        let unreadable = |err: io::Error| NoFile::Unreadable(err.to_string());
        let meta = file.metadata().map_err(unreadable)?;
        if meta.is_dir() {
            return Err(NoFile::Directory);
        }
        if !meta.is_file() {
            return Err(NoFile::Missing);
        }
        let modified = u64::try_from(meta.mtime()).unwrap_or_default();
        let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        let identity = (meta.dev(), meta.ino(), meta.len(), time);
        let digest = self.digest(identity, &mut file).map_err(unreadable)?;
        let known = Known { etag: format!("\"{}\"", digest.hex()), modified, length: meta.len() };
        let plan = plan::plan(&known, asked);
        let first = if let Plan::Part(first, _) = plan { first } else { 0 };
        file.seek(SeekFrom::Start(first)).map_err(unreadable)?;
        Ok(Found { file, known, plan })
    }

    /// One of the box's own archives, as new as its programs; `None`: it is none of them.
    fn own(&self, names: &[String]) -> Option<Result<File, NoFile>> {
        let own = self.own.as_ref()?;
        let [dir, file] = names else { return None };
        let name =
            ARCHIVES.into_iter().find(|name| dir == name && *file == format!("{name}.tgz"))?;
        let _turn = own.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let made = archive::ensure(name, &own.programs, &own.archives).and_then(File::open);
        Some(made.map_err(|err| NoFile::Unreadable(format!("{name}.tgz cannot be made: {err}"))))
    }

    /// The file's SHA-256, computed once for as long as it is the same.
    fn digest(&self, identity: Identity, file: &mut File) -> io::Result<Digest> {
        let known = |files: &Files| {
            let digests = files.digests.lock().unwrap_or_else(PoisonError::into_inner);
            digests.get(&identity).copied()
        };
        if let Some(digest) = known(self) {
            return Ok(digest);
        }
        let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut piece)? {
                0 => break,
                count => hash.update(&piece[..count]),
            }
        }
        let digest = Digest::finish(hash);
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= DIGESTS_MAX {
            digests.clear();
        }
        digests.insert(identity, digest);
        Ok(digest)
    }
}

fn open(dir: &Path, path: &Path) -> Result<File, NoFile> {
    let missing = |err: io::Error| match err.kind() {
        io::ErrorKind::PermissionDenied => NoFile::Unreadable(err.to_string()),
        _ => NoFile::Missing,
    };
    if path.as_os_str().is_empty() {
        return Err(NoFile::Directory);
    }
    let dir = beneath::open_place(dir).map_err(missing)?;
    beneath::open_file(dir.as_fd(), path, Links::Within).map_err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(path: &str) -> Vec<String> {
        path.split('/').map(str::to_owned).collect()
    }

    /// Row 86: a file by its path, and nothing that lies outside.
    #[test]
    fn row_86_files_are_found_below_the_directory_and_nowhere_else() {
        let root = std::env::temp_dir().join(format!("terrarium-files-{}", std::process::id()));
        let dir = root.join("served");
        fs::create_dir_all(dir.join("a")).expect("directories");
        fs::write(dir.join("a/file"), "12345").expect("a file");
        fs::write(root.join("secret"), "x").expect("a file outside");
        std::os::unix::fs::symlink("../../secret", dir.join("a/out")).expect("a link");
        std::os::unix::fs::symlink(&root, dir.join("up")).expect("a link");
        let files = Files::new([root.join("none"), dir.clone()], None);
        let find = |path: &str| files.find(&names(path), &Asked::default());
        let found = find("a/file").unwrap_or_else(|err| panic!("{err:?}"));
        assert_eq!((found.plan, found.known.length), (Plan::Whole, 5));
        assert_eq!(found.known.etag, format!("\"{}\"", Digest::of(b"12345").hex()));
        let refused = |path: &str| find(path).err().expect("it is refused");
        assert_eq!(refused("a"), NoFile::Directory);
        assert_eq!(refused(""), NoFile::Directory);
        assert_eq!(refused("a/../a/file"), NoFile::Dots);
        for path in ["b", "a/out", "up/secret", "a/file/x", "a/..\0"] {
            assert_eq!(refused(path), NoFile::Missing, "{path}");
        }
        // A file that is replaced has another tag.
        fs::write(dir.join("a/new"), "67890").expect("a file");
        fs::rename(dir.join("a/new"), dir.join("a/file")).expect("replace it");
        let again = find("a/file").unwrap_or_else(|err| panic!("{err:?}"));
        assert_ne!(again.known.etag, found.known.etag);
        fs::remove_dir_all(root).expect("clean up");
    }
}
