//! What the depot says about containers that somebody holds, for those who hold them.

use super::depot::Entry;
use crate::unit::Handle;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// One container's entry, replaced as a whole when the depot's is.
pub(super) struct Record(Mutex<Arc<Entry>>);

impl Record {
    /// As it is now.
    pub(super) fn get(&self) -> Arc<Entry> {
        lock(&self.0).clone()
    }
}

/// The records of all containers that are held.
#[derive(Default)]
pub(super) struct Records(Mutex<BTreeMap<Handle, Weak<Record>>>);

impl Records {
    /// The record of a container that is about to be held: the same one for who holds it already.
    pub(super) fn open(&self, entry: Entry) -> Arc<Record> {
        let mut all = lock(&self.0);
        all.retain(|_, record| record.strong_count() > 0);
        let held = all.get(&entry.spec.handle).and_then(Weak::upgrade);
        // Somebody may still hold an earlier container of this name, which is gone.
        if let Some(held) = held.filter(|held| held.get().process() == entry.process()) {
            return held;
        }
        let handle = entry.spec.handle.clone();
        let record = Arc::new(Record(Mutex::new(Arc::new(entry))));
        all.insert(handle, Arc::downgrade(&record));
        record
    }

    /// The depot's entry is this one now.
    pub(super) fn replace(&self, entry: Entry) {
        let held = lock(&self.0).get(&entry.spec.handle).and_then(Weak::upgrade);
        if let Some(held) = held.filter(|held| held.get().process() == entry.process()) {
            *lock(&held.0) = Arc::new(entry);
        }
    }
}

/// Who panicked with it in hand has left it whole: every change is one assignment.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
