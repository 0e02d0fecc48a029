//! From path to path through one layer: what leads to the last one stays open, so that of paths in
//! order each costs little more than its last name.

use super::implied::{Says, is_opaque};
use crate::sys::file;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

/// Most levels that stay open.
const DEPTH_MAX: usize = 64;

/// A walk, through no symlink.
pub(super) struct Walk<'a> {
    layer: &'a File,
    /// What led to the last path.
    open: Vec<Level>,
    /// The name after those at which the last walk ended, and what there is instead of a directory.
    end: Option<(Vec<u8>, End)>,
}

/// A directory on the way.
struct Level {
    name: Vec<u8>,
    dir: File,
    /// It, or one above it, hides what the layers below have there.
    hides: bool,
}

/// Why a walk does not go on.
#[derive(Clone, Copy)]
enum End {
    /// There is no such name.
    Missing,
    /// It is no directory: nothing that goes on below.
    Other,
}

impl<'a> Walk<'a> {
    /// Begins at the layer's root.
    pub(super) fn new(layer: &'a File) -> Walk<'a> {
        Walk { layer, open: Vec::new(), end: None }
    }

    /// What the layer has at a path, which is empty for its root, and whether it hides what the layers
    /// below have there.
    pub(super) fn says(&mut self, path: &[u8]) -> io::Result<(Says, bool)> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let names: Vec<&[u8]> = names.collect();
        let (dir, hides) = match self.go(&names[..names.len().min(DEPTH_MAX)])? {
            Ok(hides) => (self.top().try_clone()?, hides),
            Err(says) => return Ok(says),
        };
        // What is deeper stays open for as long as it is looked at.
        let mut rest = Level { name: Vec::new(), dir, hides };
        for name in names.iter().skip(DEPTH_MAX) {
            match step(&rest.dir, rest.hides, name)? {
                Ok(level) => rest = level,
                Err(end) => return Ok(end.says(rest.hides)),
            }
        }
        Ok((Says::Is(rest.dir), rest.hides))
    }

    /// Opens the directory, and keeps it open with what leads there; whether it hides what is below,
    /// or what there is instead.
    fn go(&mut self, names: &[&[u8]]) -> io::Result<Result<bool, (Says, bool)>> {
        let same = |(level, name): &(&Level, &&[u8])| level.name == **name;
        let shared = self.open.iter().zip(names).take_while(same).count();
        if shared < self.open.len() {
            self.open.truncate(shared);
            self.end = None;
        }
        let mut hides = match self.open.last() {
            Some(level) => level.hides,
            None => is_opaque(self.layer)?,
        };
        for name in &names[shared..] {
            let known = self.end.take_if(|(at, _)| at == name);
            let next = match known {
                Some((_, end)) => Err(end),
                None => step(self.top(), hides, name)?,
            };
            match next {
                Ok(level) => {
                    hides = level.hides;
                    self.open.push(level);
                    self.end = None;
                }
                Err(end) => {
                    self.end = Some((name.to_vec(), end));
                    return Ok(Err(end.says(hides)));
                }
            }
        }
        Ok(Ok(hides))
    }

    fn top(&self) -> &File {
        self.open.last().map_or(self.layer, |level| &level.dir)
    }
}

impl End {
    fn says(self, hides: bool) -> (Says, bool) {
        match self {
            End::Missing => (Says::Nothing, hides),
            End::Other => (Says::Hidden, true),
        }
    }
}

/// One level down.
fn step(above: &File, hides: bool, name: &[u8]) -> io::Result<Result<Level, End>> {
    match file::open_dir(above.as_fd(), name).map(File::from) {
        Ok(dir) => {
            let hides = hides || is_opaque(&dir)?;
            Ok(Ok(Level { name: name.to_vec(), dir, hides }))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Err(End::Missing)),
        // A whiteout or a file; some kernels say ELOOP, which has no kind, of a symlink.
        Err(err) if err.kind() == io::ErrorKind::NotADirectory => Ok(Err(End::Other)),
        Err(err) if err.raw_os_error() == Some(40) => Ok(Err(End::Other)),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    /// What a walk says, in a word; of a directory, that it is the one at the path.
    fn word(walk: &mut Walk<'_>, root: &Path, path: &str) -> &'static str {
        match walk.says(path.as_bytes()).expect("readable") {
            (Says::Is(dir), false) => {
                let there = std::fs::metadata(root.join(path)).expect("there");
                assert_eq!(dir.metadata().expect("open").ino(), there.ino(), "{path}");
                "is"
            }
            (Says::Nothing, false) => "nothing",
            (Says::Hidden, true) => "hidden",
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn each_path_is_found_whatever_the_one_before_it_was() {
        let root = std::env::temp_dir().join(format!("walk-{}", std::process::id()));
        let deep = ["d"; DEPTH_MAX + 3].join("/");
        for dir in ["a/b/c", "a/d", "e", &deep] {
            std::fs::create_dir_all(root.join(dir)).expect("directory");
        }
        std::fs::write(root.join("a/file"), b"").expect("file");
        symlink("a", root.join("link")).expect("symlink");
        let open = File::open(&root).expect("open");
        let (below, missing) = (format!("{deep}/d"), format!("{deep}/none/e"));
        let paths = [
            ("", "is"),
            ("a/b/c", "is"),
            ("a/b", "is"),
            ("a/d", "is"),
            ("a/none/e", "nothing"),
            ("a/none", "nothing"),
            ("a/none/f", "nothing"),
            ("a/d", "is"),
            ("a/file", "hidden"),
            ("a/file/e", "hidden"),
            ("a/b/c", "is"),
            ("link/b", "hidden"),
            ("e", "is"),
            (&deep, "is"),
            (&below, "nothing"),
            (&missing, "nothing"),
        ];
        let mut walk = Walk::new(&open);
        for (path, says) in paths.iter().chain(paths.iter().rev()) {
            assert_eq!(word(&mut walk, &root, path), *says, "{path}");
            assert!(walk.open.len() <= DEPTH_MAX);
        }
        std::fs::remove_dir_all(&root).expect("clean");
    }
}
