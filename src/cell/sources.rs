//! Directories of apps that were sent here: kept, so that an app can be staged again.
//!
//! ```text
//! <state>/sources/NAME/<number>.new     while it comes in
//! <state>/sources/NAME/<number>         whole; a later one has a higher number
//! ```
//!
//! One that no app and no revision names goes, but for the newest of its app: that may be about to be
//! applied. What a crash has left, the next daemon removes.

use super::error::{CellError, Kind};
use super::record::AppRecord;
use super::shared::{Cell, Shared};
use crate::config::merge::{over, quoted};
use crate::lifecycle::{self, pack};
use crate::model::manifest::{Manifest, SOURCE_MAX};
use crate::sys::file;
use crate::unit::{AppName, Bytes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Their directory in the state directory.
const SOURCES: &str = "sources";

/// Sources of one app that wait for it.
const SENT_MAX: usize = 3;

/// How long what was sent waits for being applied.
const APPLIED_WITHIN: Duration = Duration::from_secs(600);

impl Cell {
    /// Unpacks the tar of an app's directory, and gives the directory that it is in now. Blocking.
    pub fn take_source(&self, name: &AppName, tar: impl Read) -> Result<PathBuf, CellError> {
        let dir = self.shared.paths.state.join(SOURCES).join(name.as_str());
        // Before it has its name: whoever else sends one at this moment must not take it away.
        let note = |path: &Path| self.shared.state().sent.note(path, Instant::now());
        let whole = take(&dir, tar, note).map_err(|err| err.of(name, &dir))?;
        let needed: Vec<PathBuf> = {
            let mut state = self.shared.state();
            let known = state.apps.get(name).map(needed).unwrap_or_default();
            state.sent.applied(&known);
            known.into_iter().chain(state.sent.pending(Instant::now())).collect()
        };
        // Of an app that nobody has applied yet nothing else is collected before the next start.
        for path in earlier(&dir, &whole, &needed) {
            remove(&path);
        }
        Ok(whole)
    }

    /// Lets go of the source that was sent for a manifest which has been refused.
    pub(super) async fn refuse_source(&self, name: &AppName, text: &str) {
        let Some(path) = sent_for(&self.shared.paths.state, name, text) else { return };
        // A manifest that was copied from a revision may name one that is needed.
        let needed = self.shared.state().apps.get(name).map(needed).unwrap_or_default();
        if !needed.contains(&path) {
            smol::unblock(move || remove(&path)).await;
        }
    }

    /// `manifest` and its `text` with the source that the app has, where what was sent for it is the same,
    /// file by file: so nothing of the app changes by being sent again. `None`: it is another one.
    pub(super) async fn with_kept_source(
        &self,
        manifest: &Manifest,
        text: &str,
    ) -> Option<(Manifest, String)> {
        let new = sent_for(&self.shared.paths.state, &manifest.name, text)?;
        let old =
            self.shared.state().apps.get(&manifest.name).map(|app| app.manifest.source.clone())?;
        if old == new || old.parent() != new.parent() {
            return None;
        }
        let kept = old.clone();
        // What cannot be read is another one.
        let digest = |dir: &Path| pack::tree_digest(dir, &[]).ok();
        let is_same = smol::unblock(move || {
            let new = digest(&new);
            new.is_some() && new == digest(&old)
        });
        if !is_same.await {
            return None;
        }
        let path = format!("source.path = {}\n", quoted(&kept.to_string_lossy()));
        let text = over(text, &path).ok()?;
        Some((Manifest { source: kept, ..manifest.clone() }, text))
    }
}

/// Sources that have come whole and are about to be applied: of two who push one app at a time, each has
/// its own until then.
#[derive(Debug, Default)]
pub(super) struct Sent(BTreeMap<PathBuf, Instant>);

impl Sent {
    fn note(&mut self, path: &Path, now: Instant) {
        self.0.insert(path.to_owned(), now);
        let of_app = self.0.iter().filter(|(it, _)| it.parent() == path.parent());
        let mut of_app: Vec<_> = of_app.map(|(it, came)| (*came, it.clone())).collect();
        of_app.sort();
        for (_, old) in &of_app[..of_app.len().saturating_sub(SENT_MAX)] {
            self.0.remove(old);
        }
    }

    /// The record names these: from now on it says how long they are needed.
    fn applied(&mut self, needed: &[PathBuf]) {
        self.0.retain(|path, _| !needed.contains(path));
    }

    /// Those that may still be applied. Whoever sends something applies it right after that.
    fn pending(&mut self, now: Instant) -> Vec<PathBuf> {
        self.0.retain(|_, came| now.duration_since(*came) < APPLIED_WITHIN);
        self.0.keys().cloned().collect()
    }
}

/// Why a source is not here.
enum Untaken {
    /// Somebody else sends one, and has come to the same number.
    Busy,
    /// It has so many bytes.
    TooLarge(u64),
    /// What was done, and why it failed.
    Failed(&'static str, Box<dyn std::error::Error>),
}

impl Untaken {
    fn failed<E: std::error::Error + 'static>(doing: &'static str) -> impl Fn(E) -> Untaken {
        move |err| Untaken::Failed(doing, Box::new(err))
    }

    fn of(self, name: &AppName, dir: &Path) -> CellError {
        match self {
            Untaken::Busy => {
                let text =
                    format!("somebody else sends app {name} at this moment; try again after that");
                CellError::new(Kind::Conflict, text)
            }
            Untaken::TooLarge(bytes) => CellError::new(Kind::Failed, too_large(name, bytes)),
            Untaken::Failed(doing, err) => CellError::failed(
                format!("cannot {doing} the source of app {name} in {}", dir.display()),
                &*err,
            ),
        }
    }
}

/// Unpacks `tar` into the next number of `dir`, whole or not at all; `note` hears its name before it has it.
fn take(dir: &Path, tar: impl Read, note: impl FnOnce(&Path)) -> Result<PathBuf, Untaken> {
    let keep = Untaken::failed::<io::Error>("keep");
    let mut make = fs::DirBuilder::new();
    // What is in it may be secret.
    make.recursive(true).mode(0o700);
    make.create(dir).map_err(&keep)?;
    let numbers = numbers(dir).map_err(Untaken::failed("find"))?;
    let number = numbers.into_iter().max().unwrap_or(0) + 1;
    let draft = dir.join(format!("{number}.new"));
    fs::DirBuilder::new().mode(0o700).create(&draft).map_err(|err| match err.kind() {
        io::ErrorKind::AlreadyExists => Untaken::Busy,
        _ => keep(err),
    })?;
    let whole = dir.join(number.to_string());
    // On the disk before its name says that it is whole: the app's record will name it.
    let on_disk = || fs::File::open(&draft).and_then(|it| file::sync_file_system(it.as_fd()));
    let unpacked = lifecycle::unpack_source(tar, &draft)
        .map_err(Untaken::failed("unpack"))
        .and_then(|()| fits(&draft))
        .and_then(|()| on_disk().map_err(&keep))
        .and_then(|()| {
            note(&whole);
            fs::rename(&draft, &whole).map_err(&keep)
        });
    match unpacked {
        Ok(()) => Ok(whole),
        Err(err) => {
            let _ = fs::remove_dir_all(&draft);
            Err(err)
        }
    }
}

/// Refuses what is larger than may be sent: a file of holes takes none of it here, and all of it once it
/// is staged.
fn fits(dir: &Path) -> Result<(), Untaken> {
    let bytes = lifecycle::survey(dir, &[]).map_err(Untaken::failed("look through"))?.bytes;
    if bytes > SOURCE_MAX { Err(Untaken::TooLarge(bytes)) } else { Ok(()) }
}

fn too_large(name: &AppName, bytes: u64) -> String {
    format!(
        "the source of app {name} is {}, and {} at most are taken: name what the app does not need in \
         .cfignore (a file with holes counts in full)",
        Bytes::mib(bytes.div_ceil(1 << 20)),
        Bytes::new(SOURCE_MAX)
    )
}

impl Shared {
    /// Removes the sources that nothing needs. `begins`: the daemon does, so nothing comes in now. Blocking.
    pub(super) fn collect_sources(self: &Arc<Self>, begins: bool) {
        let root = self.paths.state.join(SOURCES);
        let (names, needed): (BTreeSet<String>, BTreeSet<PathBuf>) = {
            let mut state = self.state();
            let sent = state.sent.pending(Instant::now());
            let names = state.apps.keys().map(|name| name.as_str().to_owned());
            let names = names.chain(state.set_aside.keys().cloned()).collect();
            // Nobody can tell which of theirs are.
            let unknown =
                state.set_aside.keys().flat_map(|name| wholes(&root.join(name)).into_values());
            (names, state.apps.values().flat_map(needed).chain(unknown).chain(sent).collect())
        };
        collect(&root, &names, &needed, begins);
    }

    /// Those of an app that is deleted. Blocking.
    pub(super) fn remove_sources(&self, name: &AppName) {
        remove(&self.paths.state.join(SOURCES).join(name.as_str()));
    }
}

/// Removes what is below `root` of apps that are not among `names`, and of the others what is neither
/// `needed` nor the newest that is whole.
fn collect(root: &Path, names: &BTreeSet<String>, needed: &BTreeSet<PathBuf>, begins: bool) {
    let apps = fs::read_dir(root).into_iter().flatten().flatten();
    for app in apps.map(|item| item.path()) {
        let known = app.file_name().is_some_and(|name| names.contains(&*name.to_string_lossy()));
        let newest = wholes(&app).keys().next_back().copied().unwrap_or(0);
        for item in fs::read_dir(&app).into_iter().flatten().flatten() {
            let path = item.path();
            let number = item.file_name().to_string_lossy().parse::<u64>();
            let stays = match number {
                // A later one has come in since.
                Ok(number) if known => number >= newest || needed.contains(&path),
                // It comes in, or its app is about to be applied.
                _ => !begins,
            };
            if !stays {
                remove(&path);
            }
        }
        if !known && begins {
            let _ = fs::remove_dir(&app);
        }
    }
}

/// The sources of `dir` that came before `whole` and are not `needed`.
fn earlier(dir: &Path, whole: &Path, needed: &[PathBuf]) -> Vec<PathBuf> {
    let all = wholes(dir).into_values();
    all.take_while(|path| path != whole).filter(|path| !needed.contains(path)).collect()
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            crate::warn!("source.left", path = path.display(), err = err);
        }
        _ => {}
    }
}

/// The sources that are whole, by number.
fn wholes(dir: &Path) -> BTreeMap<u64, PathBuf> {
    let items = fs::read_dir(dir).into_iter().flatten().flatten();
    let whole = |item: fs::DirEntry| Some((item.file_name().to_str()?.parse().ok()?, item.path()));
    items.filter_map(whole).collect()
}

/// The sources that an app may be staged from again.
fn needed(app: &AppRecord) -> Vec<PathBuf> {
    let kept = app.kept().map(|release| release.manifest.source.clone());
    kept.chain([app.manifest.source.clone()]).collect()
}

/// The directory that was sent here for app `name`, if it is that what manifest `text` says.
fn sent_for(state: &Path, name: &AppName, text: &str) -> Option<PathBuf> {
    let text: toml::Table = text.parse().ok()?;
    let path = PathBuf::from(text.get("source")?.get("path")?.as_str()?);
    let number = path.file_name()?.to_str()?;
    let whole = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    let ours = state.join(SOURCES).join(name.as_str()).join(number);
    (whole && path == ours).then_some(ours)
}

/// The numbers of an app's sources, those included that come in.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    for item in fs::read_dir(dir)? {
        let name = item?.file_name();
        let name = name.to_string_lossy();
        all.extend(name.trim_end_matches(".new").parse::<u64>());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of sources that goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let root = format!("terrarium-sources-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(root);
            let _ = fs::remove_dir_all(&root);
            Root(root)
        }

        fn make(&self, names: &[&str]) {
            for name in names {
                fs::create_dir_all(self.0.join(name).join("some")).expect("directory");
            }
        }

        fn names(&self, app: &str) -> Vec<String> {
            let items = fs::read_dir(self.0.join(app)).into_iter().flatten().flatten();
            let mut names: Vec<_> =
                items.map(|item| item.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn tar(path: &str) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append(&header, &b"x"[..]).expect("entry");
        tar.into_inner().expect("archive")
    }

    #[test]
    fn only_a_directory_that_was_sent_goes_with_a_refused_manifest() {
        let name: AppName = "shop".parse().expect("a name");
        let of = |path: &str| {
            let text = format!("name = \"shop\"\nsource = {{ path = \"{path}\" }}\n");
            sent_for(Path::new("/state"), &name, &text)
        };
        assert_eq!(of("/state/sources/shop/12"), Some("/state/sources/shop/12".into()));
        for other in [
            "/home/joe/shop",
            "/state/sources/shop",
            "/state/sources/shop/12.new",
            "/state/sources/shop/..",
            "/state/sources/shop/../../7",
            "/state/sources/other/12",
            "/state/sources/shop/12/inner",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(sent_for(Path::new("/state"), &name, "no [toml"), None);
    }

    #[test]
    fn a_source_is_whole_or_not_there() {
        let root = Root::new("take");
        let dir = root.0.join("web");
        // Who hears of it does so before it is there: nobody can take it away in between.
        let mut told = None;
        let note = |path: &Path| told = Some((path.to_owned(), path.exists()));
        let one = take(&dir, &tar("a")[..], note).ok().expect("taken");
        assert_eq!(told, Some((one.clone(), false)));
        assert_eq!((one.clone(), fs::read(one.join("a")).ok()), (dir.join("1"), Some(b"x".into())));
        for bad in [tar("../a"), tar("/a"), tar("a")[..600].to_vec()] {
            assert!(matches!(take(&dir, &bad[..], |_| ()), Err(Untaken::Failed("unpack", _))));
        }
        assert_eq!(root.names("web"), ["1"], "what failed leaves nothing");
        // Another one comes in.
        root.make(&["web/2.new"]);
        assert_eq!(take(&dir, &tar("a")[..], |_| ()).ok(), Some(dir.join("3")));
        root.make(&["web/4"]);
        let needed = [dir.join("1")];
        assert_eq!(earlier(&dir, &dir.join("4"), &needed), [dir.join("3")]);
    }

    #[test]
    fn each_of_two_who_send_one_app_has_his_until_it_is_applied() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let [one, two] = ["web/1", "web/2"].map(PathBuf::from);
        sent.note(&one, now);
        sent.note(&two, now + Duration::from_secs(1));
        assert_eq!(sent.pending(now + Duration::from_secs(2)), [one.clone(), two.clone()]);
        sent.applied(std::slice::from_ref(&two));
        assert_eq!(sent.pending(now + Duration::from_secs(2)), [one]);
        assert!(sent.pending(now + APPLIED_WITHIN).is_empty(), "nobody applies it any more");
    }

    #[test]
    fn what_no_app_needs_goes_but_for_the_newest() {
        let root = Root::new("collect");
        let all = ["web/1", "web/2", "web/3", "web/4", "web/5.new", "new/1", "new/2.new"];
        root.make(&all);
        let names = BTreeSet::from(["web".to_owned()]);
        let needed = BTreeSet::from([root.0.join("web/2")]);
        collect(&root.0, &names, &needed, false);
        assert_eq!(root.names("web"), ["2", "4", "5.new"], "4 may be about to be applied");
        assert_eq!(root.names("new"), ["1", "2.new"], "its app may be about to be applied");
        collect(&root.0, &names, &needed, true);
        assert_eq!(root.names("web"), ["2", "4"], "nobody sends it any more");
        assert!(!root.0.join("new").exists());
        root.make(&["web/12"]);
        collect(&root.0, &names, &BTreeSet::new(), false);
        assert_eq!(root.names("web"), ["12"], "by number, not by name");
    }
}
