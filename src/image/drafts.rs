//! How files of the catalogue are written: each replaced in one step, and forced to the disk.
//!
//! A file is written under a name that nobody reads, `*.new`, and renamed once the disk has it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Held while a file is replaced, and while all are listed: a directory that changes meanwhile may
/// not tell of what was there all the time, and what is not told of is collected.
pub static WRITES: RwLock<()> = RwLock::new(());

/// Replaces a file in one step, if it is to change. Two who write the same one do not meet: the last
/// one counts.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    replace(path, |_| text.to_vec())
}

/// The same with what `new` makes of the old content, which nobody changes meanwhile.
pub fn replace(path: &Path, new: impl FnOnce(Option<&[u8]>) -> Vec<u8>) -> io::Result<()> {
    let _turn = WRITES.write().unwrap_or_else(PoisonError::into_inner);
    let old = fs::read(path).ok();
    let text = new(old.as_deref());
    if old.as_ref() == Some(&text) {
        return Ok(());
    }
    let (mut file, draft) = new_draft(path)?;
    let mut written = || {
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        write_down(path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Makes sure that the disk has what is in the directory of this file, and what is not any more. Nothing
/// is there before the first image.
pub fn write_down(path: &Path) -> io::Result<()> {
    match File::open(path.parent().unwrap_or(path)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        dir => dir?.sync_all(),
    }
}

/// Files of the catalogue that are written and wait until the disk has them; then they are published
/// together, in their order. Those that were not go.
#[derive(Default)]
pub struct Drafts(Vec<Replacement>);

/// A file that takes the place of another.
struct Replacement {
    path: PathBuf,
    draft: PathBuf,
    /// What it was written for.
    old: Option<Vec<u8>>,
    new: Box<New>,
}

/// A file's content, of the old one.
type New = dyn Fn(Option<&[u8]>) -> Vec<u8> + Send;

impl Drafts {
    /// There is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more; `new` makes its content of the old one.
    pub fn add(
        &mut self,
        path: PathBuf,
        new: impl Fn(Option<&[u8]>) -> Vec<u8> + Send + 'static,
    ) -> io::Result<()> {
        let old = fs::read(&path).ok();
        let text = new(old.as_deref());
        if old.as_ref() != Some(&text) {
            let (mut file, draft) = new_draft(&path)?;
            self.0.push(Replacement { path, draft, old, new: Box::new(new) });
            file.write_all(&text)?;
        }
        Ok(())
    }

    /// Shows them. The disk has them, and is to be waited for once more.
    pub fn publish(&mut self) -> io::Result<()> {
        // One by one: those behind one that fails go when this is dropped.
        while !self.0.is_empty() {
            let Replacement { path, draft, old, new } = self.0.remove(0);
            let is_same = {
                let _turn = WRITES.write().unwrap_or_else(PoisonError::into_inner);
                let is_same = fs::read(&path).ok() == old;
                let placed = if is_same { fs::rename(&draft, &path) } else { Ok(()) };
                placed.inspect_err(|_| drop(fs::remove_file(&draft)))?;
                is_same
            };
            if !is_same {
                // Somebody else has written it meanwhile.
                let _ = fs::remove_file(&draft);
                replace(&path, new)?;
            }
        }
        Ok(())
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        for Replacement { draft, .. } in &self.0 {
            let _ = fs::remove_file(draft);
        }
    }
}

/// What is in the names of this process's drafts only. Pids come again, as in a container, but not at the
/// same nanosecond: what a daemon has left that was killed is nobody's.
pub fn own_drafts() -> String {
    static BEGUN: LazyLock<u32> = LazyLock::new(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos()
    });
    format!(".{}-{:x}-", std::process::id(), *BEGUN)
}

/// A file with a name of its own for what is to become the file `path`, whose directory is made. One that
/// has it all the same stays for the sweep.
fn new_draft(path: &Path) -> io::Result<(File, PathBuf)> {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    /// More than anybody leaves behind for one file.
    const TRIES: usize = 1000;
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let own = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_extension(format!("{}{own}.new", &own_drafts()[1..]));
        match File::create_new(&draft) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => taken = err,
            made => return Ok((made?, draft)),
        }
    }
    Err(taken)
}

pub fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_that_somebody_left_is_in_nobodys_way() {
        let dir = std::env::temp_dir().join(format!("drafts-{}", std::process::id()));
        fs::create_dir(&dir).expect("directory");
        let path = dir.join("file");
        let first = new_draft(&path).expect("a draft").1;
        // Those that come next are there already.
        let name = first.to_string_lossy().into_owned();
        let (start, number) = name.trim_end_matches(".new").rsplit_once('-').expect("a number");
        let number: u64 = number.parse().expect("a number");
        for next in number + 1..number + 9 {
            fs::write(format!("{start}-{next}.new"), "left").expect("write");
        }
        write(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"new");
        // It took none of theirs.
        let left = fs::read_dir(&dir).expect("list").flatten().map(|item| fs::read(item.path()));
        let left = left.filter(|text| text.as_ref().is_ok_and(|text| text == b"left")).count();
        fs::remove_dir_all(&dir).expect("clean");
        assert_eq!(left, 8);
    }
}
