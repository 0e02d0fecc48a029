//! What an executor knows of processes beside its actions: those that an earlier daemon has left
//! running, and whether those that count have begun.

use super::cancel::{self, Cancel, Canceller};
use crate::container::Process;
use crate::model::process::ExitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// A process that is attached, and how it has ended if it has.
pub type Attached = (Process, Option<ExitStatus>);

/// Processes of the container that an action goes on with instead of starting them.
#[derive(Default)]
pub struct Found(Mutex<BTreeMap<String, Attached>>);

impl Found {
    /// These, by name.
    pub fn new(all: Vec<Attached>) -> Found {
        Found(Mutex::new(all.into_iter().map(|one| (one.0.id.clone(), one)).collect()))
    }

    /// Whether nobody has gone on with it yet.
    pub fn has(&self, id: &str) -> bool {
        self.inner().contains_key(id)
    }

    /// The process of this name, for the one who goes on with it.
    pub fn take(&self, id: &str) -> Option<Attached> {
        self.inner().remove(id)
    }

    fn inner(&self) -> MutexGuard<'_, BTreeMap<String, Attached>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Tells when the processes that somebody waits for have all been started.
#[derive(Default)]
pub struct Begun(Mutex<Option<(BTreeSet<String>, Canceller)>>);

impl Begun {
    /// Cancelled when all of these have been started; at once when there are none.
    pub fn all_of(&self, ids: Vec<String>) -> Cancel {
        let (told, heard) = cancel::pair();
        let left: BTreeSet<String> = ids.into_iter().collect();
        // What is dropped here is heard as said.
        *self.inner() = (!left.is_empty()).then_some((left, told));
        heard
    }

    /// This one has been started.
    pub fn tell(&self, id: &str) {
        let mut inner = self.inner();
        if let Some((left, _)) = inner.as_mut() {
            left.remove(id);
            if left.is_empty() {
                *inner = None;
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Option<(BTreeSet<String>, Canceller)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_waited_for_have_to_begin() {
        let begun = Begun::default();
        assert!(begun.all_of(Vec::new()).is_cancelled());
        let heard = begun.all_of(vec!["a".into(), "b".into()]);
        begun.tell("a");
        begun.tell("c");
        assert!(!heard.is_cancelled());
        begun.tell("b");
        assert!(heard.is_cancelled());
    }
}
