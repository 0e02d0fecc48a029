//! What is kept about an app, as it stands in the records.

use super::scaled::{Lapsed, Over, Said};
use crate::model::container::LrpContainer;
use crate::model::image::StagedImage;
use crate::model::manifest::{Manifest, Process};
use crate::model::task::StagingResult;
use crate::model::view::Pushed;
use crate::stage::types;
use crate::unit::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// As last declared.
    pub manifest: Manifest,
    /// The file that it was declared in.
    pub file: PathBuf,
    /// What was pushed, of an app that was declared so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushed: Option<Pushed>,
    /// Changes with each declaration; what was staged for an older one is not the last word. Of two apps
    /// the one that was asked for later begins with the higher one: see [`generation_after`].
    pub generation: u64,
    /// The generation whose staging has been decided, with or without success.
    pub staged: Option<u64>,
    /// Why the last staging failed.
    pub failure: Option<String>,
    /// It failed as its image could not be reached: it is tried again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
    /// What runs: the last declaration that could be staged.
    pub release: Option<Release>,
    /// `release` has run with all its instances.
    #[serde(default)]
    pub proven: bool,
    /// What ran before `release`, until that is proven: to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Release>,
    /// Instances by process, where `scale` has overridden the manifest.
    pub scale: BTreeMap<String, u32>,
    /// What each of them was given over; of an older program nothing is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub over: BTreeMap<String, Over>,
    /// Those of them that the last declaration ends: they hold until it takes over.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lapses: BTreeSet<String>,
    /// Those that have ended with `release`: they hold again should it give way to `last_good`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lapsed: BTreeMap<String, Lapsed>,
    /// Counts wishes for fresh instances: `restart` adds one.
    pub restarts: u64,
    /// Nothing shall run.
    pub stopped: bool,
    /// It belongs to a `run` in the foreground and goes with it, or with the daemon.
    #[serde(default)]
    pub temporary: bool,
    /// On its way out: removed as soon as nothing of it runs.
    pub deleting: bool,
    /// It was asked for by the record of a container; the manifest only describes it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<LrpContainer>>,
    /// What was asked for under the same name while it is on its way out: it is next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<Box<LrpContainer>>,
    /// What somebody has asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wish: Option<Wish>,
    /// The text of `manifest`, unless it is longer than is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What has run, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Revision>,
    /// Digest of the declaration that somebody has gone back from: `file` may still hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overruled: Option<Digest>,
    /// The generation that is staged whether anything has changed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<u64>,
    /// How far the release hook of a generation is; `None`: of none it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooked: Option<Hooked>,
}

/// A release hook that has begun, which it does once for what was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooked {
    /// Of which generation.
    pub generation: u64,
    /// It had no objection. Recorded together with what follows from that.
    pub passed: bool,
}

/// A release that has run, to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Counted from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub made_ms: u64,
    /// What had been asked for.
    pub why: String,
    /// The manifest's text, unless it is longer than is kept.
    pub text: String,
    /// What ran.
    pub release: Release,
    /// What has become of it.
    #[serde(default, skip_serializing_if = "Fate::is_good")]
    pub fate: Fate,
}

/// What has become of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It has run with all its instances, or is of an older program, which did not note that.
    #[default]
    Good,
    /// Nobody has seen that yet.
    Unproven,
    /// It never did, and gave way to the version before, for this reason.
    Failed(String),
}

impl Fate {
    /// Once at least all was well with it.
    pub fn is_good(&self) -> bool {
        *self == Fate::Good
    }
}

/// What somebody has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The verb: `apply`, `push`, `start`, `stop`, `restart`, `scale`, `restage`, `rollback`, `delete`; of
    /// an LRP by record `desire`, `update`.
    pub what: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Wish {
    /// `what` was asked for at that time.
    pub fn new(what: &str, at_ms: u64) -> Option<Wish> {
        Some(Wish { what: what.to_owned(), at_ms })
    }
}

/// A declaration that was staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The declaration.
    pub manifest: Manifest,
    /// SHA-256 of everything that staging depends on; equal: no new staging.
    pub fingerprint: Digest,
    /// What the builder said.
    pub result: StagingResult,
    /// Chain id of the stack's layer; of an app from an image the image's digest.
    pub stack: Digest,
    /// Chain id of the droplet's layer above it; of an app from an image the image's digest.
    pub droplet: Digest,
    /// The image, for an app that comes as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<StagedImage>,
    /// The record, for one that was asked for by that of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Box<LrpContainer>>,
}

impl AppRecord {
    /// One that was just declared: nothing of it is staged.
    pub fn new(manifest: Manifest, file: PathBuf, generation: u64) -> AppRecord {
        AppRecord {
            manifest,
            file,
            pushed: None,
            generation,
            staged: None,
            failure: None,
            away: false,
            release: None,
            proven: false,
            last_good: None,
            scale: BTreeMap::new(),
            over: BTreeMap::new(),
            lapses: BTreeSet::new(),
            lapsed: BTreeMap::new(),
            restarts: 0,
            stopped: false,
            temporary: false,
            deleting: false,
            container: None,
            successor: None,
            wish: None,
            text: String::new(),
            revisions: Vec::new(),
            overruled: None,
            forced: None,
            hooked: None,
        }
    }

    /// Everything that may run again.
    pub fn kept(&self) -> impl Iterator<Item = &Release> {
        self.releases().chain(self.revisions.iter().map(|revision| &revision.release))
    }

    /// The source that `manifest` names is one that it may be staged from again.
    pub fn has_source(&self, manifest: &Manifest) -> bool {
        let mut kept = self.kept().map(|release| &release.manifest).chain([&self.manifest]);
        kept.any(|it| it.source == manifest.source)
    }

    /// What a declaration makes of it: what runs goes on until that is staged.
    pub fn declared(self, manifest: Manifest, file: PathBuf, said: &Said) -> AppRecord {
        AppRecord {
            lapses: self.ended_by(&manifest, said),
            // Of an older program's wishes, too, while it is known.
            over: self.all_over(),
            container: None,
            manifest,
            file,
            pushed: None,
            generation: self.generation + 1,
            failure: None,
            away: false,
            stopped: false,
            ..self
        }
    }

    /// It shall run; `crashed`: some of it has ended by itself. What runs goes on as it is.
    pub fn start(&mut self, crashed: bool) {
        match self.stopped || crashed {
            true => self.restart(),
            false => self.run_again(),
        }
    }

    /// It shall run in fresh instances.
    pub fn restart(&mut self) {
        self.restarts += 1;
        self.run_again();
    }

    /// It shall run; what failed gets a new chance.
    fn run_again(&mut self) {
        let undecided = self.staged != Some(self.generation);
        let failed = self.failure.take().is_some();
        self.away = false;
        // Its hook was ended with it. What failed while this one is undecided was the version before, and
        // the hook may be running.
        if (failed && !undecided) || (self.stopped && undecided) {
            (self.staged, self.hooked) = (None, None);
        }
        self.stopped = false;
    }

    /// The hook of what is declared, if that has begun.
    pub fn hook(&self) -> Option<Hooked> {
        self.hooked.filter(|hooked| hooked.generation == self.generation)
    }

    /// What runs, and what it may go back to.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.release.iter().chain(&self.last_good)
    }
}

/// The generation of what is asked for at `now_ms` by the box's clock, after all that had one up to
/// `newest`: a clock that was set back makes nothing older than what was there before.
pub fn generation_after(newest: u64, now_ms: u64) -> u64 {
    now_ms.max(newest.saturating_add(1))
}

/// The words for all that happens to an app's record. Taken apart in [`turn`], so that a word that it
/// does not give does not compile.
pub const TURNS: [&str; 7] = ["declare", "staged", "judged", "hook", "wish", "delete", "remove"];

/// A word for what happens to an app's record.
pub fn turn(old: Option<&AppRecord>, new: Option<&AppRecord>) -> &'static str {
    let [declare, staged, judged, hook, wish, delete, remove] = TURNS;
    match (old, new) {
        (_, None) => remove,
        (None, Some(_)) => declare,
        (Some(old), Some(new)) if old.generation != new.generation => declare,
        (Some(old), Some(new)) if old.deleting != new.deleting => delete,
        (Some(old), Some(new)) if old.staged != new.staged => staged,
        (Some(old), Some(new)) if (old.proven, &old.last_good) != (new.proven, &new.last_good) => {
            judged
        }
        (Some(old), Some(new)) if old.hooked != new.hooked && new.hook().is_some() => hook,
        (Some(_), Some(_)) => wish,
    }
}

impl Release {
    /// The processes that its droplet has beside those of the manifest.
    pub fn added(&self) -> BTreeMap<String, Process> {
        match self.image.is_some() || self.container.is_some() {
            true => BTreeMap::new(),
            false => types::added(&self.manifest, &self.result),
        }
    }

    /// The names of all its processes.
    pub fn processes(&self) -> BTreeSet<String> {
        self.manifest.processes.keys().cloned().chain(self.added().into_keys()).collect()
    }

    /// What is noted of its hook once it was staged for `generation`: it had no objection, or was not asked as
    /// nothing has changed, and would have none for what runs already.
    pub fn hooked(&self, generation: u64) -> Option<Hooked> {
        self.manifest.release_hook.as_ref().map(|_| Hooked { generation, passed: true })
    }

    /// The layers of its containers, lowest first.
    pub fn layers(&self) -> Vec<Digest> {
        match &self.image {
            Some(image) => image.layers.clone(),
            None if self.container.is_some() => vec![self.stack],
            None => vec![self.stack, self.droplet],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::releases::tests::app as declared;
    use super::*;

    /// Who asks for a new try has his hook run again; nobody else.
    #[test]
    fn a_hook_that_has_begun_is_forgotten_only_with_what_a_person_asks_for() {
        let mut begun = declared("memory = \"32MiB\"");
        begun.hooked = Some(Hooked { generation: begun.generation, passed: false });
        (begun.staged, begun.failure, begun.stopped) = (None, None, false);
        assert_eq!(turn(Some(&AppRecord { hooked: None, ..begun.clone() }), Some(&begun)), "hook");
        let after = |change: fn(&mut AppRecord)| {
            let mut app = begun.clone();
            change(&mut app);
            app.start(false);
            app.hook()
        };
        assert_eq!(after(|_| {}), begun.hooked, "it runs at this moment");
        let failed = |app: &mut AppRecord| {
            (app.staged, app.failure) = (Some(app.generation), Some("it said no".into()));
        };
        assert_eq!(after(failed), None);
        let before = |app: &mut AppRecord| app.failure = Some("the one before crashed".into());
        assert_eq!(after(before), begun.hooked, "it runs at this moment");
        assert_eq!(after(|app| app.stopped = true), None, "it was ended with its app");
        let passed = |app: &mut AppRecord| {
            (app.stopped, app.staged) = (true, Some(app.generation));
            app.hooked = Some(Hooked { generation: app.generation, passed: true });
        };
        assert!(after(passed).is_some_and(|hook| hook.passed), "there is nothing to stage again");
        // One that was not asked, as nothing had changed, is none that has to be asked for what runs.
        let with_hook = declared("memory = \"32MiB\"\n[hook.release]\ncommand = \"migrate\"\n");
        let release = with_hook.release.clone().expect("a release");
        let hooked = Some(Hooked { generation: with_hook.generation, passed: true });
        assert_eq!(release.hooked(with_hook.generation), hooked);
        assert_eq!(app_without_hook().hooked(1), None);
        // What is declared anew has a hook of its own.
        let next =
            begun.clone().declared(begun.manifest.clone(), begun.file.clone(), &Said::default());
        assert_eq!(next.hook(), None);
    }

    fn app_without_hook() -> Release {
        declared("memory = \"32MiB\"").release.expect("a release")
    }

    /// A record of an older program has no word of it, and one that is not away says none.
    #[test]
    fn only_what_is_away_is_tried_again_and_whoever_asks_for_more_begins_anew() {
        let mut away = declared("memory = \"32MiB\"");
        (away.staged, away.failure, away.away) =
            (Some(away.generation), Some("no registry".into()), true);
        let text = |app: &AppRecord| serde_json::to_string(app).expect("JSON");
        let read = |text: &str| serde_json::from_str::<AppRecord>(text).expect("a record");
        assert_eq!(read(&text(&away)), away);
        let here = AppRecord { away: false, ..away.clone() };
        assert!(!text(&here).contains("away"));
        assert_eq!(read(&text(&here)), here);
        let next =
            away.clone().declared(away.manifest.clone(), away.file.clone(), &Said::default());
        assert_eq!((next.away, next.failure), (false, None));
        away.start(false);
        assert_eq!((away.away, away.staged), (false, None), "at once");
    }

    /// Before and after the write of everything that becomes of an app, and at no other.
    #[test]
    fn the_daemon_can_die_at_every_turn() {
        let of_turn = |name: &&str| [format!("app:{name}:asked"), format!("app:{name}:written")];
        let all: Vec<String> = TURNS.iter().flat_map(of_turn).collect();
        let of_source = crate::sys::fault::POINTS.iter().filter(|point| point.starts_with("app:"));
        assert_eq!(BTreeSet::from_iter(all), of_source.map(|point| point.to_string()).collect());
    }
}
