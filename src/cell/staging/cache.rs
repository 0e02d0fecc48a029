//! The build cache of an app: what one staging leaves to the next one of the same kind.
//!
//! ```text
//! <cache>/staging/NAME/KEY/cache.tgz     KEY: of stack and buildpacks, see `recipe::cache_key`
//! ```
//!
//! Best effort: whatever is wrong with it, its app is staged without it.

use crate::stage::recipe::CACHE_FILE;
use crate::unit::Bytes;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a staging does with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cache {
    /// The directory to copy in, which holds nothing but the file; `None`: it is staged without.
    pub from: Option<PathBuf>,
    /// Where the next one goes.
    pub to: PathBuf,
    /// Why it is staged without, for the app's log.
    pub note: Option<String>,
}

/// Looks at the cache below `root`, the app's own directory, and sweeps from there what no staging uses:
/// caches of other stacks and buildpacks, and what a daemon that died was copying. `disk`: what the
/// staging has. Blocking.
pub(super) fn prepare(root: &Path, key: &str, disk: Bytes) -> Cache {
    let dir = root.join(key);
    let file = dir.join(CACHE_FILE);
    let (from, note) = match look(root, &dir, &file) {
        Err(why) => (None, Some(format!("Staging without the build cache: {why}"))),
        Ok(None) => (None, None),
        // Unpacked it is larger still, and the build has to have room beside it.
        Ok(Some(bytes)) if bytes > disk.get() / 2 => {
            let size = Bytes::mib(bytes.div_ceil(1 << 20));
            let note = format!(
                "Staging without the build cache, which has {size}: staging has {disk}; set `disk` in \
                 [build] to use it"
            );
            (None, Some(note))
        }
        Ok(Some(_)) => (Some(dir), None),
    };
    Cache { from, to: file, note }
}

/// The bytes of the cache, if there is one. The error is for the user.
fn look(root: &Path, dir: &Path, file: &Path) -> Result<Option<u64>, String> {
    let cannot = |doing: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |err: io::Error| format!("cannot {doing} {path}: {err}")
    };
    fs::create_dir_all(dir).map_err(cannot("make", dir))?;
    sweep(root, dir).map_err(cannot("clear", root))?;
    sweep(dir, file).map_err(cannot("clear", dir))?;
    match fs::symlink_metadata(file) {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(format!("{} is no file; remove it", file.display())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(cannot("look at", file)(err)),
    }
}

/// Removes everything in `dir` but `keep`.
fn sweep(dir: &Path, keep: &Path) -> io::Result<()> {
    for item in fs::read_dir(dir)? {
        let item = item?;
        let path = item.path();
        if path == keep {
            continue;
        }
        match item.file_type()?.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An app's directory that goes with the test.
    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        root
    }

    #[test]
    fn only_a_whole_cache_of_the_same_kind_is_used() {
        let root = root("kinds");
        let disk = Bytes::mib(1);
        let (one, file) = (root.join("one"), root.join("one/cache.tgz"));
        let none = Cache { from: None, to: file.clone(), note: None };
        assert_eq!(prepare(&root, "one", disk), none, "there was none yet");
        // As a daemon that was killed leaves it.
        fs::write(one.join("cache.part"), "half").expect("part");
        assert_eq!(prepare(&root, "one", disk), none);
        assert!(!one.join("cache.part").exists());
        fs::write(&file, "whole").expect("cache");
        fs::write(one.join("cache.part"), "half").expect("part");
        assert_eq!(prepare(&root, "one", disk).from, Some(one.clone()));
        assert!(!one.join("cache.part").exists() && file.exists());
        // Of before there were kinds, and of another one.
        fs::write(root.join("cache.tgz"), "old").expect("old");
        assert_eq!(prepare(&root, "two", disk).from, None);
        let left: Vec<_> = fs::read_dir(&root).expect("root").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        fs::remove_dir_all(&root).expect("clean");
    }

    #[test]
    fn a_cache_that_cannot_be_used_is_a_line_of_the_log() {
        let root = root("bad");
        let file = root.join("one/cache.tgz");
        fs::create_dir_all(root.join("one")).expect("directory");
        fs::File::create(&file).and_then(|it| it.set_len((1 << 20) + 1)).expect("cache");
        let note = |disk| {
            let cache = prepare(&root, "one", disk);
            assert_eq!(cache.from.is_none(), cache.note.is_some());
            cache.note.unwrap_or_default()
        };
        assert_eq!(note(Bytes::mib(3)), "");
        assert!(note(Bytes::mib(2)).contains("set `disk` in [build]"), "{}", note(Bytes::mib(2)));
        fs::remove_file(&file).expect("remove");
        fs::create_dir(&file).expect("in the way");
        assert!(note(Bytes::mib(2)).contains("is no file"));
        fs::remove_dir_all(&root).expect("clean");
        fs::write(&root, "in the way").expect("in the way");
        assert!(note(Bytes::mib(2)).contains("cannot make"));
        fs::remove_file(&root).expect("clean");
    }
}
