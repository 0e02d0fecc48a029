//! What a process may use by itself, setrlimit(2): decided by pid 1, set by its child.

use crate::model::process::{ProcessSpec, Rlimit};
use crate::sys::process::{self, Resource};
use std::collections::BTreeMap;
use std::io;

/// What a child sets.
pub struct Limits {
    /// Each with its soft and hard value.
    values: Vec<(Resource, u64, u64)>,
    /// What is less than was asked for, and what it is.
    pub lowered: BTreeMap<Rlimit, u64>,
}

/// What `spec` asks for, within what pid 1 has itself: its child can have no more. Without a wish
/// open files get `nofile` as the soft value, and there are no core dumps.
pub fn decide(spec: &ProcessSpec, nofile: u64) -> io::Result<Limits> {
    let mut wanted = spec.rlimits.clone();
    if let Some(nofile) = spec.nofile {
        wanted.entry(Rlimit::Nofile).or_insert(nofile);
    }
    wanted.entry(Rlimit::Core).or_insert(0);
    let mut limits = Limits { values: Vec::new(), lowered: BTreeMap::new() };
    if !wanted.contains_key(&Rlimit::Nofile) {
        let (_, hard) = process::limit(Resource::OPEN_FILES)?;
        limits.values.push((Resource::OPEN_FILES, nofile.min(hard), hard));
    }
    for (kind, wish) in wanted {
        let resource = Resource(kind as u8);
        let (_, hard) = process::limit(resource)?;
        let value = wish.min(hard);
        limits.values.push((resource, value, value));
        if value < wish && spec.rlimits.contains_key(&kind) {
            limits.lowered.insert(kind, value);
        }
    }
    Ok(limits)
}

impl Limits {
    /// Sets them on the caller.
    pub fn apply(&self) -> io::Result<()> {
        self.values
            .iter()
            .try_for_each(|(resource, soft, hard)| process::set_limit(*resource, *soft, *hard))
    }
}
