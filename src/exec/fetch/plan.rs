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
    /// Bytes of what is on its way, by the number of who fetches it.
    #[serde(skip)]
    coming: BTreeMap<u64, u64>,
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

    /// Bytes of all files, those on their way included.
    pub fn bytes(&self) -> u64 {
        let all = self.entries.values().chain(&self.leaving).map(|entry| entry.bytes);
        all.chain(self.coming.values().copied()).fold(0, u64::saturating_add)
    }

    /// So many more bytes have come for `who`; gives what has to go for them, longest unused first.
    /// `None`: what may go is not enough, and others are on their way as well; nothing changed. One that
    /// comes alone has its own bound, and is not held up by what is being read.
    pub fn come(&mut self, who: u64, bytes: u64, most: u64) -> Option<Vec<Entry>> {
        let mut all = self.bytes().saturating_add(bytes);
        let leaving = self.idle_until(&mut all, most, |_| true);
        let alone = self.coming.iter().all(|(other, bytes)| *other == who || *bytes == 0);
        if all > most && !alone {
            return None;
        }
        let own = self.coming.entry(who).or_default();
        *own = own.saturating_add(bytes);
        Some(leaving.iter().filter_map(|name| self.remove(name)).collect())
    }

    /// So many bytes are what has come for `who` in the end.
    pub fn has_come(&mut self, who: u64, bytes: u64) {
        self.coming.insert(who, bytes);
    }

    /// What has come for `who` is gone again.
    pub fn forget(&mut self, who: u64) {
        self.coming.remove(&who);
    }

    /// Something is on its way.
    pub fn is_coming(&self) -> bool {
        self.coming.values().any(|bytes| *bytes > 0)
    }

    /// As [`Index::keep`], of what has come for `who`.
    pub fn settle(&mut self, who: u64, id: &str, entry: Entry, most: u64) -> Option<Vec<Entry>> {
        let own = self.coming.remove(&who);
        let gone = self.keep(id, entry, most);
        if gone.is_none() {
            self.coming.extend(own.map(|bytes| (who, bytes)));
        }
        gone
    }

    /// Names of those that have to go so that `all` bytes become `most` at most, if there are so many
    /// that nobody reads; longest unused first.
    fn idle_until(&self, all: &mut u64, most: u64, may: impl Fn(&str) -> bool) -> Vec<String> {
        if *all <= most {
            return Vec::new();
        }
        let idle = self.entries.iter().filter(|(name, kept)| may(name) && kept.readers == 0);
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|(_, kept)| kept.last_use);
        let mut leaving = Vec::new();
        for (name, kept) in idle {
            if *all <= most {
                break;
            }
            *all = all.saturating_sub(kept.bytes);
            leaving.push(name.clone());
        }
        leaving
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
        let mut leaving = self.idle_until(&mut all, most, |name| name != id);
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
    fn row_48_what_is_on_its_way_takes_room_like_what_is_kept() {
        let mut index = Index::default();
        for name in ["a", "b", "c"] {
            assert!(index.keep(name, entry(name, 30), 100).expect("room").is_empty());
        }
        index.hold("a");
        assert!(index.come(1, 10, 100).expect("room").is_empty());
        assert_eq!(names(index.come(1, 10, 100).expect("room")), ["b"]);
        assert_eq!(names(index.come(2, 40, 100).expect("room")), ["c"]);
        assert_eq!(index.bytes(), 30 + 20 + 40);
        let before = index.clone();
        assert_eq!(index.come(2, 11, 100), None, "a is read, and 1 has its share");
        assert_eq!(index.keep("d", entry("d", 11), 100), None);
        assert_eq!(index, before);
        index.forget(1);
        assert!(index.come(2, 11, 100).expect("1 is done").is_empty());
        // Alone it is held to its own size, not by who reads.
        assert!(index.come(2, 40, 100).expect("alone").is_empty());
        assert!(index.is_coming());
        index.has_come(2, 71);
        assert_eq!(index.settle(2, "e", entry("e", 71), 100), None);
        assert_eq!(index.bytes(), 30 + 71);
        index.has_come(2, 70);
        assert!(index.settle(2, "e", entry("e", 70), 100).expect("room").is_empty());
        assert!(!index.is_coming());
        assert_eq!(index.bytes(), 100);
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
