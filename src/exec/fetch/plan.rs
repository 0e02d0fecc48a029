//! What the cache of downloads holds, and what goes to make room. Pure.

use crate::model::action::Checksum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that is kept, by the hash of its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    entries: BTreeMap<String, Entry>,
    /// Counts uses: a clock that nobody sets back.
    uses: u64,
    /// Replaced, and read still: gone from the directory, not from the disk.
    #[serde(skip)]
    leaving: Vec<Entry>,
}

/// One kept file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the cache's directory.
    pub file: String,
    /// Its length there.
    pub bytes: u64,
    /// What the server calls this version of it.
    pub version: Version,
    /// What was checked when it came.
    pub checksum: Option<Checksum>,
    /// When it was used last, by [`Index`]'s count.
    last_use: u64,
    /// Who reads it now.
    #[serde(skip)]
    readers: u32,
}

/// How a server names a version of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
}

impl Version {
    /// The server names none: it cannot be asked whether there is another.
    pub fn is_none(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }
}

impl Entry {
    /// A file that has just come.
    pub fn new(file: String, bytes: u64, version: Version, checksum: Option<Checksum>) -> Entry {
        Entry { file, bytes, version, checksum, last_use: 0, readers: 0 }
    }
}

impl Index {
    /// What is kept under `id`.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Names of all files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|entry| entry.file.as_str())
    }

    /// Drops what `is_there` does not find any more.
    pub fn forget_missing(&mut self, is_there: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, entry| is_there(entry));
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let all = self.entries.values().chain(&self.leaving);
        all.fold(0, |all, entry| all.saturating_add(entry.bytes))
    }

    /// Somebody begins to read `id`: until [`Index::release`] it does not go.
    pub fn hold(&mut self, id: &str) {
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.last_use = self.uses;
            entry.readers += 1;
        }
    }

    /// Somebody has read `file`, kept under `id` or replaced since.
    pub fn release(&mut self, id: &str, file: &str) {
        let kept = self.entries.get_mut(id).filter(|entry| entry.file == file);
        let old = self.leaving.iter_mut().find(|entry| entry.file == file);
        if let Some(entry) = kept.or(old) {
            entry.readers = entry.readers.saturating_sub(1);
        }
        self.leaving.retain(|entry| entry.readers > 0);
    }

    /// Drops what is kept under `id`.
    pub fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if entry.readers > 0 {
            self.leaving.push(entry.clone());
        }
        Some(entry)
    }

    /// Keeps `entry` under `id` in place of what was there, and gives what has to go for it, longest
    /// unused first. `None`: what may go is not enough for a cache of `most` bytes; nothing changed.
    pub fn keep(&mut self, id: &str, entry: Entry, most: u64) -> Option<Vec<Entry>> {
        // What is replaced stays on the disk for as long as somebody reads it.
        let old = self.entries.get(id).filter(|old| old.readers == 0).map_or(0, |old| old.bytes);
        let mut all = self.bytes().saturating_sub(old).saturating_add(entry.bytes);
        let mut idle: Vec<_> = self
            .entries
            .iter()
            .filter(|(name, kept)| name.as_str() != id && kept.readers == 0)
            .map(|(name, kept)| (kept.last_use, name.clone(), kept.bytes))
            .collect();
        idle.sort();
        let mut leaving = Vec::new();
        for (_, name, bytes) in idle {
            if all <= most {
                break;
            }
            all = all.saturating_sub(bytes);
            leaving.push(name);
        }
        if all > most {
            return None;
        }
        leaving.push(id.to_owned());
        let gone = leaving.iter().filter_map(|name| self.remove(name)).collect();
        self.uses += 1;
        self.entries.insert(id.to_owned(), Entry { last_use: self.uses, ..entry });
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(file: &str, bytes: u64) -> Entry {
        Entry::new(file.into(), bytes, Version::default(), None)
    }

    fn names(gone: Vec<Entry>) -> Vec<String> {
        gone.into_iter().map(|entry| entry.file).collect()
    }

    #[test]
    fn row_48_the_longest_unused_goes_first_and_what_is_read_stays() {
        let mut index = Index::default();
        for name in ["a", "b", "c"] {
            assert!(index.keep(name, entry(name, 30), 100).expect("room").is_empty());
        }
        index.hold("a");
        index.release("a", "a");
        assert_eq!(names(index.keep("d", entry("d", 30), 100).expect("room")), ["b"]);
        index.hold("c");
        assert_eq!(names(index.keep("e", entry("e", 60), 100).expect("room")), ["a", "d"]);
        assert_eq!(index.bytes(), 90);
    }

    #[test]
    fn row_48_the_size_is_a_bound_whoever_reads() {
        let mut index = Index::default();
        index.keep("a", entry("a", 60), 100).expect("room");
        index.hold("a");
        let before = index.clone();
        assert_eq!(index.keep("b", entry("b", 50), 100), None, "a is read");
        assert_eq!(index.keep("c", entry("c", 101), 100), None, "it is too large");
        assert_eq!(index, before);
        index.release("a", "another file");
        assert_eq!(index.keep("b", entry("b", 50), 100), None, "a is still read");
        index.release("a", "a");
        assert_eq!(names(index.keep("b", entry("b", 50), 100).expect("room")), ["a"]);
    }

    #[test]
    fn a_new_version_takes_the_place_of_the_old_one() {
        let mut index = Index::default();
        index.keep("a", entry("1", 30), 100).expect("room");
        index.hold("a");
        assert_eq!(index.keep("a", entry("2", 80), 100), None, "the old one is read");
        assert_eq!(names(index.keep("a", entry("2", 70), 100).expect("room")), ["1"]);
        assert_eq!((index.bytes(), index.files().collect::<Vec<_>>()), (100, vec!["2"]));
        index.release("a", "1");
        assert_eq!(index.bytes(), 70);
    }
}
