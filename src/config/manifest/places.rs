//! Where in the text stands what only the box can judge; see `config::site`.

use super::super::diagnostic::place;
use crate::unit::AppName;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

/// Bytes of the text. `None`, or no item: it is a default and stands nowhere.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Places {
    pub(in crate::config) source: Option<Range<usize>>,
    pub(in crate::config) stack: Option<Range<usize>>,
    /// As many as there are buildpacks, in their order.
    pub(in crate::config) buildpacks: Vec<Range<usize>>,
    /// `[build]`.
    pub(in crate::config) build: Sizes,
    /// Every process that says something itself.
    pub(in crate::config) processes: BTreeMap<String, Sizes>,
    /// `[run]`, for the others.
    pub(in crate::config) run: Sizes,
    /// Every app that this one waits for, by either key.
    pub(in crate::config) waits: Vec<(AppName, Range<usize>)>,
    /// Every published port.
    pub(in crate::config) published: Vec<(u16, Range<usize>)>,
    /// `[ssh]`.
    pub(in crate::config) ssh: Option<Range<usize>>,
    /// Its `authorized_keys_file`.
    pub(in crate::config) ssh_file: Option<(PathBuf, Range<usize>)>,
    /// `from` of each `[[volume]]`.
    pub(in crate::config) volumes: Vec<Range<usize>>,
    /// `source` of each `[[file]]` that has one.
    pub(in crate::config) files: Vec<(PathBuf, Range<usize>)>,
    /// `credentials_file` of each `[[service]]` that has one, by its number.
    pub(in crate::config) credentials: Vec<(usize, Range<usize>)>,
}

/// Where the needs of one container stand.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Sizes {
    pub(in crate::config) instances: Option<Range<usize>>,
    pub(in crate::config) memory: Option<Range<usize>>,
    pub(in crate::config) disk: Option<Range<usize>>,
}

impl Places {
    /// Every published port of `text`, with its line and column.
    pub(in crate::config) fn claims(&self, text: &str) -> Vec<(u16, (usize, usize))> {
        self.published.iter().map(|(port, at)| (*port, place(text, at.start))).collect()
    }

    /// Where the needs of `process` stand: below its own header, else in `[run]`.
    pub(in crate::config) fn sizes(&self, process: &str) -> Sizes {
        let own = self.processes.get(process).cloned().unwrap_or_default();
        let run = self.run.clone();
        Sizes {
            instances: own.instances.or(run.instances),
            memory: own.memory.or(run.memory),
            disk: own.disk.or(run.disk),
        }
    }
}
