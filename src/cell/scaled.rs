//! How many instances somebody wants, whatever a manifest says, and how long that holds (D102). Pure.
//!
//! A wish is given over what the manifest says then. A later manifest ends it that writes another count, or
//! does not name the process any more; one that is the same in that, or leaves the count out, does not. It ends
//! when that manifest takes over, and is there again when what has taken over gives way.

use super::record::{AppRecord, Release};
use crate::config::manifest::Counts;
use crate::model::manifest::Manifest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The process of which `push -i` tells the count, as that of cf does.
const TYPED: &str = "web";

/// What a wish was given over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// How many the manifest wanted; `None`: it did not name the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<u32>,
    /// Where what runs does not have the process, `web` runs in its place (D94). Else it waits for what the
    /// manifest makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stands_in: bool,
}

/// A wish that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapsed {
    /// So many were wanted.
    pub instances: u32,
    /// What it was given over.
    pub over: Over,
}

/// What a declaration says itself of how many are wanted.
#[derive(Clone, Debug, Default)]
pub struct Said {
    counts: Counts,
    typed: bool,
}

impl Said {
    /// What a manifest's text says; `typed`: the count of `web` in it was typed with it.
    pub fn of(text: &str, typed: bool) -> Said {
        Said { counts: Counts::of(text), typed }
    }
}

impl AppRecord {
    /// All process types that somebody may scale: of the manifest, of what runs, and those that were scaled
    /// when another droplet had them.
    pub fn process_types(&self) -> BTreeSet<String> {
        let added = self.release.iter().flat_map(Release::added).map(|(name, _)| name);
        let named = self.manifest.processes.keys().chain(self.gone()).cloned();
        named.chain(added).collect()
    }

    /// Processes that somebody has scaled, and that what runs does not have.
    pub fn gone(&self) -> Vec<&String> {
        self.release.as_ref().map(|release| self.lacks(release)).unwrap_or_default()
    }

    /// The same of this release.
    pub fn lacks(&self, release: &Release) -> Vec<&String> {
        let had = release.processes();
        let lacks = |name: &&String| !had.contains(*name) && self.given_over(name).stands_in;
        self.scale.keys().filter(lacks).collect()
    }

    /// How many somebody wants of a process that he has scaled, once what is declared has taken over.
    pub fn wanted_then(&self) -> BTreeMap<String, u32> {
        let mut scale = self.scale.clone();
        scale.retain(|name, _| !self.lapses.contains(name));
        scale
    }

    /// Its manifest says how many of this process are wanted, or that of what runs does.
    pub fn says(&self, process: &str) -> bool {
        let of_release = self.release.as_ref().map(|release| &release.manifest);
        let mut all = of_release.into_iter().chain([&self.manifest]);
        all.any(|it| it.processes.contains_key(process))
    }

    /// Somebody wants so many instances, whatever the declaration says.
    pub fn scale(&mut self, process: String, instances: u32) {
        let named = self.manifest.processes.get(&process).map(|it| it.instances);
        // What stands in goes on to do so until what names it has taken over.
        let stood_in = self.scale.contains_key(&process) && self.given_over(&process).stands_in;
        let over = Over { named, stands_in: named.is_none() || stood_in };
        self.lapses.remove(&process);
        self.lapsed.remove(&process);
        match instances {
            // As many as there are of one of which nothing is said.
            0 if !self.says(&process) => {
                self.over.remove(&process);
                self.scale.remove(&process);
            }
            _ => {
                self.over.insert(process.clone(), over);
                self.scale.insert(process, instances);
            }
        }
    }

    /// Nobody wants any number of his own any more.
    pub fn unscale(&mut self) {
        self.scale.clear();
        self.over.clear();
        self.lapses.clear();
        self.lapsed.clear();
    }

    /// The wishes that this manifest ends, once it has taken over: of those that hold, and of those that hold
    /// again should what runs give way.
    pub(super) fn ended_by(&self, manifest: &Manifest, said: &Said) -> BTreeSet<String> {
        let holds = self.scale.keys().map(|name| (name, self.given_over(name)));
        let may_hold = self.lapsed.iter().map(|(name, it)| (name, it.over));
        let ends = |(name, over): &(&String, Over)| {
            match (over.named, manifest.processes.get(*name).map(|it| it.instances)) {
                // How many are wanted of it no manifest has ever said (D88).
                (None, None) => false,
                (Some(_), None) => true,
                (_, Some(_)) if said.typed && *name == TYPED => true,
                (before, now) => said.counts.say(name) && before != now,
            }
        };
        holds.chain(may_hold).filter(ends).map(|(name, _)| name.clone()).collect()
    }

    /// What is declared takes over: the wishes that it ends are taken away, to be given to
    /// [`end`](AppRecord::end).
    pub(super) fn take_ended(&mut self) -> BTreeMap<String, Lapsed> {
        let over = |name: &String| (name.clone(), self.given_over(name));
        let all: Vec<(String, Over)> = self.lapses.iter().map(over).collect();
        self.lapses.clear();
        let mut ended = BTreeMap::new();
        for (name, over) in all {
            self.over.remove(&name);
            let held = self.scale.remove(&name);
            ended.extend(held.map(|instances| (name, Lapsed { instances, over })));
        }
        ended
    }

    /// They have ended, for good where there is no version to go back to.
    pub(super) fn end(&mut self, ended: BTreeMap<String, Lapsed>) {
        if self.last_good.is_some() {
            for (name, it) in ended {
                // What was wanted while that version ran is what it was given over first.
                self.lapsed.entry(name).or_insert(it);
            }
        }
    }

    /// The version before runs again: so do as many of it as somebody wanted, unless he has asked for
    /// others since.
    pub(super) fn hold_again(&mut self) {
        for (name, Lapsed { instances, over }) in std::mem::take(&mut self.lapsed) {
            self.over.insert(name.clone(), over);
            self.scale.insert(name, instances);
        }
    }

    /// What each wish was given over.
    pub(super) fn all_over(&self) -> BTreeMap<String, Over> {
        self.scale.keys().map(|name| (name.clone(), self.given_over(name))).collect()
    }

    /// What the wish for this process was given over.
    fn given_over(&self, process: &str) -> Over {
        let of_older_program = || {
            let lapses = self.lapses.contains(process);
            let of_release = self.release.as_ref().map(|release| &release.manifest);
            let manifest = of_release.filter(|_| lapses).unwrap_or(&self.manifest);
            let named = manifest.processes.get(process).map(|it| it.instances);
            Over { named, stands_in: lapses || named.is_none() }
        };
        self.over.get(process).copied().unwrap_or_else(of_older_program)
    }
}

#[cfg(test)]
mod tests;
